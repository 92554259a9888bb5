//! Splitting against an obviously right reference that parses the whole delivery into a tree.

use ackline_ingress::split::split;
use ackline_ingress_testkit::invariants::compare;
use bytes::Bytes;
use proptest::prelude::*;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value};

const ARRAYS: [&str; 4] = ["messages", "statuses", "message_echoes", "calls"];

/// One update as the reference sees it: where it is, and what surrounds it.
#[derive(Debug, PartialEq)]
struct Expected {
    array: Option<&'static str>,
    element: Value,
    /// The delivery without what may be cut: `entry`, `changes`, the arrays and `contacts`.
    frame: [Value; 4],
}

fn expected(delivery: &Value) -> Vec<Expected> {
    let mut out = Vec::new();
    for entry in delivery["entry"].as_array().unwrap() {
        let changes = entry["changes"].as_array().cloned().unwrap_or_default();
        if changes.is_empty() {
            let frame = [
                without(delivery, &["entry"]),
                Value::Null,
                Value::Null,
                Value::Null,
            ];
            out.push(Expected {
                array: None,
                element: entry.clone(),
                frame,
            });
        }
        for change in &changes {
            let outer = [without(delivery, &["entry"]), without(entry, &["changes"])];
            let value = &change["value"];
            let [delivery, entry] = outer;
            let before = out.len();
            if change["field"] != "history" && value.get("history").is_none() {
                // In the order in which the arrays stand in the value.
                for (name, items) in value.as_object().into_iter().flatten() {
                    let Some(array) = ARRAYS.iter().find(|array| *array == name) else {
                        continue;
                    };
                    for element in items.as_array().into_iter().flatten() {
                        let mut cut: Vec<&str> = vec!["contacts"];
                        cut.extend(ARRAYS.iter().filter(|name| is_filled(value.get(**name))));
                        let frame = [
                            delivery.clone(),
                            entry.clone(),
                            without(change, &["value"]),
                            without(value, &cut),
                        ];
                        out.push(Expected {
                            array: Some(array),
                            element: element.clone(),
                            frame,
                        });
                    }
                }
            }
            if out.len() == before {
                let frame = [delivery, entry, Value::Null, Value::Null];
                out.push(Expected {
                    array: None,
                    element: change.clone(),
                    frame,
                });
            }
        }
    }
    out
}

fn is_filled(value: Option<&Value>) -> bool {
    value
        .and_then(Value::as_array)
        .is_some_and(|items| !items.is_empty())
}

fn without(value: &Value, names: &[&str]) -> Value {
    let members = value.as_object().into_iter().flatten();
    let kept: Map<_, _> = members
        .filter(|(name, _)| !names.contains(&name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    Value::Object(kept)
}

/// The raw bytes of every element of the four arrays, in order.
fn raw_elements(delivery: &str) -> Vec<String> {
    #[derive(Deserialize)]
    struct Delivery<'a> {
        #[serde(borrow)]
        entry: Vec<&'a RawValue>,
    }
    let mut out = Vec::new();
    for entry in serde_json::from_str::<Delivery<'_>>(delivery)
        .unwrap()
        .entry
    {
        let changes = raw_member(entry, "changes").unwrap_or_default();
        for change in serde_json::from_str::<Vec<&RawValue>>(&changes).unwrap_or_default() {
            let value = raw_member(change, "value").unwrap_or_default();
            for (name, items) in raw_members(&value) {
                if ARRAYS.contains(&name.as_str()) {
                    let items = serde_json::from_str::<Vec<&RawValue>>(&items).unwrap_or_default();
                    out.extend(items.into_iter().map(|item| item.get().to_owned()));
                }
            }
        }
    }
    out
}

fn raw_member(object: &RawValue, name: &str) -> Option<String> {
    raw_members(object.get())
        .into_iter()
        .find(|(key, _)| key == name)
        .map(|(_, value)| value)
}

fn raw_members(object: &str) -> Vec<(String, String)> {
    // A map that keeps the order and the raw values.
    struct Members(Vec<(String, String)>);
    impl<'de> Deserialize<'de> for Members {
        fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
            struct Visitor;
            impl<'de> serde::de::Visitor<'de> for Visitor {
                type Value = Members;
                fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                    f.write_str("an object")
                }
                fn visit_map<A: serde::de::MapAccess<'de>>(
                    self,
                    mut map: A,
                ) -> Result<Members, A::Error> {
                    let mut out = Vec::new();
                    while let Some((key, value)) = map.next_entry::<String, Box<RawValue>>()? {
                        out.push((key, value.get().to_owned()));
                    }
                    Ok(Members(out))
                }
            }
            d.deserialize_map(Visitor)
        }
    }
    serde_json::from_str::<Members>(object)
        .map(|members| members.0)
        .unwrap_or_default()
}

