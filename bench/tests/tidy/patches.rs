//! The worked examples of CONTRIBUTING apply to the code as it is.

use super::{assert_none, root};
use std::fs;
use std::process::Command;

const EXAMPLES: &str = "docs/contributing";

#[test]
fn the_worked_examples_apply_and_are_linked() {
    let contributing = fs::read_to_string(root().join("CONTRIBUTING.md")).unwrap();
    let mut patches = 0;
    let mut violations = Vec::new();
    for entry in fs::read_dir(root().join(EXAMPLES)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let path = format!("{EXAMPLES}/{name}");
        if !contributing.contains(&format!("]({path})")) {
            violations.push(format!("{path}: CONTRIBUTING.md has no link to it"));
        }
        let checked = Command::new("git")
            .args(["apply", "--check", "--whitespace=nowarn", &path])
            .current_dir(root())
            .output()
            .unwrap();
        if !checked.status.success() {
            let said = String::from_utf8_lossy(&checked.stderr);
            violations.push(format!("{path}: {}", said.trim()));
        }
        patches += 1;
    }
    assert!(patches > 0, "{EXAMPLES} is empty");
    assert_none(
        "Make the change by hand and write it anew with `git diff`, then run `ackline-dev bench house`, which compiles it:",
        violations,
    );
}
