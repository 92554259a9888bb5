//! Compiles one node of each kind.

use super::Builder;
use super::message::Shown;
use crate::answer::Accept;
use crate::definition::{AgentConfig, AskConfig, ChoiceConfig, HttpConfig, NodeConfig};
use crate::effect::HeaderValue;
use crate::expression::compile_regex;
use crate::fold::fold;
use crate::node::{
    Agent, Ask, Body, Choice, ChoiceOption, Header, Http, Image, JsonBody, Kind, Node, Text,
};
use crate::report;
use crate::template::Template;
use crate::value::is_shallow;
use ackline_message::{image, interactive, length, list};
use ackline_shared::ids::is_token;
use regex::Regex;
use serde_json::{Map, Value};
use std::collections::BTreeMap;

const BRANCHES_MAX: usize = 50;
const HEADERS_MAX: usize = 20;
const BODY_TEXTS_MAX: usize = 100;
const SAVES_MAX: usize = 50;
const ATTEMPTS_MAX: u32 = 10;
const PATTERN_BYTES_MAX: usize = 512;
/// Characters of what a model is told about its task.
const SYSTEM_CHARS_MAX: usize = 8_192;
const ANSWER_CHARS_MAX: f64 = 4_096.0;

impl Builder {
    pub(super) fn compile_node(&mut self, id: &str, source: &Value) -> Option<Node> {
        let mut config = source.as_object().cloned().unwrap_or_default();
        let exits = self.exits(config.shift_remove("exits"));
        // What an editor keeps about the drawing is not read here.
        config.shift_remove("ui");
        match serde_json::from_value(Value::Object(config)) {
            Ok(config) => Some(Node {
                id: id.to_owned(),
                kind: self.kind(config),
                exits,
            }),
            Err(error) => {
                self.problem(report::CONFIG, error.to_string());
                None
            }
        }
    }

    fn exits(&mut self, source: Option<Value>) -> BTreeMap<String, String> {
        match source.map(serde_json::from_value) {
            None => BTreeMap::new(),
            Some(Ok(exits)) => exits,
            Some(Err(error)) => {
                self.problem(
                    report::CONFIG,
                    format!("`exits` names a node for each exit: {error}"),
                );
                BTreeMap::new()
            }
        }
    }

    fn kind(&mut self, config: NodeConfig) -> Kind {
        match config {
            NodeConfig::MessageText(config) => Kind::Text(Text {
                body: self.sent_text("body", &config.body),
                preview_url: config.preview_url,
            }),
            NodeConfig::MessageImage(config) => {
                self.check_image(&config);
                let caption = config.caption.as_deref();
                Kind::Image(Image {
                    link: self.template("link", &config.link).unwrap_or_default(),
                    caption: self.part("caption", caption, image::CAPTION_CHARS_MAX),
                })
            }
            NodeConfig::MessageButtons(config) => {
                Kind::Choice(self.choice("message.buttons", config))
            }
            NodeConfig::MessageList(config) => Kind::Choice(self.choice("message.list", config)),
            NodeConfig::AskChoice(config) => Kind::Choice(self.choice("ask.choice", config)),
            NodeConfig::AskText(config) => Kind::Ask(self.ask("ask.text", config)),
            NodeConfig::AskNumber(config) => Kind::Ask(self.ask("ask.number", config)),
            NodeConfig::AskEmail(config) => Kind::Ask(self.ask("ask.email", config)),
            NodeConfig::AskPhone(config) => Kind::Ask(self.ask("ask.phone", config)),
            NodeConfig::Condition(config) => {
                let mut branches = Vec::new();
                let ids: Vec<&str> = config
                    .branches
                    .iter()
                    .map(|branch| branch.id.as_str())
                    .collect();
                if !(1..=BRANCHES_MAX).contains(&ids.len()) {
                    let message = format!("`branches` has {}; use 1 to {BRANCHES_MAX}", ids.len());
                    self.problem(report::LIMIT, message);
                }
                self.check_ids("branches", &ids, BRANCHES_MAX);
                for branch in &config.branches {
                    let expression =
                        self.expression(&format!("branch {}", branch.id), &branch.when);
                    branches.push((branch.id.clone(), expression));
                }
                Kind::Condition(branches)
            }
            NodeConfig::Set(config) => Kind::Set(self.assignments(&config.assign)),
            NodeConfig::Http(config) => Kind::Http(self.http(config)),
            NodeConfig::Agent(config) => Kind::Agent(self.agent(config)),
            NodeConfig::Goto(_) => Kind::Goto,
            NodeConfig::End(config) => {
                if !is_token(&config.outcome) {
                    self.problem(
                        report::ID,
                        "`outcome` is 1 to 64 letters, digits, `_` or `-`",
                    );
                }
                Kind::End {
                    outcome: config.outcome,
                }
            }
        }
    }

