//! How large a bucket may grow: no bucket fills the disk that the streams are on.

use crate::config::Reader;
use crate::subjects::{BUCKET_CONFIG, BUCKET_SESSIONS};

/// Of the buckets that hold little: who is alive, who owns what, live settings, replays.
const OTHERS: u64 = 256 << 20;

/// The largest size of each bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketBytes {
    /// Of the declared configuration, with its history.
    pub config: u64,
    /// Of the state of conversations.
    pub sessions: u64,
}

impl BucketBytes {
    /// Reads them.
    pub fn read(reader: &mut Reader) -> Self {
        let mut bytes = |key: &str| reader.bytes(key, 1 << 20..=1 << 50);
        Self {
            config: bytes("nats.config_bytes_max"),
            sessions: bytes("nats.session_bytes_max"),
        }
    }

    /// That of a bucket.
    pub(super) fn of(self, bucket: &str) -> u64 {
        match bucket {
            BUCKET_CONFIG => self.config,
            BUCKET_SESSIONS => self.sessions,
            _ => OTHERS,
        }
    }
}

/// Small ones, for tests.
#[cfg(any(test, feature = "testing"))]
impl Default for BucketBytes {
    fn default() -> Self {
        Self {
            config: 64 << 20,
            sessions: 64 << 20,
        }
    }
}
