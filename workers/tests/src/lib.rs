//! What the tests across the crates share.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking"
)]

use std::path::Path;
use std::process::Command;

/// One of our programs, built beside the tests.
pub fn program(name: &str) -> Command {
    let own = std::env::current_exe().unwrap();
    // Test binaries are one level deeper than programs.
    let dir = own.parent().and_then(Path::parent).unwrap();
    let path = dir.join(name);
    let hint = "is not built: run `cargo build --workspace --bins`";
    assert!(path.is_file(), "{} {hint}", path.display());
    Command::new(path)
}
