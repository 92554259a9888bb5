//! A pool that works on whole batches in stream order: the journal.
//!
//! The pool is one partition, whole: it reads with one consumer, writes what it read in one transaction, and
//! only then acknowledges. While a batch is written the next one is read, and waits. An update
//! the batch refuses goes to the dead letters by itself; a failing store stops the pool from advancing and
//! nothing is lost. While it is paused it holds what it read, unwritten and unacknowledged.

use super::consumer::{self, Wanted};
use super::dead;
use super::dead_class::DeadClass;
use super::intake::{self, Arrival, Reading, acknowledge};
use super::job::Work;
use super::linger::Linger;
use super::log::Log;
use super::metrics::{Change, Metrics};
use super::partitions::connects_of;
use super::pool::Host;
use super::settings::PoolSettings;
use super::tuning::Tuning;
use ackline_engine::verdict::VerdictKind;
use ackline_ownership::lease::Lease;
use ackline_ownership::membership::Participant;
use ackline_ownership::standing::State;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::Family;
use ackline_shared::shutdown::ended;
use ackline_shared::subjects::{self, Partition, Pool};
use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::consumer::PullConsumer;
use async_nats::jetstream::consumer::pull::Batch;
use async_nats::jetstream::stream::{ConsumerError, ConsumerErrorKind};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout};

/// Pause after the store failed.
const STORE_RETRY: Duration = Duration::from_secs(1);
/// Longest a read waits for something to happen.
const FIRST_WAIT: Duration = Duration::from_secs(5);
/// Pause after the pool could not be read, before it is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(500);
/// How often ownership is looked after when nothing happens.
const PULSE: Duration = Duration::from_millis(200);
const WHOLE: Partition = Partition(0);

pub trait BatchJob: Send + Sync + 'static {
    const POOL: Pool;
    /// The stream it reads.
    const STREAM: &'static str;

    /// Whether it works on what comes under a subject; the rest is passed over.
    fn reads(_subject: &str) -> bool {
        true
    }

    /// Works on a batch as a whole; doing the same batch again changes nothing. Gives the refused ones by index, with the reason.
    fn run(
        &self,
        batch: &[Work],
    ) -> impl Future<Output = Result<Vec<(usize, String)>, String>> + Send;

    /// Hears that something was worked on and acknowledged before, perhaps by another process, that the stream still holds.
    fn resumes(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }

    /// Waits until all of the stream is to be worked on once more; never ends for work that is never begun anew.
    fn begins_anew(&self) -> impl Future<Output = ()> + Send {
        std::future::pending()
    }

    /// Gets ready for all of the stream; done again after a failure, or a crash before [`Self::begun_anew`].
    fn begin_anew(&self) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }

    /// Hears that all of the stream will come.
    fn begun_anew(&self) -> impl Future<Output = Result<(), String>> + Send {
        std::future::ready(Ok(()))
    }
}

/// How large a batch may be, and how long it waits to fill while little comes.
#[derive(Debug, Clone, Copy)]
pub struct BatchSize {
    pub max: usize,
    pub linger: Duration,
}

/// Batches that may be unacknowledged: one is written, one waits, one is read.
const BATCHES_AT_ONCE: usize = 3;

/// Runs the pool until the signal, taking it over whenever it is free.
pub async fn run<B: BatchJob>(job: B, settings: PoolSettings, size: BatchSize, mut host: Host) {
    let participant = host.membership.participate(B::POOL, 1);
    let (metrics, standing) = (host.metrics.clone(), host.standing.clone());
    let (log, tuning) = (host.platform.log.clone(), host.platform.tuning.clone());
    let settings = PoolSettings {
        window: settings
            .window
            .max(size.max.saturating_mul(BATCHES_AT_ONCE)),
        window_bytes_max: settings.window_bytes_max / BATCHES_AT_ONCE,
        ..settings
    };
    let reader = Reader {
        job,
        log,
        settings,
        size,
        metrics,
        tuning,
    };
    loop {
        standing.set(B::POOL, State::Starting);
        let won = tokio::select! {
            () = ended(&mut host.shutdown) => return,
            won = win(&participant, || standing.set(B::POOL, State::StandingBy)) => won,
        };
        tracing::info!(pool = %B::POOL, epoch = won.epoch(), "this process owns the pool");
        standing.set(B::POOL, State::Opening);
        reader.metrics.owns(B::POOL, BTreeSet::from([WHOLE]));
        reader
            .metrics
            .changed_hands(B::POOL, Change::Taken, Duration::ZERO);
        let is_to_end = tokio::select! {
            () = ended(&mut host.shutdown) => true,
            () = over(&participant, &won, &reader.log) => false,
            () = reader.show_pauses() => false,
            () = reader.work(&won, || standing.set(B::POOL, State::Working)) => false,
            // What it reads now is forgotten, and comes again.
            () = reader.job.begins_anew() => {
                reader.begin_anew(&won).await;
                false
            }
        };
        tracing::info!(pool = %B::POOL, "this process gave the pool up");
        reader.metrics.owns(B::POOL, BTreeSet::new());
        if is_to_end {
            participant.withdraw();
        }
        if won.is_current() && participant.release(&won).await {
            reader
                .metrics
                .changed_hands(B::POOL, Change::Given, Duration::ZERO);
        }
        if is_to_end {
            return;
        }
        sleep(REOPEN_PAUSE).await;
    }
}

