//! The CRM's job with a Chatwoot that has a memory.

use super::chatwoot::{ACCOUNT, Fake, Fault, INBOX, TOKEN};
use super::platform;
use ackline_connectors::CrmSync;
use ackline_connectors::answer::{self, Arrived};
use ackline_connectors::link::LinkedPeople;
use ackline_egress::receiver::loopback;
use ackline_engine::state::Target;
use ackline_message::Record;
use ackline_message::{Content, Origin, Recipient, SendCommand};
use ackline_runtime::dedupe::ConversationRecord;
use ackline_runtime::job::{Answered, Job, Marks, Verdict, Work};
use ackline_runtime::platform::Platform;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::subjects::{Class, Partition};
use ackline_shared::testing::NatsServer;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;

pub const NUMBER: &str = "1065";
const CONTACTS: &str = "POST /public/api/v1/inboxes/abc/contacts";

pub struct Stand {
    pub fake: Fake,
    platform: Platform,
    job: CrmSync,
    _server: NatsServer,
}

impl Stand {
    pub async fn new() -> Self {
        let (fake, url) = Fake::start().await;
        let link = json!({
            "id": "desk", "tenant": "acme", "kind": "chatwoot", "url": url, "account_id": ACCOUNT, "inbox_id": INBOX,
            "inbox_identifier": "abc", "access_token": TOKEN, "hook_token": "h", "phone_numbers": [NUMBER],
        });
        let phone = json!({"id": NUMBER, "tenant": "acme", "app": "a", "waba_id": "w", "access_token": "t"});
        let (platform, server) =
            platform::platform(&[("crm.acme.desk", link), ("phone.1065", phone)]).await;
        let job = job(&platform);
        Self {
            fake,
            platform,
            job,
            _server: server,
        }
    }

    pub async fn done(&self, work: &Work) {
        assert_eq!(self.job.run(work).await, Verdict::Done);
    }
}

fn job(platform: &Platform) -> CrmSync {
    CrmSync::new(platform.clone(), loopback(), Duration::from_secs(20))
}

pub fn work(family: Family, kind: &str, payload: &Value) -> Work {
    let head = Head {
        id: UpdateId::new("wamid.work"),
        tenant: TenantId::new("acme").unwrap(),
        partition: Partition(0),
        family,
        kind: kind.into(),
        app: None,
        phone: PhoneNumberId::new(NUMBER).ok(),
        conversation: ConversationKey::user("US.1"),
        received_ms: 0,
        signature: None,
        traceparent: None,
        field: None,
        replay: None,
    };
    Work {
        head: Arc::new(head),
        payload: payload.to_string().into(),
        sequence: 1,
        attempt: 1,
        last_attempt: false,
        target: Arc::new(Target {
            name: "desk".to_owned(),
            ..Target::default()
        }),
        answered: Answered::default(),
        overdue: false,
        marks: Marks::default(),
        record: ConversationRecord::default(),
    }
}

fn incoming(wamid: &str, from: &Value, text: &str) -> Work {
    let value = json!({
        "metadata": {"phone_number_id": NUMBER}, "contacts": [from],
        "messages": [{"id": wamid, "type": "text", "text": {"body": text}, "context": {"id": "wamid.before"}}],
    });
    let envelope =
        json!({"entry": [{"id": "W", "changes": [{"field": "messages", "value": value}]}]});
    work(Family::Update(Class::Message), "message.text", &envelope)
}

fn ana() -> Value {
    json!({"profile": {"name": "Ana"}, "wa_id": "15550001", "user_id": "US.1"})
}

fn sent(wamid: &str, origin: Origin) -> Work {
    let command = SendCommand {
        id: "cmd-1".into(),
        tenant: TenantId::new("acme").unwrap(),
        phone_number_id: PhoneNumberId::new(NUMBER).unwrap(),
        to: Recipient {
            user_id: Some("US.1".into()),
            phone: None,
        },
        content: Content::Text {
            body: "Hello Ana".into(),
            preview_url: false,
        },
        reply_to: None,
        origin,
        created_ms: 1,
    };
    let record = Record::ReplySent {
        command: Box::new(command),
        wamid: wamid.into(),
        attempts: 1,
        known_as: None,
    };
    work(
        Family::Record,
        Record::REPLY_SENT,
        &serde_json::to_value(record).unwrap(),
    )
}

fn api() -> Origin {
    Origin::Api {
        key: "k".into(),
        request: None,
    }
}

fn line(
    conversation: u64,
    kind: &str,
    content: &str,
    wamid: &str,
) -> (u64, String, String, String) {
    (conversation, kind.into(), content.into(), wamid.into())
}

