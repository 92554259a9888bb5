//! Limits that tests put together.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use crate::quota::Limits;
use ackline_shared::config::Reader;

/// The defaults, but for these settings.
pub fn limits(changed: &[(&str, &str)]) -> Limits {
    let variables = changed
        .iter()
        .map(|(name, value)| (format!("ACKLINE_LIMITS_{name}"), (*value).to_owned()));
    let mut reader = Reader::load(None, variables);
    let limits = Limits::read(&mut reader);
    reader.finish().unwrap();
    limits
}
