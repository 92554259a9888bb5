//! What a connection passes before its first request: `address → PROXY header → per-address limit → TLS → HTTP version`.
//!
//! All of it within one deadline; whoever is rejected is never answered in HTTP. Of a request it reads only
//! whose it is, when a trusted balancer brought it. A client's address is used for bounds and in logs at debug level only.

use crate::http::forwarded;
use crate::http::per_address_limit::{AddressPermit, AddressShare, PerAddressLimit};
use crate::http::proxy_protocol::{self, ProxyError};
use crate::http::tls::credentials::{
    CERTIFICATE_KEY, CLIENT_CA_KEY, ClientCheck, Files, PRIVATE_KEY_KEY,
};
use crate::http::tls::{self, Tls, TlsSettings};
use crate::metrics::Metrics;
use ackline_shared::config::Reader;
use hyper::HeaderMap;
use ipnet::IpNet;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::sync::Semaphore;
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server;

/// Bytes read at once while a PROXY header is awaited.
const PROXY_BUFFER_BYTES: usize = 512;

#[derive(Debug, Clone)]
pub struct AcceptSettings {
    /// Certificate and key; plain HTTP without them.
    pub tls: Option<TlsSettings>,
    /// Balancers that must tell the client's address; none when clients connect themselves.
    pub proxies: Option<Vec<IpNet>>,
    /// Balancers whose `X-Forwarded-For` names the client of each request; none when nobody is believed.
    pub forwarders: Option<Vec<IpNet>>,
    /// Connections one client address may hold that brought no valid signature; 0 for any number.
    pub connections_per_address_max: usize,
    /// Bytes of unfinished bodies they may hold; 0 for any number.
    pub body_bytes_per_address_max: usize,
    /// Bytes that all bodies together may hold.
    pub body_bytes_total_max: usize,
    /// Time for the PROXY header and the TLS handshake together.
    pub handshake_timeout: Duration,
    /// TLS handshakes at once; further ones wait within their time.
    pub handshakes_max: usize,
    /// Requests at once on a connection of HTTP/2.
    pub http2_streams_max: u32,
}

impl AcceptSettings {
    /// Reads the keys of `[ingress]`; mistakes stay with the reader.
    pub fn read(reader: &mut Reader) -> Self {
        let (proxies, forwarders) = read_balancers(reader);
        Self {
            tls: read_tls(reader),
            proxies,
            forwarders,
            connections_per_address_max: size(
                reader.count("ingress.connections_per_address_max", 0..=1_000_000),
            ),
            body_bytes_per_address_max: size(
                reader.bytes("ingress.body_bytes_per_address_max", 0..=1 << 31),
            ),
            body_bytes_total_max: size(
                reader.bytes("ingress.body_bytes_total_max", 1 << 10..=1 << 31),
            ),
            handshake_timeout: reader.duration("ingress.handshake_timeout"),
            handshakes_max: size(reader.count("ingress.handshakes_max", 1..=100_000)),
            http2_streams_max: u32::try_from(reader.count("ingress.http2_streams_max", 1..=10_000))
                .unwrap_or(1),
        }
    }
}

fn read_tls(reader: &mut Reader) -> Option<TlsSettings> {
    let [certificate, key, ca] = [CERTIFICATE_KEY, PRIVATE_KEY_KEY, CLIENT_CA_KEY]
        .map(|name| reader.optional_text(name).map(PathBuf::from));
    let name = reader.text("ingress.client_name");
    if ca.is_some() && name.is_empty() {
        reader.mistake(
            "ingress.client_name",
            "is empty while ingress.client_ca_file is set",
        );
    }
    let (certificate, key) = match (certificate, key) {
        (Some(certificate), Some(key)) => (certificate, key),
        (None, None) => {
            if ca.is_some() {
                reader.mistake(
                    CLIENT_CA_KEY,
                    format_args!("needs {CERTIFICATE_KEY} and {PRIVATE_KEY_KEY}"),
                );
            }
            return None;
        }
        (Some(_), None) => {
            reader.mistake(
                PRIVATE_KEY_KEY,
                format_args!("is empty while {CERTIFICATE_KEY} is set"),
            );
            return None;
        }
        (None, Some(_)) => {
            reader.mistake(
                CERTIFICATE_KEY,
                format_args!("is empty while {PRIVATE_KEY_KEY} is set"),
            );
            return None;
        }
    };
    let files = Files {
        certificate,
        key,
        client: ca.map(|ca| ClientCheck { ca, name }),
    };
    match files.load() {
        Ok(credentials) => Some(TlsSettings {
            files,
            credentials: Arc::new(credentials),
        }),
        Err(error) => {
            reader.mistake(error.key(), error);
            None
        }
    }
}

