//! The installation that turns are played on: edge, one worker process with every pool, nats-server; the Graph API.

use super::super::blocking;
use super::super::rig::{APP_SECRET, PATH, free_address};
use super::super::workers::{Crew, Plan, phone};
use super::Mode;
use super::graph::Graph;
use super::meter::Meter;
use crate::load::open::due;
use crate::load::{Closed, Deck, Ledger, Mix, Open, Target};
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use ackline_shared::subjects::{OUTBOUND, Pool, UPDATES, pool_of_consumer};
use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use futures_util::TryStreamExt;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Business numbers, each of a tenant of its own; 80 messages a second each are more than the machine does.
pub const NUMBERS: usize = 100;
/// Answers every message with one text.
const FLOW: &str = r#"{"format":1,"name":"Echo","entry":[{"on":"any"}],"start":"answer","variables":{},
"nodes":{"answer":{"kind":"message.text","body":"You said: {{message.text}}","exits":{}}}}"#;
const OPEN_CONNECTIONS: usize = 128;
const CLOSED_CONNECTIONS: usize = 64;
/// Turns under way at once when as many as possible are played.
pub const IN_FLIGHT: usize = 256;
/// More than any machine this runs on plays in a second; decks are made for so many.
const PER_SECOND_MAX: usize = 6_000;
const DONE_WITHIN: Duration = Duration::from_secs(180);
const ASK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Stage {
    pub crew: Crew,
    graph: Graph,
    edge: SocketAddr,
    monitor: SocketAddr,
    http: reqwest::Client,
    context: jetstream::Context,
    decks: Vec<(u32, Arc<Ledger>)>,
    next: u32,
}

/// What came of a part of the run.
#[derive(Debug)]
pub struct Phase {
    /// Turns whose webhook was answered 200.
    pub turns: u64,
    /// Every answer of the edge, in words.
    pub answers: String,
    /// From the moment a webhook was due until its reply reached the Graph API.
    pub waits: Vec<Duration>,
    /// From the first webhook until everything was done.
    pub used: Meter,
    /// What was used in the steady part of a closed loop, for how many turns, in how long.
    pub steady: Option<Steady>,
    /// From the end of the load until the journal had everything.
    pub behind: Duration,
    /// What the journal had before it when the load ended.
    pub journal_backlog: u64,
}

#[derive(Debug, Clone)]
pub struct Steady {
    pub used: Meter,
    pub turns: u64,
    pub took: Duration,
}

/// What became of all turns of a run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    /// Turns whose webhook was answered 200.
    pub turns: u64,
    pub lost: u64,
    pub doubled: u64,
    /// Replies to webhooks that were not answered 200, which is allowed: Meta sends them again.
    pub unacknowledged: u64,
}

