//! What this process has just written and its configuration in memory does not show yet, so that many requests at once
//! do not each find the same room.

use super::{Excess, Limits, Sizes};
use ackline_shared::ids::TenantId;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// After this long the configuration in memory shows it.
const KEPT: Duration = Duration::from_secs(10);

/// Entries written lately, by tenant and key; cheap, and empty when nothing was written.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<TenantId, HashMap<String, Written>>>);

/// The bytes of an entry that was written, `None` when it was removed.
#[derive(Debug, Clone, Copy)]
struct Written {
    bytes: Option<u64>,
    at: Instant,
}

impl Ledger {
    /// Takes the room for an entry that is about to be written, unless that goes beyond a limit.
    pub fn take(
        &self,
        limits: &Limits,
        tenant: &TenantId,
        shown: Sizes,
        (key, bytes): (&str, u64),
        now: Instant,
    ) -> Result<(), Vec<Excess>> {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut ledger, now);
        let mut before = shown;
        for (key, written) in ledger.get(tenant).into_iter().flatten() {
            match written.bytes {
                Some(bytes) => before.insert(key.clone(), bytes),
                None => before.remove(key),
            };
        }
        let mut after = before.clone();
        after.insert(key.to_owned(), bytes);
        let excesses = limits.excesses(&before, &after);
        if excesses.is_empty() {
            note(&mut ledger, tenant, key, Some(bytes), now);
            Ok(())
        } else {
            Err(excesses)
        }
    }

    /// Gives the room of an entry back, because it was removed.
    pub fn give_back(&self, tenant: &TenantId, key: &str, now: Instant) {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        forget(&mut ledger, now);
        note(&mut ledger, tenant, key, None, now);
    }

    /// Forgets an entry that was not written after all.
    pub fn cancel(&self, tenant: &TenantId, key: &str) {
        let mut ledger = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entries) = ledger.get_mut(tenant) {
            entries.remove(key);
        }
    }
}

type Entries = HashMap<TenantId, HashMap<String, Written>>;

fn note(ledger: &mut Entries, tenant: &TenantId, key: &str, bytes: Option<u64>, now: Instant) {
    ledger
        .entry(tenant.clone())
        .or_default()
        .insert(key.to_owned(), Written { bytes, at: now });
}

fn forget(ledger: &mut Entries, now: Instant) {
    ledger.retain(|_, entries| {
        entries.retain(|_, written| now.saturating_duration_since(written.at) < KEPT);
        !entries.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::limits;

    #[test]
    fn what_was_just_written_counts_until_it_is_shown() {
        let (ledger, limits) = (Ledger::default(), limits(&[("BOTS_MAX", "2")]));
        let (acme, globex) = (
            TenantId::new("acme").unwrap(),
            TenantId::new("globex").unwrap(),
        );
        let start = Instant::now();
        let take = |tenant, key, now| {
            ledger
                .take(&limits, tenant, Sizes::default(), (key, 1), now)
                .is_ok()
        };
        assert!(take(&acme, "bot.acme.a", start) && take(&acme, "bot.acme.b", start));
        assert!(
            take(&acme, "bot.acme.b", start),
            "the same again takes no more room"
        );
        assert!(
            !take(&acme, "bot.acme.c", start),
            "nobody has seen the first two yet, but they are there"
        );
        assert!(
            take(&globex, "bot.globex.a", start),
            "another tenant has room of its own"
        );
        ledger.give_back(&acme, "bot.acme.a", start);
        assert!(take(&acme, "bot.acme.c", start));
        ledger.cancel(&acme, "bot.acme.c");
        assert!(take(&acme, "bot.acme.d", start));
        assert!(
            take(&acme, "bot.acme.e", start + KEPT),
            "by then what is shown has them"
        );
        assert_eq!(
            ledger.0.lock().unwrap().len(),
            1,
            "nothing is remembered for longer"
        );
    }
}
