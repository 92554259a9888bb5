//! Who waits for which PubAck: a fixed table of slots, named in the reply subject of each publish.
//!
//! A slot is held from before the first publish of an update until its outcome is known, so an answer to any
//! of several attempts counts. A generation number keeps a late answer from reaching the slot's next holder.
//! The table is also the bound of what is in flight. It knows no clock: whoever sweeps it brings the time.

use std::task::{Context, Poll, Waker};
use tokio::time::Instant;

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Stored {
        duplicate: bool,
    },
    /// Nothing listens on the subject.
    NoStream,
    Refused(String),
    /// The connection went away; whether it was stored is not known.
    Lost,
}

/// A slot in use, of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    index: u32,
    generation: u32,
}

/// A fixed number of slots.
#[derive(Debug)]
pub struct Slots {
    slots: Vec<Slot>,
    /// The lowest comes last, so that few are ever touched.
    free: Vec<u32>,
    /// No slot from here on is in use.
    used_to: usize,
}

/// How an attempt is published.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum PublishMode {
    #[default]
    Direct,
    /// With the group: waiting for its turn, or in a batch.
    Grouped,
    /// One by one, at the group's word.
    Single,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    /// Whether an attempt is on its way.
    armed: bool,
    mode: PublishMode,
    /// Whether the attempt took longer than it may.
    late: bool,
    outcome: Option<Outcome>,
    attempt_end: Option<Instant>,
    waker: Option<Waker>,
}

impl Token {
    /// Appends the token as it stands in a reply subject.
    pub fn write(self, out: &mut Vec<u8>) {
        write_hex(out, self.index);
        out.push(b'-');
        write_hex(out, self.generation);
    }

    pub fn parse(text: &[u8]) -> Option<Self> {
        let at = text.iter().position(|byte| *byte == b'-')?;
        Some(Self {
            index: parse_hex(text.get(..at)?)?,
            generation: parse_hex(text.get(at + 1..)?)?,
        })
    }
}

impl Slots {
    /// Makes a table of `size` slots.
    pub fn new(size: usize) -> Self {
        let size = u32::try_from(size).unwrap_or(u32::MAX);
        let slots = (0..size).map(|_| Slot::default()).collect();
        Self {
            slots,
            free: (0..size).rev().collect(),
            used_to: 0,
        }
    }

    /// How many slots are free.
    pub fn free(&self) -> usize {
        self.free.len()
    }

