//! Meta's webhook signature: `X-Hub-Signature-256: sha256=<hex HMAC-SHA256 of the exact bytes>`.
//!
//! The key is the app secret. Bytes go in as they came off the wire: Meta signs the escaped form it sends,
//! so anything that re-serialises before checking breaks the signature.

use crate::ids::hex;
use crate::secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use std::fmt;
use subtle::ConstantTimeEq;

const PREFIX: &[u8] = b"sha256=";
const DIGEST_BYTES: usize = 32;

/// A key whose HMAC state is computed once and cloned per message.
#[derive(Clone)]
pub struct SigningKey(Hmac<Sha256>);

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SigningKey([secret])")
    }
}

impl SigningKey {
    /// Prepares a key from the app secret's text.
    pub fn new(secret: &Secret<String>) -> Self {
        Self::from_bytes(secret.expose().as_bytes())
    }

    /// Prepares a key from raw bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        // HMAC takes a key of any length, so the error type cannot occur; an empty key is the harmless reading.
        Self(Hmac::new_from_slice(bytes).unwrap_or_else(|_| Hmac::new(&Default::default())))
    }

    /// Computes the 32 bytes of the signature over the concatenation of `parts`.
    pub fn digest(&self, parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
        let mut mac = self.0.clone();
        for part in parts {
            mac.update(part);
        }
        mac.finalize().into_bytes().into()
    }

    /// Writes the header value Meta would send for `body`.
    pub fn sign(&self, body: &[u8]) -> String {
        format!("sha256={}", hex(&self.digest(&[body])))
    }
}

/// Why a signature was not accepted; none of these says what would have been right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// The header is absent.
    #[error("the X-Hub-Signature-256 header is missing")]
    Missing,
    /// The header is not `sha256=` and 64 hex digits.
    #[error("the X-Hub-Signature-256 header is not `sha256=` followed by 64 hex digits")]
    Malformed,
    /// The header does not match the body under any live secret.
    #[error("the signature does not match the body")]
    Mismatch,
}

/// Checks a header value against the body under every live key, in constant time.
pub fn verify(
    keys: &[SigningKey],
    header: Option<&[u8]>,
    body: &[u8],
) -> Result<(), SignatureError> {
    let claimed = parse(header.ok_or(SignatureError::Missing)?)?;
    let mut matched = subtle::Choice::from(0);
    for key in keys {
        matched |= key.digest(&[body]).ct_eq(&claimed);
    }
    if matched.into() {
        Ok(())
    } else {
        Err(SignatureError::Mismatch)
    }
}

fn parse(header: &[u8]) -> Result<[u8; DIGEST_BYTES], SignatureError> {
    let digits = header
        .strip_prefix(PREFIX)
        .ok_or(SignatureError::Malformed)?;
    if digits.len() != DIGEST_BYTES * 2 {
        return Err(SignatureError::Malformed);
    }
    let mut out = [0; DIGEST_BYTES];
    for (byte, pair) in out.iter_mut().zip(digits.chunks_exact(2)) {
        let [high, low] = pair else {
            return Err(SignatureError::Malformed);
        };
        *byte = (nibble(*high)? << 4) | nibble(*low)?;
    }
    Ok(out)
}

fn nibble(digit: u8) -> Result<u8, SignatureError> {
    char::from(digit)
        .to_digit(16)
        .and_then(|n| u8::try_from(n).ok())
        .ok_or(SignatureError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "test_app_secret";
    const PLAIN: &[u8] = br#"{"object":"whatsapp_business_account","entry":[]}"#;
    const ESCAPED: &[u8] = br#"{"a":"caf\u00e9 \ud83d\ude00 https:\/\/x"}"#;

    fn key() -> SigningKey {
        SigningKey::new(&Secret::new(SECRET.to_owned()))
    }

    #[test]
    fn the_published_vectors_match() {
        assert_eq!(
            key().sign(PLAIN),
            "sha256=dec6a680679a968e7e0319355b23599cbfc54502c0784668e9618baa0c633756"
        );
        assert_eq!(
            key().sign(ESCAPED),
            "sha256=6764f27359d6d17329266457d5cc304f874e49fafd9010e19b9aba32b72a89bf"
        );
    }

    #[test]
    fn any_live_secret_verifies_during_a_rotation() {
        let header = key().sign(PLAIN);
        let keys = [SigningKey::from_bytes(b"next"), key()];
        assert_eq!(verify(&keys, Some(header.as_bytes()), PLAIN), Ok(()));
        assert_eq!(
            verify(&keys[..1], Some(header.as_bytes()), PLAIN),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            verify(&[], Some(header.as_bytes()), PLAIN),
            Err(SignatureError::Mismatch)
        );
    }

    #[test]
    fn every_malformed_header_is_told_apart_from_a_mismatch() {
        let good = key().sign(PLAIN);
        let truncated = good.get(..70).unwrap_or_default().as_bytes();
        let non_hex = format!("sha256={}", "zz".repeat(32));
        for bad in [
            &b""[..],
            b"sha256=",
            b"sha1=00",
            truncated,
            non_hex.as_bytes(),
        ] {
            assert_eq!(
                verify(&[key()], Some(bad), PLAIN),
                Err(SignatureError::Malformed)
            );
        }
        assert_eq!(verify(&[key()], None, PLAIN), Err(SignatureError::Missing));
        assert_eq!(
            verify(
                &[key()],
                Some(good.to_uppercase().replace("SHA", "sha").as_bytes()),
                PLAIN
            ),
            Ok(())
        );
    }

    #[test]
    fn a_changed_byte_is_a_mismatch() {
        let header = key().sign(PLAIN);
        assert_eq!(
            verify(&[key()], Some(header.as_bytes()), ESCAPED),
            Err(SignatureError::Mismatch)
        );
    }
}