impl Stage {
    pub async fn start(root: &Path, mode: Mode) -> Result<Self> {
        let graph = Graph::start().await?;
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
            graph,
            edge,
            monitor,
            http: reqwest::Client::builder().no_proxy().build()?,
            context,
            decks: Vec::new(),
            next: 0,
        })
    }

    /// Looks at what was used so far.
    pub async fn look(&self) -> Result<Meter> {
        Meter::read(&self.crew, &self.http, self.monitor).await
    }

    /// Plays so many turns a second, evenly, and waits until they are done.
    pub async fn even(&mut self, per_second: f64, within: Duration) -> Result<Phase> {
        let ledger = self.deal(due_within(per_second, within)).await?;
        let before = self.look().await?;
        let (load, sent) = (
            Open {
                address: self.edge,
                connections: OPEN_CONNECTIONS,
                per_second,
                within,
            },
            ledger.clone(),
        );
        let tally = blocking(move || load.run(&sent)).await?;
        let mut phase = self.done(before, &ledger, tally.answers()).await?;
        let Some(start) = ledger.sent_at(0) else {
            bail!("nothing was sent");
        };
        let first = ledger.deck().turn(0).unwrap_or(0);
        let waits = (0..ledger.deck().updates()).filter_map(|serial| {
            ledger.acked_at(serial)?;
            let at = self.graph.answer(first + serial).at?;
            let due = start + due(usize::try_from(serial).ok()?, per_second);
            Some(at.saturating_duration_since(due))
        });
        phase.waits = waits.collect();
        Ok(phase)
    }

    /// Plays as many turns as are done, [`IN_FLIGHT`] at once, and waits until they are done.
    pub async fn most(&mut self, settles: Duration, steady: Duration) -> Result<Phase> {
        let within = settles + steady + Duration::from_secs(1);
        let seconds = usize::try_from(within.as_secs()).unwrap_or(usize::MAX);
        let ledger = self.deal(PER_SECOND_MAX * seconds).await?;
        let gate = self.graph.gate().clone();
        gate.forget_permits(gate.available_permits());
        gate.add_permits(IN_FLIGHT);
        let before = self.look().await?;
        let load = Closed {
            gate: Some(gate),
            ..Closed::new(self.edge, CLOSED_CONNECTIONS, within)
        };
        let sent = ledger.clone();
        let playing = tokio::spawn(blocking(move || load.run(&sent)));
        sleep(settles).await;
        let from = self.look().await?;
        sleep(steady).await;
        let until = self.look().await?;
        let tally = playing.await.context("the load ended early")??;
        let mut phase = self.done(before, &ledger, tally.answers()).await?;
        let first = ledger.deck().turn(0).unwrap_or(0);
        let answered = (0..ledger.deck().updates())
            .filter_map(|serial| self.graph.answer(first + serial).at)
            .filter(|at| (from.at..until.at).contains(at));
        phase.steady = Some(Steady {
            turns: answered.count() as u64,
            took: until.at.duration_since(from.at),
            used: until.since(&from),
        });
        Ok(phase)
    }

    async fn deal(&mut self, turns: usize) -> Result<Arc<Ledger>> {
        let (first, run) = (self.next, u32::try_from(self.decks.len())?);
        let ledger = deal(run + 1, first, turns).await?;
        self.next += ledger.deck().updates();
        self.decks.push((first, ledger.clone()));
        Ok(ledger)
    }

    /// Waits until what was acknowledged is answered and every pool has done its part of it.
    async fn done(&self, before: Meter, ledger: &Ledger, answers: String) -> Result<Phase> {
        let (ended, deadline) = (Instant::now(), Instant::now() + DONE_WITHIN);
        let journal_backlog = self.backlog(Some(Pool::Journal)).await?;
        while self.backlog(Some(Pool::Journal)).await? > 0 && Instant::now() < deadline {
            sleep(ASK_EVERY).await;
        }
        let mut behind = ended.elapsed();
        let first = ledger.deck().turn(0).unwrap_or(0);
        let is_open = |serial: u32| {
            ledger.acked_at(serial).is_some() && self.graph.answer(first + serial).at.is_none()
        };
        while (0..ledger.deck().updates()).any(is_open) && Instant::now() < deadline {
            sleep(ASK_EVERY).await;
        }
        if self.backlog(None).await? > 0 {
            while self.backlog(None).await? > 0 && Instant::now() < deadline {
                sleep(ASK_EVERY).await;
            }
            // What came after is the journal's, too.
            behind = ended.elapsed();
        }
        Ok(Phase {
            turns: ledger.acked(),
            answers,
            waits: Vec::new(),
            used: self.look().await?.since(&before),
            steady: None,
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

    /// Holds what was acknowledged against what reached the Graph API.
    pub fn account(&self) -> Account {
        let mut account = Account::default();
        for (first, ledger) in &self.decks {
            for serial in 0..ledger.deck().updates() {
                let times = self.graph.answer(first + serial).times;
                let is_acked = ledger.acked_at(serial).is_some();
                account.turns += u64::from(is_acked);
                account.lost += u64::from(is_acked && times == 0);
                account.doubled += u64::from(times.saturating_sub(1));
                account.unacknowledged += u64::from(!is_acked && times > 0);
            }
        }
        account
    }
}

impl Account {
    pub fn add(&mut self, other: &Self) {
        self.turns += other.turns;
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.unacknowledged += other.unacknowledged;
    }

    pub fn is_clean(&self) -> bool {
        (self.lost, self.doubled) == (0, 0)
    }
}

/// Makes the webhooks of turns with these numbers.
async fn deal(run: u32, first: u32, turns: usize) -> Result<Arc<Ledger>> {
    blocking(move || {
        let targets: Vec<_> = (0..NUMBERS)
            .map(|number| Target {
                phone_number_id: phone(number),
                waba_id: format!("W{number}"),
            })
            .collect();
        let key = SigningKey::new(&Secret::new(APP_SECRET.to_owned()));
        let mix = Mix::turns(first, turns);
        Ok(Ledger::open(Arc::new(Deck::make(
            run, PATH, &targets, &key, &mix,
        ))))
    })
    .await
}

fn due_within(per_second: f64, within: Duration) -> usize {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate times seconds is small"
    )]
    {
        (per_second * within.as_secs_f64()) as usize
    }
}
