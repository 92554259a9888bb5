//! The protocol towards Meta, over an in-memory pipe with paused time.

use crate::client::{Answer, BOUNDS, Harness, delivery, post, post_to, sign};
use ackline_ingress::http::bounds::Bounds;
use ackline_ingress::routing::RoutingTable;
use ackline_ingress::store::StoreError;
use ackline_ingress_testkit::fixture::{self, VERIFY_TOKEN};
use ackline_shared::envelope::Family;
use ackline_shared::subjects::Class;
use ackline_shared::vault::VaultKey;
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

fn request(method: Method, path: &str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "edge")
        .body(Full::default())
        .unwrap()
}

async fn get(harness: &Harness, query: &str) -> Answer {
    harness
        .send(request(
            Method::GET,
            &format!("/webhooks/meta/main?{query}"),
        ))
        .await
}

fn head(length: usize, signature: &str, more: &str) -> String {
    format!(
        "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nx-hub-signature-256: {signature}\r\ncontent-length: {length}\r\n{more}\r\n"
    )
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_answered_with_an_empty_200_once_it_is_stored() {
    let harness = Harness::new();
    let body = delivery("100", &["wamid.A"]);
    let answer = harness.send(post(&body)).await;
    assert_eq!((answer.status.as_u16(), answer.body.as_str()), (200, ""));
    assert_eq!(answer.header("content-length"), Some("0"));
    let [update] = harness.log.stored().try_into().unwrap();
    assert_eq!(update.payload, body);
    assert_eq!(update.head.signature.as_deref(), Some(sign(&body).as_str()));
    assert_eq!(update.head.tenant.as_str(), "acme");
    assert_eq!(update.head.id.as_str(), "wamid.A");
    assert_eq!(update.head.kind, "message.text");
    assert_eq!(
        update.head.app.as_ref().map(|app| app.as_str()),
        Some("main")
    );
    assert_eq!(
        update.head.phone.as_ref().map(|phone| phone.as_str()),
        Some("100")
    );
    let traceparent = update.head.traceparent.unwrap();
    assert_eq!((traceparent.len(), traceparent.get(..3)), (55, Some("00-")));
}

#[tokio::test(start_paused = true)]
async fn nothing_is_answered_before_it_is_stored() {
    let harness = Harness::new();
    harness.log.answers.send_replace(false);
    let body = delivery("100", &["wamid.A"]);
    let mut sending = Box::pin(harness.send(post(&body)));
    assert!(
        timeout(Duration::from_secs(60), &mut sending)
            .await
            .is_err()
    );
    harness.log.answers.send_replace(true);
    assert_eq!(sending.await.status.as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_batch_is_stored_as_one_delivery_an_update_without_metas_signature() {
    let harness = Harness::new();
    let answer = harness
        .send(post(&delivery("100", &["a", "bb", "ccc"])))
        .await;
    assert_eq!(answer.status.as_u16(), 200);
    let stored = harness.log.stored();
    let ids: Vec<_> = stored
        .iter()
        .map(|update| update.head.id.as_str())
        .collect();
    assert_eq!(ids, ["a", "bb", "ccc"]);
    assert!(stored.iter().all(|update| update.head.signature.is_none()));
    assert!(
        stored
            .iter()
            .all(|update| update.head.traceparent == stored[0].head.traceparent)
    );
    assert_eq!(stored[1].payload, delivery("100", &["bb"]));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_claims_is_kept_under_the_reserved_tenant() {
    let harness = Harness::new();
    for body in [
        &delivery("999", &["a"]),
        "not json",
        r#"{"object":"page","entry":[{}]}"#,
    ] {
        assert_eq!(harness.send(post(body)).await.status.as_u16(), 200);
    }
    let foreign = delivery("100", &["b"]);
    harness
        .send(post_to("globex-own", &foreign, Some(&sign(&foreign))))
        .await;
    let stored = harness.log.stored();
    assert!(stored.iter().all(|update| update.head.tenant.is_unrouted()));
    assert!(
        stored
            .iter()
            .all(|update| update.head.family == Family::Update(Class::Account))
    );
    let kinds: Vec<_> = stored
        .iter()
        .map(|update| update.head.kind.as_str())
        .collect();
    assert_eq!(
        kinds,
        [
            "message.text",
            "unreadable",
            "page.delivery",
            "message.text"
        ]
    );
    assert_eq!(stored[3].head.id.as_str(), "b@globex-own");
    let metrics = harness.metrics.encode();
    for reason in ["unknown_number", "unreadable", "unaddressed", "foreign_app"] {
        assert!(
            metrics.contains(&format!("updates_unrouted_total{{reason=\"{reason}\"}} 1")),
            "{metrics}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_handshake_returns_the_challenge_only_for_the_right_token() {
    let harness = Harness::new();
    let right = format!("hub.mode=subscribe&hub.challenge=11%2058&hub.verify_token={VERIFY_TOKEN}");
    let answer = get(&harness, &right).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (200, "11 58")
    );
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    let wrong = [
        "",
        "hub.mode=subscribe&hub.challenge=1158",
        "hub.mode=subscribe&hub.challenge=1158&hub.verify_token=wrong",
        &format!("hub.mode=unsubscribe&hub.challenge=1158&hub.verify_token={VERIFY_TOKEN}"),
        &format!("hub.mode=subscribe&hub.verify_token={VERIFY_TOKEN}"),
        &format!(
            "hub.mode=subscribe&hub.challenge={}&hub.verify_token={VERIFY_TOKEN}",
            "1".repeat(1025)
        ),
    ];
    for query in wrong {
        let answer = get(&harness, query).await;
        assert_eq!(answer.status.as_u16(), 403, "{query}");
        assert!(!answer.body.contains("1158") && !answer.body.contains(VERIFY_TOKEN));
    }
}

#[tokio::test(start_paused = true)]
async fn a_callback_url_may_end_in_a_slash() {
    let harness = Harness::new();
    let query = format!("hub.mode=subscribe&hub.challenge=1158&hub.verify_token={VERIFY_TOKEN}");
    let path = format!("/webhooks/meta/main/?{query}");
    let answer = harness.send(request(Method::GET, &path)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.body.as_str()),
        (200, "1158")
    );
    let body = delivery("100", &["wamid.A"]);
    let answer = harness
        .send(post_to("main/", &body, Some(&sign(&body))))
        .await;
    assert_eq!(answer.status.as_u16(), 200);
    assert_eq!(harness.log.stored().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unknown_place_or_method_is_refused() {
    let harness = Harness::new();
    for path in [
        "/",
        "/webhooks/meta/",
        "/webhooks/meta/nobody",
        "/webhooks/meta//",
        "/webhooks/meta/main//",
        "/webhooks/meta/main%2f",
    ] {
        assert_eq!(
            harness
                .send(request(Method::POST, path))
                .await
                .status
                .as_u16(),
            404,
            "{path}"
        );
        assert_eq!(
            harness
                .send(request(Method::GET, path))
                .await
                .status
                .as_u16(),
            404,
            "{path}"
        );
    }
    let answer = harness
        .send(request(Method::PUT, "/webhooks/meta/main"))
        .await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("allow")),
        (405, Some("GET, POST"))
    );
}

#[tokio::test(start_paused = true)]
async fn an_unsigned_or_forged_delivery_is_refused_and_nothing_of_it_is_stored() {
    let harness = Harness::new();
    let body = delivery("100", &["wamid.A"]);
    let right = sign(&body);
    let cases = [
        (None, "signature_missing"),
        (Some(""), "signature_malformed"),
        (Some("sha256="), "signature_malformed"),
        (right.get(..70), "signature_malformed"),
        (
            Some("sha256=zzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz"),
            "signature_malformed",
        ),
        (
            Some("sha256=0000000000000000000000000000000000000000000000000000000000000000"),
            "signature_mismatch",
        ),
    ];
    for (signature, reason) in cases {
        let answer = harness.send(post_to("main", &body, signature)).await;
        assert_eq!(answer.status.as_u16(), 401, "{signature:?}");
        assert!(!answer.body.contains(&right[7..]));
        assert!(
            harness
                .metrics
                .encode()
                .contains(&format!("refusals_total{{reason=\"{reason}\"}}")),
            "{reason}"
        );
    }
    assert!(harness.log.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_body_over_the_cap_is_refused_announced_or_not() {
    let harness = Harness::new();
    let body = "x".repeat(BOUNDS.body_bytes_max + 1);
    let answer = harness.send(post(&body)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (413, Some("close"))
    );
    let chunked = format!(
        "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nx-hub-signature-256: {}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
        sign(&body),
        body.len()
    );
    assert!(
        harness
            .raw(chunked.as_bytes())
            .await
            .starts_with("HTTP/1.1 413 ")
    );
}

#[tokio::test(start_paused = true)]
async fn a_chunked_body_is_accepted() {
    let harness = Harness::new();
    let body = delivery("100", &["wamid.A"]);
    let (first, second) = body.split_at(17);
    let request = format!(
        "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nconnection: close\r\nx-hub-signature-256: {}\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n",
        sign(&body),
        first.len(),
        second.len()
    );
    assert!(
        harness
            .raw(request.as_bytes())
            .await
            .starts_with("HTTP/1.1 200 ")
    );
    assert_eq!(harness.log.stored()[0].payload, body);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_read_behind_a_request_that_is_framed_twice() {
    let harness = Harness::new();
    let body = delivery("100", &["wamid.A"]);
    for lines in [
        "transfer-encoding: chunked\r\ncontent-length: 4",
        "content-length: 4\r\ntransfer-encoding: chunked",
    ] {
        let head = format!(
            "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nx-hub-signature-256: {}\r\n",
            sign(&body)
        );
        let first = format!(
            "{head}{lines}\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        );
        let behind = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
        let answers = harness.raw(format!("{first}{behind}").as_bytes()).await;
        // Chunks count (RFC 9112, 6.3), and whatever a balancer took for the next request is not read as one.
        assert_eq!(answers.matches("HTTP/1.1 ").count(), 1, "{answers}");
        assert!(
            answers.starts_with("HTTP/1.1 200 ") && answers.contains("connection: close"),
            "{answers}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_client_that_expects_100_continue_gets_it() {
    let harness = Harness::new();
    let body = delivery("100", &["wamid.A"]);
    let mut pipe = harness.pipe();
    let head = head(
        body.len(),
        &sign(&body),
        "expect: 100-continue\r\nconnection: close\r\n",
    );
    pipe.write_all(head.as_bytes()).await.unwrap();
    let mut interim = [0; 25];
    pipe.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    pipe.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    pipe.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_slow_body_is_refused_at_its_deadline() {
    let harness = Harness::new();
    let started = Instant::now();
    let answer = harness.raw(head(100, "sha256=00", "").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(started.elapsed().as_secs(), BOUNDS.body_timeout.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_is_refused_at_its_deadline_and_an_idle_connection_closed() {
    let harness = Harness::new();
    let started = Instant::now();
    let answer = harness.raw(b"POST /webhooks/meta/main HT").await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert_eq!(started.elapsed().as_secs(), BOUNDS.header_timeout.as_secs());
    assert_eq!(harness.raw(b"").await, "");
    assert!(
        harness
            .metrics
            .encode()
            .contains("broken_connections_total{reason=\"head_too_slow\"} 2")
    );
}

#[tokio::test(start_paused = true)]
async fn an_oversized_head_is_431_and_malformed_http_400() {
    let harness = Harness::new();
    let oversized = format!(
        "GET / HTTP/1.1\r\nhost: edge\r\nx: {}\r\n\r\n",
        "x".repeat(64 << 10)
    );
    let answer = harness.raw(oversized.as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    for malformed in [
        "\x16\x03\x01 hello\r\n\r\n",
        "GET / HTTP/9\r\n\r\n",
        "GET / HTTP/1.1\r\nbad header\r\n\r\n",
    ] {
        let answer = harness.raw(malformed.as_bytes()).await;
        assert!(
            answer.starts_with("HTTP/1.1 400 "),
            "{malformed:?} → {answer}"
        );
    }
    let both = head(5, "sha256=00", "transfer-encoding: chunked\r\n");
    let answer = harness.raw(format!("{both}0\r\n\r\n").as_bytes()).await;
    assert!(answer.starts_with("HTTP/1.1 4"), "{answer}");
    let metrics = harness.metrics.encode();
    assert!(
        metrics.contains("reason=\"head_too_large\"")
            && metrics.contains("reason=\"malformed_http\"")
    );
}

#[tokio::test(start_paused = true)]
async fn a_body_that_breaks_off_stores_nothing() {
    let harness = Harness::new();
    let body = delivery("100", &["wamid.A"]);
    let mut pipe = harness.pipe();
    pipe.write_all(head(body.len() + 1, &sign(&body), "").as_bytes())
        .await
        .unwrap();
    pipe.write_all(body.as_bytes()).await.unwrap();
    pipe.shutdown().await.unwrap();
    let mut answer = String::new();
    pipe.read_to_string(&mut answer).await.unwrap();
    assert!(!answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(harness.log.stored().is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_edge_that_cannot_serve_yet_asks_to_come_again() {
    let harness = Harness::unready(BOUNDS);
    let body = delivery("100", &["wamid.A"]);
    let answer = harness.send(post(&body)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, Some("2"))
    );
    assert_eq!(get(&harness, "").await.status.as_u16(), 503);
    let (snapshot, _) = fixture::snapshot();
    harness
        .routing
        .replace(RoutingTable::build(&snapshot, &VaultKey::generate(), None));
    let answer = harness.send(post(&body)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, Some("2"))
    );
    assert!(
        harness
            .metrics
            .encode()
            .contains("refusals_total{reason=\"secrets_locked\"} 1")
    );
}

#[tokio::test(start_paused = true)]
async fn what_is_declared_in_an_entry_that_does_not_parse_is_asked_for_again_and_not_kept_as_nobodys()
 {
    let harness = Harness::new();
    let (mut snapshot, master) = fixture::snapshot();
    for key in ["phone.300", "app.broken"] {
        assert!(snapshot.fold(key, Some(b"{")).is_err());
    }
    harness
        .routing
        .replace(RoutingTable::build(&snapshot, &master, None));
    let broken = delivery("300", &["wamid.A"]);
    for request in [
        post(&broken),
        post_to("broken", &broken, Some(&sign(&broken))),
    ] {
        let answer = harness.send(request).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, Some("2"))
        );
    }
    assert!(harness.log.stored().is_empty());
    assert!(
        harness
            .metrics
            .encode()
            .contains("refusals_total{reason=\"entry_unreadable\"} 2")
    );
    // Everybody else's go on.
    assert_eq!(
        harness
            .send(post(&delivery("100", &["wamid.B"])))
            .await
            .status
            .as_u16(),
        200
    );
    assert_eq!(
        harness
            .send(post(&delivery("999", &["wamid.C"])))
            .await
            .status
            .as_u16(),
        200
    );
    let phone = br#"{"id":"300","tenant":"acme","app":"main","waba_id":"W3","access_token":"t"}"#;
    snapshot.fold("phone.300", Some(phone)).unwrap();
    harness
        .routing
        .replace(RoutingTable::build(&snapshot, &master, None));
    assert_eq!(harness.send(post(&broken)).await.status.as_u16(), 200);
    let tenants: Vec<_> = harness
        .log
        .stored()
        .iter()
        .map(|update| update.head.tenant.as_str().to_owned())
        .collect();
    assert_eq!(tenants, ["acme", "_unrouted", "acme"]);
}

#[tokio::test(start_paused = true)]
async fn a_delivery_is_refused_when_all_of_it_is_of_tenants_that_hold_more_than_their_share() {
    let harness = Harness::new();
    let (mut snapshot, master) = fixture::snapshot();
    let over = br#"{"v":1,"streams":{"UPDATES":{"bytes":9,"limit":7}}}"#;
    snapshot.fold("overdraft.globex", Some(over)).unwrap();
    harness
        .routing
        .replace(RoutingTable::build(&snapshot, &master, None));
    let (acme, globex) = (delivery("100", &["wamid.A"]), delivery("200", &["wamid.B"]));
    let answer = harness.send(post(&globex)).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (503, Some("2"))
    );
    assert!(
        harness
            .metrics
            .encode()
            .contains("refusals_total{reason=\"over_share\"} 1")
    );
    assert!(harness.log.stored().is_empty());
    assert_eq!(
        harness.send(post(&acme)).await.status.as_u16(),
        200,
        "another's is taken"
    );
    // One that carries another's, too, is taken whole: Meta asks for all of it again or for nothing.
    let entries = |body: &str| {
        body.split_once("\"entry\":[")
            .unwrap()
            .1
            .strip_suffix("]}")
            .unwrap()
            .to_owned()
    };
    let (first, second) = (entries(&delivery("100", &["wamid.C"])), entries(&globex));
    let both = format!(r#"{{"object":"whatsapp_business_account","entry":[{first},{second}]}}"#);
    assert_eq!(harness.send(post(&both)).await.status.as_u16(), 200);
    assert_eq!(harness.log.stored().len(), 3);
    snapshot.fold("overdraft.globex", None).unwrap();
    harness
        .routing
        .replace(RoutingTable::build(&snapshot, &master, None));
    assert_eq!(
        harness
            .send(post(&delivery("200", &["wamid.D"])))
            .await
            .status
            .as_u16(),
        200
    );
}

#[tokio::test(start_paused = true)]
async fn whatever_keeps_the_log_from_storing_is_a_503() {
    let harness = Harness::new();
    let errors = [
        StoreError::Overloaded,
        StoreError::Away,
        StoreError::NoStream,
        StoreError::Refused("maximum bytes exceeded".into()),
        StoreError::Late,
        StoreError::TooLarge("1".into()),
    ];
    for error in errors {
        harness.log.fail_with(error.clone());
        let answer = harness.send(post(&delivery("100", &["wamid.A"]))).await;
        assert_eq!(
            (answer.status.as_u16(), answer.header("retry-after")),
            (503, Some("2")),
            "{error}"
        );
        assert!(
            harness
                .metrics
                .encode()
                .contains(&format!("reason=\"{}\"}} 1", error.reason())),
            "{error}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn bytes_held_over_all_connections_are_bounded_and_given_back() {
    let bounds = Bounds {
        body_bytes_total_max: BOUNDS.body_bytes_max,
        ..BOUNDS
    };
    let harness = Harness::unready(bounds);
    harness.routing.replace(fixture::table());
    harness.log.answers.send_replace(false);
    let large = format!("{:1$}", delivery("100", &["wamid.A"]), 60 << 10);
    let mut first = Box::pin(harness.send(post(&large)));
    assert!(timeout(Duration::from_secs(1), &mut first).await.is_err());
    assert_eq!(harness.send(post(&large)).await.status.as_u16(), 503);
    harness.log.answers.send_replace(true);
    assert_eq!(first.await.status.as_u16(), 200);
    assert_eq!(harness.send(post(&large)).await.status.as_u16(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_connection_is_kept_for_further_deliveries() {
    let harness = Harness::new();
    let mut client = harness.client().await;
    for id in ["a", "bb", "ccc"] {
        let answer = Answer::read(
            client
                .send_request(post(&delivery("100", &[id])))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(answer.status.as_u16(), 200);
        client.ready().await.unwrap();
    }
    assert_eq!(harness.log.stored().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_when_told_to_stop_is_finished_and_then_the_connection_closed() {
    let harness = Harness::new();
    harness.log.answers.send_replace(false);
    let mut client = harness.client().await;
    let body = delivery("100", &["wamid.A"]);
    let mut sending = Box::pin(client.send_request(post(&body)));
    assert!(timeout(Duration::from_secs(1), &mut sending).await.is_err());
    harness.stop.send_replace(true);
    sleep(Duration::from_secs(1)).await;
    harness.log.answers.send_replace(true);
    let answer = Answer::read(sending.await.unwrap()).await;
    assert_eq!(
        (answer.status.as_u16(), answer.header("connection")),
        (200, Some("close"))
    );
    assert!(client.ready().await.is_err());
}

#[tokio::test(start_paused = true)]
async fn connections_without_a_request_do_not_hold_up_the_end() {
    let harness = Harness::new();
    let (mut fresh, mut client) = (harness.pipe(), harness.client().await);
    let answered = Answer::read(
        client
            .send_request(post(&delivery("100", &["a"])))
            .await
            .unwrap(),
    )
    .await;
    assert_eq!(answered.status.as_u16(), 200);
    let started = Instant::now();
    harness.stop.send_replace(true);
    assert_eq!(fresh.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(client.ready().await.is_err());
    assert!(
        started.elapsed() <= Duration::from_secs(1),
        "took {:?}",
        started.elapsed()
    );
}
