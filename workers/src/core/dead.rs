//! Dead letters: what is given up is written down whole, with its reason, before it is acknowledged.

use super::job::Work;
use super::log::{Log, LogError, now_ms};
use ackline_shared::subjects::{self, Pool, header};

/// Longest reason kept.
const REASON_BYTES_MAX: usize = 1024;

/// Stores a dead letter; storing it again changes nothing.
pub async fn bury(log: &Log, pool: Pool, stream: &str, work: &Work, reason: &str) -> Result<(), LogError> {
    let mut headers = work.head.to_headers();
    headers.insert(header::MSG_ID, format!("dead:{pool}:{stream}:{}", work.sequence));
    headers.insert(header::DEAD_REASON, printable(reason));
    headers.insert(header::DEAD_ATTEMPTS, work.attempt.to_string());
    headers.insert(header::DEAD_AT, now_ms().to_string());
    let done = work.marks.done();
    if !done.is_empty() {
        headers.insert(header::DEAD_DONE, printable(&done.join(",")));
    }
    headers.insert(header::DEAD_ORIGIN, format!("{stream}:{}:{}", work.sequence, work.head.subject()));
    log.write_raw(subjects::dead(pool, &work.head.tenant), headers, work.payload.clone()).await
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
    fn a_reason_is_one_line_of_bounded_length() {
        assert_eq!(printable("a\r\nNats-Msg-Id: x"), "a  Nats-Msg-Id: x");
        assert!(printable(&"é".repeat(5000)).len() <= REASON_BYTES_MAX);
    }
}
