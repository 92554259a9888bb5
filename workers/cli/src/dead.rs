//! `ackline dead`: look through the dead letters, put them before their pools again, or discard them.

use super::agree::{AgreeArguments, Person};
use super::counted::{Counted, Sent};
use super::dead_letters::{FilterArguments, FollowArguments, Tools, bad, line, operator, pretty};
use super::settings::Settings;
use super::{EXIT_OK, Outcome};
use ackline_replay::letters::ReplayRequest;
use ackline_replay::list::{Listing, Wanted};
use ackline_replay::view::{DeadLetter, InspectedLetter};
use ackline_replay::{Action, Filter, Source, terms};
use ackline_shared::ids::EntityId;
use std::io::Read;
use std::path::PathBuf;

/// Longest edited payload.
const PAYLOAD_BYTES_MAX: u64 = 1 << 20;
const REASON_CHARS_SHOWN: usize = 70;
/// What chooses letters and goes with none that is named.
const FILTERS: [&str; 10] = [
    "all",
    "tenant",
    "pool",
    "kind",
    "reason",
    "text",
    "conversation",
    "from",
    "to",
    "count",
];

/// Arguments of `ackline dead`.
#[derive(Debug, clap::Args)]
pub struct DeadArguments {
    #[command(subcommand)]
    command: DeadCommand,
}

