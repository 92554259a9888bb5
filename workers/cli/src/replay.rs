//! `ackline replay`: put the updates of some time before one pool or target, and look after replay jobs.

use super::agree::{AgreeArguments, Person};
use super::argument::ArgumentError;
use super::counted::Counted;
use super::dead_letters::{
    COUNT_TIME, FollowArguments, Tools, bad, line, operator, pretty, reported,
};
use super::settings::Settings;
use super::{EXIT_OK, Outcome};
use ackline_replay::letters::ReplayRequest;
use ackline_replay::past::{CLASSES, ReadsNone};
use ackline_replay::view::ReplayJobView;
use ackline_replay::{Action, Past, ReplayJob, Source, terms};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::{EntityId, PhoneNumberId, TenantId};
use ackline_shared::subjects::Pool;

/// Arguments of `ackline replay`.
#[derive(Debug, clap::Args)]
pub struct ReplayArguments {
    #[command(subcommand)]
    command: ReplayCommand,
}

#[derive(Debug, clap::Subcommand)]
enum ReplayCommand {
    /// Put what a tenant received in some time before a pool again, such as last week's before a new bot
    #[command(
        after_help = "  ackline replay past --tenant acme --pool relay --target new-bot --from 7d --dry-run"
    )]
    Past(PastArguments),
    /// List jobs that replay or discard, the newest first
    List {
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Tell how far a job has come
    Show {
        /// The job
        id: String,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Follow a job to its end, and carry it out when nobody else does
    Follow {
        /// The job
        id: String,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Stop a job; what it has done stays done
    Cancel {
        /// The job
        id: String,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, clap::Args)]
struct PastArguments {
    /// Whose
    #[arg(long, value_name = "ID")]
    tenant: String,
    /// The pool: relay, events, crm or flows
    #[arg(long)]
    pool: Pool,
    /// Only to this relay, endpoint, CRM link or bot
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    /// Received at this time or later: RFC 3339, or how long ago, such as 7d
    #[arg(long, value_name = "TIME")]
    from: String,
    /// Received before this time; now unless given
    #[arg(long, value_name = "TIME")]
    to: Option<String>,
    /// Only these, separated by commas: msg, sts, acct, and records of what we did
    #[arg(long, value_delimiter = ',', value_parser = clap::builder::PossibleValuesParser::new(CLASSES))]
    class: Vec<String>,
    /// Only those of this business number
    #[arg(long, value_name = "PHONE_NUMBER_ID")]
    phone: Option<String>,
    /// Replays a second
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<u32>,
    /// Needed for the pool flows: people are answered again
    #[arg(long)]
    answer_people: bool,
    /// Only count; exit status 2 when there are any
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    agree: AgreeArguments,
    #[command(flatten)]
    follow: FollowArguments,
}

/// Does what the arguments ask for.
pub async fn run(
    arguments: &ReplayArguments,
    settings: &Settings,
    environment: &[(String, String)],
    person: &mut dyn Person,
) -> Result<Outcome, Outcome> {
    match &arguments.command {
        ReplayCommand::Past(arguments) => {
            past(arguments, settings, operator(environment), person).await
        }
        ReplayCommand::List { json } => list(*json, settings).await,
        ReplayCommand::Show { id, json } => show(id, *json, settings).await,
        ReplayCommand::Follow { id, json } => follow(id, *json, settings).await,
        ReplayCommand::Cancel { id, json } => cancel(id, *json, settings).await,
    }
}

async fn past(
    arguments: &PastArguments,
    settings: &Settings,
    by: String,
    person: &mut dyn Person,
) -> Result<Outcome, Outcome> {
    let (past, target, rate_per_second) = read(arguments).map_err(bad)?;
    let pool = arguments.pool;
    let tools = Tools::open(settings).await?;
    tools.check(Some(&past.tenant), Some(pool), target.as_ref())?;
    let count = tools
        .dead_letters
        .count_past(&past, pool, COUNT_TIME)
        .await?;
    let counted = Counted::new(&count, "updates and records would be replayed");
    if arguments.dry_run {
        return Ok(counted.dry_run(arguments.follow.json));
    }
    if count.total == 0 {
        return Ok(counted.outcome(arguments.follow.json));
    }
    arguments
        .agree
        .settle(&counted, &format!("Put them before {pool} again?"), person)?;
    let tenant = Some(past.tenant.clone());
    let request = ReplayRequest {
        target: terms::target(Some(pool), target),
        rate_per_second,
        expected: count.total,
        ..terms::letters(Action::Replay, Source::Past(past), by, tenant)
    };
    tools.give(request, &arguments.follow).await
}

fn read(arguments: &PastArguments) -> Result<(Past, Option<EntityId>, u32), ArgumentError> {
    let now = now_ms();
    let past = Past {
        tenant: TenantId::new(&arguments.tenant)?,
        from_ms: terms::time(&arguments.from, now)?,
        to_ms: arguments
            .to
            .as_deref()
            .map_or(Ok(now), |text| terms::time(text, now))?,
        classes: arguments.class.clone(),
        phone: arguments
            .phone
            .as_ref()
            .map(PhoneNumberId::new)
            .transpose()?,
    };
    if past.filters(arguments.pool).is_empty() {
        return Err(ReadsNone::of(arguments.pool).into());
    }
    if arguments.pool == Pool::Flows && !arguments.answer_people {
        return Err(ArgumentError::AnswersPeople);
    }
    let target = arguments.target.as_ref().map(EntityId::new).transpose()?;
    Ok((past, target, terms::rate(arguments.rate)?))
}

async fn list(json: bool, settings: &Settings) -> Result<Outcome, Outcome> {
    let tools = Tools::open(settings).await?;
    let jobs = tools.dead_letters.jobs().await?;
    let jobs: Vec<ReplayJobView> = jobs.into_iter().map(ReplayJobView::from).collect();
    let mut out = String::new();
    if json {
        out = pretty(&jobs);
    } else if jobs.is_empty() {
        out.push_str("no replays\n");
    }
    for job in jobs.iter().filter(|_| !json) {
        let action = ReplayJob::action_of(&job.id);
        let counts = format!("{}/{}", job.done, job.expected);
        line(
            &mut out,
            format_args!(
                "{}  {:<9}  {:<8}  {counts:>15}  {}  {}",
                job.id,
                job.state,
                if action == Action::Replay {
                    "replay"
                } else {
                    "discard"
                },
                job.created_at,
                job.by
            ),
        );
    }
    Ok(Outcome::printed(out))
}

async fn find(tools: &Tools, id: &str) -> Result<ReplayJob, Outcome> {
    let found = tools.dead_letters.find(id).await?;
    found.map(|(_, job)| job).ok_or_else(|| missing(id))
}

fn missing(id: &str) -> Outcome {
    Outcome::failed(format!(
        "error: there is no replay `{id}`, or none any more\n"
    ))
}

async fn show(id: &str, json: bool, settings: &Settings) -> Result<Outcome, Outcome> {
    let job = find(&Tools::open(settings).await?, id).await?;
    Ok(Outcome {
        code: EXIT_OK,
        ..reported(&job, json)
    })
}

async fn follow(id: &str, json: bool, settings: &Settings) -> Result<Outcome, Outcome> {
    let tools = Tools::open(settings).await?;
    let job = find(&tools, id).await?;
    tools.follow(job, json).await
}

async fn cancel(id: &str, json: bool, settings: &Settings) -> Result<Outcome, Outcome> {
    let tools = Tools::open(settings).await?;
    let stopped = tools.dead_letters.stop(id).await?;
    let job = stopped.ok_or_else(|| missing(id))?;
    Ok(Outcome {
        code: EXIT_OK,
        ..reported(&job, json)
    })
}
