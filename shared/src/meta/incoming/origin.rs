//! Where a message comes from: the message it answers, whom it was forwarded by, the ad or the product that led to it.

use super::super::text::{id_at, shown_at, text_at};
use serde::Serialize;
use serde_json::Value;
use std::fmt;

/// What a message answers, and whether it was forwarded.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema), schema(as = MessageContext))]
pub struct Context {
    /// Meta's id of the message it answers or quotes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The number that sent that one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether it was forwarded, and not written by who sent it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub forwarded: bool,
    /// Whether it was forwarded more than five times.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub frequently_forwarded: bool,
    /// The product it asks about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub referred_product: Option<Product>,
}

/// A product of a catalog.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Product {
    /// The catalog.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catalog_id: Option<String>,
    /// The shop's id of the product.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub product_retailer_id: Option<String>,
}

/// The ad or post from which a person wrote.
#[derive(Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Referral {
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_url: Option<String>,
    /// Meta's id of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_id: Option<String>,
    /// `ad` or `post`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source_type: Option<String>,
    /// Its headline.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headline: Option<String>,
    /// Its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// `image` or `video`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// Where its image is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_url: Option<String>,
    /// Where its video is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub video_url: Option<String>,
    /// Where the still of its video is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub thumbnail_url: Option<String>,
    /// Meta's id of the click, to report back what came of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ctwa_clid: Option<String>,
    /// What the ad greeted the person with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub welcome_message: Option<String>,
}

/// Shows nothing: it names a person's click.
impl fmt::Debug for Referral {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Referral").finish_non_exhaustive()
    }
}

/// Shows nothing: it may hold a number.
impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    pub(super) fn read(raw: &Value) -> Option<Self> {
        let context = raw.get("context").filter(|context| context.is_object())?;
        let is = |name: &str| context.get(name).and_then(Value::as_bool) == Some(true);
        let product = context.get("referred_product").and_then(|product| {
            let (catalog_id, product_retailer_id) = (
                id_at(product, "/catalog_id"),
                id_at(product, "/product_retailer_id"),
            );
            (catalog_id.is_some() || product_retailer_id.is_some()).then_some(Product {
                catalog_id,
                product_retailer_id,
            })
        });
        let read = Self {
            id: id_at(context, "/id"),
            from: id_at(context, "/from"),
            forwarded: is("forwarded") || is("frequently_forwarded"),
            frequently_forwarded: is("frequently_forwarded"),
            referred_product: product,
        };
        let says = read.id.is_some() || read.forwarded || read.referred_product.is_some();
        says.then_some(read)
    }
}

impl Referral {
    pub(super) fn read(raw: &Value) -> Option<Self> {
        let referral = raw
            .get("referral")
            .filter(|referral| referral.is_object())?;
        let (shown, text) = (
            |pointer| shown_at(referral, pointer),
            |pointer| text_at(referral, pointer),
        );
        Some(Self {
            source_url: text("/source_url"),
            source_id: id_at(referral, "/source_id"),
            source_type: text("/source_type"),
            headline: shown("/headline"),
            body: shown("/body"),
            media_type: text("/media_type"),
            image_url: text("/image_url"),
            video_url: text("/video_url"),
            thumbnail_url: text("/thumbnail_url"),
            ctwa_clid: id_at(referral, "/ctwa_clid"),
            welcome_message: shown("/welcome_message/text"),
        })
    }
}
