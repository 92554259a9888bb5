//! The operator's command line: what can be asked, and who answers.
//!
//! Every command gives an [`Outcome`]; only the program itself prints and exits.

pub mod agree;
pub mod apply;
pub mod argument;
pub mod counted;
pub mod dead;
pub mod dead_letters;
pub mod delete;
pub mod doctor;
pub mod figures;
pub mod journal;
pub mod pools;
pub mod progress;
pub mod replay;
pub mod room;
pub mod settings;
pub mod status_client;
pub mod tail;
pub mod top;
pub mod tune;
pub mod unrouted;

use ackline_shared::config::{EXIT_CONFIG, Report};
use ackline_shared::vault::VaultKey;
use agree::{Nobody, Person};
use clap::{Parser, Subcommand};
use settings::Settings;
use status_client::StatusClientSettings;
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;

/// Exit status when all is well.
pub const EXIT_OK: u8 = 0;
/// Exit status when something could not be done, or a check failed.
pub const EXIT_FAILED: u8 = 1;
/// Exit status of a dry run that found changes.
pub const EXIT_CHANGES: u8 = 2;

/// Declares, checks and sets up an installation of Ackline.
#[derive(Debug, Parser)]
#[command(
    name = "ackline",
    version,
    after_help = "Exit status: 0 ok, 1 failed, 2 a dry run found changes, 64 bad input."
)]
pub struct Cli {
    /// Settings of the installation (NATS, master key); the environment overrides them
    #[arg(long, global = true, value_name = "FILE", env = "ACKLINE_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make the stored configuration match a file, and print the difference
    Apply(apply::ApplyArguments),
    /// Delete one declared part that nothing else needs
    Delete(delete::DeleteArguments),
    /// Turn a pool, or a tenant in it, while everything runs
    Tune(tune::TuneArguments),
    /// Let a pool, or a tenant in it, start nothing more; what arrives is kept
    Pause(tune::PauseArguments),
    /// End a pause, a drain or a discard
    Resume(tune::PauseArguments),
    /// Work off what a tenant sent until now, keep what comes later, and wait until nothing is left
    Drain(tune::DrainArguments),
    /// Put a tenant's updates among the dead letters instead of working on them
    Discard(tune::DiscardArguments),
    /// Look through what was given up, replay it, or discard it
    Dead(dead::DeadArguments),
    /// Put the past before a pool again, and look after replays
    Replay(replay::ReplayArguments),
    /// Show updates that nobody claimed, and give them to the tenants that claim them now
    Unrouted(unrouted::UnroutedArguments),
    /// Build the read model again from what the log holds
    Journal(journal::JournalArguments),
    /// Check everything between Meta and the workers, and say what to mend
    Doctor(doctor::DoctorArguments),
    /// Watch the pools and their tenants, live
    Top(top::TopArguments),
    /// Show how the pools are
    Pools(pools::PoolsArguments),
    /// Show the tenants with most to do
    Tenants(pools::TenantsArguments),
    /// Follow a tenant's updates through every stage
    Tail(tail::TailArguments),
    /// Print a fresh master key, for the file that secrets.master_key_file names
    #[command(
        after_help = "Keep it safe and apart from backups of NATS: without it no stored secret opens.\n\n  ackline master-key > master.key && chmod 600 master.key"
    )]
    MasterKey,
}

/// What a command has to say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// For standard output.
    pub out: String,
    /// For standard error.
    pub err: String,
    /// The exit status.
    pub code: u8,
}

/// What could not be done, explained.
impl<E: std::error::Error> From<E> for Outcome {
    fn from(error: E) -> Self {
        Self::failed(format!("error: {error}\n"))
    }
}

impl Outcome {
    /// All is well, and this is to be printed.
    fn printed(out: impl Into<String>) -> Self {
        Self {
            out: out.into(),
            ..Self::default()
        }
    }

    /// Bad input, explained.
    fn bad_input(explanation: impl Into<String>) -> Self {
        Self {
            err: explanation.into(),
            code: EXIT_CONFIG,
            ..Self::default()
        }
    }

    /// Something could not be done, explained.
    fn failed(explanation: impl Into<String>) -> Self {
        Self {
            err: explanation.into(),
            code: EXIT_FAILED,
            ..Self::default()
        }
    }
}

/// Does what the arguments ask for, and asks nobody.
pub async fn run(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &[(String, String)],
) -> Outcome {
    run_live(arguments, environment, &mut std::io::stdout(), &mut Nobody).await
}

