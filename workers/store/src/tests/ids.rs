//! What events name can be asked for: their conversation by its alias, their message by our id or Meta's.

use super::*;
use ackline_pools::events;
use ackline_shared::ids::conversation_id;

/// A key's id as an event tells it.
fn alias(key: &ConversationKey) -> String {
    conversation_id("acme", NUMBER, key)
}

fn by_user() -> String {
    alias(&ConversationKey::user(USER))
}

fn by_phone() -> String {
    alias(&ConversationKey::phone(PHONE))
}

async fn now(journal: &Journal, id: &str) -> Option<String> {
    journal.conversation_id("acme", id).await.unwrap()
}

/// A status of a message that another program sent to somebody.
fn foreign(log: &mut Log, wamid: &str, status: &str, phone: &str) {
    let body = json!({"id": wamid, "status": status, "timestamp": "2000", "recipient_id": phone,
        "biz_opaque_callback_data": "spring sale"});
    let value = json!({"metadata": {"phone_number_id": NUMBER}, "statuses": [body]});
    let key = ConversationKey::phone(phone);
    log.push(
        &format!("{wamid}:{status}"),
        Family::Update(Class::Status),
        key,
        &envelope(&value),
    );
}

#[tokio::test]
async fn the_ids_of_every_event_lead_to_its_conversation_and_its_message() {
    let ours = json!({"biz_opaque_callback_data": "api_1"});
    let mut log = Log::new()
        .message("wamid.in1", None, Some(PHONE), "by phone")
        .message("wamid.in2", Some(USER), Some(PHONE), "by both")
        .message("wamid.in3", Some(USER), None, "by user id")
        .queued("api_1")
        .sent("api_1", "wamid.out1")
        .status("wamid.out1", "sent", &ours)
        .status("wamid.out1", "read", &ours)
        .queued("api_2")
        .failed("api_2", false);
    foreign(&mut log, "wamid.B/+=", "delivered", "4990");
    let run = Record::FlowStarted {
        flow: "f".into(),
        bot: "b".into(),
        run: "r".into(),
    };
    log.push(
        "f:1",
        Family::Record,
        ConversationKey::user("US.9"),
        &serde_json::to_value(run).unwrap(),
    );
    let mut handover = envelope(
        &json!({"sender": {"phone_number": "4991"}, "control_passed": {},
        "recipient": {"phone_number_id": NUMBER}, "timestamp": "1000"}),
    );
    handover["entry"][0]["changes"][0]["field"] = json!("messaging_handovers");
    log.push(
        "h:1",
        Family::Update(Class::Message),
        ConversationKey::phone("4991"),
        &handover,
    );

    let (_directory, journal) = written(&log).await;
    let mut names = Vec::new();
    for work in &log.works {
        let events = events::of(&work.head, &work.payload).unwrap();
        let Some(event) = events.first() else {
            continue;
        };
        let event = serde_json::to_value(event).unwrap();
        let (name, data) = (event["type"].as_str().unwrap(), &event["data"]);
        let id = data["conversation_id"].as_str().unwrap();
        let conversation = journal.conversation("acme", id).await.unwrap();
        assert!(conversation.is_some(), "{name}");
        assert_eq!(
            journal.conversation_id("globex", id).await.unwrap(),
            None,
            "{name}"
        );
        if let Some(message) = data["message_id"].as_str() {
            let found = journal.message("acme", message).await.unwrap();
            assert_eq!(
                found.map(|found| found.conversation),
                conversation.map(|one| one.id),
                "{name}"
            );
            assert_eq!(
                journal.message("globex", message).await.unwrap(),
                None,
                "{name}"
            );
        }
        names.push(name.to_owned());
    }
    let expected = [
        "message.received",
        "message.received",
        "message.received",
        "message.sent",
        "message.read",
        "message.failed",
        "message.delivered",
        "flow.started",
        "conversation.gained",
    ];
    assert_eq!(names, expected);
    assert_eq!(
        conversations(&journal).await.len(),
        1,
        "one without a message is not listed"
    );
}

