//! What can be done about dead letters: look up, request a replay, stop it.

use super::job::{self, Action, ReplayJob, ReplayTarget, Source, State};
use super::letter::Letter;
use super::scan::ScanError;
use super::settled::{Settled, Standing};
use ackline_runtime::log::Log;
use ackline_shared::clock::now_ms;
use ackline_shared::ids::TenantId;
use ackline_shared::nats::Buckets;
use ackline_shared::nats::layout::bucket_subject;
use ackline_shared::stored;
use ackline_shared::subjects::{BUCKET_REPLAYS, DEAD, UPDATES};
use async_nats::HeaderMap;
use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;

/// Messages of one pull when only headers come.
pub(super) const HEADERS_PULL: usize = 10_000;
/// Messages of one pull when payloads come too.
pub(super) const PAYLOADS_PULL: usize = 64;
/// Jobs of one tenant, and of the operator, that may be open at once.
pub const JOBS_OPEN_MAX: usize = 20;
/// Jobs of one tenant, and of the operator, that are known; beyond it, the oldest that have ended are forgotten.
const JOBS_KEPT_MAX: usize = 200;
const WRITES_MAX: u32 = 16;
const FINDS_AT_ONCE: usize = 32;
const JOB_PREFIX: &str = "order.";

/// Why it cannot be done now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeadLettersError {
    /// A stream cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// What is known of jobs cannot be read or written.
    #[error("the replays in NATS cannot be read or written: {0}")]
    Books(String),
    /// Too many jobs are open.
    #[error("{JOBS_OPEN_MAX} replays are waiting or running; wait for one to end, or cancel one")]
    Busy,
}

impl DeadLettersError {
    /// The books are out of reach.
    pub(super) fn books(error: impl ToString) -> Self {
        Self::Books(error.to_string())
    }
}

/// Access to the dead letters; cheap to clone.
#[derive(Debug, Clone)]
pub struct DeadLetters {
    pub(super) log: Log,
    pub(super) store: Store,
    pub(super) locks: Store,
}

/// A letter looked up: what its headers tell, all of them, and what it holds.
#[derive(Debug, Clone)]
pub struct Found {
    pub letter: Letter,
    pub headers: HeaderMap,
    pub payload: Bytes,
    /// What was done about it.
    pub standing: Standing,
}

/// What somebody asks for: a replay job before it is stored.
#[derive(Debug, Clone)]
pub struct ReplayRequest {
    /// What is to be done.
    pub action: Action,
    pub by: String,
    /// The tenant who may see it.
    pub tenant: Option<TenantId>,
    pub source: Source,
    pub target: Option<ReplayTarget>,
    /// Whether messages are sent again that their recipient may have.
    pub include_ambiguous: bool,
    /// Whether messages are sent that are older than their window.
    pub include_expired: bool,
    pub rate_per_second: u32,
    pub expected: u64,
}

impl DeadLetters {
    pub fn new(log: Log, buckets: &Buckets) -> Self {
        Self {
            log,
            store: buckets.replays.clone(),
            locks: buckets.locks.clone(),
        }
    }

    /// Looks a letter up; `None` when there is none of this number, or none any more.
    pub async fn letter(&self, sequence: u64) -> Result<Option<Found>, DeadLettersError> {
        let Some(message) = self.message(sequence).await? else {
            return Ok(None);
        };
        let Some(letter) = Letter::read(sequence, &message.subject, &message.headers) else {
            return Ok(None);
        };
        let standing = Settled::new(self.store.clone()).standing(sequence).await?;
        Ok(Some(Found {
            letter,
            headers: message.headers,
            payload: message.payload,
            standing,
        }))
    }

    pub(super) async fn message(
        &self,
        sequence: u64,
    ) -> Result<Option<StreamMessage>, DeadLettersError> {
        if sequence == 0 {
            // Streams count from 1, and refuse to be asked for it.
            return Ok(None);
        }
        let stream = self
            .log
            .context()
            .get_stream_no_info(DEAD)
            .await
            .map_err(DeadLettersError::books)?;
        match stream.direct_get(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(DeadLettersError::books(error)),
        }
    }

    /// Stores a replay job; it is carried out by whoever takes it up.
    pub async fn start(&self, request: ReplayRequest) -> Result<ReplayJob, DeadLettersError> {
        let known = self.jobs_of(request.tenant.as_ref()).await?;
        if known.iter().filter(|job| !job.state.is_final()).count() >= JOBS_OPEN_MAX {
            return Err(DeadLettersError::Busy);
        }
        self.forget_beyond(&known, JOBS_KEPT_MAX).await?;
        let id = ReplayJob::new_id(request.action, request.tenant.as_ref(), rand::random());
        let mut job = self.draft(request, id);
        let name = if matches!(job.source, Source::Past(_)) {
            UPDATES
        } else {
            DEAD
        };
        let mut source = self
            .log
            .context()
            .get_stream(name)
            .await
            .map_err(DeadLettersError::books)?;
        job.until = source
            .info()
            .await
            .map_err(DeadLettersError::books)?
            .state
            .last_sequence;
        self.store
            .create(key(&job.id), stored::encode(&job).into())
            .await
            .map_err(DeadLettersError::books)?;
        tracing::info!(
            job = job.id, by = job.by, action = ?job.action, expected = job.expected,
            "a job over dead letters or the past was stored"
        );
        Ok(job)
    }

