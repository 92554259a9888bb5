//! The report of a run, and its figures.

use super::super::Bench;
use super::super::report::Report;
use super::super::rounded;
use super::super::statistics::{Samples, number};
use super::peers::Contender;
use super::player::{Account, IN_FLIGHT, NUMBERS};
use super::takeover::Takeover;
use super::{BURST, BURST_FOR, Costs, EVEN, Figures, Mode};
use anyhow::Result;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

const PROGRAMS: [&str; 3] = ["edge", "workers", "nats-server"];

pub fn write(
    bench: &Bench<'_>,
    measured: &[(Mode, Figures)],
    contenders: Option<&[Contender]>,
    took: Option<&Takeover>,
) -> Result<(Value, bool)> {
    let names: Vec<_> = measured.iter().map(|(mode, _)| mode.as_str()).collect();
    let mut report = bench.report("turns", &format!("{}, one node", names.join(" and ")));
    report.paragraph(&format!(
        "A turn is a signed webhook with a text message of about 600 bytes, a flow of one step that answers it, and one reply to a \
         Graph API that answers at once. {NUMBERS} business numbers of as many tenants, so that the 80 messages a second \
         of a number bound nothing; as many people who write once as people who write ten times. The edge, one worker \
         process with every pool, nats-server, the load and the Graph API share this machine. Statuses of the replies are not \
         played. Each figure is the median of what was measured, with the range."
    ));
    report.heading("How fast");
    report.paragraph(&format!(
        "Latency is from the moment a webhook was due until its reply reached the Graph API: {EVEN} a second, evenly; then \
         as many as are done, {IN_FLIGHT} at once; then from {EVEN} to {BURST} a second in one step, for {BURST_FOR:?}. What \
         the journal has when the load ends, and how long it takes to have everything, stands beside it."
    ));
    let row = |(mode, f): &(Mode, Figures)| {
        vec![
            mode.as_str().to_owned(),
            f.p50_ms.shown(),
            f.p99_ms.shown(),
            f.per_s.shown(),
            f.journal_backlog.shown(),
            f.behind_s.shown(),
            f.burst_p50_ms.shown(),
            f.burst_p99_ms.shown(),
            f.burst_behind_s.shown(),
        ]
    };
    report.table(
        &[
            "",
            "p50 ms",
            "p99 ms",
            "turns/s at the most",
            "the journal's backlog then",
            "s until it has all",
            "burst p50 ms",
            "burst p99 ms",
            "s until the journal has the burst",
        ],
        &measured.iter().map(row).collect::<Vec<_>>(),
    );
    report.heading("What a turn costs");
    report.paragraph(
        "CPU time in µs, and messages by nats-server's own count, whatever they are for: what an installation does that \
         has nothing to do is in the figures of the even load.",
    );
    let rows: Vec<_> = measured
        .iter()
        .flat_map(|(mode, f)| {
            [
                ("alone", &f.even, f.idle_messages),
                ("in the crowd", &f.crowd, f64::NAN),
            ]
            .map(|(when, costs, idle)| costs_row(*mode, when, costs, idle))
        })
        .collect();
    let head = [
        &["", ""][..],
        &PROGRAMS,
        &[
            "messages to nats-server",
            "from it",
            "stored writes",
            "messages a second at rest",
        ],
    ];
    report.table(&head.concat(), &rows);
    report.heading("Stored writes of a turn, by stream");
    let streams: BTreeSet<_> = measured
        .iter()
        .flat_map(|(_, f)| f.even.writes.keys().chain(f.crowd.writes.keys()))
        .collect();
    let columns: Vec<_> = measured
        .iter()
        .flat_map(|(mode, f)| {
            [
                (format!("{}, alone", mode.as_str()), &f.even),
                (format!("{}, in the crowd", mode.as_str()), &f.crowd),
            ]
        })
        .collect();
    let head: Vec<_> = std::iter::once("stream")
        .chain(columns.iter().map(|(name, _)| name.as_str()))
        .collect();
    let rows: Vec<_> = streams
        .into_iter()
        .map(|stream| {
            let cells = columns.iter().map(|(_, costs)| {
                costs
                    .writes
                    .get(stream)
                    .map_or("–".to_owned(), Samples::shown)
            });
            std::iter::once(stream.clone()).chain(cells).collect()
        })
        .collect();
    report.table(&head, &rows);
    if let Some(contenders) = contenders {
        beside(&mut report, contenders);
    }
    if let Some(took) = took {
        taken_over(&mut report, took);
    }
    report.heading("Ledger");
    let mut sum = Account::default();
    let rows: Vec<_> = measured
        .iter()
        .map(|(mode, f)| {
            sum.add(&f.account);
            let a = &f.account;
            [a.turns, a.lost, a.doubled, a.unacknowledged].iter().fold(
                vec![mode.as_str().to_owned()],
                |mut row, count| {
                    row.push(count.to_string());
                    row
                },
            )
        })
        .collect();
    report.table(
        &[
            "",
            "turns acknowledged",
            "without a reply",
            "replies too many",
            "replies without a 200",
        ],
        &rows,
    );
    let answers: Vec<_> = measured
        .iter()
        .map(|(mode, f)| format!("{}: {}", mode.as_str(), f.answers.join("; ")))
        .collect();
    report.paragraph(&format!("Answers of the edge: {}.", answers.join(". ")));
    bench.say(&format!("report: {}", report.write()?.display()));
    let mut figures: Map<_, _> = measured
        .iter()
        .map(|(mode, f)| (mode.as_str().to_owned(), of_mode(f)))
        .collect();
    for key in ["builderbot", "builderbot_opened", "pywa"] {
        let found = contenders.and_then(|all| all.iter().find(|one| one.key == key));
        let ratio = found.map(|one| rounded(one.ours_to_theirs.median()));
        figures.insert(format!("vs_{key}"), json!(ratio));
    }
    let seconds = took.map(|took| rounded(took.seconds.median()));
    figures.insert("takeover_1m_s".to_owned(), json!(seconds));
    figures.insert("lost".to_owned(), json!(sum.lost));
    figures.insert("doubled".to_owned(), json!(sum.doubled));
    Ok((Value::Object(figures), sum.is_clean()))
}

