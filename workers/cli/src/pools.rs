//! `ackline pools` and `ackline tenants`: how the pools are, once, as text or JSON.

use super::figures::{age, count, open_dead, rate, time};
use super::status_client::{StatusClient, StatusClientSettings};
use super::{EXIT_FAILED, EXIT_OK, Outcome};
use ackline_fleet::diagnosis::Condition;
use ackline_fleet::fleet::PoolSum;
use ackline_fleet::notices::state;
use ackline_fleet::view::{PoolView, TenantView};
use ackline_shared::subjects::Pool;
use serde_json::json;
use std::fmt::Write;

/// Arguments of `ackline pools`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "LAG is what can be worked on, in the streams and in spill queues, OLDEST the age of the oldest of it; WAIT waits for a target or\nits time; DLQ is the open dead letters, DLQ/H those of the last hour.\n\nExit status: 0 when every pool is healthy, catching up or paused, 1 when one is not or no process speaks."
)]
pub struct PoolsArguments {
    /// Print a JSON array instead of text
    #[arg(long)]
    json: bool,
}

/// Arguments of `ackline tenants`.
#[derive(Debug, clap::Args)]
pub struct TenantsArguments {
    /// Only those of this pool
    pool: Option<Pool>,
    /// Print a JSON array instead of text
    #[arg(long)]
    json: bool,
}

/// Shows the pools.
pub async fn run(
    arguments: &PoolsArguments,
    settings: &StatusClientSettings,
) -> Result<Outcome, Outcome> {
    let pools = look(settings).await?;
    let out = if arguments.json {
        let views: Vec<_> = pools
            .iter()
            .map(|pool| PoolView::new(pool, &settings.targets))
            .collect();
        format!("{}\n", json!(views))
    } else {
        table(&pools, settings)
    };
    let code = if pools.iter().all(is_well) {
        EXIT_OK
    } else {
        EXIT_FAILED
    };
    Ok(Outcome {
        code,
        ..Outcome::printed(out)
    })
}

/// Shows the busiest tenants.
pub async fn tenants(
    arguments: &TenantsArguments,
    settings: &StatusClientSettings,
) -> Result<Outcome, Outcome> {
    let mut pools = look(settings).await?;
    pools.retain(|pool| arguments.pool.is_none_or(|wanted| wanted == pool.pool));
    let out = if arguments.json {
        let of_pool = |pool: &PoolSum| {
            let tenants: Vec<_> = pool.tenants.iter().map(TenantView::from).collect();
            json!({"pool": pool.pool.as_str(), "tenants": tenants})
        };
        format!("{}\n", json!(pools.iter().map(of_pool).collect::<Vec<_>>()))
    } else {
        tenants_table(&pools)
    };
    Ok(Outcome::printed(out))
}

async fn look(settings: &StatusClientSettings) -> Result<Vec<PoolSum>, Outcome> {
    let mut status_client = StatusClient::connect(&settings.nats).await?;
    status_client.hear_all().await;
    match status_client.look() {
        (0, _) => Err(Outcome::failed(NOBODY)),
        (_, pools) => Ok(pools),
    }
}

/// What is said when no process speaks.
pub const NOBODY: &str = "error: no workers process speaks on this NATS; start `ackline-workers`, or see whether nats.url is right\n";

fn is_well(pool: &PoolSum) -> bool {
    matches!(
        pool.diagnosis().condition,
        Condition::Healthy | Condition::CatchingUp | Condition::Paused
    )
}

fn table(pools: &[PoolSum], settings: &StatusClientSettings) -> String {
    let mut text = String::new();
    let _writing_to_a_string_never_fails = writeln!(
        text,
        "{:<8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>7} {:>7} {:>8} {:>8} {:>5}  VERDICT",
        "POOL",
        "LAG",
        "OLDEST",
        "WAIT",
        "DLQ",
        "DLQ/H",
        "IN/S",
        "OUT/S",
        "RUN/MAX",
        "QUEUED",
        "SPILLS",
        "P50",
        "P99",
        "WANT"
    );
    for pool in pools {
        let _writing_to_a_string_never_fails = writeln!(
            text,
            "{:<8} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>7} {:>9} {:>7} {:>7} {:>8} {:>8} {:>5}  {}",
            pool.pool.as_str(),
            count(pool.lag_messages()),
            age(pool.lag()),
            count(pool.waiting()),
            open_dead(pool),
            pool.dead
                .as_ref()
                .map_or_else(|| "-".to_owned(), |dead| count(dead.last_hour)),
            rate(pool.rates.read),
            rate(pool.rates.finished),
            pool.jobs(),
            count(pool.load.queued),
            count(pool.lines.total()),
            time(pool.service.quantile_ms(0.5)),
            time(pool.service.quantile_ms(0.99)),
            pool.wanted(&settings.targets),
            pool.diagnosis().words,
        );
    }
    text
}

fn tenants_table(pools: &[PoolSum]) -> String {
    let mut text = String::new();
    let _writing_to_a_string_never_fails = writeln!(
        text,
        "{:<8} {:<32} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}  STATE",
        "POOL", "TENANT", "IN/S", "QUEUED", "RUNNING", "WAIT", "SPILLS", "DLQ/H"
    );
    for (pool, tenant) in pools
        .iter()
        .flat_map(|pool| pool.tenants.iter().map(move |tenant| (pool, tenant)))
    {
        let row = format!(
            "{:<8} {:<32} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}  {}",
            pool.pool.as_str(),
            tenant.tenant.as_str(),
            rate(tenant.rate),
            count(tenant.load.queued),
            count(tenant.load.running),
            count(tenant.backlog().waiting),
            count(tenant.lines.total()),
            count(tenant.dead_hour),
            state(tenant.turned.as_ref(), tenant.drain.as_ref()),
        );
        let _writing_to_a_string_never_fails = writeln!(text, "{}", row.trim_end());
    }
    text
}
