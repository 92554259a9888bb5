//! Taking orders up: every process with a clerk takes what nobody else holds, one of each tenant at a time.

use super::office::{self, Office};
use crate::core::lock::Lock;
use crate::core::pool::{Shutdown, ended};
use crate::core::upkeep::connects;
use ackline_shared::ids::TenantId;
use async_nats::jetstream::kv::Operation;
use futures_util::StreamExt;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// Orders carried out at once by a process.
const RUNNING_MAX: usize = 16;
const TICK: Duration = Duration::from_secs(1);
const REOPEN_PAUSE: Duration = Duration::from_secs(2);

impl Office {
    /// Carries an order out if nobody else does; tells whether it was ours to try.
    pub async fn take_up(&self, id: &str, instance: &str, ttl: Duration) -> bool {
        let lock = Lock::new(self.locks.clone(), &format!("replay.{id}"), instance, ttl);
        let Some(mut held) = lock.ask().await else {
            return false;
        };
        let carried = lock.hold_while(&mut held, self.carry_out(id)).await;
        match carried {
            Some(result) => {
                if let Err(error) = result {
                    tracing::warn!(order = id, %error, "an order is interrupted and will be taken up again");
                }
                lock.release(held).await;
            }
            None => tracing::warn!(order = id, "an order goes to another process"),
        }
        true
    }
}

/// Takes orders up until the signal.
pub async fn run(office: Office, instance: String, ttl: Duration, mut shutdown: Shutdown) {
    loop {
        tokio::select! {
            () = ended(&mut shutdown) => return,
            () = work(&office, &instance, ttl) => {}
        }
        tokio::select! {
            () = ended(&mut shutdown) => return,
            () = sleep(REOPEN_PAUSE) => {}
        }
    }
}

/// Follows the orders until the watch breaks.
async fn work(office: &Office, instance: &str, ttl: Duration) {
    let mut watch = match office
        .store
        .watch_many_with_history([office::every_order()])
        .await
    {
        Ok(watch) => watch,
        Err(error) => return tracing::warn!(%error, "the replays cannot be watched; trying again"),
    };
    // Whose each order is: a tenant's slow one holds up only the tenant's own.
    let (mut wanted, mut taken) = (BTreeMap::new(), BTreeMap::new());
    let mut running: JoinSet<String> = JoinSet::new();
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let client = office.log.context().client();
    let connected = connects(&client);
    loop {
        tokio::select! {
            entry = watch.next() => {
                let Some(Ok(entry)) = entry else { return };
                let order = office::read(&entry.value).filter(|_| entry.operation == Operation::Put);
                match order {
                    Some(order) if order.state.is_final() => wanted.remove(&order.id),
                    Some(order) => wanted.insert(order.id, order.tenant),
                    None => continue,
                };
            }
            Some(finished) = running.join_next() => match finished {
                Ok(id) => { taken.remove(&id); }
                // A bug in one order: the watch begins anew and the others go on.
                Err(error) => return tracing::error!(%error, "carrying out an order broke"),
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
            let (office, instance, id) = (office.clone(), instance.to_owned(), id.clone());
            running.spawn(async move {
                if !office.take_up(&id, &instance, ttl).await {
                    sleep(TICK).await;
                }
                id
            });
        }
    }
}
