//! What becomes of updates while worker processes are killed, frozen and replaced, and the broker restarts.
//!
//! Every update starts a flow that sends one command. The two streams are compared at the end: each update has
//! its command once, in the order of its conversation, or stands in the dead letters.

use super::plot::{Series, lines};
use super::statistics::{Samples, number};
use super::workers::feed::PARTITIONS;
use super::workers::stream::{Seen, read};
use super::workers::{Crew, Plan, Update};
use super::{Bench, rounded};
use crate::load::tally::count;
use ackline_shared::subjects::{DEAD, DEAD_SUBJECTS, OUTBOUND, OUTBOUND_SUBJECTS, UPDATES, UPDATES_SUBJECTS};
use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep};

const PROCESSES: usize = 3;
const TENANTS: usize = 40;
const PEOPLE: u32 = 25;
const PER_SECOND: u32 = 1_250;
/// After a fault, before its process is started again: the others must have taken over by then.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(8);
const FROZEN_FOR: Duration = Duration::from_secs(10);
const CALM: Duration = Duration::from_secs(3);
const WORKED_OFF_WITHIN: Duration = Duration::from_secs(300);
const PLOT_EVERY_MS: u64 = 500;

/// Answers every message with one text.
const FLOW: &str = r#"{"format":1,"name":"Echo","entry":[{"on":"any"}],"start":"answer","variables":{},
"nodes":{"answer":{"kind":"message.text","body":"Got it.","exits":{}}}}"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Terminate,
    Freeze,
    Broker,
}

const FAULTS: [Fault; 4] = [Fault::Kill, Fault::Terminate, Fault::Freeze, Fault::Broker];

impl Fault {
    fn words(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of a worker",
            Self::Terminate => "SIGTERM of a worker",
            Self::Freeze => "SIGSTOP of a worker for 10 s",
            Self::Broker => "kill -9 and restart of nats-server",
        }
    }
}

/// What the comparison says.
#[derive(Debug, Default, PartialEq, Eq)]
struct Ledger {
    updates: usize,
    lost: usize,
    doubled: usize,
    out_of_order: usize,
    dead: usize,
}

/// A run that is over.
struct Played {
    offered: u32,
    seed: u64,
    ledger: Ledger,
    struck: Vec<(u64, Fault)>,
    pauses: BTreeMap<Fault, Samples>,
    done: Vec<Seen>,
}

/// Plays faults at random under load and compares the streams.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let updates: u32 = bench.options.pick(300_000, 12_000);
    let plan = Plan {
        tenants: TENANTS,
        pools: "flows",
        flow: Some(FLOW),
        settings: "[pools]\ntenant_in_flight_max = 64\n".to_owned(),
        ..Plan::default()
    };
    let mut crew = Crew::prepare(&bench.root, plan).await?;
    for place in 0..PROCESSES {
        crew.hire(place).await?;
    }
    let feed = crew.feed().await?;
    let load = tokio::spawn(async move { feed.offer(Instant::now(), offered(updates)).await });
    let seed: u64 = rand::random();
    bench.say(&format!("  {updates} updates at {PER_SECOND} a second; faults by seed {seed}"));
    let struck = strike(bench, &mut crew, seed, || load.is_finished()).await;
    let struck = struck.with_context(|| crew.log_tails())?;
    load.await.context("the load ended early")??;
    for stream in [UPDATES] {
        crew.drained(stream, WORKED_OFF_WITHIN).await.with_context(|| crew.log_tails())?;
    }
    let context = crew.context().await?;
    let (given, done, dead) = (
        read(&context, UPDATES, UPDATES_SUBJECTS[0]).await?,
        read(&context, OUTBOUND, OUTBOUND_SUBJECTS[0]).await?,
        read(&context, DEAD, DEAD_SUBJECTS[0]).await?,
    );
    let played = Played {
        offered: updates,
        seed,
        ledger: compare(&given, &done, &dead),
        pauses: pauses(&given, &done, &struck),
        struck,
        done,
    };
    played.write(bench)
}

