//! `message.buttons`, `message.list`, `ask.choice`: offers options.

mod shown;

use super::condition::check_unwired;
use super::{ATTEMPTS_MAX, Compiles, attempts_default};
use crate::builder::Builder;
use crate::choice::{self, payload};
use crate::fold::fold;
use crate::limits::cut;
use crate::node::{Node, NodeKind, OlderPress, fixed};
use crate::render::{self, BLANK};
use crate::report::{self, Report};
use crate::session::WaitOn;
use crate::step::{Next, Walk, Walked, exit, failure};
use crate::template::Template;
use crate::update::Message;
use crate::value::Scope;
use ackline_message::{Button, Content, Row, Section};
use ackline_message::{buttons, interactive, length, list};
use serde::Deserialize;
use serde_json::Value;
use shown::Shown;
use std::sync::Arc;

/// What opens a list whose label is missing.
const LIST_BUTTON: &str = "Options";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    body: String,
    #[serde(default)]
    header: Option<String>,
    #[serde(default)]
    footer: Option<String>,
    /// Label of what opens a list.
    #[serde(default)]
    button: Option<String>,
    /// The options; each has the exit `option:<id>`.
    options: Vec<OptionConfig>,
    /// Where the chosen value, or the text that matched none, is kept.
    #[serde(default)]
    variable: Option<String>,
    /// Said above the options when an answer matched none.
    #[serde(default)]
    retry: Option<String>,
    /// Answers taken before the exit `invalid`; the exit `else` is taken at once.
    #[serde(default = "attempts_default")]
    attempts: u32,
}

/// One option of a choice.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OptionConfig {
    id: String,
    title: String,
    /// More about it; shown in lists.
    #[serde(default)]
    description: Option<String>,
    /// What is kept when it is chosen; the title when missing.
    #[serde(default)]
    value: Option<String>,
}

#[derive(Debug)]
struct Choice {
    /// Which node kind it was written as.
    kind: &'static str,
    /// Whether it is shown as buttons; as a list otherwise.
    as_buttons: bool,
    body: Template,
    header: Option<Template>,
    footer: Option<Template>,
    button: Option<Template>,
    options: Vec<ChoiceOption>,
    /// Where the chosen value is kept.
    variable: Option<String>,
    /// Text above when asked again.
    retry: Option<Template>,
    attempts: u32,
}

#[derive(Debug)]
struct ChoiceOption {
    id: String,
    title: Template,
    description: Option<Template>,
    value: Option<Template>,
}

pub fn compile(kind: &'static str, config: Value, builder: &mut Builder) -> Compiles {
    let config = serde_json::from_value(config)?;
    Ok(Arc::new(build(kind, config, builder)))
}

fn build(kind: &'static str, config: Config, builder: &mut Builder) -> Choice {
    let shown = Shown::of(kind, &config);
    let as_buttons = shown == Shown::Buttons;
    shown::check(shown, &config, builder);
    let options = config.options.iter();
    let ids: Vec<&str> = options.map(|option| option.id.as_str()).collect();
    builder.check_ids("options", &ids, list::ROWS_MAX);
    let options = config.options.iter();
    let titles: Vec<&str> = options.map(|option| option.title.as_str()).collect();
    check_titles(&titles, builder);
    let mut options = config.options.iter();
    if as_buttons && options.any(|option| option.description.is_some()) {
        builder.problem(
            report::CONFIG,
            "buttons have no description; remove it or use `message.list`",
        );
    }
    if let Some(variable) = &config.variable {
        builder.variable("variable", variable);
    }
    let options = config.options.iter().map(|option| ChoiceOption {
        id: option.id.clone(),
        title: builder
            .part("title", Some(&option.title), shown.title_max())
            .unwrap_or_default(),
        description: builder.part(
            "description",
            option.description.as_deref(),
            list::DESCRIPTION_CHARS_MAX,
        ),
        value: builder.optional("value", option.value.as_deref()),
    });
    let options = options.collect();
    let (header, footer) = (config.header.as_deref(), config.footer.as_deref());
    Choice {
        kind,
        as_buttons,
        body: builder.template("body", &config.body).unwrap_or_default(),
        header: builder.part("header", header, interactive::LINE_CHARS_MAX),
        footer: builder.part("footer", footer, interactive::LINE_CHARS_MAX),
        button: builder.part("button", config.button.as_deref(), list::BUTTON_CHARS_MAX),
        options,
        variable: config.variable,
        retry: builder.optional("retry", config.retry.as_deref()),
        attempts: builder.ranged("attempts", config.attempts, 1, ATTEMPTS_MAX),
    }
}

/// Titles are compared as a typed answer is, which passes over case and accents.
fn check_titles(titles: &[&str], builder: &mut Builder) {
    let folded: Vec<String> = titles
        .iter()
        .take(list::ROWS_MAX)
        .map(|title| fold(title))
        .collect();
    for (at, title) in folded.iter().enumerate() {
        if folded.iter().take(at).any(|other| other == title) {
            builder.problem(
                report::LIMIT,
                format!(
                    "two options are titled `{title}`; a typed answer could mean either, rename one"
                ),
            );
        }
    }
}

impl NodeKind for Choice {
    fn exits(&self) -> Vec<String> {
        let options = self
            .options
            .iter()
            .map(|option| format!("option:{}", option.id));
        let pass: &[&str] = if self.kind == "ask.choice" {
            &[]
        } else {
            &["next"]
        };
        options
            .chain(fixed(&["else", "invalid"]))
            .chain(fixed(pass))
            .collect()
    }

