//! One installation for one test: its document, its programs, and what happens in it.
//!
//! Every test has its own, on ports of its own, so that what a test kills or counts is its own.

use ackline_bench::dev::log::Stored;
use ackline_bench::dev::stage::{Plan, Stage};
use ackline_bench::dev::{Ports, Screen, witness};
use ackline_bench::journal::Numbered;
use ackline_bench::meta::{
    Accepted, Content, Entry, IncomingMessage, Posting, SeenMessage, Sender,
};
use ackline_shared::secret::Secret;
use ackline_shared::testing::workspace_dir;
use serde_json::{Value, json};
use std::fs;
use std::ops::{Deref, DerefMut};
use tempfile::TempDir;

/// The number of the tenant with a bot, an endpoint and a CRM.
pub const ACME_NUMBER: &str = "106540352242922";
/// The number of the tenant with nothing but an existing bot.
pub const GLOBEX_NUMBER: &str = "106540352242923";
/// The number of a tenant with nothing at all: its updates are stored and shown.
pub const INITECH_NUMBER: &str = "106540352242924";
/// The account of that number.
pub const INITECH_WABA: &str = "102290129340400";

/// The secret of the app all of them receive by.
pub const APP_SECRET: &str = "test-app-secret";
/// The token that sends for all of them.
pub const ACCESS_TOKEN: &str = "test-access-token";
/// The secret of Acme's endpoint.
pub const ENDPOINT_SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// Meta's first retries come after 0, 0.3, 0.6 and 1.2 seconds.
const RETRY_SCALE: f64 = 0.01;

/// What a test wants other than the usual.
pub struct Blueprint {
    pub ports: Ports,
    /// Acme's flow; the usual one repeats what it is told.
    pub flow: Value,
    pub endpoint: Option<String>,
    pub crm: Option<String>,
    /// Where Globex' existing bot is.
    pub relay: Option<String>,
    pub settings: Vec<(&'static str, String)>,
}

/// What runs; its end is the end of every program.
pub struct Installation {
    stage: Stage,
    /// Removed after the programs that write there are gone.
    _data: TempDir,
}

impl Blueprint {
    pub async fn new() -> Self {
        let flow = json!({"format": 1, "name": "Echo", "entry": [{"on": "any"}], "start": "echo", "nodes": {
            "echo": {"kind": "message.text", "body": "You wrote: {{ message.text }}", "exits": {"next": "end"}},
            "end": {"kind": "end"},
        }});
        // Few partitions start sooner, and a dead process' work is taken over sooner.
        let settings = [
            ("ACKLINE_NATS_PARTITIONS", "4"),
            ("ACKLINE_POOLS_LEASE_TTL", "2s"),
        ];
        let settings = settings
            .map(|(variable, value)| (variable, value.to_owned()))
            .to_vec();
        let ports = Ports::free().await.unwrap();
        Self {
            ports,
            flow,
            endpoint: None,
            crm: None,
            relay: None,
            settings,
        }
    }

    /// The Graph API as third-party programs are told of it.
    pub fn graph_url(&self) -> String {
        format!("{}/v26.0", self.ports.simulator.url())
    }

    /// Starts everything, which is ready when this returns.
    pub async fn start(self) -> Installation {
        let data = tempfile::Builder::new()
            .prefix("ackline-test-")
            .tempdir()
            .unwrap();
        let declared = data.path().join("written");
        fs::create_dir_all(declared.join("flows")).unwrap();
        fs::write(declared.join("flows/acme.json"), self.flow.to_string()).unwrap();
        let document = declared.join("document.toml");
        fs::write(&document, self.document()).unwrap();
        let plan = Plan {
            root: workspace_dir(),
            document,
            overrides: self.settings,
            data: data.path().to_owned(),
            ports: self.ports,
            retry_scale: RETRY_SCALE,
            throwaway: true,
        };
        let stage = Stage::new(plan).unwrap_or_else(|error| panic!("{error:#}"));
        let mut installation = Installation { stage, _data: data };
        if let Err(error) = installation.stage.start(&Screen::quiet()).await {
            panic!("{error:#}");
        }
        installation
    }

