//! Worker processes, their broker, and the tenants they work for; ends with the value that holds it.

use super::super::rig::{APP_SECRET, free_address};
use super::feed::Feed;
use super::{phone, tenant};
use crate::dev::programs::{Program, ours};
use crate::load::Usage;
use ackline_shared::ids::hex;
use ackline_shared::nats::Durability;
use ackline_shared::testing::{NatsOptions, NatsServer};
use ackline_shared::vault::VaultKey;
use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use futures_util::TryStreamExt;
use std::fmt::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

const NAMES: [&str; 4] = ["workers-0", "workers-1", "workers-2", "workers-3"];
const READY_WITHIN: Duration = Duration::from_secs(60);
const ANSWERED_WITHIN: Duration = Duration::from_secs(120);
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How `ackline pools` ends when pools are well, degraded or worse.
const POOLS_STATUSES: [i32; 4] = [0, 1, 2, 3];

/// What a crew works on.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Tenants, each with a number.
    pub tenants: usize,
    /// What each process runs, as `--pools` takes it.
    pub pools: &'static str,
    /// The bot that every tenant's updates are relayed to.
    pub bot: Option<SocketAddr>,
    /// A flow that every tenant's messages start.
    pub flow: Option<&'static str>,
    /// What else is declared, as TOML.
    pub further: String,
    /// Files beside the declarations, which may name them.
    pub files: Vec<(&'static str, &'static str)>,
    pub settings: String,
    /// Further lines of the broker's configuration.
    pub broker: String,
    /// Size of each stream; 3 GiB when nothing is said.
    pub stream_bytes_max: Option<&'static str>,
    /// Whether the broker syncs each write before it acknowledges: durability `synced` in place of `stored`.
    pub synced: bool,
}

/// An installation with several worker processes.
#[derive(Debug)]
pub struct Crew {
    data: tempfile::TempDir,
    plan: Plan,
    nats: NatsServer,
    http: reqwest::Client,
    workers: [Option<Program>; NAMES.len()],
    edge: Option<Program>,
}

impl Crew {
    /// Starts the broker and declares the tenants; nobody works yet.
    pub async fn prepare(root: &Path, plan: Plan) -> Result<Self> {
        let runs = root.join(".run");
        std::fs::create_dir_all(&runs).with_context(|| format!("making {}", runs.display()))?;
        let data = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(&runs)?;
        std::fs::create_dir_all(data.path().join("logs"))?;
        let extra_config = plan.broker.clone();
        let nats = NatsServer::start_with(NatsOptions {
            extra_config,
            sync_always: plan.synced,
        })?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let crew = Self {
            data,
            plan,
            nats,
            http,
            workers: [const { None }; NAMES.len()],
            edge: None,
        };
        crew.write_files()?;
        crew.ackline(&["apply", &crew.path("declared.toml")])
            .await?;
        Ok(crew)
    }

    fn path(&self, name: &str) -> String {
        self.data.path().join(name).display().to_string()
    }

    fn write_files(&self) -> Result<()> {
        let data = self.data.path();
        std::fs::write(
            data.join("master.key"),
            VaultKey::generate().to_base64().expose(),
        )?;
        let settings = format!(
            "[nats]\nurl = \"{}\"\ndurability = \"{}\"\nstream_bytes_max = \"{}\"\n\n[secrets]\nmaster_key_file = {}\n\n\
             [telemetry]\nlog = \"warn\"\n\n[egress]\nallow = [\"127.0.0.1\"]\n\n{}",
            self.nats.url(),
            if self.plan.synced {
                Durability::Synced
            } else {
                Durability::Stored
            },
            self.plan.stream_bytes_max.unwrap_or("3GiB"),
            toml::Value::String(self.path("master.key")),
            self.plan.settings,
        );
        std::fs::write(data.join("ackline.toml"), settings)?;
        let flow = self.plan.flow.map(|flow| ("flow.json", flow));
        for (name, text) in self.plan.files.iter().copied().chain(flow) {
            std::fs::write(data.join(name), text)?;
        }
        std::fs::write(data.join("declared.toml"), declared(&self.plan))
            .context("writing the tenants")
    }

    /// Runs the operator's program and gives what it printed.
    pub async fn ackline(&self, arguments: &[&str]) -> Result<String> {
        Ok(self.time(arguments, &[0]).await?.1)
    }

