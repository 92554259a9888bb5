//! This process among the others: one key that says it is alive, and a view of who else is and who owns what.
//!
//! Whatever a process runs, it renews a single key. Ownership is recorded apart, in a bucket whose entries do
//! not expire, and changes only by compare-and-set. Both buckets are watched, so an idle process asks nothing.
//! A bucket that disappears is made again as it was; what it said is said again by those it was about.

use super::lease::{FencingToken, Freshness, Lease, Moment};
use super::members::{Member, Members};
use super::owners::{self, Claimable, Owner, Owners, Plan, Recorded};
use ackline_shared::clock::now_ms;
use ackline_shared::nats::Buckets;
use ackline_shared::stored::{self, Stored};
use ackline_shared::subjects::{Partition, Pool, owner_key, parse_owner_key};
use async_nats::jetstream::Context;
use async_nats::jetstream::kv::{Entry, Operation, Store, Watch};
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

/// Longest time between two renewals.
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// Longest wait for an answer to a claim or a release.
const ANSWER_WAIT: Duration = Duration::from_secs(3);
/// Pause before a broken watch is opened again.
const REOPEN_PAUSE: Duration = Duration::from_millis(200);
/// How often a silent watch is looked after.
const WATCH_CHECK: Duration = Duration::from_millis(500);
/// How many silent looks pass before the bucket of owners is asked whether the watch has missed something.
const CHECKS_PER_QUESTION: u32 = 10;
/// Failed renewals after which the buckets are made again, should they be gone.
const FAILURES_MAX: u32 = 2;
/// Just after somebody's life ends, our own renewal proves it.
const EXPIRY_MARGIN: Duration = Duration::from_millis(5);

/// The process's membership; cheap to clone. When the last handle is gone, nothing renews it any more.
#[derive(Debug, Clone)]
pub struct Membership(Arc<Running>);

#[derive(Debug)]
struct Running {
    shared: Arc<Shared>,
    tasks: Vec<AbortHandle>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.iter().for_each(AbortHandle::abort);
    }
}

#[derive(Debug)]
struct Shared {
    instance: String,
    context: Context,
    members: Store,
    owners: Store,
    interval: Duration,
    freshness: Arc<Freshness>,
    view: Mutex<View>,
    changes: watch::Sender<u64>,
    renew_now: Notify,
}

#[derive(Debug)]
struct View {
    members: Members,
    owners: Owners,
    knows_members: bool,
    knows_owners: bool,
    takes_part_in: BTreeSet<Pool>,
}

/// Why a partition could not be claimed.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// Our own membership is not fresh.
    #[error("this process is not known to be alive")]
    Stale,
    /// Somebody else was first, or NATS did not answer.
    #[error("the claim was not recorded: {0}")]
    Refused(String),
}

impl Membership {
    /// Joins under a name that no other process has or had.
    pub fn join(context: &Context, buckets: &Buckets, instance: &str, ttl: Duration) -> Self {
        let members = buckets.leases.clone();
        let bucket_ttl = members.stream.cached_info().config.max_age;
        let ttl = if bucket_ttl.is_zero() {
            ttl
        } else {
            ttl.min(bucket_ttl)
        };
        let interval = (ttl / 4).min(INTERVAL_MAX);
        let view = View {
            members: Members::new(instance, interval.mul_f64(2.5)),
            owners: Owners::default(),
            knows_members: false,
            knows_owners: false,
            takes_part_in: BTreeSet::new(),
        };
        let shared = Arc::new(Shared {
            instance: instance.to_owned(),
            context: context.clone(),
            members,
            owners: buckets.owners.clone(),
            interval,
            freshness: Arc::new(Freshness::new(ttl)),
            view: Mutex::new(view),
            changes: watch::channel(0).0,
            renew_now: Notify::new(),
        });
        let tasks = vec![
            tokio::spawn(renew(shared.clone())).abort_handle(),
            tokio::spawn(follow_members(shared.clone())).abort_handle(),
            tokio::spawn(follow_owners(shared.clone())).abort_handle(),
        ];
        Self(Arc::new(Running { shared, tasks }))
    }

    /// Takes part in a pool of so many partitions.
    pub fn participate(&self, pool: Pool, units: u16) -> Participant {
        let shared = &self.0.shared;
        shared.view().takes_part_in.insert(pool);
        shared.renew_now.notify_one();
        Participant {
            membership: self.clone(),
            pool,
            units,
        }
    }

    /// Says goodbye, so that nobody waits for this process's life to end; for the end of the process.
    pub async fn leave(&self) {
        self.0.tasks.iter().for_each(AbortHandle::abort);
        let shared = &self.0.shared;
        if !matches!(
            timeout(ANSWER_WAIT, shared.members.purge(&shared.instance)).await,
            Ok(Ok(()))
        ) {
            tracing::debug!("the goodbye was not stored; the membership will expire");
        }
    }
}

/// The part this process takes in a pool; dropping it ends that.
#[derive(Debug)]
pub struct Participant {
    membership: Membership,
    pool: Pool,
    units: u16,
}

impl Drop for Participant {
    fn drop(&mut self) {
        self.withdraw();
    }
}

