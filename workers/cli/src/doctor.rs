//! `ackline doctor`: checks everything between Meta and the workers, and says what to mend.
//!
//! It only reads; nothing is created, changed or sent to anybody but Meta's own status calls.

mod broker;
mod finding;
mod graph;
mod handling;
mod http;
mod notices;
mod owners;
mod pools;
mod removed;
mod room;
mod secrets;
mod surroundings;
mod traffic;

use super::settings::Settings;
use super::status_client::StatusClient;
use super::{EXIT_FAILED, EXIT_OK, Outcome};
use ackline_catalog::stored::Stored;
use ackline_fleet::lag::Watched;
use ackline_shared::nats;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::Pool;
use finding::{Finding, Level, render};
use http::Http;
use std::collections::BTreeSet;
use std::time::{SystemTime, UNIX_EPOCH};

/// Arguments of `ackline doctor`.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Exit status: 0 when nothing failed (warnings included), 1 when a check failed."
)]
pub struct DoctorArguments {
    /// Print a JSON array instead of text
    #[arg(long)]
    json: bool,
    /// Print only what is not in order, with what to do about it
    #[arg(long)]
    fix_hints: bool,
    /// Let warnings fail too, for scripts
    #[arg(long)]
    strict: bool,
}

/// Runs every check.
pub async fn run(arguments: &DoctorArguments, settings: &Settings) -> Outcome {
    let http = match Http::new() {
        Ok(http) => http,
        Err(error) => return Outcome::failed(format!("error: {error}\n")),
    };
    let mut findings = examine(settings, &http).await;
    let fails = |finding: &Finding| match finding.level {
        Level::Fail => true,
        Level::Warn => arguments.strict,
        Level::Ok => false,
    };
    let code = if findings.iter().any(fails) {
        EXIT_FAILED
    } else {
        EXIT_OK
    };
    if arguments.fix_hints {
        findings.retain(|finding| finding.level != Level::Ok);
    }
    Outcome {
        out: render(&findings, arguments.json),
        err: String::new(),
        code,
    }
}

async fn examine(settings: &Settings, http: &Http) -> Vec<Finding> {
    let client = match nats::connect(&settings.nats, "ackline-doctor").await {
        Ok(client) => client,
        Err(error) => return vec![broker::unreachable(&error)],
    };
    let server = client.server_info();
    let context = nats::jetstream(client.clone());
    let mut findings = vec![broker::version(&server.version)];
    findings.extend(broker::streams(&context, &settings.nats).await);
    findings.extend(broker::buckets(&context, &settings.nats).await);
    findings.push(broker::durability(http, &settings.nats, &server.server_id).await);
    findings.extend(surroundings::check(&client, &context, settings, http).await);
    findings.push(owners::check(&context, now_ms()).await);
    let mut declared = None;
    match read_config(&context).await {
        Ok(stored) => {
            let (snapshot, unreadable) = stored.snapshot();
            findings.extend(configured(settings, http, &snapshot, &unreadable).await);
            findings.extend(traffic::check(&context, &snapshot, now_ms()).await);
            declared = Some(snapshot);
        }
        Err(finding) => findings.push(finding),
    }
    let lanes: Vec<Watched> = Pool::ALL
        .into_iter()
        .flat_map(|pool| Watched::of(pool, settings.nats.partitions))
        .collect();
    match StatusClient::on(client).await {
        Ok(mut status_client) => {
            status_client.hear_all().await;
            let mut sums = status_client.look().1;
            if let Some(snapshot) = &declared {
                removed::forget(&mut sums, snapshot);
            }
            findings.extend(pools::faults(&status_client.faults()));
            findings.extend(pools::check(&context, &sums, &lanes).await);
            if !sums.is_empty() {
                findings.extend(notices::check(&sums, now_ms()));
            }
        }
        Err(error) => findings.push(Finding::warn("pools", error)),
    }
    findings.extend(notices::lines(&context, now_ms()).await);
    once(findings)
}

/// The findings without those that say the same of the same.
fn once(findings: Vec<Finding>) -> Vec<Finding> {
    let mut said = BTreeSet::new();
    findings
        .into_iter()
        .filter(|finding| said.insert((finding.check.clone(), finding.message.clone())))
        .collect()
}

async fn read_config(context: &async_nats::jetstream::Context) -> Result<Stored, Finding> {
    let failed = |error: ackline_catalog::stored::ReadError| Finding::fail("configuration", error);
    match ackline_catalog::stored::open(context, ackline_shared::subjects::BUCKET_CONFIG)
        .await
        .map_err(failed)?
    {
        Some(store) => Stored::load(&store).await.map_err(failed),
        None => Ok(Stored::default()),
    }
}

async fn configured(
    settings: &Settings,
    http: &Http,
    snapshot: &Snapshot,
    unreadable: &[String],
) -> Vec<Finding> {
    let mut findings = secrets::check(snapshot, unreadable, &settings.master);
    findings.extend(handling::check(snapshot));
    findings.extend(room::check(snapshot, &settings.limits));
    findings.extend(graph::check(http, &settings.graph_url, snapshot, &settings.master).await);
    findings
}

fn now_ms() -> u64 {
    let elapsed = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_two_checks_find_is_said_once() {
        let finding = |check: &str, message: &str| Finding::fail(check, message);
        let all = vec![
            finding("a", "broken"),
            finding("a", "worse"),
            finding("b", "broken"),
            finding("a", "broken"),
        ];
        assert_eq!(once(all.clone()), all[..3]);
    }
}
