//! Checks of NATS: reachable, new enough, streams and buckets there and not near full, as durable as promised.

use super::finding::Finding;
use super::http::Http;
use ackline_catalog::stored;
use ackline_fleet::diagnosis::seconds;
use ackline_shared::model::Installation;
use ackline_shared::nats::preparation::RESTART_HINT;
use ackline_shared::nats::{Durability, NatsError, NatsSettings};
use ackline_shared::stored::decode;
use ackline_shared::subjects::{self, config_key};
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::Stream;
use serde_json::Value;
use std::time::Duration;

const VERSION_MIN: (u64, u64, u64) = (2, 14, 0);
/// From here on `sync_interval: always` also covers the compaction of blocks.
const VERSION_GOOD: (u64, u64, u64) = (2, 15, 1);
const FILL_PERCENT_MAX: u64 = 80;
/// A stream that will be full sooner than this is told.
const FORECAST_MIN: Duration = Duration::from_secs(24 * 3600);
const CREATE: &str =
    "run `ackline apply FILE`, or start any of the programs: each creates what is missing";

pub fn unreachable(error: &NatsError) -> Finding {
    Finding::fail("nats", error)
        .hint("start nats-server, or set nats.url (ACKLINE_NATS_URL) to where it runs")
        .hint("the checks of everything behind it were left out")
}

/// The server is new enough.
pub fn version(text: &str) -> Finding {
    let mut numbers = text
        .split(['.', '-'])
        .map_while(|part| part.parse::<u64>().ok());
    let (major, minor, patch) = VERSION_GOOD;
    let good = format!("{major}.{minor}.{patch}");
    match (
        numbers.next(),
        numbers.next(),
        numbers.next().unwrap_or_default(),
    ) {
        (Some(one), Some(two), three) if (one, two, three) >= VERSION_GOOD => {
            Finding::ok("nats", format_args!("connected to nats-server {text}"))
        }
        (Some(one), Some(two), three) if (one, two, three) >= VERSION_MIN => Finding::warn(
            "nats",
            format_args!("nats-server {text} may lose acknowledged updates when power fails"),
        )
        .hint(format_args!(
            "install nats-server {good} or newer, which syncs compacted blocks too"
        )),
        (Some(_), Some(_), _) => {
            Finding::fail("nats", format_args!("nats-server {text} is too old"))
                .hint(format_args!("install nats-server {good} or newer"))
        }
        _ => Finding::warn(
            "nats",
            format_args!("connected; the version `{text}` cannot be read"),
        )
        .hint(format_args!("make sure it is nats-server {good} or newer")),
    }
}

/// The streams exist and have room.
pub async fn streams(context: &Context, settings: &NatsSettings) -> Vec<Finding> {
    let mut findings = Vec::new();
    for name in [
        subjects::UPDATES,
        subjects::OUTBOUND,
        subjects::SPILL,
        subjects::DEAD,
    ] {
        findings.push(match context.get_stream(name).await {
            Ok(stream) => {
                let info = stream.cached_info();
                let size = Size {
                    bytes: info.state.bytes,
                    bytes_max: u64::try_from(info.config.max_bytes).unwrap_or(0),
                    messages: info.state.messages,
                    replicas: info.config.num_replicas,
                    pace: pace(&stream).await,
                    max_age: info.config.max_age,
                };
                fill(name, &size, settings.durability)
            }
            Err(error) => Finding::fail(format!("stream {name}"), error)
                .hint(CREATE)
                .hint(RESTART_HINT),
        });
    }
    findings
}

struct Size {
    bytes: u64,
    bytes_max: u64,
    messages: u64,
    replicas: usize,
    /// Bytes a second of late; `None` when too little is stored to tell.
    pace: Option<f64>,
    max_age: Duration,
}

/// The pace of the later half of what is stored.
async fn pace(stream: &Stream) -> Option<f64> {
    let state = &stream.cached_info().state;
    let middle = stream
        .direct_get(state.first_sequence + (state.last_sequence - state.first_sequence) / 2)
        .await;
    let passed = (state.last_timestamp.unix_timestamp_nanos()
        - middle.ok()?.time.unix_timestamp_nanos())
        / 1_000_000_000;
    let seconds = u32::try_from(passed).ok().filter(|seconds| *seconds > 0)?;
    #[allow(clippy::cast_precision_loss, reason = "a forecast for people")]
    let half = state.bytes as f64 / 2.0;
    Some(half / f64::from(seconds))
}