    fn choice(&mut self, kind: &'static str, config: ChoiceConfig) -> Choice {
        let shown = Shown::of(kind, &config);
        let as_buttons = shown == Shown::Buttons;
        self.check_choice(shown, &config);
        let options = config.options.iter();
        let ids: Vec<&str> = options.map(|option| option.id.as_str()).collect();
        self.check_ids("options", &ids, list::ROWS_MAX);
        let options = config.options.iter();
        let titles: Vec<&str> = options.map(|option| option.title.as_str()).collect();
        self.check_titles(&titles);
        let mut options = config.options.iter();
        if as_buttons && options.any(|option| option.description.is_some()) {
            self.problem(
                report::CONFIG,
                "buttons have no description; remove it or use `message.list`",
            );
        }
        if let Some(variable) = &config.variable {
            self.variable("variable", variable);
        }
        let options = config.options.iter().map(|option| ChoiceOption {
            id: option.id.clone(),
            title: self
                .part("title", Some(&option.title), shown.title_max())
                .unwrap_or_default(),
            description: self.part(
                "description",
                option.description.as_deref(),
                list::DESCRIPTION_CHARS_MAX,
            ),
            value: self.optional("value", option.value.as_deref()),
        });
        let options = options.collect();
        let (header, footer) = (config.header.as_deref(), config.footer.as_deref());
        Choice {
            kind,
            as_buttons,
            body: self.template("body", &config.body).unwrap_or_default(),
            header: self.part("header", header, interactive::LINE_CHARS_MAX),
            footer: self.part("footer", footer, interactive::LINE_CHARS_MAX),
            button: self.part("button", config.button.as_deref(), list::BUTTON_CHARS_MAX),
            options,
            variable: config.variable,
            retry: self.optional("retry", config.retry.as_deref()),
            attempts: self.ranged("attempts", config.attempts, 1, ATTEMPTS_MAX),
        }
    }

    /// A text that is sent as a message of its own.
    pub(super) fn sent_text(&mut self, field: &str, source: &str) -> Template {
        self.check_text(field, source);
        self.template(field, source).unwrap_or_default()
    }

    fn optional_text(&mut self, field: &str, source: Option<&str>) -> Option<Template> {
        source.map(|source| self.sent_text(field, source))
    }

    fn check_ids(&mut self, field: &str, ids: &[&str], most: usize) {
        let ids: Vec<&&str> = ids.iter().take(most * 2).collect();
        for (at, id) in ids.iter().enumerate() {
            if !is_token(id) {
                self.problem(
                    report::ID,
                    format!("`{field}`: the id `{id}` is not 1 to 64 letters, digits, `_` or `-`"),
                );
            }
            if ids.iter().take(at).any(|other| other == id) {
                self.problem(
                    report::ID,
                    format!("`{field}`: the id `{id}` is used twice; rename one"),
                );
            }
        }
    }

    /// Titles are compared as a typed answer is, which passes over case and accents.
    fn check_titles(&mut self, titles: &[&str]) {
        let folded: Vec<String> = titles
            .iter()
            .take(list::ROWS_MAX)
            .map(|title| fold(title))
            .collect();
        for (at, title) in folded.iter().enumerate() {
            if folded.iter().take(at).any(|other| other == title) {
                self.problem(
                    report::LIMIT,
                    format!("two options are titled `{title}`; a typed answer could mean either, rename one"),
                );
            }
        }
    }

