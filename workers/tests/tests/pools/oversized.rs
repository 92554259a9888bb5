//! A nats-server that takes updates and not their dead letters: none of them holds the others up, and none is lost.

use super::stage::{DEADLINE, LEASE_TTL, Stage};
use ackline_ownership::membership::Membership;
use ackline_ownership::standing::Standing;
use ackline_replay::letters::ReplayRequest;
use ackline_replay::{Action, DeadLetters, Filter, ReplayJob, Source, State, terms};
use ackline_runtime::batch::{self, BatchJob, BatchSize};
use ackline_runtime::job::Work;
use ackline_runtime::metrics::Metrics;
use ackline_runtime::open_breakers::OpenBreakers;
use ackline_runtime::pool::Host;
use ackline_runtime::settings::PoolSettings;
use ackline_shared::config::Reader;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{
    DEAD, DEAD_SUBJECTS, OBJECTS_DEAD, Pool, REPLAY_SUBJECTS, UPDATES, header,
};
use ackline_shared::testing::NatsOptions;
use async_nats::jetstream::Message;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::timeout;

const MAX_PAYLOAD: usize = 1 << 20;

struct Refuses;

impl BatchJob for Refuses {
    const POOL: Pool = Pool::Journal;
    const STREAM: &'static str = UPDATES;

    async fn run(&self, batch: &[Work]) -> Result<Vec<(usize, String)>, String> {
        Ok((0..batch.len())
            .map(|at| (at, "it is refused; ".repeat(80)))
            .collect())
    }
}

async fn stage() -> (Stage, watch::Sender<bool>) {
    let options = NatsOptions {
        extra_config: format!("max_payload: {MAX_PAYLOAD}"),
        ..NatsOptions::default()
    };
    let stage = Stage::start_with(Snapshot::default(), options).await;
    let end = run_batches(&stage, Refuses);
    (stage, end)
}

/// Runs a pool that works on batches, until the sender is dropped.
pub fn run_batches<B: BatchJob>(stage: &Stage, job: B) -> watch::Sender<bool> {
    let (end, shutdown) = watch::channel(false);
    let host = Host {
        platform: stage.platform.clone(),
        metrics: Metrics::register(&mut prometheus_client::registry::Registry::default()),
        standing: Standing::default(),
        membership: Membership::join(
            stage.platform.log.context(),
            &stage.platform.buckets,
            "batches",
            LEASE_TTL,
        ),
        breakers: OpenBreakers::default(),
        shutdown,
    };
    let settings = PoolSettings::shared(&mut Reader::load(None, []));
    tokio::spawn(batch::run(
        job,
        settings,
        BatchSize {
            max: 10,
            linger: Duration::ZERO,
        },
        host,
    ));
    end
}

fn cut(letter: &Message) -> Option<&str> {
    letter
        .headers
        .as_ref()
        .unwrap()
        .get(header::DEAD_CUT)
        .map(|cut| cut.as_str())
}

/// Replays everything, and gives the ended job.
async fn replay(stage: &Stage) -> ReplayJob {
    let dead_letters = DeadLetters::new(stage.platform.log.clone(), &stage.platform.buckets);
    let letters = Source::Letters(Filter::default());
    let request = terms::letters(
        Action::Replay,
        letters,
        "test".to_owned(),
        TenantId::new("acme").ok(),
    );
    let job = dead_letters
        .start(ReplayRequest {
            rate_per_second: 1000,
            ..request
        })
        .await
        .unwrap();
    timeout(DEADLINE, dead_letters.carry_out(&job.id))
        .await
        .unwrap()
        .unwrap();
    dead_letters.find(&job.id).await.unwrap().unwrap().1
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_does_not_fit_is_cut_and_holds_nobody_up() {
    let (stage, _end) = stage().await;
    let large = format!("{{\"text\":\"{}\"}}", "é".repeat((MAX_PAYLOAD - 1200) / 2));
    stage.publish("US.1", "large", large.clone()).await;
    stage.publish("US.2", "small", "{}").await;
    let letters = stage.messages(DEAD, DEAD_SUBJECTS[0], 2).await;
    let length = large.len().to_string();
    assert_eq!(
        (cut(&letters[0]), cut(&letters[1])),
        (Some(length.as_str()), None)
    );
    assert!(large.as_bytes().starts_with(&letters[0].payload) && letters[0].payload.len() > 1000);

    let job = replay(&stage).await;
    assert_eq!((job.state, job.done), (State::Done, 2), "{job:?}");
    let replays = stage.messages(UPDATES, REPLAY_SUBJECTS, 2).await;
    assert!(
        replays[0].payload == large.as_bytes(),
        "the whole is put before the pool again"
    );
    assert_eq!(&replays[1].payload[..], b"{}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_that_could_not_be_kept_is_read_from_where_it_came() {
    let (stage, _end) = stage().await;
    let context = stage.platform.log.context().clone();
    let large = "x".repeat(MAX_PAYLOAD - 1200);
    stage.publish("US.1", "large", large.clone()).await;
    assert!(cut(&stage.messages(DEAD, DEAD_SUBJECTS[0], 1).await[0]).is_some());
    context.delete_object_store(OBJECTS_DEAD).await.unwrap();
    let job = replay(&stage).await;
    assert_eq!((job.state, job.done), (State::Done, 1), "{job:?}");
    assert!(stage.messages(UPDATES, REPLAY_SUBJECTS, 1).await[0].payload == large.as_bytes());

    // The replay is refused, too, and nothing is left of either by now.
    stage.messages(DEAD, DEAD_SUBJECTS[0], 2).await;
    context.delete_object_store(OBJECTS_DEAD).await.unwrap();
    context
        .get_stream(UPDATES)
        .await
        .unwrap()
        .purge()
        .await
        .unwrap();
    let job = replay(&stage).await;
    assert_eq!((job.done, job.skipped), (0, 1), "{job:?}");
}
