//! `/v1/dead-letters`: what was given up for a tenant, newest first, with why and from where; put it before its
//! pool again, or discard it.
//!
//! They are read straight from the stream and stay in it until the retention, whatever is done about them.

#![allow(
    unused_qualifications,
    reason = "utoipa qualifies the types named in params()"
)]

use super::App;
use super::auth::{Caller, CanManage, CanRead};
use super::input::{JsonBody, PathOf, QueryOf};
use super::page::{self, Page};
use super::problem::{Mistake, Problem, ProblemBody};
use super::replays::accepted;
use ackline_replay::letters::{Found, ReplayRequest};
use ackline_replay::list::Wanted;
use ackline_replay::view::{DeadLetter, InspectedLetter, Preview, ReplayJobView};
use ackline_replay::{Action, Count, Filter, Source, terms};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::EntityId;
use ackline_shared::subjects::Pool;
use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::value::RawValue;
use std::time::Duration;
use utoipa::{IntoParams, ToSchema};

/// Time for counting; a request has some more.
pub(super) const COUNT_TIME: Duration = Duration::from_secs(10);

/// Which dead letters.
// The filter's keys are spelled out again: serde cannot both flatten a part and refuse unknown keys.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct DeadLettersQuery {
    /// Only those of this pool: `flows`, `replies`, `relay`, `crm`, `events` or `journal`.
    pool: Option<String>,
    /// Only this kind, such as `message.text`, or a family, such as `message.*`.
    kind: Option<String>,
    /// Only those whose reason holds this text.
    reason: Option<String>,
    /// Only those whose payload holds this text.
    text: Option<String>,
    /// Only those of the conversation with this key, such as `u:US.1`.
    conversation: Option<String>,
    /// Only those given up at this time or later: RFC 3339, or how long ago, such as `7d`.
    from: Option<String>,
    /// Only those given up before this time.
    to: Option<String>,
    /// `open` (the default), `replayed`, `discarded` or `all`.
    state: Option<String>,
    /// Where the page begins.
    cursor: Option<String>,
    /// Items on the page, 1 to 200; 50 when absent.
    limit: Option<u32>,
}

/// Which open dead letters.
#[derive(Debug, Default, Deserialize, ToSchema, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(default, deny_unknown_fields)]
pub struct LetterFilter {
    /// Only those of this pool: `flows`, `replies`, `relay`, `crm`, `events` or `journal`.
    pool: Option<String>,
    /// Only this kind, such as `message.text`, or a family, such as `message.*`.
    kind: Option<String>,
    /// Only those whose reason holds this text.
    reason: Option<String>,
    /// Only those whose payload holds this text.
    text: Option<String>,
    /// Only those of the conversation with this key, such as `u:US.1`.
    conversation: Option<String>,
    /// Only those given up at this time or later: RFC 3339, or how long ago, such as `7d`.
    from: Option<String>,
    /// Only those given up before this time.
    to: Option<String>,
}

impl LetterFilter {
    fn read(self, caller: &Caller) -> Result<Filter, Problem> {
        let now = now_ms();
        let time = |name: &str, text: Option<String>| {
            let read = text.map(|text| terms::time(&text, now)).transpose();
            read.map_err(|error| Problem::Malformed(format!("{name}: {error}")))
        };
        Ok(Filter {
            tenant: Some(caller.tenant.clone()),
            pool: self.pool.map(|name| pool("pool", &name)).transpose()?,
            kind: self.kind,
            reason: self.reason,
            text: self.text,
            conversation: self.conversation,
            from_ms: time("from", self.from)?,
            to_ms: time("to", self.to)?,
        })
    }
}

pub(super) fn pool(place: &str, name: &str) -> Result<Pool, Problem> {
    name.parse()
        .map_err(|error| Problem::Malformed(format!("{place}: {error}")))
}

