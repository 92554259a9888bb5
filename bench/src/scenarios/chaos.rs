//! What becomes of updates while worker processes are killed, frozen and replaced, and the broker freezes and restarts.
//!
//! All the while some targets are closed, broken or slow, so that breakers are open and updates wait in spill queues at every
//! fault. At the end everything works again; each update has then been done by every pool once, in the order of its
//! conversation, or stands in the dead letters.

mod account;
mod ledger;
mod once;
mod stage;

use super::Bench;
use super::statistics::Samples;
use super::workers::stream::{Seen, read};
use super::workers::{Held, Update};
use ackline_shared::subjects::{
    DEAD, DEAD_SUBJECTS, OUTBOUND, OUTBOUND_SUBJECTS, Pool, UPDATES, UPDATES_SUBJECTS,
};
use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use ledger::{Evidence, JUDGED, Ledger, pauses};
use once::Once;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use serde_json::Value;
use stage::{PROCESSES, Stage, TENANTS};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::time::{Instant, sleep};

const PEOPLE: u32 = 25;
/// After a fault, before its process is started again: the others must have taken over by then.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(8);
const FROZEN_FOR: Duration = Duration::from_secs(10);
const BROKER_FROZEN_FOR: Duration = Duration::from_secs(8);
const CALM: Duration = Duration::from_secs(3);
/// Until breakers are open and conversations wait in spill queues.
const IN_TROUBLE_AFTER: Duration = Duration::from_secs(14);
/// How long what is stuck gets after all processes were replaced.
const FREED_WITHIN: Duration = Duration::from_secs(60);
const ASK_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fault {
    Kill,
    Terminate,
    Freeze,
    BrokerFreeze,
    BrokerRestart,
}

/// In the order they come.
const FAULTS: [Fault; 5] = [
    Fault::Kill,
    Fault::BrokerFreeze,
    Fault::Terminate,
    Fault::BrokerRestart,
    Fault::Freeze,
];

impl Fault {
    fn words(self) -> &'static str {
        match self {
            Self::Kill => "kill -9 of a worker",
            Self::Terminate => "SIGTERM of a worker",
            Self::Freeze => "SIGSTOP of a worker for 10 s",
            Self::BrokerFreeze => "SIGSTOP of nats-server for 8 s",
            Self::BrokerRestart => "kill -9 and restart of nats-server",
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Struck {
    fault: Fault,
    at_ms: u64,
    began: Instant,
    /// When what stood still went on; when it began, where nothing stood still.
    acted: Instant,
}

impl Struck {
    /// Whether what was under way may have been cut off.
    fn is_unforeseen(&self) -> bool {
        self.fault != Fault::Terminate
    }
}

/// How a round is played.
#[derive(Debug, Clone, Copy)]
struct Pace {
    updates: u32,
    per_second: u32,
    /// How long everything gets once it works again.
    within: Duration,
}

/// A round that is over.
#[derive(Debug)]
struct Round {
    seed: u64,
    ledgers: BTreeMap<Pool, Ledger>,
    once: Once,
    struck: Vec<Struck>,
    pauses: BTreeMap<Fault, Samples>,
    commands: Vec<Seen>,
    /// How long until everything was done, once everything worked.
    recovered_after: Duration,
    /// Of what was missing, what came after all processes were replaced.
    freed: usize,
    reasons: BTreeMap<String, usize>,
    /// What was done again without excuse, in words.
    doubles: Vec<String>,
    disorders: Vec<String>,
}

/// Plays rounds of faults at random under load and compares.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let pace = Pace {
        updates: bench.options.pick(20_000, 2_000),
        per_second: bench.options.pick(250, 40),
        within: Duration::from_secs(bench.options.pick(300, 120)),
    };
    let mut rounds = Vec::new();
    for number in 1..=bench.options.repeats(10) {
        let round = play(bench, &pace).await?;
        let mut sum = Ledger::default();
        round.ledgers.values().for_each(|ledger| sum.add(ledger));
        bench.say(&format!(
            "  round {number}, seed {}: {}took effect twice {}",
            round.seed,
            account::words(&sum),
            round.once.twice
        ));
        rounds.push(round);
    }
    account::write(bench, &pace, &rounds)
}

