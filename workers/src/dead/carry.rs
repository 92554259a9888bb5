//! Carrying one order out, batch by batch: claim, replay, note how far it has come.
//!
//! Cancelling it anywhere is harmless. Whoever takes the order up again begins at the last noted place and meets
//! its own claims, and what it stores a second time has the id it had the first time.

use super::letter::Letter;
use super::office::{Office, OfficeError, PAYLOADS_PULL};
use super::order::{Action, Order, Source, State};
use super::past::Past;
use super::scan::{Scan, Stretch};
use super::settled::{Settled, Standing};
use crate::core::log::{Log, LogError, now_ms, size};
use crate::core::whole;
use ackline_shared::envelope::Head;
use ackline_shared::subjects::{DEAD, Pool, UPDATES};
use async_nats::connection::State as Connection;
use async_nats::jetstream::Message;
use bytes::Bytes;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

/// Letters discarded at once.
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

impl Office {
    /// Carries an order out until it ends; an error leaves it to be taken up again.
    pub async fn carry_out(&self, id: &str) -> Result<(), OfficeError> {
        let Some((mut revision, mut order)) = self.find(id).await? else {
            return Ok(());
        };
        if order.state.is_final() {
            return Ok(());
        }
        if order.state == State::Waiting {
            (order.state, order.started_ms) = (State::Running, Some(now_ms()));
        }
        let mut settled = Settled::new(self.store.clone());
        let mut scan = Scan::open(self.log.context(), stretch(&order)).await?;
        loop {
            let began = Instant::now();
            let messages = scan.next(batch_size(&order)).await?;
            let before = order.done;
            match messages.last() {
                Some((last, _)) => {
                    let next = last + 1;
                    match order.action {
                        Action::Replay => self.replay(&mut order, &mut settled, messages).await?,
                        Action::Discard => discard(&mut order, &mut settled, &messages).await?,
                    }
                    order.next = next;
                }
                None => order.finish(State::Done, now_ms()),
            }
            if order.state == State::Running && order.is_stopped {
                order.finish(State::Cancelled, now_ms());
            }
            revision = self.note(revision, &mut order).await?;
            if order.state.is_final() {
                tracing::info!(
                    order = order.id,
                    by = order.by,
                    state = order.state.as_str(),
                    done = order.done,
                    skipped = order.skipped,
                    failed = order.failed,
                    "an order ended"
                );
                return Ok(());
            }
            if order.action == Action::Replay {
                let share = f64_of(order.done - before) / f64::from(order.rate_per_second.max(1));
                sleep_until(began + Duration::from_secs_f64(share)).await;
            }
        }
    }

    /// Writes the order back, and takes over that somebody wants it to stop.
    async fn note(&self, revision: u64, order: &mut Order) -> Result<u64, OfficeError> {
        if let Some(revision) = self.write(revision, order).await? {
            return Ok(revision);
        }
        let Some((revision, stored)) = self.find(&order.id).await? else {
            return Err(OfficeError::books("the order is gone"));
        };
        order.is_stopped |= stored.is_stopped;
        if order.is_stopped && order.state == State::Running {
            order.finish(State::Cancelled, now_ms());
        }
        let written = self.write(revision, order).await?;
        written.ok_or_else(|| OfficeError::books("somebody else writes the order"))
    }