/// The letters that a filter means, or all when that is said.
fn chosen(filter: LetterFilter, all: bool, caller: &Caller) -> Result<Filter, Problem> {
    let filter = filter.read(caller)?;
    let mistake = match (filter.chooses(), all) {
        (false, false) => Mistake::new(
            "/filter",
            "name at least one of pool, kind, reason, text, conversation, from and to; or set `all` for every open dead letter",
        ),
        (true, true) => Mistake::new(
            "/all",
            "`all` means every open dead letter; leave it or the filter out",
        ),
        (true, false) | (false, true) => return Ok(filter),
    };
    Err(Problem::Invalid(vec![mistake]))
}

/// Whether the caller knows how many these are.
fn agreed(count: &Count, reported: u64) -> Result<(), Problem> {
    let detail = match count.complete {
        true if count.total == reported => return Ok(()),
        true => format!("the filter means {} letters now", count.total),
        false => {
            "there are more than can be counted in time; narrow the filter, such as by from and to"
                .to_owned()
        }
    };
    Err(Problem::invalid("/count", detail))
}

/// Replay all that a filter means.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayLetters {
    /// Which; at least one key, or `all`.
    #[serde(default)]
    filter: LetterFilter,
    /// Every open dead letter of the tenant.
    #[serde(default)]
    all: bool,
    /// How many these are, the `total` of a dry run: another number than there are now changes nothing. Needed unless
    /// it is a dry run.
    #[serde(default)]
    count: Option<u64>,
    /// Only to this relay, endpoint, CRM link or bot; needs a pool in the filter.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    target: Option<EntityId>,
    /// Also send messages again whose answer was lost: their recipient may get them twice.
    #[serde(default)]
    include_ambiguous: bool,
    /// Also send messages that are older than their window of 24 h, which Meta may refuse; templates need no such word.
    #[serde(default)]
    include_expired: bool,
    /// Replays a second, 1 to 5,000; 50 when absent.
    #[serde(default)]
    rate_per_second: Option<u32>,
    /// Only count what it would be; to be done first, for its `total` is the `count` of what follows.
    #[serde(default)]
    dry_run: bool,
}

/// Replay one, perhaps with other contents.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ReplayLetter {
    /// What it holds instead; Meta's signature does not go with it, and a relay gets it only with an `app_secret` of
    /// its own or by an app declared for the tenant.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    payload: Option<Box<RawValue>>,
    /// Only to this relay, endpoint, CRM link or bot.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    target: Option<EntityId>,
    /// Send it again although its answer was lost: its recipient may get it twice.
    #[serde(default)]
    include_ambiguous: bool,
    /// Send it although it is older than its window of 24 h, outside of which Meta takes templates alone.
    #[serde(default)]
    include_expired: bool,
}

/// Discard all that a filter means.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DiscardLetters {
    /// Which; at least one key, or `all`.
    #[serde(default)]
    filter: LetterFilter,
    /// Every open dead letter of the tenant.
    #[serde(default)]
    all: bool,
    /// How many these are: another number than there are now changes nothing.
    count: u64,
}

