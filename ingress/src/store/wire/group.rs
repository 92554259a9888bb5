//! Group commit: what waits while one group is being synced is committed together next, by one atomic batch.
//!
//! A single server syncs once a publish and a few times a batch, whatever its size. Few updates are therefore
//! published one by one, at once and without waiting for each other; many wait for the batch before theirs,
//! and no timer collects. A batch is all or nothing, and a duplicate in it refuses it whole; its updates are
//! then published one by one, in the same order, each with its own answer.

use super::output::{Output, Publication};
use super::slots::{Outcome, PublishMode, Slots, Token};
use crate::metrics::Metrics;
use ackline_shared::subjects::write_decimal;
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;
use tokio::time::Instant;

/// From so many waiting updates on, a batch takes less syncs than publishing them one by one.
const BATCH_MIN: usize = 8;
/// Most updates of a batch; the server takes a thousand.
const BATCH_MAX: usize = 500;
/// Most bytes of a batch, but for its last update.
const BATCH_BYTES_MAX: usize = 4 << 20;
/// Larger payloads travel alone: a batch must not fail because one of it is too large for the server.
const GROUPED_BYTES_MAX: usize = 256 << 10;
/// What a batch's headers may add to a message.
pub const HEADERS_BYTES_MAX: usize = 256;

/// An update written out, that waits for its turn.
#[derive(Debug)]
pub struct Member {
    token: Token,
    /// Subject and headers, one after the other.
    text: Vec<u8>,
    headers_at: usize,
    payload: Bytes,
    is_single: bool,
}

/// What waits, and what is on its way.
#[derive(Debug)]
pub struct Group {
    waiting: VecDeque<Member>,
    batch: Option<Batch>,
    /// Updates on their way one by one.
    singles: usize,
    unique: u64,
    number: u64,
    answer_timeout: Duration,
    metrics: Arc<Metrics>,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    members: Vec<Member>,
    until: Instant,
}

/// Where a group writes to, and who waits for it.
#[derive(Debug)]
pub struct Line<'l> {
    pub output: &'l mut Output,
    /// Who waits for which answer.
    pub slots: &'l mut Slots,
    /// The subject of all answers, up to their last token.
    pub inbox: &'l [u8],
}

impl Group {
    /// Starts with nothing; `unique` tells its batches from others'.
    pub fn new(unique: u64, answer_timeout: Duration, metrics: Arc<Metrics>) -> Self {
        Self {
            waiting: VecDeque::new(),
            batch: None,
            singles: 0,
            unique,
            number: 0,
            answer_timeout,
            metrics,
        }
    }

    pub fn join(&mut self, member: Member) {
        self.waiting.push_back(member);
    }

    /// Whether something that waits may be put on its way.
    pub fn is_due(&self) -> bool {
        self.batch.is_none() && !self.waiting.is_empty()
    }

    /// Notes that an update that travelled alone has its answer, or is not waited for any more.
    pub fn left(&mut self) {
        self.singles = self.singles.saturating_sub(1);
    }

    /// Gives the members of a batch its outcome.
    pub fn answered(
        &mut self,
        number: u64,
        outcome: Outcome,
        slots: &mut Slots,
        wakers: &mut Vec<Waker>,
    ) {
        let Some(batch) = self.batch.take_if(|batch| batch.number == number) else {
            return;
        };
        if matches!(outcome, Outcome::Stored { .. } | Outcome::NoStream) {
            if outcome != Outcome::NoStream {
                self.metrics.groups.inc();
            }
            for member in &batch.members {
                slots.resolve(member.token, outcome.clone(), wakers);
            }
            return;
        }
        self.metrics.groups_split.inc();
        for mut member in batch.members.into_iter().rev() {
            member.is_single = true;
            self.waiting.push_front(member);
        }
    }

    /// Gives up a batch whose answer does not come; whoever waits for its updates publishes them again.
    pub fn sweep(&mut self, now: Instant) {
        self.batch.take_if(|batch| batch.until <= now);
    }

    /// Forgets everything: the connection went away, and whoever waits hears it elsewhere.
    pub fn clear(&mut self) {
        self.waiting.clear();
        (self.batch, self.singles) = (None, 0);
    }

    /// Puts on its way what may be: a batch, if enough wait, or else a few one by one.
    pub fn advance(&mut self, mut line: Line<'_>, now: Instant) {
        while self.batch.is_none() {
            let size = self.batch_size();
            if size >= BATCH_MIN {
                self.commit(size, &mut line, now);
                continue;
            }
            let Some(next) = self.waiting.front() else {
                return;
            };
            // Those behind one that cannot travel in a batch are held up no longer than they must.
            if self.singles >= BATCH_MIN && next.fits_a_batch() {
                return;
            }
            let Some(member) = self.waiting.pop_front() else {
                return;
            };
            self.singles += usize::from(publish_single(&member, &mut line));
        }
    }

