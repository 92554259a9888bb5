//! Who is who to the flows: a person under two spellings, with new ids, in a group, and a stranger with an old number.

use super::flows::egress;
use super::stage::Stage;
use ackline_message::{Content, Recipient, SendCommand};
use ackline_pools::flows::FlowsJob;
use ackline_runtime::conversation::{Event, Moves, Owners, Side, Who};
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::Head;
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Partition, Pool, session_key};
use serde_json::{Value, json};

const NINE: &str = "5521987654321";
const EIGHT: &str = "552187654321";

/// Asks for a word, and says which it was.
fn asking() -> Snapshot {
    let definition = json!({"format": 1, "name": "Word", "entry": [{"on": "any"}], "start": "ask", "nodes": {
        "ask": {"kind": "ask.text", "body": "Which word?", "variable": "word", "exits": {"next": "tell"}},
        "tell": {"kind": "message.text", "body": "It is {{ word }}.", "exits": {"next": "end"}},
        "end": {"kind": "end"},
    }});
    let mut snapshot = Snapshot::default();
    for (key, value) in [
        ("tenant.acme", json!({"id": "acme", "name": "Acme"})),
        (
            "bot.acme.shop",
            json!({"id": "shop", "tenant": "acme", "flows": ["word"]}),
        ),
        (
            "flow.acme.word",
            json!({"id": "word", "tenant": "acme", "definition": definition}),
        ),
    ] {
        let value = value.to_string();
        snapshot.fold(key, Some(value.as_bytes())).unwrap();
    }
    snapshot
}

pub fn person(user_id: Option<&str>, phone: Option<&str>) -> Recipient {
    Recipient {
        user_id: user_id.map(str::to_owned),
        phone: phone.map(str::to_owned),
    }
}

fn envelope(message: &Value) -> Vec<u8> {
    let value = json!({"metadata": {"phone_number_id": "100"}, "messages": [message]});
    json!({"object": "whatsapp_business_account", "entry": [{"id": "W", "changes": [{"value": value, "field": "messages"}]}]})
        .to_string()
        .into_bytes()
}

/// Stores a message in the partition of a person's own, as the edge does.
pub async fn said(stage: &Stage, partition: u16, who: &Recipient, id: &str, members: Value) {
    let mut message =
        json!({"id": id, "from": who.phone, "from_user_id": who.user_id, "timestamp": "1"});
    let fields = message.as_object_mut().unwrap();
    fields.extend(members.as_object().unwrap().clone());
    let kind = format!("message.{}", message["type"].as_str().unwrap());
    let conversation = match message["group_id"].as_str() {
        Some(group) => ConversationKey::group(group),
        None => read(&message).conversation(),
    };
    let placed = |head: Head| Head {
        partition: Partition(partition),
        id: UpdateId::new(id),
        conversation,
        kind,
        ..head
    };
    stage.publish_as(placed, "-", id, envelope(&message)).await;
}

/// Whom the pools take for the author.
fn read(message: &Value) -> Recipient {
    let update = ackline_shared::meta::read(&envelope(message)).unwrap();
    match update.body {
        ackline_shared::meta::Body::Message(message) => message.from,
        other => panic!("{other:?}"),
    }
}

fn text(body: &str) -> Value {
    json!({"type": "text", "text": {"body": body}})
}

pub async fn sent(stage: &Stage, count: usize) -> Vec<(String, Recipient)> {
    let messages = stage
        .messages(subjects::OUTBOUND, subjects::OUTBOUND_SUBJECTS[0], count)
        .await;
    let read = |command: SendCommand| match command.content {
        Content::Text { body, .. } => (body, command.to),
        other => panic!("{other:?}"),
    };
    messages
        .iter()
        .map(|message| read(serde_json::from_slice(&message.payload).unwrap()))
        .collect()
}

/// Waits until the flows are done with everything in a partition.
pub async fn done(stage: &Stage, partition: u16) {
    let filter = subjects::update_filter(Partition(partition), subjects::Class::Message);
    let stream = stage.platform.log.context().get_stream(subjects::UPDATES);
    let last = stream.await.unwrap();
    let last = last.get_last_raw_message_by_subject(&filter).await.unwrap();
    let consumer = subjects::consumer(Pool::Flows, Partition(partition), "conversation");
    stage.acknowledged(&consumer, last.sequence).await;
}

