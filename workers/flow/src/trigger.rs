//! Which flow of a bot a message starts: one ordered table over all flows, one winner.
//!
//! A button's payload beats an exact keyword, that a prefix, that a keyword anywhere, that `any`. Among
//! equals the longer keyword wins, then the flow listed first.

use crate::choice::read_payload;
use crate::compiled::Compiled;
use crate::definition::{Matching, Trigger};
use crate::fold::fold;
use crate::update::Message;
use ackline_message::words::{is_border, is_word};

/// One compiled row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Rule {
    /// A press with this payload.
    Button(String),
    Keyword(Matching, String),
    Any,
}

/// How strongly a rule claims a message; greater wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strength {
    Any,
    /// The keyword stands in the text; its length decides.
    Contains(usize),
    /// The text begins with the keyword.
    Prefix(usize),
    /// The text is the keyword.
    Exact,
    /// The press carries the payload.
    Button,
}

impl Rule {
    /// Compiles a trigger to one rule for each of its keywords.
    pub fn compile(trigger: &Trigger) -> Vec<Self> {
        match trigger {
            Trigger::Button { payload } => vec![Self::Button(payload.clone())],
            Trigger::Keyword { keywords, matching } => keywords
                .iter()
                .map(|keyword| Self::Keyword(*matching, fold(keyword)))
                .collect(),
            Trigger::Any {} => vec![Self::Any],
        }
    }

    /// Whether it can never claim anything, being empty.
    pub fn is_blank(&self) -> bool {
        match self {
            Self::Button(text) | Self::Keyword(_, text) => text.is_empty(),
            Self::Any => false,
        }
    }

    fn claim(&self, said: &str, payload: Option<&str>) -> Option<Strength> {
        match self {
            Self::Button(wanted) => {
                let payload = payload?;
                (payload == wanted || read_payload(payload).0 == wanted).then_some(Strength::Button)
            }
            Self::Keyword(matching, keyword) => {
                // The rule decides how strong it is, the text only whether it reaches that.
                strength_of(said, keyword).filter(|found| found <= matching)?;
                Some(match matching {
                    Matching::Exact => Strength::Exact,
                    Matching::Prefix => Strength::Prefix(keyword.len()),
                    Matching::Contains => Strength::Contains(keyword.len()),
                })
            }
            Self::Any => Some(Strength::Any),
        }
    }
}

/// Chooses the flow that a message starts, when one claims it.
pub fn choose<'f, T>(
    flows: impl IntoIterator<Item = (T, &'f Compiled)>,
    message: &Message,
) -> Option<(T, &'f Compiled)> {
    let mut best: Option<(Strength, T, &Compiled)> = None;
    for (id, flow) in flows {
        let Some(strength) = claim(flow, message) else {
            continue;
        };
        if best
            .as_ref()
            .is_none_or(|(strongest, ..)| strength > *strongest)
        {
            best = Some((strength, id, flow));
        }
    }
    best.map(|(_, id, flow)| (id, flow))
}

/// How strongly a flow claims a message.
pub fn claim(flow: &Compiled, message: &Message) -> Option<Strength> {
    let said = fold(message.said());
    flow.rules
        .iter()
        .filter_map(|rule| rule.claim(&said, message.payload_id.as_deref()))
        .max()
}

/// Tells whether a text is one of the folded keywords, punctuation around it apart.
pub fn is_keyword(text: &str, keywords: &[String]) -> bool {
    let said = fold(text);
    keywords.iter().any(|keyword| is_exactly(&said, keyword))
}

fn is_exactly(said: &str, keyword: &str) -> bool {
    said == keyword || said.trim_matches(|c: char| !is_word(c)) == keyword
}

