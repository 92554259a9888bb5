//! What a job may ask for, and how times are written; pure.

use super::job::{Action, ReplayTarget, Source};
use super::letters::ReplayRequest;
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::subjects::Pool;
use jiff::Timestamp;
use std::time::Duration;

/// Replays a second unless said otherwise.
pub const RATE_DEFAULT: u32 = 50;
pub const RATE_MAX: u32 = 5000;

/// A term of a job that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TermError {
    #[error("`{0}` is no time: write 2026-11-22T07:00:00Z, or how long ago, such as 7d or 90m")]
    NoTime(String),
    #[error("`{0}` is before 1970")]
    TooEarly(String),
    #[error("{0} a second is outside 1 to {RATE_MAX}")]
    Rate(u32),
    #[error("it is not JSON: {0}")]
    NotJson(String),
}

/// Reads a time: RFC 3339, or how long ago, such as `7d` or `90m`; in unix milliseconds.
pub fn time(text: &str, now_ms: u64) -> Result<u64, TermError> {
    if let Ok(ago) = humantime::parse_duration(text) {
        return Ok(now_ms.saturating_sub(milliseconds(ago)));
    }
    let time = text.parse::<Timestamp>();
    let time = time.map_err(|_| TermError::NoTime(text.to_owned()))?;
    u64::try_from(time.as_millisecond()).map_err(|_| TermError::TooEarly(text.to_owned()))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub fn rate(wanted: Option<u32>) -> Result<u32, TermError> {
    match wanted.unwrap_or(RATE_DEFAULT) {
        rate @ 1..=RATE_MAX => Ok(rate),
        other => Err(TermError::Rate(other)),
    }
}

/// Checks an edited payload: every pool reads JSON.
pub fn payload(text: &str) -> Result<(), TermError> {
    serde_json::from_str::<serde::de::IgnoredAny>(text)
        .map(|_| ())
        .map_err(|error| TermError::NotJson(error.to_string()))
}

pub fn letters(
    action: Action,
    source: Source,
    by: String,
    tenant: Option<TenantId>,
) -> ReplayRequest {
    ReplayRequest {
        action,
        by,
        tenant,
        source,
        target: None,
        include_ambiguous: false,
        include_expired: false,
        rate_per_second: RATE_DEFAULT,
        expected: 0,
    }
}

/// A target of a pool, when one is named.
pub fn target(pool: Option<Pool>, id: Option<EntityId>) -> Option<ReplayTarget> {
    (pool.is_some() || id.is_some()).then_some(ReplayTarget { pool, id })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_whole_or_as_how_long_ago() {
        assert_eq!(time("2025-06-15T23:27:53Z", 0), Ok(1_750_030_073_000));
        assert_eq!(time("90m", 10_000_000), Ok(10_000_000 - 5_400_000));
        assert!(time("yesterday", 0).is_err() && time("1969-01-01T00:00:00Z", 0).is_err());
        assert_eq!((rate(None), rate(Some(5000))), (Ok(RATE_DEFAULT), Ok(5000)));
        assert!(rate(Some(0)).is_err() && rate(Some(5001)).is_err() && payload("{").is_err());
    }
}