/// When the stream will be full at its pace; `None` when age empties it before, or nobody can tell.
fn full_in(size: &Size) -> Option<Duration> {
    let pace = size.pace.filter(|pace| *pace > 0.0)?;
    #[allow(clippy::cast_precision_loss, reason = "a forecast for people")]
    let (bytes, bytes_max) = (size.bytes as f64, size.bytes_max as f64);
    let kept = size.max_age.as_secs_f64();
    if kept > 0.0 && pace * kept <= bytes_max {
        return None;
    }
    Duration::try_from_secs_f64(((bytes_max - bytes) / pace).max(0.0)).ok()
}

fn fill(name: &str, size: &Size, durability: Durability) -> Finding {
    let check = format!("stream {name}");
    let messages = size.messages;
    if durability == Durability::Replicated && size.replicas < 3 {
        return Finding::fail(
            check,
            format_args!("has {} replica(s); replicated needs 3", size.replicas),
        )
        .hint(format_args!(
            "`nats stream edit {name} --replicas 3` on a cluster of three servers or more"
        ));
    }
    if size.bytes_max == 0 {
        return Finding::warn(
            check,
            format_args!("{messages} messages, and no limit in bytes"),
        )
        .hint(format_args!(
            "`nats stream edit {name} --max-bytes 10GiB`, so that it cannot fill the disk"
        ));
    }
    let percent = size.bytes.saturating_mul(100) / size.bytes_max;
    let text = format!(
        "{messages} messages, {percent} % of {} MiB",
        size.bytes_max >> 20
    );
    if percent > FILL_PERCENT_MAX {
        return Finding::warn(
            check,
            format_args!("{text}: when it is full, new messages are refused"),
        )
        .hint("see whether a pool below has fallen behind or has no owner")
        .hint(format_args!(
            "`nats stream edit {name} --max-bytes …` gives it more room"
        ));
    }
    match full_in(size) {
        None => Finding::ok(check, text),
        Some(time) if time < FORECAST_MIN => Finding::warn(
            check,
            format_args!("{text}; full in {} at its present pace", seconds(time)),
        )
        .hint(
            "when it is full, new messages are refused; finished ones are removed before that, see [janitor]",
        )
        .hint(format_args!("`nats stream edit {name} --max-bytes …` gives it more room")),
        Some(time) => {
            Finding::ok(check, format_args!("{text}; full in {} at its present pace", seconds(time)))
        }
    }
}

/// The buckets exist, and the partition count is the recorded one.
pub async fn buckets(context: &Context, settings: &NatsSettings) -> Vec<Finding> {
    let mut present = Vec::new();
    let mut findings = Vec::new();
    let names = [
        subjects::BUCKET_CONFIG,
        subjects::BUCKET_SESSIONS,
        subjects::BUCKET_LEASES,
        subjects::BUCKET_OWNERS,
        subjects::BUCKET_FLOORS,
        subjects::BUCKET_LOCKS,
        subjects::BUCKET_TUNING,
        subjects::BUCKET_REPLAYS,
    ];
    for name in names {
        match stored::open(context, name).await {
            Ok(Some(store)) => present.push((name, store)),
            Ok(None) => {
                findings
                    .push(Finding::fail(format!("bucket {name}"), "does not exist").hint(CREATE));
            }
            Err(error) => findings.push(Finding::fail(format!("bucket {name}"), error)),
        }
    }
    findings.extend(present.iter().filter_map(|(name, store)| {
        let info = store.stream.cached_info();
        crowded(
            name,
            info.state.bytes,
            u64::try_from(info.config.max_bytes).unwrap_or(0),
        )
    }));
    if findings.is_empty() {
        findings.push(Finding::ok("buckets", names.join(", ")));
    }
    if let Some((_, config)) = present
        .iter()
        .find(|(name, _)| *name == subjects::BUCKET_CONFIG)
    {
        let record = config.get(config_key::INSTALLATION).await.ok().flatten();
        findings.extend(record.map(|bytes| partitions(&bytes, settings.partitions)));
    }
    findings
}

