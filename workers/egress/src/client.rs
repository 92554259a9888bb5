//! The client through which every URL that a tenant gave us is requested.

use super::EgressSettings;
use super::address_filter::{AddressFilter, Closed, DestinationKind, Lookup, SystemLookup};
use super::allow::AllowList;
use super::request::{EgressAnswer, EgressError, EgressRequest};
use super::tenants::Tenants;
use reqwest::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use reqwest::{Client, Method, Response, Url};
use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::time::error::Elapsed;
use tokio::time::{Instant, timeout_at};
use url::Host;

const POOL_IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const POOL_IDLE_PER_HOST_MAX: usize = 8;
const URL_BYTES_MAX: usize = 2048;

/// Headers that frame a request or route it; a caller, and so a tenant, cannot set them.
const OWN_HEADERS: [HeaderName; 9] = [
    HOST,
    CONTENT_LENGTH,
    TRANSFER_ENCODING,
    CONNECTION,
    EXPECT,
    TE,
    TRAILER,
    UPGRADE,
    PROXY_AUTHORIZATION,
];

/// Requests URLs given by tenants, and only where a tenant may reach; cheap to clone.
///
/// It never follows redirects, never uses a proxy, and speaks HTTP/1.1 with a Content-Length. Connections are
/// pooled; each new one is judged again, so a name that changes its addresses gains nothing.
#[derive(Clone)]
pub struct Egress {
    pub(super) inner: Arc<Inner>,
    pub(super) base: Arc<Inner>,
    pub(super) tenants: Arc<Tenants>,
}

/// The clients behind one list.
pub(super) struct Inner {
    pub(super) allow: Arc<AllowList>,
    settings: EgressSettings,
    lookup: Arc<dyn Lookup>,
    ports: BTreeSet<u16>,
    /// By what a filter needs to know, made when first needed.
    clients: Mutex<HashMap<DestinationKind, Client>>,
}

impl Inner {
    fn new(allow: AllowList, settings: EgressSettings, lookup: Arc<dyn Lookup>) -> Self {
        let ports = allow.ports();
        Self {
            allow: Arc::new(allow),
            settings,
            lookup,
            ports,
            clients: Mutex::default(),
        }
    }

    /// The same with another list, and connections of its own.
    pub(super) fn allowing(&self, allow: AllowList) -> Self {
        Self::new(allow, self.settings.clone(), self.lookup.clone())
    }

    fn filter(&self, kind: DestinationKind) -> AddressFilter {
        let (allow, lookup) = (self.allow.clone(), self.lookup.clone());
        AddressFilter {
            kind,
            allow,
            allow_http: self.settings.allow_http,
            lookup,
        }
    }

    fn client(&self, kind: DestinationKind) -> Result<Client, EgressSetupError> {
        let mut clients = self.clients.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = clients.get(&kind) {
            return Ok(client.clone());
        }
        let client = build(&self.settings, self.filter(kind))?;
        clients.insert(kind, client.clone());
        Ok(client)
    }
}

impl fmt::Debug for Egress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Egress")
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot prepare the client for tenants' URLs: {reason}; are the system's CA certificates installed?"
)]
pub struct EgressSetupError {
    reason: String,
}

impl Egress {
    /// Makes a client that asks the system for addresses.
    pub fn new(settings: &EgressSettings) -> Result<Self, EgressSetupError> {
        Self::with_lookup(settings, Arc::new(SystemLookup))
    }

    /// Makes a client that finds addresses by `lookup`.
    pub fn with_lookup(
        settings: &EgressSettings,
        lookup: Arc<dyn Lookup>,
    ) -> Result<Self, EgressSetupError> {
        let base = Arc::new(Inner::new(settings.allow.clone(), settings.clone(), lookup));
        // What keeps a client from being made is told at the start.
        base.client(DestinationKind {
            port: None,
            secure: true,
        })?;
        Ok(Self {
            inner: base.clone(),
            base,
            tenants: Arc::default(),
        })
    }

    /// Checks a URL when it is configured, as far as that goes without resolving its name.
    pub fn check_url(&self, url: &str) -> Result<(), EgressError> {
        self.vet(url).map(|_| ())
    }

