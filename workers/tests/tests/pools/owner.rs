//! Who may answer: flows between another responder at Meta, an agent in the CRM, and the person.

use super::stage::{DEADLINE, Stage};
use ackline_egress::{Egress, EgressSettings};
use ackline_message::Record;
use ackline_message::{Content, SendCommand};
use ackline_pools::flows::FlowsJob;
use ackline_runtime::conversation::{Event, Owner, Owners, Side, Who};
use ackline_shared::clock::now_ms;
use ackline_shared::config::Reader;
use ackline_shared::envelope::Head;
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId};
use ackline_shared::partition;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Partition, Pool};
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

const PERSON: &str = "US.1";
const PHONE: &str = "4915100000001";

fn egress() -> Egress {
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let variables = [("ACKLINE_EGRESS_ALLOW".to_owned(), "127.0.0.1".to_owned())];
    let mut reader = Reader::load(None, variables);
    let settings = EgressSettings::read(&mut reader);
    reader.finish().unwrap();
    Egress::new(&settings).unwrap()
}

fn snapshot(nodes: &Value) -> Snapshot {
    let definition = json!({"format": 1, "name": "Shop", "entry": [{"on": "any"}], "start": "start", "nodes": nodes});
    ackline_flow::Compiled::from_json(&definition).unwrap();
    let mut snapshot = Snapshot::default();
    let entries = [
        ("tenant.acme", json!({"id": "acme", "name": "Acme"})),
        (
            "bot.acme.shop",
            json!({"id": "shop", "tenant": "acme", "flows": ["shop"]}),
        ),
        (
            "flow.acme.shop",
            json!({"id": "shop", "tenant": "acme", "definition": definition}),
        ),
    ];
    for (key, value) in entries {
        snapshot
            .fold(key, Some(value.to_string().as_bytes()))
            .unwrap();
    }
    snapshot
}

/// Asks for a word, and says which it was.
fn asking() -> Snapshot {
    snapshot(&json!({
        "start": {"kind": "ask.text", "body": "Which word?", "variable": "word", "exits": {"next": "tell"}},
        "tell": {"kind": "message.text", "body": "It is {{ word }}.", "exits": {"next": "end"}},
        "end": {"kind": "end"},
    }))
}

fn envelope(field: &str, value: &Value) -> Vec<u8> {
    let change = json!({"field": field, "value": value});
    json!({"object": "whatsapp_business_account", "entry": [{"id": "W", "changes": [change]}]})
        .to_string()
        .into_bytes()
}

/// A message of the person, written at a second, under a field.
fn message(field: &str, id: &str, body: &str, second: u64) -> Vec<u8> {
    let message = json!({"id": id, "from_user_id": PERSON, "from": PHONE, "type": "text", "text": {"body": body},
        "timestamp": second.to_string()});
    let contact = json!({"profile": {"name": "Ana"}, "user_id": PERSON, "wa_id": PHONE});
    envelope(
        field,
        &json!({"metadata": {"phone_number_id": "100"}, "contacts": [contact], "messages": [message]}),
    )
}

fn handover(control: &str, second: u64) -> Vec<u8> {
    let roles = json!({"previous_owner_role": "A", "new_owner_role": "B"});
    let value = json!({"messaging_product": "whatsapp", "timestamp": second.to_string(), "type": "handover",
        "sender": {"phone_number": PHONE}, "recipient": {"phone_number_id": "100"}, control: roles});
    envelope("messaging_handovers", &value)
}

fn under(field: &str, kind: &str, key: ConversationKey) -> impl FnOnce(Head) -> Head {
    let (field, kind) = (field.to_owned(), kind.to_owned());
    move |head| Head {
        field: Some(field),
        kind,
        conversation: key,
        ..head
    }
}

fn user() -> ConversationKey {
    ConversationKey::user(PERSON)
}

