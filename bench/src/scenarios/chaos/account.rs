//! The figures over all rounds, and the report.

use super::super::plot::{Series, lines};
use super::super::statistics::{Samples, number};
use super::super::workers::stream::Seen;
use super::super::{Bench, rounded};
use super::ledger::{JUDGED, Ledger};
use super::once::Once;
use super::stage::{PROCESSES, TENANTS};
use super::{FAULTS, Fault, Pace, Round, Struck};
use crate::load::tally::count;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;

const PLOT_EVERY_MS: u64 = 500;
const EXAMPLES_SHOWN: usize = 12;

/// A ledger on one line.
pub fn words(ledger: &Ledger) -> String {
    let mut words = String::new();
    for (name, figure) in Ledger::HEAD.iter().zip(ledger.row()).skip(1) {
        // Writing to a String cannot fail.
        let _ = write!(words, "{name} {figure}  ");
    }
    words
}

/// Writes the report and gives the figures, with whether all is right.
pub fn write(bench: &Bench<'_>, pace: &Pace, rounds: &[Round]) -> Result<(Value, bool)> {
    let mut report = bench.report("workers-chaos", "stored, one node");
    report.paragraph(&format!(
        "{PROCESSES} worker processes run flows, replies, relay and events for {TENANTS} tenants, each with a flow that sends one \
         message through the Graph API, an existing bot and an endpoint. A round is an installation of its own with {} messages at \
         {} a second. From the beginning to the end of the load the bots of a tenth of the tenants have their port closed, the \
         endpoints of another tenth answer 503, the bots of a third tenth take 2 s, and the Graph API is overloaded (code 2) for \
         the numbers of a fourth. Once breakers are open and conversations wait in spill queues faults follow each other, the victim at \
         random. Then everything works again.",
        pace.updates, pace.per_second
    ));
    report.paragraph(
        "*Dead*: dead letters. *Unconfirmed*: dead letters of unconfirmed sends; those are never made again, by promise. \
         *Lost* and *stuck*: neither done nor a dead letter some minutes after everything worked again; stuck is what the installation \
         still has. *Doubled*: done again. *After lost answers*: a bot or an endpoint was asked again where the answer was lost, or came \
         so shortly around a fault that nobody could remember it. *Late after lost answers*: a send that stands among the dead \
         letters because its answer was lost, and reached Meta after a later one: a frozen process finished the request it was in \
         when it went on. *Took effect twice*: counted again in the session of its conversation, which counts what the flow sent, \
         though its send may have been stored once. *Pause*: the longest time any partition of flows did nothing though something \
         waited, from the fault on.",
    );
    let mut total = Ledger::default();
    let mut rows = Vec::new();
    for pool in JUDGED {
        let mut sum = Ledger::default();
        rounds
            .iter()
            .filter_map(|round| round.ledgers.get(&pool))
            .for_each(|ledger| sum.add(ledger));
        total.add(&sum);
        rows.push([pool.to_string()].into_iter().chain(sum.row()).collect());
    }
    report.heading(&format!("{} rounds, by pool", rounds.len()));
    let head: Vec<&str> = ["pool"].into_iter().chain(Ledger::HEAD).collect();
    report.table(&head, &rows);
    let rows: Vec<_> = (1..)
        .zip(rounds)
        .map(|(number, round)| round.row(number))
        .collect();
    report.heading("Round by round, all pools");
    let head: Vec<&str> = ["round", "seed", "faults"]
        .into_iter()
        .chain(Ledger::HEAD)
        .chain(["done after (s)", "freed by restarts"])
        .collect();
    report.table(&head, &rows);
    let mut once = Once::default();
    rounds.iter().for_each(|round| once.add(&round.once));
    report.heading("Once, in the sessions of the conversations");
    report.table(&Once::HEAD, &[once.row()]);
    faults(&mut report, rounds);
    report.reasons(rounds.iter().flat_map(|round| &round.reasons));
    let mut examples = |head: &str, of: fn(&Round) -> &Vec<String>| {
        let all = rounds.iter().flat_map(of).take(EXAMPLES_SHOWN);
        let rows: Vec<_> = all.map(|words| vec![words.clone()]).collect();
        if !rows.is_empty() {
            report.table(&[head], &rows);
        }
    };
    examples("done again without excuse", |round| &round.doubles);
    examples("done after a later one of its conversation", |round| {
        &round.disorders
    });
    if let Some(last) = rounds.last() {
        report.plot("rate", plot(&last.commands, &last.struck));
    }
    bench.say(&format!("report: {}", report.write()?.display()));
    let longest = |fault| {
        let all = rounds
            .iter()
            .filter_map(|round| round.pauses.get(&fault))
            .map(Samples::max);
        all.max_by(f64::total_cmp).map(rounded)
    };
    let given: usize = rounds
        .iter()
        .filter_map(|round| round.ledgers.values().next())
        .map(|ledger| ledger.updates)
        .sum();
    let figures = json!({
        "rounds": rounds.len(), "updates": given, "dead": total.dead, "lost": total.lost, "doubled": total.doubled,
        "doubled_lost_answers": total.doubled_lost_answers, "out_of_order": total.out_of_order,
        "late_lost_answers": total.late_lost_answers, "stuck": total.stuck,
        "unconfirmed": total.unconfirmed, "takeover_kill_s": longest(Fault::Kill),
        "takeover_term_s": longest(Fault::Terminate),
        "once": { "updates": once.updates, "twice": once.twice },
    });
    Ok((
        figures,
        total.is_clean() && once.is_clean() && rounds.iter().all(|round| !round.struck.is_empty()),
    ))
}

