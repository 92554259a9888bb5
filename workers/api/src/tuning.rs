//! `/v1/tuning`: what operators turn of the pools while they run, and who turned what.
//!
//! A key needs the scope `operate`, which no key has unless it is declared, and turns what it reaches: a pool, or a
//! tenant's share of it, only as the platform; tenants it operates may be paused, drained and discarded, and set going
//! again unless the platform holds them. Every change is obeyed by every process within a second.

#![allow(
    unused_qualifications,
    reason = "utoipa qualifies the types named in params()"
)]

use super::App;
use super::auth::{Caller, CanOperate};
use super::input::{JsonBody, PathOf, QueryOf};
use super::page::Page;
use super::problem::{Mistake, Problem, ProblemBody};
use super::revision::{Expectation, Revised, expected};
use ackline_replay::time::rfc3339;
use ackline_runtime::adaptive::Choice;
use ackline_runtime::tuning::{
    Change, HISTORY_MAX, Mode, PoolTuning, Stamped, TenantTuning, TuningError, TuningMistake,
    TuningStore, authority, check_pool, check_tenant,
};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{Pool, config_key, tuning_key};
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Tenants listed of one pool.
const TENANTS_LISTED_MAX: usize = 1000;

/// The routes of this resource.
pub fn router() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(audit))
        .routes(routes!(get_pool, put_pool, delete_pool))
        .routes(routes!(get_tenant, put_tenant, delete_tenant))
}

/// What is to be turned of a pool; what is left out is as configured.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = PoolTuning)]
#[serde(default, deny_unknown_fields)]
pub struct PoolBody {
    /// Jobs at once in each process, 1 to 4,096.
    #[serde(skip_serializing_if = "Option::is_none")]
    concurrency: Option<u32>,
    /// `8..64`: each process finds its jobs at once by trying, between 8 and 64, which may not exceed the concurrency.
    /// `off`: it does not, whatever is configured.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "8..64")]
    adaptive: Option<String>,
    /// Jobs of one tenant at once in each process, 1 to 4,096.
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_in_flight_max: Option<u32>,
    /// Weights of lanes by name, 1 to 1,000.
    lanes: BTreeMap<String, u32>,
    /// Nothing starts; what arrives is kept.
    paused: bool,
}

/// What is to be turned of a tenant in a pool; what is left out is as for every tenant.
#[derive(Debug, Default, Serialize, Deserialize, ToSchema)]
#[schema(as = TenantTuning)]
#[serde(default, deny_unknown_fields)]
pub struct TenantBody {
    /// Its share of turns, 1 to 1,000; everybody has 10.
    #[serde(skip_serializing_if = "Option::is_none")]
    weight: Option<u32>,
    /// Its jobs at once in each process, 1 to 4,096.
    #[serde(skip_serializing_if = "Option::is_none")]
    in_flight_max: Option<u32>,
    /// Nothing of it starts; what arrives is kept.
    paused: bool,
    /// `drain`: what was received before this change is worked on, what comes later is kept. `discard`: everything
    /// goes to the dead letters unworked; needs `confirm`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, example = "drain")]
    mode: Option<Mode>,
    /// With `discard`: the tenant's id once more.
    #[serde(skip_serializing_if = "Option::is_none")]
    confirm: Option<String>,
}

/// A pool's live settings.
#[derive(Debug, Serialize, ToSchema)]
pub struct PoolEntry {
    /// The pool.
    pool: &'static str,
    /// Its lanes, whose weights may be set.
    lane_names: Vec<&'static str>,
    /// What is turned.
    tuning: PoolBody,
    /// Who turned it last; told to the platform alone.
    by: Option<String>,
    /// When.
    at: Option<String>,
    /// Of how many tenants something is turned.
    tenants_tuned: usize,
    /// These tenants, up to 1,000 in order of id.
    tenants: Vec<TenantEntry>,
}

/// A tenant's live settings in a pool.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantEntry {
    /// The tenant.
    #[schema(value_type = String)]
    tenant: TenantId,
    /// What is turned.
    tuning: TenantBody,
    /// Who turned it last.
    by: String,
    /// When.
    at: String,
}

