//! What was given up, as it is counted.

use super::stage::{DEADLINE, Stage};
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Partition, Pool};
use ackline_workers::core::job::{Job, LaneSource, Verdict, Work};
use ackline_workers::core::log::now_ms;
use ackline_workers::core::metrics::Metrics;
use ackline_workers::core::standing::Standing;
use ackline_workers::core::tuning::{Mode, Stamped, TenantTuning, TuningStore};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use tokio::time::timeout;

/// A job that ends as the payload says.
struct Ends;

impl Job for Ends {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        let filters = |partition| vec![subjects::update_filter(partition, Class::Message)];
        vec![LaneSource { name: "msg", stream: subjects::UPDATES, filters, weight: 1 }]
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
    let value = TenantTuning { mode: Some(Mode::Discard), ..TenantTuning::default() };
    let entry = Stamped { value, by: "the operator".to_owned(), at_ms: now_ms() };
    store.write(&subjects::tuning_key::tenant(Pool::Relay, &globex), &entry, 0).await.unwrap();
    for (n, payload) in ["fail", "refuse", "refuse", "poison", "ok"].into_iter().enumerate() {
        stage.publish(&format!("US.{n}"), &format!("m{n}"), payload).await;
    }
    stage.publish_to("globex", "US.9", "m9", "ok").await;
    let foreign = subjects::update(Partition(1), Class::Message, &TenantId::new("acme").unwrap());
    stage.platform.log.write_raw(foreign, async_nats::HeaderMap::new(), "no headers".into()).await.unwrap();
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
    for (reason, count) in
        [("gave_up", 1), ("refused", 2), ("panicked", 1), ("unreadable", 1), ("discarded", 1)]
    {
        let line = format!("ackline_dead_letters_total{{pool=\"relay\",reason=\"{reason}\"}} {count}\n");
        assert!(text.contains(&line), "{line} in {text}");
    }
    let tenants = status().tenants;
    let of = |name: &str| tenants.iter().find(|tenant| tenant.tenant.as_str() == name).unwrap().dead_hour;
    assert_eq!((of("acme"), of("globex")), (5, 1));
}