/// Lists dead letters, the newest first.
#[utoipa::path(
    get, path = "/dead-letters", tag = "dead letters", operation_id = "listDeadLetters", params(DeadLettersQuery),
    responses(
        (status = 200, description = "A page.", body = Page<DeadLetter>),
        (status = 503, description = "The log cannot be reached.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(app): State<App>,
    CanRead(caller): CanRead,
    QueryOf(query): QueryOf<DeadLettersQuery>,
) -> Result<Json<Page<DeadLetter>>, Problem> {
    let limit = page::limit(query.limit)?;
    let before = page::decode(query.cursor.as_deref())?.map(|(sequence, _)| sequence);
    let wanted = Wanted::parse(query.state.as_deref().unwrap_or("open"));
    let wanted = wanted.ok_or_else(|| {
        Problem::Malformed("state: there are open, replayed, discarded and all".to_owned())
    })?;
    let DeadLettersQuery {
        pool,
        kind,
        reason,
        text,
        conversation,
        from,
        to,
        ..
    } = query;
    let filter = LetterFilter {
        pool,
        kind,
        reason,
        text,
        conversation,
        from,
        to,
    }
    .read(&caller)?;
    app.reach_log()?;
    let room = usize::try_from(limit).unwrap_or(usize::MAX);
    let _slot = app.slots.enter(&caller.tenant).await?;
    let listing = app
        .dead_letters()
        .list(&filter, wanted, before, room)
        .await?;
    Ok(Json(Page {
        items: listing.letters.into_iter().map(DeadLetter::from).collect(),
        next_cursor: listing
            .next
            .map(|sequence| page::encode(&format!("{sequence}:"))),
    }))
}

/// Counts open dead letters by pool and reason.
#[utoipa::path(
    get, path = "/dead-letters/count", tag = "dead letters", operation_id = "countDeadLetters", params(LetterFilter),
    responses((status = 200, description = "How many.", body = Count))
)]
pub async fn count(
    State(app): State<App>,
    CanRead(caller): CanRead,
    QueryOf(query): QueryOf<LetterFilter>,
) -> Result<Json<Count>, Problem> {
    let filter = query.read(&caller)?;
    app.reach_log()?;
    Ok(Json(app.dead_letters().count(&filter, COUNT_TIME).await?))
}