    fn ask(&mut self, kind: &'static str, config: AskConfig) -> Ask {
        self.variable("variable", &config.variable);
        let takes = |field: &str, is_set: bool, kinds: &[&str]| {
            (is_set && !kinds.contains(&kind))
                .then(|| format!("`{kind}` takes no `{field}`; remove it"))
        };
        let misplaced = [
            takes("min", config.min.is_some(), &["ask.text", "ask.number"]),
            takes("max", config.max.is_some(), &["ask.text", "ask.number"]),
            takes("pattern", config.pattern.is_some(), &["ask.text"]),
            takes("whole", config.whole, &["ask.number"]),
        ];
        misplaced
            .into_iter()
            .flatten()
            .for_each(|message| self.problem(report::CONFIG, message));
        if config
            .min
            .zip(config.max)
            .is_some_and(|(min, max)| min > max)
        {
            self.problem(
                report::RANGE,
                "`min` is greater than `max`; nothing would be accepted",
            );
        }
        let accept = match kind {
            "ask.number" => Accept::Number {
                min: config.min.unwrap_or(f64::MIN),
                max: config.max.unwrap_or(f64::MAX),
                whole: config.whole,
            },
            "ask.email" => Accept::Email,
            "ask.phone" => Accept::Phone,
            _ => Accept::Text {
                min: config.min.unwrap_or(1.0).clamp(1.0, ANSWER_CHARS_MAX) as usize,
                max: config
                    .max
                    .unwrap_or(ANSWER_CHARS_MAX)
                    .clamp(1.0, ANSWER_CHARS_MAX) as usize,
                pattern: config
                    .pattern
                    .as_deref()
                    .and_then(|pattern| self.pattern(pattern)),
            },
        };
        Ask {
            kind,
            body: self.sent_text("body", &config.body),
            accept,
            variable: config.variable,
            retry: self.optional_text("retry", config.retry.as_deref()),
            attempts: self.ranged("attempts", config.attempts, 1, ATTEMPTS_MAX),
        }
    }

    fn pattern(&mut self, source: &str) -> Option<Regex> {
        if !self.count_patterns(1) {
            return None;
        }
        if source.len() > PATTERN_BYTES_MAX {
            self.problem(
                report::SOURCE,
                format!("`pattern` is longer than {PATTERN_BYTES_MAX} bytes; shorten it"),
            );
            return None;
        }
        let whole = format!("^(?:{source})$");
        match compile_regex(&whole) {
            Ok(regex) => Some(regex),
            Err(_) => {
                let message = "`pattern` is not a regular expression this engine takes; check its brackets, \
                               and use no look-around or back-references";
                self.problem(report::SOURCE, message);
                None
            }
        }
    }

    fn assignments(
        &mut self,
        assign: &Map<String, Value>,
    ) -> Vec<(String, crate::expression::Expression)> {
        if assign.is_empty() || assign.len() > BRANCHES_MAX {
            self.problem(
                report::LIMIT,
                format!(
                    "`assign` has {} variables; use 1 to {BRANCHES_MAX}",
                    assign.len()
                ),
            );
        }
        let mut assignments = Vec::new();
        for (name, source) in assign {
            self.variable("assign", name);
            match source {
                Value::String(source) => {
                    assignments.push((name.clone(), self.expression(name, source)))
                }
                _ => self.problem(
                    report::CONFIG,
                    format!("`assign`: write the expression for `{name}` as a text"),
                ),
            }
        }
        assignments
    }

    fn http(&mut self, config: HttpConfig) -> Http {
        if config.headers.len() > HEADERS_MAX || config.save.len() > SAVES_MAX {
            self.problem(
                report::LIMIT,
                format!("there are more than {HEADERS_MAX} headers or {SAVES_MAX} saved values"),
            );
        }
        let headers: Vec<_> = config
            .headers
            .iter()
            .filter_map(|(name, value)| self.header(name, value))
            .collect();
        let mut save = Vec::new();
        for (variable, pointer) in &config.save {
            self.variable("save", variable);
            match pointer.as_str() {
                Some(pointer) if pointer.is_empty() || pointer.starts_with('/') => {
                    save.push((variable.clone(), pointer.to_owned()));
                }
                _ => self.problem(
                    report::CONFIG,
                    format!("`save`: `{variable}` needs a JSON pointer such as `/order/status`"),
                ),
            }
        }
        if let Some(variable) = &config.save_status {
            self.variable("save_status", variable);
        }
        Http {
            method: config.method,
            url: self.address("url", &config.url),
            headers,
            body: config.body.as_ref().map(|body| self.body(body)),
            timeout_ms: u64::from(self.ranged("timeout_seconds", config.timeout_seconds, 1, 30))
                * 1_000,
            save,
            save_status: config.save_status,
        }
    }

