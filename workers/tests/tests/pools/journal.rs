//! The read model's file: damaged, gone, and built again from the log while everything goes on.

use super::stage::{DEADLINE, Stage};
use ackline_ownership::membership::Membership;
use ackline_ownership::standing::Standing;
use ackline_runtime::batch::{self, BatchSize};
use ackline_runtime::metrics::Metrics;
use ackline_runtime::open_breakers::OpenBreakers;
use ackline_runtime::pool::Host;
use ackline_runtime::settings::PoolSettings;
use ackline_shared::config::Reader;
use ackline_shared::page::Bound;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Partition, Pool};
use ackline_shared::testing::Process;
use ackline_shared::vault::VaultKey;
use ackline_store::Journal;
use ackline_store::rebuild::Rebuilds;
use ackline_workers_tests::program;
use serde_json::Value;
use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

fn message(id: &str) -> String {
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W1","changes":[{{"field":"messages","value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"1","phone_number_id":"100"}},"contacts":[{{"profile":{{"name":"Ana"}},"wa_id":"15550100"}}],"messages":[{{"from":"15550100","id":"{id}","timestamp":"1750000000","type":"text","text":{{"body":"hi"}}}}]}}}}]}}]}}"#
    )
}

/// Runs the pool over a file as a process does.
fn run(stage: &Stage, file: &Path) -> (Journal, watch::Sender<bool>) {
    let (stop, shutdown) = watch::channel(false);
    let journal = Journal::at(&format!("sqlite://{}", file.display())).unwrap();
    let rebuilds = Rebuilds::new(stage.platform.buckets.replays.clone());
    journal.rebuilt_by(rebuilds.clone());
    tokio::spawn(rebuilds.follow(stage.platform.log.context().client(), shutdown.clone()));
    tokio::spawn(journal.clone().look_after(shutdown.clone()));
    let host = Host {
        platform: stage.platform.clone(),
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
        standing: Standing::default(),
        membership: Membership::join(
            stage.platform.log.context(),
            &stage.platform.buckets,
            "one",
            Duration::from_secs(2),
        ),
        breakers: OpenBreakers::default(),
        shutdown,
    };
    let settings = PoolSettings::shared(&mut Reader::load(None, []));
    let size = BatchSize {
        max: 100,
        linger: Duration::ZERO,
    };
    tokio::spawn(batch::run(journal.clone(), settings, size, host));
    (journal, stop)
}

/// How many messages of acme's it holds, and how many its conversation counts.
async fn held(journal: &Journal) -> Option<(usize, u64)> {
    let conversations = journal
        .conversations(
            "acme",
            None,
            None,
            Bound {
                items: 10,
                bytes: usize::MAX,
            },
        )
        .await
        .ok()?;
    let first = conversations.items.first()?;
    let messages = journal
        .messages(
            "acme",
            &first.id,
            None,
            Bound {
                items: 1000,
                bytes: usize::MAX,
            },
        )
        .await
        .ok()?;
    Some((messages.items.len(), first.incoming))
}

