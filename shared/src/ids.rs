//! Typed identifiers: a value of one of these types is already safe as a NATS token, header and KV key.
//!
//! Identifiers of ours (tenant, app, bot …) must match `[A-Za-z0-9_-]{1,64}` and are refused otherwise.
//! Identifiers of Meta's are opaque: they are kept as they are where bytes are free, and reduced to a
//! token by [`token`] where they become part of a subject.

use crate::spelling;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::fmt;

/// Longest identifier we accept or emit as one token.
pub const TOKEN_BYTES_MAX: usize = 64;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a valid id: use 1 to 64 letters, digits, `_` or `-`")]
pub struct InvalidId {
    /// The refused text, cut to a printable length.
    pub text: String,
}

/// Tells whether `text` is a token: 1 to 64 of `[A-Za-z0-9_-]`.
pub fn is_token(text: &str) -> bool {
    !text.is_empty() && text.len() <= TOKEN_BYTES_MAX && text.bytes().all(is_token_byte)
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-'
}

/// Reduces any text to a token: itself when it already is one, otherwise `h_` and a hash of it.
pub fn token(text: &str) -> Cow<'_, str> {
    if is_token(text) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("h_{}", short_hash(text.as_bytes())))
    }
}

/// Hashes bytes to 32 lowercase hex digits (128 bits of SHA-256): collision-safe for dedupe, short for keys.
pub fn short_hash(bytes: &[u8]) -> String {
    hex(Sha256::digest(bytes).get(..16).unwrap_or_default())
}

/// The API's id of the conversation that a business number has under a key. A person may have two keys, and a
/// conversation that has become part of another keeps its own: every such id leads to what it is now.
pub fn conversation_id(tenant: &str, phone_number_id: &str, key: &ConversationKey) -> String {
    format!(
        "c_{}",
        short_hash(format!("{tenant}/{phone_number_id}/{}", key.as_str()).as_bytes())
    )
}

/// Writes bytes as lowercase hex.
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut out = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        for nibble in [byte >> 4, byte & 15] {
            out.push(char::from(
                DIGITS.get(usize::from(nibble)).copied().unwrap_or(b'0'),
            ));
        }
    }
    out
}

macro_rules! token_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Checks and wraps an identifier.
            pub fn new(text: impl Into<String>) -> Result<Self, InvalidId> {
                let text = text.into();
                if is_token(&text) { Ok(Self(text)) } else { Err(InvalidId { text: text.chars().take(80).collect() }) }
            }

            /// The identifier as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                Self::new(String::deserialize(d)?).map_err(serde::de::Error::custom)
            }
        }
    };
}

token_id!(
    /// A customer of the installation; every update belongs to exactly one.
    TenantId
);
token_id!(
    /// A Meta app as configured here; the last segment of its webhook path.
    AppId
);
token_id!(
    /// A WhatsApp sender: Meta's `phone_number_id`.
    PhoneNumberId
);
token_id!(
    /// Anything a tenant owns: a bot, flow, relay, endpoint, CRM link or key.
    EntityId
);

impl TenantId {
    /// The name of the reserved tenant.
    pub const UNROUTED: &str = "_unrouted";

    /// The reserved tenant of updates that no configured number claims.
    pub fn unrouted() -> Self {
        Self(Self::UNROUTED.to_owned())
    }

    /// Tells whether this is the reserved tenant.
    pub fn is_unrouted(&self) -> bool {
        self.0 == Self::UNROUTED
    }
}

/// Bytes of the hash that names an update in a log.
const LOGGED_BYTES: usize = 6;

/// Identifies an update for dedupe: Meta's own id of the element where it has one, a hash where not.
///
/// It travels as `Nats-Msg-Id`, so it is printable ASCII of bounded length by construction.
/// Meta's ids hold the person's number in base64, so none is printed by accident: a log says [`UpdateId::in_log`].
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct UpdateId(String);

impl UpdateId {
    /// Longest id kept verbatim; a longer one is hashed.
    pub const BYTES_MAX: usize = 256;

    /// Wraps an element's id, hashing it when it could not travel in a header.
    pub fn new(text: &str) -> Self {
        FoundId::new(Cow::Borrowed(text)).into()
    }

