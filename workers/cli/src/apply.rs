//! `ackline apply`: reads a document, compares it with the store, prints the difference and writes it.
//!
//! A file may declare a part of an installation: it may refer to what is stored, and pruning removes only what it owns.
//! Every write expects the revision that was compared, so a change made by somebody else meanwhile stops the
//! run instead of being lost; what was written until then is told.

use super::agree::{self, Person};
use super::progress;
use super::room;
use super::settings::Settings;
use super::{EXIT_CHANGES, EXIT_FAILED, EXIT_OK, Outcome};
use ackline_catalog::check::{self, Findings};
use ackline_catalog::document::{self, Declared, Format, Surroundings};
use ackline_catalog::ownership;
use ackline_catalog::part::SealError;
use ackline_catalog::plan::{self, Action, Change, Plan};
use ackline_catalog::stored::{self, Stored};
use ackline_catalog::write::{self, PutError};
use ackline_shared::nats::{self, NatsError};
use ackline_shared::subjects;
use ackline_shared::vault::VaultKey;
use async_nats::jetstream::Context;
use async_nats::jetstream::kv::Store;
use serde_json::json;
use std::collections::BTreeSet;
use std::fmt::Write;
use std::io;
use std::path::{Path, PathBuf};

const FILE_BYTES_MAX: u64 = 16 << 20;

