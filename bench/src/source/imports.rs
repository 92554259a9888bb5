//! Which modules at the top of a crate import which, and the circles among them.
//!
//! A module at the top is a folder or file of `src`, with all that is in it. Files beside each other are one folder and
//! may use each other as they like, and tests may use anything.

use super::File;
use std::collections::{BTreeMap, BTreeSet};

const CFG_TEST: &str = concat!("#[cfg", "(test)]\n");

/// Which module uses which, each with a place where it does.
pub type Imports = BTreeMap<String, BTreeMap<String, String>>;

/// What the modules at the top of a crate import of each other.
pub fn imports(files: &[File], dir: &str) -> Imports {
    let src = format!("{dir}/src/");
    let mut imports = Imports::new();
    let files = || files.iter().filter(|file| file.is("rs"));
    let folders: BTreeSet<String> = files()
        .filter_map(|file| file.path.strip_prefix(&src)?.split_once('/'))
        .map(|(folder, _)| folder.to_owned())
        .collect();
    let of_tests: Vec<String> = files().flat_map(modules_of_tests).collect();
    let is_of_tests = |path: &str| {
        let mut rests = of_tests
            .iter()
            .filter_map(|module| path.strip_prefix(module));
        rests.any(|rest| rest.starts_with(['.', '/']))
    };
    for file in files() {
        if is_of_tests(&file.path) {
            continue;
        }
        let Some(path) = file.path.strip_prefix(&src) else {
            continue;
        };
        let Some(module) = module_of(path) else {
            continue;
        };
        let top = module.first().cloned().unwrap_or_default();
        let uses = imports.entry(top).or_default();
        for (target, line) in imported(&file.text, &module) {
            uses.entry(target)
                .or_insert_with(|| format!("{}:{line}", file.path));
        }
    }
    let modules: BTreeSet<String> = imports.keys().cloned().collect();
    for (module, uses) in &mut imports {
        let is_beside = |target: &str| !folders.contains(module) && !folders.contains(target);
        uses.retain(|target, _| target != module && modules.contains(target) && !is_beside(target));
    }
    imports
}

/// The modules that a file declares for its tests alone, each as its path without an ending.
fn modules_of_tests(file: &File) -> Vec<String> {
    let own = file.path.trim_end_matches(".rs");
    let roots = ["/mod", "/lib", "/main"];
    let directory = roots.iter().find_map(|root| own.strip_suffix(root));
    let directory = directory.unwrap_or(own);
    let declared = file.text.split(CFG_TEST).skip(1).filter_map(|rest| {
        let (_, name) = rest.lines().next()?.split_once("mod ")?;
        Some(format!("{directory}/{}", name.strip_suffix(';')?))
    });
    declared.collect()
}

/// The module that a file is, from the crate's root; nothing for the root itself, for programs and for tests.
fn module_of(path: &str) -> Option<Vec<String>> {
    let path = path.strip_suffix(".rs")?;
    let mut module: Vec<String> = path.split('/').map(str::to_owned).collect();
    if module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    let is_outside = ["lib", "main", "bin"].contains(&module.first()?.as_str());
    let is_test = module.iter().any(|part| part == "tests");
    (!is_outside && !is_test).then_some(module)
}

/// The modules at the top that a file names in its code, each with the line.
fn imported(text: &str, module: &[String]) -> Vec<(String, usize)> {
    let mut found = Vec::new();
    let code = without_comments(without_tests(text));
    let line_of = |at: usize| code.split_at(at).0.matches('\n').count() + 1;
    for (at, word) in code.match_indices("crate::") {
        let (before, rest) = code.split_at(at);
        let before = before.chars().next_back();
        if !before.is_some_and(is_of_a_name) {
            let names = first_names(rest.split_at(word.len()).1);
            found.extend(names.into_iter().map(|name| (name, line_of(at))));
        }
    }
    for (at, word) in code.match_indices("super::") {
        let (before, rest) = code.split_at(at);
        if before.ends_with("super::") {
            continue;
        }
        let mut rest = rest.split_at(word.len()).1;
        let mut up = 1;
        while let Some(further) = rest.strip_prefix("super::") {
            (rest, up) = (further, up + 1);
        }
        if up == module.len() {
            let names = first_names(rest);
            found.extend(names.into_iter().map(|name| (name, line_of(at))));
        }
    }
    found
}

