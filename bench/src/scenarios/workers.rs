//! What the scenarios of the workers share: worker processes beside a broker, updates for them, and a bot behind them.
//!
//! Updates go straight into the stream, as the ingress would put them there, so that only the workers are measured.

pub mod bot;
pub mod crew;
pub mod feed;
pub mod held;
pub mod stream;

pub use bot::{Arrival, Bot};
pub use crew::{Crew, Plan};
pub use feed::{Feed, Update};
pub use held::Held;

use super::plot::Series;
use crate::load::tally::count;
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// A tenant of a scenario, by number.
pub fn tenant(number: usize) -> String {
    format!("tenant-{number:05}")
}

/// The business number of a tenant.
pub fn phone(tenant: usize) -> String {
    format!("{}", 10_600_000_000_u64 + tenant as u64)
}

/// The second business number of a tenant that has one.
pub fn second_phone(tenant: usize) -> String {
    format!("{}", 10_700_000_000_u64 + tenant as u64)
}

/// A quantile of unsorted waits, in milliseconds; nothing when there are none.
pub fn quantile_ms(waits: &[Duration], quantile: f64) -> f64 {
    let mut sorted = waits.to_vec();
    sorted.sort_unstable();
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share of a length lies within it"
    )]
    let place = (count(sorted.len() as u64) * quantile) as usize;
    let last = sorted.len().saturating_sub(1);
    sorted
        .get(place.min(last))
        .map_or(f64::NAN, |wait| wait.as_secs_f64() * 1_000.0)
}

/// When each update arrived first.
pub fn first_arrivals(arrivals: &[Arrival]) -> HashMap<u32, Instant> {
    let mut first = HashMap::with_capacity(arrivals.len());
    for arrival in arrivals {
        first.entry(arrival.serial).or_insert(arrival.at);
    }
    first
}

/// Waits by percentile, for a plot.
pub fn curve(name: &str, waits: &[Duration]) -> Series {
    let points = (1..=100).map(|percent| {
        (
            count(percent),
            quantile_ms(waits, count(percent) / 100.0 - 0.001),
        )
    });
    Series {
        name: name.to_owned(),
        points: points.filter(|point| point.1.is_finite()).collect(),
    }
}

/// Jain's index: 1 when all shares are equal, 1/n when one has everything.
pub fn jain(shares: &[f64]) -> f64 {
    let (sum, squares) = shares.iter().fold((0.0, 0.0), |(sum, squares), share| {
        (sum + share, squares + share * share)
    });
    if squares <= 0.0 {
        f64::NAN
    } else {
        sum * sum / (count(shares.len() as u64) * squares)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_shares_are_fair_and_one_taker_of_four_is_a_quarter() {
        assert!((jain(&[3.0; 10]) - 1.0).abs() < 1e-9);
        assert!((jain(&[4.0, 0.0, 0.0, 0.0]) - 0.25).abs() < 1e-9);
    }

    #[test]
    fn the_99th_percentile_of_a_hundred_waits_is_the_largest() {
        let waits: Vec<_> = (1..=100).rev().map(Duration::from_millis).collect();
        assert!((quantile_ms(&waits, 0.99) - 100.0).abs() < 1e-9);
        assert!((quantile_ms(&waits, 0.5) - 51.0).abs() < 1e-9);
        assert!(quantile_ms(&[], 0.5).is_nan());
    }
}
