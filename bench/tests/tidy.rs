//! Holds the rules of this repository that a machine can check. Each failure says what to do.
//!
//! Only ever tightened: a rule that is in the way is discussed, not given an exception.
#![cfg(test)]

#[path = "tidy/documents.rs"]
mod documents;

use ackline_bench::source::{self, File};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use toml::{Table, Value};

#[path = "tidy/imports.rs"]
mod imports;

#[path = "tidy/patches.rs"]
mod patches;

#[path = "tidy/servers.rs"]
mod servers;

const CRATES: [&str; 22] = [
    "shared",
    "ingress",
    "ingress/testkit",
    "workers/engine",
    "workers/traces",
    "workers/ownership",
    "workers/runtime",
    "workers/egress",
    "workers/message",
    "workers/whatsapp",
    "workers/flow",
    "workers/fleet",
    "workers/store",
    "workers/connectors",
    "workers/pools",
    "workers/catalog",
    "workers/replay",
    "workers/api",
    "workers/cli",
    "workers/app",
    "workers/tests",
    "bench",
];
/// Which crate of ours may depend on which others: `normal` in what it builds, `dev` in its tests and examples,
/// `build` in its build script.
const CRATE_EDGES: &[(&str, &str, &[&str])] = &[
    ("ackline-ingress", "normal", &["ackline-shared"]),
    (
        "ackline-ingress",
        "dev",
        &["ackline-ingress-testkit", "ackline-shared"],
    ),
    (
        "ackline-ingress-testkit",
        "normal",
        &["ackline-ingress", "ackline-shared"],
    ),
    ("ackline-engine", "normal", &["ackline-shared"]),
    ("ackline-traces", "normal", &["ackline-shared"]),
    ("ackline-ownership", "normal", &["ackline-shared"]),
    (
        "ackline-runtime",
        "normal",
        &[
            "ackline-engine",
            "ackline-message",
            "ackline-ownership",
            "ackline-shared",
            "ackline-traces",
        ],
    ),
    ("ackline-runtime", "dev", &["ackline-whatsapp"]),
    (
        "ackline-egress",
        "normal",
        &["ackline-engine", "ackline-shared", "ackline-traces"],
    ),
    ("ackline-message", "normal", &["ackline-shared"]),
    (
        "ackline-whatsapp",
        "normal",
        &["ackline-engine", "ackline-shared", "ackline-traces"],
    ),
    (
        "ackline-flow",
        "normal",
        &["ackline-engine", "ackline-message", "ackline-shared"],
    ),
    (
        "ackline-fleet",
        "normal",
        &[
            "ackline-engine",
            "ackline-ownership",
            "ackline-runtime",
            "ackline-shared",
        ],
    ),
    (
        "ackline-store",
        "normal",
        &["ackline-message", "ackline-runtime", "ackline-shared"],
    ),
    ("ackline-store", "dev", &["ackline-pools"]),
    (
        "ackline-connectors",
        "normal",
        &[
            "ackline-egress",
            "ackline-engine",
            "ackline-message",
            "ackline-runtime",
            "ackline-shared",
            "ackline-whatsapp",
        ],
    ),
    (
        "ackline-pools",
        "normal",
        &[
            "ackline-connectors",
            "ackline-egress",
            "ackline-engine",
            "ackline-flow",
            "ackline-message",
            "ackline-runtime",
            "ackline-shared",
            "ackline-whatsapp",
        ],
    ),
    ("ackline-pools", "dev", &["ackline-egress"]),
    (
        "ackline-catalog",
        "normal",
        &["ackline-egress", "ackline-flow", "ackline-shared"],
    ),
    (
        "ackline-replay",
        "normal",
        &[
            "ackline-engine",
            "ackline-fleet",
            "ackline-ownership",
            "ackline-runtime",
            "ackline-shared",
            "ackline-whatsapp",
        ],
    ),
    (
        "ackline-api",
        "normal",
        &[
            "ackline-catalog",
            "ackline-connectors",
            "ackline-fleet",
            "ackline-message",
            "ackline-ownership",
            "ackline-replay",
            "ackline-runtime",
            "ackline-shared",
            "ackline-store",
        ],
    ),
    (
        "ackline-cli",
        "normal",
        &[
            "ackline-catalog",
            "ackline-fleet",
            "ackline-pools",
            "ackline-replay",
            "ackline-runtime",
            "ackline-shared",
            "ackline-store",
        ],
    ),
    ("ackline-cli", "dev", &["ackline-catalog", "ackline-fleet"]),
    (
        "ackline-workers",
        "normal",
        &[
            "ackline-api",
            "ackline-catalog",
            "ackline-egress",
            "ackline-fleet",
            "ackline-ownership",
            "ackline-pools",
            "ackline-replay",
            "ackline-runtime",
            "ackline-shared",
            "ackline-store",
            "ackline-traces",
        ],
    ),
    (
        "ackline-workers-tests",
        "dev",
        &[
            "ackline-api",
            "ackline-catalog",
            "ackline-cli",
            "ackline-connectors",
            "ackline-egress",
            "ackline-engine",
            "ackline-fleet",
            "ackline-flow",
            "ackline-message",
            "ackline-ownership",
            "ackline-pools",
            "ackline-replay",
            "ackline-runtime",
            "ackline-shared",
            "ackline-store",
            "ackline-traces",
            "ackline-whatsapp",
            "ackline-workers",
        ],
    ),
    ("ackline-bench", "normal", &["ackline-shared"]),
];
/// Without its tests, which stand at its end or in files of their own.
const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    source::root()
}