/// Arguments of `ackline apply`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "The file declares brands, tenants, apps, phone_numbers, bots, flows, relays, endpoints, crm_links and\napi_keys. A secret is written plain or as env:NAME, which reads an environment variable; a flow may name\na definition_file instead of a definition. What is stored and not in the file stays, unless --prune is given.\n\nA file may declare one tenant alone and refer to what is stored. It owns the tenants it declares; --prune removes what it\nowns and does not declare any more. `owns = { tenants = [\"old\"], brands = [\"b\"], installation = true }` at its top adds\ntenants, brands with their tenants, and what belongs to no tenant: all brands, and apps without one."
)]
pub struct ApplyArguments {
    /// The document: TOML, or JSON when its name ends in .json
    file: PathBuf,
    /// Print the difference and write nothing; exit status 2 when there is one
    #[arg(long)]
    dry_run: bool,
    /// Remove what is stored, the file's own and not in it any more; shown and asked for first
    #[arg(long)]
    prune: bool,
    /// Show what --prune removes and do not ask
    #[arg(long, short, requires = "prune")]
    yes: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

/// Why applying failed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    #[error(transparent)]
    Nats(#[from] NatsError),
    #[error(transparent)]
    Read(#[from] stored::ReadError),
    #[error(transparent)]
    Plan(#[from] plan::PlanError),
    #[error(
        "{0} was changed by somebody else meanwhile; run the command again to see what differs now"
    )]
    Conflict(String),
    #[error("{what} cannot be written: {reason}")]
    Write { what: String, reason: String },
    #[error("{what} {reason}")]
    Seal { what: String, reason: SealError },
}

/// Reads the file, and makes the store match.
pub async fn run(
    arguments: &ApplyArguments,
    settings: &Settings,
    environment: &[(String, String)],
    person: &mut impl Person,
) -> Outcome {
    let mut findings = Findings::default();
    let Some(declared) = read(&arguments.file, environment, &mut findings) else {
        return refuse(arguments, &findings);
    };
    let (context, stored) = match look(settings).await {
        Ok(found) => found,
        Err(error) => {
            check::check(&declared, &Stored::default(), &mut findings);
            if findings.mistakes.is_empty() {
                return report(arguments, &findings, &Plan::default(), 0, Err(error));
            }
            findings.warnings.push(format!(
                "what is stored was not looked at, only the file: {error}"
            ));
            return refuse(arguments, &findings);
        }
    };
    let (mut plan, mut done) = (Plan::default(), 0);
    let planned = examine(
        arguments,
        settings,
        declared,
        &stored,
        (&mut plan, &mut findings),
    );
    if !findings.mistakes.is_empty() {
        return refuse(arguments, &findings);
    }
    if planned.is_ok()
        && let Err(outcome) = agree(arguments, &plan, person)
    {
        return outcome;
    }
    let result = match planned {
        Ok(()) if !arguments.dry_run => carry_out(settings, &context, &plan, &mut done).await,
        planned => planned,
    };
    report(arguments, &findings, &plan, done, result)
}

/// What is stored now; nothing is created.
async fn look(settings: &Settings) -> Result<(Context, Stored), ApplyError> {
    let context = nats::jetstream(nats::connect(&settings.nats, "ackline-apply").await?);
    let stored = match stored::open(&context, subjects::BUCKET_CONFIG).await? {
        Some(store) => Stored::load(&store).await?,
        None => Stored::default(),
    };
    Ok((context, stored))
}

/// Checks the document against what is stored and stays, and plans what is to be written.
fn examine(
    arguments: &ApplyArguments,
    settings: &Settings,
    declared: Declared,
    stored: &Stored,
    (plan, findings): (&mut Plan, &mut Findings),
) -> Result<(), ApplyError> {
    let surplus = if arguments.prune {
        declared.owns.surplus(&declared.keys, stored)
    } else {
        BTreeSet::new()
    };
    let stays = stored.0.iter().filter(|(key, _)| !surplus.contains(*key));
    let stays = Stored(
        stays
            .map(|(key, entry)| (key.clone(), entry.clone()))
            .collect(),
    );
    check::check(&declared, &stays, findings);
    findings
        .mistakes
        .extend(ownership::needed(&surplus, &declared.keys, stored));
    let owns = declared.owns.clone();
    *plan = plan::plan(
        declared.into_parts(),
        stored,
        &settings.master,
        &owns,
        arguments.prune,
    )?;
    findings
        .mistakes
        .extend(room::mistakes(plan, stored, &settings.limits));
    Ok(())
}

/// Goes on when nothing is to be removed, or somebody agrees to that.
fn agree(arguments: &ApplyArguments, plan: &Plan, person: &mut impl Person) -> Result<(), Outcome> {
    let removed = plan
        .changes
        .iter()
        .filter(|change| change.action == Action::Remove);
    let shown: String = removed.map(|change| format!("{change}\n")).collect();
    if shown.is_empty() || arguments.dry_run {
        return Ok(());
    }
    let count = plan.count(Action::Remove);
    agree::confirm(
        arguments.yes,
        &shown,
        &format!("Remove these {count}?"),
        person,
    )
}

async fn carry_out(
    settings: &Settings,
    context: &Context,
    plan: &Plan,
    done: &mut usize,
) -> Result<(), ApplyError> {
    let store = Box::pin(nats::prepare(context, &settings.nats))
        .await?
        .config;
    write(&store, plan, &settings.master, done).await
}

/// Writes the changes in order; `done` counts those that are in the store.
pub async fn write(
    store: &Store,
    plan: &Plan,
    master: &VaultKey,
    done: &mut usize,
) -> Result<(), ApplyError> {
    let bar = progress::bar(plan.changes.len() as u64);
    let written = write::carry_out(store, plan, master, || {
        *done += 1;
        bar.inc(1);
    });
    written
        .await
        .map_err(|(change, error)| failed(change, error))?;
    bar.finish_and_clear();
    Ok(())
}

fn failed(change: &Change, error: PutError) -> ApplyError {
    let what = title(change);
    match error {
        PutError::Conflict => ApplyError::Conflict(what),
        PutError::Away(reason) => ApplyError::Write { what, reason },
        PutError::Seal(reason) => ApplyError::Seal { what, reason },
    }
}

fn title(change: &Change) -> String {
    format!("{} {}", change.noun, change.name)
}

/// Reads the file; `None` when it cannot be read at all.
fn read(
    path: &Path,
    environment: &[(String, String)],
    findings: &mut Findings,
) -> Option<Declared> {
    let text = match read_bounded(path) {
        Ok(text) => text,
        Err(reason) => {
            findings.mistakes.push(format!("cannot be read: {reason}"));
            return None;
        }
    };
    let json = path
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"));
    let directory = path.parent().unwrap_or(Path::new("")).to_owned();
    let surroundings = Surroundings {
        file: &|relative| {
            read_bounded(&directory.join(relative)).map_err(|error| error.to_string())
        },
        variable: &|name| {
            environment
                .iter()
                .find(|(variable, _)| variable == name)
                .map(|(_, value)| value.clone())
        },
    };
    let format = if json { Format::Json } else { Format::Toml };
    Some(document::read(
        &text,
        format,
        &surroundings,
        &mut findings.mistakes,
    ))
}

fn read_bounded(path: &Path) -> io::Result<String> {
    if std::fs::metadata(path)?.len() > FILE_BYTES_MAX {
        let reason = format!("it is larger than {} MiB", FILE_BYTES_MAX >> 20);
        return Err(io::Error::other(reason));
    }
    std::fs::read_to_string(path)
}

fn refuse(arguments: &ApplyArguments, findings: &Findings) -> Outcome {
    if arguments.json {
        let report =
            json!({ "ok": false, "mistakes": findings.mistakes, "warnings": findings.warnings });
        return Outcome {
            out: format!("{report}\n"),
            ..Outcome::bad_input("")
        };
    }
    let count = findings.mistakes.len();
    let mut text = format!(
        "{}: {count} mistake(s), nothing was changed:\n",
        arguments.file.display()
    );
    for mistake in &findings.mistakes {
        let _writing_to_a_string_never_fails = writeln!(text, "  - {mistake}");
    }
    text.push_str(&warnings(findings));
    Outcome::bad_input(text)
}

fn report(
    arguments: &ApplyArguments,
    findings: &Findings,
    plan: &Plan,
    done: usize,
    result: Result<(), ApplyError>,
) -> Outcome {
    let code = match &result {
        Err(_) => EXIT_FAILED,
        Ok(()) if arguments.dry_run && !plan.changes.is_empty() => EXIT_CHANGES,
        Ok(()) => EXIT_OK,
    };
    let error = result.err().map(|error| error.to_string());
    if arguments.json {
        let report = json!({
            "ok": error.is_none(), "dry_run": arguments.dry_run, "error": error, "changes": plan.changes,
            "written": done, "kept": plan.kept, "warnings": findings.warnings,
        });
        return Outcome {
            out: format!("{report}\n"),
            err: String::new(),
            code,
        };
    }
    let mut out: String = plan
        .changes
        .iter()
        .map(|change| format!("{change}\n"))
        .collect();
    for kept in &plan.kept {
        let line = format!(
            "= {} {}: stored, the file's own and not in it; --prune removes it\n",
            kept.noun, kept.name
        );
        out.push_str(&line);
    }
    let mut err = warnings(findings);
    match error {
        None => out.push_str(&summary(arguments, plan)),
        Some(error) => {
            err.push_str(&format!("error: {error}\n"));
            err.push_str(&halfway(plan, done));
        }
    }
    Outcome { out, err, code }
}

fn warnings(findings: &Findings) -> String {
    findings
        .warnings
        .iter()
        .map(|warning| format!("warning: {warning}\n"))
        .collect()
}

fn summary(arguments: &ApplyArguments, plan: &Plan) -> String {
    let kept = match plan.kept.len() {
        0 => String::new(),
        count => format!(", {count} kept that the file does not declare"),
    };
    if plan.changes.is_empty() {
        return format!("nothing to change{kept}\n");
    }
    let [add, change, remove] =
        [Action::Add, Action::Change, Action::Remove].map(|action| plan.count(action));
    if arguments.dry_run {
        format!("would add {add}, change {change}, remove {remove}{kept}; nothing was written\n")
    } else {
        format!("added {add}, changed {change}, removed {remove}{kept}\n")
    }
}

fn halfway(plan: &Plan, done: usize) -> String {
    match plan.changes.get(done..) {
        Some([next, ..]) if done > 0 => format!(
            "written: the first {done} of the {} changes above; not written: everything from {} on\n",
            plan.changes.len(),
            title(next)
        ),
        _ => "nothing was written\n".to_owned(),
    }
}
