//! Counting: the open letters that a filter means, and what a pool would be shown of the past.

use super::filter::Filter;
use super::job::{Action, Source};
use super::letter::Letter;
use super::letters::{DeadLetters, DeadLettersError, HEADERS_PULL, PAYLOADS_PULL, ReplayRequest};
use super::past::Past;
use super::scan::{Scan, Stretch};
use super::settled::{Settled, Standing};
use super::tally::{Count, Tally};
use ackline_shared::clock::now_ms;
use ackline_shared::subjects::{DEAD, Pool, UPDATES};
use async_nats::jetstream::Context;
use async_nats::jetstream::kv::Store;
use std::time::{Duration, Instant};

/// Counts the open letters that a filter means, for as long as `within`; `replays` says which are settled.
pub async fn open_letters(
    context: &Context,
    replays: Store,
    filter: &Filter,
    within: Duration,
) -> Result<Count, DeadLettersError> {
    let (deadline, now) = (Instant::now() + within, now_ms());
    let (mut tally, mut settled) = (Tally::default(), Settled::new(replays));
    let stretch = Stretch {
        stream: DEAD,
        filters: vec![filter.subject()],
        from: 1,
        from_ms: filter.from_ms,
        until: u64::MAX,
        headers_only: !filter.needs_payload(),
    };
    let pull = if filter.needs_payload() {
        PAYLOADS_PULL
    } else {
        HEADERS_PULL
    };
    let mut scan = Scan::open(context, stretch).await?;
    loop {
        let messages = scan.next(pull).await?;
        if messages.is_empty() {
            return Ok(tally.finish(true));
        }
        for (sequence, message) in &messages {
            let letter = message.headers.as_ref().and_then(|headers| {
                Letter::read(*sequence, &message.subject, headers)
                    .filter(|letter| filter.fits(letter))
            });
            let Some(letter) = letter.filter(|_| filter.fits_payload(&message.payload)) else {
                continue;
            };
            if settled.standing(*sequence).await? == Standing::Open {
                tally.letter(&letter, now);
            }
        }
        if Instant::now() > deadline {
            return Ok(tally.finish(false));
        }
    }
}

impl DeadLetters {
    /// Counts the open letters that a filter means, for as long as `within`.
    pub async fn count(
        &self,
        filter: &Filter,
        within: Duration,
    ) -> Result<Count, DeadLettersError> {
        open_letters(self.log.context(), self.store.clone(), filter, within).await
    }

    /// Counts what a pool would be shown of the past, for as long as `within`.
    pub async fn count_past(
        &self,
        past: &Past,
        pool: Pool,
        within: Duration,
    ) -> Result<Count, DeadLettersError> {
        let deadline = Instant::now() + within;
        let mut tally = Tally::default();
        let filters = past.filters(pool);
        if filters.is_empty() {
            return Ok(tally.finish(true));
        }
        let nobody = self.draft(
            ReplayRequest {
                action: Action::Replay,
                by: String::new(),
                tenant: None,
                source: Source::Past(past.clone()),
                target: None,
                include_ambiguous: false,
                include_expired: false,
                rate_per_second: 1,
                expected: 0,
            },
            String::new(),
        );
        let stretch = Stretch {
            stream: UPDATES,
            filters,
            from: 1,
            from_ms: Some(past.from_ms),
            until: u64::MAX,
            headers_only: true,
        };
        let mut scan = Scan::open(self.log.context(), stretch).await?;
        loop {
            let messages = scan.next(HEADERS_PULL).await?;
            if messages.is_empty() || Instant::now() > deadline {
                return Ok(tally.finish(messages.is_empty()));
            }
            for (sequence, message) in &messages {
                let headers = message.headers.as_ref();
                let head = headers
                    .and_then(|h| past.replay(*sequence, &message.subject, h, pool, &nobody));
                if let Some(head) = head {
                    tally.add(pool.as_str(), past.tenant.as_str(), Some(head.received_ms));
                }
            }
        }
    }
}
