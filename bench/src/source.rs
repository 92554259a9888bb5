//! Reads the project's own source: what `make bench SCENARIO=house` measures and the tidy tests hold.

pub mod functions;
pub mod imports;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The model that the engine's tests compare with.
const MODEL: &str = "workers/engine/src/state/model/";

/// Directories that are not part of the project.
const NOT_OURS: [&str; 6] = [
    ".git",
    ".tools",
    ".run",
    "target",
    "node_modules",
    "__pycache__",
];

/// A text file of the project.
#[derive(Debug, Clone)]
pub struct File {
    /// Its path from the root.
    pub path: String,
    pub text: String,
}

impl File {
    /// Whether the name has the extension.
    pub fn is(&self, extension: &str) -> bool {
        self.path
            .rsplit_once('.')
            .is_some_and(|(_, own)| own == extension)
    }

    /// Its lines, each with where it stands.
    pub fn lines(&self) -> impl Iterator<Item = (String, &str)> {
        self.text
            .lines()
            .zip(1..)
            .map(|(line, number)| (format!("{}:{number}", self.path), line))
    }

    /// What stands before the tests at its end; nothing of a file that holds tests alone.
    pub fn without_tests(&self) -> &str {
        let is_test = |part: &str| matches!(part, "tests" | "tests.rs");
        if self.path.starts_with(MODEL) || self.path.split('/').any(is_test) {
            return "";
        }
        let tests = concat!("#[cfg", "(test)]\nmod tests {");
        self.text.split(tests).next().unwrap_or_default()
    }

    /// How many lines [`File::without_tests`] has.
    pub fn lines_without_tests(&self) -> usize {
        self.without_tests().lines().count()
    }
}

/// The root of the repository that this was built from.
pub fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent().unwrap_or(own).to_owned()
}

/// Every text file below the root, by its path from there.
///
/// # Errors
/// When a directory cannot be read.
pub fn files(root: &Path) -> io::Result<Vec<File>> {
    let mut found = Vec::new();
    let mut directories = vec![root.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let path = entry.path();
            let is_ours = |name: &str| !NOT_OURS.contains(&name);
            if kind.is_symlink() || !entry.file_name().to_str().is_some_and(is_ours) {
                continue;
            }
            if kind.is_dir() {
                directories.push(path);
            } else if let Ok(text) = fs::read_to_string(&path) {
                let path = path.strip_prefix(root).unwrap_or(&path);
                let path = path.to_string_lossy().into_owned();
                found.push(File { path, text });
            }
        }
    }
    Ok(found)
}
