//! The replies' job with a stand-in for the Graph API that answers as Meta does.

use super::platform;
use ackline_egress::receiver::loopback;
use ackline_engine::state::Heard;
use ackline_message::Record;
use ackline_message::{Content, Origin, Recipient, SendCommand};
use ackline_pools::replies::Replies;
use ackline_runtime::conversation::{Event, Owners, Side, Who};
use ackline_runtime::dedupe::{ConversationRecord, DedupeStore, Recall};
use ackline_runtime::job::{Answered, Job, Marks, Verdict, Work};
use ackline_runtime::platform::Platform;
use ackline_shared::clock::now_ms;
use ackline_shared::ids::{PhoneNumberId, TenantId};
use ackline_shared::nats::layout::bucket_stream;
use ackline_shared::subjects::{BUCKET_SESSIONS, Lane};
use ackline_shared::testing::NatsServer;
use ackline_whatsapp::graph::GraphSettings;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

const TENANT: &str = "acme";
const NUMBER: &str = "1065";
const TOKEN: &str = "EAAG-secret";

/// What the stand-in was asked, and what it will answer.
#[derive(Clone, Default)]
struct Meta {
    calls: Arc<Mutex<Vec<(String, String, Value)>>>,
    answers: Arc<Mutex<VecDeque<(u16, Value)>>>,
    /// The forms that files came in.
    uploads: Arc<Mutex<Vec<String>>>,
}

async fn upload(State(meta): State<Meta>, headers: HeaderMap, form: String) -> Json<Value> {
    assert_eq!(headers["authorization"], format!("Bearer {TOKEN}"));
    let mut uploads = meta.uploads.lock().unwrap();
    uploads.push(form);
    Json(json!({"id": format!("media{}", uploads.len())}))
}

/// A CRM that stores a file a moment later than it tells of it, and sends on to where it is.
async fn crm() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let asked = Arc::new(Mutex::new(0));
    let stored = async move || {
        let mut asked = asked.lock().unwrap();
        *asked += 1;
        match *asked {
            1 => StatusCode::NOT_FOUND.into_response(),
            _ => ([("content-type", "image/png")], "PNG").into_response(),
        }
    };
    let router = Router::new()
        .route("/rails/{*rest}", get(async || Redirect::to("/disk/x.png")))
        .route(
            "/wav",
            get(async || ([("content-type", "audio/wav")], "RIFF")),
        )
        .route("/round", get(async || Redirect::to("/round")))
        .route("/disk/x.png", get(stored));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

async fn answer(
    State(meta): State<Meta>,
    Path((version, phone)): Path<(String, String)>,
    headers: HeaderMap,
    Json(body): Json<Value>,
) -> (StatusCode, Json<Value>) {
    let authorization = headers
        .get("authorization")
        .map(|value| value.to_str().unwrap().to_owned());
    let mut calls = meta.calls.lock().unwrap();
    calls.push((
        format!("{version}/{phone}"),
        authorization.unwrap_or_default(),
        body,
    ));
    let accepted = json!({"messaging_product": "whatsapp", "messages": [{"id": format!("wamid.{}", calls.len())}]});
    let (status, body) = meta
        .answers
        .lock()
        .unwrap()
        .pop_front()
        .unwrap_or((200, accepted));
    (StatusCode::from_u16(status).unwrap(), Json(body))
}

impl Meta {
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new()
            .route("/{version}/{phone}/messages", post(answer))
            .route("/{version}/{phone}/media", post(upload))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        url
    }

    fn will_answer(&self, status: u16, code: i64) {
        let error = json!({"error": {"message": "x", "type": "OAuthException", "code": code}});
        self.answers.lock().unwrap().push_back((status, error));
    }

    fn calls(&self) -> Vec<(String, String, Value)> {
        self.calls.lock().unwrap().clone()
    }
}

/// The job with everything it stands on.
struct Stand {
    job: Replies,
    platform: Platform,
    _server: NatsServer,
}

impl Stand {
    async fn new(graph_url: String) -> Self {
        let phone = json!({"id": NUMBER, "tenant": TENANT, "app": "main", "waba_id": "1", "access_token": TOKEN});
        let (platform, server) = platform::platform(&[("phone.1065", phone)]).await;
        let graph = GraphSettings {
            url: graph_url,
            version: "v26.0".into(),
        };
        Self {
            job: Replies::new(platform.clone(), &graph)
                .unwrap()
                .with_files(loopback()),
            platform,
            _server: server,
        }
    }

    async fn records(&self) -> Vec<Record> {
        platform::records(&self.platform).await
    }
}

