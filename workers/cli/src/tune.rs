//! `ackline tune`, `pause`, `resume`, `drain` and `discard`: turn the pools while they run.
//!
//! A change is checked whole before anything is written, is written only over what was read, and carries the name of
//! who made it; every process obeys it within a second.

mod drain;
mod edit;

pub use drain::{DrainArguments, drain};

use super::Outcome;
use super::settings::Settings;
use ackline_catalog::stored;
use ackline_runtime::tuning::{
    Change, HISTORY_MAX, Mode, PoolTuning, Stamped, TenantTuning, TuningError, TuningMistake,
    TuningStore, check_pool, check_tenant,
};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::TenantId;
use ackline_shared::nats::{self, NatsError};
use ackline_shared::subjects::{self, Pool, config_key, tuning_key};
use async_nats::jetstream::Context;
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::fmt::Write;

const HISTORY_SHOWN: usize = 50;

/// Arguments of `ackline tune`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Keys of a pool: concurrency, adaptive=MIN..MAX (each process finds its jobs at once by trying) or off,\ntenant_in_flight_max, lanes.<lane>, paused.\nKeys of a tenant: weight (everybody has 10), in_flight_max, paused, mode=drain (works on what was received before,\nkeeps what comes later). The value `default` sets a key back to what is configured. Without any, shows what is turned.\n\n  ackline tune relay concurrency=128 lanes.sts=1\n  ackline tune replies adaptive=8..64\n  ackline tune relay --tenant acme weight=5 in_flight_max=4\n  ackline tune relay --reset"
)]
pub struct TuneArguments {
    #[command(flatten)]
    place: TuneTarget,
    /// What to set
    #[arg(value_name = "KEY=VALUE", conflicts_with_all = ["reset", "history"])]
    changes: Vec<String>,
    /// Set everything of the pool, or of the tenant, back to what is configured
    #[arg(long, conflicts_with = "history")]
    reset: bool,
    /// Show who changed what, the newest first
    #[arg(long)]
    history: bool,
}

/// Arguments of `ackline pause` and `ackline resume`.
#[derive(Debug, clap::Args)]
pub struct PauseArguments {
    #[command(flatten)]
    place: TuneTarget,
}

/// Arguments of `ackline discard`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Until `ackline resume`, every update of the tenant that reaches the pool goes to the dead letters with the\nreason \"discarded by …\", from where it can be replayed."
)]
pub struct DiscardArguments {
    #[command(flatten)]
    place: TuneTarget,
    /// The tenant's id once more
    #[arg(long, value_name = "TENANT")]
    confirm: Option<String>,
}

/// What is turned, and how it is told.
#[derive(Debug, clap::Args)]
struct TuneTarget {
    /// The pool: flows, replies, relay, crm, events or journal
    pool: String,
    /// Only this tenant's work in the pool
    #[arg(long)]
    tenant: Option<String>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Who makes the change, for the audit
    #[arg(long, env = "USER", default_value = "unknown")]
    by: String,
}

