//! `ackline unrouted`: updates that nobody claimed when they came, and their way to the tenant that claims them now.

use super::agree::{AgreeArguments, Person};
use super::counted::Counted;
use super::dead_letters::{line, pretty};
use super::settings::Settings;
use super::{EXIT_CHANGES, EXIT_FAILED, EXIT_OK, Outcome, progress};
use ackline_catalog::stored::Stored;
use ackline_replay::Count;
use ackline_replay::time::rfc3339;
use ackline_replay::unrouted::{Address, Pile, Piles, Stays, Unclaimed, Unrouted};
use ackline_runtime::log::Log;
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::nats::{self, Buckets};
use ackline_shared::registry::Snapshot;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Arguments of `ackline unrouted`.
#[derive(Debug, clap::Args)]
pub struct UnroutedArguments {
    #[command(subcommand)]
    command: UnroutedCommand,
}

#[derive(Debug, clap::Subcommand)]
enum UnroutedCommand {
    /// Show them by number or account, and whose they are by what is declared now
    List {
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Give them to the tenants that are declared by now, in the order in which they came
    #[command(
        after_help = "They come after what these tenants received since, and flows answer them. Those younger than\nnats.duplicate_window may have to wait for as long. Running it again goes on where it ended."
    )]
    Route(RouteArguments),
}

#[derive(Debug, clap::Args)]
struct RouteArguments {
    /// Only those of this business number
    #[arg(long, value_name = "ID")]
    phone_number_id: Option<String>,
    /// Only count; exit status 2 when there are any
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    agree: AgreeArguments,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Does what the arguments ask for.
pub async fn run(
    arguments: &UnroutedArguments,
    settings: &Settings,
    person: &mut dyn Person,
) -> Result<Outcome, Outcome> {
    match &arguments.command {
        UnroutedCommand::List { json } => list(*json, settings).await,
        UnroutedCommand::Route(arguments) => route(arguments, settings, person).await,
    }
}

/// What is needed to tell whose they are.
struct Lookup {
    log: Log,
    buckets: Buckets,
    snapshot: Snapshot,
}

impl Lookup {
    async fn open(settings: &Settings) -> Result<Self, Outcome> {
        let context = nats::jetstream(nats::connect(&settings.nats, "ackline-unrouted").await?);
        let buckets = Box::pin(nats::prepare(&context, &settings.nats)).await?;
        let stored = Stored::load(&buckets.config).await?;
        let log = Log::new(context, settings.nats.partitions);
        Ok(Self {
            log,
            buckets,
            snapshot: stored.snapshot().0,
        })
    }

    fn all(&self) -> Unrouted {
        Unrouted::new(self.log.clone(), self.buckets.replays.clone())
    }

