//! Plain text.

use crate::Message;
use crate::check::Check;
use serde_json::{Value, json};

pub const BODY_CHARS_MAX: usize = 4096;

pub(crate) struct Text<'a> {
    pub body: &'a str,
    pub preview_url: bool,
}

impl Message for Text<'_> {
    fn kind(&self) -> &'static str {
        "text"
    }

    fn check(&self, check: &mut Check) {
        check.text("body", self.body, BODY_CHARS_MAX);
    }

    fn plain(&self) -> String {
        self.body.to_owned()
    }

    fn graph(&self) -> Value {
        json!({"body": self.body, "preview_url": self.preview_url})
    }
}