    fn header(&mut self, name: &str, value: &Value) -> Option<(String, Header)> {
        let is_name = !name.is_empty()
            && name.len() <= 64
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
        if !is_name {
            self.problem(
                report::CONFIG,
                format!("`{name}` cannot name a header; use letters, digits, `-` and `_`"),
            );
            return None;
        }
        let header = match value {
            Value::String(text) => Header::Text(self.text(name, text)),
            secret => match serde_json::from_value(secret.clone()) {
                Ok(secret @ HeaderValue::Secret { .. }) => Header::Secret(secret),
                _ => {
                    self.problem(
                        report::CONFIG,
                        format!("the header `{name}` is a text or {{\"secret\": name, \"prefix\": text}}"),
                    );
                    return None;
                }
            },
        };
        Some((name.to_owned(), header))
    }

    fn body(&mut self, source: &Value) -> Body {
        if let Value::String(text) = source {
            return Body::Text(self.template("body", text).unwrap_or_default());
        }
        if !is_shallow(source) {
            self.problem(report::LIMIT, "`body` nests too deeply; flatten it");
            return Body::Json(JsonBody::Plain(Value::Null));
        }
        let mut texts = 0;
        let body = self.json_body(source, &mut texts);
        if texts > BODY_TEXTS_MAX {
            self.problem(
                report::LIMIT,
                format!("`body` has more than {BODY_TEXTS_MAX} texts; shorten it"),
            );
        }
        Body::Json(body)
    }

    fn json_body(&mut self, source: &Value, texts: &mut usize) -> JsonBody {
        match source {
            Value::String(text) => {
                *texts += 1;
                JsonBody::Text(self.template("body", text).unwrap_or_default())
            }
            Value::Array(list) => JsonBody::List(
                list.iter()
                    .map(|item| self.json_body(item, texts))
                    .collect(),
            ),
            Value::Object(map) => JsonBody::Object(
                map.iter()
                    .map(|(name, item)| (name.clone(), self.json_body(item, texts)))
                    .collect(),
            ),
            plain => JsonBody::Plain(plain.clone()),
        }
    }

    fn agent(&mut self, config: AgentConfig) -> Agent {
        if let Some(variable) = &config.variable {
            self.variable("variable", variable);
        }
        let system = self.text("system", &config.system);
        let chars = length(&system.fixed_text());
        if chars > SYSTEM_CHARS_MAX {
            let message =
                format!("`system` has {chars} characters, {SYSTEM_CHARS_MAX} are allowed");
            self.problem(report::LIMIT, message);
        }
        Agent {
            base_url: self.address("endpoint.base_url", &config.endpoint.base_url),
            model: self.text("endpoint.model", &config.endpoint.model),
            api_key: config.endpoint.api_key,
            system,
            mode: config.mode,
            greeting: self.optional_text("greeting", config.greeting.as_deref()),
            fallback: self.optional_text("fallback", config.fallback.as_deref()),
            exit_keywords: self.keywords("exit_keywords", &config.exit_keywords, false),
            memory_turns: self.ranged("memory_turns", config.memory_turns, 1, 40) as usize,
            answers_max: self.ranged("answers_max", config.answers_max, 1, 200),
            timeout_ms: u64::from(self.ranged("timeout_seconds", config.timeout_seconds, 1, 120))
                * 1_000,
            max_tokens: self.ranged("max_tokens", config.max_tokens, 1, 4_000),
            variable: config.variable,
        }
    }

    /// Compiles an address, whose scheme must be visible unless a slot opens it.
    fn address(&mut self, field: &str, source: &str) -> Template {
        let is_web = ["http://", "https://", "{{"]
            .iter()
            .any(|start| source.starts_with(start));
        if !is_web {
            self.problem(
                report::CONFIG,
                format!("`{field}` must start with `https://`, `http://` or a slot"),
            );
        }
        self.text(field, source)
    }
}