/// Plays one round in an installation of its own.
async fn play(bench: &Bench<'_>, pace: &Pace) -> Result<Round> {
    let mut stage = Stage::start(&bench.root).await?;
    let seed: u64 = rand::random();
    stage.break_targets().await?;
    let (feed, own) = (stage.crew.feed().await?, *pace);
    let load = tokio::spawn(async move { feed.offer(Instant::now(), offered(&own)).await });
    sleep(IN_TROUBLE_AFTER).await;
    let struck = strike(bench, &mut stage, seed, || load.is_finished()).await;
    let struck = struck.with_context(|| stage.crew.log_tails())?;
    load.await.context("the load ended early")??;
    stage.mend_targets().await?;
    let (context, mended) = (stage.crew.context().await?, Instant::now());
    let mut evidence = settled(&stage, &context, mended + pace.within).await?;
    let recovered_after = mended.elapsed();
    let held = Held::look(&context).await?;
    let (ledgers, doubles) = (evidence.count(&struck, &held), evidence.doubles(&struck));
    let disorders = evidence.disorders(&struck);
    disorders
        .iter()
        .for_each(|words| bench.say(&format!("  out of order: {words}")));
    let missing = evidence.missing();
    if missing > 0 {
        bench.say(&format!(
            "  {missing} missing after {:.0} s",
            recovered_after.as_secs_f64()
        ));
        let logs = stage
            .crew
            .keep_logs(&bench.root, &format!("workers-chaos-{seed}-logs"))
            .await?;
        bench.say(&format!("  logs: {logs}"));
        for place in 0..PROCESSES {
            stage.crew.dismiss(place).await?;
            stage.crew.hire(place).await?;
        }
        evidence = settled(&stage, &context, Instant::now() + FREED_WITHIN).await?;
    }
    let given = evidence.given.len();
    if given < usize::try_from(pace.updates).unwrap_or(0) {
        bail!("{given} of {} updates are in the stream", pace.updates);
    }
    let once = Once::count(&context, &evidence.given, offer).await?;
    let mut reasons = BTreeMap::new();
    for letter in &evidence.letters {
        let reason: String = letter
            .reason
            .as_deref()
            .unwrap_or_default()
            .chars()
            .take(100)
            .collect();
        *reasons.entry(reason).or_default() += 1;
    }
    Ok(Round {
        seed,
        ledgers,
        once,
        pauses: pauses(&evidence.given, &evidence.commands, &struck),
        struck,
        freed: missing.saturating_sub(evidence.missing()),
        commands: evidence.commands,
        recovered_after,
        reasons,
        doubles,
        disorders,
    })
}

/// Waits until every pool has done or given up everything, or until the deadline.
async fn settled(
    stage: &Stage,
    context: &jetstream::Context,
    deadline: Instant,
) -> Result<Evidence> {
    let given = read(context, UPDATES, UPDATES_SUBJECTS[0]).await?;
    loop {
        let notes = JUDGED
            .into_iter()
            .map(|pool| (pool, stage.notes(pool)))
            .collect();
        let evidence = Evidence {
            given: given.clone(),
            commands: read(context, OUTBOUND, OUTBOUND_SUBJECTS[0]).await?,
            letters: read(context, DEAD, DEAD_SUBJECTS[0]).await?,
            notes,
        };
        if evidence.missing() == 0 || Instant::now() > deadline {
            return Ok(evidence);
        }
        sleep(ASK_EVERY).await;
    }
}

fn offered(pace: &Pace) -> impl Iterator<Item = (Duration, Update)> + use<> {
    let Pace {
        updates,
        per_second,
        ..
    } = *pace;
    (0..updates).map(move |nth| (Duration::from_secs(1) * nth / per_second, offer(nth)))
}

/// The update with a number.
fn offer(serial: u32) -> Update {
    let tenant = usize::try_from(serial).unwrap_or(0) % TENANTS;
    let person = serial / u32::try_from(TENANTS).unwrap_or(1) % PEOPLE;
    Update {
        serial,
        tenant,
        person,
        is_status: false,
        second: false,
    }
}

/// Lets faults happen until the load has ended; each kind in turn, its victim at random.
async fn strike(
    bench: &Bench<'_>,
    stage: &mut Stage,
    seed: u64,
    is_over: impl Fn() -> bool,
) -> Result<Vec<Struck>> {
    let mut random = StdRng::seed_from_u64(seed);
    let mut struck = Vec::new();
    let crew = &mut stage.crew;
    for &fault in FAULTS.iter().cycle() {
        sleep(CALM).await;
        if is_over() {
            break;
        }
        let victim = random.random_range(0..PROCESSES);
        let (at_ms, began) = (now_ms(), Instant::now());
        let mut acted = began;
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
                acted = Instant::now();
            }
            Fault::BrokerFreeze => {
                crew.nats().freeze()?;
                sleep(BROKER_FROZEN_FOR).await;
                crew.nats().thaw()?;
                acted = Instant::now();
            }
            Fault::BrokerRestart => {
                // Blocks this thread for the moment that the broker takes to start.
                crew.nats().restart()?;
                acted = Instant::now();
                sleep(CALM).await;
            }
        }
        bench.say(&format!("  {}", fault.words()));
        struck.push(Struck {
            fault,
            at_ms,
            began,
            acted,
        });
    }
    Ok(struck)
}

fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}
