//! The client against real servers on loopback, with names resolved by the tests.

use super::receiver::{Answer, Receiver, closed_port, loopback, settings};
use super::*;
use ackline_shared::model::Tenant;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode};
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const UNREACHABLE: EgressError = EgressError::Refused("the destination cannot be reached");
const INSECURE: EgressError = EgressError::Refused("the URL must start with https://");
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers each lookup with the next list of addresses, the last one for ever.
struct Names {
    answers: Vec<Vec<IpAddr>>,
    asked: AtomicUsize,
}

impl Names {
    fn new(answers: &[&[&str]]) -> Arc<Self> {
        let read = |list: &&[&str]| list.iter().map(|text| text.parse().unwrap()).collect();
        Arc::new(Self {
            answers: answers.iter().map(read).collect(),
            asked: AtomicUsize::new(0),
        })
    }
}

impl Lookup for Names {
    fn lookup(&self, _host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        let turn = self
            .asked
            .fetch_add(1, Ordering::SeqCst)
            .min(self.answers.len() - 1);
        Box::pin(std::future::ready(Ok(self.answers[turn].clone())))
    }
}

fn post(url: String, timeout: Duration) -> EgressRequest {
    EgressRequest::post(url, HeaderMap::new(), Bytes::from_static(b"{}"), timeout)
}

async fn attempt(egress: &Egress, url: String) -> Result<u16, EgressError> {
    egress
        .request(post(url, PATIENCE))
        .await
        .map(|answer| answer.status.as_u16())
}

#[test]
fn every_spelling_of_a_private_address_is_refused() {
    let egress = Egress::new(&settings(&[])).unwrap();
    let hosts = [
        "127.0.0.1",
        "127.1",
        "0x7f.1",
        "2130706433",
        "017700000001",
        "0x7f000001",
        "\u{2460}\u{2461}\u{2466}.\u{24ea}.\u{24ea}.\u{2460}",
        "127.0.0.1.",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:7f00:1::]",
        "[fd00:ec2::254]",
        "[fe80::1]",
        "169.254.169.254",
        "169.254.170.2",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "10.0.0.1",
        "192.168.1.1",
    ];
    for host in hosts {
        assert_eq!(
            egress.check_url(&format!("https://{host}/hook")),
            Err(UNREACHABLE),
            "{host}"
        );
    }
}

#[test]
fn a_url_that_is_not_plain_https_is_refused_in_words() {
    let egress = Egress::new(&settings(&[])).unwrap();
    for url in [
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "http://10.0.0.1/",
    ] {
        assert_eq!(egress.check_url(url), Err(INSECURE), "{url}");
    }
    for url in [
        "https://user@example.com/",
        "https://user:pass@example.com/",
        "https://:pass@example.com/",
    ] {
        let error = egress.check_url(url).unwrap_err();
        assert!(
            error.to_string().contains("user name or password"),
            "{url}: {error}"
        );
    }
    for url in [
        "",
        "example.com",
        "https://",
        "https://a b/",
        "https://[::1/",
    ] {
        assert!(egress.check_url(url).is_err(), "{url}");
    }
    assert!(
        egress
            .check_url(&format!("https://example.com/{}", "x".repeat(2048)))
            .is_err()
    );
    assert_eq!(
        egress.check_url("https://example.com:8443/hook?a=b"),
        Ok(())
    );
    assert_eq!(egress.check_url("https://93.184.216.34/"), Ok(()));
}

#[tokio::test]
async fn a_name_that_resolves_to_a_private_address_is_refused_unless_listed() {
    let receiver = Receiver::start([]).await;
    let port = receiver.address.port();
    let other = port ^ 1;
    let cases = [
        (None, Err(INSECURE)),
        (Some("10.0.0.0/8".to_owned()), Err(INSECURE)),
        (Some("other.lan".to_owned()), Err(INSECURE)),
        (Some(format!("bot.lan:{other}")), Err(INSECURE)),
        (Some(format!("127.0.0.1:{other}")), Err(INSECURE)),
        (Some("bot.lan".to_owned()), Ok(200)),
        (Some("127.0.0.0/8".to_owned()), Ok(200)),
        (Some(format!("bot.lan:{port}")), Ok(200)),
        (Some(format!("127.0.0.1:{port}")), Ok(200)),
    ];
    for (entry, expected) in cases {
        let allow: Vec<_> = entry.as_deref().into_iter().collect();
        let egress = Egress::with_lookup(&settings(&allow), Names::new(&[&["127.0.0.1"]])).unwrap();
        let result = attempt(&egress, format!("http://bot.lan:{port}/hook")).await;
        assert_eq!(result, expected, "{entry:?}");
        assert_eq!(
            receiver.take().len(),
            usize::from(expected.is_ok()),
            "{entry:?}"
        );
    }
}

