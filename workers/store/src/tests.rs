//! The journal against a real SQLite file: what a log, in any order and any repetition, leaves behind.

mod ids;
mod lacking;
mod order;
mod plans;
mod together;

use super::fold::{self, FoldError, JournalEntry};
use super::progress::Status;
use super::query::{Conversation, StoredMessage};
use super::{Journal, JournalError};
use ackline_message::Record;
use ackline_message::{Content, Origin, Recipient, SendCommand};
use ackline_runtime::job::{Answered, Marks, Work};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::page::Bound;
use ackline_shared::raw::RawJson;
use ackline_shared::subjects::{Class, Partition};
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::{Value, json};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use tempfile::TempDir;

const NUMBER: &str = "1001";
const USER: &str = "US.1";
const PHONE: &str = "491701";

/// More than any test writes.
const MANY: Bound = Bound {
    items: 100,
    bytes: 1 << 20,
};

struct Log {
    works: Vec<Work>,
}

impl Log {
    fn new() -> Self {
        Self { works: Vec::new() }
    }

    fn push(&mut self, id: &str, family: Family, conversation: ConversationKey, payload: &Value) {
        let sequence = u64::try_from(self.works.len()).unwrap() + 1;
        let head = Head {
            id: UpdateId::new(id),
            tenant: TenantId::new("acme").unwrap(),
            partition: Partition(0),
            family,
            kind: "any".into(),
            app: None,
            phone: Some(PhoneNumberId::new(NUMBER).unwrap()),
            conversation,
            received_ms: 1_000_000 + sequence,
            signature: None,
            traceparent: None,
            field: None,
            replay: None,
        };
        let payload = Bytes::from(payload.to_string());
        self.works.push(Work {
            head: Arc::new(head),
            payload,
            sequence,
            attempt: 1,
            last_attempt: false,
            target: Arc::default(),
            answered: Answered::default(),
            overdue: false,
            marks: Marks::default(),
            record: ackline_runtime::dedupe::ConversationRecord::default(),
        });
    }

    fn message(mut self, wamid: &str, user: Option<&str>, phone: Option<&str>, text: &str) -> Self {
        let mut message =
            json!({"id": wamid, "type": "text", "timestamp": "1000", "text": {"body": text}});
        if let Some(phone) = phone {
            message["from"] = phone.into();
        }
        if let Some(user) = user {
            message["from_user_id"] = user.into();
        }
        let key = user
            .map(ConversationKey::user)
            .or(phone.map(ConversationKey::phone))
            .unwrap();
        let value = json!({"metadata": {"phone_number_id": NUMBER}, "messages": [message],
            "contacts": [{"profile": {"name": "Ana"}}]});
        self.push(
            wamid,
            Family::Update(Class::Message),
            key,
            &envelope(&value),
        );
        self
    }

    fn status(mut self, wamid: &str, status: &str, more: &Value) -> Self {
        let mut body =
            json!({"id": wamid, "status": status, "timestamp": "2000", "recipient_id": PHONE});
        for (key, value) in more.as_object().unwrap() {
            body[key] = value.clone();
        }
        if status == "failed" {
            body["errors"] = json!([{"code": 131_026, "title": "Undeliverable"}]);
        }
        let value = json!({"metadata": {"phone_number_id": NUMBER}, "statuses": [body]});
        let id = format!("{wamid}:{status}");
        self.push(
            &id,
            Family::Update(Class::Status),
            ConversationKey::phone(PHONE),
            &envelope(&value),
        );
        self
    }

    fn record(mut self, id: &str, record: &Record) -> Self {
        let payload = serde_json::to_value(record).unwrap();
        self.push(id, Family::Record, ConversationKey::phone(PHONE), &payload);
        self
    }

    fn queued(self, id: &str) -> Self {
        self.record(
            &format!("{id}:queued"),
            &Record::ReplyQueued {
                command: Box::new(command(id)),
            },
        )
    }

    fn sent(self, id: &str, wamid: &str) -> Self {
        let record = Record::ReplySent {
            command: Box::new(command(id)),
            wamid: wamid.into(),
            attempts: 1,
            known_as: None,
        };
        self.record(&format!("{id}:sent"), &record)
    }

