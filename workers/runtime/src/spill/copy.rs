//! An update's copy in a spill queue: the same headers, and beside them where it came from. A long payload stays there,
//! and the copy refers to it.

use super::store::SpillEntry;
use crate::intake::{Arrival, Carrier, Original};
use ackline_engine::state::Copy;
use ackline_shared::clock::now_ms;
use ackline_shared::subjects::{self, Pool, SpillQueue, header};
use async_nats::HeaderMap;
use async_nats::jetstream::message::StreamMessage;
use bytes::Bytes;
use std::sync::Arc;

/// What belongs to one publish or is added by the server: left on a copy, it would make the copy part of the batch
/// that its original came in.
const SERVERS_PREFIX: &str = "Nats-";

/// Longest payload that is copied: a shorter one is hardly more than the headers that go with it, and one message less
/// to read back. A longer one would let few updates of one tenant fill SPILL, which is smaller than the other streams.
const COPIED_MAX: usize = 2 << 10;
/// Before the subject in a reference: versions that know of none find no subject, and bury what they would otherwise take
/// for an update without a payload.
const REFERS: &str = "@";

/// What is known of the waits of an update in a spill queue.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// The one target it waits for; none for a whole update.
    pub target: Option<String>,
    /// When it first failed or had to wait, in unix milliseconds.
    pub first_ms: Option<u64>,
    /// Attempts that it used up.
    pub attempts: u32,
    /// The epoch of the owner that moved it.
    pub epoch: u64,
}

/// Where the payload of a copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    pub stream: String,
    pub sequence: u64,
    pub length: usize,
    /// The dedupe id it was stored with.
    pub id: Option<String>,
}

impl Reference {
    /// Whether a message is what this refers to: a stream that was made again has others at the same sequences.
    pub fn is_to(&self, message: &StreamMessage) -> bool {
        let was_kept = subjects::kept_sequence(&self.stream, &message.subject).is_some();
        let name = if was_kept {
            header::SPILL_ID
        } else {
            header::MSG_ID
        };
        let id = message.headers.get(name).map(|id| id.as_str());
        message.payload.len() == self.length && id == self.id.as_deref()
    }
}

/// Makes the copy of what is in hand; a copy of a copy says where the first came from.
pub fn write(pool: Pool, copy: &Copy<Arc<Arrival>>) -> SpillEntry {
    let arrival = &copy.data;
    let original = Original {
        subject: arrival.message.subject().to_owned(),
        headers: arrival.message.headers().cloned().unwrap_or_default(),
        payload: arrival.payload.clone(),
        sequence: arrival.sequence,
        referred: match &arrival.message {
            Carrier::Message(_) => {
                Some(arrival.payload.len()).filter(|length| *length > COPIED_MAX)
            }
            // What was copied whole, by an earlier version, may be gone from its stream.
            Carrier::Copy(original) => original.referred,
        },
    };
    let note = Note {
        target: copy.target.as_ref().map(|target| target.name.clone()),
        // What goes behind something that waits, waits itself from now on.
        first_ms: copy
            .waits
            .first_ms
            .or_else(|| copy.target.is_some().then(now_ms)),
        attempts: copy.waits.attempts,
        epoch: arrival.reading.lease.epoch(),
    };
    of(pool, &copy.queue, arrival.stream, original, &note)
}

/// Makes the copy of an update as its stream has it.
fn of(pool: Pool, queue: &SpillQueue, stream: &str, original: Original, note: &Note) -> SpillEntry {
    let Original {
        subject,
        headers: stored,
        payload,
        sequence,
        referred,
    } = original;
    let mut headers = without_ours(&stored);
    if let Some(id) = stored.get(header::MSG_ID) {
        headers.insert(header::SPILL_ID, id.clone());
    }
    // Moved once more it is stored once more; only the same move repeated is not.
    let id = match &queue.conversation {
        None => format!("spill:{pool}:{}:{stream}:{sequence}", queue.lane),
        Some(token) => format!(
            "park:{pool}:{}:{token}:{stream}:{sequence}:{}:{}",
            queue.lane,
            note.first_ms.unwrap_or_default(),
            note.attempts
        ),
    };
    headers.insert(header::MSG_ID, id);
    let refers = if referred.is_some() { REFERS } else { "" };
    headers.insert(
        header::SPILL_ORIGIN,
        format!("{stream}:{sequence}:{refers}{subject}"),
    );
    if let Some(length) = referred {
        headers.insert(header::SPILL_LENGTH, length.to_string());
    }
    headers.insert(header::SPILL_EPOCH, note.epoch.to_string());
    if let Some(target) = &note.target {
        headers.insert(header::SPILL_TARGET, target.as_str());
    }
    if let Some(first_ms) = note.first_ms {
        headers.insert(header::SPILL_FIRST, first_ms.to_string());
        headers.insert(header::SPILL_ATTEMPTS, note.attempts.to_string());
    }
    SpillEntry {
        subject: queue.subject(pool),
        headers,
        payload: if referred.is_some() {
            Bytes::new()
        } else {
            payload
        },
    }
}

/// Reads where a copy's payload is, when it is not with the copy.
pub fn reference(headers: &HeaderMap) -> Option<Reference> {
    let length = headers.get(header::SPILL_LENGTH)?.as_str().parse().ok()?;
    let mut origin = headers
        .get(header::SPILL_ORIGIN)
        .map(|value| value.as_str())
        .unwrap_or_default()
        .splitn(3, ':');
    Some(Reference {
        stream: origin.next()?.to_owned(),
        sequence: origin.next()?.parse().ok()?,
        length,
        id: headers
            .get(header::SPILL_ID)
            .map(|id| id.as_str().to_owned()),
    })
}

