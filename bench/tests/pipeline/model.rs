//! An agent node on a real OpenAI-compatible server, aimock: what it is asked, and what it says goes out.

use crate::installation::{ACME_NUMBER, Blueprint, Installation, text};
use ackline_bench::processes::aimock;
use serde_json::{Value, json};

const FALLBACK: &str = "A colleague will answer here.";
const OPEN: &str = "We are open from 9 to 18 on weekdays.";

fn flow(url: &str) -> Value {
    json!({"format": 1, "name": "Assistant", "entry": [{"on": "any"}], "start": "assistant", "nodes": {
        "assistant": {
            "kind": "agent", "mode": "chat", "endpoint": {"base_url": format!("{url}/v1"), "model": "any"},
            "system": "You help.", "fallback": FALLBACK, "memory_turns": 12, "timeout_seconds": 4,
            "max_tokens": 100, "exits": {"done": "end"},
        },
        "end": {"kind": "end"},
    }})
}

/// Says something and gives the newest of `count` answers.
async fn say(installation: &Installation, person: &str, words: &str, count: usize) -> String {
    installation.post(text(person, ACME_NUMBER, words));
    installation.replies(person, count).await.pop().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_answers_remembers_and_falls_back_when_the_model_fails() {
    let model = tokio::task::spawn_blocking(|| aimock().unwrap())
        .await
        .unwrap();
    let mut blueprint = Blueprint::new().await;
    blueprint.flow = flow(model.url());
    let installation = blueprint.start().await;

    let ada = "4915100000001";
    assert_eq!(
        say(&installation, ada, "What are your opening hours?", 1).await,
        OPEN
    );
    assert_eq!(
        say(&installation, ada, "And the opening hours on Sunday?", 2).await,
        OPEN
    );
    for (person, words) in [("4915100000002", "slow down"), ("4915100000003", "break")] {
        assert_eq!(
            say(&installation, person, words, 1).await,
            FALLBACK,
            "{words}"
        );
    }
    assert_eq!(
        say(&installation, "4915100000003", "opening hours?", 2).await,
        OPEN,
        "after a failure"
    );

    let journal = installation
        .http()
        .get(format!("{}/__aimock/journal", model.url()))
        .send()
        .await
        .unwrap();
    let journal: Vec<Value> = journal.json().await.unwrap();
    let asked = |words: &str| -> Vec<&Value> {
        let asks = |request: &&Value| {
            let messages = request["body"]["messages"].as_array();
            messages
                .and_then(|messages| messages.last())
                .is_some_and(|last| last["content"] == words)
        };
        journal.iter().filter(asks).collect()
    };
    let second = asked("And the opening hours on Sunday?");
    assert_eq!(second.len(), 1);
    assert_eq!(
        second[0]["body"]["messages"],
        json!([
            {"role": "system", "content": "You help."},
            {"role": "user", "content": "What are your opening hours?"},
            {"role": "assistant", "content": OPEN},
            {"role": "user", "content": "And the opening hours on Sunday?"},
        ])
    );
    assert!(!asked("slow down").is_empty() && !asked("break").is_empty());
}
