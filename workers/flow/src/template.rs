//! Templates: text with `{{ path | filter:argument }}` slots, compiled once.
//!
//! Tenants write them, so there is no control flow and nothing that can grow: one pass over the parts,
//! each capped in bytes, and the whole capped again.

use super::filter::{Filter, encode_url};
use super::limits::{RENDERED_BYTES_MAX, cut_bytes, json_bytes};
use super::value::{Path, Scope, text_of};
use serde_json::Value;
use std::borrow::Cow;

const SOURCE_BYTES_MAX: usize = 16 * 1024;
const SLOTS_MAX: usize = 100;
const FILTERS_MAX: usize = 8;
/// Bytes that pass through the slots of one rendering; once used up, the slots that follow are empty.
const WORK_BYTES_MAX: usize = 128 * 1024;

/// Why a template does not compile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The source is larger than the limit.
    #[error("the text is longer than {SOURCE_BYTES_MAX} bytes; shorten it")]
    TooLong,
    /// There are more slots than the limit.
    #[error("there are more than {SLOTS_MAX} slots; split the text")]
    TooManySlots,
    /// A slot is opened and never closed.
    #[error("`{{{{` is never closed; add `}}}}`")]
    Unclosed,
    /// What stands before the first `|` is not a path.
    #[error("`{0}` is not a variable; write a name such as `order` or `contact.name`")]
    Path(String),
    /// A filter is unknown or wrongly used.
    #[error("{0}")]
    Filter(String),
}

#[derive(Debug, Clone, Default)]
pub struct Template {
    parts: Vec<Part>,
}

/// What reads a rendered text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Encoding {
    /// An address, or the form that a browser sends.
    Url,
    /// JSON, of which slots are the insides of strings.
    Json,
    Xml,
    /// People, or something that is not known.
    Plain,
}

impl Encoding {
    pub fn of(content_type: &str) -> Self {
        let media = content_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_ascii_lowercase();
        match media.as_str() {
            "application/json" | "text/json" => Self::Json,
            "application/x-www-form-urlencoded" => Self::Url,
            "application/xml" | "text/xml" | "text/html" => Self::Xml,
            media if media.ends_with("+json") => Self::Json,
            media if media.ends_with("+xml") => Self::Xml,
            _ => Self::Plain,
        }
    }
}

#[derive(Debug, Clone)]
enum Part {
    Text(String),
    Slot(Slot),
}

#[derive(Debug, Clone)]
struct Slot {
    path: Path,
    filters: Vec<Filter>,
}

impl Template {
    pub fn compile(source: &str) -> Result<Self, TemplateError> {
        if source.len() > SOURCE_BYTES_MAX {
            return Err(TemplateError::TooLong);
        }
        let mut parts = Vec::new();
        let mut rest = source;
        while let Some((text, after)) = rest.split_once("{{") {
            if parts.len() >= SLOTS_MAX * 2 {
                return Err(TemplateError::TooManySlots);
            }
            if !text.is_empty() {
                parts.push(Part::Text(text.to_owned()));
            }
            let (slot, tail) = split_slot(after).ok_or(TemplateError::Unclosed)?;
            parts.push(Part::Slot(Slot::compile(slot)?));
            rest = tail;
        }
        if !rest.is_empty() {
            parts.push(Part::Text(rest.to_owned()));
        }
        Ok(Self { parts })
    }

    /// Renders to a text of bounded size; missing values are empty.
    pub fn render(&self, scope: &Scope<'_>) -> String {
        self.write(scope, |_, _, text| Cow::Borrowed(text))
    }

    /// Renders an address: every slot but one that opens it is percent-encoded, so that an answer cannot
    /// change the host or the path's structure. None when an answer is `.` or `..` where a segment stands: no
    /// encoding keeps these from being taken for directories.
    pub fn render_url(&self, scope: &Scope<'_>) -> Option<String> {
        let url = self.write(scope, |position, filled, text| match position {
            0 => Cow::Borrowed(text),
            _ => escaped(Encoding::Url, filled, text),
        });
        let url = url.trim().to_owned();
        (!has_dot_segment(&url)).then_some(url)
    }

