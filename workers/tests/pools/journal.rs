//! The read model's file: damaged, gone, and built again from the log while everything goes on.

use super::stage::{DEADLINE, Stage};
use ackline_shared::config::Reader;
use ackline_shared::registry::Snapshot;
use ackline_shared::vault::VaultKey;
use ackline_workers::bounded::Bound;
use ackline_workers::cli;
use ackline_workers::core::batch::{self, BatchSize};
use ackline_workers::core::breaker::Breakers;
use ackline_workers::core::membership::Membership;
use ackline_workers::core::metrics::Metrics;
use ackline_workers::core::pool::Host;
use ackline_workers::core::settings::PoolSettings;
use ackline_workers::core::standing::Standing;
use ackline_workers::journal::Journal;
use ackline_workers::journal::rebuild::Rebuilds;
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
        membership: Membership::join(&stage.platform, "one", Duration::from_secs(2)),
        breakers: Breakers::default(),
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

async fn rebuild(stage: &Stage) -> cli::Outcome {
    let environment = [
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
    .map(|(name, value)| (name.to_owned(), value));
    let arguments = ["ackline", "journal", "rebuild", "--yes"].map(std::ffi::OsString::from);
    timeout(DEADLINE, cli::run(arguments, &environment))
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
    let mut aside = std::fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let aside = aside
        .find(|path| path.to_string_lossy().contains(".before-"))
        .unwrap();
    assert!(
        std::fs::read_to_string(aside)
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