    /// Makes an id out of content that has none.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(format!("h:{}", short_hash(bytes)))
    }

    /// The id of something this update caused, by its place among the effects.
    pub fn effect(&self, step: impl fmt::Display) -> Self {
        Self::new(&format!("{}:{step}", self.0))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What names it in a log: the first digits of its SHA-256, the same everywhere.
    pub fn in_log(&self) -> String {
        hex(Sha256::digest(&self.0)
            .get(..LOGGED_BYTES)
            .unwrap_or_default())
    }
}

impl fmt::Debug for UpdateId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UpdateId({})", self.in_log())
    }
}

/// An [`UpdateId`] that may still lie where it was found, so that finding one costs no allocation.
#[derive(Clone, PartialEq, Eq)]
pub struct FoundId<'a>(Cow<'a, str>);

impl fmt::Debug for FoundId<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FoundId(…)")
    }
}

impl<'a> FoundId<'a> {
    /// Wraps an element's id as [`UpdateId::new`] does.
    pub fn new(text: Cow<'a, str>) -> Self {
        if is_graphic(&text, UpdateId::BYTES_MAX) {
            Self(text)
        } else {
            Self::of_bytes(text.as_bytes())
        }
    }

    /// Makes an id out of content that has none.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Self(Cow::Owned(UpdateId::of_bytes(bytes).0))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<FoundId<'_>> for UpdateId {
    fn from(id: FoundId<'_>) -> Self {
        Self(id.0.into_owned())
    }
}

/// Whether a text is of printable ASCII, not empty and not longer than that.
fn is_graphic(text: &str, bytes_max: usize) -> bool {
    // Every byte is looked at, so that many are at once.
    !text.is_empty()
        && text.len() <= bytes_max
        && text
            .bytes()
            .fold(true, |all, byte| all & byte.is_ascii_graphic())
}

/// The ordering key of a conversation within a tenant: `u:<BSUID>`, `p:<phone>`, `g:<group>` or `-` for none.
///
/// BSUID first, phone second, group id for groups; the business number is carried beside it.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ConversationKey(String);

impl ConversationKey {
    /// A person by business-scoped user id.
    pub fn user(bsuid: &str) -> Self {
        FoundKey::user(Cow::Borrowed(bsuid)).into()
    }

    /// A person by phone number, however it is spelled; a leading `+` is not part of the key.
    pub fn phone(phone: &str) -> Self {
        FoundKey::phone(Cow::Borrowed(phone)).into()
    }

    /// A group conversation.
    pub fn group(id: &str) -> Self {
        FoundKey::group(Cow::Borrowed(id)).into()
    }

    /// Account-level updates belong to no conversation.
    pub fn none() -> Self {
        FoundKey::none().into()
    }

    /// Reads a key back from a header.
    pub fn parse(text: &str) -> Option<Self> {
        let known = text == "-" || ["u:", "p:", "g:"].iter().any(|tag| text.starts_with(tag));
        (known && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic()))
            .then(|| Self(text.to_owned()))
    }

    /// The BSUID, when the key is one.
    pub fn as_user(&self) -> Option<&str> {
        self.0.strip_prefix("u:")
    }

    /// The phone number without `+`, when the key is one.
    pub fn as_phone(&self) -> Option<&str> {
        self.0.strip_prefix("p:")
    }

    /// The id of the group, when the key is one.
    pub fn as_group(&self) -> Option<&str> {
        self.0.strip_prefix("g:")
    }

    /// The keys that an earlier version may have had for the same person, by other spellings of the number.
    pub fn earlier(&self) -> Vec<Self> {
        let spelled = self.as_phone().map(spelling::others).unwrap_or_default();
        let key = |number: String| Self(["p:", &number].concat());
        spelled.into_iter().map(key).collect()
    }

    /// The key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ConversationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "ConversationKey({}…)",
            self.0.get(..2).unwrap_or(&self.0)
        )
    }
}

/// A [`ConversationKey`] whose id may still lie where it was found.
#[derive(Clone)]
pub struct FoundKey<'a> {
    tag: &'static str,
    id: Cow<'a, str>,
    /// What of it stands behind digits that are no part of the key.
    rest: &'a str,
}

impl PartialEq for FoundKey<'_> {
    fn eq(&self, other: &Self) -> bool {
        let ours = self.id.bytes().chain(self.rest.bytes());
        self.tag == other.tag && ours.eq(other.id.bytes().chain(other.rest.bytes()))
    }
}