    fn onward(&self) -> Option<&'static str> {
        None
    }

    fn waits(&self, node: &Node) -> bool {
        node.exit("next").is_none()
    }

    fn check(&self, node: &Node, report: &mut Report) {
        let names = self.exits();
        if node.exit("next").is_some() {
            if node.exits.len() > 1 {
                let message = "with the exit `next` it does not wait, so its other exits are never taken; \
                               remove one or the other";
                report.add(report::EXIT, Some(&node.id), message);
            }
            return;
        }
        check_unwired(&names, node, report);
        if node.exit("else").or(node.exit("invalid")).is_none() {
            report.add(
                report::UNHANDLED,
                Some(&node.id),
                "wire `else` or `invalid`: the run fails when no answer fits",
            );
        }
    }

    fn enter(&self, walk: &mut Walk<'_>, node: &Node) -> Walked<Next> {
        let wait = self.waits(node).then(|| walk.wait(node, WaitOn::Reply));
        let content = self.render(&self.body, wait.as_deref(), &walk.scope());
        walk.send(Some(content))?;
        if wait.is_some() {
            Ok(Next::Wait)
        } else {
            exit("next")
        }
    }

    fn hear(&self, walk: &mut Walk<'_>, node: &Node, message: &Message) -> Walked<Next> {
        let wait = walk.session.wait.as_ref().map(|wait| wait.id.clone());
        let Some(wait) = wait else {
            return failure("the session waits for nothing");
        };
        if let Some(option) = self.picked(walk, &wait, message) {
            return self.choose(walk, option);
        }
        if node.exit("else").is_some() {
            if let Some(variable) = &self.variable {
                walk.set(variable, Value::from(message.said()))?;
            }
            // Nobody took it as an answer, so an agent further on may.
            walk.session.unanswered = Some(message.clone());
            return exit("else");
        }
        let again = self.retry.as_ref().unwrap_or(&self.body);
        let content = self.render(again, Some(&wait), &walk.scope());
        walk.refuse(self.attempts, content)
    }

    fn older_press(&self, option: &str) -> OlderPress {
        match self
            .options
            .iter()
            .position(|candidate| candidate.id == option)
        {
            Some(index) if self.kind != "ask.choice" => OlderPress::Menu(index),
            _ => OlderPress::Answered,
        }
    }

    fn choose(&self, walk: &mut Walk<'_>, index: usize) -> Walked<Next> {
        let Some(option) = self.options.get(index) else {
            return failure("the option is gone");
        };
        if let Some(variable) = &self.variable {
            let kept = option
                .value
                .as_ref()
                .unwrap_or(&option.title)
                .render_value(&walk.scope());
            walk.set(variable, kept)?;
        }
        exit(&format!("option:{}", option.id))
    }
}

impl Choice {
    fn picked(&self, walk: &Walk<'_>, wait: &str, message: &Message) -> Option<usize> {
        let pressed = message.payload_id.as_deref().and_then(|payload| {
            let (option, of) = choice::read_payload(payload);
            let is_current = of.is_none_or(|of| of == wait);
            let id = if is_current { option } else { return None };
            self.options.iter().position(|candidate| candidate.id == id)
        });
        pressed.or_else(|| {
            let titles = self.titles(&walk.scope());
            let ids = self.options.iter().map(|option| option.id.as_str());
            let options: Vec<(&str, &str)> = ids.zip(titles.iter().map(String::as_str)).collect();
            choice::pick(&options, message.said())
        })
    }

    /// The options' titles as they are shown, in order, each unique.
    fn titles(&self, scope: &Scope<'_>) -> Vec<String> {
        let most = if self.as_buttons {
            buttons::TITLE_CHARS_MAX
        } else {
            list::TITLE_CHARS_MAX
        };
        let mut titles: Vec<String> = Vec::with_capacity(self.options.len());
        for option in &self.options {
            let title = render::line(&option.title, most, scope)
                .unwrap_or_else(|| cut(&option.id, most).into_owned());
            titles.push(unique(title, &titles, most));
        }
        titles
    }

    /// Renders the options with `body` above them; `wait` goes into what a press brings back.
    fn render(&self, body: &Template, wait: Option<&str>, scope: &Scope<'_>) -> Content {
        let id =
            |option: &str| wait.map_or_else(|| option.to_owned(), |wait| payload(option, wait));
        let optional = |template: &Option<Template>, most| {
            template.as_ref().and_then(|t| render::line(t, most, scope))
        };
        let titles = self.titles(scope);
        let header = optional(&self.header, interactive::LINE_CHARS_MAX);
        let footer = optional(&self.footer, interactive::LINE_CHARS_MAX);
        let body = |most| render::line(body, most, scope).unwrap_or_else(|| BLANK.to_owned());
        if self.as_buttons {
            let buttons = self
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
        let rows = self.options.iter().zip(titles).map(|(option, title)| {
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
            button: optional(&self.button, list::BUTTON_CHARS_MAX)
                .unwrap_or_else(|| LIST_BUTTON.to_owned()),
            sections: vec![Section { title: None, rows }],
        }
    }
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
    use crate::nodes::KINDS;
    use serde_json::json;

    fn render(node: Value, variables: Value) -> Content {
        let mut config = node.as_object().unwrap().clone();
        let kind = KINDS.iter().find(|(name, _)| config["kind"] == **name);
        config.retain(|field, _| field != "kind" && field != "exits");
        let config = serde_json::from_value(Value::Object(config)).unwrap();
        let choice = build(kind.unwrap().0, config, &mut Builder::default());
        let scope = Scope {
            variables: variables.as_object().unwrap(),
            contact: &Value::Null,
            message: &Value::Null,
            run: &Value::Null,
            now: &Value::Null,
        };
        choice.render(&choice.body, Some("w"), &scope)
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
