//! A declared configuration for tests: two tenants, an app that serves both and one of globex's own.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "only tests run this; a failure here is a failed test"
)]

use ackline_ingress::budget::Budget;
use ackline_ingress::http::admission::Admission;
use ackline_ingress::http::admission::Shedding;
use ackline_ingress::http::bounds::Bounds;
use ackline_ingress::http::webhook::Edge;
use ackline_ingress::metrics::Metrics;
use ackline_ingress::routing::{InFlight, Routing, RoutingTable};
use ackline_ingress::store::acknowledged::Acknowledged;
use ackline_shared::model::{App, Entity, INSTALLATION_SCOPE, Kind, PhoneNumber, Tenant};
use ackline_shared::registry::Snapshot;
use ackline_shared::secret::Secret;
use ackline_shared::subjects::config_key;
use ackline_shared::vault::VaultKey;
use hyper::header::HeaderValue;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The app secret of every app here.
pub const SECRET: &str = "test_app_secret";
/// The verify token of every app here.
pub const VERIFY_TOKEN: &str = "verify-me";

/// When the edge below turns deliveries away.
pub const SHEDDING: Shedding = Shedding {
    target: Duration::from_millis(250),
    in_flight_max: 1024,
};

/// An edge over a log of the caller's.
pub fn edge<L>(
    log: Arc<L>,
    routing: Arc<Routing>,
    bounds: Bounds,
    metrics: Arc<Metrics>,
) -> Arc<Edge<L>> {
    Arc::new(Edge {
        routing,
        log,
        admission: Admission::new(SHEDDING, Instant::now()),
        bounds,
        partitions: 32,
        tenant_in_flight: InFlight {
            updates: 512,
            bytes: bounds.body_bytes_total_max / 2,
        },
        retry_after: HeaderValue::from_static("2"),
        body_bytes: Arc::new(Budget::new(bounds.body_bytes_total_max)),
        acknowledged: Arc::new(Acknowledged::new(64)),
        metrics,
    })
}

/// The configuration and the key its secrets open under.
pub fn snapshot() -> (Snapshot, VaultKey) {
    let (entries, master) = entries();
    let mut snapshot = Snapshot::default();
    for (key, value) in entries {
        snapshot.fold(&key, Some(&value)).unwrap();
    }
    (snapshot, master)
}

/// The configuration as it lies in the bucket, and the key its secrets open under.
pub fn entries() -> (Vec<(String, Vec<u8>)>, VaultKey) {
    let master = VaultKey::generate();
    let mut out = Vec::new();
    for scope in [INSTALLATION_SCOPE, "acme", "globex"] {
        let key = VaultKey::generate();
        out.push((
            config_key::data_key(scope),
            serde_json::to_vec(&key.seal_under(&master, scope)).unwrap(),
        ));
        match scope {
            INSTALLATION_SCOPE => push::<App>(&mut out, &key, json!({"id": "main"})),
            "acme" => {
                push::<Tenant>(&mut out, &key, json!({"id": "acme", "name": "Acme"}));
                push::<PhoneNumber>(&mut out, &key, number("100", "acme", "W1"));
            }
            _ => {
                push::<Tenant>(&mut out, &key, json!({"id": "globex", "name": "Globex"}));
                push::<PhoneNumber>(&mut out, &key, number("200", "globex", "W2"));
                push::<App>(
                    &mut out,
                    &key,
                    json!({"id": "globex-own", "tenant": "globex"}),
                );
            }
        }
    }
    (out, master)
}

/// The routing table made of it.
pub fn table() -> RoutingTable {
    let (snapshot, master) = snapshot();
    RoutingTable::build(&snapshot, &master, None)
}

fn number(id: &str, tenant: &str, waba: &str) -> Value {
    json!({"id": id, "tenant": tenant, "app": "main", "waba_id": waba, "access_token": "EAA"})
}

fn push<T: Entity>(out: &mut Vec<(String, Vec<u8>)>, key: &VaultKey, mut value: Value) {
    if T::FAMILY == App::FAMILY {
        value["secrets"] = json!([SECRET]);
        value["verify_token"] = json!(VERIFY_TOKEN);
    }
    let entity: T = serde_json::from_value(value.clone()).unwrap();
    for (_, text) in Kind::of::<T>("").secrets_in(&mut value) {
        let sealed = key.seal(entity.scope(), &Secret::new(text.clone()));
        *text = sealed.as_str().to_owned();
    }
    let sealed: T = serde_json::from_value(value).unwrap();
    out.push((sealed.config_key(), serde_json::to_vec(&sealed).unwrap()));
}
