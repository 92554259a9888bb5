//! Whether the tenants of a plan stay within what each may declare.

use ackline_catalog::plan::{Content, Plan};
use ackline_catalog::quota::Limits;
use ackline_catalog::stored::Stored;

/// Every limit that some tenant would newly go beyond, one sentence each.
pub fn mistakes(plan: &Plan, stored: &Stored, limits: &Limits) -> Vec<String> {
    let (before, _) = stored.snapshot();
    let mut after = before.clone();
    for change in &plan.changes {
        let folded = match &change.content {
            Content::DataKey(_) => Ok(()),
            Content::Part(part) => after.fold(&change.key, Some(&part.to_json())),
            Content::Nothing => after.fold(&change.key, None),
        };
        // A part that was read as one reads back; what would not is for the checks of the document.
        drop(folded);
    }
    let tenants = after.tenants.keys().map(|tenant| {
        let excesses = limits.excesses(&before.sizes(tenant), &after.sizes(tenant));
        excesses
            .into_iter()
            .map(move |excess| format!("tenant {tenant}: {excess}"))
    });
    tenants.flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_catalog::fixture::limits;
    use ackline_catalog::ownership::Owns;
    use ackline_catalog::part::Part;
    use ackline_catalog::{plan, samples};
    use ackline_shared::vault::VaultKey;

    #[test]
    fn a_plan_that_makes_a_tenant_too_large_is_told_with_every_limit() {
        let mut document = samples::document();
        let master = VaultKey::generate();
        let reported = |document: &ackline_shared::model::Document, limits: &Limits| {
            let (parts, owns) = (Part::all_of(document), Owns::default());
            let plan = plan::plan(parts, &Stored::default(), &master, &owns, false).unwrap();
            mistakes(&plan, &Stored::default(), limits)
        };
        assert_eq!(reported(&document, &limits(&[])), Vec::<String>::new());
        let second = document.bots[0].clone();
        document.bots.push(ackline_shared::model::Bot {
            id: ackline_shared::ids::EntityId::new("two").unwrap(),
            ..second
        });
        let reported = reported(
            &document,
            &limits(&[("BOTS_MAX", "1"), ("TENANT_BYTES_MAX", "1KiB")]),
        );
        assert_eq!(reported.len(), 2, "{reported:?}");
        assert!(
            reported[0].starts_with("tenant acme: bots: 2 are more than the 1 of limits.bots_max"),
            "{reported:?}"
        );
    }
}
