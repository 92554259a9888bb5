//! What the edge writes into a head is what the pools read from the payload: the same kind, id, person, number and account,
//! however strange the delivery. Where they cannot read it, they say so, and it becomes a dead letter.

use ackline_ingress::routing::RoutingTable;
use ackline_ingress::split::element::kind;
use ackline_ingress::split::split;
use ackline_ingress::split::stamping::{Arrival, Stamp, Stamped};
use ackline_ingress::store::Update;
use ackline_ingress_testkit::fixture;
use ackline_shared::envelope::Family;
use ackline_shared::ids::{ConversationKey, PhoneNumberId, UpdateId, token};
use ackline_shared::meta::{self, Body, ReadError};
use ackline_shared::recipient::Recipient;
use ackline_shared::subjects::Class;
use bytes::Bytes;
use proptest::prelude::*;
use serde_json::Value;
use std::sync::LazyLock;

static TABLE: LazyLock<RoutingTable> = LazyLock::new(fixture::table);

/// The updates that the edge finds in a delivery; none in what it keeps as unreadable.
fn updates(body: &[u8]) -> Vec<Update> {
    let body = Bytes::copy_from_slice(body);
    let arrival = Arrival::now(b"sha256=", 1, 1);
    let stamp = Stamp {
        table: &TABLE,
        app: TABLE.app("main").unwrap(),
        partitions: 32,
        arrival: &arrival,
    };
    split(&body).map_or_else(
        |_| Vec::new(),
        |split| Stamped::new(stamp, &split, &mut Vec::new()).collect(),
    )
}

/// What does not agree between a head and what the pools read.
fn disagreement(update: &Update) -> Option<String> {
    let head = &update.head;
    let read = match meta::read(&update.payload) {
        Ok(read) => read,
        // Every pool says so; JSON beyond what readers keep, such as 1e400, is all there may be.
        Err(ReadError::Json(error)) if error.contains("number out of range") => return None,
        // Deliveries of other products are kept whole, for nobody yet.
        Err(ReadError::Shape)
            if ["page.", "instagram.", "object."]
                .iter()
                .any(|kind| head.kind.starts_with(kind)) =>
        {
            return None;
        }
        Err(error) => return Some(format!("{} cannot be read: {error}", head.kind)),
    };
    if ["page.", "instagram.", "object."]
        .iter()
        .any(|kind| head.kind.starts_with(kind))
    {
        return None;
    }
    let phone = read
        .phone_number_id
        .as_deref()
        .and_then(|phone| PhoneNumberId::new(phone).ok());
    if head.phone != phone {
        return Some(format!("number {:?}, read as {phone:?}", head.phone));
    }
    let field = read
        .field
        .as_deref()
        .filter(|field| *field != meta::MESSAGES)
        .map(token);
    if head.field.as_deref() != field.as_deref() {
        return Some(format!("under {:?}, read as {field:?}", head.field));
    }
    let family = head.kind.split('.').next().unwrap_or_default();
    match (&read.body, family) {
        (Body::Message(message), "message") => {
            let (told, id) = (
                kind("message", Some(&message.content.kind)),
                UpdateId::new(&message.id),
            );
            (told != head.kind || (!message.id.is_empty() && id != head.id))
                .then(|| format!("{} {:?}, read as {told} {id:?}", head.kind, head.id))
                .or_else(|| with(head, &message.from))
        }
        (Body::Status(status), "status") => {
            let told = kind("status", Some(&status.status));
            let participant = match status.raw.get("recipient_participant_id") {
                Some(Value::String(text)) if !text.is_empty() => format!(":{text}"),
                Some(Value::Number(number)) if number.is_u64() => format!(":{number}"),
                _ => String::new(),
            };
            let id = UpdateId::new(&format!("{}:{}{participant}", status.id, status.status));
            (told != head.kind || (!status.id.is_empty() && id != head.id))
                .then(|| format!("{} {:?}, read as {told} {id:?}", head.kind, head.id))
        }
        (Body::Other(_), "handover") => match read.handover() {
            Some(handover) => with(head, &handover.person),
            None => (head.kind != "handover.unknown" && !is_contradictory(&update.payload))
                .then(|| format!("{}, read as none", head.kind)),
        },
        (Body::Echo(echo), "echo") => {
            let (told, id) = (
                kind("echo", Some(&echo.content.kind)),
                UpdateId::new(&echo.id),
            );
            (told != head.kind || (!echo.id.is_empty() && id != head.id))
                .then(|| format!("{} {:?}, read as {told} {id:?}", head.kind, head.id))
                .or_else(|| with(head, &echo.from))
        }
        (Body::Other(value), "call") => value.get("calls").is_none().then(|| "no call".to_owned()),
        (Body::Other(_), "account") => {
            let told = kind("account", read.field.as_deref());
            (told != head.kind).then(|| format!("{}, read as {told}", head.kind))
        }
        (body, family) => Some(format!("{family}, read as {body:?}")),
    }
}

