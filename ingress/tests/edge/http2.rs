//! HTTP/2 over TLS: its bounds on streams, heads, bodies, idle time and resets, and its end.

use crate::certificates::{Ca, Directory};
use crate::client::{BOUNDS, Harness, delivery, post, post_to};
use crate::tls_client::{TlsClient, V13, is_counted};
use ackline_ingress::http::acceptor::AcceptSettings;
use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::{FutureExt, StreamExt};
use http_body_util::{Full, StreamBody};
use hyper::Request;
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

const STREAMS_MAX: usize = 3;
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const PATIENCE: Duration = Duration::from_secs(120);

fn edge() -> (Harness, TlsClient) {
    let ca = Ca::new("public");
    let settings = Directory::new(&ca.server()).settings();
    let http2_streams_max = u32::try_from(STREAMS_MAX).unwrap();
    (
        Harness::accepting(AcceptSettings {
            http2_streams_max,
            ..settings
        }),
        TlsClient::new(&ca, V13),
    )
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_are_taken_at_once_than_allowed_and_all_are_answered() {
    let (harness, client) = edge();
    let connection = client.http2(&harness).await;
    let first = connection
        .clone()
        .send_request(post(&delivery("100", &["first"])))
        .await
        .unwrap();
    assert_eq!(first.status().as_u16(), 200);
    harness.log.answers.send_replace(false);
    let body = delivery("100", &["a"]);
    let mut sending = Box::pin(join_all(
        (0..10).map(|_| connection.clone().send_request(post(&body))),
    ));
    assert!(timeout(Duration::from_secs(1), &mut sending).await.is_err());
    assert_eq!(harness.log.answers.receiver_count(), STREAMS_MAX);
    harness.log.answers.send_replace(true);
    assert!(
        sending
            .await
            .into_iter()
            .all(|answer| answer.unwrap().status().as_u16() == 200)
    );
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_more_streams_than_told_is_refused_them() {
    let (harness, client) = edge();
    harness.log.answers.send_replace(false);
    let mut stream = client.connect(harness.pipe(), Some("h2")).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    for id in 0..8_u8 {
        // A head without the end of its stream: `:method: POST`, `:scheme: https`, `:path: /`.
        stream
            .write_all(&[0, 0, 3, 1, 4, 0, 0, 0, 2 * id + 1, 0x83, 0x87, 0x84])
            .await
            .unwrap();
    }
    let mut refused = 0;
    let reading = async {
        let mut head = [0; 9];
        while stream.read_exact(&mut head).await.is_ok() {
            let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
            stream.read_exact(&mut payload).await.unwrap();
            refused += usize::from(head[3] == 3 && payload == [0, 0, 0, 7]);
        }
    };
    timeout(PATIENCE, reading).await.unwrap();
    assert!(refused > 0, "REFUSED_STREAM is expected");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_opens_and_resets_streams_without_end_is_cut_off() {
    let (harness, client) = edge();
    let mut stream = client.connect(harness.pipe(), Some("h2")).await.unwrap();
    stream.write_all(PREFACE).await.unwrap();
    let mut flood = Vec::new();
    for id in 0..100_u8 {
        flood.extend([0, 0, 3, 1, 4, 0, 0, 0, 2 * id + 1, 0x83, 0x87, 0x84]);
        flood.extend([0, 0, 4, 3, 0, 0, 0, 0, 2 * id + 1, 0, 0, 0, 8]);
    }
    stream.write_all(&flood).await.unwrap();
    let mut said = Vec::new();
    let started = Instant::now();
    let _ended = timeout(PATIENCE, stream.read_to_end(&mut said))
        .await
        .unwrap();
    assert!(
        started.elapsed() < Duration::from_secs(1),
        "cut off at once, not when idle"
    );
    // GOAWAY for ENHANCE_YOUR_CALM.
    assert!(
        said.windows(4).any(|bytes| bytes == [0, 0, 0, 11]),
        "{said:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn clients_that_never_begin_or_trickle_a_head_are_shown_out() {
    let (harness, client) = edge();
    // HEADERS without END_HEADERS: the connection waits for the rest.
    let half_a_head = [PREFACE, &[0, 0, 1, 1, 0, 0, 0, 0, 1, 0x83]].concat();
    for start in [&b""[..], &PREFACE[..9], PREFACE, &half_a_head] {
        let started = Instant::now();
        let mut stream = client.connect(harness.pipe(), Some("h2")).await.unwrap();
        stream.write_all(start).await.unwrap();
        let _ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new()))
            .await
            .unwrap();
        let waited = started.elapsed();
        assert!(
            waited <= BOUNDS.header_timeout * 2,
            "{start:?} held for {waited:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_one_in_use_is_not() {
    let (harness, client) = edge();
    let mut connection = client.http2(&harness).await;
    for _ in 0..10 {
        sleep(BOUNDS.header_timeout / 2).await;
        assert_eq!(
            connection
                .send_request(post(&delivery("100", &["a"])))
                .await
                .unwrap()
                .status()
                .as_u16(),
            200
        );
    }
    sleep(BOUNDS.header_timeout * 2).await;
    assert!(
        connection
            .send_request(post(&delivery("100", &["a"])))
            .await
            .is_err()
    );
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_refused_and_other_requests_are_not_held_up() {
    let (harness, client) = edge();
    let stream = client.connect(harness.pipe(), Some("h2")).await.unwrap();
    let (mut slow, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let first =
        futures_util::stream::iter([Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")))]);
    let body = StreamBody::new(first.chain(futures_util::stream::pending()).boxed());
    let request = Request::post("https://edge.test/webhooks/meta/main")
        .header("x-hub-signature-256", "sha256=00");
    let started = Instant::now();
    let answer = slow
        .send_request(request.body(body).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 408);
    assert_eq!(started.elapsed().as_secs(), BOUNDS.body_timeout.as_secs());
}

#[tokio::test(start_paused = true)]
async fn heads_and_bodies_are_bounded_as_in_http1() {
    let (harness, client) = edge();
    let mut connection = client.http2(&harness).await;
    let long = "x".repeat(BOUNDS.body_bytes_max + 1);
    let answer = connection.send_request(post(&long)).await.unwrap();
    assert_eq!(answer.status().as_u16(), 413);
    let mut request = post_to("main", "{}", Some(&"x".repeat(8 << 10)));
    request.headers_mut().insert(
        "x-more",
        "y".repeat(BOUNDS.header_bytes_max).parse().unwrap(),
    );
    match connection.send_request(request).await {
        Ok(answer) => assert_eq!(answer.status().as_u16(), 431),
        Err(error) => assert!(!error.is_timeout(), "{error}"),
    }
    assert!(harness.log.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_when_told_to_stop_is_finished() {
    let (harness, client) = edge();
    harness.log.answers.send_replace(false);
    let (mut connection, mut idle) = (client.http2(&harness).await, client.http2(&harness).await);
    let mut sending = Box::pin(connection.send_request(post(&delivery("100", &["a"]))));
    assert!(timeout(Duration::from_secs(1), &mut sending).await.is_err());
    harness.stop.send_replace(true);
    sleep(Duration::from_secs(3)).await;
    assert!(
        idle.ready()
            .now_or_never()
            .is_none_or(|ready| ready.is_err())
    );
    harness.log.answers.send_replace(true);
    assert_eq!(sending.await.unwrap().status().as_u16(), 200);
    let mut late: http2::SendRequest<Full<Bytes>> = connection;
    assert!(
        late.send_request(post(&delivery("100", &["b"])))
            .await
            .is_err()
    );
    assert!(!is_counted(&harness, "malformed_http", 1));
}
