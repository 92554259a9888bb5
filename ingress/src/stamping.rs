//! Makes the updates found in a delivery ready to store: whose they are, where they are ordered, when they came.

use crate::routing::{Door, Route, RoutingTable};
use crate::split::{Found, Split};
use crate::update_log::Update;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{PhoneNumberId, TenantId, UpdateId};
use ackline_shared::partition;
use ackline_shared::subjects::Class;
use std::time::{SystemTime, UNIX_EPOCH};

/// What nobody claims has no conversation worth spreading, and must touch one owner only.
const UNROUTED_SHARDS: u8 = 1;

/// What all updates of one delivery share.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'d> {
    /// The table in force when it came.
    pub table: &'d RoutingTable,
    /// The app that brought it.
    pub door: &'d Door,
    /// Partitions of the installation.
    pub partitions: u16,
    /// When and under which trace it came.
    pub arrival: &'d Arrival<'d>,
}

/// When and how a delivery came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival<'d> {
    /// When the edge had it whole, in unix milliseconds.
    pub received_ms: u64,
    /// Meta's signature header over the whole delivery.
    pub signature: &'d str,
    trace: u128,
    span: u64,
}

impl<'d> Arrival<'d> {
    /// A delivery that is whole now; `trace` and `span` are random.
    pub fn now(signature: &'d [u8], trace: u128, span: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            received_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            // It verified, so it is ASCII.
            signature: std::str::from_utf8(signature).unwrap_or_default(),
            // All zeroes is not a valid id.
            trace: trace.max(1),
            span: span.max(1),
        }
    }

    /// Its W3C trace context.
    pub fn traceparent(&self) -> String {
        let mut text = Vec::with_capacity(55);
        text.extend_from_slice(b"00-");
        push_hex(&mut text, &self.trace.to_be_bytes());
        text.push(b'-');
        push_hex(&mut text, &self.span.to_be_bytes());
        text.extend_from_slice(b"-01");
        // It is ASCII.
        String::from_utf8(text).unwrap_or_default()
    }
}

fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        text.extend([byte >> 4, byte & 15].map(|digit| digit + if digit < 10 { b'0' } else { b'a' - 10 }));
    }
}

impl Stamp<'_> {
    /// The head of an update, and why nobody owns it if so.
    pub fn head(&self, found: Found<'_>, untouched: bool) -> (Head, Option<&'static str>) {
        let phone = found.phone.as_deref();
        let route = self.table.route(self.door, phone, found.waba.as_deref());
        let (owner, unrouted) = match route {
            Route::Owned(owner) => (Some(owner), None),
            Route::Unclaimed if phone.is_some() => (None, Some("unknown_number")),
            Route::Unclaimed if found.waba.is_some() => (None, Some("unknown_account")),
            Route::Unclaimed => (None, Some("unaddressed")),
            Route::Foreign => (None, Some("foreign_app")),
        };
        let (tenant, shards, class) = match owner {
            Some(owner) => (owner.tenant.clone(), owner.shards, found.class),
            None => (TenantId::unrouted(), UNROUTED_SHARDS, Class::Account),
        };
        let id = match route {
            // The owner's own copy must not be taken for a duplicate of this one.
            Route::Foreign => UpdateId::new(&format!("{}@{}", found.id, self.door.app)),
            Route::Owned(_) | Route::Unclaimed => found.id,
        };
        let head = Head {
            id,
            partition: partition::of_conversation(&tenant, &found.conversation, shards, self.partitions),
            tenant,
            family: Family::Update(class),
            kind: found.kind,
            app: Some(self.door.app.clone()),
            phone: phone.and_then(|phone| PhoneNumberId::new(phone).ok()),
            conversation: found.conversation,
            received_ms: self.arrival.received_ms,
            signature: untouched.then(|| self.arrival.signature.to_owned()),
            traceparent: Some(self.arrival.traceparent()),
            replay: None,
        };
        (head, unrouted)
    }
}

/// The updates of a split delivery, each made when it is asked for.
#[derive(Debug)]
pub struct Stamped<'d, 'b> {
    stamp: Stamp<'d>,
    split: &'d Split<'b>,
    found: std::vec::IntoIter<Found<'b>>,
    unrouted: &'d mut Vec<&'static str>,
}

impl<'d, 'b> Stamped<'d, 'b> {
    /// Takes the updates out of a split; `unrouted` collects why updates have no owner.
    pub fn new(stamp: Stamp<'d>, split: &'d mut Split<'b>, unrouted: &'d mut Vec<&'static str>) -> Self {
        let found = std::mem::take(&mut split.updates).into_iter();
        Self { stamp, split, found, unrouted }
    }
}

impl Iterator for Stamped<'_, '_> {
    type Item = Update;

    fn next(&mut self) -> Option<Update> {
        let found = self.found.next()?;
        let (payload, untouched) = (self.split.payload(&found), self.split.is_untouched(&found));
        let (head, unrouted) = self.stamp.head(found, untouched);
        self.unrouted.extend(unrouted);
        Some(Update { head, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_has_four_fields_of_their_width() {
        let arrival = Arrival::now(b"sha256=00", 0x0a0b << 112 | 7, 0);
        assert_eq!(arrival.traceparent(), "00-0a0b0000000000000000000000000007-0000000000000001-01");
        assert_eq!(arrival.signature, "sha256=00");
    }
}