/// Whether a conversation is told to be both passed and taken.
fn is_contradictory(payload: &[u8]) -> bool {
    let payload = String::from_utf8_lossy(payload);
    payload.contains("control_passed") && payload.contains("control_taken")
}

fn with(head: &ackline_shared::envelope::Head, person: &Recipient) -> Option<String> {
    let told = match (&person.user_id, &person.phone) {
        (Some(user), _) => ConversationKey::user(user),
        (None, Some(phone)) => ConversationKey::phone(phone),
        (None, None) => ConversationKey::none(),
    };
    let is_group = head.conversation.as_str().starts_with("g:");
    (!is_group && told != head.conversation)
        .then(|| format!("with {:?}, read as {told:?}", head.conversation))
}

fn agree(body: &[u8]) -> usize {
    let updates = updates(body);
    for update in &updates {
        if let Some(disagreement) = disagreement(update) {
            panic!(
                "{disagreement}: {}",
                String::from_utf8_lossy(&update.payload)
            );
        }
        let class = match update.head.family {
            Family::Update(class) => class,
            other => panic!("{other:?}"),
        };
        let is_routed = !update.head.tenant.is_unrouted();
        assert!(!is_routed || (class == Class::Status) == update.head.kind.starts_with("status."));
    }
    updates.len()
}

fn envelope(value: &str) -> String {
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W1","changes":[{{"field":"messages","value":{value}}}]}}]}}"#
    )
}

fn messages(elements: &str) -> String {
    envelope(&format!(
        r#"{{"metadata":{{"phone_number_id":"100"}},"contacts":[{{"wa_id":"49","user_id":"US.1"}}],"messages":[{elements}]}}"#
    ))
}

