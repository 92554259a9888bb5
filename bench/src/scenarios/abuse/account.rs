//! What the victim felt: figures and report.

use super::super::statistics::number;
use super::super::workers::quantile_ms;
use super::super::{Bench, rounded};
use super::cost::{Costs, PROGRAMS};
use super::fill::Fill;
use super::tally::Tally;
use super::victim::{Asked, Sent};
use super::{ANSWERED_WITHIN, PER_MINUTE, Phase};
use crate::faulty::Note;
use crate::load::tally::count;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::time::Duration;
use tokio::time::Instant;

/// What a full run has to reach.
const MESSAGES_MIN: usize = 1_000;
const P99_RATIO_MAX: f64 = 2.0;
const RSS_MB_MAX: f64 = 512.0;

#[derive(Debug)]
pub struct Played {
    /// The victim's messages before the abuse, and when that was.
    pub calm: Vec<Sent>,
    pub calm_phase: Phase,
    /// Its messages during the abuse.
    pub sent: Vec<Sent>,
    /// Its looks into the REST API meanwhile.
    pub asked: Vec<Asked>,
    pub phases: Vec<Phase>,
    pub tally: Tally,
    pub costs: Costs,
    /// The requests at the Graph API for the victim.
    pub notes: Vec<Note>,
    /// How often the Graph API and its own bot refused the abuser.
    pub refused: (usize, usize),
    /// The streams at the end.
    pub streams: Vec<Fill>,
    /// How long the abuse was to last.
    pub abuse_for: Duration,
}

/// What the run comes down to.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Figures {
    messages: usize,
    lost: usize,
    p99_ratio: f64,
    rss_mb: f64,
    share_503: f64,
}

impl Played {
    /// Whether a message of the victim led to nothing.
    pub fn has_lost(&self) -> bool {
        self.lost() > 0
    }

    fn lost(&self) -> usize {
        let first = self.first();
        self.sent
            .iter()
            .filter(|sent| !first.contains_key(&sent.serial))
            .count()
    }

    /// When the Graph API was first asked for each message.
    fn first(&self) -> HashMap<u32, Instant> {
        let mut first: HashMap<u32, Instant> = HashMap::new();
        for note in &self.notes {
            let Some(serial) = note.serial else { continue };
            first
                .entry(serial)
                .and_modify(|at| *at = note.at.min(*at))
                .or_insert(note.at);
        }
        first
    }

    fn waits<'s>(&self, sent: impl Iterator<Item = &'s Sent>) -> Vec<Duration> {
        let first = self.first();
        sent.filter_map(|sent| Some(first.get(&sent.serial)?.saturating_duration_since(sent.at)))
            .collect()
    }

    fn figures(&self) -> Figures {
        let p99 = |sent: &[Sent]| quantile_ms(&self.waits(sent.iter()), 0.99);
        let answers = self
            .sent
            .iter()
            .map(|sent| sent.answers.len())
            .sum::<usize>();
        Figures {
            messages: self.sent.len(),
            lost: self.lost(),
            p99_ratio: p99(&self.sent) / p99(&self.calm),
            rss_mb: self.costs.peak_mb(0),
            share_503: count(answered(self.sent.iter(), 503) as u64) / count(answers.max(1) as u64),
        }
    }

    fn row(&self, phase: &Phase, sent: &[Sent]) -> Vec<String> {
        let within: Vec<_> = sent
            .iter()
            .filter(|sent| (phase.began..phase.ended).contains(&sent.at))
            .collect();
        let waits = self.waits(within.iter().copied());
        let times = [0.5, 0.99, 1.0].map(|quantile| number(quantile_ms(&waits, quantile)));
        let refused = answered(within.iter().copied(), 503).to_string();
        let silent = within
            .iter()
            .flat_map(|sent| &sent.answers)
            .filter(|answer| answer.is_none())
            .count();
        let start = [phase.name.to_owned(), within.len().to_string()];
        start
            .into_iter()
            .chain(times)
            .chain([refused, silent.to_string()])
            .collect()
    }
}

