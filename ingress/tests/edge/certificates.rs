//! Certificates made for one test: a CA, what it signs, and files as an operator would have them.

use crate::client::{OPEN, read_settings};
use ackline_ingress::http::acceptor::AcceptSettings;
use ackline_ingress::http::tls::TlsSettings;
use ackline_ingress::http::tls::credentials::{ClientCheck, Files};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use std::path::PathBuf;
use std::sync::Arc;
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

pub const HOST: &str = "edge.test";
pub const META: &str = "client.webhooks.fbclientcerts.com";

pub struct Ca {
    pub pem: String,
    pub der: Vec<u8>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Leaf {
    pub certificate: String,
    pub key: KeyPair,
    pub der: Vec<u8>,
}

impl Ca {
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let certificate = params.self_signed(&key).unwrap();
        Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            issuer: Issuer::new(params, key),
        }
    }

    /// Signs for a common name and DNS names, from a week ago until `days` from now.
    pub fn sign(&self, common: &str, names: &[&str], days: i64) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.distinguished_name.push(DnType::CommonName, common);
        params.not_before = OffsetDateTime::now_utc() - Duration::days(7);
        params.not_after = OffsetDateTime::now_utc() + Duration::days(days);
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Leaf {
            certificate: certificate.pem(),
            key,
            der: certificate.der().to_vec(),
        }
    }

    pub fn server(&self) -> Leaf {
        self.sign(HOST, &[HOST], 60)
    }
}

pub struct Directory {
    dir: TempDir,
    client: bool,
}

impl Directory {
    pub fn new(leaf: &Leaf) -> Self {
        let directory = Self {
            dir: tempfile::tempdir().unwrap(),
            client: false,
        };
        directory.install(leaf);
        directory
    }

    /// Asks clients for certificates of this CA.
    pub fn with_client_ca(mut self, ca: &Ca) -> Self {
        self.client = true;
        self.write("client-ca.pem", &ca.pem);
        self
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, text: &str) {
        // As certificate managers do it: whole or not at all.
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    pub fn install(&self, leaf: &Leaf) {
        self.write("key.pem", &leaf.key.serialize_pem());
        self.write("chain.pem", &leaf.certificate);
    }

    pub fn settings(&self) -> AcceptSettings {
        let client = self.client.then(|| ClientCheck {
            ca: self.path("client-ca.pem"),
            name: META.to_owned(),
        });
        let files = Files {
            certificate: self.path("chain.pem"),
            key: self.path("key.pem"),
            client,
        };
        let credentials = Arc::new(files.load().unwrap());
        AcceptSettings {
            tls: Some(TlsSettings { files, credentials }),
            ..OPEN
        }
    }

    /// What is wrong when these files are named by settings.
    pub fn mistakes(&self, keys: &[(&str, &str)]) -> Vec<String> {
        let variables = keys.iter().map(|(key, name)| {
            let value = if name.is_empty() {
                String::new()
            } else {
                self.path(name).display().to_string()
            };
            (format!("ACKLINE_INGRESS_{key}"), value)
        });
        read_settings(variables).err().unwrap_or_default()
    }
}
