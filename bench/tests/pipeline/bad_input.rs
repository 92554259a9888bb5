//! Bad input at the edge as it ships: each kind has its status and its metric, and nothing is stored that was
//! not signed.

use crate::installation::{Blueprint, INITECH_NUMBER, INITECH_WABA, Installation, sign};
use ackline_bench::dev::until;
use serde_json::json;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

const WITHIN: Duration = Duration::from_secs(20);
const PATH: &str = "/webhooks/meta/main";
const BODY_BYTES_MAX: usize = 64 << 10;

async fn installation() -> Installation {
    let mut blueprint = Blueprint::new().await;
    blueprint
        .settings
        .push(("ACKLINE_INGRESS_BODY_BYTES_MAX", "64KiB".to_owned()));
    blueprint
        .settings
        .push(("ACKLINE_INGRESS_BODY_TIMEOUT", "1s".to_owned()));
    blueprint.start().await
}

fn message(wamid: &str) -> String {
    delivery(&format!(
        r#"{{"from":"49151","id":"{wamid}","type":"text","text":{{"body":"hi"}}}}"#
    ))
}

fn delivery(message: &str) -> String {
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{INITECH_WABA}","changes":[{{"field":"messages","value":{{"messaging_product":"whatsapp","metadata":{{"phone_number_id":"{INITECH_NUMBER}"}},"messages":[{message}]}}}}]}}]}}"#
    )
}

fn head(path: &str, length: &str, signature: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nhost: edge\r\nconnection: close\r\nx-hub-signature-256: {signature}\r\n{length}\r\n\r\n"
    )
}

/// Sends bytes as they are and gives the status of the answer.
async fn send(installation: &Installation, bytes: &[u8]) -> u16 {
    let exchange = async {
        let mut stream = TcpStream::connect(installation.plan().ports.ingress.address())
            .await
            .unwrap();
        // An edge that has read enough may close before everything is written; its answer counts.
        let _ = stream.write_all(bytes).await;
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[9..]).parse().unwrap()
    };
    timeout(WITHIN, exchange).await.unwrap()
}

/// Posts a body with a signature header, or none.
async fn post(
    installation: &Installation,
    path: &str,
    body: &str,
    signature: Option<String>,
) -> u16 {
    let url = format!("{}{path}", installation.plan().ports.ingress.url());
    let mut request = installation
        .http()
        .post(url)
        .body(body.to_owned())
        .timeout(WITHIN);
    if let Some(signature) = signature {
        request = request.header("x-hub-signature-256", signature);
    }
    request.send().await.unwrap().status().as_u16()
}

/// What the private port counts, by series.
async fn metrics(installation: &Installation) -> BTreeMap<String, u64> {
    let url = format!(
        "{}/metrics",
        installation.plan().ports.ingress_private.url()
    );
    let text = installation
        .http()
        .get(url)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let series = text.lines().filter_map(|line| {
        let (name, value) = line.rsplit_once(' ')?;
        Some((
            name.strip_prefix("ackline_ingress_")?.to_owned(),
            value.parse().ok()?,
        ))
    });
    series.collect()
}

