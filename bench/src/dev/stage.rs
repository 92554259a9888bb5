//! The installation: what is started, in which order, and how all of it ends.

use super::api::Api;
use super::declared::{self, Declared};
use super::log::Log;
use super::ports::{Port, Ports};
use super::programs::{Program, ours};
use super::screen::Screen;
use super::settings::{Files, NATS_STORE};
use crate::meta::{self, Simulator};
use crate::serve::install_tls_provider;
use crate::sink::{self, Sink};
use ackline_shared::testing::nats_command;
use anyhow::{Context, Result, bail};
use std::path::PathBuf;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::process::Command;
use tokio::time::timeout;

const READY_WITHIN: Duration = Duration::from_secs(30);
const APPLIED_WITHIN: Duration = Duration::from_secs(30);
const STOPPED_WITHIN: Duration = Duration::from_secs(12);

/// The tenant with a flow, an endpoint and a CRM.
pub const ACME: &str = "acme";
/// The tenant with an existing bot behind the relay.
pub const GLOBEX: &str = "globex";

const NATS: &str = "nats-server";
const INGRESS: &str = "ackline-ingress";
const WORKERS: &str = "ackline-workers";
const ALL_POOLS: &[&str] = &["--pools", "all"];

/// What is to be started.
#[derive(Debug, Clone)]
pub struct Plan {
    pub root: PathBuf,
    /// Declares the installation; `flows/` beside it holds its definitions.
    pub document: PathBuf,
    /// Settings that differ from an installation for development, by environment variable.
    pub overrides: Vec<(&'static str, String)>,
    /// Where data, settings and logs go.
    pub data: PathBuf,
    pub ports: Ports,
    /// The clock of Meta's webhook retries.
    pub retry_scale: f64,
    /// Whether the data is thrown away: retries come sooner than by default, and nobody waits until
    /// nats-server has put its files in order.
    pub throwaway: bool,
}

/// Everything that runs; [`Stage::stop`] ends it.
#[derive(Debug)]
pub struct Stage {
    plan: Plan,
    files: Files,
    declared: Declared,
    http: reqwest::Client,
    nats: Option<Program>,
    ingress: Option<Program>,
    workers: Option<Program>,
    simulator: Option<meta::Running>,
    sink: Option<sink::Running>,
}

impl Stage {
    /// Prepares files; nothing runs yet.
    pub fn new(plan: Plan) -> Result<Self> {
        install_tls_provider();
        let files = Files::prepare(&plan.data)?;
        let declared = Declared::read(&plan.document)?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self {
            plan,
            files,
            declared,
            http,
            nats: None,
            ingress: None,
            workers: None,
            simulator: None,
            sink: None,
        })
    }

    /// Starts everything in order, telling of each step.
    pub async fn start(&mut self, screen: &Screen) -> Result<()> {
        let ports = self.plan.ports;
        self.files.write(&ports, self.plan.throwaway)?;

        let started = Instant::now();
        self.start_nats().await?;
        screen.done(
            NATS,
            &format!("nats://{}", ports.nats.address()),
            started.elapsed(),
        );

        let started = Instant::now();
        self.start_simulators().await?;
        screen.done("Meta simulator", &ports.simulator.url(), started.elapsed());
        screen.done("customer sink", &ports.sink.url(), started.elapsed());

        let started = Instant::now();
        self.apply().await?;
        screen.done("ackline apply", &self.shown_document(), started.elapsed());

        let started = Instant::now();
        self.start_ours().await?;
        screen.done(INGRESS, &ports.ingress.url(), started.elapsed());
        screen.done(
            WORKERS,
            &format!("{} (all pools, API)", ports.api.url()),
            started.elapsed(),
        );

        let started = Instant::now();
        let handshake = self.simulator().handshake().await;
        if !handshake.ok {
            bail!(
                "the webhook did not verify: {}",
                handshake.error.unwrap_or_default()
            );
        }
        screen.done(
            "webhook verified",
            &self.declared.webhook_path()?,
            started.elapsed(),
        );
        Ok(())
    }