/// One change of a live setting.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its revision.
    revision: u64,
    /// When.
    at: Option<String>,
    /// Who: `key:<tenant>/<key>` or `cli:<user>`.
    by: String,
    /// The pool.
    pool: &'static str,
    /// The tenant, when it is about one.
    #[schema(value_type = Option<String>)]
    tenant: Option<TenantId>,
    /// What was set before.
    from: Option<serde_json::Value>,
    /// What is set since.
    to: Option<serde_json::Value>,
}

/// How many changes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct AuditQuery {
    /// The newest so many, 1 to 1,000; 100 when absent.
    limit: Option<usize>,
}

/// Lists what is turned of every pool.
#[utoipa::path(get, path = "/tuning", tag = "tuning", operation_id = "listTuning",
    responses((status = 200, description = "All pools.", body = Page<PoolEntry>)))]
pub async fn list(State(app): State<App>, CanOperate(caller): CanOperate) -> Json<Page<PoolEntry>> {
    let (table, snapshot) = (app.platform.tuning.table(), app.platform.snapshot());
    let entry = |pool: Pool| {
        let mut tenants: Vec<_> = table
            .tenants(pool)
            .filter(|(tenant, _)| caller.reaches(&snapshot, tenant))
            .collect();
        tenants.sort_unstable_by_key(|(tenant, _)| *tenant);
        let shown = |(tenant, entry): &(&TenantId, &Stamped<TenantTuning>)| TenantEntry {
            tenant: (*tenant).clone(),
            tuning: entry.value.clone().into(),
            by: entry.by.clone(),
            at: rfc3339(entry.at_ms),
        };
        let set = table.pool(pool);
        PoolEntry {
            pool: pool.as_str(),
            lane_names: pool.lane_names(),
            tuning: set
                .map(|entry| entry.value.clone().into())
                .unwrap_or_default(),
            by: set
                .filter(|_| caller.is_platform())
                .map(|entry| entry.by.clone()),
            at: set.map(|entry| rfc3339(entry.at_ms)),
            tenants_tuned: tenants.len(),
            tenants: tenants.iter().take(TENANTS_LISTED_MAX).map(shown).collect(),
        }
    };
    Json(Page {
        items: Pool::ALL.map(entry).into(),
        next_cursor: None,
    })
}

/// Tells who turned what, the newest first; the last 64 changes of each setting are known.
#[utoipa::path(get, path = "/tuning/audit", tag = "tuning", operation_id = "listTuningChanges", params(AuditQuery),
    responses((status = 200, description = "The changes.", body = Page<AuditEntry>)))]
pub async fn audit(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
    QueryOf(query): QueryOf<AuditQuery>,
) -> Result<Json<Page<AuditEntry>>, Problem> {
    let limit = query.limit.unwrap_or(100);
    if !(1..=HISTORY_MAX).contains(&limit) {
        return Err(Problem::Malformed(format!(
            "limit: must be 1 to {HISTORY_MAX}"
        )));
    }
    app.reach_log()?;
    let snapshot = app.platform.snapshot();
    let read = if caller.is_platform() {
        limit
    } else {
        HISTORY_MAX
    };
    let mut changes = store(&app).history(read).await.map_err(problem)?;
    changes.retain(|change| match &change.tenant {
        Some(tenant) => caller.reaches(&snapshot, tenant),
        None => caller.is_platform(),
    });
    changes.truncate(limit);
    Ok(Json(Page {
        items: changes.into_iter().map(AuditEntry::from).collect(),
        next_cursor: None,
    }))
}

