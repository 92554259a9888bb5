//! An update's copy in a line: the same payload and headers, and beside them where it came from.

use super::store::Entry;
use crate::core::intake::{Arrival, Original};
use ackline_shared::subjects::{Pool, SpillLine, header};
use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;

/// What belongs to one publish or is added by the server: left on a copy, it would make the copy part of the batch
/// that its original came in.
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
    let Original { subject, headers: stored, payload, sequence } = original;
    let mut headers = without_ours(&stored);
    if let Some(id) = stored.get(header::MSG_ID) {
        headers.insert(header::SPILL_ID, id.clone());
    }
    let depth = if line.conversation.is_some() { "park" } else { "spill" };
    headers.insert(header::MSG_ID, format!("{depth}:{pool}:{}:{stream}:{sequence}", line.lane));
    headers.insert(header::SPILL_ORIGIN, format!("{stream}:{sequence}:{subject}"));
    Entry { subject: line.subject(pool), headers, payload }
}

/// Reads the original back out of a copy.
pub fn read(message: StreamMessage) -> Original {
    let mut headers = without_ours(&message.headers);
    if let Some(id) = message.headers.get(header::SPILL_ID) {
        headers.insert(header::MSG_ID, id.clone());
    }
    let origin = message.headers.get(header::SPILL_ORIGIN).map(|value| value.as_str()).unwrap_or_default();
    let mut parts = origin.splitn(3, ':').skip(1);
    let sequence = parts.next().and_then(|text| text.parse().ok()).unwrap_or_default();
    let subject = parts.next().unwrap_or_default().to_owned();
    Original { subject, headers, payload: message.payload, sequence }
}

fn without_ours(stored: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in stored.iter().filter(|(name, _)| !is_ours(name.as_ref())) {
        values.iter().for_each(|value| headers.append(name.clone(), value.clone()));
    }
    headers
}

fn is_ours(name: &str) -> bool {
    name.starts_with(SERVERS_PREFIX) || name == header::SPILL_ID || name == header::SPILL_ORIGIN
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::ids::TenantId;
    use ackline_shared::subjects::Partition;
    use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};

    #[test]
    fn a_copy_is_no_part_of_the_batch_that_its_original_came_in() {
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, "wamid.1");
        headers.insert(header::KIND, "message.text");
        for name in [NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_BATCH_COMMIT] {
            headers.insert(name, "1");
        }
        let original =
            Original { subject: "a.subject".to_owned(), headers, payload: "x".into(), sequence: 7 };
        let (partition, lane) = (Partition(1), "msg".to_owned());
        let tenant = TenantId::new("acme").unwrap();
        let line = SpillLine { partition, lane, tenant, conversation: None };
        let copy = of(Pool::Relay, &line, "S", original);
        let mut names: Vec<&str> = copy.headers.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        let mut expected = [header::MSG_ID, header::KIND, header::SPILL_ID, header::SPILL_ORIGIN];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(copy.headers.get(header::SPILL_ID).unwrap().as_str(), "wamid.1");
    }
}
