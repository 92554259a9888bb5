//! `message.text`: sends a text.

use super::Compiles;
use crate::builder::Builder;
use crate::node::{Node, NodeKind, fixed};
use crate::render;
use crate::step::{Next, Walk, Walked, exit};
use crate::template::Template;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    body: String,
    /// Whether WhatsApp shows a preview of the first link.
    #[serde(default)]
    preview_url: bool,
}

#[derive(Debug)]
struct Text {
    body: Template,
    preview_url: bool,
}

pub fn compile(_: &str, config: Value, builder: &mut Builder) -> Compiles {
    let config: Config = serde_json::from_value(config)?;
    Ok(Arc::new(Text {
        body: builder.sent_text("body", &config.body),
        preview_url: config.preview_url,
    }))
}

impl NodeKind for Text {
    fn exits(&self) -> Vec<String> {
        fixed(&["next"])
    }

    fn onward(&self) -> Option<&'static str> {
        Some("next")
    }

    fn enter(&self, walk: &mut Walk<'_>, _: &Node) -> Walked<Next> {
        let content = render::text(&self.body, self.preview_url, &walk.scope());
        walk.send(content)?;
        exit("next")
    }
}
