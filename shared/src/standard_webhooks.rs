//! Standard Webhooks 1.0 symmetric signatures: `v1,<base64 HMAC-SHA256 of "id.timestamp.body">`.
//!
//! Source: the Standard Webhooks specification. The key is what follows `whsec_`, base64-decoded, 24 to 64
//! bytes; during a rotation the header lists one signature per live key, separated by spaces.

use crate::secret::Secret;
use crate::signature::SigningKey;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The prefix of a serialised symmetric key.
pub const PREFIX: &str = "whsec_";

/// Why a text is not a signing secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// Not standard base64 after the optional prefix.
    #[error("a webhook secret is `whsec_` followed by standard base64")]
    NotBase64,
    /// Outside 24 to 64 bytes.
    #[error("a webhook secret holds 24 to 64 bytes")]
    Length,
}

/// Reads a `whsec_…` secret (the prefix may be absent) into a key.
pub fn key(secret: &Secret<String>) -> Result<SigningKey, SecretError> {
    let text = secret.expose().as_str();
    let bytes = STANDARD
        .decode(text.strip_prefix(PREFIX).unwrap_or(text))
        .map_err(|_| SecretError::NotBase64)?;
    if !(24..=64).contains(&bytes.len()) {
        return Err(SecretError::Length);
    }
    Ok(SigningKey::from_bytes(&bytes))
}

/// Serialises fresh key bytes as a secret to hand to a customer.
pub fn secret_from_bytes(bytes: &[u8; 32]) -> Secret<String> {
    Secret::new(format!("{PREFIX}{}", STANDARD.encode(bytes)))
}

/// Writes the `webhook-signature` value: one `v1,…` entry per live key.
///
/// `timestamp` is the unix second of this attempt; `id` stays the same over retries.
pub fn sign(keys: &[SigningKey], id: &str, timestamp: u64, body: &[u8]) -> String {
    let head = format!("{id}.{timestamp}.");
    let entries: Vec<String> = keys
        .iter()
        .map(|key| {
            format!(
                "v1,{}",
                STANDARD.encode(key.digest(&[head.as_bytes(), body]))
            )
        })
        .collect();
    entries.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn the_specification_vectors_match() {
        let one = key(&secret("whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD")).unwrap();
        let body = br#"{"email":"test@example.com","username":"test_user"}"#;
        assert_eq!(
            sign(
                std::slice::from_ref(&one),
                "msg_27UH4WbU6Z5A5EzD8u03UvzRbpk",
                1_649_367_553,
                body
            ),
            "v1,tZ1I4/hDygAJgO5TYxiSd6Sd0kDW6hPenDe+bTa3Kkw="
        );
        let two = key(&secret("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")).unwrap();
        assert_eq!(
            sign(
                &[two],
                "msg_p5jXN8AQM9LWM0D4loKWxJek",
                1_614_265_330,
                br#"{"test": 2432232314}"#
            ),
            "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
        );
    }

    #[test]
    fn the_reference_library_verifies_what_we_sign() {
        let fresh = secret_from_bytes(&[7; 32]);
        let oracle = standardwebhooks::Webhook::new(fresh.expose()).unwrap();
        let body = br#"{"type":"message.received"}"#;
        let signature = sign(&[key(&fresh).unwrap()], "evt_1", 1_700_000_000, body);
        assert_eq!(
            oracle.sign("evt_1", 1_700_000_000, body).unwrap(),
            signature
        );
    }

    #[test]
    fn a_rotation_lists_both_signatures() {
        let keys = [
            SigningKey::from_bytes(&[1; 32]),
            SigningKey::from_bytes(&[2; 32]),
        ];
        assert_eq!(sign(&keys, "a", 1, b"x").split(' ').count(), 2);
    }

    #[test]
    fn weak_or_unreadable_secrets_are_refused() {
        assert_eq!(key(&secret("whsec_")).unwrap_err(), SecretError::Length);
        assert_eq!(
            key(&secret("whsec_!!!")).unwrap_err(),
            SecretError::NotBase64
        );
    }
}
