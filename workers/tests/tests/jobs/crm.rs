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
use ackline_runtime::conversation::{Event, Owners, Side, Who};
use ackline_runtime::dedupe::ConversationRecord;
use ackline_runtime::job::{Answered, Job, Marks, Verdict, Work};
use ackline_runtime::platform::Platform;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::subjects::{Class, Partition};
use ackline_shared::testing::NatsServer;
use ackline_whatsapp::graph::{Graph, GraphSettings};
use axum::extract::Path;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
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
        id: "msg_1".into(),
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

fn agent(message: u64) -> Origin {
    Origin::Agent {
        link: "desk".into(),
        message: message.to_string(),
    }
}

/// A status of Meta's that a message failed.
fn failed(wamid: &str, command: &str) -> Work {
    let status = json!({"id": wamid, "status": "failed", "recipient_user_id": "US.1", "recipient_id": "15550001",
        "biz_opaque_callback_data": command, "errors": [{"code": 131_047, "title": "Re-engagement message"}]});
    let value = json!({"metadata": {"phone_number_id": NUMBER}, "statuses": [status]});
    let envelope =
        json!({"entry": [{"id": "W", "changes": [{"field": "messages", "value": value}]}]});
    work(Family::Update(Class::Status), "status.failed", &envelope)
}

/// What Chatwoot tells of a message that an agent wrote.
fn hook(message: u64, more: Value) -> Value {
    let mut hook = json!({
        "event": "message_created", "id": message, "content": "Hello", "message_type": "outgoing", "private": false,
        "source_id": null, "content_attributes": {}, "account": {"id": ACCOUNT}, "inbox": {"id": INBOX},
        "conversation": {"id": 55, "contact_inbox": {"source_id": "15550001"}},
    });
    let fields = hook.as_object_mut().unwrap();
    fields.extend(more.as_object().unwrap().clone());
    hook
}

impl Stand {
    /// The command that a webhook of Chatwoot's becomes, or the words for its agent.
    async fn hears(&self, hook: &Value) -> Result<Option<SendCommand>, String> {
        let link = self.platform.snapshot().crm_links["crm.acme.desk"].clone();
        let body = hook.to_string().into_bytes();
        let arrived = Arrived {
            timestamp: None,
            signature: None,
            body: &body,
        };
        let rest = Duration::from_secs(60);
        let asked = answer::read(&self.platform, &link, arrived, rest, 1).await;
        asked
            .map(|asked| asked.commands.into_iter().next())
            .map_err(|error| error.to_string())
    }

    /// All commands that a webhook of Chatwoot's becomes.
    async fn hears_all(&self, hook: &Value) -> Vec<SendCommand> {
        let link = self.platform.snapshot().crm_links["crm.acme.desk"].clone();
        let body = hook.to_string().into_bytes();
        let arrived = Arrived {
            timestamp: None,
            signature: None,
            body: &body,
        };
        let rest = Duration::from_secs(60);
        let asked = answer::read(&self.platform, &link, arrived, rest, 1).await;
        asked.unwrap().commands
    }