    fn failed(self, id: &str, ambiguous: bool) -> Self {
        let command = Box::new(command(id));
        let record = Record::ReplyFailed {
            command,
            code: None,
            reason: "no answer".into(),
            ambiguous,
        };
        self.record(&format!("{id}:failed"), &record)
    }
}

fn envelope(value: &Value) -> Value {
    json!({"object": "whatsapp_business_account",
        "entry": [{"id": "W", "changes": [{"value": value, "field": "messages"}]}]})
}

fn command(id: &str) -> SendCommand {
    SendCommand {
        id: id.into(),
        tenant: TenantId::new("acme").unwrap(),
        phone_number_id: PhoneNumberId::new(NUMBER).unwrap(),
        to: Recipient {
            user_id: None,
            phone: Some(PHONE.into()),
        },
        content: Content::Text {
            body: "hello".into(),
            preview_url: false,
        },
        reply_to: None,
        origin: Origin::Api {
            key: "k1".into(),
            request: None,
        },
        created_ms: 1_500_000,
    }
}

async fn open() -> (TempDir, Journal) {
    let directory = tempfile::tempdir().unwrap();
    let url = format!(
        "sqlite://{}/deep/down/journal.db",
        directory.path().display()
    );
    let journal = Journal::open(&url).await.unwrap();
    (directory, journal)
}

async fn written(log: &Log) -> (TempDir, Journal) {
    let (directory, journal) = open().await;
    assert_eq!(journal.write_batch(&log.works).await.unwrap(), []);
    (directory, journal)
}

async fn conversations(journal: &Journal) -> Vec<Conversation> {
    journal
        .conversations("acme", None, None, MANY)
        .await
        .unwrap()
        .items
}

async fn message(journal: &Journal, id: &str) -> StoredMessage {
    journal.message("acme", id).await.unwrap().unwrap()
}

async fn everything(journal: &Journal) -> (Vec<Conversation>, Vec<StoredMessage>) {
    let conversations = conversations(journal).await;
    let mut messages = Vec::new();
    for conversation in &conversations {
        messages.extend(
            journal
                .messages("acme", &conversation.id, None, MANY)
                .await
                .unwrap()
                .items,
        );
    }
    (conversations, messages)
}

fn a_day() -> Log {
    Log::new()
        .message("wamid.in1", Some(USER), Some(PHONE), "hi")
        .queued("m1")
        .sent("m1", "wamid.out1")
        .status("wamid.out1", "sent", &json!({}))
        .status("wamid.out1", "delivered", &json!({}))
        .message("wamid.in2", Some(USER), None, "and again")
        .queued("m2")
        .failed("m2", false)
}

#[test]
fn what_the_edge_took_for_something_that_is_not_in_it_says_so() {
    let fold = |class: Class, kind: &str, value: Value| {
        let mut log = Log::new();
        let key = ConversationKey::phone(PHONE);
        log.push("w", Family::Update(class), key, &envelope(&value));
        let mut work = log.works.remove(0);
        let mut head = (*work.head).clone();
        head.kind = kind.to_owned();
        work.head = Arc::new(head);
        fold::fold(&work)
    };
    assert_eq!(
        fold(Class::Message, "message.text", json!({})),
        Err(FoldError::NoMessage)
    );
    assert_eq!(
        fold(Class::Message, "call.connect", json!({"calls": [{}]})),
        Ok(vec![JournalEntry::Nothing])
    );
    assert_eq!(
        fold(Class::Status, "status.read", json!({})),
        Err(FoldError::NoStatus)
    );
    for status in [json!(null), json!({"status": "read"})] {
        assert_eq!(
            fold(Class::Status, "status.read", json!({"statuses": [status]})),
            Err(FoldError::NoStatus)
        );
    }
    let unknown = json!({"statuses": [{"id": "w", "status": "seen twice"}]});
    assert_eq!(
        fold(Class::Status, "status.seen_twice", unknown),
        Ok(vec![JournalEntry::Nothing])
    );
}