pub fn command() -> SendCommand {
    SendCommand {
        id: "cmd-1".into(),
        tenant: TenantId::new(TENANT).unwrap(),
        phone_number_id: PhoneNumberId::new(NUMBER).unwrap(),
        to: Recipient {
            user_id: None,
            phone: Some("15550001".into()),
        },
        content: Content::Text {
            body: "hello".into(),
            preview_url: false,
        },
        reply_to: None,
        origin: Origin::Api {
            key: "k".into(),
            request: None,
        },
        created_ms: 1,
    }
}

fn work(command: &SendCommand) -> Work {
    Work {
        head: Arc::new(command.head(Lane::Live, 32)),
        payload: serde_json::to_vec(command).unwrap().into(),
        sequence: 1,
        attempt: 1,
        last_attempt: false,
        target: Arc::default(),
        answered: Answered::default(),
        overdue: false,
        marks: Marks::default(),
        record: ConversationRecord::default(),
    }
}

fn dead_reason(verdict: Verdict) -> String {
    match verdict {
        Verdict::Dead { reason } => reason,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_message_goes_out_once_and_its_record_is_stored_with_metas_id() {
    let meta = Meta::default();
    let stand = Stand::new(meta.serve().await).await;
    let work = work(&command());
    assert_eq!(stand.job.run(&work).await, Verdict::Done);
    assert_eq!(
        stand.job.run(&work).await,
        Verdict::Done,
        "the same work again only confirms its record"
    );

    let calls = meta.calls();
    assert_eq!(calls.len(), 1);
    let (path, authorization, body) = &calls[0];
    assert_eq!(
        (path.as_str(), authorization.as_str()),
        ("v26.0/1065", "Bearer EAAG-secret")
    );
    assert_eq!(
        (&body["to"], &body["biz_opaque_callback_data"]),
        (&json!("+15550001"), &json!("cmd-1"))
    );
    let sent = Record::ReplySent {
        command: Box::new(command()),
        wamid: "wamid.1".into(),
        attempts: 1,
        known_as: None,
    };
    assert_eq!(stand.records().await, [sent]);
}

#[tokio::test]
async fn a_passing_refusal_is_tried_again_and_a_final_one_is_recorded() {
    let meta = Meta::default();
    let stand = Stand::new(meta.serve().await).await;
    let mut work = work(&command());
    meta.will_answer(500, 131_000);
    let verdict = stand.job.run(&work).await;
    assert!(
        matches!(&verdict, Verdict::Trouble(trouble) if trouble.breaker == 1),
        "the number waits: {verdict:?}"
    );
    assert_eq!(work.answered.take(), Heard::Answer);
    work.attempt += 1;
    meta.will_answer(400, 131_056);
    let verdict = stand.job.run(&work).await;
    let after = Some(Duration::from_secs(4));
    assert!(
        matches!(&verdict, Verdict::Retry { after: found, .. } if *found == after),
        "{verdict:?}"
    );
    assert!(
        work.marks.all().is_empty(),
        "a definite answer leaves nothing open"
    );
    work.attempt += 1;
    meta.will_answer(400, 131_047);
    let reason = dead_reason(stand.job.run(&work).await);
    assert!(reason.contains("24-hour window"), "{reason}");
    let failed = Record::ReplyFailed {
        command: Box::new(command()),
        code: Some(131_047),
        reason,
        ambiguous: false,
    };
    assert_eq!(stand.records().await, [failed]);
    assert_eq!(meta.calls().len(), 3);
}

#[tokio::test]
async fn the_last_attempt_ends_in_a_record_even_when_the_error_would_pass() {
    let meta = Meta::default();
    let stand = Stand::new(meta.serve().await).await;
    meta.will_answer(400, 131_056);
    let work = Work {
        attempt: 8,
        last_attempt: true,
        ..work(&command())
    };
    let verdict = stand.job.run(&work).await;
    let reason = format!("gave up after 8 attempts: {}", verdict.reason().unwrap());
    assert_eq!(dead_reason(stand.job.give_up(&work, &reason).await), reason);
    assert!(matches!(
        &stand.records().await[..],
        [Record::ReplyFailed {
            code: Some(131_056),
            ambiguous: false,
            ..
        }]
    ));
}

#[tokio::test]
async fn a_lost_answer_is_not_sent_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stand = Stand::new(format!("http://{}", listener.local_addr().unwrap())).await;
    let accepted = Arc::new(Mutex::new(0));
    let counter = accepted.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            *counter.lock().unwrap() += 1;
            let mut bytes = [0_u8; 4096];
            let _read = socket.read(&mut bytes).await;
        }
    });
    let work = work(&command());
    for attempt in ["at once", "and by whoever takes over"] {
        let reason = dead_reason(stand.job.run(&work).await);
        assert!(reason.contains("answer was lost"), "{attempt}: {reason}");
    }
    assert_eq!(*accepted.lock().unwrap(), 1);
    assert!(matches!(
        &stand.records().await[..],
        [Record::ReplyFailed {
            ambiguous: true,
            ..
        }]
    ));
}

