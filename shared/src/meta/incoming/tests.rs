//! Every kind of message, as Meta sends it: what is read of it, and its line.

use super::super::{Body, Message, read};
use super::*;
use proptest::prelude::*;
use serde_json::json;

fn message(mut raw: Value) -> Message {
    raw["id"] = json!("wamid.1");
    let value = json!({"metadata": {"phone_number_id": "1"}, "messages": [raw]});
    let body = json!({"entry": [{"id": "W", "changes": [{"field": "messages", "value": value}]}]});
    match read(body.to_string().as_bytes()).unwrap().body {
        Body::Message(message) => *message,
        other => panic!("{other:?}"),
    }
}

/// What is read of a message as it is written down, without its type.
fn held(raw: Value) -> (Value, String, bool) {
    let content = message(raw).content;
    let mut written = serde_json::to_value(&content).unwrap();
    written.as_object_mut().unwrap().remove("type");
    (written, content.line(), content.is_speech())
}

#[test]
fn every_kind_is_read_with_its_fields_and_has_a_line() {
    let nfm = r#"{"flow_token":"t1","rating":"excellent","size":2,"colours":["red","blue"]}"#;
    for (raw, written, line, is_speech) in [
        (
            json!({"type": "text", "text": {"body": "hi"}}),
            json!({"text": "hi"}),
            "hi",
            true,
        ),
        (
            json!({"type": "audio", "audio": {"id": "9", "mime_type": "audio/ogg", "sha256": "x=", "voice": true}}),
            json!({"media": {"id": "9", "mime_type": "audio/ogg", "sha256": "x=", "voice": true}}),
            "[audio]",
            true,
        ),
        (
            json!({"type": "document", "document": {"id": 9, "mime_type": "application/pdf", "filename": "a\u{202e}fdp.exe", "caption": "see"}}),
            json!({"text": "see", "media": {"id": "9", "mime_type": "application/pdf", "filename": "afdp.exe"}}),
            "[document: afdp.exe] see",
            true,
        ),
        (
            json!({"type": "button", "button": {"payload": "PAY", "text": "Pay"}}),
            json!({"text": "Pay", "payload_id": "PAY", "details": {"type": "button", "text": "Pay", "payload": "PAY"}}),
            "Pay",
            true,
        ),
        (
            json!({"type": "interactive", "interactive": {"type": "button_reply", "button_reply": {"id": "y", "title": "Yes"}}}),
            json!({"text": "Yes", "payload_id": "y", "details": {"type": "button_reply", "id": "y", "title": "Yes"}}),
            "Yes",
            true,
        ),
        (
            json!({"type": "interactive", "interactive": {"list_reply": {"id": "r", "title": "Row", "description": "More"}}}),
            json!({"text": "Row", "payload_id": "r", "details": {"type": "list_reply", "id": "r", "title": "Row", "description": "More"}}),
            "Row",
            true,
        ),
        (
            json!({"type": "interactive", "interactive": {"type": "nfm_reply", "nfm_reply": {"name": "flow", "body": "Sent", "response_json": nfm}}}),
            json!({"details": {"type": "form", "name": "flow", "body": "Sent",
                "fields": {"flow_token": "t1", "rating": "excellent", "size": 2, "colours": ["red", "blue"]}}}),
            "[form: flow]\nrating: excellent\nsize: 2\ncolours: red, blue",
            true,
        ),
        (
            json!({"type": "interactive", "interactive": {"nfm_reply": {"response_json": "{no json\u{0}"}}}),
            json!({"details": {"type": "form", "fields": {}, "response": "{no json\u{0}"}}),
            "[form]\n{no json",
            true,
        ),
        (
            json!({"type": "interactive", "interactive": {"type": "call_permission_reply",
                "call_permission_reply": {"response": "accept", "response_source": "user_action", "expiration_timestamp": 17}}}),
            json!({"details": {"type": "call_permission", "response": "accept", "response_source": "user_action", "expires": "17"}}),
            "[call permission: accept]",
            false,
        ),
        (
            json!({"type": "interactive", "interactive": {"type": "telepathy"}}),
            json!({"details": {"type": "unknown"}}),
            "[interactive]",
            false,
        ),
        (
            json!({"type": "location", "location": {"latitude": 52.5, "longitude": 13.4, "name": "Pub", "address": "Main Street 1"}}),
            json!({"details": {"type": "location", "latitude": 52.5, "longitude": 13.4, "name": "Pub", "address": "Main Street 1"}}),
            "[location] 52.5, 13.4 Pub Main Street 1",
            true,
        ),
        (
            json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "Ann Lee", "first_name": "Ann"}, "birthday": "1990-01-01",
                "phones": [{"phone": "+49 151 1", "wa_id": "491511", "type": "CELL"}, {}, 7], "emails": [{"email": "a@b.example"}],
                "addresses": [{"street": "Main 1", "city": "Town"}], "urls": [{"url": "https://a.example"}], "org": {"company": "Acme", "title": "Boss"}}, 5]}),
            json!({"details": {"type": "contacts", "contacts": [{"name": "Ann Lee", "phones": [{"phone": "+49 151 1", "wa_id": "491511", "type": "CELL"}],
                "emails": ["a@b.example"], "addresses": ["Main 1, Town"], "urls": ["https://a.example"], "company": "Acme", "position": "Boss", "birthday": "1990-01-01"}]}}),
            "[contact: Ann Lee, +49 151 1, a@b.example]",
            true,
        ),
        (
            json!({"type": "order", "order": {"catalog_id": "C", "text": "Soon please", "product_items":
                [{"product_retailer_id": "SKU1", "quantity": 2, "item_price": 30, "currency": "USD"}, {"product_retailer_id": "SKU2", "quantity": "1", "item_price": "x"}]}}),
            json!({"text": "Soon please", "details": {"type": "order", "catalog_id": "C", "text": "Soon please", "items":
                [{"product_retailer_id": "SKU1", "quantity": 2, "item_price": 30, "currency": "USD"}, {"product_retailer_id": "SKU2", "quantity": 1}]}}),
            "[order: 2 × SKU1 at 30 USD, 1 × SKU2] Soon please",
            true,
        ),
        (
            json!({"type": "reaction", "reaction": {"message_id": "w", "emoji": "👍"}}),
            json!({"text": "👍", "details": {"type": "reaction", "message_id": "w", "emoji": "👍", "removed": false}}),
            "[reaction] 👍",
            false,
        ),
        (
            json!({"type": "reaction", "reaction": {"message_id": "w"}}),
            json!({"details": {"type": "reaction", "message_id": "w", "removed": true}}),
            "[reaction removed]",
            false,
        ),
        (
            json!({"type": "edit", "edit": {"original_message_id": "w", "message": {"type": "text", "text": {"body": "new"}}}}),
            json!({"text": "new", "details": {"type": "edit", "message_id": "w"}}),
            "[edited] new",
            false,
        ),
        (
            json!({"type": "revoke", "revoke": {"original_message_id": "w"}}),
            json!({"details": {"type": "revoke", "message_id": "w"}}),
            "[deleted a message]",
            false,
        ),
        (
            json!({"type": "system", "system": {"type": "user_changed_number", "body": "changed", "wa_id": "50"}}),
            json!({"text": "changed", "details": {"type": "system", "event": "user_changed_number", "body": "changed", "phone": "50"}}),
            "[system] changed",
            false,
        ),
        (
            json!({"type": "request_welcome"}),
            json!({"details": {"type": "request_welcome"}}),
            "[opened the chat]",
            false,
        ),
        (
            json!({"type": "unsupported", "unsupported": {"type": "poll"}, "errors": [{"code": 131_051, "title": "Message type unknown"}]}),
            json!({"details": {"type": "unsupported", "what": "poll", "errors": [{"code": 131_051, "message": "Message type unknown"}]}}),
            "[unsupported: poll]",
            false,
        ),
        (
            json!({"type": "hologram", "hologram": {"depth": 3}}),
            json!({"details": {"type": "unknown"}}),
            "[hologram]",
            false,
        ),
        (
            json!({}),
            json!({"details": {"type": "unsupported"}}),
            "[unsupported]",
            false,
        ),
    ] {
        let wanted = (written, line.to_owned(), is_speech);
        assert_eq!(held(raw.clone()), wanted, "{raw}");
    }
}

