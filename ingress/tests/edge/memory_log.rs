//! A log in memory, to stand in for JetStream where the protocol is what is tested.

use ackline_ingress::store::{StoreError, Update, UpdateLog};
use std::sync::Mutex;
use tokio::sync::watch;

/// Keeps what is stored, or answers an error when told to.
#[derive(Debug)]
pub struct MemoryLog {
    stored: Mutex<Vec<Update>>,
    error: Mutex<Option<StoreError>>,
    longest: Mutex<Option<usize>>,
    /// Nothing is acknowledged while this is false.
    pub answers: watch::Sender<bool>,
}

impl MemoryLog {
    pub fn new() -> Self {
        Self {
            stored: Mutex::default(),
            error: Mutex::default(),
            longest: Mutex::default(),
            answers: watch::channel(true).0,
        }
    }

    pub fn stored(&self) -> Vec<Update> {
        self.stored.lock().unwrap().clone()
    }

    pub fn fail_with(&self, error: StoreError) {
        *self.error.lock().unwrap() = Some(error);
    }

    pub fn recover(&self) {
        *self.error.lock().unwrap() = None;
    }

    pub fn refuse_longer_than(&self, bytes: usize) {
        *self.longest.lock().unwrap() = Some(bytes);
    }
}

impl UpdateLog for MemoryLog {
    async fn store<I>(&self, updates: I) -> Result<(), StoreError>
    where
        I: Iterator<Item = Update> + Send,
    {
        let updates: Vec<_> = updates.collect();
        let mut answers = self.answers.subscribe();
        answers.wait_for(|answers| *answers).await.unwrap();
        if let Some(error) = self.error.lock().unwrap().clone() {
            return Err(error);
        }
        let longest = self.longest.lock().unwrap().unwrap_or(usize::MAX);
        if updates.iter().any(|update| update.payload.len() > longest) {
            return Err(StoreError::TooLarge("in memory".to_owned()));
        }
        self.stored.lock().unwrap().extend(updates);
        Ok(())
    }
}
