//! Secrets at rest: each scope (a tenant, or the installation) has a data key, itself sealed under the master key.
//!
//! A sealed text is `sealed:v1:<base64 of nonce and AES-256-GCM ciphertext>`, bound to its scope: moved to
//! another scope it does not open. Deleting a scope's data key makes everything sealed under it unreadable.

use crate::config::Reader;
use crate::secret::Secret;
use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, Key, KeyInit, Nonce};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use std::fmt;

const PREFIX: &str = "sealed:v1:";
const NONCE_BYTES: usize = 12;
const KEY_BYTES: usize = 32;

/// Why a secret could not be sealed or opened.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VaultError {
    /// Not base64 of 32 bytes.
    #[error("the master key must be base64 of 32 bytes; make one with `openssl rand -base64 32`")]
    MasterKey,
    /// No master key configured.
    #[error("no master key: set secrets.master_key_file (or ACKLINE_SECRETS_MASTER_KEY)")]
    NoMasterKey,
    /// The key file cannot be read.
    #[error("secrets.master_key_file {path} cannot be read: {reason}")]
    KeyFile {
        /// The file.
        path: String,
        /// What the system said.
        reason: String,
    },
    /// Sealed under another key or for another scope, or damaged.
    #[error(
        "a stored secret of {scope} does not open: it was sealed under another master key or is damaged"
    )]
    Open {
        /// Whose secret it is.
        scope: String,
    },
    /// The scope has no data key.
    #[error("{scope} has no data key yet; run `ackline apply` first")]
    NoDataKey {
        /// The scope.
        scope: String,
    },
}

/// A symmetric key; the master key or a scope's data key.
#[derive(Clone)]
pub struct VaultKey(Secret<[u8; KEY_BYTES]>);

impl fmt::Debug for VaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("VaultKey([secret])")
    }
}

impl VaultKey {
    /// Makes a fresh random key.
    pub fn generate() -> Self {
        Self(Secret::new(rand::random()))
    }

    /// Reads a key from base64.
    pub fn from_base64(text: &str) -> Result<Self, VaultError> {
        let bytes = STANDARD
            .decode(text.trim())
            .map_err(|_| VaultError::MasterKey)?;
        Ok(Self(Secret::new(
            bytes.try_into().map_err(|_| VaultError::MasterKey)?,
        )))
    }

    /// Writes the key as base64, for the file an operator keeps.
    pub fn to_base64(&self) -> Secret<String> {
        Secret::new(STANDARD.encode(self.0.expose()))
    }

    /// Seals this key under another, to be stored as a scope's data key.
    pub fn seal_under(&self, master: &Self, scope: &str) -> Sealed {
        master.seal(scope, &self.to_base64())
    }

    /// Opens a stored data key.
    pub fn open_under(master: &Self, scope: &str, sealed: &Sealed) -> Result<Self, VaultError> {
        Self::from_base64(master.open(scope, sealed)?.expose())
    }

    /// Seals a text for a scope.
    pub fn seal(&self, scope: &str, text: &Secret<String>) -> Sealed {
        let nonce: [u8; NONCE_BYTES] = rand::random();
        let payload = Payload {
            msg: text.expose().as_bytes(),
            aad: scope.as_bytes(),
        };
        // AES-GCM refuses only texts of 64 GiB and more; configuration is bounded far below.
        let ciphertext = self
            .cipher()
            .encrypt(&Nonce::from(nonce), payload)
            .unwrap_or_default();
        Sealed(format!(
            "{PREFIX}{}",
            STANDARD.encode([&nonce[..], &ciphertext].concat())
        ))
    }

    /// Opens what was sealed for the same scope.
    pub fn open(&self, scope: &str, sealed: &Sealed) -> Result<Secret<String>, VaultError> {
        let failed = || VaultError::Open {
            scope: scope.to_owned(),
        };
        let bytes = STANDARD
            .decode(sealed.0.strip_prefix(PREFIX).ok_or_else(failed)?)
            .map_err(|_| failed())?;
        let (nonce, ciphertext) = bytes
            .split_first_chunk::<NONCE_BYTES>()
            .ok_or_else(failed)?;
        let payload = Payload {
            msg: ciphertext,
            aad: scope.as_bytes(),
        };
        let plain = self
            .cipher()
            .decrypt(&Nonce::from(*nonce), payload)
            .map_err(|_| failed())?;
        String::from_utf8(plain)
            .map(Secret::new)
            .map_err(|_| failed())
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(&Key::<Aes256Gcm>::from(*self.0.expose()))
    }
}

/// A secret as it is stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Sealed(String);

impl Sealed {
    /// Tells whether a text is a sealed secret rather than a plain one.
    pub fn is_sealed(text: &str) -> bool {
        text.starts_with(PREFIX)
    }

    /// Wraps a text already known to be sealed.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::is_sealed(text).then(|| Self(text.to_owned()))
    }

    /// The stored text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Reads the master key as configured: the file wins over the value.
pub fn master_key(reader: &mut Reader) -> Result<VaultKey, VaultError> {
    let value = reader.secret("secrets.master_key");
    match reader.optional_text("secrets.master_key_file") {
        Some(path) => {
            let text = std::fs::read_to_string(&path).map_err(|error| VaultError::KeyFile {
                path,
                reason: error.to_string(),
            })?;
            VaultKey::from_base64(&text)
        }
        None => VaultKey::from_base64(value.ok_or(VaultError::NoMasterKey)?.expose()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> Secret<String> {
        Secret::new(text.to_owned())
    }

    #[test]
    fn what_is_sealed_for_a_scope_opens_there_and_nowhere_else() {
        let key = VaultKey::generate();
        let sealed = key.seal("acme", &secret("token"));
        assert_eq!(key.open("acme", &sealed).unwrap().expose(), "token");
        assert!(key.open("globex", &sealed).is_err());
        assert!(VaultKey::generate().open("acme", &sealed).is_err());
        assert!(!format!("{sealed:?}").contains("token"));
    }

    #[test]
    fn a_data_key_survives_its_sealing() {
        let (master, data) = (VaultKey::generate(), VaultKey::generate());
        let stored = data.seal_under(&master, "acme");
        let opened = VaultKey::open_under(&master, "acme", &stored).unwrap();
        assert_eq!(
            opened
                .open("acme", &data.seal("acme", &secret("x")))
                .unwrap()
                .expose(),
            "x"
        );
    }

    #[test]
    fn a_damaged_or_short_text_is_an_error() {
        let key = VaultKey::generate();
        for text in ["sealed:v1:", "sealed:v1:AAAA", "sealed:v1:!!", "plain"] {
            assert!(key.open("acme", &Sealed(text.to_owned())).is_err());
        }
        assert_eq!(
            VaultKey::from_base64("c2hvcnQ=").unwrap_err(),
            VaultError::MasterKey
        );
    }
}
