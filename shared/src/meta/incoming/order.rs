//! Products of a catalog that were ordered.

use super::super::text::{id_at, shown_at};
use serde::Serialize;
use serde_json::{Number, Value};

/// Products of an order.
const ITEMS_MAX: usize = 200;

/// One product of an order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct OrderItem {
    /// The shop's id of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_retailer_id: Option<String>,
    /// How many.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<f64>))]
    pub quantity: Option<Number>,
    /// What one costs.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "schema", schema(value_type = Option<f64>))]
    pub item_price: Option<Number>,
    /// In which currency.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
}

/// Reads what was ordered; what is no object is passed over.
pub(super) fn items(own: &Value) -> Vec<OrderItem> {
    let items = own.get("product_items").and_then(Value::as_array);
    let items = items.into_iter().flatten().filter(|item| item.is_object());
    items
        .take(ITEMS_MAX)
        .map(|item| OrderItem {
            product_retailer_id: id_at(item, "/product_retailer_id"),
            quantity: number(item.get("quantity")),
            item_price: number(item.get("item_price")),
            currency: shown_at(item, "/currency"),
        })
        .collect()
}

/// A number, or a text that is one.
fn number(value: Option<&Value>) -> Option<Number> {
    match value? {
        Value::Number(number) => Some(number.clone()),
        Value::String(text) => match serde_json::from_str(text.trim()).ok()? {
            Value::Number(number) => Some(number),
            _ => None,
        },
        _ => None,
    }
}
