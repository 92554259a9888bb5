//! What the engine promises, one sentence a test, over small flows.

mod golden;
mod walks;

use super::session::{SCHEMA, SessionError, WaitOn};
use super::*;
use ackline_engine::finished::FINISHED_MAX;
use ackline_message::Content;
use ackline_shared::ids::UpdateId;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NOW: u64 = 1_780_000_000_000;

fn compile(nodes: Value) -> Compiled {
    compile_with(nodes, json!({}))
}

fn compile_with(nodes: Value, settings: Value) -> Compiled {
    let definition = json!({
        "format": 1, "name": "t", "entry": [{"on": "any"}], "start": "a", "nodes": nodes, "settings": settings,
        "variables": {"x": 1}
    });
    Compiled::from_json(&definition).unwrap_or_else(|report| panic!("{report}"))
}

fn says(id: &str, text: &str) -> Update {
    Update::Message(message(id, text, None))
}

fn presses(id: &str, payload: &str, title: &str) -> Update {
    Update::Message(Message {
        title: Some(title.into()),
        ..message(id, "", Some(payload))
    })
}

fn message(id: &str, text: &str, payload: Option<&str>) -> Message {
    Message {
        id: UpdateId::new(id),
        kind: "text".into(),
        text: text.into(),
        payload_id: payload.map(str::to_owned),
        title: None,
        more: Map::new(),
        line: String::new(),
        contact: Contact {
            name: Some("Ana".into()),
            ..Contact::default()
        },
    }
}

fn done(effects: &[Effect], outcome: CallOutcome) -> Update {
    let call = effects.iter().find_map(|effect| match effect {
        Effect::Call { effect_id, .. } => Some(effect_id.clone()),
        _ => None,
    });
    Update::EffectDone {
        effect_id: call.expect("a call"),
        outcome,
    }
}

fn begin(flow: &Compiled, text: &str) -> (Session, Vec<Effect>) {
    step(flow, Session::new("t", flow), &says("m0", text), NOW)
}

fn texts<'e>(effects: &'e [Effect]) -> Vec<&'e str> {
    let text = |effect: &'e Effect| match effect {
        Effect::Send { content, .. } => Some(match content {
            Content::Text { body, .. }
            | Content::Buttons { body, .. }
            | Content::List { body, .. } => body.as_str(),
            Content::Image { caption, .. } => caption.as_deref().unwrap_or("[image]"),
            Content::Template { name, .. } => name,
            other => other.kind(),
        }),
        _ => None,
    };
    effects.iter().filter_map(text).collect()
}

fn outcome(effects: &[Effect]) -> Option<(&str, Option<&str>)> {
    effects.iter().find_map(|effect| match effect {
        Effect::Completed {
            outcome, reason, ..
        } => Some((outcome.as_str(), reason.as_deref())),
        _ => None,
    })
}

fn ask_then_say() -> Compiled {
    compile(json!({
        "a": {"kind": "ask.text", "body": "name?", "variable": "name", "exits": {"next": "b", "invalid": "e"}},
        "b": {"kind": "message.text", "body": "hi {{name}}", "exits": {"next": "e"}},
        "e": {"kind": "end"}
    }))
}

fn http() -> Compiled {
    compile(json!({
        "a": {"kind": "http", "url": "https://shop.example/{{message.text}}", "save": {"s": "/s"}, "save_status": "code",
              "exits": {"ok": "ok", "http_error": "bad", "timeout": "late"}},
        "ok": {"kind": "message.text", "body": "ok {{s}} {{code}}", "exits": {"next": "e"}},
        "bad": {"kind": "message.text", "body": "bad {{code}}", "exits": {"next": "e"}},
        "late": {"kind": "ask.text", "body": "late", "variable": "v", "exits": {"next": "e", "invalid": "e"}},
        "e": {"kind": "end", "outcome": "fine"}
    }))
}