/// Why a command was not carried out; nothing was changed.
#[derive(Debug, thiserror::Error)]
enum TuneError {
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error(transparent)]
    Read(#[from] stored::ReadError),
    #[error(transparent)]
    Tuning(#[from] TuningError),
    #[error("this installation is not set up yet: run `ackline apply` or start the workers first")]
    NotSetUp,
    #[error("{}", list(.0))]
    Mistakes(Vec<TuningMistake>),
}

impl TuneError {
    fn mistake(key: &str, detail: impl Into<String>) -> Self {
        Self::Mistakes(vec![TuningMistake {
            key: key.to_owned(),
            detail: detail.into(),
        }])
    }
}

fn list(mistakes: &[TuningMistake]) -> String {
    let lines = mistakes.iter().map(|mistake| format!("\n  - {mistake}"));
    format!(
        "{} mistake(s), nothing was changed:{}",
        mistakes.len(),
        lines.collect::<String>()
    )
}

/// `ackline tune`.
pub async fn tune(arguments: &TuneArguments, settings: &Settings) -> Outcome {
    let place = &arguments.place;
    if arguments.history {
        return report(place, history(place, settings).await);
    }
    let changes = &arguments.changes;
    let result = if changes.is_empty() && !arguments.reset {
        show(place, settings).await
    } else if place.tenant.is_some() {
        turn_tenant(place, settings, |tenant| match arguments.reset {
            true => Ok(None),
            false => edit::tenant(tenant, changes)
                .map(Some)
                .map_err(TuneError::Mistakes),
        })
        .await
    } else {
        turn_pool(place, settings, |pool| match arguments.reset {
            true => Ok(None),
            false => edit::pool(pool, changes)
                .map(Some)
                .map_err(TuneError::Mistakes),
        })
        .await
    };
    report(place, result)
}

/// `ackline pause` and `ackline resume`; resuming ends draining and discarding too.
pub async fn pause(arguments: &PauseArguments, settings: &Settings, paused: bool) -> Outcome {
    let place = &arguments.place;
    let result = if place.tenant.is_some() {
        turn_tenant(place, settings, |tenant| {
            let mode = tenant.mode.filter(|_| paused);
            Ok(Some(TenantTuning {
                paused,
                mode,
                ..tenant
            }))
        })
        .await
    } else {
        turn_pool(place, settings, |pool| {
            Ok(Some(PoolTuning { paused, ..pool }))
        })
        .await
    };
    report(place, result)
}

/// `ackline discard`.
pub async fn discard(arguments: &DiscardArguments, settings: &Settings) -> Outcome {
    let place = &arguments.place;
    let result = match (&place.tenant, &arguments.confirm) {
        (None, _) => Err(TuneError::mistake(
            "--tenant",
            "say whose updates are to be discarded",
        )),
        (Some(tenant), confirm) if confirm.as_ref() != Some(tenant) => Err(TuneError::mistake(
            "--confirm",
            format!("needs the tenant's id once more: --confirm {tenant}"),
        )),
        _ => {
            turn_tenant(place, settings, |tenant| {
                Ok(Some(TenantTuning {
                    mode: Some(Mode::Discard),
                    ..tenant
                }))
            })
            .await
        }
    };
    report(place, result)
}

/// What a command did or found.
enum TuneReport {
    Changed {
        from: Value,
        to: Value,
        revision: u64,
    },
    Shown {
        value: Value,
        by: Option<(String, u64)>,
        tenants: Vec<(TenantId, Value)>,
    },
    History(Vec<Change>),
}

async fn turn_pool(
    place: &TuneTarget,
    settings: &Settings,
    turn: impl FnOnce(PoolTuning) -> Result<Option<PoolTuning>, TuneError>,
) -> Result<TuneReport, TuneError> {
    let pool = pool_of(place)?;
    let context = connect(settings).await?;
    let configured = settings.concurrency.of(pool);
    let check = |value: &PoolTuning| check_pool(value, &pool.lane_names(), configured);
    change(place, &context, &tuning_key::pool(pool), turn, check).await
}

async fn turn_tenant(
    place: &TuneTarget,
    settings: &Settings,
    turn: impl FnOnce(TenantTuning) -> Result<Option<TenantTuning>, TuneError>,
) -> Result<TuneReport, TuneError> {
    let pool = pool_of(place)?;
    let tenant = tenant_of(place)?.ok_or_else(|| TuneError::mistake("--tenant", "is needed"))?;
    let context = connect(settings).await?;
    let config = stored::open(&context, subjects::BUCKET_CONFIG)
        .await?
        .ok_or(TuneError::NotSetUp)?;
    let known = config.get(config_key::tenant(&tenant)).await;
    let known = known.map_err(|error| TuningError::Away(error.to_string()))?;
    if known.is_none() && !tenant.is_unrouted() {
        return Err(TuneError::mistake(
            "--tenant",
            format!("there is no tenant `{tenant}`"),
        ));
    }
    let key = tuning_key::tenant(pool, &tenant);
    change(place, &context, &key, turn, |value| {
        check_tenant(value, &pool.lane_names())
    })
    .await
}

/// Writes what `turn` makes of the value; `None` sets everything back.
async fn change<T: Serialize + DeserializeOwned + Default>(
    place: &TuneTarget,
    context: &Context,
    key: &str,
    turn: impl FnOnce(T) -> Result<Option<T>, TuneError>,
    check: impl FnOnce(&T) -> Vec<TuningMistake>,
) -> Result<TuneReport, TuneError> {
    let store = open(context).await?;
    let (revision, before) = match store.read::<T>(key).await {
        Err(TuningError::Unreadable { revision, .. }) => (revision, None),
        read => read?,
    };
    let before = before.map(|entry| entry.value).unwrap_or_default();
    let from = json!(before);
    let turned = turn(before)?;
    let is_reset = turned.is_none();
    let value = turned.unwrap_or_default();
    let mistakes = check(&value);
    if !mistakes.is_empty() {
        return Err(TuneError::Mistakes(mistakes));
    }
    let to = json!(value);
    let stamped = Stamped {
        value,
        by: format!("cli:{}", place.by),
        at_ms: now_ms(),
        platform: true,
    };
    let revision = if is_reset {
        store.reset(key, &stamped, revision).await?
    } else {
        store.write(key, &stamped, revision).await?
    };
    Ok(TuneReport::Changed { from, to, revision })
}

async fn show(place: &TuneTarget, settings: &Settings) -> Result<TuneReport, TuneError> {
    let (pool, tenant) = (pool_of(place)?, tenant_of(place)?);
    let store = open(&connect(settings).await?).await?;
    let key = tenant
        .as_ref()
        .map_or_else(|| tuning_key::pool(pool), |id| tuning_key::tenant(pool, id));
    let (_, entry) = store.read::<Value>(&key).await?;
    let tenants = if tenant.is_none() {
        store.tenants(pool).await?
    } else {
        Vec::new()
    };
    let tenants = tenants
        .into_iter()
        .filter(|(_, value)| is_turned(value))
        .collect();
    let by = entry.as_ref().map(|entry| (entry.by.clone(), entry.at_ms));
    Ok(TuneReport::Shown {
        value: entry.map_or_else(|| json!({}), |entry| entry.value),
        by,
        tenants,
    })
}

async fn history(place: &TuneTarget, settings: &Settings) -> Result<TuneReport, TuneError> {
    let (pool, tenant) = (pool_of(place)?, tenant_of(place)?);
    let mut changes = open(&connect(settings).await?)
        .await?
        .history(HISTORY_MAX)
        .await?;
    changes.retain(|change| {
        change.pool == pool.as_str() && (tenant.is_none() || change.tenant == tenant)
    });
    changes.truncate(HISTORY_SHOWN);
    Ok(TuneReport::History(changes))
}

async fn connect(settings: &Settings) -> Result<Context, TuneError> {
    Ok(nats::jetstream(
        nats::connect(&settings.nats, "ackline-tune").await?,
    ))
}

async fn open(context: &Context) -> Result<TuningStore, TuneError> {
    let bucket = stored::open(context, subjects::BUCKET_TUNING).await?;
    bucket.map(TuningStore::new).ok_or(TuneError::NotSetUp)
}

fn pool_of(place: &TuneTarget) -> Result<Pool, TuneError> {
    let known = Pool::ALL.map(Pool::as_str).join(", ");
    place
        .pool
        .parse()
        .map_err(|error| TuneError::mistake("POOL", format!("{error}; there are {known}")))
}

fn tenant_of(place: &TuneTarget) -> Result<Option<TenantId>, TuneError> {
    let parsed = place.tenant.as_ref().map(TenantId::new).transpose();
    parsed.map_err(|error| TuneError::mistake("--tenant", error.to_string()))
}

fn is_turned(value: &Value) -> bool {
    value.as_object().is_some_and(|fields| !fields.is_empty())
}

fn report(place: &TuneTarget, result: Result<TuneReport, TuneError>) -> Outcome {
    let reported = match result {
        Ok(reported) => reported,
        Err(error) => return refuse(place, &error),
    };
    Outcome::printed(if place.json {
        format!("{}\n", as_json(place, reported))
    } else {
        as_text(place, reported)
    })
}

fn refuse(place: &TuneTarget, error: &TuneError) -> Outcome {
    let outcome = match error {
        TuneError::Mistakes(_) => Outcome::bad_input(format!("{error}\n")),
        _ => Outcome::failed(format!("{error}\n")),
    };
    if place.json {
        let report = json!({ "ok": false, "error": error.to_string() });
        return Outcome {
            out: format!("{report}\n"),
            err: String::new(),
            ..outcome
        };
    }
    outcome
}

fn as_json(place: &TuneTarget, reported: TuneReport) -> Value {
    let (pool, tenant) = (&place.pool, &place.tenant);
    match reported {
        TuneReport::Changed { from, to, revision } => {
            json!({ "ok": true, "pool": pool, "tenant": tenant, "from": from, "to": to, "revision": revision })
        }
        TuneReport::Shown { value, by, tenants } => {
            let tenants: serde_json::Map<String, Value> = tenants
                .into_iter()
                .map(|(tenant, value)| (tenant.to_string(), value))
                .collect();
            let (by, at_ms) = by.unzip();
            json!({
                "ok": true, "pool": pool, "tenant": tenant, "tuning": value, "by": by, "at_ms": at_ms,
                "tenants": tenants,
            })
        }
        TuneReport::History(changes) => {
            json!({ "ok": true, "pool": pool, "tenant": tenant, "changes": changes })
        }
    }
}

fn as_text(place: &TuneTarget, reported: TuneReport) -> String {
    let title = match &place.tenant {
        Some(tenant) => format!("{} of {tenant}", place.pool),
        None => place.pool.clone(),
    };
    let mut text = String::new();
    let mut line = |line: std::fmt::Arguments<'_>| {
        let _writing_to_a_string_never_fails = writeln!(text, "{line}");
    };
    match reported {
        TuneReport::Changed { from, to, .. } if from == to => {
            line(format_args!(
                "{title}: {} (nothing changed)",
                edit::words(&to)
            ));
        }
        TuneReport::Changed { from, to, .. } => {
            line(format_args!(
                "{title}: {} -> {}",
                edit::words(&from),
                edit::words(&to)
            ));
        }
        TuneReport::Shown { value, by, tenants } => {
            let by = by
                .map(|(by, at)| format!("  (by {by}, {})", time(at)))
                .unwrap_or_default();
            line(format_args!("{title}: {}{by}", edit::words(&value)));
            for (tenant, value) in tenants {
                line(format_args!("  {tenant}: {}", edit::words(&value)));
            }
        }
        TuneReport::History(changes) if changes.is_empty() => {
            line(format_args!("{title}: never turned"))
        }
        TuneReport::History(changes) => {
            for change in changes {
                let tenant = change
                    .tenant
                    .map(|tenant| format!(" of {tenant}"))
                    .unwrap_or_default();
                let words = |value: Option<Value>| {
                    value.map_or("?".to_owned(), |value| edit::words(&value))
                };
                let from = change
                    .from
                    .map_or("as configured".to_owned(), |from| edit::words(&from));
                let (at, by) = (time(change.at_ms), &change.by);
                line(format_args!(
                    "{at}  {by}  {}{tenant}: {from} -> {}",
                    change.pool,
                    words(change.to)
                ));
            }
        }
    }
    text
}

fn time(ms: u64) -> String {
    let timestamp = i64::try_from(ms)
        .ok()
        .and_then(|ms| Timestamp::from_millisecond(ms).ok());
    timestamp.map_or("?".to_owned(), |timestamp| timestamp.to_string())
}
