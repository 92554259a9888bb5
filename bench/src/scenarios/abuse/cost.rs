//! What the abuse costs: memory and CPU time of each program, looked at once a second.

use super::Phase;
use super::stage::Stage;
use crate::load::Usage;
use anyhow::{Result, bail};
use std::time::Duration;
use tokio::time::Instant;

/// The programs, in the order of their figures.
pub const PROGRAMS: [&str; 4] = ["workers", "edge", "nats-server", "load and targets"];

#[derive(Debug, Default)]
pub struct Costs(Vec<Look>);

#[derive(Debug)]
struct Look {
    at: Instant,
    usages: [Usage; PROGRAMS.len()],
}

impl Costs {
    /// Looks now; an error when a program has ended.
    pub fn look(&mut self, stage: &mut Stage) -> Result<()> {
        if let Some(ended) = stage.crew.ended() {
            bail!("{ended}:\n{}", stage.crew.log_tails());
        }
        let own = Usage {
            cpu: Usage::own_cpu(),
            resident_bytes: 0,
        };
        let usages = [
            stage.crew.usage(),
            stage.crew.edge_usage(),
            stage.crew.broker_usage(),
            own,
        ];
        self.0.push(Look {
            at: Instant::now(),
            usages,
        });
        Ok(())
    }

    /// The highest memory of a program, in megabytes.
    pub fn peak_mb(&self, program: usize) -> f64 {
        peak_mb(self.0.iter(), program)
    }

    /// The highest memory of a program during a phase, in megabytes.
    pub fn peak_mb_within(&self, program: usize, phase: &Phase) -> f64 {
        peak_mb(self.within(phase), program)
    }

    fn within(&self, phase: &Phase) -> impl DoubleEndedIterator<Item = &Look> {
        self.0
            .iter()
            .filter(|look| (phase.began..=phase.ended).contains(&look.at))
    }

    /// How many cores a program took during a phase, on average.
    pub fn cores(&self, program: usize, phase: &Phase) -> f64 {
        let mut within = self.within(phase);
        let (Some(first), Some(last)) = (within.next(), within.next_back()) else {
            return f64::NAN;
        };
        let cpu = |look: &Look| {
            look.usages
                .get(program)
                .map_or(Duration::ZERO, |usage| usage.cpu)
        };
        let took = cpu(last).saturating_sub(cpu(first));
        took.as_secs_f64() / last.at.duration_since(first.at).as_secs_f64()
    }
}

fn peak_mb<'l>(looks: impl Iterator<Item = &'l Look>, program: usize) -> f64 {
    let usages = looks.filter_map(|look| look.usages.get(program));
    usages.map(|usage| usage.resident_mb()).fold(0.0, f64::max)
}

#[cfg(test)]
impl Costs {
    /// One look at which the workers took so much memory.
    pub fn of_workers(at: Instant, megabytes: u64) -> Self {
        let mut usages = [Usage::default(); PROGRAMS.len()];
        usages[0].resident_bytes = megabytes << 20;
        Self(vec![Look { at, usages }])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_the_most_that_was_seen_and_cores_are_of_the_phase() {
        let start = Instant::now();
        let look = |second: u64, mb: u64, cpu_ms: u64| {
            let mut usages = [Usage::default(); PROGRAMS.len()];
            usages[0] = Usage {
                cpu: Duration::from_millis(cpu_ms),
                resident_bytes: mb << 20,
            };
            Look {
                at: start + Duration::from_secs(second),
                usages,
            }
        };
        let costs = Costs(vec![
            look(0, 1, 0),
            look(1, 9, 100),
            look(3, 2, 1_100),
            look(9, 3, 1_100),
        ]);
        let at = |second| start + Duration::from_secs(second);
        let phase = Phase {
            name: "a",
            began: at(1),
            ended: at(4),
        };
        assert!((costs.peak_mb(0) - 9.0).abs() < 1e-9);
        assert!((costs.cores(0, &phase) - 0.5).abs() < 1e-9);
        assert!(
            costs
                .cores(
                    0,
                    &Phase {
                        ended: at(2),
                        ..phase
                    }
                )
                .is_nan(),
            "one look is no difference"
        );
    }
}
