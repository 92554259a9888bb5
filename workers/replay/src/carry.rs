//! Carrying one job out, batch by batch: claim, replay, note how far it has come.
//!
//! Cancelling it anywhere is harmless. Whoever takes the job up again begins at the last noted place and meets
//! its own claims, and what it stores a second time has the id it had the first time.

use super::job::{Action, ReplayJob, Source, State};
use super::letter::Letter;
use super::letters::{DeadLetters, DeadLettersError, PAYLOADS_PULL};
use super::past::Past;
use super::scan::{Scan, Stretch};
use super::settled::{Settled, Standing};
use ackline_runtime::log::{Log, LogError, size};
use ackline_runtime::whole;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::Head;
use ackline_shared::subjects::{DEAD, Pool, UPDATES};
use async_nats::connection::State as Connection;
use async_nats::jetstream::Message;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

const DISCARD_BATCH: usize = 1000;
/// Batches a second, so that a stop is heard soon.
const BATCHES_PER_SECOND: u32 = 10;
const WRITE_ATTEMPTS: u32 = 5;
const WRITE_PAUSE: Duration = Duration::from_millis(400);

/// A piece of a batch, ready to be stored.
struct Piece {
    /// The letter to claim; none for the past.
    letter: Option<u64>,
    head: Head,
    payload: Bytes,
}

impl DeadLetters {
    /// Carries a job out until it ends; an error leaves it to be taken up again.
    pub async fn carry_out(&self, id: &str) -> Result<(), DeadLettersError> {
        let Some((mut revision, mut job)) = self.find(id).await? else {
            return Ok(());
        };
        if job.state.is_final() {
            return Ok(());
        }
        if job.state == State::Waiting {
            (job.state, job.started_ms) = (State::Running, Some(now_ms()));
        }
        let mut settled = Settled::new(self.store.clone());
        let mut scan = Scan::open(self.log.context(), stretch(&job)).await?;
        loop {
            let began = Instant::now();
            let messages = scan.next(batch_size(&job)).await?;
            let before = job.done;
            match messages.last() {
                Some((last, _)) => {
                    let next = last + 1;
                    match job.action {
                        Action::Replay => self.replay(&mut job, &mut settled, messages).await?,
                        Action::Discard => discard(&mut job, &mut settled, &messages).await?,
                    }
                    job.next = next;
                }
                None => job.finish(State::Done, now_ms()),
            }
            if job.state == State::Running && job.is_stopped {
                job.finish(State::Cancelled, now_ms());
            }
            revision = self.note(revision, &mut job).await?;
            if job.state.is_final() {
                tracing::info!(
                    job = job.id,
                    by = job.by,
                    state = job.state.as_str(),
                    done = job.done,
                    skipped = job.skipped,
                    failed = job.failed,
                    "a job ended"
                );
                return Ok(());
            }
            if job.action == Action::Replay {
                let share = f64_of(job.done - before) / f64::from(job.rate_per_second.max(1));
                sleep_until(began + Duration::from_secs_f64(share)).await;
            }
        }
    }

    /// Writes the job back, and takes over that somebody wants it to stop.
    async fn note(&self, revision: u64, job: &mut ReplayJob) -> Result<u64, DeadLettersError> {
        if let Some(revision) = self.write(revision, job).await? {
            return Ok(revision);
        }
        let Some((revision, stored)) = self.find(&job.id).await? else {
            return Err(DeadLettersError::books("the job is gone"));
        };
        job.is_stopped |= stored.is_stopped;
        if job.is_stopped && job.state == State::Running {
            job.finish(State::Cancelled, now_ms());
        }
        let written = self.write(revision, job).await?;
        written.ok_or_else(|| DeadLettersError::books("somebody else writes the job"))
    }

    async fn replay(
        &self,
        job: &mut ReplayJob,
        settled: &mut Settled,
        messages: Vec<(u64, Message)>,
    ) -> Result<(), DeadLettersError> {
        let mut pieces = Vec::new();
        for (sequence, message) in messages {
            let piece = match job.source.clone() {
                Source::Past(past) => of_past(job, &past, sequence, message),
                Source::Letters(_) | Source::Letter { .. } => {
                    of_letter(&self.log, job, settled, sequence, message).await?
                }
            };
            pieces.extend(piece);
        }
        let letters: Vec<u64> = pieces.iter().filter_map(|piece| piece.letter).collect();
        let own = settled.claim(&job.id, &letters).await?;
        pieces.retain(|piece| piece.letter.is_none_or(|letter| own.contains(&letter)));
        for (at, piece) in pieces.iter().enumerate() {
            let Err(error) = self.store(piece).await else {
                job.done += 1;
                continue;
            };
            if self.log.context().client().connection_state() != Connection::Connected {
                return Err(DeadLettersError::books(error));
            }
            // What follows would overtake it in its conversation, so the job ends here.
            let rest: Vec<u64> = pieces
                .iter()
                .skip(at)
                .filter_map(|piece| piece.letter)
                .collect();
            settled.release(&job.id, &rest).await?;
            job.failed += 1;
            job.problem = Some(error.to_string());
            job.finish(State::Failed, now_ms());
            return Ok(());
        }
        Ok(())
    }

