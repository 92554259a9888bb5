//! What an installation keeps in JetStream: its streams, and its buckets, which are streams of their own kind.

use super::NatsSettings;
use crate::subjects;
use serde::Serialize;
use std::time::Duration;

/// Changes of each live setting that stay readable; the bucket's history is the audit.
const TUNING_HISTORY: u32 = 64;
const CONFIG_HISTORY: u32 = 8;
/// SPILL gets one part in this many of what the other streams get.
const SPILL_FRACTION: u64 = 4;
const SPILL_BYTES_MIN: u64 = 1 << 20;
/// A day more than Meta repeats a delivery for.
const FINISHED_MAX_AGE: Duration = Duration::from_secs(8 * 24 * 3600);
/// Blocks of one conversation, of 256 updates each.
const FINISHED_BLOCKS_MAX: u32 = 4096;

/// A stream as JetStream is asked for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamConfig {
    /// Its name.
    pub name: String,
    /// Subjects it keeps.
    pub subjects: Vec<String>,
    retention: &'static str,
    discard: &'static str,
    storage: &'static str,
    num_replicas: usize,
    #[serde(serialize_with = "nanoseconds")]
    max_age: Duration,
    /// The server's own default where it is zero.
    #[serde(
        serialize_with = "nanoseconds",
        skip_serializing_if = "Duration::is_zero"
    )]
    duplicate_window: Duration,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_bytes: Option<u64>,
    /// Messages kept of each subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    max_msgs_per_subject: Option<u32>,
    allow_direct: bool,
    /// Whether batches are taken.
    pub(super) allow_atomic: bool,
    /// Whether a message may replace what its subject had.
    allow_rollup_hdrs: bool,
    deny_delete: bool,
}

/// Everything an installation keeps, in the order in which it is made.
pub fn streams(settings: &NatsSettings) -> Vec<StreamConfig> {
    let bytes = settings.stream_bytes_max;
    let stream = |name: &str, subjects: &[&str], max_age: Duration, max_bytes: u64| StreamConfig {
        duplicate_window: settings.duplicate_window.min(max_age),
        max_bytes: Some(max_bytes.min(i64::MAX.unsigned_abs())),
        allow_atomic: true,
        ..plain(
            name.to_owned(),
            subjects.iter().map(|&subject| subject.to_owned()).collect(),
            max_age,
            settings,
        )
    };
    let bucket = |name: &str, history: u32, max_age: Duration| StreamConfig {
        max_bytes: Some(settings.bucket_bytes.of(name)),
        max_msgs_per_subject: Some(history),
        allow_rollup_hdrs: true,
        deny_delete: true,
        ..plain(
            bucket_stream(name),
            vec![bucket_subject(name, ">")],
            max_age,
            settings,
        )
    };
    let spill_bytes = (bytes / SPILL_FRACTION).max(SPILL_BYTES_MIN);
    let [updates, records] = subjects::UPDATES_SUBJECTS;
    let updates = [updates, records, subjects::REPLAY_SUBJECTS];
    vec![
        // Lines are read without consumers and taken out by their owner, so that none waits behind another.
        stream(
            subjects::SPILL,
            &subjects::SPILL_SUBJECTS,
            settings.max_age,
            spill_bytes,
        ),
        stream(subjects::UPDATES, &updates, settings.max_age, bytes),
        stream(
            subjects::OUTBOUND,
            &subjects::OUTBOUND_SUBJECTS,
            settings.max_age,
            bytes,
        ),
        stream(
            subjects::DEAD,
            &subjects::DEAD_SUBJECTS,
            settings.dead_max_age,
            bytes,
        ),
        // Where there is no room the oldest goes: it is the least likely to be repeated.
        StreamConfig {
            max_bytes: Some(spill_bytes),
            max_msgs_per_subject: Some(FINISHED_BLOCKS_MAX),
            discard: "old",
            ..plain(
                subjects::FINISHED.to_owned(),
                subjects::FINISHED_SUBJECTS.map(str::to_owned).into(),
                FINISHED_MAX_AGE,
                settings,
            )
        },
        bucket(subjects::BUCKET_CONFIG, CONFIG_HISTORY, Duration::ZERO),
        StreamConfig {
            allow_atomic: true,
            ..bucket(subjects::BUCKET_SESSIONS, 1, settings.session_max_age)
        },
        bucket(subjects::BUCKET_LEASES, 1, settings.lease_ttl),
        bucket(subjects::BUCKET_LOCKS, 1, settings.lease_ttl),
        bucket(subjects::BUCKET_TUNING, TUNING_HISTORY, Duration::ZERO),
        bucket(subjects::BUCKET_REPLAYS, 1, settings.dead_max_age),
        bucket(subjects::BUCKET_OWNERS, 1, Duration::ZERO),
        bucket(subjects::BUCKET_FLOORS, 1, Duration::ZERO),
    ]
}

/// The stream that a bucket is.
pub fn bucket_stream(bucket: &str) -> String {
    format!("{BUCKET_PREFIX}{bucket}")
}

/// The subject of a key of a bucket, or of a filter of keys.
pub fn bucket_subject(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

const BUCKET_PREFIX: &str = "KV_";

impl StreamConfig {
    /// The bytes it may hold.
    pub(super) fn max_bytes(&self) -> u64 {
        self.max_bytes.unwrap_or(u64::MAX)
    }

    /// The same without a bound in bytes.
    pub(super) fn endless(&self) -> Self {
        Self {
            max_bytes: None,
            ..self.clone()
        }
    }

    /// The bucket it is, if it is one.
    pub fn bucket(&self) -> Option<&str> {
        self.name.strip_prefix(BUCKET_PREFIX)
    }
}

fn plain(
    name: String,
    subjects: Vec<String>,
    max_age: Duration,
    settings: &NatsSettings,
) -> StreamConfig {
    StreamConfig {
        name,
        subjects,
        retention: "limits",
        discard: "new",
        storage: "file",
        num_replicas: settings.durability.replicas(),
        max_age,
        duplicate_window: Duration::ZERO,
        max_bytes: None,
        max_msgs_per_subject: None,
        allow_direct: true,
        allow_atomic: false,
        allow_rollup_hdrs: false,
        deny_delete: false,
    }
}

fn nanoseconds<S: serde::Serializer>(
    duration: &Duration,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.serialize_i64(i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX))
}
