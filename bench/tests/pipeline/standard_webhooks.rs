//! A customer's endpoint that verifies our events with Python's `standardwebhooks`, from the bytes it got.

use crate::installation::{ACME_NUMBER, Blueprint, ENDPOINT_SECRET, text};
use crate::receiver::{Received, Receiver};
use ackline_bench::processes::{Verification, verify_event};
use ackline_shared::secret::Secret;
use serde_json::Value;

fn is(kind: &str) -> impl Fn(&Received) -> bool {
    let word = format!("\"type\":\"{kind}\"");
    move |received| received.body.contains(&word)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_event_as_received_verifies_and_an_altered_one_does_not() {
    let endpoint = Receiver::start().await;
    let mut blueprint = Blueprint::new().await;
    blueprint.endpoint = Some(format!("{}/events", endpoint.url()));
    let installation = blueprint.start().await;
    let accepted = installation.post(text("4915100000001", ACME_NUMBER, "Grüße/ 🚲"));

    let secret = Secret::new(ENDPOINT_SECRET.to_owned());
    for kind in [
        "message.received",
        "flow.started",
        "message.sent",
        "message.delivered",
    ] {
        let received = endpoint.wait(1, is(kind)).await;
        let event = &received[0].entry;
        let parsed: Value = serde_json::from_str(&event.body).unwrap();
        let verified = verify_event(&secret, &event.headers, &event.body)
            .await
            .unwrap();
        assert_eq!(
            verified,
            Verification::Accepted(parsed),
            "{kind}: {:#?}",
            event.headers
        );
    }

    let received = endpoint.wait(1, is("message.received")).await;
    let event = &received[0].entry;
    let parsed: Value = serde_json::from_str(&event.body).unwrap();
    assert_eq!(parsed["data"]["wamid"], accepted.message_ids[0]);
    let altered = event.body.replace("message.received", "message.deceived");
    let refused = verify_event(&secret, &event.headers, &altered)
        .await
        .unwrap();
    assert!(matches!(refused, Verification::Refused(_)), "{refused:?}");
    let mut headers = event.headers.clone();
    headers.insert("webhook-id".to_owned(), "another".to_owned());
    let refused = verify_event(&secret, &headers, &event.body).await.unwrap();
    assert!(matches!(refused, Verification::Refused(_)), "{refused:?}");
}
