//! Letters and jobs as people and machines are shown them, by the API and the command line alike.

use super::job::{ReplayJob, Source};
use super::letters::Found;
use super::pool_rules::PoolRules;
use super::settled::Standing;
use crate::time::rfc3339;
use ackline_runtime::dead_class::DeadClass;
use ackline_shared::clock::now_ms;
use ackline_shared::raw::RawJson;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{Pool, header};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use utoipa::ToSchema;

/// Headers that have a field of their own, and Meta's signature: it vouches for the bytes to us, and a reader has
/// no use for it.
const SHOWN_APART: [&str; 7] = [
    header::DEAD_REASON,
    header::DEAD_ATTEMPTS,
    header::DEAD_AT,
    header::DEAD_ORIGIN,
    header::DEAD_DONE,
    header::KIND,
    header::SIGNATURE,
];

/// Something given up.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeadLetter {
    /// Its place among the dead letters.
    pub sequence: u64,
    /// `open`, `replayed` or `discarded`.
    pub state: &'static str,
    /// The replay or discard that settled it.
    pub settled_by: Option<String>,
    /// The pool that gave it up.
    pub pool: &'static str,
    /// Whose it is.
    pub tenant: String,
    /// Why, in words.
    pub reason: String,
    /// The class of the reason, as metrics count it.
    #[schema(value_type = String)]
    pub reason_class: DeadClass,
    /// How often it was tried.
    pub attempts: Option<u64>,
    /// When it was received.
    pub received_at: Option<String>,
    /// When it was given up.
    pub at: Option<String>,
    /// Stream, sequence and subject it came from.
    pub origin: Option<String>,
    /// What it was, such as `message.text`.
    pub kind: String,
    /// The id of what was given up.
    pub id: String,
    /// The business number concerned.
    pub phone_number_id: Option<String>,
    /// The key of its conversation.
    pub conversation: Option<String>,
    /// Parts of it that took effect; a replay leaves them out.
    pub done: Vec<String>,
    /// What it repeated, when it was a replay itself: `DEAD:<sequence>` or `UPDATES:<sequence>`.
    pub replay_of: Option<String>,
    /// Whether its recipient may have the message already.
    pub ambiguous: bool,
    /// Whether it is a message that is older than its window.
    pub expired: bool,
    /// Its other headers.
    pub headers: BTreeMap<String, String>,
    /// What it held: JSON, or a text when it is none.
    #[schema(value_type = Value)]
    pub payload: RawJson,
}

impl From<Found> for DeadLetter {
    fn from(found: Found) -> Self {
        let Found {
            letter,
            headers,
            payload,
            standing,
        } = found;
        let others = headers
            .iter()
            .filter(|(name, _)| !SHOWN_APART.contains(&name.as_ref()));
        Self {
            sequence: letter.sequence,
            state: standing.as_str(),
            settled_by: standing.job().map(str::to_owned),
            pool: letter.pool.as_str(),
            tenant: letter.tenant.to_string(),
            attempts: letter.attempts,
            received_at: letter.received_ms.map(rfc3339),
            at: letter.at_ms.map(rfc3339),
            origin: headers
                .get(header::DEAD_ORIGIN)
                .map(|origin| origin.as_str().to_owned()),
            id: letter.id.as_str().to_owned(),
            phone_number_id: letter.phone.clone(),
            conversation: letter.conversation.clone(),
            done: letter.done.clone(),
            replay_of: letter.replay_of.clone(),
            ambiguous: letter.is_ambiguous(),
            expired: letter.is_expired(now_ms()),
            headers: others
                .filter_map(|(name, values)| {
                    Some((name.to_string(), values.first()?.as_str().to_owned()))
                })
                .filter(|(name, _)| !name.starts_with("Nats-") || name == header::MSG_ID)
                .collect(),
            payload: RawJson::of(&payload),
            reason_class: DeadClass::of(&letter.reason),
            reason: letter.reason,
            kind: letter.kind,
        }
    }
}

/// A dead letter, and what a replay of it would do.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct InspectedLetter {
    /// The letter.
    pub letter: DeadLetter,
    /// What a replay of it would do.
    pub replay: Preview,
}

/// What a replay would do.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct Preview {
    /// Whether it would be stored.
    pub possible: bool,
    /// Where it would go, or why it would not.
    pub detail: String,
}

