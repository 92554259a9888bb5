//! How a check is made and what it finds.

use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// Errors listed; a message with more is mended in several rounds.
const ERRORS_MAX: usize = 100;

/// What is wrong with a message, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentError {
    /// Where, as a JSON pointer.
    pub at: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

impl ContentError {
    pub(crate) fn new(at: impl Into<String>, detail: impl Into<String>) -> Self {
        Self {
            at: at.into(),
            detail: detail.into(),
        }
    }

    /// What is wrong, in a sentence with its place.
    pub fn words(&self) -> String {
        let place = self.at.strip_prefix("/content").unwrap_or(&self.at);
        match place.strip_prefix('/') {
            Some(place) => format!("`{place}` {}", self.detail),
            None => format!("it {}", self.detail),
        }
    }
}

/// Counts a text as WhatsApp's limits do: in characters, which are Unicode scalar values.
pub fn length(text: &str) -> usize {
    text.chars().count()
}

/// Tells whether a text is 1 to `max` printable ASCII characters without spaces.
pub fn is_printable(text: &str, max: usize) -> bool {
    !text.is_empty() && text.len() <= max && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Collects what is wrong with a content.
///
/// No error repeats what a person wrote: it may stand in logs.
#[derive(Default)]
pub struct Check(Vec<ContentError>);

impl Check {
    /// Notes an error at a place below the content; empty for the whole.
    pub fn add(&mut self, place: &str, detail: impl Into<String>) {
        if self.0.len() < ERRORS_MAX {
            let slash = if place.is_empty() { "" } else { "/" };
            self.0
                .push(ContentError::new(format!("/content{slash}{place}"), detail));
        }
    }

    /// A text that is needed.
    pub fn text(&mut self, place: &str, text: &str, max: usize) {
        if text.trim().is_empty() {
            self.add(place, "must not be empty");
        }
        self.fits(place, text, max);
    }

    /// A text that may be left out.
    pub fn optional(&mut self, place: &str, text: Option<&str>, max: usize) {
        let Some(text) = text else { return };
        if text.trim().is_empty() {
            self.add(place, "is empty; leave it out");
        }
        self.fits(place, text, max);
    }

    fn fits(&mut self, place: &str, text: &str, max: usize) {
        let length = length(text);
        if length > max {
            self.add(place, format!("has {length} characters, {max} are allowed"));
        }
    }

    /// How many entries there are.
    pub fn count(&mut self, place: &str, count: usize, allowed: RangeInclusive<usize>) {
        if !allowed.contains(&count) {
            let (min, max) = allowed.into_inner();
            self.add(
                place,
                format!("has {count} entries, {min} to {max} are allowed"),
            );
        }
    }

    /// Texts at places of which no two may be equal.
    pub fn distinct<'a>(&mut self, texts: impl Iterator<Item = (String, &'a str)>) {
        let mut seen = BTreeSet::new();
        for (place, text) in texts {
            if !text.is_empty() && !seen.insert(text) {
                self.add(
                    &place,
                    "is the same as an earlier one; each must be another",
                );
            }
        }
    }

    pub(crate) fn into_errors(self) -> Vec<ContentError> {
        self.0
    }
}