fn count(metrics: &BTreeMap<String, u64>, series: &str, reason: &str) -> u64 {
    metrics
        .get(&format!("{series}_total{{reason=\"{reason}\"}}"))
        .copied()
        .unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_not_signed_or_not_http_is_refused_counted_and_not_stored() {
    let installation = installation().await;
    let body = message("wamid.unsigned");
    let good = sign(body.as_bytes());
    let other = sign(b"another body");
    let cut = good[..good.len() - 2].to_owned();
    let not_hex = format!("sha256={}", "zz".repeat(32));
    let long = format!("content-length: {}", BODY_BYTES_MAX + 1);
    let chunk = "x".repeat(BODY_BYTES_MAX + 1);
    let chunked = format!(
        "{}{:x}\r\n{chunk}",
        head(PATH, "transfer-encoding: chunked", &good),
        chunk.len()
    );
    let fat = format!(
        "POST {PATH} HTTP/1.1\r\nhost: edge\r\nx-fat: {}\r\n\r\n",
        "x".repeat(20 << 10)
    );

    let refused = [
        (
            post(&installation, PATH, &body, None).await,
            401,
            "signature_missing",
        ),
        (
            post(&installation, PATH, &body, Some(other)).await,
            401,
            "signature_mismatch",
        ),
        (
            post(&installation, PATH, &body, Some(cut)).await,
            401,
            "signature_malformed",
        ),
        (
            post(&installation, PATH, &body, Some(not_hex)).await,
            401,
            "signature_malformed",
        ),
        (
            post(&installation, PATH, &body, Some(String::new())).await,
            401,
            "signature_malformed",
        ),
        (
            post(
                &installation,
                "/webhooks/meta/nobody",
                &body,
                Some(good.clone()),
            )
            .await,
            404,
            "not_found",
        ),
        (
            post(&installation, "/", &body, Some(good.clone())).await,
            404,
            "not_found",
        ),
        (
            send(&installation, head(PATH, &long, &good).as_bytes()).await,
            413,
            "body_too_large",
        ),
        (
            send(&installation, chunked.as_bytes()).await,
            413,
            "body_too_large",
        ),
        // Announced and never sent.
        (
            send(
                &installation,
                head(PATH, "content-length: 100", &good).as_bytes(),
            )
            .await,
            408,
            "body_too_slow",
        ),
        (
            send(
                &installation,
                format!("DELETE {PATH} HTTP/1.1\r\nhost: edge\r\n\r\n").as_bytes(),
            )
            .await,
            405,
            "method",
        ),
        (
            send(
                &installation,
                format!("GET {PATH}?hub.mode=subscribe HTTP/1.1\r\nhost: edge\r\n\r\n").as_bytes(),
            )
            .await,
            403,
            "handshake",
        ),
    ];
    let mut reasons: BTreeMap<&str, u64> = BTreeMap::new();
    for (status, expected, reason) in refused {
        assert_eq!(status, expected, "{reason}");
        *reasons.entry(reason).or_default() += 1;
    }
    assert_eq!(send(&installation, fat.as_bytes()).await, 431);
    assert_eq!(
        send(&installation, b"\x16\x03\x01 hello\r\n\r\n").await,
        400
    );

    // The end of a connection is counted when it is over, just after its last answer.
    let metrics = until(
        "both broken connections to be counted",
        WITHIN,
        async || {
            let metrics = metrics(&installation).await;
            let broken = |reason: &str| count(&metrics, "broken_connections", reason);
            Ok(((broken("head_too_large"), broken("malformed_http")) == (1, 1)).then_some(metrics))
        },
    );
    let metrics = metrics.await.unwrap();
    for (reason, times) in reasons {
        assert_eq!(
            count(&metrics, "refusals", reason),
            times,
            "{reason}: {metrics:#?}"
        );
    }
    assert!(installation.stored().await.is_empty());

    assert_eq!(
        post(&installation, PATH, &body, Some(good)).await,
        200,
        "the edge goes on"
    );
    assert_eq!(installation.stored().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_signed_is_kept_whatever_it_is() {
    let installation = installation().await;
    let deep = format!(
        r#"{{"id":"wamid.deep","from":"49151","type":"x","x":{}{}}}"#,
        "[".repeat(5000),
        "]".repeat(5000)
    );
    let entry = json!({"id": INITECH_WABA, "changes": [{"field": "messages", "value": {}}]});
    let twice =
        format!(r#"{{"object":"whatsapp_business_account","entry":[{entry}],"entry":[{entry}]}}"#);
    let account = |object: &str, waba: &str, field: &str| {
        let change = json!({"field": field, "value": {"never": ["seen", {"before": null}]}});
        json!({"object": object, "entry": [{"id": waba, "changes": [change]}]}).to_string()
    };
    let kept = [
        ("this is not JSON".to_owned(), "_unrouted", "unreadable"),
        (String::new(), "_unrouted", "unreadable"),
        ("\u{0}\u{1}".to_owned(), "_unrouted", "unreadable"),
        ("[".repeat(60_000), "_unrouted", "unreadable"),
        (delivery(&deep), "_unrouted", "unreadable"),
        (twice, "_unrouted", "unreadable"),
        (
            account("page", INITECH_WABA, "feed"),
            "_unrouted",
            "unaddressed",
        ),
        (
            account("whatsapp_business_account", "1", "account_update"),
            "_unrouted",
            "unknown_account",
        ),
        (
            account("whatsapp_business_account", INITECH_WABA, "hologram_update"),
            "initech",
            "",
        ),
        (
            message("wamid.number").replace(INITECH_NUMBER, "999"),
            "_unrouted",
            "unknown_number",
        ),
        (
            delivery(r#"{"id":"wamid.type","from":"49151","type":"hologram","hologram":{"a":1}}"#),
            "initech",
            "",
        ),
        (
            delivery(
                r#"{"id":"wamid.twice","from":"49151","type":"text","text":{"body":"a","body":"b"}}"#,
            ),
            "initech",
            "",
        ),
    ];
    let mut unrouted: BTreeMap<&str, u64> = BTreeMap::new();
    for (stored, (body, tenant, reason)) in kept.iter().enumerate() {
        let shown: String = body.chars().take(80).collect();
        assert_eq!(
            post(&installation, PATH, body, Some(sign(body.as_bytes()))).await,
            200,
            "{shown}"
        );
        let log = installation.stored().await;
        assert_eq!(log.len(), stored + 1, "{shown}");
        assert_eq!(log.last().unwrap().tenant, *tenant, "{shown}");
        if !reason.is_empty() {
            *unrouted.entry(reason).or_default() += 1;
        }
    }
    let metrics = metrics(&installation).await;
    for (reason, times) in unrouted {
        assert_eq!(
            count(&metrics, "updates_unrouted", reason),
            times,
            "{reason}: {metrics:#?}"
        );
    }
}
