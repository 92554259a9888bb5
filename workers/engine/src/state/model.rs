//! Generated histories against a small world: everything that was published takes effect at each of its targets, once
//! and in order, whatever happens on the way.
//!
//! The world holds what the broker holds (the stream, consumers, spill queues, records) and plays the targets. Every
//! action of the machine is on its way until a step of the history lets it end, fail or get lost, so that a process
//! can end between any two of them.

use super::super::scheduler::{Rules, Share};
use super::*;
use proptest::prelude::*;
use std::collections::HashSet;

mod checks;
mod owners;
mod way;
mod world;

use world::{Step, TENANT_CAP_MAX, World};

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0..2_u8, 0..3_u8).prop_map(|(tenant, conversation)| Step::Publish { tenant, conversation }),
        14 => (0..12_usize).prop_map(Step::End),
        2 => (0..12_usize).prop_map(Step::Fail),
        5 => (0..4_u8, 0..4_u8).prop_map(|(target, state)| Step::Target { target, state }),
        5 => (0..6_u8).prop_map(Step::Pass),
        1 => (0..2_usize).prop_map(Step::Crash),
        1 => (0..2_u8).prop_map(Step::Lose),
        1 => (0..2_u8).prop_map(Step::Interrupt),
        1 => any::<bool>().prop_map(Step::Broker),
        1 => (0..2_u8, 0..5_u8).prop_map(|(tenant, how)| Step::Turn { tenant, how }),
        1 => (1..7_usize, 1..=TENANT_CAP_MAX, any::<bool>())
            .prop_map(|(permits, tenant_cap, paused)| Step::Tune { permits, tenant_cap, paused }),
        1 => Just(Step::Sweep),
    ]
}

fn histories() -> u32 {
    std::env::var("MODEL_HISTORIES")
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: histories(),
        max_shrink_iters: 2_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn everything_takes_effect_once_and_in_order_at_each_target(
        steps in proptest::collection::vec(step(), 1..80),
        targets_work in any::<bool>(),
    ) {
        if let Err(wrong) = live(&steps, targets_work, &mut World::new()) {
            let mut traced = World { trace: Some(Vec::new()), ..World::new() };
            let again = live(&steps, targets_work, &mut traced);
            let trace = traced.trace.unwrap_or_default().join("\n");
            return Err(TestCaseError::fail(format!("{wrong}\n{trace}\n{again:?}")));
        }
    }
}

/// Lets a history happen.
fn live(steps: &[Step], targets_work: bool, world: &mut World) -> Result<(), String> {
    for step in steps {
        world.take(step)?;
    }
    world.finish(targets_work)
}
