//! Characters that break lines, databases and the text beside them: shown without, kept as they came.

use super::ids::message;
use super::stage::{ACME, Stage};
use ackline_pools::events;
use ackline_shared::ids::ConversationKey;
use serde_json::{Value, json};

/// A message whose JSON is written as Meta might, with half characters that no JSON writer makes.
fn came(wamid: &str, number: &str, name: &str, body: &str) -> ackline_runtime::job::Work {
    let mut work = message(wamid, &json!({}), ConversationKey::phone(number));
    work.payload = format!(
        r#"{{"entry":[{{"id":"W","changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"1001"}},"contacts":[{{"profile":{{"name":"{name}"}},"wa_id":"{number}"}}],"messages":[{{"from":"{number}","id":"{wamid}","timestamp":"1000","type":"text","text":{{"body":"{body}"}}}}]}}}}]}}]}}"#
    )
    .into();
    work
}

#[tokio::test]
async fn bad_characters_are_shown_by_nobody_and_lost_by_nobody() {
    let stage = Stage::start().await;
    let long = "é".repeat(600);
    let cut: String = long.chars().take(256).collect();
    for (at, (name, body, shown_name, shown_body)) in [
        (r"Ana \ud83d", r"half \ud83d", "Ana", "half \u{fffd}"),
        (
            r"\ude00\ud83d\ude00",
            r"\ude00 half",
            "\u{1f600}",
            "\u{fffd} half",
        ),
        (r"A\u0000na", r"null\u0000", "Ana", "null"),
        (
            r"\u202eanA\u2066",
            r"exe.\u202egpj\u202c \u2067x\u2069",
            "anA",
            "exe.gpj x",
        ),
        (
            r"\u001b[31mAna\r\n",
            r"bell\u0007 line\nline",
            "[31mAna",
            "bell line\nline",
        ),
        (
            long.as_str(),
            "\u{200f}שלום ١٢٣ १२३ １２３ 2\u{fe0f}\u{20e3}",
            cut.as_str(),
            "\u{200f}שלום ١٢٣ १२३ １２３ 2\u{fe0f}\u{20e3}",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let (wamid, number) = (format!("wamid.{at}"), format!("49150{at}"));
        let work = came(&wamid, &number, name, body);
        let event =
            serde_json::to_value(&events::of(&work.head, &work.payload).unwrap()[0]).unwrap();
        assert_eq!(event["data"]["text"], shown_body, "{body}");
        assert_eq!(event["data"]["from"]["name"], shown_name, "{name}");
        assert_eq!(stage.journal.write_batch(&[work]).await.unwrap(), []);
        let read = stage.get(&format!("/v1/messages/{wamid}"), ACME).await.json;
        assert_eq!(read["text"], shown_body);
        let kept = read["content"]["text"]["body"].as_str().unwrap();
        let without_halves = body
            .replace(r"\ud83d", r"\ufffd")
            .replace(r"\ude00", r"\ufffd");
        let came: String = serde_json::from_str(&format!("\"{without_halves}\"")).unwrap();
        assert_eq!(kept, came, "nothing is lost");
        let id = read["conversation_id"].as_str().unwrap();
        let conversation = stage
            .get(&format!("/v1/conversations/{id}"), ACME)
            .await
            .json;
        assert_eq!(conversation["name"], shown_name);
    }
}

#[tokio::test]
async fn whoever_wrote_in_a_group_is_named_by_the_message() {
    let stage = Stage::start().await;
    let in_group = json!({"from": "4915", "from_user_id": "DE.1", "group_id": "G1"});
    let works = [
        message("wamid.g", &in_group, ConversationKey::group("G1")),
        message(
            "wamid.p",
            &json!({"from": "4915"}),
            ConversationKey::phone("4915"),
        ),
    ];
    assert_eq!(stage.journal.write_batch(&works).await.unwrap(), []);
    let read = async |wamid: &str| stage.get(&format!("/v1/messages/{wamid}"), ACME).await.json;
    let (group, private) = (read("wamid.g").await, read("wamid.p").await);
    let from: &Value = &group["from"];
    assert_eq!(*from, json!({"user_id": "DE.1", "phone": "4915"}));
    assert_eq!(private["from"], json!({"phone": "4915"}));
    assert_ne!(group["conversation_id"], private["conversation_id"]);
    let id = group["conversation_id"].as_str().unwrap();
    let conversation = stage
        .get(&format!("/v1/conversations/{id}"), ACME)
        .await
        .json;
    assert_eq!(
        (&conversation["group_id"], &conversation["phone"]),
        (&json!("G1"), &json!(null))
    );
}
