//! Listing letters, the newest first: the stream is read backwards in windows that grow while nothing fits.

use super::filter::Filter;
use super::letter::Letter;
use super::letters::{DeadLetters, DeadLettersError, Found, HEADERS_PULL, PAYLOADS_PULL};
use super::scan::{Scan, Stretch};
use super::settled::{Settled, Standing};
use ackline_shared::subjects::DEAD;
use std::time::{Duration, Instant};

const WINDOW_FIRST: u64 = 256;
const WINDOW_MAX: u64 = 65_536;
/// Time for one page; what is not found by then is on the next.
const PAGE_TIME: Duration = Duration::from_secs(8);
/// Payload bytes on one page; a page may therefore be shorter than asked for.
const PAGE_BYTES_MAX: usize = 4 << 20;

/// Which letters by what was done about them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    Open,
    Replayed,
    Discarded,
    /// All that are still kept.
    All,
}

impl Wanted {
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "open" => Some(Self::Open),
            "replayed" => Some(Self::Replayed),
            "discarded" => Some(Self::Discarded),
            "all" => Some(Self::All),
            _ => None,
        }
    }

    fn holds(self, standing: &Standing) -> bool {
        match self {
            Self::All => true,
            Self::Open => *standing == Standing::Open,
            Self::Replayed => matches!(standing, Standing::Replayed(_)),
            Self::Discarded => matches!(standing, Standing::Discarded(_)),
        }
    }
}

#[derive(Debug, Default)]
pub struct Listing {
    /// The letters, the newest first.
    pub letters: Vec<Found>,
    /// Letters before this sequence follow; `None` on the last page.
    pub next: Option<u64>,
}

impl DeadLetters {
    /// Lists letters before a sequence.
    pub async fn list(
        &self,
        filter: &Filter,
        wanted: Wanted,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Listing, DeadLettersError> {
        let deadline = Instant::now() + PAGE_TIME;
        let mut stream = self
            .log
            .context()
            .get_stream(DEAD)
            .await
            .map_err(DeadLettersError::books)?;
        let state = stream
            .info()
            .await
            .map_err(DeadLettersError::books)?
            .state
            .clone();
        let first = state.first_sequence.max(1);
        let mut upper = before
            .unwrap_or(u64::MAX)
            .min(state.last_sequence.saturating_add(1));
        let (mut settled, mut width) = (Settled::new(self.store.clone()), WINDOW_FIRST);
        let mut found: Vec<(Letter, Standing)> = Vec::new();
        while upper > first && found.len() <= limit && Instant::now() < deadline {
            let lower = upper.saturating_sub(width).max(first);
            let mut window = self
                .window(filter, lower, upper, wanted, &mut settled)
                .await?;
            window.reverse();
            found.append(&mut window);
            (upper, width) = (lower, (width * 4).min(WINDOW_MAX));
        }
        let rest = (upper > first).then_some(upper);
        self.fill(found, limit, rest).await
    }

    async fn window(
        &self,
        filter: &Filter,
        lower: u64,
        upper: u64,
        wanted: Wanted,
        settled: &mut Settled,
    ) -> Result<Vec<(Letter, Standing)>, DeadLettersError> {
        let stretch = Stretch {
            stream: DEAD,
            filters: vec![filter.subject()],
            from: lower,
            from_ms: None,
            until: upper - 1,
            headers_only: !filter.needs_payload(),
        };
        let pull = if filter.needs_payload() {
            PAYLOADS_PULL
        } else {
            HEADERS_PULL
        };
        let mut scan = Scan::open(self.log.context(), stretch).await?;
        let mut window = Vec::new();
        loop {
            let messages = scan.next(pull).await?;
            if messages.is_empty() {
                return Ok(window);
            }
            for (sequence, message) in &messages {
                let headers = message.headers.as_ref();
                let letter = headers.and_then(|h| Letter::read(*sequence, &message.subject, h));
                let letter = letter
                    .filter(|letter| filter.fits(letter) && filter.fits_payload(&message.payload));
                let Some(letter) = letter else { continue };
                let standing = settled.standing(*sequence).await?;
                if wanted.holds(&standing) {
                    window.push((letter, standing));
                }
            }
        }
    }

    /// Fetches what the letters of one page hold.
    async fn fill(
        &self,
        found: Vec<(Letter, Standing)>,
        limit: usize,
        rest: Option<u64>,
    ) -> Result<Listing, DeadLettersError> {
        let mut listing = Listing {
            letters: Vec::new(),
            next: rest,
        };
        let (mut bytes, mut last) = (0, None);
        for (letter, standing) in found {
            if listing.letters.len() >= limit || bytes > PAGE_BYTES_MAX {
                listing.next = last;
                break;
            }
            last = Some(letter.sequence);
            // A letter may have reached its retention since it was seen.
            let Some(message) = self.message(letter.sequence).await? else {
                continue;
            };
            bytes += message.payload.len();
            listing.letters.push(Found {
                letter,
                headers: message.headers,
                payload: message.payload,
                standing,
            });
        }
        Ok(listing)
    }
}
