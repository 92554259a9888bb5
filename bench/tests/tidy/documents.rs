//! Holds the rules about documents: how long they may be, that their links lead somewhere, and that retired words stay out.

use super::{File, assert_none, files, root, rust_files};
use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

/// Documents that must stay short enough to be read whole, and how many lines they may have.
const LINES: [(&str, usize); 2] = [("README.md", 150), ("ARCHITECTURE.md", 200)];
const GLOSSARY: &str = "docs/glossary.md";

fn documents() -> Vec<File> {
    files().into_iter().filter(|file| file.is("md")).collect()
}

/// The lines of a document with their numbers, without code: fences are left out, spans of code are blank.
fn prose(text: &str) -> Vec<(usize, String)> {
    let mut fenced = false;
    let mut lines = Vec::new();
    for (line, number) in text.lines().zip(1..) {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced {
            let outside = line.split('`').step_by(2);
            lines.push((number, outside.collect::<Vec<_>>().join(" ")));
        }
    }
    lines
}

/// Where the links of a line lead.
fn targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next())
}

/// The anchors of a document, as its headings give them.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut found = BTreeSet::new();
    for line in text.lines() {
        if line.trim_start().starts_with("```") {
            fenced = !fenced;
        } else if !fenced && line.starts_with('#') {
            found.insert(anchor(line.trim_start_matches('#').trim()));
        }
    }
    found
}

fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    let kept = kept
        .chars()
        .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

/// The path from the root that a link in a document means, without leaving the repository.
fn resolve(document: &str, link: &str) -> Option<PathBuf> {
    let mut path = Path::new(document).parent()?.to_owned();
    for part in Path::new(link).components() {
        match part {
            Component::Normal(name) => path.push(name),
            Component::CurDir => {}
            Component::ParentDir if path.pop() => {}
            _ => return None,
        }
    }
    Some(path)
}

#[test]
fn readme_and_architecture_are_short_enough_to_be_read() {
    let long = documents()
        .into_iter()
        .filter_map(|file| {
            let (_, most) = LINES.iter().find(|(path, _)| *path == file.path)?;
            let lines = file.text.lines().count();
            (lines > *most).then(|| format!("{}: {lines} lines, {most} are allowed", file.path))
        })
        .collect();
    assert_none(
        "Move guides to docs/, and decisions and measurements to docs/decisions/:",
        long,
    );
}

#[test]
fn links_between_documents_lead_somewhere() {
    let documents = documents();
    let mut broken = Vec::new();
    for file in &documents {
        for (number, line) in prose(&file.text) {
            for target in targets(&line).filter(|target| !target.contains(':')) {
                let (path, heading) = target.split_once('#').unwrap_or((target, ""));
                let place = if path.is_empty() {
                    Some(PathBuf::from(&file.path))
                } else {
                    resolve(&file.path, path)
                };
                let exists = place
                    .as_ref()
                    .is_some_and(|place| root().join(place).exists());
                let has_heading = heading.is_empty()
                    || documents.iter().any(|other| {
                        Some(Path::new(&other.path)) == place.as_deref()
                            && anchors(&other.text).contains(heading)
                    });
                if !exists || !has_heading {
                    broken.push(format!("{}:{number}: {target}", file.path));
                }
            }
        }
    }
    assert_none(
        "Let these links lead to a file, and a heading, that is here:",
        broken,
    );
}

/// Where a retired word is held to be gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Held {
    Documents,
    Identifiers,
    Everywhere,
    NotYet,
}

/// A row of the glossary's table of retired words.
#[derive(Debug, PartialEq, Eq)]
struct Retired {
    words: Vec<String>,
    say: String,
    identifiers: Vec<String>,
    held: Held,
}

/// Reads the table; a row that cannot be read is told in words.
fn read_retired(glossary: &str) -> Vec<Result<Retired, String>> {
    let table = glossary
        .split("\n## Retired words\n")
        .nth(1)
        .unwrap_or_default();
    let rows = table
        .lines()
        .skip_while(|line| !line.starts_with("|---"))
        .skip(1)
        .take_while(|line| line.starts_with('|'));
    rows.map(|row| read_row(row).ok_or_else(|| row.to_owned()))
        .collect()
}

