//! A real nats-server with JetStream on a free port, with its store in a temporary directory.

use super::process::{Process, ProcessError};
use super::tools_dir;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Longest the kernel may take to stop a process.
const FROZEN_WITHIN: Duration = Duration::from_secs(10);
const NAME: &str = "nats-server";
const READY_WITHIN: Duration = Duration::from_secs(20);
/// How nats-server collects its garbage, as the README recommends: by default it does so several times a second under
/// load, for some milliseconds on every core each time.
const COLLECTION: [(&str, &str); 2] = [("GOGC", "400"), ("GOMEMLIMIT", "1GiB")];
const LISTENING: &str = "Listening for client connections on 127.0.0.1:";

/// Says how a test wants its nats-server.
#[derive(Clone, Debug, Default)]
pub struct NatsOptions {
    /// Whether every write is synced to disk before it is acknowledged (`sync_interval: always`).
    pub sync_always: bool,
    /// Further lines of the server's configuration, such as `max_payload: 1MB`.
    pub extra_config: String,
}

/// Holds a nats-server; dropping it kills the server and removes its store.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    port: u16,
    store: TempDir,
    options: NatsOptions,
}

impl NatsServer {
    /// Starts a server with the server's default sync.
    ///
    /// # Errors
    /// When nats-server is not installed or does not get ready.
    pub fn start() -> Result<Self, ProcessError> {
        Self::start_with(NatsOptions::default())
    }

    /// Starts a server as the options say.
    ///
    /// # Errors
    /// When nats-server is not installed or does not get ready.
    pub fn start_with(options: NatsOptions) -> Result<Self, ProcessError> {
        let store =
            tempfile::tempdir().map_err(|source| io("making a directory for its store", source))?;
        let mut server = Self {
            process: None,
            port: 0,
            store,
            options,
        };
        server.restart()?;
        Ok(server)
    }

    /// Gives the URL that clients connect to; it stays the same over restarts.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Gives its process id, while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Kills the server at once (SIGKILL), as a crash would; what it stored stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills the server and takes everything away that it stored.
    ///
    /// # Errors
    /// When the store cannot be removed.
    pub fn wipe(&mut self) -> Result<(), ProcessError> {
        self.kill();
        std::fs::remove_dir_all(self.store.path().join("store"))
            .map_err(|source| io("wiping its store", source))
    }

    /// Starts the server again on the same port and store, killing it first if it still runs.
    ///
    /// # Errors
    /// When the server does not get ready.
    pub fn restart(&mut self) -> Result<(), ProcessError> {
        self.kill();
        let config = self.store.path().join("nats-server.conf");
        std::fs::write(&config, self.config())
            .map_err(|source| io("writing its configuration", source))?;
        let mut port = None;
        let (process, port) = Process::start(NAME, nats_command(&config)?, READY_WITHIN, |line| {
            if let Some((_, rest)) = line.split_once(LISTENING) {
                port = rest.parse::<u16>().ok();
            }
            line.contains("Server is ready").then_some(port).flatten()
        })?;
        self.process = Some(process);
        self.port = port;
        Ok(())
    }

    /// Stops the server's clock (SIGSTOP) and returns once it stands: connections stay up and nothing answers.
    ///
    /// # Errors
    /// When the signal cannot be sent, or the server did not stand still in time.
    pub fn freeze(&self) -> Result<(), ProcessError> {
        let Some(process) = &self.process else {
            return Ok(());
        };
        process.signal("STOP")?;
        let deadline = Instant::now() + FROZEN_WITHIN;
        while !threads_stand_still(process.id()).map_err(|error| io("reading its state", error))? {
            if Instant::now() > deadline {
                return Err(io("stopping it", std::io::ErrorKind::TimedOut.into()));
            }
            std::thread::yield_now();
        }
        Ok(())
    }

    /// Lets a frozen server go on (SIGCONT).
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn thaw(&self) -> Result<(), ProcessError> {
        self.process
            .as_ref()
            .map_or(Ok(()), |process| process.signal("CONT"))
    }

    /// Gives the last lines the server printed.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    fn config(&self) -> String {
        // The server picks the port at its first start, so that no other test can take it meanwhile.
        let port = if self.port == 0 {
            "-1".to_owned()
        } else {
            self.port.to_string()
        };
        let sync = if self.options.sync_always {
            "sync_interval: always"
        } else {
            ""
        };
        let store = self.store.path().join("store");
        format!(
            "host: 127.0.0.1\nport: {port}\nmax_payload: 8MB\njetstream {{\n  store_dir: \"{}\"\n  {sync}\n}}\n{}\n",
            store.display(),
            self.options.extra_config
        )
    }
}

/// Gives the command of the installed nats-server with a configuration, and with the environment it should run in
/// where ours says nothing.
///
/// # Errors
/// When nats-server is not installed.
pub fn nats_command(config: &Path) -> Result<Command, ProcessError> {
    let program = tools_dir().join("bin").join(NAME);
    if !program.is_file() {
        return Err(io(
            "finding it (`make tools` installs it)",
            std::io::ErrorKind::NotFound.into(),
        ));
    }
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    command.envs(
        COLLECTION
            .into_iter()
            .filter(|(name, _)| std::env::var_os(name).is_none()),
    );
    Ok(command)
}

/// Whether the kernel has stopped every thread; it does so one by one, some time after the signal.
fn threads_stand_still(id: u32) -> std::io::Result<bool> {
    for thread in std::fs::read_dir(format!("/proc/{id}/task"))? {
        let state = std::fs::read_to_string(thread?.path().join("stat"))?;
        // The state follows the name, which is in parentheses.
        if !state
            .rsplit(')')
            .next()
            .is_some_and(|rest| rest.trim_start().starts_with('T'))
        {
            return Ok(false);
        }
    }
    Ok(true)
}

fn io(what: &'static str, source: std::io::Error) -> ProcessError {
    ProcessError::Io {
        name: NAME.to_owned(),
        what,
        source,
    }
}
