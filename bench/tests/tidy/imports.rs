//! The folders at the top of a crate use each other in one direction.

use super::{CRATES, assert_none, files};
use ackline_bench::source::imports::{circles, describe, imports};

#[test]
fn modules_at_the_top_of_a_crate_do_not_import_each_other_in_a_circle() {
    let mut violations = Vec::new();
    let files = files();
    for dir in CRATES {
        let imports = imports(&files, dir);
        let circles = circles(&imports);
        violations.extend(circles.iter().map(|circle| describe(&imports, circle)));
    }
    assert_none(
        "Let these use each other in one direction: put what both need below them, or pass it in:",
        violations,
    );
}
