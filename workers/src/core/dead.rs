//! Dead letters: what is given up is written down whole, with its reason, before it is acknowledged.

use super::job::WHOLE;
use super::job::Work;
use super::log::{Log, LogError, now_ms};
use ackline_shared::subjects::{self, Pool, header};

/// Longest reason kept.
const REASON_BYTES_MAX: usize = 1024;
/// Longest list of finished parts kept.
const DONE_BYTES_MAX: usize = 8192;

/// Stores a dead letter; storing it again changes nothing.
pub async fn bury(log: &Log, pool: Pool, stream: &str, work: &Work, reason: &str) -> Result<(), LogError> {
    let mut headers = work.head.to_headers();
    let target = &work.target.name;
    let tail = if target.is_empty() { String::new() } else { format!(":{target}") };
    headers.insert(header::MSG_ID, format!("dead:{pool}:{stream}:{}{tail}", work.sequence));
    if !target.is_empty() {
        headers.insert(header::REPLAY_TARGET, target.as_str());
    }
    let reason = match work.answered.said() {
        Some(said) => format!("{reason}: {said}"),
        None => reason.to_owned(),
    };
    headers.insert(header::DEAD_REASON, printable(&reason));
    headers.insert(header::DEAD_ATTEMPTS, work.attempt.to_string());
    headers.insert(header::DEAD_AT, now_ms().to_string());
    headers.insert(header::DEAD_ID, work.head.original_id().as_str());
    let done = done(&work.marks.all());
    if !done.is_empty() {
        headers.insert(header::DEAD_DONE, done);
    }
    headers.insert(header::DEAD_ORIGIN, format!("{stream}:{}:{}", work.sequence, work.head.subject()));
    log.write_raw(subjects::dead(pool, &work.head.tenant), headers, work.payload.clone()).await
}

/// The parts that a replay need not do again: what a target refused for good (`target!reason`) it may take now.
fn done(marks: &[String]) -> String {
    let is_part = |mark: &&String| mark.as_str() != WHOLE && !mark.contains(['!', ',']);
    let mut line = String::new();
    for part in marks.iter().filter(is_part) {
        // A part cut in two would be one that nobody did.
        if line.len() + part.len() < DONE_BYTES_MAX {
            line = if line.is_empty() { part.clone() } else { format!("{line},{part}") };
        }
    }
    line
}

/// A header value is one line of bounded length.
fn printable(reason: &str) -> String {
    let mut line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    while line.len() > REASON_BYTES_MAX {
        line.pop();
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_refused_is_not_done() {
        let marks = ["a", "b!answered 400, gone", "*", "sent:wamid.1"].map(str::to_owned);
        assert_eq!(done(&marks), "a,sent:wamid.1");
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        assert_eq!(printable("a\r\nNats-Msg-Id: x"), "a  Nats-Msg-Id: x");
        assert!(printable(&"é".repeat(5000)).len() <= REASON_BYTES_MAX);
    }
}
