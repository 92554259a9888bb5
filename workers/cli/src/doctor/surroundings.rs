//! Checks of what all programs need: messages long enough, room on disks, clocks that agree, and what they say of themselves.

use super::finding::Finding;
use super::http::Http;
use crate::settings::Settings;
use ackline_fleet::surroundings::journal_room;
use ackline_shared::surroundings::{Disk, clock_problem, message_size_problem, skew_ms};
use async_nats::Client;
use async_nats::jetstream::Context;
use serde_json::Value;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Beyond this JetStream's storage is nearly full.
const FILL_PERCENT_MAX: u64 = 80;

/// Looks at the server, at this machine, and asks the programs that run on it.
pub async fn check(
    client: &Client,
    context: &Context,
    settings: &Settings,
    http: &Http,
) -> Vec<Finding> {
    let mut findings = vec![
        message_size(client.server_info().max_payload, settings.body_bytes_max),
        clock(skew_ms(client).await.map_err(|error| error.to_string())),
    ];
    findings.extend(match context.query_account().await {
        Ok(account) => storage(
            account.storage,
            account.limits.max_storage.unwrap_or_default(),
        ),
        Err(error) => Some(Finding::warn(
            "storage",
            format_args!("JetStream does not tell: {error}"),
        )),
    });
    findings.extend(disk(settings));
    for (name, address) in settings.private {
        // A program that runs elsewhere, or not at all, is told by the checks of its work.
        let url = format!("http://{}/readyz", reachable(address));
        if let Ok(answer) = http.get(&url, None).await {
            findings.extend(warnings(name, &answer.body));
        }
    }
    findings
}

fn message_size(max_payload: usize, body_bytes_max: usize) -> Finding {
    match message_size_problem(max_payload, body_bytes_max) {
        None => Finding::ok("max_payload", format_args!("{} MiB", max_payload >> 20)),
        Some(problem) => Finding::fail("max_payload", problem).hint(
            "or lower ingress.body_bytes_max, if nothing that long is to be taken (Meta sends up to 3 MB)",
        ),
    }
}

fn clock(skew: Result<i64, String>) -> Finding {
    match skew.map(clock_problem) {
        Ok(None) => Finding::ok("clock", "agrees with nats-server's"),
        Ok(Some(problem)) => Finding::warn("clock", problem),
        Err(reason) => Finding::warn(
            "clock",
            format_args!("cannot be compared with nats-server's: {reason}"),
        ),
    }
}

/// What JetStream may store for us; nothing is told where there is no limit but the disk.
fn storage(used: u64, most: i64) -> Option<Finding> {
    let most = u64::try_from(most).ok().filter(|most| *most > 0)?;
    let percent = used.saturating_mul(100) / most;
    let text = format!("{percent} % of {} MiB", most >> 20);
    Some(if percent > FILL_PERCENT_MAX {
        Finding::warn("storage", text)
            .hint("give the account, or JetStream (max_file_store), more room")
    } else {
        Finding::ok("storage", text)
    })
}

fn disk(settings: &Settings) -> Option<Finding> {
    let room = journal_room(&settings.journal_url).filter(|room| room.directory.exists())?;
    let disk = Disk::of(&room.directory)?;
    Some(match disk.problem(&room) {
        None => Finding::ok(
            "disk",
            format_args!("{} MiB free for journal.url", disk.free >> 20),
        ),
        Some(problem) => Finding::warn("disk", problem),
    })
}

/// An address to listen on that names no interface is asked here.
fn reachable(address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), address.port())
    } else {
        address
    }
}

fn warnings(name: &str, body: &Value) -> Vec<Finding> {
    let warnings = body
        .get("warnings")
        .and_then(Value::as_array)
        .map(Vec::as_slice)
        .unwrap_or_default();
    warnings
        .iter()
        .filter_map(Value::as_str)
        .map(|warning| Finding::warn(name, warning))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use serde_json::json;

    #[test]
    fn what_programs_warn_of_and_what_is_too_small_is_told() {
        assert_eq!(message_size(8 << 20, 4 << 20).level, Level::Ok);
        assert_eq!(message_size(1 << 20, 4 << 20).level, Level::Fail);
        let levels = [Ok(0), Ok(-6000), Err("no answer".to_owned())].map(|skew| clock(skew).level);
        assert_eq!(levels, [Level::Ok, Level::Warn, Level::Warn]);
        assert_eq!(storage(81, 100).unwrap().level, Level::Warn);
        assert_eq!(
            (
                storage(80, 100).unwrap().level,
                storage(9, -1),
                storage(9, 0)
            ),
            (Level::Ok, None, None)
        );
        let reported = warnings("edge", &json!({"ready": true, "warnings": ["no room", 7]}));
        assert_eq!(reported, [Finding::warn("edge", "no room")]);
        assert!(warnings("edge", &Value::Null).is_empty());
    }
}
