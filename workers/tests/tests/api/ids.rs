//! The ids that an event names, asked of the API.

use super::stage::{ACME, GLOBEX, Stage};
use ackline_pools::events;
use ackline_runtime::dedupe::ConversationRecord;
use ackline_runtime::job::{Answered, Marks, Work};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::subjects::{Class, Partition};
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

const WAMID: &str = "wamid.HBgL/+Z==";

/// A message of somebody's, as the edge stores it.
pub fn message(wamid: &str, from: &Value, conversation: ConversationKey) -> Work {
    let mut message =
        json!({"id": wamid, "type": "text", "timestamp": "1000", "text": {"body": "hi"}});
    message
        .as_object_mut()
        .unwrap()
        .extend(from.as_object().unwrap().clone());
    let value = json!({"metadata": {"phone_number_id": "1001"}, "messages": [message]});
    let payload =
        json!({"entry": [{"id": "W", "changes": [{"value": value, "field": "messages"}]}]});
    let head = Head {
        id: UpdateId::new(wamid),
        tenant: TenantId::new("acme").unwrap(),
        partition: Partition(0),
        family: Family::Update(Class::Message),
        kind: "message.text".into(),
        app: None,
        phone: Some(PhoneNumberId::new("1001").unwrap()),
        conversation,
        received_ms: 1_000_000,
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
        target: Arc::default(),
        answered: Answered::default(),
        overdue: false,
        marks: Marks::default(),
        record: ConversationRecord::default(),
    }
}

fn percent_encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

#[tokio::test]
async fn what_an_event_names_can_be_asked_for_by_its_tenant_alone() {
    let stage = Stage::start().await;
    let first = message(
        "wamid.1",
        &json!({"from": "4915"}),
        ConversationKey::phone("4915"),
    );
    let both = json!({"from": "4915", "from_user_id": "US.1"});
    let second = message(WAMID, &both, ConversationKey::user("US.1"));
    let event = &events::of(&second.head, &second.payload).unwrap()[0];
    let data = serde_json::to_value(event).unwrap()["data"].clone();
    assert_eq!(
        stage.journal.write_batch(&[first, second]).await.unwrap(),
        []
    );

    let id = data["conversation_id"].as_str().unwrap();
    let path = format!("/v1/conversations/{id}");
    let conversation = stage.get(&path, ACME).await.json;
    let own = conversation["id"].as_str().unwrap();
    assert_ne!(own, id, "it began under the number");
    assert_eq!(
        stage.get("/v1/conversations", ACME).await.json["items"][0]["id"],
        own
    );
    let messages = format!("{path}/messages");
    assert_eq!(
        stage.get(&messages, ACME).await.json["items"]
            .as_array()
            .unwrap()
            .len(),
        2
    );
    let owner = format!("{path}/owner");
    assert_eq!(
        stage
            .put(&owner, ACME, &json!({"who": "person"}))
            .await
            .status,
        StatusCode::OK
    );
    let own = stage
        .get(&format!("/v1/conversations/{own}"), ACME)
        .await
        .json;
    assert_eq!(own["owner"]["who"], "person");

    assert_eq!(data["message_id"], WAMID);
    let by_wamid = format!("/v1/messages/{}", percent_encoded(WAMID));
    let found = stage.get(&by_wamid, ACME).await.json;
    assert_eq!(
        (&found["wamid"], &found["conversation_id"]),
        (&json!(WAMID), &own["id"])
    );

    for path in [&path, &messages, &by_wamid] {
        stage
            .get(path, GLOBEX)
            .await
            .is_problem(StatusCode::NOT_FOUND, "not-found");
    }
    let set = stage.put(&owner, GLOBEX, &json!({"who": "bot"})).await;
    set.is_problem(StatusCode::NOT_FOUND, "not-found");
}

#[tokio::test]
async fn what_people_send_beside_text_is_told_with_its_fields_and_as_it_came() {
    let stage = Stage::start().await;
    let of = |wamid: &str, content: Value| {
        let mut fields = json!({"from": "4915"});
        let members = fields.as_object_mut().unwrap();
        members.extend(content.as_object().unwrap().clone());
        message(wamid, &fields, ConversationKey::phone("4915"))
    };
    let form = json!({"type": "interactive", "interactive": {"type": "nfm_reply", "nfm_reply":
        {"name": "flow", "body": "Sent", "response_json": "{\"rating\":\"excellent\"}"}}});
    let ad = json!({"referral": {"source_id": "12", "ctwa_clid": "Ab", "new": [1]}, "context": {"forwarded": true}});
    let mut works = vec![of("wamid.1", form), of("wamid.2", ad)];
    let echo = json!({"from": "1001", "to": "4915", "id": "wamid.3", "timestamp": "1000", "type": "document",
        "document": {"id": "9", "mime_type": "application/pdf", "filename": "a.pdf"}});
    let value = json!({"metadata": {"phone_number_id": "1001"}, "message_echoes": [echo]});
    let change = json!({"field": "smb_message_echoes", "value": value});
    let mut sent = of("wamid.3", json!({}));
    sent.payload = json!({"entry": [{"id": "W", "changes": [change]}]})
        .to_string()
        .into();
    works.push(sent);
    assert_eq!(stage.journal.write_batch(&works).await.unwrap(), []);
    let read = async |wamid: &str| stage.get(&format!("/v1/messages/{wamid}"), ACME).await.json;
    let form = read("wamid.1").await;
    assert_eq!(form["details"]["fields"], json!({"rating": "excellent"}));
    assert_eq!(
        (&form["text"], &form["type"]),
        (&json!(null), &json!("interactive"))
    );
    let from_ad = read("wamid.2").await;
    assert_eq!(
        from_ad["referral"],
        json!({"source_id": "12", "ctwa_clid": "Ab"})
    );
    assert_eq!(from_ad["content"]["referral"]["new"], json!([1]));
    assert_eq!(from_ad["context"], json!({"forwarded": true}));
    let sent = read("wamid.3").await;
    assert_eq!(
        (
            &sent["direction"],
            &sent["origin"],
            &sent["media"]["filename"]
        ),
        (&json!("out"), &json!({"by": "app"}), &json!("a.pdf"))
    );
    let listed = stage.get("/v1/conversations", ACME).await.json;
    let last = listed["items"][0]["last_text"].clone();
    assert!(
        [
            "[document: a.pdf]",
            "[form: flow]\nrating: excellent",
            "[forwarded] hi\n[from the ad 12]"
        ]
        .map(Value::from)
        .contains(&last),
        "{last}"
    );
}
