//! Limits by their places, and the JSON that the Graph API gets.

use super::{Unsendable, check, check_recipient, graph_body, is_phone, is_user_id, plain};
use crate::{Content, Origin, Recipient, SendCommand};
use ackline_shared::ids::{PhoneNumberId, TenantId};
use serde_json::{Value, json};

fn content(content: Value) -> Content {
    serde_json::from_value(content).unwrap()
}

fn command(content: Value) -> SendCommand {
    SendCommand {
        id: "cmd-1".into(),
        tenant: TenantId::new("acme").unwrap(),
        phone_number_id: PhoneNumberId::new("1").unwrap(),
        to: to(Some("US.1"), Some("15550001")),
        content: self::content(content),
        reply_to: None,
        origin: Origin::Api {
            key: "k".into(),
            request: None,
        },
        created_ms: 1,
    }
}

fn to(user_id: Option<&str>, phone: Option<&str>) -> Recipient {
    Recipient {
        user_id: user_id.map(Into::into),
        phone: phone.map(Into::into),
    }
}

fn hello() -> Value {
    json!({"type": "text", "body": "hello"})
}

fn places(content: Value) -> Vec<String> {
    let errors = check(&self::content(content)).into_iter();
    errors.map(|error| error.at).collect()
}

fn row(id: impl ToString) -> Value {
    json!({"id": id.to_string(), "title": "t"})
}

fn list(sections: Value) -> Value {
    json!({"type": "list", "body": "b", "button": "o", "sections": sections})
}

#[test]
fn every_limit_is_named_by_its_place() {
    let long = |chars: usize| "x".repeat(chars);
    let button = json!({"id": "1", "title": "t"});
    let buttons = |buttons: Value| json!({"type": "buttons", "body": "b", "buttons": buttons});
    let rows: Vec<_> = (0..11).map(row).collect();
    let table = [
        (json!({"type": "text", "body": long(4096)}), vec![]),
        (
            json!({"type": "text", "body": long(4097)}),
            vec!["/content/body"],
        ),
        (
            json!({"type": "text", "body": " \n"}),
            vec!["/content/body"],
        ),
        (json!({"type": "image"}), vec!["/content"]),
        (json!({"type": "audio"}), vec!["/content"]),
        (
            json!({"type": "video", "link": "http://a.example", "caption": ""}),
            vec!["/content/link", "/content/caption"],
        ),
        (
            json!({"type": "document", "id": "1", "filename": long(241)}),
            vec!["/content/filename"],
        ),
        (
            json!({"type": "image", "link": "https://a.example", "id": "1"}),
            vec!["/content"],
        ),
        (
            json!({"type": "image", "id": "", "caption": " "}),
            vec!["/content/id", "/content/caption"],
        ),
        (buttons(json!([])), vec!["/content/buttons"]),
        (
            buttons(json!([{"id": "1", "title": long(21)}, {"id": long(257), "title": ""}])),
            vec![
                "/content/buttons/0/title",
                "/content/buttons/1/id",
                "/content/buttons/1/title",
            ],
        ),
        (
            buttons(json!([button, button])),
            vec!["/content/buttons/1/id", "/content/buttons/1/title"],
        ),
        (
            json!({"type": "buttons", "body": long(1025), "header": long(61), "footer": " ", "buttons": [button]}),
            vec!["/content/body", "/content/header", "/content/footer"],
        ),
        (list(json!([])), vec!["/content/sections"]),
        (
            list(json!([{"rows": rows}, {"title": "", "rows": []}])),
            vec![
                "/content/sections",
                "/content/sections/0/title",
                "/content/sections/1/title",
                "/content/sections/1/rows",
            ],
        ),
        (
            list(
                json!([{"title": "a", "rows": [row(1)]}, {"title": long(25), "rows": [row(1), {"id": "2", "title": "t", "description": ""}]}]),
            ),
            vec![
                "/content/sections/1/title",
                "/content/sections/1/rows/1/description",
                "/content/sections/1/rows/0/id",
            ],
        ),
        (
            json!({"type": "template", "name": "", "language": long(21)}),
            vec!["/content/name", "/content/language"],
        ),
    ];
    for (content, expected) in table {
        assert_eq!(places(content.clone()), expected, "{content}");
    }
}

