//! The connection against a server made of a script: what it says, and when it goes away.

use super::Wire;
use super::slots::{Outcome, Token};
use super::status::ConnectionStatus;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, TenantId, UpdateId};
use ackline_shared::nats::{BucketBytes, Durability, NatsSettings, ServerUrls};
use ackline_shared::subjects::{Class, Partition, update};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(10);

struct Script {
    listener: TcpListener,
}

/// A connection of the script's, after the welcome.
struct Peer(BufReader<TcpStream>);

impl Script {
    async fn start() -> (Self, Arc<Wire>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("nats://{}", listener.local_addr().unwrap());
        let wire = Wire::start(&settings(url), 4, Duration::from_millis(200), None)
            .await
            .unwrap();
        (Self { listener }, wire)
    }

    async fn welcome(&self) -> Peer {
        let mut peer = self.meet().await;
        let hello = [peer.line().await, peer.line().await, peer.line().await];
        assert!(
            hello[0].starts_with("CONNECT {") && hello[1].starts_with("SUB _INBOX."),
            "{hello:?}"
        );
        assert_eq!(hello[2], "PING\r\n");
        // More than the welcome at once, and in pieces.
        peer.say(b"PO").await;
        peer.say(b"NG\r\nINFO {\"max_payload\":900,\"connect_urls\":[]}\r\nPING\r\n")
            .await;
        assert_eq!(peer.line().await, "PONG\r\n");
        peer
    }

    async fn meet(&self) -> Peer {
        let (stream, _) = timeout(SOON, self.listener.accept())
            .await
            .unwrap()
            .unwrap();
        let mut peer = Peer(BufReader::new(stream));
        peer.say(b"INFO {\"max_payload\":4096}\r\n").await;
        peer
    }
}

impl Peer {
    async fn say(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).await.unwrap();
    }

    async fn line(&mut self) -> String {
        let mut line = String::new();
        timeout(SOON, self.0.read_line(&mut line))
            .await
            .unwrap()
            .unwrap();
        line
    }

    /// Reads a message and gives its reply subject.
    async fn message(&mut self) -> String {
        let line = self.line().await;
        let words: Vec<_> = line.split_whitespace().collect();
        let ["HPUB", subject, _, _, size] = words[..5] else {
            panic!("{line}")
        };
        assert_eq!(
            subject,
            update(
                Partition(3),
                Class::Message,
                &TenantId::new("acme").unwrap()
            )
        );
        let size: usize = size.parse().unwrap();
        let mut body = vec![0; size + 2];
        timeout(SOON, self.0.read_exact(&mut body))
            .await
            .unwrap()
            .unwrap();
        assert!(body.ends_with(b"{}\r\n"));
        words[2].to_owned()
    }

    async fn acknowledge(&mut self, reply: &str) {
        let receipt = r#"{"stream":"UPDATES", "seq":1}"#;
        self.say(format!("MSG {reply} 1 {}\r\n{receipt}\r\n", receipt.len()).as_bytes())
            .await;
    }
}

pub(super) fn settings(url: String) -> NatsSettings {
    let hour = Duration::from_secs(3600);
    NatsSettings {
        url: ServerUrls::new(url),
        credentials_file: None,
        monitor_url: None,
        durability: Durability::Stored,
        partitions: 4,
        max_age: hour,
        dead_max_age: hour,
        stream_bytes_max: 1 << 20,
        bucket_bytes: BucketBytes::default(),
        duplicate_window: hour,
        session_max_age: hour,
        lease_ttl: hour,
    }
}

fn head() -> Head {
    Head {
        id: UpdateId::new("wamid.A"),
        tenant: TenantId::new("acme").unwrap(),
        partition: Partition(3),
        family: Family::Update(Class::Message),
        kind: "message.text".to_owned(),
        app: None,
        phone: None,
        conversation: ConversationKey::none(),
        received_ms: 1,
        signature: None,
        traceparent: None,
        field: None,
        replay: None,
    }
}

async fn up(wire: &Wire) {
    assert!(wire.connected(Instant::now() + SOON).await);
}

fn claim(wire: &Wire) -> Token {
    let mut token = None;
    assert!(wire.claim([&mut token].into_iter()));
    token.unwrap()
}

fn publish(wire: &Wire, token: Token, payload: &Bytes) -> Result<(), super::Unsent> {
    wire.write().publish(token, &head(), payload, true)
}

async fn outcome(wire: &Wire, token: Token) -> Option<Outcome> {
    timeout(
        SOON,
        wire.wait(token, Instant::now() + Duration::from_millis(300)),
    )
    .await
    .unwrap()
}

const STORED: Option<Outcome> = Some(Outcome::Stored { duplicate: false });
const PAYLOAD: Bytes = Bytes::from_static(b"{}");