impl Figures {
    fn is_right(&self, is_quick: bool) -> bool {
        let Self {
            messages,
            lost,
            p99_ratio,
            rss_mb,
            share_503,
        } = *self;
        let is_unfelt = p99_ratio <= P99_RATIO_MAX && rss_mb <= RSS_MB_MAX && share_503 <= 0.0;
        lost == 0 && (is_quick || (messages >= MESSAGES_MIN && is_unfelt))
    }
}

fn answered<'s>(sent: impl Iterator<Item = &'s Sent>, status: u16) -> usize {
    sent.flat_map(|sent| &sent.answers)
        .filter(|answer| **answer == Some(status))
        .count()
}

/// Writes the report and gives the figures, with whether all is right.
pub fn write(bench: &Bench<'_>, played: &Played) -> Result<(Value, bool)> {
    let figures = played.figures();
    let mut report = bench.report("abuse", "stored, one node");
    report.paragraph(&format!(
        "One edge and one worker process with every pool and default settings but streams of 256 MiB, nats-server beside them. The \
         tenant acme gets {PER_MINUTE} messages a minute, each a signed webhook on a connection of its own, which its flow answers \
         through the Graph API; first in calm, then while the tenant globex attacks from another address for {:?}: half of the time \
         one attack after the other, then all at once. globex has a key that reads, sends and manages, and a Meta app of its own. The \
         Graph API refuses what it sends, and so do its own bot and endpoint. The load generators run on the same machine.",
        played.abuse_for
    ));
    report.paragraph(&format!(
        "Times are from a message's first webhook to its request at the Graph API. *Lost*: not asked of the Graph API {} s after the \
         abuse. Targets: at least {MESSAGES_MIN} messages, none lost, p99 at most {P99_RATIO_MAX} times that of the calm, at most \
         {RSS_MB_MAX} MB in the workers, no 503.",
        ANSWERED_WITHIN.as_secs()
    ));
    let rows = [
        (
            "messages of the victim during the abuse",
            figures.messages.to_string(),
        ),
        ("of these lost", figures.lost.to_string()),
        (
            "p99 during the abuse, as a multiple of the calm",
            number(figures.p99_ratio),
        ),
        ("of its webhooks answered 503", number(figures.share_503)),
        ("most memory of the workers (MB)", number(figures.rss_mb)),
        (
            "most memory of the edge (MB)",
            number(played.costs.peak_mb(1)),
        ),
        (
            "most memory of nats-server (MB)",
            number(played.costs.peak_mb(2)),
        ),
        (
            "commands of globex that the Graph API refused",
            played.refused.0.to_string(),
        ),
        (
            "requests that its own bot and endpoint refused",
            played.refused.1.to_string(),
        ),
    ];
    report.table(
        &["figure", ""],
        &rows.map(|(name, figure)| vec![name.to_owned(), figure]),
    );
    report.heading("What the victim felt");
    let calm = played.row(&played.calm_phase, &played.calm);
    let rows: Vec<_> = [calm]
        .into_iter()
        .chain(
            played
                .phases
                .iter()
                .map(|phase| played.row(phase, &played.sent)),
        )
        .collect();
    report.table(
        &[
            "attack",
            "messages",
            "p50 (ms)",
            "p99 (ms)",
            "longest (ms)",
            "503",
            "no answer",
        ],
        &rows,
    );
    let cores = |phase: &Phase| {
        let name = phase.name.to_owned();
        let cores = (0..PROGRAMS.len()).map(|program| number(played.costs.cores(program, phase)));
        let memory = number(played.costs.peak_mb_within(0, phase));
        std::iter::once(name).chain(cores).chain([memory]).collect()
    };
    let head: Vec<_> = ["cores taken"]
        .into_iter()
        .chain(PROGRAMS)
        .chain(["workers (MB)"])
        .collect();
    report.table(&head, &played.phases.iter().map(cores).collect::<Vec<_>>());
    let took: Vec<_> = played.asked.iter().map(|asked| asked.took).collect();
    let well = played
        .asked
        .iter()
        .filter(|asked| asked.answer == Some(200))
        .count();
    report.paragraph(&format!(
        "Its looks into the REST API meanwhile, one a second: {well} of {} answered 200, p50 {} ms, p99 {} ms.",
        took.len(),
        number(quantile_ms(&took, 0.5)),
        number(quantile_ms(&took, 0.99)),
    ));
    report.heading("What the attacks were answered");
    report.table(&["attack", "request", "answers"], &played.tally.rows());
    report.heading("Streams at the end");
    let head = ["stream", "MiB", "of MiB", "contents by tenant (MiB)"];
    report.table(
        &head,
        &played.streams.iter().map(Fill::row).collect::<Vec<_>>(),
    );
    bench.say(&format!("report: {}", report.write()?.display()));
    let json = json!({
        "victim_messages": figures.messages, "victim_lost": figures.lost,
        "victim_p99_ratio": rounded(figures.p99_ratio), "rss_mb_max": rounded(figures.rss_mb),
        "edge_503_share": figures.share_503,
    });
    Ok((json, figures.is_right(bench.options.quick)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::faulty::Ending;

    fn sent(serial: u32, at: Instant, answers: &[Option<u16>]) -> Sent {
        Sent {
            serial,
            at,
            answers: answers.to_vec(),
        }
    }

    fn note(serial: u32, at: Instant) -> Note {
        Note {
            serial: Some(serial),
            part: Some(0),
            at,
            ended: at,
            ending: Ending::Answered(200),
            is_done: true,
        }
    }

    #[test]
    fn a_message_that_waited_was_turned_away_or_got_lost_shows_in_the_figures() {
        let at = Instant::now();
        let ms = Duration::from_millis;
        let played = Played {
            calm: vec![sent(0, at, &[Some(200)])],
            calm_phase: Phase {
                name: "calm",
                began: at,
                ended: at + ms(1),
            },
            sent: vec![
                sent(1, at, &[Some(503), Some(200)]),
                sent(2, at, &[Some(200), None]),
            ],
            asked: vec![],
            phases: vec![],
            tally: Tally::default(),
            costs: Costs::of_workers(at, 100),
            notes: vec![
                note(0, at + ms(10)),
                note(1, at + ms(90)),
                note(1, at + ms(30)),
            ],
            refused: (0, 0),
            streams: vec![],
            abuse_for: ms(1),
        };
        let figures = played.figures();
        assert!(played.has_lost() && figures.lost == 1 && figures.messages == 2);
        assert!((figures.p99_ratio - 3.0).abs() < 1e-9 && (figures.share_503 - 0.25).abs() < 1e-9);
        assert_eq!(
            played.row(&played.calm_phase, &played.calm)[..4],
            ["calm", "1", "10", "10"]
        );
    }

    #[test]
    fn a_full_run_has_targets_and_a_quick_one_only_must_not_lose() {
        let well = Figures {
            messages: 1_000,
            lost: 0,
            p99_ratio: 1.9,
            rss_mb: 400.0,
            share_503: 0.0,
        };
        assert!(well.is_right(false));
        for missed in [
            Figures {
                messages: 999,
                ..well
            },
            Figures {
                p99_ratio: 2.1,
                ..well
            },
            Figures {
                p99_ratio: f64::NAN,
                ..well
            },
            Figures {
                rss_mb: 513.0,
                ..well
            },
            Figures {
                share_503: 0.001,
                ..well
            },
        ] {
            assert!(
                !missed.is_right(false) && missed.is_right(true),
                "{missed:?}"
            );
        }
        assert!(!Figures { lost: 1, ..well }.is_right(true));
    }
}
