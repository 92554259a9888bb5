//! Serving a router on a socket: connections are counted, slow heads are ended, and a signal lets requests finish.
//!
//! axum's own `serve` bounds neither the number of connections nor the time a request's head may take.

use super::connections::{Connection, ConnectionLimit};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tower::ServiceExt;

/// How many connections there may be.
#[derive(Debug, Clone, Copy)]
struct Limits {
    /// At once; for a further one the longest idle is closed, of those with a valid key or of those without, whichever
    /// are more.
    connections: usize,
    /// Of one address that have not brought a valid key; for a further one the longest idle of these is closed.
    strangers: usize,
}

const LIMITS: Limits = Limits {
    connections: 1024,
    strangers: 128,
};
/// Time for the head of a request, which is also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Time for running requests to finish after the signal.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);
/// Pause after the system could not give a connection, most often for lack of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Pause between two looks for a connection that may be closed.
const ROOM_PAUSE: Duration = Duration::from_millis(50);

/// Serves until the signal, then lets running requests finish within a bounded time.
pub async fn serve(
    listener: TcpListener,
    service: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    serve_within(LIMITS, listener, service, shutdown).await
}

async fn serve_within(
    limits: Limits,
    listener: TcpListener,
    service: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let (permits, connection_limit) = (
        Arc::new(Semaphore::new(limits.connections)),
        ConnectionLimit::new(limits.strangers),
    );
    let (stop, stopped) = watch::channel(false);
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // Not awaited beside `accept`: one that ends to make room would cut off the newcomer it makes room for.
        while connections.try_join_next().is_some() {}
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = accept(&listener, &permits, &connection_limit) => accepted,
        };
        match accepted {
            Ok((stream, address, permit)) => {
                let Some(connection) = connection_limit.enter(address) else {
                    tracing::debug!(
                        "a connection is closed: its address has as many that showed no key as it may"
                    );
                    continue;
                };
                let (service, stopped, number) =
                    (service.clone(), stopped.clone(), connection.number());
                let task = connections.spawn(async move {
                    converse(stream, (address, connection), service, stopped).await;
                    drop(permit);
                });
                connection_limit.serve(number, task);
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    stop.send_replace(true);
    let drained = timeout(DRAIN_TIMEOUT, async {
        while connections.join_next().await.is_some() {}
    })
    .await;
    if drained.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "requests still ran at the end of the drain and are cut off"
        );
    }
    Ok(())
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
    connection_limit: &ConnectionLimit,
) -> std::io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let (stream, address) = match permits.clone().try_acquire_owned() {
        Ok(permit) => {
            let (stream, address) = listener.accept().await?;
            return Ok((stream, address, permit));
        }
        Err(_) => listener.accept().await?,
    };
    // All are taken by now, or one has just become free.
    let permit = loop {
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            break permit;
        }
        connection_limit.make_room();
        // Busy ones may become idle, so whoever waits looks again.
        if let Ok(permit) = timeout(ROOM_PAUSE, permits.clone().acquire_owned()).await {
            break permit.map_err(std::io::Error::other)?;
        }
    };
    Ok((stream, address, permit))
}

