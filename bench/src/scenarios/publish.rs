//! The other limit: what the edge would publish, written straight to JetStream, acknowledgement by acknowledgement.

use crate::load::{Ledger, Tally, open::due};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{AppId, ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::subjects::{Class, Partition};
use anyhow::{Context, Result};
use bytes::Bytes;
use futures_util::StreamExt;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LATE: Duration = Duration::from_secs(10);
/// Conversations of the one tenant.
const CONVERSATIONS: usize = 6_400;
const PARTITIONS: usize = 32;

/// What stands before each body: subject and headers as the edge writes them, on ids of this run.
struct Heads {
    run: String,
    head: Head,
}

impl Heads {
    fn new(ledger: &Arc<Ledger>) -> Result<Self> {
        let head = Head {
            id: UpdateId::new(""),
            partition: Partition(0),
            tenant: TenantId::new("tenant-0")?,
            family: Family::Update(Class::Message),
            kind: "message.text".to_owned(),
            app: Some(AppId::new("main")?),
            phone: Some(PhoneNumberId::new("100000000000001")?),
            conversation: ConversationKey::none(),
            received_ms: 1_795_300_000_000,
            signature: Some(format!("sha256={}", "0".repeat(64))),
            traceparent: Some(format!("00-{}-{}-01", "1".repeat(32), "2".repeat(16))),
            field: None,
            replay: None,
        };
        Ok(Self {
            run: format!("{:p}", Arc::as_ptr(ledger)),
            head,
        })
    }

    fn of(&mut self, place: usize) -> &Head {
        let person = place % CONVERSATIONS;
        self.head.id = UpdateId::new(&format!("bare-{}-{place}", self.run));
        self.head.conversation = ConversationKey::user(&format!("US.{person:012}"));
        self.head.partition = Partition(u16::try_from(person % PARTITIONS).unwrap_or_default());
        &self.head
    }
}

/// Publishes the bodies of a deck over one connection, so many of them unacknowledged at once, as fast as it goes:
/// no client library, one write for what is due and one read for what came.
///
/// # Errors
/// When NATS cannot be used or does not acknowledge.
pub fn pipelined(url: &str, in_flight: usize, ledger: &Arc<Ledger>) -> Result<Tally> {
    let address = url.strip_prefix("nats://").context("the URL of NATS")?;
    let mut writing = TcpStream::connect(address).context("connecting to NATS")?;
    writing.set_nodelay(true)?;
    writing.set_read_timeout(Some(LATE))?;
    writing.set_write_timeout(Some(LATE))?;
    let mut reading = BufReader::with_capacity(64 << 10, writing.try_clone()?);
    let mut heads = Heads::new(ledger)?;
    let inbox = format!("_INBOX.bare{}", heads.run);
    let options =
        r#"{"verbose":false,"headers":true,"no_responders":true,"lang":"bench","version":"1"}"#;
    writing.write_all(format!("CONNECT {options}\r\nSUB {inbox}.* 1\r\n").as_bytes())?;
    let deck = ledger.deck();
    let (mut out, mut sent, mut tally) = (Vec::new(), Vec::new(), Tally::new());
    let (mut line, mut payload, mut headers) = (String::new(), Vec::new(), Vec::new());
    let (started, mut answered) = (Instant::now(), 0);
    while answered < deck.len() {
        out.clear();
        while sent.len() < deck.len() && sent.len() - answered < in_flight {
            let (place, body) = (sent.len(), deck.body(sent.len()).unwrap_or_default());
            let head = heads.of(place);
            headers.clear();
            head.write_headers(&mut headers);
            let (size, all) = (headers.len(), headers.len() + body.len());
            write!(
                out,
                "HPUB {} {inbox}.{place} {size} {all}\r\n",
                head.subject()
            )?;
            out.extend_from_slice(&headers);
            out.extend_from_slice(body);
            out.extend_from_slice(b"\r\n");
            sent.push(Instant::now());
        }
        writing.write_all(&out)?;
        loop {
            line.clear();
            anyhow::ensure!(
                reading.read_line(&mut line)? > 0,
                "NATS closed the connection"
            );
            match line.split_ascii_whitespace().collect::<Vec<_>>().as_slice() {
                ["MSG", subject, _, length] => {
                    payload.resize(length.parse::<usize>()? + 2, 0);
                    reading.read_exact(&mut payload)?;
                    anyhow::ensure!(
                        payload.starts_with(b"{\"stream\""),
                        "JetStream refused an update"
                    );
                    let place = subject
                        .rsplit('.')
                        .next()
                        .and_then(|place| place.parse::<usize>().ok());
                    let since = place
                        .and_then(|place| sent.get(place))
                        .context("a PubAck of nothing")?;
                    tally.answered(200, since.elapsed());
                    answered += 1;
                }
                ["PING"] => writing.write_all(b"PONG\r\n")?,
                ["INFO" | "+OK" | "PONG", ..] => {}
                _ => anyhow::bail!("NATS said {line:?}"),
            }
            if reading.buffer().is_empty() {
                break;
            }
        }
    }
    tally.took(started.elapsed());
    Ok(tally)
}

/// Publishes the bodies of a deck at an even rate; latency counts from the moment each was due.
///
/// # Errors
/// When NATS cannot be used or does not acknowledge.
#[allow(
    clippy::disallowed_methods,
    reason = "a thread of its own, off the runtime"
)]
pub fn open_loop(url: &str, per_second: f64, ledger: &Arc<Ledger>) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()?;
    let deck = ledger.deck();
    let client = runtime.block_on(async { async_nats::connect(url).await })?;
    let inbox = client.new_inbox();
    let mut answers = runtime.block_on(client.subscribe(format!("{inbox}.*")))?;
    let started = Instant::now();
    let count = deck.len();
    let reader = runtime.spawn(async move {
        let mut tally = Tally::new();
        for _ in 0..count {
            let Ok(Some(answer)) = tokio::time::timeout(LATE, answers.next()).await else {
                break;
            };
            let place = answer
                .subject
                .rsplit('.')
                .next()
                .and_then(|place| place.parse().ok());
            let place: usize = place.unwrap_or_default();
            let is_receipt = answer.payload.starts_with(b"{\"stream\"");
            let latency = started.elapsed().saturating_sub(due(place, per_second));
            tally.answered(if is_receipt { 200 } else { 503 }, latency);
        }
        tally.took(started.elapsed());
        tally
    });
    let mut heads = Heads::new(ledger)?;
    for place in 0..count {
        let body = Bytes::copy_from_slice(deck.body(place).unwrap_or_default());
        let head = heads.of(place);
        let (subject, headers) = (head.subject(), head.to_headers());
        if let Some(wait) = due(place, per_second).checked_sub(started.elapsed()) {
            std::thread::sleep(wait);
        }
        runtime.block_on(client.publish_with_reply_and_headers(
            subject,
            format!("{inbox}.{place}"),
            headers,
            body,
        ))?;
    }
    let tally = runtime.block_on(reader).context("the reader of receipts")?;
    anyhow::ensure!(
        tally.accepted() == count as u64,
        "JetStream acknowledged {} of {count}",
        tally.accepted()
    );
    Ok(tally)
}