    /// The job as it would be stored.
    pub fn draft(&self, request: ReplayRequest, id: String) -> ReplayJob {
        ReplayJob {
            id,
            action: request.action,
            by: request.by,
            tenant: request.tenant,
            created_ms: now_ms(),
            source: request.source,
            target: request.target,
            include_ambiguous: request.include_ambiguous,
            include_expired: request.include_expired,
            rate_per_second: request.rate_per_second,
            expected: request.expected,
            state: State::Waiting,
            is_stopped: false,
            next: 0,
            until: 0,
            done: 0,
            skipped: 0,
            failed: 0,
            notes: BTreeMap::new(),
            started_ms: None,
            finished_ms: None,
            problem: None,
        }
    }

    /// All jobs that are still known, the newest first.
    pub async fn jobs(&self) -> Result<Vec<ReplayJob>, DeadLettersError> {
        self.read_all(self.ids(&every_job()).await?).await
    }

    /// The jobs of a tenant, or of the operator alone; what they cost does not depend on those of others.
    pub async fn jobs_of(
        &self,
        tenant: Option<&TenantId>,
    ) -> Result<Vec<ReplayJob>, DeadLettersError> {
        let mut ids = self
            .ids(&format!("{JOB_PREFIX}{}.*", job::owner(tenant)))
            .await?;
        // An older version did not put the owner into the key; these go with their age.
        ids.extend(self.ids(&format!("{JOB_PREFIX}*")).await?);
        let mut jobs = self.read_all(ids).await?;
        jobs.retain(|job| job.tenant.as_ref() == tenant);
        Ok(jobs)
    }

    /// Forgets the oldest jobs that have ended, so that there is room for one more.
    async fn forget_beyond(
        &self,
        known: &[ReplayJob],
        most: usize,
    ) -> Result<(), DeadLettersError> {
        let surplus = (known.len() + 1).saturating_sub(most);
        let ended = known
            .iter()
            .rev()
            .filter(|job| job.state.is_final())
            .take(surplus);
        for job in ended {
            // Wholly: what marks a removed key would stay as long as the job.
            let subject = bucket_subject(BUCKET_REPLAYS, &key(&job.id));
            self.store
                .stream
                .purge()
                .filter(subject)
                .await
                .map_err(DeadLettersError::books)?;
        }
        Ok(())
    }

    async fn ids(&self, keys: &str) -> Result<Vec<String>, DeadLettersError> {
        let subject = bucket_subject(BUCKET_REPLAYS, keys);
        let mut subjects = self
            .store
            .stream
            .info_with_subjects(subject)
            .await
            .map_err(DeadLettersError::books)?;
        let mut ids = Vec::new();
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(DeadLettersError::books)?;
            ids.extend(subject.rsplit('.').next().map(str::to_owned));
        }
        Ok(ids)
    }

    /// Reads jobs, the newest first.
    async fn read_all(&self, ids: Vec<String>) -> Result<Vec<ReplayJob>, DeadLettersError> {
        // Not one read over the bucket: a job that is written meanwhile moves to its end, behind the reader.
        let found = stream::iter(ids).map(|id| async move { self.find(&id).await });
        let found: Vec<_> = found.buffer_unordered(FINDS_AT_ONCE).try_collect().await?;
        let mut jobs: Vec<ReplayJob> = found.into_iter().flatten().map(|(_, job)| job).collect();
        jobs.sort_by(|one, two| (two.created_ms, &two.id).cmp(&(one.created_ms, &one.id)));
        Ok(jobs)
    }

    /// Looks a job up, with the revision to write it back under.
    pub async fn find(&self, id: &str) -> Result<Option<(u64, ReplayJob)>, DeadLettersError> {
        if !ackline_shared::ids::is_token(id) {
            return Ok(None);
        }
        let entry = self
            .store
            .entry(key(id))
            .await
            .map_err(DeadLettersError::books)?;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        Ok(entry.and_then(|entry| Some((entry.revision, read(&entry.value)?))))
    }

    /// Asks for a job to stop; what it has done stays done.
    pub async fn stop(&self, id: &str) -> Result<Option<ReplayJob>, DeadLettersError> {
        for _ in 0..WRITES_MAX {
            let Some((revision, mut job)) = self.find(id).await? else {
                return Ok(None);
            };
            if job.state.is_final() || job.is_stopped {
                return Ok(Some(job));
            }
            job.is_stopped = true;
            if job.state == State::Waiting {
                job.finish(State::Cancelled, now_ms());
            }
            if self.write(revision, &job).await?.is_some() {
                tracing::info!(job = job.id, "a job is to stop");
                return Ok(Some(job));
            }
        }
        Err(DeadLettersError::books("somebody else keeps writing it"))
    }

    /// Writes a job back, with what this version does not know of it; `None` when it was changed meanwhile.
    pub(super) async fn write(
        &self,
        revision: u64,
        job: &ReplayJob,
    ) -> Result<Option<u64>, DeadLettersError> {
        let key = key(&job.id);
        let entry = self
            .store
            .entry(&key)
            .await
            .map_err(DeadLettersError::books)?;
        let Some(before) = entry.filter(|entry| entry.revision == revision) else {
            return Ok(None);
        };
        let written = stored::encode_over(job, &before.value).map_err(DeadLettersError::books)?;
        match self.store.update(key, written.into(), revision).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(error) => Err(DeadLettersError::books(error)),
        }
    }
}

pub(super) fn every_job() -> String {
    format!("{JOB_PREFIX}>")
}

/// Reads a job; none where it is a newer version's, which may say less than all of what is meant to this one.
pub(super) fn read(bytes: &[u8]) -> Option<ReplayJob> {
    stored::check::<ReplayJob>(bytes).ok()?;
    stored::decode(bytes).ok()
}

fn key(id: &str) -> String {
    match ReplayJob::owner_of(id) {
        Some(owner) => format!("{JOB_PREFIX}{owner}.{id}"),
        None => format!("{JOB_PREFIX}{id}"),
    }
}
