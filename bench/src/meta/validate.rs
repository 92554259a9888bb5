//! Checks the body of a send the way the Graph API does: shape and limits per message type.
//!
//! Written from Meta's documentation and not from the workers' rules, which it judges.
//! A type that is not checked in detail only has to carry its object; what Meta adds tomorrow is accepted.

use super::errors::GraphError;
use serde_json::Value;

const OPAQUE_BYTES_MAX: usize = 512;
const TYPES: [&str; 11] = [
    "text",
    "image",
    "video",
    "audio",
    "document",
    "sticker",
    "location",
    "contacts",
    "reaction",
    "interactive",
    "template",
];

/// Who a send is addressed to; `to` wins over `recipient`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// A phone number, as written.
    Phone(String),
    User(String),
}

/// A send that passed the checks.
#[derive(Debug, Clone, PartialEq)]
pub struct Outgoing {
    pub address: Address,
    pub kind: String,
    /// What the person reads in one line.
    pub text: String,
    /// The content under the type's name.
    pub content: Value,
    pub opaque: Option<String>,
    /// The uploaded media it refers to.
    pub media_id: Option<String>,
    pub template: Option<String>,
}

type Checked<T> = Result<T, GraphError>;

pub fn outgoing(body: &Value) -> Checked<Outgoing> {
    product(body)?;
    let address = address(body)?;
    let kind = match body.get("type") {
        None => "text",
        Some(kind) => kind
            .as_str()
            .ok_or_else(|| invalid("type must be a string"))?,
    };
    if !TYPES.contains(&kind) {
        return Err(invalid(format!(
            "Param type must be one of {{{}}}",
            TYPES.join(", ")
        )));
    }
    let content = body.get(kind).ok_or_else(|| missing(kind))?;
    let text = match kind {
        "text" => string(content, "/body", 4096)?,
        "image" | "video" | "audio" | "document" | "sticker" => media(content)?,
        "location" => location(content)?,
        "contacts" => {
            filled(content, "", 257)?;
            "[contacts]".to_owned()
        }
        "reaction" => {
            string(content, "/message_id", 512)?;
            content
                .get("emoji")
                .and_then(Value::as_str)
                .ok_or_else(|| missing("reaction.emoji"))?
                .to_owned()
        }
        "template" => template(content)?,
        _ => interactive(content)?,
    };
    Ok(Outgoing {
        address,
        kind: kind.to_owned(),
        text,
        content: content.clone(),
        opaque: optional(body, "/biz_opaque_callback_data", OPAQUE_BYTES_MAX)?,
        media_id: optional(content, "/id", 256)?,
        template: (kind == "template")
            .then(|| string(content, "/name", 512))
            .transpose()?,
    })
}

/// Reads a read receipt: the id of the message that was read.
pub fn read_receipt(body: &Value) -> Checked<String> {
    product(body)?;
    if body.get("status").and_then(Value::as_str) != Some("read") {
        return Err(GraphError::new(131_009, "status must be `read`"));
    }
    if let Some(typing) = body.get("typing_indicator")
        && typing.get("type").and_then(Value::as_str) != Some("text")
    {
        return Err(GraphError::new(
            131_009,
            "typing_indicator.type must be `text`",
        ));
    }
    let id = string(body, "/message_id", 512)?;
    if id.starts_with("wamid.") {
        Ok(id)
    } else {
        Err(GraphError::new(131_009, "message_id is not a message id"))
    }
}

fn product(body: &Value) -> Checked<()> {
    match body.get("messaging_product").and_then(Value::as_str) {
        Some("whatsapp") => Ok(()),
        Some(_) => Err(invalid("Param messaging_product must be one of {WHATSAPP}")),
        None => Err(invalid("The parameter messaging_product is required.")),
    }
}

fn address(body: &Value) -> Checked<Address> {
    if let Some(to) = body.get("to").filter(|to| !to.is_null()) {
        let to = to
            .as_str()
            .ok_or_else(|| invalid("Param to must be a string"))?;
        let digits = to.chars().filter(char::is_ascii_digit).count();
        let phone = to
            .chars()
            .all(|c| c.is_ascii_digit() || "+-() ".contains(c))
            && (5..=20).contains(&digits);
        let address = phone.then(|| Address::Phone(to.to_owned()));
        return address.ok_or_else(|| GraphError::new(131_009, "to is not a phone number"));
    }
    let recipient = body
        .get("recipient")
        .ok_or_else(|| invalid("The parameter to is required."))?;
    let user = recipient.as_str().filter(|user| is_user_id(user));
    let address = user.map(|user| Address::User(user.to_owned()));
    address.ok_or_else(|| GraphError::new(131_009, "recipient is not a business-scoped user id"))
}

