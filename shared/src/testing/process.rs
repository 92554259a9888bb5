//! A child process: ready within a deadline or an error, its last lines kept, killed when dropped.

use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const LINES_MAX: usize = 400;
const LINE_BYTES_MAX: u64 = 4096;

/// Says why a program could not be used, with the end of what it printed.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not there or may not run.
    #[error("cannot start {name}: {source}; `make tools` installs what tests need")]
    Start {
        /// What the program is called in messages.
        name: String,
        /// The operating system's reason.
        source: std::io::Error,
    },
    /// The program ended before it was ready.
    #[error("{name} ended before it was ready; it printed:\n{log}")]
    Ended {
        /// What the program is called in messages.
        name: String,
        /// Its last lines.
        log: String,
    },
    /// The program was not ready in time.
    #[error("{name} was not ready within {within:?}; it printed:\n{log}")]
    Late {
        /// What the program is called in messages.
        name: String,
        /// The time it was given.
        within: Duration,
        /// Its last lines.
        log: String,
    },
    /// A file or signal around the program failed.
    #[error("{name}: {what}: {source}")]
    Io {
        /// What the program is called in messages.
        name: String,
        /// What was being done.
        what: &'static str,
        /// The operating system's reason.
        source: std::io::Error,
    },
}

/// Holds a running program; dropping it kills the program and waits for its end.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: Arc<Mutex<VecDeque<String>>>,
}

impl Process {
    /// Starts a program and gives each line it prints to `ready` until that returns a value.
    ///
    /// # Errors
    /// When the program cannot start, ends first, or does not get ready `within` the time.
    pub fn start<T>(
        name: &str,
        mut command: Command,
        within: Duration,
        mut ready: impl FnMut(&str) -> Option<T>,
    ) -> Result<(Self, T), ProcessError> {
        let deadline = Instant::now() + within;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(|source| ProcessError::Start {
                name: name.to_owned(),
                source,
            })?;
        let log = Arc::new(Mutex::new(VecDeque::with_capacity(LINES_MAX)));
        let lines = follow(&mut child, &log);
        let process = Self {
            name: name.to_owned(),
            child,
            log,
        };
        loop {
            match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => {
                    if let Some(value) = ready(&line) {
                        return Ok((process, value));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(ProcessError::Ended {
                        name: name.to_owned(),
                        log: process.log(),
                    });
                }
                Err(RecvTimeoutError::Timeout) => {
                    return Err(ProcessError::Late {
                        name: name.to_owned(),
                        within,
                        log: process.log(),
                    });
                }
            }
        }
    }

    /// Gives the last lines the program printed, on either stream.
    pub fn log(&self) -> String {
        lock(&self.log)
            .iter()
            .map(|line| format!("  {line}\n"))
            .collect()
    }

    /// Gives the process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Tells whether the program still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Kills the program at once (SIGKILL) and waits for its end.
    pub fn kill(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends a signal by name, such as `TERM`, `STOP` or `CONT`.
    ///
    /// # Errors
    /// When the signal cannot be sent.
    pub fn signal(&self, signal: &str) -> Result<(), ProcessError> {
        let failed = |source| ProcessError::Io {
            name: self.name.clone(),
            what: "sending a signal",
            source,
        };
        let status = Command::new("kill")
            .arg(format!("-{signal}"))
            .arg(self.id().to_string())
            .status()
            .map_err(failed)?;
        if status.success() {
            Ok(())
        } else {
            Err(failed(std::io::Error::other("kill refused")))
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

fn follow(child: &mut Child, log: &Arc<Mutex<VecDeque<String>>>) -> Receiver<String> {
    let (sender, receiver) = sync_channel(16);
    if let Some(stream) = child.stdout.take() {
        follow_stream(stream, log.clone(), sender.clone());
    }
    if let Some(stream) = child.stderr.take() {
        follow_stream(stream, log.clone(), sender);
    }
    receiver
}

/// Reads to the end of the stream whatever happens: a program whose pipe is full would stand still.
fn follow_stream(
    stream: impl Read + Send + 'static,
    log: Arc<Mutex<VecDeque<String>>>,
    sender: SyncSender<String>,
) {
    std::thread::spawn(move || {
        let mut sender = Some(sender);
        let mut reader = BufReader::new(stream);
        let mut bytes = Vec::new();
        while matches!(
            reader
                .by_ref()
                .take(LINE_BYTES_MAX)
                .read_until(b'\n', &mut bytes),
            Ok(1..)
        ) {
            let line = String::from_utf8_lossy(&bytes).trim_end().to_owned();
            bytes.clear();
            {
                let mut log = lock(&log);
                if log.len() == LINES_MAX {
                    log.pop_front();
                }
                log.push_back(line.clone());
            }
            if sender
                .as_ref()
                .is_some_and(|sender| sender.send(line).is_err())
            {
                sender = None;
            }
        }
    });
}

fn lock(log: &Mutex<VecDeque<String>>) -> MutexGuard<'_, VecDeque<String>> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_ready_line_gives_its_value() {
        let script = "echo starting; echo 'port 4711'; exec sleep 60";
        let port = |line: &str| {
            line.strip_prefix("port ")
                .and_then(|port| port.parse::<u16>().ok())
        };
        let (mut process, port) = Process::start("a program", shell(script), SOON, port).unwrap();
        assert_eq!(port, 4711);
        assert!(process.is_running());
        process.kill();
        assert!(!process.is_running());
    }

    #[test]
    fn a_program_that_ends_early_is_an_error_with_its_last_lines() {
        let script = "echo 'no such file' >&2; exit 3";
        let error = Process::start("a program", shell(script), SOON, |_| None::<()>).unwrap_err();
        assert!(matches!(error, ProcessError::Ended { .. }));
        assert!(error.to_string().contains("no such file"), "{error}");
    }

    #[test]
    fn a_program_that_says_nothing_is_late() {
        let within = Duration::from_millis(50);
        let error = Process::start("a program", shell("exec sleep 60"), within, |_| None::<()>)
            .unwrap_err();
        assert!(matches!(error, ProcessError::Late { .. }));
    }

    #[test]
    fn a_missing_program_names_the_command_that_installs_it() {
        let missing = Command::new("/nowhere/nats-server");
        let error = Process::start("nats-server", missing, SOON, |_| None::<()>).unwrap_err();
        assert!(error.to_string().contains("make tools"), "{error}");
    }
}
