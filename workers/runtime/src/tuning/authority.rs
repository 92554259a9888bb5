//! What whoever operates tenants, and not the installation, may make of a tenant's live settings.
//!
//! Shares are the platform's to give, because they are taken from others; holding a tenant is its own business, until
//! the platform holds it.

use super::{Stamped, TenantTuning};

/// What is wanted is the platform's to decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlatformOnly;

/// What becomes of a request: shares stay as they are set, and what the platform holds stays held.
pub fn bounded(
    stored: Option<&Stamped<TenantTuning>>,
    wanted: TenantTuning,
) -> Result<TenantTuning, PlatformOnly> {
    let set = stored.map(|entry| entry.value.clone()).unwrap_or_default();
    let gives_itself = |wanted: Option<u32>, set: Option<u32>| wanted.is_some() && wanted != set;
    if gives_itself(wanted.weight, set.weight)
        || gives_itself(wanted.in_flight_max, set.in_flight_max)
    {
        return Err(PlatformOnly);
    }
    let lifts = (set.paused && !wanted.paused) || (set.mode.is_some() && wanted.mode != set.mode);
    if lifts && stored.is_some_and(|entry| entry.platform) {
        return Err(PlatformOnly);
    }
    Ok(TenantTuning {
        weight: set.weight,
        in_flight_max: set.in_flight_max,
        ..wanted
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tuning::Mode;

    fn set(platform: bool, value: TenantTuning) -> Stamped<TenantTuning> {
        Stamped {
            value,
            by: "x".to_owned(),
            at_ms: 1,
            platform,
        }
    }

    fn paused() -> TenantTuning {
        TenantTuning {
            paused: true,
            ..TenantTuning::default()
        }
    }

    #[test]
    fn a_tenant_is_held_and_set_going_again_without_its_share_changing() {
        let given = set(
            true,
            TenantTuning {
                weight: Some(20),
                ..TenantTuning::default()
            },
        );
        let held = bounded(Some(&given), paused()).unwrap();
        assert_eq!(
            held,
            TenantTuning {
                weight: Some(20),
                paused: true,
                ..TenantTuning::default()
            }
        );
        let going = bounded(Some(&set(false, held)), TenantTuning::default());
        assert_eq!(going, Ok(given.value));
        assert_eq!(bounded(None, paused()), Ok(paused()));
    }

    #[test]
    fn nobody_gives_itself_a_share() {
        let more = TenantTuning {
            weight: Some(1000),
            ..TenantTuning::default()
        };
        assert_eq!(bounded(None, more.clone()), Err(PlatformOnly));
        assert_eq!(
            bounded(Some(&set(true, more.clone())), more.clone()),
            Ok(more)
        );
        let jobs = TenantTuning {
            in_flight_max: Some(4096),
            ..TenantTuning::default()
        };
        assert_eq!(bounded(None, jobs), Err(PlatformOnly));
    }

    #[test]
    fn what_the_platform_holds_stays_held() {
        let held = set(true, paused());
        assert_eq!(
            bounded(Some(&held), TenantTuning::default()),
            Err(PlatformOnly)
        );
        let drained = set(
            true,
            TenantTuning {
                mode: Some(Mode::Drain),
                ..TenantTuning::default()
            },
        );
        assert_eq!(
            bounded(Some(&drained), TenantTuning::default()),
            Err(PlatformOnly)
        );
        let other = TenantTuning {
            mode: Some(Mode::Discard),
            ..TenantTuning::default()
        };
        assert_eq!(bounded(Some(&drained), other), Err(PlatformOnly));
    }
}