#[tokio::test]
async fn a_conversation_and_its_messages_are_there_to_read() {
    let (_directory, journal) = written(&a_day()).await;
    let (conversations, messages) = everything(&journal).await;
    let [conversation] = &conversations[..] else {
        panic!("{conversations:?}")
    };
    assert_eq!((conversation.incoming, conversation.outgoing), (2, 2));
    assert_eq!(
        (
            conversation.user_id.as_deref(),
            conversation.phone.as_deref()
        ),
        (Some(USER), Some(PHONE))
    );
    assert_eq!(
        (
            conversation.name.as_deref(),
            conversation.last_text.as_str()
        ),
        (Some("Ana"), "hello")
    );
    assert_eq!(messages.len(), 4);
    let sent = message(&journal, "m1").await;
    assert_eq!(
        (sent.progress.status, sent.wamid.as_deref()),
        (Status::Delivered, Some("wamid.out1"))
    );
    assert_eq!(sent.progress.times[&Status::Sent], 2_000_000);
    let failed = message(&journal, "m2").await;
    assert_eq!(failed.progress.shown_fault().unwrap().reason, "no answer");
    assert_eq!(
        message(&journal, "wamid.in1").await.text.as_deref(),
        Some("hi")
    );
    assert_eq!(journal.message("globex", "m1").await.unwrap(), None);
}

#[tokio::test]
async fn writing_the_whole_log_again_changes_nothing_even_after_forgetting_its_ids() {
    let log = a_day();
    let (_directory, journal) = written(&log).await;
    let before = everything(&journal).await;
    journal.write_batch(&log.works).await.unwrap();
    assert_eq!(everything(&journal).await, before);
    journal.prune(u64::MAX).await.unwrap();
    journal.write_batch(&log.works).await.unwrap();
    assert_eq!(everything(&journal).await, before);
}

#[tokio::test]
async fn statuses_that_come_before_their_message_wait_for_it() {
    let log =
        Log::new()
            .status("wamid.x", "read", &json!({}))
            .status("wamid.x", "sent", &json!({}));
    let (_directory, journal) = written(&log).await;
    assert_eq!(conversations(&journal).await, []);
    journal
        .write_batch(&Log::new().queued("m1").sent("m1", "wamid.x").works)
        .await
        .unwrap();
    assert_eq!(message(&journal, "m1").await.progress.status, Status::Read);
}

#[tokio::test]
async fn a_lost_answer_is_resolved_by_a_status_that_repeats_our_id() {
    let log = Log::new()
        .queued("m1")
        .failed("m1", true)
        .status("wamid.y", "delivered", &json!({}))
        .status(
            "wamid.y",
            "sent",
            &json!({"biz_opaque_callback_data": "m1"}),
        );
    let (_directory, journal) = written(&log).await;
    let found = message(&journal, "m1").await;
    assert_eq!(
        (found.progress.status, found.wamid.as_deref()),
        (Status::Delivered, Some("wamid.y"))
    );
    assert_eq!(found.progress.shown_fault(), None);
}

#[tokio::test]
async fn two_conversations_that_prove_to_be_one_person_become_one_and_both_ids_lead_there() {
    let apart =
        Log::new()
            .message("w1", None, Some(PHONE), "a")
            .message("w2", Some(USER), None, "b");
    let (_directory, journal) = written(&apart).await;
    let old = conversations(&journal).await;
    assert_eq!(old.len(), 2);
    journal
        .write_batch(&Log::new().message("w3", Some(USER), Some(PHONE), "c").works)
        .await
        .unwrap();
    let (conversations, messages) = everything(&journal).await;
    assert_eq!(
        (
            conversations.len(),
            messages.len(),
            conversations[0].incoming
        ),
        (1, 3, 3)
    );
    for id in old.iter().map(|conversation| &conversation.id) {
        let now = journal.conversation_id("acme", id).await.unwrap();
        assert_eq!(now.as_ref(), Some(&conversations[0].id));
    }
}

#[tokio::test]
async fn a_phone_number_that_passes_to_somebody_else_starts_a_new_conversation() {
    let log = Log::new()
        .message("w1", Some(USER), Some(PHONE), "a")
        .message("w2", Some("US.2"), Some(PHONE), "b")
        .message("w3", None, Some(PHONE), "c");
    let (_directory, journal) = written(&log).await;
    let mut counts: Vec<_> = conversations(&journal)
        .await
        .into_iter()
        .map(|one| (one.user_id.unwrap(), one.incoming))
        .collect();
    counts.sort();
    assert_eq!(counts, [("US.1".to_owned(), 1), ("US.2".to_owned(), 2)]);
}