    /// Renders a text that is read as something: what people wrote is encoded for where it stands.
    pub fn render_as(&self, encoding: Encoding, scope: &Scope<'_>) -> String {
        self.write(scope, |_, filled, text| escaped(encoding, filled, text))
    }

    /// Renders to a value: a template that is one slot keeps the value's type, any other is a text.
    pub fn render_value(&self, scope: &Scope<'_>) -> Value {
        match self.parts.as_slice() {
            [Part::Slot(slot)] => {
                let mut work = WORK_BYTES_MAX;
                slot.value(scope, &mut work).into_owned()
            }
            _ => Value::String(self.render(scope)),
        }
    }

    /// The text itself, when there is no slot in it.
    pub fn as_static(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    /// The text outside of the slots: the least that will be rendered.
    pub fn fixed_text(&self) -> String {
        let fixed = |part: &Part| match part {
            Part::Text(text) => Some(text.clone()),
            Part::Slot(_) => None,
        };
        self.parts.iter().filter_map(fixed).collect()
    }

    /// Whether some slot may render to a text of any length.
    pub fn is_open_ended(&self) -> bool {
        self.slots()
            .any(|slot| !slot.filters.iter().any(Filter::bounds_length))
    }

    /// The first segments of the paths it reads.
    pub fn roots(&self) -> impl Iterator<Item = &str> {
        self.slots().map(|slot| slot.path.root())
    }

    fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.parts.iter().filter_map(|part| match part {
            Part::Slot(slot) => Some(slot),
            Part::Text(_) => None,
        })
    }

    fn write(
        &self,
        scope: &Scope<'_>,
        escape: impl for<'a> Fn(usize, (&Slot, &Value), &'a str) -> Cow<'a, str>,
    ) -> String {
        let mut out = String::new();
        let mut work = WORK_BYTES_MAX;
        for (position, part) in self.parts.iter().enumerate() {
            let room = RENDERED_BYTES_MAX.saturating_sub(out.len());
            match part {
                Part::Text(text) => out.push_str(cut_bytes(text, room)),
                Part::Slot(slot) => {
                    let value = slot.value(scope, &mut work);
                    let text = text_of(&value);
                    let text = cut_bytes(&text, RENDERED_BYTES_MAX);
                    out.push_str(cut_bytes(&escape(position, (slot, &value), text), room));
                }
            }
        }
        out
    }
}

/// What a filled slot becomes where it stands. A filter that encodes has done it already.
fn escaped<'a>(encoding: Encoding, (slot, value): (&Slot, &Value), text: &'a str) -> Cow<'a, str> {
    let last = slot.filters.last();
    match encoding {
        Encoding::Url if last.is_some_and(Filter::encodes_url) => Cow::Borrowed(text),
        Encoding::Url => Cow::Owned(encode_url(text)),
        // A number, a list or an object is written as JSON, whatever is in it.
        Encoding::Json if last.is_some_and(Filter::encodes_json) || !value.is_string() => {
            Cow::Borrowed(text)
        }
        Encoding::Json => Cow::Owned(encode_json(text)),
        Encoding::Xml => Cow::Owned(encode_xml(text)),
        Encoding::Plain => Cow::Borrowed(text),
    }
}

/// The inside of a JSON string.
fn encode_json(text: &str) -> String {
    let quoted = Value::from(text).to_string();
    quoted
        .get(1..quoted.len() - 1)
        .unwrap_or_default()
        .to_owned()
}

fn encode_xml(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&apos;"),
            c => out.push(c),
        }
    }
    out
}

/// Whether a part of an address's path is `.` or `..`, written out or percent-encoded.
fn has_dot_segment(url: &str) -> bool {
    let path = url.split(['?', '#']).next().unwrap_or_default();
    path.split(['/', '\\']).any(|segment| {
        let plain = segment.to_ascii_lowercase().replace("%2e", ".");
        matches!(plain.as_str(), "." | "..")
    })
}

