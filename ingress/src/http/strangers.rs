//! Which connection of a listener makes room when all are taken: strangers, and those that only signed for a tenant's
//! own app, whose secret the tenant knows. The more numerous of the two kinds gives up the one that has brought no
//! valid signature for longest, so that a newcomer always has the time to sign.
//!
//! Meta signs its first request as soon as it has connected, so it is never among the oldest strangers for long, and
//! one of Meta's never makes room. What was under way on a connection that is ended it sends again.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::task::AbortHandle;

/// The connections of a listener that may have to make room.
#[derive(Debug, Default)]
pub struct Strangers(Mutex<Seats>);

#[derive(Debug, Default)]
struct Seats {
    next: u64,
    by_number: HashMap<u64, Seated>,
    /// The numbers, the longest without a valid signature first.
    strangers: BTreeMap<u64, u64>,
    tenants: BTreeMap<u64, u64>,
}

#[derive(Debug)]
struct Seated {
    kind: Kind,
    /// Where it stands among its kind.
    since: u64,
    /// What serves it, once it runs.
    task: Option<AbortHandle>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Stranger,
    Tenants,
}

/// The standing of one connection as a stranger, or as a tenant's; left when dropped.
#[derive(Debug)]
pub struct Seat {
    strangers: Arc<Strangers>,
    number: u64,
}

impl Seats {
    fn tick(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    fn of(&mut self, kind: Kind) -> &mut BTreeMap<u64, u64> {
        match kind {
            Kind::Stranger => &mut self.strangers,
            Kind::Tenants => &mut self.tenants,
        }
    }

    /// Puts a connection behind all others of a kind.
    fn stand(&mut self, number: u64, kind: Kind) {
        let since = self.tick();
        let Some(seated) = self.by_number.get_mut(&number) else {
            return;
        };
        let before = (seated.kind, seated.since);
        (seated.kind, seated.since) = (kind, since);
        self.of(before.0).remove(&before.1);
        self.of(kind).insert(since, number);
    }

    fn leave(&mut self, number: u64) -> Option<Seated> {
        let seated = self.by_number.remove(&number)?;
        self.of(seated.kind).remove(&seated.since);
        Some(seated)
    }
}

impl Strangers {
    /// Notes a newcomer.
    pub fn sit(self: &Arc<Self>) -> Seat {
        let mut seats = self.seats();
        let number = seats.tick();
        let seated = Seated {
            kind: Kind::Stranger,
            since: number,
            task: None,
        };
        seats.by_number.insert(number, seated);
        seats.strangers.insert(number, number);
        Seat {
            strangers: self.clone(),
            number,
        }
    }

    /// Says which task serves a newcomer.
    pub fn serve(&self, number: u64, task: AbortHandle) {
        if let Some(seated) = self.seats().by_number.get_mut(&number) {
            seated.task = Some(task);
        }
    }

    /// Ends the connection of the more numerous kind that has brought no valid signature for longest; `false` when
    /// there is none of either kind.
    pub fn show_out(&self) -> bool {
        let mut seats = self.seats();
        let kind = if seats.tenants.len() > seats.strangers.len() {
            Kind::Tenants
        } else {
            Kind::Stranger
        };
        let first = seats.of(kind).first_key_value().map(|(_, number)| *number);
        let Some(seated) = first.and_then(|number| seats.leave(number)) else {
            return false;
        };
        drop(seats);
        seated.task.iter().for_each(AbortHandle::abort);
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
        let seats = self.strangers.seats();
        seats.by_number.get(&self.number)?.task.clone()
    }

    /// It brought a valid signature of one tenant's: it is no stranger any more, and the last of its kind to make room.
    pub fn signs_for_tenant(&self) {
        self.strangers.seats().stand(self.number, Kind::Tenants);
    }

    /// It is Meta's, or gone.
    pub fn leave(&self) {
        self.strangers.seats().leave(self.number);
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
    use tokio::task::JoinHandle;

    fn come(strangers: &Arc<Strangers>) -> (Seat, JoinHandle<()>) {
        let seat = strangers.sit();
        let task = tokio::spawn(std::future::pending::<()>());
        strangers.serve(seat.number(), task.abort_handle());
        (seat, task)
    }

    async fn is_ended(task: JoinHandle<()>) -> bool {
        let ended = tokio::time::timeout(std::time::Duration::from_secs(5), task).await;
        ended.is_ok_and(|ended| ended.is_err_and(|error| error.is_cancelled()))
    }

    #[tokio::test]
    async fn who_came_first_and_never_signed_is_shown_out_first() {
        let strangers = Arc::<Strangers>::default();
        let [signed, gone, first, second] = [(); 4].map(|()| come(&strangers));
        signed.0.leave();
        drop(gone.0);
        assert!(strangers.show_out());
        assert!(is_ended(first.1).await);
        assert!(!signed.1.is_finished() && !second.1.is_finished());
        assert!(
            strangers.show_out() && !strangers.show_out(),
            "nobody is left"
        );
        assert!(is_ended(second.1).await);
    }

    #[tokio::test]
    async fn the_more_numerous_kind_makes_room() {
        let strangers = Arc::<Strangers>::default();
        let [meta, own, other, third, stranger, newcomer] = [(); 6].map(|()| come(&strangers));
        for tenants in [&meta, &own, &other, &third] {
            tenants.0.signs_for_tenant();
        }
        meta.0.leave();
        own.0.signs_for_tenant();
        assert!(strangers.show_out());
        assert!(
            is_ended(other.1).await,
            "of three tenants' the one that signed longest ago"
        );
        assert!(strangers.show_out());
        assert!(is_ended(stranger.1).await, "a tie is the strangers'");
        assert!(strangers.show_out());
        assert!(is_ended(third.1).await);
        assert!(!newcomer.1.is_finished(), "it has the time to sign");
        drop((own.0, newcomer.0));
        assert!(
            !strangers.show_out() && !meta.1.is_finished(),
            "Meta's stay"
        );
        assert!(strangers.seats().by_number.is_empty());
    }
}
