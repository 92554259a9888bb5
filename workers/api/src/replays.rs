//! `/v1/replays`: jobs that replay or discard, how far they have come, and replays of the past.

#![allow(
    unused_qualifications,
    reason = "utoipa qualifies the types named in params()"
)]

use super::App;
use super::auth::{Caller, CanManage, CanRead};
use super::dead_letters::{COUNT_TIME, check, of_caller, pool};
use super::input::{JsonBody, PathOf, QueryOf};
use super::page::{self, Page};
use super::problem::{Mistake, Problem, ProblemBody};
use ackline_replay::letters::ReplayRequest;
use ackline_replay::past::{CLASSES, ReadsNone};
use ackline_replay::terms::TermError;
use ackline_replay::view::ReplayJobView;
use ackline_replay::{Action, Count, DeadLettersError, Past, ReplayJob, Source, terms};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::{EntityId, PhoneNumberId};
use ackline_shared::subjects::Pool;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct ReplaysQuery {
    /// Where the page begins.
    cursor: Option<String>,
    /// Items on the page, 1 to 200; 50 when absent.
    limit: Option<u32>,
}

/// Put the updates of some time before one pool again, such as last week's before a new bot.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayPast {
    /// The pool: `relay`, `events`, `crm` or `flows`.
    pool: String,
    /// Only to this relay, endpoint, CRM link or bot.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    target: Option<EntityId>,
    /// Received at this time or later: RFC 3339, or how long ago, such as `7d`.
    from: String,
    /// Received before this time; now when absent.
    #[serde(default)]
    to: Option<String>,
    /// Only these: `msg`, `sts`, `acct`, and `records` of what we did; empty for all that the pool reads.
    #[serde(default)]
    classes: Vec<String>,
    /// Only those of this business number.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    phone_number_id: Option<PhoneNumberId>,
    /// Replays a second, 1 to 5,000; 50 when absent.
    #[serde(default)]
    rate_per_second: Option<u32>,
    /// Needed for the pool `flows`: people are answered again.
    #[serde(default)]
    answer_people: bool,
    /// Only count what it would be.
    #[serde(default)]
    dry_run: bool,
}

impl ReplayPast {
    fn read(&self, app: &App, caller: &Caller) -> Result<(Past, Pool, u32), Problem> {
        let (now, mut mistakes) = (now_ms(), Vec::new());
        let mut noted = |at: &str, read: Result<u64, TermError>| {
            read.unwrap_or_else(|error| {
                mistakes.push(Mistake::new(at, error.to_string()));
                0
            })
        };
        let from_ms = noted("/from", terms::time(&self.from, now));
        let to_ms = noted(
            "/to",
            self.to
                .as_deref()
                .map_or(Ok(now), |text| terms::time(text, now)),
        );
        let rate = noted(
            "/rate_per_second",
            terms::rate(self.rate_per_second).map(u64::from),
        );
        let pool = pool("pool", &self.pool)?;
        check(app, caller, Some(pool), self.target.as_ref())?;
        if let Some(unknown) = self
            .classes
            .iter()
            .find(|class| !CLASSES.contains(&class.as_str()))
        {
            let known = CLASSES.join(", ");
            mistakes.push(Mistake::new(
                "/classes",
                format!("there is no `{unknown}`; there are {known}"),
            ));
        }
        let past = Past {
            tenant: caller.tenant.clone(),
            from_ms,
            to_ms,
            classes: self.classes.clone(),
            phone: self.phone_number_id.clone(),
        };
        if past.filters(pool).is_empty() {
            mistakes.push(Mistake::new("/pool", ReadsNone::of(pool).to_string()));
        }
        if pool == Pool::Flows && !self.answer_people {
            let detail = "flows answer people again; set `answer_people` when that is meant";
            mistakes.push(Mistake::new("/answer_people", detail));
        }
        if mistakes.is_empty() {
            Ok((past, pool, u32::try_from(rate).unwrap_or(1)))
        } else {
            Err(Problem::Invalid(mistakes))
        }
    }
}

