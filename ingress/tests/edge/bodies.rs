//! Bodies of every shape: what each becomes, and that none breaks anything.

use ackline_ingress::split::stamping::{Arrival, Stamp, Stamped};
use ackline_ingress::split::{Unreadable, split};
use ackline_ingress_testkit::connection;
use ackline_ingress_testkit::fixture;
use ackline_ingress_testkit::invariants::{check, compare};
use ackline_shared::envelope::Family;
use ackline_shared::ids::ConversationKey;
use ackline_shared::subjects::Class;
use bytes::Bytes;
use proptest::prelude::*;

fn kinds(body: &str) -> Vec<String> {
    let body = Bytes::copy_from_slice(body.as_bytes());
    split(&body)
        .unwrap()
        .updates()
        .map(|found| format!("{}@{}", found.kind, found.id.as_str()))
        .collect()
}

fn value(members: &str) -> String {
    format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W1","changes":[{{"field":"messages","value":{{"metadata":{{"phone_number_id":"100"}},{members}}}}}]}}]}}"#
    )
}

#[test]
fn a_value_with_messages_and_statuses_is_split_into_both_classes() {
    let body = Bytes::from(value(
        r#""contacts":[{"wa_id":"1","user_id":"US.1"}],"messages":[{"id":"wamid.A","from":"1","type":"text"}],"statuses":[{"id":"wamid.B","status":"read","recipient_id":"2"}]"#,
    ));
    let split = split(&body).unwrap();
    let seen: Vec<_> = split
        .updates()
        .map(|found| {
            let conversation = ConversationKey::from(found.conversation)
                .as_str()
                .to_owned();
            format!(
                "{:?} {} {} {conversation}",
                found.class,
                found.kind,
                found.id.as_str()
            )
        })
        .collect();
    assert_eq!(
        seen,
        [
            "Message message.text wamid.A u:US.1",
            "Status status.read wamid.B:read p:2",
        ]
    );
    let status = String::from_utf8(split.payload(&split.update(1).unwrap()).to_vec()).unwrap();
    assert!(
        !status.contains("wamid.A") && status.contains("wamid.B"),
        "{status}"
    );
    let message = String::from_utf8(split.payload(&split.update(0).unwrap()).to_vec()).unwrap();
    assert!(
        message.contains(r#""contacts":[{"wa_id":"1","user_id":"US.1"}]"#),
        "{message}"
    );
}

#[test]
fn a_message_keeps_its_own_contact_and_all_of_them_when_it_cannot_be_told() {
    let contacts = r#""contacts":[{"wa_id":"1"},{"wa_id":"2"}]"#;
    let body = Bytes::from(value(&format!(
        r#"{contacts},"messages":[{{"id":"a","from":"2"}},{{"id":"b","from":"3"}}]"#
    )));
    let split = split(&body).unwrap();
    let payload = |index: usize| {
        String::from_utf8(split.payload(&split.update(index).unwrap()).to_vec()).unwrap()
    };
    assert!(
        payload(0).contains(r#""contacts":[{"wa_id":"2"}],"#),
        "{}",
        payload(0)
    );
    assert!(payload(1).contains(contacts), "{}", payload(1));
}

#[test]
fn what_is_no_conversation_is_one_account_update_a_change() {
    let preferences = value(r#""user_preferences":[{"wa_id":"1"},{"wa_id":"2"}]"#);
    assert!(kinds(&preferences)[0].starts_with("account.messages@h:"));
    let history = value(r#""history":[{"threads":[]}],"messages":[{"id":"a"},{"id":"b"}]"#);
    assert_eq!(kinds(&history).len(), 1);
    let errors = value(r#""errors":[{"code":130429}],"messages":[],"statuses":[]"#);
    assert_eq!(kinds(&errors).len(), 1);
}

/// What becomes of one change of another field: subject, kind, conversation and the field.
fn stamped(field: &str, value: &str) -> Vec<(String, String, String, Option<String>)> {
    let body = Bytes::from(format!(
        r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W1","changes":[{{"field":"{field}","value":{value}}}]}}]}}"#
    ));
    assert_eq!(compare(&body).err(), None);
    let table = fixture::table();
    let arrival = Arrival::now(b"sha256=", 1, 1);
    let stamp = Stamp {
        table: &table,
        app: table.app("main").unwrap(),
        partitions: 32,
        arrival: &arrival,
    };
    let split = split(&body).unwrap();
    let counted: u64 = split.counts().iter().map(|(_, count)| count).sum();
    assert_eq!(counted, split.len() as u64);
    let heads = Stamped::new(stamp, &split, &mut Vec::new())
        .map(|update| update.head)
        .collect::<Vec<_>>();
    let classes = heads
        .iter()
        .filter(|head| head.family == Family::Update(Class::Message))
        .count() as u64;
    assert!(heads.iter().any(|head| head.tenant.is_unrouted()) || split.counts()[0].1 == classes);
    let told = heads.into_iter().map(|head| {
        let class = head
            .subject()
            .split('.')
            .skip(2)
            .collect::<Vec<_>>()
            .join(".");
        (
            class,
            head.kind,
            head.conversation.as_str().to_owned(),
            head.field,
        )
    });
    told.collect()
}

#[test]
fn a_field_other_than_messages_is_told_and_a_number_is_found_without_metadata() {
    let message = r#""messages":[{"id":"a","from":"49","type":"text"}],"statuses":[{"id":"b","status":"read","recipient_id":"49"}]"#;
    let of = |members: &str| stamped("standby", &format!("{{{members}}}"));
    let as_told = |tenant: &str| {
        let told = |class: &str, kind: &str| {
            (
                format!("{class}.{tenant}"),
                kind.to_owned(),
                "p:49".to_owned(),
                Some("standby".to_owned()),
            )
        };
        vec![told("msg", "message.text"), told("sts", "status.read")]
    };
    // By its number, by the recipient's, by the account, and of nobody.
    let acme = as_told("acme");
    assert_eq!(
        of(&format!(
            r#""metadata":{{"phone_number_id":"100"}},{message}"#
        )),
        acme
    );
    assert_eq!(of(message), acme);
    assert_eq!(
        of(&format!(
            r#""recipient":{{"phone_number_id":"200"}},{message}"#
        )),
        as_told("globex")
    );
    let unknown = of(&format!(
        r#""recipient":{{"phone_number_id":"999"}},{message}"#
    ));
    assert!(
        unknown.iter().all(|(class, ..)| class == "acct._unrouted"),
        "{unknown:?}"
    );
    // A shape nobody knows yet is kept whole.
    let other = of(r#""recipient":{"phone_number_id":"200"},"standby":[{"message":{}}]"#);
    let other: Vec<_> = other
        .iter()
        .map(|(class, kind, ..)| (class.as_str(), kind.as_str()))
        .collect();
    assert_eq!(other, [("acct.globex", "account.standby")]);

    let messages = stamped(
        "messages",
        &format!(r#"{{"metadata":{{"phone_number_id":"100"}},{message}}}"#),
    );
    assert!(
        messages.iter().all(|(_, _, _, field)| field.is_none()),
        "{messages:?}"
    );
}

#[test]
fn a_handover_is_ordered_with_the_messages_of_its_person() {
    let value = |sender: &str, control: &str| {
        format!(
            r#"{{"messaging_product":"whatsapp","type":"x","timestamp":"1795000000","sender":{sender},"recipient":{{"phone_number_id":"100"}},"{control}":{{"previous_owner_role":"A","new_owner_role":"B"}}}}"#
        )
    };
    let of = |sender: &str, control: &str| {
        let told = stamped("messaging_handovers", &value(sender, control));
        let [(class, kind, conversation, field)] = told.as_slice() else {
            panic!("{told:?}")
        };
        assert_eq!(field.as_deref(), Some("messaging_handovers"));
        [class.clone(), kind.clone(), conversation.clone()]
    };
    let told = of(r#"{"phone_number":"+49"}"#, "control_taken");
    assert_eq!(told, ["msg.acme", "handover.control_taken", "p:49"]);
    let told = of(
        r#"{"phone_number":"49","user_id":"US.1"}"#,
        "control_passed",
    );
    assert_eq!(told, ["msg.acme", "handover.control_passed", "u:US.1"]);
    assert_eq!(
        of(r#"{"phone_number":"49"}"#, "control"),
        ["msg.acme", "handover.unknown", "p:49"]
    );
    // Without a person there is no conversation to order it with.
    assert_eq!(
        of("{}", "control_taken"),
        ["acct.acme", "account.messaging_handovers", "-"]
    );
}

#[test]
fn account_changes_are_told_apart_by_time_and_content() {
    let change = |time: u32, event: &str| {
        kinds(&format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W1","time":{time},"changes":[{{"field":"account_update","value":{{"event":"{event}"}}}}]}}]}}"#
        ))
    };
    assert_eq!(change(1, "A"), change(1, "A"));
    assert_ne!(change(1, "A"), change(2, "A"));
    assert_ne!(change(1, "A"), change(1, "B"));
    assert!(change(1, "A")[0].starts_with("account.account_update@h:"));
}

#[test]
fn other_products_are_kept_whole_under_their_object() {
    assert!(
        kinds(r#"{"object":"page","entry":[{"id":"1","messaging":[{},{}]}]}"#)[0]
            .starts_with("page.delivery@h:")
    );
    assert!(kinds(r#"{"object":"instagram","entry":[]}"#)[0].starts_with("instagram.delivery@"));
    assert!(kinds(r#"{"entry":[],"object":"Some Thing"}"#)[0].starts_with("object.some_thing@"));
}

#[test]
fn what_cannot_be_cut_without_guessing_is_unreadable() {
    let deep = format!("{}{}", "[".repeat(200), "]".repeat(200));
    let many = value(&format!(r#""messages":[{}]"#, vec!["{}"; 9000].join(",")));
    let twice = value(r#""messages":[{"id":"a"}],"messages":[{"id":"b"}]"#);
    let cases = [
        ("", "json"),
        ("not json", "json"),
        ("[]", "json"),
        ("{}", "shape"),
        (r#"{"object":"whatsapp_business_account"}"#, "shape"),
        (
            r#"{"object":"whatsapp_business_account","entry":[]}"#,
            "shape",
        ),
        (
            r#"{"object":"whatsapp_business_account","entry":{}}"#,
            "shape",
        ),
        (
            r#"{"object":"whatsapp_business_account","entry":[{}],"entry":[{}]}"#,
            "json",
        ),
        (r#"{"object":"a","object":"b"}"#, "json"),
        (&twice, "json"),
        (&deep, "json"),
        (&many, "size"),
    ];
    for (body, expected) in cases {
        let body = Bytes::copy_from_slice(body.as_bytes());
        let found = match split(&body).unwrap_err() {
            Unreadable::Json(_) => "json",
            Unreadable::Shape => "shape",
            Unreadable::Size => "size",
            Unreadable::Encoding => "encoding",
        };
        assert_eq!(found, expected, "{:?}", &body[..body.len().min(60)]);
        check(&body).unwrap();
    }
    assert_eq!(
        split(&Bytes::from_static(b"{\"\xff\":1}")).unwrap_err(),
        Unreadable::Encoding
    );
}

#[test]
fn no_more_updates_are_cut_out_than_may_be_and_history_is_one() {
    let change = |field: &str, elements: usize| {
        let elements = vec![format!("[\"{}\"]", "x".repeat(140)); elements].join(",");
        format!(r#"{{"value":{{"messages":[{elements}]}},"field":"{field}"}}"#)
    };
    for (changes, updates) in [
        ([change("messages", 8190), change("messages", 2)], Ok(8192)),
        (
            [change("messages", 8190), change("messages", 3)],
            Err(Unreadable::Size),
        ),
        ([change("history", 9000), change("messages", 2)], Ok(3)),
        ([change("messages", 2), change("history", 9000)], Ok(3)),
    ] {
        let changes = changes.join(",");
        let body = format!(
            r#"{{"object":"whatsapp_business_account","entry":[{{"id":"W1","changes":[{changes}]}}]}}"#
        );
        assert_eq!(split(&Bytes::from(body)).map(|split| split.len()), updates);
    }
}

/// The largest batch of Meta's: the shortest statuses it sends, all around the same long contact and metadata.
fn largest_batch() -> String {
    let name = r"\ud83d\ude00".repeat(50);
    let contact = format!(
        r#"{{"profile":{{"name":"{name}"}},"wa_id":"15551234567","user_id":"US.13491208655302741918"}}"#
    );
    let statuses: Vec<_> = (0..1000)
        .map(|number| {
            format!(
                r#"{{"id":"wamid.HBgLMTU1NTEyMzQ1NjcVAgARGBI5QTNDQTVCM0Q0Q0Q2RTY{number:04}","status":"sent","timestamp":"1763784000","recipient_id":"15551234567"}}"#
            )
        })
        .collect();
    value(&format!(
        r#""messaging_product":"whatsapp","display_phone_number":"15550783881","contacts":[{contact}],"statuses":[{}]"#,
        statuses.join(",")
    ))
}

#[test]
fn metas_largest_batch_is_cut_and_takes_no_more_than_it_may() {
    let body = largest_batch();
    let split = split(&Bytes::from(body.clone())).map(|split| (split.len(), split.stored_bytes()));
    let (updates, stored) = split.unwrap();
    assert_eq!(updates, 1000);
    assert!(
        stored < 8 * body.len() + (1 << 20),
        "{stored} of {}",
        body.len()
    );
    check(body.as_bytes()).unwrap();
}

#[test]
fn a_short_body_is_not_stored_many_times_its_length() {
    for (elements, bulk) in [(8192, 15 << 10), (8192, 1), (700, 2 << 10), (700, 1)] {
        let all = vec!["{}"; elements].join(",");
        let body = value(&format!(
            r#""messages":[{all}],"bulk":{{"x":"{}"}}"#,
            "x".repeat(bulk)
        ));
        let (length, body) = (body.len(), Bytes::from(body));
        let stored = split(&body).map_or(length, |split| split.stored_bytes());
        assert!(stored <= 8 * length + (1 << 20), "{stored} of {length}");
        check(&body).unwrap();
        if elements < 1000 {
            compare(&body).unwrap();
        }
    }
}

#[test]
fn siblings_repeated_too_often_are_not_multiplied() {
    let bulk = "x".repeat(1 << 20);
    let body = value(&format!(
        r#""messages":[{}],"bulk":"{bulk}""#,
        vec!["{}"; 200].join(",")
    ));
    assert_eq!(split(&Bytes::from(body)).unwrap_err(), Unreadable::Size);
}

/// Runs a check on every file of a fuzz target's corpus.
fn replay(target: &str, check: impl Fn(&[u8]) -> Result<(), String>) {
    let directory = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    let mut count = 0;
    for file in std::fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        check(&std::fs::read(&path).unwrap())
            .unwrap_or_else(|broken| panic!("{}: {broken}", path.display()));
        count += 1;
    }
    assert!(count >= 10, "the corpus of {target} has only {count} files");
}

#[test]
fn the_corpora_of_the_fuzz_targets_hold_every_invariant() {
    replay("edge", |body| check(body).map(|_| ()));
    replay("split", |body| compare(body).map(|_| ()));
    replay("connection", |input| connection::check(input).map(|_| ()));
}

proptest! {
    #[test]
    fn no_bytes_break_anything(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(check(&bytes).err(), None);
        prop_assert_eq!(compare(&bytes).err(), None);
    }

    #[test]
    fn no_damage_to_a_delivery_breaks_anything(at in 0..600_usize, byte in any::<u8>(), cut in 0..600_usize) {
        let mut body = value(
            r#""contacts":[{"wa_id":"1"},{"user_id":"US.2"}],"messages":[{"id":"a","from":"1"},{"id":"b","from_user_id":"US.2"}],"statuses":[{"id":"c","status":"sent"}]"#,
        ).into_bytes();
        let (at, cut) = (at % body.len(), cut % body.len());
        body[at] = byte;
        prop_assert_eq!(check(&body).err(), None);
        prop_assert_eq!(compare(&body).err(), None);
        body.truncate(cut);
        prop_assert_eq!(check(&body).err(), None);
        prop_assert_eq!(compare(&body).err(), None);
    }
}
