//! Turns a node and the values it can see into what is sent, within WhatsApp's limits.
//!
//! Limits are checked at publishing for what is fixed; here they are enforced for what only now is known,
//! by cutting, because a message Meta refuses helps nobody.

use super::choice::payload;
use super::limits::cut;
use super::node::{Choice, Image, Text};
use super::template::Template;
use super::value::Scope;
use ackline_message::{buttons, image, interactive, length, list, text};
use ackline_shared::command::{Button, Content, Row, Section};

/// What stands in for a body that rendered to nothing.
pub const BLANK: &str = "\u{2026}";
/// What opens a list whose label is missing.
pub const LIST_BUTTON: &str = "Options";

/// Renders a text message; none when nothing is left to say.
pub fn text(body: &Template, preview_url: bool, scope: &Scope<'_>) -> Option<Content> {
    let body = line(body, text::BODY_CHARS_MAX, scope)?;
    Some(Content::Text { body, preview_url })
}

/// Renders a node's text message.
pub fn text_node(node: &Text, scope: &Scope<'_>) -> Option<Content> {
    text(&node.body, node.preview_url, scope)
}

/// Renders an image; none when its address is none.
pub fn image(node: &Image, scope: &Scope<'_>) -> Option<Content> {
    let link = node.link.render_url(scope)?;
    let caption = node
        .caption
        .as_ref()
        .and_then(|caption| line(caption, image::CAPTION_CHARS_MAX, scope));
    image::is_link(&link).then_some(Content::Image {
        link: Some(link),
        id: None,
        caption,
    })
}

/// The options' titles as they are shown, in order, each unique.
pub fn titles(choice: &Choice, scope: &Scope<'_>) -> Vec<String> {
    let most = if choice.as_buttons {
        buttons::TITLE_CHARS_MAX
    } else {
        list::TITLE_CHARS_MAX
    };
    let mut titles: Vec<String> = Vec::with_capacity(choice.options.len());
    for option in &choice.options {
        let title =
            line(&option.title, most, scope).unwrap_or_else(|| cut(&option.id, most).into_owned());
        titles.push(unique(title, &titles, most));
    }
    titles
}

/// Renders the options with `body` above them; `wait` goes into what a press brings back.
pub fn choice(choice: &Choice, body: &Template, wait: Option<&str>, scope: &Scope<'_>) -> Content {
    let id = |option: &str| wait.map_or_else(|| option.to_owned(), |wait| payload(option, wait));
    let optional =
        |template: &Option<Template>, most| template.as_ref().and_then(|t| line(t, most, scope));
    let titles = titles(choice, scope);
    let header = optional(&choice.header, interactive::LINE_CHARS_MAX);
    let footer = optional(&choice.footer, interactive::LINE_CHARS_MAX);
    let body = |most| line(body, most, scope).unwrap_or_else(|| BLANK.to_owned());
    if choice.as_buttons {
        let buttons = choice
            .options
            .iter()
            .zip(titles)
            .map(|(option, title)| Button {
                id: id(&option.id),
                title,
            });
        return Content::Buttons {
            body: body(buttons::BODY_CHARS_MAX),
            header,
            footer,
            buttons: buttons.collect(),
        };
    }
    let rows = choice.options.iter().zip(titles).map(|(option, title)| {
        let label = option.title.render(scope);
        let described = optional(&option.description, list::DESCRIPTION_CHARS_MAX);
        // A label that had to be cut is shown whole below.
        let whole = || {
            (length(&label) > list::TITLE_CHARS_MAX)
                .then(|| cut(&label, list::DESCRIPTION_CHARS_MAX).into_owned())
        };
        Row {
            id: id(&option.id),
            title,
            description: described.or_else(whole),
        }
    });
    let rows = rows.collect();
    Content::List {
        body: body(list::BODY_CHARS_MAX),
        header,
        footer,
        button: optional(&choice.button, list::BUTTON_CHARS_MAX)
            .unwrap_or_else(|| LIST_BUTTON.to_owned()),
        sections: vec![Section { title: None, rows }],
    }
}

fn line(template: &Template, chars_max: usize, scope: &Scope<'_>) -> Option<String> {
    let text = template.render(scope);
    let text = text.trim();
    (!text.is_empty()).then(|| cut(text, chars_max).into_owned())
}

fn unique(title: String, others: &[String], chars_max: usize) -> String {
    if !others.contains(&title) {
        return title;
    }
    let numbered = (2..=others.len() + 2).map(|number| {
        let suffix = format!(" {number}");
        format!("{}{suffix}", cut(&title, chars_max - length(&suffix)))
    });
    numbered
        .into_iter()
        .find(|candidate| !others.contains(candidate))
        .unwrap_or(title)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compile::Compiled;
    use crate::node::Kind;
    use serde_json::{Value, json};

    fn render(node: Value, variables: Value) -> Content {
        let definition = json!({
            "format": 1, "name": "f", "entry": [{"on": "any"}], "start": "n", "nodes": {"n": node, "e": {"kind": "end"}}
        });
        let flow = Compiled::from_json(&definition).unwrap();
        let scope = Scope {
            variables: variables.as_object().unwrap(),
            contact: &Value::Null,
            message: &Value::Null,
            run: &Value::Null,
            now: &Value::Null,
        };
        match &flow.node("n").unwrap().kind {
            Kind::Choice(node) => choice(node, &node.body, Some("w"), &scope),
            _ => panic!("not a choice"),
        }
    }

    #[test]
    fn long_labels_turn_a_choice_into_a_list_with_descriptions() {
        let node = json!({"kind": "ask.choice", "body": "?", "exits": {"else": "e"}, "options": [
            {"id": "a", "title": "A label that is longer than a row"}, {"id": "b", "title": "Short"}]});
        let Content::List { sections, .. } = render(node, json!({})) else {
            panic!("not a list")
        };
        assert_eq!(sections[0].rows[0].title, "A label that is longer\u{2026}");
        assert_eq!(
            sections[0].rows[0].description.as_deref(),
            Some("A label that is longer than a row")
        );
        assert_eq!(
            (
                sections[0].rows[1].id.as_str(),
                &sections[0].rows[1].description
            ),
            ("b@w", &None)
        );
    }

    #[test]
    fn titles_that_come_out_equal_are_told_apart_within_the_limit() {
        let node = json!({"kind": "message.buttons", "body": "{{none}}", "exits": {"else": "e"}, "options": [
            {"id": "a", "title": "{{x}}"}, {"id": "b", "title": "{{ x }}"}, {"id": "c", "title": "{{y}}"}]});
        let Content::Buttons { buttons, body, .. } =
            render(node, json!({"x": "\u{1f600}".repeat(21)}))
        else {
            panic!("not buttons")
        };
        assert_eq!(
            buttons[0].title,
            format!("{}\u{2026}", "\u{1f600}".repeat(19))
        );
        assert_eq!(
            buttons[1].title,
            format!("{}\u{2026} 2", "\u{1f600}".repeat(17))
        );
        assert_eq!(
            (buttons[2].title.as_str(), body.as_str()),
            ("c", "\u{2026}")
        );
    }
}
