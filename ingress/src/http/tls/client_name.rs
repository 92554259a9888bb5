//! Admits clients whose certificate chains to the configured CA and bears the expected name.
//!
//! The CA alone is not enough: it may sign for others too. Names are compared whole, without wildcards.

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};
use std::sync::Arc;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

/// Checks the chain, then the name.
#[derive(Debug)]
pub struct NamedClient {
    chain: Arc<dyn ClientCertVerifier>,
    name: String,
}

impl NamedClient {
    /// Adds the name to what `chain` asks for.
    pub fn new(chain: Arc<dyn ClientCertVerifier>, name: String) -> Self {
        Self { chain, name }
    }
}

/// Whether the certificate's common name or one of its DNS names is `name`.
pub fn bears(certificate: &[u8], name: &str) -> bool {
    let Ok(parsed) = Certificate::from_der(certificate) else {
        return false;
    };
    let body = parsed.tbs_certificate();
    let common = body.subject().common_name().ok().flatten();
    let alternatives = body.get_extension::<SubjectAltName>().ok().flatten();
    let alternatives = alternatives.map(|(_, names)| names.0).unwrap_or_default();
    let is_alternative = |found: &GeneralName| matches!(found, GeneralName::DnsName(dns) if dns.as_str().eq_ignore_ascii_case(name));
    common.is_some_and(|common| common.value().eq_ignore_ascii_case(name))
        || alternatives.iter().any(is_alternative)
}

impl ClientCertVerifier for NamedClient {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chain
            .verify_client_cert(end_entity, intermediates, now)?;
        if bears(end_entity, &self.name) {
            Ok(verified)
        } else {
            Err(Error::InvalidCertificate(CertificateError::NotValidForName))
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn offer_client_auth(&self) -> bool {
        self.chain.offer_client_auth()
    }
}
