//! Random walks over random flows: whatever is published and whatever is said, the engine keeps its
//! promises.

use crate::*;
use ackline_message::Content;
use ackline_shared::ids::UpdateId;
use proptest::prelude::*;
use proptest::sample::select;
use serde_json::{Map, Value, json};
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
    let choice = select(vec!["ask.choice", "message.buttons", "message.list"]);
    let ask = select(vec![
        "ask.text",
        "ask.number",
        "ask.email",
        "ask.phone",
        "ask.date",
    ]);
    prop_oneof![
        (body(), node_id()).prop_map(|(body, next)| {
            json!({"kind": "message.text", "body": body, "exits": {"next": next}})
        }),
        (body(), node_id()).prop_map(|(body, next)| {
            json!({"kind": "message.image", "link": "{{v}}", "caption": body, "exits": {"next": next}})
        }),
        (choice, body(), 1usize..=3, exits(), any::<bool>()).prop_map(
            |(kind, body, count, (a, b, c), strict)| {
                let title = |at| json!({"id": format!("o{at}"), "title": format!("{{{{v}}}} {at}")});
                let options: Vec<Value> = (0..count).map(title).collect();
                let wired = if strict { count } else { 1 };
                let mut exits: Map<String, Value> =
                    (0..wired).zip([&a, &b, &c]).map(|(at, to)| (format!("option:o{at}"), json!(to))).collect();
                if !strict {
                    exits.insert("else".into(), json!(b));
                }
                json!({"kind": kind, "body": body, "options": options, "variable": "v", "exits": exits})
            }
        ),
        (ask, body(), exits()).prop_map(|(kind, body, (a, b, _))| {
            json!({"kind": kind, "body": body, "variable": "v", "attempts": 2, "exits": {"next": a, "invalid": b}})
        }),
        (expression(), exits()).prop_map(|(when, (a, b, _))| {
            let branches = json!([{"id": "x", "when": when}]);
            json!({"kind": "condition", "branches": branches, "exits": {"branch:x": a, "else": b}})
        }),
        (expression(), node_id()).prop_map(|(value, next)| {
            json!({"kind": "set", "assign": {"v": value, "w": "v"}, "exits": {"next": next}})
        }),
        exits().prop_map(|(a, b, c)| {
            json!({"kind": "http", "url": "https://x/{{v}}", "body": {"v": "{{v}}"}, "save": {"v": "/v"},
                   "exits": {"ok": a, "http_error": b, "timeout": c}})
        }),
        (select(vec!["once", "chat"]), node_id()).prop_map(|(mode, next)| {
            let exit = if mode == "once" { "next" } else { "done" };
            json!({"kind": "agent", "mode": mode, "endpoint": {"base_url": "https://x", "model": "m"}, "system": "s",
                   "fallback": "f", "exit_keywords": ["bye"], "exits": {exit: next}})
        }),
        node_id().prop_map(|next| json!({"kind": "goto", "exits": {"next": next}})),
        Just(json!({"kind": "end"})),
    ]
}

/// A flow of random nodes; `forward` leads nodes that do not wait to later ones, so that it has no circles.
fn definition(forward: bool) -> impl Strategy<Value = Value> {
    prop::collection::vec(node(), NODES).prop_map(move |mut nodes| {
        for (at, node) in nodes.iter_mut().enumerate() {
            let kind = node["kind"].as_str().unwrap();
            let waits = kind == "agent"
                || kind.starts_with("ask.")
                || kind.ends_with("buttons")
                || kind.ends_with("list");
            let exits = node.get_mut("exits").filter(|_| forward && !waits);
            for target in exits
                .into_iter()
                .filter_map(Value::as_object_mut)
                .flat_map(Map::values_mut)
            {
                let wanted: usize = target.as_str().unwrap()[1..].parse().unwrap();
                *target = json!(format!("n{}", at + 1 + wanted % (NODES - at)));
            }
        }
        let nodes = nodes.into_iter().chain([json!({"kind": "end"})]);
        let nodes: Map<String, Value> = nodes
            .enumerate()
            .map(|(at, node)| (format!("n{at}"), node))
            .collect();
        json!({"format": 1, "name": "walk", "entry": [{"on": "any"}], "start": "n0", "nodes": nodes,
               "variables": {"v": "a", "n": 0, "w": null},
               "settings": {"restart": ["again"], "stop": ["stop"], "fallback": "sorry"}})
    })
}

