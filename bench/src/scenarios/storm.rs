//! What a downstream outage does to the webhook: ours against a handler that processes before it answers.
//!
//! The handler is the design most bots have: its 200 waits for the system behind it. Meta retries what got no
//! 200, so the handler's outage comes back to it as load. Ours has stored and answered before anything is
//! processed, so the outage happens behind the log.

use super::naive::{self, DOWNSTREAM_TAKES, Downstream, GIVES_UP, WORKERS};
use super::plot::{Series, lines};
use super::rig::{Rig, deal};
use super::statistics::number;
use super::{Bench, rounded};
use crate::load::tally::count;
use crate::load::{Answer, Ledger, Mix, open::due, parse};
use crate::meta::retry::Schedule;
use ackline_shared::nats::Durability;
use anyhow::Result;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

const PER_SECOND: f64 = 100.0;
/// Meta's retries, 50 times as fast: the first at once, then after 0.6 s, 1.2 s, 2.4 s …
const RETRY_SCALE: f64 = 0.02;
/// What the client waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
/// Retries go on this long after the last new webhook.
const TAIL: Duration = Duration::from_secs(10);

/// When the downstream is out, from the start.
#[derive(Debug, Clone, Copy)]
struct Outage {
    from: Duration,
    to: Duration,
    end: Duration,
}

/// One attempt: when it was made, and whether it was accepted.
type Attempt = (Duration, bool);

/// Runs both designs, one after the other.
pub async fn run(bench: &Bench<'_>) -> Result<(Value, bool)> {
    let seconds = |full, quick| Duration::from_secs(bench.options.pick(full, quick));
    let outage = Outage {
        from: seconds(10, 2),
        to: seconds(25, 9),
        end: seconds(40, 12),
    };

    bench.say("the handler that processes first …");
    let naive = naive(bench, outage).await?;
    bench.say("ours …");
    let rig = Rig::start(&bench.root, Durability::Synced).await?;
    let ledger = deck(outage).await?;
    let ours = offer(rig.address(), &ledger, outage).await;
    let verdict = rig.check(&ledger).await?;

    let mut report = bench.report(
        "storm",
        "ours: synced, one node; the handler stores nothing",
    );
    report.paragraph(&format!(
        "{PER_SECOND} webhooks a second; the system behind is out from {:?} to {:?}. Whatever got no 200 is sent again \
         on Meta's schedule, 50 times as fast. The handler, a process of its own, works on {WORKERS} deliveries at once and \
         waits up to {GIVES_UP:?} for the system behind, which normally takes {DOWNSTREAM_TAKES:?}. Ours answers when \
         the update is stored; the pools behind the log wait for the downstream and are not part of this measurement. \
         An attempt counts in the second it began.",
        outage.from, outage.to
    ));
    let row = |name: &str, attempts: &[Attempt]| {
        let accepted = attempts.iter().filter(|attempt| attempt.1).count();
        vec![
            name.to_owned(),
            attempts.len().to_string(),
            accepted.to_string(),
            number(share(attempts)),
        ]
    };
    report.table(
        &["", "offered", "accepted", "share"],
        &[
            row("ackline", &ours),
            row("processes before it answers", &naive),
        ],
    );
    report.paragraph(&format!(
        "Ours, held against the stream: {} acked, {} lost, {} doubled, {} out of order.",
        verdict.acked, verdict.lost, verdict.doubled, verdict.out_of_order
    ));
    for (name, title, attempts) in [
        ("ours", "ackline", &ours),
        (
            "naive",
            "a handler that processes before it answers",
            &naive,
        ),
    ] {
        let series = [
            series("offered a second", attempts, |_| true),
            series("accepted a second", attempts, |ok| ok),
        ];
        let marks = [outage.from, outage.to]
            .map(|at| at.as_secs_f64())
            .into_iter()
            .zip(["out", "back"]);
        let marks: Vec<_> = marks.map(|(at, word)| (at, word.to_owned())).collect();
        report.plot(
            name,
            lines(title, "seconds", "webhooks a second", &series, &marks),
        );
    }
    bench.say(&format!("report: {}", report.write()?.display()));
    let figures = json!({
        "ours_accepted_share": rounded(share(&ours)), "naive_accepted_share": rounded(share(&naive)),
    });
    Ok((figures, verdict.is_clean()))
}