#[test]
fn strange_messages_are_one_thing_to_the_edge_and_the_pools() {
    for element in [
        r#"{"id":"wamid.A","from":"49","type":"text","timestamp":"1763784000","text":{"body":"hi"}}"#,
        // Ids and kinds that are numbers, of every kind JSON has, and more than fit.
        r#"{"id":7,"from":49,"type":5}"#,
        r#"{"id":-7,"from":4.9,"type":1e3}"#,
        r#"{"id":18446744073709551615,"from":18446744073709551616,"type":-0}"#,
        r#"{"id":12345678901234567890123,"from":0,"type":"text"}"#,
        r#"{"id":"w","from":"49","x":1e400}"#,
        // The last of several members counts, whatever it is.
        r#"{"id":"first","id":"last","from":"49","from":"50","type":"text","type":"image"}"#,
        r#"{"id":"first","id":{},"from":"49","from":null,"type":"text","type":[]}"#,
        r#"{"id":{},"id":"last","type":[],"type":"text","from":true,"from":"49"}"#,
        // Escapes, in keys, in values, and where half a character is left.
        r#"{"\u0069d":"wamid\u002eA","fr\u006fm":"\u0034\u0039","t\u0079pe":"te\u0078t"}"#,
        r#"{"id":"wamid\ud83d","from":"49\ud83d","type":"te\udc00xt"}"#,
        r#"{"id\ud83d":"no","id":"yes","type":"text"}"#,
        r#"{"id":"a\u0000b","from":"4\n9","type":"te\u0000xt"}"#,
        r#"{"id":"😀","from":"+49","type":"TEXT"}"#,
        // Nothing, of every kind.
        r#"{"id":"","from":"","type":""}"#,
        r#"{"id":null,"from":false,"type":{}}"#,
        "{}",
        "null",
        "7",
        r#""text""#,
        "[]",
        r#"[{"id":"w"}]"#,
        // Times that are none, and people by several names.
        r#"{"id":"w","from":"49","timestamp":99999999999999999999}"#,
        r#"{"id":"w","from":"49","timestamp":{"s":1}}"#,
        r#"{"id":"w","from":"50","from_user_id":"US.2"}"#,
        r#"{"id":"w","from":"50"}"#,
        r#"{"id":"w","from_user_id":"US.1"}"#,
        // People who have other ids from now on.
        r#"{"id":"w","from":"49","from_user_id":"US.1","type":"system","system":{"type":"user_changed_number","wa_id":"50","user_id":"US.2"}}"#,
        r#"{"id":"w","from":"49","type":"system","system":{"user_id":"US.2","user_id":7,"previous_user_id":"US.1"}}"#,
        r#"{"id":"w","from":"49","system":{"wa_id":"50"},"system":{"new_wa_id":"51"},"type":"system"}"#,
        r#"{"id":"w","from":"49","system":{"wa_id":"50"},"system":[],"type":"system"}"#,
        r#"{"id":"w","from":"49","system":{"wa_id":"50"},"type":"text"}"#,
        r#"{"id":"w","from":"5521987654321","type":"text"}"#,
        r#"{"id":"w","from":"49","group_id":"G"}"#,
        r#"{"id":"w","from":"49","group_id":7}"#,
    ] {
        assert_eq!(agree(messages(element).as_bytes()), 1, "{element}");
        // As one of a batch, too.
        assert_eq!(
            agree(messages(&format!(r#"{element},{{"id":"other","from":"51"}}"#)).as_bytes()),
            2
        );
    }
}

#[test]
fn a_person_has_their_own_contact_among_others_and_in_a_batch() {
    let contacts = r#"{"wa_id":"49","user_id":"US.1","profile":{"name":"Ann"}},{"wa_id":50,"user_id":"US.2","profile":{"name":"Bob"}}"#;
    let elements = r#"{"id":"a","from":"50"},{"id":"b","from":"49"},{"id":"c","from":"51"},{"id":"d","from_user_id":"US.2"},{"id":"e"}"#;
    let value = format!(
        r#"{{"metadata":{{"phone_number_id":100}},"contacts":[{contacts}],"messages":[{elements}]}}"#
    );
    let updates = updates(envelope(&value).as_bytes());
    let names: Vec<_> = updates
        .iter()
        .map(|update| match meta::read(&update.payload).unwrap().body {
            Body::Message(message) => message.name,
            other => panic!("{other:?}"),
        })
        .collect();
    let names: Vec<_> = names.iter().map(Option::as_deref).collect();
    assert_eq!(names, [Some("Bob"), Some("Ann"), None, Some("Bob"), None]);
    assert_eq!(agree(envelope(&value).as_bytes()), 5);
}

#[test]
fn strange_values_are_one_thing_to_the_edge_and_the_pools() {
    let message = r#"{"id":"w","from":"49","type":"text"}"#;
    let status = r#"{"id":"w","status":"read","recipient_id":"49"}"#;
    for value in [
        format!(r#"{{"messages":[{message}],"statuses":[{status}]}}"#),
        format!(r#"{{"statuses":[{status},{{"id":3,"status":4}},{{}},null]}}"#),
        format!(r#"{{"messages":{{"0":{message}}}}}"#),
        format!(r#"{{"messages":[],"statuses":{{"0":{status}}}}}"#),
        format!(r#"{{"message\u0073":[{message}]}}"#),
        format!(r#"{{"messages":[{message}],"history":[]}}"#),
        r#"{"message_echoes":[{"id":1,"to":"49"}],"calls":[{"id":"c","event":"connect"}]}"#
            .to_owned(),
        r#"{"contacts":[{"wa_id":"49","user_id":"US.1"}],"message_echoes":[{"id":"e","from":"1","to":"49","type":"text"},{"to":"50","recipient_user_id":"US.2","to_user_id":""},{"to":"+5521987654321","type":7}]}"#
            .to_owned(),
        format!(r#"{{"metadata":{{"phone_number_id":100}},"messages":[{message}]}}"#),
        format!(r#"{{"metadata":{{"phone_number_id":""}},"messages":[{message}]}}"#),
        format!(r#"{{"metadata":{{"phone_number_id":"1\ud8000"}},"messages":[{message}]}}"#),
        format!(r#"{{"metadata":{{"phone_number_id":1.5}},"messages":[{message}]}}"#),
        format!(r#"{{"metadata":[{{"phone_number_id":"100"}}],"messages":[{message}]}}"#),
        format!(r#"{{"contacts":{{"0":{{"user_id":"US.9"}}}},"messages":[{message}]}}"#),
        format!(r#"{{"contacts":[null],"messages":[{message}]}}"#),
        format!(r#"[{{"messages":[{message}]}}]"#),
        "{}".to_owned(),
        "null".to_owned(),
        "7".to_owned(),
        format!("{}1{}", r#"{"a":"#.repeat(90), "}".repeat(90)),
        format!(
            r#"{{"messages":[{{"id":"w","deep":{}1{}}}]}}"#,
            "[".repeat(90),
            "]".repeat(90)
        ),
    ] {
        assert!(agree(envelope(&value).as_bytes()) > 0, "{value}");
    }
    let object = r#""object":"whatsapp_business_account""#;
    for value in [
        format!(r#"{{"recipient":{{"phone_number_id":200}},"messages":[{message}]}}"#),
        format!(
            r#"{{"metadata":{{"phone_number_id":""}},"recipient":{{"phone_number_id":"200"}},"messages":[{message}]}}"#
        ),
        r#"{"sender":{"phone_number":"+49"},"recipient":{"phone_number_id":"100"},"control_taken":{}}"#
            .to_owned(),
        r#"{"sender":{"user_id":"US.1","phone_number":49},"control_passed":{"new_owner_role":"A"}}"#
            .to_owned(),
        r#"{"sender":{"user_id":""},"sender":{"phone_number":"49"},"control_taken":{},"control_passed":{}}"#
            .to_owned(),
        r#"{"sender":{"phone_number":1.5},"recipient":{"phone_number_id":"100"},"control_taken":{}}"#
            .to_owned(),
        r#"{"sender":{"phone_number":"49"},"sender":[],"control_taken":null}"#.to_owned(),
        r#"{"\u0073ender":{"phone_numbe\u0072":"49"},"history":[],"control_hidden":{}}"#.to_owned(),
    ] {
        for field in ["standby", "messaging_handovers", "messages"] {
            let body = envelope(&value).replace("\"messages\",\"value\"", &format!("\"{field}\",\"value\""));
            assert!(agree(body.as_bytes()) > 0, "{field} {value}");
        }
    }
    for body in [
        format!(r#"{{{object},"entry":[{{"id":"W1"}}]}}"#),
        format!(r#"{{{object},"entry":[{{"id":"W1","changes":[]}}]}}"#),
        format!(
            r#"{{{object},"entry":[{{"id":7,"changes":{{"0":{{"value":{{"messages":[{message}]}}}}}}}}]}}"#
        ),
        format!(r#"{{{object},"entry":[null]}}"#),
        format!(r#"{{{object},"entry":[{{"changes":[null]}}]}}"#),
        format!(r#"{{{object},"entry":[{{"changes":[{{"field":"x"}}]}}]}}"#),
        format!(r#"{{{object},"entry":[{{"changes":[{{"field":5,"value":{{}}}}]}}]}}"#),
        format!(
            r#"{{{object},"entry":[{{"changes":[{{"field":"history","value":{{"messages":[{message}]}}}}]}}]}}"#
        ),
        format!(
            r#"{{{object},"entry":[{{"changes":[{{"field":"x","field":"messages","value":{{"messages":[{message}]}}}}]}}]}}"#
        ),
        format!(
            r#"{{"\u006fbject":"whatsapp_business\u005faccount","entr\u0079":[{{"change\u0073":[{{"valu\u0065":{{"messages":[{message}]}}}}]}}]}}"#
        ),
        r#"{"object":"page","entry":[{"messaging":[{}]}]}"#.to_owned(),
    ] {
        assert!(agree(body.as_bytes()) > 0, "{body}");
    }
    // What the edge does not take for an update is kept whole, and no pool is asked.
    for body in [
        format!("\u{feff}{}", messages(message)),
        messages(message).replace("49", "4\u{0}9"),
        messages(message) + "x",
    ] {
        assert_eq!(agree(body.as_bytes()), 0);
        assert!(meta::read(body.as_bytes()).is_err(), "{body}");
    }
}

#[test]
fn the_corpora_of_the_fuzz_targets_are_read_as_one() {
    let mut count = 0;
    for target in ["edge", "split"] {
        let directory = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
        for file in std::fs::read_dir(directory).unwrap() {
            count += agree(&std::fs::read(file.unwrap().path()).unwrap());
        }
    }
    assert!(count > 100, "{count}");
}

/// Something that may stand where an id, a kind or an object is expected.
fn anything() -> impl Strategy<Value = String> {
    let fixed = [
        "7",
        "-7",
        "1.5",
        "1e400",
        "18446744073709551616",
        "null",
        "true",
        "[]",
        "{}",
        r#""""#,
        r#""49""#,
        r#""50""#,
        r#""US.1""#,
        r#""text""#,
        r#""read""#,
        r#""\ud83d""#,
        r#""\u0034""#,
        r#""history""#,
        r#""system""#,
        r#""5521987654321""#,
        r#""552187654321""#,
        r#"{"wa_id":"50","user_id":"US.1"}"#,
        r#"{"new_wa_id":"5521987654321","wa_id":7}"#,
        r#"{"0":{"id":"w"}}"#,
    ];
    let fixed = fixed.map(str::to_owned).to_vec();
    prop_oneof![prop::sample::select(fixed), "\"[a-zA-Z0-9.+ é]{0,6}\""]
}

/// A field that may be one of those that count.
fn field() -> impl Strategy<Value = String> {
    let known = [
        r#""messages""#,
        r#""standby""#,
        r#""messaging_handovers""#,
        r#""messaging\u005fhandovers""#,
    ];
    prop_oneof![
        anything(),
        prop::sample::select(known.map(str::to_owned).to_vec())
    ]
}

fn object(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    prop::collection::vec((prop::sample::select(names.to_vec()), anything()), 0..6).prop_map(
        |members| {
            let members: Vec<_> = members
                .iter()
                .map(|(name, value)| format!("\"{name}\":{value}"))
                .collect();
            format!("{{{}}}", members.join(","))
        },
    )
}

fn array(names: &'static [&'static str]) -> impl Strategy<Value = String> {
    let element = prop_oneof![4 => object(names), 1 => anything()];
    prop::collection::vec(element, 0..4).prop_map(|elements| format!("[{}]", elements.join(",")))
}

const MESSAGE: &[&str] = &[
    "id",
    "type",
    "from",
    "from_user_id",
    "group_id",
    "timestamp",
    "text",
    "system",
];
const STATUS: &[&str] = &[
    "id",
    "status",
    "recipient_id",
    "recipient_user_id",
    "recipient_type",
    "recipient_participant_id",
];

proptest! {
    #[test]
    fn any_delivery_is_read_as_one(
        metadata in object(&["phone_number_id", "display_phone_number"]),
        contacts in prop_oneof![array(&["wa_id", "user_id"]), anything()],
        messages in prop_oneof![3 => array(MESSAGE), 1 => anything()],
        statuses in prop_oneof![array(STATUS), anything()],
        (field, waba, more) in (field(), anything(), object(&["history", "calls", "x", "control_taken", "control_passed"])),
        (sender, recipient) in (object(&["user_id", "phone_number"]), object(&["phone_number_id"])),
    ) {
        let more = more.trim_matches(['{', '}']);
        let more = if more.is_empty() { String::new() } else { format!(",{more}") };
        let value = format!(r#"{{"metadata":{metadata},"contacts":{contacts},"messages":{messages},"statuses":{statuses},"sender":{sender},"recipient":{recipient}{more}}}"#);
        agree(format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":{waba},"changes":[{{"field":{field},"value":{value}}}]}}]}}"#
        ).as_bytes());
    }
}
