//! What an operator requested, and how far it has come; pure.

use super::filter::Filter;
use super::past::Past;
use ackline_shared::ids::{EntityId, TenantId, UpdateId, hex, short_hash};
use ackline_shared::page::Weigh;
use ackline_shared::stored::{Stored, fields_of};
use ackline_shared::subjects::Pool;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const REPLAY_PREFIX: &str = "rp_";
const DISCARD_PREFIX: &str = "dc_";
const OWNER_END: char = '-';
const OWNER_CHARS: usize = 8;
/// The owner of what is no tenant's; no hash, which has digits and the letters up to `f`.
const OPERATOR: &str = "op";
/// Distinct reasons for skipping that are kept.
const NOTES_MAX: usize = 20;
/// Of everything about a job that is short.
const JOB_BYTES: usize = 1_000;

/// What is done about each letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// It is put before its pool again.
    Replay,
    Discard,
}

/// What a job is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "of", rename_all = "snake_case")]
pub enum Source {
    /// The open dead letters that a filter means.
    Letters(Filter),
    /// One dead letter, perhaps with another payload.
    Letter {
        sequence: u64,
        payload: Option<String>,
    },
    /// What happened in a stretch of time.
    Past(Past),
}

/// Whom a replay is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayTarget {
    /// The pool; a dead letter goes to its own.
    pub pool: Option<Pool>,
    /// One relay, endpoint, CRM link or bot of it; `None` for all.
    pub id: Option<EntityId>,
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    Waiting,
    /// It is being carried out.
    Running,
    /// All of it was done.
    Done,
    Cancelled,
    /// It could not go on.
    Failed,
}

impl State {
    /// The state in a word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running => "running",
            Self::Done => "done",
            Self::Cancelled => "cancelled",
            Self::Failed => "failed",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        matches!(self, Self::Done | Self::Cancelled | Self::Failed)
    }
}

/// A job that replays or discards.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplayJob {
    pub id: String,
    pub action: Action,
    /// Who requested it: `key <id>` by the API, `cli <user>` by the command line.
    pub by: String,
    /// The tenant who may see it; `None` for the operator alone.
    pub tenant: Option<TenantId>,
    pub created_ms: u64,
    pub source: Source,
    pub target: Option<ReplayTarget>,
    /// Whether messages are sent again that their recipient may have.
    pub include_ambiguous: bool,
    /// Whether messages are sent that are older than their window.
    #[serde(default)]
    pub include_expired: bool,
    pub rate_per_second: u32,
    /// How many there were when it was requested.
    pub expected: u64,
    /// How far it has come.
    pub state: State,
    /// Somebody wants it to stop.
    pub is_stopped: bool,
    /// Where it goes on, a sequence; 0 before the beginning.
    pub next: u64,
    /// Where it ends: what comes later is not part of it.
    pub until: u64,
    /// How many were replayed or discarded.
    pub done: u64,
    pub skipped: u64,
    /// How many could not be stored.
    pub failed: u64,
    /// Why some were skipped, and how many.
    pub notes: BTreeMap<String, u64>,
    /// When it began, in unix milliseconds.
    pub started_ms: Option<u64>,
    /// When it ended, in unix milliseconds.
    pub finished_ms: Option<u64>,
    /// Why it could not go on.
    pub problem: Option<String>,
}

impl Stored for ReplayJob {
    fn inner() -> Vec<(&'static str, Vec<&'static str>)> {
        let sources = [
            &["of", "sequence", "payload"],
            fields_of::<Filter>(),
            fields_of::<Past>(),
        ];
        vec![
            ("source", sources.concat()),
            ("target", fields_of::<ReplayTarget>().to_vec()),
        ]
    }
}

impl Weigh for ReplayJob {
    fn bytes(&self) -> usize {
        let notes: usize = self.notes.keys().map(String::len).sum();
        JOB_BYTES + notes + self.edited().map_or(0, str::len)
    }
}

impl ReplayJob {
    /// Makes an id; it says among whose jobs the job is found.
    pub fn new_id(action: Action, tenant: Option<&TenantId>, random: [u8; 8]) -> String {
        let prefix = match action {
            Action::Replay => REPLAY_PREFIX,
            Action::Discard => DISCARD_PREFIX,
        };
        format!("{prefix}{}{OWNER_END}{}", owner(tenant), hex(&random))
    }

    /// The owner that an id says; `None` of one that an older version made.
    pub fn owner_of(id: &str) -> Option<&str> {
        let rest = id
            .strip_prefix(REPLAY_PREFIX)
            .or_else(|| id.strip_prefix(DISCARD_PREFIX))?;
        rest.split_once(OWNER_END).map(|(owner, _)| owner)
    }

    /// Whether a text is a job's id.
    pub fn is_id(text: &str) -> bool {
        text.starts_with(REPLAY_PREFIX) || text.starts_with(DISCARD_PREFIX)
    }

