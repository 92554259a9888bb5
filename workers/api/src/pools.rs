//! `/v1/pools`: how the worker pools are, over all processes, with a verdict in words.
//!
//! A key needs the scope `operate`, which no key has unless it is declared. A pool's figures are of the whole installation
//! and need the platform's reach; its tenants are told to whoever operates them.

use super::App;
use super::auth::CanOperate;
use super::input::PathOf;
use super::page::Page;
use super::problem::{Problem, ProblemBody};
use ackline_fleet::fleet::PoolSum;
use ackline_fleet::view::{PoolView, TenantView};
use ackline_shared::ids::TenantId;
use axum::Json;
use axum::extract::State;

/// Lists the pools that somebody runs, or in which something waits.
#[utoipa::path(get, path = "/pools", tag = "pools", operation_id = "listPools",
    responses(
        (status = 200, description = "All of them.", body = Page<PoolView>),
        (status = 403, description = "The key operates less than the whole installation.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn list(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
) -> Result<Json<Page<PoolView>>, Problem> {
    caller.of_platform()?;
    let pools = app.board.pools();
    let items = pools
        .iter()
        .map(|pool| PoolView::new(pool, &app.targets))
        .collect();
    Ok(Json(Page {
        items,
        next_cursor: None,
    }))
}

/// Shows one pool.
#[utoipa::path(get, path = "/pools/{pool}", tag = "pools", operation_id = "getPool",
    params(("pool" = String, Path, description = "`flows`, `replies`, `relay`, `crm`, `events` or `journal`.")),
    responses(
        (status = 200, description = "The pool.", body = PoolView),
        (status = 403, description = "The key operates less than the whole installation.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "No such pool, or nobody runs it and nothing waits.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn get(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
    PathOf(name): PathOf<String>,
) -> Result<Json<PoolView>, Problem> {
    caller.of_platform()?;
    Ok(Json(PoolView::new(&find(&app, &name)?, &app.targets)))
}

/// Lists a pool's tenants with most to do, most first; of the busiest, those that the key operates.
#[utoipa::path(get, path = "/pools/{pool}/tenants", tag = "pools", operation_id = "listPoolTenants",
    params(("pool" = String, Path, description = "`flows`, `replies`, `relay`, `crm`, `events` or `journal`.")),
    responses(
        (status = 200, description = "The busiest.", body = Page<TenantView>),
        (status = 404, description = "No such pool, or nobody runs it and nothing waits.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn tenants(
    State(app): State<App>,
    CanOperate(caller): CanOperate,
    PathOf(name): PathOf<String>,
) -> Result<Json<Page<TenantView>>, Problem> {
    let (pool, snapshot) = (find(&app, &name)?, app.platform.snapshot());
    let reached = |view: &TenantView| {
        TenantId::new(view.tenant.as_str()).is_ok_and(|tenant| caller.reaches(&snapshot, &tenant))
    };
    let items = pool
        .tenants
        .iter()
        .map(TenantView::from)
        .filter(reached)
        .collect();
    Ok(Json(Page {
        items,
        next_cursor: None,
    }))
}

fn find(app: &App, name: &str) -> Result<PoolSum, Problem> {
    let pool = name.parse().map_err(|_| Problem::NotFound("pool"))?;
    app.board.pool(pool).ok_or(Problem::NotFound("pool"))
}
