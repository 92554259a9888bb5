//! What processes still say of what is not declared any more: nobody can mend it, so it is no finding.

use ackline_fleet::fleet::PoolSum;
use ackline_shared::ids::PhoneNumberId;
use ackline_shared::registry::Snapshot;

/// Takes out downstreams and tenants that were removed from the configuration.
pub fn forget(sums: &mut [PoolSum], snapshot: &Snapshot) {
    for sum in sums {
        let named = sum.breakers.len();
        sum.breakers
            .retain(|breaker| is_declared(&breaker.downstream, snapshot));
        sum.breakers_open = less(sum.breakers_open, named - sum.breakers.len());
        sum.slow.retain(|name| is_declared(name, snapshot));
        let held = |sum: &PoolSum| sum.tenants.iter().filter(|tenant| tenant.is_held()).count();
        let before = held(sum);
        sum.tenants
            .retain(|tenant| !tenant.is_held() || snapshot.tenants.contains_key(&tenant.tenant));
        sum.tenants_held = less(sum.tenants_held, before - held(sum));
    }
}

fn less(count: u64, gone: usize) -> u64 {
    count.saturating_sub(u64::try_from(gone).unwrap_or(u64::MAX))
}

fn is_declared(downstream: &str, snapshot: &Snapshot) -> bool {
    match downstream.split_once('.') {
        Some(("relay", _)) => snapshot.relays.contains_key(downstream),
        Some(("endpoint", _)) => snapshot.endpoints.contains_key(downstream),
        Some(("crm", _)) => snapshot.crm_links.contains_key(downstream),
        Some(("number", id)) => {
            PhoneNumberId::new(id).is_ok_and(|id| snapshot.phone_numbers.contains_key(&id))
        }
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_fleet::fixture::{snapshot as reported, status};
    use ackline_fleet::fleet::Fleet;
    use ackline_runtime::status::TenantStatus;
    use ackline_runtime::status::held::{OpenBreaker, Turned};
    use ackline_shared::ids::TenantId;
    use ackline_shared::subjects::Pool;
    use tokio::time::Instant;

    #[test]
    fn what_was_removed_from_the_configuration_is_not_told_any_more() {
        let mut relay = status(Pool::Relay, 0..4);
        let open = |name: &str| OpenBreaker {
            downstream: name.to_owned(),
            open_ms: 1,
            next_ms: 0,
        };
        let names = [
            "relay.acme.gone",
            "relay.acme.bot",
            "endpoint.acme.e",
            "crm.acme.c",
            "number.7",
            "number.8",
            "graph",
        ];
        relay.breakers = names.iter().map(|name| open(name)).collect();
        relay.breakers_open = 9;
        relay.slow = vec!["relay.acme.bot".to_owned(), "relay.acme.gone".to_owned()];
        let held = |name: &str| {
            let turned = Some(Turned {
                paused: true,
                ..Turned::default()
            });
            TenantStatus {
                turned,
                ..TenantStatus::of(TenantId::new(name).unwrap())
            }
        };
        relay.tenants = vec![
            held("acme"),
            held("gone"),
            TenantStatus::of(TenantId::unrouted()),
        ];
        relay.tenants_held = 2;
        let mut fleet = Fleet::default();
        fleet.hear(reported("one", 1, vec![relay]), Instant::now());
        let mut sums = fleet.pools();
        let mut snapshot = Snapshot::default();
        for (key, value) in [
            ("tenant.acme", r#"{"id":"acme","name":"A"}"#),
            (
                "relay.acme.bot",
                r#"{"id":"bot","tenant":"acme","url":"https://b"}"#,
            ),
            (
                "phone.7",
                r#"{"id":"7","tenant":"acme","app":"a","waba_id":"W","access_token":"t"}"#,
            ),
        ] {
            snapshot.fold(key, Some(value.as_bytes())).unwrap();
        }
        forget(&mut sums, &snapshot);
        let mut left: Vec<&str> = sums[0]
            .breakers
            .iter()
            .map(|one| one.downstream.as_str())
            .collect();
        left.sort_unstable();
        assert_eq!(left, ["graph", "number.7", "relay.acme.bot"]);
        assert_eq!(
            (sums[0].breakers_open, sums[0].tenants_held),
            (5, 1),
            "two are not named"
        );
        assert_eq!(sums[0].slow, ["relay.acme.bot"]);
        let tenants: Vec<&str> = sums[0]
            .tenants
            .iter()
            .map(|tenant| tenant.tenant.as_str())
            .collect();
        assert!(
            tenants.contains(&"acme") && !tenants.contains(&"gone") && tenants.len() == 2,
            "{tenants:?}"
        );
    }
}