    /// How many slots are in use.
    pub fn used(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub fn claim(&mut self) -> Option<Token> {
        let index = self.free.pop()?;
        let at = usize::try_from(index).ok()?;
        let generation = self.slots.get(at)?.generation;
        self.used_to = self.used_to.max(at + 1);
        Some(Token { index, generation })
    }

    /// Notes that an attempt is on its way; tells whether another one still was a single.
    pub fn arm(&mut self, token: Token, mode: PublishMode) -> bool {
        let Some(slot) = self.slot(token) else {
            return false;
        };
        (slot.armed, slot.late) = (true, false);
        std::mem::replace(&mut slot.mode, mode) == PublishMode::Single
    }

    /// Gives an outcome to whoever waits under this token; tells whether the attempt was a single.
    pub fn resolve(&mut self, token: Token, outcome: Outcome, wakers: &mut Vec<Waker>) -> bool {
        let Some(slot) = self.slot(token).filter(|slot| slot.armed) else {
            return false;
        };
        slot.armed = false;
        // What is stored stays stored, whatever a second attempt hears.
        if !matches!(slot.outcome, Some(Outcome::Stored { .. })) {
            slot.outcome = Some(outcome);
        }
        wakers.extend(slot.waker.take());
        std::mem::take(&mut slot.mode) == PublishMode::Single
    }

    /// Gives up an attempt before it is on its way.
    pub fn lose(&mut self, token: Token) {
        if let Some(slot) = self.slot(token) {
            slot.outcome.get_or_insert(Outcome::Lost);
        }
    }

    /// Tells everybody who waits that the connection went away.
    pub fn lose_all(&mut self, wakers: &mut Vec<Waker>) {
        for slot in self
            .slots
            .iter_mut()
            .take(self.used_to)
            .filter(|slot| slot.armed)
        {
            (slot.armed, slot.mode) = (false, PublishMode::Direct);
            slot.outcome.get_or_insert(Outcome::Lost);
            wakers.extend(slot.waker.take());
        }
    }

    /// Wakes everybody whose attempt took longer than it may.
    pub fn sweep(&mut self, now: Instant, wakers: &mut Vec<Waker>) {
        for slot in self.slots.iter_mut().take(self.used_to) {
            if slot.attempt_end.is_some_and(|end| end <= now) {
                (slot.late, slot.attempt_end) = (true, None);
                wakers.extend(slot.waker.take());
            }
        }
    }

    /// Whether whoever waits still leaves the attempt to the group.
    pub fn is_grouped(&self, token: Token) -> bool {
        let slot = usize::try_from(token.index)
            .ok()
            .and_then(|index| self.slots.get(index));
        slot.is_some_and(|slot| {
            slot.generation == token.generation && slot.armed && slot.mode == PublishMode::Grouped
        })
    }

    /// Takes the outcome, if there is one.
    pub fn take(&mut self, token: Token) -> Option<Outcome> {
        self.slot(token)?.outcome.take()
    }

    /// Waits for the outcome of the attempt; `None` when it takes until `attempt_end`.
    pub fn poll(
        &mut self,
        token: Token,
        attempt_end: Instant,
        context: &mut Context<'_>,
    ) -> Poll<Option<Outcome>> {
        let Some(slot) = self.slot(token) else {
            return Poll::Ready(None);
        };
        if let Some(outcome) = slot.outcome.take() {
            (slot.waker, slot.attempt_end) = (None, None);
            return Poll::Ready(Some(outcome));
        }
        if std::mem::take(&mut slot.late) {
            return Poll::Ready(None);
        }
        slot.attempt_end = Some(attempt_end);
        match &mut slot.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }

    /// Frees a slot; tells whether a single of it was still on its way.
    pub fn release(&mut self, token: Token) -> bool {
        let Some(slot) = self.slot(token) else {
            return false;
        };
        let was_single = slot.mode == PublishMode::Single;
        *slot = Slot {
            generation: slot.generation.wrapping_add(1),
            ..Slot::default()
        };
        self.free.push(token.index);
        if self.free.len() == self.slots.len() {
            self.used_to = 0;
        }
        was_single
    }

    fn slot(&mut self, token: Token) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(usize::try_from(token.index).ok()?);
        slot.filter(|slot| slot.generation == token.generation)
    }
}

fn write_hex(out: &mut Vec<u8>, number: u32) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = (32 - number.leading_zeros()).div_ceil(4).max(1);
    for place in (0..digits).rev() {
        let digit = usize::try_from((number >> (place * 4)) & 15).unwrap_or_default();
        out.push(DIGITS.get(digit).copied().unwrap_or(b'0'));
    }
}