async fn deck(outage: Outage) -> Result<Arc<Ledger>> {
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a rate times seconds is small"
    )]
    let webhooks = (PER_SECOND * outage.end.as_secs_f64()) as usize;
    deal(Mix::texts(webhooks)).await
}

/// Offers a deck to the handler, whose downstream is out for a while.
async fn naive(bench: &Bench<'_>, outage: Outage) -> Result<Vec<Attempt>> {
    let ledger = deck(outage).await?;
    let downstream = Downstream::start().await?;
    let handler = naive::start(&bench.root, downstream.address()).await?;
    let (attempts, ()) = tokio::join!(
        offer(handler.address(), &ledger, outage),
        downstream.go_out(outage.from, outage.to)
    );
    Ok(attempts)
}

/// Sends each webhook when it is due, and again as Meta would, until it is accepted or time is up.
async fn offer(address: SocketAddr, ledger: &Arc<Ledger>, outage: Outage) -> Vec<Attempt> {
    let started = Instant::now();
    let mut webhooks = JoinSet::new();
    for place in 0..ledger.deck().len() {
        sleep_until(started + due(place, PER_SECOND)).await;
        let ledger = ledger.clone();
        webhooks.spawn(async move {
            deliver(address, &ledger, place, started, outage.end + TAIL).await
        });
    }
    let mut attempts: Vec<Attempt> = webhooks.join_all().await.into_iter().flatten().collect();
    attempts.sort();
    attempts
}

async fn deliver(
    address: SocketAddr,
    ledger: &Ledger,
    place: usize,
    started: Instant,
    end: Duration,
) -> Vec<Attempt> {
    let (schedule, first) = (Schedule::new(RETRY_SCALE), Instant::now());
    let mut attempts = Vec::new();
    for failures in 1.. {
        let at = started.elapsed();
        if at > end {
            break;
        }
        ledger.sending(place);
        let request = ledger.deck().request(place).unwrap_or_default();
        let answer = timeout(ANSWER_WITHIN, exchange(address, request)).await;
        let accepted = matches!(answer, Ok(Ok(200..=299)));
        attempts.push((at, accepted));
        if accepted {
            ledger.acknowledged(place);
            break;
        }
        match schedule.after(failures, first.elapsed()) {
            Some(gap) => sleep(gap).await,
            None => break,
        }
    }
    attempts
}

async fn exchange(address: SocketAddr, request: &[u8]) -> std::io::Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut buffer = Vec::with_capacity(1024);
    while stream.read_buf(&mut buffer).await? > 0 {
        match parse(&buffer) {
            Answer::Partial => {}
            Answer::Complete { status, .. } => return Ok(status),
            Answer::Broken => break,
        }
    }
    Err(std::io::ErrorKind::InvalidData.into())
}

fn share(attempts: &[Attempt]) -> f64 {
    let accepted = attempts.iter().filter(|attempt| attempt.1).count();
    count(accepted as u64) / count(attempts.len().max(1) as u64)
}

fn series(name: &str, attempts: &[Attempt], counts: impl Fn(bool) -> bool) -> Series {
    let last = attempts.last().map_or(0, |attempt| attempt.0.as_secs());
    let points = (0..=last).map(|second| {
        let within = |attempt: &&Attempt| attempt.0.as_secs() == second && counts(attempt.1);
        (
            count(second),
            count(attempts.iter().filter(within).count() as u64),
        )
    });
    Series {
        name: name.to_owned(),
        points: points.collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_counts_every_attempt_and_the_series_every_second() {
        let at = |ms, accepted| (Duration::from_millis(ms), accepted);
        let attempts = [
            at(0, true),
            at(500, false),
            at(1_100, true),
            at(2_000, true),
        ];
        assert!((share(&attempts) - 0.75).abs() < 1e-9);
        let accepted = series("accepted", &attempts, |ok| ok);
        assert_eq!(accepted.points, [(0.0, 1.0), (1.0, 1.0), (2.0, 1.0)]);
    }
}