/// Tells whether a text is a business-scoped user id: country, dot, optionally `ENT.`, 1 to 128 letters or digits.
pub fn is_user_id(text: &str) -> bool {
    let Some((country, rest)) = text.split_once('.') else {
        return false;
    };
    let id = rest.strip_prefix("ENT.").unwrap_or(rest);
    country.len() == 2
        && country.bytes().all(|b| b.is_ascii_uppercase())
        && (1..=128).contains(&id.len())
        && id.bytes().all(|b| b.is_ascii_alphanumeric())
}

fn media(content: &Value) -> Checked<String> {
    let (id, link) = (
        optional(content, "/id", 256)?,
        optional(content, "/link", 2048)?,
    );
    match (&id, &link) {
        (Some(_), Some(_)) => Err(invalid("give either id or link")),
        (None, None) => Err(missing("id or link")),
        (None, Some(link)) if !link.starts_with("http://") && !link.starts_with("https://") => {
            Err(GraphError::new(131_009, "link is not a web address"))
        }
        _ => Ok(optional(content, "/caption", 1024)?.unwrap_or_else(|| "[media]".to_owned())),
    }
}

fn location(content: &Value) -> Checked<String> {
    for (name, bound) in [("latitude", 90.0), ("longitude", 180.0)] {
        let degrees = content.get(name).ok_or_else(|| missing(name))?;
        let degrees = degrees
            .as_f64()
            .or_else(|| degrees.as_str().and_then(|text| text.parse().ok()));
        if !degrees.is_some_and(|degrees| degrees.abs() <= bound) {
            return Err(GraphError::new(131_009, format!("{name} is out of range")));
        }
    }
    Ok(optional(content, "/name", 1000)?.unwrap_or_else(|| "[location]".to_owned()))
}

fn template(content: &Value) -> Checked<String> {
    string(content, "/language/code", 16)?;
    if content
        .get("components")
        .is_some_and(|components| !components.is_array())
    {
        return Err(invalid("template.components must be an array"));
    }
    string(content, "/name", 512)
}

fn interactive(content: &Value) -> Checked<String> {
    let kind = string(content, "/type", 64)?;
    let body_max = if kind == "list" { 4096 } else { 1024 };
    optional(content, "/footer/text", 60)?;
    optional(content, "/header/text", 60)?;
    match kind.as_str() {
        "button" => buttons(content)?,
        "list" => rows(content)?,
        "product" | "catalog_message" => {
            return Ok(
                optional(content, "/body/text", body_max)?.unwrap_or_else(|| format!("[{kind}]"))
            );
        }
        "cta_url" => {
            string(content, "/action/parameters/display_text", 20)?;
            string(content, "/action/parameters/url", 2000)?;
        }
        "flow" => {
            string(content, "/action/parameters/flow_cta", 30)?;
        }
        _ => {
            content
                .get("action")
                .ok_or_else(|| missing("interactive.action"))?;
        }
    }
    string(content, "/body/text", body_max)
}

fn buttons(content: &Value) -> Checked<()> {
    let mut ids = Vec::new();
    for button in filled(content, "/action/buttons", 3)? {
        string(button, "/reply/title", 20)?;
        ids.push(string(button, "/reply/id", 256)?);
    }
    unique(ids, "button")
}

fn rows(content: &Value) -> Checked<()> {
    string(content, "/action/button", 20)?;
    let sections = filled(content, "/action/sections", 10)?;
    let mut ids = Vec::new();
    for section in sections {
        if sections.len() > 1 {
            string(section, "/title", 24)?;
        }
        for row in filled(section, "/rows", 10)? {
            string(row, "/title", 24)?;
            optional(row, "/description", 72)?;
            ids.push(string(row, "/id", 200)?);
        }
    }
    if ids.len() > 10 {
        return Err(GraphError::new(
            131_009,
            "Total row count exceed max allowed count: 10",
        ));
    }
    unique(ids, "row")
}

fn unique(mut ids: Vec<String>, what: &str) -> Checked<()> {
    let count = ids.len();
    ids.sort();
    ids.dedup();
    if ids.len() == count {
        Ok(())
    } else {
        Err(GraphError::new(
            131_009,
            format!("{what} ids must be unique"),
        ))
    }
}

fn filled<'a>(value: &'a Value, pointer: &str, max: usize) -> Checked<&'a Vec<Value>> {
    let list = value
        .pointer(pointer)
        .and_then(Value::as_array)
        .ok_or_else(|| missing(&name(pointer)))?;
    if (1..=max).contains(&list.len()) {
        Ok(list)
    } else {
        Err(GraphError::new(
            131_009,
            format!("{} must hold 1 to {max} elements", name(pointer)),
        ))
    }
}

fn string(value: &Value, pointer: &str, max: usize) -> Checked<String> {
    let text = optional(value, pointer, max)?;
    text.filter(|text| !text.is_empty())
        .ok_or_else(|| missing(&name(pointer)))
}

