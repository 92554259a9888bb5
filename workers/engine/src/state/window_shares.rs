//! Who takes more than their share of what may be read ahead. Pure counting.
//!
//! A tenant is in the way of others when it holds more than its share of a window that is half full, or of the
//! pool's bytes, while others are at work, too, or it cannot use what it holds: turns are free, or its own turns
//! are used up. A tenant that has a busy pool to itself stays where it is: moving it would only add work.

use ackline_shared::ids::TenantId;
use ackline_shared::subjects::Partition;
use std::collections::{BTreeSet, HashMap};

/// Looks in a row that must find a tenant in the way; a moment's burst is none.
const STRIKES: u32 = 2;

#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    pub window: usize,
    pub bytes: usize,
    /// Percent of either that one tenant may hold.
    pub share: usize,
}

/// A window: one partition of one lane.
pub type Window = (Partition, usize);

/// What is held by whom.
#[derive(Debug, Default)]
pub struct WindowShares {
    windows: HashMap<Window, usize>,
    shares: HashMap<(Window, TenantId), Share>,
    bytes: HashMap<TenantId, usize>,
    bytes_total: usize,
}

#[derive(Debug, Default)]
struct Share {
    held: BTreeSet<u64>,
    strikes: u32,
}

impl WindowShares {
    pub fn enter(&mut self, window: Window, tenant: &TenantId, sequence: u64, bytes: usize) {
        *self.windows.entry(window).or_default() += 1;
        self.shares
            .entry((window, tenant.clone()))
            .or_default()
            .held
            .insert(sequence);
        *self.bytes.entry(tenant.clone()).or_default() += bytes;
        self.bytes_total += bytes;
    }

    pub fn leave(&mut self, window: Window, tenant: &TenantId, sequence: u64, bytes: usize) {
        let share = (window, tenant.clone());
        drop_from(&mut self.windows, &window, 1);
        if let Some(known) = self.shares.get_mut(&share) {
            known.held.remove(&sequence);
            if known.held.is_empty() {
                self.shares.remove(&share);
            }
        }
        drop_from(&mut self.bytes, tenant, bytes);
        self.bytes_total = self.bytes_total.saturating_sub(bytes);
    }

    /// Looks who is in the way; called at a steady pace. `is_stuck` tells whether a tenant cannot use what it holds.
    pub fn sweep(
        &mut self,
        bounds: &Bounds,
        is_stuck: impl Fn(&TenantId) -> bool,
    ) -> Vec<(Window, TenantId)> {
        let is_full = |held: usize, bound: usize| held.saturating_mul(2) >= bound;
        let full_of_bytes = is_full(self.bytes_total, bounds.bytes);
        if !full_of_bytes
            && !self
                .windows
                .values()
                .any(|held| is_full(*held, bounds.window))
        {
            return Vec::new();
        }
        let is_large = |held: usize, bound: usize| {
            held.saturating_mul(100) >= bound.saturating_mul(bounds.share)
        };
        let has_others = self.bytes.len() > 1;
        let mut in_the_way = Vec::new();
        for ((window, tenant), share) in &mut self.shares {
            let held = self.windows.get(window).copied().unwrap_or_default();
            let bytes = self.bytes.get(tenant).copied().unwrap_or_default();
            let is_over = (is_full(held, bounds.window)
                && is_large(share.held.len(), bounds.window))
                || (full_of_bytes && is_large(bytes, bounds.bytes));
            share.strikes = if is_over && (has_others || is_stuck(tenant)) {
                share.strikes + 1
            } else {
                0
            };
            if share.strikes >= STRIKES {
                share.strikes = 0;
                in_the_way.push((*window, tenant.clone()));
            }
        }
        in_the_way
    }
}

fn drop_from<K: std::hash::Hash + Eq + Clone>(counts: &mut HashMap<K, usize>, key: &K, by: usize) {
    if let Some(count) = counts.get_mut(key) {
        *count = count.saturating_sub(by);
        if *count == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUNDS: Bounds = Bounds {
        window: 100,
        bytes: 1_000_000,
        share: 25,
    };
    const WINDOW: Window = (Partition(1), 0);

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    fn enter(window_shares: &mut WindowShares, name: &str, count: usize, bytes: usize) {
        for sequence in (0..).take(count) {
            window_shares.enter(WINDOW, &tenant(name), sequence, bytes);
        }
    }

    /// Who is found in the way when looked at twice.
    fn found(window_shares: &mut WindowShares, is_stuck: bool) -> Vec<TenantId> {
        assert!(
            window_shares.sweep(&BOUNDS, |_| is_stuck).is_empty(),
            "a moment is not enough"
        );
        window_shares
            .sweep(&BOUNDS, |_| is_stuck)
            .into_iter()
            .map(|(_, tenant)| tenant)
            .collect()
    }

    #[test]
    fn a_tenant_that_cannot_use_its_part_of_a_full_window_is_in_the_way() {
        let mut window_shares = WindowShares::default();
        enter(&mut window_shares, "noisy", 40, 10);
        assert!(
            found(&mut window_shares, true).is_empty(),
            "others have room"
        );
        enter(&mut window_shares, "quiet", 10, 10);
        assert_eq!(found(&mut window_shares, true), [tenant("noisy")]);
    }

    #[test]
    fn a_tenant_that_has_a_busy_pool_to_itself_stays_and_moves_when_another_comes() {
        let mut window_shares = WindowShares::default();
        enter(&mut window_shares, "busy", 100, 10);
        assert!(found(&mut window_shares, false).is_empty());
        enter(&mut window_shares, "quiet", 1, 10);
        assert_eq!(found(&mut window_shares, false), [tenant("busy")]);
    }

    #[test]
    fn large_messages_count_by_their_bytes() {
        let mut window_shares = WindowShares::default();
        enter(&mut window_shares, "large", 6, 100_000);
        assert_eq!(found(&mut window_shares, true), [tenant("large")]);
    }

    #[test]
    fn what_leaves_is_not_counted_and_nothing_stays_behind() {
        let mut window_shares = WindowShares::default();
        enter(&mut window_shares, "a", 90, 10);
        for sequence in 0..90 {
            window_shares.leave(WINDOW, &tenant("a"), sequence, 10);
        }
        assert!(
            window_shares.windows.is_empty()
                && window_shares.shares.is_empty()
                && window_shares.bytes.is_empty()
        );
        assert_eq!(window_shares.bytes_total, 0);
    }
}