#[tokio::test]
async fn a_secure_url_whose_name_is_private_reads_like_one_that_does_not_answer() {
    let private: [&[&str]; 4] = [
        &["127.0.0.1"],
        &["93.184.216.34", "10.0.0.1"],
        &["::ffff:10.0.0.1"],
        &["64:ff9b::a9fe:a9fe"],
    ];
    for addresses in private {
        let egress = Egress::with_lookup(&settings(&[]), Names::new(&[addresses])).unwrap();
        assert_eq!(
            attempt(&egress, "https://bot.example/".into()).await,
            Err(UNREACHABLE),
            "{addresses:?}"
        );
    }
}

#[tokio::test]
async fn plain_http_to_a_public_name_is_refused_even_when_private_addresses_are_listed() {
    let names = Names::new(&[&["93.184.216.34"]]);
    let egress = Egress::with_lookup(&settings(&["10.0.0.0/8"]), names).unwrap();
    assert_eq!(
        attempt(&egress, "http://public.example/".into()).await,
        Err(INSECURE)
    );
}

#[tokio::test]
async fn the_machines_own_name_is_refused_with_and_without_a_dot() {
    let system = Egress::new(&settings(&[])).unwrap();
    let names = Egress::with_lookup(&settings(&[]), Names::new(&[&["::1", "127.0.0.1"]])).unwrap();
    assert_eq!(
        attempt(&system, "https://localhost:9/".into()).await,
        Err(UNREACHABLE)
    );
    for host in ["localhost", "localhost.", "LOCALHOST"] {
        assert_eq!(
            attempt(&names, format!("https://{host}:9/")).await,
            Err(UNREACHABLE),
            "{host}"
        );
    }
}

#[tokio::test]
async fn a_name_is_judged_again_at_each_connection() {
    let closing = || Answer::With(200, "connection", "close".into());
    let receiver = Receiver::start([closing(), closing()]).await;
    let names = Names::new(&[&["127.0.0.1"], &["127.0.0.2"]]);
    let egress = Egress::with_lookup(&settings(&["127.0.0.1"]), names).unwrap();
    let url = format!("http://rebinding.example:{}/", receiver.address.port());
    assert_eq!(attempt(&egress, url.clone()).await, Ok(200));
    assert_eq!(attempt(&egress, url).await, Err(INSECURE));
    assert_eq!(receiver.take().len(), 1);
}

#[tokio::test]
async fn what_is_listed_for_one_tenant_is_reached_by_nobody_else_not_even_over_its_connection() {
    let receiver = Receiver::start([]).await;
    let url = format!("http://crm.lan:{}/", receiver.address.port());
    let everybody = Egress::with_lookup(&settings(&[]), Names::new(&[&["127.0.0.1"]])).unwrap();
    let tenant = |id: &str, allow: &[&str]| -> Tenant {
        let value = serde_json::json!({"id": id, "name": id, "egress_allow": allow});
        serde_json::from_value(value).unwrap()
    };
    let (acme, globex) = (
        tenant("acme", &["crm.lan", "*"]),
        tenant("globex", &["other.lan"]),
    );
    let of =
        async |tenant: Option<&Tenant>| attempt(&everybody.of_tenant(tenant), url.clone()).await;
    assert_eq!(of(Some(&acme)).await, Ok(200));
    for other in [Some(&globex), Some(&tenant("initech", &[])), None] {
        assert_eq!(
            of(other).await,
            Err(INSECURE),
            "the connection is open, but not theirs"
        );
    }
    let of_acme = everybody.of_tenant(Some(&acme));
    assert_eq!(
        attempt(&of_acme.of_tenant(None), url.clone()).await,
        Err(INSECURE)
    );
    assert_eq!(attempt(&everybody, url.clone()).await, Err(INSECURE));
    assert_eq!(
        of(Some(&tenant("acme", &["other.lan"]))).await,
        Err(INSECURE),
        "taken out of the list again"
    );
    assert_eq!(of(Some(&acme)).await, Ok(200));
    let operator =
        Egress::with_lookup(&settings(&["crm.lan"]), Names::new(&[&["127.0.0.1"]])).unwrap();
    assert_eq!(
        attempt(&operator.of_tenant(Some(&globex)), url.clone()).await,
        Ok(200),
        "the operator's list"
    );
    assert_eq!(receiver.take().len(), 3);
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_is_not_followed() {
    let target = Receiver::start([]).await;
    let receiver = Receiver::start([Answer::With(307, "location", target.url("/"))]).await;
    assert_eq!(attempt(&loopback(), receiver.url("/")).await, Ok(307));
    assert!(target.take().is_empty());
}

#[tokio::test]
async fn a_closed_port_is_a_safe_failure() {
    let error = attempt(&loopback(), format!("http://{}/", closed_port().await))
        .await
        .unwrap_err();
    assert_eq!(error, EgressError::Connect { tls: None });
    assert!(!error.is_permanent() && !error.is_ambiguous());
}

#[tokio::test]
async fn a_failed_handshake_says_what_tls_said() {
    let receiver = Receiver::start([]).await;
    let error = attempt(&loopback(), format!("https://{}/", receiver.address))
        .await
        .unwrap_err();
    assert!(
        matches!(error, EgressError::Connect { tls: Some(_) }),
        "{error:?}"
    );
    assert!(receiver.take().is_empty());
}

#[tokio::test]
async fn silence_and_a_broken_connection_are_ambiguous() {
    let silent = Receiver::start([Answer::Hang]).await;
    let result = loopback()
        .request(post(silent.url("/"), Duration::from_millis(200)))
        .await;
    assert_eq!(result.unwrap_err(), EgressError::Timeout);

    let (listener, url) = listen().await;
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.read_u8().await.unwrap();
    });
    let error = attempt(&loopback(), url).await.unwrap_err();
    assert_eq!(error, EgressError::Broken);
    assert!(error.is_ambiguous());
}

