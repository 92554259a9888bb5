//! `ackline drain`: lets what a tenant sent until now be worked off, keeps what comes later, and waits for the end.
//!
//! How far it is comes from the processes that own the pool's partitions; the wait can be left at any moment, the
//! drain goes on.

use super::{TuneError, TuneTarget, open, pool_of, refuse, tenant_of, turn_tenant};
use crate::progress;
use crate::settings::Settings;
use crate::status_client::StatusClient;
use crate::{EXIT_FAILED, EXIT_OK, Outcome};
use ackline_fleet::fleet::PoolSum;
use ackline_runtime::status::TenantStatus;
use ackline_runtime::tuning::{Mode, TenantTuning};
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{Pool, tuning_key};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, interval, sleep_until};

/// How often the progress is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `ackline drain`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "What the tenant sent until now is worked on, what comes later is kept in order until `ackline resume`.\nExit status: 0 when nothing is left (or with --no-wait), 1 when something is left after --within, 64 bad input.\nCtrl-C ends the wait; the drain goes on."
)]
pub struct DrainArguments {
    #[command(flatten)]
    place: TuneTarget,
    /// Do not wait until nothing is left
    #[arg(long)]
    no_wait: bool,
    /// Longest wait, such as `90s`
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    within: Duration,
}

/// Where a drain stands, as far as the processes tell.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stand {
    /// Not everybody has heard of it, or read what was there.
    Unknown(&'static str),
    /// So much is left.
    Left(u64),
    /// Nothing is left.
    Done,
    /// Somebody ended it.
    Ended,
}

/// `ackline drain`.
pub async fn drain(arguments: &DrainArguments, settings: &Settings) -> Outcome {
    let place = &arguments.place;
    let (pool, tenant, at_ms) = match begin(place, settings).await {
        Ok(begun) => begun,
        Err(error) => return refuse(place, &error),
    };
    if arguments.no_wait {
        return reported(place, None);
    }
    let status_client = match StatusClient::connect(&settings.nats).await {
        Ok(status_client) => status_client,
        Err(outcome) => return outcome,
    };
    reported(
        place,
        Some(wait(status_client, pool, &tenant, at_ms, arguments.within).await),
    )
}

/// Begins the drain, unless it is under way; tells since when.
async fn begin(
    place: &TuneTarget,
    settings: &Settings,
) -> Result<(Pool, TenantId, u64), TuneError> {
    let (pool, tenant) = (pool_of(place)?, tenant_of(place)?);
    let tenant = tenant
        .ok_or_else(|| TuneError::mistake("--tenant", "say whose updates are to be drained"))?;
    let key = tuning_key::tenant(pool, &tenant);
    let store = open(&super::connect(settings).await?).await?;
    let is_drained = |tuning: &TenantTuning| tuning.mode == Some(Mode::Drain) && !tuning.paused;
    if let (_, Some(entry)) = store.read::<TenantTuning>(&key).await?
        && is_drained(&entry.value)
    {
        return Ok((pool, tenant, entry.at_ms));
    }
    let turn = |tuning| {
        Ok(Some(TenantTuning {
            mode: Some(Mode::Drain),
            paused: false,
            ..tuning
        }))
    };
    turn_tenant(place, settings, turn).await?;
    let entry = store.read::<TenantTuning>(&key).await?.1;
    Ok((
        pool,
        tenant,
        entry.map(|entry| entry.at_ms).unwrap_or_default(),
    ))
}

async fn wait(
    mut status_client: StatusClient,
    pool: Pool,
    tenant: &TenantId,
    at_ms: u64,
    within: Duration,
) -> Stand {
    let end = Instant::now() + within;
    let mut draw = interval(DRAW_EVERY);
    let bar = progress::with_message();
    let mut stand = Stand::Unknown("no process has told yet");
    loop {
        tokio::select! {
            () = status_client.hear() => continue,
            () = sleep_until(end) => break,
            _ = tokio::signal::ctrl_c() => break,
            _ = draw.tick() => {}
        }
        let (_, pools) = status_client.look();
        stand = stand_of(pools.iter().find(|sum| sum.pool == pool), tenant, at_ms);
        match &stand {
            Stand::Unknown(why) => bar.set_message((*why).to_owned()),
            Stand::Left(left) => {
                bar.set_length(bar.length().unwrap_or_default().max(*left));
                bar.set_position(bar.length().unwrap_or_default().saturating_sub(*left));
                bar.set_message(format!("{left} left"));
            }
            Stand::Done | Stand::Ended => break,
        }
    }
    bar.finish_and_clear();
    stand
}