/// Reads what is turned of a pool.
#[utoipa::path(get, path = "/tuning/pools/{pool}", tag = "tuning", operation_id = "getPoolTuning",
    params(("pool" = String, Path, description = "The pool.")),
    responses(
        (status = 200, description = "What is turned.", body = PoolBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 404, description = "No such pool, or nothing is turned.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn get_pool(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
    PathOf(pool): PathOf<String>,
) -> Result<Response, Problem> {
    caller.of_platform()?;
    read::<PoolTuning, PoolBody>(&app, &tuning_key::pool(pool_of(&pool)?)).await
}

/// Turns a pool: the body replaces what was turned before.
#[utoipa::path(put, path = "/tuning/pools/{pool}", tag = "tuning", operation_id = "putPoolTuning", request_body = PoolBody,
    params(
        ("pool" = String, Path, description = "The pool."),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: nothing may be turned yet."),
    ),
    responses(
        (status = 200, description = "Changed.", body = PoolBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 201, description = "Turned for the first time.", body = PoolBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 412, description = "It is not as expected.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not acceptable; nothing was changed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn put_pool(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
    PathOf(pool): PathOf<String>,
    headers: HeaderMap,
    JsonBody(body): JsonBody<PoolBody>,
) -> Result<Response, Problem> {
    caller.of_platform()?;
    let pool = pool_of(&pool)?;
    let expected = expected(&headers)?;
    let (value, mut mistakes) = pool_tuning(body);
    mistakes.extend(check_pool(
        &value,
        &pool.lane_names(),
        app.concurrency.of(pool),
    ));
    refuse(mistakes)?;
    let saved = save(&app, &caller, &tuning_key::pool(pool), expected, |_| {
        Ok(Some(value))
    })
    .await?;
    Ok(saved.map(PoolBody::from).into_response())
}

/// Sets a pool back to what is configured.
#[utoipa::path(delete, path = "/tuning/pools/{pool}", tag = "tuning", operation_id = "deletePoolTuning",
    params(
        ("pool" = String, Path, description = "The pool."),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have."),
    ),
    responses(
        (status = 204, description = "It is as configured."),
        (status = 412, description = "It is not as expected.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn delete_pool(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
    PathOf(pool): PathOf<String>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    caller.of_platform()?;
    let key = tuning_key::pool(pool_of(&pool)?);
    let nothing = |_: Option<&Stamped<PoolTuning>>| Ok(None);
    save(&app, &caller, &key, expected(&headers)?, nothing).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reads what is turned of a tenant in a pool.
#[utoipa::path(get, path = "/tuning/pools/{pool}/tenants/{tenant}", tag = "tuning", operation_id = "getTenantTuning",
    params(("pool" = String, Path, description = "The pool."), ("tenant" = String, Path, description = "The tenant.")),
    responses(
        (status = 200, description = "What is turned.", body = TenantBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 404, description = "No such pool or tenant, or nothing is turned.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn get_tenant(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
    PathOf((pool, tenant)): PathOf<(String, TenantId)>,
) -> Result<Response, Problem> {
    operated(&app, &caller, &tenant)?;
    read::<TenantTuning, TenantBody>(&app, &tuning_key::tenant(pool_of(&pool)?, &tenant)).await
}

/// Turns a tenant in a pool: the body replaces what was turned before.
#[utoipa::path(put, path = "/tuning/pools/{pool}/tenants/{tenant}", tag = "tuning", operation_id = "putTenantTuning", request_body = TenantBody,
    params(
        ("pool" = String, Path, description = "The pool."),
        ("tenant" = String, Path, description = "The tenant."),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have."),
        ("If-None-Match" = Option<String>, Header, description = "`*`: nothing may be turned yet."),
    ),
    responses(
        (status = 200, description = "Changed.", body = TenantBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 201, description = "Turned for the first time.", body = TenantBody, headers(("ETag" = String, description = "Its revision."))),
        (status = 404, description = "No such pool or tenant.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 412, description = "It is not as expected.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "Not acceptable; nothing was changed.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn put_tenant(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
    PathOf((pool, tenant)): PathOf<(String, TenantId)>,
    headers: HeaderMap,
    JsonBody(mut body): JsonBody<TenantBody>,
) -> Result<Response, Problem> {
    let pool = pool_of(&pool)?;
    let expected = expected(&headers)?;
    operated(&app, &caller, &tenant)?;
    is_known(&app, &tenant).await?;
    let confirmed = body.confirm.take();
    let value = TenantTuning::from(body);
    if value.mode == Some(Mode::Discard) && confirmed.as_deref() != Some(tenant.as_str()) {
        let mistake = Mistake::new(
            "/confirm",
            "discarding needs the tenant's id here once more",
        );
        return Err(Problem::Invalid(vec![mistake]));
    }
    refuse(check_tenant(&value, &pool.lane_names()))?;
    let key = tuning_key::tenant(pool, &tenant);
    let saved = save(&app, &caller, &key, expected, |stored| {
        allowed(&caller, stored, value).map(Some)
    })
    .await?;
    Ok(saved.map(TenantBody::from).into_response())
}

/// Sets a tenant in a pool back to what holds for everybody.
#[utoipa::path(delete, path = "/tuning/pools/{pool}/tenants/{tenant}", tag = "tuning", operation_id = "deleteTenantTuning",
    params(
        ("pool" = String, Path, description = "The pool."),
        ("tenant" = String, Path, description = "The tenant."),
        ("If-Match" = Option<String>, Header, description = "The ETag it must still have."),
    ),
    responses(
        (status = 204, description = "Nothing is turned."),
        (status = 412, description = "It is not as expected.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn delete_tenant(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
    PathOf((pool, tenant)): PathOf<(String, TenantId)>,
    headers: HeaderMap,
) -> Result<StatusCode, Problem> {
    operated(&app, &caller, &tenant)?;
    let key = tuning_key::tenant(pool_of(&pool)?, &tenant);
    // What the platform set stays, and so does what may be the platform's.
    let nothing = |stored: Option<&Stamped<TenantTuning>>| {
        let left = allowed(&caller, stored, TenantTuning::default())?;
        Ok((!caller.is_platform()).then_some(left))
    };
    save(&app, &caller, &key, expected(&headers)?, nothing).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A tenant that the caller does not operate is one that it does not know of.
fn operated(app: &App, caller: &Caller, tenant: &TenantId) -> Result<(), Problem> {
    let reached = caller.reaches(&app.platform.snapshot(), tenant);
    if reached {
        Ok(())
    } else {
        Err(Problem::NotFound("tenant"))
    }
}

/// What a caller may make of a tenant's settings.
fn allowed(
    caller: &Caller,
    stored: Option<&Stamped<TenantTuning>>,
    wanted: TenantTuning,
) -> Result<TenantTuning, Problem> {
    if caller.is_platform() {
        return Ok(wanted);
    }
    authority::bounded(stored, wanted).map_err(|authority::PlatformOnly| Problem::PlatformOnly)
}

fn store(app: &App) -> TuningStore {
    TuningStore::new(app.platform.buckets.tuning.clone())
}

async fn read<T, B>(app: &App, key: &str) -> Result<Response, Problem>
where
    T: Serialize + DeserializeOwned + Default + PartialEq,
    B: From<T> + Serialize,
{
    app.reach_log()?;
    let (revision, entry) = store(app).read::<T>(key).await.map_err(problem)?;
    let value = entry
        .map(|entry| entry.value)
        .filter(|value| *value != T::default());
    let value = value.ok_or(Problem::NotFound("tuning: everything is as configured"))?;
    Ok(Revised {
        value: B::from(value),
        revision,
        is_new: false,
    }
    .into_response())
}

/// Writes what `decide` makes of the stored entry, if that is as expected; `None` sets everything back.
async fn save<T>(
    app: &App,
    caller: &Caller,
    key: &str,
    expected: Expectation,
    decide: impl FnOnce(Option<&Stamped<T>>) -> Result<Option<T>, Problem>,
) -> Result<Revised<T>, Problem>
where
    T: Serialize + DeserializeOwned + Default + PartialEq,
{
    app.reach_log()?;
    let store = store(app);
    let (last, stored, is_set) = match store.read::<T>(key).await {
        Ok((last, stored)) => {
            let is_set = stored
                .as_ref()
                .is_some_and(|entry| entry.value != T::default());
            (last, stored, is_set)
        }
        // What does not parse is replaced like anything else, by whoever may replace anything.
        Err(TuningError::Unreadable { revision, .. }) if caller.is_platform() => {
            (revision, None, true)
        }
        Err(error) => return Err(problem(error)),
    };
    if !expected.holds(is_set.then_some(last)) {
        return Err(Problem::PreconditionFailed);
    }
    let decided = decide(stored.as_ref())?;
    let is_reset = decided.is_none();
    let value = decided.unwrap_or_default();
    let by = format!("key:{}/{}", caller.tenant, caller.key);
    tracing::info!(key, by, "a live setting is changed");
    let stamped = Stamped {
        value,
        by,
        at_ms: now_ms(),
        platform: caller.is_platform(),
    };
    let written = if is_reset {
        store.reset(key, &stamped, last).await
    } else {
        store.write(key, &stamped, last).await
    };
    let revision = written.map_err(|error| match (error, expected) {
        (TuningError::Conflict(_), Expectation::Any) => Problem::Conflict,
        (TuningError::Conflict(_), _) => Problem::PreconditionFailed,
        (error, _) => problem(error),
    })?;
    Ok(Revised {
        value: stamped.value,
        revision,
        is_new: !is_set,
    })
}

fn pool_of(name: &str) -> Result<Pool, Problem> {
    name.parse().map_err(|_| Problem::NotFound("pool"))
}

async fn is_known(app: &App, tenant: &TenantId) -> Result<(), Problem> {
    if tenant.is_unrouted() || app.platform.snapshot().tenants.contains_key(tenant) {
        return Ok(());
    }
    // A tenant declared a moment ago may not have reached the snapshot yet.
    app.reach_log()?;
    match app
        .platform
        .buckets
        .config
        .get(config_key::tenant(tenant))
        .await
    {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(Problem::NotFound("tenant")),
        Err(error) => Err(problem(TuningError::Away(error.to_string()))),
    }
}

fn refuse(mistakes: Vec<TuningMistake>) -> Result<(), Problem> {
    if mistakes.is_empty() {
        return Ok(());
    }
    let at = |key: &str| {
        if key.is_empty() {
            String::new()
        } else {
            format!("/{}", key.replace('.', "/"))
        }
    };
    Err(Problem::Invalid(
        mistakes
            .into_iter()
            .map(|one| Mistake::new(at(&one.key), one.detail))
            .collect(),
    ))
}

fn problem(error: TuningError) -> Problem {
    tracing::warn!(%error, "a live setting cannot be read or changed");
    match error {
        TuningError::Conflict(_) => Problem::Conflict,
        TuningError::Away(_) => Problem::NatsAway,
        TuningError::Unreadable { .. } => Problem::Internal,
        TuningError::Newer { newer, .. } => Problem::invalid("", newer.to_string()),
    }
}

impl From<PoolTuning> for PoolBody {
    fn from(tuning: PoolTuning) -> Self {
        let PoolTuning {
            concurrency,
            adaptive,
            tenant_in_flight_max,
            lanes,
            paused,
        } = tuning;
        let adaptive = adaptive.map(String::from);
        Self {
            concurrency,
            adaptive,
            tenant_in_flight_max,
            lanes,
            paused,
        }
    }
}

/// Reads a body, with what cannot be read of it.
fn pool_tuning(body: PoolBody) -> (PoolTuning, Vec<TuningMistake>) {
    let PoolBody {
        concurrency,
        adaptive,
        tenant_in_flight_max,
        lanes,
        paused,
    } = body;
    let (adaptive, mistakes) = match adaptive.map(|text| text.parse::<Choice>()).transpose() {
        Ok(adaptive) => (adaptive, Vec::new()),
        Err(error) => (
            None,
            vec![TuningMistake {
                key: "adaptive".to_owned(),
                detail: error.to_string(),
            }],
        ),
    };
    (
        PoolTuning {
            concurrency,
            adaptive,
            tenant_in_flight_max,
            lanes,
            paused,
        },
        mistakes,
    )
}

impl From<TenantTuning> for TenantBody {
    fn from(tuning: TenantTuning) -> Self {
        let TenantTuning {
            weight,
            in_flight_max,
            paused,
            mode,
        } = tuning;
        Self {
            weight,
            in_flight_max,
            paused,
            mode,
            confirm: None,
        }
    }
}

impl From<TenantBody> for TenantTuning {
    fn from(body: TenantBody) -> Self {
        let TenantBody {
            weight,
            in_flight_max,
            paused,
            mode,
            confirm: _,
        } = body;
        Self {
            weight,
            in_flight_max,
            paused,
            mode,
        }
    }
}

impl From<Change> for AuditEntry {
    fn from(change: Change) -> Self {
        let Change {
            revision,
            at_ms,
            by,
            pool,
            tenant,
            from,
            to,
        } = change;
        let at = (at_ms > 0).then(|| rfc3339(at_ms));
        Self {
            revision,
            at,
            by,
            pool,
            tenant,
            from,
            to,
        }
    }
}