#[test]
fn where_a_message_comes_from_is_read_beside_what_it_says() {
    let (written, line, _) = held(json!({"type": "text", "text": {"body": "more?"},
        "context": {"from": "1555", "id": "w", "forwarded": true, "referred_product": {"catalog_id": "C", "product_retailer_id": "SKU"}},
        "referral": {"source_url": "https://fb.me/a", "source_id": "120", "source_type": "ad", "headline": "Sale", "body": "Now",
            "media_type": "video", "video_url": "https://v", "thumbnail_url": "https://t", "ctwa_clid": "Ab_1", "welcome_message": {"text": "Hi"}}}));
    let expected = json!({"text": "more?",
        "context": {"id": "w", "from": "1555", "forwarded": true, "referred_product": {"catalog_id": "C", "product_retailer_id": "SKU"}},
        "referral": {"source_url": "https://fb.me/a", "source_id": "120", "source_type": "ad", "headline": "Sale", "body": "Now",
            "media_type": "video", "video_url": "https://v", "thumbnail_url": "https://t", "ctwa_clid": "Ab_1", "welcome_message": "Hi"}});
    assert_eq!(written, expected);
    assert_eq!(
        line,
        "[forwarded] more?\n[about the product SKU]\n[from the ad Sale https://fb.me/a]"
    );
    let often = held(
        json!({"type": "text", "text": {"body": "x"}, "context": {"frequently_forwarded": true}}),
    );
    let context = json!({"forwarded": true, "frequently_forwarded": true});
    assert_eq!(often.0["context"], context);
    for nothing in [
        json!({}),
        json!({"from": "1"}),
        json!(7),
        json!(null),
        json!([1]),
    ] {
        let (written, ..) =
            held(json!({"type": "text", "text": {"body": "x"}, "context": nothing}));
        assert_eq!(written, json!({"text": "x"}), "{nothing}");
    }
}

