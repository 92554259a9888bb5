//! Open loop: requests start when they are due, whether or not earlier ones are answered.
//!
//! Latency counts from the moment a request was due, so a server that stalls is charged for everything that
//! had to wait. One thread sleeps and writes (tokio's timer is a millisecond coarse), one reads.

use super::answer::{Answer, parse};
use super::ledger::Ledger;
use super::tally::Tally;
use anyhow::{Context, Result, bail};
use std::io::{ErrorKind, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::task::JoinSet;

/// How long a write waits before it tries a full socket again.
const FULL_SOCKET_PAUSE: Duration = Duration::from_micros(100);

/// How to send a deck.
#[derive(Debug, Clone)]
pub struct Open {
    pub address: SocketAddr,
    /// Connections; a request that is due waits, on the clock, while all are busy.
    pub connections: usize,
    /// Requests due in a second.
    pub per_second: f64,
    pub within: Duration,
}

/// When a request is due: a pure clock.
pub fn due(place: usize, per_second: f64) -> Duration {
    Duration::from_secs_f64(super::tally::count(place as u64) / per_second.max(1e-3))
}

struct Wire {
    stream: TcpStream,
    due: AtomicU64,
    place: AtomicUsize,
}

impl Open {
    /// Sends the deck and blocks the caller until every answer is there or late.
    ///
    /// # Errors
    /// When connections cannot be opened or all of them were lost.
    pub fn run(&self, ledger: &Arc<Ledger>) -> Result<Tally> {
        let wires = self.connect()?;
        let (idle, idle_again) = channel();
        for place in 0..wires.len() {
            idle.send(place)
                .context("filling the list of idle connections")?;
        }
        let tally = Arc::new(Mutex::new(Tally::new()));
        let reader = {
            let (wires, ledger, tally) = (wires.clone(), ledger.clone(), tally.clone());
            std::thread::spawn(move || read_all(&wires, &ledger, &tally, &idle))
        };
        let started = Instant::now();
        let sent = self.write_all(&wires, ledger, &idle_again, started);
        let settled = sent.and_then(|()| settle(&idle_again, wires.len()));
        for wire in wires.iter() {
            // Ends the readers; fails only when the server closed first.
            let _ = wire.stream.shutdown(std::net::Shutdown::Both);
        }
        let elapsed = started.elapsed();
        let read = reader
            .join()
            .map_err(|_| anyhow::anyhow!("the reading thread panicked"))?;
        settled.and(read)?;
        let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner).clone();
        tally.took(elapsed);
        Ok(tally)
    }

    fn connect(&self) -> Result<Arc<Vec<Wire>>> {
        let mut wires = Vec::with_capacity(self.connections);
        for _ in 0..self.connections.max(1) {
            let stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5));
            let stream = stream.with_context(|| format!("connecting to {}", self.address))?;
            stream.set_nodelay(true)?;
            stream.set_nonblocking(true)?;
            wires.push(Wire {
                stream,
                due: AtomicU64::new(0),
                place: AtomicUsize::new(0),
            });
        }
        Ok(Arc::new(wires))
    }

    #[allow(
        clippy::disallowed_methods,
        reason = "a thread of its own, off the runtime"
    )]
    fn write_all(
        &self,
        wires: &[Wire],
        ledger: &Ledger,
        idle: &Receiver<usize>,
        started: Instant,
    ) -> Result<()> {
        let offset = ledger.now();
        for place in 0..ledger.deck().len() {
            let due = due(place, self.per_second);
            // What cannot keep up would otherwise be offered the whole deck at its own pace.
            if due > self.within || started.elapsed() > self.within * 2 {
                break;
            }
            if let Some(wait) = due.checked_sub(started.elapsed()) {
                std::thread::sleep(wait);
            }
            let wire = match idle.recv_timeout(super::ANSWER_WITHIN) {
                Ok(wire) => wires
                    .get(wire)
                    .context("an idle connection that does not exist")?,
                Err(RecvTimeoutError::Timeout) => bail!("no connection became idle in time"),
                Err(RecvTimeoutError::Disconnected) => bail!("the server closed all connections"),
            };
            wire.due
                .store(offset + u64::try_from(due.as_nanos())?, Ordering::Release);
            wire.place.store(place, Ordering::Release);
            ledger.sending(place);
            // A connection that fails here is counted by its reader, which sees the end too.
            let _ = write_whole(
                &wire.stream,
                ledger.deck().request(place).unwrap_or_default(),
            );
        }
        Ok(())
    }
}

