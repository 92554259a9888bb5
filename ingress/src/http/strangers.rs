//! The connections of a listener that make room when all are taken: first the one that has not brought a valid
//! signature for longest, then the oldest that only signed for a tenant's own app, whose secret the tenant knows.
//!
//! Meta signs its first request as soon as it has connected, so it is never among the oldest strangers for long; what
//! was under way on a connection that is ended it sends again.

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
    strangers: BTreeMap<u64, Option<AbortHandle>>,
    tenants: BTreeMap<u64, Option<AbortHandle>>,
}

/// The standing of one connection as a stranger, or as a tenant's; left when dropped.
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
        seats.strangers.insert(number, None);
        Seat {
            strangers: self.clone(),
            number,
        }
    }

    /// Says which task serves a newcomer.
    pub fn serve(&self, number: u64, task: AbortHandle) {
        let mut seats = self.seats();
        let Seats {
            strangers, tenants, ..
        } = &mut *seats;
        if let Some(seat) = strangers
            .get_mut(&number)
            .or_else(|| tenants.get_mut(&number))
        {
            *seat = Some(task);
        }
    }

    /// Ends the connection that has been a stranger for longest, else the oldest tenant's; `false` when there is neither.
    pub fn show_out(&self) -> bool {
        let first = {
            let mut seats = self.seats();
            seats
                .strangers
                .pop_first()
                .or_else(|| seats.tenants.pop_first())
        };
        let Some((_, task)) = first else { return false };
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
        self.strangers
            .seats()
            .strangers
            .get(&self.number)
            .cloned()
            .flatten()
    }

    /// It is one tenant's: no stranger any more, and makes room where there is none.
    pub fn becomes_tenants(&self) {
        let mut seats = self.strangers.seats();
        if let Some(task) = seats.strangers.remove(&self.number) {
            seats.tenants.insert(self.number, task);
        }
    }

    /// It is Meta's, or gone.
    pub fn leave(&self) {
        let mut seats = self.strangers.seats();
        seats.strangers.remove(&self.number);
        seats.tenants.remove(&self.number);
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
        assert!(
            strangers.show_out() && !strangers.show_out(),
            "nobody is left"
        );
        assert!(second.1.await.unwrap_err().is_cancelled());
    }

    #[tokio::test]
    async fn whoever_signed_for_a_tenants_own_app_makes_room_when_no_stranger_does() {
        let strangers = Arc::<Strangers>::default();
        let come = || {
            let seat = strangers.sit();
            let task = tokio::spawn(std::future::pending::<()>());
            strangers.serve(seat.number(), task.abort_handle());
            (seat, task)
        };
        let (meta, own, other, stranger) = (come(), come(), come(), come());
        own.0.becomes_tenants();
        other.0.becomes_tenants();
        meta.0.becomes_tenants();
        meta.0.leave();
        assert!(strangers.show_out());
        assert!(stranger.1.await.unwrap_err().is_cancelled());
        assert!(!own.1.is_finished(), "strangers go first");
        assert!(strangers.show_out());
        assert!(own.1.await.unwrap_err().is_cancelled());
        drop(other.0);
        assert!(
            !strangers.show_out() && !meta.1.is_finished(),
            "Meta's stay"
        );
    }
}