    /// Tells the job that Meta took a command.
    async fn sends(&self, command: &SendCommand, wamid: &str) {
        let record = Record::ReplySent {
            command: Box::new(command.clone()),
            wamid: wamid.into(),
            attempts: 1,
            known_as: None,
        };
        let record = serde_json::to_value(record).unwrap();
        let work = work(Family::Record, Record::REPLY_SENT, &record);
        assert_eq!(self.job.run(&work).await, Verdict::Idle);
    }
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
    assert_eq!(
        stand.job.run(&sent("wamid.1", agent(42))).await,
        Verdict::Idle
    );
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
    let command = stand.hears(&hook(42, json!({}))).await.unwrap().unwrap();
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
        "Not sent to WhatsApp: the window is closed (code 131047)"
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

#[tokio::test]
async fn a_failure_that_a_status_tells_stands_at_the_message_or_in_a_note() {
    let words = "Not delivered by WhatsApp: Re-engagement message (code 131047)";
    for takes_status in [true, false] {
        let stand = Stand::new().await;
        stand.fake.memory().takes_status = takes_status;
        stand.done(&incoming("wamid.1", &ana(), "hi")).await;
        let answer = stand.hears(&hook(42, json!({}))).await.unwrap().unwrap();
        stand.sends(&answer, "wamid.2").await;
        stand.done(&sent("wamid.3", api())).await;
        stand.done(&failed("wamid.2", &answer.id)).await;
        stand.done(&failed("wamid.3", "cmd-1")).await;
        let memory = stand.fake.memory();
        let notes = memory
            .messages
            .iter()
            .filter(|(_, one)| one["private"] == true);
        let notes: Vec<&Value> = notes.map(|(_, one)| &one["content"]).collect();
        if takes_status {
            let status = json!({"status": "failed", "external_error": words});
            let expected = [("42".to_owned(), status.clone()), ("2".to_owned(), status)];
            assert_eq!(memory.statuses, expected);
            assert!(notes.is_empty());
        } else {
            assert_eq!(notes, [words, words]);
        }
    }
}

#[tokio::test]
async fn whom_a_status_says_a_message_reached_is_the_person_it_was_sent_to() {
    let stand = Stand::new().await;
    stand.done(&sent("wamid.1", api())).await;
    let delivered = |callback: &str| {
        let status = json!({"id": "wamid.other", "status": "delivered", "recipient_id": "15550009",
            "recipient_user_id": "US.9", "biz_opaque_callback_data": callback});
        let value = json!({"metadata": {"phone_number_id": NUMBER}, "statuses": [status]});
        let envelope =
            json!({"entry": [{"id": "W", "changes": [{"field": "messages", "value": value}]}]});
        work(Family::Update(Class::Status), "status.delivered", &envelope)
    };
    // What another program sent says nothing of people here.
    assert_eq!(stand.job.run(&delivered("theirs")).await, Verdict::Idle);
    assert_eq!(stand.job.run(&delivered("msg_1")).await, Verdict::Idle);
    let from = json!({"profile": {"name": "Ana"}, "wa_id": "15550009", "user_id": "US.9"});
    stand.done(&incoming("wamid.2", &from, "hi")).await;
    let memory = stand.fake.memory();
    assert_eq!((memory.contacts.len(), memory.messages.len()), (1, 2));
}

#[tokio::test]
async fn what_flows_keep_of_a_number_goes_on_under_the_one_that_a_message_reached() {
    let stand = Stand::new().await;
    let tenant = TenantId::new("acme").unwrap();
    let number = PhoneNumberId::new(NUMBER).unwrap();
    let owners = Owners::new(stand.platform.buckets.sessions.clone());
    let person = |phone: &str| Recipient {
        user_id: None,
        phone: Some(phone.into()),
    };
    let (meant, reached) = (person("15550001"), person("15550009"));
    let set = Event::Set {
        who: Who::Person,
        until_ms: None,
        key: "k".into(),
    };
    let side = Side::of_person(&tenant, &number, &meant);
    owners.report(&side, &set, now_ms()).await.unwrap();
    let mut work_sent = sent("wamid.1", api());
    let record = String::from_utf8_lossy(&work_sent.payload)
        .replace(r#""to":{"user_id":"US.1""#, r#""to":{"phone":"15550001""#);
    work_sent.payload = record.into_bytes().into();
    stand.done(&work_sent).await;
    let status = json!({"id": "wamid.1", "status": "delivered", "recipient_id": "15550009",
        "biz_opaque_callback_data": "msg_1"});
    let value = json!({"metadata": {"phone_number_id": NUMBER}, "statuses": [status]});
    let envelope =
        json!({"entry": [{"id": "W", "changes": [{"field": "messages", "value": value}]}]});
    let delivered = work(Family::Update(Class::Status), "status.delivered", &envelope);
    assert_eq!(stand.job.run(&delivered).await, Verdict::Idle);
    let side = Side::of_person(&tenant, &number, &reached);
    let owner = owners.get(&side).await.unwrap().unwrap();
    assert_eq!(owner.who, Who::Person);
}

#[tokio::test]
async fn a_failure_of_what_another_program_sent_and_other_statuses_are_nobodys() {
    let stand = Stand::new().await;
    stand.done(&incoming("wamid.1", &ana(), "hi")).await;
    stand.fake.take_calls();
    stand
        .done(&failed("wamid.elsewhere", "their own data"))
        .await;
    assert!(stand.fake.take_calls().is_empty());
    let failed = failed("wamid.2", "crm-1").head;
    assert_eq!(stand.job.targets(&failed).len(), 1);
    let read = Head {
        kind: "status.read".into(),
        ..(*failed).clone()
    };
    assert!(stand.job.targets(&read).is_empty());
}

#[tokio::test]
async fn quotes_find_their_message_both_ways() {
    let stand = Stand::new().await;
    stand.done(&incoming("wamid.before", &ana(), "hi")).await;
    let of_person = json!({"content_attributes": {"in_reply_to": 1}});
    let answer = stand.hears(&hook(42, of_person)).await.unwrap().unwrap();
    assert_eq!(answer.reply_to.as_deref(), Some("wamid.before"));
    stand.sends(&answer, "wamid.2").await;

    let of_agent =
        json!({"content_attributes": {"in_reply_to": 42, "in_reply_to_external_id": null}});
    let second = stand.hears(&hook(43, of_agent)).await.unwrap().unwrap();
    assert_eq!(second.reply_to.as_deref(), Some("wamid.2"));
    let by_wamid =
        json!({"content_attributes": {"in_reply_to": 7, "in_reply_to_external_id": "wamid.7"}});
    let third = stand.hears(&hook(44, by_wamid)).await.unwrap().unwrap();
    assert_eq!(third.reply_to.as_deref(), Some("wamid.7"));

    let mut quoting = incoming("wamid.3", &ana(), "thanks");
    let text = String::from_utf8(quoting.payload.to_vec()).unwrap();
    quoting.payload = text.replace("wamid.before", "wamid.2").into();
    stand.done(&quoting).await;
    let memory = stand.fake.memory();
    assert_eq!(
        memory.messages[1].1["content_attributes"],
        json!({"in_reply_to": 42})
    );
}

#[tokio::test]
async fn a_conversation_that_an_agent_began_reaches_the_person_whose_answer_comes_into_it() {
    let stand = Stand::new().await;
    let begun = |id: u64, sender: Value| {
        let conversation = json!({"id": 100, "contact_inbox": {"source_id": "1b4e28ba-2fa1-41d2-883f-0016d3cca427"},
            "meta": {"sender": sender}});
        hook(id, json!({"conversation": conversation}))
    };
    let refused = stand
        .hears(&begun(41, json!({"id": 33, "name": "New Lead"})))
        .await;
    assert!(refused.unwrap_err().contains("phone number"));

    let lead = json!({"id": 33, "name": "New Lead", "phone_number": "+15550001"});
    let command = stand.hears(&begun(42, lead)).await.unwrap().unwrap();
    assert_eq!(
        (command.to.phone.as_deref(), command.to.user_id),
        (Some("15550001"), None)
    );
    assert_eq!(command.phone_number_id.as_str(), NUMBER);
    stand.fake.memory().conversations.push(json!({"id": 100}));
    stand.done(&incoming("wamid.1", &ana(), "oh, hi")).await;
    assert_eq!(
        stand.fake.transcript(),
        [line(100, "incoming", "oh, hi", "wamid.1")]
    );
    let known = json!({"id": 33, "phone_number": "+15550001"});
    let command = stand.hears(&begun(43, known)).await.unwrap().unwrap();
    assert_eq!(
        command.to.user_id.as_deref(),
        Some("US.1"),
        "what was learnt since stays"
    );
    let corrected = json!({"id": 33, "phone_number": "+15550002"});
    let command = stand.hears(&begun(44, corrected)).await.unwrap().unwrap();
    assert_eq!(
        (command.to.phone.as_deref(), command.to.user_id),
        (Some("15550002"), None),
        "an agent has corrected the number"
    );
}

#[tokio::test]
async fn retry_sends_what_failed_or_never_came_and_nothing_else() {
    let stand = Stand::new().await;
    stand.fake.memory().takes_status = true;
    let again = |attributes: Value| {
        hook(
            42,
            json!({"event": "message_updated", "content_attributes": attributes}),
        )
    };
    // The first webhook never came through.
    let first = stand.hears(&again(json!({}))).await.unwrap().unwrap();
    let repeated = stand.hears(&again(json!({}))).await.unwrap().unwrap();
    assert_eq!(
        first.id, repeated.id,
        "one message, however often it is told"
    );
    stand.sends(&first, "wamid.1").await;
    assert_eq!(
        stand.hears(&again(json!({}))).await,
        Ok(None),
        "it went out"
    );

    stand.done(&failed("wamid.1", &first.id)).await;
    let echo = json!({"external_error": "Not delivered"});
    assert_eq!(stand.hears(&again(echo)).await, Ok(None), "our own word");
    let second = stand.hears(&again(json!({}))).await.unwrap().unwrap();
    assert_ne!(second.id, first.id);
    // A late word of the first attempt says nothing of the second.
    stand.done(&failed("wamid.1", &first.id)).await;
    assert_eq!(stand.fake.memory().statuses.len(), 1);

    let given_up = |command: &SendCommand, ambiguous| {
        let record = Record::ReplyFailed {
            command: Box::new(command.clone()),
            code: None,
            reason: "no".into(),
            ambiguous,
        };
        let record = serde_json::to_value(record).unwrap();
        work(Family::Record, Record::REPLY_FAILED, &record)
    };
    stand.done(&given_up(&second, false)).await;
    let third = stand.hears(&again(json!({}))).await.unwrap().unwrap();
    assert_ne!(third.id, second.id);
    stand.done(&given_up(&third, true)).await;
    assert_eq!(
        stand.hears(&again(json!({}))).await,
        Ok(None),
        "it may have arrived"
    );
}

#[tokio::test]
async fn no_control_character_reaches_the_crm() {
    let stand = Stand::new().await;
    let mut person = ana();
    person["profile"]["name"] = json!("A\u{0}na");
    stand
        .done(&incoming("wamid.1", &person, "a\u{0}b\u{8}c"))
        .await;
    let memory = stand.fake.memory();
    assert_eq!(memory.contacts[0]["name"], "Ana");
    assert_eq!(memory.messages[0].1["content"], "abc");
}

/// Meta with one file, `9`, whose address takes the number's token alone; `404` is gone and `503` busy.
async fn meta() -> Graph {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let file = format!("{url}/file");
    let metadata = async move |Path(id): Path<String>| match id.as_str() {
        "9" => Json(json!({"url": file, "mime_type": "image/jpeg; x=1", "file_size": 4}))
            .into_response(),
        "10" => Json(json!({"url": file, "mime_type": "video/mp4", "file_size": 99 << 20}))
            .into_response(),
        "404" => StatusCode::NOT_FOUND.into_response(),
        _ => StatusCode::SERVICE_UNAVAILABLE.into_response(),
    };
    let bytes = async |headers: HeaderMap| match headers["authorization"].to_str() {
        Ok("Bearer t") => "JPEG".into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    };
    let router = Router::new()
        .route("/v26.0/{id}", get(metadata))
        .route("/file", get(bytes));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let settings = GraphSettings {
        url,
        version: "v26.0".into(),
    };
    Graph::new(&settings).unwrap()
}

fn picture(wamid: &str, id: &str, caption: Option<&str>) -> Work {
    let mut image = json!({"id": id, "mime_type": "image/jpeg"});
    if let Some(caption) = caption {
        image["caption"] = json!(caption);
    }
    let mut work = incoming(wamid, &ana(), "");
    let mut payload: Value = serde_json::from_slice(&work.payload).unwrap();
    payload["entry"][0]["changes"][0]["value"]["messages"][0] =
        json!({"id": wamid, "type": "image", "image": image});
    work.payload = payload.to_string().into();
    work
}

#[tokio::test]
async fn the_file_of_a_message_stands_in_the_crm() {
    let mut stand = Stand::new().await;
    stand.job = stand.job.with_files(meta().await);
    stand.done(&picture("wamid.1", "9", Some("Look"))).await;
    stand.done(&picture("wamid.2", "9", None)).await;
    let jpeg = ("image.jpg".into(), "image/jpeg".into(), "JPEG".into());
    let memory = stand.fake.memory();
    assert_eq!(memory.files, [jpeg.clone(), jpeg]);
    let contents: Vec<&Value> = memory
        .messages
        .iter()
        .map(|(_, one)| &one["content"])
        .collect();
    assert_eq!(contents, ["Look", ""]);
    assert_eq!(memory.messages[0].1["source_id"], "wamid.1");
    assert_eq!(memory.messages[0].1["private"], false);
}

#[tokio::test]
async fn a_file_that_cannot_be_had_is_told_in_words() {
    let mut stand = Stand::new().await;
    stand.job = stand.job.with_files(meta().await);
    stand.done(&picture("wamid.1", "404", Some("Look"))).await;
    stand.done(&picture("wamid.2", "10", None)).await;
    let mut busy = picture("wamid.3", "503", None);
    let verdict = stand.job.run(&busy).await;
    assert!(matches!(verdict, Verdict::Retry { .. }), "{verdict:?}");
    busy.last_attempt = true;
    stand.done(&busy).await;
    stand.fake.memory().refuses_files = true;
    stand.done(&picture("wamid.4", "9", Some("Look"))).await;
    let memory = stand.fake.memory();
    assert!(memory.files.is_empty());
    let contents: Vec<&Value> = memory
        .messages
        .iter()
        .map(|(_, one)| &one["content"])
        .collect();
    assert_eq!(
        contents,
        [
            "[image] Look (the file is not here: Meta answered 404)",
            "[image] (the file is not here: it is larger than 24 MiB)",
            "[image] (the file is not here: Meta answered 503)",
            "[image] Look (the CRM did not take the file)",
        ]
    );
}

#[tokio::test]
async fn each_file_of_an_agent_is_a_message_and_only_what_failed_is_sent_again() {
    let stand = Stand::new().await;
    stand.fake.memory().takes_status = true;
    let file = |kind: &str, name: &str| json!({"id": 1, "file_type": kind, "data_url": format!("http://chat/{name}")});
    let files = json!([
        file("image", "a.png"),
        file("file", "b.pdf"),
        file("audio", "c.ogg")
    ]);
    let more = json!({"content": "Look", "attachments": files});
    let commands = stand.hears_all(&hook(42, more.clone())).await;
    let contents: Vec<Value> = commands
        .iter()
        .map(|one| serde_json::to_value(&one.content).unwrap())
        .collect();
    assert_eq!(
        contents,
        [
            json!({"type": "image", "link": "http://chat/a.png", "caption": "Look"}),
            json!({"type": "document", "link": "http://chat/b.pdf", "filename": "b.pdf"}),
            json!({"type": "audio", "link": "http://chat/c.ogg"}),
        ]
    );
    for (number, command) in commands.iter().enumerate() {
        stand.sends(command, &format!("wamid.{number}")).await;
    }
    stand.done(&failed("wamid.1", &commands[1].id)).await;
    assert_eq!(stand.fake.memory().statuses[0].0, "42");
    let mut again = more;
    again["event"] = json!("message_updated");
    let again = stand.hears_all(&hook(42, again)).await;
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].content, commands[1].content);
    assert_ne!(again[0].id, commands[1].id);
}
