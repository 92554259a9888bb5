//! What processes say of themselves, as `ackline pools`, `tenants`, `top` and `drain` show it.

use super::{Terminal, demo};
use ackline_runtime::status::Stuck;
use ackline_runtime::status::held::{Drain, OpenBreaker, SpillCounts, Turned};
use ackline_runtime::status::{LaneLag, Load, PoolStatus, Snapshot, TenantStatus};
use ackline_shared::config::EXIT_CONFIG;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{self, Pool};
use async_nats::Client;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A process that says this of itself again and again, until aborted.
pub fn speak(client: Client, pools: Vec<PoolStatus>) -> JoinHandle<()> {
    let mut snapshot = Snapshot {
        instance: "host-1".to_owned(),
        version: "0.1.0".to_owned(),
        started_ms: 0,
        at_ms: 0,
        pools,
        unowned: Vec::new(),
        dead: None,
    };
    tokio::spawn(async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        loop {
            ticks.tick().await;
            snapshot.at_ms += 1;
            let payload = serde_json::to_vec(&snapshot).unwrap();
            client
                .publish(subjects::status("host-1"), payload.into())
                .await
                .unwrap();
        }
    })
}

/// A process that has the pool and owns nothing of it.
pub fn standing_by(pool: Pool) -> PoolStatus {
    PoolStatus {
        pool: pool.as_str().to_owned(),
        state: "standing by".to_owned(),
        partitions: 32,
        ..PoolStatus::default()
    }
}

#[tokio::test]
async fn pools_and_tenants_are_shown_with_a_status_for_scripts() {
    let terminal = Terminal::open();
    for command in ["pools", "tenants", "top"] {
        let arguments: &[&str] = if command == "top" {
            &["top", "--once"]
        } else {
            &[command]
        };
        let outcome = terminal.ask(arguments).await;
        assert_eq!(outcome.code, 1, "{outcome:?}");
        assert!(
            outcome.err.contains("no workers process speaks"),
            "{outcome:?}"
        );
    }
    let context = terminal.context().await;
    let mut relay = PoolStatus {
        owned: (0..32).collect(),
        concurrency: 64,
        ..standing_by(Pool::Relay)
    };
    let load = Load {
        queued: 3,
        running: 2,
        waiting: 1,
    };
    relay.tenants = vec![TenantStatus {
        rate: 12.5,
        load,
        ..TenantStatus::of(TenantId::new("acme").unwrap())
    }];
    let speaking = speak(context.client(), vec![relay.clone()]);
    let outcome = terminal.ask(&["pools"]).await;
    assert_eq!(
        (outcome.code, outcome.out.lines().count()),
        (0, 2),
        "{outcome:?}"
    );
    assert!(
        outcome.out.contains("relay") && outcome.out.contains("healthy; idle"),
        "{outcome:?}"
    );
    let shown: Value = serde_json::from_str(&terminal.ask(&["pools", "--json"]).await.out).unwrap();
    assert_eq!(shown[0]["verdict"]["condition"], "healthy");
    let tenants = terminal.ask(&["tenants", "relay"]).await.out;
    assert!(
        tenants
            .lines()
            .nth(1)
            .unwrap()
            .starts_with("relay    acme "),
        "{tenants}"
    );
    let shown: Value =
        serde_json::from_str(&terminal.ask(&["tenants", "relay", "--json"]).await.out).unwrap();
    assert_eq!(shown[0]["tenants"][0]["read_per_second"], 12.5);
    assert_eq!(terminal.ask(&["tenants", "relays"]).await.code, 64);
    let screen = terminal.ask(&["top", "--once", "--columns", "80"]).await;
    assert!(
        screen.out.contains("relay    healthy") && screen.out.contains("q quit"),
        "{}",
        screen.out
    );
    speaking.abort();
    let behind = vec![LaneLag {
        lane: "msg".into(),
        unread: 9,
        in_work: 0,
        oldest_ms: 9000,
        partition: None,
    }];
    let speaking = speak(
        context.client(),
        vec![PoolStatus {
            owned: vec![1],
            lanes: behind,
            ..relay
        }],
    );
    let outcome = terminal.ask(&["pools"]).await;
    assert_eq!(outcome.code, 1, "{outcome:?}");
    speaking.abort();
}