#[derive(Debug, clap::Subcommand)]
enum DeadCommand {
    /// List them, the newest first
    List(ListArguments),
    /// Show one whole, and what a replay of it would do
    Show {
        /// Its place among the dead letters
        sequence: u64,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Count open ones by pool, tenant and reason
    Count {
        #[command(flatten)]
        filter: FilterArguments,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Put them before their pools again, at a bounded rate
    Replay(ReplayArguments),
    /// Replay one with other contents
    Edit(EditArguments),
    /// Discard them; they are kept until the retention
    Discard(DiscardArguments),
}

#[derive(Debug, clap::Args)]
struct ListArguments {
    #[command(flatten)]
    filter: FilterArguments,
    /// open, replayed, discarded or all
    #[arg(long, default_value = "open")]
    state: String,
    /// How many
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only those before this sequence
    #[arg(long, value_name = "SEQUENCE")]
    before: Option<u64>,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Which letters, when they are many.
#[derive(Debug, clap::Args)]
struct Chosen {
    #[command(flatten)]
    filter: FilterArguments,
    /// All open ones, of every tenant
    #[arg(long)]
    all: bool,
}

impl Chosen {
    /// Checks them: all are meant only by whoever says so.
    fn read(&self) -> Result<Filter, Outcome> {
        let filter = self.filter.read().map_err(bad)?;
        match (self.all, filter != Filter::default()) {
            (true, true) => Err(bad(
                "--all means every open dead letter; leave it or the filters out",
            )),
            (false, false) => Err(bad(
                "say which: --tenant, --pool, --kind, --reason, --text, --conversation, --from or --to; or --all",
            )),
            (true, false) | (false, true) => Ok(filter),
        }
    }
}

#[derive(Debug, clap::Args)]
struct ReplayArguments {
    #[command(flatten)]
    chosen: Chosen,
    /// Only this one
    #[arg(long, value_name = "SEQUENCE", conflicts_with_all = FILTERS)]
    letter: Option<u64>,
    /// Only to this relay, endpoint, CRM link or bot
    #[arg(long, value_name = "ID")]
    target: Option<String>,
    #[command(flatten)]
    sent: Sent,
    /// Replays a second
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<u32>,
    /// Only count; exit status 2 when there are any
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    agree: AgreeArguments,
    #[command(flatten)]
    follow: FollowArguments,
}

#[derive(Debug, clap::Args)]
struct EditArguments {
    /// Its place among the dead letters
    sequence: u64,
    /// The new contents, JSON; `-` reads them from standard input
    #[arg(long, value_name = "FILE")]
    payload: PathBuf,
    #[command(flatten)]
    sent: Sent,
    #[command(flatten)]
    follow: FollowArguments,
}

#[derive(Debug, clap::Args)]
struct DiscardArguments {
    #[command(flatten)]
    chosen: Chosen,
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
    arguments: &DeadArguments,
    settings: &Settings,
    environment: &[(String, String)],
    person: &mut dyn Person,
) -> Result<Outcome, Outcome> {
    let by = operator(environment);
    match &arguments.command {
        DeadCommand::List(arguments) => list(arguments, settings).await,
        DeadCommand::Show { sequence, json } => show(*sequence, *json, settings).await,
        DeadCommand::Count { filter, json } => count(filter, *json, settings).await,
        DeadCommand::Replay(arguments) => replay(arguments, settings, by, person).await,
        DeadCommand::Edit(arguments) => edit(arguments, settings, by).await,
        DeadCommand::Discard(arguments) => discard(arguments, settings, by, person).await,
    }
}

async fn list(arguments: &ListArguments, settings: &Settings) -> Result<Outcome, Outcome> {
    let filter = arguments.filter.read().map_err(bad)?;
    let wanted = Wanted::parse(&arguments.state);
    let wanted =
        wanted.ok_or_else(|| bad("--state is one of open, replayed, discarded and all"))?;
    let tools = Tools::open(settings).await?;
    let listing = tools
        .dead_letters
        .list(
            &filter,
            wanted,
            arguments.before,
            usize::from(arguments.limit),
        )
        .await?;
    Ok(Outcome::printed(if arguments.json {
        listing_json(listing)
    } else {
        listing_text(listing)
    }))
}

fn listing_json(listing: Listing) -> String {
    let next = listing.next;
    let items: Vec<_> = listing.letters.into_iter().map(DeadLetter::from).collect();
    pretty(&serde_json::json!({"items": items, "next_before": next}))
}

fn listing_text(listing: Listing) -> String {
    if listing.letters.is_empty() && listing.next.is_none() {
        return "no dead letters\n".to_owned();
    }
    let mut text = String::new();
    let columns = ("SEQUENCE", "GIVEN UP", "POOL", "TENANT", "KIND", "REASON");
    let (sequence, at, pool, tenant, kind, reason) = columns;
    line(
        &mut text,
        format_args!("{sequence:>8}  {at:<20}  {pool:<7}  {tenant:<16}  {kind:<18}  {reason}"),
    );
    for letter in listing.letters.into_iter().map(DeadLetter::from) {
        let at = letter
            .at
            .as_deref()
            .map_or("-", |at| at.get(..19).unwrap_or(at));
        let mut reason: String = letter.reason.chars().take(REASON_CHARS_SHOWN).collect();
        if let Some(by) = &letter.settled_by {
            reason = format!("[{} by {by}] {reason}", letter.state);
        }
        line(
            &mut text,
            format_args!(
                "{:>8}  {at:<20}  {:<7}  {:<16}  {:<18}  {reason}",
                letter.sequence, letter.pool, letter.tenant, letter.kind
            ),
        );
    }
    if let Some(next) = listing.next {
        line(&mut text, format_args!("more: --before {next}"));
    }
    text
}

async fn show(sequence: u64, json: bool, settings: &Settings) -> Result<Outcome, Outcome> {
    let tools = Tools::open(settings).await?;
    let found = tools.letter(sequence).await?;
    let request = terms::letters(
        Action::Replay,
        Source::Letter {
            sequence,
            payload: None,
        },
        String::new(),
        None,
    );
    let replay = tools.preview(&found, request);
    let view = InspectedLetter {
        letter: found.into(),
        replay,
    };
    Ok(Outcome::printed(if json {
        pretty(&view)
    } else {
        letter_text(&view)
    }))
}

fn letter_text(view: &InspectedLetter) -> String {
    let letter = &view.letter;
    let settled = letter
        .settled_by
        .as_ref()
        .map_or_else(String::new, |by| format!(" by {by}"));
    let fields = [
        ("state", format!("{}{settled}", letter.state)),
        ("pool", letter.pool.to_owned()),
        ("tenant", letter.tenant.clone()),
        ("reason", letter.reason.clone()),
        (
            "attempts",
            letter
                .attempts
                .map_or_else(String::new, |attempts| attempts.to_string()),
        ),
        ("received", letter.received_at.clone().unwrap_or_default()),
        ("given up", letter.at.clone().unwrap_or_default()),
        ("origin", letter.origin.clone().unwrap_or_default()),
        ("kind", letter.kind.clone()),
        ("id", letter.id.clone()),
        (
            "conversation",
            letter.conversation.clone().unwrap_or_default(),
        ),
        ("done before", letter.done.join(", ")),
        ("replay of", letter.replay_of.clone().unwrap_or_default()),
        ("a replay", view.replay.detail.clone()),
    ];
    let mut text = String::new();
    for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
        line(&mut text, format_args!("{name:<13} {value}"));
    }
    text.push('\n');
    text.push_str(&pretty(&letter.payload));
    text
}

async fn count(
    filter: &FilterArguments,
    json: bool,
    settings: &Settings,
) -> Result<Outcome, Outcome> {
    let filter = filter.read().map_err(bad)?;
    let tools = Tools::open(settings).await?;
    let count = tools.count(&filter).await?;
    Ok(Counted::new(&count, "open dead letters").outcome(json))
}

async fn replay(
    arguments: &ReplayArguments,
    settings: &Settings,
    by: String,
    person: &mut dyn Person,
) -> Result<Outcome, Outcome> {
    let rate_per_second =
        terms::rate(arguments.rate).map_err(|error| bad(format!("--rate: {error}")))?;
    let target = arguments.target.as_ref().map(EntityId::new).transpose();
    let target = target.map_err(|error| bad(format!("--target: {error}")))?;
    let request = |source, tenant| ReplayRequest {
        target: terms::target(None, target.clone()),
        rate_per_second,
        ..sending(
            arguments.sent,
            terms::letters(Action::Replay, source, by, tenant),
        )
    };
    let json = arguments.follow.json;
    if let Some(sequence) = arguments.letter {
        let tools = Tools::open(settings).await?;
        let found = tools.letter(sequence).await?;
        let tenant = Some(found.letter.tenant.clone());
        tools.check(tenant.as_ref(), Some(found.letter.pool), target.as_ref())?;
        let request = ReplayRequest {
            expected: 1,
            ..request(
                Source::Letter {
                    sequence,
                    payload: None,
                },
                tenant,
            )
        };
        if !arguments.dry_run {
            return tools.give(request, &arguments.follow).await;
        }
        let preview = tools.preview(&found, request);
        let out = if json {
            pretty(&preview)
        } else {
            format!("{}\n", preview.detail)
        };
        let code = if preview.possible {
            super::EXIT_CHANGES
        } else {
            EXIT_OK
        };
        return Ok(Outcome {
            code,
            ..Outcome::printed(out)
        });
    }
    let filter = arguments.chosen.read()?;
    let tools = Tools::open(settings).await?;
    tools.check(filter.tenant.as_ref(), filter.pool, target.as_ref())?;
    let count = tools.count(&filter).await?;
    let counted = Counted::new(&count, "dead letters would be replayed").sending(arguments.sent);
    if arguments.dry_run {
        return Ok(counted.dry_run(json));
    }
    if count.total == 0 {
        return Ok(counted.outcome(json));
    }
    arguments
        .agree
        .settle(&counted, "Put them before their pools again?", person)?;
    let tenant = filter.tenant.clone();
    let request = ReplayRequest {
        expected: count.total,
        ..request(Source::Letters(filter), tenant)
    };
    tools.give(request, &arguments.follow).await
}

/// A request that sends these, too.
fn sending(sent: Sent, request: ReplayRequest) -> ReplayRequest {
    let Sent {
        include_ambiguous,
        include_expired,
    } = sent;
    ReplayRequest {
        include_ambiguous,
        include_expired,
        ..request
    }
}

async fn edit(
    arguments: &EditArguments,
    settings: &Settings,
    by: String,
) -> Result<Outcome, Outcome> {
    let payload = payload(arguments)?;
    terms::payload(&payload).map_err(|error| bad(format!("--payload: {error}")))?;
    let tools = Tools::open(settings).await?;
    let sequence = arguments.sequence;
    let found = tools.letter(sequence).await?;
    let source = Source::Letter {
        sequence,
        payload: Some(payload),
    };
    let tenant = Some(found.letter.tenant.clone());
    let request = terms::letters(Action::Replay, source, by, tenant);
    let request = ReplayRequest {
        expected: 1,
        ..sending(arguments.sent, request)
    };
    let preview = tools.preview(&found, request.clone());
    if !preview.possible {
        return Err(Outcome::failed(format!("error: {}\n", preview.detail)));
    }
    tools.give(request, &arguments.follow).await
}

fn payload(arguments: &EditArguments) -> Result<String, Outcome> {
    let path = &arguments.payload;
    let unreadable = |error: std::io::Error| bad(format!("--payload: {}: {error}", path.display()));
    let mut text = String::new();
    let read = if path.as_os_str() == "-" {
        std::io::stdin()
            .take(PAYLOAD_BYTES_MAX + 1)
            .read_to_string(&mut text)
    } else {
        let file = std::fs::File::open(path).map_err(unreadable)?;
        file.take(PAYLOAD_BYTES_MAX + 1).read_to_string(&mut text)
    };
    let bytes = read.map_err(unreadable)?;
    if u64::try_from(bytes).is_ok_and(|bytes| bytes <= PAYLOAD_BYTES_MAX) {
        Ok(text)
    } else {
        Err(bad(format!(
            "--payload: more than {PAYLOAD_BYTES_MAX} bytes"
        )))
    }
}

async fn discard(
    arguments: &DiscardArguments,
    settings: &Settings,
    by: String,
    person: &mut dyn Person,
) -> Result<Outcome, Outcome> {
    let filter = arguments.chosen.read()?;
    let tools = Tools::open(settings).await?;
    let count = tools.count(&filter).await?;
    let counted = Counted::new(&count, "dead letters would be discarded");
    if arguments.dry_run {
        return Ok(counted.dry_run(arguments.follow.json));
    }
    arguments.agree.settle(&counted, "Discard them?", person)?;
    let tenant = filter.tenant.clone();
    let request = ReplayRequest {
        expected: count.total,
        ..terms::letters(Action::Discard, Source::Letters(filter), by, tenant)
    };
    tools.give(request, &arguments.follow).await
}