/// Every text file of the project, by its path from the root.
fn files() -> Vec<File> {
    source::files(&root()).unwrap()
}

fn rust_files() -> Vec<File> {
    files().into_iter().filter(|file| file.is("rs")).collect()
}

fn manifest(dir: &str) -> Table {
    fs::read_to_string(root().join(dir).join("Cargo.toml"))
        .unwrap()
        .parse()
        .unwrap()
}

/// Names and values of everything a crate depends on, tests and build scripts included.
fn dependencies(manifest: &Table) -> Vec<(String, Value)> {
    let mut tables: Vec<&Table> = vec![manifest];
    if let Some(targets) = manifest.get("target").and_then(Value::as_table) {
        tables.extend(targets.values().filter_map(Value::as_table));
    }
    let kinds = ["dependencies", "dev-dependencies", "build-dependencies"];
    let of_kind = |table: &Table, kind: &str| {
        table
            .get(kind)
            .and_then(Value::as_table)
            .cloned()
            .unwrap_or_default()
    };
    tables
        .into_iter()
        .flat_map(|table| kinds.map(|kind| of_kind(table, kind)))
        .flatten()
        .collect()
}

fn assert_none(rule: &str, violations: Vec<String>) {
    assert!(
        violations.is_empty(),
        "\n{rule}\n  {}\n",
        violations.join("\n  ")
    );
}

#[test]
fn crates_depend_on_each_other_as_the_table_says() {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let metadata = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version", "1", "--locked"])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        metadata.status.success(),
        "{}",
        String::from_utf8_lossy(&metadata.stderr)
    );
    let found = crate_edges(&serde_json::from_slice(&metadata.stdout).unwrap());
    let listed: BTreeSet<_> = CRATE_EDGES
        .iter()
        .flat_map(|(from, kind, to)| {
            to.iter()
                .map(move |to| [from, kind, to].map(|part| (*part).to_owned()))
        })
        .collect();
    let report = |[from, kind, to]: &[String; 3]| format!("{from} → {to} ({kind})");
    assert_none(
        "Move what both need into a crate below them, or let them meet through NATS; an edge that the architecture wants goes into CRATE_EDGES:",
        found.difference(&listed).map(report).collect(),
    );
    assert_none(
        "Take these out of CRATE_EDGES, nobody needs them any more:",
        listed.difference(&found).map(report).collect(),
    );
}

/// Which crate of ours depends on which other, and for what.
fn crate_edges(metadata: &serde_json::Value) -> BTreeSet<[String; 3]> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or("normal").to_owned();
    let packages = metadata["packages"].as_array().unwrap();
    let ours: BTreeSet<_> = packages
        .iter()
        .map(|package| text(&package["name"]))
        .collect();
    let mut edges = BTreeSet::new();
    for package in packages {
        let from = text(&package["name"]);
        for dependency in package["dependencies"].as_array().unwrap() {
            let to = text(&dependency["name"]);
            if ours.contains(&to) && to != from {
                edges.insert([from.clone(), text(&dependency["kind"]), to]);
            }
        }
    }
    edges
}

/// A crate's tests may ask for a feature of the crate itself.
fn is_itself(dependency: &Value) -> bool {
    dependency.get("path").and_then(Value::as_str) == Some(".")
}

#[test]
fn versions_are_stated_once_in_the_workspace() {
    let mut violations = Vec::new();
    for dir in CRATES {
        let manifest = manifest(dir);
        for (name, value) in dependencies(&manifest) {
            if value.get("workspace").and_then(Value::as_bool) != Some(true) && !is_itself(&value) {
                violations.push(format!("{dir}/Cargo.toml: {name}"));
            }
        }
    }
    assert_none(
        "Put the version in [workspace.dependencies] and write `name.workspace = true`:",
        violations,
    );
}

