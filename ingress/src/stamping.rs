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
    pub arrival: &'d Arrival,
}

/// When and how a delivery came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// When the edge had it whole, in unix milliseconds.
    pub received_ms: u64,
    /// W3C trace context.
    pub traceparent: String,
    /// Meta's signature header over the whole delivery.
    pub signature: String,
}

impl Arrival {
    /// A delivery that is whole now; `trace` and `span` are random.
    pub fn now(signature: &[u8], trace: u128, span: u64) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            received_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            // All zeroes is not a valid id.
            traceparent: format!("00-{:032x}-{:016x}-01", trace.max(1), span.max(1)),
            // It verified, so it is ASCII.
            signature: String::from_utf8_lossy(signature).into_owned(),
        }
    }
}

impl Stamp<'_> {
    /// The head of an update, and why nobody owns it if so.
    pub fn head(&self, found: &Found<'_>, untouched: bool) -> (Head, Option<&'static str>) {
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
            Route::Owned(_) | Route::Unclaimed => found.id.clone(),
        };
        let head = Head {
            id,
            partition: partition::of_conversation(&tenant, &found.conversation, shards, self.partitions),
            tenant,
            family: Family::Update(class),
            kind: found.kind.clone(),
            app: Some(self.door.app.clone()),
            phone: phone.and_then(|phone| PhoneNumberId::new(phone).ok()),
            conversation: found.conversation.clone(),
            received_ms: self.arrival.received_ms,
            signature: untouched.then(|| self.arrival.signature.clone()),
            traceparent: Some(self.arrival.traceparent.clone()),
            replay: None,
        };
        (head, unrouted)
    }
}

/// The updates of a split delivery, each made when it is asked for.
#[derive(Debug)]
pub struct Stamped<'d> {
    stamp: Stamp<'d>,
    split: &'d Split<'d>,
    next: usize,
    unrouted: &'d mut Vec<&'static str>,
}

impl<'d> Stamped<'d> {
    /// Starts with the first update; `unrouted` collects why updates have no owner.
    pub fn new(stamp: Stamp<'d>, split: &'d Split<'d>, unrouted: &'d mut Vec<&'static str>) -> Self {
        Self { stamp, split, next: 0, unrouted }
    }
}

impl Iterator for Stamped<'_> {
    type Item = Update;

    fn next(&mut self) -> Option<Update> {
        let found = self.split.updates.get(self.next)?;
        self.next += 1;
        let (head, unrouted) = self.stamp.head(found, self.split.is_untouched(found));
        self.unrouted.extend(unrouted);
        Some(Update { head, payload: self.split.payload(found) })
    }
}
