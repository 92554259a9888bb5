//! A pool that works on whole batches in stream order: the journal.
//!
//! It reads with one consumer, writes what it read in one transaction, and only then acknowledges. An update
//! the batch refuses goes to the dead letters by itself; a failing store stops the pool from advancing and
//! nothing is lost. While it is paused it holds what it read, unwritten and unacknowledged.

use super::dead;
use super::intake::{self, Arrival, acknowledge};
use super::job::Work;
use super::lease::{Held, Lease};
use super::log::{Log, now_ms};
use super::metrics::Metrics;
use super::pool::{Ended, Host, connects, ended, keep_lease_while};
use super::settings::PoolSettings;
use super::standing::State;
use super::tuning::Tuning;
use ackline_shared::subjects::{self, Partition, Pool};
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Batch;
use futures_util::StreamExt;
use std::future::Future;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Pause after the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Longest a read waits for something to happen.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Pause after a pool broke, before it is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);

/// Work on whole batches.
pub trait BatchJob: Send + Sync + 'static {
    /// Which pool this is.
    const POOL: Pool;
    /// The stream it reads, with these filters.
    const STREAM: &'static str;
    /// The subjects it reads.
    const FILTERS: &'static [&'static str];

    /// Works on a batch as a whole; doing the same batch again changes nothing. Gives the refused ones by index, with the reason.
    fn run(&self, batch: &[Work]) -> impl Future<Output = Result<Vec<(usize, String)>, String>> + Send;
}

/// How large a batch may be and how long it may wait to fill.
#[derive(Debug, Clone, Copy)]
pub struct BatchSize {
    /// Updates at most.
    pub max: usize,
    /// Longest wait for more.
    pub linger: Duration,
}

/// Runs the pool until the signal, taking it over whenever its lease is free.
pub async fn run<B: BatchJob>(job: B, settings: PoolSettings, size: BatchSize, mut host: Host) {
    let lease = host.lease(B::POOL, &settings);
    let reader = Reader {
        job,
        log: host.platform.log.clone(),
        settings,
        size,
        metrics: host.metrics.clone(),
        tuning: host.platform.tuning.clone(),
    };
    while let Some(mut held) = host.wait_for(B::POOL, &lease).await {
        let ended = reader.own(&lease, &mut held, &mut host).await;
        host.give_up(B::POOL, &ended);
        if !matches!(ended, Ended::LeaseLost) {
            lease.release(held).await;
        }
        sleep(REOPEN_PAUSE).await;
    }
}

struct Reader<B> {
    job: B,
    log: Log,
    settings: PoolSettings,
    size: BatchSize,
    metrics: Metrics,
    tuning: Tuning,
}

impl<B: BatchJob> Reader<B> {
    async fn own(&self, lease: &Lease, held: &mut Held, host: &mut Host) -> Ended {
        let name = subjects::consumer(B::POOL, Partition(0), "all");
        let filters = B::FILTERS.iter().map(|&filter| filter.to_owned()).collect();
        let opened =
            intake::open_consumer(self.log.context(), &self.settings, B::STREAM, &name, filters).await;
        let consumer = match opened {
            Ok((consumer, _)) => consumer,
            Err(error) => return error.into(),
        };
        let connected = connects(&self.log);
        host.standing.set(B::POOL, State::Working);
        loop {
            if connects(&self.log) != connected {
                return Ended::Reconnected;
            }
            let round = keep_lease_while(self.round(&consumer), lease, held);
            tokio::select! {
                () = ended(&mut host.shutdown) => return Ended::Shutdown,
                kept = round => if kept.is_none() { return Ended::LeaseLost },
            }
        }
    }

    /// Reads a batch, writes it, acknowledges it. Cancelling it anywhere is harmless: the batch comes again.
    async fn round(&self, consumer: &PullConsumer) {
        let mut batch = self.read(consumer).await;
        self.tuning.unpaused(B::POOL).await;
        if batch.is_empty() {
            return;
        }
        let started = Instant::now();
        if let Some(first) = batch.first() {
            let age = now_ms().saturating_sub(first.work.head.received_ms);
            self.metrics.started(B::POOL, Duration::from_millis(age));
        }
        let (readable, defects): (Vec<_>, Vec<_>) =
            batch.drain(..).partition(|arrival| arrival.defect.is_none());
        for arrival in defects {
            let reason = arrival.defect.clone().unwrap_or_default();
            self.bury(&arrival, &reason).await;
        }
        let (works, messages): (Vec<Work>, Vec<_>) =
            readable.into_iter().map(|arrival| (arrival.work, arrival.message)).unzip();
        let refused = loop {
            match self.job.run(&works).await {
                Ok(refused) => break refused,
                Err(error) => {
                    tracing::error!(pool = %B::POOL, %error, "the batch cannot be written; trying again");
                    sleep(STORE_RETRY).await;
                }
            }
        };
        for (index, reason) in &refused {
            if let Some(work) = works.get(*index) {
                self.store_dead_letter(work, reason).await;
            }
        }
        for message in &messages {
            acknowledge(message).await;
        }
        self.metrics.attempted(B::POOL, "done", started.elapsed());
    }

    async fn read(&self, consumer: &PullConsumer) -> Vec<Arrival> {
        let mut batch = Vec::new();
        let first = consumer.batch().max_messages(1).expires(FIRST_WAIT).messages().await;
        self.collect(first.map_err(|error| error.to_string()), &mut batch).await;
        if !batch.is_empty() && self.size.max > 1 {
            sleep(self.size.linger).await;
            let rest =
                consumer.fetch().max_messages(self.size.max - 1).max_bytes(self.settings.window_bytes_max);
            let rest = rest.messages().await;
            self.collect(rest.map_err(|error| error.to_string()), &mut batch).await;
        }
        batch
    }

    async fn collect(&self, messages: Result<Batch, String>, batch: &mut Vec<Arrival>) {
        let mut messages = match messages {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(pool = %B::POOL, %error, "the stream cannot be read; trying again");
                return sleep(STORE_RETRY).await;
            }
        };
        while let Some(Ok(message)) = messages.next().await {
            batch.push(intake::arrive(0, B::STREAM, message, None));
        }
    }

    async fn bury(&self, arrival: &Arrival, reason: &str) {
        self.store_dead_letter(&arrival.work, reason).await;
        acknowledge(&arrival.message).await;
    }

    async fn store_dead_letter(&self, work: &Work, reason: &str) {
        self.metrics.attempted(B::POOL, "dead", Duration::ZERO);
        tracing::warn!(pool = %B::POOL, tenant = %work.head.tenant, update = %work.head.id, reason, "went to the dead letters");
        while let Err(error) = dead::bury(&self.log, B::POOL, B::STREAM, work, reason).await {
            tracing::warn!(pool = %B::POOL, %error, "a dead letter is not stored yet; trying again");
            sleep(STORE_RETRY).await;
        }
    }
}