#[test]
fn a_redelivered_update_changes_nothing_and_yields_its_effects_again() {
    let flow = ask_then_say();
    let (first, asked) = begin(&flow, "hello");
    let (second, said) = step(&flow, first, &says("m1", "Ana"), NOW);
    assert_eq!(texts(&said), ["hi Ana"]);
    for (update, effects) in [(says("m1", "Ana"), said), (says("m0", "hello"), asked)] {
        assert_eq!(
            step(&flow, second.clone(), &update, NOW + 5),
            (second.clone(), effects)
        );
    }
}

#[test]
fn effects_are_kept_within_their_bytes_and_updates_are_known_without_them() {
    let flow = compile(json!({
        "a": {"kind": "ask.choice", "body": "x".repeat(900), "retry": "{{message.text}}", "attempts": 10,
              "options": [{"id": "o", "title": "O"}], "exits": {"else": "b"}},
        "b": {"kind": "message.text", "body": "{{message.text}}{{message.text}}", "exits": {"next": "a"}}
    }));
    let (mut session, _) = begin(&flow, "hello");
    for turn in 0..50 {
        let update = says(&format!("t{turn}"), &"\u{1f600}\"\u{1}".repeat(2_000));
        let (next, effects) = step(&flow, session, &update, NOW);
        assert!(!effects.is_empty());
        assert!(next.to_json().len() <= limits::SESSION_BYTES_MAX);
        assert_eq!(next.replay(&update.id()), Some(effects));
        session = Session::from_json(&next.to_json()).unwrap();
    }
    assert!(session.seen(&UpdateId::new("t49")) && session.seen(&UpdateId::new("t18")));
    assert_eq!(
        session.replay(&UpdateId::new("t17")),
        Some(vec![]),
        "known, with nothing to publish again"
    );
    assert_eq!(session.replay(&UpdateId::new("never")), None);
}

#[test]
fn an_outcome_nobody_waits_for_changes_nothing() {
    let flow = http();
    let (session, effects) = begin(&flow, "x");
    let stray = Update::EffectDone {
        effect_id: "m0:7".into(),
        outcome: CallOutcome::Timeout,
    };
    assert_eq!(
        step(&flow, session.clone(), &stray, NOW),
        (session.clone(), vec![])
    );
    let (over, _) = step(&flow, session, &done(&effects, CallOutcome::Timeout), NOW);
    let (asked, _) = step(&flow, over, &says("m1", "v"), NOW);
    assert_eq!(step(&flow, asked.clone(), &stray, NOW), (asked, vec![]));
}

#[test]
fn the_first_outcome_of_a_call_counts_whatever_comes_later() {
    let flow = http();
    let (session, effects) = begin(&flow, "x");
    let (session, first) = step(&flow, session, &done(&effects, CallOutcome::Timeout), NOW);
    let other = CallOutcome::Http {
        code: 200,
        body: json!({"s": 1}),
    };
    assert_eq!(
        step(&flow, session.clone(), &done(&effects, other), NOW),
        (session, first)
    );
}

#[test]
fn a_response_is_mapped_and_leaves_by_its_status() {
    let flow = http();
    for (code, body, wanted) in [
        (200, json!({"s": "sent"}), "ok sent 200"),
        (204, Value::Null, "ok  204"),
        (500, json!("x"), "bad 500"),
        (200, json!({"s": vec!["x"; 9_000]}), "ok  200"),
    ] {
        let (session, effects) = begin(&flow, "a/b");
        let Effect::Call {
            call: Call::Http(call),
            ..
        } = &effects[1]
        else {
            panic!("{effects:?}")
        };
        assert_eq!(call.url, "https://shop.example/a%2Fb");
        let (_, effects) = step(
            &flow,
            session,
            &done(&effects, CallOutcome::Http { code, body }),
            NOW,
        );
        assert_eq!(
            (texts(&effects), outcome(&effects)),
            (vec![wanted], Some(("fine", None)))
        );
    }
}

#[test]
fn a_call_whose_outcome_never_comes_is_given_up_when_the_person_writes() {
    let flow = http();
    let (session, _) = begin(&flow, "x");
    let (held, effects) = step(&flow, session, &says("m1", "are you there"), NOW + 1_000);
    assert_eq!(effects, vec![]);
    let (session, effects) = step(&flow, held, &says("m2", "hello?"), NOW + 60_000);
    assert_eq!((texts(&effects), outcome(&effects)), (vec!["late"], None));
    assert_eq!(
        session.counters().dropped,
        2,
        "what was written before the question is no answer to it"
    );
}

