//! How far our clock is from nats-server's: leases, retention and times of dead letters rely on both.

use crate::nats::api::{self, ApiError, Ask};
use crate::subjects::UPDATES;
use serde::Deserialize;
use serde_json::json;
use std::time::{SystemTime, UNIX_EPOCH};

/// From here on the difference matters.
const SKEW_MAX_MS: i64 = 5000;

/// The time at which JetStream answered.
#[derive(Deserialize)]
struct Answered {
    ts: String,
}

/// How many milliseconds our clock is ahead of nats-server's; what the answer's way may account for is left out.
pub async fn skew_ms(asker: &impl Ask) -> Result<i64, ApiError> {
    let before = now_ms();
    let answered: Answered =
        api::call(asker, &format!("STREAM.INFO.{UPDATES}"), &json!({})).await?;
    let after = now_ms();
    let server = read(&answered.ts)
        .ok_or_else(|| ApiError::Unreadable(format!("`{}` is no time", answered.ts)))?;
    Ok(outside(server, before, after))
}

/// How far the server's time lies outside of ours before and after.
fn outside(server: i64, before: i64, after: i64) -> i64 {
    if server < before {
        before - server
    } else {
        (after - server).min(0)
    }
}

/// What is wrong with our clock, if anything is.
pub fn problem(skew_ms: i64) -> Option<String> {
    let (seconds, side) = (
        skew_ms.abs() / 1000,
        if skew_ms > 0 { "ahead of" } else { "behind" },
    );
    (skew_ms.abs() > SKEW_MAX_MS).then(|| {
        format!(
            "the clock of this machine is {seconds} s {side} nats-server's: takeovers, waits and windows are off by as much; \
             let both follow NTP"
        )
    })
}

fn now_ms() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// Reads a time such as `2026-11-30T20:18:28.123456789Z`, to the millisecond.
fn read(text: &str) -> Option<i64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, by: char| -> Option<[i64; 3]> {
        let parts: Vec<i64> = text
            .split(by)
            .map(str::parse)
            .collect::<Result<_, _>>()
            .ok()?;
        parts.try_into().ok()
    };
    let [year, month, day] = numbers(date, '-')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [hours, minutes, seconds] = numbers(time, ':')?;
    let millis: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    // Days since 1970 by eras of 400 years that begin in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let of_era = year.rem_euclid(400);
    let days = year.div_euclid(400) * 146_097 + of_era * 365 + of_era / 4 - of_era / 100
        + (153 * month + 2) / 5
        + day
        - 1
        - 719_468;
    Some((((days * 24 + hours) * 60 + minutes) * 60 + seconds) * 1000 + millis)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nats::api::{Question, Unanswered};
    use bytes::Bytes;

    struct Server(&'static str);

    impl Ask for Server {
        async fn ask(&self, _question: Question) -> Result<Bytes, Unanswered> {
            Ok(Bytes::from_static(self.0.as_bytes()))
        }
    }

    #[test]
    fn times_are_read() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2026-11-30T20:18:28.123456789Z", Some(1_796_069_908_123)),
            ("2024-02-29T23:59:59.9Z", Some(1_709_251_199_900)),
            ("2000-03-01T00:00:00Z", Some(951_868_800_000)),
            ("yesterday", None),
            ("2026-11-30T20:18Z", None),
        ] {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn only_what_no_way_of_an_answer_explains_is_skew() {
        assert_eq!((outside(150, 100, 200), outside(100, 100, 200)), (0, 0));
        assert_eq!((outside(40, 100, 200), outside(260, 100, 200)), (60, -60));
        assert!(problem(5000).is_none() && problem(-5000).is_none());
        assert!(problem(61_000).unwrap().contains("61 s ahead of"));
    }

    #[tokio::test]
    async fn a_servers_time_is_compared_with_ours() {
        let skew = skew_ms(&Server(r#"{"ts":"2020-01-01T00:00:00Z"}"#))
            .await
            .unwrap();
        assert!(skew > 5 * 365 * 86_400 * 1000, "{skew}");
        assert!(skew_ms(&Server(r#"{"ts":"soon"}"#)).await.is_err());
    }
}