#[tokio::test]
async fn somebody_known_by_phone_and_then_by_user_id_has_one_conversation_under_both_ids() {
    let first = Log::new().message("w1", None, Some(PHONE), "a");
    let (_directory, journal) = written(&first).await;
    assert_eq!(
        (
            now(&journal, &by_user()).await,
            now(&journal, &by_phone()).await
        ),
        (None, Some(by_phone()))
    );
    journal
        .write_batch(&Log::new().message("w2", Some(USER), Some(PHONE), "b").works)
        .await
        .unwrap();
    for id in [by_user(), by_phone()] {
        assert_eq!(now(&journal, &id).await, Some(by_phone()));
    }
}

#[tokio::test]
async fn what_became_one_is_found_by_the_ids_of_both() {
    let apart =
        Log::new()
            .message("w1", Some(USER), None, "a")
            .message("w2", None, Some(PHONE), "b");
    let (_directory, journal) = written(&apart).await;
    assert_eq!(now(&journal, &by_phone()).await, Some(by_phone()));
    journal
        .write_batch(&Log::new().message("w3", Some(USER), Some(PHONE), "c").works)
        .await
        .unwrap();
    let one = conversations(&journal).await.remove(0).id;
    for id in [by_user(), by_phone()] {
        assert_eq!(now(&journal, &id).await.as_ref(), Some(&one));
    }
}

#[tokio::test]
async fn what_an_earlier_version_wrote_gets_its_alias_when_its_person_is_seen_again() {
    let both = || {
        Log::new()
            .message("w1", None, Some(PHONE), "a")
            .message("w2", Some(USER), Some(PHONE), "b")
    };
    let (_directory, journal) = written(&both().sent("m1", "w")).await;
    for seen_again in [
        Log::new().message("w3", Some(USER), None, "c"),
        Log::new().status("w", "sent", &json!({"recipient_user_id": USER})),
    ] {
        let database = journal.database().unwrap();
        sqlx::query("UPDATE contacts SET alias = NULL")
            .execute(&database.writer)
            .await
            .unwrap();
        assert_eq!(now(&journal, &by_user()).await, None);
        journal.write_batch(&seen_again.works).await.unwrap();
        assert_eq!(now(&journal, &by_user()).await, Some(by_phone()));
    }
}

#[tokio::test]
async fn a_status_tells_who_received_a_message_by_either_id() {
    let by_user_alone = json!({"recipient_id": null, "recipient_user_id": USER});
    let log = Log::new()
        .sent("m1", "w")
        .status("w", "sent", &by_user_alone);
    let (_directory, journal) = written(&log).await;
    assert_eq!(now(&journal, &by_user()).await, Some(by_phone()));
    // The number is somebody else's by now, who has not written yet.
    let passed_on =
        Log::new()
            .sent("m2", "w2")
            .status("w2", "sent", &json!({"recipient_user_id": "US.2"}));
    journal.write_batch(&passed_on.works).await.unwrap();
    let other = alias(&ConversationKey::user("US.2"));
    assert_eq!(now(&journal, &other).await, Some(other));
    assert_eq!(message(&journal, "m2").await.conversation, by_phone());
}