#[tokio::test]
async fn what_is_held_open_or_in_a_spill_queue_is_shown_by_pools_and_tenants() {
    let terminal = Terminal::open();
    let context = terminal.context().await;
    let tenant = |name: &str| TenantStatus::of(TenantId::new(name).unwrap());
    let mut relay = PoolStatus {
        owned: (0..32).collect(),
        concurrency: 64,
        ..standing_by(Pool::Relay)
    };
    let paused = Turned {
        paused: true,
        by: "cli:jo".to_owned(),
        ..Turned::default()
    };
    let capped = Turned {
        in_flight_max: Some(2),
        ..Turned::default()
    };
    let lines = SpillCounts {
        moved: 40,
        parked: 3,
    };
    relay.tenants = vec![
        TenantStatus {
            turned: Some(paused),
            lines,
            ..tenant("acme")
        },
        TenantStatus {
            turned: Some(capped),
            ..tenant("globex")
        },
    ];
    (relay.tenants_held, relay.lines, relay.breakers_open) = (1, lines, 1);
    relay.breakers = vec![OpenBreaker {
        downstream: "relay.acme.bot".into(),
        open_ms: 60_000,
        next_ms: 4_000,
    }];
    let speaking = speak(context.client(), vec![relay]);
    let pools = terminal.ask(&["pools"]).await.out;
    let words = "relay.acme.bot circuit breaker open for 60 s; acme paused; 40 in spill queues; 3 wait for a target";
    assert!(pools.contains(words), "{pools}");
    let pools: Value = serde_json::from_str(&terminal.ask(&["pools", "--json"]).await.out).unwrap();
    assert_eq!(
        (&pools[0]["spilled"], &pools[0]["parked"]),
        (&json!(40), &json!(3))
    );
    assert_eq!(
        (&pools[0]["lag_messages"], &pools[0]["waiting"]),
        (&json!(40), &json!(3))
    );
    assert_eq!(pools[0]["breakers"][0]["downstream"], "relay.acme.bot");
    let tenants = terminal.ask(&["tenants"]).await.out;
    let rows: Vec<&str> = tenants.lines().collect();
    assert!(
        rows[1].contains("acme") && rows[1].ends_with("43        0  paused"),
        "{tenants}"
    );
    assert!(
        rows[2].contains("globex") && rows[2].ends_with("2 at once"),
        "{tenants}"
    );
    let tenants: Value =
        serde_json::from_str(&terminal.ask(&["tenants", "--json"]).await.out).unwrap();
    let acme = &tenants[0]["tenants"][0];
    assert_eq!(
        (&acme["paused"], &acme["turned_by"]),
        (&json!(true), &json!("cli:jo"))
    );
    speaking.abort();
}

#[tokio::test]
async fn a_pool_that_is_stuck_says_where_and_fails_scripts() {
    let terminal = Terminal::open();
    let context = terminal.context().await;
    let what = "an update is not tried again".to_owned();
    let (lane, tenant) = ("msg".to_owned(), TenantId::new("acme").unwrap());
    let stuck = vec![Stuck {
        partition: 3,
        lane,
        tenant,
        since_ms: 45_000,
        what,
    }];
    let relay = PoolStatus {
        owned: (0..32).collect(),
        concurrency: 64,
        stuck,
        ..standing_by(Pool::Relay)
    };
    let speaking = speak(context.client(), vec![relay]);
    let words = "stuck for 45 s: partition 3, lane msg, tenant acme: an update is not tried again";
    let pools = terminal.ask(&["pools"]).await;
    assert_eq!(pools.code, 1);
    assert!(pools.out.contains(words), "{pools:?}");
    let pools: Value = serde_json::from_str(&terminal.ask(&["pools", "--json"]).await.out).unwrap();
    assert_eq!(pools[0]["verdict"]["condition"], "stuck");
    assert_eq!(
        (
            &pools[0]["stuck"][0]["partition"],
            &pools[0]["stuck"][0]["seconds"]
        ),
        (&json!(3), &json!(45.0))
    );
    let screen = terminal
        .ask(&["top", "--once", "--columns", "120"])
        .await
        .out;
    assert!(
        screen.contains("relay    stuck") && screen.contains("tenant acme"),
        "{screen}"
    );
    let findings: Value =
        serde_json::from_str(&terminal.ask(&["doctor", "--json"]).await.out).unwrap();
    let finding = findings
        .as_array()
        .unwrap()
        .iter()
        .find(|one| one["check"] == "pool relay")
        .unwrap();
    assert_eq!(finding["level"], "fail");
    speaking.abort();
}

