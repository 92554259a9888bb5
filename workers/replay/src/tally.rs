//! How many a filter means, by pool, tenant and reason; pure.

use super::letter::Letter;
use crate::time::rfc3339;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use utoipa::ToSchema;

/// Distinct reasons counted apart; those after them count together.
const REASONS_MAX: usize = 1000;
/// Reasons shown.
const REASONS_SHOWN: usize = 20;
const OTHER: &str = "other reasons";

/// How many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Count {
    /// All of them.
    pub total: u64,
    /// Whether everything was looked at; otherwise time ran out, and there may be more.
    pub complete: bool,
    /// By pool.
    pub pools: BTreeMap<String, u64>,
    /// By tenant.
    pub tenants: BTreeMap<String, u64>,
    /// By reason, the most frequent first; numbers in reasons are not told apart.
    pub reasons: Vec<Reason>,
    /// Messages whose answer was lost; they are replayed only when asked for.
    pub ambiguous: u64,
    /// Messages, templates apart, that were asked for more than 24 h ago; they are replayed only when asked for.
    pub expired: u64,
    /// When the oldest of them was received.
    pub oldest_received_at: Option<String>,
    /// When the newest of them was received.
    pub newest_received_at: Option<String>,
}

/// How many have a reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Reason {
    /// In words.
    pub reason: String,
    /// How many.
    pub count: u64,
}

/// A count under way.
#[derive(Debug, Default)]
pub struct Tally {
    count: Count,
    reasons: HashMap<String, u64>,
    /// When the oldest and the newest were received, in unix milliseconds.
    received: Option<(u64, u64)>,
}

impl Tally {
    /// Counts a letter.
    pub fn letter(&mut self, letter: &Letter, now_ms: u64) {
        let received_ms = letter.received_ms.or(letter.at_ms);
        self.add(letter.pool.as_str(), letter.tenant.as_str(), received_ms);
        self.count.ambiguous += u64::from(letter.is_ambiguous());
        self.count.expired += u64::from(letter.is_expired(now_ms));
        let reason = without_numbers(&letter.reason);
        let has_room = self.reasons.len() < REASONS_MAX || self.reasons.contains_key(&reason);
        *self
            .reasons
            .entry(if has_room { reason } else { OTHER.to_owned() })
            .or_default() += 1;
    }

    /// Counts something for a pool.
    pub fn add(&mut self, pool: &str, tenant: &str, received_ms: Option<u64>) {
        self.count.total += 1;
        if let Some(at) = received_ms {
            let (oldest, newest) = self.received.unwrap_or((at, at));
            self.received = Some((oldest.min(at), newest.max(at)));
        }
        for (counts, name) in [
            (&mut self.count.pools, pool),
            (&mut self.count.tenants, tenant),
        ] {
            match counts.get_mut(name) {
                Some(count) => *count += 1,
                None => {
                    counts.insert(name.to_owned(), 1);
                }
            }
        }
    }

    /// The result.
    pub fn finish(self, complete: bool) -> Count {
        let mut reasons: Vec<Reason> = self
            .reasons
            .into_iter()
            .map(|(reason, count)| Reason { reason, count })
            .collect();
        reasons.sort_by(|one, two| {
            two.count
                .cmp(&one.count)
                .then_with(|| one.reason.cmp(&two.reason))
        });
        let rest: u64 = reasons
            .iter()
            .skip(REASONS_SHOWN)
            .map(|reason| reason.count)
            .sum();
        reasons.truncate(REASONS_SHOWN);
        if rest > 0 {
            reasons.push(Reason {
                reason: OTHER.to_owned(),
                count: rest,
            });
        }
        Count {
            complete,
            reasons,
            oldest_received_at: self.received.map(|(oldest, _)| rfc3339(oldest)),
            newest_received_at: self.received.map(|(_, newest)| rfc3339(newest)),
            ..self.count
        }
    }
}

/// Long numbers are ids and times: with them every reason would be one of its own. Statuses and attempts stay.
fn without_numbers(reason: &str) -> String {
    if !reason
        .as_bytes()
        .windows(7)
        .any(|run| run.iter().all(u8::is_ascii_digit))
    {
        return reason.to_owned();
    }
    let mut out = String::with_capacity(reason.len());
    let mut digits = String::new();
    for c in reason.chars().chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        out.push_str(if digits.len() > 6 { "…" } else { &digits });
        digits.clear();
        out.push(c);
    }
    out.pop();
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::subjects::header;
    use async_nats::HeaderMap;

    #[test]
    fn reasons_are_counted_without_their_numbers_and_the_most_frequent_is_first() {
        let mut tally = Tally::default();
        for (at, reason) in [
            "relay a: answered 400",
            "took 12345678 ms",
            "took 87654321 ms",
        ]
        .iter()
        .enumerate()
        {
            let mut headers = HeaderMap::new();
            headers.insert(header::RECEIVED, (at * 1000).to_string());
            headers.insert(header::DEAD_REASON, *reason);
            tally.letter(
                &Letter::read(1, "dead.relay.acme", &headers).unwrap(),
                u64::MAX,
            );
        }
        let count = tally.finish(true);
        assert_eq!(
            (count.total, count.pools["relay"], count.tenants["acme"]),
            (3, 3, 3)
        );
        assert_eq!((count.ambiguous, count.expired), (0, 0));
        assert_eq!(
            count.oldest_received_at.as_deref(),
            Some("1970-01-01T00:00:00Z")
        );
        assert_eq!(
            count.newest_received_at.as_deref(),
            Some("1970-01-01T00:00:02Z")
        );
        let reasons: Vec<_> = count
            .reasons
            .iter()
            .map(|one| (one.reason.as_str(), one.count))
            .collect();
        assert_eq!(reasons, [("took … ms", 2), ("relay a: answered 400", 1)]);
    }
}
