//! The same turns on bots that one would run instead, in turn with ours.
//!
//! They keep nothing: what they have taken and not answered when they end is gone.

use super::super::peer::{Kind, Peer, Recipe};
use super::super::rig::PATH;
use super::super::statistics::Samples;
use super::graph::Graph;
use super::player::{Account, IN_FLIGHT, Player, cpu_us};
use super::stage::Stage;
use super::{Bench, Mode};
use crate::load::tally::count;
use ackline_shared::testing::tools_dir;
use anyhow::{Context, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const PER_SECOND_MAX: usize = 3_000;
const ANSWERED_WITHIN: Duration = Duration::from_secs(30);
/// The first turns open connections, and have a program compiled that is compiled while it runs.
const WARM: f64 = 50.0;
const WARM_FOR: Duration = Duration::from_secs(4);

/// How a peer is played.
#[derive(Debug, Clone, Copy)]
struct Rival {
    recipe: Recipe,
    path: &'static str,
    /// Turns under way at once: one that does a few a second would let the others wait for a minute.
    at_once: usize,
    warm_per_second: f64,
}

const RIVALS: [Rival; 3] = [
    Rival {
        recipe: recipe("builderbot", Kind::BuilderBot { opened: false }),
        path: "/webhook",
        at_once: 16,
        warm_per_second: 2.0,
    },
    Rival {
        recipe: recipe("builderbot_opened", Kind::BuilderBot { opened: true }),
        path: "/webhook",
        at_once: IN_FLIGHT,
        warm_per_second: WARM,
    },
    Rival {
        recipe: recipe("pywa", Kind::PywaAnswers),
        path: PATH,
        at_once: IN_FLIGHT,
        warm_per_second: WARM,
    },
];

const fn recipe(key: &'static str, kind: Kind) -> Recipe {
    Recipe {
        key,
        kind,
        sync: false,
        promise: "nothing: memory only",
    }
}

/// What one of them did.
#[derive(Debug, Default)]
pub struct Contender {
    pub key: &'static str,
    pub promise: &'static str,
    pub per_s: Samples,
    /// Ours of the same round to theirs; of ours, nothing.
    pub ours_to_theirs: Samples,
    /// Of the program, for ours of all programs.
    pub cpu_us: Samples,
    pub account: Account,
}

/// Plays rounds of all; ours comes first. Nothing when the peers are not installed.
pub async fn compare(bench: &Bench<'_>, graph: &Arc<Graph>) -> Result<Option<Vec<Contender>>> {
    if !["peers/node_modules/@builderbot", "peers-python"]
        .iter()
        .all(|part| tools_dir().join(part).exists())
    {
        bench.say("  the peers are not installed (`deploy/dev/tools.sh bench`) and are left out");
        return Ok(None);
    }
    let mut stage = Stage::start(&bench.root, Mode::Stored, graph).await?;
    stage.even(WARM * 4.0, WARM_FOR).await?;
    let mut ours = Contender {
        key: "**ackline**",
        promise: "every turn, as `stored` says",
        ..Contender::default()
    };
    let mut rivals = Vec::new();
    for rival in RIVALS {
        let started = Playing::start(&bench.root, rival, graph).await;
        rivals.push(started.with_context(|| format!("starting {}", rival.recipe.key))?);
    }
    let steady = Duration::from_secs(bench.options.pick(10, 5));
    for _ in 0..bench.options.repeats(3) {
        let (_, did) = stage.most(Duration::from_secs(3), steady).await?;
        let our_rate = count(did.turns) / did.took.as_secs_f64();
        let used = did.used.edge + did.used.workers + did.used.nats;
        ours.per_s.push(our_rate);
        ours.cpu_us.push(cpu_us(used, did.turns));
        for rival in &mut rivals {
            rival.most(our_rate, steady).await?;
            bench.say(&format!(
                "  {}: {} a second, ours {}",
                rival.contender.key,
                rival.contender.per_s.shown(),
                ours.per_s.shown()
            ));
        }
    }
    ours.account = stage.player.account();
    let theirs = rivals.into_iter().map(|rival| Contender {
        account: rival.player.account(),
        ..rival.contender
    });
    Ok(Some(std::iter::once(ours).chain(theirs).collect()))
}

struct Playing {
    peer: Peer,
    rival: Rival,
    player: Player,
    contender: Contender,
}

impl Playing {
    async fn start(root: &Path, rival: Rival, graph: &Arc<Graph>) -> Result<Self> {
        let peer = Peer::start_before(root, rival.recipe, Some(graph.address())).await?;
        let mut player = Player::new(graph.clone(), peer.address(), rival.path);
        let played = player.even(rival.warm_per_second, WARM_FOR).await?;
        player
            .answered(&played, Instant::now() + ANSWERED_WITHIN)
            .await;
        let contender = Contender {
            key: rival.recipe.key,
            promise: rival.recipe.promise,
            ..Contender::default()
        };
        Ok(Self {
            peer,
            rival,
            player,
            contender,
        })
    }

    async fn most(&mut self, our_rate: f64, steady: Duration) -> Result<()> {
        let settles = Duration::from_secs(3);
        let look = || (Instant::now(), self.peer.usage().cpu);
        let watch = async {
            sleep(settles).await;
            let from = look();
            sleep(steady).await;
            Ok((from, look()))
        };
        let within = settles + steady + Duration::from_secs(1);
        let most = self
            .player
            .most(self.rival.at_once, PER_SECOND_MAX, within, watch);
        let (played, ((from, before), (until, after))) = most.await?;
        self.player
            .answered(&played, Instant::now() + ANSWERED_WITHIN)
            .await;
        let turns = self.player.answered_within(&played, from, until);
        let rate = count(turns) / until.duration_since(from).as_secs_f64();
        self.contender.per_s.push(rate);
        self.contender.ours_to_theirs.push(our_rate / rate);
        let used = after.saturating_sub(before);
        self.contender.cpu_us.push(cpu_us(used, turns));
        Ok(())
    }
}
