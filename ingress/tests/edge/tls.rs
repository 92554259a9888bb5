//! TLS at the edge with a real client: versions, credentials and their replacement, client certificates.

use crate::certificates::{Ca, Directory, HOST, Leaf, META};
use crate::client::{Answer, BOUNDS, Harness, OPEN, delivery, post, read_settings};
use crate::tls_client::{TlsClient, V12, V13, is_counted, shown};
use ackline_ingress::http::acceptor::AcceptSettings;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep, timeout};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn webhooks_are_stored_over_both_versions_of_tls_and_of_http() {
    let ca = Ca::new("public");
    let harness = Harness::accepting(Directory::new(&ca.server()).settings());
    for version in [V12, V13] {
        let client = TlsClient::new(&ca, version);
        let answer = client
            .send(&harness, post(&delivery("100", &["a"])))
            .await
            .unwrap();
        assert_eq!(answer.status.as_u16(), 200);
        let response = client
            .http1(&harness)
            .await
            .send_request(post(&delivery("100", &["b"])))
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (200, hyper::Version::HTTP_11)
        );
        let response = client
            .http2(&harness)
            .await
            .send_request(post(&delivery("100", &["c"])))
            .await
            .unwrap();
        assert_eq!(
            (response.status().as_u16(), response.version()),
            (200, hyper::Version::HTTP_2)
        );
    }
    let stored = harness.log.stored();
    let ids: Vec<_> = stored
        .iter()
        .map(|update| update.head.id.as_str())
        .collect();
    assert_eq!(ids, ["a", "b", "c", "a", "b", "c"]);
    assert!(stored.iter().all(|update| update.head.signature.is_some()));
}

#[tokio::test(start_paused = true)]
async fn an_open_connection_goes_on_when_the_certificate_is_replaced() {
    let ca = Ca::new("public");
    let (old, new) = (ca.server(), ca.server());
    let directory = Directory::new(&old);
    let harness = Harness::accepting(directory.settings());
    let client = TlsClient::new(&ca, V13);
    let (mut first, mut second) = (client.http1(&harness).await, client.http2(&harness).await);
    directory.install(&new);
    harness.tls().look(false);
    for id in ["a", "b"] {
        let answer = Answer::read(
            first
                .send_request(post(&delivery("100", &[id])))
                .await
                .unwrap(),
        )
        .await;
        assert_eq!(answer.status.as_u16(), 200);
        first.ready().await.unwrap();
        assert_eq!(
            second
                .send_request(post(&delivery("100", &[id])))
                .await
                .unwrap()
                .status()
                .as_u16(),
            200
        );
    }
    let stream = client.connect(harness.pipe(), None).await.unwrap();
    assert_eq!(shown(&stream), new.der);
}

#[tokio::test(start_paused = true)]
async fn a_certificate_that_cannot_be_used_does_not_replace_one_that_can() {
    let ca = Ca::new("public");
    let (old, new) = (ca.server(), ca.server());
    let directory = Directory::new(&old);
    let harness = Harness::accepting(directory.settings());
    let client = TlsClient::new(&ca, V13);
    // Half of a replacement: the certificate is new, the key is not yet.
    for broken in [new.certificate.as_str(), "not pem", ""] {
        directory.write("chain.pem", broken);
        harness.tls().look(false);
        harness.tls().look(false);
        let stream = client.connect(harness.pipe(), None).await.unwrap();
        assert_eq!(shown(&stream), old.der);
        let status = harness.tls().status(SystemTime::now());
        assert!(
            status["reload_error"]
                .as_str()
                .unwrap()
                .starts_with("ingress.tls_"),
            "{status}"
        );
        assert!(
            harness
                .metrics
                .encode()
                .contains("ackline_ingress_certificate_refused 1")
        );
    }
    assert!(
        harness
            .metrics
            .encode()
            .contains("certificate_reload_failures_total 2"),
        "the last two read alike"
    );
    directory.install(&new);
    harness.tls().look(false);
    assert_eq!(
        shown(&client.connect(harness.pipe(), None).await.unwrap()),
        new.der
    );
    assert!(
        harness
            .metrics
            .encode()
            .contains("ackline_ingress_certificate_refused 0")
    );
    assert!(harness.tls().status(SystemTime::now())["reload_error"].is_null());
}

