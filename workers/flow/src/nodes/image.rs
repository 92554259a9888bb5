//! `message.image`: sends an image.

use super::Compiles;
use crate::builder::Builder;
use crate::message::least;
use crate::node::{Node, NodeKind, fixed};
use crate::render;
use crate::step::{Next, Walk, Walked, exit};
use crate::template::Template;
use crate::value::Scope;
use ackline_message::Content;
use ackline_message::image;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

/// Stands for an address that begins with a slot.
const ANY_LINK: &str = "https://a.example/";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    /// Public https address of the image.
    link: String,
    #[serde(default)]
    caption: Option<String>,
}

#[derive(Debug)]
struct Image {
    link: Template,
    caption: Option<Template>,
}

pub fn compile(_: &str, config: Value, builder: &mut Builder) -> Compiles {
    let config: Config = serde_json::from_value(config)?;
    let content = Content::Image {
        link: Some(least_link(&config.link)),
        id: None,
        caption: config.caption.as_deref().map(least),
    };
    builder.refused(&content, |place| Some(place.to_owned()));
    let caption = config.caption.as_deref();
    Ok(Arc::new(Image {
        link: builder.template("link", &config.link).unwrap_or_default(),
        caption: builder.part("caption", caption, image::CAPTION_CHARS_MAX),
    }))
}

/// An address as it is written; with slots, only what stands before the first one is certain.
fn least_link(source: &str) -> String {
    match source.trim().split_once("{{") {
        Some(("", _)) => ANY_LINK.to_owned(),
        Some((start, _)) if start.starts_with("https://") => ANY_LINK.to_owned(),
        _ => source.trim().to_owned(),
    }
}

impl NodeKind for Image {
    fn exits(&self) -> Vec<String> {
        fixed(&["next"])
    }

    fn onward(&self) -> Option<&'static str> {
        Some("next")
    }

    fn enter(&self, walk: &mut Walk<'_>, _: &Node) -> Walked<Next> {
        let content = self.render(&walk.scope());
        walk.send(content)?;
        exit("next")
    }
}

impl Image {
    /// None when its address is none.
    fn render(&self, scope: &Scope<'_>) -> Option<Content> {
        let link = self.link.render_url(scope)?;
        let caption = self
            .caption
            .as_ref()
            .and_then(|caption| render::line(caption, image::CAPTION_CHARS_MAX, scope));
        image::is_link(&link).then_some(Content::Image {
            link: Some(link),
            id: None,
            caption,
        })
    }
}
