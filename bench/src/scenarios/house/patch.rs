//! The worked examples of CONTRIBUTING, and which of their files count.

use anyhow::{Context, Result, ensure};
use std::path::Path;

#[derive(Debug)]
pub struct Patch {
    /// Its name in the figures.
    pub name: &'static str,
    pub path: &'static str,
    /// What it adds, for people.
    pub adds: &'static str,
}

/// All of them, as CONTRIBUTING lists them.
pub const PATCHES: [Patch; 5] = [
    Patch {
        name: "message_type",
        path: "docs/contributing/message-type.patch",
        adds: "message type",
    },
    Patch {
        name: "node",
        path: "docs/contributing/node.patch",
        adds: "flow node",
    },
    Patch {
        name: "pool",
        path: "docs/contributing/pool.patch",
        adds: "pool",
    },
    Patch {
        name: "entity",
        path: "docs/contributing/entity.patch",
        adds: "entity",
    },
    Patch {
        name: "connector",
        path: "docs/contributing/connector.patch",
        adds: "connector",
    },
];

impl Patch {
    /// The files it changes, adds or removes.
    pub fn files(&self, root: &Path) -> Result<Vec<String>> {
        let path = self.path;
        let text = std::fs::read_to_string(root.join(path))
            .with_context(|| format!("reading the worked example {path}"))?;
        let files = files_of(&text);
        ensure!(
            !files.is_empty(),
            "{path} has no line `diff --git a/… b/…`: write it with git diff"
        );
        Ok(files)
    }
}

fn files_of(text: &str) -> Vec<String> {
    let heads = text
        .lines()
        .filter_map(|line| line.strip_prefix("diff --git a/"));
    let names = heads.filter_map(|rest| rest.split_once(" b/"));
    names.map(|(_, name)| name.to_owned()).collect()
}

/// Whether a file is written by hand for the change: no simulator, generated file, golden or document.
pub fn counts(path: &str) -> bool {
    let is_generated = path.ends_with("openapi.json") || path.ends_with("Cargo.lock");
    let is_document = path.ends_with(".md") || path.starts_with("docs/");
    let is_golden = path.contains("golden");
    !(is_generated || is_document || is_golden || path.starts_with("bench/src/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_names_its_files() {
        let text = "diff --git a/x/a.rs b/x/a.rs\n--- a/x/a.rs\n+++ b/x/a.rs\ndiff --git a/n.rs b/n.rs\nnew file mode 100644\n";
        assert_eq!(files_of(text), ["x/a.rs", "n.rs"]);
    }

    #[test]
    fn what_follows_from_a_change_is_not_counted() {
        for path in [
            "workers/api/openapi.json",
            "docs/flows.md",
            "CHANGELOG.md",
            "bench/src/meta/validate.rs",
            "workers/flow/src/goldens/menu.json",
        ] {
            assert!(!counts(path), "{path}");
        }
        assert!(counts("workers/flow/src/nodes.rs") && counts("shared/src/ackline.default.toml"));
    }
}
