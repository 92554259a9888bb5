//! The replay runner: every process with one takes what nobody else holds, one of each tenant at a time.

use super::letters::{self, DeadLetters};
use ackline_ownership::lock::Lock;
use ackline_runtime::upkeep::connects;
use ackline_shared::ids::TenantId;
use ackline_shared::shutdown::{Shutdown, ended};
use async_nats::jetstream::kv::Operation;
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Jobs carried out at once by a process.
const RUNNING_MAX: usize = 16;
const TICK: Duration = Duration::from_secs(1);
const REOPEN_PAUSE: Duration = Duration::from_secs(2);

impl DeadLetters {
    /// Carries a job out if nobody else does; tells whether it was ours to try.
    pub async fn take_up(&self, id: &str, instance: &str, ttl: Duration) -> bool {
        let lock = Lock::new(self.locks.clone(), &format!("replay.{id}"), instance, ttl);
        let Some(mut held) = lock.ask().await else {
            return false;
        };
        let carried = lock.hold_while(&mut held, self.carry_out(id)).await;
        match carried {
            Some(result) => {
                if let Err(error) = result {
                    tracing::warn!(job = id, %error, "a job is interrupted and will be taken up again");
                }
                lock.release(held).await;
            }
            None => tracing::warn!(job = id, "a job goes to another process"),
        }
        true
    }
}

/// Takes jobs up until the signal.
pub async fn run(
    dead_letters: DeadLetters,
    instance: String,
    ttl: Duration,
    mut shutdown: Shutdown,
) {
    loop {
        tokio::select! {
            () = ended(&mut shutdown) => return,
            () = work(&dead_letters, &instance, ttl) => {}
        }
        tokio::select! {
            () = ended(&mut shutdown) => return,
            () = sleep(REOPEN_PAUSE) => {}
        }
    }
}

/// Follows the jobs until the watch breaks.
async fn work(dead_letters: &DeadLetters, instance: &str, ttl: Duration) {
    let mut watch = match dead_letters
        .store
        .watch_many_with_history([letters::every_job()])
        .await
    {
        Ok(watch) => watch,
        Err(error) => return tracing::warn!(%error, "the replays cannot be watched; trying again"),
    };
    // Whose each job is: a tenant's slow one holds up only the tenant's own.
    let (mut wanted, mut taken) = (BTreeMap::new(), BTreeMap::new());
    let mut running: JoinSet<String> = JoinSet::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let client = dead_letters.log.context().client();
    let connected = connects(&client);
    loop {
        tokio::select! {
            entry = watch.next() => {
                let Some(Ok(entry)) = entry else { return };
                let job = letters::read(&entry.value).filter(|_| entry.operation == Operation::Put);
                match job {
                    Some(job) if job.state.is_final() => wanted.remove(&job.id),
                    Some(job) => wanted.insert(job.id, job.tenant),
                    None => continue,
                };
            }
            Some(finished) = running.join_next() => match finished {
                Ok(id) => { taken.remove(&id); }
                // A bug in one job: the watch begins anew and the others go on.
                Err(error) => return tracing::error!(%error, "carrying out a job broke"),
            },
            _ = tick.tick() => {}
        }
        if connects(&client) != connected && running.is_empty() {
            return;
        }
        let mut served: BTreeSet<Option<TenantId>> = taken.values().cloned().collect();
        for (id, tenant) in &wanted {
            if running.len() >= RUNNING_MAX
                || taken.contains_key(id)
                || !served.insert(tenant.clone())
            {
                continue;
            }
            taken.insert(id.clone(), tenant.clone());
            let (dead_letters, instance, id) =
                (dead_letters.clone(), instance.to_owned(), id.clone());
            running.spawn(async move {
                if !dead_letters.take_up(&id, &instance, ttl).await {
                    sleep(TICK).await;
                }
                id
            });
        }
    }
}
