//! The `[spool]` section.

use ackline_shared::config::Reader;
use ackline_shared::nats::{Durability, NatsSettings};
use std::path::PathBuf;
use std::time::Duration;

/// Segments that must fit, so that full ones can be drained while others fill.
const SEGMENTS_MIN: u64 = 4;

/// What the spool is told from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpoolSettings {
    /// Whether every update goes through it.
    pub always: bool,
    pub directory: PathBuf,
    pub bytes_max: u64,
    /// When a file is full.
    pub segment_bytes: u64,
    /// Most bytes kept in memory beside.
    pub memory_bytes_max: usize,
    /// How long what is drained stays, when every update goes through it.
    pub keep: Duration,
    /// How long publishing may be throttled while deliveries come in, when every update goes through it.
    pub lag_max: Duration,
}

impl SpoolSettings {
    /// Reads the section; nothing when there is to be no spool.
    pub fn read(reader: &mut Reader, nats: &NatsSettings) -> Option<Self> {
        let always = nats.durability == Durability::Logged;
        let enabled = reader.flag("spool.enabled");
        let directory = reader.optional_text("spool.directory").map(PathBuf::from);
        let bytes_max = reader.bytes("spool.bytes_max", 1 << 20..=1 << 44);
        let segment_bytes = reader.bytes("spool.segment_bytes", 64 << 10..=1 << 30);
        let memory_bytes_max = reader.bytes("spool.memory_bytes_max", 64 << 10..=1 << 31);
        let keep = reader.duration("spool.keep");
        let lag_max = reader.duration("spool.lag_max");
        if !always && !enabled {
            return None;
        }
        if segment_bytes.saturating_mul(SEGMENTS_MIN) > bytes_max {
            reader.mistake(
                "spool.bytes_max",
                format_args!("is less than {SEGMENTS_MIN} of spool.segment_bytes"),
            );
        }
        if always && keep >= nats.duplicate_window {
            reader.mistake("spool.keep", "is not shorter than nats.duplicate_window");
        }
        let Some(directory) = directory else {
            let why = if always {
                "nats.durability is \"logged\""
            } else {
                "spool.enabled is true"
            };
            reader.mistake("spool.directory", format_args!("is empty while {why}"));
            return None;
        };
        let memory_bytes_max = usize::try_from(memory_bytes_max).unwrap_or(usize::MAX);
        Some(Self {
            always,
            directory,
            bytes_max,
            segment_bytes,
            memory_bytes_max,
            keep,
            lag_max,
        })
    }

    /// How long what is drained stays: a PubAck alone keeps the promise of every mode but `logged`.
    pub fn kept(&self) -> Duration {
        if self.always {
            self.keep
        } else {
            Duration::ZERO
        }
    }

    /// How long publishing may be throttled: not at all when the spool is only a way around an outage.
    pub fn lag_max(&self) -> Duration {
        if self.always {
            self.lag_max
        } else {
            Duration::ZERO
        }
    }
}