impl Preview {
    /// Foretells what a job would do about a letter under this configuration.
    pub fn of(found: &Found, job: &ReplayJob, snapshot: &Snapshot, rules: &PoolRules) -> Self {
        let no = |detail: String| Self {
            possible: false,
            detail,
        };
        if let Standing::Replayed(by) | Standing::Discarded(by) = &found.standing {
            return no(format!("it was {} by {by}", found.standing.as_str()));
        }
        match found.letter.replay(&found.headers, job, job.created_ms) {
            Ok(head) => {
                let payload = job.edited().map_or(&found.payload[..], str::as_bytes);
                if let Some(reason) = (rules.refusal)(snapshot, found.letter.pool, &head, payload) {
                    return no(reason);
                }
                let replay = head.replay.as_deref();
                let target = replay.and_then(|replay| replay.target.as_ref());
                let only = target.map_or_else(String::new, |target| format!(", only {target}"));
                let done = replay
                    .map(|replay| replay.done.join(", "))
                    .filter(|done| !done.is_empty());
                let without =
                    done.map_or_else(String::new, |done| format!(", without {done}, done before"));
                let detail = format!(
                    "goes to {} on {} as {}{only}{without}",
                    found.letter.pool,
                    head.subject(),
                    head.id.as_str()
                );
                Self {
                    possible: true,
                    detail,
                }
            }
            Err(reason) => no(reason.to_owned()),
        }
    }
}

/// A job that replays or discards, and how far it has come.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ReplayOrder)]
pub struct ReplayJobView {
    /// Its id.
    pub id: String,
    /// `replay` or `discard`.
    #[schema(value_type = String)]
    pub action: super::Action,
    /// `waiting`, `running`, `done`, `cancelled` or `failed`.
    pub state: &'static str,
    /// Who requested it.
    pub by: String,
    /// What it is about.
    #[schema(value_type = Object)]
    pub source: Value,
    /// The pool it goes to; a dead letter goes to its own.
    pub pool: Option<&'static str>,
    /// The one relay, endpoint, CRM link or bot it is for.
    pub target: Option<String>,
    /// Whether messages are sent again that their recipient may have.
    pub include_ambiguous: bool,
    /// Whether messages are sent that are older than their window.
    pub include_expired: bool,
    /// Replays a second.
    pub rate_per_second: u32,
    /// How many there were when it was requested.
    pub expected: u64,
    /// How many were replayed or discarded.
    pub done: u64,
    /// How many were skipped.
    pub skipped: u64,
    /// How many could not be stored.
    pub failed: u64,
    /// Why some were skipped, and how many.
    pub notes: BTreeMap<String, u64>,
    /// About how long the rest takes.
    pub remaining_seconds: u64,
    /// Why it could not go on.
    pub problem: Option<String>,
    /// When it was requested.
    pub created_at: String,
    /// When it began.
    pub started_at: Option<String>,
    /// When it ended.
    pub finished_at: Option<String>,
}

impl From<ReplayJob> for ReplayJobView {
    fn from(job: ReplayJob) -> Self {
        Self {
            remaining_seconds: job.remaining_seconds(),
            source: source(&job.source),
            pool: job
                .target
                .as_ref()
                .and_then(|target| target.pool)
                .map(Pool::as_str),
            target: job
                .target
                .and_then(|target| target.id)
                .map(|id| id.to_string()),
            state: job.state.as_str(),
            created_at: rfc3339(job.created_ms),
            started_at: job.started_ms.map(rfc3339),
            finished_at: job.finished_ms.map(rfc3339),
            id: job.id,
            action: job.action,
            by: job.by,
            include_ambiguous: job.include_ambiguous,
            include_expired: job.include_expired,
            rate_per_second: job.rate_per_second,
            expected: job.expected,
            done: job.done,
            skipped: job.skipped,
            failed: job.failed,
            notes: job.notes,
            problem: job.problem,
        }
    }
}

fn source(source: &Source) -> Value {
    let mut shown = match source {
        Source::Letters(filter) => json!({
            "of": "letters", "tenant": filter.tenant, "pool": filter.pool, "kind": filter.kind, "reason": filter.reason,
            "text": filter.text, "conversation": filter.conversation, "from": filter.from_ms.map(rfc3339),
            "to": filter.to_ms.map(rfc3339),
        }),
        Source::Letter { sequence, payload } => {
            json!({"of": "letter", "sequence": sequence, "edited": payload.is_some()})
        }
        Source::Past(past) => json!({
            "of": "past", "tenant": past.tenant, "from": rfc3339(past.from_ms), "to": rfc3339(past.to_ms),
            "classes": past.classes, "phone_number_id": past.phone,
        }),
    };
    if let Some(fields) = shown.as_object_mut() {
        fields.retain(|_, value| !value.is_null());
    }
    shown
}