#[tokio::test]
async fn of_what_another_program_sent_its_statuses_tell_until_more_is_known() {
    let mut log = Log::new();
    foreign(&mut log, "wamid.x", "read", PHONE);
    foreign(&mut log, "wamid.x", "sent", PHONE);
    let (_directory, journal) = written(&log).await;
    let reported = message(&journal, "wamid.x").await;
    assert_eq!(
        (
            reported.kind.as_str(),
            reported.direction.as_str(),
            reported.text
        ),
        ("unknown", "out", None)
    );
    assert_eq!(
        (reported.progress.status, reported.progress.times.len()),
        (Status::Read, 2)
    );
    assert_eq!(
        journal
            .messages("acme", &reported.conversation, None, MANY)
            .await
            .unwrap()
            .items,
        []
    );
    let mut more = Log::new();
    let echo = json!({"id": "wamid.x", "to": PHONE, "type": "text", "timestamp": "3000", "text": {"body": "hi"}});
    let value = json!({"metadata": {"phone_number_id": NUMBER}, "message_echoes": [echo]});
    more.push(
        "wamid.x",
        Family::Update(Class::Message),
        ConversationKey::phone(PHONE),
        &envelope(&value),
    );
    journal.write_batch(&more.works).await.unwrap();
    let known = message(&journal, "wamid.x").await;
    assert_eq!(
        (known.text.as_deref(), known.progress.status),
        (Some("hi"), Status::Read)
    );
    assert_eq!(known.conversation, reported.conversation);
}

#[tokio::test]
async fn both_spellings_of_a_number_are_one_conversation_as_they_were_to_an_earlier_version() {
    const NINE: &str = "5521987654321";
    const EIGHT: &str = "552187654321";
    let first = Log::new().message("w1", None, Some(NINE), "a");
    let (_directory, journal) = written(&first).await;
    // An earlier version knew the number in the spelling that came.
    let before = conversation_id(
        "acme",
        NUMBER,
        &ConversationKey::parse(&format!("p:{NINE}")).unwrap(),
    );
    assert_eq!(
        now(&journal, &before).await,
        Some(alias(&ConversationKey::phone(EIGHT)))
    );
    let more =
        Log::new()
            .message("w2", None, Some(EIGHT), "b")
            .message("w3", Some(USER), Some(NINE), "c");
    journal.write_batch(&more.works).await.unwrap();
    assert_eq!(conversations(&journal).await.len(), 1);
    assert_eq!(
        now(&journal, &before).await,
        now(&journal, &by_user()).await
    );
}

#[tokio::test]
async fn whoever_changes_their_ids_stays_one_conversation_and_who_has_them_next_is_another() {
    let (old, new, next) = ("US.1", "US.9", "US.5");
    let mut log = Log::new().message("w1", Some(old), Some(PHONE), "a");
    let change = json!({"id": "s1", "type": "system", "from": PHONE, "from_user_id": old, "timestamp": "1000",
        "system": {"body": "changed", "wa_id": "49159", "user_id": new, "previous_user_id": old}});
    let value = json!({"metadata": {"phone_number_id": NUMBER}, "messages": [change]});
    let update = Family::Update(Class::Message);
    log.push("s1", update, ConversationKey::user(new), &envelope(&value));
    let log = log
        .message("w2", Some(new), Some("49159"), "b")
        .message("w3", Some(old), None, "late")
        .message("w4", Some(next), Some(PHONE), "a stranger");
    let (_directory, journal) = written(&log).await;
    let of = async |id: &str| message(&journal, id).await.conversation;
    assert_eq!(of("w1").await, of("w2").await);
    assert_eq!(of("w1").await, of("s1").await);
    assert_eq!(of("w1").await, of("w3").await);
    assert_ne!(of("w1").await, of("w4").await);
}

#[tokio::test]
async fn whom_meta_says_a_message_went_to_is_found_under_both_numbers() {
    let mut sent = Log::new().queued("m1");
    let record = Record::ReplySent {
        command: Box::new(command("m1")),
        wamid: "w".into(),
        attempts: 1,
        known_as: Some(Recipient {
            user_id: Some(USER.into()),
            phone: Some("4930".into()),
        }),
    };
    sent = sent.record("m1:sent", &record);
    let (_directory, journal) = written(&sent).await;
    let one = message(&journal, "m1").await.conversation;
    let other = alias(&ConversationKey::phone("4930"));
    for id in [by_user(), by_phone(), other] {
        assert_eq!(now(&journal, &id).await.as_ref(), Some(&one));
    }
}
