//! Golden conversations: a transcript is both the script and the expectation.
//!
//! `> text` writes, `> [label]` presses, `= …` is the outcome of the pending call; all other lines are what
//! the engine did. Every step is taken twice and delivered twice, and the session is stored and read
//! again in between. `ACKLINE_UPDATE_GOLDEN=1` rewrites the transcripts.

use crate::*;
use ackline_message::Content;
use ackline_shared::ids::UpdateId;
use serde_json::Value;
use std::path::Path;
use std::sync::Arc;

#[test]
fn the_welcome_flow_has_no_problems_at_all() {
    assert_eq!(welcome().warnings(), []);
}

#[test]
fn the_welcome_flow_looks_up_an_order() {
    play("welcome_order");
}

#[test]
fn the_welcome_flow_talks_through_the_assistant() {
    play("welcome_assistant");
}

#[test]
fn the_welcome_flow_survives_what_goes_wrong() {
    play("welcome_trouble");
}

fn welcome() -> Compiled {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/dev/flows/welcome.json");
    let definition: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    Compiled::from_json(&definition).unwrap_or_else(|report| panic!("{report}"))
}

fn play(name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/golden/{name}.txt"));
    let wanted = std::fs::read_to_string(&path).unwrap();
    let mut player = Player {
        flows: vec![Flow {
            id: "welcome".into(),
            compiled: Arc::new(welcome()),
        }],
        session: None,
        shown: Vec::new(),
        pending: None,
        messages: 0,
        transcript: String::new(),
    };
    for line in wanted
        .lines()
        .filter(|line| line.starts_with("> ") || line.starts_with("= "))
    {
        player.write(line);
        let update = match line.split_at(2) {
            ("> ", said) => player.message(said),
            (_, outcome) => player.outcome(outcome),
        };
        player.advance(&update);
    }
    if std::env::var_os("ACKLINE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, &player.transcript).unwrap();
    }
    assert_eq!(player.transcript, wanted, "{name} differs");
}

struct Player {
    flows: Vec<Flow>,
    session: Option<Vec<u8>>,
    /// Titles and payloads of what can be pressed.
    shown: Vec<(String, String)>,
    pending: Option<String>,
    messages: usize,
    transcript: String,
}

impl Player {
    fn write(&mut self, line: &str) {
        self.transcript.push_str(line);
        self.transcript.push('\n');
    }

    fn message(&mut self, said: &str) -> Update {
        self.messages += 1;
        let title = said
            .strip_prefix('[')
            .and_then(|said| said.strip_suffix(']'));
        let payload = title.map(|title| {
            let shown = self.shown.iter().rev().find(|(shown, _)| shown == title);
            shown
                .unwrap_or_else(|| panic!("nothing titled {title} is shown"))
                .1
                .clone()
        });
        Update::Message(Message {
            id: UpdateId::new(&format!("wamid.{}", self.messages)),
            kind: if title.is_some() {
                "interactive"
            } else {
                "text"
            }
            .into(),
            text: if title.is_some() { "" } else { said }.into(),
            payload_id: payload,
            title: title.map(str::to_owned),
            more: serde_json::Map::new(),
            line: String::new(),
            contact: Contact {
                name: Some("Ana".into()),
                phone: Some("4915100000000".into()),
                user_id: None,
            },
        })
    }

    fn outcome(&mut self, outcome: &str) -> Update {
        let outcome = match outcome.split_once(' ') {
            _ if outcome == "timeout" => CallOutcome::Timeout,
            Some(("failed", reason)) => CallOutcome::Failed {
                reason: reason.into(),
            },
            Some(("reply", text)) => CallOutcome::Reply { text: text.into() },
            Some((code, body)) => CallOutcome::Http {
                code: code.parse().unwrap(),
                body: serde_json::from_str(body).unwrap(),
            },
            None => panic!("{outcome} is not an outcome"),
        };
        Update::EffectDone {
            effect_id: self.pending.take().expect("no call is pending"),
            outcome,
        }
    }

    fn advance(&mut self, update: &Update) {
        let load = |bytes: &Option<Vec<u8>>| {
            bytes
                .as_ref()
                .map(|bytes| Session::from_json(bytes).unwrap())
        };
        let take =
            |bytes: &Option<Vec<u8>>| advance(&self.flows, load(bytes), update, 1_780_000_000_000);
        let Some((session, effects)) = take(&self.session) else {
            return self.write("  (nothing)");
        };
        let stored = Some(session.to_json());
        let (again, same_effects) = take(&self.session).unwrap();
        assert_eq!(
            (Some(again.to_json()), &same_effects),
            (stored.clone(), &effects),
            "a step was not pure"
        );
        let (redelivered, replayed) = take(&stored).unwrap();
        assert_eq!(
            (Some(redelivered.to_json()), replayed),
            (stored.clone(), effects.clone())
        );
        self.session = stored;
        for effect in effects {
            self.show(effect);
        }
    }

    fn show(&mut self, effect: Effect) {
        match effect {
            Effect::Send { content, .. } => self.show_content(&content),
            Effect::Call { effect_id, call } => {
                self.pending = Some(effect_id);
                match call {
                    Call::Http(http) => {
                        self.write(&format!("  call {} {}", http.method.as_str(), http.url))
                    }
                    Call::Agent(agent) => {
                        let turns: Vec<&str> = agent
                            .messages
                            .iter()
                            .map(|turn| turn.content.as_str())
                            .collect();
                        self.write(&format!("  call {} with {:?}", agent.endpoint.model, turns));
                    }
                }
            }
            Effect::Started { .. } => self.write("  run started"),
            Effect::Completed {
                outcome, variables, ..
            } => {
                let order = variables.get("order").cloned().unwrap_or_default();
                self.write(&format!("  run {outcome}, order {order}"));
            }
        }
    }

    fn show_content(&mut self, content: &Content) {
        self.write(&format!("  {}: {}", content.kind(), content.summary()));
        if let Content::Buttons { buttons, .. } = content {
            let titles: Vec<String> = buttons
                .iter()
                .map(|button| format!("[{}]", button.title))
                .collect();
            self.write(&format!("    {}", titles.join(" ")));
            self.shown.extend(
                buttons
                    .iter()
                    .map(|button| (button.title.clone(), button.id.clone())),
            );
        }
    }
}