#[tokio::test]
async fn a_drain_is_begun_once_waited_for_and_audited() {
    let terminal = Terminal::open();
    terminal.ask(&["apply", demo().to_str().unwrap()]).await;
    let context = terminal.context().await;
    let alone = terminal
        .ask(&[
            "drain", "relay", "--tenant", "globex", "--within", "300ms", "--by", "jo",
        ])
        .await;
    assert_eq!(
        (alone.code, alone.out.as_str()),
        (
            1,
            "relay of globex: nobody works on the pool; the drain goes on\n"
        )
    );
    let stored = context
        .get_key_value(subjects::BUCKET_TUNING)
        .await
        .unwrap();
    let globex = TenantId::new("globex").unwrap();
    let key = subjects::tuning_key::tenant(Pool::Relay, &globex);
    let entry: Value = serde_json::from_slice(&stored.get(&key).await.unwrap().unwrap()).unwrap();
    let at_ms = entry["at_ms"].as_u64().unwrap();
    let says = |drain| {
        let turned = Turned {
            draining: true,
            at_ms,
            ..Turned::default()
        };
        let tenant = TenantStatus {
            turned: Some(turned),
            drain: Some(drain),
            ..TenantStatus::of(globex.clone())
        };
        let owned = (0..32).collect();
        PoolStatus {
            owned,
            tenants: vec![tenant],
            tenants_held: 1,
            ..standing_by(Pool::Relay)
        }
    };
    let speaking = speak(
        context.client(),
        vec![says(Drain {
            left: 3,
            is_read: true,
        })],
    );
    let arguments = [
        "drain", "relay", "--tenant", "globex", "--within", "2s", "--json",
    ];
    let outcome = terminal.ask(&arguments).await;
    let report: Value = serde_json::from_str(&outcome.out).unwrap();
    assert_eq!(
        (outcome.code, &report["drained"], &report["left"]),
        (1, &json!(false), &json!(3))
    );
    speaking.abort();
    let speaking = speak(
        context.client(),
        vec![says(Drain {
            left: 0,
            is_read: true,
        })],
    );
    let outcome = terminal
        .ask(&["drain", "relay", "--tenant", "globex", "--within", "20s"])
        .await;
    assert_eq!(outcome.code, 0, "{outcome:?}");
    assert!(
        outcome
            .out
            .starts_with("relay of globex: drained; what came since is kept"),
        "{outcome:?}"
    );
    speaking.abort();
    let audit = terminal.ask(&["tune", "relay", "--history"]).await.out;
    assert_eq!(
        audit.lines().count(),
        1,
        "waiting again changes nothing: {audit}"
    );
    assert!(
        audit.contains("cli:jo  relay of globex: as configured -> mode=drain"),
        "{audit}"
    );
    for wrong in [
        &["drain", "relay"][..],
        &["drain", "relay", "--tenant", "nobody"],
    ] {
        assert_eq!(terminal.ask(wrong).await.code, EXIT_CONFIG, "{wrong:?}");
    }
    assert_eq!(
        terminal
            .ask(&["drain", "journal", "--tenant", "globex"])
            .await
            .code,
        EXIT_CONFIG
    );
}
