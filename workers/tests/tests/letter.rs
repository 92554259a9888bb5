//! A dead letter as a pool stores it, for tests that look through them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, TenantId, UpdateId};
use ackline_shared::subjects::{self, Class, Partition, Pool, header};
use async_nats::HeaderMap;

/// A message of acme's that nobody asks more about.
pub fn head(id: &str) -> Head {
    Head {
        id: UpdateId::new(id),
        tenant: TenantId::new("acme").unwrap(),
        partition: Partition(1),
        family: Family::Update(Class::Message),
        kind: "message.text".into(),
        app: None,
        phone: None,
        conversation: ConversationKey::user("US.1"),
        received_ms: 1,
        signature: None,
        traceparent: None,
        field: None,
        replay: None,
    }
}

/// Where a pool's letter about it goes, and its headers; `place` is its stream and sequence, such as `UPDATES:7`.
pub fn letter(pool: Pool, head: &Head, place: &str, reason: &str) -> (String, HeaderMap) {
    let mut headers = head.to_headers();
    headers.insert(header::MSG_ID, format!("dead:{pool}:{place}"));
    headers.insert(header::DEAD_ID, head.id.as_str());
    headers.insert(header::DEAD_REASON, reason);
    headers.insert(header::DEAD_ORIGIN, format!("{place}:{}", head.subject()));
    headers.insert(header::DEAD_AT, "1750030073000");
    (subjects::dead(pool, &head.tenant), headers)
}
