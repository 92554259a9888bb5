//! What a target notes of each request: which update it carried, when, and what became of the answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::time::Instant;

/// Requests noted; later ones are answered all the same.
const NOTES_MAX: usize = 4_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    Open,
    /// It was answered with a status.
    Answered(u16),
    /// The connection ended without an answer.
    Lost,
}

/// A request as the target saw it.
#[derive(Debug, Clone, Copy)]
pub struct Note {
    /// The serial number of the update in its body, if there is one.
    pub serial: Option<u32>,
    /// The part of its path, by number.
    pub part: Option<usize>,
    pub at: Instant,
    /// When it ended; when it was read, while it has not.
    pub ended: Instant,
    pub ending: Ending,
    /// Whether the work was done, whatever became of the answer.
    pub is_done: bool,
}

impl Note {
    /// Whether it was answered with success.
    pub fn is_accepted(&self) -> bool {
        matches!(self.ending, Ending::Answered(200..=299))
    }
}

/// All notes of a target.
#[derive(Debug, Default)]
pub(super) struct Notes(Arc<Mutex<Vec<Note>>>);

/// A note whose request has not ended; dropped, its answer is lost.
#[derive(Debug)]
pub(super) struct Pending {
    notes: Arc<Mutex<Vec<Note>>>,
    place: usize,
}

impl Notes {
    pub(super) fn open(&self, part: Option<usize>, serial: Option<u32>) -> Pending {
        let (now, ending) = (Instant::now(), Ending::Open);
        let mut notes = lock(&self.0);
        let place = notes.len();
        if place < NOTES_MAX {
            notes.push(Note {
                serial,
                part,
                at: now,
                ended: now,
                ending,
                is_done: false,
            });
        }
        Pending {
            notes: self.0.clone(),
            place,
        }
    }

    pub(super) fn all(&self) -> Vec<Note> {
        lock(&self.0).clone()
    }
}

impl Pending {
    /// Notes that the work was done.
    pub(super) fn done(&self) {
        if let Some(note) = lock(&self.notes).get_mut(self.place) {
            note.is_done = true;
        }
    }

    pub(super) fn answered(self, status: u16) {
        self.end(Ending::Answered(status));
    }

    fn end(&self, ending: Ending) {
        if let Some(note) = lock(&self.notes).get_mut(self.place)
            && note.ending == Ending::Open
        {
            (note.ending, note.ended) = (ending, Instant::now());
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.end(Ending::Lost);
    }
}

fn lock(notes: &Mutex<Vec<Note>>) -> MutexGuard<'_, Vec<Note>> {
    notes.lock().unwrap_or_else(PoisonError::into_inner)
}