pub fn record(key: &ConversationKey) -> String {
    session_key::of(Pool::Flows, &TenantId::new("acme").unwrap(), "100", key)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_in_two_spellings_is_asked_once_and_answered_in_the_last_one() {
    let stage = Stage::start(asking()).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    said(&stage, 1, &person(None, Some(NINE)), "m1", text("hello")).await;
    assert_eq!(sent(&stage, 1).await[0].1, person(None, Some(NINE)));
    said(&stage, 1, &person(None, Some(EIGHT)), "m2", text("apple")).await;
    let answer = ("It is apple.".to_owned(), person(None, Some(EIGHT)));
    assert_eq!(sent(&stage, 2).await[1], answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_earlier_version_kept_under_the_other_spelling_goes_on() {
    let stage = Stage::start(asking()).await;
    let (stop, running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    said(&stage, 1, &person(None, Some(NINE)), "m1", text("hello")).await;
    sent(&stage, 1).await;
    done(&stage, 1).await;
    stop.send(true).unwrap();
    running.await.unwrap();
    let sessions = &stage.platform.buckets.sessions;
    let now = record(&ConversationKey::phone(NINE));
    let held = sessions.get(&now).await.unwrap().unwrap();
    sessions.purge(&now).await.unwrap();
    let before = ConversationKey::parse(&format!("p:{NINE}")).unwrap();
    sessions.put(record(&before), held).await.unwrap();
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "two");
    said(&stage, 1, &person(None, Some(EIGHT)), "m2", text("pear")).await;
    assert_eq!(sent(&stage, 2).await[1].0, "It is pear.");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_id_that_comes_later_finds_the_question_that_was_asked_by_number() {
    let stage = Stage::start(asking()).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    said(&stage, 1, &person(None, Some("49151")), "m1", text("hello")).await;
    sent(&stage, 1).await;
    let known = person(Some("DE.1"), Some("49151"));
    said(&stage, 2, &known, "m2", text("plum")).await;
    assert_eq!(sent(&stage, 2).await[1], ("It is plum.".to_owned(), known));
    // Somebody else who has the number now is asked anew.
    let stranger = person(Some("DE.2"), Some("49151"));
    said(&stage, 3, &stranger, "m3", text("hello")).await;
    assert_eq!(
        sent(&stage, 3).await[2],
        ("Which word?".to_owned(), stranger)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_changes_number_and_user_id_answers_the_question_they_were_asked() {
    let stage = Stage::start(asking()).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    let (old, new) = (
        person(Some("DE.1"), Some("49151")),
        person(Some("DE.9"), Some("49159")),
    );
    said(&stage, 1, &old, "m1", text("hello")).await;
    sent(&stage, 1).await;
    let change = json!({"type": "system", "system": {"type": "user_changed_number", "body": "changed",
        "wa_id": "49159", "user_id": "DE.9", "previous_user_id": "DE.1"}});
    said(&stage, 2, &old, "s1", change.clone()).await;
    said(&stage, 2, &new, "m2", text("fig")).await;
    let answer = ("It is fig.".to_owned(), new.clone());
    assert_eq!(sent(&stage, 2).await[1], answer);
    // What was under way under the old ids goes on where the conversation is, and the change may come again.
    said(&stage, 1, &old, "m3", text("hello")).await;
    assert_eq!(sent(&stage, 3).await[2].0, "Which word?");
    said(&stage, 2, &old, "s2", change).await;
    said(&stage, 2, &new, "m4", text("kiwi")).await;
    assert_eq!(sent(&stage, 4).await[3].0, "It is kiwi.");
    let sessions = &stage.platform.buckets.sessions;
    let left = sessions.get(record(&ConversationKey::user("DE.1"))).await;
    let left: Value = serde_json::from_slice(&left.unwrap().unwrap()).unwrap();
    assert_eq!(left["moved"], "u:DE.9");
    assert!(left["flow"].is_null(), "nothing of the person stays there");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_has_a_number_after_its_last_owner_is_a_stranger() {
    let stage = Stage::start(asking()).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    let (old, new) = (person(None, Some("49151")), person(None, Some("49159")));
    let at = |second: u64, mut members: Value| {
        members["timestamp"] = json!(second.to_string());
        members
    };
    let now = now_ms() / 1000;
    said(&stage, 1, &old, "m1", at(now - 90, text("hello"))).await;
    sent(&stage, 1).await;
    let change =
        json!({"type": "system", "system": {"type": "user_changed_number", "wa_id": "49159"}});
    let change = at(now - 60, change);
    said(&stage, 2, &old, "s1", change.clone()).await;
    done(&stage, 2).await;
    // Written before the change and read after it, it is the same person's.
    said(&stage, 1, &old, "m2", at(now - 60, text("late"))).await;
    assert_eq!(sent(&stage, 2).await[1].0, "It is late.");
    said(&stage, 2, &new, "m3", at(now - 50, text("hello"))).await;
    sent(&stage, 3).await;
    said(&stage, 1, &old, "m4", at(now - 40, text("a stranger"))).await;
    let asked = ("Which word?".to_owned(), old.clone());
    assert_eq!(sent(&stage, 4).await[3], asked);
    // That the change is told once more takes nothing from the stranger.
    said(&stage, 2, &old, "s2", change).await;
    done(&stage, 2).await;
    said(&stage, 2, &new, "m5", at(now - 30, text("mine"))).await;
    said(&stage, 1, &old, "m6", at(now - 30, text("theirs"))).await;
    let mut answers = sent(&stage, 6).await.split_off(4);
    answers.sort_by(|one, other| one.0.cmp(&other.0));
    let expected = [
        ("It is mine.".to_owned(), new),
        ("It is theirs.".to_owned(), old),
    ];
    assert_eq!(answers, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_in_a_group_is_nobodys_session_and_is_not_answered() {
    let stage = Stage::start(asking()).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    let (ann, bob) = (person(None, Some("49151")), person(None, Some("49152")));
    let in_group = |body: &str| json!({"type": "text", "text": {"body": body}, "group_id": "G1"});
    said(&stage, 1, &ann, "g1", in_group("hi all")).await;
    said(&stage, 2, &ann, "m1", text("hello")).await;
    sent(&stage, 1).await;
    said(&stage, 1, &bob, "g2", in_group("apple")).await;
    said(&stage, 1, &ann, "g3", in_group("apple")).await;
    done(&stage, 1).await;
    said(&stage, 2, &ann, "m2", text("mine")).await;
    let sent = sent(&stage, 2).await;
    assert_eq!(sent[1], ("It is mine.".to_owned(), ann));
    stage.holds(subjects::OUTBOUND, 2..=2).await;
    let sessions = &stage.platform.buckets.sessions;
    let group = sessions.get(record(&ConversationKey::group("G1"))).await;
    assert_eq!(group.unwrap(), None);
}

#[tokio::test]
async fn an_owner_is_found_and_set_under_every_id_that_a_person_had() {
    let stage = Stage::start(Snapshot::default()).await;
    let store = stage.platform.buckets.sessions.clone();
    let (owners, moves) = (Owners::new(store.clone()), Moves::new(store.clone()));
    let (tenant, number) = (
        TenantId::new("acme").unwrap(),
        PhoneNumberId::new("100").unwrap(),
    );
    let side = |who: &Recipient| Side::of_person(&tenant, &number, who);
    let (old, new) = (person(None, Some("49151")), person(Some("DE.1"), None));
    let set = |who| Event::Set {
        who,
        until_ms: None,
        key: "k".into(),
    };
    let report = async |who: &Recipient, event| owners.report(&side(who), &event, now_ms()).await;
    report(&old, set(Who::Person)).await.unwrap();
    let carried = async || {
        moves
            .carry(&side(&new), &old.conversation(), None)
            .await
            .unwrap()
    };
    assert!(carried().await);
    assert!(!carried().await, "again, there is nothing left to carry");
    for who in [&old, &new] {
        let owner = owners.get(&side(who)).await.unwrap().unwrap();
        assert_eq!(owner.who, Who::Person, "{who:?}");
    }
    report(&old, set(Who::Bot)).await.unwrap();
    assert_eq!(
        owners.get(&side(&new)).await.unwrap().unwrap().who,
        Who::Bot
    );
    // Whoever gets their old id back is led around in no circle.
    assert!(
        moves
            .carry(&side(&old), &new.conversation(), None)
            .await
            .unwrap()
    );
    for who in [&old, &new] {
        let owner = owners.get(&side(who)).await.unwrap().unwrap();
        assert_eq!(owner.who, Who::Bot, "{who:?}");
    }
    let nobody = ConversationKey::phone("50");
    assert!(!moves.carry(&side(&old), &nobody, None).await.unwrap());
}

#[tokio::test]
async fn whose_turn_it_is_with_a_stranger_is_not_with_who_had_the_number_before() {
    let stage = Stage::start(Snapshot::default()).await;
    let store = stage.platform.buckets.sessions.clone();
    let (owners, moves) = (Owners::new(store.clone()), Moves::new(store.clone()));
    let (tenant, number) = (
        TenantId::new("acme").unwrap(),
        PhoneNumberId::new("100").unwrap(),
    );
    let side = |who: &Recipient| Side::of_person(&tenant, &number, who);
    let (before, now) = (
        person(None, Some("49151")),
        person(Some("DE.1"), Some("49159")),
    );
    let strangers = [
        person(Some("DE.2"), Some("49151")),
        person(None, Some("49151")),
    ];
    let set = |who| Event::Set {
        who,
        until_ms: None,
        key: "k".into(),
    };
    let owner = async |who: &Recipient| owners.get(&side(who)).await.unwrap();
    for until_ms in [Some(now_ms() - 1), None] {
        let report =
            async |who: &Recipient, event| owners.report(&side(who), &event, now_ms()).await;
        report(&now, set(Who::Bot)).await.unwrap();
        moves
            .carry(&side(&now), &before.conversation(), until_ms)
            .await
            .unwrap();
        // Without an end of the mark, whoever has the number alone may be the same person.
        for stranger in strangers.iter().take(1 + usize::from(until_ms.is_some())) {
            report(stranger, set(Who::Person)).await.unwrap();
            assert_eq!(owner(stranger).await.unwrap().who, Who::Person);
            assert_eq!(owner(&now).await.unwrap().who, Who::Bot, "{stranger:?}");
        }
    }
}
