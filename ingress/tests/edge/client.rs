//! An edge with a real server behind an in-memory pipe, and a real client in front of it.

use crate::memory_log::MemoryLog;
use ackline_ingress::http::acceptor::{AcceptSettings, Acceptor};
use ackline_ingress::http::bounds::Bounds;
use ackline_ingress::http::caller::Caller;
use ackline_ingress::http::server::Server;
use ackline_ingress::http::tls::Tls;
use ackline_ingress::metrics::Metrics;
use ackline_ingress::routing::Routing;
use ackline_ingress::settings::IngressSettings;
use ackline_ingress_testkit::fixture;
use ackline_shared::config::Reader;
use ackline_shared::signature::SigningKey;
use ackline_shared::vault::VaultKey;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpListener;
use tokio::sync::watch;

pub const BOUNDS: Bounds = Bounds {
    connections_max: 16,
    header_bytes_max: 16 << 10,
    header_timeout: Duration::from_secs(10),
    body_bytes_max: 64 << 10,
    body_timeout: Duration::from_secs(15),
    body_bytes_total_max: 256 << 10,
};

/// Settings under which every connection is accepted.
pub const OPEN: AcceptSettings = AcceptSettings {
    tls: None,
    proxies: None,
    forwarders: None,
    connections_per_address_max: 0,
    body_bytes_per_address_max: 0,
    body_bytes_total_max: BOUNDS.body_bytes_total_max,
    handshake_timeout: Duration::from_secs(10),
    handshakes_max: 16,
    http2_streams_max: 64,
};

/// Where the connections of a harness come from.
pub const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));

/// Something that serves a listener.
type Listen = Box<dyn Fn(TcpListener) + Send + Sync>;
/// Something that serves one end of a pipe.
type Serve = Box<dyn Fn(DuplexStream) + Send + Sync>;

pub struct Harness {
    pub log: Arc<MemoryLog>,
    pub metrics: Arc<Metrics>,
    pub routing: Arc<Routing>,
    pub stop: watch::Sender<bool>,
    acceptor: Arc<Acceptor>,
    serve: Serve,
    listen: Listen,
}

impl Harness {
    /// An edge that is ready.
    pub fn new() -> Self {
        Self::accepting(OPEN)
    }

    /// An edge that is ready, behind this acceptor.
    pub fn accepting(acceptor: AcceptSettings) -> Self {
        Self::within(BOUNDS, acceptor)
    }

    /// An edge that is ready, within these bounds.
    pub fn within(bounds: Bounds, acceptor: AcceptSettings) -> Self {
        let harness = Self::build(bounds, acceptor);
        harness.routing.replace(fixture::table());
        harness
    }

    /// An edge without a routing table.
    pub fn unready(bounds: Bounds) -> Self {
        Self::build(bounds, OPEN)
    }

    fn build(bounds: Bounds, acceptor: AcceptSettings) -> Self {
        let (log, metrics, routing) = (Arc::new(MemoryLog::new()), Metrics::new(), Routing::new());
        let edge = fixture::edge(log.clone(), routing.clone(), bounds, metrics.clone());
        let handler = move |request: Request<Incoming>, caller: Arc<Caller>| {
            let edge = edge.clone();
            async move { edge.answer(request, &caller).await }
        };
        let acceptor = Acceptor::new(acceptor, &metrics);
        let server = Server::accepting(acceptor.clone(), handler, bounds, metrics.clone());
        let stop = watch::channel(false).0;
        let stopped = stop.subscribe();
        let (listening, listened) = (server.clone(), stop.subscribe());
        let listen: Listen = Box::new(move |listener| {
            drop(tokio::spawn(
                listening.clone().run(listener, listened.clone()),
            ))
        });
        let serve: Serve = Box::new(move |io| {
            drop(tokio::spawn(server.clone().receive(
                io,
                PEER,
                stopped.clone(),
            )))
        });
        Self {
            log,
            metrics,
            routing,
            stop,
            acceptor,
            serve,
            listen,
        }
    }

    /// The credentials of an edge with TLS.
    pub fn tls(&self) -> Arc<Tls> {
        self.acceptor.tls().unwrap().clone()
    }

    /// Serves a socket of its own, too.
    pub async fn listen(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        (self.listen)(listener);
        address
    }

    /// The client's end of a new connection.
    pub fn pipe(&self) -> DuplexStream {
        let (ours, theirs) = tokio::io::duplex(256 << 10);
        (self.serve)(theirs);
        ours
    }

    pub async fn client(&self) -> SendRequest<Full<Bytes>> {
        let (client, connection) = http1::handshake(TokioIo::new(self.pipe())).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// Sends one request on a connection of its own.
    pub async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        Answer::read(self.client().await.send_request(request).await.unwrap()).await
    }

    /// Writes bytes on a connection of its own and reads until the server closes it.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut pipe = self.pipe();
        pipe.write_all(bytes).await.unwrap();
        let mut answer = Vec::new();
        pipe.read_to_end(&mut answer).await.unwrap();
        String::from_utf8(answer).unwrap()
    }
}

/// Reads settings from variables, or says all that is wrong with them.
pub fn read_settings(
    variables: impl IntoIterator<Item = (String, String)>,
) -> Result<IngressSettings, Vec<String>> {
    let key = VaultKey::generate().to_base64().expose().clone();
    let master = ("ACKLINE_SECRETS_MASTER_KEY".to_owned(), key);
    let mut reader = Reader::load(None, variables.into_iter().chain([master]));
    let settings = IngressSettings::read(&mut reader);
    reader
        .finish()
        .map(|()| settings)
        .map_err(|report| report.mistakes)
}

/// An answer read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub headers: hyper::HeaderMap,
    pub body: String,
}

impl Answer {
    pub async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Self {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).unwrap(),
        }
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }
}

pub fn sign(body: &str) -> String {
    SigningKey::from_bytes(fixture::SECRET.as_bytes()).sign(body.as_bytes())
}

/// A POST of Meta's to the shared app.
pub fn post(body: &str) -> Request<Full<Bytes>> {
    post_to("main", body, Some(&sign(body)))
}

pub fn post_to(app: &str, body: &str, signature: Option<&str>) -> Request<Full<Bytes>> {
    let mut request = Request::post(format!("/webhooks/meta/{app}")).header("host", "edge");
    if let Some(signature) = signature {
        request = request.header("x-hub-signature-256", signature);
    }
    request
        .body(Full::new(Bytes::copy_from_slice(body.as_bytes())))
        .unwrap()
}

/// A delivery with these messages for acme's number.
pub fn delivery(phone: &str, ids: &[&str]) -> String {
    let messages: Vec<_> = ids
        .iter()
        .map(|id| {
            format!(
                r#"{{"from":"49{}","id":"{id}","type":"text","text":{{"body":"caf\u00e9 \/"}}}}"#,
                id.len()
            )
        })
        .collect();
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W1","changes":[{{"value":{{"metadata":{{"phone_number_id":"{phone}"}},"messages":[{}]}},"field":"messages"}}]}}]}}"#,
        messages.join(",")
    )
}