fn beside(report: &mut Report, contenders: &[Contender]) {
    report.heading("Beside what one would run instead");
    report.paragraph(&format!(
        "The same turns against the same Graph API, in turn, as many as are done; {IN_FLIGHT} at once, 16 for BuilderBot as it \
         comes. CPU is of the program with its store. The peers store nothing: what they took and have not answered is \
         gone when they end. BuilderBot checks no signature, answers from one number, and its Meta provider takes one thing off \
         a queue every 100 ms, for reading and for sending; the row below it has that queue set to 64 at once from outside. pywa \
         runs one process per core."
    ));
    let row = |one: &Contender| {
        vec![
            one.key.to_owned(),
            one.promise.to_owned(),
            one.per_s.shown(),
            one.ours_to_theirs.shown(),
            one.cpu_us.shown(),
            one.account.lost.to_string(),
            one.account.doubled.to_string(),
        ]
    };
    let head = [
        "",
        "keeps",
        "turns/s",
        "ours / theirs",
        "CPU µs a turn",
        "turns without a reply",
        "replies too many",
    ];
    report.table(&head, &contenders.iter().map(row).collect::<Vec<_>>());
}

fn taken_over(report: &mut Report, took: &Takeover) {
    report.heading("Takeover");
    report.paragraph(&format!(
        "The one worker process is killed (SIGKILL) and another started at once, with the state of {} conversations in the store. \
         From the end of the lease until a turn sent after the kill is answered, in the first partition and in all 32; seconds. \
         {} turns were on their way to the Graph API when their process ended, and are not sent again: they stand among the \
         dead letters.",
        took.conversations, took.cut_off
    ));
    let row = vec![took.first_seconds.shown(), took.seconds.shown()];
    report.table(&["first", "all"], &[row]);
}

fn costs_row(mode: Mode, when: &str, costs: &Costs, idle: f64) -> Vec<String> {
    let shown = costs.cpu_us.iter().chain(&costs.messages);
    [mode.as_str(), when]
        .into_iter()
        .map(str::to_owned)
        .chain(shown.map(Samples::shown))
        .chain([number(costs.writes()), number(idle)])
        .collect()
}

fn of_mode(f: &Figures) -> Value {
    let [edge, workers, nats] = &f.crowd.cpu_us;
    let [edge_even, workers_even, nats_even] = &f.even.cpu_us;
    let median = |samples: &Samples| rounded(samples.median());
    json!({
        "per_s": median(&f.per_s), "p50_ms": median(&f.p50_ms), "p99_ms": median(&f.p99_ms),
        "cpu_us_edge": median(edge), "cpu_us_workers": median(workers), "cpu_us_nats": median(nats),
        "cpu_us_edge_even": median(edge_even), "cpu_us_workers_even": median(workers_even),
        "cpu_us_nats_even": median(nats_even),
        "writes": rounded(f.even.writes()), "writes_crowd": rounded(f.crowd.writes()),
        "messages": rounded(f.even.messages()), "messages_crowd": rounded(f.crowd.messages()),
        "burst_p99_ms": median(&f.burst_p99_ms), "behind_s": median(&f.behind_s),
    })
}
