//! The figures over all cells, and the report.

use super::super::statistics::{Samples, number};
use super::super::workers::quantile_ms;
use super::super::{Bench, rounded};
use super::Played;
use super::count::Account;
use anyhow::Result;
use serde_json::{Value, json};
use std::time::Duration;

/// Writes the report and gives the figures, with whether all is right.
pub fn write(bench: &Bench<'_>, played: &[Played]) -> Result<(Value, bool)> {
    let sum = |figure: fn(&Account) -> usize| -> usize {
        played
            .iter()
            .flat_map(|outage| &outage.accounts)
            .map(figure)
            .sum()
    };
    let pairs: Vec<Pair> = played.iter().map(Pair::of).collect();
    let mut ratio = Samples::default();
    pairs
        .iter()
        .for_each(|pair| ratio.push(pair.beside_p99 / pair.calm_p99));
    let recoveries = |wanted: &dyn Fn(&Played, usize) -> bool| -> Vec<Duration> {
        let each = played
            .iter()
            .flat_map(|outage| (0..outage.cells.len()).map(move |place| (outage, place)));
        let each = each.filter(|&(outage, place)| wanted(outage, place));
        each.filter_map(|(outage, place)| outage.accounts.get(place)?.recovery)
            .collect()
    };
    let p95 = |waits: Vec<Duration>| rounded(quantile_ms(&waits, 0.95) / 1_000.0);
    let all = p95(recoveries(&|_, _| true));
    let single = |outage: &Played, place: usize| {
        outage.cells.get(place).is_some_and(|cell| !cell.is_flooded)
    };
    let (dead, lost, stuck) = (sum(|a| a.dead), sum(|a| a.lost), sum(|a| a.stuck));
    let (doubled, out_of_order) = (sum(|a| a.doubled), sum(|a| a.out_of_order));
    let figures = json!({
        "cells": played.iter().map(|outage| outage.cells.len()).sum::<usize>(), "updates": sum(|a| a.updates),
        "dead": dead, "lost": lost, "doubled": doubled, "doubled_lost_answers": sum(|a| a.doubled_lost_answers),
        "out_of_order": out_of_order, "stuck": stuck, "healthy_p99_ratio": rounded(ratio.median()),
        "recovery_p95_s": all, "recovery_single_p95_s": p95(recoveries(&single)),
        "recovery_short_p95_s": p95(recoveries(&|played, _| !played.outage.is_long())),
        "recovery_long_p95_s": p95(recoveries(&|played, _| played.outage.is_long())),
        "unconfirmed": sum(|a| a.unconfirmed), "healthy_late": sum(Account::late),
    });
    let mut report = bench.report("downstream", "stored, one node");
    report.paragraph(
        "Targets fail while messages come: *relay* (an existing bot), *endpoint*, *crm* (a Chatwoot) and *graph* (the Graph API \
         for one number), each in every way, each for a tenant of its own, all of one outage at the same time in one installation \
         with one worker process and default settings. In every cell one message is sent at the beginning of the outage; in some, \
         which say so, a stream of messages beside it. A second relay, endpoint, CRM link or number of the same tenant works all \
         the time. A closed port of the Graph API concerns every number, so that cell has an installation of its own and a relay \
         in place of the second number.",
    );
    report.paragraph(
        "*Reset*: the work is done and the connection reset instead of the answer. *Dead*: dead letters. *Unconfirmed*: dead letters \
         of unconfirmed sends; those are never made again, by promise. *Lost* and *stuck*: neither delivered nor a dead \
         letter when the run ended; stuck is what the installation still has. *Doubled*: delivered again after an answer; *after lost \
         answers*: asked again where a request was read and its answer lost. *Recovery*: from the target's recovery, or from when it \
         may next be asked (its Retry-After; a minute after a time-out; the end of a request it was still busy with), to the last \
         delivery that waited. *Healthy late*: deliveries at the healthy target during the outage that took more than 1 s or never came.",
    );
    for (outage, pair) in played.iter().zip(&pairs) {
        let scaled = match outage.outage.speed {
            1 => String::new(),
            speed => format!(
                ", played {speed} times faster, with `pools.breaker_pause_max`, `pools.park_after`, `backoff_max` and Retry-After divided by {speed}"
            ),
        };
        report.heading(&format!("Outage of {}{scaled}", outage.outage.name));
        let rows: Vec<_> = outage
            .cells
            .iter()
            .zip(&outage.accounts)
            .map(|(cell, account)| {
                let flood = if cell.is_flooded { " · stream" } else { "" };
                let counts = [
                    account.updates,
                    account.waited,
                    account.dead,
                    account.unconfirmed,
                    account.lost,
                    account.stuck,
                    account.doubled,
                    account.doubled_lost_answers,
                    account.out_of_order,
                    account.late(),
                ];
                let recovery = account.recovery.map_or(f64::NAN, |took| took.as_secs_f64());
                let counts = counts.iter().map(|count| {
                    if *count == 0 {
                        "–".to_owned()
                    } else {
                        count.to_string()
                    }
                });
                [format!("{}{flood}", cell.name())]
                    .into_iter()
                    .chain(counts)
                    .chain([number(recovery)])
                    .collect()
            })
            .collect();
        let head = [
            "cell",
            "messages",
            "waited",
            "dead",
            "unconfirmed",
            "lost",
            "stuck",
            "doubled",
            "after lost answers",
            "out of order",
            "healthy late",
            "recovery (s)",
        ];
        report.table(&head, &rows);
        report.paragraph(&format!(
            "Healthy targets, p99: {} ms before the outage, {} ms during it.",
            number(pair.calm_p99),
            number(pair.beside_p99)
        ));
        report.reasons(outage.accounts.iter().flat_map(|account| &account.reasons));
    }
    report.heading("All outages");
    report.table(&["figure", "value"], &table(&figures));
    bench.say(&format!("report: {}", report.write()?.display()));
    Ok((
        figures,
        (dead, lost, stuck, doubled, out_of_order) == (0, 0, 0, 0, 0),
    ))
}

/// The waits at the healthy targets before an outage and during it.
struct Pair {
    calm_p99: f64,
    beside_p99: f64,
}

impl Pair {
    fn of(played: &Played) -> Self {
        let all = |waits: fn(&Account) -> &Vec<Duration>| -> Vec<Duration> {
            played
                .accounts
                .iter()
                .flat_map(|account| waits(account).iter().copied())
                .collect()
        };
        let p99 = |waits: Vec<Duration>| quantile_ms(&waits, 0.99);
        Self {
            calm_p99: p99(all(|account| &account.calm)),
            beside_p99: p99(all(|account| &account.beside)),
        }
    }
}

fn table(figures: &Value) -> Vec<Vec<String>> {
    let fields = figures.as_object().into_iter().flatten();
    fields
        .map(|(name, value)| vec![format!("`{name}`"), value.to_string()])
        .collect()
}