impl Slot {
    fn compile(source: &str) -> Result<Self, TemplateError> {
        let mut pieces = split_outside_quotes(source, '|').into_iter();
        let head = pieces.next().unwrap_or_default().trim();
        let path =
            Path::parse(head).ok_or_else(|| TemplateError::Path(cut_bytes(head, 80).to_owned()))?;
        let filters = pieces.map(compile_filter).collect::<Result<Vec<_>, _>>()?;
        if filters.len() > FILTERS_MAX {
            return Err(TemplateError::Filter(format!(
                "at most {FILTERS_MAX} filters fit into one slot"
            )));
        }
        Ok(Self { path, filters })
    }

    fn value<'a>(&self, scope: &Scope<'a>, work: &mut usize) -> Cow<'a, Value> {
        let mut value = Cow::Borrowed(scope.get(&self.path));
        for pass in 0..=self.filters.len() {
            let Some(left) = work.checked_sub(json_bytes(value.as_ref())) else {
                *work = 0;
                return Cow::Borrowed(&Value::Null);
            };
            *work = left;
            if let Some(filter) = self.filters.get(pass) {
                value = Cow::Owned(filter.apply(&value));
            }
        }
        value
    }
}

fn compile_filter(source: &str) -> Result<Filter, TemplateError> {
    let (name, arguments) = source.split_once(':').unwrap_or((source, ""));
    let arguments: Vec<&str> = match arguments.trim() {
        "" => Vec::new(),
        some => split_outside_quotes(some, ',')
            .into_iter()
            .map(|a| unquote(a.trim()))
            .collect(),
    };
    Filter::compile(name.trim(), &arguments).map_err(TemplateError::Filter)
}

/// Finds the `}}` that closes a slot, looking past quoted arguments.
fn split_slot(text: &str) -> Option<(&str, &str)> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            (None, '}') if text.get(at..).is_some_and(|rest| rest.starts_with("}}")) => {
                return Some((text.get(..at)?, text.get(at + 2..)?));
            }
            _ => {}
        }
    }
    None
}

fn split_outside_quotes(text: &str, separator: char) -> Vec<&str> {
    let mut quote = None;
    text.split(|c: char| {
        match (quote, c) {
            (Some(open), c) if open == c => quote = None,
            (None, '"' | '\'') => quote = Some(c),
            _ => {}
        }
        quote.is_none() && c == separator
    })
    .collect()
}

