//! Bytes on their way to the server: small things copied into one buffer, large payloads kept as they are.
//!
//! What several deliveries publish in one turn of the event loop leaves in one system call.

use ackline_shared::subjects::write_decimal;
use bytes::{Buf, Bytes};
use std::collections::VecDeque;
use std::io::IoSlice;

/// From this size on a payload is not copied.
const LARGE_BYTES: usize = 16 << 10;
/// A buffer that grew beyond this is not kept.
const KEPT_BYTES_MAX: usize = 1 << 20;

/// Bytes to be written, with a cursor.
#[derive(Debug, Default)]
pub struct Output {
    plain: Vec<u8>,
    /// Payloads, each with the place in `plain` that it comes before.
    large: VecDeque<(usize, Bytes)>,
    at: usize,
    left: usize,
}

/// A message to publish.
#[derive(Debug, Clone, Copy)]
pub struct Publication<'a> {
    /// Where it goes.
    pub subject: &'a [u8],
    /// Where its answer goes; empty for none.
    pub reply: &'a [u8],
    /// Its block of headers, to the empty line.
    pub headers: &'a [u8],
    /// Further headers, each with the end of its line.
    pub more: &'a [u8],
    /// What it carries.
    pub payload: &'a Bytes,
}

impl Publication<'_> {
    /// What the server counts against its `max_payload`.
    pub fn size(&self) -> usize {
        self.headers.len() + self.more.len() + self.payload.len()
    }
}

impl Output {
    /// How many bytes are left to write.
    pub fn left(&self) -> usize {
        self.left
    }

    /// Whether nothing is left to write.
    pub fn is_empty(&self) -> bool {
        self.left == 0
    }

    /// Appends bytes as they are.
    pub fn write(&mut self, bytes: &[u8]) {
        self.plain.extend_from_slice(bytes);
        self.left += bytes.len();
    }

    /// Appends a message: `HPUB <subject> [reply] <headers> <size>`, then both.
    pub fn publish(&mut self, publication: &Publication<'_>) {
        let Publication {
            subject,
            reply,
            headers,
            more,
            payload,
        } = *publication;
        let before = self.plain.len();
        let out = &mut self.plain;
        // Room for all of it at once: growing by pieces would copy several times.
        out.reserve(publication.size().min(LARGE_BYTES * 2) + subject.len() + reply.len() + 64);
        out.extend_from_slice(b"HPUB ");
        out.extend_from_slice(subject);
        out.push(b' ');
        if !reply.is_empty() {
            out.extend_from_slice(reply);
            out.push(b' ');
        }
        write_decimal(out, count(headers.len() + more.len()));
        out.push(b' ');
        write_decimal(out, count(publication.size()));
        out.extend_from_slice(b"\r\n");
        // The block ends with an empty line, before which there is room for more.
        let (block, end) = headers.split_at(headers.len().saturating_sub(2));
        for part in [block, more, end] {
            out.extend_from_slice(part);
        }
        if payload.len() >= LARGE_BYTES {
            self.left += payload.len();
            self.large.push_back((out.len(), payload.clone()));
        } else {
            out.extend_from_slice(payload);
        }
        out.extend_from_slice(b"\r\n");
        self.left += self.plain.len() - before;
    }

    /// Shows what is to be written next; tells how many of the slices are in use.
    pub fn slices<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let mut at = self.at;
        let pieces = self.large.iter().flat_map(|(before, payload)| {
            let plain = self.plain.get(at..*before).unwrap_or_default();
            at = *before;
            [plain, payload.as_ref()]
        });
        let last = self.large.back().map_or(self.at, |(before, _)| *before);
        let pieces = pieces.chain([self.plain.get(last..).unwrap_or_default()]);
        let mut used = 0;
        for (slice, piece) in slices
            .iter_mut()
            .zip(pieces.filter(|piece| !piece.is_empty()))
        {
            *slice = IoSlice::new(piece);
            used += 1;
        }
        used
    }

    /// Notes that so many bytes were written.
    pub fn advance(&mut self, mut written: usize) {
        self.left = self.left.saturating_sub(written);
        while let Some((before, payload)) = self.large.front_mut() {
            let plain = written.min(*before - self.at);
            self.at += plain;
            written -= plain;
            let large = written.min(payload.len());
            payload.advance(large);
            written -= large;
            if !payload.is_empty() {
                return;
            }
            self.large.pop_front();
        }
        self.at += written;
        if self.is_empty() {
            self.clear();
        }
    }

    /// Drops what was not written.
    pub fn clear(&mut self) {
        self.large.clear();
        (self.at, self.left) = (0, 0);
        if self.plain.capacity() > KEPT_BYTES_MAX {
            self.plain = Vec::new();
        }
        self.plain.clear();
    }
}

fn count(number: usize) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_message_is_written_with_its_sizes_and_further_headers_before_the_empty_line() {
        let mut output = Output::default();
        let payload = Bytes::from_static(b"{}");
        let mut publication = Publication {
            subject: b"log.acme",
            reply: b"_INBOX.a.1-0",
            headers: b"NATS/1.0\r\nA: b\r\n\r\n",
            more: b"",
            payload: &payload,
        };
        output.publish(&publication);
        (publication.reply, publication.more) = (b"", b"C: d\r\n");
        output.publish(&publication);
        let expected = "HPUB log.acme _INBOX.a.1-0 18 20\r\nNATS/1.0\r\nA: b\r\n\r\n{}\r\n\
                        HPUB log.acme 24 26\r\nNATS/1.0\r\nA: b\r\nC: d\r\n\r\n{}\r\n";
        assert_eq!(
            std::str::from_utf8(&drain(&mut output, 1 << 20)).unwrap(),
            expected
        );
    }

    /// Takes everything out as a socket would that takes so many bytes at once.
    fn drain(output: &mut Output, at_once: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while !output.is_empty() {
            let mut slices = [IoSlice::new(b""); 4];
            let used = output.slices(&mut slices);
            assert!(used > 0, "nothing to write, and {} left", output.left());
            let next: Vec<u8> = slices[..used]
                .iter()
                .flat_map(|slice| slice.to_vec())
                .take(at_once)
                .collect();
            output.advance(next.len());
            taken.extend(next);
        }
        taken
    }

    proptest! {
        #[test]
        fn bytes_leave_in_the_order_they_came(
            steps in prop::collection::vec((0..3_usize, 0..200_usize), 0..20), at_once in 1..60_000_usize,
        ) {
            let (mut output, mut expected) = (Output::default(), Vec::new());
            for (step, size) in steps {
                let payload = Bytes::from(vec![b'p'; if step == 0 { LARGE_BYTES + size } else { size }]);
                if step == 2 {
                    output.write(&payload);
                    expected.extend_from_slice(&payload);
                    continue;
                }
                output.publish(&Publication { subject: b"s", reply: b"", headers: b"H\r\n\r\n", more: b"", payload: &payload });
                expected.extend_from_slice(format!("HPUB s 5 {}\r\nH\r\n\r\n", 5 + payload.len()).as_bytes());
                expected.extend_from_slice(&payload);
                expected.extend_from_slice(b"\r\n");
            }
            prop_assert_eq!(output.left(), expected.len());
            prop_assert_eq!(drain(&mut output, at_once), expected);
            prop_assert_eq!((output.left(), output.at, output.plain.len()), (0, 0, 0));
        }
    }
}
