//! A server that comes back without what it stored: everything is made again, and the pools go on.

use super::stage::{DEADLINE, Stage};
use ackline_engine::state::Target;
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_runtime::upkeep::Upkeep;
use ackline_shared::envelope::Head;
use ackline_shared::nats;
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::subjects::{self, Class, Pool};
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// Notes what it worked on.
#[derive(Clone, Default)]
struct Noting(Arc<Mutex<Vec<String>>>, Arc<Notify>);

impl Noting {
    async fn has(&self, ids: &[&str]) {
        let all = async {
            while *self.0.lock().unwrap() != ids {
                self.1.notified().await;
            }
        };
        assert!(
            timeout(DEADLINE, all).await.is_ok(),
            "{:?}",
            self.0.lock().unwrap()
        );
    }
}

impl Job for Noting {
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

    fn targets(&self, _head: &Head) -> Vec<Arc<Target>> {
        vec![Arc::default()]
    }

    async fn run(&self, work: &Work) -> Verdict {
        self.0
            .lock()
            .unwrap()
            .push(work.head.id.as_str().to_owned());
        self.1.notify_one();
        Verdict::Done
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn pools_go_on_with_the_streams_of_a_server_that_lost_them() {
    let mut stage = Stage::start(Snapshot::default()).await;
    let (client, settings) = (stage.platform.log.context().client(), stage.settings());
    let (_end, shutdown) = watch::channel(false);
    let upkeep = Upkeep::default();
    tokio::spawn(
        upkeep
            .clone()
            .run(client.clone(), settings.clone(), shutdown),
    );
    let config = &stage.platform.buckets.config;
    config
        .put(
            "tenant.old",
            br#"{"id":"old","name":"Old"}"#.as_slice().into(),
        )
        .await
        .unwrap();
    let mut registry = Registry::watch(config.clone(), client);
    assert!(registry.loaded(DEADLINE).await);
    let job = Noting::default();
    let (_stop, _task) = stage.run(job.clone(), "one");
    for id in ["a", "b", "c"] {
        stage.publish("US.1", id, "ok").await;
    }
    job.has(&["a", "b", "c"]).await;

    stage.wipe_server().await;
    let again = async {
        // Whoever looks first makes them; until then there is nothing to write to.
        while Box::pin(nats::prepare(stage.platform.log.context(), &settings))
            .await
            .is_err()
            || upkeep.is_lost()
        {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, again).await.unwrap();
    // Their sequences and their ids are those of the ones that are gone.
    for id in ["x", "b"] {
        stage.publish("US.1", id, "ok").await;
    }
    job.has(&["a", "b", "c", "x", "b"]).await;
    let config = &stage.platform.buckets.config;
    config
        .put(
            "tenant.new",
            br#"{"id":"new","name":"New"}"#.as_slice().into(),
        )
        .await
        .unwrap();
    let restored = async {
        while registry
            .snapshot()
            .tenants
            .keys()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            != ["new"]
        {
            registry.changed().await;
        }
    };
    timeout(DEADLINE, restored)
        .await
        .expect("what is declared anew is known");
}
