//! Random walks over random flows: whatever is published and whatever is said, the engine keeps its
//! promises.

use super::*;
use ackline_shared::command::Content;
use ackline_shared::ids::UpdateId;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Value, json};
use std::collections::HashSet;

const NODES: usize = 8;

fn node_id() -> impl Strategy<Value = String> {
    (0..NODES).prop_map(|at| format!("n{at}"))
}

fn body() -> impl Strategy<Value = String> {
    select(vec![
        "Hello {{contact.name | default:\"you\"}}",
        "{{v}}{{v}}{{v}}",
        "{{message.text | upper}} \u{1f468}\u{200d}\u{1f469}",
        "{{none}}",
        "plain",
    ])
    .prop_map(str::to_owned)
}

fn expression() -> impl Strategy<Value = String> {
    select(vec![
        "v + message.text",
        "[v, v]",
        "len(v) + 1",
        "v contains 'a'",
        "1 / n",
        "upper(v)",
        "n == 1 or w",
        "null",
    ])
    .prop_map(str::to_owned)
}

fn node() -> impl Strategy<Value = Value> {
    let exits = || (node_id(), node_id(), node_id());
    let options = (1usize..=3).prop_map(|count| {
        (0..count)
            .map(|at| json!({"id": format!("o{at}"), "title": format!("{{{{v}}}} {at}")}))
            .collect::<Vec<_>>()
    });
    let choice = select(vec!["ask.choice", "message.buttons", "message.list"]);
    let ask = select(vec!["ask.text", "ask.number", "ask.email", "ask.phone"]);
    prop_oneof![
        (body(), exits()).prop_map(|(body, (a, ..))| json!({"kind": "message.text", "body": body, "exits": {"next": a}})),
        (body(), exits()).prop_map(
            |(body, (a, ..))| json!({"kind": "message.image", "link": "{{v}}", "caption": body, "exits": {"next": a}})
        ),
        (choice, body(), options, exits(), any::<bool>()).prop_map(|(kind, body, options, (a, b, c), strict)| {
            let exits = if strict { json!({"option:o0": a, "option:o1": b, "option:o2": c}) } else { json!({"option:o0": a, "else": b}) };
            let known = |exit: &String| !exit.starts_with("option:") || options.iter().any(|o| exit.ends_with(o["id"].as_str().unwrap()));
            let exits: serde_json::Map<_, _> = exits.as_object().unwrap().clone().into_iter().filter(|(exit, _)| known(exit)).collect();
            json!({"kind": kind, "body": body, "options": options, "variable": "v", "exits": exits})
        }),
        (ask, body(), exits()).prop_map(|(kind, body, (a, b, _))| {
            json!({"kind": kind, "body": body, "variable": "v", "attempts": 2, "exits": {"next": a, "invalid": b}})
        }),
        (expression(), exits()).prop_map(|(when, (a, b, _))| {
            json!({"kind": "condition", "branches": [{"id": "x", "when": when}], "exits": {"branch:x": a, "else": b}})
        }),
        (expression(), exits()).prop_map(|(value, (a, ..))| json!({"kind": "set", "assign": {"v": value, "w": "v"}, "exits": {"next": a}})),
        exits().prop_map(|(a, b, c)| {
            json!({"kind": "http", "url": "https://x/{{v}}", "body": {"v": "{{v}}"}, "save": {"v": "/v"},
                   "exits": {"ok": a, "http_error": b, "timeout": c}})
        }),
        (select(vec!["once", "chat"]), exits()).prop_map(|(mode, (a, ..))| {
            let exit = if mode == "once" { "next" } else { "done" };
            json!({"kind": "agent", "mode": mode, "endpoint": {"base_url": "https://x", "model": "m"}, "system": "s",
                   "fallback": "f", "exit_keywords": ["bye"], "exits": {exit: a}})
        }),
        exits().prop_map(|(a, ..)| json!({"kind": "goto", "exits": {"next": a}})),
        Just(json!({"kind": "end"})),
    ]
}

fn definition() -> impl Strategy<Value = Value> {
    prop::collection::vec(node(), NODES).prop_map(|nodes| {
        let nodes: serde_json::Map<_, _> = nodes.into_iter().enumerate().map(|(at, node)| (format!("n{at}"), node)).collect();
        json!({"format": 1, "name": "walk", "entry": [{"on": "any"}], "start": "n0", "nodes": nodes,
               "variables": {"v": "a", "n": 0, "w": null}, "settings": {"restart": ["again"], "stop": ["stop"], "fallback": "sorry"}})
    })
}

#[derive(Debug, Clone)]
enum Move {
    Say(String),
    Press(usize),
    Finish(Outcome),
    Stray,
    Redeliver,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let text =
        select(vec!["a", "1", "again", "bye", "ana@shop.example", "+4930123456", "\u{1f600}\u{1}\"", ""]);
    let outcome = prop_oneof![
        Just(Outcome::Timeout),
        Just(Outcome::Failed { reason: "x".into() }),
        "\\PC{0,20}".prop_map(|text| Outcome::Reply { text }),
        (select(vec![200, 404, 500]), "\\PC{0,20}")
            .prop_map(|(code, v)| Outcome::Http { code, body: json!({"v": v}) }),
    ];
    let step = prop_oneof![
        4 => text.prop_map(|text| Move::Say(text.to_owned())),
        1 => (0usize..3_000).prop_map(|length| Move::Say("\u{1f468}\u{200d}\u{1f469}".repeat(length))),
        3 => (0usize..8).prop_map(Move::Press),
        6 => outcome.prop_map(Move::Finish),
        1 => Just(Move::Stray),
        1 => Just(Move::Redeliver),
    ];
    prop::collection::vec(step, 1..30)
}