/// Puts the updates of some time before one pool again, marked as a replay.
#[utoipa::path(
    post, path = "/replays", tag = "replays", operation_id = "replayPast", request_body = ReplayPast,
    responses(
        (status = 200, description = "With `dry_run`: how many it would be.", body = Count),
        (status = 202, description = "Requested.", body = ReplayJobView),
        (status = 422, description = "Not acceptable; `errors` lists why.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn create(
    State(app): State<App>,
    CanManage(caller): CanManage,
    JsonBody(body): JsonBody<ReplayPast>,
) -> Result<Response, Problem> {
    let (past, pool, rate_per_second) = body.read(&app, &caller)?;
    app.reach_log()?;
    let count = app
        .dead_letters()
        .count_past(&past, pool, COUNT_TIME)
        .await?;
    if body.dry_run {
        return Ok(Json(count).into_response());
    }
    let request = ReplayRequest {
        target: terms::target(Some(pool), body.target),
        rate_per_second,
        expected: count.total,
        ..of_caller(Action::Replay, Source::Past(past), &caller)
    };
    accepted(&app, request).await
}

/// Lists jobs that replay or discard, the newest first.
#[utoipa::path(
    get, path = "/replays", tag = "replays", operation_id = "listReplays", params(ReplaysQuery),
    responses((status = 200, description = "A page.", body = Page<ReplayJobView>))
)]
pub async fn list(
    State(app): State<App>,
    CanRead(caller): CanRead,
    QueryOf(query): QueryOf<ReplaysQuery>,
) -> Result<Json<Page<ReplayJobView>>, Problem> {
    let bound = page::bound(query.limit)?;
    let after = page::decode(query.cursor.as_deref())?;
    app.reach_log()?;
    let _slot = app.slots.enter(&caller.tenant).await?;
    let mut jobs = app.dead_letters().jobs_of(Some(&caller.tenant)).await?;
    if let Some((created_ms, id)) = after {
        jobs.retain(|job| (job.created_ms, job.id.as_str()) < (created_ms, id.as_str()));
    }
    let cursor = |job: &ReplayJob| format!("{}:{}", job.created_ms, job.id);
    Ok(Json(Page::new(
        bound.cut(jobs),
        cursor,
        ReplayJobView::from,
    )))
}

/// Tells how far a job has come.
#[utoipa::path(
    get, path = "/replays/{id}", tag = "replays", operation_id = "getReplay",
    params(("id" = String, Path, description = "The job.")),
    responses(
        (status = 200, description = "The job.", body = ReplayJobView),
        (status = 404, description = "No such job.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn get(
    State(app): State<App>,
    CanRead(caller): CanRead,
    PathOf(id): PathOf<String>,
) -> Result<Json<ReplayJobView>, Problem> {
    find(&app, &caller, &id).await.map(|job| Json(job.into()))
}

/// Stops a job; what it has done stays done.
#[utoipa::path(
    post, path = "/replays/{id}/cancel", tag = "replays", operation_id = "cancelReplay",
    params(("id" = String, Path, description = "The job.")),
    responses(
        (status = 202, description = "It stops within a second.", body = ReplayJobView),
        (status = 404, description = "No such job.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn cancel(
    State(app): State<App>,
    CanManage(caller): CanManage,
    PathOf(id): PathOf<String>,
) -> Result<Response, Problem> {
    find(&app, &caller, &id).await?;
    let job = app
        .dead_letters()
        .stop(&id)
        .await?
        .ok_or(Problem::NotFound("replay"))?;
    Ok((StatusCode::ACCEPTED, Json(ReplayJobView::from(job))).into_response())
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<ReplayJob, Problem> {
    app.reach_log()?;
    let found = app.dead_letters().find(id).await?.map(|(_, job)| job);
    found
        .filter(|job| job.tenant.as_ref() == Some(&caller.tenant))
        .ok_or(Problem::NotFound("replay"))
}

/// Stores a replay job and answers 202.
pub(super) async fn accepted(app: &App, request: ReplayRequest) -> Result<Response, Problem> {
    app.reach_log()?;
    let job = app.dead_letters().start(request).await?;
    let location = format!("/v1/replays/{}", job.id);
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(ReplayJobView::from(job)),
    )
        .into_response())
}

impl From<DeadLettersError> for Problem {
    fn from(error: DeadLettersError) -> Self {
        match error {
            DeadLettersError::Busy => Self::invalid("", error.to_string()),
            DeadLettersError::Scan(_) | DeadLettersError::Books(_) => {
                tracing::warn!(%error, "the dead letters cannot be read");
                Self::NatsAway
            }
        }
    }
}