#[tokio::test]
async fn a_status_that_names_both_ids_completes_the_conversation() {
    let log = Log::new()
        .sent("m1", "w")
        .status("w", "sent", &json!({"recipient_user_id": USER}));
    let (_directory, journal) = written(&log).await;
    let found = conversations(&journal).await;
    assert_eq!((found.len(), found[0].user_id.as_deref()), (1, Some(USER)));
}

#[tokio::test]
async fn what_was_sent_from_the_app_is_an_outgoing_message() {
    let mut log = Log::new();
    let echo = json!({"id": "wamid.e", "from": "49", "to": PHONE, "type": "text", "timestamp": "3000", "text": {"body": "by hand"}});
    let value = json!({"metadata": {"phone_number_id": NUMBER}, "message_echoes": [echo]});
    log.push(
        "wamid.e",
        Family::Update(Class::Message),
        ConversationKey::phone(PHONE),
        &envelope(&value),
    );
    let (_directory, journal) = written(&log).await;
    let found = message(&journal, "wamid.e").await;
    assert_eq!(
        (found.direction.as_str(), found.text.as_deref()),
        ("out", Some("by hand"))
    );
}

#[tokio::test]
async fn poison_is_reported_by_its_place_and_does_not_stop_the_others() {
    let mut log = Log::new().queued("m1");
    log.push(
        "bad",
        Family::Update(Class::Message),
        ConversationKey::none(),
        &json!("not an envelope"),
    );
    log.push(
        "worse",
        Family::Record,
        ConversationKey::none(),
        &json!({"type": "from_the_future"}),
    );
    let log = log.queued("m2");
    let (_directory, journal) = open().await;
    let rejected = journal.write_batch(&log.works).await.unwrap();
    assert_eq!(
        rejected.iter().map(|one| one.index).collect::<Vec<_>>(),
        [1, 2]
    );
    assert_eq!(conversations(&journal).await[0].outgoing, 2);
}

#[tokio::test]
async fn pages_follow_one_another_without_gap_or_repeat() {
    let log = (0..7).fold(Log::new(), |log, at| {
        log.message(&format!("w{at}"), Some(USER), None, "x")
    });
    let (_directory, journal) = written(&log).await;
    let conversation = conversations(&journal).await.remove(0).id;
    let mut seen: Vec<u64> = Vec::new();
    let mut after = None;
    loop {
        let three = Bound { items: 3, ..MANY };
        let page = journal
            .messages("acme", &conversation, after, three)
            .await
            .unwrap();
        after = page
            .items
            .last()
            .map(|last| (last.created_ms, last.sequence));
        seen.extend(page.items.iter().map(|message| message.sequence));
        if !page.more {
            break;
        }
    }
    assert_eq!(seen, [7, 6, 5, 4, 3, 2, 1]);
}

#[tokio::test]
async fn a_page_ends_before_its_bytes_are_too_many_and_has_at_least_one_message() {
    let sizes = [10, 40_000, 10, 10_000, 10_000, 10_000, 10];
    let log = sizes
        .iter()
        .enumerate()
        .fold(Log::new(), |log, (at, bytes)| {
            log.message(&format!("w{at}"), Some(USER), None, &"x".repeat(*bytes))
        });
    let (_directory, journal) = written(&log).await;
    let conversation = conversations(&journal).await.remove(0).id;
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let bound = Bound {
            items: 100,
            bytes: 45_000,
        };
        let page = journal
            .messages("acme", &conversation, after, bound)
            .await
            .unwrap();
        after = page
            .items
            .last()
            .map(|last| (last.created_ms, last.sequence));
        pages.push(
            page.items
                .iter()
                .map(|message| message.sequence)
                .collect::<Vec<_>>(),
        );
        if !page.more {
            break;
        }
    }
    assert_eq!(
        pages,
        [vec![7, 6, 5], vec![4, 3], vec![2], vec![1]],
        "the text is in it twice"
    );
}

