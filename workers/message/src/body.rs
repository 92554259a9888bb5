//! A send command as the body the Graph API takes.

use crate::check::{ContentError, is_printable};
use crate::media::MediaParts;
use crate::{Content, Recipient, SendCommand};
use crate::{check, check_recipient, of};
use serde_json::{Map, Value, json};
use std::borrow::Cow;

const ID_CHARS_MAX: usize = 128;
const WAMID_CHARS_MAX: usize = 512;
/// Errors that are told; the first ones say enough.
const TOLD_MAX: usize = 5;

/// Why a command cannot be sent, as it stands or ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be sent: {0}")]
pub struct Unsendable(String);

impl Unsendable {
    /// `Ok` when nothing is wrong.
    pub fn unless_none(errors: &[ContentError]) -> Result<(), Self> {
        if errors.is_empty() {
            return Ok(());
        }
        let told = errors.iter().take(TOLD_MAX).map(ContentError::words);
        Err(Self(told.collect::<Vec<_>>().join("; ")))
    }
}

/// Says what is wrong with the wamid of the message that is answered.
pub fn check_reply_to(wamid: Option<&str>) -> Option<ContentError> {
    let is_wrong = wamid.is_some_and(|wamid| !is_printable(wamid, WAMID_CHARS_MAX));
    is_wrong.then(|| ContentError::new("/reply_to", "needs the wamid of a message"))
}

/// Refuses a command that WhatsApp would refuse.
pub fn check_command(command: &SendCommand) -> Result<(), Unsendable> {
    let mut errors = Vec::new();
    if !is_printable(&command.id, ID_CHARS_MAX) {
        let detail = format!("needs 1 to {ID_CHARS_MAX} printable ASCII characters");
        errors.push(ContentError::new("/id", detail));
    }
    errors.extend(check_recipient(&command.to));
    errors.extend(check(&uploaded(command)));
    errors.extend(check_reply_to(command.reply_to.as_deref()));
    Unsendable::unless_none(&errors)
}

/// The content as it goes out. A file that is yet to be uploaded has no address that Meta would have to take.
fn uploaded(command: &SendCommand) -> Cow<'_, Content> {
    match command.file_to_upload() {
        Some((kind, parts)) => Cow::Owned(Content::file(
            kind,
            MediaParts {
                link: None,
                id: Some("0".to_owned()),
                ..parts
            },
        )),
        None => Cow::Borrowed(&command.content),
    }
}

/// Writes the body of `POST /{phone}/messages`.
pub fn graph_body(command: &SendCommand) -> Result<Value, Unsendable> {
    check_command(command)?;
    if command.file_to_upload().is_some() {
        return Err(Unsendable("its file is not uploaded".to_owned()));
    }
    let message = of(&command.content);
    let mut body = Map::new();
    body.insert("messaging_product".into(), json!("whatsapp"));
    body.insert("recipient_type".into(), json!("individual"));
    let (field, address) = address(&command.to);
    body.insert(field.into(), json!(address));
    body.insert("type".into(), json!(message.graph_type()));
    body.insert(message.graph_type().into(), message.graph());
    if let Some(wamid) = &command.reply_to {
        body.insert("context".into(), json!({"message_id": wamid}));
    }
    body.insert("biz_opaque_callback_data".into(), json!(command.id));
    Ok(Value::Object(body))
}

/// A phone number goes out in E.164 with its `+`: without one Meta prepends the business's own country code.
fn address(to: &Recipient) -> (&'static str, String) {
    match &to.phone {
        Some(phone) => (
            "to",
            format!("+{}", phone.strip_prefix('+').unwrap_or(phone)),
        ),
        None => ("recipient", to.user_id.clone().unwrap_or_default()),
    }
}
