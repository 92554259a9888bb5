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
    /// Its nodes by id; each is a [`NodeConfig`] with `exits`.
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
}

/// Words that lead to a node from everywhere.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interrupt {
    pub keywords: Vec<String>,
    pub to: String,
}

/// What a node does; its `kind` names the variant.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "kind")]
pub enum NodeConfig {
    #[serde(rename = "message.text")]
    MessageText(TextConfig),
    #[serde(rename = "message.image")]
    MessageImage(ImageConfig),
    /// Sends up to three buttons; waits for an answer unless it has the exit `next`.
    #[serde(rename = "message.buttons")]
    MessageButtons(ChoiceConfig),
    /// Sends a list of up to ten rows; waits for an answer unless it has the exit `next`.
    #[serde(rename = "message.list")]
    MessageList(ChoiceConfig),
    /// Asks to choose: by buttons where they fit, by a list otherwise.
    #[serde(rename = "ask.choice")]
    AskChoice(ChoiceConfig),
    #[serde(rename = "ask.text")]
    AskText(AskConfig),
    #[serde(rename = "ask.number")]
    AskNumber(AskConfig),
    /// Asks for an email address.
    #[serde(rename = "ask.email")]
    AskEmail(AskConfig),
    /// Asks for a phone number.
    #[serde(rename = "ask.phone")]
    AskPhone(AskConfig),
    /// Leaves by the first branch that holds.
    #[serde(rename = "condition")]
    Condition(ConditionConfig),
    #[serde(rename = "set")]
    Set(SetConfig),
    #[serde(rename = "http")]
    Http(HttpConfig),
    /// Lets a language model answer.
    #[serde(rename = "agent")]
    Agent(AgentConfig),
    /// Goes on at another node.
    #[serde(rename = "goto")]
    Goto(NoConfig),
    #[serde(rename = "end")]
    End(EndConfig),
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    pub body: String,
    /// Whether WhatsApp shows a preview of the first link.
    #[serde(default)]
    pub preview_url: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// Public https address of the image.
    pub link: String,
    #[serde(default)]
    pub caption: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChoiceConfig {
    pub body: String,
    #[serde(default)]
    pub header: Option<String>,
    #[serde(default)]
    pub footer: Option<String>,
    /// Label of what opens a list.
    #[serde(default)]
    pub button: Option<String>,
    /// The options; each has the exit `option:<id>`.
    pub options: Vec<OptionConfig>,
    /// Where the chosen value, or the text that matched none, is kept.
    #[serde(default)]
    pub variable: Option<String>,
    /// Said above the options when an answer matched none.
    #[serde(default)]
    pub retry: Option<String>,
    /// Answers taken before the exit `invalid`; the exit `else` is taken at once.
    #[serde(default = "attempts_default")]
    pub attempts: u32,
}

/// One option of a choice.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OptionConfig {
    pub id: String,
    pub title: String,
    /// More about it; shown in lists.
    #[serde(default)]
    pub description: Option<String>,
    /// What is kept when it is chosen; the title when missing.
    #[serde(default)]
    pub value: Option<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AskConfig {
    pub body: String,
    /// Where the answer is kept.
    pub variable: String,
    /// Said when an answer is not accepted; the question when missing.
    #[serde(default)]
    pub retry: Option<String>,
    /// Answers taken before the exit `invalid`.
    #[serde(default = "attempts_default")]
    pub attempts: u32,
    /// Fewest characters of a text, or least number.
    #[serde(default)]
    pub min: Option<f64>,
    /// Most characters of a text, or greatest number.
    #[serde(default)]
    pub max: Option<f64>,
    /// A regular expression the whole text must match; `ask.text` only.
    #[serde(default)]
    pub pattern: Option<String>,
    /// Whether only whole numbers are accepted; `ask.number` only.
    #[serde(default)]
    pub whole: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConditionConfig {
    /// Tried in order; each has the exit `branch:<id>`.
    pub branches: Vec<BranchConfig>,
}

/// One branch of a condition.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BranchConfig {
    pub id: String,
    /// The expression that must hold.
    pub when: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetConfig {
    /// Expressions by the variable they set, in order.
    pub assign: Map<String, Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    #[serde(default)]
    pub method: Method,
    /// The address; slots after its beginning are percent-encoded.
    pub url: String,
    /// Headers: a text, or `{"secret": name, "prefix": text}`.
    #[serde(default)]
    pub headers: Map<String, Value>,
    /// The body: a text, or JSON whose texts are templates.
    #[serde(default)]
    pub body: Option<Value>,
    /// Seconds until the exit `timeout`, at most 30.
    #[serde(default = "http_timeout_default")]
    pub timeout_seconds: u32,
    /// JSON pointers into the response by the variable they fill.
    #[serde(default)]
    pub save: Map<String, Value>,
    /// The variable that keeps the status code.
    #[serde(default)]
    pub save_status: Option<String>,
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

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentConfig {
    /// The model and where it is reached.
    pub endpoint: EndpointConfig,
    /// What the model is told about its task.
    pub system: String,
    /// Whether it answers one message or stays in conversation.
    #[serde(default)]
    pub mode: AgentMode,
    /// Sent on entering, when the message that led here is already answered.
    #[serde(default)]
    pub greeting: Option<String>,
    /// Sent when no answer comes.
    #[serde(default)]
    pub fallback: Option<String>,
    /// Words that leave a `chat` by the exit `done`.
    #[serde(default)]
    pub exit_keywords: Vec<String>,
    /// Messages of both sides that the model is shown, at most 40.
    #[serde(default = "memory_default")]
    pub memory_turns: u32,
    /// Answers of one `chat` before the exit `done`, at most 200.
    #[serde(default = "answers_default")]
    pub answers_max: u32,
    /// Seconds until the exit `error`, at most 120.
    #[serde(default = "agent_timeout_default")]
    pub timeout_seconds: u32,
    /// Tokens of one answer, at most 4,000.
    #[serde(default = "tokens_default")]
    pub max_tokens: u32,
    /// Where the last answer is kept.
    #[serde(default)]
    pub variable: Option<String>,
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
}

/// How long an agent node keeps the conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AgentMode {
    /// Answers one message, then leaves by `next`.
    #[default]
    Once,
    /// Answers until an exit keyword, then leaves by `done`.
    Chat,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndConfig {
    /// Recorded as the run's outcome.
    #[serde(default = "outcome_default")]
    pub outcome: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

fn attempts_default() -> u32 {
    3
}

fn http_timeout_default() -> u32 {
    10
}

fn agent_timeout_default() -> u32 {
    30
}

fn memory_default() -> u32 {
    12
}

fn answers_default() -> u32 {
    50
}

fn tokens_default() -> u32 {
    600
}

fn outcome_default() -> String {
    "completed".to_owned()
}
