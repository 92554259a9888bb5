//! What one address can take up: bytes of bodies it does not finish, and connections it does not use.

use crate::client::{BOUNDS, Harness, OPEN, delivery, sign};
use crate::tls_client::is_counted;
use ackline_ingress::http::acceptor::AcceptSettings;
use ackline_ingress::http::bounds::Bounds;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(5);

fn loopback(last: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 0, last))
}

async fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// A signed delivery as bytes on a connection that stays open.
fn request(body: &str) -> Vec<u8> {
    let (signature, length) = (sign(body), body.len());
    format!("POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nx-hub-signature-256: {signature}\r\ncontent-length: {length}\r\n\r\n{body}")
        .into_bytes()
}

async fn status(stream: &mut TcpStream) -> String {
    let mut answer = [0; 512];
    let read = timeout(SOON, stream.read(&mut answer))
        .await
        .unwrap()
        .unwrap();
    String::from_utf8_lossy(&answer[..read])
        .chars()
        .skip(9)
        .take(3)
        .collect()
}

async fn delivers(stream: &mut TcpStream, id: &str) -> String {
    stream
        .write_all(&request(&delivery("100", &[id])))
        .await
        .unwrap();
    status(stream).await
}

async fn counted(harness: &Harness, what: &str) {
    let seen = async {
        while !harness.metrics.encode().contains(what) {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON * 4, seen)
        .await
        .unwrap_or_else(|_| panic!("{what} in {}", harness.metrics.encode()));
}

#[tokio::test]
async fn bodies_that_one_address_does_not_finish_cost_no_other_a_delivery() {
    // The proportions of the defaults: 68 bodies are more than all may hold, and an address has an eighth.
    let bounds = Bounds {
        connections_max: 256,
        body_bytes_max: 256 << 10,
        body_bytes_total_max: 16 << 20,
        ..BOUNDS
    };
    let acceptor = AcceptSettings {
        body_bytes_per_address_max: 2 << 20,
        body_bytes_total_max: bounds.body_bytes_total_max,
        ..OPEN
    };
    let harness = Harness::within(bounds, acceptor);
    let edge = harness.listen().await;
    // Whoever signed before is verified, though it shares the address.
    let mut known = connect(loopback(2), edge).await;
    assert_eq!(delivers(&mut known, "a").await, "200");

    let head = "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nx-hub-signature-256: sha256=00\r\ncontent-length: 262144\r\n\r\n";
    let mut unfinished = Vec::new();
    for _ in 0..68 {
        let mut stream = connect(loopback(2), edge).await;
        stream.write_all(head.as_bytes()).await.unwrap();
        // The edge may have answered and closed before all of it is written.
        let _turned_away = stream.write_all(&vec![b'x'; (256 << 10) - 1]).await;
        unfinished.push(stream);
    }
    counted(&harness, "refusals_total{reason=\"address_crowded\"} 60\n").await;

    for number in 0..10 {
        let mut other = connect(loopback(1), edge).await;
        assert_eq!(delivers(&mut other, &format!("b{number}")).await, "200");
    }
    let long = delivery("100", &[&"c".repeat(200 << 10)]);
    let long = request(&long);
    let (first, rest) = long.split_at(100 << 10);
    known.write_all(first).await.unwrap();
    sleep(Duration::from_millis(50)).await;
    known.write_all(rest).await.unwrap();
    assert_eq!(
        status(&mut known).await,
        "200",
        "a large one that comes in two parts"
    );
    drop(unfinished);
}

#[tokio::test]
async fn idle_connections_make_room_for_who_signs() {
    let bounds = Bounds {
        connections_max: 64,
        ..BOUNDS
    };
    let acceptor = AcceptSettings {
        connections_per_address_max: 32,
        ..OPEN
    };
    let harness = Harness::within(bounds, acceptor);
    let edge = harness.listen().await;
    let mut known = connect(loopback(1), edge).await;
    assert_eq!(delivers(&mut known, "a").await, "200");

    let mut idle = Vec::new();
    for number in 0..600 {
        // Some have begun a head, some a body, some nothing.
        let mut stream = connect(loopback(2 + u8::try_from(number % 20).unwrap()), edge).await;
        let begun: [&[u8]; 3] = [b"", b"POST /web", b"POST /webhooks/meta/main HTTP/1.1\r\nx-hub-signature-256: sha256=00\r\ncontent-length: 9\r\n\r\n{"];
        let _made_room = stream.write_all(begun[number % 3]).await;
        idle.push(stream);
    }
    for number in 0..20 {
        let mut other = connect(loopback(1), edge).await;
        assert_eq!(delivers(&mut other, &format!("b{number}")).await, "200");
    }
    assert_eq!(delivers(&mut known, "c").await, "200", "who signed stays");
    assert!(
        harness.metrics.encode().contains("reason=\"made_room\""),
        "{}",
        harness.metrics.encode()
    );
}

#[tokio::test]
async fn connections_of_an_address_are_counted_until_they_sign() {
    let acceptor = AcceptSettings {
        connections_per_address_max: 2,
        ..OPEN
    };
    let harness = Harness::within(BOUNDS, acceptor);
    let edge = harness.listen().await;
    let mut signed = Vec::new();
    for number in 0..5 {
        let mut stream = connect(loopback(2), edge).await;
        assert_eq!(delivers(&mut stream, &format!("a{number}")).await, "200");
        signed.push(stream);
    }
    let mut silent = [
        connect(loopback(2), edge).await,
        connect(loopback(2), edge).await,
    ];
    let mut third = connect(loopback(2), edge).await;
    assert_eq!(
        delivers(&mut third, "third").await,
        "200",
        "whoever signs may share the address"
    );
    assert_eq!(
        timeout(SOON, silent[0].read(&mut [0; 1]))
            .await
            .unwrap()
            .unwrap_or(0),
        0,
        "it made room"
    );
    assert!(is_counted(&harness, "address_crowded", 1));
    let mut other = connect(loopback(3), edge).await;
    assert_eq!(delivers(&mut other, "b").await, "200");
    assert_eq!(delivers(&mut signed[0], "c").await, "200");
}

#[tokio::test]
async fn a_tenants_own_app_never_has_all_that_is_in_flight() {
    let harness = Harness::within(
        Bounds {
            connections_max: 64,
            ..BOUNDS
        },
        OPEN,
    );
    let edge = harness.listen().await;
    let own = |stream: TcpStream, body: String| async move {
        let mut stream = stream;
        let request = String::from_utf8(request(&body))
            .unwrap()
            .replace("/meta/main", "/meta/globex-own");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    };
    harness.log.answers.send_replace(false);
    let mut held = Vec::new();
    for number in 0..4 {
        let body = delivery("200", &[&format!("a{number}")]).replace("caf", &"x".repeat(40 << 10));
        held.push(own(connect(loopback(2), edge).await, body).await);
    }
    // Three of 40 KiB fit half of 256 KiB.
    counted(&harness, "refusals_total{reason=\"tenant_overloaded\"} 1\n").await;
    let mut other = connect(loopback(1), edge).await;
    other
        .write_all(&request(&delivery("100", &["b"])))
        .await
        .unwrap();
    sleep(Duration::from_millis(20)).await;
    harness.log.answers.send_replace(true);
    assert_eq!(status(&mut other).await, "200");
    let mut answers = Vec::new();
    for stream in &mut held {
        answers.push(status(stream).await);
    }
    assert_eq!(
        answers,
        ["200", "200", "200", "503"],
        "and what is on its way is stored"
    );
    let again = own(connect(loopback(2), edge).await, delivery("200", &["c"])).await;
    held.push(again);
    assert_eq!(status(held.last_mut().unwrap()).await, "200");
}

#[tokio::test]
async fn a_tenants_own_app_keeps_nobody_out_with_idle_connections() {
    let harness = Harness::within(
        Bounds {
            connections_max: 16,
            ..BOUNDS
        },
        OPEN,
    );
    let edge = harness.listen().await;
    let mut shared = connect(loopback(1), edge).await;
    assert_eq!(delivers(&mut shared, "a").await, "200");
    let mut idle = Vec::new();
    for number in 0..40 {
        let mut stream = connect(loopback(2), edge).await;
        let request =
            String::from_utf8(request(&delivery("200", &[&format!("b{number}")]))).unwrap();
        stream
            .write_all(request.replace("/meta/main", "/meta/globex-own").as_bytes())
            .await
            .unwrap();
        assert_eq!(status(&mut stream).await, "200");
        idle.push(stream);
    }
    let mut other = connect(loopback(3), edge).await;
    assert_eq!(
        delivers(&mut other, "c").await,
        "200",
        "the oldest of these made room"
    );
    assert_eq!(
        delivers(&mut shared, "d").await,
        "200",
        "whoever signed for the shared app stays"
    );
}

#[tokio::test]
async fn newcomers_sign_while_a_tenants_own_app_holds_the_listener() {
    let bounds = Bounds {
        connections_max: 16,
        ..BOUNDS
    };
    let harness = Harness::within(bounds, OPEN);
    let edge = harness.listen().await;
    let signs = async |stream: &mut TcpStream, id: &str| {
        let request = String::from_utf8(request(&delivery("200", &[id]))).unwrap();
        let request = request.replace("/meta/main", "/meta/globex-own");
        stream.write_all(request.as_bytes()).await.unwrap();
        status(stream).await
    };
    let mut held = Vec::new();
    for number in 0..16 {
        let mut stream = connect(loopback(2), edge).await;
        assert_eq!(signs(&mut stream, &format!("a{number}")).await, "200");
        held.push(stream);
    }
    assert_eq!(signs(&mut held[0], "b").await, "200");
    let mut newcomers = Vec::new();
    for _ in 0..4 {
        newcomers.push(connect(loopback(3), edge).await);
    }
    for (number, newcomer) in newcomers.iter_mut().enumerate() {
        let delivered = delivers(newcomer, &format!("c{number}")).await;
        assert_eq!(delivered, "200", "no newcomer was shown out for the next");
    }
    assert_eq!(
        signs(&mut held[0], "d").await,
        "200",
        "who signed last stays"
    );
}