#[test]
fn a_template_has_components_with_types() {
    let template = |component: Value| {
        places(
            json!({"type": "template", "name": "t", "language": "en", "components": [component]}),
        )
    };
    let text = json!([{"type": "text", "text": "Ana"}]);
    for good in [
        json!({"type": "body", "parameters": text}),
        json!({"type": "BODY"}),
        json!({"type": "button", "sub_type": "url", "index": "0", "parameters": text}),
        json!({"type": "button", "sub_type": "quick_reply", "index": 0, "parameters": text}),
        json!({"type": "carousel", "cards": []}),
    ] {
        assert_eq!(template(good.clone()), Vec::<String>::new(), "{good}");
    }
    let below = |place: &str| format!("/content/components/0{place}");
    for (bad, place) in [
        (json!("body"), ""),
        (json!({"parameters": text}), "/type"),
        (json!({"type": "body", "parameters": {}}), "/parameters"),
        (
            json!({"type": "body", "parameters": ["Ana"]}),
            "/parameters/0",
        ),
        (
            json!({"type": "body", "parameters": [{"text": "Ana"}]}),
            "/parameters/0/type",
        ),
        (json!({"type": "button", "index": "0"}), "/sub_type"),
        (json!({"type": "button", "sub_type": "url"}), "/index"),
    ] {
        assert_eq!(template(bad.clone()), [below(place)], "{bad}");
    }
}

#[test]
fn an_image_is_fetched_by_https_alone() {
    let link = |link: &str| places(json!({"type": "image", "link": link})).is_empty();
    for good in [
        "https://a.example/x.png",
        "HTTPS://a.example",
        "https://a.example/?q=%20",
    ] {
        assert!(link(good), "{good}");
    }
    for bad in [
        "",
        "a.example",
        "https://",
        "http://a.example/x.png",
        "file:///etc/passwd",
        " https://a.example",
        "https://a.example/a b",
        "https://a.example/\n",
    ] {
        assert!(!link(bad), "{bad:?}");
    }
}

#[test]
fn limits_count_characters_and_neither_bytes_nor_utf_16_units() {
    for character in ["\u{e9}", "\u{1f600}"] {
        let text = |chars| places(json!({"type": "text", "body": character.repeat(chars)}));
        assert!(text(4096).is_empty());
        assert_eq!(text(4097), ["/content/body"]);
    }
}

#[test]
fn no_content_is_larger_than_any_that_meta_takes_and_no_report_longer_than_anybody_reads() {
    let template = |bytes: usize| {
        json!({"type": "template", "name": "t", "language": "en",
            "components": [{"type": "body", "parameters": [{"type": "text", "text": "x".repeat(bytes)}]}]})
    };
    assert!(places(template(50_000)).is_empty());
    assert_eq!(places(template(70_000)), ["/content"]);
    let rows: Vec<_> = (0..5_000).map(|_| json!({"id": "", "title": ""})).collect();
    let endless = list(json!([{"rows": rows}]));
    assert_eq!(places(endless.clone()).len(), 100);
    assert!(graph_body(&command(endless)).unwrap_err().to_string().len() < 500);
}

#[test]
fn a_recipient_needs_one_usable_id_and_is_never_repeated() {
    for good in [
        to(Some("US.1"), None),
        to(Some("DE.ENT.13491208655302741918"), Some("+4917012345")),
        to(None, Some("123456789012345")),
    ] {
        assert_eq!(check_recipient(&good), []);
    }
    assert_eq!(check_recipient(&to(None, None))[0].at, "/to");
    for phone in [
        "",
        "0049151",
        "+4915-1",
        "1234",
        "1234567890123456",
        "++491512",
    ] {
        assert!(!is_phone(phone), "{phone}");
        let errors = check_recipient(&to(Some("US.1"), Some(phone)));
        assert_eq!((errors.len(), &*errors[0].at), (1, "/to/phone"), "{phone}");
        assert!(phone.is_empty() || !errors[0].detail.contains(phone));
    }
    let endless = format!("US.{}", "1".repeat(133));
    for user in [
        "", "a b", "US.", "us.1", "USA.1", "15550001", "US.a b", &endless,
    ] {
        assert!(!is_user_id(user), "{user}");
        let errors = check_recipient(&to(Some(user), None));
        assert_eq!((errors.len(), &*errors[0].at), (1, "/to/user_id"), "{user}");
    }
}

#[test]
fn a_command_that_cannot_be_sent_says_all_of_why_in_the_words_of_the_check() {
    let bad = SendCommand {
        id: "with space".into(),
        to: to(None, Some("12")),
        reply_to: Some(String::new()),
        ..command(json!({"type": "image", "caption": "x".repeat(1025)}))
    };
    assert_eq!(
        graph_body(&bad).unwrap_err().to_string(),
        "the message cannot be sent: `id` needs 1 to 128 printable ASCII characters; \
         `to/phone` needs country code and number in 5 to 15 digits, with or without `+`; \
         it needs either `link` or `id`; `caption` has 1025 characters, 1024 are allowed; \
         `reply_to` needs the wamid of a message"
    );
    for id in ["", "\u{fc}", &"x".repeat(129)] {
        let bad = SendCommand {
            id: id.into(),
            ..command(hello())
        };
        assert!(graph_body(&bad).is_err(), "{id:?}");
    }
    assert_eq!(Unsendable::unless_none(&[]), Ok(()));
}