#[test]
fn too_many_steps_or_sends_end_the_run_with_the_flows_last_words() {
    let mut nodes = Map::new();
    for at in 0..200 {
        let kind = if at < 60 { "message.text" } else { "goto" };
        let mut node = json!({"kind": kind, "exits": {"next": format!("n{}", at + 1)}});
        if at < 60 {
            node["body"] = json!("x");
        }
        nodes.insert(format!("n{at}"), node);
    }
    nodes.insert("n200".into(), json!({"kind": "end"}));
    nodes.insert(
        "a".into(),
        json!({"kind": "condition", "branches": [{"id": "s", "when": "message.text == 'steps'"}],
                                    "exits": {"branch:s": "n60", "else": "n0"}}),
    );
    let flow = compile_with(Value::Object(nodes), json!({"fallback": "sorry"}));
    for (text, sends, reason) in [
        ("steps", 1, "more than 100 nodes"),
        ("sends", 51, "more than 50 messages"),
    ] {
        let (session, effects) = begin(&flow, text);
        assert_eq!(session.status(), Status::Failed);
        assert_eq!(
            (texts(&effects).len(), texts(&effects).last()),
            (sends, Some(&"sorry"))
        );
        let (outcome, why) = outcome(&effects).unwrap();
        assert_eq!(outcome, "failed");
        assert!(why.unwrap().starts_with(reason), "{why:?}");
    }
}

#[test]
fn effects_and_variables_are_bounded_in_bytes() {
    let flow = compile(json!({
        "a": {"kind": "set", "assign": {"x": "text(x) + message.text"}, "exits": {"next": "b"}},
        "b": {"kind": "ask.text", "body": "?", "variable": "y", "exits": {"next": "a", "invalid": "a"}}
    }));
    let (mut session, _) = begin(&flow, "");
    for turn in 0..40 {
        let (next, effects) = step(
            &flow,
            session,
            &says(&turn.to_string(), &"y".repeat(2_000)),
            NOW,
        );
        assert!(limits::json_bytes(next.variables()) <= limits::VARIABLE_BYTES_MAX);
        if let Some((outcome, reason)) = outcome(&effects) {
            assert_eq!(outcome, "failed");
            assert!(reason.unwrap().contains("bytes"));
            return;
        }
        session = next;
    }
    panic!("the variables grew without end");
}

#[test]
fn too_many_bytes_of_messages_end_the_run_and_its_session_still_fits() {
    let mut nodes = Map::new();
    for at in 0..30 {
        let node = json!({"kind": "message.text", "body": "{{message.text}}", "exits": {"next": format!("n{}", at + 1)}});
        nodes.insert(format!("n{at}"), node);
    }
    nodes.insert("n30".into(), json!({"kind": "end"}));
    nodes.insert("a".into(), json!({"kind": "goto", "exits": {"next": "n0"}}));
    let flow = compile_with(
        Value::Object(nodes),
        json!({"fallback": "{{message.text}}"}),
    );
    let (session, effects) = begin(&flow, &"\u{1f600}\"".repeat(2_000));
    assert!(
        outcome(&effects)
            .unwrap()
            .1
            .unwrap()
            .starts_with("more than 65536 bytes")
    );
    assert!(session.to_json().len() <= limits::SESSION_BYTES_MAX);
    assert_eq!(session.replay(&UpdateId::new("m0")), Some(effects));
}