#[tokio::test]
async fn whoever_takes_over_from_a_process_that_died_while_sending_does_not_send_again() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stand = Stand::new(format!("http://{}", listener.local_addr().unwrap())).await;
    let remembering = || {
        let record = DedupeStore::new(&stand.platform).record("replies.test".to_owned(), None);
        Work {
            record,
            ..work(&command())
        }
    };
    let dying = remembering();
    let request_arrived = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut bytes = [0_u8; 4096];
        assert!(socket.read(&mut bytes).await.unwrap() > 0);
    };
    tokio::select! {
        verdict = stand.job.run(&dying) => panic!("there is no answer to judge: {verdict:?}"),
        () = request_arrived => {}
    }

    let successor = remembering();
    let Recall::Open(parts) = successor
        .record
        .recall(successor.head.id.as_str())
        .await
        .unwrap()
    else {
        panic!("it is not finished")
    };
    parts
        .parts
        .iter()
        .for_each(|part| successor.marks.set(part.as_str().into()));
    let reason = dead_reason(stand.job.run(&successor).await);
    assert!(
        reason.contains("cut off while the request was on its way"),
        "{reason}"
    );
    assert!(matches!(
        &stand.records().await[..],
        [Record::ReplyFailed {
            ambiguous: true,
            ..
        }]
    ));
}

#[tokio::test]
async fn what_never_left_is_tried_again_without_a_trace() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let stand = Stand::new(nobody).await;
    let work = work(&command());
    let verdict = stand.job.run(&work).await;
    assert!(
        matches!(&verdict, Verdict::Trouble(trouble) if trouble.breaker == 0 && trouble.reason.contains("cannot be reached")),
        "{verdict:?}"
    );
    assert!(work.marks.all().is_empty());
    assert!(stand.records().await.is_empty());
}

#[tokio::test]
async fn what_cannot_be_sent_is_given_up_before_meta_is_asked() {
    let meta = Meta::default();
    let stand = Stand::new(meta.serve().await).await;
    let stranger = SendCommand {
        phone_number_id: PhoneNumberId::new("999").unwrap(),
        ..command()
    };
    let other = SendCommand {
        tenant: TenantId::new("other").unwrap(),
        ..command()
    };
    let long = SendCommand {
        content: Content::Text {
            body: "x".repeat(5000),
            preview_url: false,
        },
        ..command()
    };
    for (command, words) in [
        (stranger, "no phone number 999"),
        (other, "no phone number 1065"),
        (long, "5000 characters"),
    ] {
        let reason = dead_reason(stand.job.run(&work(&command)).await);
        assert!(reason.contains(words), "{reason}");
    }
    let unreadable = Work {
        payload: "{}".into(),
        ..work(&command())
    };
    assert!(dead_reason(stand.job.run(&unreadable).await).contains("not a send command"));
    assert!(meta.calls().is_empty());
}

#[tokio::test]
async fn whom_meta_says_a_message_went_to_is_recorded_and_their_conversation_goes_on() {
    let meta = Meta::default();
    let stand = Stand::new(meta.serve().await).await;
    let answers = |wa_id: &str, user_id: Value| {
        let contact = json!({"input": "+15550001", "wa_id": wa_id, "user_id": user_id});
        let body = json!({"contacts": [contact], "messages": [{"id": "wamid.1"}]});
        meta.answers.lock().unwrap().push_back((200, body));
    };
    let command = command();
    let (tenant, number) = (&command.tenant, &command.phone_number_id);
    let owners = Owners::new(stand.platform.buckets.sessions.clone());
    let side = |who: &Recipient| Side::of_person(tenant, number, who);
    let set = Event::Set {
        who: Who::Person,
        until_ms: None,
        key: "k".into(),
    };
    owners
        .report(&side(&command.to), &set, now_ms())
        .await
        .unwrap();
    // The number that was meant, in other words, is no news.
    answers("15550001", json!(null));
    assert_eq!(stand.job.run(&work(&command)).await, Verdict::Done);
    answers("15550002", json!("US.1"));
    let other = SendCommand {
        id: "cmd-2".into(),
        ..command.clone()
    };
    assert_eq!(stand.job.run(&work(&other)).await, Verdict::Done);
    let known_as = Recipient {
        user_id: Some("US.1".into()),
        phone: Some("15550002".into()),
    };
    let told = |record| match record {
        Record::ReplySent { known_as, .. } => known_as,
        other => panic!("{other:?}"),
    };
    let told: Vec<_> = stand.records().await.into_iter().map(told).collect();
    assert_eq!(told, [None, Some(known_as.clone())]);
    for who in [&command.to, &known_as] {
        let owner = owners.get(&side(who)).await.unwrap().unwrap();
        assert_eq!(owner.who, Who::Person, "{who:?}");
    }
}

