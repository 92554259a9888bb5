//! A bound on what is held at once by all threads together.

use std::sync::atomic::{AtomicUsize, Ordering};

/// So much may be held.
#[derive(Debug)]
pub struct Budget {
    max: usize,
    held: AtomicUsize,
}

/// A part of the budget in use; dropping it gives it back.
#[derive(Debug)]
pub struct Held<'b> {
    budget: &'b Budget,
    amount: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(usize::MAX)
    }
}

impl Budget {
    pub fn new(max: usize) -> Self {
        Self {
            max,
            held: AtomicUsize::new(0),
        }
    }

    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    /// Holds an amount within a bound that this one keeps in mind; one alone always fits.
    pub fn hold_within(&self, amount: usize, max: usize) -> Option<Held<'_>> {
        let before = self.held.fetch_add(amount, Ordering::Relaxed);
        let held = Held {
            budget: self,
            amount,
        };
        (before == 0 || before.saturating_add(amount) <= max).then_some(held)
    }

    pub fn hold(&self) -> Held<'_> {
        Held {
            budget: self,
            amount: 0,
        }
    }
}

impl Held<'_> {
    /// Holds more, unless that would be too much.
    pub fn grow(&mut self, amount: usize) -> bool {
        let before = self.budget.held.fetch_add(amount, Ordering::Relaxed);
        let fits = before.saturating_add(amount) <= self.budget.max;
        if fits {
            self.amount += amount;
        } else {
            self.budget.held.fetch_sub(amount, Ordering::Relaxed);
        }
        fits
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.budget.held.fetch_sub(self.amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_alone_always_fits_and_more_only_within_the_bound() {
        let budget = Budget::default();
        let first = budget.hold_within(12, 10).unwrap();
        assert!(budget.hold_within(1, 10).is_none());
        assert_eq!(budget.held(), 12);
        drop(first);
        let _held = (
            budget.hold_within(4, 10).unwrap(),
            budget.hold_within(6, 10).unwrap(),
        );
        assert!(budget.hold_within(1, 10).is_none());
    }

    #[test]
    fn no_more_is_held_than_may_be_and_all_is_given_back() {
        let budget = Budget::new(10);
        let (mut first, mut second) = (budget.hold(), budget.hold());
        assert!(first.grow(4) && second.grow(5) && !first.grow(2) && first.grow(1));
        assert_eq!(budget.held(), 10);
        drop(first);
        assert_eq!(budget.held(), 5);
        drop(second);
        assert_eq!(budget.held(), 0);
    }
}