impl Participant {
    fn shared(&self) -> &Shared {
        &self.membership.0.shared
    }

    pub fn pool(&self) -> Pool {
        self.pool
    }

    /// Changes whenever there may be something new to plan.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared().changes.subscribe()
    }

    /// What to do, given what is held; nothing while it is not known who is alive and who owns what.
    pub fn plan(&self, held: &BTreeMap<Partition, Option<FencingToken>>) -> Plan {
        let shared = self.shared();
        let view = shared.view();
        if !view.knows_members || !view.knows_owners || shared.freshness.fresh().is_none() {
            return Plan::default();
        }
        let takes_part = view.takes_part_in.contains(&self.pool);
        let me = owners::Me {
            instance: &shared.instance,
            takes_part,
        };
        owners::plan(me, self.pool, self.units, &view.members, &view.owners, held)
    }

    /// Whether it is known who is alive and who owns what.
    pub fn is_informed(&self) -> bool {
        let view = self.shared().view();
        view.knows_members && view.knows_owners && self.is_fresh()
    }

    /// Whether this process is known to be alive.
    pub fn is_fresh(&self) -> bool {
        self.shared().freshness.fresh().is_some()
    }

    /// Whether somebody else may soon take over what this process owned.
    pub fn is_over(&self) -> bool {
        self.shared().freshness.is_over()
    }

    /// Claims a partition; exactly one of those who claim it wins.
    pub async fn claim(&self, claimable: &Claimable) -> Result<Lease, ClaimError> {
        let shared = self.shared();
        let lapses = shared.freshness.fresh().ok_or(ClaimError::Stale)?;
        let bucket = shared.view().owners.bucket();
        // Time keeps epochs growing even when the bucket and all it said were lost.
        let epoch = now_ms().max(claimable.epoch.saturating_add(1));
        let owner = Owner {
            instance: shared.instance.clone(),
            epoch,
            released: false,
        };
        let revision = self
            .record(claimable.partition, owner, claimable.revision)
            .await?;
        let token = FencingToken {
            revision,
            epoch,
            bucket,
        };
        Ok(Lease::new(
            claimable.partition,
            token,
            lapses,
            shared.freshness.clone(),
        ))
    }

    /// Gives a partition up; false when that could not be recorded.
    pub async fn release(&self, lease: &Lease) -> bool {
        let token = lease.token();
        let owner = Owner {
            instance: self.shared().instance.clone(),
            epoch: token.epoch,
            released: true,
        };
        self.record(lease.partition(), owner, token.revision)
            .await
            .is_ok()
    }

    async fn record(
        &self,
        partition: Partition,
        owner: Owner,
        revision: u64,
    ) -> Result<u64, ClaimError> {
        let shared = self.shared();
        let key = owner_key(self.pool, partition);
        let answer = timeout(
            ANSWER_WAIT,
            shared
                .owners
                .update(&key, stored::encode(&owner).into(), revision),
        )
        .await;
        let revision = answer
            .map_err(|_| ClaimError::Refused("no answer in time".to_owned()))?
            .map_err(|error| ClaimError::Refused(error.to_string()))?;
        shared.view().owners.hear(
            self.pool,
            partition,
            Recorded {
                revision,
                owner: Some(owner),
            },
        );
        Ok(revision)
    }

    /// Takes no part any more; what is held is to be given up.
    pub fn withdraw(&self) {
        let shared = self.shared();
        if shared.view().takes_part_in.remove(&self.pool) {
            shared.renew_now.notify_one();
            shared.announce();
        }
    }
}

impl Shared {
    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn announce(&self) {
        self.changes
            .send_modify(|count| *count = count.wrapping_add(1));
    }

    fn connects(&self) -> u64 {
        self.context
            .client()
            .statistics()
            .connects
            .load(Ordering::Relaxed)
    }