/// Waits until the pool is won.
async fn win(participant: &Participant, stand_by: impl Fn()) -> Lease {
    let mut changes = participant.changes();
    loop {
        if let Some(claimable) = participant.plan(&BTreeMap::new()).claim.first() {
            match participant.claim(claimable).await {
                Ok(lease) => return lease,
                Err(error) => {
                    tracing::debug!(pool = %participant.pool(), %error, "the pool was not won")
                }
            }
        } else if participant.is_informed() {
            stand_by();
        }
        let _changed_or_late = timeout(PULSE, changes.changed()).await;
    }
}

/// Waits until the pool is to be given up, is lost, or may have lost messages on their way to us.
async fn over(participant: &Participant, lease: &Lease, log: &Log) {
    let mut changes = participant.changes();
    let (held, connected) = (
        BTreeMap::from([(WHOLE, Some(lease.token()))]),
        connects_of(log.bulk()),
    );
    loop {
        let plan = participant.plan(&held);
        let is_called = !plan.leave.is_empty() || !plan.lost.is_empty();
        if is_called || !lease.is_current() || connects_of(log.bulk()) != connected {
            return;
        }
        let _changed_or_late = timeout(PULSE, changes.changed()).await;
    }
}

fn is_missing(error: &ConsumerError) -> bool {
    matches!(error.kind(), ConsumerErrorKind::JetStream(cause) if cause.error_code() == ErrorCode::CONSUMER_NOT_FOUND)
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
    /// Shows whether the pool is paused; never ends.
    async fn show_pauses(&self) {
        let mut tuning = self.tuning.clone();
        loop {
            let is_paused = tuning
                .table()
                .pool(B::POOL)
                .is_some_and(|entry| entry.value.paused);
            self.metrics.limited(B::POOL, 1, is_paused);
            tuning.changed().await;
        }
    }

    /// Has the job begin anew, and the consumer read from the start of the stream.
    async fn begin_anew(&self, lease: &Lease) {
        let name = subjects::consumer(B::POOL, WHOLE, subjects::WHOLE_LANE);
        let begun = async {
            self.job.begin_anew().await?;
            if !lease.is_current() {
                return Err("the pool is not this process's own any more".to_owned());
            }
            let stream = self.log.context().get_stream_no_info(B::STREAM).await;
            let deleted = stream
                .map_err(|error| error.to_string())?
                .delete_consumer(&name)
                .await;
            if let Err(error) = deleted
                && !is_missing(&error)
            {
                return Err(error.to_string());
            }
            self.job.begun_anew().await
        };
        if let Err(error) = begun.await {
            tracing::error!(pool = %B::POOL, error, "the pool could not begin anew; trying again");
            sleep(STORE_RETRY).await;
        }
    }

    /// Works until the consumer cannot be opened; cancelling it anywhere is harmless.
    async fn work(&self, lease: &Lease, opened: impl FnOnce()) {
        let name = subjects::consumer(B::POOL, WHOLE, subjects::WHOLE_LANE);
        let wanted = Wanted {
            stream: B::STREAM,
            name: &name,
            filters: Vec::new(),
            is_narrow: false,
            settings: &self.settings,
        };
        let consumer = match consumer::open_on_disk(self.log.bulk(), &wanted).await {
            Ok(opened) => opened.consumer,
            Err(error) => return tracing::warn!(pool = %B::POOL, %error, "trying again"),
        };
        match self.is_resumed(&consumer).await {
            Ok(true) => self.job.resumes().await,
            Ok(false) => {}
            Err(error) => return tracing::warn!(pool = %B::POOL, error, "trying again"),
        }
        opened();
        let reading = Reading {
            lease: lease.clone(),
            session: 0,
        };
        let (read, unwritten) = mpsc::channel(1);
        tokio::join!(
            self.read_all(&consumer, &reading, read),
            self.write_all(&reading, unwritten)
        );
    }

    /// Whether the stream still holds something that was acknowledged.
    async fn is_resumed(&self, consumer: &PullConsumer) -> Result<bool, String> {
        let stream = self
            .log
            .context()
            .get_stream(B::STREAM)
            .await
            .map_err(|error| error.to_string())?;
        let first = stream.cached_info().state.first_sequence.max(1);
        Ok(consumer.cached_info().ack_floor.stream_sequence >= first)
    }

    /// Reads one batch after another, no further ahead than the one that waits.
    async fn read_all(
        &self,
        consumer: &PullConsumer,
        reading: &Reading,
        unwritten: mpsc::Sender<Vec<Arrival>>,
    ) {
        let mut linger = Linger::new(self.size.linger);
        loop {
            let batch = self.read(consumer, reading, linger.next()).await;
            linger.had(batch.len(), self.size.max);
            if !batch.is_empty() && unwritten.send(batch).await.is_err() {
                return;
            }
        }
    }

    async fn write_all(&self, reading: &Reading, mut read: mpsc::Receiver<Vec<Arrival>>) {
        while let Some(batch) = read.recv().await {
            self.tuning.unpaused(B::POOL).await;
            if reading.lease.is_current() {
                self.write(batch).await;
            }
        }
    }

    /// Writes a batch and acknowledges it. Cancelling it anywhere is harmless: the batch comes again.
    async fn write(&self, mut batch: Vec<Arrival>) {
        let started = Instant::now();
        if let Some(first) = batch.first() {
            let age = now_ms().saturating_sub(first.head.received_ms);
            self.metrics.started(B::POOL, Duration::from_millis(age));
        }
        let mut presences = Vec::with_capacity(batch.len());
        for arrival in &batch {
            let mut presence = self.metrics.entered(B::POOL, &arrival.head.tenant);
            self.metrics.read(B::POOL, &arrival.head);
            // The edge exports nothing; its work is told by the one pool that reads every update.
            if let (Family::Update(_), Some(at)) =
                (arrival.head.family, arrival.message.stored_at())
            {
                self.metrics.traces().edge(&arrival.head, at);
            }
            presence.run();
            presences.push(presence);
        }
        let (readable, defects): (Vec<_>, Vec<_>) = batch
            .drain(..)
            .partition(|arrival| arrival.defect.is_none());
        for arrival in defects {
            let reason = arrival.defect.clone().unwrap_or_default();
            self.bury(&arrival, &reason).await;
        }
        let (works, messages): (Vec<Work>, Vec<_>) = readable
            .into_iter()
            .map(|arrival| (arrival.work(Arc::default()), arrival.message))
            .unzip();
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
        self.metrics.finished(B::POOL, messages.len());
        self.metrics
            .attempted(B::POOL, VerdictKind::Done, started.elapsed());
    }

    async fn read(
        &self,
        consumer: &PullConsumer,
        reading: &Reading,
        linger: Duration,
    ) -> Vec<Arrival> {
        let mut batch = Vec::new();
        let first = consumer
            .batch()
            .max_messages(1)
            .expires(FIRST_WAIT.min(reading.lease.request_life()))
            .messages()
            .await;
        self.collect(
            first.map_err(|error| error.to_string()),
            reading,
            &mut batch,
        )
        .await;
        if !batch.is_empty() && self.size.max > 1 {
            sleep(linger).await;
            let rest = consumer
                .fetch()
                .max_messages(self.size.max - 1)
                .max_bytes(self.settings.window_bytes_max);
            let rest = rest.messages().await;
            self.collect(rest.map_err(|error| error.to_string()), reading, &mut batch)
                .await;
        }
        batch
    }

    async fn collect(
        &self,
        messages: Result<Batch, String>,
        reading: &Reading,
        batch: &mut Vec<Arrival>,
    ) {
        let mut messages = match messages {
            Ok(messages) => messages,
            Err(error) => {
                tracing::warn!(pool = %B::POOL, %error, "the stream cannot be read; trying again");
                return sleep(STORE_RETRY).await;
            }
        };
        while let Some(Ok(message)) = messages.next().await {
            if B::reads(&message.subject) {
                batch.push(intake::arrive(0, B::STREAM, message, None, reading.clone()));
            } else {
                acknowledge(&message.into()).await;
            }
        }
    }

    async fn bury(&self, arrival: &Arrival, reason: &str) {
        self.store_dead_letter(&arrival.work(Arc::default()), reason)
            .await;
        acknowledge(&arrival.message).await;
    }

    async fn store_dead_letter(&self, work: &Work, reason: &str) {
        self.metrics
            .attempted(B::POOL, VerdictKind::Dead, Duration::ZERO);
        tracing::warn!(pool = %B::POOL, tenant = %work.head.tenant, update = work.head.id.in_log(), reason, "went to the dead letters");
        while let Err(error) = dead::bury(&self.log, B::POOL, (B::STREAM, None), work, reason).await
        {
            tracing::warn!(pool = %B::POOL, %error, "a dead letter is not stored yet; trying again");
            sleep(STORE_RETRY).await;
        }
        self.metrics
            .buried(B::POOL, &work.head.tenant, DeadClass::of(reason));
    }
}
