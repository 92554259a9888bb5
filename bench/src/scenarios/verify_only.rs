//! The limit of the edge: hyper that checks the signature of a delivery, stores nothing and answers 200.
//!
//! One single-threaded runtime per core, each with its own listening socket, which is the fastest way hyper
//! is known to be run.

use super::rig::APP_SECRET;
use super::served::Served;
use ackline_shared::secret::Secret;
use ackline_shared::signature::{SigningKey, verify};
use anyhow::{Context, Result};
use axum::http::{Request, Response, StatusCode};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use tokio::net::TcpSocket;
use tokio::task::LocalSet;

const BACKLOG: u32 = 1024;

/// Starts it on a free port.
pub async fn start(root: &Path) -> Result<Served> {
    Served::start(root, "verify-only", &[]).await
}

/// Serves until the process ends.
///
/// # Errors
/// When a socket cannot be bound.
pub fn serve(address: SocketAddr) -> Result<()> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let threads: Vec<_> = (0..cores)
        .map(|_| std::thread::spawn(move || serve_one(address)))
        .collect();
    for thread in threads {
        thread
            .join()
            .map_err(|_| anyhow::anyhow!("a server thread panicked"))??;
    }
    Ok(())
}

fn serve_one(address: SocketAddr) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let keys = Rc::new([SigningKey::new(&Secret::new(APP_SECRET.to_owned()))]);
    LocalSet::new().block_on(&runtime, async move {
        let socket = TcpSocket::new_v4()?;
        socket.set_reuseport(true)?;
        socket.bind(address)?;
        let listener = socket.listen(BACKLOG).context("listening")?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            let keys = keys.clone();
            tokio::task::spawn_local(async move {
                let service = service_fn(move |request| answer(request, keys.clone()));
                // Ends when the client does.
                let _ = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    })
}

async fn answer(
    request: Request<Incoming>,
    keys: Rc<[SigningKey; 1]>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let mut response = Response::new(Full::default());
    if request.method() == hyper::Method::GET {
        return Ok(response);
    }
    let (head, body) = request.into_parts();
    let verified = match body.collect().await {
        Ok(body) => {
            let signature = head
                .headers
                .get("x-hub-signature-256")
                .map(|value| value.as_bytes());
            verify(keys.as_slice(), signature, &body.to_bytes()).is_ok()
        }
        Err(_) => false,
    };
    if !verified {
        *response.status_mut() = StatusCode::UNAUTHORIZED;
    }
    Ok(response)
}
