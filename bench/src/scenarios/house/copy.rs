//! A copy of the workspace to change: applies patches, runs cargo and make.
//!
//! It stays in `.run/` with a build of its own, so that the next run compiles only what is new.

use super::patch::Patch;
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use tokio::process::Command;

const DIRECTORY: &str = ".run/bench";
/// Lines of a failed program's output that are shown.
const SHOWN: usize = 40;

#[derive(Debug)]
pub struct Copied {
    root: PathBuf,
    above: PathBuf,
}

impl Copied {
    /// Copies what git knows or would add; a file that is the same already is left alone, with its age.
    pub async fn of(root: &Path, name: &str) -> Result<Self> {
        let above = root.join(DIRECTORY);
        let copy = Self {
            root: above.join(name),
            above,
        };
        let arguments = "ls-files -z --cached --others --exclude-standard";
        let mut list = Command::new("git");
        list.args(arguments.split(' ')).current_dir(root);
        let listed = output(list, "git ls-files").await?;
        let files: BTreeSet<PathBuf> = listed
            .split('\0')
            .filter(|path| !path.is_empty())
            .map(PathBuf::from)
            .filter(|path| root.join(path).is_file())
            .collect();
        for path in &files {
            copy_file(&root.join(path), &copy.root.join(path))?;
        }
        copy.remove_others(&files)?;
        Ok(copy)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Removes what an earlier copy had and this one has not.
    fn remove_others(&self, files: &BTreeSet<PathBuf>) -> Result<()> {
        let kept = ["target", ".run", ".git"];
        let mut directories = vec![self.root.clone()];
        while let Some(directory) = directories.pop() {
            for entry in fs::read_dir(&directory)? {
                let path = entry?.path();
                let relative = path.strip_prefix(&self.root)?;
                if kept.iter().any(|name| relative == Path::new(name)) {
                    continue;
                }
                if path.is_dir() {
                    directories.push(path);
                } else if !files.contains(relative) {
                    fs::remove_file(&path)
                        .with_context(|| format!("removing {}", path.display()))?;
                }
            }
        }
        Ok(())
    }

    /// Applies a patch, or takes it back.
    pub async fn apply(&self, patch: &Patch, back: bool) -> Result<()> {
        let mut git = self.command("git");
        // The repository around the copy is none of git's business here: it would look for the files there.
        git.args(["apply", "--whitespace=nowarn"])
            .args(back.then_some("-R"))
            .arg(patch.path)
            .env("GIT_CEILING_DIRECTORIES", &self.above);
        let what = format!(
            "git apply {} (write the patch anew when the code has moved on)",
            patch.path
        );
        output(git, &what).await.map(drop)
    }

    /// Lets cargo check all of it, and the tests of the crates that hold these files.
    pub async fn check(&self, files: &[String]) -> Result<()> {
        let mut cargo = self.command("cargo");
        cargo.args(["check", "--workspace", "--lib", "--bins", "--locked"]);
        output(cargo, "cargo check").await?;
        let packages: BTreeSet<String> = files
            .iter()
            .filter_map(|file| self.package_of(file))
            .collect();
        if packages.is_empty() {
            return Ok(());
        }
        let mut cargo = self.command("cargo");
        cargo.args(["check", "--tests", "--locked"]);
        for package in &packages {
            cargo.args(["-p", package]);
        }
        output(cargo, "cargo check --tests").await.map(drop)
    }

    /// The crate that a file is part of.
    fn package_of(&self, file: &str) -> Option<String> {
        let manifests = Path::new(file)
            .ancestors()
            .skip(1)
            .map(|directory| self.root.join(directory).join("Cargo.toml"));
        let manifest = manifests.into_iter().find(|manifest| manifest.is_file())?;
        let manifest: toml::Table = fs::read_to_string(manifest).ok()?.parse().ok()?;
        let name = manifest.get("package")?.get("name")?;
        name.as_str().map(str::to_owned)
    }

    /// A program that runs in the copy.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(&self.root)
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("MAKEFLAGS");
        command
    }
}

fn copy_file(from: &Path, to: &Path) -> Result<()> {
    let contents = fs::read(from).with_context(|| format!("reading {}", from.display()))?;
    if fs::read(to).is_ok_and(|there| there == contents) {
        return Ok(());
    }
    if let Some(directory) = to.parent() {
        fs::create_dir_all(directory).with_context(|| format!("making {}", directory.display()))?;
    }
    // With its permissions: scripts are run.
    fs::copy(from, to).with_context(|| format!("writing {}", to.display()))?;
    // Now, not when the original was written: cargo compares ages.
    let now = fs::FileTimes::new().set_modified(std::time::SystemTime::now());
    fs::File::options()
        .append(true)
        .open(to)
        .and_then(|file| file.set_times(now))
        .with_context(|| format!("dating {}", to.display()))
}

/// What a program printed; when it failed, the end of what it said.
pub async fn output(mut command: Command, what: &str) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("starting {what}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    let last = lines.len().saturating_sub(SHOWN);
    let shown = lines.split_at(last).1.join("\n");
    bail!("{what}: {}\n{shown}", output.status)
}