    /// What the job of this id does.
    pub fn action_of(id: &str) -> Action {
        if id.starts_with(DISCARD_PREFIX) {
            Action::Discard
        } else {
            Action::Replay
        }
    }

    /// The id of a replay: the same each time this job replays the same thing.
    pub fn replay_id(&self, original: &UpdateId) -> UpdateId {
        UpdateId::new(&format!("{}~{}", original.as_str(), self.id))
    }

    /// What a letter is to hold instead, when somebody edited it.
    pub fn edited(&self) -> Option<&str> {
        match &self.source {
            Source::Letter { payload, .. } => payload.as_deref(),
            Source::Letters(_) | Source::Past(_) => None,
        }
    }

    /// Whether the payload is not the original's.
    pub fn is_edit(&self) -> bool {
        self.edited().is_some()
    }

    /// Notes that something was skipped.
    pub fn skip(&mut self, reason: &str) {
        self.skipped += 1;
        if self.notes.len() < NOTES_MAX || self.notes.contains_key(reason) {
            *self.notes.entry(reason.to_owned()).or_default() += 1;
        }
    }

    /// How many it has got through.
    pub fn handled(&self) -> u64 {
        self.done + self.skipped + self.failed
    }

    /// How long the rest takes at the requested rate, in seconds.
    pub fn remaining_seconds(&self) -> u64 {
        let left = self.expected.saturating_sub(self.handled());
        if self.state.is_final() {
            0
        } else {
            left.div_ceil(u64::from(self.rate_per_second.max(1)))
        }
    }

    /// Ends it; what an edited letter was to hold is not kept any longer.
    pub fn finish(&mut self, state: State, now_ms: u64) {
        if let Source::Letter {
            payload: Some(edited),
            ..
        } = &mut self.source
        {
            *edited = String::new();
        }
        self.state = state;
        self.finished_ms = Some(now_ms);
    }
}

/// A word for whose jobs they are: short, and the same each time. Tenants may share one.
pub fn owner(tenant: Option<&TenantId>) -> String {
    match tenant {
        Some(tenant) => short_hash(tenant.as_str().as_bytes())
            .chars()
            .take(OWNER_CHARS)
            .collect(),
        None => OPERATOR.to_owned(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A job `rp_1` of somebody.
    pub(crate) fn job(source: Source) -> ReplayJob {
        ReplayJob {
            id: "rp_1".into(),
            action: Action::Replay,
            by: "key all".into(),
            tenant: None,
            created_ms: 1,
            source,
            target: None,
            include_ambiguous: false,
            include_expired: false,
            rate_per_second: 10,
            expected: 25,
            state: State::Running,
            is_stopped: false,
            next: 0,
            until: 100,
            done: 0,
            skipped: 0,
            failed: 0,
            notes: BTreeMap::new(),
            started_ms: None,
            finished_ms: None,
            problem: None,
        }
    }

    #[test]
    fn a_job_tells_what_is_left_of_it() {
        let mut job = job(Source::Letters(Filter::default()));
        assert_eq!(job.remaining_seconds(), 3);
        job.done = 10;
        (0..50).for_each(|at| job.skip(&format!("reason {at}")));
        assert_eq!(
            (job.handled(), job.notes.len(), job.remaining_seconds()),
            (60, NOTES_MAX, 0)
        );
        let acme = TenantId::new("acme").unwrap();
        for (action, tenant) in [(Action::Discard, Some(&acme)), (Action::Replay, None)] {
            let id = ReplayJob::new_id(action, tenant, [0; 8]);
            assert_eq!(
                (ReplayJob::action_of(&id), ReplayJob::owner_of(&id)),
                (action, Some(owner(tenant).as_str()))
            );
            assert!(ackline_shared::ids::is_token(&id), "{id}");
        }
        assert_eq!(
            ReplayJob::owner_of("rp_0011223344556677"),
            None,
            "of an older version"
        );
    }

    #[test]
    fn an_edited_letter_is_not_kept_when_its_job_has_ended() {
        let mut job = job(Source::Letter {
            sequence: 3,
            payload: Some("{}".into()),
        });
        job.finish(State::Done, 5);
        assert_eq!((job.is_edit(), job.edited()), (true, Some("")));
    }

    #[test]
    fn a_job_reads_back() {
        let past = Past {
            tenant: TenantId::new("acme").unwrap(),
            from_ms: 1,
            to_ms: 2,
            classes: vec![],
            phone: None,
        };
        let letter = Source::Letter {
            sequence: 3,
            payload: Some("{}".into()),
        };
        for source in [
            Source::Letters(Filter::default()),
            letter,
            Source::Past(past),
        ] {
            let job = job(source);
            let text = serde_json::to_string(&job).unwrap();
            assert_eq!(serde_json::from_str::<ReplayJob>(&text).unwrap(), job);
            let older = text.replace("\"include_expired\":false,", "");
            assert!(older.len() < text.len());
            assert_eq!(
                serde_json::from_str::<ReplayJob>(&older).unwrap(),
                job,
                "one of an older version"
            );
        }
    }
}