#[tokio::test]
async fn what_went_out_is_recorded_with_its_receiver_even_when_that_could_not_be_noted() {
    let meta = Meta::default();
    let stand = Stand::new(meta.serve().await).await;
    let contact = json!({"input": "+15550001", "wa_id": "15550002"});
    let body = json!({"contacts": [contact], "messages": [{"id": "wamid.1"}]});
    meta.answers.lock().unwrap().push_back((200, body));
    let sessions = bucket_stream(BUCKET_SESSIONS);
    let context = stand.platform.log.context();
    context.delete_stream(sessions).await.unwrap();
    let work = work(&command());
    for _attempt in 0..2 {
        let verdict = stand.job.run(&work).await;
        assert!(matches!(verdict, Verdict::Retry { .. }), "{verdict:?}");
    }
    assert_eq!(meta.calls().len(), 1);
    assert_eq!(stand.job.give_up(&work, "enough").await, Verdict::Done);
    let [Record::ReplySent { known_as, .. }] = &stand.records().await[..] else {
        panic!("it went out")
    };
    let reached = known_as
        .as_ref()
        .and_then(|known_as| known_as.phone.clone());
    assert_eq!(reached.as_deref(), Some("15550002"));
}

fn by_agent(content: Value) -> SendCommand {
    SendCommand {
        content: serde_json::from_value(content).unwrap(),
        origin: Origin::Agent {
            link: "desk".into(),
            message: "42".into(),
        },
        ..command()
    }
}

#[tokio::test]
async fn an_agents_file_is_fetched_uploaded_and_sent_by_its_id() {
    let meta = Meta::default();
    let stand = Stand::new(meta.serve().await).await;
    let link = format!("{}/rails/active_storage/x.png", crm().await);
    let work = work(&by_agent(
        json!({"type": "image", "link": link, "caption": "Look"}),
    ));
    let verdict = stand.job.run(&work).await;
    assert!(
        matches!(&verdict, Verdict::Retry { reason, .. } if reason.contains("404")),
        "the storage is slower than the webhook: {verdict:?}"
    );
    meta.will_answer(500, 131_000);
    let verdict = stand.job.run(&work).await;
    assert!(matches!(verdict, Verdict::Trouble(_)), "{verdict:?}");
    assert_eq!(stand.job.run(&work).await, Verdict::Done);

    let uploads = meta.uploads.lock().unwrap().clone();
    assert_eq!(uploads.len(), 1, "what is uploaded is not uploaded again");
    for part in ["name=\"messaging_product\"", "whatsapp", "image/png", "PNG"] {
        assert!(uploads[0].contains(part), "{part} in {}", uploads[0]);
    }
    let (_, _, body) = meta.calls().pop().unwrap();
    assert_eq!(
        (&body["type"], &body["image"]),
        (&json!("image"), &json!({"id": "media1", "caption": "Look"}))
    );
    let [Record::ReplySent { command, .. }] = &stand.records().await[..] else {
        panic!("it is sent")
    };
    assert_eq!(
        command.content,
        by_agent(json!({"type": "image", "id": "media1", "caption": "Look"})).content
    );
}

#[tokio::test]
async fn a_file_that_whatsapp_does_not_show_goes_as_a_document_and_one_that_is_nowhere_not_at_all()
{
    let meta = Meta::default();
    let stand = Stand::new(meta.serve().await).await;
    let url = crm().await;
    let audio = work(&by_agent(
        json!({"type": "audio", "link": format!("{url}/wav")}),
    ));
    assert_eq!(stand.job.run(&audio).await, Verdict::Done);
    let (_, _, body) = meta.calls().pop().unwrap();
    assert_eq!(body["document"], json!({"id": "media1"}));

    for (link, words) in [
        (format!("{url}/round"), "sends on and on"),
        ("http://10.0.0.1/x".to_owned(), "the file was not sent"),
    ] {
        let lost = work(&by_agent(json!({"type": "document", "link": link})));
        let reason = dead_reason(stand.job.run(&lost).await);
        assert!(reason.contains(words), "{reason}");
    }
    assert_eq!(meta.calls().len(), 1);
    // A developer's link is Meta's to fetch.
    let link = "https://a.example/x.png";
    let api = SendCommand {
        content: Content::Image {
            link: Some(link.into()),
            id: None,
            caption: None,
        },
        ..command()
    };
    assert_eq!(stand.job.run(&work(&api)).await, Verdict::Done);
    assert_eq!(meta.calls()[1].2["image"], json!({"link": link}));
}
