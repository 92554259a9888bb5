//! Whether a value may be set: ranges and names, all mistakes at once.

use super::{PoolTuning, TenantTuning};
use crate::adaptive::CONCURRENCY_MAX;
use ackline_engine::scheduler::WEIGHT_MAX;
use std::ops::RangeInclusive;

const COUNT: RangeInclusive<u32> = 1..=CONCURRENCY_MAX;
const WEIGHT: RangeInclusive<u32> = 1..=WEIGHT_MAX;

/// One thing that is wrong with a value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{key}: {detail}")]
pub struct TuningMistake {
    pub key: String,
    /// What is wrong and what would be right.
    pub detail: String,
}

/// Checks what is to be turned of a pool with these lanes and this concurrency as configured; a pool without lanes
/// works in batches.
pub fn check_pool(tuning: &PoolTuning, lanes: &[&str], configured: u32) -> Vec<TuningMistake> {
    let mut mistakes = Vec::new();
    if lanes.is_empty() {
        if *tuning
            != (PoolTuning {
                paused: tuning.paused,
                ..PoolTuning::default()
            })
        {
            mistakes.push(mistake(
                "",
                "this pool works in batches: it can be paused and nothing else",
            ));
        }
        return mistakes;
    }
    within(&mut mistakes, "concurrency", tuning.concurrency, COUNT);
    let concurrency = tuning.concurrency.unwrap_or(configured);
    if let Some(detail) = tuning
        .adaptive
        .and_then(|adaptive| adaptive.beyond(concurrency))
    {
        mistakes.push(mistake("adaptive", &detail));
    }
    within(
        &mut mistakes,
        "tenant_in_flight_max",
        tuning.tenant_in_flight_max,
        COUNT,
    );
    for (lane, weight) in &tuning.lanes {
        let key = format!("lanes.{lane}");
        if lanes.contains(&lane.as_str()) {
            within(&mut mistakes, &key, Some(*weight), WEIGHT);
        } else {
            mistakes.push(mistake(
                &key,
                &format!("no such lane; there are {}", lanes.join(", ")),
            ));
        }
    }
    mistakes
}

/// Checks what is to be turned of a tenant in a pool with these lanes.
pub fn check_tenant(tuning: &TenantTuning, lanes: &[&str]) -> Vec<TuningMistake> {
    let mut mistakes = Vec::new();
    if lanes.is_empty() {
        mistakes.push(mistake(
            "",
            "this pool works in batches of all tenants: nothing can be turned for one",
        ));
    }
    within(&mut mistakes, "weight", tuning.weight, WEIGHT);
    within(&mut mistakes, "in_flight_max", tuning.in_flight_max, COUNT);
    mistakes
}

fn within(
    mistakes: &mut Vec<TuningMistake>,
    key: &str,
    value: Option<u32>,
    range: RangeInclusive<u32>,
) {
    if let Some(value) = value.filter(|value| !range.contains(value)) {
        let detail = format!("{value} is outside {} to {}", range.start(), range.end());
        mistakes.push(mistake(key, &detail));
    }
}

fn mistake(key: &str, detail: &str) -> TuningMistake {
    TuningMistake {
        key: key.to_owned(),
        detail: detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_out_of_range_and_every_unknown_lane_is_named() {
        let tuning = PoolTuning {
            concurrency: Some(0),
            adaptive: "1..2".parse().ok(),
            tenant_in_flight_max: Some(5000),
            lanes: [("bulk".to_owned(), 1), ("msg".to_owned(), 1001)].into(),
            paused: false,
        };
        let mistakes = check_pool(&tuning, &["msg", "sts"], 64);
        let keys: Vec<&str> = mistakes
            .iter()
            .map(|mistake| mistake.key.as_str())
            .collect();
        assert_eq!(
            keys,
            [
                "concurrency",
                "adaptive",
                "tenant_in_flight_max",
                "lanes.bulk",
                "lanes.msg"
            ]
        );
        assert!(mistakes[3].detail.contains("msg, sts"), "{mistakes:?}");
        let tenant = TenantTuning {
            weight: Some(0),
            in_flight_max: Some(1),
            ..TenantTuning::default()
        };
        assert_eq!(check_tenant(&tenant, &["msg"]).len(), 1);
    }

    #[test]
    fn a_range_stays_below_the_concurrency_that_will_be_in_force() {
        let within = |concurrency| {
            let tuning = PoolTuning {
                adaptive: "8..64".parse().ok(),
                concurrency,
                ..PoolTuning::default()
            };
            check_pool(&tuning, &["msg"], 32).is_empty()
        };
        assert_eq!(
            [within(None), within(Some(63)), within(Some(64))],
            [false, false, true]
        );
    }

    #[test]
    fn a_pool_that_works_in_batches_can_only_be_paused() {
        assert_eq!(
            check_pool(
                &PoolTuning {
                    paused: true,
                    ..PoolTuning::default()
                },
                &[],
                1
            ),
            []
        );
        let other = PoolTuning {
            concurrency: Some(1),
            ..PoolTuning::default()
        };
        assert_eq!(check_pool(&other, &[], 1).len(), 1);
        assert_eq!(check_tenant(&TenantTuning::default(), &[]).len(), 1);
    }
}