async fn said(stage: &Stage, count: usize) -> Vec<String> {
    let messages = stage
        .messages(subjects::OUTBOUND, subjects::OUTBOUND_SUBJECTS[0], count)
        .await;
    let body = |command: SendCommand| match command.content {
        Content::Text { body, .. } => body,
        other => panic!("{other:?}"),
    };
    messages
        .iter()
        .map(|message| body(serde_json::from_slice(&message.payload).unwrap()))
        .collect()
}

/// Waits until the flows are done with the last of so many messages under a filter.
async fn passed_by_flows(stage: &Stage, filter: &str, count: usize, partition: Partition) {
    let messages = stage.messages(subjects::UPDATES, filter, count).await;
    let sequence = messages.last().unwrap().info().unwrap().stream_sequence;
    stage
        .acknowledged(
            &subjects::consumer(Pool::Flows, partition, "conversation"),
            sequence,
        )
        .await;
}

struct Place {
    owners: Owners,
    tenant: TenantId,
    number: PhoneNumberId,
}

impl Place {
    fn of(stage: &Stage) -> Self {
        Self {
            owners: Owners::new(stage.platform.buckets.sessions.clone()),
            tenant: TenantId::new("acme").unwrap(),
            number: PhoneNumberId::new("100").unwrap(),
        }
    }

