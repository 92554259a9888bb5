//! The signature headers of a webhook: Meta's, or a deliberately wrong one.

use ackline_shared::ids::hex;
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha1::Sha1;

/// How a delivery is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Signature {
    /// As Meta signs it, with the app secret.
    #[default]
    Good,
    /// Well formed, but made with another key.
    Bad,
    Malformed,
    /// No signature header at all.
    Missing,
}

/// Signs bodies with one app secret.
pub struct Signer {
    sha256: SigningKey,
    forged: SigningKey,
    secret: Secret<String>,
}

impl Signer {
    /// Prepares a signer from the app secret.
    pub fn new(secret: &Secret<String>) -> Self {
        let forged = SigningKey::from_bytes(format!("not {}", secret.expose()).as_bytes());
        Self {
            sha256: SigningKey::new(secret),
            forged,
            secret: secret.clone(),
        }
    }

    /// The headers to send with a body: the SHA-1 one that Meta still adds, and the SHA-256 one.
    pub fn headers(&self, body: &[u8], signature: Signature) -> Vec<(&'static str, String)> {
        let sha256 = match signature {
            Signature::Good => self.sha256.sign(body),
            Signature::Bad => self.forged.sign(body),
            Signature::Malformed => format!("sha256={}", "zz".repeat(32)),
            Signature::Missing => return Vec::new(),
        };
        let mut headers = vec![("x-hub-signature-256", sha256)];
        if signature == Signature::Good {
            headers.insert(0, ("x-hub-signature", format!("sha1={}", self.sha1(body))));
        }
        headers
    }

    fn sha1(&self, body: &[u8]) -> String {
        // HMAC takes a key of any length, so the error cannot occur.
        let Ok(mut mac) = Hmac::<Sha1>::new_from_slice(self.secret.expose().as_bytes()) else {
            return String::new();
        };
        mac.update(body);
        hex(&mac.finalize().into_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::signature::{SignatureError, verify};

    const BODY: &[u8] = br#"{"a":"caf\u00e9 \ud83d\ude00 https:\/\/x"}"#;

    fn header(signature: Signature, name: &str) -> Option<String> {
        let signer = Signer::new(&Secret::new("test_app_secret".to_owned()));
        signer
            .headers(BODY, signature)
            .into_iter()
            .find(|(n, _)| *n == name)
            .map(|(_, value)| value)
    }

    #[test]
    fn both_published_digests_of_the_escaped_body_match() {
        assert_eq!(
            header(Signature::Good, "x-hub-signature").unwrap(),
            "sha1=a26901d090fb1b4e0de2de5be2ecf4bc67833bd0"
        );
        assert_eq!(
            header(Signature::Good, "x-hub-signature-256").unwrap(),
            "sha256=6764f27359d6d17329266457d5cc304f874e49fafd9010e19b9aba32b72a89bf"
        );
    }

    #[test]
    fn each_wrong_signature_is_refused_for_its_own_reason() {
        let keys = [SigningKey::from_bytes(b"test_app_secret")];
        let check = |signature| {
            let header = header(signature, "x-hub-signature-256");
            verify(&keys, header.as_deref().map(str::as_bytes), BODY)
        };
        assert_eq!(check(Signature::Good), Ok(()));
        assert_eq!(check(Signature::Bad), Err(SignatureError::Mismatch));
        assert_eq!(check(Signature::Malformed), Err(SignatureError::Malformed));
        assert_eq!(check(Signature::Missing), Err(SignatureError::Missing));
    }
}
