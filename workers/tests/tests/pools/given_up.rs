//! What was given up, as it is counted.

use super::stage::{DEADLINE, Stage};
use ackline_ownership::standing::Standing;
use ackline_replay::open::OpenLetters;
use ackline_replay::settled::Settled;
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_runtime::metrics::Metrics;
use ackline_runtime::status::dead::OpenDead;
use ackline_runtime::tuning::{Mode, Stamped, TenantTuning, TuningStore};
use ackline_shared::clock::now_ms;
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, DEAD, Partition, Pool, header};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::timeout;

/// A job that ends as the payload says.
struct Ends;

impl Job for Ends {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        let filters = |partition| vec![subjects::update_filter(partition, Class::Message)];
        vec![LaneSource {
            name: "msg",
            stream: subjects::UPDATES,
            filters,
            weight: 1,
        }]
    }

    async fn run(&self, work: &Work) -> Verdict {
        match &work.payload[..] {
            b"fail" => Verdict::retry("answered 503"),
            b"refuse" => Verdict::dead("relay a: answered 400"),
            b"poison" => panic!("poison"),
            _ => Verdict::Done,
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_are_counted_by_the_class_of_their_reason_and_by_tenant() {
    let stage = Stage::start(Snapshot::default()).await;
    let globex = TenantId::new("globex").unwrap();
    let store = TuningStore::new(stage.platform.buckets.tuning.clone());
    let value = TenantTuning {
        mode: Some(Mode::Discard),
        ..TenantTuning::default()
    };
    let entry = Stamped {
        value,
        by: "the operator".to_owned(),
        at_ms: now_ms(),
        platform: true,
    };
    store
        .write(
            &subjects::tuning_key::tenant(Pool::Relay, &globex),
            &entry,
            0,
        )
        .await
        .unwrap();
    for (n, payload) in ["fail", "refuse", "refuse", "poison", "ok"]
        .into_iter()
        .enumerate()
    {
        stage
            .publish(&format!("US.{n}"), &format!("m{n}"), payload)
            .await;
    }
    stage.publish_to("globex", "US.9", "m9", "ok").await;
    let foreign = subjects::update(
        Partition(1),
        Class::Message,
        &TenantId::new("acme").unwrap(),
    );
    stage
        .platform
        .log
        .write_raw(foreign, async_nats::HeaderMap::new(), "no headers".into())
        .await
        .unwrap();
    let mut registry = Registry::default();
    let metrics = Metrics::register(&mut registry);
    let (_stop, _running) = stage.run_seen(Ends, "one", metrics.clone(), Standing::default());
    stage.dead_letters(6).await;
    let status = || metrics.activity(Pool::Relay).status("");
    let counted = async {
        while status().dead_hour < 6 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, counted).await.unwrap();
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    for (reason, count) in [
        ("gave_up", 1),
        ("refused", 2),
        ("panicked", 1),
        ("unreadable", 1),
        ("discarded", 1),
    ] {
        let line =
            format!("ackline_dead_letters_total{{pool=\"relay\",reason=\"{reason}\"}} {count}\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
    let tenants = status().tenants;
    let of = |name: &str| {
        tenants
            .iter()
            .find(|tenant| tenant.tenant.as_str() == name)
            .unwrap()
            .dead_hour
    };
    assert_eq!((of("acme"), of("globex")), (5, 1));
}

/// Stores a dead letter as a pool does.
pub async fn bury(stage: &Stage, pool: Pool, id: u64, reason: &str, at_ms: u64) {
    let mut headers = async_nats::HeaderMap::new();
    headers.insert(header::MSG_ID, format!("dead:{pool}:UPDATES:{id}"));
    headers.insert(header::DEAD_REASON, reason);
    headers.insert(header::DEAD_AT, at_ms.to_string());
    let subject = subjects::dead(pool, &TenantId::new("acme").unwrap());
    stage
        .platform
        .log
        .write_raw(subject, headers, "{}".into())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn open_dead_letters_are_counted_as_they_come_are_settled_and_expire() {
    let stage = Stage::start(Snapshot::default()).await;
    let context = stage.platform.log.context().clone();
    let books = stage.platform.buckets.replays.clone();
    let mut letters = OpenLetters::new(context.clone(), books.clone());
    let now = now_ms();
    let mut look = async || -> Vec<OpenDead> {
        letters.look().await.unwrap();
        letters
            .open(now)
            .into_iter()
            .filter(|dead| dead.open > 0)
            .collect()
    };
    assert_eq!(look().await, []);
    let hours_ago = |hours: u64| now - hours * 3_600_000;
    bury(
        &stage,
        Pool::Relay,
        1,
        "relay a: answered 400",
        hours_ago(5),
    )
    .await;
    bury(
        &stage,
        Pool::Crm,
        2,
        "gave up after 6 attempts: x",
        hours_ago(4),
    )
    .await;
    bury(
        &stage,
        Pool::Relay,
        3,
        "gave up after 6 attempts: x",
        hours_ago(0),
    )
    .await;
    let open = look().await;
    let relay = open.iter().find(|dead| dead.pool == "relay").unwrap();
    assert_eq!((open.len(), relay.open, relay.last_hour), (2, 2, 1));
    assert_eq!(relay.oldest_ms.unwrap() / 3_600_000, 5);
    assert_eq!(relay.reasons_in_words(), "1 refused, 1 gave_up");
    let mut settled = Settled::new(books.clone());
    settled.claim("rp_1", &[1]).await.unwrap();
    settled.claim("dc_2", &[2]).await.unwrap();
    bury(
        &stage,
        Pool::Relay,
        4,
        "relay a: answered 400",
        hours_ago(2),
    )
    .await;
    let open = look().await;
    assert_eq!(
        (
            open.len(),
            open[0].pool.as_str(),
            open[0].open,
            open[0].last_hour
        ),
        (1, "relay", 2, 1)
    );
    assert_eq!(open[0].oldest_ms.unwrap() / 3_600_000, 2);
    settled.release("rp_1", &[1]).await.unwrap();
    assert_eq!(look().await[0].open, 3);
    let stream = context.get_stream(DEAD).await.unwrap();
    stream.delete_message(3).await.unwrap();
    assert_eq!(look().await[0].open, 2, "one is gone from the middle");
    stream.purge().sequence(4).await.unwrap();
    assert_eq!(look().await[0].open, 1);
    stream.purge().await.unwrap();
    assert_eq!(look().await, []);
}
