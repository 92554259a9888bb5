//! Updates that nobody claimed, and their way to the tenant that claims them now.

use super::{Terminal, demo, publish_head};
use ackline_cli::{EXIT_CHANGES, EXIT_FAILED, EXIT_OK};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{AppId, ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::subjects::{self, Class, DEAD, Partition, Pool, UPDATES, header};
use async_nats::jetstream;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::{Instant, sleep};

const NUMBER: &str = "106540352242922";

fn unclaimed(id: &str, phone: Option<&str>) -> Head {
    Head {
        id: UpdateId::new(id),
        tenant: TenantId::unrouted(),
        partition: Partition(1),
        family: Family::Update(Class::Account),
        kind: "message.text".to_owned(),
        app: Some(AppId::new("main").unwrap()),
        phone: phone.map(|phone| PhoneNumberId::new(phone).unwrap()),
        conversation: ConversationKey::phone("15550100"),
        received_ms: 1_750_030_073_000,
        signature: Some("sha256=00".to_owned()),
        traceparent: None,
        field: None,
        replay: None,
    }
}

/// Stores one as the janitor does when it needs the room.
async fn quarantined(context: &jetstream::Context, head: &Head, payload: &'static str) {
    let mut headers = head.to_headers();
    headers.insert(header::MSG_ID, "dead:journal:UPDATES:1");
    headers.insert(header::DEAD_ID, head.id.as_str());
    headers.insert(
        header::DEAD_ORIGIN,
        format!("{UPDATES}:1:{}", head.subject()),
    );
    let place = subjects::dead(Pool::Journal, &TenantId::unrouted());
    context
        .publish_with_headers(place, headers, payload.into())
        .await
        .unwrap()
        .await
        .unwrap();
}

/// What acme has of messages, by id in order.
async fn of_acme(context: &jetstream::Context) -> Vec<String> {
    let updates = context.get_stream(UPDATES).await.unwrap();
    let filter = subjects::update_filter(Partition(0), Class::Message);
    let filter = subjects::of_tenant(&filter, &TenantId::new("acme").unwrap()).unwrap();
    let (mut ids, mut next) = (Vec::new(), 1);
    while let Ok(found) = updates
        .direct_get_next_for_subject(&filter, Some(next))
        .await
    {
        assert_eq!(
            found.headers.get(header::SIGNATURE).unwrap().as_str(),
            "sha256=00"
        );
        ids.push(String::from_utf8(found.payload.to_vec()).unwrap());
        next = found.sequence + 1;
    }
    ids
}

async fn left(context: &jetstream::Context) -> usize {
    let updates = context.get_stream(UPDATES).await.unwrap();
    let subjects = updates
        .info_with_subjects(subjects::updates_of(&TenantId::unrouted()))
        .await
        .unwrap();
    futures_util::TryStreamExt::try_fold(subjects, 0, async |sum, (_, count)| Ok(sum + count))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_claimed_is_given_to_its_tenant_once_its_number_is_declared() {
    let mut terminal = Terminal::open();
    terminal.set("ACKLINE_NATS_DUPLICATE_WINDOW", "100ms");
    assert_eq!(
        terminal.ask(&["unrouted", "list"]).await.out,
        "no update is without a tenant\n"
    );
    let context = terminal.context().await;
    // One that the janitor moved before, three that came since, and one of a number that nobody declares.
    quarantined(&context, &unclaimed("wamid.0", Some(NUMBER)), "0").await;
    for id in ["1", "2", "3"] {
        publish_head(
            &context,
            &unclaimed(&format!("wamid.{id}"), Some(NUMBER)),
            id,
        )
        .await;
    }
    publish_head(&context, &unclaimed("wamid.x", Some("999")), "x").await;
    publish_head(&context, &unclaimed("unreadable", None), "not json").await;

    let list = terminal.ask(&["unrouted", "list"]).await;
    assert!(
        list.out
            .contains("number 999 by app main: 1 update(s), 1 bytes, 2025-06-15T"),
        "{list:?}"
    );
    assert!(
        list.out
            .contains("not declared: put it under [[phone_numbers]]"),
        "{list:?}"
    );
    assert!(
        !list.out.contains("15550100") && !list.out.contains("wamid"),
        "people are not named: {list:?}"
    );
    assert_eq!(
        terminal.ask(&["unrouted", "route", "--yes"]).await.code,
        EXIT_OK
    );
    assert_eq!(
        (left(&context).await, of_acme(&context).await.len()),
        (5, 0),
        "nobody claims them yet"
    );

    assert_eq!(
        terminal
            .ask(&["apply", demo().to_str().unwrap()])
            .await
            .code,
        EXIT_OK
    );
    let list = terminal.ask(&["unrouted", "list", "--json"]).await;
    let rows: Vec<Value> = serde_json::from_str(&list.out).unwrap();
    let row = rows
        .iter()
        .find(|row| row["phone_number_id"] == NUMBER)
        .unwrap();
    assert_eq!(
        (&row["count"], &row["bytes"], &row["tenant"]),
        (&json!(4), &json!(4), &json!("acme"))
    );
    let dry = terminal.ask(&["unrouted", "route", "--dry-run"]).await;
    assert_eq!(
        (dry.code, dry.out.starts_with("4 updates without a tenant")),
        (EXIT_CHANGES, true),
        "{dry:?}"
    );
    assert_eq!(
        terminal
            .ask(&["unrouted", "route", "--phone-number-id", "7", "--yes"])
            .await
            .code,
        EXIT_OK
    );
    assert_eq!(of_acme(&context).await.len(), 0);
    let deadline = Instant::now() + Duration::from_secs(20);
    // While JetStream remembers the ids nothing is lost, and another run goes on.
    while terminal.ask(&["unrouted", "route", "--yes"]).await.code != EXIT_OK {
        assert!(Instant::now() < deadline);
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        of_acme(&context).await,
        ["0", "1", "2", "3"],
        "in the order in which they came"
    );
    assert_eq!(left(&context).await, 2);
    let again = terminal.ask(&["unrouted", "route", "--yes"]).await;
    assert_eq!(
        (again.code, of_acme(&context).await.len()),
        (EXIT_OK, 4),
        "{again:?}"
    );
    assert_eq!(
        context
            .get_stream(DEAD)
            .await
            .unwrap()
            .cached_info()
            .state
            .messages,
        1,
        "kept, and settled"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_jetstream_takes_for_a_repeat_is_not_lost_and_the_tenants_own_copy_is_enough() {
    let terminal = Terminal::open();
    assert_eq!(
        terminal
            .ask(&["apply", demo().to_str().unwrap()])
            .await
            .code,
        EXIT_OK
    );
    let context = terminal.context().await;
    let head = unclaimed("wamid.1", Some(NUMBER));
    publish_head(&context, &head, "1").await;
    let route = terminal.ask(&["unrouted", "route", "--yes"]).await;
    if route.code == EXIT_FAILED {
        assert!(
            route
                .err
                .contains("came less than 5m ago; run it again then"),
            "{route:?}"
        );
        assert_eq!(
            (left(&context).await, of_acme(&context).await.len()),
            (1, 0)
        );
    }
    // Meta sent it again after the number was declared: the tenant has it, and this one only goes.
    let own = Head {
        tenant: TenantId::new("acme").unwrap(),
        family: Family::Update(Class::Message),
        ..unclaimed("wamid.2", Some(NUMBER))
    };
    let updates = context.get_stream(UPDATES).await.unwrap();
    updates.purge().await.unwrap();
    publish_head(&context, &own, "2").await;
    quarantined(&context, &unclaimed("wamid.2", Some(NUMBER)), "2").await;
    assert_eq!(
        terminal.ask(&["unrouted", "route", "--yes"]).await.code,
        EXIT_OK
    );
    assert_eq!(of_acme(&context).await, ["2"]);
    assert_eq!(
        terminal.ask(&["unrouted", "list"]).await.out,
        "no update is without a tenant\n"
    );
}