/// A bucket that is nearly full, or may fill the disk.
fn crowded(name: &str, bytes: u64, bytes_max: u64) -> Option<Finding> {
    let check = format!("bucket {name}");
    if bytes_max == 0 {
        return Some(Finding::warn(check, "has no limit in bytes").hint(
            "raise nats.session_bytes_max or nats.config_bytes_max to twice what it holds, and restart a program",
        ));
    }
    let percent = bytes.saturating_mul(100) / bytes_max;
    (percent > FILL_PERCENT_MAX).then(|| {
        let text = format!(
            "{percent} % of {} MiB: when it is full, nothing new is taken",
            bytes_max >> 20
        );
        Finding::warn(check, text)
            .hint("raise nats.session_bytes_max or nats.config_bytes_max, and restart a program")
    })
}

fn partitions(record: &[u8], configured: u16) -> Finding {
    match decode::<Installation>(record) {
        Ok(Installation { partitions }) if partitions == configured => {
            Finding::ok("partitions", format_args!("{partitions}"))
        }
        Ok(Installation { partitions }) => Finding::fail(
            "partitions",
            format_args!("the installation has {partitions}, nats.partitions says {configured}"),
        )
        .hint(format_args!(
            "set nats.partitions = {partitions}; the programs refuse to start otherwise"
        )),
        Err(error) => Finding::fail(
            "partitions",
            format_args!("the record cannot be read: {error}"),
        ),
    }
}

/// The server does what the configured durability promises.
pub async fn durability(http: &Http, settings: &NatsSettings, server_id: &str) -> Finding {
    let Some(base) = &settings.monitor_url else {
        return unverified(settings.durability, "nats.monitor_url is not set").hint(
            "start nats-server with `http_port: 8222` and set nats.monitor_url = \"http://127.0.0.1:8222\"",
        );
    };
    let url = format!("{}/jsz?config=1", base.trim_end_matches('/'));
    match http.get(&url, None).await {
        Ok(answer) if answer.status == 200 => {
            let clustered = settings.url.are_several();
            compare(
                settings.durability,
                &answer.body,
                (!clustered).then_some(server_id),
            )
        }
        Ok(answer) => unverified(
            settings.durability,
            &format!("nats.monitor_url answered {}", answer.status),
        ),
        Err(reason) => unverified(settings.durability, &format!("nats.monitor_url: {reason}")),
    }
}

/// `/jsz?config=1` says `config.sync_always`, and leaves it out when it is off.
fn compare(configured: Durability, jsz: &Value, server_id: Option<&str>) -> Finding {
    let config = jsz.get("config").filter(|config| config.is_object());
    let Some(config) = config else {
        return unverified(configured, "the monitor says nothing of JetStream");
    };
    if let (Some(expected), Some(found)) = (server_id, jsz.get("server_id").and_then(Value::as_str))
        && expected != found
    {
        return unverified(
            configured,
            "nats.monitor_url is that of another server than nats.url",
        );
    }
    let synced = config
        .get("sync_always")
        .and_then(Value::as_bool)
        .unwrap_or(false);
    match (configured, synced) {
        (Durability::Stored, false) => {
            Finding::ok("durability", "stored: acknowledged updates survive a crash of the process, not power loss")
        }
        (Durability::Stored, true) => Finding::ok("durability", "stored is promised, and the server syncs every write")
            .hint("set nats.durability = \"synced\" to promise what is already done"),
        (mode, true) => Finding::ok("durability", format_args!("{mode}: the server syncs every write")),
        (mode, false) => {
            Finding::fail("durability", format_args!("{mode} is promised, but the server does not sync every write"))
                .hint("add `sync_interval: always` to the `jetstream` block of nats-server's configuration and restart it")
                .hint("or set nats.durability = \"stored\" to promise less")
        }
    }
}

