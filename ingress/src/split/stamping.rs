//! Makes the updates found in a delivery ready to store: whose they are, where they are ordered, when they came.
//!
//! What was acknowledged before is told by tenant and id alone, before anything is made of it.

use crate::routing::{AppRoute, Route, RoutingTable};
use crate::split::{Address, Found, Split, UNREADABLE};
use crate::store::Update;
use crate::store::acknowledged::Acknowledged;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, FoundId, PhoneNumberId, TenantId};
use ackline_shared::partition;
use ackline_shared::subjects::Class;
use bytes::Bytes;
use prometheus_client::metrics::counter::Counter;
use std::borrow::Cow;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

/// What nobody claims has no conversation worth spreading, and must touch one owner only.
const UNROUTED_SHARDS: u8 = 1;

/// What all updates of one delivery share.
#[derive(Debug, Clone, Copy)]
pub struct Stamp<'d> {
    /// The table in force when it came.
    pub table: &'d RoutingTable,
    /// The app that brought it.
    pub app: &'d AppRoute,
    pub partitions: u16,
    /// When and under which trace it came.
    pub arrival: &'d Arrival<'d>,
}

/// When and how a delivery came; the clock and the dice are asked once, for the first update that is made.
#[derive(Debug)]
pub struct Arrival<'d> {
    signature: &'d str,
    moment: OnceLock<Moment>,
}

/// When a delivery came, and under which trace.
#[derive(Debug, Clone, Copy)]
struct Moment {
    received_ms: u64,
    trace: u128,
    span: u64,
}

impl Moment {
    fn now(trace: u128, span: u64) -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Self {
            received_ms: u64::try_from(now.as_millis()).unwrap_or(u64::MAX),
            // All zeroes is not a valid id.
            trace: trace.max(1),
            span: span.max(1),
        }
    }
}

impl<'d> Arrival<'d> {
    /// A delivery under Meta's signature header, whole and verified by now.
    pub fn of(signature: &'d [u8]) -> Self {
        // It verified, so it is ASCII.
        Self {
            signature: std::str::from_utf8(signature).unwrap_or_default(),
            moment: OnceLock::new(),
        }
    }

    /// A delivery that is whole now; `trace` and `span` are random.
    pub fn now(signature: &'d [u8], trace: u128, span: u64) -> Self {
        Self {
            moment: OnceLock::from(Moment::now(trace, span)),
            ..Self::of(signature)
        }
    }

    fn moment(&self) -> &Moment {
        self.moment
            .get_or_init(|| Moment::now(rand::random(), rand::random()))
    }

    /// When the edge had it whole, in unix milliseconds.
    pub fn received_ms(&self) -> u64 {
        self.moment().received_ms
    }

    pub fn traceparent(&self) -> String {
        let Moment { trace, span, .. } = self.moment();
        let mut text = Vec::with_capacity(55);
        text.extend_from_slice(b"00-");
        push_hex(&mut text, &trace.to_be_bytes());
        text.push(b'-');
        push_hex(&mut text, &span.to_be_bytes());
        text.extend_from_slice(b"-01");
        // It is ASCII.
        String::from_utf8(text).unwrap_or_default()
    }
}

fn push_hex(text: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        text.extend(
            [byte >> 4, byte & 15].map(|digit| digit + if digit < 10 { b'0' } else { b'a' - 10 }),
        );
    }
}

/// Why an update has no owner.
type Unrouted = Option<&'static str>;

impl<'d> Stamp<'d> {
    /// A signed body that is not looked into, and why nobody owns it.
    pub fn unreadable(&self, body: &Bytes) -> (Update, Unrouted) {
        let address = Address::default();
        let (route, unrouted) = self.route(&address);
        let mut found = Found::whole(body, UNREADABLE.to_owned());
        found.id = self.id(route, found.id);
        let head = self.head(route, &address, found, true);
        (
            Update {
                head,
                payload: body.clone(),
            },
            unrouted,
        )
    }

    /// Whether a split holds an update of somebody whose entry does not parse.
    pub fn is_any_unreadable(&self, split: &Split<'_>) -> bool {
        split
            .updates()
            .any(|found| self.route(&split.address(&found)).0 == Route::Unreadable)
    }

    /// Whether every update of a split is of somebody who holds more than its share.
    pub fn is_all_over_share(&self, split: &Split<'_>) -> bool {
        split
            .updates()
            .all(|found| match self.route(&split.address(&found)).0 {
                Route::Owned(owner) => self.table.is_over_share(owner.tenant.as_str()),
                Route::Unclaimed | Route::Foreign | Route::Unreadable => {
                    self.table.is_over_share(TenantId::UNROUTED)
                }
            })
    }

    fn route(&self, address: &Address<'_>) -> (Route<'d>, Unrouted) {
        let route = self
            .table
            .route(self.app, address.phone.as_deref(), address.waba.as_deref());
        let unrouted = match route {
            Route::Owned(_) => None,
            Route::Unclaimed if address.phone.is_some() => Some("unknown_number"),
            Route::Unclaimed if address.waba.is_some() => Some("unknown_account"),
            Route::Unclaimed => Some("unaddressed"),
            Route::Foreign => Some("foreign_app"),
            // Such a delivery is refused before anything is made of it.
            Route::Unreadable => Some("entry_unreadable"),
        };
        (route, unrouted)
    }

