//! A conversation as a person reads it, with the time each stage took.

use std::time::Duration;

/// What somebody wrote and what came of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    pub person: String,
    pub wrote: String,
    /// What they saw in answer.
    pub saw: Vec<String>,
    stages: Vec<(String, Duration)>,
    sides: Vec<(String, Duration)>,
}

impl Turn {
    /// A turn without an answer so far.
    pub fn new(person: &str, wrote: &str) -> Self {
        Self {
            person: person.to_owned(),
            wrote: wrote.to_owned(),
            ..Self::default()
        }
    }

    /// Adds a stage on the way from the person to the person, with the time it took.
    pub fn stage(&mut self, name: &str, took: Duration) {
        self.stages.push((name.to_owned(), took));
    }

    /// Adds something that happened beside it, with the time since Meta posted the webhook.
    pub fn side(&mut self, name: &str, since: Duration) {
        self.sides.push((name.to_owned(), since));
    }
}

pub fn render(turns: &[Turn]) -> String {
    let mut lines = vec![
        "A conversation. On the way: the time each stage took. Beside it: since Meta's webhook."
            .to_owned(),
    ];
    for turn in turns {
        lines.push(String::new());
        lines.push(format!("  {} ▸ {}", turn.person, turn.wrote));
        lines.extend(chain("    on the way  ", " → ", &turn.stages));
        lines.extend(chain("    beside it   ", " · ", &turn.sides));
        lines.extend(turn.saw.iter().map(|saw| format!("  ◂ {saw}")));
    }
    lines.join("\n")
}

fn chain(head: &str, between: &str, times: &[(String, Duration)]) -> Option<String> {
    let words: Vec<String> = times
        .iter()
        .map(|(name, time)| format!("{name} {}", milliseconds(*time)))
        .collect();
    (!words.is_empty()).then(|| format!("{head}{}", words.join(between)))
}

fn milliseconds(time: Duration) -> String {
    let micros = time.as_micros();
    if micros < 10_000 {
        format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
    } else {
        format!("{} ms", micros / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_shows_what_was_written_seen_and_timed() {
        let mut turn = Turn::new("Ada", "Hi");
        turn.saw.push("Hello  [Order status]".to_owned());
        turn.stage("edge 200", Duration::from_micros(3_450));
        turn.stage("flow", Duration::from_millis(12));
        turn.side("entry in the CRM", Duration::from_millis(140));
        let lines: Vec<_> = render(&[turn]).lines().skip(2).map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "  Ada ▸ Hi",
                "    on the way  edge 200 3.4 ms → flow 12 ms",
                "    beside it   entry in the CRM 140 ms",
                "  ◂ Hello  [Order status]",
            ]
        );
    }
}
