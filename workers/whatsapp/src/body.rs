//! Turns a send command into the body the Graph API takes.
//!
//! Limits are those of the Cloud API's message reference. What breaks one is refused here with words, because
//! Meta would answer only with a code, and because a cut text is worse than none.

use ackline_shared::command::{Button, Content, Recipient, Row, Section, SendCommand};
use serde_json::{Map, Value, json};

const ID_CHARS_MAX: usize = 128;
const TEXT_MAX: usize = 4096;
const CAPTION_MAX: usize = 1024;
const SHORT_LINE_MAX: usize = 60;
const BUTTONS_MAX: usize = 3;
const BUTTON_ID_MAX: usize = 256;
const LABEL_MAX: usize = 20;
const SECTIONS_MAX: usize = 10;
const ROWS_MAX: usize = 10;
const ROW_ID_MAX: usize = 200;
const ROW_TITLE_MAX: usize = 24;
const ROW_DESCRIPTION_MAX: usize = 72;
const TEMPLATE_NAME_MAX: usize = 512;

/// Why a command cannot be sent, as it stands or ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be sent: {0}")]
pub struct Unsendable(String);

type Checked<T> = Result<T, Unsendable>;

/// Writes the body of `POST /{phone}/messages`.
pub fn graph_body(command: &SendCommand) -> Checked<Value> {
    let id = &command.id;
    let fits = !id.is_empty()
        && id.len() <= ID_CHARS_MAX
        && id.bytes().all(|byte| byte.is_ascii_graphic());
    ensure(fits, || {
        format!("its id must be 1 to {ID_CHARS_MAX} printable ASCII characters")
    })?;
    let mut body = Map::new();
    body.insert("messaging_product".into(), json!("whatsapp"));
    body.insert("recipient_type".into(), json!("individual"));
    let (field, address) = address(&command.to)?;
    body.insert(field.into(), json!(address));
    let (kind, content) = content(&command.content)?;
    body.insert("type".into(), json!(kind));
    body.insert(kind.into(), content);
    if let Some(wamid) = &command.reply_to {
        body.insert("context".into(), json!({"message_id": wamid}));
    }
    body.insert("biz_opaque_callback_data".into(), json!(id));
    Ok(Value::Object(body))
}

/// A phone number goes out in E.164 with its `+`: without one Meta prepends the business's own country code.
fn address(to: &Recipient) -> Checked<(&'static str, String)> {
    if let Some(phone) = &to.phone {
        let digits = phone.strip_prefix('+').unwrap_or(phone);
        let valid = (5..=15).contains(&digits.len())
            && digits.bytes().all(|byte| byte.is_ascii_digit())
            && !digits.starts_with('0');
        ensure(valid, || {
            "the recipient's phone number is not in international form (+ and 5 to 15 digits)"
                .into()
        })?;
        return Ok(("to", format!("+{digits}")));
    }
    match &to.user_id {
        Some(user) if !user.is_empty() => Ok(("recipient", user.clone())),
        _ => Err(Unsendable(
            "it has no recipient; give a phone number or a user id".into(),
        )),
    }
}

fn content(content: &Content) -> Checked<(&'static str, Value)> {
    Ok(match content {
        Content::Text { body, preview_url } => {
            text("the text", body, TEXT_MAX)?;
            ("text", json!({"body": body, "preview_url": preview_url}))
        }
        Content::Image { link, id, caption } => (
            "image",
            image(link.as_deref(), id.as_deref(), caption.as_deref())?,
        ),
        Content::Buttons {
            body,
            header,
            footer,
            buttons,
        } => {
            text("the text", body, CAPTION_MAX)?;
            let frame = frame("button", body, header.as_deref(), footer.as_deref())?;
            (
                "interactive",
                with_action(frame, json!({"buttons": reply_buttons(buttons)?})),
            )
        }
        Content::List {
            body,
            header,
            footer,
            button,
            sections,
        } => {
            text("the text", body, TEXT_MAX)?;
            text("the list's button", button, LABEL_MAX)?;
            let frame = frame("list", body, header.as_deref(), footer.as_deref())?;
            let action = json!({"button": button, "sections": list_sections(sections)?});
            ("interactive", with_action(frame, action))
        }
        Content::Template {
            name,
            language,
            components,
        } => {
            text("the template's name", name, TEMPLATE_NAME_MAX)?;
            text("the template's language", language, LABEL_MAX)?;
            let mut template = json!({"name": name, "language": {"code": language}});
            if let (Some(fields), false) = (template.as_object_mut(), components.is_empty()) {
                fields.insert("components".into(), json!(components));
            }
            ("template", template)
        }
    })
}

