//! What follows from Meta's answer to a send, or from its absence.
//!
//! A message goes out again only when nothing was written or Meta said no. Where Meta may have accepted it
//! the message is given up as ambiguous: Meta's status webhooks carry our id and settle it.

use super::errors::{Class, Meaning, meaning, pair_wait, unlisted};
use super::graph::{GraphAnswer, SendError};
use ackline_engine::step::Step;
use ackline_engine::verdict::{Trouble, TroubleKind, Verdict};
use ackline_shared::recipient::Recipient;
use serde_json::Value;
use std::borrow::Cow;
use std::time::Duration;

/// A request may have gone out, and its answer is not known.
pub const SENDING: Step = Step::Begun(Cow::Borrowed("sending"));
/// How the reason of a refusal begins, before Meta's code.
const REFUSED: &str = "Meta refused it (";
/// How the reason begins when Meta may have accepted the message.
pub const ANSWER_LOST: &str = "Meta's answer was lost";

/// How long the circuit breaker of a number is open whose token is not accepted, but for one message that finds out.
const AUTH_WAIT: Duration = Duration::from_secs(60);
const LATER: Duration = Duration::from_secs(60);
const DETAILS_CHARS_MAX: usize = 200;
/// Digits in a row that could be a phone number.
const DIGITS_SHOWN_MAX: usize = 6;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SendOutcome {
    Sent {
        wamid: String,
        /// Whom Meta says it went to.
        to: Recipient,
    },
    /// It did not go out; try again.
    Again(Setback),
    /// It was not tried: nothing of the number, or of anybody, goes out for now.
    Held {
        /// In words, without personal data.
        reason: String,
        after: Duration,
    },
    Failed(Failure),
}

/// Why a message did not go out this time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setback {
    pub code: Option<i64>,
    /// In words, without personal data.
    pub reason: String,
    pub after: Option<Duration>,
    /// How long to hold everything else of the same number.
    pub pause: Option<Duration>,
    pub blame: Blame,
}

/// Whose trouble a setback is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The message's own: it uses up an attempt.
    Message,
    /// The message's own, and only a matter of time.
    Time,
    Graph,
    /// The sending number's, or its account's.
    Number,
}

/// The place of the Graph API among the breakers of a message.
const GRAPH_BREAKER: usize = 0;
/// The place of the sending number.
const NUMBER_BREAKER: usize = 1;

impl Setback {
    /// A setback of ours that is no message's and no number's fault.
    pub fn own(reason: String) -> Self {
        Self {
            code: None,
            reason,
            after: None,
            pause: None,
            blame: Blame::Message,
        }
    }

    /// What follows for the message.
    pub fn verdict(self) -> Verdict {
        let Self {
            reason,
            after,
            blame,
            code,
            ..
        } = self;
        let breaker = match blame {
            Blame::Message => return Verdict::Retry { reason, after },
            Blame::Time => {
                return Verdict::Wait {
                    reason,
                    after: after.unwrap_or(LATER),
                };
            }
            Blame::Graph => GRAPH_BREAKER,
            Blame::Number => NUMBER_BREAKER,
        };
        let kind = if after.is_some() {
            TroubleKind::Busy
        } else {
            TroubleKind::Down
        };
        let (after_sending, is_unanswered) = (code.is_some(), code.is_none());
        Verdict::Trouble(Trouble {
            reason,
            breaker,
            kind,
            after,
            after_sending,
            is_unanswered,
        })
    }
}

/// Why a message is given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub code: Option<i64>,
    /// In words, without personal data.
    pub reason: String,
    /// Whether Meta may have accepted it.
    pub ambiguous: bool,
}

impl Failure {
    /// A failure of ours: nothing was sent.
    pub fn ours(reason: impl ToString) -> Self {
        Self {
            code: None,
            reason: reason.to_string(),
            ambiguous: false,
        }
    }

    /// What was tried or waited for long enough; the reason holds Meta's last code, where there was one.
    pub fn given_up(reason: &str) -> Self {
        let code = reason
            .split_once(REFUSED)
            .and_then(|(_, rest)| rest.split_once(", HTTP"));
        let code = code.and_then(|(code, _)| code.parse().ok());
        Self {
            code,
            reason: reason.to_owned(),
            ambiguous: false,
        }
    }