async fn converse(
    stream: TcpStream,
    (address, connection): (SocketAddr, Connection),
    service: Router,
    mut stopped: watch::Receiver<bool>,
) {
    let answer = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(address));
        request.extensions_mut().insert(connection.clone());
        let (busy, answer) = (connection.begin(), service.clone().oneshot(request));
        async move {
            let answer = answer.await;
            drop(busy);
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    let signal = async move { drop(stopped.wait_for(|is_stopped| *is_stopped).await) };
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = signal => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::routing::get;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::sync::{Notify, oneshot};

    #[tokio::test]
    async fn a_running_request_is_finished_after_the_signal_and_idle_connections_are_closed() {
        let (entered, leave) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (inside, outside) = (entered.clone(), leave.clone());
        let handler = move || async move {
            inside.notify_one();
            outside.notified().await;
            "finished"
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let service = Router::new().route("/", get(handler));
        let serving = tokio::spawn(serve(listener, service, async move { drop(stopped.await) }));
        let mut idle = TcpStream::connect(address).await.unwrap();
        let mut busy = TcpStream::connect(address).await.unwrap();
        busy.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        entered.notified().await;
        stop.send(()).unwrap();
        let mut nothing = Vec::new();
        idle.read_to_end(&mut nothing).await.unwrap();
        assert!(nothing.is_empty() && !serving.is_finished());
        leave.notify_one();
        let mut answer = String::new();
        busy.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.starts_with("HTTP/1.1 200") && answer.ends_with("finished"),
            "{answer}"
        );
        timeout(DRAIN_TIMEOUT, serving)
            .await
            .unwrap()
            .unwrap()
            .unwrap();
    }

    #[tokio::test]
    async fn an_address_that_shows_no_key_does_not_take_every_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = |request: Request<Body>| async move {
            if request.headers().contains_key("authorization") {
                request
                    .extensions()
                    .get::<Connection>()
                    .unwrap()
                    .becomes_known();
            }
            "answer"
        };
        tokio::spawn(serve(
            listener,
            Router::new().route("/", get(known)),
            std::future::pending(),
        ));
        let mut connections = Vec::new();
        for head in ["authorization: Bearer k\r\n", ""] {
            for _ in 0..LIMITS.strangers {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream
                    .write_all(format!("GET / HTTP/1.1\r\nhost: x\r\n{head}\r\n").as_bytes())
                    .await
                    .unwrap();
                assert!(
                    stream.read(&mut [0; 64]).await.unwrap() > 0,
                    "who shows a key is not counted"
                );
                connections.push(stream);
            }
        }
        let mut one_more = TcpStream::connect(address).await.unwrap();
        one_more
            .write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            .await
            .unwrap();
        assert!(one_more.read(&mut [0; 64]).await.unwrap() > 0);
        let mut first = connections.remove(LIMITS.strangers);
        let ended = timeout(Duration::from_secs(5), first.read_to_end(&mut Vec::new())).await;
        assert!(ended.is_ok(), "the longest idle made room");
    }

    #[tokio::test]
    async fn idle_connections_without_a_key_make_room_for_others() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = |request: Request<Body>| async move {
            if request.headers().contains_key("authorization") {
                request
                    .extensions()
                    .get::<Connection>()
                    .unwrap()
                    .becomes_known();
            }
            "answer"
        };
        let limits = Limits {
            connections: 32,
            strangers: 16,
        };
        let service = Router::new().route("/", get(known));
        tokio::spawn(serve_within(
            limits,
            listener,
            service,
            std::future::pending(),
        ));
        let connect = |last: u8| async move {
            let socket = tokio::net::TcpSocket::new_v4().unwrap();
            socket
                .bind(SocketAddr::new([127, 0, 0, last].into(), 0))
                .unwrap();
            socket.connect(address).await.unwrap()
        };
        let asks = |mut stream: TcpStream, head: &'static str| async move {
            let request = format!("GET / HTTP/1.1\r\nhost: x\r\n{head}\r\n");
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 256];
            let read = timeout(Duration::from_secs(5), stream.read(&mut answer))
                .await
                .unwrap()
                .unwrap();
            assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{read}");
            stream
        };
        let with_key = asks(connect(1).await, "authorization: Bearer k\r\n").await;
        let mut idle = Vec::new();
        for number in 0..600_u16 {
            idle.push(connect(2 + u8::try_from(number % 60).unwrap()).await);
        }
        for _ in 0..20 {
            drop(asks(connect(1).await, "").await);
        }
        asks(with_key, "").await;
        drop(idle);
    }

    async fn where_every_request_shows_a_key(limits: Limits) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let known = |request: Request<Body>| async move {
            request
                .extensions()
                .get::<Connection>()
                .unwrap()
                .becomes_known();
            "answer"
        };
        let service = Router::new().route("/", get(known));
        tokio::spawn(serve_within(
            limits,
            listener,
            service,
            std::future::pending(),
        ));
        address
    }

    async fn asks(stream: &mut TcpStream) {
        let request = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = [0; 256];
        let read = timeout(Duration::from_secs(5), stream.read(&mut answer)).await;
        let read = read.unwrap().unwrap();
        assert!(answer[..read].starts_with(b"HTTP/1.1 200"), "{read}");
    }

    #[tokio::test]
    async fn whoever_holds_every_connection_with_a_key_keeps_nobody_out() {
        let limits = Limits {
            connections: 8,
            strangers: 4,
        };
        let address = where_every_request_shows_a_key(limits).await;
        let mut held = Vec::new();
        for _ in 0..limits.connections + 4 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            asks(&mut stream).await;
            held.push(stream);
        }
        let ended = timeout(
            Duration::from_secs(5),
            held.remove(0).read_to_end(&mut Vec::new()),
        )
        .await;
        assert!(ended.is_ok(), "the longest idle made room");
    }

    #[tokio::test]
    async fn newcomers_show_their_keys_while_a_key_holds_every_connection() {
        let limits = Limits {
            connections: 16,
            strangers: 16,
        };
        let address = where_every_request_shows_a_key(limits).await;
        let mut held = Vec::new();
        for _ in 0..limits.connections {
            let mut stream = TcpStream::connect(address).await.unwrap();
            asks(&mut stream).await;
            held.push(stream);
        }
        asks(&mut held[0]).await;
        let mut newcomers = Vec::new();
        for _ in 0..4 {
            newcomers.push(TcpStream::connect(address).await.unwrap());
        }
        for newcomer in &mut newcomers {
            asks(newcomer).await;
        }
        asks(&mut held[0]).await;
    }
}