fn image(link: Option<&str>, id: Option<&str>, caption: Option<&str>) -> Checked<Value> {
    let mut image = Map::new();
    match (link, id) {
        (Some(link), None) => {
            let scheme = url::Url::parse(link).map(|url| url.scheme().to_owned());
            let web = scheme.is_ok_and(|scheme| scheme == "https" || scheme == "http");
            ensure(web, || "the image's link is not a web address".into())?;
            image.insert("link".into(), json!(link));
        }
        (None, Some(id)) => {
            image.insert("id".into(), json!(id));
        }
        _ => {
            return Err(Unsendable(
                "an image needs either a link or a media id".into(),
            ));
        }
    }
    if let Some(caption) = caption {
        text("the caption", caption, CAPTION_MAX)?;
        image.insert("caption".into(), json!(caption));
    }
    Ok(Value::Object(image))
}

fn frame(
    kind: &str,
    body: &str,
    header: Option<&str>,
    footer: Option<&str>,
) -> Checked<Map<String, Value>> {
    let mut frame = Map::new();
    frame.insert("type".into(), json!(kind));
    if let Some(header) = header {
        text("the header", header, SHORT_LINE_MAX)?;
        frame.insert("header".into(), json!({"type": "text", "text": header}));
    }
    frame.insert("body".into(), json!({"text": body}));
    if let Some(footer) = footer {
        text("the footer", footer, SHORT_LINE_MAX)?;
        frame.insert("footer".into(), json!({"text": footer}));
    }
    Ok(frame)
}

fn with_action(mut frame: Map<String, Value>, action: Value) -> Value {
    frame.insert("action".into(), action);
    Value::Object(frame)
}

fn reply_buttons(buttons: &[Button]) -> Checked<Vec<Value>> {
    let count = buttons.len();
    ensure((1..=BUTTONS_MAX).contains(&count), || {
        format!("it has {count} buttons; 1 to {BUTTONS_MAX} are allowed")
    })?;
    unique("buttons", buttons.iter().map(|button| button.id.as_str()))?;
    unique(
        "button titles",
        buttons.iter().map(|button| button.title.as_str()),
    )?;
    let reply = |button: &Button| {
        text("a button's id", &button.id, BUTTON_ID_MAX)?;
        text("a button's title", &button.title, LABEL_MAX)?;
        Ok(json!({"type": "reply", "reply": {"id": button.id, "title": button.title}}))
    };
    buttons.iter().map(reply).collect()
}

fn list_sections(sections: &[Section]) -> Checked<Vec<Value>> {
    let count = sections.len();
    ensure((1..=SECTIONS_MAX).contains(&count), || {
        format!("it has {count} sections; 1 to {SECTIONS_MAX} are allowed")
    })?;
    let rows: usize = sections.iter().map(|section| section.rows.len()).sum();
    ensure(rows <= ROWS_MAX, || {
        format!("it has {rows} rows; at most {ROWS_MAX} are allowed")
    })?;
    unique(
        "rows",
        sections
            .iter()
            .flat_map(|section| &section.rows)
            .map(|row| row.id.as_str()),
    )?;
    sections
        .iter()
        .map(|section| list_section(section, count))
        .collect()
}

fn list_section(section: &Section, count: usize) -> Checked<Value> {
    ensure(!section.rows.is_empty(), || "a section has no rows".into())?;
    let rows = section
        .rows
        .iter()
        .map(list_row)
        .collect::<Checked<Vec<_>>>()?;
    match section.title.as_deref().filter(|title| !title.is_empty()) {
        Some(title) => {
            text("a section's title", title, ROW_TITLE_MAX)?;
            Ok(json!({"title": title, "rows": rows}))
        }
        None if count == 1 => Ok(json!({"rows": rows})),
        None => Err(Unsendable(
            "with several sections each needs a title".into(),
        )),
    }
}

