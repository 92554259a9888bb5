//! Takes one fixed webhook along a path as often as told: what callgrind counts for
//! `make bench SCENARIO=instructions`.
//!
//! `core` is verify, split, stamp and writing subject and headers as they travel; `http` is a keep-alive connection through the real server into a log that
//! only writes subject and headers as they travel; `repeat` is the same with a webhook that was acknowledged before.

use ackline_ingress::http::bounds::Bounds;
use ackline_ingress::http::caller::Caller;
use ackline_ingress::http::server::Server;
use ackline_ingress::metrics::Metrics;
use ackline_ingress::routing::Routing;
use ackline_ingress::split::split;
use ackline_ingress::split::stamping::{Arrival, Stamp, Stamped};
use ackline_ingress::store::{StoreError, Update, UpdateLog};
use ackline_ingress_testkit::fixture;
use ackline_shared::signature::{self, SigningKey};
use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hyper::Request;
use hyper::body::Incoming;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

const ID: &str = "wamid.HBgLMTU1NTEyMzQ1NjcVAgASGBQzQTdCNjE0";

/// A text message as Meta sends it, about 1 KB with its text.
fn body() -> Bytes {
    let text =
        "The parcel left the depot this morning and should be with you before noon. ".repeat(7);
    Bytes::from(format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W1","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15550783881","phone_number_id":"100"}},"contacts":[{{"profile":{{"name":"Ada"}},"wa_id":"15551234567","user_id":"US.100000000001"}}],"messages":[{{"from":"15551234567","from_user_id":"US.100000000001","id":"{ID}","timestamp":"1795300000","text":{{"body":"{text}"}},"type":"text"}}]}},"field":"messages"}}]}}]}}"#
    ))
}

fn main() -> anyhow::Result<()> {
    let path = std::env::args()
        .nth(1)
        .context("say which path: core, http or repeat")?;
    let webhooks: u64 = std::env::args()
        .nth(2)
        .context("say how many webhooks")?
        .parse()?;
    match path.as_str() {
        "core" => core(webhooks),
        "http" => http(webhooks, false),
        "repeat" => http(webhooks, true),
        other => bail!("there is no path {other}: choose core, http or repeat"),
    }
}

fn core(webhooks: u64) -> anyhow::Result<()> {
    let table = fixture::table();
    let app = table.app("main").context("the fixture has no app")?;
    let secrets = app.secrets().context("the fixture's app is locked")?;
    let body = body();
    let signature = SigningKey::from_bytes(fixture::SECRET.as_bytes()).sign(&body);
    let mut text = Vec::new();
    for webhook in 0..webhooks {
        let body = black_box(&body);
        signature::verify(&secrets.keys, Some(signature.as_bytes()), body)?;
        let arrival = Arrival::now(signature.as_bytes(), webhook.into(), webhook);
        let stamp = Stamp {
            table: &table,
            app,
            partitions: 32,
            arrival: &arrival,
        };
        let split = split(body)?;
        let mut unrouted = Vec::new();
        for update in Stamped::new(stamp, &split, &mut unrouted) {
            text.clear();
            update.head.write_subject(&mut text);
            update.head.write_headers(&mut text);
            black_box((&text, update.payload));
        }
        ensure!(unrouted.is_empty(), "the webhook is not routed");
    }
    Ok(())
}

/// Makes what a publish needs, and sends nothing.
#[derive(Debug)]
struct NoLog;

impl UpdateLog for NoLog {
    async fn store<I>(&self, updates: I) -> Result<(), StoreError>
    where
        I: Iterator<Item = Update> + Send,
    {
        let mut text = Vec::with_capacity(1024);
        for update in updates {
            text.clear();
            update.head.write_subject(&mut text);
            update.head.write_headers(&mut text);
            black_box((&text, update.payload));
        }
        Ok(())
    }
}

const BOUNDS: Bounds = Bounds {
    connections_max: 1,
    header_bytes_max: 16 << 10,
    header_timeout: Duration::from_secs(60),
    body_bytes_max: 64 << 10,
    body_timeout: Duration::from_secs(60),
    body_bytes_total_max: 64 << 10,
};

fn http(webhooks: u64, is_known: bool) -> anyhow::Result<()> {
    let (routing, metrics) = (Routing::new(), Metrics::new());
    routing.replace(fixture::table());
    let edge = fixture::edge(Arc::new(NoLog), routing, BOUNDS, metrics.clone());
    if is_known {
        edge.acknowledged
            .remember(edge.acknowledged.print("acme", ID));
    }
    let handler = move |request: Request<Incoming>, caller: Arc<Caller>| {
        let edge = edge.clone();
        async move { edge.answer(request, &caller).await }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut client, theirs) = tokio::io::duplex(64 << 10);
        let (_stop, stopped) = watch::channel(false);
        let server = Server::new(handler, BOUNDS, metrics);
        tokio::spawn(server.serve(theirs, Caller::anyone(), None, stopped));
        let body = body();
        let signature = SigningKey::from_bytes(fixture::SECRET.as_bytes()).sign(&body);
        let head = format!(
            "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge.example\r\nuser-agent: facebookexternalua\r\naccept: */*\r\n\
             content-type: application/json\r\nx-hub-signature-256: {signature}\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        let request = [head.as_bytes(), &body].concat();
        let mut answer = Vec::with_capacity(1024);
        for _ in 0..webhooks {
            client.write_all(&request).await?;
            answer.clear();
            while !answer.ends_with(b"\r\n\r\n") {
                ensure!(client.read_buf(&mut answer).await? > 0, "the server closed the connection");
            }
            ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
        }
        Ok(())
    })
}