    /// Runs the operator's program and gives how long it took, with what it printed; it must end with one of these
    /// statuses.
    pub async fn time(&self, arguments: &[&str], statuses: &[i32]) -> Result<(Duration, String)> {
        let mut command = ours("ackline")?;
        command
            .args(arguments)
            .args(["--config", &self.path("ackline.toml")])
            .kill_on_drop(true);
        let started = Instant::now();
        let output = timeout(ANSWERED_WITHIN, command.output())
            .await
            .context("`ackline` did not end")??;
        let (took, said) = (
            started.elapsed(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        );
        if !output
            .status
            .code()
            .is_some_and(|status| statuses.contains(&status))
        {
            bail!(
                "`ackline {}`:\n{said}{}",
                arguments.join(" "),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok((took, said))
    }

    /// Starts a worker process and waits until it works or stands by; gives where its API would listen.
    pub async fn hire(&mut self, place: usize) -> Result<SocketAddr> {
        let name = NAMES
            .get(place)
            .copied()
            .context("a crew has four places")?;
        let (private, api) = (free_address().await?, free_address().await?);
        let mut command = ours("ackline-workers")?;
        command.args([
            "--pools",
            self.plan.pools,
            "--config",
            &self.path("ackline.toml"),
        ]);
        command
            .env("ACKLINE_API_PRIVATE_LISTEN", private.to_string())
            .env("ACKLINE_API_LISTEN", api.to_string())
            .env(
                "ACKLINE_JOURNAL_URL",
                format!("sqlite://{}", self.path("journal.db")),
            );
        let mut program = Program::start(name, command, self.data.path())?;
        let ready = format!("http://{private}/readyz");
        program.ready(&self.http, &ready, READY_WITHIN).await?;
        if let Some(slot) = self.workers.get_mut(place) {
            *slot = Some(program);
        }
        Ok(api)
    }

    /// Starts the edge and gives where it listens.
    pub async fn open_edge(&mut self) -> Result<SocketAddr> {
        let (private, public) = (free_address().await?, free_address().await?);
        let mut command = ours("ackline-ingress")?;
        command.args(["--config", &self.path("ackline.toml")]);
        command
            .env("ACKLINE_INGRESS_PRIVATE_LISTEN", private.to_string())
            .env("ACKLINE_INGRESS_LISTEN", public.to_string());
        let mut program = Program::start("edge", command, self.data.path())?;
        let ready = format!("http://{private}/readyz");
        program.ready(&self.http, &ready, READY_WITHIN).await?;
        self.edge = Some(program);
        Ok(public)
    }

    fn worker(&mut self, place: usize) -> Result<Program> {
        self.workers
            .get_mut(place)
            .and_then(Option::take)
            .with_context(|| format!("nobody works at {place}"))
    }

    /// Kills a worker process as a crash would.
    pub async fn kill(&mut self, place: usize) -> Result<()> {
        self.worker(place)?.kill().await;
        Ok(())
    }

    /// Asks a worker process to end and waits for it.
    pub async fn dismiss(&mut self, place: usize) -> Result<()> {
        self.worker(place)?.stop(STOPPED_WITHIN).await;
        Ok(())
    }

    /// Sends a signal to a worker process, such as `STOP`.
    pub async fn signal(&self, place: usize, signal: &str) -> Result<()> {
        let worker = self.workers.get(place).and_then(Option::as_ref);
        let worker = worker.with_context(|| format!("nobody works at {place}"))?;
        worker.signal(signal).await
    }

    pub fn nats(&mut self) -> &mut NatsServer {
        &mut self.nats
    }

    /// A connection to the broker.
    pub async fn context(&self) -> Result<jetstream::Context> {
        let client = async_nats::ConnectOptions::new()
            .retry_on_initial_connect()
            .connect(self.nats.url())
            .await
            .context("connecting to NATS")?;
        Ok(jetstream::new(client))
    }

    pub async fn feed(&self) -> Result<Feed> {
        Ok(Feed::new(self.context().await?))
    }

    /// What the broker has used.
    pub fn broker_usage(&self) -> Usage {
        self.nats.id().map(Usage::of).unwrap_or_default()
    }

    /// What the edge has used.
    pub fn edge_usage(&self) -> Usage {
        self.edge
            .as_ref()
            .and_then(Program::id)
            .map(Usage::of)
            .unwrap_or_default()
    }

    /// Says which of its programs ended by itself, if one did.
    pub fn ended(&mut self) -> Option<String> {
        self.workers
            .iter_mut()
            .flatten()
            .chain(self.edge.as_mut())
            .find_map(Program::ended)
    }

    /// What all worker processes have used.
    pub fn usage(&self) -> Usage {
        let mut sum = Usage::default();
        for pid in self.workers.iter().flatten().filter_map(Program::id) {
            let usage = Usage::of(pid);
            sum.cpu += usage.cpu;
            sum.resident_bytes += usage.resident_bytes;
        }
        sum
    }

    /// What the consumers of a stream have not acknowledged, over all of them.
    pub async fn backlog(&self, context: &jetstream::Context, stream: &str) -> Result<u64> {
        let stream = context.get_stream(stream).await?;
        let consumers: Vec<_> = stream
            .consumers()
            .try_collect()
            .await
            .context("listing consumers")?;
        Ok(consumers
            .iter()
            .map(|consumer| consumer.num_pending + consumer.num_ack_pending as u64)
            .sum())
    }

    /// Waits until everything in a stream is acknowledged.
    pub async fn drained(&self, stream: &str, within: Duration) -> Result<()> {
        let (context, deadline) = (self.context().await?, Instant::now() + within);
        loop {
            let backlog = self.backlog(&context, stream).await;
            match backlog {
                Ok(0) => return Ok(()),
                left if Instant::now() > deadline => {
                    bail!("{left:?} updates are not worked off after {within:?}")
                }
                _ => sleep(ASK_EVERY).await,
            }
        }
    }

    /// Copies the logs, and what the pools say of themselves, to a directory whose path is given back.
    pub async fn keep_logs(&self, root: &Path, name: &str) -> Result<String> {
        let kept = root.join(".run/bench").join(name);
        std::fs::create_dir_all(&kept).with_context(|| format!("making {}", kept.display()))?;
        for log in self
            .workers
            .iter()
            .flatten()
            .chain(self.edge.as_ref())
            .map(Program::log)
        {
            let file = log.file_name().context("a log has a name")?;
            std::fs::copy(log, kept.join(file))
                .with_context(|| format!("copying {}", log.display()))?;
        }
        let (_, said) = self.time(&["pools"], &POOLS_STATUSES).await?;
        std::fs::write(kept.join("pools.txt"), said).context("writing what the pools say")?;
        Ok(kept.display().to_string())
    }

    /// The ends of the logs, for a report of what went wrong.
    pub fn log_tails(&self) -> String {
        self.workers
            .iter()
            .flatten()
            .chain(self.edge.as_ref())
            .map(Program::log_tail)
            .collect::<Vec<_>>()
            .join("\n")
    }
}

/// The token that sends for a tenant's numbers.
pub fn token(tenant: usize) -> String {
    hex(&(tenant as u64).to_be_bytes())
}

fn declared(plan: &Plan) -> String {
    let mut text = format!(
        "[[apps]]\nid = \"main\"\nsecrets = [\"{APP_SECRET}\"]\nverify_token = \"bench-verify-token\"\n"
    );
    for number in 0..plan.tenants {
        let (tenant, phone, token) = (tenant(number), phone(number), token(number));
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[tenants]]\nid = \"{tenant}\"\nname = \"Tenant {number}\"\n\n[[phone_numbers]]\nid = \"{phone}\"\n\
             tenant = \"{tenant}\"\napp = \"main\"\nwaba_id = \"W{number}\"\naccess_token = \"{token}\"\n"
        );
        if let Some(bot) = plan.bot {
            let _ = write!(
                text,
                "\n[[relays]]\nid = \"bot\"\ntenant = \"{tenant}\"\nurl = \"http://{bot}/bot\"\n"
            );
        }
        if plan.flow.is_some() {
            let _ = write!(
                text,
                "\n[[flows]]\nid = \"flow\"\ntenant = \"{tenant}\"\ndefinition_file = \"flow.json\"\n\n\
                 [[bots]]\nid = \"bot\"\ntenant = \"{tenant}\"\nname = \"Bot\"\nphone_numbers = [\"{phone}\"]\nflows = [\"flow\"]\n"
            );
        }
    }
    text.push_str(&plan.further);
    text
}
