//! What the edge knows of the declared configuration, whatever becomes of it and of NATS.

use crate::against_nats::{Running, SOON, context, settings};
use ackline_ingress::configuration;
use ackline_ingress::settings::IngressSettings;
use ackline_ingress::store::wire::client::Client;
use ackline_shared::nats::{self, Buckets};
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::subjects::BUCKET_CONFIG;
use ackline_shared::testing::{NatsOptions, NatsServer};
use ackline_shared::vault::VaultKey;
use futures_util::future::join_all;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

struct Followed {
    registry: Registry,
    settings: IngressSettings,
    buckets: Buckets,
    task: JoinHandle<()>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Followed {
    /// Follows the bucket, after `tenants` were declared in it.
    async fn start(server: &NatsServer, tenants: &[(String, String)]) -> Self {
        let settings = settings(server, &VaultKey::generate(), &[]);
        let buckets = Box::pin(nats::prepare(&context(&settings).await, &settings.nats))
            .await
            .unwrap();
        for some in tenants.chunks(256) {
            let put = some
                .iter()
                .map(|(id, name)| buckets.config.put(key(id), tenant(id, name).into()));
            join_all(put)
                .await
                .into_iter()
                .for_each(|put| assert!(put.is_ok()));
        }
        let (client, connection) = Client::new(&settings.nats, "test").await.unwrap();
        let (registry, writer) = Registry::writable();
        let task = tokio::spawn(async move {
            tokio::select! {
                () = connection => {},
                never = configuration::follow(&client, writer) => match never {},
            }
        });
        Self {
            registry,
            settings,
            buckets,
            task,
        }
    }

    async fn put(&self, id: &str, name: &str) {
        self.buckets
            .config
            .put(key(id), tenant(id, name).into())
            .await
            .unwrap();
    }

    /// Waits until the registry says so.
    async fn until(&mut self, holds: impl Fn(&Snapshot) -> bool) {
        let deadline = Instant::now() + SOON;
        loop {
            let snapshot = self.registry.snapshot();
            if holds(&snapshot) {
                return;
            }
            let changed = timeout_at(deadline, self.registry.changed()).await;
            assert_eq!(changed, Ok(true), "still {:?}", names(&snapshot));
        }
    }
}

fn key(id: &str) -> String {
    format!("tenant.{id}")
}

fn tenant(id: &str, name: &str) -> String {
    format!(r#"{{"id":"{id}","name":"{name}"}}"#)
}

fn names(snapshot: &Snapshot) -> Vec<&str> {
    snapshot
        .tenants
        .values()
        .map(|tenant| tenant.name.as_str())
        .collect()
}

#[tokio::test]
async fn the_first_table_is_whole_and_has_the_last_value_of_every_key() {
    let server = NatsServer::start().unwrap();
    // More than the server sends before it waits for a word that we keep up.
    let long = "x".repeat(4000);
    let mut tenants: Vec<_> = (0..3000)
        .map(|number| (format!("t{number}"), long.clone()))
        .collect();
    tenants.extend((0..100).map(|number| (format!("t{number}"), "changed".to_owned())));
    let mut followed = Followed::start(&server, &tenants).await;
    assert!(followed.registry.loaded(SOON).await);
    let snapshot = followed.registry.snapshot();
    assert_eq!(snapshot.tenants.len(), 3000);
    assert_eq!(
        names(&snapshot)
            .into_iter()
            .filter(|name| *name == "changed")
            .count(),
        100
    );
    followed.put("late", "late").await;
    followed
        .until(|snapshot| snapshot.tenants.len() == 3001)
        .await;
}

#[tokio::test]
async fn what_changes_while_the_first_table_is_read_is_in_it_or_comes_after_it() {
    let server = NatsServer::start().unwrap();
    let long = "x".repeat(1000);
    let tenants: Vec<_> = (0..2000)
        .map(|number| (format!("t{number}"), long.clone()))
        .collect();
    let mut followed = Followed::start(&server, &tenants).await;
    let changes: Vec<_> = (0..2000)
        .step_by(7)
        .map(|number| format!("t{number}"))
        .collect();
    let changing = async {
        for id in &changes {
            followed.put(id, "changed").await;
        }
    };
    let (loaded, ()) = tokio::join!(followed.registry.loaded(SOON), changing);
    assert!(loaded && followed.registry.snapshot().tenants.len() == 2000);
    let count = |snapshot: &Snapshot| {
        names(snapshot)
            .into_iter()
            .filter(|name| *name == "changed")
            .count()
    };
    followed
        .until(|snapshot| count(snapshot) == changes.len())
        .await;
}

#[tokio::test]
async fn what_is_put_deleted_or_purged_is_known_soon_and_other_families_are_not_held() {
    let server = NatsServer::start().unwrap();
    let mut followed = Followed::start(&server, &[("a".to_owned(), "first".to_owned())]).await;
    followed
        .until(|snapshot| names(snapshot) == ["first"])
        .await;
    followed.put("a", "second").await;
    followed.put("b", "b").await;
    followed.put("c", "c").await;
    followed
        .until(|snapshot| names(snapshot) == ["second", "b", "c"])
        .await;
    let flow = br#"{"id":"f","tenant":"a"}"#;
    followed
        .buckets
        .config
        .put("flow.a.f", flow.as_slice().into())
        .await
        .unwrap();
    followed
        .buckets
        .config
        .put("tenant.broken", "{".into())
        .await
        .unwrap();
    followed.buckets.config.delete(key("b")).await.unwrap();
    followed.buckets.config.purge(key("c")).await.unwrap();
    followed
        .until(|snapshot| names(snapshot) == ["second"])
        .await;
    assert!(followed.registry.snapshot().flows.is_empty());
    // Read anew, a removal is still one.
    let anew = Followed::start(&server, &[]).await;
    assert!(anew.registry.loaded(SOON).await);
    assert_eq!(names(&anew.registry.snapshot()), ["second"]);
}

#[tokio::test]
async fn an_empty_bucket_is_a_table_too() {
    let server = NatsServer::start().unwrap();
    let mut followed = Followed::start(&server, &[]).await;
    assert!(followed.registry.loaded(SOON).await);
    followed.put("a", "a").await;
    followed.until(|snapshot| names(snapshot) == ["a"]).await;
}

#[tokio::test]
async fn the_table_stays_while_nats_is_away_and_catches_up_when_it_is_back() {
    let mut server = NatsServer::start().unwrap();
    let mut followed = Followed::start(&server, &[("a".to_owned(), "a".to_owned())]).await;
    followed.until(|snapshot| names(snapshot) == ["a"]).await;
    let version = followed.registry.snapshot().version;
    server.kill();
    assert_eq!(names(&followed.registry.snapshot()), ["a"]);
    server.restart().unwrap();
    let context = context(&followed.settings).await;
    followed.buckets = Box::pin(nats::prepare(&context, &followed.settings.nats))
        .await
        .unwrap();
    followed.put("b", "b").await;
    followed
        .until(|snapshot| names(snapshot) == ["a", "b"])
        .await;
    assert!(followed.registry.snapshot().version > version);
}

#[tokio::test]
async fn a_bucket_made_anew_is_read_anew() {
    let server = NatsServer::start().unwrap();
    let tenants: Vec<_> = ["a", "b", "c"]
        .map(|id| (id.to_owned(), id.to_owned()))
        .into();
    let mut followed = Followed::start(&server, &tenants).await;
    followed
        .until(|snapshot| names(snapshot) == ["a", "b", "c"])
        .await;
    let context = context(&followed.settings).await;
    context.delete_key_value(BUCKET_CONFIG).await.unwrap();
    followed.buckets = Box::pin(nats::prepare(&context, &followed.settings.nats))
        .await
        .unwrap();
    followed.put("d", "d").await;
    followed.until(|snapshot| names(snapshot) == ["d"]).await;
}

#[tokio::test]
async fn an_edge_without_jetstream_stays_up_and_is_not_ready() {
    let extra_config =
        "accounts { A { users: [{ user: ann, password: secret }] } }\nno_auth_user: ann";
    let options = NatsOptions {
        sync_always: false,
        extra_config: extra_config.to_owned(),
    };
    let server = NatsServer::start_with(options).unwrap();
    let edge = Running::start(&server, &VaultKey::generate(), &[]).await;
    edge.until("/readyz", |answer| answer.body.contains("\"connected\""))
        .await;
    let answer = edge.get("/readyz").await;
    assert!(
        answer.status == 503 && answer.body.contains("\"loaded\":false"),
        "{}",
        answer.body
    );
    edge.stop().await;
}
