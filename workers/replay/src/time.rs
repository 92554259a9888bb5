//! Times as people and clients read them: RFC 3339 in UTC.

use jiff::Timestamp;

/// Writes unix milliseconds; a time out of range becomes the end of time.
pub fn rfc3339(ms: u64) -> String {
    let timestamp = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.unwrap_or(Timestamp::MAX).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn milliseconds_are_written_in_utc() {
        assert_eq!(rfc3339(1_750_030_073_250), "2025-06-15T23:27:53.25Z");
        assert!(rfc3339(u64::MAX).starts_with("9999"));
    }
}
