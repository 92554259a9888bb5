//! Serves a target: a listener that can be closed for a while, and what each request gets.

use super::note::Pending;
use super::{Behind, Mode, Refusal, Shared};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, RETRY_AFTER, TRANSFER_ENCODING,
};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;

const BODY_BYTES_MAX: usize = 16 << 20;
const BACKLOG: u32 = 1024;
const CONNECTIONS_MAX: usize = 8192;
const HEADERS_WITHIN: Duration = Duration::from_secs(300);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

#[derive(Debug, thiserror::Error)]
#[error("told to reset the connection")]
struct Reset;

type Answer = Response<Full<Bytes>>;

/// Takes connections while that is wanted; ends with an error of the port.
pub(super) async fn serve(
    mut listener: TcpListener,
    shared: Arc<Shared>,
    mut wanted: watch::Receiver<bool>,
    is_open: watch::Sender<bool>,
) {
    loop {
        let Ok(address) = listener.local_addr() else {
            return;
        };
        if take(&listener, &shared, &mut wanted).await.is_none() {
            return;
        }
        drop(listener);
        // Bound and not listening, the port stays ours and refuses.
        let held = match hold(address) {
            Ok(held) => held,
            Err(error) => return tracing::error!(%error, "a target cannot keep its port"),
        };
        is_open.send_replace(false);
        if wanted.wait_for(|wanted| *wanted).await.is_err() {
            return;
        }
        listener = match held.listen(BACKLOG) {
            Ok(listener) => listener,
            Err(error) => return tracing::error!(%error, "a target cannot listen again"),
        };
        is_open.send_replace(true);
    }
}

fn hold(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves connections until none are wanted, then resets those there are; `None` when the target is gone.
async fn take(
    listener: &TcpListener,
    shared: &Arc<Shared>,
    wanted: &mut watch::Receiver<bool>,
) -> Option<()> {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            changed = wanted.wait_for(|wanted| !*wanted) => {
                changed.ok()?;
                break;
            }
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => accepted,
            Some(_) = connections.join_next(), if connections.len() >= CONNECTIONS_MAX => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                connections.spawn(connection(stream, shared.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    connections.shutdown().await;
    Some(())
}

async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let _ = stream.set_nodelay(true);
    // Whatever ends the connection from here resets it.
    let _ = stream.set_zero_linger();
    let service = service_fn(move |request| answer(shared.clone(), request));
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_WITHIN)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = served.await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Answer, Reset> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|_| Reset)?
        .to_bytes();
    let part = shared.part(head.uri.path());
    let pending = shared.notes.open(part, (shared.serial_in)(&body));
    let (mode, since) = shared.mode(part);
    let refusal = match mode {
        Mode::Works | Mode::Resets => None,
        Mode::Answers(refusal) => Some(refusal),
        Mode::Slow(takes) => {
            sleep(takes).await;
            None
        }
        Mode::Hangs => std::future::pending().await,
        Mode::Flaps { down, up, refusal } => {
            let place = since.elapsed().as_nanos() % (down + up).as_nanos().max(1);
            (place < down.as_nanos()).then_some(refusal)
        }
    };
    let answer = match refusal {
        Some(refusal) => refused(refusal)?,
        None => work(&shared, &pending, head, body).await?,
    };
    if mode == Mode::Resets {
        return Err(Reset);
    }
    pending.answered(answer.status().as_u16());
    Ok(answer)
}

fn refused(refusal: Refusal) -> Result<Answer, Reset> {
    let mut response = Response::builder()
        .status(refusal.status)
        .header(CONTENT_TYPE, "application/json");
    if let Some(after) = refusal.retry_after {
        response = response.header(RETRY_AFTER, after.as_secs());
    }
    response.body(Full::from(refusal.body)).map_err(|_| Reset)
}

/// Does the work: here, or behind.
async fn work(
    shared: &Shared,
    pending: &Pending,
    head: Parts,
    body: Bytes,
) -> Result<Answer, Reset> {
    let behind = match shared.behind {
        Behind::Nobody(body) => {
            pending.done();
            return Ok(Response::new(Full::from(body)));
        }
        Behind::Program(address) => address,
    };
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = head.headers;
    for own in [HOST, CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING] {
        headers.remove(own);
    }
    let asked = shared
        .http
        .request(head.method, format!("http://{behind}{path}"))
        .headers(headers);
    let answered = asked.body(body).send().await.map_err(|_| Reset)?;
    let status = StatusCode::from_u16(answered.status().as_u16()).map_err(|_| Reset)?;
    let kind = answered.headers().get(CONTENT_TYPE).cloned();
    let body = answered.bytes().await.map_err(|_| Reset)?;
    if status.is_success() {
        pending.done();
    }
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    if let Some(kind) = kind {
        response.headers_mut().insert(CONTENT_TYPE, kind);
    }
    Ok(response)
}