    /// Meta's answer is missing or says nothing.
    pub fn lost(what: impl std::fmt::Display) -> Self {
        let reason = format!(
            "{ANSWER_LOST} ({what}); the message may have gone out and is not sent again; a status webhook with our id will settle it"
        );
        Self {
            code: None,
            reason,
            ambiguous: true,
        }
    }
}

/// Judges the `attempt`-th attempt, from 1.
pub fn judge(result: &Result<GraphAnswer, SendError>, attempt: u32) -> SendOutcome {
    let answer = match result {
        Ok(answer) => answer,
        Err(SendError::NotSent(reason)) => {
            let reason = format!("the Graph API cannot be reached: {reason}");
            let (code, after, pause) = (None, None, None);
            return SendOutcome::Again(Setback {
                code,
                reason,
                after,
                pause,
                blame: Blame::Graph,
            });
        }
        Err(SendError::Lost(reason)) => return SendOutcome::Failed(Failure::lost(reason)),
    };
    let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    if let Some(code) = body.pointer("/error/code").and_then(Value::as_i64) {
        return refused(
            answer,
            Some(code),
            meaning(code, answer.status),
            details(&body),
            attempt,
        );
    }
    match answer.status {
        200..=299 => match body.pointer("/messages/0/id").and_then(Value::as_str) {
            Some(wamid) if !wamid.is_empty() => SendOutcome::Sent {
                wamid: wamid.to_owned(),
                to: receiver(&body),
            },
            _ => SendOutcome::Failed(Failure::lost(format!(
                "HTTP {} without a message id",
                answer.status
            ))),
        },
        300..=399 => SendOutcome::Failed(Failure::ours(format!(
            "the Graph API answered with a redirect (HTTP {}); check meta.graph_url and meta.graph_version",
            answer.status
        ))),
        // 503 is said before the work begins; any other server error without Meta's words may come after it.
        500..=502 | 504..=599 => SendOutcome::Failed(Failure::lost(format!(
            "HTTP {} without Meta's error",
            answer.status
        ))),
        _ => refused(answer, None, unlisted(answer.status), None, attempt),
    }
}

fn receiver(body: &Value) -> Recipient {
    let id = |pointer: &str| {
        let id = body.pointer(pointer).and_then(Value::as_str);
        id.filter(|id| !id.is_empty()).map(str::to_owned)
    };
    Recipient {
        user_id: id("/contacts/0/user_id"),
        phone: id("/contacts/0/wa_id"),
    }
}

fn refused(
    answer: &GraphAnswer,
    code: Option<i64>,
    meaning: Meaning,
    details: Option<String>,
    attempt: u32,
) -> SendOutcome {
    let number = code.map(|code| format!("{code}, ")).unwrap_or_default();
    let details = details
        .map(|details| format!(" ({details})"))
        .unwrap_or_default();
    let reason = format!(
        "{REFUSED}{number}HTTP {}): {}{details}",
        answer.status, meaning.words
    );
    let again = |after: Option<Duration>, pause: Option<Duration>, blame: Blame| {
        SendOutcome::Again(Setback {
            code,
            reason: reason.clone(),
            after,
            pause,
            blame,
        })
    };
    match meaning.class {
        // Somebody in Meta's place: it said so before it began.
        Class::Transient(_) if code.is_none() => again(answer.regain, None, Blame::Graph),
        Class::Transient(u32::MAX) => again(answer.regain, None, Blame::Number),
        Class::Transient(attempts_max) if attempt < attempts_max => {
            again(answer.regain, None, Blame::Message)
        }
        Class::Wait(wait) => again(Some(answer.regain.unwrap_or(wait)), None, Blame::Number),
        Class::Sync(wait) => again(Some(answer.regain.unwrap_or(wait)), None, Blame::Time),
        Class::Throttle(pause) => {
            let pause = answer.regain.unwrap_or(pause);
            again(Some(pause), Some(pause), Blame::Number)
        }
        Class::PairRate => again(Some(pair_wait(attempt)), None, Blame::Message),
        Class::Auth => again(Some(AUTH_WAIT), None, Blame::Number),
        Class::Transient(_) | Class::Permanent => SendOutcome::Failed(Failure {
            code,
            reason,
            ambiguous: false,
        }),
    }
}

