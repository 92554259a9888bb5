//! What `make check` runs needs no program that is not built from this repository.

use super::{assert_none, rust_files};
use ackline_bench::source::File;

/// How a nats-server is started.
const STARTS: [&str; 2] = ["NatsServer", "nats_command"];
/// Where it is started for others.
const STARTER: &str = "shared/src/testing";
/// Its programs start servers; its unit tests do not.
const PROGRAMS: &str = "bench/src/";

#[test]
fn nothing_in_src_starts_a_server() {
    let files = rust_files();
    let ours = files
        .iter()
        .filter(|file| file.path.contains("src/") && !file.path.starts_with(STARTER));
    assert_none(
        "`make check` runs what stands in src, without a nats-server: move these tests to `tests/` of their crate or to workers/tests, and let a function below take what they need:",
        ours.flat_map(starts).collect(),
    );
}

/// Where a file names what starts a server.
fn starts(file: &File) -> Vec<String> {
    let passed_over = match file.path.starts_with(PROGRAMS) {
        true => file.lines_without_tests(),
        false => 0,
    };
    let starts = |line: &str| STARTS.iter().any(|start| line.contains(start));
    let lines = file.lines().skip(passed_over);
    lines
        .filter(|(_, line)| starts(line))
        .map(|(at, line)| format!("{at}: {}", line.trim()))
        .collect()
}

#[test]
fn a_unit_test_that_starts_a_server_is_found() {
    let file = |path: &str, text: &str| File {
        path: path.to_owned(),
        text: text.to_owned(),
    };
    let start = "let server = NatsServer::start();\n";
    let test = format!(
        "//! A.\n{}{start}}}\n",
        concat!("#[cfg", "(test)]\nmod tests {\n")
    );
    for (file, found) in [
        (file("workers/x/src/a.rs", &test), 1),
        (file("workers/x/src/a.rs", start), 1),
        (file("bench/src/a.rs", &test), 1),
        (file("bench/src/a.rs", start), 0),
    ] {
        assert_eq!(starts(&file).len(), found, "{file:?}");
    }
}
