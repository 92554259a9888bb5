//! Reply buttons below a text.

use crate::check::Check;
use crate::{Message, interactive};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Characters of the text above the buttons.
pub const BODY_CHARS_MAX: usize = 1024;
pub const BUTTONS_MAX: usize = 3;
/// Characters of a button's title.
pub const TITLE_CHARS_MAX: usize = 20;
const ID_CHARS_MAX: usize = 256;

/// A reply button.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Button {
    /// What comes back when it is pressed, up to 256 characters.
    pub id: String,
    /// What it says, up to 20 characters.
    pub title: String,
}

pub(crate) struct Buttons<'a> {
    pub body: &'a str,
    pub header: Option<&'a str>,
    pub footer: Option<&'a str>,
    pub buttons: &'a [Button],
}

impl Message for Buttons<'_> {
    fn kind(&self) -> &'static str {
        "buttons"
    }

    fn graph_type(&self) -> &'static str {
        "interactive"
    }

    fn check(&self, check: &mut Check) {
        check.text("body", self.body, BODY_CHARS_MAX);
        interactive::check_lines(check, self.header, self.footer);
        check.count("buttons", self.buttons.len(), 1..=BUTTONS_MAX);
        let buttons = || self.buttons.iter().enumerate();
        for (at, button) in buttons() {
            check.text(&format!("buttons/{at}/id"), &button.id, ID_CHARS_MAX);
            let title = format!("buttons/{at}/title");
            check.text(&title, &button.title, TITLE_CHARS_MAX);
        }
        check.distinct(buttons().map(|(at, button)| (format!("buttons/{at}/id"), &*button.id)));
        check.distinct(
            buttons().map(|(at, button)| (format!("buttons/{at}/title"), &*button.title)),
        );
    }

    fn plain(&self) -> String {
        let titles = self.buttons.iter().map(|button| &*button.title);
        interactive::plain(self.body, titles)
    }

    fn summary(&self) -> String {
        self.body.to_owned()
    }

    fn graph(&self) -> Value {
        let reply = |button: &Button| json!({"type": "reply", "reply": {"id": button.id, "title": button.title}});
        let buttons: Vec<Value> = self.buttons.iter().map(reply).collect();
        let action = json!({"buttons": buttons});
        interactive::graph("button", self.body, self.header, self.footer, action)
    }
}