/// What stands before the tests at a file's end.
fn without_tests(text: &str) -> &str {
    let tests = text.match_indices(CFG_TEST).find(|(at, attribute)| {
        let line = text.split_at(at + attribute.len()).1.lines().next();
        line.is_some_and(|line| line.starts_with("mod ") && line.ends_with('{'))
    });
    tests.map_or(text, |(at, _)| text.split_at(at).0)
}

/// Comments are gone, and every line is where it was.
fn without_comments(text: &str) -> String {
    let lines = text.lines().map(|line| {
        let is_comment = line.trim_start().starts_with("//");
        if is_comment { "" } else { line }
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// The first name of a path, or of each path in braces.
fn first_names(path: &str) -> Vec<String> {
    let Some(group) = path.strip_prefix('{') else {
        let name = path.split(|c: char| !is_of_a_name(c)).next();
        return name.map(str::to_owned).into_iter().collect();
    };
    let (mut names, mut depth, mut name) = (Vec::new(), 0, String::new());
    let mut is_first = true;
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                names.push(std::mem::take(&mut name));
                is_first = true;
            }
            c if is_of_a_name(c) && is_first && depth == 0 => name.push(c),
            c if c.is_whitespace() => {}
            _ => is_first = false,
        }
    }
    names.push(name);
    names.retain(|name| !name.is_empty());
    names
}

fn is_of_a_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Sets of modules of which each reaches every other.
pub fn circles(imports: &Imports) -> BTreeSet<BTreeSet<&str>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = imports
        .keys()
        .map(|from| (from.as_str(), reached(imports, from)))
        .collect();
    let circle = |from: &str| -> BTreeSet<&str> {
        let of = |module: &str| reached.get(module).cloned().unwrap_or_default();
        let mut both = of(from);
        both.retain(|to| of(to).contains(from));
        both
    };
    let circles = imports.keys().map(|from| circle(from));
    circles.filter(|circle| circle.len() > 1).collect()
}

fn reached<'i>(imports: &'i Imports, from: &str) -> BTreeSet<&'i str> {
    let mut reached = BTreeSet::new();
    let mut open = vec![from];
    while let Some(next) = open.pop() {
        for to in imports.get(next).into_iter().flat_map(BTreeMap::keys) {
            if reached.insert(to.as_str()) {
                open.push(to);
            }
        }
    }
    reached
}

/// The imports that make a circle, one a line.
pub fn describe(imports: &Imports, circle: &BTreeSet<&str>) -> String {
    let mut lines = Vec::new();
    for from in circle {
        for (to, place) in imports.get(*from).into_iter().flatten() {
            if circle.contains(to.as_str()) {
                lines.push(format!("{from} uses {to} at {place}"));
            }
        }
    }
    lines.join("\n  ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_circle_is_found_and_a_line_is_none() {
        let graph = |edges: &[(&str, &str)]| {
            let mut imports = Imports::new();
            for (from, to) in edges {
                imports.entry((*to).to_owned()).or_default();
                let uses = imports.entry((*from).to_owned()).or_default();
                uses.insert((*to).to_owned(), String::new());
            }
            imports
        };
        let line = graph(&[("a", "b"), ("b", "c"), ("a", "c")]);
        assert!(circles(&line).is_empty());
        let circle = graph(&[("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")]);
        assert_eq!(circles(&circle), [["b", "c"].into()].into());
    }

    #[test]
    fn an_import_is_read_in_every_form() {
        let module = ["a", "b"].map(str::to_owned);
        let names = |text: &str| -> Vec<String> {
            let found = imported(text, &module).into_iter();
            found.map(|(name, _)| name).collect()
        };
        assert_eq!(names("use crate::http::server;"), ["http"]);
        assert_eq!(
            names("use crate::{http::{x, y}, store};"),
            ["http", "store"]
        );
        assert_eq!(
            names("crate::store::open(super::super::split::cut())"),
            ["store", "split"]
        );
        assert_eq!(names("use super::c; pub(crate) fn f() {}"), [""; 0]);
        assert_eq!(names("//! [x](crate::http)\n// crate::store::x"), [""; 0]);
        let tests = format!(
            "{CFG_TEST}mod records;\nuse crate::http;\n{CFG_TEST}mod tests {{\nuse crate::fixture;"
        );
        assert_eq!(names(&tests), ["http"]);
    }
}
