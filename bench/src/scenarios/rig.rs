//! What is measured: nats-server (one node or three) and the ingress, as child processes with their own data.
//!
//! Ends with the value that holds it. The broker can be killed, frozen and started again.

use crate::dev::programs::{Program, ours};
use crate::load::{Deck, Ledger, Mix, Target, Usage, Verdict};
use ackline_shared::envelope::read_message_id;
use ackline_shared::ids::hex;
use ackline_shared::nats::Durability;
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use ackline_shared::subjects::{Subject, UPDATES, UPDATES_SUBJECTS, header};
use ackline_shared::testing::nats_command;
use ackline_shared::vault::VaultKey;
use anyhow::{Context, Result, bail};
use async_nats::jetstream::consumer::pull::OrderedConfig;
use async_nats::jetstream::{self, consumer::DeliverPolicy};
use futures_util::StreamExt;
use serde_json::Value;
use std::fmt::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, timeout};

/// The path of the app's webhook.
pub const PATH: &str = "/webhooks/meta/main";
pub const APP_SECRET: &str = "bench-app-secret";
const VERIFY_TOKEN: &str = "bench-verify-token";
const TENANTS: usize = 16;
const READY_WITHIN: Duration = Duration::from_secs(40);
const DRAIN_PAUSE: Duration = Duration::from_millis(20);
const READ_WITHIN: Duration = Duration::from_secs(60);
const NODES: [&str; 3] = ["node-0", "node-1", "node-2"];

/// An edge with its broker.
#[derive(Debug)]
pub struct Rig {
    data: tempfile::TempDir,
    durability: Durability,
    ingress_settings: &'static str,
    nodes: Vec<Node>,
    ingress: Option<Program>,
    address: SocketAddr,
    private: SocketAddr,
    http: reqwest::Client,
}

#[derive(Debug)]
struct Node {
    name: &'static str,
    client: SocketAddr,
    monitor: SocketAddr,
    route: SocketAddr,
    program: Option<Program>,
}

/// A port that nobody listens on now.
pub async fn free_address() -> Result<SocketAddr> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .await
        .context("finding a free port")?;
    Ok(listener.local_addr()?)
}

/// The business numbers that deliveries are for.
pub fn targets() -> Vec<Target> {
    (0..TENANTS)
        .map(|number| Target {
            phone_number_id: format!("{}", 1000 + number),
            waba_id: format!("W{number}"),
        })
        .collect()
}

/// Makes a deck that the rig and every peer accept, and opens its ledger.
pub async fn deal(mix: Mix) -> Result<Arc<Ledger>> {
    static RUN: AtomicU32 = AtomicU32::new(1);
    let run = RUN.fetch_add(1, Ordering::Relaxed);
    super::blocking(move || {
        let key = SigningKey::new(&Secret::new(APP_SECRET.to_owned()));
        Ok(Ledger::open(Arc::new(Deck::make(
            run,
            PATH,
            &targets(),
            &key,
            &mix,
        ))))
    })
    .await
}

impl Rig {
    /// Starts a broker in a mode, declares tenants and numbers, and starts the ingress.
    pub async fn start(root: &Path, durability: Durability) -> Result<Self> {
        Self::start_with(root, durability, "").await
    }

