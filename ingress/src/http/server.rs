//! Serves HTTP on a listener: bounded connections, heads and waits, and an orderly end.
//!
//! It knows nothing of webhooks; a handler turns a request into an answer.

use crate::http::acceptor::{Accepted, Acceptor, AddressLimitReached, Rejection};
use crate::http::bounds::Bounds;
use crate::http::caller::Caller;
use crate::http::eviction::{Evictable, EvictionQueue};
use crate::http::head_timer::HeadTimer;
use crate::http::http2;
use crate::http::per_address_limit::AddressPermit;
use crate::metrics::Metrics;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{HeaderValue, RETRY_AFTER};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};

/// Pause after the system refused a connection, for want of file descriptors for instance.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for the last bytes: to a client that may not read, and from one that has not begun when we stop.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
const TOO_SLOW: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// The answer to a request.
pub type Answer = Response<Full<Bytes>>;

/// What a listener's connections share.
#[derive(Debug)]
pub struct Server<H> {
    handler: H,
    bounds: Bounds,
    metrics: Arc<Metrics>,
    /// What connections pass first, on the public port.
    acceptor: Option<Arc<Acceptor>>,
}

impl<H, F> Server<H>
where
    H: Fn(Request<Incoming>, Arc<Caller>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    pub fn new(handler: H, bounds: Bounds, metrics: Arc<Metrics>) -> Arc<Self> {
        Arc::new(Self {
            handler,
            bounds,
            metrics,
            acceptor: None,
        })
    }

    /// Puts a server together whose connections pass an [`Acceptor`] first.
    pub fn accepting(
        acceptor: Arc<Acceptor>,
        handler: H,
        bounds: Bounds,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        let acceptor = Some(acceptor).filter(|acceptor| !acceptor.is_passthrough());
        Arc::new(Self {
            handler,
            bounds,
            metrics,
            acceptor,
        })
    }

    /// Serves until `stop` says so, then finishes what is in flight; returns when the last connection is closed.
    pub async fn run(self: Arc<Self>, listener: TcpListener, stop: watch::Receiver<bool>) {
        self.accept_each(listener, stop, |server, io, peer, evictable, stop| {
            // A trusted balancer's connection is everybody's and never evicted.
            let is_forwarder = server
                .acceptor
                .as_ref()
                .is_some_and(|acceptor| acceptor.is_forwarder(peer));
            server.receive_evictable(io, peer, Some(evictable).filter(|_| !is_forwarder), stop)
        })
        .await;
    }

    /// The same for a listener without an acceptor; TLS and HTTP/2 are not even linked for it.
    pub async fn run_open(self: Arc<Self>, listener: TcpListener, stop: watch::Receiver<bool>) {
        self.accept_each(listener, stop, |server, io, _peer, evictable, stop| {
            server.serve(io, Caller::new(None, Some(evictable)), None, stop)
        })
        .await;
    }

    async fn accept_each<C>(
        self: Arc<Self>,
        listener: TcpListener,
        mut stop: watch::Receiver<bool>,
        connection: impl Fn(Arc<Self>, TcpStream, IpAddr, Evictable, watch::Receiver<bool>) -> C,
    ) where
        C: Future<Output = ()> + Send + 'static,
    {
        let connections = u32::try_from(self.bounds.connections_max).unwrap_or(u32::MAX);
        let permits = Arc::new(Semaphore::new(self.bounds.connections_max));
        let queue = Arc::<EvictionQueue>::default();
        loop {
            let accepted = tokio::select! {
                biased;
                () = stopped(&mut stop) => break,
                accepted = accept(&listener, &permits, || self.evict(&queue)) => accepted,
            };
            if let Some((stream, peer, permit)) = accepted {
                let evictable = queue.add();
                let number = evictable.number();
                let served = connection(self.clone(), stream, peer.ip(), evictable, stop.clone());
                let task = tokio::spawn(async move {
                    served.await;
                    drop(permit);
                });
                queue.set_task(number, task.abort_handle());
            }
        }
        drop(listener);
        // Every connection holds a permit to its end.
        let _closed = permits.acquire_many(connections).await;
    }

    /// Takes one connection through the acceptor, then serves it.
    pub async fn receive<I>(self: Arc<Self>, io: I, peer: IpAddr, stop: watch::Receiver<bool>)
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        self.receive_evictable(io, peer, None, stop).await;
    }

    async fn receive_evictable<I>(
        self: Arc<Self>,
        io: I,
        peer: IpAddr,
        evictable: Option<Evictable>,
        mut stop: watch::Receiver<bool>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Some(acceptor) = self.acceptor.clone() else {
            return self
                .serve(io, Caller::new(None, evictable), None, stop)
                .await;
        };
        let task = evictable.as_ref().and_then(Evictable::task);
        if acceptor.is_plain() {
            return match acceptor.permit_connection(peer, task) {
                Ok((address_permit, forwarder)) => {
                    let caller = self.caller(address_permit, evictable);
                    self.serve(io, caller, forwarder, stop).await
                }
                Err(rejection) => self.reject(&rejection),
            };
        }
        let accepted = tokio::select! {
            biased;
            () = stopped(&mut stop) => return,
            accepted = acceptor.accept(io, peer, task) => accepted,
        };
        match accepted {
            Ok(Accepted {
                stream,
                http2: true,
                address_permit,
                forwarder,
            }) => {
                let (_open, server) = (Open::new(&self.metrics), self.clone());
                let caller = self.caller(address_permit, evictable);
                let handler =
                    move |request| server.clone().answer(request, caller.clone(), forwarder);
                let streams_max = acceptor.http2_streams_max();
                let ended = http2::serve(stream, handler, self.bounds, streams_max, stop).await;
                ended.inspect_err(|error| self.broke(error)).ok();
            }
            Ok(Accepted {
                stream,
                http2: false,
                address_permit,
                forwarder,
            }) => {
                let caller = self.caller(address_permit, evictable);
                self.serve(stream, caller, forwarder, stop).await;
            }
            Err(rejection) => self.reject(&rejection),
        }
    }

    fn evict(&self, queue: &EvictionQueue) {
        if queue.evict() {
            self.metrics.broke("made_room");
            tracing::debug!("a connection made room for another");
        }
    }

    fn caller(
        &self,
        address_permit: Option<AddressPermit>,
        evictable: Option<Evictable>,
    ) -> Arc<Caller> {
        if address_permit
            .as_ref()
            .is_some_and(AddressPermit::ended_another)
        {
            self.metrics.broke("address_crowded");
            tracing::debug!(
                "a connection without a valid signature made room for another of its address"
            );
        }
        Caller::new(address_permit, evictable)
    }

    fn reject(&self, rejection: &Rejection) {
        self.metrics.broke(rejection.reason());
        tracing::debug!(turned = %rejection, "a connection was turned away");
    }

    fn broke(&self, error: &hyper::Error) {
        self.metrics.broke(reason(error));
        tracing::debug!(%error, "a connection ended by a fault");
    }

    /// Answers a request, unless its client has as many under way as it may.
    async fn answer(
        self: Arc<Self>,
        request: Request<Incoming>,
        caller: Arc<Caller>,
        forwarder: Option<IpAddr>,
    ) -> Answer {
        let (Some(forwarder), Some(acceptor)) = (forwarder, &self.acceptor) else {
            return (self.handler)(request, caller).await;
        };
        match acceptor.permit_request(request.headers(), forwarder) {
            Ok(address_permit) => (self.handler)(request, Caller::new(address_permit, None)).await,
            Err(AddressLimitReached) => self.refuse_over_limit(),
        }
    }

    fn refuse_over_limit(&self) -> Answer {
        let mut refusal = Response::new(Full::new(Bytes::from_static(b"address crowded\n")));
        *refusal.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
        refusal
            .headers_mut()
            .insert(RETRY_AFTER, HeaderValue::from_static("1"));
        self.metrics
            .answered(refusal.status().as_u16(), Some("address_crowded"));
        refusal
    }

    /// Serves one connection of HTTP/1.1, of a client or of a balancer that forwards clients' requests.
    pub async fn serve<I>(
        self: Arc<Self>,
        io: I,
        caller: Arc<Caller>,
        forwarder: Option<IpAddr>,
        mut stop: watch::Receiver<bool>,
    ) where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let _open = Open::new(&self.metrics);
        let begun = Arc::new(AtomicBool::new(false));
        let (server, begins) = (self.clone(), begun.clone());
        let service = service_fn(move |request| {
            begins.store(true, Ordering::Relaxed);
            let answer = server.clone().answer(request, caller.clone(), forwarder);
            async move { Ok::<_, Infallible>(answer.await) }
        });
        let mut connection = http1::Builder::new()
            .timer(HeadTimer::default())
            .header_read_timeout(self.bounds.header_timeout)
            .max_header_size(self.bounds.header_bytes_max)
            .serve_connection(TokioIo::new(io), service);
        let ended = tokio::select! {
            ended = &mut connection => ended,
            () = stopped(&mut stop) => {
                Pin::new(&mut connection).graceful_shutdown();
                // hyper closes idle connections at once, but waits for the first request of a new one.
                match timeout(CLOSE_GRACE, &mut connection).await {
                    Ok(ended) => ended,
                    Err(_) if !begun.load(Ordering::Relaxed) => return,
                    Err(_) => (&mut connection).await,
                }
            }
        };
        let Err(error) = ended else { return };
        self.broke(&error);
        let parts = connection.into_parts();
        // hyper closes on a slow head without a word; a client that has begun a request deserves one.
        if error.is_timeout() && !parts.read_buf.is_empty() {
            let mut io = parts.io.into_inner();
            let _client_gone = timeout(CLOSE_GRACE, async {
                io.write_all(TOO_SLOW).await?;
                io.shutdown().await
            })
            .await;
        }
    }
}