/// Waits until every connection is idle: all answers are there.
fn settle(idle: &Receiver<usize>, connections: usize) -> Result<()> {
    let deadline = Instant::now() + super::ANSWER_WITHIN;
    for _ in 0..connections {
        match idle.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(_) => {}
            // What has no answer by now is counted as a failure by its reader.
            Err(_) => break,
        }
    }
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "a thread of its own, off the runtime"
)]
fn write_whole(mut stream: &TcpStream, mut bytes: &[u8]) -> std::io::Result<()> {
    let deadline = Instant::now() + super::ANSWER_WITHIN;
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::WouldBlock && Instant::now() < deadline => {
                std::thread::sleep(FULL_SOCKET_PAUSE);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn read_all(
    wires: &Arc<Vec<Wire>>,
    ledger: &Arc<Ledger>,
    tally: &Arc<Mutex<Tally>>,
    idle: &Sender<usize>,
) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.context("starting the reader's runtime")?;
    runtime.block_on(async {
        let mut readers = JoinSet::new();
        for wire in 0..wires.len() {
            let (wires, ledger, tally, idle) =
                (wires.clone(), ledger.clone(), tally.clone(), idle.clone());
            readers.spawn(async move { read_one(wire, &wires, &ledger, &tally, &idle).await });
        }
        while readers.join_next().await.is_some() {}
    });
    Ok(())
}

async fn read_one(
    index: usize,
    wires: &[Wire],
    ledger: &Ledger,
    tally: &Mutex<Tally>,
    idle: &Sender<usize>,
) -> Option<()> {
    let wire = wires.get(index)?;
    let mut stream = tokio::net::TcpStream::from_std(wire.stream.try_clone().ok()?).ok()?;
    let mut buffer = Vec::with_capacity(1024);
    let mut counted = 0;
    loop {
        let read = stream.read_buf(&mut buffer).await;
        let (due, place) = (
            wire.due.load(Ordering::Acquire),
            wire.place.load(Ordering::Acquire),
        );
        let count = |answer: Option<u16>| {
            let mut tally = tally.lock().unwrap_or_else(PoisonError::into_inner);
            match answer {
                Some(status) => {
                    tally.answered(
                        status,
                        Duration::from_nanos(ledger.now().saturating_sub(due)),
                    );
                }
                None => tally.failed(),
            }
        };
        match (read, parse(&buffer)) {
            (Ok(1..), Answer::Partial) => {}
            (
                Ok(1..),
                Answer::Complete {
                    status,
                    bytes,
                    close,
                },
            ) => {
                counted = due;
                count(Some(status));
                if (200..300).contains(&status) {
                    ledger.acknowledged(place);
                }
                buffer.drain(..bytes);
                if close {
                    return None;
                }
                idle.send(index).ok()?;
            }
            // The end after the last answer is the end of the run; before it, a delivery has no answer.
            _ => {
                if due != counted {
                    count(None);
                }
                return None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::deck::{Deck, Mix, Target};
    use ackline_shared::signature::SigningKey;
    use std::io::Read;
    use std::net::TcpListener;

    #[test]
    fn requests_are_due_at_even_distances() {
        assert_eq!(due(0, 1_000.0), Duration::ZERO);
        assert_eq!(due(500, 1_000.0), Duration::from_millis(500));
    }

    /// A server that answers its first request only after a pause.
    #[allow(
        clippy::disallowed_methods,
        reason = "a thread of its own, off the runtime"
    )]
    fn stalling(pause: Duration) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut pause = Some(pause);
            let mut bytes = [0; 4096];
            while matches!(stream.read(&mut bytes), Ok(1..)) {
                std::thread::sleep(pause.take().unwrap_or_default());
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n");
            }
        });
        address
    }

    #[test]
    fn a_stall_is_charged_to_every_request_that_was_due_meanwhile() {
        let pause = Duration::from_millis(300);
        let target = Target {
            phone_number_id: "1".into(),
            waba_id: "2".into(),
        };
        let deck = Deck::make(
            1,
            "/",
            &[target],
            &SigningKey::from_bytes(b"k"),
            &Mix::texts(3),
        );
        let ledger = Ledger::open(Arc::new(deck));
        let open = Open {
            address: stalling(pause),
            connections: 1,
            per_second: 10.0,
            within: Duration::from_secs(5),
        };
        let tally = open.run(&ledger).unwrap();
        assert_eq!((tally.accepted(), tally.failures()), (3, 0));
        // Due at 0, 100 and 200 ms, answered at 300 ms or later: a closed loop would call the last two fast.
        assert!(
            tally.quantile_us(0.0) >= 90_000.0,
            "{}",
            tally.quantile_us(0.0)
        );
    }
}
