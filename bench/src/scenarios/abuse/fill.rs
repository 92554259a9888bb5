//! How full the streams are, and with whose messages.

use ackline_shared::subjects::{DEAD, OUTBOUND, SPILL, SpillQueue, Subject, UPDATES, header};
use anyhow::{Context, Result};
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{self, Message};
use futures_util::StreamExt;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::timeout;

const STREAMS: [&str; 4] = [UPDATES, OUTBOUND, SPILL, DEAD];
const READ_WITHIN: Duration = Duration::from_secs(30);

/// How full a stream is.
#[derive(Debug)]
pub struct Fill {
    pub name: &'static str,
    pub bytes: u64,
    pub bytes_max: i64,
    /// Bytes of contents by tenant, without what is around them.
    pub of_tenants: BTreeMap<String, u64>,
}

pub async fn look(context: &jetstream::Context) -> Result<Vec<Fill>> {
    let mut fills = Vec::new();
    for name in STREAMS {
        let mut stream = context
            .get_stream(name)
            .await
            .context("looking at a stream")?;
        let info = stream.info().await.context("looking at a stream")?;
        let (bytes, bytes_max) = (info.state.bytes, info.config.max_bytes);
        let mut fill = Fill {
            name,
            bytes,
            bytes_max,
            of_tenants: BTreeMap::new(),
        };
        let config = OrderedConfig {
            headers_only: true,
            ..OrderedConfig::default()
        };
        let consumer = stream
            .create_consumer(config)
            .await
            .context("reading a stream")?;
        let mut left = consumer.cached_info().num_pending;
        let mut messages = consumer.messages().await.context("reading a stream")?;
        while left > 0 {
            let message = timeout(READ_WITHIN, messages.next())
                .await
                .context("reading a stream")?;
            let message = message.context("a stream ended early")??;
            *fill.of_tenants.entry(owner(&message.subject)).or_default() += size(&message);
            left = message.info().map_or(0, |info| info.pending);
        }
        fills.push(fill);
    }
    Ok(fills)
}

fn owner(subject: &str) -> String {
    let of_queue = || SpillQueue::parse(subject).map(|(_, queue)| queue.tenant);
    let tenant = Subject::parse(subject)
        .map(|subject| subject.tenant().clone())
        .or_else(of_queue);
    tenant.map_or("?".to_owned(), |tenant| tenant.to_string())
}

fn size(message: &Message) -> u64 {
    let size = message
        .headers
        .as_ref()
        .and_then(|headers| headers.get(header::MSG_SIZE));
    size.and_then(|size| size.as_str().parse().ok())
        .unwrap_or(0)
}

impl Fill {
    /// Its row of the report.
    pub fn row(&self) -> Vec<String> {
        let of_tenants: Vec<_> = self
            .of_tenants
            .iter()
            .map(|(tenant, bytes)| format!("{tenant}: {}", bytes >> 20))
            .collect();
        let [bytes, bytes_max] =
            [self.bytes, self.bytes_max.unsigned_abs()].map(|n| (n >> 20).to_string());
        vec![
            self.name.to_owned(),
            bytes,
            bytes_max,
            of_tenants.join(", "),
        ]
    }
}
