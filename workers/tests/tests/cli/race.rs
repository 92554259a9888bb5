//! What a plan does when somebody else changed the store meanwhile.

use ackline_catalog::ownership::Owns;
use ackline_catalog::part::Part;
use ackline_catalog::plan;
use ackline_catalog::samples;
use ackline_catalog::stored::Stored;
use ackline_cli::apply::{ApplyError, write};
use ackline_shared::subjects;
use ackline_shared::testing::NatsServer;
use ackline_shared::vault::VaultKey;
use async_nats::jetstream::kv::{self, Store};

async fn bucket(server: &NatsServer) -> Store {
    let context = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let config = kv::Config {
        bucket: subjects::BUCKET_CONFIG.to_owned(),
        history: 8,
        ..kv::Config::default()
    };
    context.create_key_value(config).await.unwrap()
}

/// Writes a plan after somebody else changed `key`; gives the error, the changes written and the changes planned.
async fn race(
    edit: impl FnOnce(&mut Vec<Part>),
    prune: bool,
    key: &str,
) -> (ApplyError, usize, usize) {
    let server = NatsServer::start().unwrap();
    let store = bucket(&server).await;
    let master = VaultKey::generate();
    let mut parts = Part::all_of(&samples::document());
    let tenants = [ackline_shared::ids::TenantId::new("acme").unwrap()].into();
    let owns = Owns {
        tenants,
        ..Owns::default()
    };
    let first = plan::plan(parts.clone(), &Stored::default(), &master, &owns, false).unwrap();
    write(&store, &first, &master, &mut 0).await.unwrap();
    let stored = Stored::load(&store).await.unwrap();
    edit(&mut parts);
    let plan = plan::plan(parts, &stored, &master, &owns, prune).unwrap();
    store.put(key, "theirs".into()).await.unwrap();
    let mut done = 0;
    let error = write(&store, &plan, &master, &mut done).await.unwrap_err();
    assert_eq!(store.get(key).await.unwrap().unwrap(), "theirs");
    (error, done, plan.changes.len())
}

#[tokio::test]
async fn a_change_by_somebody_else_meanwhile_stops_the_writing() {
    let rename = |parts: &mut Vec<Part>| {
        for part in parts {
            match part {
                Part::Tenant(tenant) => tenant.name.push('!'),
                Part::Bot(bot) => bot.name.push('!'),
                _ => {}
            }
        }
    };
    let (error, done, all) = race(rename, false, "bot.acme.shop").await;
    assert!(matches!(error, ApplyError::Conflict(_)), "{error}");
    assert_eq!((done, all), (2, 3));
    assert!(
        error
            .to_string()
            .starts_with("bot acme/shop was changed by somebody else"),
        "{error}"
    );
}

#[tokio::test]
async fn what_somebody_else_added_or_changed_is_neither_overwritten_nor_removed() {
    let add = |parts: &mut Vec<Part>| {
        let Some(Part::Brand(brand)) = parts.first().cloned() else {
            panic!("the first part is a brand")
        };
        let id = ackline_shared::ids::EntityId::new("other").unwrap();
        parts.insert(0, Part::Brand(ackline_shared::model::Brand { id, ..brand }));
    };
    let (error, done, _) = race(add, false, "brand.other").await;
    assert!(
        matches!(error, ApplyError::Conflict(_)) && done == 0,
        "{error}"
    );
    let drop_relay = |parts: &mut Vec<Part>| parts.retain(|part| !matches!(part, Part::Relay(_)));
    let (error, done, _) = race(drop_relay, true, "relay.acme.old").await;
    assert!(
        matches!(error, ApplyError::Conflict(_)) && done == 0,
        "{error}"
    );
}