/// Reads what is known of a copy's waits.
pub fn note(headers: &HeaderMap) -> Note {
    let number = |name: &str| {
        headers
            .get(name)
            .and_then(|value| value.as_str().parse::<u64>().ok())
    };
    Note {
        target: headers
            .get(header::SPILL_TARGET)
            .map(|value| value.as_str().to_owned()),
        first_ms: number(header::SPILL_FIRST),
        attempts: number(header::SPILL_ATTEMPTS)
            .and_then(|count| count.try_into().ok())
            .unwrap_or_default(),
        epoch: number(header::SPILL_EPOCH).unwrap_or_default(),
    }
}

/// Reads the original back out of a copy, with the payload that it refers to.
pub fn read(message: StreamMessage, referred: Option<(usize, Bytes)>) -> Original {
    let mut headers = without_ours(&message.headers);
    if let Some(id) = message.headers.get(header::SPILL_ID) {
        headers.insert(header::MSG_ID, id.clone());
    }
    let origin = message
        .headers
        .get(header::SPILL_ORIGIN)
        .map(|value| value.as_str())
        .unwrap_or_default();
    let mut parts = origin.splitn(3, ':').skip(1);
    let sequence = parts
        .next()
        .and_then(|text| text.parse().ok())
        .unwrap_or_default();
    let subject = parts.next().unwrap_or_default();
    let subject = match &referred {
        Some(_) => subject.strip_prefix(REFERS).unwrap_or(subject),
        None => subject,
    };
    let (referred, payload) = match referred {
        Some((length, payload)) => (Some(length), payload),
        None => (None, message.payload),
    };
    Original {
        subject: subject.to_owned(),
        headers,
        payload,
        sequence,
        referred,
    }
}

fn without_ours(stored: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, values) in stored.iter().filter(|(name, _)| !is_ours(name.as_ref())) {
        values
            .iter()
            .for_each(|value| headers.append(name.clone(), value.clone()));
    }
    headers
}

fn is_ours(name: &str) -> bool {
    name.starts_with(SERVERS_PREFIX) || name.starts_with(header::SPILL_PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::ids::TenantId;
    use ackline_shared::subjects::{Class, Partition, Subject};
    use async_nats::header::{NATS_BATCH_COMMIT, NATS_BATCH_ID, NATS_BATCH_SEQUENCE};

    #[test]
    fn a_copy_is_no_part_of_the_batch_that_its_original_came_in() {
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, "wamid.1");
        headers.insert(header::KIND, "message.text");
        for name in [NATS_BATCH_ID, NATS_BATCH_SEQUENCE, NATS_BATCH_COMMIT] {
            headers.insert(name, "1");
        }
        let original = Original {
            subject: "a.subject".to_owned(),
            headers,
            payload: "x".into(),
            sequence: 7,
            referred: None,
        };
        let (partition, lane) = (Partition(1), "msg".to_owned());
        let tenant = TenantId::new("acme").unwrap();
        let queue = SpillQueue {
            partition,
            lane,
            tenant,
            conversation: None,
        };
        let reported = Note {
            target: Some("bot".to_owned()),
            first_ms: Some(5),
            attempts: 2,
            epoch: 7,
        };
        let copy = of(Pool::Relay, &queue, "S", original, &reported);
        assert_eq!(note(&copy.headers), reported);
        let mut names: Vec<&str> = copy.headers.iter().map(|(name, _)| name.as_ref()).collect();
        names.sort_unstable();
        let mut expected = [
            header::MSG_ID,
            header::KIND,
            header::SPILL_ID,
            header::SPILL_ORIGIN,
            header::SPILL_EPOCH,
            header::SPILL_TARGET,
            header::SPILL_FIRST,
            header::SPILL_ATTEMPTS,
        ];
        expected.sort_unstable();
        assert_eq!(names, expected);
        assert_eq!(
            copy.headers.get(header::SPILL_ID).unwrap().as_str(),
            "wamid.1"
        );
    }

    fn stored(entry: SpillEntry) -> StreamMessage {
        StreamMessage {
            subject: entry.subject.into(),
            sequence: 3,
            headers: entry.headers,
            payload: entry.payload,
            time: std::time::SystemTime::now().into(),
        }
    }

    #[test]
    fn a_long_payload_stays_where_it_is_and_a_version_that_does_not_know_finds_no_update() {
        let mut headers = HeaderMap::new();
        headers.insert(header::MSG_ID, "wamid.1");
        let tenant = TenantId::new("acme").unwrap();
        let queue = SpillQueue {
            partition: Partition(1),
            lane: "msg".to_owned(),
            tenant: tenant.clone(),
            conversation: None,
        };
        let subject = subjects::update(Partition(1), Class::Message, &tenant);
        let original = Original {
            subject: subject.clone(),
            headers,
            payload: "long".into(),
            sequence: 7,
            referred: Some(4),
        };
        let message = stored(of(
            Pool::Relay,
            &queue,
            subjects::UPDATES,
            original,
            &Note::default(),
        ));
        assert!(message.payload.is_empty());
        let refers = reference(&message.headers).unwrap();
        let expected = Reference {
            stream: subjects::UPDATES.to_owned(),
            sequence: 7,
            length: 4,
            id: Some("wamid.1".to_owned()),
        };
        assert_eq!(refers, expected);
        let unknowing = read(message.clone(), None);
        assert_eq!(unknowing.sequence, 7);
        assert!(Subject::parse(&unknowing.subject).is_none());
        let back = read(message, Some((4, "long".into())));
        assert_eq!(
            (back.subject, back.payload, back.sequence, back.referred),
            (subject, "long".into(), 7, Some(4))
        );
        assert_eq!(
            back.headers.get(header::MSG_ID).unwrap().as_str(),
            "wamid.1"
        );
    }
}