    /// Looks through all that are meant.
    async fn piles(&self, means: impl Fn(&Unclaimed) -> bool) -> Result<Piles, Outcome> {
        let (mut all, mut piles) = (self.all(), Piles::default());
        while let Some(some) = all.next().await? {
            for unclaimed in some.iter().filter(|unclaimed| means(unclaimed)) {
                piles.add(
                    unclaimed,
                    &unclaimed.routed(&self.snapshot, self.log.partitions()),
                );
            }
        }
        Ok(piles)
    }
}

async fn list(json: bool, settings: &Settings) -> Result<Outcome, Outcome> {
    let piles = Lookup::open(settings).await?.piles(|_| true).await?;
    if json {
        let rows: Vec<Value> = piles
            .0
            .iter()
            .map(|(address, pile)| row(address, pile))
            .collect();
        return Ok(Outcome::printed(pretty(&rows)));
    }
    let mut out = String::new();
    for (address, pile) in &piles.0 {
        line(&mut out, format_args!("{}", in_words(address, pile)));
    }
    if out.is_empty() {
        out.push_str("no update is without a tenant\n");
    } else if piles.0.values().any(|pile| pile.tenant.is_some()) {
        out.push_str("`ackline unrouted route` gives them to their tenants\n");
    }
    Ok(Outcome::printed(out))
}

fn row(address: &Address, pile: &Pile) -> Value {
    json!({
        "phone_number_id": address.phone, "waba_id": address.waba, "app": address.app, "count": pile.count,
        "bytes": pile.bytes, "first_received_at": rfc3339(pile.first_ms),
        "last_received_at": rfc3339(pile.last_ms), "tenant": pile.tenant, "stays": pile.stays,
    })
}

fn in_words(address: &Address, pile: &Pile) -> String {
    let what = match (&address.phone, &address.waba) {
        (Some(phone), _) => format!("number {phone}"),
        (None, Some(waba)) => format!("account {waba}"),
        (None, None) => "no number".to_owned(),
    };
    let app = address.app.as_deref().unwrap_or("?");
    let whose = match (&pile.tenant, pile.stays) {
        (Some(tenant), _) => format!("now of {tenant}"),
        (None, stays) => stays.map_or("", Stays::words).to_owned(),
    };
    let (first, last) = (rfc3339(pile.first_ms), rfc3339(pile.last_ms));
    let (count, bytes) = (pile.count, pile.bytes);
    format!("{what} by app {app}: {count} update(s), {bytes} bytes, {first} to {last}; {whose}")
}

/// What became of them.
#[derive(Debug, Default)]
struct Done {
    routed: BTreeMap<String, u64>,
    left: BTreeMap<Stays, u64>,
    stopped: Option<String>,
}

async fn route(
    arguments: &RouteArguments,
    settings: &Settings,
    person: &mut dyn Person,
) -> Result<Outcome, Outcome> {
    let lookup = Lookup::open(settings).await?;
    let means = |unclaimed: &Unclaimed| {
        let phone = unclaimed.head.phone.as_ref().map(PhoneNumberId::as_str);
        arguments.phone_number_id.is_none() || arguments.phone_number_id.as_deref() == phone
    };
    let count = count(&lookup.piles(means).await?);
    let counted = Counted::new(
        &count,
        "updates without a tenant would be given to their tenants",
    );
    if arguments.dry_run || count.total == 0 {
        let code = if count.total > 0 {
            EXIT_CHANGES
        } else {
            EXIT_OK
        };
        return Ok(Outcome {
            code,
            ..counted.outcome(arguments.json)
        });
    }
    arguments.agree.settle(
        &counted,
        "Give them to their tenants, whose flows answer them?",
        person,
    )?;
    let mut all = lookup.all();
    let bar = progress::bar(count.total);
    let mut done = Done::default();
    'all: while let Some(some) = all.next().await? {
        for unclaimed in some.iter().filter(|unclaimed| means(unclaimed)) {
            let head = match unclaimed.routed(&lookup.snapshot, lookup.log.partitions()) {
                Ok(head) => head,
                Err(stays) => {
                    *done.left.entry(stays).or_default() += 1;
                    continue;
                }
            };
            match all.route(unclaimed, &head).await {
                Ok(true) => *done.routed.entry(head.tenant.to_string()).or_default() += 1,
                // Later ones of its conversation must not overtake it.
                Ok(false) => {
                    let window = humantime::format_duration(settings.nats.duplicate_window);
                    done.stopped = Some(format!(
                        "the rest came less than {window} ago; run it again then"
                    ));
                    break 'all;
                }
                Err(error) => {
                    done.stopped = Some(format!("{error}; run it again to go on"));
                    break 'all;
                }
            }
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(reported(&done, arguments.json))
}

fn count(piles: &Piles) -> Count {
    let mut count = Count {
        complete: true,
        ..Count::default()
    };
    for pile in piles.0.values() {
        if let Some(tenant) = &pile.tenant {
            count.total += pile.count;
            *count.tenants.entry(tenant.to_string()).or_default() += pile.count;
        }
    }
    count
}

fn reported(done: &Done, json: bool) -> Outcome {
    let code = if done.stopped.is_some() {
        EXIT_FAILED
    } else {
        EXIT_OK
    };
    if json {
        let left: BTreeMap<String, u64> = done
            .left
            .iter()
            .map(|(stays, count)| (stays.words().to_owned(), *count))
            .collect();
        let out = json!({"routed": done.routed, "left": left, "stopped": done.stopped});
        return Outcome {
            code,
            ..Outcome::printed(pretty(&out))
        };
    }
    let mut out = String::new();
    for (tenant, count) in &done.routed {
        line(
            &mut out,
            format_args!("{count} update(s) given to {tenant}"),
        );
    }
    for (stays, count) in &done.left {
        line(&mut out, format_args!("{count} left: {}", stays.words()));
    }
    let err = done
        .stopped
        .as_ref()
        .map(|why| format!("error: {why}\n"))
        .unwrap_or_default();
    Outcome { out, err, code }
}
