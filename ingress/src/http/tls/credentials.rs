//! Reads certificate, key and client CA from files into one checked rustls configuration.

use super::client_name::NamedClient;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ServerSessionMemoryCache, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};
use x509_cert::Certificate;
use x509_cert::der::Decode;

/// The key of the certificate's file.
pub const CERTIFICATE_KEY: &str = "ingress.tls_certificate_file";
/// The key of the private key's file.
pub const PRIVATE_KEY_KEY: &str = "ingress.tls_key_file";
/// The key of the client CA's file.
pub const CLIENT_CA_KEY: &str = "ingress.client_ca_file";

/// Longest file read; chains have some kilobytes.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Sessions a client may resume without a whole handshake.
const SESSIONS_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// PEM of the certificate and its intermediates, the certificate first.
    pub certificate: PathBuf,
    /// PEM of its private key.
    pub key: PathBuf,
    /// Who must have signed clients' certificates, when they must show one.
    pub client: Option<ClientCheck>,
}

/// What a client's certificate must be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCheck {
    pub ca: PathBuf,
    /// The name it must bear.
    pub name: String,
}

#[derive(Debug)]
pub struct Credentials {
    pub config: Arc<ServerConfig>,
    pub expires: SystemTime,
    /// Whether clients must show a certificate.
    pub client_certificate: bool,
    /// The files as they were before they were read.
    pub stamp: Stamp,
}

/// Tells whether files were written or replaced: size, inode and times of each.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp(Vec<Option<[i128; 4]>>);

/// Why credentials cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file is not there, too long or not ours to read.
    #[error("{} cannot be read: {error}", path.display())]
    Unreadable {
        key: &'static str,
        path: PathBuf,
        error: std::io::Error,
    },
    /// The file is not PEM.
    #[error("{} is not valid PEM: {error}", path.display())]
    Pem {
        key: &'static str,
        path: PathBuf,
        error: pem::Error,
    },
    /// The PEM file does not hold what it should.
    #[error("{} has no {wanted} in PEM form", path.display())]
    Missing {
        key: &'static str,
        path: PathBuf,
        wanted: &'static str,
    },
    /// The certificate cannot be parsed.
    #[error("{} holds a certificate that cannot be parsed: {what}", path.display())]
    Certificate {
        key: &'static str,
        path: PathBuf,
        what: String,
    },
    /// The key is another certificate's.
    #[error("{} is not the key of the certificate in {}", key.display(), certificate.display())]
    Mismatch { key: PathBuf, certificate: PathBuf },
    /// The key is of a kind that is not supported.
    #[error("{} cannot be used: {error}", path.display())]
    Key { path: PathBuf, error: rustls::Error },
}

impl CredentialsError {
    pub fn key(&self) -> &'static str {
        match self {
            Self::Unreadable { key, .. }
            | Self::Pem { key, .. }
            | Self::Missing { key, .. }
            | Self::Certificate { key, .. } => key,
            Self::Mismatch { .. } | Self::Key { .. } => PRIVATE_KEY_KEY,
        }
    }
}

impl Files {
    pub fn load(&self) -> Result<Credentials, CredentialsError> {
        // Taken first: what is written while we read is then seen as a change.
        let stamp = self.stamp();
        let chain = certificates(CERTIFICATE_KEY, &self.certificate)?;
        let expires = chain
            .iter()
            .map(|certificate| self.end_of(certificate))
            .collect::<Result<Vec<_>, _>>()?;
        let expires = expires.first().copied().unwrap_or(UNIX_EPOCH);
        let key = private_key(&self.key)?;
        let verifier = match &self.client {
            Some(check) => client_verifier(check)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map(|builder| builder.with_client_cert_verifier(verifier))
            .and_then(|builder| builder.with_single_cert(chain, key))
            .map_err(|error| match error {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    CredentialsError::Mismatch {
                        key: self.key.clone(),
                        certificate: self.certificate.clone(),
                    }
                }
                error => CredentialsError::Key {
                    path: self.key.clone(),
                    error,
                },
            })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config.session_storage = ServerSessionMemoryCache::new(SESSIONS_MAX);
        let client_certificate = self.client.is_some();
        Ok(Credentials {
            config: Arc::new(config),
            expires,
            client_certificate,
            stamp,
        })
    }

    /// What the files are now, without reading them.
    pub fn stamp(&self) -> Stamp {
        let ca = self.client.as_ref().map(|check| check.ca.as_path());
        let paths = [
            Some(self.certificate.as_path()),
            Some(self.key.as_path()),
            ca,
        ];
        Stamp(paths.into_iter().flatten().map(stamp_of).collect())
    }

    fn end_of(&self, certificate: &CertificateDer<'_>) -> Result<SystemTime, CredentialsError> {
        let parsed = Certificate::from_der(certificate)
            .map_err(|error| malformed(CERTIFICATE_KEY, &self.certificate, error))?;
        Ok(parsed
            .tbs_certificate()
            .validity()
            .not_after
            .to_system_time())
    }
}

pub fn unix_seconds(time: SystemTime) -> i64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

fn stamp_of(path: &Path) -> Option<[i128; 4]> {
    let metadata = std::fs::metadata(path).ok()?;
    let nanoseconds =
        |seconds: i64, rest: i64| i128::from(seconds) * 1_000_000_000 + i128::from(rest);
    Some([
        i128::from(metadata.size()),
        i128::from(metadata.ino()),
        nanoseconds(metadata.mtime(), metadata.mtime_nsec()),
        nanoseconds(metadata.ctime(), metadata.ctime_nsec()),
    ])
}

fn read(key: &'static str, path: &Path) -> Result<Vec<u8>, CredentialsError> {
    let unreadable = |error| CredentialsError::Unreadable {
        key,
        path: path.to_owned(),
        error,
    };
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return Err(unreadable(std::io::Error::other(
            "it is not a file of at most 1 MiB",
        )));
    }
    std::fs::read(path).map_err(unreadable)
}

fn certificates(
    key: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, CredentialsError> {
    let text = read(key, path)?;
    let found = CertificateDer::pem_slice_iter(&text).collect::<Result<Vec<_>, _>>();
    let found = found.map_err(|error| CredentialsError::Pem {
        key,
        path: path.to_owned(),
        error,
    })?;
    if found.is_empty() {
        return Err(CredentialsError::Missing {
            key,
            path: path.to_owned(),
            wanted: "certificate",
        });
    }
    Ok(found)
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, CredentialsError> {
    let (key, path) = (PRIVATE_KEY_KEY, path.to_owned());
    PrivateKeyDer::from_pem_slice(&read(key, &path)?).map_err(|error| match error {
        pem::Error::NoItemsFound => CredentialsError::Missing {
            key,
            path,
            wanted: "unencrypted private key",
        },
        error => CredentialsError::Pem { key, path, error },
    })
}

fn client_verifier(check: &ClientCheck) -> Result<Arc<dyn ClientCertVerifier>, CredentialsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(CLIENT_CA_KEY, &check.ca)? {
        roots
            .add(certificate)
            .map_err(|error| malformed(CLIENT_CA_KEY, &check.ca, error))?;
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
        .build()
        .map_err(|error: VerifierBuilderError| malformed(CLIENT_CA_KEY, &check.ca, error))?;
    Ok(Arc::new(NamedClient::new(chain, check.name.clone())))
}

fn malformed(key: &'static str, path: &Path, what: impl std::fmt::Display) -> CredentialsError {
    CredentialsError::Certificate {
        key,
        path: path.to_owned(),
        what: what.to_string(),
    }
}
