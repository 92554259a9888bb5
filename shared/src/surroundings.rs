//! What a process needs of the machine and of NATS and may lack: looked at when it starts and every minute, told in the
//! log when it changes and in `/readyz` always. None of it stops a process: the rest goes on.

mod clock;
mod host;
mod message_size;

pub use clock::{problem as clock_problem, skew_ms};
pub use host::{Descriptors, Disk};
pub use message_size::problem as message_size_problem;

use crate::nats::api::Ask;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Time between two looks.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// A directory that needs room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Room {
    /// The setting that names it.
    pub setting: &'static str,
    /// Where it is.
    pub directory: PathBuf,
    /// Bytes that should be free.
    pub needed: u64,
}

/// What a process needs, and what it was seen to have.
#[derive(Debug)]
pub struct Surroundings {
    body_bytes_max: usize,
    rooms: Vec<Room>,
    descriptors: Descriptors,
    connections_setting: &'static str,
    message_bytes_max: AtomicUsize,
    skew_ms: AtomicI64,
    reported: Mutex<BTreeSet<&'static str>>,
}

/// Something that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Warning {
    /// What it is about: `max_payload`, `disk`, `clock` or `descriptors`.
    pub about: &'static str,
    /// What is missing and what to do.
    pub text: String,
}

impl Surroundings {
    /// Begins with what the process needs; raises its limit of descriptors where it can.
    pub fn new(
        body_bytes_max: usize,
        rooms: Vec<Room>,
        (descriptors, connections_setting): (u64, &'static str),
    ) -> Self {
        Self {
            body_bytes_max,
            rooms,
            descriptors: Descriptors::raise(descriptors),
            connections_setting,
            message_bytes_max: AtomicUsize::new(0),
            skew_ms: AtomicI64::new(0),
            reported: Mutex::default(),
        }
    }

    /// The longest message nats-server takes; `None` until it was asked.
    pub fn message_bytes_max(&self) -> Option<usize> {
        Some(self.message_bytes_max.load(Ordering::Relaxed)).filter(|bytes| *bytes > 0)
    }

    /// Everything that is missing now.
    pub fn warnings(&self) -> Vec<Warning> {
        let mut warnings = Vec::new();
        let mut push =
            |about, text: Option<String>| warnings.extend(text.map(|text| Warning { about, text }));
        let payload = self
            .message_bytes_max()
            .and_then(|max| message_size_problem(max, self.body_bytes_max));
        push("max_payload", payload);
        for room in &self.rooms {
            push(
                "disk",
                Disk::of(&room.directory).and_then(|disk| disk.problem(room)),
            );
        }
        push("clock", clock_problem(self.skew_ms.load(Ordering::Relaxed)));
        push(
            "descriptors",
            self.descriptors.problem(self.connections_setting),
        );
        warnings
    }

    /// Looks once, and logs what is missing that was not before.
    pub async fn look(&self, asker: &impl Ask, message_bytes_max: usize) {
        self.message_bytes_max
            .store(message_bytes_max, Ordering::Relaxed);
        // Without an answer what was known stands.
        if let Ok(skew) = skew_ms(asker).await {
            self.skew_ms.store(skew, Ordering::Relaxed);
        }
        let warnings = self.warnings();
        let mut reported = self.reported.lock().unwrap_or_else(PoisonError::into_inner);
        for warning in warnings
            .iter()
            .filter(|warning| !reported.contains(warning.about))
        {
            tracing::error!(about = warning.about, "{}", warning.text);
        }
        *reported = warnings.iter().map(|warning| warning.about).collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::api::{Question, Unanswered};
    use bytes::Bytes;

    struct Away;

    impl Ask for Away {
        async fn ask(&self, _question: Question) -> Result<Bytes, Unanswered> {
            Err(Unanswered::Away)
        }
    }

    #[tokio::test]
    async fn what_is_missing_is_named_with_what_to_do() {
        let room = |needed| Room {
            setting: "spool.directory",
            directory: std::env::temp_dir(),
            needed,
        };
        let lacking = Surroundings::new(
            4 << 20,
            vec![room(u64::MAX)],
            (u64::MAX, "ingress.connections_max"),
        );
        lacking.skew_ms.store(-7000, Ordering::Relaxed);
        lacking.look(&Away, 1 << 20).await;
        let warnings = lacking.warnings();
        let about: Vec<_> = warnings.iter().map(|warning| warning.about).collect();
        assert_eq!(
            about,
            ["max_payload", "disk", "clock", "descriptors"],
            "{warnings:?}"
        );
        for (warning, said) in warnings.iter().zip([
            "max_payload: 8MB",
            "spool.directory",
            "7 s behind",
            "ingress.connections_max",
        ]) {
            assert!(warning.text.contains(said), "{warning:?}");
        }
        let content = Surroundings::new(4 << 20, vec![room(1)], (8, "ingress.connections_max"));
        content.look(&Away, 8 << 20).await;
        assert_eq!(
            (content.warnings(), content.message_bytes_max()),
            (vec![], Some(8 << 20))
        );
    }
}