    fn side(&self, key: ConversationKey) -> Side<'_> {
        Side::new(&self.tenant, &self.number, key, None)
    }

    async fn report(&self, event: Event) {
        self.owners
            .report(&self.side(user()), &event, now_ms())
            .await
            .unwrap();
    }

    async fn owner(&self, key: ConversationKey) -> Option<Owner> {
        self.owners.get(&self.side(key)).await.unwrap()
    }

    async fn becomes(&self, key: ConversationKey, who: Who) {
        let becomes = async {
            while self
                .owner(key.clone())
                .await
                .is_none_or(|owner| owner.who != who)
            {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, becomes).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_is_silent_while_another_responder_has_the_conversation() {
    let echo = json!({
        "start": {"kind": "message.text", "body": "You wrote {{ message.text }}", "exits": {"next": "end"}},
        "end": {"kind": "end"},
    });
    let stage = Stage::start(snapshot(&echo)).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    let (place, now) = (Place::of(&stage), now_ms() / 1000);
    stage
        .publish(PERSON, "m1", message("messages", "m1", "one", now - 50))
        .await;
    assert_eq!(said(&stage, 1).await, ["You wrote one"]);

    let taken = under("messaging_handovers", "handover.control_taken", user());
    stage
        .publish_as(taken, PERSON, "h1", handover("control_taken", now - 40))
        .await;
    place.becomes(user(), Who::Responder).await;
    let standby = || under("standby", "message.text", user());
    stage
        .publish_as(
            standby(),
            PERSON,
            "m2",
            message("standby", "m2", "two", now - 30),
        )
        .await;
    // What the edge of an earlier version stored has no field in its head.
    stage
        .publish(PERSON, "m3", message("standby", "m3", "three", now - 29))
        .await;
    // It was written before, and comes late.
    stage
        .publish(PERSON, "m4", message("messages", "m4", "four", now - 45))
        .await;
    // A field that nobody knows is not addressed to us, whatever it holds.
    let other = under("whispers", "message.text", user());
    stage
        .publish_as(
            other,
            PERSON,
            "m5",
            message("whispers", "m5", "five", now - 28),
        )
        .await;
    let passed = under("messaging_handovers", "handover.control_passed", user());
    stage
        .publish_as(passed, PERSON, "h2", handover("control_passed", now - 20))
        .await;
    stage
        .publish(PERSON, "m6", message("messages", "m6", "six", now - 10))
        .await;
    assert_eq!(said(&stage, 2).await, ["You wrote one", "You wrote six"]);
    assert_eq!(place.owner(user()).await.unwrap().who, Who::Bot);

    // Taken again without a word, and released without one: what comes tells it.
    stage
        .publish_as(
            standby(),
            PERSON,
            "m7",
            message("standby", "m7", "seven", now - 8),
        )
        .await;
    place.becomes(user(), Who::Responder).await;
    stage
        .publish(PERSON, "m8", message("messages", "m8", "eight", now - 6))
        .await;
    assert_eq!(said(&stage, 3).await[2], "You wrote eight");
    stage.holds(subjects::OUTBOUND, 3..=3).await;
    stage.holds(subjects::DEAD, 0..=0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flow_rests_once_an_agent_answered_and_goes_on_where_it_waited() {
    let stage = Stage::start(asking()).await;
    let place = Place::of(&stage);
    let (stop, running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    let say = async |id: &str, body: &str| {
        stage
            .publish(PERSON, id, message("messages", id, body, now_ms() / 1000))
            .await;
    };
    say("m1", "hello").await;
    assert_eq!(said(&stage, 1).await, ["Which word?"]);
    let rest = Duration::from_secs(3600);
    place
        .report(Event::Answered {
            link: "desk".into(),
            at_ms: now_ms(),
            rest,
        })
        .await;
    say("m2", "two").await;
    passed_by_flows(&stage, subjects::UPDATES_SUBJECTS[0], 2, Partition(1)).await;
    // Another process takes over: what was the agent's stays the agent's.
    drop(stop);
    running.await.unwrap();
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "two");
    place
        .report(Event::Released {
            link: "desk".into(),
            at_ms: now_ms(),
            to_bot: false,
        })
        .await;
    say("m3", "three").await;
    assert_eq!(said(&stage, 2).await, ["Which word?", "It is three."]);
    stage.holds(subjects::OUTBOUND, 2..=2).await;
    assert_eq!(
        place.owner(user()).await.unwrap().who,
        Who::Idle,
        "the flow kept what was set"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn no_flow_starts_where_an_agent_answered_first_and_its_time_ends_by_itself() {
    let stage = Stage::start(asking()).await;
    let place = Place::of(&stage);
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    // Long enough for the first message to be read within it.
    let rest = Duration::from_secs(3);
    place
        .report(Event::Answered {
            link: "desk".into(),
            at_ms: now_ms(),
            rest,
        })
        .await;
    let until = place.owner(user()).await.unwrap().until_ms.unwrap();
    stage
        .publish(
            PERSON,
            "m1",
            message("messages", "m1", "hello", now_ms() / 1000),
        )
        .await;
    tokio::time::sleep(Duration::from_millis(until.saturating_sub(now_ms()) + 1)).await;
    stage
        .publish(
            PERSON,
            "m2",
            message("messages", "m2", "hello", now_ms() / 1000),
        )
        .await;
    assert_eq!(said(&stage, 1).await, ["Which word?"]);
    stage
        .publish(
            PERSON,
            "m3",
            message("messages", "m3", "three", now_ms() / 1000),
        )
        .await;
    assert_eq!(
        said(&stage, 2).await[1],
        "It is three.",
        "the first message started nothing"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_was_looked_up_is_not_given_once_the_conversation_was_taken() {
    let (asked, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let (heard, latch) = (asked.clone(), go.clone());
    let slow = get(async move || {
        heard.notify_one();
        latch.notified().await;
        Json(json!({"status": "shipped"}))
    });
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/", slow)).await });
    let look = json!({
        "start": {"kind": "http", "url": url, "save": {"status": "/status"},
                  "exits": {"ok": "tell", "http_error": "tell", "timeout": "tell"}},
        "tell": {"kind": "message.text", "body": "It is there.", "exits": {"next": "end"}},
        "end": {"kind": "end"},
    });
    let stage = Stage::start(snapshot(&look)).await;
    let place = Place::of(&stage);
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    let now = now_ms() / 1000;
    stage
        .publish(PERSON, "m1", message("messages", "m1", "hello", now - 10))
        .await;
    timeout(DEADLINE, asked.notified()).await.unwrap();
    // The handover names the phone number alone.
    let key = ConversationKey::phone(PHONE);
    let taken = under("messaging_handovers", "handover.control_taken", key.clone());
    stage
        .publish_as(taken, PERSON, "h1", handover("control_taken", now))
        .await;
    place.becomes(key, Who::Responder).await;
    go.notify_one();
    let shards = stage.platform.snapshot().tenants[&place.tenant].shards;
    let partition = partition::of_conversation(&place.tenant, &user(), shards, 4);
    let results = subjects::record_filter(partition, Record::FLOW_RESULT);
    passed_by_flows(&stage, &results, 1, partition).await;
    stage.holds(subjects::OUTBOUND, 0..=0).await;
}

#[tokio::test]
async fn whatever_else_a_record_holds_stays_and_a_broken_one_begins_anew() {
    let stage = Stage::start(Snapshot::default()).await;
    let (place, sessions) = (Place::of(&stage), &stage.platform.buckets.sessions);
    let key = subjects::session_key::of(Pool::Flows, &place.tenant, "100", &user());
    let released = |at_ms| Event::Released {
        link: "desk".into(),
        at_ms,
        to_bot: true,
    };
    let stored = async || -> Value {
        serde_json::from_slice(&sessions.get(&key).await.unwrap().unwrap()).unwrap()
    };
    sessions
        .put(
            &key,
            json!({"schema": 7, "novelty": [1, 2.5]}).to_string().into(),
        )
        .await
        .unwrap();
    place.report(released(1)).await;
    let record = stored().await;
    assert_eq!(
        (&record["schema"], &record["novelty"]),
        (&json!(7), &json!([1, 2.5]))
    );
    assert_eq!(record["owner"]["who"], "bot");
    for broken in ["not json", "", r#"{"schema":1,"owner":"me"}"#] {
        sessions.put(&key, broken.to_owned().into()).await.unwrap();
        assert_eq!(place.owner(user()).await, None, "{broken}");
        place.report(released(2)).await;
        assert_eq!(stored().await["owner"]["since_ms"], 2, "{broken}");
    }
    let newer = json!({"schema": 1, "owner": {"v": 9, "who": "committee", "since_ms": 3}});
    sessions.put(&key, newer.to_string().into()).await.unwrap();
    assert!(
        place
            .owners
            .report(&place.side(user()), &released(4), 5)
            .await
            .is_err()
    );
    assert_eq!(stored().await, newer);
    sessions.delete(&key).await.unwrap();
    place.report(released(6)).await;
    assert_eq!(stored().await["owner"]["since_ms"], 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_set_an_owner_at_once_none_is_lost() {
    let stage = Stage::start(Snapshot::default()).await;
    let place = Arc::new(Place::of(&stage));
    let taken = |second: u64| Event::Handover {
        is_gained: second.is_multiple_of(2),
        roles: "A to B".into(),
        at_ms: now_ms() - 60_000 + second,
    };
    let reported: Vec<_> = (0..8)
        .map(|second| {
            let (place, event) = (place.clone(), taken(second));
            tokio::spawn(async move { place.report(event).await })
        })
        .collect();
    for one in reported {
        one.await.unwrap();
    }
    assert_eq!(
        place.owner(user()).await.unwrap().who,
        Who::Responder,
        "the last one counts"
    );
    // A second key is written only where it has a record.
    let person = ackline_message::Recipient {
        user_id: Some(PERSON.into()),
        phone: Some(PHONE.into()),
    };
    let both = Side::of_person(&place.tenant, &place.number, &person);
    let set = |who: Who| Event::Set {
        who,
        until_ms: None,
        key: "k".into(),
    };
    place
        .owners
        .report(&both, &set(Who::Person), now_ms())
        .await
        .unwrap();
    assert_eq!(place.owner(ConversationKey::phone(PHONE)).await, None);
    let phone = place.side(ConversationKey::phone(PHONE));
    place
        .owners
        .report(&phone, &set(Who::Bot), now_ms())
        .await
        .unwrap();
    place
        .owners
        .report(&both, &set(Who::Idle), now_ms())
        .await
        .unwrap();
    assert_eq!(
        place
            .owner(ConversationKey::phone(PHONE))
            .await
            .unwrap()
            .who,
        Who::Idle
    );
}
