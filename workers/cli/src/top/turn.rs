//! What the keys of `ackline top` turn: read, changed, checked and written over what was read.

use ackline_runtime::settings::Concurrency;
use ackline_runtime::tuning::{
    PoolTuning, Stamped, TenantTuning, TuningError, TuningMistake, TuningStore, check_pool,
    check_tenant,
};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::TenantId;
use ackline_shared::nats;
use ackline_shared::subjects::{self, Pool, tuning_key};
use async_nats::Client;

/// What is to be turned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turn {
    pub pool: Pool,
    /// The tenant, when only its work in the pool is meant.
    pub tenant: Option<TenantId>,
    pub way: Way,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// Paused, or going on when it is paused.
    Pause,
    /// This many jobs at once in each process.
    Jobs(u32),
}

#[derive(Debug, thiserror::Error)]
pub enum TurnError {
    /// The bucket is not there, or cannot be reached.
    #[error("the live settings cannot be opened: {0}")]
    Closed(String),
    /// It could not be read or written.
    #[error(transparent)]
    Tuning(#[from] TuningError),
    /// The value is not allowed.
    #[error("{0}")]
    Mistake(TuningMistake),
}

/// Turns it, in the name of `by`, and says what was done; `configured` is what the pools may run at once otherwise.
pub async fn turn(
    client: &Client,
    turn: &Turn,
    by: &str,
    configured: &Concurrency,
) -> Result<String, TurnError> {
    let context = nats::jetstream(client.clone());
    let bucket = context.get_key_value(subjects::BUCKET_TUNING).await;
    let store = TuningStore::new(bucket.map_err(|error| TurnError::Closed(error.to_string()))?);
    let lanes = turn.pool.lane_names();
    match &turn.tenant {
        None => {
            let key = tuning_key::pool(turn.pool);
            let (revision, entry) = store.read::<PoolTuning>(&key).await?;
            let mut value = entry.map(|entry| entry.value).unwrap_or_default();
            let done = apply(turn.way, &mut value.paused, &mut value.concurrency);
            refuse(check_pool(&value, &lanes, configured.of(turn.pool)))?;
            let stamped = Stamped {
                value,
                by: by.to_owned(),
                at_ms: now_ms(),
                platform: true,
            };
            store.write(&key, &stamped, revision).await?;
            Ok(format!("{}: {done}", turn.pool))
        }
        Some(tenant) => {
            let key = tuning_key::tenant(turn.pool, tenant);
            let (revision, entry) = store.read::<TenantTuning>(&key).await?;
            let mut value = entry.map(|entry| entry.value).unwrap_or_default();
            let done = apply(turn.way, &mut value.paused, &mut value.in_flight_max);
            refuse(check_tenant(&value, &lanes))?;
            let stamped = Stamped {
                value,
                by: by.to_owned(),
                at_ms: now_ms(),
                platform: true,
            };
            store.write(&key, &stamped, revision).await?;
            Ok(format!("{tenant} in {}: {done}", turn.pool))
        }
    }
}

fn apply(way: Way, paused: &mut bool, jobs: &mut Option<u32>) -> String {
    match way {
        Way::Pause => {
            *paused = !*paused;
            if *paused {
                "paused".to_owned()
            } else {
                "goes on".to_owned()
            }
        }
        Way::Jobs(count) => {
            *jobs = Some(count);
            format!("{count} jobs at once in each process")
        }
    }
}

fn refuse(mistakes: Vec<TuningMistake>) -> Result<(), TurnError> {
    mistakes
        .into_iter()
        .next()
        .map_or(Ok(()), |mistake| Err(TurnError::Mistake(mistake)))
}