    /// How many of those waiting first fit into one batch.
    fn batch_size(&self) -> usize {
        let mut bytes = 0;
        let fits = self.waiting.iter().take(BATCH_MAX).take_while(|member| {
            let fits = member.fits_a_batch() && bytes < BATCH_BYTES_MAX;
            bytes += member.payload.len();
            fits
        });
        fits.count()
    }

    fn commit(&mut self, size: usize, line: &mut Line<'_>, now: Instant) {
        let members: Vec<_> = self
            .waiting
            .drain(..size)
            .filter(|member| line.slots.is_grouped(member.token))
            .collect();
        self.number += 1;
        let (mut more, mut reply) = (Vec::with_capacity(HEADERS_BYTES_MAX), Vec::new());
        for (member, sequence) in members.iter().zip(1_u64..) {
            more.clear();
            more.extend_from_slice(b"Nats-Batch-Id: ");
            write_decimal(&mut more, self.unique);
            more.push(b'-');
            write_decimal(&mut more, self.number);
            more.extend_from_slice(b"\r\nNats-Batch-Sequence: ");
            write_decimal(&mut more, sequence);
            more.extend_from_slice(b"\r\n");
            if usize::try_from(sequence) == Ok(members.len()) {
                more.extend_from_slice(b"Nats-Batch-Commit: 1\r\n");
                reply.extend_from_slice(line.inbox);
                reply.push(b'c');
                write_decimal(&mut reply, self.number);
            }
            line.output.publish(&member.publication(&reply, &more));
        }
        if !members.is_empty() {
            self.batch = Some(Batch {
                number: self.number,
                members,
                until: now + self.answer_timeout,
            });
        }
    }
}

/// Reads the number of a batch out of the last token of its reply subject.
pub fn parse_commit(token: &[u8]) -> Option<u64> {
    std::str::from_utf8(token.strip_prefix(b"c")?)
        .ok()?
        .parse()
        .ok()
}

/// Publishes an update on its own, unless nobody leaves it to the group any more.
fn publish_single(member: &Member, line: &mut Line<'_>) -> bool {
    let is_waited_for = line.slots.is_grouped(member.token);
    if is_waited_for {
        let mut reply = Vec::with_capacity(line.inbox.len() + 20);
        reply.extend_from_slice(line.inbox);
        member.token.write(&mut reply);
        line.slots.arm(member.token, PublishMode::Single);
        line.output.publish(&member.publication(&reply, b""));
    }
    is_waited_for
}

impl Member {
    /// An update and who waits for its answer; its headers begin in `text` where its subject ends.
    pub fn new(token: Token, text: Vec<u8>, headers_at: usize, payload: Bytes) -> Self {
        Self {
            token,
            text,
            headers_at,
            payload,
            is_single: false,
        }
    }

    fn fits_a_batch(&self) -> bool {
        !self.is_single && self.payload.len() <= GROUPED_BYTES_MAX
    }

