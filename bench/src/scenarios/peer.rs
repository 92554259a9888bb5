//! A program that a user would put behind Meta's webhook instead of Ackline, with the store behind it.

use super::peer_store::PeerStore;
use super::rig::{APP_SECRET, free_address};
use crate::dev::programs::Program;
use crate::load::Usage;
use ackline_shared::testing::{nats_command, tools_dir};
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::process::Command;
use tokio::time::{Instant, sleep};

const READY_WITHIN: Duration = Duration::from_secs(30);

/// What a peer is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A Node program that publishes to JetStream.
    NodeJetStream(&'static str),
    /// A Node program that adds a job to Redis.
    NodeBullMq,
    /// nginx with Lua that appends to a Redis stream.
    NginxLuaRedis,
    /// pywa on FastAPI; nothing is stored.
    Pywa,
    /// The same, answering each message by the Graph API.
    PywaAnswers,
    /// BuilderBot with its Meta provider, which answers each message by the Graph API; nothing is stored.
    BuilderBot {
        /// Whether its queue, which does one thing every 100 ms, is set to do 64 at once.
        opened: bool,
    },
}

/// A peer's key in the figures, what it is, and what its 200 promises.
#[derive(Debug, Clone, Copy)]
pub struct Recipe {
    pub key: &'static str,
    /// What it is made of.
    pub kind: Kind,
    /// Whether its store syncs before it acknowledges.
    pub sync: bool,
    /// What its 200 promises, in words.
    pub promise: &'static str,
}

#[derive(Debug)]
pub struct Peer {
    pub recipe: Recipe,
    address: SocketAddr,
    backend: SocketAddr,
    program: Program,
    store: Option<Program>,
    // Holds the store's data and the logs.
    _data: tempfile::TempDir,
}

impl Peer {
    /// Starts the store and the program.
    pub async fn start(root: &Path, recipe: Recipe) -> Result<Self> {
        Self::start_before(root, recipe, None).await
    }

