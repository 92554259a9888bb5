//! Dead letters: what is given up is written down whole, with its reason, before it is acknowledged; what does not fit is
//! kept whole beside it.

use super::job::Step;
use super::job::Work;
use super::log::{Log, LogError, size};
use super::whole;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::Head;
use ackline_shared::subjects::{self, Pool, header};
use async_nats::HeaderMap;
use bytes::Bytes;

const REASON_BYTES_MAX: usize = 1024;
/// Longest list of finished parts kept.
const DONE_BYTES_MAX: usize = 8192;
/// How much of a payload stays in a dead letter that it does not fit.
const CUT_BYTES: usize = 16 << 10;

/// Stores a dead letter of what came from a stream, whose payload was so long if it is lost; storing it again changes
/// nothing.
pub async fn bury(
    log: &Log,
    pool: Pool,
    (stream, lost): (&str, Option<usize>),
    work: &Work,
    reason: &str,
) -> Result<(), LogError> {
    let mut headers = work.head.to_headers();
    let target = &work.target.name;
    let tail = if target.is_empty() {
        String::new()
    } else {
        format!(":{target}")
    };
    let id = format!("dead:{pool}:{stream}:{}{tail}", work.sequence);
    headers.insert(header::MSG_ID, id.as_str());
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
    headers.insert(
        header::DEAD_ORIGIN,
        format!("{stream}:{}:{}", work.sequence, work.head.subject()),
    );
    let subject = subjects::dead(pool, &work.head.tenant);
    // Whoever replays it is told that the rest is not kept any more, and nobody gets an empty payload.
    if let Some(length) = lost {
        headers.insert(header::DEAD_CUT, length.to_string());
    }
    let mut payload = work.payload.clone();
    if size(&headers, &payload) > log.message_bytes_max() {
        let kept = whole::keep(log, &id, &payload).await;
        kept.map_err(|error| LogError {
            subject: subject.clone(),
            reason: error.to_string(),
        })?;
        headers.insert(header::DEAD_CUT, payload.len().to_string());
        payload = beginning(&payload);
    }
    log.write_raw(subject, headers, payload).await
}

/// The beginning of a payload, without half a character at its end.
fn beginning(payload: &Bytes) -> Bytes {
    let cut = payload.slice(..CUT_BYTES.min(payload.len()));
    let whole = match std::str::from_utf8(&cut) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => cut.len(),
    };
    cut.slice(..whole)
}

/// The headers of the dead letter about a message that no pool worked on; `place` is its stream, sequence and subject.
pub fn headers_of(
    mut headers: HeaderMap,
    pool: Pool,
    place: (&str, u64, &str),
    reason: &str,
) -> HeaderMap {
    let (stream, sequence, subject) = place;
    // What cannot be read is known by what it was published with.
    let raw = || {
        headers
            .get(header::MSG_ID)
            .map(|id| id.as_str().to_owned())
            .unwrap_or_default()
    };
    let id = Head::read(subject, &headers)
        .map_or_else(|_| raw(), |head| head.original_id().as_str().to_owned());
    headers.insert(header::DEAD_ID, id);
    headers.insert(header::MSG_ID, format!("dead:{pool}:{stream}:{sequence}"));
    headers.insert(header::DEAD_REASON, printable(reason));
    headers.insert(header::DEAD_AT, now_ms().to_string());
    headers.insert(
        header::DEAD_ORIGIN,
        format!("{stream}:{sequence}:{subject}"),
    );
    headers
}

/// The parts that a replay need not do again: what a target refused for good (`target!reason`) it may take now.
fn done(marks: &[String]) -> String {
    let is_part = |mark: &&String| match Step::from(mark.as_str()) {
        Step::Begun(name) | Step::Done(name) => !name.contains(','),
        Step::All | Step::Refused(_) => false,
    };
    let mut line = String::new();
    for part in marks.iter().filter(is_part) {
        // A part cut in two would be one that nobody did.
        if line.len() + part.len() < DONE_BYTES_MAX {
            line = if line.is_empty() {
                part.clone()
            } else {
                format!("{line},{part}")
            };
        }
    }
    line
}

/// A header value is one line of bounded length.
fn printable(reason: &str) -> String {
    let mut line: String = reason
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
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
    fn a_cut_payload_ends_with_a_whole_character() {
        let payload = Bytes::from(format!("x{}", "é".repeat(CUT_BYTES)));
        assert_eq!(beginning(&payload).len(), CUT_BYTES - 1);
        assert_eq!(
            beginning(&Bytes::from(vec![0xff; CUT_BYTES * 2])).len(),
            CUT_BYTES
        );
        assert_eq!(beginning(&Bytes::from_static(b"short")), "short");
    }

    #[test]
    fn a_reason_is_one_line_of_bounded_length() {
        assert_eq!(printable("a\r\nNats-Msg-Id: x"), "a  Nats-Msg-Id: x");
        assert!(printable(&"é".repeat(5000)).len() <= REASON_BYTES_MAX);
    }
}
