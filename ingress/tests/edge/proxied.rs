//! The PROXY protocol in front of plain HTTP and of TLS, and the bound on connections of one address.

use crate::certificates::{Ca, Directory};
use crate::client::{Answer, Harness, OPEN, PEER, delivery, post, sign};
use crate::tls_client::{TlsClient, V13, is_counted};
use ackline_ingress::http::acceptor::AcceptSettings;
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

const LINE: &[u8] = b"PROXY TCP4 203.0.113.9 192.0.2.7 40000 443\r\n";
const BLOCK: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x09\xc0\0\x02\x07\x9c\x40\x01\xbb";

fn trusting(block: &str) -> AcceptSettings {
    AcceptSettings {
        proxies: Some(vec![block.parse().unwrap()]),
        ..OPEN
    }
}

/// A delivery as bytes, so that it can be sent together with what precedes it.
fn delivery_bytes() -> Vec<u8> {
    let body = delivery("100", &["a"]);
    let (signature, length) = (sign(&body), body.len());
    format!(
        "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nconnection: close\r\nx-hub-signature-256: {signature}\r\ncontent-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

#[tokio::test(start_paused = true)]
async fn a_trusted_balancers_header_precedes_plain_http_in_any_pieces() {
    let harness = Harness::accepting(trusting("192.0.2.0/24"));
    for header in [LINE, BLOCK, b"PROXY UNKNOWN\r\n"] {
        let answer = harness.raw(&[header, &delivery_bytes()].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        let mut pipe = harness.pipe();
        for byte in [header, &delivery_bytes()].concat() {
            pipe.write_all(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        pipe.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    }
    assert_eq!(harness.log.stored().len(), 6);
}

#[tokio::test(start_paused = true)]
async fn a_trusted_balancers_header_precedes_tls() {
    let ca = Ca::new("public");
    let tls = Directory::new(&ca.server()).settings().tls;
    let harness = Harness::accepting(AcceptSettings {
        tls,
        ..trusting("192.0.2.7/32")
    });
    let client = TlsClient::new(&ca, V13);
    for header in [LINE, BLOCK] {
        let mut pipe = harness.pipe();
        pipe.write_all(header).await.unwrap();
        let stream = client.connect(pipe, None).await.unwrap();
        let (mut client, connection) = http1::handshake::<_, Full<_>>(TokioIo::new(stream))
            .await
            .unwrap();
        tokio::spawn(connection);
        let answer = Answer::read(
            client
                .send_request(post(&delivery("100", &["a"])))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(answer.status.as_u16(), 200);
    }
    client.connect(harness.pipe(), None).await.unwrap_err();
    assert!(is_counted(&harness, "proxy_header_malformed", 1));
}

#[tokio::test(start_paused = true)]
async fn whoever_is_no_trusted_balancer_is_not_heard() {
    let harness = Harness::accepting(trusting("198.51.100.0/24"));
    assert_eq!(harness.raw(&[LINE, &delivery_bytes()].concat()).await, "");
    assert!(is_counted(&harness, "proxy_untrusted", 1));
    assert!(harness.log.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_missing_oversized_or_broken_header_closes_the_connection() {
    let harness = Harness::accepting(trusting("192.0.2.0/24"));
    let oversized_line = format!("PROXY UNKNOWN {}\r\n", "x".repeat(200));
    let oversized_block = [&BLOCK[..14], b"\xff\xff"].concat();
    for header in [
        &b""[..],
        oversized_line.as_bytes(),
        &oversized_block,
        b"PROXY TCP4 a b c d\r\n",
    ] {
        assert_eq!(harness.raw(&[header, &delivery_bytes()].concat()).await, "");
    }
    assert!(
        is_counted(&harness, "proxy_header_malformed", 4),
        "{}",
        harness.metrics.encode()
    );
    let mut pipe = harness.pipe();
    pipe.write_all(&LINE[..9]).await.unwrap();
    pipe.shutdown().await.unwrap();
    assert_eq!(pipe.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(is_counted(&harness, "proxy_header_broken", 1));
    assert!(harness.log.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_header_that_trickles_is_cut_off_at_its_deadline() {
    let harness = Harness::accepting(trusting("192.0.2.0/24"));
    let started = Instant::now();
    let (mut read, mut write) = tokio::io::split(harness.pipe());
    let trickling = tokio::spawn(async move {
        for byte in LINE {
            let _closed = write.write_all(&[*byte]).await;
            sleep(OPEN.handshake_timeout / 4).await;
        }
    });
    assert_eq!(read.read(&mut [0; 1]).await.unwrap(), 0);
    assert_eq!(
        started.elapsed().as_secs(),
        OPEN.handshake_timeout.as_secs()
    );
    assert!(is_counted(&harness, "proxy_header_slow", 1));
    trickling.abort();
}

#[tokio::test(start_paused = true)]
async fn the_connections_of_an_address_are_bounded_by_who_is_behind_the_balancer() {
    let direct = Harness::accepting(AcceptSettings {
        connections_per_address_max: 2,
        ..OPEN
    });
    let held = [direct.client().await, direct.client().await];
    tokio::task::yield_now().await;
    assert_eq!(direct.raw(b"").await, "", "{PEER} holds two already");
    assert!(is_counted(&direct, "address_crowded", 1));
    drop(held);
    tokio::task::yield_now().await;
    assert_eq!(
        direct
            .send(post(&delivery("100", &["a"])))
            .await
            .status
            .as_u16(),
        200
    );

    let proxied = Harness::accepting(AcceptSettings {
        connections_per_address_max: 1,
        ..trusting("192.0.2.0/24")
    });
    let mut first = proxied.pipe();
    first.write_all(LINE).await.unwrap();
    tokio::task::yield_now().await;
    assert_eq!(proxied.raw(&[BLOCK, &delivery_bytes()].concat()).await, "");
    let other = b"PROXY TCP4 203.0.113.10 192.0.2.7 40000 443\r\n";
    let answer = proxied
        .raw(&[other, delivery_bytes().as_slice()].concat())
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

/// The same delivery as a balancer passes it on.
fn forwarded(clients: &str) -> Request<Full<Bytes>> {
    let mut request = post(&delivery("100", &["a"]));
    request
        .headers_mut()
        .insert("x-forwarded-for", clients.parse().unwrap());
    request
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_client_are_bounded_behind_a_balancer_that_forwards_them() {
    let forwarders = Some(vec![
        "192.0.2.0/24".parse().unwrap(),
        "10.0.0.0/8".parse().unwrap(),
    ]);
    let edge = Harness::accepting(AcceptSettings {
        forwarders,
        connections_per_address_max: 1,
        ..OPEN
    });
    let mut unfinished = edge.pipe();
    let head = "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nx-forwarded-for: 203.0.113.9\r\n\
                x-hub-signature-256: sha256=00\r\ncontent-length: 9\r\n\r\n{";
    unfinished.write_all(head.as_bytes()).await.unwrap();
    sleep(Duration::from_millis(1)).await;

    let crowded = edge
        .send(forwarded("198.51.100.1, 203.0.113.9, 10.0.0.3"))
        .await;
    assert_eq!(
        (crowded.status.as_u16(), crowded.header("retry-after")),
        (503, Some("1"))
    );
    assert!(
        edge.metrics.encode().contains("address_crowded"),
        "{}",
        edge.metrics.encode()
    );
    let other = edge.send(forwarded("203.0.113.9, 203.0.113.10")).await;
    assert_eq!(
        other.status.as_u16(),
        200,
        "another client, on another connection of the same balancer"
    );
    unfinished.write_all(b"12345678").await.unwrap();
    assert!(unfinished.read(&mut [0; 64]).await.unwrap() > 0);
    assert_eq!(
        edge.send(forwarded("203.0.113.9")).await.status.as_u16(),
        200,
        "its request is over"
    );

    edge.log.answers.send_replace(false);
    let mut first = edge.client().await;
    let waiting = tokio::spawn(first.send_request(forwarded("203.0.113.9")));
    let in_the_log = async {
        while edge.log.answers.receiver_count() == 0 {
            sleep(Duration::from_millis(1)).await;
        }
    };
    timeout(Duration::from_secs(5), in_the_log).await.unwrap();
    let second = tokio::spawn(edge.client().await.send_request(forwarded("203.0.113.9")));
    sleep(Duration::from_millis(1)).await;
    edge.log.answers.send_replace(true);
    for signed in [waiting, second] {
        assert_eq!(
            signed.await.unwrap().unwrap().status().as_u16(),
            200,
            "what is signed is not counted"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_forwarding_header_of_whoever_is_not_trusted_is_a_claim() {
    let forwarders = Some(vec!["10.0.0.0/8".parse().unwrap()]);
    let edge = Harness::accepting(AcceptSettings {
        forwarders,
        connections_per_address_max: 1,
        ..OPEN
    });
    let mut held = edge.client().await;
    let unsigned = Request::get("/webhooks/meta/main").header("x-forwarded-for", "203.0.113.9");
    let answer = held
        .send_request(unsigned.body(Full::default()).unwrap())
        .await
        .unwrap();
    assert_eq!(answer.status().as_u16(), 403);
    assert_eq!(
        edge.raw(b"").await,
        "",
        "{PEER} holds its connection whatever it claims to forward"
    );
    assert!(is_counted(&edge, "address_crowded", 1));
}