fn read_row(row: &str) -> Option<Retired> {
    let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
    let [retired, say, identifiers, held] = cells.as_slice() else {
        return None;
    };
    // What stands in brackets says which meaning of the word is meant.
    let plain = retired.split('(').next().unwrap_or_default();
    let list = |text: &str| {
        let words = text.split(',').map(|word| word.trim().trim_matches('`'));
        words
            .filter(|word| !word.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let held = match *held {
        "documents" => Held::Documents,
        "identifiers" => Held::Identifiers,
        "everywhere" => Held::Everywhere,
        "not yet" => Held::NotYet,
        _ => return None,
    };
    Some(Retired {
        words: list(plain),
        say: (*say).to_owned(),
        identifiers: list(identifiers),
        held,
    })
}

/// Whether a text has the word, or the words in this order, whole; case apart.
fn says(text: &str, word: &str) -> bool {
    let split = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|part| !part.is_empty())
            .map(str::to_lowercase)
            .collect()
    };
    let (said, wanted) = (split(text), split(word));
    !wanted.is_empty()
        && said
            .windows(wanted.len())
            .any(|some| some == wanted.as_slice())
}

/// Whether code has this identifier, whole.
fn names(line: &str, identifier: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|part| part == identifier)
}

#[test]
fn retired_words_stay_out() {
    let documents = documents();
    let glossary = documents.iter().find(|file| file.path == GLOSSARY);
    let glossary = &glossary.expect("docs/glossary.md is here").text;
    let (rows, unread): (Vec<_>, Vec<_>) =
        read_retired(glossary).into_iter().partition(Result::is_ok);
    let unread: Vec<_> = unread.into_iter().filter_map(Result::err).collect();
    assert_none(
        "Write these rows of the retired words as `retired | say | identifiers | held in`:",
        unread,
    );
    let rows: Vec<_> = rows.into_iter().flatten().collect();
    assert!(!rows.is_empty(), "{GLOSSARY} has a table of retired words");
    let held = |kinds: &[Held]| -> Vec<&Retired> {
        rows.iter()
            .filter(|row| kinds.contains(&row.held))
            .collect()
    };
    let mut found = Vec::new();
    let mut judge = |at: String, text: &str, rows: &[&Retired]| {
        for row in rows {
            for word in row.words.iter().filter(|word| says(text, word)) {
                found.push(format!("{at}: not `{word}`, say `{}`", row.say));
            }
        }
    };
    // Reports are what a run said.
    let ours = documents
        .iter()
        .filter(|file| file.path != GLOSSARY && !file.path.starts_with("bench/results/"));
    let in_documents = held(&[Held::Documents, Held::Everywhere]);
    for file in ours {
        for (number, line) in prose(&file.text) {
            judge(format!("{}:{number}", file.path), &line, &in_documents);
        }
    }
    let (in_comments, in_code) = (
        held(&[Held::Everywhere]),
        held(&[Held::Identifiers, Held::Everywhere]),
    );
    for file in rust_files()
        .iter()
        .filter(|file| !file.path.starts_with("bench/tests/tidy"))
    {
        for (at, line) in file.lines() {
            if let Some((_, comment)) = line.split_once("//") {
                judge(at.clone(), comment, &in_comments);
            }
        }
    }
    for file in rust_files()
        .iter()
        .filter(|file| !file.path.starts_with("bench/tests/tidy"))
    {
        for (at, line) in file.lines() {
            for row in &in_code {
                for name in row.identifiers.iter().filter(|name| names(line, name)) {
                    found.push(format!("{at}: not `{name}`, name it by `{}`", row.say));
                }
            }
        }
    }
    assert_none(
        &format!("Say the field's word ({GLOSSARY}, \"Retired words\"):"),
        found,
    );
}

#[test]
fn a_retired_word_is_told_from_other_text() {
    assert!(says("The Tenure ends", "tenure") && says("it is left alone.", "left alone"));
    assert!(!says("tenured", "tenure") && !says("left it alone", "left alone"));
    assert!(names("let a: Option<Twin> = x;", "Twin") && !names("TwinPeaks, twin", "Twin"));
    let read = read_row("| line (of SPILL), row | spill queue | `SpillLine`, `Row` | not yet |");
    let wanted = Retired {
        words: vec!["line".to_owned()],
        say: "spill queue".to_owned(),
        identifiers: vec!["SpillLine".to_owned(), "Row".to_owned()],
        held: Held::NotYet,
    };
    assert_eq!(read, Some(wanted));
    assert_eq!(read_row("| a | b | | somewhere |"), None);
}

#[test]
fn a_link_is_told_from_code_and_a_heading_from_a_comment() {
    let text = "# What a `200` means, by mode\n```\n# not one\n[a](b)\n```\n`[c](d)` [e](f#g)\n";
    assert!(anchors(text).contains("what-a-200-means-by-mode") && anchors(text).len() == 1);
    let found: Vec<_> = prose(text)
        .iter()
        .flat_map(|(_, line)| targets(line).map(str::to_owned).collect::<Vec<_>>())
        .collect();
    assert_eq!(found, ["f#g"]);
    assert_eq!(
        resolve("docs/start.md", "../bench/results/edge.md"),
        Some(PathBuf::from("bench/results/edge.md"))
    );
    assert_eq!(resolve("README.md", "../x"), None);
}
