//! `/v1/pools`: how the worker pools are, over all processes, with a verdict in words.
//!
//! The figures are of the whole installation and name its tenants, so a key needs the scope `operate`, which no
//! key has unless it is declared.

use super::App;
use super::auth::CanOperate;
use super::input::PathOf;
use super::page::Page;
use super::problem::{Problem, ProblemBody};
use crate::core::status::fleet::PoolSum;
use crate::core::status::view::{PoolView, TenantView};
use axum::Json;
use axum::extract::State;

/// Lists the pools that somebody runs, or in which something waits.
#[utoipa::path(get, path = "/pools", tag = "pools", operation_id = "listPools",
    responses((status = 200, description = "All of them.", body = Page<PoolView>)))]
pub async fn list(State(app): State<App>, CanOperate(_caller): CanOperate) -> Json<Page<PoolView>> {
    let pools = app.board.pools();
    let items = pools.iter().map(|pool| PoolView::new(pool, &app.targets)).collect();
    Json(Page { items, next_cursor: None })
}

/// Shows one pool.
#[utoipa::path(get, path = "/pools/{pool}", tag = "pools", operation_id = "getPool",
    params(("pool" = String, Path, description = "`flows`, `replies`, `relay`, `crm`, `events` or `journal`.")),
    responses(
        (status = 200, description = "The pool.", body = PoolView),
        (status = 404, description = "No such pool, or nobody runs it and nothing waits.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn get(
    State(app): State<App>,
    CanOperate(_caller): CanOperate,
    PathOf(name): PathOf<String>,
) -> Result<Json<PoolView>, Problem> {
    Ok(Json(PoolView::new(&find(&app, &name)?, &app.targets)))
}

/// Lists a pool's tenants with most to do, most first.
#[utoipa::path(get, path = "/pools/{pool}/tenants", tag = "pools", operation_id = "listPoolTenants",
    params(("pool" = String, Path, description = "`flows`, `replies`, `relay`, `crm`, `events` or `journal`.")),
    responses(
        (status = 200, description = "The busiest.", body = Page<TenantView>),
        (status = 404, description = "No such pool, or nobody runs it and nothing waits.", body = ProblemBody, content_type = "application/problem+json"),
    ))]
pub async fn tenants(
    State(app): State<App>,
    CanOperate(_caller): CanOperate,
    PathOf(name): PathOf<String>,
) -> Result<Json<Page<TenantView>>, Problem> {
    let items = find(&app, &name)?.tenants.iter().map(TenantView::from).collect();
    Ok(Json(Page { items, next_cursor: None }))
}

fn find(app: &App, name: &str) -> Result<PoolSum, Problem> {
    let pool = name.parse().map_err(|_| Problem::NotFound("pool"))?;
    app.board.pool(pool).ok_or(Problem::NotFound("pool"))
}