fn list_row(row: &Row) -> Checked<Value> {
    text("a row's id", &row.id, ROW_ID_MAX)?;
    text("a row's title", &row.title, ROW_TITLE_MAX)?;
    match row
        .description
        .as_deref()
        .filter(|description| !description.is_empty())
    {
        Some(description) => {
            text("a row's description", description, ROW_DESCRIPTION_MAX)?;
            Ok(json!({"id": row.id, "title": row.title, "description": description}))
        }
        None => Ok(json!({"id": row.id, "title": row.title})),
    }
}

fn text(what: &str, text: &str, chars_max: usize) -> Checked<()> {
    ensure(!text.trim().is_empty(), || format!("{what} is empty"))?;
    let chars = text.chars().count();
    ensure(chars <= chars_max, || {
        format!("{what} has {chars} characters; {chars_max} are allowed")
    })
}

fn unique<'a>(what: &str, values: impl Iterator<Item = &'a str>) -> Checked<()> {
    let mut seen = std::collections::HashSet::new();
    let mut values = values;
    ensure(values.all(|value| seen.insert(value)), || {
        format!("two {what} are the same")
    })
}

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Checked<()> {
    if holds {
        Ok(())
    } else {
        Err(Unsendable(otherwise()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::command::Origin;
    use ackline_shared::ids::{PhoneNumberId, TenantId};

    fn command(content: Content) -> SendCommand {
        SendCommand {
            id: "cmd-1".into(),
            tenant: TenantId::new("acme").unwrap(),
            phone_number_id: PhoneNumberId::new("1").unwrap(),
            to: Recipient {
                user_id: Some("US.1".into()),
                phone: Some("15550001".into()),
            },
            content,
            reply_to: None,
            origin: Origin::Api {
                key: "k".into(),
                request: None,
            },
            created_ms: 1,
        }
    }

    fn hello() -> Content {
        Content::Text {
            body: "hello".into(),
            preview_url: false,
        }
    }

    fn refusal(content: Content) -> String {
        graph_body(&command(content)).unwrap_err().to_string()
    }

    fn button(n: usize) -> Button {
        Button {
            id: format!("b{n}"),
            title: format!("Button {n}"),
        }
    }

    fn row(n: usize) -> Row {
        Row {
            id: format!("r{n}"),
            title: format!("Row {n}"),
            description: None,
        }
    }

    fn buttons(count: usize) -> Content {
        Content::Buttons {
            body: "Which?".into(),
            header: Some("Head".into()),
            footer: Some("Foot".into()),
            buttons: (0..count).map(button).collect(),
        }
    }

    fn list(sections: Vec<Section>) -> Content {
        Content::List {
            body: "Pick".into(),
            header: None,
            footer: None,
            button: "Open".into(),
            sections,
        }
    }

    #[test]
    fn a_text_goes_to_the_phone_number_in_international_form_and_carries_our_id() {
        let quoting = SendCommand {
            reply_to: Some("wamid.A=".into()),
            ..command(hello())
        };
        assert_eq!(
            graph_body(&quoting).unwrap(),
            json!({
                "messaging_product": "whatsapp", "recipient_type": "individual", "to": "+15550001", "type": "text",
                "text": {"body": "hello", "preview_url": false}, "context": {"message_id": "wamid.A="},
                "biz_opaque_callback_data": "cmd-1",
            })
        );
    }

    #[test]
    fn a_person_without_a_phone_number_is_addressed_by_user_id() {
        let mut to_user = command(hello());
        to_user.to.phone = None;
        let body = graph_body(&to_user).unwrap();
        assert_eq!(
            (body.get("recipient"), body.get("to")),
            (Some(&json!("US.1")), None)
        );
    }

    #[test]
    fn a_recipient_that_cannot_be_addressed_is_refused_without_repeating_it() {
        for phone in ["", "0049151", "+4915-1", "1234", "1234567890123456"] {
            let mut bad = command(hello());
            bad.to = Recipient {
                user_id: None,
                phone: Some(phone.into()),
            };
            let words = graph_body(&bad).unwrap_err().to_string();
            assert!(words.contains("international form"), "{phone}: {words}");
            assert!(phone.is_empty() || !words.contains(phone));
        }
        let nobody = SendCommand {
            to: Recipient {
                user_id: None,
                phone: None,
            },
            ..command(hello())
        };
        assert!(
            graph_body(&nobody)
                .unwrap_err()
                .to_string()
                .contains("no recipient")
        );
    }

    #[test]
    fn interactive_messages_have_metas_shape() {
        let body = graph_body(&command(buttons(2))).unwrap();
        assert_eq!(
            body["interactive"],
            json!({
                "type": "button", "header": {"type": "text", "text": "Head"}, "body": {"text": "Which?"},
                "footer": {"text": "Foot"},
                "action": {"buttons": [
                    {"type": "reply", "reply": {"id": "b0", "title": "Button 0"}},
                    {"type": "reply", "reply": {"id": "b1", "title": "Button 1"}},
                ]},
            })
        );
        let described = Row {
            description: Some("more".into()),
            ..row(1)
        };
        let section = Section {
            title: None,
            rows: vec![row(0), described],
        };
        let body = graph_body(&command(list(vec![section]))).unwrap();
        assert_eq!(
            body["interactive"],
            json!({"type": "list", "body": {"text": "Pick"}, "action": {"button": "Open", "sections": [{"rows": [
                {"id": "r0", "title": "Row 0"}, {"id": "r1", "title": "Row 1", "description": "more"},
            ]}]}})
        );
    }

    #[test]
    fn an_image_and_a_template_have_metas_shape() {
        let image = Content::Image {
            link: Some("https://a.example/x.jpg".into()),
            id: None,
            caption: Some("c".into()),
        };
        let body = graph_body(&command(image)).unwrap();
        assert_eq!(
            body["image"],
            json!({"link": "https://a.example/x.jpg", "caption": "c"})
        );
        let parameters = json!({"type": "body", "parameters": [{"type": "text", "text": "Ana"}]});
        let template = Content::Template {
            name: "welcome".into(),
            language: "en_US".into(),
            components: vec![parameters.clone()],
        };
        let body = graph_body(&command(template)).unwrap();
        let expected =
            json!({"name": "welcome", "language": {"code": "en_US"}, "components": [parameters]});
        assert_eq!(body["template"], expected);
    }

    #[test]
    fn every_limit_is_refused_in_words() {
        let text = |body: String| Content::Text {
            body,
            preview_url: false,
        };
        let image = |link: Option<&str>, id: Option<&str>| Content::Image {
            link: link.map(str::to_owned),
            id: id.map(str::to_owned),
            caption: None,
        };
        let equals = vec![row(0), row(0)];
        let table = [
            (
                text("x".repeat(4097)),
                "the text has 4097 characters; 4096 are allowed",
            ),
            (text(" \n".into()), "the text is empty"),
            (image(None, None), "either a link or a media id"),
            (
                image(Some("https://a.example"), Some("1")),
                "either a link or a media id",
            ),
            (image(Some("file:///etc/passwd"), None), "not a web address"),
            (buttons(0), "0 buttons"),
            (buttons(4), "4 buttons"),
            (list(vec![]), "0 sections"),
            (
                list(vec![Section {
                    title: None,
                    rows: (0..11).map(row).collect(),
                }]),
                "11 rows",
            ),
            (
                list(vec![Section {
                    title: None,
                    rows: vec![],
                }]),
                "no rows",
            ),
            (
                list(vec![Section {
                    title: None,
                    rows: equals,
                }]),
                "two rows are the same",
            ),
            (
                list(vec![
                    Section {
                        title: None,
                        rows: vec![row(0)],
                    },
                    Section {
                        title: None,
                        rows: vec![row(1)],
                    },
                ]),
                "each needs a title",
            ),
        ];
        for (content, words) in table {
            let said = refusal(content);
            assert!(said.contains(words), "{words:?} in {said:?}");
        }
    }

    #[test]
    fn limits_count_characters_and_not_bytes() {
        let body = "é".repeat(4096);
        assert!(
            graph_body(&command(Content::Text {
                body,
                preview_url: true
            }))
            .is_ok()
        );
    }

    #[test]
    fn an_id_that_cannot_be_echoed_back_is_refused() {
        for id in ["", "with space", "ü", &"x".repeat(129)] {
            assert!(
                graph_body(&SendCommand {
                    id: id.into(),
                    ..command(hello())
                })
                .is_err(),
                "{id:?}"
            );
        }
    }
}
