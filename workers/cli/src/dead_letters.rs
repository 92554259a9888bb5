//! Dead letters from the command line: how they are reached, what may be asked for, how a job is followed.

use super::argument::ArgumentError;
use super::progress;
use super::settings::Settings;
use super::{EXIT_FAILED, EXIT_OK, Outcome};
use ackline_catalog::stored::Stored;
use ackline_replay::letters::{Found, ReplayRequest};
use ackline_replay::view::{Preview, ReplayJobView};
use ackline_replay::{Count, DeadLetters, Filter, PoolRules, ReplayJob, State, terms};
use ackline_runtime::log::Log;
use ackline_shared::clock::now_ms;
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::nats;
use ackline_shared::subjects::Pool;
use serde::Serialize;
use std::fmt::{Display, Write};
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Longest count; the command line has no request to answer within a time.
pub const COUNT_TIME: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(150);
const TAKE_UP_EVERY: Duration = Duration::from_secs(1);
const POOLS: PoolRules = PoolRules {
    target: ackline_pools::target,
    refusal: ackline_pools::refusal,
};

/// Which dead letters.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct FilterArguments {
    /// Only those of this tenant
    #[arg(long, value_name = "ID")]
    pub tenant: Option<String>,
    /// Only those of this pool: flows, replies, relay, crm, events or journal
    #[arg(long)]
    pub pool: Option<Pool>,
    /// Only this kind, such as message.text, or a family, such as message.*
    #[arg(long)]
    pub kind: Option<String>,
    /// Only those whose reason holds this text
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Only those whose payload holds this text
    #[arg(long)]
    pub text: Option<String>,
    /// Only those of the conversation with this key, such as u:US.1
    #[arg(long, value_name = "KEY")]
    pub conversation: Option<String>,
    /// Only those given up at this time or later: RFC 3339, or how long ago, such as 7d
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Only those given up before this time
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
}

impl FilterArguments {
    /// Checks them.
    pub fn read(&self) -> Result<Filter, ArgumentError> {
        let now = now_ms();
        let time = |text: &Option<String>| {
            text.as_deref()
                .map(|text| terms::time(text, now))
                .transpose()
        };
        Ok(Filter {
            tenant: self.tenant.as_ref().map(TenantId::new).transpose()?,
            pool: self.pool,
            kind: self.kind.clone(),
            reason: self.reason.clone(),
            text: self.text.clone(),
            conversation: self.conversation.clone(),
            from_ms: time(&self.from)?,
            to_ms: time(&self.to)?,
        })
    }
}

/// How a job is followed.
#[derive(Debug, Clone, clap::Args)]
pub struct FollowArguments {
    /// Store the job and do not wait; a process that serves the API carries it out
    #[arg(long)]
    pub detach: bool,
    /// Print JSON instead of text
    #[arg(long)]
    pub json: bool,
}

/// The dead letters with what a command needs beside them.
pub struct Tools {
    /// The dead letters.
    pub dead_letters: DeadLetters,
    stored: Stored,
    lease_ttl: Duration,
}

impl Tools {
    /// Connects.
    pub async fn open(settings: &Settings) -> Result<Self, Outcome> {
        let context = nats::jetstream(nats::connect(&settings.nats, "ackline").await?);
        let buckets = Box::pin(nats::prepare(&context, &settings.nats)).await?;
        let stored = Stored::load(&buckets.config).await?;
        let dead_letters = DeadLetters::new(Log::new(context, settings.nats.partitions), &buckets);
        Ok(Self {
            dead_letters,
            stored,
            lease_ttl: settings.nats.lease_ttl,
        })
    }

    /// Whether the pool has the target, when one is named.
    pub fn check(
        &self,
        tenant: Option<&TenantId>,
        pool: Option<Pool>,
        target: Option<&EntityId>,
    ) -> Result<(), Outcome> {
        let Some(target) = target else { return Ok(()) };
        let (Some(tenant), Some(pool)) = (tenant, pool) else {
            return Err(bad("--target needs --tenant and --pool"));
        };
        POOLS
            .check_target(&self.stored.snapshot().0, tenant, pool, target)
            .map_err(bad)
    }

    /// A letter that must be there.
    pub async fn letter(&self, sequence: u64) -> Result<Found, Outcome> {
        let found = self.dead_letters.letter(sequence).await?;
        found.ok_or_else(|| {
            Outcome::failed(format!(
                "error: there is no dead letter {sequence}, or none any more\n"
            ))
        })
    }