    /// The same with further lines for the section `[ingress]`.
    pub async fn start_with(
        root: &Path,
        durability: Durability,
        ingress_settings: &'static str,
    ) -> Result<Self> {
        let runs = root.join(".run");
        std::fs::create_dir_all(&runs).with_context(|| format!("making {}", runs.display()))?;
        let data = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&runs)?;
        std::fs::create_dir_all(data.path().join("logs"))?;
        let count = if durability == Durability::Replicated {
            3
        } else {
            1
        };
        let mut nodes = Vec::new();
        for name in NODES.into_iter().take(count) {
            let (client, monitor, route) = (
                free_address().await?,
                free_address().await?,
                free_address().await?,
            );
            nodes.push(Node {
                name,
                client,
                monitor,
                route,
                program: None,
            });
        }
        let (address, private) = (free_address().await?, free_address().await?);
        let http = reqwest::Client::builder().no_proxy().build()?;
        let mut rig = Self {
            data,
            durability,
            ingress_settings,
            nodes,
            ingress: None,
            address,
            private,
            http,
        };
        rig.write_files()?;
        for node in 0..rig.nodes.len() {
            rig.spawn_node(node)?;
        }
        for node in 0..rig.nodes.len() {
            rig.node_ready(node).await?;
        }
        rig.declare().await?;
        rig.start_ingress().await?;
        Ok(rig)
    }

    fn write_files(&self) -> Result<()> {
        let data = self.data.path();
        std::fs::write(
            data.join("master.key"),
            VaultKey::generate().to_base64().expose(),
        )?;
        let urls: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("nats://{}", node.client))
            .collect();
        let monitor = self.nodes.first().context("a rig has a node")?.monitor;
        let quoted = |text: String| toml::Value::String(text).to_string();
        let settings = format!(
            "[nats]\nurl = {}\nmonitor_url = {}\ndurability = \"{}\"\nstream_bytes_max = \"4GiB\"\n\n\
             [secrets]\nmaster_key_file = {}\n\n[telemetry]\nlog = \"error\"\n\n\
             [ingress]\nlisten = \"{}\"\nprivate_listen = \"{}\"\n{}\n\
             [spool]\ndirectory = {}\nbytes_max = \"4GiB\"\nkeep = \"12s\"\n",
            quoted(urls.join(",")),
            quoted(format!("http://{monitor}")),
            self.durability,
            quoted(data.join("master.key").display().to_string()),
            self.address,
            self.private,
            self.ingress_settings,
            quoted(data.join("spool").display().to_string()),
        );
        std::fs::write(data.join("ackline.toml"), settings)?;
        std::fs::write(data.join("declared.toml"), declared())?;
        for node in &self.nodes {
            std::fs::write(
                data.join(format!("{}.conf", node.name)),
                self.node_config(node),
            )?;
        }
        Ok(())
    }

    fn node_config(&self, node: &Node) -> String {
        let store = self.data.path().join(node.name);
        let sync = match self.durability {
            Durability::Stored => "",
            // Shorter than the spool keeps what was acknowledged.
            Durability::Logged => "  sync_interval: 10s\n",
            Durability::Synced | Durability::Replicated => "  sync_interval: always\n",
        };
        let mut text = format!(
            "server_name: {}\nhost: 127.0.0.1\nport: {}\nhttp: \"{}\"\nmax_payload: 8MB\n\
             jetstream {{\n  store_dir: \"{}\"\n  max_file_store: 64GB\n{sync}}}\n",
            node.name,
            node.client.port(),
            node.monitor,
            store.display()
        );
        if self.nodes.len() > 1 {
            let routes: Vec<_> = self
                .nodes
                .iter()
                .map(|node| format!("nats://{}", node.route))
                .collect();
            let _ = write!(
                text,
                "cluster {{\n  name: bench\n  listen: \"{}\"\n  routes: [{}]\n}}\n",
                node.route,
                routes.join(", ")
            );
        }
        text
    }

    fn spawn_node(&mut self, node: usize) -> Result<()> {
        let data = self.data.path().to_owned();
        let node = self.nodes.get_mut(node).context("no such node")?;
        let command = nats_command(&data.join(format!("{}.conf", node.name)))?.into();
        node.program = Some(Program::start(node.name, command, &data)?);
        Ok(())
    }

    async fn node_ready(&mut self, node: usize) -> Result<()> {
        let node = self.nodes.get_mut(node).context("no such node")?;
        let health = format!("http://{}/healthz", node.monitor);
        node.program
            .as_mut()
            .context("the node is not started")?
            .ready(&self.http, &health, READY_WITHIN)
            .await
    }

    async fn declare(&self) -> Result<()> {
        let mut command = ours("ackline")?;
        command
            .arg("apply")
            .arg(self.data.path().join("declared.toml"));
        command
            .arg("--config")
            .arg(self.data.path().join("ackline.toml"))
            .kill_on_drop(true);
        let output = timeout(READY_WITHIN, command.output())
            .await
            .context("`ackline apply` did not end")??;
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            bail!(
                "`ackline apply` failed:\n{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }

    async fn start_ingress(&mut self) -> Result<()> {
        let mut command = ours("ackline-ingress")?;
        command
            .arg("--config")
            .arg(self.data.path().join("ackline.toml"));
        let program = Program::start("ackline-ingress", command, self.data.path())?;
        let ready = format!("http://{}/readyz", self.private);
        self.ingress
            .insert(program)
            .ready(&self.http, &ready, READY_WITHIN)
            .await
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the ingress has used.
    pub fn ingress_usage(&self) -> Usage {
        self.ingress
            .as_ref()
            .and_then(Program::id)
            .map(Usage::of)
            .unwrap_or_default()
    }

    /// What the broker has used, over all its nodes.
    pub fn nats_usage(&self) -> Usage {
        let mut sum = Usage::default();
        for pid in self
            .nodes
            .iter()
            .filter_map(|node| node.program.as_ref()?.id())
        {
            let usage = Usage::of(pid);
            sum.cpu += usage.cpu;
            sum.resident_bytes += usage.resident_bytes;
        }
        sum
    }

    /// The URL of the broker.
    pub fn nats_url(&self) -> String {
        let urls: Vec<_> = self
            .nodes
            .iter()
            .map(|node| format!("nats://{}", node.client))
            .collect();
        urls.join(",")
    }

    async fn context(&self) -> Result<jetstream::Context> {
        let urls: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("nats://{}", node.client))
            .collect();
        let client = async_nats::ConnectOptions::new()
            .connect(urls)
            .await
            .context("connecting to NATS")?;
        Ok(jetstream::new(client))
    }

    /// Waits until everything that was acknowledged is in the stream.
    pub async fn drained(&self) -> Result<()> {
        let ready = format!("http://{}/readyz", self.private);
        let deadline = Instant::now() + READ_WITHIN;
        while Instant::now() < deadline {
            let said: Value =
                serde_json::from_str(&self.http.get(&ready).send().await?.text().await?)?;
            if said
                .pointer("/spool/records")
                .and_then(Value::as_u64)
                .unwrap_or(0)
                == 0
            {
                return Ok(());
            }
            sleep(DRAIN_PAUSE).await;
        }
        bail!("the spool was not drained in time")
    }

    /// Compares a ledger with the stream.
    pub async fn check(&self, ledger: &Ledger) -> Result<Verdict> {
        self.drained().await?;
        Ok(ledger.check(&self.stored(ledger.deck()).await?))
    }

    /// The serial numbers of a deck's updates in the stream, oldest first.
    async fn stored(&self, deck: &Deck) -> Result<Vec<u32>> {
        let mut stream = self.context().await?.get_stream(UPDATES).await?;
        let last = stream.info().await?.state.last_sequence;
        let mut found = Vec::new();
        if stream.cached_info().state.messages == 0 {
            return Ok(found);
        }
        let config = OrderedConfig {
            headers_only: true,
            deliver_policy: DeliverPolicy::All,
            filter_subjects: UPDATES_SUBJECTS
                .iter()
                .map(|&subject| subject.to_owned())
                .collect(),
            ..OrderedConfig::default()
        };
        let mut messages = stream.create_consumer(config).await?.messages().await?;
        loop {
            let message = timeout(READ_WITHIN, messages.next())
                .await
                .context("reading the stream")?;
            let message = message.context("the stream ended early")??;
            let id = message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(header::MSG_ID));
            let subject = Subject::parse(&message.subject);
            let id = id
                .zip(subject)
                .map(|(id, subject)| read_message_id(subject.tenant(), id.as_str()));
            found.extend(id.and_then(|id| deck.serial_of(id.as_str())));
            let info = message
                .info()
                .map_err(|error| anyhow::anyhow!("a message without a place: {error}"))?;
            if info.stream_sequence >= last {
                return Ok(found);
            }
        }
    }

    /// Empties the stream, so that a long bench does not fill the disk.
    pub async fn purge(&self) -> Result<()> {
        self.context()
            .await?
            .get_stream(UPDATES)
            .await?
            .purge()
            .await?;
        Ok(())
    }

    /// The node that leads the stream of updates.
    pub async fn leader(&self) -> Result<usize> {
        let stream = self.context().await?.get_stream(UPDATES).await?;
        let leader = stream
            .cached_info()
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.leader.clone());
        let leader = leader.context("the stream has no leader")?;
        self.nodes
            .iter()
            .position(|node| node.name == leader)
            .context("the leader is no node of ours")
    }

    /// Kills a node at once, as a crash would.
    pub async fn kill_node(&mut self, node: usize) -> Result<()> {
        let node = self.nodes.get_mut(node).context("no such node")?;
        if let Some(program) = node.program.take() {
            program.kill().await;
        }
        Ok(())
    }

    /// Asks a node to end (SIGTERM) and waits for it.
    pub async fn stop_node(&mut self, node: usize) -> Result<()> {
        let node = self.nodes.get_mut(node).context("no such node")?;
        if let Some(program) = node.program.take() {
            program.stop(Duration::from_secs(20)).await;
        }
        Ok(())
    }

    /// Starts a node again with what it stored.
    pub async fn start_node(&mut self, node: usize) -> Result<()> {
        self.spawn_node(node)?;
        self.node_ready(node).await
    }

    /// Sends a signal to a node, such as `STOP`.
    pub async fn signal_node(&self, node: usize, signal: &str) -> Result<()> {
        let program = self.nodes.get(node).and_then(|node| node.program.as_ref());
        let program = program.context("the node does not run")?;
        program.signal(signal).await
    }

    /// The ends of the logs, for a report of what went wrong.
    pub fn log_tails(&self) -> String {
        let programs = self
            .nodes
            .iter()
            .filter_map(|node| node.program.as_ref())
            .chain(self.ingress.as_ref());
        programs
            .map(Program::log_tail)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// Tenants with a number each, all behind one app.
fn declared() -> String {
    let mut text = format!(
        "[[apps]]\nid = \"main\"\nsecrets = [\"{APP_SECRET}\"]\nverify_token = \"{VERIFY_TOKEN}\"\n"
    );
    for (target, number) in targets().iter().zip(0..) {
        let token = hex(&[number; 8]);
        let _ = write!(
            text,
            "\n[[tenants]]\nid = \"tenant-{number}\"\nname = \"Tenant {number}\"\n\n\
             [[phone_numbers]]\nid = \"{}\"\ntenant = \"tenant-{number}\"\napp = \"main\"\nwaba_id = \"{}\"\n\
             access_token = \"{token}\"\n",
            target.phone_number_id, target.waba_id
        );
    }
    text
}