    fn member(&self) -> Member {
        let pools = self
            .view()
            .takes_part_in
            .iter()
            .map(|pool| pool.as_str().to_owned())
            .collect();
        Member {
            pools,
            ttl_ms: u64::try_from(self.freshness.ttl().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// How long until the next renewal: sooner when it will prove that somebody is dead.
    fn pause(&self) -> Duration {
        let expiry = self.view().members.next_expiry();
        let until = expiry.and_then(|at| at.checked_duration_since(Instant::now()));
        until.map_or(self.interval, |until| {
            self.interval.min(until + EXPIRY_MARGIN)
        })
    }

    /// Waits until this process is known to be alive: before that, there is no use in watching.
    async fn renewed(&self) {
        let mut changes = self.changes.subscribe();
        while self.freshness.fresh().is_none() {
            if timeout(self.interval, changes.changed())
                .await
                .is_ok_and(|changed| changed.is_err())
            {
                return std::future::pending().await;
            }
        }
    }

    /// Makes the buckets again as they were, should they be gone; harmless when they are not.
    async fn restore(&self) {
        for store in [&self.members, &self.owners] {
            let config = store.stream.cached_info().config.clone();
            if let Err(error) = self.context.get_or_create_stream(config).await {
                tracing::debug!(bucket = store.name, %error, "the bucket cannot be restored yet");
            }
        }
    }
}

async fn renew(shared: Arc<Shared>) {
    let mut failures = 0_u32;
    loop {
        let asked = Moment::now();
        let put = shared
            .members
            .put(&shared.instance, stored::encode(&shared.member()).into());
        match timeout(shared.interval, put).await {
            Ok(Ok(_)) => {
                failures = 0;
                if shared.freshness.renewed(asked) {
                    shared.announce();
                }
            }
            Ok(Err(error)) => {
                failures += 1;
                tracing::warn!(%error, "this process could not say that it is alive; trying again");
                if failures.is_multiple_of(FAILURES_MAX) {
                    shared.restore().await;
                }
            }
            Err(_) => {
                tracing::warn!(
                    "NATS did not answer in time whether this process is alive; trying again"
                )
            }
        }
        tokio::select! {
            () = sleep(shared.pause()) => {}
            () = shared.renew_now.notified() => {}
        }
    }
}

async fn follow_members(shared: Arc<Shared>) {
    loop {
        shared.renewed().await;
        if let Err(error) = read_members(&shared).await {
            tracing::debug!(%error, "the watch of the processes ended; opening it again");
        }
        sleep(REOPEN_PAUSE).await;
    }
}

/// Follows the memberships until the watch breaks or our own renewals do not come back by it.
async fn read_members(shared: &Shared) -> Result<(), async_nats::Error> {
    let mut watch = open(&shared.members).await?;
    let connects = shared.connects();
    let (mut is_whole, mut echoed) = (false, Instant::now());
    loop {
        let next = next(&mut watch).await?;
        if shared.connects() != connects {
            return Err("the connection was renewed".into());
        }
        if echoed.elapsed() > shared.interval * 4 {
            return Err("our own renewals did not come back".into());
        }
        let Some(entry) = next else { continue };
        let now = Instant::now();
        let member: Option<Member> = read_value(&entry);
        if entry.key == shared.instance {
            echoed = now;
        }
        let mut view = shared.view();
        let mut is_new = view.members.hear(&entry.key, member, now);
        if !is_whole && entry.delta == 0 {
            // Whoever was known before and is missing here may be alive and about to come back: an outage
            // empties this bucket. The dead among them die by the clock.
            is_whole = true;
            view.knows_members = true;
            is_new = true;
        }
        drop(view);
        if is_new {
            shared.announce();
        }
    }
}

async fn follow_owners(shared: Arc<Shared>) {
    loop {
        shared.renewed().await;
        if let Err(error) = read_owners(&shared).await {
            tracing::debug!(%error, "the watch of the owners ended; opening it again");
            shared.restore().await;
        }
        sleep(REOPEN_PAUSE).await;
    }
}

/// Follows the ownership records until the watch breaks or turns out to have missed something.
async fn read_owners(shared: &Shared) -> Result<(), async_nats::Error> {
    let info = shared.owners.stream.get_info().await?;
    let life = info.created.unix_timestamp_nanos();
    let connects = shared.connects();
    let mut watch = open(&shared.owners).await?;
    let (mut last, mut silent) = (0, 0);
    {
        let mut view = shared.view();
        view.owners.restart(life);
        view.knows_owners = info.state.messages == 0;
    }
    shared.announce();
    loop {
        let next = next(&mut watch).await?;
        if shared.connects() != connects {
            return Err("the connection was renewed".into());
        }
        let Some(entry) = next else {
            silent += 1;
            if silent % CHECKS_PER_QUESTION == 0 {
                let info = shared.owners.stream.get_info().await?;
                if info.created.unix_timestamp_nanos() != life || info.state.last_sequence > last {
                    return Err("something was missed".into());
                }
            }
            continue;
        };
        (silent, last) = (0, entry.revision);
        let mut view = shared.view();
        if let Some((pool, partition)) = parse_owner_key(&entry.key) {
            let recorded = Recorded {
                revision: entry.revision,
                owner: read_value(&entry),
            };
            view.owners.hear(pool, partition, recorded);
        }
        view.knows_owners |= entry.delta == 0;
        drop(view);
        shared.announce();
    }
}

async fn open(store: &Store) -> Result<Watch, async_nats::Error> {
    Ok(store.watch_many_with_history([">"]).await?)
}

/// The next entry; none when there was none for a while.
async fn next(watch: &mut Watch) -> Result<Option<Entry>, async_nats::Error> {
    match timeout(WATCH_CHECK, watch.next()).await {
        Ok(Some(Ok(entry))) => Ok(Some(entry)),
        Ok(Some(Err(error))) => Err(error.into()),
        Ok(None) => Err("it ended".into()),
        Err(_) => Ok(None),
    }
}

/// What an entry says; nothing where it was deleted or does not read.
fn read_value<T: Stored>(entry: &Entry) -> Option<T> {
    if entry.operation != Operation::Put {
        return None;
    }
    let read = stored::decode(&entry.value);
    read.inspect_err(
        |error| tracing::warn!(bucket = entry.bucket, key = entry.key, %error, "this entry does not read"),
    )
    .ok()
}