#[test]
fn unsafe_code_is_forbidden_and_every_crate_takes_the_lints() {
    let workspace = manifest(".");
    let unsafe_code = &workspace["workspace"]["lints"]["rust"]["unsafe_code"];
    assert_eq!(
        unsafe_code.as_str(),
        Some("forbid"),
        "keep `unsafe_code = \"forbid\"` in the workspace lints"
    );
    let takes_lints = |dir: &&str| {
        manifest(dir)
            .get("lints")
            .and_then(|lints| lints["workspace"].as_bool())
    };
    let missing = CRATES
        .iter()
        .filter(|dir| takes_lints(dir) != Some(true))
        .map(ToString::to_string)
        .collect();
    assert_none(
        "Write `[lints] workspace = true` in the Cargo.toml of:",
        missing,
    );
}

/// What a webhook passes on its way to the log stays small: nothing that speaks SQL, calls others by HTTP
/// or renders templates, and of NATS only what it asks on connections of its own.
#[test]
fn the_edge_links_no_sql_driver_http_client_template_engine_or_nats_client() {
    let banned = [
        "sqlx",
        "rusqlite",
        "libsqlite3",
        "postgres",
        "diesel",
        "sea-orm",
        "redis",
        "reqwest",
        "ureq",
        "isahc",
    ];
    // A NATS client of general use brings regular expressions and all of its API: a third of the binary.
    let clients = ["async-nats", "regex", "aho-corasick"];
    let engines = [
        "minijinja",
        "tera",
        "handlebars",
        "askama",
        "liquid",
        "rhai",
        "mlua",
    ];
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let tree = Command::new(cargo)
        .args([
            "tree",
            "--package",
            "ackline-ingress",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--locked",
        ])
        .current_dir(root())
        .output()
        .unwrap();
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    let tree = String::from_utf8(tree.stdout).unwrap();
    assert!(
        tree.contains("hyper"),
        "the tree of the edge looks wrong:\n{tree}"
    );
    let crates: BTreeSet<_> = tree
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let is_banned = |name: &&&str| {
        banned
            .iter()
            .chain(&clients)
            .chain(&engines)
            .any(|start| name.starts_with(start))
    };
    let found = crates
        .iter()
        .filter(is_banned)
        .map(ToString::to_string)
        .collect();
    assert_none(
        "Take these out of what ackline-ingress depends on (cargo tree -p ackline-ingress -i NAME):",
        found,
    );
}

/// Whether a string literal in the line spells a stream, a subject or a header of ours.
fn spells_a_wire_name(line: &str) -> bool {
    let names = ["UPDATES", "OUTBOUND", "SPILL", "DEAD"];
    let subjects = ["in", "ev", "out", "dead", "spill", "rp"];
    line.split('"').skip(1).step_by(2).any(|literal| {
        let is_subject = literal.split_once('.').is_some_and(|(first, rest)| {
            subjects.contains(&first)
                && rest.starts_with(|c: char| c.is_ascii_digit() || "{*>_".contains(c))
        });
        is_subject
            || names.contains(&literal)
            || literal.starts_with("Ackline-")
            || literal == "Nats-Msg-Id"
    })
}

#[test]
fn streams_subjects_and_headers_are_spelled_in_one_module() {
    let allowed = [
        "shared/src/subjects.rs",
        "shared/src/subjects/header.rs",
        "bench/tests/tidy.rs",
    ];
    let mut violations = Vec::new();
    for file in rust_files()
        .iter()
        .filter(|file| !allowed.contains(&file.path.as_str()))
    {
        let code = file
            .lines()
            .filter(|(_, line)| !line.trim_start().starts_with("//"));
        violations.extend(
            code.filter(|(_, line)| spells_a_wire_name(line))
                .map(|(at, line)| format!("{at}: {}", line.trim())),
        );
    }
    assert_none(
        "Use the names in shared/src/subjects.rs, and add what is missing there:",
        violations,
    );
}

#[test]
fn a_wire_name_is_told_from_other_text() {
    for line in [
        r#"("UPDATES")"#,
        r#"format!("in.{p}.msg")"#,
        r#""ev.>""#,
        r#"insert("Ackline-App", a)"#,
        r#""dead.*""#,
    ] {
        assert!(spells_a_wire_name(line), "{line}");
    }
    for line in [
        "UPDATES",
        r#""in.the middle""#,
        r#""out of disk""#,
        r#""ev", "x""#,
        r#"header::APP, "updates""#,
    ] {
        assert!(!spells_a_wire_name(line), "{line}");
    }
}

#[test]
fn every_rust_file_opens_by_saying_what_it_is_responsible_for() {
    let silent = rust_files()
        .into_iter()
        .filter(|file| !file.text.starts_with("//! "))
        .map(|file| file.path)
        .collect();
    assert_none("Open these files with a sentence after `//!`:", silent);
}