#[tokio::test]
async fn both_directions_land_in_one_conversation_that_is_opened_once() {
    let stand = Stand::new().await;
    stand.done(&incoming("wamid.1", &ana(), "hi")).await;
    let opened = stand.fake.take_calls();
    let conversation = stand.fake.memory().conversations[0]["id"].as_u64().unwrap();
    let messages = format!("POST /api/v1/accounts/3/conversations/{conversation}/messages");
    let expected = [
        CONTACTS,
        "GET /api/v1/accounts/3/contacts/1/conversations",
        "POST /api/v1/accounts/3/conversations",
        messages.as_str(),
    ];
    assert_eq!(opened, expected);

    stand.done(&sent("wamid.2", api())).await;
    assert_eq!(
        stand.fake.take_calls(),
        [messages.as_str()],
        "a known person costs one call"
    );
    assert_eq!(
        stand.fake.transcript(),
        [
            line(conversation, "incoming", "hi", "wamid.1"),
            line(conversation, "outgoing", "Hello Ana", "wamid.2"),
        ]
    );
    let memory = stand.fake.memory();
    assert_eq!(memory.contacts[0]["phone_number"], "+15550001");
    assert_eq!(
        memory.messages[0].1["content_attributes"],
        json!({"in_reply_to_external_id": "wamid.before"})
    );
}

#[tokio::test]
async fn a_person_is_found_again_after_a_restart_and_after_the_memory_is_lost() {
    let stand = Stand::new().await;
    stand.done(&incoming("wamid.1", &ana(), "one")).await;
    stand.fake.take_calls();
    assert_eq!(
        job(&stand.platform)
            .run(&incoming("wamid.2", &ana(), "two"))
            .await,
        Verdict::Done
    );
    assert_eq!(
        stand.fake.take_calls().len(),
        1,
        "another process needs one call, too"
    );

    let link = stand.platform.snapshot().crm_links["crm.acme.desk"].clone();
    let places = LinkedPeople::new(stand.platform.buckets.sessions.clone());
    let place = places.of_source(&link, "15550001").await.unwrap().unwrap();
    assert_eq!(
        place.number.as_str(),
        NUMBER,
        "an agent's answer leaves from this number"
    );
    places.forget(&link, &place).await.unwrap();
    stand.done(&incoming("wamid.3", &ana(), "three")).await;
    let memory = stand.fake.memory();
    assert_eq!(
        (
            memory.contacts.len(),
            memory.conversations.len(),
            memory.messages.len()
        ),
        (1, 1, 3)
    );
}

#[tokio::test]
async fn a_conversation_deleted_in_the_crm_is_made_anew_and_the_message_is_in_it() {
    let stand = Stand::new().await;
    stand.done(&incoming("wamid.1", &ana(), "one")).await;
    stand.fake.memory().conversations.clear();
    stand.done(&incoming("wamid.2", &ana(), "two")).await;
    let conversation = stand.fake.memory().conversations[0]["id"].as_u64().unwrap();
    assert_eq!(
        stand.fake.transcript()[1..],
        [line(conversation, "incoming", "two", "wamid.2")]
    );
}

#[tokio::test]
async fn a_message_whose_answer_was_lost_is_looked_for_before_it_is_posted_again() {
    let stand = Stand::new().await;
    for (wamid, fault, calls) in [
        ("wamid.1", Fault::DoAndFail(500), ["GET"].as_slice()),
        ("wamid.2", Fault::Refuse(502), &["GET", "POST"]),
    ] {
        stand.fake.will("/messages", fault);
        let work = incoming(wamid, &ana(), "hi");
        let verdict = stand.job.run(&work).await;
        assert!(matches!(verdict, Verdict::Trouble(_)), "{verdict:?}");
        stand.fake.take_calls();
        stand.done(&work).await;
        let methods = stand.fake.take_calls();
        let methods: Vec<&str> = methods
            .iter()
            .filter_map(|call| call.split(' ').next())
            .collect();
        assert_eq!(methods, calls);
        stand.done(&work).await;
        assert!(
            stand.fake.take_calls().is_empty(),
            "what is posted is not touched again"
        );
    }
    assert_eq!(stand.fake.memory().messages.len(), 2);
}

#[tokio::test]
async fn what_an_agent_wrote_there_is_not_posted_back() {
    let stand = Stand::new().await;
    let agent = Origin::Agent {
        link: "desk".into(),
        message: "42".into(),
    };
    assert_eq!(stand.job.run(&sent("wamid.1", agent)).await, Verdict::Idle);
    assert!(stand.fake.take_calls().is_empty());
    let elsewhere = Origin::Agent {
        link: "other-desk".into(),
        message: "42".into(),
    };
    stand.done(&sent("wamid.2", elsewhere)).await;
    assert_eq!(stand.fake.memory().messages.len(), 1);
}

