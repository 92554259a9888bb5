//! Plays turns on whoever answers them, ours or a peer, and keeps account of every one.

use super::super::rig::APP_SECRET;
use super::super::workers::phone;
use super::super::{blocking, rounded};
use super::graph::Graph;
use super::takeover::Served;
use crate::load::open::due;
use crate::load::tally::count;
use crate::load::{Closed, Deck, Ledger, Mix, Open, Target};
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Business numbers, each of a tenant of its own; 80 messages a second each are more than the machine does.
pub const NUMBERS: usize = 100;
const OPEN_CONNECTIONS: usize = 128;
const CLOSED_CONNECTIONS: usize = 64;
/// Turns under way at once when as many as possible are played.
pub const IN_FLIGHT: usize = 256;
const ASK_EVERY: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub struct Player {
    graph: Arc<Graph>,
    address: SocketAddr,
    path: &'static str,
    decks: Vec<Played>,
}

/// Turns that were sent, and what came of them.
#[derive(Debug, Clone)]
pub struct Played {
    first: u32,
    ledger: Arc<Ledger>,
    /// Every answer to the webhooks, in words.
    pub answers: String,
}

/// What became of turns.
#[derive(Debug, Clone, Copy, Default)]
pub struct Account {
    /// Turns whose webhook was answered 200.
    pub turns: u64,
    pub lost: u64,
    pub doubled: u64,
    /// Replies to webhooks that were not answered 200, which is allowed: Meta sends them again.
    pub unacknowledged: u64,
}

impl Player {
    pub fn new(graph: Arc<Graph>, address: SocketAddr, path: &'static str) -> Self {
        Self {
            graph,
            address,
            path,
            decks: Vec::new(),
        }
    }

    /// Sends so many webhooks a second, evenly.
    pub async fn even(&mut self, per_second: f64, within: Duration) -> Result<Played> {
        let (first, ledger) = self.deal(due_within(per_second, within)).await?;
        let (load, sent) = (
            Open {
                address: self.address,
                connections: OPEN_CONNECTIONS,
                per_second,
                within,
            },
            ledger.clone(),
        );
        let tally = blocking(move || load.run(&sent)).await?;
        if ledger.sent_at(0).is_none() {
            bail!("nothing was sent");
        }
        Ok(self.keep(first, ledger, tally.answers()))
    }

    /// Sends as many webhooks as are answered at the Graph API, so many at once; `watch` goes on beside it.
    pub async fn most<T>(
        &mut self,
        at_once: usize,
        per_second_max: usize,
        within: Duration,
        watch: impl Future<Output = Result<T>>,
    ) -> Result<(Played, T)> {
        let seconds = usize::try_from(within.as_secs()).unwrap_or(usize::MAX);
        let (first, ledger) = self.deal(per_second_max.saturating_mul(seconds)).await?;
        let gate = self.graph.gate().clone();
        gate.forget_permits(gate.available_permits());
        gate.add_permits(at_once);
        let load = Closed {
            gate: Some(gate),
            ..Closed::new(self.address, CLOSED_CONNECTIONS, within)
        };
        let sent = ledger.clone();
        let playing = tokio::spawn(blocking(move || load.run(&sent)));
        let watched = watch.await?;
        let tally = playing.await.context("the load ended early")??;
        if ledger.acked() == u64::from(ledger.deck().updates()) {
            bail!(
                "{} turns were too few for {within:?}",
                ledger.deck().updates()
            );
        }
        Ok((self.keep(first, ledger, tally.answers()), watched))
    }

    async fn deal(&self, turns: usize) -> Result<(u32, Arc<Ledger>)> {
        let (first, run) = self.graph.reserve(u32::try_from(turns)?);
        let path = self.path;
        let dealt = blocking(move || {
            let targets: Vec<_> = (0..NUMBERS)
                .map(|number| Target {
                    phone_number_id: phone(number),
                    waba_id: format!("W{number}"),
                })
                .collect();
            let key = SigningKey::new(&Secret::new(APP_SECRET.to_owned()));
            let mix = Mix::turns(first, turns);
            Ok(Ledger::open(Arc::new(Deck::make(
                run, path, &targets, &key, &mix,
            ))))
        });
        Ok((first, dealt.await?))
    }

    fn keep(&mut self, first: u32, ledger: Arc<Ledger>, answers: String) -> Played {
        let played = Played {
            first,
            ledger,
            answers,
        };
        self.decks.push(played.clone());
        played
    }

    /// Waits until each of these turns is answered whose webhook was; some may be left when the time is up.
    pub async fn answered(&self, played: &Played, deadline: Instant) {
        let is_open = |serial: u32| {
            played.ledger.acked_at(serial).is_some()
                && self.graph.answer(played.first + serial).at.is_none()
        };
        while (0..played.ledger.deck().updates()).any(is_open) && Instant::now() < deadline {
            sleep(ASK_EVERY).await;
        }
    }

    /// From the moment each webhook was due, at this rate, until its reply reached the Graph API.
    pub fn waits(&self, played: &Played, per_second: f64) -> Vec<Duration> {
        let ledger = &played.ledger;
        let wait = |serial: u32| {
            ledger.acked_at(serial)?;
            let at = self.graph.answer(played.first + serial).at?;
            let due = ledger.sent_at(0)? + due(usize::try_from(serial).ok()?, per_second);
            Some(at.saturating_duration_since(due))
        };
        (0..ledger.deck().updates()).filter_map(wait).collect()
    }

    /// How many of these turns were answered between two moments.
    pub fn answered_within(&self, played: &Played, from: Instant, until: Instant) -> u64 {
        let at = |serial: u32| self.graph.answer(played.first + serial).at;
        let turns = (0..played.ledger.deck().updates()).filter_map(at);
        turns.filter(|at| (from..until).contains(at)).count() as u64
    }

    /// When each partition answered the first turn that was sent after a moment.
    pub fn served_after(
        &self,
        played: &Played,
        moment: Instant,
        partition_of: fn(u32) -> Option<u16>,
    ) -> Served {
        let mut served = Served::new();
        for serial in 0..played.ledger.deck().updates() {
            let is_later = played.ledger.sent_at(serial) > Some(moment);
            let at = self.graph.answer(played.first + serial).at;
            let partition = partition_of(played.ledger.deck().conversation(serial));
            if let (true, Some(at), Some(partition)) = (is_later, at, partition) {
                let first = served.entry(partition).or_insert(at);
                *first = at.min(*first);
            }
        }
        served
    }

    /// Holds what was acknowledged so far against what reached the Graph API.
    pub fn account(&self) -> Account {
        let mut account = Account::default();
        for played in &self.decks {
            for serial in 0..played.ledger.deck().updates() {
                let times = self.graph.answer(played.first + serial).times;
                let is_acked = played.ledger.acked_at(serial).is_some();
                account.turns += u64::from(is_acked);
                account.lost += u64::from(is_acked && times == 0);
                account.doubled += u64::from(times.saturating_sub(1));
                account.unacknowledged += u64::from(!is_acked && times > 0);
            }
        }
        account
    }
}

impl Played {
    /// Turns whose webhook was answered 200.
    pub fn turns(&self) -> u64 {
        self.ledger.acked()
    }

    /// Who wrote, by turn.
    pub fn people(&self) -> impl Iterator<Item = u32> {
        let deck = self.ledger.deck();
        (0..deck.updates()).map(|serial| deck.conversation(serial))
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

/// CPU time of a turn in microseconds, when so many took so much.
pub fn cpu_us(used: Duration, turns: u64) -> f64 {
    rounded(used.as_secs_f64() * 1e6 / count(turns.max(1)))
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