fn optional(value: &Value, pointer: &str, max: usize) -> Checked<Option<String>> {
    let Some(text) = value.pointer(pointer).filter(|text| !text.is_null()) else {
        return Ok(None);
    };
    let text = text
        .as_str()
        .ok_or_else(|| invalid(format!("{} must be a string", name(pointer))))?;
    if text.chars().count() > max {
        return Err(invalid(format!(
            "Param {} must be at most {max} characters long",
            name(pointer)
        )));
    }
    Ok(Some(text.to_owned()))
}

fn name(pointer: &str) -> String {
    pointer.trim_start_matches('/').replace('/', ".")
}

fn invalid(details: impl Into<String>) -> GraphError {
    GraphError::new(100, details)
}

fn missing(name: &str) -> GraphError {
    GraphError::new(131_008, format!("Required parameter is missing: {name}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn send(kind: &str, content: Value) -> Result<Outgoing, u32> {
        let body =
            json!({"messaging_product": "whatsapp", "to": "+15551", "type": kind, kind: content});
        outgoing(&body).map_err(|error| error.code)
    }

    #[test]
    fn to_wins_over_recipient_and_one_of_them_is_needed() {
        let both = json!({"messaging_product": "whatsapp", "to": "+15551", "recipient": "US.1", "text": {"body": "x"}});
        assert_eq!(
            outgoing(&both).unwrap().address,
            Address::Phone("+15551".into())
        );
        let user =
            json!({"messaging_product": "whatsapp", "recipient": "US.1", "text": {"body": "x"}});
        assert_eq!(
            outgoing(&user).unwrap().address,
            Address::User("US.1".into())
        );
        let nobody = json!({"messaging_product": "whatsapp", "text": {"body": "x"}});
        assert_eq!(outgoing(&nobody).unwrap_err().code, 100);
        let wrong = json!({"messaging_product": "whatsapp", "to": "US.1", "text": {"body": "x"}});
        assert_eq!(outgoing(&wrong).unwrap_err().code, 131_009);
    }

    #[test]
    fn a_user_id_has_a_country_and_no_separators() {
        for good in ["US.13491208655302741918", "DE.ENT.a1"] {
            assert!(is_user_id(good), "{good}");
        }
        for bad in ["us.1", "US.", "US.1.2", "USA.1", "15551", "US.ENT."] {
            assert!(!is_user_id(bad), "{bad}");
        }
    }

    #[test]
    fn each_type_is_held_to_its_limits() {
        assert_eq!(
            send("text", json!({"body": "x".repeat(4096)}))
                .unwrap()
                .text
                .len(),
            4096
        );
        assert_eq!(send("text", json!({"body": "x".repeat(4097)})), Err(100));
        assert_eq!(send("text", json!({})), Err(131_008));
        assert_eq!(send("hologram", json!({})), Err(100));
        assert_eq!(
            send("image", json!({"id": "1", "link": "https://x"})),
            Err(100)
        );
        assert_eq!(send("image", json!({"link": "ftp://x"})), Err(131_009));
        assert!(send("image", json!({"link": "https://x/y.png"})).is_ok());
        assert_eq!(
            send("location", json!({"latitude": 91, "longitude": 0})),
            Err(131_009)
        );
        assert_eq!(send("template", json!({"name": "hello"})), Err(131_008));
        assert!(
            send(
                "template",
                json!({"name": "hello", "language": {"code": "en_US"}})
            )
            .is_ok()
        );
        assert!(send("reaction", json!({"message_id": "wamid.1", "emoji": ""})).is_ok());
    }

    #[test]
    fn buttons_and_rows_are_counted_and_unique() {
        let with = |ids: &[&str]| {
            let buttons: Vec<Value> = ids
                .iter()
                .map(|id| json!({"type": "reply", "reply": {"id": id, "title": id}}))
                .collect();
            json!({"type": "button", "body": {"text": "pick"}, "action": {"buttons": buttons}})
        };
        assert!(send("interactive", with(&["a", "b", "c"])).is_ok());
        assert_eq!(
            send("interactive", with(&["a", "b", "c", "d"])),
            Err(131_009)
        );
        assert_eq!(send("interactive", with(&["a", "a"])), Err(131_009));
        let rows: Vec<Value> = (0..6)
            .map(|n| json!({"id": n.to_string(), "title": "t"}))
            .collect();
        let again: Vec<Value> = (6..12)
            .map(|n| json!({"id": n.to_string(), "title": "t"}))
            .collect();
        let list = json!({"type": "list", "body": {"text": "pick"}, "action": {"button": "Open",
            "sections": [{"title": "A", "rows": rows}, {"title": "B", "rows": again}]}});
        assert_eq!(send("interactive", list), Err(131_009));
    }

    #[test]
    fn a_read_receipt_may_carry_a_typing_indicator() {
        let mut body = json!({"messaging_product": "whatsapp", "status": "read", "message_id": "wamid.1",
            "typing_indicator": {"type": "text"}});
        assert_eq!(read_receipt(&body).unwrap(), "wamid.1");
        body["typing_indicator"]["type"] = json!("voice");
        assert_eq!(read_receipt(&body).unwrap_err().code, 131_009);
    }
}
