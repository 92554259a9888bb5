//! Injection rules: what shall go wrong with the next sends.

use super::errors::{GraphError, known};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

const RULES_MAX: usize = 1000;
const DELAY_MAX: Duration = Duration::from_secs(120);

/// One rule; the first that matches a send and is not used up applies.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rule {
    /// How many sends it applies to; 0 is read as 1.
    pub times: u32,
    /// Only sends to this phone number or user id.
    pub recipient: Option<String>,
    /// Only sends from this number.
    pub phone_number_id: Option<String>,
    /// Answers with this Graph error code instead of accepting.
    pub code: Option<u32>,
    /// The HTTP status of that answer; the code's usual one when absent.
    pub http: Option<u16>,
    /// Extra headers of that answer.
    pub headers: BTreeMap<String, String>,
    /// Closes the connection without an answer.
    pub drop: Option<Drop>,
    /// Waits before anything else, in milliseconds.
    pub delay_ms: u64,
    /// Accepts the message, but its only status webhook is `failed` with this code.
    pub fail_code: Option<u32>,
}

/// When a connection is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Drop {
    /// Before the message is accepted: it is never sent.
    Before,
    /// After the message is accepted: it is sent, the client cannot know.
    After,
}

/// Why a rule is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadRule {
    /// It would do nothing, or two things at once.
    #[error(
        "give at most one of `code`, `drop` and `fail_code`, and at least one of them or `delay_ms`"
    )]
    Action,
    /// The delay is longer than any client waits.
    #[error("`delay_ms` may be at most {}", DELAY_MAX.as_millis())]
    Delay,
    /// The HTTP status is not one.
    #[error("`http` is a status from 400 to 599 and goes with `code`")]
    Http,
    /// Too many rules are waiting.
    #[error("{RULES_MAX} rules are waiting; delete some")]
    TooMany,
}

/// A send, as far as rules look at it; `recipients` are the names the person goes by.
#[derive(Debug, Clone, Copy)]
pub struct Send<'a> {
    pub phone_number_id: &'a str,
    /// User id and phone number of the person.
    pub recipients: [&'a str; 2],
}

impl Rule {
    /// How long to wait first.
    pub fn delay(&self) -> Duration {
        Duration::from_millis(self.delay_ms)
    }

    /// The error to answer with, when the rule gives one.
    pub fn error(&self) -> Option<GraphError> {
        let code = self.code?;
        let (usual, title) = known(code);
        Some(GraphError {
            http: self.http.unwrap_or(usual),
            headers: self.headers.clone(),
            ..GraphError::new(code, title)
        })
    }

    fn check(&self) -> Result<(), BadRule> {
        let actions = usize::from(self.code.is_some())
            + usize::from(self.drop.is_some())
            + usize::from(self.fail_code.is_some());
        if actions > 1 || (actions == 0 && self.delay_ms == 0) {
            return Err(BadRule::Action);
        }
        if self.delay() > DELAY_MAX {
            return Err(BadRule::Delay);
        }
        match (self.http, self.code) {
            (None, _) | (Some(400..=599), Some(_)) => Ok(()),
            _ => Err(BadRule::Http),
        }
    }

    fn matches(&self, send: &Send) -> bool {
        let recipient = self.recipient.as_deref().map(|r| r.trim_start_matches('+'));
        self.phone_number_id
            .as_deref()
            .is_none_or(|id| id == send.phone_number_id)
            && recipient.is_none_or(|recipient| send.recipients.contains(&recipient))
    }
}

/// The rules that are still to be applied.
#[derive(Debug, Default)]
pub struct Rules(Vec<Rule>);

impl Rules {
    /// Adds a rule behind the others.
    pub fn add(&mut self, mut rule: Rule) -> Result<(), BadRule> {
        rule.check()?;
        if self.0.len() >= RULES_MAX {
            return Err(BadRule::TooMany);
        }
        rule.times = rule.times.max(1);
        self.0.push(rule);
        Ok(())
    }

    /// Uses up one application of the first matching rule.
    pub fn next(&mut self, send: &Send) -> Option<Rule> {
        let index = self.0.iter().position(|rule| rule.matches(send))?;
        let rule = self.0.get_mut(index)?;
        let applied = rule.clone();
        rule.times -= 1;
        if rule.times == 0 {
            self.0.remove(index);
        }
        Some(applied)
    }

    /// The rules left, with how often each still applies.
    pub fn list(&self) -> &[Rule] {
        &self.0
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn send(user: &str) -> Send<'_> {
        Send {
            phone_number_id: "1",
            recipients: [user, "15551"],
        }
    }

    #[test]
    fn a_rule_applies_so_often_and_only_where_it_matches() {
        let mut rules = Rules::default();
        let rule = Rule {
            times: 2,
            recipient: Some("+15551".into()),
            code: Some(131_000),
            ..Rule::default()
        };
        rules.add(rule).unwrap();
        let elsewhere = Send {
            phone_number_id: "1",
            recipients: ["US.2", ""],
        };
        assert_eq!(rules.next(&elsewhere), None);
        assert_eq!(
            rules.next(&send("US.1")).unwrap().error().unwrap().http,
            500
        );
        assert!(rules.next(&send("US.1")).is_some());
        assert_eq!(rules.next(&send("US.1")), None);
    }

    #[test]
    fn a_rule_without_exactly_one_effect_is_refused() {
        let mut rules = Rules::default();
        assert_eq!(rules.add(Rule::default()), Err(BadRule::Action));
        let two = Rule {
            code: Some(1),
            drop: Some(Drop::Before),
            ..Rule::default()
        };
        assert_eq!(rules.add(two), Err(BadRule::Action));
        assert_eq!(
            rules.add(Rule {
                code: Some(1),
                http: Some(200),
                ..Rule::default()
            }),
            Err(BadRule::Http)
        );
        assert_eq!(
            rules.add(Rule {
                delay_ms: 5,
                ..Rule::default()
            }),
            Ok(())
        );
    }
}