/// Waits for the word to stop; whoever could say it being gone counts as said.
pub(crate) async fn stopped(stop: &mut watch::Receiver<bool>) {
    let _said_or_gone = stop.wait_for(|stop| *stop).await;
}

/// Accepts a connection; when all are taken, another makes room.
async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    evict: impl Fn(),
) -> Option<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    match listener.accept().await {
        Ok((stream, peer)) => {
            let permit = match permits.clone().try_acquire_owned() {
                Ok(permit) => permit,
                Err(_) => {
                    // Where all are Meta's, the newcomer waits for whoever leaves, and others behind it in the accept queue.
                    evict();
                    permits.clone().acquire_owned().await.ok()?
                }
            };
            // Answers are small and complete; waiting to fill a segment only delays them.
            let _best_effort = stream.set_nodelay(true);
            Some((stream, peer, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "cannot accept connections");
            sleep(ACCEPT_PAUSE).await;
            None
        }
    }
}

fn reason(error: &hyper::Error) -> &'static str {
    if error.is_parse_too_large() {
        "head_too_large"
    } else if error.is_parse() {
        "malformed_http"
    } else if error.is_timeout() {
        "head_too_slow"
    } else {
        "client_gone"
    }
}

/// Counts a connection as open while it lives.
struct Open<'m>(&'m Metrics);

impl<'m> Open<'m> {
    fn new(metrics: &'m Metrics) -> Self {
        metrics.connections.inc();
        Self(metrics)
    }
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}
