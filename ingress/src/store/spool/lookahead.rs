//! What of the spool is published next: never two updates of one conversation at once.
//!
//! Publishes that are in flight together may be stored in another order, when a stream changes its leader
//! or a few of them are refused. So an update waits until the one before it in its conversation is stored.

use super::record;
use crate::store::Update;
use ackline_shared::ids::ConversationKey;
use bytes::Bytes;
use std::collections::{HashSet, VecDeque};
use std::hash::{BuildHasher, RandomState};

/// Updates read ahead, oldest first.
#[derive(Debug, Default)]
pub struct Lookahead {
    hasher: RandomState,
    entries: VecDeque<Entry>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    sequence: u64,
    /// A hash of tenant and conversation; what has no conversation has no order.
    conversation: Option<u64>,
    record: Bytes,
    state: State,
}

#[derive(Debug)]
enum State {
    Waiting(Box<Update>),
    Picked,
    Stored,
}

/// How far the front moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// Updates.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// A whole record is not an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("record {0} of the spool is whole and unknown")]
pub struct Unknown(u64);

impl Lookahead {
    /// Whether there is nothing to publish.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether there is room for more.
    pub fn has_room(&self, count_max: usize, bytes_max: usize) -> bool {
        self.entries.len() < count_max && self.bytes < bytes_max
    }

    /// The sequence of the oldest.
    pub fn front(&self) -> Option<u64> {
        self.entries.front().map(|entry| entry.sequence)
    }

    /// When the oldest came, in unix milliseconds.
    pub fn oldest_ms(&self) -> Option<u64> {
        self.entries.iter().find_map(|entry| match &entry.state {
            State::Waiting(update) => Some(update.head.received_ms),
            State::Picked | State::Stored => None,
        })
    }

    /// Adds the next record.
    pub fn push(&mut self, sequence: u64, record: Bytes) -> Result<(), Unknown> {
        let update = record::decode(&record).ok_or(Unknown(sequence))?;
        let head = &update.head;
        let ordered = head.conversation != ConversationKey::none();
        let conversation = ordered.then(|| {
            self.hasher
                .hash_one((head.tenant.as_str(), head.conversation.as_str()))
        });
        self.bytes += record.len();
        self.entries.push_back(Entry {
            sequence,
            conversation,
            record,
            state: State::Waiting(update.into()),
        });
        Ok(())
    }

    /// Picks what may be published together, oldest first; [`stored`](Self::stored) or
    /// [`not_stored`](Self::not_stored) must follow.
    pub fn pick(&mut self, count_max: usize) -> Vec<Update> {
        let (mut busy, mut picked) = (HashSet::new(), Vec::new());
        for entry in &mut self.entries {
            if picked.len() >= count_max {
                break;
            }
            if matches!(entry.state, State::Waiting(_))
                && entry
                    .conversation
                    .is_none_or(|conversation| busy.insert(conversation))
                && let State::Waiting(update) = std::mem::replace(&mut entry.state, State::Picked)
            {
                picked.push(*update);
            }
        }
        picked
    }

    /// What was picked is stored; tells how far the front moved, not counting what lies before `from`.
    pub fn stored(&mut self, from: u64) -> Progress {
        for entry in self
            .entries
            .iter_mut()
            .filter(|entry| matches!(entry.state, State::Picked))
        {
            entry.state = State::Stored;
        }
        let mut progress = Progress::default();
        while let Some(entry) = self
            .entries
            .pop_front_if(|entry| matches!(entry.state, State::Stored))
        {
            self.bytes -= entry.record.len();
            if entry.sequence >= from {
                progress.records += 1;
                progress.bytes += entry.record.len() as u64;
            }
        }
        progress
    }

    /// What was picked is not stored, or not known to be.
    pub fn not_stored(&mut self) {
        for entry in self
            .entries
            .iter_mut()
            .filter(|entry| matches!(entry.state, State::Picked))
        {
            // It was read before.
            entry.state = record::decode(&entry.record)
                .map_or(State::Stored, |update| State::Waiting(update.into()));
        }
    }

    /// The oldest that is not stored: what is picked next when one is.
    pub fn oldest_waiting(&self) -> Option<(u64, Bytes)> {
        let mut waiting = self
            .entries
            .iter()
            .filter(|entry| matches!(entry.state, State::Waiting(_)));
        waiting
            .next()
            .map(|entry| (entry.sequence, entry.record.clone()))
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::envelope::{Family, Head};
    use ackline_shared::ids::{TenantId, UpdateId};
    use ackline_shared::subjects::{Class, Partition};
    use bytes::BytesMut;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn update(number: usize, person: u8) -> Update {
        let conversation = match person {
            0 => ConversationKey::none(),
            person => ConversationKey::phone(&person.to_string()),
        };
        let head = Head {
            id: UpdateId::new(&number.to_string()),
            tenant: TenantId::new("acme").unwrap(),
            partition: Partition(1),
            family: Family::Update(Class::Message),
            kind: "message.text".into(),
            app: None,
            phone: None,
            conversation,
            received_ms: number as u64,
            signature: None,
            traceparent: None,
            field: None,
            replay: None,
        };
        Update {
            head,
            payload: Bytes::new(),
        }
    }

    proptest! {
        #[test]
        fn a_conversation_has_one_update_on_its_way_and_keeps_its_order(
            people in prop::collection::vec(0..4_u8, 0..60), windows in prop::collection::vec((1..9_usize, any::<bool>()), 0..20),
        ) {
            let mut lookahead = Lookahead::default();
            for (number, person) in people.iter().enumerate() {
                lookahead.push(number as u64 + 1, record::encode(&update(number, *person), &mut BytesMut::new())).unwrap();
            }
            let (mut stored, mut left) = (Vec::new(), people.len() as u64);
            let certain = std::iter::repeat_n((8, true), people.len());
            for (count, succeeds) in windows.into_iter().chain(certain) {
                let picked = lookahead.pick(count);
                let people: Vec<_> = picked.iter().map(|update| update.head.conversation.as_str()).collect();
                for (place, person) in people.iter().enumerate() {
                    prop_assert!(*person == "-" || !people[..place].contains(person));
                }
                if succeeds {
                    stored.extend(picked);
                    left -= lookahead.stored(0).records;
                } else {
                    lookahead.not_stored();
                }
            }
            prop_assert!(left == 0 && lookahead.is_empty() && lookahead.bytes == 0);
            prop_assert_eq!(stored.len(), people.len());
            let mut last: HashMap<String, u64> = HashMap::new();
            for update in stored.iter().filter(|update| update.head.conversation != ConversationKey::none()) {
                let before = last.insert(update.head.conversation.as_str().to_owned(), update.head.received_ms);
                prop_assert!(before.is_none_or(|before| before < update.head.received_ms));
            }
        }
    }
}