#[test]
fn an_answer_from_the_business_app_holds_what_a_message_does() {
    let echo = json!({"from": "15550783881", "to": "49151", "to_user_id": "DE.1", "id": "wamid.E", "timestamp": "17",
        "type": "image", "image": {"id": "9", "mime_type": "image/jpeg", "caption": "look"}, "context": {"id": "w"}});
    let value = json!({"metadata": {"phone_number_id": "1"}, "message_echoes": [echo]});
    let body = json!({"entry": [{"id": "W", "changes": [{"field": "smb_message_echoes", "value": value}]}]});
    let update = read(body.to_string().as_bytes()).unwrap();
    assert!(!update.is_ours());
    let Body::Echo(read) = update.body else {
        panic!("an echo")
    };
    assert_eq!(
        (read.from.phone.as_deref(), read.from.user_id.as_deref()),
        (Some("49151"), Some("DE.1"))
    );
    assert_eq!(
        (read.content.line().as_str(), read.content.context_id()),
        ("[image] look", Some("w"))
    );
    assert_eq!(read.raw, echo);
}

#[test]
fn bad_characters_of_every_kind_are_not_shown_and_stay_in_what_came() {
    let bad = "a\u{0}b\u{202e}c\u{7}";
    for (kind, own) in [
        ("text", json!({"body": bad})),
        (
            "image",
            json!({"id": "9", "mime_type": "image/jpeg", "caption": bad}),
        ),
        (
            "document",
            json!({"id": "9", "mime_type": "x", "filename": bad}),
        ),
        ("button", json!({"text": bad, "payload": "p"})),
        (
            "interactive",
            json!({"button_reply": {"id": "i", "title": bad}}),
        ),
        (
            "interactive",
            json!({"list_reply": {"id": "i", "title": bad, "description": bad}}),
        ),
        (
            "interactive",
            json!({"nfm_reply": {"name": "flow", "body": bad, "response_json": json!({bad: bad}).to_string()}}),
        ),
        (
            "location",
            json!({"latitude": 1, "longitude": 2, "name": bad, "address": bad}),
        ),
        (
            "contacts",
            json!([{"name": {"formatted_name": bad}, "phones": [{"phone": bad}], "emails": [{"email": bad}]}]),
        ),
        (
            "order",
            json!({"text": bad, "product_items": [{"product_retailer_id": "s", "currency": bad}]}),
        ),
        ("reaction", json!({"message_id": "w", "emoji": bad})),
        (
            "edit",
            json!({"original_message_id": "w", "message": {"text": {"body": bad}}}),
        ),
        ("system", json!({"body": bad})),
        ("unsupported", json!({})),
        ("ab\u{0}c\u{202e}", json!({"body": bad})),
    ] {
        let raw = json!({"id": "wamid.1", "type": kind, kind: own, "unsupported": {"type": bad}, "referral": {"headline": bad}});
        let message = message(raw.clone());
        let line = message.content.line();
        assert!(
            !line.contains(['\0', '\u{202e}', '\u{7}']),
            "{kind}: {line:?}"
        );
        let text = message.content.text.unwrap_or_default();
        assert!(
            !text.contains(['\0', '\u{202e}', '\u{7}']),
            "{kind}: {text:?}"
        );
        let mut came = raw;
        came["id"] = json!("wamid.1");
        assert_eq!(message.raw, came, "{kind}");
    }
}