    async fn store(&self, piece: &Piece) -> Result<(), LogError> {
        let mut attempt = 1;
        loop {
            match self.log.write(&piece.head, piece.payload.clone()).await {
                Err(_) if attempt < WRITE_ATTEMPTS => sleep(WRITE_PAUSE * attempt).await,
                result => return result,
            }
            attempt += 1;
        }
    }
}

async fn discard(
    job: &mut ReplayJob,
    settled: &mut Settled,
    messages: &[(u64, Message)],
) -> Result<(), DeadLettersError> {
    let mut letters = Vec::new();
    for (sequence, message) in messages {
        if is_meant(job, *sequence, message).is_some() && is_open(job, settled, *sequence).await? {
            letters.push(*sequence);
        }
    }
    let own = settled.claim(&job.id, &letters).await?;
    job.done += u64::try_from(own.len()).unwrap_or(0);
    Ok(())
}

/// The letter in a message, when the job means it.
fn is_meant(job: &ReplayJob, sequence: u64, message: &Message) -> Option<Letter> {
    let letter = Letter::read(sequence, &message.subject, message.headers.as_ref()?)?;
    let fits = match &job.source {
        Source::Letters(filter) => filter.fits(&letter) && filter.fits_payload(&message.payload),
        Source::Letter { .. } => true,
        Source::Past(_) => false,
    };
    fits.then_some(letter)
}

/// Whether nothing was done about a letter but by this very job.
async fn is_open(
    job: &ReplayJob,
    settled: &mut Settled,
    sequence: u64,
) -> Result<bool, DeadLettersError> {
    let standing = settled.standing(sequence).await?;
    Ok(standing == Standing::Open || standing.job() == Some(&job.id))
}

async fn of_letter(
    log: &Log,
    job: &mut ReplayJob,
    settled: &mut Settled,
    sequence: u64,
    message: Message,
) -> Result<Option<Piece>, DeadLettersError> {
    let Some(letter) = is_meant(job, sequence, &message) else {
        return Ok(None);
    };
    if !is_open(job, settled, sequence).await? {
        return Ok(None);
    }
    let message = message.message;
    let payload = match &job.source {
        Source::Letter {
            payload: Some(edited),
            ..
        } => Bytes::from(edited.clone()),
        _ => match &letter.cut {
            None => message.payload,
            Some(cut) => {
                let origin = letter
                    .origin
                    .as_ref()
                    .map(|origin| (origin.stream.as_str(), origin.sequence));
                match whole::fetch(log, cut, origin)
                    .await
                    .map_err(DeadLettersError::books)?
                {
                    Some(payload) => payload,
                    None => {
                        job.skip(
                            "it holds only the beginning of its payload, and the rest is not kept any more",
                        );
                        return Ok(None);
                    }
                }
            }
        },
    };
    match letter.replay(&message.headers.unwrap_or_default(), job, now_ms()) {
        Ok(head) if size(&head.to_headers(), &payload) > log.message_bytes_max() => {
            job.skip("it is longer than nats-server takes; raise its max_payload");
            Ok(None)
        }
        Ok(head) => Ok(Some(Piece {
            letter: Some(sequence),
            head,
            payload,
        })),
        Err(reason) => {
            job.skip(reason);
            Ok(None)
        }
    }
}

fn of_past(job: &ReplayJob, past: &Past, sequence: u64, message: Message) -> Option<Piece> {
    let pool = pool_of(job)?;
    let head = past.replay(
        sequence,
        &message.subject,
        message.headers.as_ref()?,
        pool,
        job,
    )?;
    Some(Piece {
        letter: None,
        head,
        payload: message.message.payload,
    })
}

fn pool_of(job: &ReplayJob) -> Option<Pool> {
    job.target.as_ref().and_then(|target| target.pool)
}

fn stretch(job: &ReplayJob) -> Stretch {
    let rest = |filters: Vec<String>, from_ms: Option<u64>, headers_only: bool| Stretch {
        stream: DEAD,
        filters,
        from: job.next.max(1),
        from_ms: from_ms.filter(|_| job.next == 0),
        until: job.until,
        headers_only,
    };
    match &job.source {
        Source::Letters(filter) => {
            let headers_only = job.action == Action::Discard && !filter.needs_payload();
            rest(vec![filter.subject()], filter.from_ms, headers_only)
        }
        Source::Letter { sequence, .. } => {
            let every = super::Filter::default().subject();
            Stretch {
                from: *sequence,
                until: *sequence,
                ..rest(vec![every], None, false)
            }
        }
        Source::Past(past) => {
            let filters = pool_of(job)
                .map(|pool| past.filters(pool))
                .unwrap_or_default();
            Stretch {
                stream: UPDATES,
                ..rest(filters, Some(past.from_ms), false)
            }
        }
    }
}

fn batch_size(job: &ReplayJob) -> usize {
    match job.action {
        Action::Discard => DISCARD_BATCH,
        Action::Replay => {
            let share = usize::try_from(job.rate_per_second / BATCHES_PER_SECOND).unwrap_or(1);
            share.clamp(1, PAYLOADS_PULL)
        }
    }
}

/// A batch is far smaller than what a float counts exactly.
fn f64_of(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