#[derive(Debug, Clone)]
enum Move {
    Say(String),
    Press(usize),
    Finish(CallOutcome),
    Stray,
    Redeliver,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let text = select(vec![
        "a",
        "1",
        "again",
        "bye",
        "ana@shop.example",
        "+4930123456",
        "\u{1f600}\u{1}\"",
        "",
    ]);
    let outcome = prop_oneof![
        Just(CallOutcome::Timeout),
        Just(CallOutcome::Failed { reason: "x".into() }),
        "\\PC{0,20}".prop_map(|text| CallOutcome::Reply { text }),
        (select(vec![200, 404, 500]), "\\PC{0,20}").prop_map(|(code, v)| CallOutcome::Http {
            code,
            body: json!({"v": v})
        }),
    ];
    let step = prop_oneof![
        4 => text.prop_map(|text| Move::Say(text.to_owned())),
        1 => (0usize..600).prop_map(|length| Move::Say("\u{1f468}\u{200d}\u{1f469}".repeat(length))),
        3 => (0usize..8).prop_map(Move::Press),
        6 => outcome.prop_map(Move::Finish),
        1 => Just(Move::Stray),
        1 => Just(Move::Redeliver),
    ];
    prop::collection::vec(step, 1..30)
}

fn check_content(content: &Content) {
    assert_eq!(ackline_message::check(content), [], "{content:?}");
    if let Content::List { sections, .. } = content {
        let rows: Vec<_> = sections.iter().flat_map(|section| &section.rows).collect();
        let titles: HashSet<_> = rows.iter().map(|row| &row.title).collect();
        assert_eq!(titles.len(), rows.len(), "titles are unique");
    }
}

fn payloads(effects: &[Effect], shown: &mut Vec<String>) {
    for effect in effects {
        match effect {
            Effect::Send {
                content: Content::Buttons { buttons, .. },
                ..
            } => {
                shown.extend(buttons.iter().map(|button| button.id.clone()));
            }
            Effect::Send {
                content: Content::List { sections, .. },
                ..
            } => {
                shown.extend(
                    sections
                        .iter()
                        .flat_map(|section| &section.rows)
                        .map(|row| row.id.clone()),
                );
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
                title: payload.as_ref().map(|_| "Label".to_owned()),
                payload_id: payload,
                more: [("details".to_owned(), "x".repeat(4_000).into())]
                    .into_iter()
                    .collect(),
                line: String::new(),
                contact: Contact::default(),
            })
        };
        let stray = || Update::EffectDone {
            effect_id: "nobody:1".into(),
            outcome: CallOutcome::Timeout,
        };
        let update = match next {
            Move::Say(text) => message(text, None),
            Move::Press(back) => message(
                "",
                Some(shown.iter().rev().nth(*back).cloned().unwrap_or_default()),
            ),
            Move::Finish(outcome) => match session.pending_effect() {
                Some(effect) => Update::EffectDone {
                    effect_id: effect.to_owned(),
                    outcome: outcome.clone(),
                },
                None => stray(),
            },
            Move::Stray => stray(),
            Move::Redeliver => {
                if let Some((update, effects)) = &last {
                    assert_eq!(
                        step(flow, session.clone(), update, 9),
                        (session.clone(), effects.clone())
                    );
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
        assert_eq!(
            Session::from_json(&stored).unwrap(),
            after,
            "what is stored reads back"
        );
        assert_ne!(after.status(), Status::New);
        assert_eq!(
            after.is_over(),
            after.wait().is_none(),
            "a run waits or is over"
        );
        for effect in &effects {
            assert!(
                keys.insert(effect.key()),
                "the key {} came twice",
                effect.key()
            );
            if let Effect::Send { content, .. } = effect {
                check_content(content);
            }
        }
        payloads(&effects, &mut shown);
        last = Some((update, effects));
        session = after;
    }
}

/// A value no field of a node takes.
fn junk() -> impl Strategy<Value = Value> {
    select(vec![
        json!(null),
        json!(7),
        json!([]),
        json!({"a": {"b": []}}),
        json!("{{"),
        json!("(((("),
    ])
}

fn config(cases: u32) -> ProptestConfig {
    ProptestConfig {
        cases,
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

proptest! {
    #![proptest_config(config(200))]
    #[test]
    fn a_random_walk_keeps_every_promise(definition in definition(true), moves in moves()) {
        let flow = Compiled::from_json(&definition).unwrap_or_else(|report| panic!("{report}"));
        walk(&flow, &moves);
    }
}

proptest! {
    #![proptest_config(config(300))]
    #[test]
    fn a_flow_is_refused_for_its_circles_or_walks_within_its_bounds(definition in definition(false)) {
        match Compiled::from_json(&definition) {
            Ok(flow) => walk(&flow, &[Move::Say("a".into()), Move::Finish(CallOutcome::Timeout), Move::Press(0)]),
            Err(report) => {
                let errors = report.problems.iter().filter(|problem| problem.is_error());
                prop_assert!(errors.into_iter().all(|problem| problem.code == report::CYCLE), "{}", report);
            }
        }
    }

    #[test]
    fn no_definition_panics_the_compiler(
        mut definition in definition(true),
        at in 0usize..NODES,
        field in select(vec!["kind", "body", "exits", "options", "url", "assign"]),
        junk in junk(),
    ) {
        definition["nodes"][format!("n{at}")][field] = junk;
        if let Ok(flow) = Compiled::from_json(&definition) {
            walk(&flow, &[Move::Say("a".into()), Move::Finish(CallOutcome::Timeout)]);
        }
    }
}