#[tokio::test]
async fn answers_find_who_waits_for_them_in_any_order() {
    let (script, wire) = Script::start().await;
    let (mut peer, ()) = tokio::join!(script.welcome(), up(&wire));
    let (first, second) = (claim(&wire), claim(&wire));
    publish(&wire, first, &PAYLOAD).unwrap();
    publish(&wire, second, &PAYLOAD).unwrap();
    let replies = [peer.message().await, peer.message().await];
    peer.say(format!("HMSG {} 1 16 16\r\nNATS/1.0 503\r\n\r\n\r\n", replies[1]).as_bytes())
        .await;
    peer.acknowledge(&replies[0]).await;
    assert_eq!(outcome(&wire, first).await, STORED);
    assert_eq!(outcome(&wire, second).await, Some(Outcome::NoStream));
}

#[tokio::test]
async fn whoever_waits_hears_at_once_that_the_connection_broke_and_a_new_one_is_made() {
    let (script, wire) = Script::start().await;
    let returns = wire.returns();
    let (mut peer, ()) = tokio::join!(script.welcome(), up(&wire));
    assert_eq!(*returns.borrow(), 0);
    let token = claim(&wire);
    publish(&wire, token, &PAYLOAD).unwrap();
    let reply = peer.message().await;
    // Not a word of the protocol.
    peer.say(b"HTTP/1.1 400 Bad Request\r\n").await;
    assert_eq!(outcome(&wire, token).await, Some(Outcome::Lost));
    assert!(matches!(wire.status(), ConnectionStatus::Down(_)));
    publish(&wire, token, &PAYLOAD).unwrap();
    assert_eq!(
        outcome(&wire, token).await,
        Some(Outcome::Lost),
        "nothing waits for a connection"
    );
    let (mut peer, ()) = tokio::join!(script.welcome(), up(&wire));
    assert_eq!(*returns.borrow(), 1);
    publish(&wire, token, &PAYLOAD).unwrap();
    assert_eq!(
        peer.message().await,
        reply,
        "an answer to either attempt counts"
    );
    peer.acknowledge(&reply).await;
    assert_eq!(outcome(&wire, token).await, STORED);
}

#[tokio::test]
async fn an_attempt_ends_without_an_answer_and_a_late_one_does_not_reach_the_next_holder() {
    let (script, wire) = Script::start().await;
    let (mut peer, ()) = tokio::join!(script.welcome(), up(&wire));
    let token = claim(&wire);
    publish(&wire, token, &PAYLOAD).unwrap();
    let late = peer.message().await;
    assert_eq!(outcome(&wire, token).await, None);
    wire.release([token].into_iter());
    let next = claim(&wire);
    publish(&wire, next, &PAYLOAD).unwrap();
    let reply = peer.message().await;
    assert_ne!(reply, late);
    peer.acknowledge(&late).await;
    peer.say(b"PING\r\n").await;
    assert_eq!(peer.line().await, "PONG\r\n");
    assert_eq!(wire.outcome(next), None);
    peer.acknowledge(&reply).await;
    assert_eq!(outcome(&wire, next).await, STORED);
    wire.release([next].into_iter());
    assert_eq!(wire.in_flight(), 0);
}

#[tokio::test]
async fn what_the_server_would_not_take_is_not_sent() {
    let (script, wire) = Script::start().await;
    let (_peer, ()) = tokio::join!(script.welcome(), up(&wire));
    let token = claim(&wire);
    let error = publish(&wire, token, &Bytes::from(vec![b'x'; 900])).unwrap_err();
    assert!(format!("{error:?}").contains("takes 900"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_refuses_the_login_is_tried_again() {
    let (script, wire) = Script::start().await;
    let mut peer = script.meet().await;
    peer.line().await;
    peer.say(b"-ERR 'Authorization Violation'\r\n").await;
    let (_peer, ()) = tokio::join!(script.welcome(), up(&wire));
    assert_eq!(wire.status(), ConnectionStatus::Up);
}

#[tokio::test]
async fn no_more_slots_are_given_than_there_are() {
    let (_script, wire) = Script::start().await;
    let mut tokens = [None; 5];
    assert!(!wire.claim(tokens.iter_mut()) && tokens.iter().all(Option::is_none));
    assert!(wire.claim(tokens.iter_mut().take(4)));
    assert_eq!(wire.in_flight(), 4);
    let (room, ()) = tokio::join!(wire.has_room(1, Instant::now() + SOON), async {
        wire.release(tokens[0].take().into_iter());
    });
    assert!(room);
    assert!(
        !wire
            .has_room(2, Instant::now() + Duration::from_millis(10))
            .await
    );
}