/// Any JSON Meta might add one day, written in ways a re-serialiser would change.
fn anything() -> impl Strategy<Value = String> {
    prop::sample::select(vec![
        r#""caf\u00e9 \ud83d\ude00 https:\/\/x""#,
        r#""\"}]{[\\""#,
        "123456789012345678901234567890",
        "1.50e+3",
        "-0",
        "null",
        "true",
        "[ ]",
        r#"{ "messages" : [ {"id":"inner"} ] , "b":[[{}]] }"#,
        r#"[1 , {"entry":[]}]"#,
    ])
    .prop_map(str::to_owned)
}

fn extras() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec((0..4_u8, anything()), 0..3).prop_map(|extras| {
        let named = extras.into_iter().enumerate();
        named
            .map(|(index, (name, value))| format!(r#""x_{index}\u005f{name}" : {value}"#))
            .collect()
    })
}

fn object(mut members: Vec<String>, turn: usize, space: bool) -> String {
    let middle = turn % members.len().max(1);
    members.rotate_left(middle);
    let (open, comma, close) = if space {
        ("{\n ", " ,\t", " }")
    } else {
        ("{", ",", "}")
    };
    format!("{open}{}{close}", members.join(comma))
}

fn array(items: &[String], space: bool) -> String {
    let comma = if space { " , " } else { "," };
    format!("[{}]", items.join(comma))
}

fn element() -> impl Strategy<Value = String> {
    let person = prop::sample::select(vec![
        r#""from":"491""#,
        r#""from_user_id":"US.1","from":"491""#,
        r#""recipient_id":"492""#,
        r#""recipient_user_id":"US.2""#,
        r#""to":"493","from":"1""#,
        r#""group_id":"G1""#,
        r#""from":null"#,
    ]);
    let what = prop::sample::select(vec![
        r#""type":"text","text":{"body":"hi \ud83d\ude00"}"#,
        r#""status":"delivered""#,
        r#""event":"connect","direction":"BUSINESS_INITIATED""#,
        r#""type":7"#,
    ]);
    let shaped = (
        person,
        what,
        0..50_u32,
        extras(),
        any::<usize>(),
        any::<bool>(),
    )
        .prop_map(|(person, what, id, extras, turn, space)| {
            let mut members = vec![
                person.to_owned(),
                what.to_owned(),
                format!(r#""id":"wamid.{id}=""#),
            ];
            members.extend(extras);
            object(members, turn, space)
        });
    prop_oneof![9 => shaped, 1 => anything()]
}

fn change() -> impl Strategy<Value = String> {
    let member = |name: &'static str| {
        let filled = prop::collection::vec(element(), 0..4)
            .prop_map(move |items| Some(format!(r#""{name}" : {}"#, array(&items, false))));
        let odd = anything().prop_map(move |value| Some(format!(r#""{name}":{value}"#)));
        prop_oneof![4 => Just(None), 5 => filled, 1 => odd]
    };
    let contact = prop::sample::select(vec![
        r#"{"wa_id":"491","user_id":"US.1"}"#,
        r#"{"wa_id":"492"}"#,
        r#"{"user_id":"US.2","profile":{"name":"\u00e9"}}"#,
        "null",
    ]);
    let contacts = prop::collection::vec(contact.prop_map(str::to_owned), 0..3)
        .prop_map(|items| format!(r#""contacts":{}"#, array(&items, true)));
    let field = prop::sample::select(vec![
        "messages",
        "mess\\u0061ges",
        "standby",
        "messaging_handovers",
        "calls",
        "history",
        "account_update",
        "something new",
        "",
    ]);
    let party = prop::sample::select(vec![
        r#""recipient":{"phone_number_id":"200"}"#,
        r#""recipient":{"phone_number_id":"","x":{"phone_number_id":"200"}}"#,
        r#""recipient":"100","sender":{"user_id":7}"#,
        r#""recipient":{"phone_number_id":100},"sender":{"phone_number":"+491"},"control_taken":{}"#,
        r#""sender":{"user_id":"US.1","phone_number":"491"},"control_passed":{"new_owner_role":"A"}"#,
        r#""sender":{"phone_number":"491"},"sender":null,"recipient":{"phone_number_id":"200"},"recipient":[]"#,
    ]);
    let parties = prop::collection::vec(party.prop_map(str::to_owned), 0..3);
    let arrays = (
        member("messages"),
        member("statuses"),
        member("message_echoes"),
        member("calls"),
    );
    let shape = (any::<usize>(), any::<usize>(), any::<bool>(), any::<bool>());
    let shaped = (arrays, contacts, field, extras(), extras(), shape, parties).prop_map(
        |(
            (messages, statuses, echoes, calls),
            contacts,
            field,
            inner,
            outer,
            (turn, turn_outer, space, bare),
            parties,
        )| {
            let mut members: Vec<_> = [messages, statuses, echoes, calls]
                .into_iter()
                .flatten()
                .collect();
            if !bare {
                members.push(contacts);
                members.push(r#""metadata":{"phone_number_id":"100"}"#.to_owned());
            }
            members.extend(inner);
            members.extend(parties);
            let value = object(members, turn, space);
            let mut members = vec![
                format!(r#""value":{value}"#),
                format!(r#""field":"{field}""#),
            ];
            members.extend(outer);
            object(members, turn_outer, space)
        },
    );
    prop_oneof![12 => shaped, 1 => anything()]
}

fn delivery() -> impl Strategy<Value = String> {
    let changes = prop::collection::vec(change(), 0..4);
    let entry = (changes, extras(), any::<usize>(), any::<bool>(), 0..3_u8).prop_map(
        |(changes, extras, turn, space, id)| {
            let mut members = vec![
                format!(r#""changes":{}"#, array(&changes, space)),
                format!(r#""id":"W{id}""#),
            ];
            members.extend(extras);
            object(members, turn, space)
        },
    );
    let entries = prop::collection::vec(entry, 1..4);
    (entries, extras(), any::<usize>(), any::<bool>()).prop_map(|(entries, extras, turn, space)| {
        let mut members = vec![
            r#""object":"whatsapp_business_account""#.to_owned(),
            format!(r#""entry": {}"#, array(&entries, space)),
        ];
        members.extend(extras);
        object(members, turn, space)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn every_update_is_found_once_and_cut_out_byte_for_byte(text in delivery()) {
        let body = Bytes::from(text.clone());
        prop_assert_eq!(compare(text.as_bytes()).err(), None);
        let split = split(&body).unwrap();
        let tree: Value = serde_json::from_str(&text).unwrap();
        let expected = expected(&tree);
        prop_assert_eq!(split.len(), expected.len());
        let raw = raw_elements(&text);
        let mut seen = 0;
        for (found, expected) in split.updates().zip(&expected) {
            let payload = split.payload(&found);
            if split.len() == 1 {
                prop_assert_eq!(&payload, &body);
                continue;
            }
            let payload = std::str::from_utf8(&payload).unwrap();
            let tree: Value = serde_json::from_str(payload).unwrap();
            let alone = self::expected(&tree);
            prop_assert_eq!(alone.len(), 1, "{}", payload);
            prop_assert_eq!(&alone[0], expected, "{}", payload);
            if expected.array.is_some() {
                // Elements of the reference's order: those of history are in it too, and never cut.
                let bytes = raw_elements(payload);
                prop_assert_eq!(bytes.len(), 1);
                let at = raw.iter().skip(seen).position(|element| *element == bytes[0]);
                prop_assert!(at.is_some(), "{} is not in the delivery", bytes[0]);
                seen += at.unwrap() + 1;
            }
        }
    }
}