    fn publication<'m>(&'m self, reply: &'m [u8], more: &'m [u8]) -> Publication<'m> {
        let (subject, headers) = self
            .text
            .split_at_checked(self.headers_at)
            .unwrap_or_default();
        Publication {
            subject,
            reply,
            headers,
            more,
            payload: &self.payload,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORED: Outcome = Outcome::Stored { duplicate: false };

    struct Bench {
        group: Group,
        slots: Slots,
        output: Output,
        now: Instant,
        wakers: Vec<Waker>,
    }

    impl Bench {
        fn new() -> Self {
            Self {
                group: Group::new(7, Duration::from_secs(1), Metrics::new()),
                slots: Slots::new(1000),
                output: Output::default(),
                now: Instant::now(),
                wakers: Vec::new(),
            }
        }

        fn join(&mut self, count: usize, payload: usize) -> Vec<Token> {
            let mut tokens = Vec::new();
            for _ in 0..count {
                let token = self.slots.claim().unwrap();
                self.slots.arm(token, PublishMode::Grouped);
                let text = b"sH\r\n\r\n".to_vec();
                self.group.join(Member::new(
                    token,
                    text,
                    1,
                    Bytes::from(vec![b'x'; payload]),
                ));
                tokens.push(token);
            }
            tokens
        }

        /// Puts on its way what may be: for each message, whether it is in a batch and where its answer goes.
        fn advance(&mut self) -> Vec<(bool, String)> {
            let line = Line {
                output: &mut self.output,
                slots: &mut self.slots,
                inbox: b"box.",
            };
            self.group.advance(line, self.now);
            let mut bytes = Vec::new();
            while !self.output.is_empty() {
                let mut slices = [std::io::IoSlice::new(b""); 4];
                let used = self.output.slices(&mut slices);
                let next: Vec<u8> = slices[..used]
                    .iter()
                    .flat_map(|slice| slice.to_vec())
                    .collect();
                self.output.advance(next.len());
                bytes.extend(next);
            }
            let text = String::from_utf8(bytes).unwrap();
            let messages = text.split("HPUB s ").skip(1);
            messages
                .map(|message| {
                    let words: Vec<_> = message.lines().next().unwrap().split(' ').collect();
                    let reply = if words.len() == 3 { words[0] } else { "" };
                    (message.contains("Nats-Batch-Id: 7-"), reply.to_owned())
                })
                .collect()
        }

        fn answer(&mut self, number: u64, outcome: Outcome) {
            self.group
                .answered(number, outcome, &mut self.slots, &mut self.wakers);
        }
    }

    #[test]
    fn few_updates_travel_at_once_and_one_by_one() {
        let mut bench = Bench::new();
        bench.join(BATCH_MIN - 1, 1);
        let sent = bench.advance();
        assert_eq!(sent.len(), BATCH_MIN - 1);
        assert!(
            sent.iter()
                .all(|(batched, reply)| !batched && reply.starts_with("box.")),
            "{sent:?}"
        );
        bench.join(3, 1);
        assert_eq!(bench.advance().len(), 1, "no more than a batch costs");
        bench.group.left();
        assert_eq!(bench.advance().len(), 1);
    }

    #[test]
    fn many_updates_travel_in_one_batch_and_the_next_collects_meanwhile() {
        let mut bench = Bench::new();
        let first = bench.join(BATCH_MAX + 20, 1);
        let sent = bench.advance();
        assert_eq!(sent.len(), BATCH_MAX);
        assert!(sent.iter().all(|(batched, _)| *batched));
        assert_eq!(
            sent.iter().filter(|(_, reply)| !reply.is_empty()).count(),
            1,
            "one answer"
        );
        assert_eq!(sent.last().unwrap().1, "box.c1");
        assert!(bench.advance().is_empty() && !bench.group.is_due());
        bench.answer(9, STORED);
        assert_eq!(
            bench.slots.take(first[0]),
            None,
            "the answer of another batch"
        );
        bench.answer(1, STORED);
        assert_eq!(bench.slots.take(first[BATCH_MAX - 1]), Some(STORED));
        assert_eq!(bench.slots.take(first[BATCH_MAX]), None);
        assert_eq!(bench.advance().len(), 20);
    }

    #[test]
    fn a_refused_batch_travels_again_one_by_one_before_what_came_later() {
        let mut bench = Bench::new();
        let first = bench.join(20, 1);
        bench.advance();
        bench.join(30, 1);
        // Whoever waited for it has published it on its own.
        bench.slots.arm(first[4], PublishMode::Direct);
        bench.answer(1, Outcome::Refused("a duplicate".to_owned()));
        let sent = bench.advance();
        assert_eq!(
            sent.iter().map(|(batched, _)| *batched).collect::<Vec<_>>(),
            [vec![false; 19], vec![true; 30]].concat()
        );
        assert_eq!(sent[0].1, "box.0-0");
    }

    #[test]
    fn an_update_too_large_for_a_batch_travels_alone_and_in_its_turn() {
        let mut bench = Bench::new();
        bench.join(10, 1);
        bench.join(1, GROUPED_BYTES_MAX + 1);
        bench.join(10, 1);
        assert_eq!(bench.advance().len(), 10);
        bench.answer(1, STORED);
        let sent: Vec<_> = bench
            .advance()
            .into_iter()
            .map(|(batched, _)| batched)
            .collect();
        assert_eq!(sent, [vec![false], vec![true; 10]].concat());
    }

    #[test]
    fn a_batch_without_an_answer_is_given_up_and_nothing_is_kept_of_a_lost_connection() {
        let mut bench = Bench::new();
        bench.join(10, 1);
        bench.advance();
        bench.join(10, 1);
        bench.group.sweep(bench.now);
        assert!(!bench.group.is_due());
        bench.group.sweep(bench.now + Duration::from_secs(1));
        assert_eq!(bench.advance().len(), 10);
        bench.join(10, 1);
        bench.group.clear();
        assert!(bench.advance().is_empty());
    }
}
