//! The other limit: the same bytes published straight to JetStream, acknowledgement by acknowledgement.

use crate::load::{Ledger, Tally, open::due};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{Class, Partition, UPDATES, header, update};
use anyhow::{Context, Result};
use async_nats::HeaderMap;
use bytes::Bytes;
use futures_util::StreamExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

const LATE: Duration = Duration::from_secs(10);

/// Publishes the bodies of a deck at an even rate; latency counts from the moment each was due.
///
/// # Errors
/// When NATS cannot be used or does not acknowledge.
#[allow(clippy::disallowed_methods, reason = "a thread of its own, off the runtime")]
pub fn open_loop(url: &str, per_second: f64, ledger: &Arc<Ledger>) -> Result<Tally> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let deck = ledger.deck();
    let client = runtime.block_on(async { async_nats::connect(url).await })?;
    let inbox = client.new_inbox();
    let mut answers = runtime.block_on(client.subscribe(format!("{inbox}.*")))?;
    let started = Instant::now();
    let count = deck.len();
    let reader = runtime.spawn(async move {
        let mut tally = Tally::new();
        for _ in 0..count {
            let Ok(Some(answer)) = tokio::time::timeout(LATE, answers.next()).await else { break };
            let place = answer.subject.rsplit('.').next().and_then(|place| place.parse().ok());
            let place: usize = place.unwrap_or_default();
            let is_receipt = answer.payload.starts_with(b"{\"stream\"");
            let latency = started.elapsed().saturating_sub(due(place, per_second));
            tally.answered(if is_receipt { 200 } else { 503 }, latency);
        }
        tally.took(started.elapsed());
        tally
    });
    let tenant = TenantId::new("tenant-0").map_err(|error| anyhow::anyhow!("{error}"))?;
    let subject = update(Partition(0), Class::Message, &tenant);
    for place in 0..count {
        let body = Bytes::copy_from_slice(deck.body(place).unwrap_or_default());
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, format!("bare-{UPDATES}-{:p}-{place}", Arc::as_ptr(ledger)));
        if let Some(wait) = due(place, per_second).checked_sub(started.elapsed()) {
            std::thread::sleep(wait);
        }
        runtime.block_on(client.publish_with_reply_and_headers(
            subject.clone(),
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
