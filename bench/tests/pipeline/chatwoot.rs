//! Chatwoot's own OpenAPI document, served by Prism: it refuses every request it does not describe.

use crate::installation::{ACME_NUMBER, Blueprint, Installation, named};
use crate::receiver::{Received, Receiver};
use ackline_bench::meta::{Content, IncomingMessage, Posting};
use ackline_bench::processes::chatwoot;
use serde_json::json;
use std::collections::BTreeSet;
use std::sync::Arc;

const PERSON: &str = "4915100000001";

fn creates_message(received: &Received) -> bool {
    received.method == "POST"
        && received.path.ends_with("/messages")
        && received.status.is_success()
}

async fn written(
    installation: &Installation,
    wire: &Receiver,
    message: IncomingMessage,
    so_far: usize,
) {
    let accepted = installation.post(message);
    installation.acknowledged(&accepted).await;
    // What the person wrote, and what we answered.
    wire.wait(so_far + 2, creates_message).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_of_the_crm_pool_is_one_that_chatwoot_describes() {
    let prism = tokio::task::spawn_blocking(|| chatwoot().unwrap())
        .await
        .unwrap();
    // One failure on the way makes the pool ask whether the message is there before it posts it again.
    let wire = Receiver::before(prism.url(), 1).await;
    let mut blueprint = Blueprint::new().await;
    blueprint.crm = Some(wire.url());
    let installation = blueprint.start().await;

    // Meta names the person only later, and then the contact gets the name.
    let nameless = json!({"object": "whatsapp_business_account", "entry": [{"id": "102290129340398", "changes": [{
        "field": "messages", "value": {"messaging_product": "whatsapp",
            "metadata": {"display_phone_number": "15550783881", "phone_number_id": ACME_NUMBER},
            "messages": [{"from": PERSON, "id": "wamid.nameless", "timestamp": "1795000000", "type": "text",
                "text": {"body": "Hello/ äöü 🚲"}}]}}]}]});
    let posted = installation
        .simulator()
        .deliver_raw(nameless.to_string().into(), Posting::default())
        .unwrap();
    installation.acknowledged(&posted).await;
    wire.wait(2, creates_message).await;
    let picture = Content::Image {
        caption: Some("look".to_owned()),
        media_id: None,
    };
    written(
        &installation,
        &wire,
        named(PERSON, ACME_NUMBER, "Ada", picture),
        2,
    )
    .await;
    let nobody =
        IncomingMessage::text_without_phone("US.13491208655302741918", "Hi").to_number(ACME_NUMBER);
    written(&installation, &wire, nobody, 4).await;
    let place = Content::Location {
        latitude: 52.5,
        longitude: 13.4,
        place: None,
        address: None,
    };
    written(
        &installation,
        &wire,
        named(PERSON, ACME_NUMBER, "Ada", place),
        6,
    )
    .await;

    let calls = wire.all().await;
    let passed = calls
        .iter()
        .map(|call| &call.entry)
        .filter(|call| call.status != 503);
    // Files go as forms, which Chatwoot takes and its description passes over; refused, they go again in words.
    let is_form = |call: &&Arc<Received>| {
        let kind = call.headers.get("content-type");
        kind.is_some_and(|kind| kind.starts_with("multipart/form-data"))
    };
    let forms: Vec<u16> = passed
        .clone()
        .filter(is_form)
        .map(|call| call.status.as_u16())
        .collect();
    assert_eq!(forms, [415], "the picture");
    for call in passed.clone().filter(|call| !is_form(call)) {
        assert!(
            call.status.is_success(),
            "Chatwoot describes no such request: {call:#?}"
        );
    }
    let made: BTreeSet<(String, String)> = passed
        .map(|call| {
            (
                call.method.clone(),
                call.path.split('?').next().unwrap_or_default().to_owned(),
            )
        })
        .collect();
    for (method, path) in [
        ("POST", "/public/api/v1/inboxes/test-inbox/contacts"),
        ("GET", "/api/v1/accounts/1/contacts/0/conversations"),
        ("POST", "/api/v1/accounts/1/conversations"),
        ("POST", "/api/v1/accounts/1/conversations/0/messages"),
        ("GET", "/api/v1/accounts/1/conversations/0/messages"),
        ("PUT", "/api/v1/accounts/1/contacts/0"),
    ] {
        assert!(
            made.contains(&(method.to_owned(), path.to_owned())),
            "no {method} {path} among {made:#?}"
        );
    }
    let directions: Vec<bool> = calls
        .iter()
        .filter(|call| creates_message(&call.entry))
        .map(|call| call.entry.body.contains("\"message_type\":\"incoming\""))
        .collect();
    assert_eq!(
        directions.iter().filter(|incoming| **incoming).count(),
        4,
        "{directions:?}"
    );
    assert_eq!(directions.len(), 8, "each message is there once");
    assert!(installation.dead_letters("acme", "crm").await.is_empty());
    assert!(!prism.log().contains("Violation"), "{}", prism.log());
}