#[test]
fn messages_that_come_during_a_call_are_held_within_bounds_and_answered_together() {
    let flow = compile(json!({
        "a": {"kind": "agent", "endpoint": {"base_url": "https://m", "model": "m"}, "system": "s", "mode": "chat", "fallback": "f"}
    }));
    let (mut session, call) = begin(&flow, "hi");
    for at in 0..100 {
        session = step(
            &flow,
            session,
            &says(&format!("h{at}"), &format!("{at}")),
            NOW,
        )
        .0;
        assert!(session.to_json().len() <= limits::SESSION_BYTES_MAX);
    }
    assert_eq!(session.counters().dropped, 96);
    let (_, effects) = step(
        &flow,
        session,
        &done(
            &call,
            CallOutcome::Reply {
                text: "hello".into(),
            },
        ),
        NOW,
    );
    let Some(Effect::Call {
        call: Call::Agent(call),
        ..
    }) = effects.last()
    else {
        panic!("{effects:?}")
    };
    assert_eq!(call.messages.last().unwrap().content, "0\n1\n2\n99");
}

#[test]
fn a_stored_session_stays_readable_whatever_is_nested() {
    let flow = compile(json!({
        "a": {"kind": "set", "assign": {"x": "[[x]]"}, "exits": {"next": "b"}},
        "b": {"kind": "ask.text", "body": "?", "variable": "y", "exits": {"next": "a", "invalid": "a"}}
    }));
    let (mut session, _) = begin(&flow, "");
    for turn in 0..100 {
        let (next, _) = step(&flow, session, &says(&turn.to_string(), "y"), NOW);
        session = Session::from_json(&next.to_json()).unwrap();
    }
}

#[test]
fn an_answer_refused_too_often_leaves_by_invalid() {
    let flow = compile(json!({
        "a": {"kind": "ask.number", "body": "how many?", "variable": "n", "retry": "a number", "attempts": 2, "min": 1,
              "exits": {"next": "e", "invalid": "b"}},
        "b": {"kind": "message.text", "body": "never mind", "exits": {"next": "e"}},
        "e": {"kind": "end"}
    }));
    let (session, _) = begin(&flow, "");
    let (again, effects) = step(&flow, session, &says("m1", "many"), NOW);
    assert_eq!(texts(&effects), ["a number"]);
    let (_, effects) = step(&flow, again.clone(), &says("m2", "0"), NOW);
    assert_eq!(texts(&effects), ["never mind"]);
    let (session, effects) = step(&flow, again, &says("m2", "2,5"), NOW);
    assert_eq!(
        (texts(&effects), &session.variables()["n"]),
        (vec![], &json!(2.5))
    );
}

#[test]
fn a_press_on_an_older_message_is_told_from_one_on_the_present() {
    let flow = compile(json!({
        "a": {"kind": "message.buttons", "body": "menu", "options": [{"id": "q", "title": "Q"}, {"id": "r", "title": "R"}],
              "exits": {"option:q": "q", "option:r": "r", "else": "e"}},
        "q": {"kind": "ask.choice", "body": "sure?", "options": [{"id": "y", "title": "Yes"}],
              "exits": {"option:y": "n", "else": "e"}},
        "n": {"kind": "ask.text", "body": "name?", "variable": "name", "exits": {"next": "e", "invalid": "e"}},
        "r": {"kind": "ask.text", "body": "routed", "variable": "r", "exits": {"next": "e", "invalid": "e"}},
        "e": {"kind": "end"}
    }));
    let payload = |effects: &[Effect]| match effects.last() {
        Some(Effect::Send {
            content: Content::Buttons { buttons, .. },
            ..
        }) => buttons.last().unwrap().id.clone(),
        other => panic!("{other:?}"),
    };
    let (session, menu) = begin(&flow, "");
    let (session, sure) = step(&flow, session, &presses("m1", "q", "Q"), NOW);
    let (session, _) = step(&flow, session, &presses("m2", &payload(&sure), "Yes"), NOW);
    let (session, effects) = step(&flow, session, &presses("m3", &payload(&sure), "Yes"), NOW);
    assert_eq!(
        (texts(&effects), session.wait().unwrap().node.as_str()),
        (vec![], "n"),
        "a second tap is no name"
    );
    let (session, effects) = step(&flow, session, &presses("m4", &payload(&menu), "R"), NOW);
    assert_eq!(
        (texts(&effects), session.wait().unwrap().node.as_str()),
        (vec!["routed"], "r"),
        "a menu still leads on"
    );
}

