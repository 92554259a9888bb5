//! `ackline journal`: build the read model again from what the log holds.
//!
//! While the pool is paused nothing would be written, so no request is given then, and nobody waits for one.

use super::agree::{Person, settle};
use super::dead_letters::{operator, pretty};
use super::settings::Settings;
use super::{Outcome, progress};
use ackline_replay::time::rfc3339;
use ackline_runtime::tuning::{PoolTuning, Stamped};
use ackline_shared::clock::now_ms;
use ackline_shared::nats;
use ackline_shared::stored;
use ackline_shared::subjects::{self, Partition, Pool, UPDATES, tuning_key};
use ackline_store::rebuild::{Rebuild, Rebuilds};
use async_nats::jetstream::Context;
use async_nats::jetstream::consumer::{Consumer, pull};
use async_nats::jetstream::kv::Store;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Time for the owner of the pool to take the request up.
const BEGIN_WAIT: Duration = Duration::from_secs(20);

/// Arguments of `ackline journal`.
#[derive(Debug, clap::Args)]
pub struct JournalArguments {
    #[command(subcommand)]
    command: JournalCommand,
}

#[derive(Debug, clap::Subcommand)]
enum JournalCommand {
    /// Begin a new database file and write everything into it that the log still holds
    #[command(
        after_help = "The process that runs the pool journal does it while everything goes on; the old file stays beside the\nnew one. What is older than nats.max_age, or was removed to make room, is only in the old file."
    )]
    Rebuild(RebuildArguments),
}

#[derive(Debug, clap::Args)]
struct RebuildArguments {
    /// Do not ask
    #[arg(long, short)]
    yes: bool,
    /// Store the request and do not wait
    #[arg(long)]
    detach: bool,
    /// Print JSON instead of text
    #[arg(long)]
    json: bool,
}

/// Does what the arguments ask for.
pub async fn run(
    arguments: &JournalArguments,
    settings: &Settings,
    environment: &[(String, String)],
    person: &mut dyn Person,
) -> Outcome {
    let JournalCommand::Rebuild(arguments) = &arguments.command;
    let done = rebuild(arguments, settings, operator(environment), person).await;
    done.unwrap_or_else(|outcome| outcome)
}

fn failed(words: impl std::fmt::Display) -> Outcome {
    Outcome::failed(format!("error: {words}\n"))
}

async fn rebuild(
    arguments: &RebuildArguments,
    settings: &Settings,
    by: String,
    person: &mut dyn Person,
) -> Result<Outcome, Outcome> {
    let client = nats::connect(&settings.nats, "ackline-journal").await?;
    let context = nats::jetstream(client);
    let buckets = Box::pin(nats::prepare(&context, &settings.nats)).await?;
    let (rebuilds, tuning) = (Rebuilds::new(buckets.replays), buckets.tuning);
    let open = rebuilds
        .last()
        .await?
        .filter(|last| last.begun_ms.is_none());
    let request = match open {
        // One that waits is followed, not given twice.
        Some(open) => open,
        None => {
            if let Some(paused) = paused(&tuning).await? {
                return Err(failed(format!("{paused}; nothing was changed")));
            }
            agree(arguments, person)?;
            let request = Rebuild::new(by);
            rebuilds.write(&request).await?;
            request
        }
    };
    if arguments.detach {
        return Ok(reported(&request, arguments.json, "ordered"));
    }
    let request = begun(&rebuilds, &tuning, request).await?;
    written(&context, &tuning, &request).await?;
    Ok(reported(&request, arguments.json, "done"))
}

fn agree(arguments: &RebuildArguments, person: &mut dyn Person) -> Result<(), Outcome> {
    if arguments.yes {
        return Ok(());
    }
    let question = "Move the journal's file away and write a new one from the log?";
    settle(person.answer(question), "say --yes")
}

/// Says that the pool is paused, by whom, and what to do; `None` when it is not.
async fn paused(tuning: &Store) -> Result<Option<String>, Outcome> {
    let key = tuning_key::pool(Pool::Journal);
    let entry = tuning.get(key).await?;
    // As the pool itself reads it: what does not parse pauses nothing.
    let entry = entry.and_then(|bytes| stored::decode::<Stamped<PoolTuning>>(&bytes).ok());
    let paused = entry.filter(|entry| entry.value.paused);
    Ok(paused.map(|Stamped { by, at_ms, .. }| {
        let since = rfc3339(at_ms);
        format!(
            "the pool journal is paused by {by} since {since} and writes nothing; let it go on with `ackline resume journal`"
        )
    }))
}

/// Waits until the new file was begun.
async fn begun(
    rebuilds: &Rebuilds,
    tuning: &Store,
    mut request: Rebuild,
) -> Result<Rebuild, Outcome> {
    let deadline = Instant::now() + BEGIN_WAIT;
    while request.begun_ms.is_none() {
        if let Some(paused) = paused(tuning).await? {
            return Err(failed(format!("{paused}; the request stands")));
        }
        if Instant::now() > deadline {
            let why = match &request.problem {
                Some(problem) => problem.clone(),
                None => "no process runs the pool journal: start one with --pools journal, or all"
                    .to_owned(),
            };
            return Err(failed(format!(
                "{why}; the request stands, and running this again follows it"
            )));
        }
        sleep(LOOK_EVERY).await;
        let last = rebuilds.last().await?;
        request = last
            .filter(|last| last.id == request.id)
            .ok_or_else(|| failed("another request took its place"))?;
    }
    Ok(request)
}

/// Waits until everything that was in the log by now is written.
async fn written(context: &Context, tuning: &Store, request: &Rebuild) -> Result<(), Outcome> {
    let stream = context.get_stream(UPDATES).await?;
    let until = stream.cached_info().state.last_sequence;
    let name = subjects::consumer(Pool::Journal, Partition(0), subjects::WHOLE_LANE);
    let bar = progress::bar(until);
    loop {
        // It may not be made again yet.
        let consumer: Result<Consumer<pull::Config>, _> = stream.get_consumer(&name).await;
        if let Ok(consumer) = consumer {
            let info = consumer.cached_info();
            let is_through = info.num_pending == 0 && info.num_ack_pending == 0;
            let floor = info.ack_floor.stream_sequence;
            bar.set_position(if is_through { until } else { floor.min(until) });
            if is_through || floor >= until {
                break;
            }
        }
        if let Some(paused) = paused(tuning).await? {
            bar.finish_and_clear();
            let old_file = request.moved_to.as_deref().unwrap_or_default();
            return Err(failed(format!(
                "{paused}; the new file was begun and is filled then, and the old one is {old_file}"
            )));
        }
        sleep(LOOK_EVERY).await;
    }
    bar.finish_and_clear();
    Ok(())
}

fn reported(request: &Rebuild, json: bool, state: &str) -> Outcome {
    let old_file = request.moved_to.as_deref().unwrap_or("");
    let out = if json {
        let seconds = request
            .begun_ms
            .map(|begun| now_ms().saturating_sub(begun) / 1000);
        pretty(
            &json!({"id": request.id, "state": state, "moved_to": request.moved_to, "seconds": seconds}),
        )
    } else if state == "done" {
        format!("the journal holds everything the log does; the old file is {old_file}\n")
    } else {
        format!(
            "requested as {}; `ackline journal rebuild` follows it\n",
            request.id
        )
    };
    Outcome::printed(out)
}
