//! How a choice is shown, and what WhatsApp would refuse of it as it stands in the definition.

use super::{Config, LIST_BUTTON, OptionConfig};
use crate::builder::Builder;
use crate::message::least;
use crate::render::BLANK;
use ackline_message::{Button, Content, Row, Section};
use ackline_message::{buttons, length, list};

/// The first of the characters that stand for titles with slots.
const PRIVATE_USE: u32 = 0xe000;
/// How many of them there are.
const PRIVATE_USE_COUNT: usize = 6_400;

/// How the options of a choice are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Buttons,
    /// A list; `moves` when a label too long for a title moves into the row's description.
    List {
        moves: bool,
    },
}

impl Shown {
    /// As the node's kind says, and for `ask.choice` as the options allow.
    pub(super) fn of(kind: &str, config: &Config) -> Self {
        let mut options = config.options.iter();
        let described = options.any(|option| option.description.is_some());
        let mut options = config.options.iter().map(|option| &option.title);
        let all_short =
            options.all(|title| title.contains("{{") || length(title) <= buttons::TITLE_CHARS_MAX);
        let few = config.options.len() <= buttons::BUTTONS_MAX;
        match kind {
            "message.buttons" => Self::Buttons,
            "message.list" => Self::List { moves: false },
            _ if few && all_short && !described => Self::Buttons,
            _ => Self::List { moves: !described },
        }
    }

    /// Characters of a title beyond which it is cut.
    pub(super) fn title_max(self) -> usize {
        match self {
            Self::Buttons => buttons::TITLE_CHARS_MAX,
            Self::List { moves: false } => list::TITLE_CHARS_MAX,
            Self::List { moves: true } => list::DESCRIPTION_CHARS_MAX,
        }
    }
}

/// Reports what WhatsApp would refuse of a choice, and of the same asked again.
pub(super) fn check(shown: Shown, config: &Config, builder: &mut Builder) {
    let content = choice(shown, config, &config.body);
    let moves = shown == Shown::List { moves: true };
    builder.refused(&content, |place| {
        let option = option_place(place);
        match option.strip_suffix("/description") {
            Some(option) if moves => Some(format!("{option}/title")),
            _ => Some(option),
        }
    });
    if let Some(retry) = &config.retry {
        let content = choice(shown, config, retry);
        builder.refused(&content, |place| {
            (place == "body").then(|| "retry".to_owned())
        });
    }
}

/// Where an option stands in the definition, by where its button or row stands in the message.
fn option_place(place: &str) -> String {
    let inner = ["buttons", "sections/0/rows", "sections"]
        .iter()
        .find_map(|start| place.strip_prefix(start));
    inner.map_or_else(|| place.to_owned(), |rest| format!("options{rest}"))
}

fn choice(shown: Shown, config: &Config, body: &str) -> Content {
    let optional = |source: &Option<String>| source.as_deref().map(least);
    let body = least(body);
    let header = optional(&config.header);
    let footer = optional(&config.footer);
    let options = config.options.iter().enumerate();
    // The ids are checked as the names of exits; what goes out is one of these and a little more.
    match shown {
        Shown::Buttons => Content::Buttons {
            body,
            header,
            footer,
            buttons: options
                .map(|(at, option)| Button {
                    id: at.to_string(),
                    title: least_title(at, option),
                })
                .collect(),
        },
        Shown::List { moves } => {
            let row = |(at, option): (usize, &OptionConfig)| {
                let title = least_title(at, option);
                let id = at.to_string();
                if moves && length(&title) > list::TITLE_CHARS_MAX {
                    return Row {
                        id,
                        title: BLANK.to_owned(),
                        description: Some(title),
                    };
                }
                Row {
                    id,
                    title,
                    description: optional(&option.description),
                }
            };
            let rows = options.map(row).collect();
            Content::List {
                body,
                header,
                footer,
                button: optional(&config.button).unwrap_or_else(|| LIST_BUTTON.to_owned()),
                sections: vec![Section { title: None, rows }],
            }
        }
    }
}

/// The least that a title renders to; one with slots is as long, and equal to no other.
fn least_title(at: usize, option: &OptionConfig) -> String {
    let least = least(&option.title);
    if !option.title.contains("{{") {
        return least;
    }
    let own = PRIVATE_USE + (at % PRIVATE_USE_COUNT) as u32;
    let own = char::from_u32(own).unwrap_or('?').to_string();
    own.repeat(length(&least))
}
