//! The installation that turns are played on: edge, one worker process with every pool, nats-server.

use super::super::rig::{PATH, free_address};
use super::super::workers::{Crew, Plan};
use super::Mode;
use super::graph::Graph;
use super::meter::Meter;
use super::player::{IN_FLIGHT, NUMBERS, Played, Player};
use ackline_shared::subjects::{OUTBOUND, Pool, UPDATES, pool_of_consumer};
use anyhow::{Context, Result};
use async_nats::jetstream;
use futures_util::TryStreamExt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Answers every message with one text.
const FLOW: &str = r#"{"format":1,"name":"Echo","entry":[{"on":"any"}],"start":"answer","variables":{},
"nodes":{"answer":{"kind":"message.text","body":"You said: {{message.text}}","exits":{}}}}"#;
/// More than any machine this runs on plays in a second; decks are made for so many.
const PER_SECOND_MAX: usize = 6_000;
const DONE_WITHIN: Duration = Duration::from_secs(180);
const ASK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Stage {
    pub crew: Crew,
    pub player: Player,
    monitor: SocketAddr,
    http: reqwest::Client,
    context: jetstream::Context,
}

/// What came of a part of the run.
#[derive(Debug)]
pub struct Phase {
    pub played: Played,
    /// From the first webhook until everything was done.
    pub used: Meter,
    /// From the end of the load until the journal had everything.
    pub behind: Duration,
    /// What the journal had before it when the load ended.
    pub journal_backlog: u64,
}

/// What was used in the steady part of a closed loop, for how many turns, in how long.
#[derive(Debug, Clone)]
pub struct Steady {
    pub used: Meter,
    pub turns: u64,
    pub took: Duration,
}

impl Stage {
    pub async fn start(root: &Path, mode: Mode, graph: &Arc<Graph>) -> Result<Self> {
        let monitor = free_address().await?;
        let plan = Plan {
            tenants: NUMBERS,
            pools: "all",
            flow: Some(FLOW),
            settings: format!("[meta]\ngraph_url = \"http://{}\"\n", graph.address()),
            broker: format!("http: \"{monitor}\""),
            synced: mode == Mode::Synced,
            ..Plan::default()
        };
        let mut crew = Crew::prepare(root, plan).await?;
        crew.hire(0).await?;
        let edge = crew.open_edge().await?;
        let context = crew.context().await?;
        Ok(Self {
            crew,
            player: Player::new(graph.clone(), edge, PATH),
            monitor,
            http: reqwest::Client::builder().no_proxy().build()?,
            context,
        })
    }

    /// Looks at what was used so far.
    pub async fn look(&self) -> Result<Meter> {
        Meter::read(&self.crew, &self.http, self.monitor).await
    }

    /// Plays so many turns a second, evenly, and waits until they are done.
    pub async fn even(&mut self, per_second: f64, within: Duration) -> Result<Phase> {
        let before = self.look().await?;
        let played = self.player.even(per_second, within).await?;
        self.done(&before, played).await
    }

    /// Plays as many turns as are done and waits until they are done.
    pub async fn most(&mut self, settles: Duration, steady: Duration) -> Result<(Phase, Steady)> {
        let (before, within) = (
            self.look().await?,
            settles + steady + Duration::from_secs(1),
        );
        let (crew, http, monitor) = (&self.crew, &self.http, self.monitor);
        let watch = async {
            sleep(settles).await;
            let from = Meter::read(crew, http, monitor).await?;
            sleep(steady).await;
            Ok((from, Meter::read(crew, http, monitor).await?))
        };
        let (played, (from, until)) = self
            .player
            .most(IN_FLIGHT, PER_SECOND_MAX, within, watch)
            .await?;
        let phase = self.done(&before, played).await?;
        let steady = Steady {
            turns: self
                .player
                .answered_within(&phase.played, from.at, until.at),
            took: until.at.duration_since(from.at),
            used: until.since(&from),
        };
        Ok((phase, steady))
    }

    /// Waits until what was acknowledged is answered and every pool has done its part of it.
    async fn done(&self, before: &Meter, played: Played) -> Result<Phase> {
        let (ended, deadline) = (Instant::now(), Instant::now() + DONE_WITHIN);
        let journal_backlog = self.backlog(Some(Pool::Journal)).await?;
        while self.backlog(Some(Pool::Journal)).await? > 0 && Instant::now() < deadline {
            sleep(ASK_EVERY).await;
        }
        let mut behind = ended.elapsed();
        self.player.answered(&played, deadline).await;
        if self.backlog(None).await? > 0 {
            while self.backlog(None).await? > 0 && Instant::now() < deadline {
                sleep(ASK_EVERY).await;
            }
            // What came after is the journal's, too.
            behind = ended.elapsed();
        }
        Ok(Phase {
            played,
            used: self.look().await?.since(before),
            behind,
            journal_backlog,
        })
    }

    /// What a pool, or all of them, have not acknowledged.
    async fn backlog(&self, pool: Option<Pool>) -> Result<u64> {
        let mut sum = 0;
        for stream in [UPDATES, OUTBOUND] {
            let stream = self.context.get_stream(stream).await?;
            let consumers: Vec<_> = stream
                .consumers()
                .try_collect()
                .await
                .context("listing consumers")?;
            let of_pool = consumers
                .iter()
                .filter(|consumer| pool.is_none() || pool_of_consumer(&consumer.name) == pool);
            sum += of_pool
                .map(|consumer| consumer.num_pending + consumer.num_ack_pending as u64)
                .sum::<u64>();
        }
        Ok(sum)
    }
}
