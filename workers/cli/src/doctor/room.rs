//! Checks how near tenants are to what they may declare.

use super::finding::Finding;
use ackline_catalog::quota::Limits;
use ackline_shared::registry::Snapshot;

/// From here on it is told, in percent.
const PERCENT_MIN: u64 = 80;
const NAMED_MAX: usize = 5;

/// Looks at what each tenant uses.
pub fn check(snapshot: &Snapshot, limits: &Limits) -> Vec<Finding> {
    let near = snapshot.tenants.keys().filter_map(|tenant| {
        let used = limits.used(&snapshot.sizes(tenant)).into_iter();
        let near = used.filter(|(_, one)| {
            one.used.saturating_mul(100) >= one.limit.saturating_mul(PERCENT_MIN)
        });
        let near: Vec<String> = near
            .map(|(what, one)| format!("{what} {} of {}", one.used, one.limit))
            .collect();
        (!near.is_empty()).then(|| format!("tenant {tenant}: {}", near.join(", ")))
    });
    let near: Vec<String> = near.collect();
    match near.len() {
        0 if snapshot.tenants.is_empty() => Vec::new(),
        0 => vec![Finding::ok(
            "limits",
            "every tenant has room for what it declares",
        )],
        count => {
            let named = near
                .get(..count.min(NAMED_MAX))
                .unwrap_or_default()
                .join("; ");
            let more = if count > NAMED_MAX {
                format!("; and {} more", count - NAMED_MAX)
            } else {
                String::new()
            };
            let finding = Finding::warn("limits", format_args!("nearly used up: {named}{more}"));
            vec![finding.hint("delete what is not needed, or raise the keys in [limits]")]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use ackline_catalog::fixture::limits;

    #[test]
    fn tenants_that_are_near_a_limit_are_named() {
        let mut snapshot = Snapshot::default();
        assert_eq!(check(&snapshot, &limits(&[])), []);
        for (key, value) in [
            ("tenant.acme", r#"{"id":"acme","name":"A"}"#),
            ("tenant.b", r#"{"id":"b","name":"B"}"#),
            ("bot.acme.b", r#"{"id":"b","tenant":"acme","flows":["f"]}"#),
        ] {
            snapshot.fold(key, Some(value.as_bytes())).unwrap();
        }
        assert_eq!(check(&snapshot, &limits(&[]))[0].level, Level::Ok);
        let near = check(&snapshot, &limits(&[("BOTS_MAX", "1")])).remove(0);
        assert_eq!(
            (near.level, near.message.as_str()),
            (Level::Warn, "nearly used up: tenant acme: bots 1 of 1")
        );
    }
}