fn unverified(configured: Durability, why: &str) -> Finding {
    Finding::warn(
        "durability",
        format_args!("{configured} is promised and cannot be verified: {why}"),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bucket_that_is_nearly_full_or_without_an_end_is_told() {
        for (bytes, bytes_max, said) in [
            (80, 100, None),
            (81, 100, Some("81 % of")),
            (1, 0, Some("no limit")),
        ] {
            let finding = crowded("sessions", bytes, bytes_max);
            assert_eq!(finding.is_some(), said.is_some());
            assert!(
                finding.is_none_or(|finding| finding.message.contains(said.unwrap_or_default()))
            );
        }
    }

    #[test]
    fn versions_are_compared_as_numbers() {
        for (text, level) in [
            ("2.14.0", Level::Warn),
            ("2.15.0", Level::Warn),
            ("2.15.1", Level::Ok),
            ("2.16.0-RC.1", Level::Ok),
            ("3.0.0", Level::Ok),
            ("2.9.25", Level::Fail),
            ("2.13.9", Level::Fail),
            ("dev", Level::Warn),
        ] {
            assert_eq!(version(text).level, level, "{text}");
        }
    }

    #[test]
    fn a_promise_is_compared_with_what_the_server_does() {
        let on = json!({"server_id": "A", "config": {"sync_interval": 120_000_000_000_u64, "sync_always": true}});
        let off = json!({"server_id": "A", "config": {"sync_interval": 120_000_000_000_u64}});
        for (mode, jsz, level) in [
            (Durability::Synced, &on, Level::Ok),
            (Durability::Synced, &off, Level::Fail),
            (Durability::Replicated, &off, Level::Fail),
            (Durability::Stored, &off, Level::Ok),
            (Durability::Stored, &on, Level::Ok),
            (
                Durability::Synced,
                &json!({"server_id": "B", "config": {}}),
                Level::Warn,
            ),
            (Durability::Synced, &json!({"disabled": true}), Level::Warn),
        ] {
            assert_eq!(compare(mode, jsz, Some("A")).level, level, "{mode} {jsz}");
        }
    }

    #[test]
    fn a_stream_warns_above_four_fifths_and_without_a_limit() {
        let size = |bytes, bytes_max, replicas| {
            let (pace, max_age) = (None, Duration::ZERO);
            Size {
                bytes,
                bytes_max,
                messages: 1,
                replicas,
                pace,
                max_age,
            }
        };
        for (size, durability, level) in [
            (size(80, 100, 1), Durability::Synced, Level::Ok),
            (size(81, 100, 1), Durability::Synced, Level::Warn),
            (size(1, 0, 1), Durability::Synced, Level::Warn),
            (size(1, 100, 1), Durability::Replicated, Level::Fail),
            (size(1, 100, 3), Durability::Replicated, Level::Ok),
        ] {
            assert_eq!(fill(subjects::UPDATES, &size, durability).level, level);
        }
    }

    #[test]
    fn a_stream_that_fills_faster_than_it_ages_is_told_in_time() {
        let size = |pace| Size {
            bytes: 100 << 20,
            bytes_max: 1000 << 20,
            messages: 1,
            replicas: 1,
            pace,
            max_age: Duration::from_secs(7 * 86_400),
        };
        let day = f64::from(900 << 20) / 86_400.0;
        for (pace, level, said) in [
            (None, Level::Ok, "10 % of 1000 MiB"),
            (Some(day / 10.0), Level::Ok, "10 % of 1000 MiB"),
            (Some(day / 2.0), Level::Ok, "full in 2 days"),
            (Some(day * 4.0), Level::Warn, "full in 6 h"),
        ] {
            let finding = fill(subjects::UPDATES, &size(pace), Durability::Synced);
            assert_eq!(finding.level, level, "{finding:?}");
            assert!(finding.message.contains(said), "{finding:?}");
        }
    }

    #[test]
    fn another_partition_count_fails() {
        assert_eq!(partitions(br#"{"partitions":32}"#, 32).level, Level::Ok);
        assert_eq!(partitions(br#"{"partitions":8}"#, 32).level, Level::Fail);
    }
}
