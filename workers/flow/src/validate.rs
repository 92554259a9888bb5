//! What holds between nodes: targets exist, exits are known, no circle runs without waiting, every node
//! is reached. All of it is linear in the size of the flow.

use crate::compiled::Compiled;
use crate::node::Node;
use crate::report::{self, Report};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// Adds the problems between the nodes; `sources` tells a missing node from one that does not compile.
pub fn check(flow: &Compiled, sources: &Map<String, Value>, report: &mut Report) {
    check_targets(flow, sources, report);
    for node in flow.nodes.values() {
        check_exits(node, report);
    }
    check_circles(flow, report);
    // A node that does not compile has unknown exits, so reachability would be guesswork.
    if flow.nodes.len() == sources.len() {
        check_reachability(flow, report);
    }
}

fn check_targets(flow: &Compiled, sources: &Map<String, Value>, report: &mut Report) {
    let exists = |id: &str| sources.contains_key(id);
    if !exists(&flow.start) {
        report.add(
            report::TARGET,
            None,
            format!(
                "`start` names the node `{}`, which does not exist",
                flow.start
            ),
        );
    }
    for (_, target) in flow.interrupts.iter().filter(|(_, target)| !exists(target)) {
        report.add(
            report::TARGET,
            None,
            format!("an interrupt leads to the node `{target}`, which does not exist"),
        );
    }
    for node in flow.nodes.values() {
        for (exit, target) in node.exits.iter().filter(|(_, target)| !exists(target)) {
            let message = format!(
                "exit `{exit}` leads to the node `{target}`, which does not exist; add it or change the exit"
            );
            report.add(report::TARGET, Some(&node.id), message);
        }
    }
}

fn check_exits(node: &Node, report: &mut Report) {
    let names = node.kind.exits();
    for exit in node.exits.keys().filter(|exit| !names.contains(exit)) {
        let known = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        let message = format!(
            "a `{}` has no exit `{exit}`; it has {known}",
            node.kind_name
        );
        report.add(report::EXIT, Some(&node.id), message);
    }
    node.kind.check(node, report);
    let onward = node.kind.onward();
    if let Some(exit) = onward.filter(|exit| node.exit(exit).is_none()) {
        let message = format!(
            "exit `{exit}` leads nowhere, so the run just ends; lead it to an `end` if that is meant"
        );
        report.add(report::DEAD_END, Some(&node.id), message);
    }
}

/// Trims nodes that no circle passes, from both sides, until only circles and what lies between them is left.
fn check_circles(flow: &Compiled, report: &mut Report) {
    let mut left: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for node in flow.nodes.values().filter(|node| !node.waits()) {
        left.insert(&node.id, node.exits.values().map(String::as_str).collect());
    }
    let before = trim(&left);
    let backward = reverse(&before);
    let circle: Vec<&str> = trim(&backward).into_keys().collect();
    if let Some(first) = circle.first() {
        let message = format!(
            "these nodes lead in a circle in which nothing waits for the person: {}; put an ask between them",
            circle.join(", ")
        );
        report.add(report::CYCLE, Some(first), message);
    }
}

/// Removes nodes that nothing left leads to, until there is none (Kahn's algorithm).
fn trim<'a>(graph: &BTreeMap<&'a str, BTreeSet<&'a str>>) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut incoming: BTreeMap<&str, usize> = graph.keys().map(|id| (*id, 0)).collect();
    for target in graph.values().flatten() {
        if let Some(count) = incoming.get_mut(target) {
            *count += 1;
        }
    }
    let mut left = graph.clone();
    let mut free: Vec<&str> = incoming
        .iter()
        .filter(|(_, count)| **count == 0)
        .map(|(id, _)| *id)
        .collect();
    while let Some(id) = free.pop() {
        for target in left.remove(id).unwrap_or_default() {
            if let Some(count) = incoming.get_mut(target) {
                *count -= 1;
                if *count == 0 {
                    free.push(target);
                }
            }
        }
    }
    left
}

fn reverse<'a>(
    graph: &BTreeMap<&'a str, BTreeSet<&'a str>>,
) -> BTreeMap<&'a str, BTreeSet<&'a str>> {
    let mut reversed: BTreeMap<&str, BTreeSet<&str>> =
        graph.keys().map(|id| (*id, BTreeSet::new())).collect();
    for (id, targets) in graph {
        for target in targets {
            if let Some(sources) = reversed.get_mut(target) {
                sources.insert(id);
            }
        }
    }
    reversed
}

fn check_reachability(flow: &Compiled, report: &mut Report) {
    let mut open: Vec<&str> = vec![&flow.start];
    open.extend(flow.interrupts.iter().map(|(_, target)| target.as_str()));
    let mut reached = BTreeSet::new();
    while let Some(id) = open.pop() {
        if let Some(node) = flow.nodes.get(id).filter(|_| reached.insert(id)) {
            open.extend(node.exits.values().map(String::as_str));
        }
    }
    for id in flow
        .nodes
        .keys()
        .filter(|id| !reached.contains(id.as_str()))
    {
        report.add(
            report::UNREACHABLE,
            Some(id),
            "nothing leads here; wire it or remove it",
        );
    }
}
