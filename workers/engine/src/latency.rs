//! How long things take: counts per bucket, which add up over processes as averages and percentiles do not.
//!
//! Buckets grow by √2 from 0.1 ms, so a percentile read from them is at most a fifth off.

use serde::{Deserialize, Serialize};
use std::time::Duration;

const BUCKETS: usize = 48;
const SMALLEST_MS: f64 = 0.1;

/// Durations seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Latencies {
    /// Count per bucket, without the empty ones at the end.
    counts: Vec<u32>,
    /// Sum of all of them in milliseconds.
    total_ms: f64,
}

impl Latencies {
    /// Adds one.
    pub fn record(&mut self, took: Duration) {
        let ms = took.as_secs_f64() * 1000.0;
        let bucket = bucket_of(ms);
        if self.counts.len() <= bucket {
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(count) = self.counts.get_mut(bucket) {
            *count = count.saturating_add(1);
        }
        self.total_ms += ms;
    }

    /// Adds all of another's.
    pub fn merge(&mut self, other: &Self) {
        let length = self.counts.len().max(other.counts.len().min(BUCKETS));
        self.counts.resize(length, 0);
        for (mine, theirs) in self.counts.iter_mut().zip(&other.counts) {
            *mine = mine.saturating_add(*theirs);
        }
        self.total_ms += other.total_ms;
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.counts.iter().copied().map(u64::from).sum()
    }

    /// The mean in milliseconds; `None` without any.
    pub fn mean_ms(&self) -> Option<f64> {
        let count = self.count();
        #[allow(
            clippy::cast_precision_loss,
            reason = "counts of seconds are far below 2^52"
        )]
        (count > 0).then(|| self.total_ms / count as f64)
    }

    /// The value below which the share `q` of all lies, in milliseconds; `None` without any.
    pub fn quantile_ms(&self, q: f64) -> Option<f64> {
        let count = self.count();
        #[allow(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "a rank among counts"
        )]
        let rank = ((count as f64 * q).ceil() as u64).clamp(1, count.max(1));
        let mut seen = 0;
        for (bucket, n) in self.counts.iter().enumerate() {
            seen += u64::from(*n);
            if seen >= rank && count > 0 {
                return Some(middle_of(bucket));
            }
        }
        None
    }
}

fn bucket_of(ms: f64) -> usize {
    if ms <= SMALLEST_MS {
        return 0;
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "positive and clamped below"
    )]
    let bucket = ((ms / SMALLEST_MS).log2() * 2.0).ceil() as usize;
    bucket.min(BUCKETS - 1)
}

/// Bucket `n` holds what is at most `SMALLEST · √2^n`; its middle is a quarter of a doubling below.
fn middle_of(bucket: usize) -> f64 {
    let exponent = u32::try_from(bucket).map_or(0.0, f64::from) / 2.0;
    SMALLEST_MS * (exponent - 0.25).exp2()
}

/// The durations of the last half minute or so.
#[derive(Debug, Clone, Default)]
pub struct Recent {
    current: Latencies,
    previous: Latencies,
}

impl Recent {
    /// Adds one.
    pub fn record(&mut self, took: Duration) {
        self.current.record(took);
    }

    /// Begins a new period and forgets all but the one that just ended.
    pub fn rotate(&mut self) {
        self.previous = std::mem::take(&mut self.current);
    }

    /// Those of this period and the one before.
    pub fn all(&self) -> Latencies {
        let mut all = self.previous.clone();
        all.merge(&self.current);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nothing_seen_has_no_percentile() {
        assert_eq!(Latencies::default().quantile_ms(0.5), None);
        assert_eq!(Latencies::default().mean_ms(), None);
    }

    #[test]
    fn what_two_periods_ago_took_is_forgotten() {
        let mut recent = Recent::default();
        recent.record(Duration::from_secs(1));
        recent.rotate();
        assert_eq!(recent.all().count(), 1);
        recent.rotate();
        assert_eq!(recent.all().count(), 0);
    }

    proptest! {
        #[test]
        fn a_percentile_is_a_fifth_off_at_most_and_the_same_merged(values in prop::collection::vec(200_u64..60_000_000, 1..300), q in 0.01_f64..1.0) {
            let (mut one, mut two, mut whole) = (Latencies::default(), Latencies::default(), Latencies::default());
            for (index, micros) in values.iter().enumerate() {
                let took = Duration::from_micros(*micros);
                if index % 2 == 0 { one.record(took) } else { two.record(took) }
                whole.record(took);
            }
            one.merge(&two);
            prop_assert_eq!(one.quantile_ms(q), whole.quantile_ms(q));
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = ((values.len() as f64 * q).ceil() as usize).clamp(1, values.len());
            let exact = sorted[rank - 1] as f64 / 1000.0;
            let read = whole.quantile_ms(q).unwrap();
            prop_assert!((read / exact - 1.0).abs() < 0.2, "{} for {}", read, exact);
        }
    }
}
