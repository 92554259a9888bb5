//! The connections of a listener that have not brought a valid signature yet, the longest first: when all
//! connections are taken, that one makes room for a newcomer.
//!
//! Meta signs its first request as soon as it has connected, so it is never among the oldest of these for long.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// Connections in the order they came.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    /// The task of each, once it runs.
    taken: BTreeMap<u64, Option<AbortHandle>>,
}

/// The standing of one connection as a stranger; left when dropped.
#[derive(Debug)]
pub struct Seat {
    strangers: Arc<Strangers>,
    number: u64,
}

impl Strangers {
    /// Notes a newcomer.
    pub fn sit(self: &Arc<Self>) -> Seat {
        let mut seats = self.seats();
        let number = seats.next;
        seats.next += 1;
        seats.taken.insert(number, None);
        Seat { strangers: self.clone(), number }
    }

    /// Says which task serves a newcomer.
    pub fn serve(&self, number: u64, task: AbortHandle) {
        if let Some(seat) = self.seats().taken.get_mut(&number) {
            *seat = Some(task);
        }
    }

    /// Ends the connection that has been a stranger for longest; `false` when there is none.
    pub fn show_out(&self) -> bool {
        let Some((_, task)) = self.seats().taken.pop_first() else { return false };
        task.inspect(AbortHandle::abort);
        true
    }

    fn seats(&self) -> MutexGuard<'_, Seats> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Its number.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The task that serves it.
    pub fn task(&self) -> Option<AbortHandle> {
        self.strangers.seats().taken.get(&self.number).cloned().flatten()
    }

    /// It is a stranger no more.
    pub fn leave(&self) {
        self.strangers.seats().taken.remove(&self.number);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_came_first_and_never_signed_is_shown_out_first() {
        let strangers = Arc::<Strangers>::default();
        let come = || {
            let seat = strangers.sit();
            let task = tokio::spawn(std::future::pending::<()>());
            strangers.serve(seat.number(), task.abort_handle());
            (seat, task)
        };
        let (signed, gone, first, second) = (come(), come(), come(), come());
        signed.0.leave();
        drop(gone.0);
        assert!(strangers.show_out());
        assert!(first.1.await.unwrap_err().is_cancelled());
        assert!(!signed.1.is_finished() && !second.1.is_finished());
        assert!(strangers.show_out() && !strangers.show_out(), "nobody is left");
        assert!(second.1.await.unwrap_err().is_cancelled());
    }
}
