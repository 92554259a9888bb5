//! A client that speaks TLS through the pipe of a harness.

use crate::certificates::{Ca, HOST, Leaf};
use crate::client::{Answer, Harness};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::io;
use std::sync::Arc;
use tokio::io::DuplexStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

pub const V12: &SupportedProtocolVersion = &rustls::version::TLS12;
pub const V13: &SupportedProtocolVersion = &rustls::version::TLS13;

/// What the client trusts, offers and shows.
pub struct TlsClient {
    config: ClientConfig,
}

impl TlsClient {
    pub fn new(ca: &Ca, version: &'static SupportedProtocolVersion) -> Self {
        Self::showing(ca, version, None)
    }

    pub fn showing(
        ca: &Ca,
        version: &'static SupportedProtocolVersion,
        leaf: Option<&Leaf>,
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(ca.der.clone().into()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_root_certificates(roots);
        let config = match leaf {
            None => builder.with_no_client_auth(),
            Some(leaf) => {
                let key = PrivateKeyDer::try_from(leaf.key.serialize_der()).unwrap();
                builder
                    .with_client_auth_cert(vec![leaf.der.clone().into()], key)
                    .unwrap()
            }
        };
        Self { config }
    }

    /// Shakes hands on this pipe.
    pub async fn connect(
        &self,
        pipe: DuplexStream,
        alpn: Option<&str>,
    ) -> io::Result<TlsStream<DuplexStream>> {
        let mut config = self.config.clone();
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        TlsConnector::from(Arc::new(config))
            .connect(ServerName::try_from(HOST).unwrap(), pipe)
            .await
    }

    pub async fn http1(&self, harness: &Harness) -> http1::SendRequest<Full<Bytes>> {
        let stream = self
            .connect(harness.pipe(), Some("http/1.1"))
            .await
            .unwrap();
        let (client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        client
    }

    pub async fn http2(&self, harness: &Harness) -> http2::SendRequest<Full<Bytes>> {
        let stream = self.connect(harness.pipe(), Some("h2")).await.unwrap();
        let (client, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        client
    }

    /// Sends one request on a connection of its own; an error when the connection is refused.
    pub async fn send(
        &self,
        harness: &Harness,
        request: Request<Full<Bytes>>,
    ) -> Result<Answer, String> {
        let stream = self
            .connect(harness.pipe(), None)
            .await
            .map_err(|error| error.to_string())?;
        let (mut client, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| error.to_string())?;
        tokio::spawn(connection);
        let response = client
            .send_request(request)
            .await
            .map_err(|error| error.to_string())?;
        Ok(Answer::read(response).await)
    }
}

/// The certificate the server showed.
pub fn shown(stream: &TlsStream<DuplexStream>) -> Vec<u8> {
    stream.get_ref().1.peer_certificates().unwrap()[0].to_vec()
}

pub fn is_counted(harness: &Harness, reason: &str, times: usize) -> bool {
    harness.metrics.encode().contains(&format!(
        "broken_connections_total{{reason=\"{reason}\"}} {times}\n"
    ))
}
