//! What was used so far: CPU time of the programs, messages through nats-server, writes by stream.

use super::super::workers::Crew;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

#[derive(Debug, Clone)]
pub struct Meter {
    pub at: Instant,
    pub edge: Duration,
    pub workers: Duration,
    pub nats: Duration,
    /// Messages to nats-server, and from it.
    pub messages: [u64; 2],
    /// What was ever stored, by stream.
    pub writes: BTreeMap<String, u64>,
}

impl Meter {
    pub async fn read(crew: &Crew, http: &reqwest::Client, monitor: SocketAddr) -> Result<Self> {
        let (edge, workers, nats) = (
            crew.edge_usage().cpu,
            crew.usage().cpu,
            crew.broker_usage().cpu,
        );
        let at = Instant::now();
        let varz = ask(http, monitor, "varz").await?;
        let jsz = ask(http, monitor, "jsz?accounts=true&streams=true").await?;
        let count = |name: &str| {
            varz.get(name)
                .and_then(Value::as_u64)
                .with_context(|| format!("no {name} in /varz"))
        };
        Ok(Self {
            at,
            edge,
            workers,
            nats,
            messages: [count("in_msgs")?, count("out_msgs")?],
            writes: writes(&jsz),
        })
    }

    /// What was used since then.
    pub fn since(&self, before: &Self) -> Self {
        let writes = self.writes.iter().map(|(stream, last)| {
            let first = before.writes.get(stream).copied().unwrap_or(0);
            (stream.clone(), last.saturating_sub(first))
        });
        let [before_in, before_out] = before.messages;
        let [now_in, now_out] = self.messages;
        Self {
            at: self.at,
            edge: self.edge.saturating_sub(before.edge),
            workers: self.workers.saturating_sub(before.workers),
            nats: self.nats.saturating_sub(before.nats),
            messages: [
                now_in.saturating_sub(before_in),
                now_out.saturating_sub(before_out),
            ],
            writes: writes.filter(|(_, written)| *written > 0).collect(),
        }
    }
}

async fn ask(http: &reqwest::Client, monitor: SocketAddr, what: &str) -> Result<Value> {
    let answer = http
        .get(format!("http://{monitor}/{what}"))
        .send()
        .await?
        .text()
        .await?;
    serde_json::from_str(&answer).with_context(|| format!("reading /{what} of nats-server"))
}

/// The last sequence of every stream, buckets included.
fn writes(jsz: &Value) -> BTreeMap<String, u64> {
    let list = |value: &Value, name: &str| {
        let list = value.get(name).and_then(Value::as_array);
        list.cloned().unwrap_or_default()
    };
    let accounts = list(jsz, "account_details");
    let streams = accounts
        .iter()
        .flat_map(|account| list(account, "stream_detail"));
    let last = |stream: &Value| {
        let name = stream.get("name")?.as_str()?.to_owned();
        Some((name, stream.pointer("/state/last_seq")?.as_u64()?))
    };
    streams.filter_map(|stream| last(&stream)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::nats::layout::bucket_stream;
    use ackline_shared::subjects::{BUCKET_TUNING, UPDATES};
    use serde_json::json;

    #[test]
    fn a_stream_is_as_far_as_its_last_sequence() {
        let tuning = bucket_stream(BUCKET_TUNING);
        let said = json!({"account_details": [{"name": "$G", "stream_detail": [
            {"name": UPDATES, "state": {"last_seq": 7, "messages": 2}}, {"name": tuning, "state": {"last_seq": 0}},
        ]}]});
        let expected = [(tuning, 0), (UPDATES.to_owned(), 7)];
        assert_eq!(writes(&said), BTreeMap::from(expected));
    }
}