    /// Sends a request and reads the answer, all within the request's timeout.
    ///
    /// An answer of any status is `Ok`. When the head of the answer came and its body did not end in time, broke
    /// off or was longer than asked for, the answer says so in [`EgressAnswer::whole`]; its status still counts.
    pub async fn request(&self, request: EgressRequest) -> Result<EgressAnswer, EgressError> {
        let deadline = Instant::now() + request.timeout;
        let (url, kind) = self.vet(&request.url)?;
        let client = self.inner.client(kind).map_err(|error| {
            tracing::error!(%error, "a request to a tenant's URL is not made");
            EgressError::Connect { tls: None }
        })?;
        let host = url.host_str().unwrap_or_default().to_owned();
        let name = format!("HTTP {}", request.method);
        let headers = framed(request.headers, &request.method, request.body.is_empty());
        let sending = client
            .request(request.method, url)
            .headers(headers)
            .body(request.body)
            .send();
        let status = |answer: &Result<reqwest::Result<Response>, Elapsed>| match answer {
            Ok(Ok(response)) => Ok(response.status().as_u16()),
            Ok(Err(_)) => Err("the request failed".to_owned()),
            Err(_) => Err("no answer in time".to_owned()),
        };
        match ackline_traces::downstream(&name, &host, timeout_at(deadline, sending), status).await
        {
            Ok(Ok(response)) => Ok(read(response, deadline, request.response_bytes_max).await),
            Ok(Err(error)) => Err(classify(&host, error)),
            Err(_) => Err(EgressError::Timeout),
        }
    }

    fn vet(&self, text: &str) -> Result<(Url, DestinationKind), EgressError> {
        if text.len() > URL_BYTES_MAX {
            return Err(EgressError::Refused("the URL is longer than 2,048 bytes"));
        }
        let url = Url::parse(text).map_err(|_| EgressError::Refused("the URL cannot be read"))?;
        if !matches!(url.scheme(), "https" | "http") {
            return Err(EgressError::from(Closed::Insecure));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(EgressError::Refused(
                "the URL must not hold a user name or password",
            ));
        }
        let port = url
            .port_or_known_default()
            .filter(|port| self.inner.ports.contains(port));
        let kind = DestinationKind {
            port,
            secure: url.scheme() == "https",
        };
        let filter = self.inner.filter(kind);
        match url.host() {
            Some(Host::Ipv4(address)) => filter.judge_address(address.into())?,
            Some(Host::Ipv6(address)) => filter.judge_address(address.into())?,
            Some(Host::Domain(name)) => filter.judge_name(name)?,
            None => return Err(EgressError::Refused("the URL has no host")),
        }
        Ok((url, kind))
    }
}

fn build(settings: &EgressSettings, filter: AddressFilter) -> Result<Client, EgressSetupError> {
    Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .http1_only()
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(POOL_IDLE_TIMEOUT)
        .pool_max_idle_per_host(POOL_IDLE_PER_HOST_MAX)
        .dns_resolver(filter)
        .build()
        .map_err(|error| EgressSetupError {
            reason: error.to_string(),
        })
}

/// Takes out what is the client's to say, and states the length of an empty body where servers expect one.
fn framed(mut headers: HeaderMap, method: &Method, empty: bool) -> HeaderMap {
    for name in OWN_HEADERS {
        headers.remove(name);
    }
    if empty && matches!(*method, Method::POST | Method::PUT | Method::PATCH) {
        headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    }
    headers
}

async fn read(mut response: Response, deadline: Instant, bytes_max: usize) -> EgressAnswer {
    let (status, headers) = (response.status(), std::mem::take(response.headers_mut()));
    let mut body = Vec::new();
    let (whole, broke_off) = loop {
        match timeout_at(deadline, response.chunk()).await {
            Ok(Ok(Some(chunk))) => {
                let room = bytes_max - body.len();
                body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
                if chunk.len() > room {
                    break (false, false);
                }
            }
            Ok(Ok(None)) => break (true, false),
            Ok(Err(_)) | Err(_) => break (false, true),
        }
    };
    EgressAnswer {
        status,
        headers,
        body: body.into(),
        whole,
        broke_off,
    }
}

/// Says what became of a request that got no answer; what the system said goes to the log only.
fn classify(host: &str, error: reqwest::Error) -> EgressError {
    let error = error.without_url();
    let connect = error.is_connect();
    let detail = chain(&error);
    tracing::debug!(host, connect, detail, "a request to a tenant's URL failed");
    if let Some(closed) = find::<Closed>(&error) {
        EgressError::from(*closed)
    } else if connect {
        EgressError::Connect {
            tls: find::<rustls::Error>(&error).map(ToString::to_string),
        }
    } else {
        EgressError::Broken
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}

/// Finds a cause of one type; what an I/O error wraps is not among its sources and is looked at as well.
fn find<'a, T: std::error::Error + 'static>(
    error: &'a (dyn std::error::Error + 'static),
) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        let inside = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref);
        next = match inside {
            Some(inside) => Some(inside),
            None => error.source(),
        };
    }
    None
}