impl Round {
    fn row(&self, number: usize) -> Vec<String> {
        let mut sum = Ledger::default();
        self.ledgers.values().for_each(|ledger| sum.add(ledger));
        let start = [
            number.to_string(),
            self.seed.to_string(),
            self.struck.len().to_string(),
        ];
        let end = [
            super::super::statistics::number(self.recovered_after.as_secs_f64()),
            self.freed.to_string(),
        ];
        start.into_iter().chain(sum.row()).chain(end).collect()
    }
}

fn faults(report: &mut super::super::report::Report, rounds: &[Round]) {
    let rows: Vec<_> = FAULTS
        .iter()
        .map(|fault| {
            let times: usize = rounds
                .iter()
                .map(|round| {
                    round
                        .struck
                        .iter()
                        .filter(|struck| struck.fault == *fault)
                        .count()
                })
                .sum();
            let mut pauses = Samples::default();
            rounds
                .iter()
                .filter_map(|round| round.pauses.get(fault))
                .for_each(|own| pauses.extend(own));
            vec![
                fault.words().to_owned(),
                times.to_string(),
                pauses.shown(),
                number(pauses.max()),
            ]
        })
        .collect();
    report.heading("Faults");
    report.table(
        &[
            "fault",
            "times",
            "pause, median and range (s)",
            "longest (s)",
        ],
        &rows,
    );
}

fn plot(commands: &[Seen], struck: &[Struck]) -> String {
    let start = commands
        .iter()
        .map(|seen| seen.at_ms)
        .min()
        .unwrap_or_default();
    let mut slots: BTreeMap<u64, u64> = BTreeMap::new();
    for seen in commands {
        *slots
            .entry((seen.at_ms - start) / PLOT_EVERY_MS)
            .or_default() += 1;
    }
    let last = slots.keys().next_back().copied().unwrap_or_default();
    let step = count(PLOT_EVERY_MS) / 1_000.0;
    let points = (0..=last).map(|slot| {
        (
            count(slot) * step,
            count(slots.get(&slot).copied().unwrap_or(0)) / step,
        )
    });
    let series = Series {
        name: "commands a second".into(),
        points: points.collect(),
    };
    let mark = |struck: &Struck| {
        let word = match struck.fault {
            Fault::Kill => "kill",
            Fault::Terminate => "term",
            Fault::Freeze => "freeze",
            Fault::BrokerFreeze => "nats frozen",
            Fault::BrokerRestart => "nats restarted",
        };
        (
            count(struck.at_ms.saturating_sub(start)) / 1_000.0,
            word.to_owned(),
        )
    };
    let marks: Vec<_> = struck.iter().map(mark).collect();
    lines(
        "Commands sent while faults happen, last round",
        "seconds",
        "commands a second",
        &[series],
        &marks,
    )
}
