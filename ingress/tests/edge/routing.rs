//! Whose an update is, by the declared configuration: numbers, accounts, apps of one tenant, and unreadable entries.

use ackline_ingress::routing::{Route, RoutingTable};
use ackline_ingress_testkit::fixture;
use ackline_shared::registry::Snapshot;
use ackline_shared::vault::VaultKey;
use std::sync::Arc;

#[test]
fn a_number_is_routed_to_its_tenant_and_an_account_change_by_its_account() {
    let table = fixture::table();
    let app = table.app("main").unwrap();
    let tenant = |route| match route {
        Route::Owned(owner) => owner.tenant.to_string(),
        other => format!("{other:?}"),
    };
    assert_eq!(tenant(table.route(app, Some("100"), None)), "acme");
    assert_eq!(tenant(table.route(app, Some("100"), Some("W2"))), "acme");
    assert_eq!(tenant(table.route(app, None, Some("W2"))), "globex");
    assert_eq!(
        tenant(table.route(app, Some("999"), Some("W1"))),
        "Unclaimed"
    );
    assert_eq!(tenant(table.route(app, None, None)), "Unclaimed");
}

#[test]
fn an_app_of_one_tenant_does_not_speak_for_another() {
    let table = fixture::table();
    let app = table.app("globex-own").unwrap();
    assert_eq!(table.route(app, Some("100"), None), Route::Foreign);
    assert!(matches!(
        table.route(app, Some("200"), None),
        Route::Owned(_)
    ));
}

#[test]
fn an_app_whose_secrets_do_not_open_is_known_but_locked() {
    let (snapshot, _) = fixture::snapshot();
    let table = RoutingTable::build(&snapshot, &VaultKey::generate(), None);
    assert!(table.app("main").unwrap().secrets().is_none());
}

#[test]
fn what_stands_in_an_entry_that_does_not_parse_is_somebodys() {
    let (mut snapshot, master) = fixture::snapshot();
    let mut routes = |entries: &[(&str, &str)]| {
        for (key, value) in entries {
            assert!(snapshot.fold(key, Some(value.as_bytes())).is_err(), "{key}");
        }
        let table = RoutingTable::build(&snapshot, &master, None);
        let app = table.app("main").unwrap();
        [
            (Some("300"), None),
            (None, Some("W3")),
            (None, Some("W9")),
            (None, None),
            (Some("100"), None),
        ]
        .map(|(phone, waba)| matches!(table.route(app, phone, waba), Route::Unreadable))
    };
    assert_eq!(routes(&[]), [false; 5]);
    let account_known = r#"{"id":"300","waba_id":"W3","tenant":7}"#;
    assert_eq!(
        routes(&[("phone.300", account_known)]),
        [true, true, false, false, false]
    );
    assert_eq!(
        routes(&[("phone.300", "{")]),
        [true, true, true, false, false]
    );
    // What was in force stays so.
    assert_eq!(
        routes(&[("phone.100", "{"), ("tenant.acme", "{")]),
        [true, true, true, false, false]
    );
    assert!(snapshot.fold("app.broken", Some(b"{")).is_err());
    let table = RoutingTable::build(&snapshot, &master, None);
    assert!(table.hides_app("broken") && !table.hides_app("main") && table.hides_numbers());
    assert_eq!(
        table.unreadable(),
        ["app.broken", "phone.100", "phone.300", "tenant.acme"]
    );
}

#[test]
fn a_number_of_a_tenant_whose_entry_does_not_parse_is_somebodys() {
    let (entries, master) = fixture::entries();
    let mut snapshot = Snapshot::default();
    for (key, value) in entries {
        let value = if key == "tenant.acme" {
            b"{".to_vec()
        } else {
            value
        };
        assert_eq!(
            snapshot.fold(&key, Some(&value)).is_ok(),
            key != "tenant.acme"
        );
    }
    let table = RoutingTable::build(&snapshot, &master, None);
    let app = table.app("main").unwrap();
    assert_eq!(table.route(app, Some("100"), None), Route::Unreadable);
    assert_eq!(table.route(app, None, Some("W1")), Route::Unreadable);
    assert!(matches!(
        table.route(app, Some("200"), None),
        Route::Owned(_)
    ));
}

#[test]
fn an_unchanged_app_keeps_its_opened_secrets() {
    let (snapshot, master) = fixture::snapshot();
    let first = RoutingTable::build(&snapshot, &master, None);
    let second = RoutingTable::build(&snapshot, &master, Some(&first));
    assert!(Arc::ptr_eq(
        first.app("main").unwrap(),
        second.app("main").unwrap()
    ));
}
