//! The updates that a conversation's record knows to be finished: 48 bits of the hash of each, in one piece.
//!
//! A record is read, copied and written for every update of its conversation, so it is kept small and whole: six
//! bytes an update, one allocation, one string where it is stored. Whoever writes it moves full blocks elsewhere
//! (`core/older.rs`) before they are forgotten.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// Marks that are moved together.
pub const BLOCK_MARKS: usize = 256;
pub const BLOCK_BYTES: usize = BLOCK_MARKS * MARK_BYTES;
/// Marks that a record has before a block of them is due to be moved.
const KEPT_MAX: usize = 384;
/// Marks that a record has at most; where nobody moves a block, the oldest makes room for the newest.
pub const FINISHED_MAX: usize = 512;
pub const MARK_BYTES: usize = 6;

/// What is remembered of an update.
pub type Mark = [u8; MARK_BYTES];

/// What is remembered, oldest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Finished(Vec<u8>);

impl Finished {
    /// Whether an update is among them.
    pub fn has(&self, id: &str) -> bool {
        let mark = mark(id);
        self.0.chunks_exact(MARK_BYTES).any(|known| known == mark)
    }

    pub fn add(&mut self, id: &str) {
        let too_many = (self.0.len() + MARK_BYTES).saturating_sub(FINISHED_MAX * MARK_BYTES);
        self.0.drain(..too_many);
        self.0.extend_from_slice(&mark(id));
    }

    /// The oldest marks, when a block of them is due to be moved.
    pub fn full_block(&self) -> Option<&[u8]> {
        if self.0.len() > KEPT_MAX * MARK_BYTES {
            self.0.get(..BLOCK_BYTES)
        } else {
            None
        }
    }

    pub fn drop_block(&mut self) {
        self.0.drain(..BLOCK_BYTES.min(self.0.len()));
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The mark of an update.
pub fn mark(id: &str) -> Mark {
    Sha256::digest(id.as_bytes())
        .first_chunk()
        .copied()
        .unwrap_or_default()
}

impl Serialize for Finished {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD_NO_PAD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Finished {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = STANDARD_NO_PAD.decode(text).map_err(de::Error::custom)?;
        if bytes.len() % MARK_BYTES == 0 {
            Ok(Self(bytes))
        } else {
            Err(de::Error::custom("a piece is missing"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_are_remembered_and_survive_being_stored() {
        let mut finished = Finished::default();
        (0..FINISHED_MAX + 3).for_each(|number| finished.add(&format!("wamid.{number}")));
        let stored = serde_json::to_string(&finished).unwrap();
        assert_eq!(stored.len(), FINISHED_MAX * MARK_BYTES * 4 / 3 + 2);
        let read: Finished = serde_json::from_str(&stored).unwrap();
        assert_eq!(read, finished);
        assert!(!read.has("wamid.2") && read.has("wamid.3"));
        assert!(read.has(&format!("wamid.{}", FINISHED_MAX + 2)) && !read.has("wamid.600"));
    }

    #[test]
    fn a_block_is_due_before_anything_is_forgotten() {
        let mut finished = Finished::default();
        for number in 0..KEPT_MAX {
            finished.add(&format!("wamid.{number}"));
            assert_eq!(finished.full_block(), None);
        }
        finished.add("wamid.last");
        let block = finished.full_block().unwrap().to_vec();
        assert_eq!(
            (block.len(), block.first_chunk()),
            (BLOCK_BYTES, Some(&mark("wamid.0")))
        );
        finished.drop_block();
        assert!(
            !finished.has("wamid.255") && finished.has("wamid.256") && finished.has("wamid.last")
        );
        assert_eq!(finished.full_block(), None);
    }

    #[test]
    fn what_is_no_list_of_marks_is_an_error() {
        for text in ["\"AAAA\"", "\"?\"", "[\"0123456789ab\"]"] {
            assert!(serde_json::from_str::<Finished>(text).is_err(), "{text}");
        }
    }
}