#[tokio::test]
async fn after_a_full_disk_the_next_batch_is_written() {
    let (directory, journal) = open().await;
    let log = (0..40).fold(Log::new(), |log, at| {
        log.message(&format!("w{at}"), Some(USER), None, &"x".repeat(4096))
    });
    journal.fill_up(true).await;
    let error = journal.write_batch(&log.works).await.unwrap_err();
    assert!(error.to_string().contains("full"), "{error}");
    journal.fill_up(false).await;
    assert!(journal.write_batch(&log.works).await.unwrap().is_empty());
    assert_eq!(everything(&journal).await.1.len(), 40);
    let mode = std::fs::metadata(directory.path().join("deep/down/journal.db"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(
        mode & 0o777,
        0o600,
        "what people wrote is for its owner's eyes"
    );
}

#[tokio::test]
async fn what_came_on_standby_is_in_the_conversation_with_a_mark() {
    let standby = |value: Value| {
        let mut payload = envelope(&value);
        payload["entry"][0]["changes"][0]["field"] = json!("standby");
        payload
    };
    let text = |id: &str, more: Value| {
        let mut text = json!({"id": id, "type": "text", "timestamp": "1000", "text": {"body": id}});
        text.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        text
    };
    let mut log = Log::new().message("w1", Some(USER), Some(PHONE), "hi");
    let key = || ConversationKey::user(USER);
    let heard = json!({"messages": [text("w2", json!({"from_user_id": USER}))]});
    let echoed = json!({"message_echoes": [text("w3", json!({"to_user_id": USER}))]});
    for (id, value) in [("w2", heard), ("w3", echoed)] {
        log.push(id, Family::Update(Class::Message), key(), &standby(value));
    }
    let (_directory, journal) = open().await;
    assert_eq!(journal.write_batch(&log.works).await.unwrap(), []);
    let found = conversations(&journal).await;
    assert_eq!(found.len(), 1);
    let mut messages = journal
        .messages("acme", &found[0].id, None, MANY)
        .await
        .unwrap()
        .items;
    messages.sort_by_key(|message| message.sequence);
    let marks: Vec<_> = messages
        .iter()
        .map(|message| {
            (
                message.direction.as_str(),
                message
                    .origin
                    .as_ref()
                    .map(|origin| value(origin)["by"].clone()),
            )
        })
        .collect();
    assert_eq!(
        marks,
        [
            ("in", None),
            ("in", Some(json!("standby"))),
            ("out", Some(json!("standby")))
        ]
    );
}

#[tokio::test]
async fn an_address_that_is_no_sqlite_file_is_refused_in_words() {
    for url in [
        "postgres://db/x",
        "sqlite::memory:",
        "sqlite://",
        "journal.db",
    ] {
        let error = Journal::open(url).await.unwrap_err();
        assert!(matches!(error, JournalError::Url { .. }), "{url}: {error}");
    }
    let file = tempfile::NamedTempFile::new().unwrap();
    let below = format!("sqlite://{}/x/journal.db", file.path().display());
    assert!(matches!(
        Journal::open(&below).await.unwrap_err(),
        JournalError::Directory { .. }
    ));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn any_order_and_repetition_of_a_messages_news_ends_in_the_same_status(
        picks in proptest::collection::vec(0..6_usize, 0..10),
        order in Just((0..6_usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let one = |log: Log, pick: &usize| match pick {
            0 => log.queued("m1"),
            1 => log.sent("m1", "w"),
            2 => log.status("w", "sent", &json!({})),
            3 => log.status("w", "failed", &json!({})),
            4 => log.status("w", "delivered", &json!({})),
            _ => log.status("w", "read", &json!({})),
        };
        let log = picks.iter().chain(&order).fold(Log::new(), one);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (found, conversations) = runtime.block_on(async {
            let (_directory, journal) = open().await;
            for batch in log.works.chunks(3) {
                assert_eq!(journal.write_batch(batch).await.unwrap(), []);
            }
            (message(&journal, "m1").await, conversations(&journal).await)
        });
        prop_assert_eq!(found.progress.status, Status::Read);
        prop_assert_eq!(found.progress.times.len(), 6);
        prop_assert_eq!((conversations.len(), conversations[0].outgoing), (1, 1));
    }
}

fn value(json: &RawJson) -> Value {
    serde_json::from_str(json.get()).unwrap()
}