fn offered(updates: u32) -> impl Iterator<Item = (Duration, Update)> {
    (0..updates).map(|nth| {
        let tenant = usize::try_from(nth).unwrap_or(0) % TENANTS;
        let person = nth / u32::try_from(TENANTS).unwrap_or(1) % PEOPLE;
        (
            Duration::from_secs(1) * nth / PER_SECOND,
            Update { serial: nth, tenant, person, is_status: false, second: false },
        )
    })
}

/// Lets faults happen until the load has ended; each kind in turn, its victim at random.
async fn strike(
    bench: &Bench<'_>,
    crew: &mut Crew,
    seed: u64,
    is_over: impl Fn() -> bool,
) -> Result<Vec<(u64, Fault)>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut struck = Vec::new();
    for &fault in FAULTS.iter().cycle() {
        sleep(CALM).await;
        if is_over() {
            break;
        }
        let victim = random.random_range(0..PROCESSES);
        let at = now_ms();
        match fault {
            Fault::Kill => {
                crew.kill(victim).await?;
                sleep(TAKEN_OVER_WITHIN).await;
                crew.hire(victim).await?;
            }
            Fault::Terminate => {
                crew.dismiss(victim).await?;
                sleep(CALM).await;
                crew.hire(victim).await?;
            }
            Fault::Freeze => {
                crew.signal(victim, "STOP").await?;
                sleep(FROZEN_FOR).await;
                crew.signal(victim, "CONT").await?;
            }
            Fault::Broker => {
                // Blocks this thread for the moment that the broker takes to start.
                crew.nats().restart()?;
                sleep(CALM).await;
            }
        }
        bench.say(&format!("  {}", fault.words()));
        struck.push((at, fault));
    }
    Ok(struck)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// Holds what was done against what was given.
fn compare(given: &[Seen], done: &[Seen], dead: &[Seen]) -> Ledger {
    let mut ledger = Ledger { updates: given.len(), ..Ledger::default() };
    let place: HashMap<u32, usize> = given.iter().map(|seen| seen.serial).zip(0..).collect();
    let buried: HashSet<u32> = dead.iter().map(|seen| seen.serial).collect();
    let mut found = HashSet::new();
    let mut latest: HashMap<&str, usize> = HashMap::new();
    for seen in done {
        if !found.insert(seen.serial) {
            ledger.doubled += 1;
            continue;
        }
        let Some(&own) = place.get(&seen.serial) else { continue };
        let before = latest.entry(&seen.conversation).or_default();
        if own < *before {
            ledger.out_of_order += 1;
        }
        *before = own.max(*before);
    }
    ledger.dead = buried.len();
    ledger.lost =
        given.iter().filter(|seen| !found.contains(&seen.serial) && !buried.contains(&seen.serial)).count();
    ledger
}

