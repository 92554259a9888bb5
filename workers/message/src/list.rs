//! A list of rows that a button below a text opens.

use crate::check::Check;
use crate::{Message, interactive};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Characters of the text above the list.
pub const BODY_CHARS_MAX: usize = 4096;
/// Characters of the label that opens the list.
pub const BUTTON_CHARS_MAX: usize = 20;
/// Rows of one list, over all of its sections.
pub const ROWS_MAX: usize = 10;
/// Characters of a row's title, and of a section's.
pub const TITLE_CHARS_MAX: usize = 24;
/// Characters of what more a row says.
pub const DESCRIPTION_CHARS_MAX: usize = 72;
const SECTIONS_MAX: usize = 10;
const ID_CHARS_MAX: usize = 200;

/// A section of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Section {
    /// Heading, up to 24 characters; needed when there is more than one section.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// Its rows.
    pub rows: Vec<Row>,
}

/// A row of a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct Row {
    /// What comes back when it is picked, up to 200 characters.
    pub id: String,
    /// What it says, up to 24 characters.
    pub title: String,
    /// More about it, up to 72 characters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

pub(crate) struct List<'a> {
    pub body: &'a str,
    pub header: Option<&'a str>,
    pub footer: Option<&'a str>,
    pub button: &'a str,
    pub sections: &'a [Section],
}

impl List<'_> {
    fn rows(&self) -> impl Iterator<Item = (String, &Row)> {
        let sections = self.sections.iter().enumerate();
        sections.flat_map(|(at, section)| {
            let rows = section.rows.iter().enumerate();
            rows.map(move |(row_at, row)| (format!("sections/{at}/rows/{row_at}"), row))
        })
    }

    fn check_section(&self, check: &mut Check, at: usize, section: &Section) {
        let title = format!("sections/{at}/title");
        match &section.title {
            None if self.sections.len() > 1 => {
                check.add(&title, "is needed when there is more than one section");
            }
            text => check.optional(&title, text.as_deref(), TITLE_CHARS_MAX),
        }
        if section.rows.is_empty() {
            check.add(&format!("sections/{at}/rows"), "must not be empty");
        }
    }
}

impl Message for List<'_> {
    fn kind(&self) -> &'static str {
        "list"
    }

    fn graph_type(&self) -> &'static str {
        "interactive"
    }

    fn check(&self, check: &mut Check) {
        check.text("body", self.body, BODY_CHARS_MAX);
        interactive::check_lines(check, self.header, self.footer);
        check.text("button", self.button, BUTTON_CHARS_MAX);
        check.count("sections", self.sections.len(), 1..=SECTIONS_MAX);
        let rows = self.rows().count();
        if rows > ROWS_MAX {
            let detail = format!("has {rows} rows in all, {ROWS_MAX} are allowed");
            check.add("sections", detail);
        }
        for (at, section) in self.sections.iter().enumerate() {
            self.check_section(check, at, section);
        }
        for (place, row) in self.rows() {
            check.text(&format!("{place}/id"), &row.id, ID_CHARS_MAX);
            check.text(&format!("{place}/title"), &row.title, TITLE_CHARS_MAX);
            let description = row.description.as_deref();
            let place = format!("{place}/description");
            check.optional(&place, description, DESCRIPTION_CHARS_MAX);
        }
        check.distinct(
            self.rows()
                .map(|(place, row)| (format!("{place}/id"), &*row.id)),
        );
    }

    fn plain(&self) -> String {
        let titles = self.rows().map(|(_, row)| &*row.title);
        interactive::plain(self.body, titles)
    }

    fn summary(&self) -> String {
        self.body.to_owned()
    }

    fn graph(&self) -> Value {
        let sections: Vec<Value> = self.sections.iter().map(section).collect();
        let action = json!({"button": self.button, "sections": sections});
        interactive::graph("list", self.body, self.header, self.footer, action)
    }
}

fn section(section: &Section) -> Value {
    let rows: Vec<Value> = section.rows.iter().map(row).collect();
    match &section.title {
        Some(title) => json!({"title": title, "rows": rows}),
        None => json!({"rows": rows}),
    }
}

fn row(row: &Row) -> Value {
    match &row.description {
        Some(description) => {
            json!({"id": row.id, "title": row.title, "description": description})
        }
        None => json!({"id": row.id, "title": row.title}),
    }
}