    /// The same for a program that sends to a Graph API.
    pub async fn start_before(
        root: &Path,
        recipe: Recipe,
        graph: Option<SocketAddr>,
    ) -> Result<Self> {
        let data = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(root.join(".run"))?;
        std::fs::create_dir_all(data.path().join("logs"))?;
        let (address, backend) = (free_address().await?, free_address().await?);
        let store = match recipe.kind {
            Kind::NodeJetStream(_) => Some(nats(data.path(), backend, recipe.sync)?),
            Kind::NodeBullMq | Kind::NginxLuaRedis => {
                Some(redis(data.path(), backend, recipe.sync)?)
            }
            Kind::Pywa | Kind::PywaAnswers | Kind::BuilderBot { .. } => None,
        };
        if store.is_some() {
            listening(backend)
                .await
                .with_context(|| format!("the store of {}", recipe.key))?;
        }
        let mut command = match recipe.kind {
            Kind::NodeJetStream(script) => node(root, script)?,
            Kind::NodeBullMq => node(root, "http-bullmq.js")?,
            Kind::NginxLuaRedis => nginx(root, data.path(), address)?,
            Kind::Pywa => pywa(root, "app", address)?,
            Kind::PywaAnswers => pywa(root, "echo", address)?,
            Kind::BuilderBot { opened } => builderbot(root, data.path(), opened)?,
        };
        command
            .env("APP_SECRET", APP_SECRET)
            .env("NATS_URL", format!("nats://{backend}"))
            .env("REDIS_PORT", backend.port().to_string())
            .env("PORT", address.port().to_string())
            .envs(graph.map(|graph| ("GRAPH_HOST", graph.to_string())));
        let program = Program::start(recipe.key, command, data.path())?;
        let mut peer = Self {
            recipe,
            address,
            backend,
            program,
            store,
            _data: data,
        };
        let http = reqwest::Client::builder().no_proxy().build()?;
        peer.program
            .ready(&http, &format!("http://{address}/healthz"), READY_WITHIN)
            .await?;
        Ok(peer)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it stores in; none for a peer that stores nothing.
    pub fn store(&self) -> Option<PeerStore> {
        match self.recipe.kind {
            Kind::NodeJetStream(_) => Some(PeerStore::JetStream(self.backend, "WEBHOOKS")),
            Kind::NodeBullMq => Some(PeerStore::Redis(self.backend, "LLEN bull:webhooks:wait")),
            Kind::NginxLuaRedis => Some(PeerStore::Redis(self.backend, "XLEN webhooks")),
            Kind::Pywa | Kind::PywaAnswers | Kind::BuilderBot { .. } => None,
        }
    }

    /// What the program and its store have used.
    pub fn usage(&self) -> Usage {
        let used = |program: &Program| program.id().map(Usage::of).unwrap_or_default();
        let (mut sum, store) = (
            used(&self.program),
            self.store.as_ref().map(used).unwrap_or_default(),
        );
        sum.cpu += store.cpu;
        sum.resident_bytes += store.resident_bytes;
        sum
    }
}

impl Drop for Peer {
    /// Ends the program with its workers, which are in its process group and would outlive it.
    fn drop(&mut self) {
        if let Some(pid) = self.program.id() {
            // Fails only when all of them have ended already.
            let _ = std::process::Command::new("kill")
                .args(["-KILL", "--", &format!("-{pid}")])
                .status();
        }
    }
}

fn nats(data: &Path, address: SocketAddr, sync: bool) -> Result<Program> {
    let config = data.join("nats-server.conf");
    let sync = if sync { "sync_interval: always" } else { "" };
    let store = data.join("store").display().to_string();
    let text = format!(
        "host: 127.0.0.1\nport: {}\nmax_payload: 8MB\njetstream {{\n  store_dir: \"{store}\"\n  {sync}\n}}\n",
        address.port()
    );
    std::fs::write(&config, text)?;
    Program::start("nats-server", nats_command(&config)?.into(), data)
}

fn redis(data: &Path, address: SocketAddr, sync: bool) -> Result<Program> {
    let mut command = Command::new(installed(PathBuf::from("/usr/bin/redis-server"))?);
    command.args([
        "--bind",
        "127.0.0.1",
        "--port",
        &address.port().to_string(),
        "--save",
        "",
    ]);
    command.args(["--appendonly", "yes", "--maxmemory-policy", "noeviction"]);
    command.args(["--appendfsync", if sync { "always" } else { "everysec" }]);
    command.arg("--dir").arg(data);
    Program::start("redis-server", command, data)
}

/// The scripts find their packages beside them, so they run where those are installed.
fn node_scripts(root: &Path) -> Result<PathBuf> {
    let programs = installed(tools_dir().join("peers"))?;
    for entry in std::fs::read_dir(root.join("bench/peers/node"))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "js") {
            let name = path.file_name().context("a script has a name")?;
            std::fs::copy(&path, programs.join(name))
                .with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(programs)
}

fn node(root: &Path, script: &str) -> Result<Command> {
    let mut command = Command::new("node");
    command
        .arg(node_scripts(root)?.join(script))
        .env("NODE_ENV", "production");
    Ok(command)
}

/// It writes logs of its own where it runs.
fn builderbot(root: &Path, data: &Path, opened: bool) -> Result<Command> {
    let programs = node_scripts(root)?;
    let mut command = Command::new("node");
    command
        .arg("--import")
        .arg(programs.join("graph-host.js"))
        .arg(programs.join("builderbot.js"))
        .env("NODE_ENV", "production")
        .current_dir(data);
    if opened {
        command.env("BUILDERBOT_QUEUE", "open");
    }
    Ok(command)
}

fn nginx(root: &Path, data: &Path, address: SocketAddr) -> Result<Command> {
    let peer = root.join("bench/peers/nginx");
    let text = std::fs::read_to_string(peer.join("nginx.conf")).context("reading nginx.conf")?;
    let text = text
        .replace("@DATA@", &data.display().to_string())
        .replace("@PEER@", &peer.display().to_string())
        .replace("@PORT@", &address.port().to_string());
    let config = data.join("nginx.conf");
    std::fs::write(&config, text)?;
    let mut command = Command::new(installed(PathBuf::from("/usr/sbin/nginx"))?);
    command
        .arg("-c")
        .arg(config)
        .arg("-p")
        .arg(data)
        .args(["-e", "stderr"]);
    Ok(command)
}

fn pywa(root: &Path, module: &str, address: SocketAddr) -> Result<Command> {
    let mut command = Command::new(installed(tools_dir().join("peers-python/bin/python"))?);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    command.args([
        "-m",
        "uvicorn",
        &format!("{module}:app"),
        "--host",
        "127.0.0.1",
        "--port",
        &address.port().to_string(),
    ]);
    command.args([
        "--workers",
        &cores.to_string(),
        "--loop",
        "uvloop",
        "--http",
        "httptools",
    ]);
    command.args([
        "--no-access-log",
        "--log-level",
        "error",
        "--backlog",
        "1024",
        "--app-dir",
    ]);
    command
        .arg(root.join("bench/peers/pywa"))
        .env("PYTHONDONTWRITEBYTECODE", "1");
    Ok(command)
}

fn installed(path: PathBuf) -> Result<PathBuf> {
    ensure!(
        path.exists(),
        "{} is missing: `deploy/dev/tools.sh bench` installs the peers",
        path.display()
    );
    Ok(path)
}

async fn listening(address: SocketAddr) -> Result<()> {
    let deadline = Instant::now() + READY_WITHIN;
    while TcpStream::connect(address).await.is_err() {
        ensure!(
            Instant::now() < deadline,
            "nothing listens on {address} after {READY_WITHIN:?}"
        );
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}
