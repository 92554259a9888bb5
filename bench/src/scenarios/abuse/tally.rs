//! What each attack was answered.

use super::attacks::Attack;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

/// Answers by attack and kind of request, in words or by status code, with how often.
#[derive(Debug, Default)]
pub struct Tally(Mutex<Answers>);

type Answers = BTreeMap<(Attack, &'static str), BTreeMap<String, u64>>;

impl Tally {
    pub fn note(&self, attack: Attack, request: &'static str, answer: impl Into<String>) {
        let mut answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *answers
            .entry((attack, request))
            .or_default()
            .entry(answer.into())
            .or_default() += 1;
    }

    /// A row for each kind of request of each attack, and what it was answered how often.
    pub fn rows(&self) -> Vec<Vec<String>> {
        let answers = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let row =
            |((attack, request), answers): (&(Attack, &'static str), &BTreeMap<String, u64>)| {
                let answers: Vec<_> = answers
                    .iter()
                    .map(|(answer, times)| format!("{answer}: {times}"))
                    .collect();
                vec![
                    attack.name().to_owned(),
                    (*request).to_owned(),
                    answers.join(", "),
                ]
            };
        answers.iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_by_attack_and_request() {
        let tally = Tally::default();
        for status in ["202", "429", "202"] {
            tally.note(Attack::Sends, "send", status);
        }
        assert_eq!(
            tally.rows(),
            [[Attack::Sends.name(), "send", "202: 2, 429: 1"]]
        );
    }
}