#[tokio::test(start_paused = true)]
async fn changed_files_are_noticed_by_themselves_and_unchanged_ones_left_alone() {
    let ca = Ca::new("public");
    let directory = Directory::new(&ca.server());
    let tls = Harness::accepting(directory.settings()).tls();
    let before = tls.config();
    let following = tokio::spawn(tls.clone().follow());
    sleep(PATIENCE).await;
    assert!(Arc::ptr_eq(&before, &tls.config()));
    directory.install(&ca.server());
    let noticed = async {
        while Arc::ptr_eq(&before, &tls.config()) {
            sleep(Duration::from_secs(1)).await;
        }
    };
    timeout(PATIENCE, noticed).await.unwrap();
    following.abort();
}

#[tokio::test]
async fn a_hangup_signal_reads_the_files_at_once() {
    let ca = Ca::new("public");
    let directory = Directory::new(&ca.server());
    let tls = Harness::accepting(directory.settings()).tls();
    // Heard by us as well, so that the signal cannot end the test before the edge listens.
    let mut heard = signal(SignalKind::hangup()).unwrap();
    let before = tls.config();
    let following = tokio::spawn(tls.clone().follow());
    tokio::task::yield_now().await;
    let sent = Command::new("kill")
        .args(["-HUP", &std::process::id().to_string()])
        .status()
        .unwrap();
    assert!(sent.success());
    timeout(PATIENCE, heard.recv()).await.unwrap();
    // Files that did not change are read again only because of the signal.
    let read = async {
        while Arc::ptr_eq(&before, &tls.config()) {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, read).await.unwrap();
    following.abort();
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_certificate_is_shown_before_and_after_it() {
    let ca = Ca::new("public");
    let now = SystemTime::now();
    for (days, expired) in [(60, false), (3, false), (-1, true)] {
        let harness = Harness::accepting(Directory::new(&ca.sign(HOST, &[HOST], days)).settings());
        let status = harness.tls().status(now);
        assert_eq!(status["certificate_expired"], expired, "{status}");
        let ends = status["certificate_expires"].as_i64().unwrap();
        let expected = i64::try_from(
            now.duration_since(SystemTime::UNIX_EPOCH)
                .unwrap()
                .as_secs(),
        )
        .unwrap();
        assert!((ends - expected - days * 86_400).abs() <= 60, "{status}");
        let metric = format!("ackline_ingress_certificate_expires_seconds {ends}\n");
        assert!(harness.metrics.encode().contains(&metric), "{metric}");
    }
}

/// An edge that asks for Meta's certificate, and what a client that shows `leaf` gets from it.
async fn with_client_certificate(leaf: impl Fn(&Ca) -> Option<Leaf>, reason: &str) {
    let (public, meta) = (Ca::new("public"), Ca::new("meta"));
    let directory = Directory::new(&public.server()).with_client_ca(&meta);
    let leaf = leaf(&meta);
    for version in [V12, V13] {
        let harness = Harness::accepting(directory.settings());
        let client = TlsClient::showing(&public, version, leaf.as_ref());
        let answer = client.send(&harness, post(&delivery("100", &["a"]))).await;
        if reason.is_empty() {
            assert_eq!(answer.unwrap().status.as_u16(), 200);
            assert!(
                harness.tls().status(SystemTime::now())["client_certificate"]
                    .as_bool()
                    .unwrap()
            );
        } else {
            assert!(answer.is_err(), "{version:?}: {answer:?}");
            assert!(
                is_counted(&harness, reason, 1),
                "{version:?}: {}",
                harness.metrics.encode()
            );
            assert!(harness.log.stored().is_empty());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn metas_client_certificate_is_accepted_by_either_kind_of_name() {
    with_client_certificate(|meta| Some(meta.sign(META, &[], 60)), "").await;
    with_client_certificate(
        |meta| Some(meta.sign("other", &["other.test", META], 60)),
        "",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn clients_without_metas_certificate_are_turned_away_and_counted_by_reason() {
    with_client_certificate(|_| None, "client_certificate_missing").await;
    let other = |_: &Ca| Some(Ca::new("other").sign(META, &[META], 60));
    with_client_certificate(other, "client_certificate_untrusted").await;
    for name in [
        "webhooks.fbclientcerts.com",
        "*.webhooks.fbclientcerts.com",
        "client.webhooks.fbclientcerts.com.evil.test",
    ] {
        with_client_certificate(
            |meta| Some(meta.sign(name, &[name], 60)),
            "client_certificate_name",
        )
        .await;
    }
    with_client_certificate(
        |meta| Some(meta.sign(META, &[META], -1)),
        "client_certificate_expired",
    )
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_session_of_before_the_client_ca_was_replaced_is_not_resumed() {
    let (public, old, new) = (Ca::new("public"), Ca::new("old"), Ca::new("new"));
    let directory = Directory::new(&public.server()).with_client_ca(&old);
    let harness = Harness::accepting(directory.settings());
    let client = TlsClient::showing(&public, V13, Some(&old.sign(META, &[META], 60)));
    client
        .send(&harness, post(&delivery("100", &["a"])))
        .await
        .unwrap();
    client
        .send(&harness, post(&delivery("100", &["b"])))
        .await
        .unwrap();
    directory.write("client-ca.pem", &new.pem);
    harness.tls().look(false);
    client
        .send(&harness, post(&delivery("100", &["c"])))
        .await
        .unwrap_err();
    assert_eq!(harness.log.stored().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn plain_http_on_the_tls_port_is_closed_with_an_alert() {
    let ca = Ca::new("public");
    let harness = Harness::accepting(Directory::new(&ca.server()).settings());
    let mut pipe = harness.pipe();
    pipe.write_all(b"POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, pipe.read_to_end(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(answer.first(), Some(&21), "an alert record: {answer:?}");
    assert!(is_counted(&harness, "not_tls", 1));
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_is_not_finished_in_time_is_closed() {
    let ca = Ca::new("public");
    let harness = Harness::accepting(Directory::new(&ca.server()).settings());
    for start in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let started = Instant::now();
        let mut pipe = harness.pipe();
        pipe.write_all(start).await.unwrap();
        let mut answer = Vec::new();
        timeout(PATIENCE, pipe.read_to_end(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            started.elapsed().as_secs(),
            OPEN.handshake_timeout.as_secs()
        );
    }
    assert!(is_counted(&harness, "tls_handshake_slow", 2));
}

#[tokio::test(start_paused = true)]
async fn handshakes_take_turns_and_those_that_only_listen_take_none() {
    let ca = Ca::new("public");
    let settings = Directory::new(&ca.server()).settings();
    let harness = Harness::accepting(AcceptSettings {
        handshakes_max: 1,
        ..settings
    });
    let silent: Vec<_> = (0..8).map(|_| harness.pipe()).collect();
    let client = TlsClient::new(&ca, V13);
    let answer = timeout(
        OPEN.handshake_timeout / 2,
        client.send(&harness, post(&delivery("100", &["a"]))),
    )
    .await;
    assert_eq!(answer.unwrap().unwrap().status.as_u16(), 200);
    // One that says hello and no more holds the only turn to its deadline; the next waits for it.
    let mut stalled = harness.pipe();
    stalled.write_all(&stalled_hello()).await.unwrap();
    sleep(Duration::from_secs(1)).await;
    let started = Instant::now();
    let answer = client.send(&harness, post(&delivery("100", &["b"]))).await;
    assert_eq!(answer.unwrap().status.as_u16(), 200);
    assert_eq!(
        started.elapsed(),
        OPEN.handshake_timeout - Duration::from_secs(1)
    );
    drop(silent);
}

/// The first flight of a client that then says no more.
fn stalled_hello() -> Vec<u8> {
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(
        rustls::crypto::ring::default_provider(),
    ))
    .with_safe_default_protocol_versions()
    .unwrap()
    .with_root_certificates(rustls::RootCertStore::empty())
    .with_no_client_auth();
    config.enable_sni = false;
    let name = rustls::pki_types::ServerName::try_from(HOST).unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test(start_paused = true)]
async fn the_bounds_on_slow_clients_hold_under_tls() {
    let ca = Ca::new("public");
    let harness = Harness::accepting(Directory::new(&ca.server()).settings());
    let client = TlsClient::new(&ca, V13);
    let whole_head = "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nx-hub-signature-256: sha256=00\r\ncontent-length: 9\r\n\r\n";
    for (start, wait) in [
        ("POST /webh", BOUNDS.header_timeout),
        (whole_head, BOUNDS.body_timeout),
    ] {
        let started = Instant::now();
        let mut stream = client.connect(harness.pipe(), None).await.unwrap();
        stream.write_all(start.as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer))
            .await
            .unwrap()
            .unwrap();
        assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
        assert_eq!(started.elapsed().as_secs(), wait.as_secs());
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_does_not_hold_up_the_end() {
    let ca = Ca::new("public");
    let harness = Harness::accepting(Directory::new(&ca.server()).settings());
    let mut pipe = harness.pipe();
    tokio::task::yield_now().await;
    let started = Instant::now();
    harness.stop.send_replace(true);
    assert_eq!(pipe.read(&mut [0; 1]).await.unwrap(), 0);
    assert!(started.elapsed() < Duration::from_secs(1));
}

#[test]
fn what_is_wrong_with_the_files_is_said_at_the_start() {
    let ca = Ca::new("public");
    let directory = Directory::new(&ca.server());
    directory.write("other.pem", &ca.server().key.serialize_pem());
    directory.write("empty.pem", "");
    directory.write(
        "broken.pem",
        "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n",
    );
    directory.write(
        "odd.pem",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
    );
    let (chain, key, client) = ("TLS_CERTIFICATE_FILE", "TLS_KEY_FILE", "CLIENT_CA_FILE");
    let right = [(chain, "chain.pem"), (key, "key.pem")];
    assert!(directory.mistakes(&right).is_empty());
    for (keys, expected) in [
        (
            vec![(chain, "chain.pem")],
            "ingress.tls_key_file: is empty while",
        ),
        (
            vec![(key, "key.pem")],
            "ingress.tls_certificate_file: is empty while",
        ),
        (vec![(client, "chain.pem")], "ingress.client_ca_file: needs"),
        (
            vec![(chain, "absent.pem"), (key, "key.pem")],
            "ingress.tls_certificate_file: ",
        ),
        (
            vec![(chain, "chain.pem"), (key, "absent.pem")],
            "absent.pem cannot be read",
        ),
        (
            vec![(chain, "chain.pem"), (key, "other.pem")],
            "is not the key of the certificate",
        ),
        (
            vec![(chain, "chain.pem"), (key, "chain.pem")],
            "has no unencrypted private key",
        ),
        (
            vec![(chain, "key.pem"), (key, "key.pem")],
            "has no certificate",
        ),
        (
            vec![(chain, "empty.pem"), (key, "key.pem")],
            "has no certificate",
        ),
        (
            vec![(chain, "broken.pem"), (key, "key.pem")],
            "is not valid PEM",
        ),
        (
            vec![(chain, "odd.pem"), (key, "key.pem")],
            "cannot be parsed",
        ),
        (
            vec![right[0], right[1], (client, "key.pem")],
            "ingress.client_ca_file: ",
        ),
        (
            vec![
                right[0],
                right[1],
                (client, "chain.pem"),
                ("CLIENT_NAME", ""),
            ],
            "ingress.client_name: is empty",
        ),
    ] {
        let mistakes = directory.mistakes(&keys);
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(
            mistakes[0].contains(expected),
            "{mistakes:?} lacks {expected}"
        );
    }
}

#[test]
fn a_program_with_half_of_tls_ends_with_the_status_of_wrong_settings() {
    let ended = Command::new(env!("CARGO_BIN_EXE_ackline-ingress"))
        .env("ACKLINE_INGRESS_TLS_KEY_FILE", "/nowhere/key.pem")
        .output()
        .unwrap();
    let said = String::from_utf8(ended.stderr).unwrap();
    assert_eq!(ended.status.code(), Some(64), "{said}");
    assert!(
        said.contains("ingress.tls_certificate_file: is empty while ingress.tls_key_file is set"),
        "{said}"
    );
}

#[test]
fn proxies_must_be_named_and_be_addresses() {
    let mistakes = |required: &str, proxies: &str| {
        let variables = [("PROXY_PROTOCOL", required), ("TRUSTED_PROXIES", proxies)];
        let variables =
            variables.map(|(key, value)| (format!("ACKLINE_INGRESS_{key}"), value.to_owned()));
        read_settings(variables).err().unwrap_or_default()
    };
    assert!(mistakes("required", "10.0.0.0/8, 192.0.2.1, 2001:db8::/32").is_empty());
    assert_eq!(mistakes("required", "").len(), 1);
    assert_eq!(mistakes("off", "10.0.0.0/8").len(), 1);
    assert_eq!(mistakes("sometimes", "").len(), 1);
    assert_eq!(mistakes("required", "10.0.0.0/8, lan").len(), 1);
}
