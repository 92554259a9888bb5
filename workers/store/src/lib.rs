//! The read model: every conversation and message in SQL, for queries.
//!
//! Everything in it comes from the log and can be written again in any amount: an update that was written
//! before changes nothing, and what belongs together is brought together whatever comes first. Nothing
//! that answers a person reads from here.

mod ahead;
mod contact;
mod database;
pub mod fold;
mod gather;
mod held;
pub mod lacking;
mod load;
pub mod progress;
pub mod query;
pub mod rebuild;
mod rows;
mod save;
pub mod store;
#[cfg(test)]
mod tests;
mod usual;
mod working;
mod write;

pub use store::{Journal, JournalError, Rejected};

use ackline_runtime::batch::BatchJob;
use ackline_runtime::job::Work;
use ackline_shared::subjects::{self, Pool};

impl BatchJob for Journal {
    const POOL: Pool = Pool::Journal;
    const STREAM: &'static str = subjects::UPDATES;

    fn reads(subject: &str) -> bool {
        subjects::is_journaled(subject)
    }

    async fn run(&self, batch: &[Work]) -> Result<Vec<(usize, String)>, String> {
        let rejected = self
            .write_batch(batch)
            .await
            .map_err(|error| error.to_string())?;
        Ok(rejected
            .into_iter()
            .map(|one| (one.index, one.reason))
            .collect())
    }

    async fn resumes(&self) {
        self.was_read().await;
    }

    async fn begins_anew(&self) {
        match self.rebuilds() {
            Some(rebuilds) => rebuilds.wanted().await,
            None => std::future::pending().await,
        }
    }

    async fn begin_anew(&self) -> Result<(), String> {
        match self.rebuilds() {
            Some(rebuilds) => rebuilds.begin(self).await,
            None => Ok(()),
        }
    }

    async fn begun_anew(&self) -> Result<(), String> {
        match self.rebuilds() {
            Some(rebuilds) => rebuilds.begun().await,
            None => Ok(()),
        }
    }
}
