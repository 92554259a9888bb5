//! How the edge gets to NATS: by TLS, as a user of the URL, and with a credentials file.

use crate::against_nats::{Running, SOON, context, declare, settings, stored, write};
use crate::certificates::Ca;
use crate::client::{delivery, post};
use ackline_ingress_testkit::fixture;
use ackline_shared::testing::{NatsOptions, NatsServer, Process};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use nkeys::KeyPair;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

fn start(extra_config: String) -> NatsServer {
    NatsServer::start_with(NatsOptions {
        sync_always: false,
        extra_config,
    })
    .unwrap()
}

/// Declares the fixture's installation, runs an edge and stores an update, all with the same access.
async fn serves(server: &NatsServer, access: &[(&str, &str)]) {
    let (entries, master) = fixture::entries();
    write(&settings(server, &master, access), entries).await;
    let edge = Running::start(server, &master, access).await;
    edge.ready().await;
    assert_eq!(edge.post(&delivery("100", &["wamid.A"])).await.status, 200);
    assert_eq!(stored(&edge.settings).await.len(), 1);
    edge.stop().await;
}

#[tokio::test]
async fn a_user_of_the_url_is_let_in() {
    let server = start("authorization { user: ann, password: \"p@ss\" }".to_owned());
    let url = server.url().replace("nats://", "nats://ann:p%40ss@");
    serves(&server, &[("ACKLINE_NATS_URL", &url)]).await;
}

#[tokio::test]
async fn a_token_of_the_url_is_let_in() {
    let server = start("authorization { token: \"s3cret\" }".to_owned());
    let url = server.url().replace("nats://", "nats://s3cret@");
    serves(&server, &[("ACKLINE_NATS_URL", &url)]).await;
}

#[tokio::test]
async fn credentials_of_a_file_are_let_in() {
    let [operator, account, user] = [
        KeyPair::new_operator(),
        KeyPair::new_account(),
        KeyPair::new_user(),
    ];
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "conn": -1, "leaf": -1, "imports": -1, "exports": -1,
        "wildcards": true, "mem_storage": -1, "disk_storage": -1, "streams": -1, "consumer": -1,
    });
    let of_operator = jwt(
        &operator,
        &operator,
        json!({"type": "operator", "version": 2}),
    );
    let of_account = jwt(
        &account,
        &operator,
        json!({"type": "account", "version": 2, "limits": limits}),
    );
    let system = KeyPair::new_account();
    let of_system = jwt(&system, &operator, json!({"type": "account", "version": 2}));
    let of_user = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let of_user = jwt(&user, &account, of_user);
    let server = start(format!(
        "operator: {of_operator}\nsystem_account: {system}\nresolver: MEMORY\n\
         resolver_preload: {{\n  {}: {of_account}\n  {system}: {of_system}\n}}",
        account.public_key(),
        system = system.public_key()
    ));
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("edge.creds");
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{of_user}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{}\n------END USER NKEY SEED------\n",
        user.seed().unwrap()
    );
    std::fs::write(&file, text).unwrap();
    serves(
        &server,
        &[("ACKLINE_NATS_CREDENTIALS_FILE", file.to_str().unwrap())],
    )
    .await;
}

fn jwt(subject: &KeyPair, issuer: &KeyPair, nats: Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = json!({"typ": "JWT", "alg": "ed25519-nkey"});
    let claims = json!({
        "jti": "test", "iat": 1_700_000_000, "iss": issuer.public_key(), "sub": subject.public_key(),
        "name": "test", "nats": nats,
    });
    let signed = format!("{}.{}", encode(&header), encode(&claims));
    let signature = issuer.sign(signed.as_bytes()).unwrap();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
}

#[tokio::test]
async fn tls_reaches_a_server_whose_certificate_the_system_trusts() {
    let ca = Ca::new("Test CA");
    let leaf = ca.sign("nats", &["localhost", "127.0.0.1"], 30);
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let (certificate, key) = (
        file("cert.pem", &leaf.certificate),
        file("key.pem", &leaf.key.serialize_pem()),
    );
    let trusted = file("ca.pem", &ca.pem);
    // Plain clients are let in too: those of this test trust what the system trusts.
    let tls = format!(
        "allow_non_tls: true\ntls {{ cert_file: \"{}\", key_file: \"{}\" }}",
        certificate.display(),
        key.display()
    );
    let server = start(tls);
    let master = declare(&server).await;
    let key = file("master.key", master.to_base64().expose());
    let (edge, public) = spawn(&server, &key, &trusted);
    let deadline = Instant::now() + SOON;
    while send(public).await != 200 {
        assert!(Instant::now() < deadline, "{}", edge.log());
        sleep(std::time::Duration::from_millis(50)).await;
    }
    let plain = settings(&server, &master, &[]);
    assert_eq!(stored(&plain).await.len(), 1);
    let connections = context(&plain).await.client().server_info().tls_required;
    assert!(
        !connections,
        "the server asks for TLS; the edge chose it by its URL"
    );
}

/// Starts the edge's program, which trusts the CA in a file, and gives its public address.
fn spawn(server: &NatsServer, master_key: &Path, trusted: &Path) -> (Process, SocketAddr) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ackline-ingress"));
    command
        .env("SSL_CERT_FILE", trusted)
        .env(
            "ACKLINE_NATS_URL",
            server.url().replace("nats://", "tls://"),
        )
        .env("ACKLINE_SECRETS_MASTER_KEY_FILE", master_key)
        .env("ACKLINE_NATS_STREAM_BYTES_MAX", "64MiB")
        .env("ACKLINE_NATS_SESSION_BYTES_MAX", "64MiB")
        .env("ACKLINE_INGRESS_LISTEN", "127.0.0.1:0")
        .env("ACKLINE_INGRESS_PRIVATE_LISTEN", "127.0.0.1:0");
    Process::start("ackline-ingress", command, SOON, |line| {
        let (_, rest) = line.split_once("webhooks=")?;
        rest.split_whitespace().next()?.parse().ok()
    })
    .unwrap()
}

async fn send(public: SocketAddr) -> u16 {
    let stream = TcpStream::connect(public).await.unwrap();
    let (mut client, connection) = http1::handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = post(&delivery("100", &["wamid.A"])).map(|body: Full<_>| body);
    timeout(SOON, client.send_request(request))
        .await
        .unwrap()
        .unwrap()
        .status()
        .as_u16()
}
