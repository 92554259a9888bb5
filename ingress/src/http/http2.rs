//! Serves HTTP/2 on a connection within the bounds of HTTP/1.1: streams, heads, windows, resets and idle time.
//!
//! Idle means that no request is being answered. A client that never begins, trickles a head, or only
//! answers pings is idle, and is shown out after the time a head may take.

use crate::http::bounds::Bounds;
use crate::http::server::{Answer, stopped};
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use std::convert::Infallible;
use std::future::Future;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

/// Time between the announcement of the end and the end, for what was already on its way.
const CLOSE_GRACE: Duration = Duration::from_secs(1);
/// Bytes a client may send ahead of our reading, on a stream and on a connection.
const STREAM_WINDOW: u32 = 128 << 10;
const CONNECTION_WINDOW: u32 = 512 << 10;
/// Answers buffered for a client that does not read.
const SEND_BYTES_MAX: usize = 64 << 10;
/// Streams a client may reset before we took them up, and for faults of its own: beyond it the connection ends.
const PENDING_RESETS_MAX: usize = 20;
const FAULT_RESETS_MAX: usize = 64;

/// Serves one connection to its end.
pub async fn serve<I, H, F>(
    io: I,
    handler: H,
    bounds: Bounds,
    streams_max: u32,
    mut stop: watch::Receiver<bool>,
) -> Result<(), hyper::Error>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    H: Fn(Request<Incoming>) -> F + Send + Sync + 'static,
    F: Future<Output = Answer> + Send + 'static,
{
    let activity = Activity::new();
    let service = service_fn(|request| {
        let busy = activity.begin();
        let answer = handler(request);
        async move {
            let answer = answer.await;
            drop(busy);
            Ok::<_, Infallible>(answer)
        }
    });
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .max_concurrent_streams(streams_max)
        .max_header_list_size(u32::try_from(bounds.header_bytes_max).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BYTES_MAX)
        .max_pending_accept_reset_streams(PENDING_RESETS_MAX)
        .max_local_error_reset_streams(FAULT_RESETS_MAX)
        .keep_alive_interval(bounds.header_timeout)
        .keep_alive_timeout(bounds.header_timeout)
        .serve_connection(TokioIo::new(io), service);
    let mut connection = pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = stopped(&mut stop) => {}
        () = activity.idle_for(bounds.header_timeout) => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::select! {
        ended = connection => ended,
        () = async { sleep(CLOSE_GRACE).await; activity.idle_for(CLOSE_GRACE).await } => Ok(()),
    }
}

/// Requests being answered on a connection, and since when that many.
#[derive(Debug, Clone)]
struct Activity(Arc<Mutex<(usize, Instant)>>);

struct Busy(Activity);

impl Activity {
    fn new() -> Self {
        Self(Arc::new(Mutex::new((0, Instant::now()))))
    }

    fn begin(&self) -> Busy {
        let mut state = self.state();
        *state = (state.0 + 1, Instant::now());
        Busy(self.clone())
    }

    async fn idle_for(&self, time: Duration) {
        loop {
            let (busy, since) = *self.state();
            let (now, until) = (Instant::now(), since + time);
            if busy > 0 {
                sleep(time).await;
            } else if until <= now {
                return;
            } else {
                sleep_until(until).await;
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, (usize, Instant)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state();
        *state = (state.0.saturating_sub(1), Instant::now());
    }
}
