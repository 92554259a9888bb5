//! The log as the webhook sees it: straight to JetStream, or through the spool.
//!
//! What JetStream did not answer for in time goes into the spool, under the same ids: it may have been
//! stored all the same, and is then stored once.

use super::handle::SpoolHandle;
use crate::metrics::Metrics;
use crate::store::acknowledged::Acknowledged;
use crate::store::{StoreError, Update, UpdateLog};
use std::sync::Arc;

/// A log with a spool beside it, or without.
#[derive(Debug)]
pub struct SpooledLog<L> {
    direct: Arc<L>,
    spool: Option<SpoolAccess>,
}

#[derive(Debug)]
pub struct SpoolAccess {
    /// Where updates are handed over.
    pub handle: Arc<SpoolHandle>,
    /// Updates that are acknowledged already.
    pub acknowledged: Arc<Acknowledged>,
    pub metrics: Arc<Metrics>,
}

impl<L: UpdateLog> SpooledLog<L> {
    /// Puts a spool beside a log.
    pub fn new(direct: Arc<L>, spool: Option<SpoolAccess>) -> Self {
        Self { direct, spool }
    }
}

impl<L: UpdateLog> UpdateLog for SpooledLog<L> {
    async fn store<I>(&self, updates: I) -> Result<(), StoreError>
    where
        I: Iterator<Item = Update> + Send,
    {
        let Some(spool) = &self.spool else {
            return self.direct.store(updates).await;
        };
        let mut updates: Vec<Update> = updates.collect();
        let passing = spool.handle.enter();
        if passing.is_some() {
            match self.direct.store(updates.iter().cloned()).await {
                Err(error) if error.may_pass() => {}
                done => return done,
            }
        }
        let metrics = &spool.metrics;
        let mut prints = Vec::with_capacity(updates.len());
        updates.retain(|update| {
            let print = spool.acknowledged.fingerprint(&update.head);
            let known = spool.acknowledged.knows(print);
            if known {
                metrics.repeated.inc();
            } else {
                prints.push(print);
            }
            !known
        });
        if !updates.is_empty() {
            spool.handle.spool(&updates, passing).await?;
            metrics.spooled.inc_by(updates.len() as u64);
            prints
                .into_iter()
                .for_each(|print| spool.acknowledged.remember(print));
        }
        Ok(())
    }
}