/// The balancers that send the PROXY protocol, or those that add to `X-Forwarded-For`.
fn read_balancers(reader: &mut Reader) -> (Option<Vec<IpNet>>, Option<Vec<IpNet>>) {
    const LIST: &str = "ingress.trusted_proxies";
    let proxied = reader.choice(
        "ingress.proxy_protocol",
        &[("off", false), ("required", true)],
    );
    let forwarded = reader.choice(
        "ingress.forwarded_for",
        &[("off", false), ("trusted", true)],
    );
    let mut balancers = Vec::new();
    for text in reader.texts(LIST) {
        match text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
        {
            Ok(balancer) => balancers.push(balancer),
            Err(_) => reader.mistake(
                LIST,
                format_args!("`{text}` is not an address or block, such as \"10.0.0.0/8\""),
            ),
        }
    }
    match (proxied, forwarded) {
        (Some(true), Some(true)) => {
            reader.mistake(
                "ingress.forwarded_for",
                "excludes ingress.proxy_protocol: a client has one address",
            );
        }
        (Some(true), _) if balancers.is_empty() => {
            reader.mistake(
                LIST,
                "is empty while ingress.proxy_protocol is \"required\"",
            );
        }
        (_, Some(true)) if balancers.is_empty() => {
            reader.mistake(LIST, "is empty while ingress.forwarded_for is \"trusted\"");
        }
        (Some(false), Some(false)) if !balancers.is_empty() => {
            reader.mistake(
                LIST,
                "has no effect while ingress.proxy_protocol and ingress.forwarded_for are \"off\"",
            );
        }
        (Some(true), Some(false)) => return (Some(balancers), None),
        (Some(false), Some(true)) => return (None, Some(balancers)),
        _ => {}
    }
    (None, None)
}

/// A bound of the settings, where 0 is none.
fn bound(setting: usize) -> usize {
    if setting == 0 { usize::MAX } else { setting }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Bytes in both directions, however they travel.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<I: AsyncRead + AsyncWrite + Send + Unpin> Stream for I {}

pub struct Accepted {
    /// What it says, in plain.
    pub stream: Box<dyn Stream>,
    /// Whether it agreed to HTTP/2.
    pub http2: bool,
    /// What it holds of its address's bounds until it closes.
    pub address_permit: Option<AddressPermit>,
    /// The balancer whose clients' requests it carries.
    pub forwarder: Option<IpAddr>,
}

/// The client of a request holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressLimitReached;

/// Why a connection was rejected.
#[derive(Debug, thiserror::Error)]
pub enum Rejection {
    /// The peer is none of the configured balancers.
    #[error("the peer is not in ingress.trusted_proxies")]
    Untrusted,
    /// The PROXY header is wrong.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
    /// The PROXY header did not arrive in time.
    #[error("the PROXY header did not arrive in time")]
    ProxySlow,
    /// The address holds as many connections as it may.
    #[error(
        "the address holds ingress.connections_per_address_max connections without a valid signature"
    )]
    AddressLimitReached,
    #[error("the TLS handshake failed: {0}")]
    Tls(#[source] std::io::Error),
    /// The TLS handshake was not finished in time.
    #[error("the TLS handshake was not finished in time")]
    TlsSlow,
}

impl Rejection {
    /// A short word for metrics.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Untrusted => "proxy_untrusted",
            Self::Proxy(ProxyError::Broken(_)) => "proxy_header_broken",
            Self::Proxy(ProxyError::Malformed(_)) => "proxy_header_malformed",
            Self::ProxySlow => "proxy_header_slow",
            Self::AddressLimitReached => "address_crowded",
            Self::Tls(error) => tls::reason(error),
            Self::TlsSlow => "tls_handshake_slow",
        }
    }
}

/// Accepts connections: what each passes before its first request.
#[derive(Debug)]
pub struct Acceptor {
    settings: AcceptSettings,
    tls: Option<Arc<Tls>>,
    address_limit: Option<Arc<PerAddressLimit>>,
    handshakes: Arc<Semaphore>,
}

impl Acceptor {
    /// Builds the acceptor; one is shared by everything that accepts, so that its bounds hold for all.
    pub fn new(settings: AcceptSettings, metrics: &Arc<Metrics>) -> Arc<Self> {
        let share = AddressShare {
            connections: bound(settings.connections_per_address_max),
            body_bytes: bound(settings.body_bytes_per_address_max),
        };
        let is_shared = share
            != AddressShare {
                connections: usize::MAX,
                body_bytes: usize::MAX,
            };
        Arc::new(Self {
            tls: settings
                .tls
                .clone()
                .map(|tls| Tls::new(tls, metrics.clone())),
            address_limit: is_shared
                .then(|| PerAddressLimit::new(share, settings.body_bytes_total_max)),
            handshakes: Arc::new(Semaphore::new(settings.handshakes_max)),
            settings,
        })
    }