#[test]
fn files_and_directories_are_named_after_what_they_hold() {
    let empty_names = [
        "util", "utils", "helper", "helpers", "common", "misc", "types",
    ];
    let is_empty = |part: &str| empty_names.contains(&part.split('.').next().unwrap_or(part));
    let found = files()
        .into_iter()
        .map(|file| file.path)
        .filter(|path| path.split('/').any(is_empty))
        .collect();
    assert_none(
        "Name these after the one thing they hold, or split them until each holds one:",
        found,
    );
}

#[test]
fn no_source_file_is_longer_than_anyone_reads() {
    let sources = ["rs", "py", "sh", "js", "mjs", "ts", "css", "html", "sql"];
    let long = files()
        .into_iter()
        .filter(|file| sources.iter().any(|extension| file.is(extension)))
        .map(|file| (file.lines_without_tests(), file.path))
        .filter(|(lines, _)| *lines > LINES_MAX)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_none(
        &format!("Split these (over {LINES_MAX} lines) along a concept that wants a name:"),
        long,
    );
}

#[test]
fn no_test_is_ignored() {
    let attribute = concat!("#[", "ignore");
    let mut ignored = Vec::new();
    for file in rust_files() {
        let lines = file
            .lines()
            .filter(|(_, line)| line.trim_start().starts_with(attribute));
        ignored.extend(lines.map(|(at, _)| at));
    }
    assert_none("Mend or delete these tests:", ignored);
}

/// A path of one machine or a document that is not here means nothing to a reader.
#[test]
fn nothing_points_outside_the_repository() {
    let files = files();
    let documents: BTreeSet<_> = files
        .iter()
        .filter_map(|file| file.path.rsplit('/').next())
        .collect();
    let homes = ["work", "home", "root", "Users"].map(|dir| format!("/{dir}/"));
    let mut violations = Vec::new();
    for file in files
        .iter()
        .filter(|file| !file.path.ends_with("lock.json") && file.path != "Cargo.lock")
    {
        for (at, line) in file.lines() {
            let words = line.split(|c: char| !c.is_ascii_alphanumeric() && !"/._-:".contains(c));
            for word in words
                .map(|word| word.trim_matches(['.', ':']))
                .filter(|word| !word.contains("://"))
            {
                let name = word.rsplit('/').next().unwrap_or(word);
                let is_missing =
                    name.len() > ".md".len() && name.ends_with(".md") && !documents.contains(name);
                if is_missing || homes.iter().any(|home| word.starts_with(home)) {
                    violations.push(format!("{at}: {word}"));
                }
            }
        }
    }
    assert_none(
        "Say it here or point to a file of this repository:",
        violations,
    );
}

#[test]
fn lock_files_pin_contents_and_not_where_they_come_from() {
    let locks = files().into_iter().filter(|file| {
        file.path.ends_with("package-lock.json")
            || file
                .path
                .rsplit('/')
                .next()
                .is_some_and(|name| name.starts_with("requirements"))
    });
    let mut violations = Vec::new();
    for file in locks {
        let says_where = |line: &str| {
            ["\"resolved\"", "index-url", "find-links", " @ "]
                .iter()
                .any(|way| line.contains(way))
        };
        violations.extend(
            file.lines()
                .filter(|(_, line)| says_where(line))
                .map(|(at, line)| format!("{at}: {}", line.trim())),
        );
    }
    assert_none(
        "Lock again without addresses (npm: --omit-lockfile-registry-resolved):",
        violations,
    );
}

#[test]
fn every_setting_is_documented_by_the_comment_above_it() {
    let path = "shared/src/ackline.default.toml";
    let text = fs::read_to_string(root().join(path)).unwrap();
    let mut above = "";
    let mut settings = 0;
    let mut undocumented = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        let key = line
            .split_once(" = ")
            .map(|(key, _)| key)
            .filter(|key| key.starts_with(|c: char| c.is_ascii_lowercase()));
        if let Some(key) = key {
            settings += 1;
            if !above.starts_with("# ") {
                undocumented.push(format!("{path}:{number}: {key}"));
            }
        }
        above = line;
    }
    assert!(settings > 0, "{path} has no settings");
    assert_none(
        "Write a comment above the key: what it does, its unit, when to change it:",
        undocumented,
    );
}

#[test]
fn the_readme_shows_every_make_target() {
    let read = |name| {
        fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
    };
    let (makefile, readme) = (read("Makefile"), read("README.md"));
    let targets: Vec<_> = makefile
        .lines()
        .filter(|line| line.contains(": ") && line.contains(" ## "))
        .collect();
    assert!(
        !targets.is_empty(),
        "the Makefile says what its targets do after `##`"
    );
    let names = targets.iter().filter_map(|line| line.split(':').next());
    let missing = names
        .filter(|name| !readme.contains(&format!("make {name}")))
        .map(|name| format!("make {name}"))
        .collect();
    assert_none("Say in README.md what these do:", missing);
}