/// Meta's own details, shortened and without anything that could be a phone number.
fn details(body: &Value) -> Option<String> {
    let found = body
        .pointer("/error/error_data/details")
        .or_else(|| body.pointer("/error/message"));
    let text = found.and_then(Value::as_str)?;
    let mut out = String::new();
    let mut digits = String::new();
    for c in text.chars().take(DETAILS_CHARS_MAX).chain(['\n']) {
        if c.is_ascii_digit() {
            digits.push(c);
            continue;
        }
        out.push_str(if digits.len() > DIGITS_SHOWN_MAX {
            "…"
        } else {
            &digits
        });
        digits.clear();
        out.push(if c.is_control() { ' ' } else { c });
    }
    let out = out.trim();
    (!out.is_empty()).then(|| out.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn answer(status: u16, body: &Value) -> Result<GraphAnswer, SendError> {
        Ok(GraphAnswer {
            status,
            regain: None,
            body: body.to_string().into(),
        })
    }

    fn error(code: i64) -> Value {
        json!({"error": {"message": format!("(#{code}) x"), "code": code, "error_data": {"details": "Call +491511234567 back"}}})
    }

    fn setback(outcome: SendOutcome) -> Setback {
        match outcome {
            SendOutcome::Again(setback) => setback,
            other => panic!("{other:?}"),
        }
    }

    fn failure(outcome: SendOutcome) -> Failure {
        match outcome {
            SendOutcome::Failed(failure) => failure,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_accepted_message_has_metas_id() {
        for (contacts, user_id, phone) in [
            (json!(null), None, None),
            (json!([{"input": "+49", "wa_id": "49"}]), None, Some("49")),
            (
                json!([{"wa_id": "", "user_id": "US.1"}]),
                Some("US.1"),
                None,
            ),
        ] {
            let body = json!({"messages": [{"id": "wamid.1"}], "contacts": contacts});
            assert_eq!(
                judge(&answer(200, &body), 1),
                SendOutcome::Sent {
                    wamid: "wamid.1".into(),
                    to: Recipient {
                        user_id: user_id.map(str::to_owned),
                        phone: phone.map(str::to_owned),
                    },
                }
            );
        }
    }

    #[test]
    fn an_answer_that_leaves_the_outcome_open_is_never_tried_again() {
        let lost = Err(SendError::Lost("it took too long".into()));
        let open = [
            lost,
            answer(200, &json!({})),
            answer(502, &json!("bad gateway")),
            answer(500, &Value::Null),
        ];
        for result in open {
            let failure = failure(judge(&result, 1));
            assert!(
                failure.ambiguous && failure.reason.contains("a status webhook with our id"),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn what_was_not_written_or_is_refused_for_now_is_tried_again() {
        let not_sent = Err(SendError::NotSent("refused".into()));
        assert_eq!(setback(judge(&not_sent, 1)).after, None);
        assert_eq!(setback(judge(&answer(503, &Value::Null), 1)).after, None);
        let throttled = setback(judge(&answer(400, &error(130_429)), 1));
        assert_eq!(throttled.pause, Some(Duration::from_secs(1)));
        assert_eq!(
            setback(judge(&answer(401, &error(190)), 1)).after,
            Some(AUTH_WAIT)
        );
        let pair = setback(judge(&answer(400, &error(131_056)), 3));
        assert_eq!(
            (pair.after, pair.pause),
            (Some(Duration::from_secs(16)), None)
        );
    }

    #[test]
    fn the_wait_meta_names_is_kept() {
        let reported = Ok(GraphAnswer {
            status: 400,
            regain: Some(Duration::from_secs(120)),
            body: error(80_007).to_string().into(),
        });
        assert_eq!(
            setback(judge(&reported, 1)).after,
            Some(Duration::from_secs(120))
        );
    }

    #[test]
    fn a_code_of_few_tries_is_given_up_before_the_pool_does() {
        assert!(matches!(
            judge(&answer(400, &error(1)), 2),
            SendOutcome::Again(_)
        ));
        assert!(!failure(judge(&answer(400, &error(1)), 3)).ambiguous);
    }

    #[test]
    fn a_final_refusal_says_what_to_do_and_no_phone_number() {
        let failure = failure(judge(&answer(400, &error(131_047)), 1));
        assert_eq!((failure.code, failure.ambiguous), (Some(131_047), false));
        assert_eq!(
            failure.reason,
            "Meta refused it (131047, HTTP 400): the 24-hour window is closed; only a template may be sent now (Call +… back)"
        );
    }
}
