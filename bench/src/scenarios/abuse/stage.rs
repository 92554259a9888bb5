//! The installation: broker, edge and one worker process with every pool; the Graph API, and the abuser's own bot.

use super::super::workers::feed::serial_in;
use super::super::workers::{Crew, Plan};
use super::victim::Sent;
use crate::faulty::{Behind, Mode, Note, Refusal, Target};
use anyhow::Result;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::Path;

pub const VICTIM: &str = "10600000001";
pub const ABUSER: &str = "10600000002";
/// Keys of the REST API.
pub const VICTIM_KEY: &str = "bench-key-of-acme-0123456789";
pub const ABUSER_KEY: &str = "bench-key-of-globex-0123456789";
/// The secret of the abuser's own app.
pub const ABUSER_SECRET: &str = "bench-app-secret-of-globex";
/// So that it can be filled within the abuse.
const STREAM_BYTES_MAX: &str = "256MiB";
/// Answers every message with one text.
const FLOW: &str = r#"{"format":1,"name":"Echo","entry":[{"on":"any"}],"start":"answer","variables":{},
"nodes":{"answer":{"kind":"message.text","body":"You said: {{message.text}}","exits":{}}}}"#;
const ACCEPTED: &str =
    r#"{"messaging_product":"whatsapp","contacts":[],"messages":[{"id":"wamid.accepted"}]}"#;
const REFUSED: Refusal = Refusal {
    status: 400,
    retry_after: None,
    body: r#"{"error":{"message":"(#131009) Parameter value is not valid","type":"OAuthException","code":131009,"fbtrace_id":"bench"}}"#,
};

#[derive(Debug)]
pub struct Stage {
    pub crew: Crew,
    pub edge: SocketAddr,
    /// Where the REST API is.
    pub api: SocketAddr,
    graph: Target,
    own: Target,
}

impl Stage {
    /// Starts everything; the Graph API refuses whatever the abuser sends, and so does its own bot.
    pub async fn start(root: &Path) -> Result<Self> {
        let graph = Target::start(
            Behind::Nobody(ACCEPTED),
            vec![VICTIM.into(), ABUSER.into()],
            serial_in,
        );
        let graph = graph.await?;
        graph.set(Some(1), Mode::Answers(REFUSED));
        let own = Target::start(Behind::Nobody("{}"), vec![], serial_in).await?;
        own.set(None, Mode::Answers(Refusal::plain(400)));
        let plan = Plan {
            pools: "all",
            files: vec![("echo.json", FLOW)],
            further: declared(own.address()),
            settings: format!("[meta]\ngraph_url = \"http://{}\"\n", graph.address()),
            stream_bytes_max: Some(STREAM_BYTES_MAX),
            ..Plan::default()
        };
        let mut crew = Crew::prepare(root, plan).await?;
        let api = crew.hire(0).await?;
        let edge = crew.open_edge().await?;
        Ok(Self {
            crew,
            edge,
            api,
            graph,
            own,
        })
    }

    /// What the Graph API was asked for the victim.
    pub fn victims_requests(&self) -> Vec<Note> {
        self.graph
            .notes()
            .into_iter()
            .filter(|note| note.part == Some(0))
            .collect()
    }

    /// How often the Graph API and the abuser's own bot refused.
    pub fn refused(&self) -> (usize, usize) {
        let of_graph = self
            .graph
            .notes()
            .iter()
            .filter(|note| note.part == Some(1))
            .count();
        (of_graph, self.own.notes().len())
    }

    /// Whether each of these led to a request of the Graph API.
    pub fn is_answered(&self, sent: &[Sent]) -> bool {
        let answered: HashSet<u32> = self
            .victims_requests()
            .iter()
            .filter_map(|note| note.serial)
            .collect();
        sent.iter().all(|sent| answered.contains(&sent.serial))
    }
}

fn declared(own: SocketAddr) -> String {
    format!(
        r#"
[[tenants]]
id = "acme"
name = "Acme"

[[phone_numbers]]
id = "{VICTIM}"
tenant = "acme"
app = "main"
waba_id = "W1"
access_token = "0123456789abcdef"

[[flows]]
id = "echo"
tenant = "acme"
definition_file = "echo.json"

[[bots]]
id = "echo"
tenant = "acme"
name = "Echo"
flows = ["echo"]

[[api_keys]]
id = "key"
tenant = "acme"
key = "{VICTIM_KEY}"

[[tenants]]
id = "globex"
name = "Globex"

[[apps]]
id = "globex"
tenant = "globex"
secrets = ["{ABUSER_SECRET}"]
verify_token = "bench-verify-token"

[[phone_numbers]]
id = "{ABUSER}"
tenant = "globex"
app = "globex"
waba_id = "W2"
access_token = "fedcba9876543210"

[[relays]]
id = "own"
tenant = "globex"
url = "http://{own}/bot"

[[endpoints]]
id = "own"
tenant = "globex"
url = "http://{own}/events"
secrets = ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]

[[api_keys]]
id = "key"
tenant = "globex"
key = "{ABUSER_KEY}"
scopes = ["read", "send", "manage"]
"#
    )
}