#[tokio::test]
async fn an_agents_answer_takes_the_way_back_and_its_failure_is_noted_for_the_agent_alone() {
    let stand = Stand::new().await;
    stand.done(&incoming("wamid.1", &ana(), "hi")).await;
    let hook = json!({
        "event": "message_created", "id": 42, "content": "Hello", "message_type": "outgoing", "private": false,
        "source_id": null, "account": {"id": ACCOUNT}, "inbox": {"id": INBOX},
        "conversation": {"contact_inbox": {"source_id": "15550001"}},
    });
    let link = stand.platform.snapshot().crm_links["crm.acme.desk"].clone();
    let body = hook.to_string().into_bytes();
    let arrived = Arrived {
        timestamp: None,
        signature: None,
        body: &body,
    };
    let asked = answer::read(&stand.platform, &link, arrived, Duration::from_secs(60), 1)
        .await
        .unwrap();
    let command = asked.command.unwrap();
    assert_eq!(command.phone_number_id.as_str(), NUMBER);
    let both = Recipient {
        user_id: Some("US.1".into()),
        phone: Some("15550001".into()),
    };
    assert_eq!(
        command.to, both,
        "the answer stays in the conversation the person opened"
    );

    let failed = Record::ReplyFailed {
        command: Box::new(command),
        code: Some(131_047),
        reason: "the window is closed".into(),
        ambiguous: false,
    };
    let failed = serde_json::to_value(failed).unwrap();
    stand
        .done(&work(Family::Record, Record::REPLY_FAILED, &failed))
        .await;
    let memory = stand.fake.memory();
    let note = &memory.messages[1].1;
    assert_eq!(
        (&note["private"], &note["message_type"]),
        (&json!(true), &json!("outgoing"))
    );
    assert_eq!(
        note["content"],
        "Not sent to WhatsApp: the window is closed"
    );
    assert_eq!(memory.conversations.len(), 1);
}

#[tokio::test]
async fn a_contact_opened_by_our_own_message_gets_its_name_when_the_person_writes() {
    let stand = Stand::new().await;
    stand.done(&sent("wamid.1", api())).await;
    assert_eq!(stand.fake.memory().contacts[0]["name"], "WhatsApp user");
    stand.done(&incoming("wamid.2", &ana(), "hi")).await;
    let memory = stand.fake.memory();
    assert_eq!(memory.contacts[0]["name"], "Ana");
    assert_eq!(
        memory.conversations.len(),
        1,
        "a phone number that appears later does not fork the thread"
    );
}

#[tokio::test]
async fn a_phone_number_the_crm_refuses_does_not_keep_the_person_out() {
    let stand = Stand::new().await;
    stand.fake.will(CONTACTS, Fault::Refuse(422));
    stand.done(&incoming("wamid.1", &ana(), "hi")).await;
    assert!(stand.fake.memory().contacts[0]["phone_number"].is_null());
}

#[tokio::test]
async fn a_refused_token_waits_until_somebody_mends_it_and_says_so() {
    let stand = Stand::new().await;
    stand.fake.will(CONTACTS, Fault::Refuse(401));
    let work = incoming("wamid.1", &ana(), "hi");
    let Verdict::Trouble(trouble) = stand.job.run(&work).await else {
        panic!("it waits")
    };
    assert!(
        trouble.reason.contains("crm link desk") && trouble.reason.contains("access_token"),
        "{trouble:?}"
    );
    stand.done(&work).await;
}

#[tokio::test]
async fn messages_of_other_numbers_and_of_nobody_are_not_ours() {
    let stand = Stand::new().await;
    let ours = incoming("wamid.1", &ana(), "hi").head;
    assert_eq!(stand.job.targets(&ours).len(), 1);
    let other = Head {
        phone: PhoneNumberId::new("999").ok(),
        ..(*ours).clone()
    };
    assert!(stand.job.targets(&other).is_empty());
    let call = json!({"entry": [{"changes": [{"value": {"calls": [{"id": "wacid.1"}]}}]}]});
    assert_eq!(
        stand
            .job
            .run(&work(Family::Update(Class::Message), "call", &call))
            .await,
        Verdict::Idle
    );
    let broken = Work {
        payload: "x".into(),
        ..work(Family::Update(Class::Message), "message.text", &call)
    };
    assert!(matches!(stand.job.run(&broken).await, Verdict::Dead { .. }));
    assert!(stand.fake.take_calls().is_empty());
}

#[tokio::test]
async fn what_another_responder_answers_is_a_note_where_there_is_a_conversation_and_opens_none() {
    let stand = Stand::new().await;
    let standby = |wamid: &str| {
        let mut work = incoming(wamid, &ana(), "psst");
        let mut payload: Value = serde_json::from_slice(&work.payload).unwrap();
        payload["entry"][0]["changes"][0]["field"] = json!("standby");
        work.payload = payload.to_string().into();
        work
    };
    stand.done(&standby("wamid.1")).await;
    assert!(stand.fake.take_calls().is_empty(), "nobody is bothered");
    stand.done(&incoming("wamid.2", &ana(), "hi")).await;
    stand.done(&standby("wamid.3")).await;
    let conversation = stand.fake.memory().conversations[0]["id"].as_u64().unwrap();
    let note = "[standby: another responder answers] psst";
    let expected = [
        line(conversation, "incoming", "hi", "wamid.2"),
        line(conversation, "outgoing", note, "wamid.3"),
    ];
    assert_eq!(stand.fake.transcript(), expected);
    let private: Vec<_> = stand
        .fake
        .memory()
        .messages
        .iter()
        .map(|(_, message)| message["private"].clone())
        .collect();
    assert_eq!(private, [json!(false), json!(true)]);
}
