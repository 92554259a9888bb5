//! Times the edge's signature check and JSON scan beside other libraries, in turns on the same input, and prints
//! a table.
//!
//! Every candidate of a comparison runs once in each round, so that a change of the machine's mood meets all of
//! them; the medians over the rounds are what is printed.

mod bodies;
mod readers;
mod signatures;

use anyhow::{Result, ensure};
use std::hint::black_box;
use std::time::{Duration, Instant};

const ROUNDS: usize = 101;
const TURN: Duration = Duration::from_millis(5);

/// One way to do a job.
struct Candidate<'a> {
    name: &'static str,
    run: Box<dyn FnMut() + 'a>,
}

impl<'a> Candidate<'a> {
    fn new<T>(name: &'static str, mut job: impl FnMut() -> T + 'a) -> Self {
        Self {
            name,
            run: Box::new(move || drop(black_box(job()))),
        }
    }
}

fn main() -> Result<()> {
    let message = bodies::message();
    let batch = bodies::batch(3 << 20);
    println!("| job | bytes | code | median | GB/s | against ours |\n|---|---|---|---|---|---|");
    for body in [&message, &batch] {
        compare("HMAC-SHA256", body.len(), signatures::candidates(body)?);
    }
    for body in [&message, &batch] {
        compare("read", body.len(), readers::candidates(body)?);
    }
    println!(
        "\n| code | damaged bodies accepted that serde_json refuses | refused that it accepts |\n|---|---|---|"
    );
    for (name, accepted, refused) in readers::verdicts(&message) {
        println!("| {name} | {accepted} | {refused} |");
    }
    ensure!(
        message.len() > 900 && batch.len() >= 3 << 20,
        "the bodies are not of the size they stand for"
    );
    Ok(())
}

/// Times the candidates in turns and prints a row for each; the first is ours.
fn compare(job: &str, bytes: usize, mut candidates: Vec<Candidate<'_>>) {
    let repeats: Vec<u32> = candidates.iter_mut().map(repeats).collect();
    let mut times = vec![Vec::with_capacity(ROUNDS); candidates.len()];
    for _ in 0..ROUNDS {
        for ((candidate, repeats), times) in candidates.iter_mut().zip(&repeats).zip(&mut times) {
            times.push(time(candidate, *repeats));
        }
    }
    let medians: Vec<f64> = times.iter_mut().map(|times| median(times)).collect();
    for (candidate, median) in candidates.iter().zip(&medians) {
        let rate = bytes as f64 / median / 1e9;
        println!(
            "| {job} | {bytes} | {} | {:.2} µs | {rate:.2} | {:.2} |",
            candidate.name,
            median * 1e6,
            median / medians[0]
        );
    }
}

/// How often a job fits into a turn.
fn repeats(candidate: &mut Candidate<'_>) -> u32 {
    let mut repeats = 1;
    loop {
        let taken = time(candidate, repeats) * f64::from(repeats);
        if taken >= TURN.as_secs_f64() || repeats >= 1 << 20 {
            return repeats;
        }
        repeats *= 2;
    }
}

/// Seconds a run of the job.
fn time(candidate: &mut Candidate<'_>, repeats: u32) -> f64 {
    let start = Instant::now();
    for _ in 0..repeats {
        (candidate.run)();
    }
    start.elapsed().as_secs_f64() / f64::from(repeats)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