async fn holds(journal: &Journal, count: usize) {
    let wanted = Some((count, u64::try_from(count).unwrap()));
    let all = async {
        while held(journal).await != wanted {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(
        timeout(DEADLINE, all).await.is_ok(),
        "{:?}, {:?}",
        held(journal).await,
        journal.fault()
    );
}

/// Waits until it says that it lacks something, or that it does not.
async fn lacks(journal: &Journal, is_lacking: bool) {
    let said = async {
        while journal
            .lacks_before()
            .await
            .ok()
            .map(|before| before.is_some())
            != Some(is_lacking)
        {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, said).await.unwrap();
}

async fn rebuild(stage: &Stage) -> ackline_cli::Outcome {
    ask(stage, &["journal", "rebuild", "--yes"]).await
}

/// What the operator's program says.
async fn ask(stage: &Stage, arguments: &[&str]) -> ackline_cli::Outcome {
    ask_with(stage, arguments, &[]).await
}

async fn ask_with(
    stage: &Stage,
    arguments: &[&str],
    more: &[(&str, &str)],
) -> ackline_cli::Outcome {
    let mut environment: Vec<(String, String)> = [
        ("ACKLINE_NATS_URL", stage.url()),
        ("ACKLINE_NATS_STREAM_BYTES_MAX", "64MiB".to_owned()),
        ("ACKLINE_NATS_SESSION_BYTES_MAX", "64MiB".to_owned()),
        (
            "ACKLINE_NATS_PARTITIONS",
            stage.settings().partitions.to_string(),
        ),
        (
            "ACKLINE_SECRETS_MASTER_KEY",
            VaultKey::generate().to_base64().expose().clone(),
        ),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .to_vec();
    let more = more.iter();
    environment.extend(more.map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    let arguments = ["ackline"].iter().chain(arguments);
    let arguments = arguments.map(std::ffi::OsString::from);
    timeout(DEADLINE, ackline_cli::run(arguments, &environment))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_stops_nothing_and_a_rebuild_writes_what_the_log_holds_once() {
    let stage = Stage::start(Snapshot::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal.db");
    std::fs::write(&file, "this is no database".repeat(1000)).unwrap();
    for n in 0..20 {
        stage
            .publish(
                "p15550100",
                &format!("wamid.{n}"),
                message(&format!("wamid.{n}")),
            )
            .await;
    }
    let (journal, stop) = run(&stage, &file);
    let damaged = async {
        while !journal
            .fault()
            .is_some_and(|fault| fault.contains("journal.db"))
        {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(DEADLINE, damaged)
        .await
        .expect("it says what is wrong");
    assert!(held(&journal).await.is_none() && !journal.is_readable().await);

    let rebuilt = rebuild(&stage).await;
    assert_eq!(rebuilt.code, 0, "{rebuilt:?}");
    assert!(
        rebuilt.out.contains("the old file is") && rebuilt.out.contains("journal.db.before-"),
        "{rebuilt:?}"
    );
    holds(&journal, 20).await;
    let mut old_file = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let old_file = old_file
        .find(|path| path.to_string_lossy().contains(".before-"))
        .unwrap();
    assert!(
        std::fs::read_to_string(old_file)
            .unwrap()
            .starts_with("this is no database")
    );
    assert_eq!(journal.fault(), None);

    // Another one, over a file that is in order, doubles nothing; and what comes later is written, too.
    assert_eq!(rebuild(&stage).await.code, 0);
    holds(&journal, 20).await;
    stage
        .publish("p15550100", "wamid.later", message("wamid.later"))
        .await;
    holds(&journal, 21).await;
    // A file that somebody took away is missed, and another one begun.
    std::fs::remove_file(&file).unwrap();
    let missed = async {
        while !file.exists() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(DEADLINE, missed).await.unwrap();
    lacks(&journal, true).await;
    assert_eq!(rebuild(&stage).await.code, 0);
    holds(&journal, 21).await;
    lacks(&journal, false).await;
    // So is one that is gone when the process starts.
    stop.send_replace(true);
    journal.close().await;
    std::fs::remove_file(&file).unwrap();
    let (journal, _stop) = run(&stage, &file);
    lacks(&journal, true).await;
    assert_eq!(rebuild(&stage).await.code, 0);
    holds(&journal, 21).await;
    lacks(&journal, false).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rebuild_of_a_paused_pool_says_who_paused_it_and_ends() {
    let stage = Stage::start(Snapshot::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal.db");
    let waiting = async {
        let rebuilds = Rebuilds::new(stage.platform.buckets.replays.clone());
        while rebuilds.last().await.unwrap().is_none() {
            sleep(Duration::from_millis(20)).await;
        }
        ask(&stage, &["pause", "journal", "--by", "jo"]).await
    };
    let (rebuilt, paused) = tokio::join!(rebuild(&stage), waiting);
    assert_eq!(
        (rebuilt.code, paused.code),
        (1, 0),
        "{rebuilt:?}, {paused:?}"
    );
    let said = "the pool journal is paused by cli:jo since ";
    assert!(
        rebuilt.err.contains(said) && rebuilt.err.contains("the request stands"),
        "{rebuilt:?}"
    );
    assert_eq!(ask(&stage, &["resume", "journal"]).await.code, 0);
    let (journal, _stop) = run(&stage, &file);
    stage
        .publish("p15550100", "wamid.0", message("wamid.0"))
        .await;
    holds(&journal, 1).await;
    assert_eq!(rebuild(&stage).await.code, 0);

    ask(&stage, &["pause", "journal", "--by", "jo"]).await;
    let files = || std::fs::read_dir(directory.path()).unwrap().count();
    let before = files();
    let refused = rebuild(&stage).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.err.contains(said) && refused.err.contains("nothing was changed"),
        "{refused:?}"
    );
    assert_eq!(files(), before, "no file was moved away");
    holds(&journal, 1).await;
}

/// A process of the pool over a file.
fn process(stage: &Stage, file: &Path, private: &str) -> Process {
    let mut command = program("ackline-workers");
    command.args(["--pools", "journal"]).envs([
        ("ACKLINE_NATS_URL", stage.url().as_str()),
        ("ACKLINE_NATS_DURABILITY", "stored"),
        ("ACKLINE_NATS_STREAM_BYTES_MAX", "64MiB"),
        ("ACKLINE_NATS_SESSION_BYTES_MAX", "64MiB"),
        (
            "ACKLINE_NATS_PARTITIONS",
            stage.settings().partitions.to_string().as_str(),
        ),
        (
            "ACKLINE_JOURNAL_URL",
            format!("sqlite://{}", file.display()).as_str(),
        ),
        ("ACKLINE_API_PRIVATE_LISTEN", private),
        (
            "ACKLINE_SECRETS_MASTER_KEY",
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        ),
    ]);
    let ready = |line: &str| line.contains("the workers run").then_some(());
    Process::start("journal", command, DEADLINE, ready)
        .unwrap()
        .0
}

/// Waits until the doctor finds this of what it looks at, and gives the finding.
async fn found(stage: &Stage, private: &str, check: &str, words: &str) -> Value {
    let more = [("ACKLINE_API_PRIVATE_LISTEN", private)];
    let mut last = String::new();
    let finding = async {
        loop {
            last = ask_with(stage, &["doctor", "--json"], &more).await.out;
            let findings: Vec<Value> = serde_json::from_str(&last).unwrap();
            let meant = |finding: &Value| {
                let says = |field: &str, text| finding[field].as_str().unwrap().contains(text);
                says("check", check) && says("message", words)
            };
            if let Some(finding) = findings.into_iter().find(meant) {
                return finding;
            }
        }
    };
    let found = timeout(DEADLINE, finding).await;
    found.unwrap_or_else(|_| panic!("{words}: {last}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_says_that_the_read_model_is_damaged_and_that_it_was_gone() {
    let stage = Stage::start(Snapshot::default()).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("journal.db");
    std::fs::write(&file, "this is no database".repeat(1000)).unwrap();
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let private = free.local_addr().unwrap().to_string();
    drop(free);
    let _process = process(&stage, &file, &private);
    let damaged = found(&stage, &private, "journal in ", "its store cannot be used").await;
    assert_eq!(damaged["level"], "fail");
    let said = damaged.to_string();
    assert!(
        said.contains("journal.db cannot be opened") && said.contains("ackline journal rebuild"),
        "{said}"
    );

    // Without the damaged file it makes another; what was read by then would be missed.
    std::fs::remove_file(&file).unwrap();
    stage
        .publish("p15550100", "wamid.0", message("wamid.0"))
        .await;
    let consumer = subjects::consumer(Pool::Journal, Partition(0), subjects::WHOLE_LANE);
    stage.acknowledged(&consumer, 1).await;
    std::fs::remove_file(&file).unwrap();
    let gone = found(&stage, &private, "workers", "the read model lacks").await;
    assert_eq!(gone["level"], "warn");
    assert!(
        gone.to_string().contains("ackline journal rebuild"),
        "{gone}"
    );
}