#[test]
fn a_newer_version_is_adopted_where_the_waiting_node_stays_and_restarts_otherwise() {
    let old = ask_then_say();
    let renamed = compile(json!({
        "a": {"kind": "ask.text", "body": "your name?", "variable": "name", "exits": {"next": "b", "invalid": "e"}},
        "b": {"kind": "message.text", "body": "welcome {{name}}", "exits": {"next": "e"}},
        "e": {"kind": "end"}
    }));
    let replaced = compile(json!({
        "a": {"kind": "ask.email", "body": "mail?", "variable": "mail", "exits": {"next": "e", "invalid": "e"}},
        "e": {"kind": "end"}
    }));
    let (session, _) = begin(&old, "");
    let (adopted, effects) = step(&renamed, session.clone(), &says("m1", "Ana"), NOW);
    assert_eq!(
        (texts(&effects), adopted.version()),
        (vec!["welcome Ana"], renamed.version())
    );
    let (restarted, effects) = step(&replaced, session, &says("m1", "Ana"), NOW);
    assert_eq!(
        (texts(&effects), outcome(&effects)),
        (vec!["mail?"], Some(("restarted", None)))
    );
    assert_eq!(restarted.status(), Status::Waiting);
}

#[test]
fn keywords_interrupt_even_a_call_whose_outcome_then_counts_for_nothing() {
    let settings = json!({"stop": ["stop"], "restart": ["again"], "interrupts": [{"keywords": ["help"], "to": "h"}]});
    let flow = compile_with(
        json!({
            "a": {"kind": "agent", "endpoint": {"base_url": "https://m", "model": "m"}, "system": "s", "mode": "chat",
                  "fallback": "f", "exits": {}},
            "h": {"kind": "ask.text", "body": "help", "variable": "v", "exits": {"next": "a", "invalid": "a"}}
        }),
        settings,
    );
    let (session, call) = begin(&flow, "hi");
    for (word, sent, ended) in [
        ("STOP!", vec![], Some("stopped")),
        ("again", vec![], Some("restarted")),
        ("Help", vec!["help"], None),
    ] {
        let (session, effects) = step(&flow, session.clone(), &says("m1", word), NOW);
        assert_eq!(
            (texts(&effects), outcome(&effects).map(|o| o.0)),
            (sent, ended),
            "{word}"
        );
        let late = done(
            &call,
            CallOutcome::Reply {
                text: "late".into(),
            },
        );
        assert_eq!(step(&flow, session.clone(), &late, NOW), (session, vec![]));
    }
}

#[test]
fn an_agent_answers_the_message_that_led_to_it_and_remembers() {
    let flow = compile(json!({
        "a": {"kind": "agent", "endpoint": {"base_url": "https://m/v1", "model": "m", "api_key": "key"}, "system": "for {{contact.name}}",
              "fallback": "later", "variable": "said", "exits": {"next": "b"}},
        "b": {"kind": "message.text", "body": "({{said | upper}})", "exits": {"next": "a"}}
    }));
    let (session, effects) = begin(&flow, "hi");
    let Effect::Call {
        call: Call::Agent(call),
        ..
    } = &effects[1]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(
        (call.system.as_str(), call.endpoint.api_key.as_deref()),
        ("for Ana", Some("key"))
    );
    let long = format!("{}\n\n{}", "a".repeat(4_000), "b".repeat(4_000));
    let (session, effects) = step(
        &flow,
        session,
        &done(&effects, CallOutcome::Reply { text: long }),
        NOW,
    );
    assert_eq!(texts(&effects).len(), 3);
    assert_eq!(
        session.wait().unwrap().on,
        WaitOn::Reply,
        "it answers one message and waits for the next"
    );
    let (session, effects) = step(&flow, session, &says("m1", "and?"), NOW);
    let Effect::Call {
        call: Call::Agent(call),
        ..
    } = &effects[0]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(call.messages.len(), 3);
    let (_, effects) = step(
        &flow,
        session,
        &done(&effects, CallOutcome::Reply { text: "  ".into() }),
        NOW,
    );
    assert_eq!(texts(&effects)[0], "later");
}

