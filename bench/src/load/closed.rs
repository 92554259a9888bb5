//! Closed loop: each connection sends its next request when the last one is answered.

use super::answer::{Answer, parse};
use super::ledger::Ledger;
use super::tally::Tally;
use anyhow::{Context, Result};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout, timeout_at};

/// How to send a deck.
#[derive(Debug, Clone)]
pub struct Closed {
    pub address: SocketAddr,
    /// Connections, each with the deliveries of its own conversations, one after the other.
    pub connections: usize,
    /// Longest time to send; what is under way is waited for.
    pub within: Duration,
    /// Answers before this count, and their latency does not: all connections begin at once.
    pub settles: Duration,
    /// Sends what was not accepted again after about this wait, until it is or the time is up.
    pub retry_after: Option<Duration>,
    /// Opens a new connection after so many requests.
    pub reconnect_every: Option<u32>,
    /// Takes a permit before each request: who adds them says how much may be under way.
    pub gate: Option<Arc<Semaphore>>,
}

impl Closed {
    pub fn new(address: SocketAddr, connections: usize, within: Duration) -> Self {
        let (settles, retry_after, reconnect_every, gate) = (Duration::ZERO, None, None, None);
        Self {
            address,
            connections,
            within,
            settles,
            retry_after,
            reconnect_every,
            gate,
        }
    }

    /// Sends the deck from one thread of its own; blocks the caller until it is done.
    ///
    /// # Errors
    /// When the runtime cannot start.
    pub fn run(&self, ledger: &Arc<Ledger>) -> Result<Tally> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.context("starting the load generator's runtime")?;
        Ok(runtime.block_on(self.send(ledger)))
    }

    async fn send(&self, ledger: &Arc<Ledger>) -> Tally {
        let started = Instant::now();
        let mut lanes = JoinSet::new();
        for lane in 0..self.connections.max(1) {
            let (plan, ledger) = (self.clone(), ledger.clone());
            lanes.spawn(async move { Lane::new(plan, ledger, started).send(lane).await });
        }
        let mut sum = Tally::new();
        while let Some(lane) = lanes.join_next().await {
            // A lane neither panics nor is cancelled.
            if let Ok(tally) = lane {
                sum.add(&tally);
            }
        }
        sum.took(started.elapsed());
        sum
    }
}

/// One connection at a time, and what it has sent.
struct Lane {
    plan: Closed,
    ledger: Arc<Ledger>,
    settled: Instant,
    end: Instant,
    stream: Option<TcpStream>,
    on_stream: u32,
    buffer: Vec<u8>,
    tally: Tally,
}

impl Lane {
    fn new(plan: Closed, ledger: Arc<Ledger>, started: Instant) -> Self {
        let (settled, end) = (started + plan.settles, started + plan.within);
        Self {
            plan,
            settled,
            ledger,
            end,
            stream: None,
            on_stream: 0,
            buffer: Vec::with_capacity(1024),
            tally: Tally::new(),
        }
    }

    async fn send(mut self, lane: usize) -> Tally {
        let places = (lane..self.ledger.deck().len()).step_by(self.plan.connections.max(1));
        for place in places {
            if !self.may_send().await {
                return self.tally;
            }
            loop {
                if Instant::now() >= self.end {
                    return self.tally;
                }
                if self.deliver(place).await {
                    break;
                }
                match self.plan.retry_after {
                    Some(wait) => sleep(scattered(wait, place, self.tally.attempts())).await,
                    None => break,
                }
            }
        }
        self.tally
    }

    /// Waits for a permit, if they are counted; `false` when the time is up.
    async fn may_send(&self) -> bool {
        let Some(gate) = &self.plan.gate else {
            return true;
        };
        let permit = timeout_at(self.end.into(), gate.acquire()).await;
        permit.is_ok_and(|permit| permit.map(SemaphorePermit::forget).is_ok())
    }

    /// Sends one request and tells whether it was accepted.
    async fn deliver(&mut self, place: usize) -> bool {
        if self
            .plan
            .reconnect_every
            .is_some_and(|every| self.on_stream >= every)
        {
            self.stream = None;
        }
        let started = Instant::now();
        self.ledger.sending(place);
        let answer = match timeout(super::ANSWER_WITHIN, self.exchange(place)).await {
            Ok(Ok(status)) => Some(status),
            Ok(Err(_)) | Err(_) => None,
        };
        let Some(status) = answer else {
            self.stream = None;
            self.tally.failed();
            return false;
        };
        if started < self.settled {
            self.tally.answered_early(status);
        } else {
            self.tally.answered(status, started.elapsed());
        }
        let accepted = (200..300).contains(&status);
        if accepted {
            self.ledger.acknowledged(place);
        }
        accepted
    }

    async fn exchange(&mut self, place: usize) -> std::io::Result<u16> {
        let deck = self.ledger.deck().clone();
        let Some(request) = deck.request(place) else {
            return Err(std::io::ErrorKind::NotFound.into());
        };
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                self.on_stream = 0;
                let stream = TcpStream::connect(self.plan.address).await?;
                stream.set_nodelay(true)?;
                stream
            }
        };
        self.on_stream += 1;
        self.buffer.clear();
        stream.write_all(request).await?;
        loop {
            if stream.read_buf(&mut self.buffer).await? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match parse(&self.buffer) {
                Answer::Partial => {}
                Answer::Complete { status, close, .. } => {
                    if !close {
                        self.stream = Some(stream);
                    }
                    return Ok(status);
                }
                Answer::Broken => return Err(std::io::ErrorKind::InvalidData.into()),
            }
        }
    }
}

/// A wait between a half and one and a half of the one meant, so that those who were turned away together do not
/// come back together; the same in every run.
fn scattered(wait: Duration, place: usize, attempts: u64) -> Duration {
    let mixed = (place as u64)
        .wrapping_add(attempts << 32)
        .wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let thousandth = u32::try_from((mixed >> 32) % 1_000).unwrap_or_default();
    wait / 2 + wait * thousandth / 1_000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_lie_around_the_one_meant_and_differ() {
        let wait = Duration::from_millis(200);
        let waits: Vec<_> = (0..1_000).map(|place| scattered(wait, place, 3)).collect();
        assert!(
            waits
                .iter()
                .all(|one| *one >= wait / 2 && *one <= wait * 3 / 2)
        );
        for tenth in 0..10 {
            let (from, to) = (
                wait / 2 + wait * tenth / 10,
                wait / 2 + wait * (tenth + 1) / 10,
            );
            let within = waits
                .iter()
                .filter(|one| **one >= from && **one < to)
                .count();
            assert!(
                (50..200).contains(&within),
                "{within} of 1000 waits between {from:?} and {to:?}"
            );
        }
    }
}
