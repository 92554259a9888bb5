//! A server of our own to compare with, as a child process on a free port.

use super::rig::free_address;
use crate::dev::programs::{Program, ours};
use crate::load::Usage;
use anyhow::Result;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

const READY_WITHIN: Duration = Duration::from_secs(10);

/// It ends with the value.
#[derive(Debug)]
pub struct Served {
    program: Program,
    address: SocketAddr,
    // Holds the log.
    _data: tempfile::TempDir,
}

impl Served {
    /// Starts a command of `ackline-dev` that takes its address first, and waits until `/healthz` answers.
    pub async fn start(root: &Path, name: &'static str, further: &[String]) -> Result<Self> {
        std::fs::create_dir_all(root.join(".run"))?;
        let data = tempfile::Builder::new()
            .prefix("bench-")
            .tempdir_in(root.join(".run"))?;
        std::fs::create_dir_all(data.path().join("logs"))?;
        let address = free_address().await?;
        let mut command = ours("ackline-dev")?;
        command.arg(name).arg(address.to_string()).args(further);
        let mut program = Program::start(name, command, data.path())?;
        let http = reqwest::Client::builder().no_proxy().build()?;
        let health = format!("http://{address}/healthz");
        program.ready(&http, &health, READY_WITHIN).await?;
        Ok(Self {
            program,
            address,
            _data: data,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub fn usage(&self) -> Usage {
        self.program.id().map(Usage::of).unwrap_or_default()
    }
}
