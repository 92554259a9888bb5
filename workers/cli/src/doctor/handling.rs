//! Checks of the declared configuration as a whole: numbers nobody works for, and bots that cannot work.

use super::finding::Finding;
use ackline_shared::ids::{PhoneNumberId, TenantId};
use ackline_shared::model::{Bot, Endpoint, PhoneNumber};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::config_key;

/// Looks for what cannot work although each part of it is valid.
pub fn check(snapshot: &Snapshot) -> Vec<Finding> {
    let mut findings: Vec<Finding> = snapshot
        .bots
        .values()
        .filter(|bot| bot.enabled)
        .filter_map(|bot| broken(snapshot, bot))
        .collect();
    findings.extend(
        snapshot
            .phone_numbers
            .values()
            .filter(|phone| !is_handled(snapshot, phone))
            .map(|phone| idle(phone)),
    );
    findings.extend(
        snapshot
            .endpoints
            .values()
            .filter(|endpoint| !endpoint.enabled)
            .map(|endpoint| switched_off(endpoint)),
    );
    if findings.is_empty() && !snapshot.phone_numbers.is_empty() {
        findings.push(Finding::ok(
            "handling",
            "every number has something that works for it",
        ));
    }
    findings
}

fn broken(snapshot: &Snapshot, bot: &Bot) -> Option<Finding> {
    let check = format!("bot {}/{}", bot.tenant, bot.id);
    let has = |flow| {
        snapshot
            .flows
            .contains_key(&config_key::owned("flow", &bot.tenant, flow))
    };
    if let Some(flow) = bot.flows.iter().find(|flow| !has(flow)) {
        return Some(
            Finding::fail(check, format_args!("its flow `{flow}` does not exist"))
                .hint("declare the flow, or take it out of the bot, and run `ackline apply`"),
        );
    }
    let owns = |id: &PhoneNumberId| {
        snapshot
            .phone_numbers
            .get(id)
            .is_some_and(|phone| phone.tenant == bot.tenant)
    };
    let foreign = bot.phone_numbers.iter().find(|id| !owns(id))?;
    Some(
        Finding::fail(
            check,
            format_args!("it answers on {foreign}, which is none of its tenant's numbers"),
        )
        .hint("declare the number for this tenant, or take it out of the bot"),
    )
}

/// Whether anything gets the number's updates; the journal keeps them in any case.
fn is_handled(snapshot: &Snapshot, phone: &PhoneNumber) -> bool {
    let concerns = |enabled: bool, tenant: &TenantId, numbers: &[PhoneNumberId]| {
        enabled && *tenant == phone.tenant && (numbers.is_empty() || numbers.contains(&phone.id))
    };
    snapshot
        .bots
        .values()
        .any(|bot| concerns(bot.enabled, &bot.tenant, &bot.phone_numbers))
        || snapshot
            .relays
            .values()
            .any(|relay| concerns(relay.enabled, &relay.tenant, &relay.phone_numbers))
        || snapshot
            .crm_links
            .values()
            .any(|link| concerns(link.enabled, &link.tenant, &link.phone_numbers))
        || snapshot
            .endpoints
            .values()
            .any(|endpoint| concerns(endpoint.enabled, &endpoint.tenant, &[]))
}

/// Somebody did that, or the endpoint itself by answering 410.
fn switched_off(endpoint: &Endpoint) -> Finding {
    Finding::warn(
        format!("endpoint {}/{}", endpoint.tenant, endpoint.id),
        "it is switched off and gets no events",
    )
    .hint("one that answers 410 is switched off by that; `ackline dead --tenant` shows whether it did")
    .hint("enable it and run `ackline apply`, or delete it")
}

fn idle(phone: &PhoneNumber) -> Finding {
    Finding::warn(
        format!("handling {}", phone.id),
        "no bot, relay, CRM link or endpoint gets its updates",
    )
    .hint("declare one for its tenant, or enable one, and run `ackline apply`")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use serde_json::{Value, json};

    fn installation(more: &[(&str, Value)]) -> Snapshot {
        let phone = json!({"id": "1001", "tenant": "acme", "app": "app", "waba_id": "W", "access_token": "t"});
        let mut snapshot = Snapshot::default();
        for (key, value) in [("phone.1001", phone)].iter().chain(more) {
            snapshot
                .fold(key, Some(value.to_string().as_bytes()))
                .unwrap();
        }
        snapshot
    }

    fn bot(flow: &str, phone: &str, enabled: bool) -> Value {
        json!({"id": "b", "tenant": "acme", "flows": [flow], "phone_numbers": [phone], "enabled": enabled})
    }

    #[test]
    fn what_cannot_work_is_told_with_a_way_on() {
        let flow = json!({"id": "f", "tenant": "acme", "definition": {}});
        let off = json!({"id": "e", "tenant": "acme", "url": "https://e", "secrets": ["whsec_c2VjcmV0c2VjcmV0c2VjcmV0"], "enabled": false});
        let with = |bot: Value| installation(&[("flow.acme.f", flow.clone()), ("bot.acme.b", bot)]);
        for (snapshot, name, level) in [
            (installation(&[]), "handling 1001", Level::Warn),
            (with(bot("f", "1001", true)), "handling", Level::Ok),
            (with(bot("f", "1001", false)), "handling 1001", Level::Warn),
            (with(bot("g", "1001", true)), "bot acme/b", Level::Fail),
            (with(bot("f", "2002", true)), "bot acme/b", Level::Fail),
            (
                installation(&[
                    ("endpoint.acme.e", off),
                    ("bot.acme.b", bot("f", "1001", true)),
                    ("flow.acme.f", flow.clone()),
                ]),
                "endpoint acme/e",
                Level::Warn,
            ),
        ] {
            let finding = check(&snapshot).remove(0);
            assert_eq!(
                (finding.check.as_str(), finding.level),
                (name, level),
                "{finding:?}"
            );
        }
        assert!(check(&Snapshot::default()).is_empty());
    }
}