fn check_content(content: &Content) {
    let within = |text: &str, most: usize| {
        assert!(limits::units(text) <= most, "{text:?} is over {most}");
        assert!(!text.trim().is_empty());
    };
    match content {
        Content::Text { body, .. } => within(body, limits::TEXT_UNITS),
        Content::Image { caption, .. } => {
            caption.iter().for_each(|caption| within(caption, limits::BODY_UNITS))
        }
        Content::Buttons { body, buttons, .. } => {
            within(body, limits::BODY_UNITS);
            buttons.iter().for_each(|button| within(&button.title, limits::BUTTON_UNITS));
            let titles: HashSet<_> = buttons.iter().map(|button| &button.title).collect();
            assert_eq!(titles.len(), buttons.len(), "titles are unique");
        }
        Content::List { body, button, sections, .. } => {
            within(body, limits::TEXT_UNITS);
            within(button, limits::BUTTON_UNITS);
            let rows: Vec<_> = sections.iter().flat_map(|section| &section.rows).collect();
            rows.iter().for_each(|row| within(&row.title, limits::ROW_UNITS));
            let titles: HashSet<_> = rows.iter().map(|row| &row.title).collect();
            assert_eq!(titles.len(), rows.len(), "titles are unique");
        }
        Content::Template { .. } => panic!("no node sends templates"),
    }
}

fn payloads(effects: &[Effect], shown: &mut Vec<String>) {
    for effect in effects {
        match effect {
            Effect::Send { content: Content::Buttons { buttons, .. }, .. } => {
                shown.extend(buttons.iter().map(|button| button.id.clone()));
            }
            Effect::Send { content: Content::List { sections, .. }, .. } => {
                shown.extend(sections.iter().flat_map(|section| &section.rows).map(|row| row.id.clone()));
            }
            _ => {}
        }
    }
}

fn walk(flow: &Compiled, moves: &[Move]) {
    let mut session = Session::new("walk", flow);
    let mut keys = HashSet::new();
    let mut shown = Vec::new();
    let mut last: Option<(Update, Vec<Effect>)> = None;
    for (at, next) in moves.iter().enumerate() {
        if session.is_over() {
            session = session.succeed("walk", flow);
        }
        let message = |text: &str, payload: Option<String>| {
            Update::Message(Message {
                id: UpdateId::new(&format!("m{at}")),
                kind: "text".into(),
                text: text.to_owned(),
                title: payload.as_ref().map(|_| "Title".to_owned()),
                payload_id: payload,
                contact: Contact::default(),
            })
        };
        let stray = || Update::EffectDone { effect_id: "nobody:1".into(), outcome: Outcome::Timeout };
        let update = match next {
            Move::Say(text) => message(text, None),
            Move::Press(back) => {
                message("", Some(shown.iter().rev().nth(*back).cloned().unwrap_or_default()))
            }
            Move::Finish(outcome) => match session.pending_effect() {
                Some(effect) => Update::EffectDone { effect_id: effect.to_owned(), outcome: outcome.clone() },
                None => stray(),
            },
            Move::Stray => stray(),
            Move::Redeliver => {
                if let Some((update, effects)) = &last {
                    assert_eq!(step(flow, session.clone(), update, 9), (session.clone(), effects.clone()));
                }
                continue;
            }
        };
        let now = 1_000 * at as u64;
        let (after, effects) = step(flow, session.clone(), &update, now);
        let (again, same) = step(flow, session.clone(), &update, now);
        assert_eq!(after.to_json(), again.to_json(), "the same session");
        assert_eq!(
            serde_json::to_vec(&effects).unwrap(),
            serde_json::to_vec(&same).unwrap(),
            "the same effects"
        );
        if matches!(&update, Update::EffectDone { effect_id, .. } if effect_id == "nobody:1") {
            assert_eq!((&after, &effects), (&session, &vec![]));
            continue;
        }
        let stored = after.to_json();
        assert!(stored.len() <= limits::SESSION_BYTES_MAX);
        assert_eq!(Session::from_json(&stored).unwrap(), after, "what is stored reads back");
        assert_ne!(after.status(), Status::New);
        assert_eq!(after.is_over(), after.wait().is_none(), "a run waits or is over");
        for effect in &effects {
            assert!(keys.insert(effect.key()), "the key {} came twice", effect.key());
            if let Effect::Send { content, .. } = effect {
                check_content(content);
            }
        }
        payloads(&effects, &mut shown);
        last = Some((update, effects));
        session = after;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, max_shrink_iters: 2_000, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_random_walk_keeps_every_promise(definition in definition(), moves in moves()) {
        // A flow that is refused is not walked; circles without a wait are the usual reason.
        match Compiled::from_json(&definition) {
            Ok(flow) => walk(&flow, &moves),
            Err(report) => prop_assert!(report.problems.iter().filter(|p| p.is_error()).all(|p| p.code == report::CYCLE || p.code == report::UNWIRED), "{report}"),
        }
    }

    #[test]
    fn no_definition_panics_the_compiler(definition in definition(), at in 0usize..NODES, field in select(vec!["kind", "body", "exits", "options", "url", "assign"]), junk in select(vec![json!(null), json!(7), json!([]), json!({"a": {"b": []}}), json!("{{"), json!("((((")])) {
        let mut definition = definition;
        definition["nodes"][format!("n{at}")][field] = junk;
        if let Ok(flow) = Compiled::from_json(&definition) {
            walk(&flow, &[Move::Say("a".into()), Move::Finish(Outcome::Timeout)]);
        }
    }
}