fn stand_of(sum: Option<&PoolSum>, tenant: &TenantId, at_ms: u64) -> Stand {
    let Some(sum) = sum.filter(|sum| sum.working() > 0) else {
        return Stand::Unknown("nobody works on the pool");
    };
    if sum.paused {
        return Stand::Unknown("the pool is paused");
    }
    let known = sum.tenants.iter().find(|known| known.tenant == *tenant);
    match known {
        Some(TenantStatus {
            turned: Some(turned),
            ..
        }) if turned.at_ms > at_ms || (turned.at_ms == at_ms && !turned.draining) => Stand::Ended,
        Some(TenantStatus {
            turned: Some(turned),
            drain: Some(drain),
            ..
        }) if turned.at_ms == at_ms => match (drain.is_read, drain.left) {
            (true, 0) => Stand::Done,
            (true, left) => Stand::Left(left),
            (false, _) => Stand::Unknown("what was there is still being read"),
        },
        _ => Stand::Unknown("not every process has heard of it"),
    }
}

/// What became of it; nothing when nobody waited.
fn reported(place: &TuneTarget, stand: Option<Stand>) -> Outcome {
    let (pool, tenant) = (&place.pool, place.tenant.as_deref().unwrap_or_default());
    let (is_done, words) = match &stand {
        None => (
            false,
            "draining; `ackline tenants` tells how far it is".to_owned(),
        ),
        Some(Stand::Done) => (
            true,
            format!(
                "drained; what came since is kept until `ackline resume {pool} --tenant {tenant}`"
            ),
        ),
        Some(Stand::Left(left)) => (false, format!("{left} left; the drain goes on")),
        Some(Stand::Unknown(why)) => (false, format!("{why}; the drain goes on")),
        Some(Stand::Ended) => (false, "somebody changed it meanwhile".to_owned()),
    };
    let code = if is_done || stand.is_none() {
        EXIT_OK
    } else {
        EXIT_FAILED
    };
    let left = match &stand {
        Some(Stand::Done) => Some(0),
        Some(Stand::Left(left)) => Some(*left),
        _ => None,
    };
    let out = if place.json {
        let ok = code == EXIT_OK;
        let report = json!({ "ok": ok, "pool": pool, "tenant": tenant, "drained": is_done, "left": left, "state": words });
        format!("{report}\n")
    } else {
        format!("{pool} of {tenant}: {words}\n")
    };
    Outcome {
        out,
        err: String::new(),
        code,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_fleet::fixture::{snapshot, status};
    use ackline_fleet::fleet::Fleet;
    use ackline_runtime::status::PoolStatus;
    use ackline_runtime::status::held::{Drain, Turned};

    fn reported_by(drains: &[(u64, Option<Drain>)], owned: u16) -> Stand {
        let acme = TenantId::new("acme").unwrap();
        let mut fleet = Fleet::default();
        let share = owned / u16::try_from(drains.len()).unwrap();
        for (number, (at_ms, drain)) in (0_u16..).zip(drains) {
            let turned = Turned {
                draining: drain.is_some(),
                at_ms: *at_ms,
                ..Turned::default()
            };
            let tenant = TenantStatus {
                turned: Some(turned),
                drain: *drain,
                ..TenantStatus::of(acme.clone())
            };
            let relay = PoolStatus {
                tenants: vec![tenant],
                ..status(Pool::Relay, number * share..(number + 1) * share)
            };
            fleet.hear(
                snapshot(&format!("p{number}"), 1, vec![relay]),
                Instant::now(),
            );
        }
        stand_of(fleet.pool(Pool::Relay).as_ref(), &acme, 50)
    }

    #[test]
    fn it_is_done_only_when_every_owner_says_so() {
        let done = Some(Drain {
            left: 0,
            is_read: true,
        });
        let reading = Some(Drain {
            left: 0,
            is_read: false,
        });
        let left = Some(Drain {
            left: 2,
            is_read: true,
        });
        for (drains, owned, stand) in [
            (vec![(50, done), (50, done)], 4, Stand::Done),
            (vec![(50, done), (50, left)], 4, Stand::Left(2)),
            (
                vec![(50, done), (50, reading)],
                4,
                Stand::Unknown("what was there is still being read"),
            ),
            (
                vec![(50, done), (50, done)],
                2,
                Stand::Unknown("what was there is still being read"),
            ),
            (
                vec![(50, done), (20, None)],
                4,
                Stand::Unknown("what was there is still being read"),
            ),
            (
                vec![(20, None)],
                4,
                Stand::Unknown("not every process has heard of it"),
            ),
            (vec![(60, None)], 4, Stand::Ended),
        ] {
            assert_eq!(reported_by(&drains, owned), stand, "{drains:?}");
        }
        let acme = TenantId::new("acme").unwrap();
        assert_eq!(
            stand_of(None, &acme, 50),
            Stand::Unknown("nobody works on the pool")
        );
    }
}
