//! What the source alone tells.

use crate::source::functions::{lengths, percentile_95};
use crate::source::imports::{circles, imports};
use crate::source::{self, File};
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::Path;
use toml::Table;

/// Holds the number of histories that the engine's model plays unless told otherwise.
const MODEL: &str = "workers/engine/src/state/model.rs";

/// How large the code is.
#[derive(Debug)]
pub struct Size {
    /// Lines of Rust without tests.
    pub lines: usize,
    pub crates: usize,
    /// Lines and directory of the largest crate below `workers/`.
    pub largest_crate: (usize, String),
    /// The modules of each circle.
    pub circles: Vec<String>,
    /// Lines and path of the largest file.
    pub largest_file: (usize, String),
    /// The 95th percentile of the lengths of functions.
    pub function_p95: usize,
    /// Histories of the engine's model in a run of CI.
    pub histories: usize,
}

impl Size {
    /// Reads every file below the root.
    pub fn measure(root: &Path) -> Result<Self> {
        let mut files = source::files(root).context("reading the source")?;
        files.retain(|file| file.is("rs"));
        let members = members(root)?;
        let mut of_crates: BTreeMap<&str, usize> = BTreeMap::new();
        for file in &files {
            let owner = members
                .iter()
                .filter(|member| is_below(&file.path, member))
                .max_by_key(|member| member.len());
            if let Some(owner) = owner.filter(|owner| owner.starts_with("workers/")) {
                *of_crates.entry(owner).or_default() += file.lines_without_tests();
            }
        }
        let largest_crate = of_crates
            .into_iter()
            .map(|(owner, lines)| (lines, owner.to_owned()))
            .max()
            .context("no crate below workers/ has a line")?;
        let largest_file = files
            .iter()
            .map(|file| (file.lines_without_tests(), file.path.clone()))
            .max()
            .context("there is no Rust file")?;
        let functions: Vec<usize> = files
            .iter()
            .flat_map(|file| lengths(file.without_tests()))
            .collect();
        Ok(Self {
            lines: files.iter().map(File::lines_without_tests).sum(),
            crates: members.len(),
            largest_crate,
            circles: all_circles(&files, &members),
            largest_file,
            function_p95: percentile_95(&functions),
            histories: histories(&files)?,
        })
    }
}

fn is_below(path: &str, directory: &str) -> bool {
    path.strip_prefix(directory)
        .is_some_and(|rest| rest.starts_with('/'))
}

fn members(root: &Path) -> Result<Vec<String>> {
    let text = std::fs::read_to_string(root.join("Cargo.toml")).context("reading Cargo.toml")?;
    let manifest: Table = text.parse().context("reading Cargo.toml")?;
    let members = manifest
        .get("workspace")
        .and_then(|workspace| workspace.get("members")?.as_array())
        .context("Cargo.toml lists no members of the workspace")?;
    let names = members.iter().filter_map(|member| member.as_str());
    Ok(names.map(str::to_owned).collect())
}

fn all_circles(files: &[File], members: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for member in members {
        let imports = imports(files, member);
        for circle in circles(&imports) {
            let modules: Vec<&str> = circle.into_iter().collect();
            found.push(format!("{member}: {}", modules.join(", ")));
        }
    }
    found
}

/// The number that stands in for `MODEL_HISTORIES` when it is not set, as CI leaves it.
fn histories(files: &[File]) -> Result<usize> {
    let model = files.iter().find(|file| file.path == MODEL);
    let model = model.with_context(|| format!("{MODEL} is not here"))?;
    model
        .text
        .split_once("MODEL_HISTORIES")
        .and_then(|(_, rest)| rest.split_once("unwrap_or("))
        .and_then(|(_, rest)| rest.split_once(')'))
        .and_then(|(number, _)| number.replace('_', "").parse().ok())
        .with_context(|| {
            format!("{MODEL} has no `unwrap_or(number)` after `MODEL_HISTORIES`: read it anew")
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_of_this_build_is_measured() {
        let size = Size::measure(&source::root()).unwrap();
        assert!(size.lines > 10_000 && size.crates > 10, "{size:?}");
        assert!(
            size.largest_crate.1.starts_with("workers/") && size.histories > 0,
            "{size:?}"
        );
        assert!((5..100).contains(&size.function_p95), "{size:?}");
    }
}
