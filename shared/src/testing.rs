//! Real programs for tests: child processes with a deadline to become ready, and a real nats-server.
//!
//! Behind the feature `testing`; no shipped binary asks for it. A program started here ends with the value
//! that holds it, and the last lines it printed are part of every error about it.

mod ages;
mod nats_server;
mod process;

pub use ages::{Ages, check_ages};
pub use nats_server::{NatsOptions, NatsServer, nats_command};
pub use process::{Process, ProcessError};

use std::path::PathBuf;

/// Gives the directory of the pinned tools: `ACKLINE_TOOLS_DIR`, else `.tools` at the workspace's root.
pub fn tools_dir() -> PathBuf {
    match std::env::var_os("ACKLINE_TOOLS_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => workspace_dir().join(".tools"),
    }
}

/// Gives the root of the workspace that this was compiled in.
pub fn workspace_dir() -> PathBuf {
    let crate_dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().map_or(crate_dir.clone(), PathBuf::from)
}
