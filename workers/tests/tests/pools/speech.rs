//! What answers a question of a flow, and what of a message its templates see.

use super::flows::{egress, snapshot, text};
use super::identity::{done, person, record, said, sent};
use super::stage::Stage;
use ackline_pools::flows::FlowsJob;
use ackline_shared::ids::ConversationKey;
use serde_json::{Value, json};

#[tokio::test(flavor = "multi_thread")]
async fn what_says_nothing_answers_no_question_and_starts_no_flow() {
    let definition = json!({
        "format": 1, "name": "Order", "entry": [{"on": "any"}], "start": "ask",
        "nodes": {
            "ask": {"kind": "ask.number", "body": "Number?", "variable": "n", "retry": "NOT A NUMBER", "attempts": 9,
                    "exits": {"next": "tell", "invalid": "end"}},
            "tell": {"kind": "message.text", "body": "It is {{ n }}.", "exits": {"next": "end"}},
            "end": {"kind": "end"}
        }
    });
    let stage = Stage::start(snapshot(&definition)).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    let who = person(Some("US.1"), None);
    let silent: [Value; 9] = [
        json!({"type": "revoke", "revoke": {"original_message_id": "w"}}),
        json!({"type": "edit", "edit": {"original_message_id": "w", "message": {"type": "text", "text": {"body": "7"}}}}),
        json!({"type": "request_welcome"}),
        json!({"type": "unknown"}),
        json!({"type": "hologram", "hologram": {"body": "7"}}),
        json!({"type": "reaction", "reaction": {"message_id": "w", "emoji": "👍"}}),
        json!({"type": "system", "system": {"body": "7"}}),
        json!({"type": "unsupported", "errors": [{"code": 131_051}]}),
        json!({"type": "interactive", "interactive": {"type": "call_permission_reply", "call_permission_reply": {"response": "accept"}}}),
    ];
    for (at, content) in silent.iter().enumerate() {
        said(&stage, 1, &who, &format!("before{at}"), content.clone()).await;
    }
    done(&stage, 1).await;
    let session = stage
        .platform
        .buckets
        .sessions
        .get(record(&ConversationKey::user("US.1")))
        .await;
    assert_eq!(session.unwrap(), None, "none of it starts a flow");
    stage.publish("US.1", "m1", text("m1", "hello")).await;
    sent(&stage, 1).await;
    for (at, content) in silent.into_iter().enumerate() {
        said(&stage, 1, &who, &format!("after{at}"), content).await;
    }
    stage.publish("US.1", "m2", text("m2", "7")).await;
    assert_eq!(sent(&stage, 2).await[1].0, "It is 7.");
}

#[tokio::test(flavor = "multi_thread")]
async fn templates_see_what_a_message_holds() {
    let body = "{{ message.details.fields.rating }}/{{ message.referral.ctwa_clid }}/{{ message.context.id }}/\
        {{ message.details.contacts.0.name }}/{{ message.details.items.0.quantity }}/{{ message.media.mime_type }}";
    let definition = json!({
        "format": 1, "name": "Order", "entry": [{"on": "any"}], "start": "tell",
        "nodes": {
            "tell": {"kind": "message.text", "body": body, "exits": {"next": "end"}},
            "end": {"kind": "end"}
        }
    });
    let stage = Stage::start(snapshot(&definition)).await;
    let (_stop, _running) = stage.run(FlowsJob::new(stage.platform.clone(), egress()), "one");
    let who = person(Some("US.1"), None);
    for (at, (content, seen)) in [
        (
            json!({"type": "interactive", "context": {"id": "wamid.T"}, "interactive": {"type": "nfm_reply",
                "nfm_reply": {"name": "flow", "response_json": "{\"rating\":\"excellent\"}"}}}),
            "excellent//wamid.T///",
        ),
        (
            json!({"type": "text", "text": {"body": "hi"}, "referral": {"ctwa_clid": "Ab"}}),
            "/Ab////",
        ),
        (
            json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "Ann"}}]}),
            "///Ann//",
        ),
        (
            json!({"type": "order", "order": {"product_items": [{"product_retailer_id": "S", "quantity": 2}]}}),
            "////2/",
        ),
        (
            json!({"type": "image", "image": {"id": "9", "mime_type": "image/png"}}),
            "/////image/png",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        said(&stage, 1, &who, &format!("m{at}"), content).await;
        assert_eq!(sent(&stage, at + 1).await[at].0, seen);
    }
}