#[test]
fn a_text_goes_to_the_phone_number_in_international_form_and_carries_our_id() {
    let quoting = SendCommand {
        reply_to: Some("wamid.A=".into()),
        ..command(hello())
    };
    assert_eq!(
        graph_body(&quoting).unwrap(),
        json!({
            "messaging_product": "whatsapp", "recipient_type": "individual", "to": "+15550001", "type": "text",
            "text": {"body": "hello", "preview_url": false}, "context": {"message_id": "wamid.A="},
            "biz_opaque_callback_data": "cmd-1",
        })
    );
    let to_user = SendCommand {
        to: to(Some("US.1"), None),
        ..command(hello())
    };
    let body = graph_body(&to_user).unwrap();
    assert_eq!(
        (body.get("recipient"), body.get("to")),
        (Some(&json!("US.1")), None)
    );
}

#[test]
fn every_type_has_metas_shape() {
    let parameters = json!({"type": "body", "parameters": [{"type": "text", "text": "Ana"}]});
    let table = [
        (
            json!({"type": "image", "link": "https://a.example/x.jpg", "caption": "c"}),
            json!({"type": "image", "image": {"link": "https://a.example/x.jpg", "caption": "c"}}),
        ),
        (
            json!({"type": "image", "id": "17"}),
            json!({"type": "image", "image": {"id": "17"}}),
        ),
        (
            json!({"type": "audio", "id": "17"}),
            json!({"type": "audio", "audio": {"id": "17"}}),
        ),
        (
            json!({"type": "video", "id": "17", "caption": "c"}),
            json!({"type": "video", "video": {"id": "17", "caption": "c"}}),
        ),
        (
            json!({"type": "document", "id": "17", "filename": "a.pdf"}),
            json!({"type": "document", "document": {"id": "17", "filename": "a.pdf"}}),
        ),
        (
            json!({"type": "buttons", "body": "Which?", "header": "Head", "footer": "Foot",
                "buttons": [{"id": "b0", "title": "Zero"}, {"id": "b1", "title": "One"}]}),
            json!({"type": "interactive", "interactive": {
                "type": "button", "header": {"type": "text", "text": "Head"}, "body": {"text": "Which?"},
                "footer": {"text": "Foot"},
                "action": {"buttons": [
                    {"type": "reply", "reply": {"id": "b0", "title": "Zero"}},
                    {"type": "reply", "reply": {"id": "b1", "title": "One"}},
                ]},
            }}),
        ),
        (
            list(json!([{"rows": [row(0), {"id": "1", "title": "t", "description": "more"}]}])),
            json!({"type": "interactive", "interactive": {
                "type": "list", "body": {"text": "b"},
                "action": {"button": "o", "sections": [{"rows": [row(0), {"id": "1", "title": "t", "description": "more"}]}]},
            }}),
        ),
        (
            json!({"type": "template", "name": "welcome", "language": "en_US", "components": [parameters]}),
            json!({"type": "template", "template":
                {"name": "welcome", "language": {"code": "en_US"}, "components": [parameters]}}),
        ),
        (
            json!({"type": "template", "name": "welcome", "language": "en_US"}),
            json!({"type": "template", "template": {"name": "welcome", "language": {"code": "en_US"}}}),
        ),
    ];
    for (content, expected) in table {
        let body = graph_body(&command(content)).unwrap();
        for (field, value) in expected.as_object().unwrap() {
            assert_eq!(&body[field], value);
        }
    }
}

#[test]
fn choices_are_listed_below_the_text() {
    let buttons = json!([{"id": "r", "title": "Red"}, {"id": "b", "title": "Blue"}]);
    for (content, text) in [
        (hello(), "hello"),
        (json!({"type": "image", "id": "1"}), "[image]"),
        (
            json!({"type": "image", "id": "1", "caption": "us"}),
            "[image] us",
        ),
        (json!({"type": "audio", "id": "1"}), "[audio]"),
        (
            json!({"type": "video", "id": "1", "caption": "us"}),
            "[video] us",
        ),
        (
            json!({"type": "document", "id": "1", "filename": "a.pdf", "caption": "us"}),
            "[document: a.pdf] us",
        ),
        (
            json!({"type": "buttons", "body": "Which?", "buttons": buttons}),
            "Which?\n- Red\n- Blue",
        ),
        (
            list(json!([{"rows": [row(0)]}, {"rows": [row(1)]}])),
            "b\n- t\n- t",
        ),
        (
            json!({"type": "template", "name": "welcome", "language": "en"}),
            "[template: welcome]",
        ),
    ] {
        assert_eq!(plain(&self::content(content)), text);
    }
}
