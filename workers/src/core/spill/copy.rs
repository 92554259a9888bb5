//! An update's copy in a line: the same payload and headers, and beside them where it came from.

use super::store::Entry;
use crate::core::intake::{Arrival, Original};
use ackline_shared::subjects::{Pool, SpillLine, header};
use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;

/// What the server adds to a message read back.
const SERVERS_PREFIX: &str = "Nats-";

/// Makes the copy of what is in hand; a copy of a copy says where the first came from.
pub fn write(pool: Pool, line: &SpillLine, arrival: &Arrival) -> Entry {
    let original = Original {
        subject: arrival.message.subject().to_owned(),
        headers: arrival.message.headers().cloned().unwrap_or_default(),
        payload: arrival.work.payload.clone(),
        sequence: arrival.work.sequence,
    };
    of(pool, line, arrival.stream, original)
}

/// Makes the copy of an update as its stream has it.
pub fn of(pool: Pool, line: &SpillLine, stream: &str, original: Original) -> Entry {
    let Original { subject, mut headers, payload, sequence } = original;
    let id = headers.get(header::MSG_ID).map(|id| id.as_str().to_owned());
    if let Some(id) = id {
        headers.insert(header::SPILL_ID, id);
    }
    let depth = if line.conversation.is_some() { "park" } else { "spill" };
    headers.insert(header::MSG_ID, format!("{depth}:{pool}:{}:{stream}:{sequence}", line.lane));
    headers.insert(header::SPILL_ORIGIN, format!("{stream}:{sequence}:{subject}"));
    Entry { subject: line.subject(pool), headers, payload }
}

/// Reads the original back out of a copy.
pub fn read(message: StreamMessage) -> Original {
    let mut headers = HeaderMap::new();
    for (name, values) in message.headers.iter().filter(|(name, _)| !is_ours(name.as_ref())) {
        values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
    }
    if let Some(id) = message.headers.get(header::SPILL_ID) {
        headers.insert(header::MSG_ID, id.clone());
    }
    let origin = message.headers.get(header::SPILL_ORIGIN).map(|value| value.as_str()).unwrap_or_default();
    let mut parts = origin.splitn(3, ':').skip(1);
    let sequence = parts.next().and_then(|text| text.parse().ok()).unwrap_or_default();
    let subject = parts.next().unwrap_or_default().to_owned();
    Original { subject, headers, payload: message.payload, sequence }
}

fn is_ours(name: &str) -> bool {
    name.starts_with(SERVERS_PREFIX) || name == header::SPILL_ID || name == header::SPILL_ORIGIN
}
