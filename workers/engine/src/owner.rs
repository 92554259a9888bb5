//! The owner of a conversation and how it changes: values and one pure function.
//!
//! Events may come late, twice and in another order than they happened. So an event that happened before the present
//! owner began changes nothing, and the same one again neither.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::time::Duration;

/// The version of the record's shape.
const VERSION: u32 = 1;
/// How long Meta leaves a conversation to a responder that nobody writes to.
const RESPONDER_MS: u64 = 24 * 60 * 60 * 1000;
/// An end that moved by less than such a part of its time is not written again.
const FRESH_PART: u64 = 24;
const WHY_CHARS_MAX: usize = 160;

/// Whose turn it is in a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Who {
    Bot,
    /// A human agent of ours.
    Person,
    Responder,
    /// Nobody: the next message is a flow's, if one takes it.
    Idle,
    /// One that a newer version knows. It is not us.
    Other(String),
}

/// The owner of a conversation, since when, until when, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    #[serde(default)]
    v: u32,
    pub who: Who,
    /// When that happened by the clock of who told it, in unix milliseconds.
    pub since_ms: u64,
    /// When it was written, in unix milliseconds.
    #[serde(default)]
    pub set_ms: u64,
    /// When it ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until_ms: Option<u64>,
    /// Until when a person had it before: what came until then is that person's, however late it is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rested_ms: Option<u64>,
    /// Who or what set it, in words.
    #[serde(default)]
    pub why: String,
}

/// Something that may change the owner; `at_ms` is when it happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A person answered in a CRM; flows rest as long.
    Answered {
        link: String,
        /// When the answer was written.
        at_ms: u64,
        rest: Duration,
    },
    /// The conversation was closed in a CRM, or given back to the bot there.
    Released {
        link: String,
        at_ms: u64,
        /// Whether it was given to the bot.
        to_bot: bool,
    },
    /// Meta passed the conversation to us, or took it from us.
    Handover {
        /// Whether it is ours now.
        is_gained: bool,
        /// The roles at Meta, as in `A to B`.
        roles: String,
        at_ms: u64,
    },
    /// A message came as one that is ours to answer.
    Heard { at_ms: u64 },
    /// A message came that another responder is to answer.
    Overheard { at_ms: u64 },
    /// Somebody said so by the API.
    Set {
        who: Who,
        /// Until when; without an end if absent.
        until_ms: Option<u64>,
        key: String,
    },
}

impl Owner {
    /// Whether something that was received at a time is for flows to answer.
    pub fn lets_flows_answer(&self, received_ms: u64, now_ms: u64) -> bool {
        self.is_over(now_ms)
            && self
                .rested_until(now_ms)
                .is_none_or(|rested| received_ms >= rested)
    }

    /// Whether its time ended, or it leaves the conversation to us anyway.
    pub fn is_over(&self, now_ms: u64) -> bool {
        matches!(self.who, Who::Bot | Who::Idle)
            || self.until_ms.is_some_and(|until| until <= now_ms)
    }

    /// Until when a person had the conversation, as far as that is over.
    fn rested_until(&self, now_ms: u64) -> Option<u64> {
        match (&self.who, self.until_ms) {
            (Who::Person | Who::Other(_), until) => {
                Some(until.map_or(now_ms, |until| until.min(now_ms)))
            }
            _ => self.rested_ms,
        }
    }

    /// Whether a newer version wrote it.
    pub fn is_newer(&self) -> bool {
        self.v > VERSION
    }

