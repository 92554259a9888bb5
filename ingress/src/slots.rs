//! Who waits for which PubAck: a fixed table of slots, named in the reply subject of each publish.
//!
//! A slot is held from the first publish of an update until its outcome is known, so an answer to any of
//! several attempts counts. A generation number keeps a late answer from reaching the slot's next holder.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::oneshot;

/// What became of one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// JetStream has it.
    Stored {
        /// It had it before.
        duplicate: bool,
    },
    /// Nothing listens on the subject.
    NoStream,
    /// JetStream said no.
    Refused(String),
    /// The connection went away; whether it was stored is not known.
    Lost,
}

/// A fixed number of slots.
#[derive(Debug)]
pub struct Slots(Mutex<Table>);

#[derive(Debug)]
struct Table {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Slot {
    generation: u32,
    waiter: Option<oneshot::Sender<Outcome>>,
}

/// A slot in use; dropping it frees the slot.
#[derive(Debug)]
pub struct Claim {
    slots: Arc<Slots>,
    index: usize,
    generation: u32,
}

impl Slots {
    /// Makes a table of `size` slots.
    pub fn new(size: usize) -> Arc<Self> {
        let slots = std::iter::repeat_with(Slot::default).take(size).collect();
        Arc::new(Self(Mutex::new(Table { slots, free: (0..size).rev().collect() })))
    }

    /// Takes a free slot.
    pub fn claim(self: &Arc<Self>) -> Option<Claim> {
        let mut table = self.lock();
        let index = table.free.pop()?;
        let generation = table.slots.get(index)?.generation;
        Some(Claim { slots: self.clone(), index, generation })
    }

    /// Gives an outcome to whoever waits under this token; nobody may.
    pub fn resolve(&self, token: &str, outcome: Outcome) {
        let Some((index, generation)) = parse(token) else { return };
        let mut table = self.lock();
        let slot = table.slots.get_mut(index).filter(|slot| slot.generation == generation);
        if let Some(waiter) = slot.and_then(|slot| slot.waiter.take()) {
            // The waiter may just have given up.
            let _gone = waiter.send(outcome);
        }
    }

    /// Tells everybody who waits that the connection went away.
    pub fn lose_all(&self) {
        for slot in &mut self.lock().slots {
            if let Some(waiter) = slot.waiter.take() {
                let _gone = waiter.send(Outcome::Lost);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claim {
    /// Starts to wait for the outcome of an attempt.
    pub fn arm(&self) -> oneshot::Receiver<Outcome> {
        let (sender, receiver) = oneshot::channel();
        if let Some(slot) = self.slots.lock().slots.get_mut(self.index) {
            slot.waiter = Some(sender);
        }
        receiver
    }

    /// The subject under `inbox` whose last token names this claim.
    pub fn reply(&self, inbox: &str) -> String {
        format!("{inbox}.{:x}-{:x}", self.index, self.generation)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut table = self.slots.lock();
        if let Some(slot) = table.slots.get_mut(self.index) {
            slot.generation = slot.generation.wrapping_add(1);
            slot.waiter = None;
        }
        table.free.push(self.index);
    }
}

fn parse(token: &str) -> Option<(usize, u32)> {
    let (index, generation) = token.split_once('-')?;
    Some((usize::from_str_radix(index, 16).ok()?, u32::from_str_radix(generation, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(claim: &Claim) -> String {
        claim.reply("").split_off(1)
    }

    const STORED: Outcome = Outcome::Stored { duplicate: false };

    #[test]
    fn an_outcome_reaches_its_claim_and_no_later_one() {
        let slots = Slots::new(1);
        let first = slots.claim().unwrap();
        assert!(slots.claim().is_none());
        let (token, mut receiver) = (name(&first), first.arm());
        slots.resolve(&token, STORED);
        assert_eq!(receiver.try_recv(), Ok(STORED));
        drop(first);
        let second = slots.claim().unwrap();
        let mut receiver = second.arm();
        slots.resolve(&token, STORED);
        assert!(receiver.try_recv().is_err());
        slots.resolve(&name(&second), Outcome::NoStream);
        assert_eq!(receiver.try_recv(), Ok(Outcome::NoStream));
    }

    #[test]
    fn losing_the_connection_fails_everybody_at_once() {
        let slots = Slots::new(3);
        let claims: Vec<_> = (0..3).map(|_| slots.claim().unwrap()).collect();
        let mut receivers: Vec<_> = claims.iter().map(Claim::arm).collect();
        slots.lose_all();
        assert!(receivers.iter_mut().all(|receiver| receiver.try_recv() == Ok(Outcome::Lost)));
    }

    #[test]
    fn a_token_of_somebody_else_is_ignored() {
        let slots = Slots::new(1);
        for token in ["", "-", "zz-0", "ffffffffffffffffffff-0", "7-0"] {
            slots.resolve(token, STORED);
        }
    }
}