impl Eq for FoundKey<'_> {}

impl fmt::Debug for FoundKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FoundKey({}…)", self.tag)
    }
}

impl<'a> FoundKey<'a> {
    const ID_BYTES_MAX: usize = 192;

    /// A person by business-scoped user id.
    pub fn user(bsuid: Cow<'a, str>) -> Self {
        Self::tagged("u:", bsuid)
    }

    /// A person by phone number, in the one spelling that keys have; a leading `+` is not part of it.
    pub fn phone(phone: Cow<'a, str>) -> Self {
        match phone {
            Cow::Borrowed(phone) => {
                let (id, rest) = spelling::around_mobile_digits(phone.trim_start_matches('+'));
                Self {
                    rest,
                    ..Self::tagged("p:", Cow::Borrowed(id))
                }
            }
            Cow::Owned(phone) => Self::tagged("p:", Cow::Owned(spelling::of_key(&phone).into())),
        }
    }

    /// A group conversation.
    pub fn group(id: Cow<'a, str>) -> Self {
        Self::tagged("g:", id)
    }

    /// Account-level updates belong to no conversation.
    pub fn none() -> Self {
        Self {
            tag: "-",
            id: Cow::Borrowed(""),
            rest: "",
        }
    }

    fn tagged(tag: &'static str, id: Cow<'a, str>) -> Self {
        if is_graphic(&id, Self::ID_BYTES_MAX) {
            return Self { tag, id, rest: "" };
        }
        Self {
            tag,
            id: Cow::Owned(format!("h_{}", short_hash(id.as_bytes()))),
            rest: "",
        }
    }
}

impl From<FoundKey<'_>> for ConversationKey {
    fn from(key: FoundKey<'_>) -> Self {
        // Every update has a key: no formatting.
        Self([key.tag, &key.id, key.rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_kept_and_anything_else_is_hashed() {
        assert_eq!(token("acme-1"), "acme-1");
        assert!(token("a.b").starts_with("h_"));
        assert!(is_token(&token("wamid.HBg+/=\u{1F600}")));
    }

    #[test]
    fn ids_that_could_split_a_subject_are_refused() {
        for bad in ["", "a.b", "a b", "*", ">", "é", &"x".repeat(65)] {
            assert!(TenantId::new(bad).is_err(), "{bad:?} must be refused");
        }
    }

    #[test]
    fn an_update_id_is_always_a_printable_header_value() {
        assert_eq!(UpdateId::new("wamid.A=").as_str(), "wamid.A=");
        for text in ["", "a\r\nb", "ü", &"x".repeat(300)] {
            assert!(UpdateId::new(text).as_str().starts_with("h:"));
        }
    }

    #[test]
    fn no_id_of_metas_is_printed_by_accident() {
        let id = UpdateId::new("wamid.HBgLNDkxNzAxMjM0NTY3FQIAEhgg");
        assert_eq!(format!("{id:?}"), format!("UpdateId({})", id.in_log()));
        assert_eq!(
            (
                id.in_log().len(),
                id.in_log() == UpdateId::new("wamid.other").in_log()
            ),
            (12, false)
        );
        let key = ConversationKey::phone("491701234567");
        assert!(!format!("{key:?}").contains("491701234567"), "{key:?}");
    }

    #[test]
    fn a_number_has_one_key_wherever_it_was_found() {
        let one = ConversationKey::phone("552187654321");
        for spelled in ["5521987654321", "+5521987654321", "552187654321"] {
            assert_eq!(ConversationKey::phone(spelled), one, "{spelled}");
            let owned = FoundKey::phone(Cow::Owned(spelled.to_owned()));
            assert_eq!(owned, FoundKey::phone(Cow::Borrowed(spelled)));
            assert_eq!(ConversationKey::from(owned), one);
        }
        // What an earlier version stored keeps its place in order.
        let stored = ConversationKey::parse("p:5521987654321").unwrap();
        assert_eq!(stored.as_str(), "p:5521987654321");
    }

    #[test]
    fn a_conversation_key_reads_back() {
        for key in [
            ConversationKey::user("US.1"),
            ConversationKey::phone("+49"),
            ConversationKey::none(),
        ] {
            assert_eq!(ConversationKey::parse(key.as_str()), Some(key));
        }
        assert_eq!(ConversationKey::parse("x"), None);
    }
}