#[test]
fn long_lists_and_names_are_bounded() {
    let cards: Vec<Value> = (0..500)
        .map(|_| json!({"name": {"formatted_name": "n"}, "phones": vec![json!({"phone": "1"}); 100]}))
        .collect();
    let Some(Details::Contacts { contacts }) =
        message(json!({"type": "contacts", "contacts": cards}))
            .content
            .details
    else {
        panic!("cards")
    };
    assert_eq!((contacts.len(), contacts[0].phones.len()), (100, 20));
    let items = vec![json!({"product_retailer_id": "s"}); 500];
    let order = message(json!({"type": "order", "order": {"product_items": items}}));
    let Some(Details::Order { items, .. }) = &order.content.details else {
        panic!("an order")
    };
    assert_eq!(items.len(), 200);
    assert!(order.content.line().len() < 1000);
    let long = "x".repeat(100_000);
    for (members, most) in [
        (
            json!({"type": "document", "document": {"id": "1", "filename": long}}),
            1100,
        ),
        (
            json!({"type": "unsupported", "unsupported": {"type": long}}),
            1100,
        ),
        (
            json!({"type": "order", "order": {"product_items": [{"product_retailer_id": long}]}}),
            1100,
        ),
        (
            json!({"type": "contacts", "contacts": [{"name": {"formatted_name": "n"}, "emails": [{"email": long}]}]}),
            1100,
        ),
    ] {
        let line = message(members).content.line();
        assert!(line.len() < most, "{} in {}", line.len(), &line[..40]);
    }
}

fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        Just(json!("{\"a\":[1]}")),
    ];
    leaf.prop_recursive(4, 40, 5, |inner| {
        let names = [
            "type",
            "body",
            "text",
            "nfm_reply",
            "response_json",
            "button_reply",
            "list_reply",
            "id",
            "title",
            "contacts",
            "name",
            "formatted_name",
            "phones",
            "phone",
            "product_items",
            "emoji",
            "message_id",
            "message",
            "errors",
            "code",
            "referral",
            "context",
            "referred_product",
            "call_permission_reply",
            "mime_type",
        ];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(prop::sample::select(names.to_vec()), inner, 0..5)
                .prop_map(|members| json!(members)),
        ]
    })
}

proptest! {
    #[test]
    fn whatever_stands_where_a_kind_is_expected_is_read(
        kind in prop::sample::select(vec!["text", "image", "interactive", "contacts", "order", "location", "reaction", "edit",
            "revoke", "system", "unsupported", "button", "request_welcome", "hologram"]),
        own in anything(), context in anything(), referral in anything(),
    ) {
        let raw = json!({"type": kind, kind: own, "context": context, "referral": referral});
        let content = Incoming::read(&raw);
        prop_assert!(!content.line().is_empty());
        prop_assert!(serde_json::to_string(&content).is_ok());
    }
}
