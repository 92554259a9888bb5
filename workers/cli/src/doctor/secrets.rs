//! Checks of the stored configuration: secrets open, and every app has what a webhook needs.

use super::finding::Finding;
use ackline_catalog::part::Part;
use ackline_shared::model::{Entity, Kind};
use ackline_shared::registry::{Held, Snapshot};
use ackline_shared::subjects;
use ackline_shared::vault::VaultKey;
use std::collections::BTreeSet;

/// Checks the configuration as stored.
pub fn check(snapshot: &Snapshot, unreadable: &[String], master: &VaultKey) -> Vec<Finding> {
    let mut findings = Vec::new();
    if !unreadable.is_empty() {
        findings.push(
            Finding::fail("configuration", format_args!("cannot be read: {}", unreadable.join(", ")))
                .hint("webhooks of the apps and numbers among them and of the tenants' numbers get 503, which Meta repeats; the rest of them has no effect")
                .hint("`ackline apply FILE` writes them anew; what a newer version of Ackline wrote is read after an upgrade"),
        );
    }
    if snapshot.tenants.is_empty() {
        findings.push(
            Finding::warn("configuration", "no tenant is configured")
                .hint("declare one: `ackline apply FILE`"),
        );
    }
    findings.push(opened(snapshot, master));
    findings.extend(
        snapshot
            .apps
            .values()
            .map(|app| app_is_complete(snapshot, app, master)),
    );
    findings
}

fn opened(snapshot: &Snapshot, master: &VaultKey) -> Finding {
    let (mut count, mut closed) = (0, BTreeSet::new());
    let may_have = |held: &&dyn Held| {
        Kind::of_key(&held.key()).is_some_and(|(kind, _)| !kind.secrets.is_empty())
    };
    let parts = snapshot.all().filter(may_have).filter_map(Part::of);
    for part in parts.filter(Part::has_secrets) {
        let scope = part.scope();
        let data_key = snapshot
            .data_key(scope)
            .map(|sealed| VaultKey::open_under(master, scope, sealed));
        match data_key {
            Some(Ok(key)) => match part.open_secrets(&key) {
                Ok(secrets) => count += secrets.len(),
                Err(_) => drop(closed.insert(part.key())),
            },
            _ => drop(closed.insert(part.key())),
        }
    }
    if closed.is_empty() {
        return Finding::ok(
            "master key",
            format_args!("opens all {count} stored secrets"),
        );
    }
    let names: Vec<String> = closed.into_iter().collect();
    Finding::fail("master key", format_args!("does not open the secrets of {}", names.join(", ")))
        .hint("set secrets.master_key_file to the key this installation was set up with")
        .hint(format_args!(
            "if that key is lost: set a new one, remove the data keys (`nats kv del {} {}`) and apply again",
            subjects::BUCKET_CONFIG,
            subjects::config_key::data_key("…")
        ))
}

fn app_is_complete(
    snapshot: &Snapshot,
    app: &ackline_shared::model::App,
    master: &VaultKey,
) -> Finding {
    let check = format!("app {}", app.id);
    let filled = |field| {
        snapshot
            .open(master, app.scope(), field)
            .is_ok_and(|secret| !secret.expose().is_empty())
    };
    let secrets = app.secrets.iter().filter(|field| filled(field)).count();
    let again = format!(
        "put it into the file under [[apps]] id = \"{}\" and run `ackline apply`",
        app.id
    );
    if secrets == 0 {
        return Finding::fail(check, "has no app secret, so every webhook is refused")
            .hint("copy it from Meta's App Dashboard: App settings, Basic, App secret")
            .hint(again);
    }
    if !filled(&app.verify_token) {
        return Finding::fail(
            check,
            "has no verify token, so Meta cannot register the webhook",
        )
        .hint(again);
    }
    Finding::ok(
        check,
        format_args!(
            "{secrets} app secret(s), verify token set; callback URL: https://<your host>/webhooks/meta/{}",
            app.id
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use ackline_catalog::ownership::Owns;
    use ackline_catalog::{plan, samples, stored};
    use std::sync::Arc;

    fn snapshot(master: &VaultKey) -> Snapshot {
        let parts = Part::all_of(&samples::document());
        let mut snapshot = Snapshot::default();
        let mut keys = std::collections::BTreeMap::new();
        for part in &parts {
            let scope = part.scope().to_owned();
            let key = keys.entry(scope.clone()).or_insert_with(VaultKey::generate);
            let sealed = serde_json::to_vec(&key.seal_under(master, &scope)).unwrap();
            snapshot
                .fold(&subjects::config_key::data_key(&scope), Some(&sealed))
                .unwrap();
            snapshot
                .fold(&part.key(), Some(&part.clone().seal(key, None).unwrap()))
                .unwrap();
        }
        // The same parts against an empty store plan as many writes, so none of them is left out above.
        let plan = plan::plan(
            parts.clone(),
            &stored::Stored::default(),
            master,
            &Owns::default(),
            false,
        )
        .unwrap();
        assert!(plan.changes.len() > parts.len());
        snapshot
    }

    #[test]
    fn the_right_key_opens_everything_and_another_nothing() {
        let master = VaultKey::generate();
        let snapshot = snapshot(&master);
        let findings = check(&snapshot, &[], &master);
        assert!(
            findings.iter().all(|finding| finding.level == Level::Ok),
            "{findings:?}"
        );
        assert!(findings[0].message.contains("all 10 "), "{findings:?}");
        assert!(
            findings[1].message.ends_with("/webhooks/meta/main"),
            "{findings:?}"
        );
        let findings = check(&snapshot, &[], &VaultKey::generate());
        assert!(
            findings.iter().all(|finding| finding.level == Level::Fail),
            "{findings:?}"
        );
    }

    #[test]
    fn an_app_without_secrets_fails_with_what_to_do() {
        let master = VaultKey::generate();
        let mut snapshot = snapshot(&master);
        let app = snapshot.apps.values_mut().next().unwrap();
        Arc::make_mut(app).secrets.clear();
        let finding = check(&snapshot, &["bot.acme.x".to_owned()], &master);
        assert_eq!(finding[0].check, "configuration");
        assert_eq!(finding[2].level, Level::Fail);
        assert!(finding[2].hints[0].contains("App Dashboard"));
    }
}
