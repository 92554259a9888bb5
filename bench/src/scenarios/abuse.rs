//! Whether a tenant that abuses everything it may do is felt by another tenant.
//!
//! It has a key that reads, sends and manages and a Meta app of its own, so that it can sign what it likes for its own
//! number. Its attacks run one after the other and then all at once, from an address of its own.

mod account;
mod attacker;
mod attacks;
mod body;
mod cost;
mod fill;
mod sockets;
mod stage;
mod tally;
mod victim;

use super::{Bench, blocking};
use ackline_shared::surroundings::Descriptors;
use anyhow::{Result, bail};
use attacks::Attacks;
use cost::Costs;
use serde_json::Value;
use stage::Stage;
use std::time::Duration;
use tokio::time::{Instant, sleep};
use victim::Victim;

/// Sockets of the attacks, and some for what else is open.
const DESCRIPTORS: u64 = 12_000;
/// What the victim sends a minute.
const PER_MINUTE: u32 = 200;
/// How long what is stored may take to be answered after the abuse.
const ANSWERED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A part of the run: all that the victim sent within it is compared.
#[derive(Debug, Clone, Copy)]
struct Phase {
    name: &'static str,
    began: Instant,
    ended: Instant,
}

/// Plays a calm while and an abuse, and compares.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let calm_for = Duration::from_secs(bench.options.pick(60, 15));
    let abuse_for = Duration::from_secs(bench.options.pick(300, 30));
    let open = Descriptors::raise(DESCRIPTORS);
    if let Some(problem) =
        open.problem("the number of sockets in bench/src/scenarios/abuse/attacks.rs")
    {
        bail!("{problem}");
    }
    let mut stage = Stage::start(&bench.root).await?;
    let victim = Victim::new(stage.edge, stage.api)?;
    // What is done for the first time, such as opening a flow, is not compared.
    victim
        .send(2, Instant::now() + Duration::from_secs(10))
        .await;
    bench.say(&format!("  calm for {calm_for:?}"));
    let began = Instant::now();
    let calm = victim
        .send(messages(calm_for), began + calm_for + ANSWERED_WITHIN)
        .await;
    let calm_phase = Phase {
        name: "calm",
        began,
        ended: Instant::now(),
    };
    sleep(Duration::from_secs(1)).await;
    bench.say(&format!("  abuse for {abuse_for:?}"));
    let began = Instant::now();
    let attacks = Attacks::new(stage.edge, stage.api, abuse_for)?;
    let attacking = tokio::spawn(blocking(move || attacks.play()));
    let mut costs = Costs::default();
    let (sent, asked) = {
        let sending = victim.send(messages(abuse_for), began + abuse_for + ANSWERED_WITHIN);
        let asking = victim.ask(began + abuse_for);
        let (mut both, mut watching) = (
            std::pin::pin!(async { tokio::join!(sending, asking) }),
            tokio::time::interval(LOOK_EVERY),
        );
        loop {
            tokio::select! {
                done = &mut both => break done,
                _ = watching.tick() => costs.look(&mut stage)?,
            }
        }
    };
    let (phases, tally) = attacking.await??;
    let over = Instant::now();
    while !stage.is_answered(&sent) && over.elapsed() < ANSWERED_WITHIN {
        costs.look(&mut stage)?;
        sleep(LOOK_EVERY).await;
    }
    let played = account::Played {
        calm,
        calm_phase,
        sent,
        asked,
        phases,
        tally,
        costs,
        notes: stage.victims_requests(),
        refused: stage.refused(),
        streams: fill::look(&stage.crew.context().await?).await?,
        abuse_for,
    };
    if played.has_lost() {
        let logs = stage.crew.keep_logs(&bench.root, "abuse-logs").await?;
        bench.say(&format!("  logs: {logs}"));
    }
    account::write(bench, &played)
}

/// What the victim sends in such a time.
fn messages(within: Duration) -> u32 {
    u32::try_from(within.as_secs())
        .unwrap_or(u32::MAX)
        .saturating_mul(PER_MINUTE)
        / 60
}
