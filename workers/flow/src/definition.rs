//! The format of a flow as its designer or an importer writes it, `format: 1`.
//!
//! Unknown fields are mistakes. Nodes, triggers and settings are kept raw at the top level so that the
//! compiler can report the mistakes of each of them, not only the first. Exits are named on the node
//! that has them; there is no table of edges.

use serde::Deserialize;
use serde_json::{Map, Value};

/// The only format so far.
pub const FORMAT: u64 = 1;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// The version of this format; 1.
    pub format: u64,
    /// What the flow is called in lists.
    pub name: String,
    /// What starts it; see [`Trigger`].
    #[serde(default)]
    pub entry: Vec<Value>,
    /// The node it starts at.
    pub start: String,
    /// Its nodes by id; each has a `kind` and `exits`, see the files below `nodes/`.
    pub nodes: Map<String, Value>,
    /// Variables with their first values.
    #[serde(default)]
    pub variables: Map<String, Value>,
    #[serde(default)]
    pub settings: Option<Value>,
    /// What an editor keeps about the drawing; not read here.
    #[serde(default)]
    pub ui: Option<Value>,
}

/// One thing that starts a flow.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(tag = "on", rename_all = "snake_case", deny_unknown_fields)]
pub enum Trigger {
    /// A press on a button or list row with this payload, sent outside of a running flow.
    Button { payload: String },
    /// A text that matches one of the keywords, case and accents apart.
    Keyword {
        keywords: Vec<String>,
        #[serde(default, rename = "match")]
        matching: Matching,
    },
    /// Any message that nothing else claims.
    Any {},
}

/// How a keyword matches a text, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Matching {
    /// The text is the keyword.
    #[default]
    Exact,
    /// The text begins with the keyword's words.
    Prefix,
    /// The keyword's words stand somewhere in the text.
    Contains,
}

/// What holds in the whole flow.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Words that end the run wherever it waits, with the outcome `stopped`.
    pub stop: Vec<String>,
    /// Words that begin the flow anew wherever it waits.
    pub restart: Vec<String>,
    /// Words that lead to a node wherever it waits.
    pub interrupts: Vec<Interrupt>,
    /// Said when the run fails.
    pub fallback: Option<String>,
    /// How its people write numbers and dates, such as `de` or `en-IN`.
    pub locale: Option<String>,
}

/// Words that lead to a node from everywhere.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interrupt {
    pub keywords: Vec<String>,
    pub to: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize, serde::Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Method {
    #[default]
    Get,
    Post,
    Put,
    Patch,
    Delete,
}

impl Method {
    /// The method as HTTP spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Where a language model is reached.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// Base address of an OpenAI-compatible API, such as `https://api.openai.com/v1`.
    pub base_url: String,
    pub model: String,
    /// Name of the tenant's secret that holds the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// In which field it is told how long an answer may be; by the model's name when missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens_field: Option<TokensField>,
}

/// The fields that chat-completions endpoints know for the length of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TokensField {
    MaxTokens,
    MaxCompletionTokens,
}

impl TokensField {
    /// The field as it is sent.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}