fn unquote(text: &str) -> &str {
    let inner = |quote: char| text.strip_prefix(quote).and_then(|t| t.strip_suffix(quote));
    inner('"').or_else(|| inner('\'')).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn with_scope<T>(variables: Value, read: impl FnOnce(&Scope<'_>) -> T) -> T {
        read(&Scope {
            variables: variables.as_object().unwrap(),
            contact: &json!({"name": "Ana"}),
            message: &Value::Null,
            run: &Value::Null,
            now: &json!(0),
        })
    }

    fn render(source: &str, variables: Value) -> String {
        with_scope(variables, |scope| {
            Template::compile(source).unwrap().render(scope)
        })
    }

    #[test]
    fn slots_are_filled_and_the_rest_is_kept() {
        assert_eq!(
            render("Hi {{contact.name}}, {{ n }}{}!", json!({"n": 2})),
            "Hi Ana, 2{}!"
        );
        assert_eq!(
            render(
                "{{missing}}|{{ missing | default:\"a | }} b\" | upper }}",
                json!({})
            ),
            "|A | }} B"
        );
    }

    #[test]
    fn what_does_not_compile_says_why() {
        let error = |source: &str| Template::compile(source).unwrap_err();
        assert_eq!(error("{{ a"), TemplateError::Unclosed);
        assert_eq!(error("{{ 1+1 }}"), TemplateError::Path("1+1".into()));
        assert_eq!(error("{{}}"), TemplateError::Path(String::new()));
        assert!(matches!(error("{{ a | nope }}"), TemplateError::Filter(_)));
        assert_eq!(error(&"x".repeat(20_000)), TemplateError::TooLong);
        assert_eq!(error(&"{{a}}".repeat(300)), TemplateError::TooManySlots);
    }

    #[test]
    fn an_answer_cannot_change_the_shape_of_an_address() {
        let url = Template::compile("{{base}}/orders/{{order}}?x={{order | urlencode}}").unwrap();
        let variables = json!({"base": "http://shop", "order": "../a b@evil"});
        let rendered = with_scope(variables, |scope| url.render_url(scope));
        assert_eq!(
            rendered.as_deref(),
            Some("http://shop/orders/..%2Fa%20b%40evil?x=..%2Fa%20b%40evil")
        );
        for (order, passes) in [
            (".", false),
            ("..", false),
            ("%2e", true),
            ("...", true),
            (".x", true),
            ("", true),
        ] {
            let variables = json!({"base": "http://shop", "order": order});
            let rendered = with_scope(variables, |scope| url.render_url(scope));
            assert_eq!(rendered.is_some(), passes, "{order}");
        }
        let encoded = Template::compile("http://shop/{{x}}%2E/orders?x=..").unwrap();
        for (x, passes) in [(".", false), ("", false), ("a", true)] {
            let rendered = with_scope(json!({"x": x}), |scope| encoded.render_url(scope));
            assert_eq!(rendered.is_some(), passes, "{x}");
        }
    }

    #[test]
    fn an_answer_stays_inside_what_it_is_written_into() {
        let text = "a\",\"role\":\"admin\n<b>&'";
        let render = |source: &str, content_type: &str| {
            let template = Template::compile(source).unwrap();
            let variables = json!({"t": text, "n": 2, "o": {"x": text}});
            with_scope(variables, |scope| {
                template.render_as(Encoding::of(content_type), scope)
            })
        };
        let json = render(
            "{\"t\": \"{{t}}\", \"n\": {{n}}, \"o\": {{o}}, \"j\": {{t | json}}}",
            "application/json",
        );
        let read: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            read,
            json!({"t": text, "n": 2, "o": {"x": text}, "j": text})
        );
        let form = render(
            "t={{t}}&u={{t | urlencode}}",
            "application/x-www-form-urlencoded; charset=utf-8",
        );
        let read: Vec<_> = url::form_urlencoded::parse(form.as_bytes()).collect();
        assert_eq!(read, [("t".into(), text.into()), ("u".into(), text.into())]);
        assert!(!render("<t>{{t}}</t>", "application/soap+xml").contains("<b>"));
        assert_eq!(render("{{t}}", "text/plain"), text);
    }

    #[test]
    fn a_lone_slot_keeps_its_type() {
        let value = |source: &str| {
            let template = Template::compile(source).unwrap();
            with_scope(json!({"n": 2, "l": [1]}), |scope| {
                template.render_value(scope)
            })
        };
        assert_eq!(value("{{n}}"), json!(2));
        assert_eq!(value("{{l}}"), json!([1]));
        assert_eq!(value("{{n}} "), json!("2 "));
    }

    #[test]
    fn output_is_capped_whatever_the_variables_hold() {
        let big = "\u{df}".repeat(15_000);
        let source = "{{v | upper | urlencode | json}}".repeat(50);
        assert!(render(&source, json!({"v": big})).len() <= RENDERED_BYTES_MAX);
    }

    #[test]
    fn hostile_sources_are_compiled_or_refused_quickly() {
        let started = Instant::now();
        for piece in [
            "{{",
            "}}",
            "{{a|",
            "{{a|upper|",
            "{{ a | default:\"",
            "{{\u{1f600}",
            "{{a}}",
            "{{a.",
            "|",
            "'",
        ] {
            for count in [100, 1_000, 100_000] {
                if let Ok(template) = Template::compile(&piece.repeat(count)) {
                    let rendered = with_scope(json!({"a": "x".repeat(30_000)}), |scope| {
                        template.render(scope)
                    });
                    assert!(rendered.len() <= RENDERED_BYTES_MAX);
                }
            }
        }
        assert!(started.elapsed() < Duration::from_secs(5));
    }
}