    /// Starts nats-server, again after [`Stage::kill_nats`].
    pub async fn start_nats(&mut self) -> Result<()> {
        let command = nats_command(&self.files.nats())?.into();
        let program = self
            .nats
            .insert(Program::start(NATS, command, self.files.data())?);
        let health = format!("{}/healthz", self.plan.ports.nats_monitor.url());
        program.ready(&self.http, &health, READY_WITHIN).await
    }

    /// Kills nats-server as a crash would.
    pub async fn kill_nats(&mut self) {
        if let Some(nats) = self.nats.take() {
            nats.kill().await;
        }
    }

    /// Kills nats-server and takes away what it stored, as the loss of a disk would.
    pub async fn wipe_nats(&mut self) -> Result<()> {
        self.kill_nats().await;
        let store = self.files.data().join(NATS_STORE);
        std::fs::remove_dir_all(&store).with_context(|| format!("removing {}", store.display()))
    }

    pub async fn apply(&self) -> Result<()> {
        let document = declared::copy(&self.plan.document, self.files.data(), &self.plan.ports)?;
        self.ackline(&["apply", &document.display().to_string()])
            .await
            .map(drop)
    }

    async fn start_simulators(&mut self) -> Result<()> {
        let ports = self.plan.ports;
        let webhook = format!("{}{}", ports.ingress.url(), self.declared.webhook_path()?);
        let simulator = meta::Options {
            bind: ports.simulator.address(),
            webhook_url: Some(webhook),
            app_secret: self.declared.app_secret()?,
            verify_token: self.declared.verify_token()?,
            tokens: self.declared.access_tokens(),
            numbers: self.declared.numbers(),
            retry_scale: self.plan.retry_scale,
            ..meta::Options::default()
        };
        self.simulator = Some(meta::start(simulator).await?);
        let sink = sink::Options {
            bind: ports.sink.address(),
            secrets: self.declared.endpoints(),
            bots: self.declared.bots()?,
            chatwoot: self.declared.chatwoot(&ports),
            ..sink::Options::default()
        };
        self.sink = Some(sink::start(sink).await?);
        Ok(())
    }

    async fn start_ours(&mut self) -> Result<()> {
        let (ingress, workers) = (self.run(INGRESS, &[])?, self.run(WORKERS, ALL_POOLS)?);
        let (ingress, workers) = (self.ingress.insert(ingress), self.workers.insert(workers));
        let edge = ready_url(self.plan.ports.ingress_private);
        let pools = ready_url(self.plan.ports.api_private);
        let both = tokio::join!(
            ingress.ready(&self.http, &edge, READY_WITHIN),
            workers.ready(&self.http, &pools, READY_WITHIN),
        );
        both.0.and(both.1)
    }

    /// Starts the workers with all pools and the API, again after [`Stage::kill_workers`].
    pub async fn start_workers(&mut self) -> Result<()> {
        let program = self.run(WORKERS, ALL_POOLS)?;
        let workers = self.workers.insert(program);
        workers
            .ready(
                &self.http,
                &ready_url(self.plan.ports.api_private),
                READY_WITHIN,
            )
            .await
    }

    /// Kills the workers as a crash would.
    pub async fn kill_workers(&mut self) {
        if let Some(workers) = self.workers.take() {
            workers.kill().await;
        }
    }

    fn run(&self, name: &'static str, arguments: &[&str]) -> Result<Program> {
        Program::start(name, self.command(name, arguments)?, self.files.data())
    }

    fn command(&self, name: &str, arguments: &[&str]) -> Result<Command> {
        let mut command = ours(name)?;
        command
            .args(arguments)
            .arg("--config")
            .arg(self.files.settings());
        for (variable, value) in &self.plan.overrides {
            command.env(variable, value);
        }
        Ok(command)
    }