/// Does the same; what a command says while it runs goes to `live`, and what it asks, to `person`.
pub async fn run_live(
    arguments: impl IntoIterator<Item = OsString>,
    environment: &[(String, String)],
    live: &mut impl Write,
    person: &mut impl Person,
) -> Outcome {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(asked) if !asked.use_stderr() => return Outcome::printed(asked.to_string()),
        Err(error) => return Outcome::bad_input(error.to_string()),
    };
    dispatch(&cli, environment, live, person)
        .await
        .unwrap_or_else(|outcome| outcome)
}

async fn dispatch(
    cli: &Cli,
    environment: &[(String, String)],
    live: &mut impl Write,
    person: &mut impl Person,
) -> Result<Outcome, Outcome> {
    let config = cli.config.as_deref();
    let bad = |report: Report| Outcome::bad_input(report.to_string());
    let looking = || StatusClientSettings::load(config, environment).map_err(bad);
    let settings = || Settings::load(config, environment).map_err(bad);
    Ok(match &cli.command {
        Command::MasterKey => {
            Outcome::printed(format!("{}\n", VaultKey::generate().to_base64().expose()))
        }
        Command::Apply(asked) => apply::run(asked, &settings()?, environment, person).await,
        Command::Delete(asked) => delete::run(asked, &settings()?, person).await,
        Command::Tune(asked) => tune::tune(asked, &settings()?).await,
        Command::Pause(asked) => tune::pause(asked, &settings()?, true).await,
        Command::Resume(asked) => tune::pause(asked, &settings()?, false).await,
        Command::Drain(asked) => Box::pin(tune::drain(asked, &settings()?)).await,
        Command::Discard(asked) => tune::discard(asked, &settings()?).await,
        Command::Top(asked) => top::run(asked, &looking()?, wants_colour(environment)).await,
        Command::Pools(asked) => pools::run(asked, &looking()?).await?,
        Command::Tenants(asked) => pools::tenants(asked, &looking()?).await?,
        Command::Tail(asked) => tail::run(asked, &looking()?, live).await?,
        Command::Dead(asked) => {
            Box::pin(dead::run(asked, &settings()?, environment, person)).await?
        }
        Command::Replay(asked) => {
            Box::pin(replay::run(asked, &settings()?, environment, person)).await?
        }
        Command::Unrouted(asked) => Box::pin(unrouted::run(asked, &settings()?, person)).await?,
        Command::Journal(asked) => {
            Box::pin(journal::run(asked, &settings()?, environment, person)).await
        }
        Command::Doctor(asked) => doctor::run(asked, &settings()?).await,
    })
}

/// Whether colours are wanted, by the convention of no-color.org.
fn wants_colour(environment: &[(String, String)]) -> bool {
    !environment
        .iter()
        .any(|(name, value)| name == "NO_COLOR" && !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(arguments: &[&str], environment: &[(&str, &str)]) -> Outcome {
        let environment: Vec<_> = environment
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect();
        run(
            ["ackline"].iter().chain(arguments).map(OsString::from),
            &environment,
        )
        .await
    }

    #[test]
    fn the_definitions_of_the_command_line_are_consistent() {
        <Cli as clap::CommandFactory>::command().debug_assert();
    }

    #[tokio::test]
    async fn help_and_version_are_no_mistakes_and_unknown_words_are() {
        assert_eq!(ask(&["--help"], &[]).await.code, EXIT_OK);
        assert!(ask(&["--version"], &[]).await.out.starts_with("ackline 0."));
        let outcome = ask(&["aply"], &[]).await;
        assert_eq!((outcome.code, outcome.out.as_str()), (EXIT_CONFIG, ""));
    }

    #[tokio::test]
    async fn a_master_key_is_fresh_and_usable() {
        let (one, two) = (
            ask(&["master-key"], &[]).await,
            ask(&["master-key"], &[]).await,
        );
        assert!(VaultKey::from_base64(&one.out).is_ok());
        assert_ne!(one.out, two.out);
    }

    #[tokio::test]
    async fn wrong_settings_are_all_told_at_once() {
        let outcome = ask(
            &["doctor"],
            &[("ACKLINE_NATS_PARTITIONS", "0"), ("ACKLINE_NATS_URLL", "x")],
        )
        .await;
        assert_eq!(outcome.code, EXIT_CONFIG);
        for part in ["nats.partitions", "ACKLINE_NATS_URLL", "no master key"] {
            assert!(outcome.err.contains(part), "{part} in {}", outcome.err);
        }
    }
}