    async fn replay(
        &self,
        order: &mut Order,
        settled: &mut Settled,
        messages: Vec<(u64, Message)>,
    ) -> Result<(), OfficeError> {
        let mut pieces = Vec::new();
        for (sequence, message) in messages {
            let piece = match order.source.clone() {
                Source::Past(past) => of_past(order, &past, sequence, message),
                Source::Letters(_) | Source::Letter { .. } => {
                    of_letter(&self.log, order, settled, sequence, message).await?
                }
            };
            pieces.extend(piece);
        }
        let letters: Vec<u64> = pieces.iter().filter_map(|piece| piece.letter).collect();
        let own = settled.claim(&order.id, &letters).await?;
        pieces.retain(|piece| piece.letter.is_none_or(|letter| own.contains(&letter)));
        for (at, piece) in pieces.iter().enumerate() {
            let Err(error) = self.store(piece).await else {
                order.done += 1;
                continue;
            };
            if self.log.context().client().connection_state() != Connection::Connected {
                return Err(OfficeError::books(error));
            }
            // What follows would overtake it in its conversation, so the order ends here.
            let rest: Vec<u64> = pieces
                .iter()
                .skip(at)
                .filter_map(|piece| piece.letter)
                .collect();
            settled.release(&order.id, &rest).await?;
            order.failed += 1;
            order.problem = Some(error.to_string());
            order.finish(State::Failed, now_ms());
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
    order: &mut Order,
    settled: &mut Settled,
    messages: &[(u64, Message)],
) -> Result<(), OfficeError> {
    let mut letters = Vec::new();
    for (sequence, message) in messages {
        if is_meant(order, *sequence, message).is_some()
            && is_open(order, settled, *sequence).await?
        {
            letters.push(*sequence);
        }
    }
    let own = settled.claim(&order.id, &letters).await?;
    order.done += u64::try_from(own.len()).unwrap_or(0);
    Ok(())
}

/// The letter in a message, when the order means it.
fn is_meant(order: &Order, sequence: u64, message: &Message) -> Option<Letter> {
    let letter = Letter::read(sequence, &message.subject, message.headers.as_ref()?)?;
    let fits = match &order.source {
        Source::Letters(filter) => filter.fits(&letter) && filter.fits_payload(&message.payload),
        Source::Letter { .. } => true,
        Source::Past(_) => false,
    };
    fits.then_some(letter)
}

/// Whether nothing was done about a letter but by this very order.
async fn is_open(order: &Order, settled: &mut Settled, sequence: u64) -> Result<bool, OfficeError> {
    let standing = settled.standing(sequence).await?;
    Ok(standing == Standing::Open || standing.order() == Some(&order.id))
}

async fn of_letter(
    log: &Log,
    order: &mut Order,
    settled: &mut Settled,
    sequence: u64,
    message: Message,
) -> Result<Option<Piece>, OfficeError> {
    let Some(letter) = is_meant(order, sequence, &message) else {
        return Ok(None);
    };
    if !is_open(order, settled, sequence).await? {
        return Ok(None);
    }
    let message = message.message;
    let payload = match &order.source {
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
                    .map_err(OfficeError::books)?
                {
                    Some(payload) => payload,
                    None => {
                        order.skip(
                            "it holds only the beginning of its payload, and the rest is not kept any more",
                        );
                        return Ok(None);
                    }
                }
            }
        },
    };
    match letter.replay(&message.headers.unwrap_or_default(), order, now_ms()) {
        Ok(head) if size(&head.to_headers(), &payload) > log.message_bytes_max() => {
            order.skip("it is longer than nats-server takes; raise its max_payload");
            Ok(None)
        }
        Ok(head) => Ok(Some(Piece {
            letter: Some(sequence),
            head,
            payload,
        })),
        Err(reason) => {
            order.skip(reason);
            Ok(None)
        }
    }
}

fn of_past(order: &Order, past: &Past, sequence: u64, message: Message) -> Option<Piece> {
    let pool = pool_of(order)?;
    let head = past.replay(
        sequence,
        &message.subject,
        message.headers.as_ref()?,
        pool,
        order,
    )?;
    Some(Piece {
        letter: None,
        head,
        payload: message.message.payload,
    })
}

fn pool_of(order: &Order) -> Option<Pool> {
    order.target.as_ref().and_then(|target| target.pool)
}

fn stretch(order: &Order) -> Stretch {
    let rest = |filters: Vec<String>, from_ms: Option<u64>, headers_only: bool| Stretch {
        stream: DEAD,
        filters,
        from: order.next.max(1),
        from_ms: from_ms.filter(|_| order.next == 0),
        until: order.until,
        headers_only,
    };
    match &order.source {
        Source::Letters(filter) => {
            let headers_only = order.action == Action::Discard && !filter.needs_payload();
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
            let filters = pool_of(order)
                .map(|pool| past.filters(pool))
                .unwrap_or_default();
            Stretch {
                stream: UPDATES,
                ..rest(filters, Some(past.from_ms), false)
            }
        }
    }
}

fn batch_size(order: &Order) -> usize {
    match order.action {
        Action::Discard => DISCARD_BATCH,
        Action::Replay => {
            let share = usize::try_from(order.rate_per_second / BATCHES_PER_SECOND).unwrap_or(1);
            share.clamp(1, PAYLOADS_PULL)
        }
    }
}

/// A batch is far smaller than what a float counts exactly.
fn f64_of(count: u64) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}