/// The strongest way in which a folded keyword stands in a folded text, at word borders.
fn strength_of(said: &str, keyword: &str) -> Option<Matching> {
    if keyword.is_empty() {
        return None;
    }
    if is_exactly(said, keyword) {
        return Some(Matching::Exact);
    }
    let at_borders = |(at, found): &(usize, &str)| {
        let before = said.get(..*at).and_then(|text| text.chars().next_back());
        let after = said
            .get(at + found.len()..)
            .and_then(|text| text.chars().next());
        is_border(before, found.chars().next()) && is_border(found.chars().next_back(), after)
    };
    let first = said.match_indices(keyword).find(at_borders)?;
    Some(if first.0 == 0 {
        Matching::Prefix
    } else {
        Matching::Contains
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::Contact;
    use ackline_shared::ids::UpdateId;
    use serde_json::{Value, json};

    fn flow(entry: Value) -> Compiled {
        let definition = json!({"format": 1, "name": "f", "entry": entry, "start": "a", "nodes": {"a": {"kind": "end"}}});
        Compiled::from_json(&definition).unwrap()
    }

    fn message(text: &str, payload: Option<&str>) -> Message {
        Message {
            id: UpdateId::new("1"),
            kind: "text".into(),
            text: text.into(),
            payload_id: payload.map(str::to_owned),
            title: None,
            more: serde_json::Map::new(),
            line: String::new(),
            contact: Contact::default(),
        }
    }

    #[test]
    fn the_strongest_claim_wins_whatever_the_order() {
        let flows = [
            ("any", flow(json!([{"on": "any"}]))),
            (
                "contains",
                flow(json!([{"on": "keyword", "match": "contains", "keywords": ["order"]}])),
            ),
            (
                "prefix",
                flow(
                    json!([{"on": "keyword", "match": "prefix", "keywords": ["order", "order now"]}]),
                ),
            ),
            (
                "exact",
                flow(json!([{"on": "keyword", "keywords": ["Order", "\u{c9}tat"]}])),
            ),
            ("button", flow(json!([{"on": "button", "payload": "go"}]))),
        ];
        for (text, payload, wanted) in [
            ("order", Some("go"), "button"),
            ("order", Some("go@1.2"), "button"),
            ("ORDER!", None, "exact"),
            ("etat", None, "exact"),
            ("order two", None, "prefix"),
            ("my order", None, "contains"),
            ("reorder", None, "any"),
            ("", None, "any"),
        ] {
            let table = flows.iter().rev().map(|(id, flow)| (*id, flow));
            let found = choose(table, &message(text, payload)).map(|(id, _)| id);
            assert_eq!(found, Some(wanted), "{text:?} {payload:?}");
            let table = flows.iter().map(|(id, flow)| (*id, flow));
            assert_eq!(
                choose(table, &message(text, payload)).map(|(id, _)| id),
                Some(wanted)
            );
        }
    }

    #[test]
    fn among_equals_the_longer_keyword_wins_then_the_first_flow() {
        let short = flow(json!([{"on": "keyword", "match": "prefix", "keywords": ["order"]}]));
        let long =
            flow(json!([{"on": "keyword", "match": "prefix", "keywords": ["order status"]}]));
        let winner = |flows: [(&'static str, &Compiled); 2], text| {
            choose(flows, &message(text, None)).map(|(id, _)| id)
        };
        assert_eq!(
            winner([("short", &short), ("long", &long)], "order status please"),
            Some("long")
        );
        assert_eq!(
            winner([("one", &short), ("two", &short)], "order it"),
            Some("one")
        );
    }

    #[test]
    fn a_keyword_is_a_word_in_every_script() {
        let stands = |said: &str, keyword: &str| strength_of(&fold(said), &fold(keyword));
        for (said, keyword) in [
            ("продажа", "да"),
            ("меню", "мен"),
            ("ναίος", "ναί"),
            (
                "\u{627}\u{644}\u{633}\u{639}\u{631}",
                "\u{633}\u{639}\u{631}",
            ),
            ("\u{932}\u{93e}\u{92d}", "\u{932}"),
            ("\u{661}\u{662}\u{663}", "12"),
            ("주문을", "주문"),
            ("\u{e2a}\u{e31}\u{e48}\u{e07}", "\u{e2a}"),
            ("reorders", "order"),
        ] {
            assert_eq!(stands(said, keyword), None, "{said:?} {keyword:?}");
        }
        for (said, keyword, wanted) in [
            ("Да, конечно", "да", Matching::Prefix),
            ("ну да!", "да", Matching::Contains),
            (
                "\u{939}\u{93e}\u{901}!",
                "\u{939}\u{93e}\u{901}",
                Matching::Exact,
            ),
            ("我要下單", "下單", Matching::Contains),
            ("注文します", "注文", Matching::Prefix),
            ("ฉันอยากสั่ง", "สั่ง", Matching::Contains),
            ("\u{967}\u{968}", "12", Matching::Exact),
            ("table 2\u{fe0f}\u{20e3} please", "2", Matching::Contains),
        ] {
            assert_eq!(stands(said, keyword), Some(wanted), "{said:?} {keyword:?}");
        }
    }

    #[test]
    fn nothing_claims_a_message_no_trigger_fits() {
        let flow = flow(json!([{"on": "keyword", "keywords": ["hi"]}]));
        assert!(choose([((), &flow)], &message("bye", None)).is_none());
    }
}
