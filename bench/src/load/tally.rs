//! What came of a run: latencies from the intended start, answers by status, time.

use hdrhistogram::Histogram;
use std::collections::BTreeMap;
use std::time::Duration;

const LATENCY_MAX: Duration = Duration::from_secs(120);
const DIGITS: u8 = 3;

#[derive(Debug, Clone)]
pub struct Tally {
    accepted: Histogram<u64>,
    early: u64,
    statuses: BTreeMap<u16, u64>,
    failures: u64,
    elapsed: Duration,
}

impl Default for Tally {
    fn default() -> Self {
        Self::new()
    }
}

impl Tally {
    #[allow(
        clippy::expect_used,
        reason = "the bounds are constants that hdrhistogram takes"
    )]
    pub fn new() -> Self {
        let high = nanoseconds(LATENCY_MAX);
        let accepted = Histogram::new_with_bounds(1_000, high, DIGITS).expect("constant bounds");
        Self {
            accepted,
            early: 0,
            statuses: BTreeMap::new(),
            failures: 0,
            elapsed: Duration::ZERO,
        }
    }

    /// Counts an answer that came `latency` after the moment its request was meant to start.
    pub fn answered(&mut self, status: u16, latency: Duration) {
        *self.statuses.entry(status).or_default() += 1;
        if (200..300).contains(&status) {
            self.accepted.saturating_record(nanoseconds(latency));
        }
    }

    /// Counts an answer whose latency says nothing yet.
    pub fn answered_early(&mut self, status: u16) {
        *self.statuses.entry(status).or_default() += 1;
        self.early += u64::from((200..300).contains(&status));
    }

    /// Counts a request that got no answer.
    pub fn failed(&mut self) {
        self.failures += 1;
    }

    /// Notes how long the run took.
    pub fn took(&mut self, elapsed: Duration) {
        self.elapsed = elapsed;
    }

    /// Adds another part of the same run.
    pub fn add(&mut self, other: &Self) {
        // Both have the same bounds, so this cannot fail.
        let _ = self.accepted.add(&other.accepted);
        self.early += other.early;
        for (status, count) in &other.statuses {
            *self.statuses.entry(*status).or_default() += count;
        }
        self.failures += other.failures;
        self.elapsed = self.elapsed.max(other.elapsed);
    }

    /// Adds a run that came after this one.
    pub fn then(&mut self, next: &Self) {
        let before = self.elapsed;
        self.add(next);
        self.elapsed = before + next.elapsed;
    }

    pub fn accepted(&self) -> u64 {
        self.accepted.len() + self.early
    }

    pub fn attempts(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.failures
    }

    pub fn failures(&self) -> u64 {
        self.failures
    }

    pub fn statuses(&self) -> &BTreeMap<u16, u64> {
        &self.statuses
    }

    /// How long the run took.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    pub fn per_second(&self) -> f64 {
        if self.elapsed.is_zero() {
            return 0.0;
        }
        count(self.accepted()) / self.elapsed.as_secs_f64()
    }

    /// A quantile of the latency of accepted requests, in microseconds.
    pub fn quantile_us(&self, quantile: f64) -> f64 {
        count(self.accepted.value_at_quantile(quantile)) / 1_000.0
    }

    /// Latencies in microseconds at rising percentiles, for a plot.
    pub fn curve(&self) -> Vec<(f64, f64)> {
        let quantiles = [
            0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.95, 0.99, 0.995, 0.999, 0.9999,
        ];
        quantiles
            .iter()
            .map(|&quantile| (quantile, self.quantile_us(quantile)))
            .collect()
    }

    /// Every status with its count, in words.
    pub fn answers(&self) -> String {
        let mut parts: Vec<_> = self
            .statuses
            .iter()
            .map(|(status, count)| format!("{count} x {status}"))
            .collect();
        if self.failures > 0 {
            parts.push(format!("{} without an answer", self.failures));
        }
        parts.join(", ")
    }
}

/// A count as a number to calculate with; exact below 2^53.
pub fn count(number: u64) -> f64 {
    #[allow(clippy::cast_precision_loss, reason = "counts of a bounded run")]
    {
        number as f64
    }
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_accepted_requests_have_a_latency_and_all_are_counted() {
        let mut tally = Tally::new();
        tally.answered(200, Duration::from_millis(2));
        tally.answered(503, Duration::from_secs(9));
        tally.failed();
        assert_eq!(
            (tally.accepted(), tally.attempts(), tally.failures()),
            (1, 3, 1)
        );
        assert!((tally.quantile_us(1.0) - 2_000.0).abs() < 10.0);
        assert_eq!(tally.answers(), "1 x 200, 1 x 503, 1 without an answer");
    }

    #[test]
    fn parts_of_a_run_add_up_and_the_longest_is_its_length() {
        let (mut first, mut second) = (Tally::new(), Tally::new());
        first.answered(200, Duration::from_micros(100));
        first.took(Duration::from_secs(2));
        second.answered(200, Duration::from_micros(300));
        second.took(Duration::from_secs(1));
        first.add(&second);
        assert!((first.per_second() - 1.0).abs() < 1e-9);
        assert!((first.quantile_us(1.0) - 300.0).abs() < 1.0);
    }
}