    /// The credentials in use, with TLS.
    pub fn tls(&self) -> Option<&Arc<Tls>> {
        self.tls.as_ref()
    }

    /// Requests at once on a connection of HTTP/2.
    pub fn http2_streams_max(&self) -> u32 {
        self.settings.http2_streams_max
    }

    /// Whether a connection has nothing to pass and may be served as it is.
    pub fn is_passthrough(&self) -> bool {
        self.tls.is_none() && self.address_limit.is_none() && self.balancers().is_none()
    }

    /// Whether a connection waits for nothing before its first request.
    pub fn is_plain(&self) -> bool {
        self.tls.is_none() && self.settings.proxies.is_none()
    }

    /// Whether an address is that of a balancer which forwards clients' requests.
    pub fn is_forwarder(&self, address: IpAddr) -> bool {
        let forwarders = self.settings.forwarders.as_deref().unwrap_or_default();
        forwarded::is_trusted(forwarders, address)
    }

    fn balancers(&self) -> Option<&Vec<IpNet>> {
        self.settings
            .proxies
            .as_ref()
            .or(self.settings.forwarders.as_ref())
    }

    /// Takes a permit for a request that a trusted balancer brought, for as long as it is being answered.
    pub fn permit_request(
        &self,
        headers: &HeaderMap,
        forwarder: IpAddr,
    ) -> Result<Option<AddressPermit>, AddressLimitReached> {
        let trusted = self.settings.forwarders.as_deref().unwrap_or_default();
        let client = forwarded::client(headers, forwarder, trusted);
        tracing::debug!(%client, "a request came through a balancer");
        match &self.address_limit {
            Some(limit) => limit
                .acquire(client, None)
                .map(Some)
                .ok_or(AddressLimitReached),
            None => Ok(None),
        }
    }

    /// Takes a connection from its first byte to its first request.
    pub async fn accept<I: Stream + 'static>(
        &self,
        io: I,
        peer: IpAddr,
        task: Option<AbortHandle>,
    ) -> Result<Accepted, Rejection> {
        let deadline = Instant::now() + self.settings.handshake_timeout;
        let Some(proxies) = &self.settings.proxies else {
            return self.accept_client(io, (peer, task), deadline).await;
        };
        if !forwarded::is_trusted(proxies, peer) {
            return Err(Rejection::Untrusted);
        }
        let mut io = BufReader::with_capacity(PROXY_BUFFER_BYTES, io);
        let told = timeout_at(deadline, proxy_protocol::read(&mut io))
            .await
            .map_err(|_| Rejection::ProxySlow)??;
        self.accept_client(io, (told.unwrap_or(peer.to_canonical()), task), deadline)
            .await
    }

    /// Takes a permit for a connection of a client's; a balancer is told as the second.
    pub fn permit_connection(
        &self,
        client: IpAddr,
        task: Option<AbortHandle>,
    ) -> Result<(Option<AddressPermit>, Option<IpAddr>), Rejection> {
        tracing::debug!(%client, "a client connected");
        // A balancer's connection is everybody's; its requests take the places.
        let forwarder = Some(client).filter(|client| self.is_forwarder(*client));
        let address_permit = match &self.address_limit {
            Some(limit) if forwarder.is_none() => Some(
                limit
                    .acquire(client, task)
                    .ok_or(Rejection::AddressLimitReached)?,
            ),
            _ => None,
        };
        Ok((address_permit, forwarder))
    }

    async fn accept_client<I>(
        &self,
        io: I,
        (client, task): (IpAddr, Option<AbortHandle>),
        deadline: Instant,
    ) -> Result<Accepted, Rejection>
    where
        I: Stream + 'static,
    {
        let (address_permit, forwarder) = self.permit_connection(client, task)?;
        let Some(tls) = &self.tls else {
            return Ok(Accepted {
                stream: Box::new(io),
                http2: false,
                address_permit,
                forwarder,
            });
        };
        let shaken = timeout_at(deadline, self.tls_handshake(io, tls));
        let stream = shaken
            .await
            .map_err(|_| Rejection::TlsSlow)?
            .map_err(Rejection::Tls)?;
        let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
        Ok(Accepted {
            stream: Box::new(stream),
            http2,
            address_permit,
            forwarder,
        })
    }

    async fn tls_handshake<I: Stream>(
        &self,
        io: I,
        tls: &Tls,
    ) -> std::io::Result<tokio_rustls::server::TlsStream<I>> {
        // A client that says nothing holds no permit: only those that have begun take turns.
        let begun = LazyConfigAcceptor::new(server::Acceptor::default(), io).await?;
        let _permit = self
            .handshakes
            .acquire()
            .await
            .map_err(std::io::Error::other)?;
        begun.into_stream(tls.config()).await
    }
}