/// Reads a dead letter, and says what a replay of it would do.
#[utoipa::path(
    get, path = "/dead-letters/{sequence}", tag = "dead letters", operation_id = "getDeadLetter",
    params(("sequence" = u64, Path, description = "Its place among the dead letters.")),
    responses(
        (status = 200, description = "The letter.", body = InspectedLetter),
        (status = 404, description = "No such letter, or none any more.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn get(
    State(app): State<App>,
    CanRead(caller): CanRead,
    PathOf(sequence): PathOf<u64>,
) -> Result<Json<InspectedLetter>, Problem> {
    let found = find(&app, &caller, sequence).await?;
    let request = terms::letters(
        Action::Replay,
        Source::Letter {
            sequence,
            payload: None,
        },
        String::new(),
        None,
    );
    let draft = app.dead_letters().draft(request, "<replay>".to_owned());
    let replay = Preview::of(&found, &draft, &app.platform.snapshot(), &app.pools);
    Ok(Json(InspectedLetter {
        letter: found.into(),
        replay,
    }))
}

async fn find(app: &App, caller: &Caller, sequence: u64) -> Result<Found, Problem> {
    app.reach_log()?;
    let found = app.dead_letters().letter(sequence).await?;
    found
        .filter(|found| found.letter.tenant == caller.tenant)
        .ok_or(Problem::NotFound("dead letter"))
}

/// Puts a dead letter before its pool again, perhaps with other contents.
#[utoipa::path(
    post, path = "/dead-letters/{sequence}/replay", tag = "dead letters", operation_id = "replayDeadLetter",
    request_body = ReplayLetter, params(("sequence" = u64, Path, description = "Its place among the dead letters.")),
    responses(
        (status = 202, description = "Requested.", body = ReplayJobView),
        (status = 404, description = "No such letter, or none any more.", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "It cannot be replayed so; `errors` says why.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn replay_one(
    State(app): State<App>,
    CanManage(caller): CanManage,
    PathOf(sequence): PathOf<u64>,
    JsonBody(body): JsonBody<ReplayLetter>,
) -> Result<Response, Problem> {
    let found = find(&app, &caller, sequence).await?;
    check(&app, &caller, Some(found.letter.pool), body.target.as_ref())?;
    let payload = body.payload.map(|payload| payload.get().to_owned());
    let request = ReplayRequest {
        target: terms::target(None, body.target),
        include_ambiguous: body.include_ambiguous,
        include_expired: body.include_expired,
        expected: 1,
        ..of_caller(
            Action::Replay,
            Source::Letter { sequence, payload },
            &caller,
        )
    };
    let draft = app
        .dead_letters()
        .draft(request.clone(), "<replay>".to_owned());
    let preview = Preview::of(&found, &draft, &app.platform.snapshot(), &app.pools);
    if !preview.possible {
        return Err(Problem::invalid("", preview.detail));
    }
    accepted(&app, request).await
}

/// Puts all open dead letters that a filter means before their pools again, at a bounded rate.
#[utoipa::path(
    post, path = "/dead-letters/replay", tag = "dead letters", operation_id = "replayDeadLetters", request_body = ReplayLetters,
    responses(
        (status = 200, description = "With `dry_run`: how many it would be.", body = Count),
        (status = 202, description = "Requested.", body = ReplayJobView),
        (status = 422, description = "Not acceptable; `errors` lists why.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn replay(
    State(app): State<App>,
    CanManage(caller): CanManage,
    JsonBody(body): JsonBody<ReplayLetters>,
) -> Result<Response, Problem> {
    let rate_per_second = terms::rate(body.rate_per_second)
        .map_err(|error| Problem::invalid("/rate_per_second", error.to_string()))?;
    let filter = chosen(body.filter, body.all, &caller)?;
    check(&app, &caller, filter.pool, body.target.as_ref())?;
    if !body.dry_run && body.count.is_none() {
        let detail =
            "say how many: set `dry_run` first, and then `count` to the `total` that it told";
        return Err(Problem::invalid("/count", detail));
    }
    app.reach_log()?;
    let count = app.dead_letters().count(&filter, COUNT_TIME).await?;
    if body.dry_run {
        return Ok(Json(count).into_response());
    }
    agreed(&count, body.count.unwrap_or_default())?;
    let request = ReplayRequest {
        target: terms::target(None, body.target),
        include_ambiguous: body.include_ambiguous,
        include_expired: body.include_expired,
        rate_per_second,
        expected: count.total,
        ..of_caller(Action::Replay, Source::Letters(filter), &caller)
    };
    accepted(&app, request).await
}

/// Discards all open dead letters that a filter means; they are kept until the retention.
#[utoipa::path(
    post, path = "/dead-letters/discard", tag = "dead letters", operation_id = "discardDeadLetters", request_body = DiscardLetters,
    responses(
        (status = 202, description = "Requested.", body = ReplayJobView),
        (status = 422, description = "No filter, or another number of letters; `errors` lists why.", body = ProblemBody, content_type = "application/problem+json"),
    )
)]
pub async fn discard(
    State(app): State<App>,
    CanManage(caller): CanManage,
    JsonBody(body): JsonBody<DiscardLetters>,
) -> Result<Response, Problem> {
    let filter = chosen(body.filter, body.all, &caller)?;
    app.reach_log()?;
    let count = app.dead_letters().count(&filter, COUNT_TIME).await?;
    agreed(&count, body.count)?;
    let request = of_caller(Action::Discard, Source::Letters(filter), &caller);
    accepted(
        &app,
        ReplayRequest {
            expected: count.total,
            ..request
        },
    )
    .await
}

pub(super) fn of_caller(action: Action, source: Source, caller: &Caller) -> ReplayRequest {
    let by = format!("key {}", caller.key);
    terms::letters(action, source, by, Some(caller.tenant.clone()))
}

/// Whether the pool has the target, when one is named.
pub(super) fn check(
    app: &App,
    caller: &Caller,
    pool: Option<Pool>,
    target: Option<&EntityId>,
) -> Result<(), Problem> {
    let Some(target) = target else { return Ok(()) };
    let pool = pool.ok_or_else(|| Problem::invalid("/target", "a target needs its pool"))?;
    let snapshot = app.platform.snapshot();
    let checked = app
        .pools
        .check_target(&snapshot, &caller.tenant, pool, target);
    checked.map_err(|error| Problem::invalid("/target", error.to_string()))
}