fn parse_hex(text: &[u8]) -> Option<u32> {
    if text.is_empty() || text.len() > 8 {
        return None;
    }
    text.iter().try_fold(0, |number: u32, byte| {
        Some((number << 4) | char::from(*byte).to_digit(16)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const STORED: Outcome = Outcome::Stored { duplicate: false };

    fn poll(slots: &mut Slots, token: Token) -> Poll<Option<Outcome>> {
        let end = Instant::now() + Duration::from_secs(60);
        slots.poll(token, end, &mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_token_reads_back() {
        for (index, generation) in [(0, 0), (15, 16), (u32::MAX, 0x0a0b_0c0d)] {
            let (token, mut text) = (Token { index, generation }, Vec::new());
            token.write(&mut text);
            assert_eq!(Token::parse(&text), Some(token), "{text:?}");
        }
        for text in ["", "-", "zz-0", "fffffffff-0", "7", "7-", "-7", "+7-0"] {
            assert_eq!(Token::parse(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn an_outcome_reaches_its_claim_and_no_later_one() {
        let (mut slots, mut wakers) = (Slots::new(1), Vec::new());
        let first = slots.claim().unwrap();
        assert!(slots.claim().is_none());
        slots.arm(first, PublishMode::Direct);
        assert_eq!(poll(&mut slots, first), Poll::Pending);
        slots.resolve(first, STORED, &mut wakers);
        assert_eq!(
            (wakers.len(), poll(&mut slots, first)),
            (1, Poll::Ready(Some(STORED)))
        );
        slots.release(first);
        let second = slots.claim().unwrap();
        slots.arm(second, PublishMode::Direct);
        slots.resolve(first, STORED, &mut wakers);
        assert_eq!(poll(&mut slots, second), Poll::Pending);
        slots.resolve(second, Outcome::NoStream, &mut wakers);
        assert_eq!(
            poll(&mut slots, second),
            Poll::Ready(Some(Outcome::NoStream))
        );
    }

    #[test]
    fn losing_the_connection_fails_whoever_has_an_attempt_on_its_way() {
        let (mut slots, mut wakers) = (Slots::new(3), Vec::new());
        let tokens: Vec<_> = (0..3).map(|_| slots.claim().unwrap()).collect();
        tokens[..2]
            .iter()
            .for_each(|token| assert!(!slots.arm(*token, PublishMode::Single)));
        slots.resolve(tokens[0], STORED, &mut wakers);
        slots.lose_all(&mut wakers);
        assert_eq!(poll(&mut slots, tokens[0]), Poll::Ready(Some(STORED)));
        assert_eq!(
            poll(&mut slots, tokens[1]),
            Poll::Ready(Some(Outcome::Lost))
        );
        assert_eq!(poll(&mut slots, tokens[2]), Poll::Pending);
    }

    #[test]
    fn an_attempt_that_takes_too_long_is_late_and_its_answer_still_counts() {
        let (mut slots, mut wakers) = (Slots::new(1), Vec::new());
        let token = slots.claim().unwrap();
        slots.arm(token, PublishMode::Direct);
        assert_eq!(poll(&mut slots, token), Poll::Pending);
        slots.sweep(Instant::now(), &mut wakers);
        assert_eq!(poll(&mut slots, token), Poll::Pending);
        slots.sweep(Instant::now() + Duration::from_secs(61), &mut wakers);
        assert_eq!(
            (wakers.len(), poll(&mut slots, token)),
            (1, Poll::Ready(None))
        );
        slots.arm(token, PublishMode::Direct);
        slots.resolve(token, STORED, &mut wakers);
        slots.resolve(token, Outcome::NoStream, &mut wakers);
        assert_eq!(slots.take(token), Some(STORED));
    }

    #[test]
    fn a_single_ends_once_by_answer_release_or_another_attempt() {
        let (mut slots, mut wakers) = (Slots::new(2), Vec::new());
        let (first, second) = (slots.claim().unwrap(), slots.claim().unwrap());
        slots.arm(first, PublishMode::Grouped);
        assert!(slots.is_grouped(first) && !slots.is_grouped(second));
        slots.arm(first, PublishMode::Single);
        slots.arm(second, PublishMode::Single);
        assert!(!slots.is_grouped(first) && slots.resolve(second, STORED, &mut wakers));
        assert!(slots.release(first) && !slots.release(second));
        let third = slots.claim().unwrap();
        slots.arm(third, PublishMode::Single);
        assert!(slots.arm(third, PublishMode::Direct) && !slots.release(third));
        assert_eq!((slots.free(), slots.used()), (2, 0));
    }
}