#[test]
fn an_agent_reads_what_is_not_text_in_words_and_its_answer_is_kept_as_it_wrote_it() {
    let flow = compile(json!({
        "a": {"kind": "agent", "endpoint": {"base_url": "https://m", "model": "m"}, "system": "s", "variable": "said",
              "exits": {"next": "a"}}
    }));
    let place = Update::Message(Message {
        kind: "location".into(),
        line: "[location] 52.5, 13.4".into(),
        ..message("m0", "", None)
    });
    let (session, effects) = step(&flow, Session::new("t", &flow), &place, NOW);
    let Effect::Call {
        call: Call::Agent(call),
        ..
    } = &effects[1]
    else {
        panic!("{effects:?}")
    };
    assert_eq!(call.messages[0].content, "[location] 52.5, 13.4");
    let text = r#"{"note": "**say** \"hi\""}"#.to_owned();
    let answer = CallOutcome::Reply { text: text.clone() };
    let (session, effects) = step(&flow, session, &done(&effects, answer), NOW);
    assert_eq!(session.variables()["said"], Value::from(text));
    assert_eq!(texts(&effects), [r#"{"note": "*say* "hi""}"#]);
}

#[test]
fn a_bot_chooses_a_flow_keeps_it_and_chooses_again_when_it_is_over() {
    let flow = |keyword: &str, body: &str| {
        let definition = json!({
            "format": 1, "name": body, "entry": [{"on": "keyword", "keywords": [keyword]}], "start": "a",
            "nodes": {"a": {"kind": "ask.text", "body": body, "variable": "v", "exits": {"next": "e", "invalid": "e"}}, "e": {"kind": "end"}}
        });
        Flow {
            id: keyword.into(),
            compiled: Arc::new(Compiled::from_json(&definition).unwrap()),
        }
    };
    let flows = [flow("one", "first"), flow("two", "second")];
    assert!(advance(&flows, None, &says("m0", "three"), NOW).is_none());
    let (session, effects) = advance(&flows, None, &says("m1", "Two"), NOW).unwrap();
    assert_eq!(texts(&effects), ["second"]);
    let (session, effects) = advance(&flows, Some(session), &says("m2", "one"), NOW).unwrap();
    assert_eq!(
        outcome(&effects),
        Some(("completed", None)),
        "a run under way keeps the conversation"
    );
    assert!(advance(&flows, Some(session.clone()), &says("m3", "thanks"), NOW).is_none());
    let (session, effects) = advance(&flows, Some(session), &says("m4", "one"), NOW).unwrap();
    assert_eq!((texts(&effects), session.flow()), (vec!["first"], "one"));
    let (same, effects) = advance(&flows, Some(session.clone()), &says("m2", "one"), NOW).unwrap();
    assert_eq!(
        (same, outcome(&effects)),
        (session, Some(("completed", None))),
        "what was processed stays known"
    );
}

#[test]
fn an_update_is_known_as_long_as_in_any_other_pool() {
    let definition = json!({
        "format": 1, "name": "count", "entry": [{"on": "any"}], "start": "a",
        "nodes": {
            "a": {"kind": "ask.text", "body": "and?", "variable": "v", "exits": {"next": "a", "invalid": "a"}}
        }
    });
    let flows = [Flow {
        id: "f".into(),
        compiled: Arc::new(Compiled::from_json(&definition).unwrap()),
    }];
    let mut session = None;
    for at in 0..FINISHED_MAX {
        let (next, _) = advance(&flows, session, &says(&format!("m{at}"), "x"), NOW).unwrap();
        session = Some(Session::from_json(&next.to_json()).unwrap());
    }
    let before = session.unwrap();
    for at in [0, 1, FINISHED_MAX - 40, FINISHED_MAX - 1] {
        let (after, _) = advance(
            &flows,
            Some(before.clone()),
            &says(&format!("m{at}"), "x"),
            NOW,
        )
        .unwrap();
        assert_eq!(after, before, "m{at} changes nothing again");
    }
    let (after, _) = advance(&flows, Some(before.clone()), &says("new", "x"), NOW).unwrap();
    assert_ne!(after, before);
    let newer = json!({"schema": SCHEMA + 1, "shape": "another"}).to_string();
    assert!(matches!(
        Session::from_json(newer.as_bytes()),
        Err(SessionError::Schema(_))
    ));
}

#[test]
fn all_problems_come_in_one_report() {
    let definition = json!({
        "format": 1, "name": "bad", "entry": [{"on": "moon"}, {"on": "keyword", "keywords": [""]}], "start": "nowhere",
        "variables": {"now": 1}, "settings": {"colour": "red"},
        "nodes": {
            "kind": {"kind": "message.video"},
            "field": {"kind": "message.text", "body": "x", "bold": true, "exits": {"next": "loop1"}},
            "long": {"kind": "message.text", "body": "\u{e9}".repeat(4_097), "exits": {"next": "gone", "done": "loop1"}},
            "loop1": {"kind": "goto", "exits": {"next": "loop2"}},
            "loop2": {"kind": "set", "assign": {"a": "1 +"}, "exits": {"next": "loop1"}},
            "wide": {"kind": "message.buttons", "body": "{{ x | nope }}", "options": [
                {"id": "a", "title": "A"}, {"id": "b", "title": "\u{c0}"}, {"id": "c", "title": "C"}, {"id": "c c", "title": "this is longer than 20"}],
                "exits": {"option:a": "loop1"}},
            "tall": {"kind": "message.list", "body": "x", "options": vec![json!({"id": "o", "title": "O"}); 11], "exits": {"else": "long"}},
            "odd": {"kind": "ask.text", "body": " ", "variable": "contact", "pattern": "(?=x)", "attempts": 99, "whole": true},
            "web": {"kind": "http", "url": "ftp://x", "timeout_seconds": 99, "save": {"v": "no"}, "headers": {"a b": "x"}},
            "a b": {"kind": "end"}
        }
    });
    let report = Compiled::from_json(&definition).unwrap_err();
    let has = |code: &str, node: Option<&str>, part: &str| {
        let found =
            |p: &&Problem| p.code == code && p.node.as_deref() == node && p.message.contains(part);
        assert!(
            report.problems.iter().any(|p| found(&p)),
            "no {code} {node:?} {part:?} in\n{report}"
        );
    };
    has("E002", None, "moon");
    has("E002", None, "keyword or payload");
    has("E002", None, "colour");
    has("E003", None, "nowhere");
    has("E004", None, "`now`");
    has("E002", Some("kind"), "message.video");
    has("E002", Some("field"), "bold");
    has(
        "E030",
        Some("long"),
        "`body` has 4097 characters, 4096 are allowed",
    );
    has("E003", Some("long"), "gone");
    has("E005", Some("long"), "`done`");
    has("E010", Some("loop1"), "loop1, loop2");
    has("E041", Some("loop2"), "at character 4");
    has("E041", Some("wide"), "nope");
    has(
        "E030",
        Some("wide"),
        "`options` has 4 entries, 1 to 3 are allowed",
    );
    has("E030", Some("wide"), "two options are titled `a`");
    has(
        "E030",
        Some("wide"),
        "`options/3/title` has 22 characters, 20 are allowed",
    );
    has("E004", Some("wide"), "`c c`");
    has("E020", Some("wide"), "option:b");
    has(
        "E030",
        Some("tall"),
        "`options` has 11 rows in all, 10 are allowed",
    );
    has("E004", Some("tall"), "twice");
    has("E030", Some("odd"), "empty");
    has("E004", Some("odd"), "contact");
    has("E041", Some("odd"), "pattern");
    has("E042", Some("odd"), "attempts");
    has("E002", Some("odd"), "whole");
    has("E002", Some("web"), "https://");
    has("E042", Some("web"), "timeout_seconds");
    has("E002", Some("web"), "JSON pointer");
    has("E002", Some("web"), "a b");
    has("E004", Some("a b"), "rename");
}

#[test]
fn warnings_are_shown_and_refuse_nothing() {
    let flow = Compiled::from_json(&json!({
        "format": 1, "name": "w", "start": "a", "nodes": {
            "a": {"kind": "message.text", "body": "{{typo}}"},
            "b": {"kind": "http", "url": "https://x", "exits": {"ok": "c"}},
            "c": {"kind": "message.buttons", "body": "x", "options": [{"id": "o", "title": "{{ contact.name }}"}], "exits": {"option:o": "b"}}
        }
    }));
    let flow = flow.unwrap();
    let codes: Vec<(&str, Option<&str>)> = flow
        .warnings()
        .iter()
        .map(|p| (p.code, p.node.as_deref()))
        .collect();
    for wanted in [
        ("W100", None),
        ("W101", Some("b")),
        ("W102", Some("a")),
        ("W105", Some("a")),
        ("W106", Some("c")),
        ("W109", Some("b")),
    ] {
        assert!(codes.contains(&wanted), "{wanted:?} not in {codes:?}");
    }
}

#[test]
fn a_definition_full_of_mistakes_or_patterns_is_refused_in_bounded_time_and_size() {
    let started = Instant::now();
    let exits: Map<String, Value> = (0..50_000)
        .map(|at| (format!("e{at}"), json!("x")))
        .collect();
    let branch = |at| json!({"id": format!("b{at}"), "when": "matches(x, '[\\p{L}]{1,90}') or matches(x, '[\\p{L}]{1,91}')"});
    let branches: Vec<Value> = (0..10_000).map(branch).collect();
    let options: Vec<Value> = (0..20_000)
        .map(|at| json!({"id": format!("o{at}"), "title": "t"}))
        .collect();
    for node in [
        json!({"kind": "condition", "branches": [{"id": "b", "when": "1 +"}], "exits": exits}),
        json!({"kind": "condition", "branches": branches, "exits": {"else": "a"}}),
        json!({"kind": "ask.choice", "body": "x", "options": options}),
        json!({"kind": "x".repeat(1_000_000)}),
    ] {
        let definition = json!({"format": 1, "name": "x", "start": "a", "nodes": {"a": node}});
        let report = Compiled::from_json(&definition).unwrap_err();
        assert!(report.has_errors() && report.to_string().len() < 250_000);
    }
    assert!(
        started.elapsed() < Duration::from_secs(20),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn the_dearest_steps_a_tenant_can_write_are_bounded_in_time() {
    let started = Instant::now();
    let dear = (0..50)
        .map(|_| "upper(message.text) == x")
        .collect::<Vec<_>>()
        .join(" or ");
    let slots = "{{message.text | upper | lower | title | trim}}".repeat(90);
    let mut nodes = Map::new();
    for at in 0..60 {
        let next = json!({"next": format!("t{at}")});
        nodes.insert(
            format!("n{at}"),
            json!({"kind": "set", "assign": {"a": dear, "b": dear}, "exits": next}),
        );
        let next = json!({"next": format!("n{}", at + 1)});
        nodes.insert(
            format!("t{at}"),
            json!({"kind": "message.text", "body": slots, "exits": next}),
        );
    }
    nodes.insert("n60".into(), json!({"kind": "end"}));
    nodes.insert("a".into(), json!({"kind": "goto", "exits": {"next": "n0"}}));
    let (session, effects) = begin(&compile(Value::Object(nodes)), &"\u{df}x".repeat(2_000));
    assert_eq!(
        (session.status(), outcome(&effects).unwrap().0),
        (Status::Failed, "failed")
    );
    assert!(
        started.elapsed() < Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[test]
fn what_is_no_definition_at_all_is_refused() {
    let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
    for definition in [
        json!(null),
        json!({}),
        json!({"format": 2, "name": "x", "start": "a", "nodes": {}}),
        json!({"format": 1, "name": "x", "start": "a", "nodes": {"a": deep}}),
        json!({"format": 1, "name": "x".repeat(3_000_000), "start": "a", "nodes": {}}),
        json!({"format": 1, "name": "x", "start": "a", "nodes": {"a": {"kind": "end", "exits": {"next": 1}}}}),
        json!({"format": 1, "name": "x", "start": "a", "nodes": {"a": {"kind": "end"}}, "edges": []}),
    ] {
        assert!(Compiled::from_json(&definition).unwrap_err().has_errors());
    }
}
