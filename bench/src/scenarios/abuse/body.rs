//! Webhooks as Meta would send them, and as somebody would who can sign.

use std::fmt::Write;

/// A webhook with one text message of a person.
pub fn text(number: &str, waba: &str, person: &str, id: &str, words: &str) -> String {
    messages(
        number,
        waba,
        &format!(
            r#"{{"from":"15550000001","from_user_id":"{person}","id":"{id}","timestamp":"1795300000","text":{{"body":"{words}"}},"type":"text"}}"#
        ),
        &format!(
            r#""contacts":[{{"profile":{{"name":"Person"}},"wa_id":"15550000001","user_id":"{person}"}}],"#
        ),
    )
}

/// A webhook with as many messages as told, each as short as it can be.
pub fn many(number: &str, waba: &str, start: &str, count: usize) -> String {
    let mut all = String::with_capacity(count * 28);
    for nth in 0..count {
        // Writing to a String cannot fail.
        let _ = write!(
            all,
            "{}{{\"id\":\"{start}.{nth:04}\"}}",
            if nth == 0 { "" } else { "," }
        );
    }
    messages(number, waba, &all, "")
}

fn messages(number: &str, waba: &str, messages: &str, contacts: &str) -> String {
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"{waba}","changes":[{{"value":{{"messaging_product":"whatsapp","metadata":{{"display_phone_number":"15550783881","phone_number_id":"{number}"}},{contacts}"messages":[{messages}]}},"field":"messages"}}]}}]}}"#
    )
}

/// A flow of about such a length: texts that are compiled, or a drawing that nobody reads.
pub fn flow(name: &str, bytes: usize, is_drawing: bool) -> String {
    const TEXT: usize = 4_000;
    let filler = "x".repeat(TEXT);
    let (mut nodes, mut drawing) = (String::new(), String::new());
    for nth in 0..bytes / TEXT {
        let _ = if is_drawing {
            write!(drawing, "{}\"{filler}\"", if nth == 0 { "" } else { "," })
        } else {
            write!(
                nodes,
                r#""n{nth}":{{"kind":"message.text","body":"{filler}{{{{message.text}}}}","exits":{{"next":"n{}"}}}},"#,
                nth + 1
            )
        };
    }
    let start = if is_drawing { "end" } else { "n0" };
    let last = if is_drawing {
        String::new()
    } else {
        format!(r#""n{}":{{"kind":"end","outcome":"done"}},"#, bytes / TEXT)
    };
    format!(
        r#"{{"definition":{{"format":1,"name":"{name}","entry":[{{"on":"any"}}],"start":"{start}","variables":{{}},"nodes":{{{nodes}{last}"end":{{"kind":"end","outcome":"done"}}}},"ui":[{drawing}]}}}}"#
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn what_is_sent_is_json_of_the_size_it_should_have() {
        let parsed = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let text = text("1", "W", "US.1", "wamid.1", "words");
        let message = "/entry/0/changes/0/value/messages/0/text/body";
        assert_eq!(parsed(&text).pointer(message).unwrap(), "words");
        let many = many("106540352242922", "W2", "m000001", 8192);
        let all = parsed(&many);
        assert_eq!(
            all.pointer("/entry/0/changes/0/value/messages")
                .unwrap()
                .as_array()
                .unwrap()
                .len(),
            8192
        );
        assert!(
            (160 << 10..230 << 10).contains(&many.len()),
            "{}",
            many.len()
        );
        for is_drawing in [true, false] {
            let flow = flow("f", 900_000, is_drawing);
            assert!(parsed(&flow).pointer("/definition/nodes/end").is_some());
            assert!((890_000..1 << 20).contains(&flow.len()), "{}", flow.len());
        }
    }
}