    fn id<'b>(&self, route: Route<'_>, id: FoundId<'b>) -> FoundId<'b> {
        match route {
            // The owner's own copy must not be taken for a duplicate of this one.
            Route::Foreign => FoundId::new(format!("{}@{}", id.as_str(), self.app.id).into()),
            Route::Owned(_) | Route::Unclaimed | Route::Unreadable => id,
        }
    }

    fn head(
        &self,
        route: Route<'_>,
        address: &Address<'_>,
        found: Found<'_>,
        untouched: bool,
    ) -> Head {
        let (tenant, shards, class) = match route {
            Route::Owned(owner) => (owner.tenant.clone(), owner.shards, found.class),
            Route::Unclaimed | Route::Foreign | Route::Unreadable => {
                (TenantId::unrouted(), UNROUTED_SHARDS, Class::Account)
            }
        };
        let conversation = ConversationKey::from(found.conversation);
        Head {
            id: found.id.into(),
            partition: partition::of_conversation(&tenant, &conversation, shards, self.partitions),
            tenant,
            family: Family::Update(class),
            kind: found.kind.into_owned(),
            app: Some(self.app.id.clone()),
            phone: address
                .phone
                .as_deref()
                .and_then(|phone| PhoneNumberId::new(phone).ok()),
            conversation,
            received_ms: self.arrival.received_ms(),
            signature: untouched.then(|| self.arrival.signature.to_owned()),
            traceparent: Some(self.arrival.traceparent()),
            field: found.field.map(Cow::into_owned),
            replay: None,
        }
    }
}

/// The updates of a split delivery, each made when it is asked for.
#[derive(Debug)]
pub struct Stamped<'d, 'b> {
    stamp: Stamp<'d>,
    split: &'d Split<'b>,
    next: usize,
    unrouted: &'d mut Vec<&'static str>,
    memory: Option<Memory<'d>>,
    /// Where the update before went: most go there too.
    last: Option<(Address<'b>, Route<'d>, Unrouted)>,
}

/// What was acknowledged, and the count of what came again.
#[derive(Debug, Clone, Copy)]
pub struct Memory<'d> {
    pub acknowledged: &'d Acknowledged,
    pub repeated: &'d Counter,
}

impl Memory<'_> {
    /// Whether an update was acknowledged before; it is counted then.
    pub fn knows(&self, tenant: &str, id: &str) -> bool {
        let known = self.acknowledged.knows(self.acknowledged.print(tenant, id));
        if known {
            self.repeated.inc();
        }
        known
    }
}

impl<'d, 'b> Stamped<'d, 'b> {
    /// Makes the updates of a split; `unrouted` collects why updates have no owner.
    pub fn new(
        stamp: Stamp<'d>,
        split: &'d Split<'b>,
        unrouted: &'d mut Vec<&'static str>,
    ) -> Self {
        Self {
            stamp,
            split,
            next: 0,
            unrouted,
            memory: None,
            last: None,
        }
    }

    /// Leaves out what was acknowledged before; nothing is made of it.
    pub fn unless_known(self, memory: Memory<'d>) -> Self {
        Self {
            memory: Some(memory),
            ..self
        }
    }

    /// The update at a place, unless it is known; nothing behind the last.
    fn stamp(&mut self, place: usize) -> Option<Option<Update>> {
        let mut found = self.split.update(place)?;
        let (address, route, unrouted) = match self.last.take() {
            Some(last) if place > 0 && self.split.are_beside(place - 1, place) => last,
            _ => {
                let address = self.split.address(&found);
                let (route, unrouted) = self.stamp.route(&address);
                (address, route, unrouted)
            }
        };
        let (address, route, unrouted) = self.last.insert((address, route, unrouted));
        self.unrouted.extend(*unrouted);
        found.id = self.stamp.id(*route, found.id);
        let tenant = match route {
            Route::Owned(owner) => owner.tenant.as_str(),
            Route::Unclaimed | Route::Foreign | Route::Unreadable => TenantId::UNROUTED,
        };
        if self
            .memory
            .is_some_and(|memory| memory.knows(tenant, found.id.as_str()))
        {
            return Some(None);
        }
        let payload = self.split.payload(&found);
        let head = self
            .stamp
            .head(*route, address, found, self.split.is_untouched());
        Some(Some(Update { head, payload }))
    }
}

impl Iterator for Stamped<'_, '_> {
    type Item = Update;

    fn next(&mut self) -> Option<Update> {
        loop {
            self.next += 1;
            // What is known is passed over.
            if let Some(update) = self.stamp(self.next - 1)? {
                return Some(update);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_has_four_fields_of_their_width() {
        let arrival = Arrival::now(b"sha256=00", 0x0a0b << 112 | 7, 0);
        assert_eq!(
            arrival.traceparent(),
            "00-0a0b0000000000000000000000000007-0000000000000001-01"
        );
        assert_eq!(arrival.signature, "sha256=00");
    }
}