    /// How many open letters a filter means.
    pub async fn count(&self, filter: &Filter) -> Result<Count, Outcome> {
        Ok(self.dead_letters.count(filter, COUNT_TIME).await?)
    }

    /// Foretells what a replay of a letter would do.
    pub fn preview(&self, found: &Found, request: ReplayRequest) -> Preview {
        let draft = self.dead_letters.draft(request, "<replay>".to_owned());
        Preview::of(found, &draft, &self.stored.snapshot().0, &POOLS)
    }

    /// Stores a replay job and follows it to its end.
    pub async fn give(
        &self,
        request: ReplayRequest,
        how: &FollowArguments,
    ) -> Result<Outcome, Outcome> {
        let job = self.dead_letters.start(request).await?;
        if how.detach {
            return Ok(reported(&job, how.json));
        }
        self.follow(job, how.json).await
    }

    /// Follows a job to its end, and carries it out here when nobody else does.
    pub async fn follow(&self, mut job: ReplayJob, json: bool) -> Result<Outcome, Outcome> {
        let bar = progress::bar(job.expected);
        let mut tried: Option<Instant> = None;
        let mut carrying = tokio::task::JoinSet::new();
        while !job.state.is_final() {
            while carrying.try_join_next().is_some() {}
            if carrying.is_empty() && tried.is_none_or(|tried| tried.elapsed() > TAKE_UP_EVERY) {
                tried = Some(Instant::now());
                let (dead_letters, id, ttl) =
                    (self.dead_letters.clone(), job.id.clone(), self.lease_ttl);
                let instance = format!("cli-{}", std::process::id());
                carrying.spawn(async move { dead_letters.take_up(&id, &instance, ttl).await });
            }
            sleep(LOOK_EVERY).await;
            let found = self.dead_letters.find(&job.id).await?;
            (_, job) = found.ok_or_else(|| Outcome::failed("error: the job is gone\n"))?;
            bar.set_position(job.handled());
        }
        // The lock is given back before the connection goes.
        while carrying.join_next().await.is_some() {}
        bar.finish_and_clear();
        Ok(reported(&job, json))
    }
}

/// What became of a job.
pub fn reported(job: &ReplayJob, json: bool) -> Outcome {
    let code = match job.state {
        State::Failed | State::Cancelled => EXIT_FAILED,
        State::Waiting | State::Running | State::Done => EXIT_OK,
    };
    let view = ReplayJobView::from(job.clone());
    let out = if json { pretty(&view) } else { job_text(&view) };
    Outcome {
        code,
        ..Outcome::printed(out)
    }
}

/// A job in words.
pub fn job_text(job: &ReplayJobView) -> String {
    let mut text = format!(
        "{}  {}  {} of {} done, {} skipped, {} failed\n",
        job.id, job.state, job.done, job.expected, job.skipped, job.failed
    );
    for (note, count) in &job.notes {
        line(&mut text, format_args!("  {count} skipped: {note}"));
    }
    if let Some(problem) = &job.problem {
        line(&mut text, format_args!("  stopped: {problem}"));
    }
    if matches!(job.state, "waiting" | "running") {
        let left = humantime::format_duration(Duration::from_secs(job.remaining_seconds));
        line(
            &mut text,
            format_args!(
                "  about {left} left; `ackline replay show {}` tells how far it is",
                job.id
            ),
        );
    }
    text
}

/// Bad input, explained.
pub fn bad(explanation: impl Display) -> Outcome {
    Outcome::bad_input(format!("error: {explanation}\n"))
}

/// One of our own shapes as JSON, on lines of its own.
pub fn pretty(value: &impl Serialize) -> String {
    // What is passed on as it was written is laid out, too.
    let value = serde_json::to_value(value).unwrap_or_default();
    format!(
        "{}\n",
        serde_json::to_string_pretty(&value).unwrap_or_default()
    )
}

/// Who requests replays from here.
pub fn operator(environment: &[(String, String)]) -> String {
    let user = environment
        .iter()
        .find(|(name, _)| name == "USER")
        .map_or("unknown", |(_, user)| user);
    format!("cli {}", user.chars().take(64).collect::<String>())
}

/// Adds a line to a text.
pub fn line(text: &mut String, words: std::fmt::Arguments<'_>) {
    let _writing_to_a_string_never_fails = writeln!(text, "{words}");
}