#[tokio::test]
async fn a_long_answer_is_cut_and_says_so() {
    let answers = [
        Answer::Body(500, vec![b'x'; 5000]),
        Answer::Body(200, b"abc".to_vec()),
    ];
    let receiver = Receiver::start(answers).await;
    let mut request = post(receiver.url("/"), PATIENCE);
    request.response_bytes_max = 3;
    let answer = loopback().request(request).await.unwrap();
    assert_eq!(
        (answer.status.as_u16(), &answer.body[..], answer.whole),
        (500, &b"xxx"[..], false)
    );
    let answer = loopback()
        .request(post(receiver.url("/"), PATIENCE))
        .await
        .unwrap();
    assert_eq!((&answer.body[..], answer.whole), (&b"abc"[..], true));
}

#[tokio::test]
async fn a_body_that_does_not_end_in_time_still_has_its_status() {
    let (listener, url) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await;
        stream
            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nslow")
            .await
            .unwrap();
        stream.read_to_end(&mut Vec::new()).await.ok();
    });
    let answer = loopback()
        .request(post(url, Duration::from_millis(300)))
        .await
        .unwrap();
    assert_eq!(
        (answer.status, &answer.body[..], answer.whole),
        (StatusCode::OK, &b"slow"[..], false)
    );
    server.await.unwrap();
}

#[tokio::test]
async fn requests_have_a_content_length_and_share_a_connection() {
    let (listener, url) = listen().await;
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut heads = Vec::new();
        for body_bytes in [0, 2] {
            heads.push(read_head(&mut stream).await);
            stream.read_exact(&mut vec![0; body_bytes]).await.unwrap();
            stream
                .write_all(b"HTTP/1.1 204 No Content\r\n\r\n")
                .await
                .unwrap();
        }
        heads
    });
    let egress = loopback();
    let empty = EgressRequest {
        body: Bytes::new(),
        ..post(url.clone(), PATIENCE)
    };
    assert_eq!(
        egress.request(empty).await.unwrap().status,
        StatusCode::NO_CONTENT
    );
    let mut headers = HeaderMap::new();
    headers.insert("transfer-encoding", "chunked".parse().unwrap());
    headers.insert("host", "elsewhere.example".parse().unwrap());
    headers.insert("content-length", "99".parse().unwrap());
    let full = EgressRequest {
        method: Method::PUT,
        headers,
        ..post(url, PATIENCE)
    };
    assert_eq!(
        egress.request(full).await.unwrap().status,
        StatusCode::NO_CONTENT
    );
    let heads = server.await.unwrap();
    for (head, line, length) in [(&heads[0], "POST /", "0"), (&heads[1], "PUT /", "2")] {
        assert!(head.starts_with(&format!("{line} HTTP/1.1\r\n")), "{head}");
        assert!(
            head.contains(&format!("\r\ncontent-length: {length}\r\n")),
            "{head}"
        );
    }
    assert!(
        !heads.concat().contains("chunked") && !heads.concat().contains("elsewhere"),
        "{heads:?}"
    );
}

#[test]
fn settings_are_read_and_mistakes_are_named() {
    let environment = |entries: &str| [("ACKLINE_EGRESS_ALLOW".to_owned(), entries.to_owned())];
    let mut reader = Reader::load(None, environment("chatwoot.lan,10.0.8.0/24:443"));
    let settings = EgressSettings::read(&mut reader);
    assert!(reader.finish().is_ok());
    assert!(settings.allow.permits_host("chatwoot.lan", None) && !settings.allow_http);

    let mut reader = Reader::load(None, environment("10.0.8.0/99"));
    EgressSettings::read(&mut reader);
    let report = reader.finish().unwrap_err();
    assert!(
        report.to_string().contains("egress.allow: `10.0.8.0/99`"),
        "{report}"
    );
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    (listener, url)
}

async fn read_head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}