    /// The owner after an event; `None` when it stays as it is.
    pub fn after(current: Option<&Self>, event: &Event, now_ms: u64) -> Option<Self> {
        let since = current.map_or(0, |owner| owner.since_ms);
        let has =
            |who: Who| current.is_some_and(|owner| owner.who == who && !owner.is_over(now_ms));
        let rested_ms = current.and_then(|owner| owner.rested_until(now_ms));
        let make = |who: Who, since_ms: u64, until_ms: Option<u64>, why: String| {
            let why = why
                .chars()
                .filter(|c| !c.is_control())
                .take(WHY_CHARS_MAX)
                .collect();
            // Only what a person had has to be told apart from what is the bot's again.
            let rested_ms = rested_ms.filter(|_| who != Who::Person);
            Some(Self {
                v: VERSION,
                who,
                since_ms,
                set_ms: now_ms,
                until_ms,
                rested_ms,
                why,
            })
        };
        match event {
            Event::Answered { link, at_ms, rest } => {
                let until = now_ms.saturating_add(millis(*rest));
                if has(Who::Person) {
                    let old = current.and_then(|owner| owner.until_ms)?;
                    let is_fresh = until < old.saturating_add(millis(*rest) / FRESH_PART);
                    return if is_fresh {
                        None
                    } else {
                        current.map(|owner| owner.prolonged(until, now_ms))
                    };
                }
                let was_released = current
                    .is_some_and(|owner| matches!(owner.who, Who::Bot | Who::Idle))
                    && since > *at_ms;
                if was_released || rest.is_zero() {
                    return None;
                }
                make(
                    Who::Person,
                    *at_ms,
                    Some(until),
                    format!("an agent answered in the CRM link {link}"),
                )
            }
            Event::Released { at_ms, .. } if since > *at_ms => None,
            Event::Released { .. } if has(Who::Responder) => None,
            Event::Released {
                link,
                at_ms,
                to_bot,
            } => {
                let (who, verb) = if *to_bot {
                    (Who::Bot, "given back")
                } else {
                    (Who::Idle, "resolved")
                };
                let is_known =
                    current.is_some_and(|owner| owner.who == who && owner.since_ms == *at_ms);
                if is_known {
                    None
                } else {
                    make(who, *at_ms, None, format!("{verb} in the CRM link {link}"))
                }
            }
            Event::Handover { at_ms, .. } | Event::Overheard { at_ms } if since > *at_ms => None,
            Event::Handover {
                is_gained: true,
                roles,
                at_ms,
            } => match current {
                // A colleague who is at it goes on.
                Some(_) if has(Who::Person) => None,
                Some(owner) if owner.who == Who::Bot && owner.since_ms == *at_ms => None,
                _ => make(
                    Who::Bot,
                    *at_ms,
                    None,
                    format!("Meta passed the conversation from {roles}"),
                ),
            },
            Event::Handover {
                is_gained: false,
                roles,
                at_ms,
            } => {
                let is_known = current
                    .is_some_and(|owner| owner.who == Who::Responder && owner.since_ms == *at_ms);
                let until = at_ms.saturating_add(RESPONDER_MS);
                let why = format!("Meta passed the conversation from {roles}");
                // Meta left it to nobody by now.
                let is_past = until <= now_ms;
                if is_known || is_past {
                    None
                } else {
                    make(Who::Responder, *at_ms, Some(until), why)
                }
            }
            Event::Heard { at_ms } => {
                // Meta counts in seconds: what came as ours in the same one is ours.
                let is_ours_again = has(Who::Responder) && *at_ms >= since;
                let why = "Meta delivers messages to us again".to_owned();
                if is_ours_again {
                    make(Who::Bot, *at_ms, None, why)
                } else {
                    None
                }
            }
            Event::Overheard { at_ms } => {
                let until = at_ms.saturating_add(RESPONDER_MS);
                if has(Who::Responder) {
                    let old = current.and_then(|owner| owner.until_ms)?;
                    let is_fresh = until < old.saturating_add(RESPONDER_MS / FRESH_PART);
                    return if is_fresh {
                        None
                    } else {
                        current.map(|owner| owner.prolonged(until, now_ms))
                    };
                }
                let is_before =
                    current.is_some_and(|owner| owner.since_ms == *at_ms) || until <= now_ms;
                let why = "Meta delivers messages on standby".to_owned();
                if is_before {
                    None
                } else {
                    make(Who::Responder, *at_ms, Some(until), why)
                }
            }
            Event::Set { who, until_ms, key } => {
                let kept = current.filter(|owner| owner.who == *who && !owner.is_over(now_ms));
                let since = kept.map_or(now_ms, |owner| owner.since_ms);
                make(
                    who.clone(),
                    since,
                    *until_ms,
                    format!("set by the API key {key}"),
                )
            }
        }
    }

    fn prolonged(&self, until_ms: u64, now_ms: u64) -> Self {
        Self {
            until_ms: Some(until_ms),
            set_ms: now_ms,
            ..self.clone()
        }
    }
}

impl Who {
    pub fn as_str(&self) -> &str {
        match self {
            Self::Bot => "bot",
            Self::Person => "person",
            Self::Responder => "responder",
            Self::Idle => "idle",
            Self::Other(other) => other,
        }
    }
}

impl Serialize for Who {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for Who {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "bot" => Self::Bot,
            "person" => Self::Person,
            "responder" => Self::Responder,
            "idle" => Self::Idle,
            _ => Self::Other(text),
        })
    }
}

/// Reads an owner inside a record; one that cannot be read is none.
pub fn read<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Owner>, D::Error> {
    let found = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(found.and_then(|value| serde_json::from_value(value).ok()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