/// The longest pause of any partition that began with a fault, by kind.
fn pauses(given: &[Seen], done: &[Seen], struck: &[(u64, Fault)]) -> BTreeMap<Fault, Samples> {
    let partition: HashMap<u32, u16> = given.iter().map(|seen| (seen.serial, seen.partition)).collect();
    let mut times: Vec<Vec<u64>> = vec![Vec::new(); usize::from(PARTITIONS)];
    for seen in done {
        let owner = partition.get(&seen.serial).and_then(|&partition| times.get_mut(usize::from(partition)));
        owner.into_iter().for_each(|times| times.push(seen.at_ms));
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    let mut pauses: BTreeMap<Fault, Samples> = BTreeMap::new();
    for &(at, fault) in struck {
        let gaps = times.iter().flat_map(|times| times.windows(2));
        let of_this_fault = gaps.filter_map(|gap| match gap {
            [from, to] if (at.saturating_sub(1_000)..at + 1_500).contains(from) && *to > at => {
                Some(to - from.max(&at))
            }
            _ => None,
        });
        if let Some(longest) = of_this_fault.max() {
            pauses.entry(fault).or_default().push(count(longest) / 1_000.0);
        }
    }
    pauses
}

impl Played {
    fn write(&self, bench: &Bench<'_>) -> Result<(Value, bool)> {
        let Self { offered: updates, seed, ledger, struck, pauses, done } = self;
        let mut report = bench.report("workers-chaos", "stored, one node");
        report.paragraph(&format!(
        "{PROCESSES} worker processes run flows for {TENANTS} tenants; {updates} messages at {PER_SECOND} a second, each of which \
         sends one command. Faults follow each other all the time, the victim at random (seed {seed}). At the end every update \
         in UPDATES is looked up in OUTBOUND: its command is there once and in the order of its conversation, or the update is \
         in DEAD. *Pause*: the longest time any partition did nothing, from the fault on."
    ));
        report.table(
            &["updates", "lost", "doubled", "out of order", "dead letters"],
            &[[ledger.updates, ledger.lost, ledger.doubled, ledger.out_of_order, ledger.dead]
                .map(|figure| figure.to_string())
                .into()],
        );
        let rows: Vec<_> = FAULTS
            .iter()
            .map(|fault| {
                let times = struck.iter().filter(|(_, struck)| struck == fault).count();
                let pause = pauses.get(fault);
                let most = pause.map_or(f64::NAN, Samples::max);
                vec![
                    fault.words().to_owned(),
                    times.to_string(),
                    pause.map_or("–".into(), Samples::shown),
                    number(most),
                ]
            })
            .collect();
        report.table(&["fault", "times", "pause, median and range (s)", "longest (s)"], &rows);
        let start = done.iter().map(|seen| seen.at_ms).min().unwrap_or_default();
        let mut slots: BTreeMap<u64, u64> = BTreeMap::new();
        for seen in done {
            *slots.entry((seen.at_ms - start) / PLOT_EVERY_MS).or_default() += 1;
        }
        let last = slots.keys().next_back().copied().unwrap_or_default();
        let step = count(PLOT_EVERY_MS) / 1_000.0;
        let points =
            (0..=last).map(|slot| (count(slot) * step, count(slots.get(&slot).copied().unwrap_or(0)) / step));
        let series = Series { name: "commands a second".into(), points: points.collect() };
        let marks: Vec<_> = struck
            .iter()
            .map(|(at, fault)| {
                (count(at.saturating_sub(start)) / 1_000.0, format!("{fault:?}").to_lowercase())
            })
            .collect();
        report.plot(
            "rate",
            lines("Commands sent while faults happen", "seconds", "commands a second", &[series], &marks),
        );
        bench.say(&format!("report: {}", report.write()?.display()));
        let longest = |fault| pauses.get(&fault).map(|pauses: &Samples| rounded(pauses.max()));
        let figures = json!({
            "updates": ledger.updates, "lost": ledger.lost, "doubled": ledger.doubled, "out_of_order": ledger.out_of_order,
            "takeover_kill_s": longest(Fault::Kill), "takeover_term_s": longest(Fault::Terminate),
        });
        if ledger.updates < usize::try_from(*updates).unwrap_or(0) {
            bail!("{} of {updates} updates are in the stream", ledger.updates);
        }
        Ok((figures, (ledger.lost, ledger.doubled, ledger.out_of_order) == (0, 0, 0) && !struck.is_empty()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(serial: u32, conversation: &str, at_ms: u64) -> Seen {
        Seen { serial, conversation: conversation.into(), partition: 0, at_ms, pool: None, reason: None }
    }

    #[test]
    fn what_is_missing_twice_or_swapped_is_counted_and_a_dead_letter_is_not_lost() {
        let given: Vec<_> = (0..5).map(|serial| seen(serial, "a", 0)).collect();
        let done = [seen(1, "a", 0), seen(0, "a", 0), seen(1, "a", 0), seen(2, "a", 0)];
        let ledger = compare(&given, &done, &[seen(3, "a", 0)]);
        assert_eq!(ledger, Ledger { updates: 5, lost: 1, doubled: 1, out_of_order: 1, dead: 1 });
    }

    #[test]
    fn a_pause_counts_from_its_fault_and_only_when_it_begins_there() {
        let given: Vec<_> = (0..5).map(|serial| seen(serial, "a", 0)).collect();
        let at = [1_000, 9_900, 13_000, 13_100, 60_000];
        let done: Vec<_> = (0..5).zip(at).map(|(serial, at)| seen(serial, "a", at)).collect();
        let pauses = pauses(&given, &done, &[(10_000, Fault::Kill)]);
        assert!((pauses[&Fault::Kill].max() - 3.0).abs() < 1e-9);
    }
}