    fn document(&self) -> String {
        let mut document = format!(
            "[[apps]]\nid = \"main\"\nsecrets = [\"{APP_SECRET}\"]\nverify_token = \"test-verify-token\"\n"
        );
        let tenants = [
            ("acme", ACME_NUMBER, "102290129340398"),
            ("globex", GLOBEX_NUMBER, "102290129340399"),
            ("initech", INITECH_NUMBER, INITECH_WABA),
        ];
        for (tenant, number, waba) in tenants {
            document.push_str(&format!(
                "[[tenants]]\nid = \"{tenant}\"\nname = \"{tenant}\"\n\
                 [[phone_numbers]]\nid = \"{number}\"\ntenant = \"{tenant}\"\napp = \"main\"\n\
                 waba_id = \"{waba}\"\naccess_token = \"{ACCESS_TOKEN}\"\n\
                 [[api_keys]]\nid = \"test\"\ntenant = \"{tenant}\"\nkey = \"{tenant}-api-key-0123456789abcdef\"\n\
                 scopes = [\"read\", \"send\", \"manage\"]\n"
            ));
        }
        document.push_str(
            "[[bots]]\nid = \"bot\"\ntenant = \"acme\"\nflows = [\"acme\"]\n\
             [[flows]]\nid = \"acme\"\ntenant = \"acme\"\ndefinition_file = \"flows/acme.json\"\n",
        );
        if let Some(url) = &self.endpoint {
            document.push_str(&format!(
                "[[endpoints]]\nid = \"main\"\ntenant = \"acme\"\nurl = \"{url}\"\nsecrets = [\"{ENDPOINT_SECRET}\"]\n"
            ));
        }
        if let Some(url) = &self.crm {
            document.push_str(&format!(
                "[[crm_links]]\nid = \"desk\"\ntenant = \"acme\"\nkind = \"chatwoot\"\nurl = \"{url}\"\n\
                 account_id = 1\ninbox_id = 1\ninbox_identifier = \"test-inbox\"\n\
                 access_token = \"test-chatwoot-token\"\nhook_token = \"test-hook-token-0123456789\"\n"
            ));
        }
        if let Some(url) = &self.relay {
            document.push_str(&format!(
                "[[relays]]\nid = \"existing\"\ntenant = \"globex\"\nurl = \"{url}\"\n"
            ));
        }
        document
    }
}

impl Deref for Installation {
    type Target = Stage;

    fn deref(&self) -> &Stage {
        &self.stage
    }
}

impl DerefMut for Installation {
    fn deref_mut(&mut self) -> &mut Stage {
        &mut self.stage
    }
}

impl Drop for Installation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", self.stage.log_tails());
        }
    }
}

impl Installation {
    /// Posts a message as Meta does.
    pub fn post(&self, message: IncomingMessage) -> Accepted {
        self.simulator()
            .receive(message, Posting::default())
            .unwrap()
    }

    /// Waits until Meta got its 200 for everything posted.
    pub async fn acknowledged(&self, accepted: &Accepted) {
        for delivery in &accepted.deliveries {
            let ended = witness::ended(self.simulator(), *delivery).await.unwrap();
            let attempt = witness::attempt(&ended.entry).unwrap();
            assert_eq!(attempt.status, Some(200), "{:?}", attempt.error);
        }
    }

    /// Waits until a person got so many messages since the start.
    pub async fn replies(&self, person: &str, count: usize) -> Vec<String> {
        let replies = witness::replies(self.simulator(), person, 0, count)
            .await
            .unwrap();
        texts(&replies)
    }

    /// The updates in the log.
    pub async fn stored(&self) -> Vec<Stored> {
        self.log().await.unwrap().updates().await.unwrap()
    }

    /// What a pool gave up for a tenant.
    pub async fn dead_letters(&self, tenant: &str, pool: &str) -> Vec<Value> {
        self.api(tenant).unwrap().dead_letters(pool).await.unwrap()
    }
}

pub fn texts(entries: &[Numbered<Entry>]) -> Vec<String> {
    entries
        .iter()
        .filter_map(|entry| witness::seen(&entry.entry))
        .map(|seen| seen.text.clone())
        .collect()
}

/// What a business wrote to somebody, when an entry is that.
pub fn from_business(entry: &Entry) -> Option<&SeenMessage> {
    let business = ackline_bench::meta::Author::Business;
    witness::seen(entry).filter(|seen| seen.author == business)
}

/// A text from a phone number to a business number.
pub fn text(person: &str, number: &str, text: &str) -> IncomingMessage {
    IncomingMessage::text(person, text).to_number(number)
}

/// A message of somebody with a name.
pub fn named(person: &str, number: &str, name: &str, content: Content) -> IncomingMessage {
    let sender = Sender {
        from: Some(person.to_owned()),
        name: Some(name.to_owned()),
        phone_number_id: Some(number.to_owned()),
        ..Sender::default()
    };
    IncomingMessage { sender, content }
}

pub fn sign(body: &[u8]) -> String {
    let secret = Secret::new(APP_SECRET.to_owned());
    ackline_shared::signature::SigningKey::new(&secret).sign(body)
}