    fn shown_document(&self) -> String {
        let shown = self
            .plan
            .document
            .strip_prefix(&self.plan.root)
            .unwrap_or(&self.plan.document);
        shown.display().to_string()
    }

    /// Runs the operator's program and gives what it printed.
    pub async fn ackline(&self, arguments: &[&str]) -> Result<Output> {
        let mut command = self.command("ackline", arguments)?;
        command.stdin(Stdio::null()).kill_on_drop(true);
        let name = arguments.first().copied().unwrap_or_default();
        let output = timeout(APPLIED_WITHIN, command.output());
        let output = output
            .await
            .with_context(|| format!("`ackline {name}` did not end in time"))??;
        if name == "apply" && !output.status.success() {
            let said = String::from_utf8_lossy(&output.stdout);
            bail!(
                "`ackline {name}` failed:\n{said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(output)
    }

    /// Says which program that should be up has ended.
    pub fn fallen(&mut self) -> Option<String> {
        let programs = [
            self.nats.as_mut(),
            self.ingress.as_mut(),
            self.workers.as_mut(),
        ];
        programs.into_iter().flatten().find_map(Program::ended)
    }

    /// Returns when a program that should stay up has ended.
    pub async fn watch(&mut self) -> Result<()> {
        let (Some(nats), Some(ingress), Some(workers)) =
            (&mut self.nats, &mut self.ingress, &mut self.workers)
        else {
            bail!("not everything was started");
        };
        Err(tokio::select! {
            error = nats.unexpected_end() => error,
            error = ingress.unexpected_end() => error,
            error = workers.unexpected_end() => error,
        })
    }

    /// Ends everything: those who take work first, those who hold it last.
    pub async fn stop(self) {
        let end = async |program: Option<Program>| {
            if let Some(program) = program {
                program.stop(STOPPED_WITHIN).await;
            }
        };
        tokio::join!(end(self.ingress), end(self.workers));
        if let Some(simulator) = self.simulator {
            simulator.stop().await;
        }
        if let Some(sink) = self.sink {
            sink.stop().await;
        }
        match self.nats {
            Some(nats) if self.plan.throwaway => nats.kill().await,
            nats => end(nats).await,
        }
    }

    /// The ends of the logs of our programs, for a report of what went wrong.
    pub fn log_tails(&self) -> String {
        let started = [self.ingress.as_ref(), self.workers.as_ref()]
            .into_iter()
            .flatten();
        let tails = started
            .map(|program| format!("── {}\n{}", program.log().display(), program.log_tail()));
        tails.collect::<Vec<_>>().join("\n")
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The settings file of our programs.
    pub fn settings(&self) -> PathBuf {
        self.files.settings()
    }

    /// What the applied document declares.
    pub fn declared(&self) -> &Declared {
        &self.declared
    }

    /// A client for plain requests.
    pub fn http(&self) -> &reqwest::Client {
        &self.http
    }

    /// The address Meta posts to.
    pub fn webhook_url(&self) -> String {
        self.simulator().webhook_url().unwrap_or_default()
    }

    #[allow(
        clippy::expect_used,
        reason = "asked for only after a start that succeeded"
    )]
    pub fn simulator(&self) -> &Arc<Simulator> {
        self.simulator
            .as_ref()
            .expect("the simulator is started")
            .simulator()
    }

    #[allow(
        clippy::expect_used,
        reason = "asked for only after a start that succeeded"
    )]
    pub fn sink(&self) -> &Arc<Sink> {
        self.sink.as_ref().expect("the sink is started").sink()
    }

    /// The REST API as a tenant.
    pub fn api(&self, tenant: &str) -> Result<Api> {
        Ok(Api::new(
            self.http.clone(),
            self.plan.ports.api.url(),
            self.declared.api_key(tenant)?,
        ))
    }

    pub async fn log(&self) -> Result<Log> {
        Log::connect(&format!("nats://{}", self.plan.ports.nats.address())).await
    }
}

fn ready_url(port: Port) -> String {
    format!("{}/readyz", port.url())
}
