//! The one way out for URLs that tenants gave us: relays, endpoints, CRMs, calls of flows and agents.
//!
//! Invariant: no connection is opened to an address that is not public unless the operator listed it, for everybody or for
//! the tenant that gave the URL, whatever a URL spells, a name resolves to or an answer redirects to. No other module builds a client for such URLs.

pub mod address;
pub mod address_filter;
pub mod allow;
pub mod client;
pub mod concurrency;
pub mod file_places;
pub mod outcome;
pub mod request;
pub mod tenants;

pub use address_filter::{Lookup, SystemLookup};
pub use allow::{AllowError, AllowList};
pub use client::{Egress, EgressSetupError};
pub use concurrency::ConcurrencyLimit;
pub use file_places::{FilePlace, FilePlaces};
pub use outcome::Outcome;
pub use request::{EgressAnswer, EgressError, EgressRequest, RESPONSE_BYTES_SMALL};

use ackline_shared::config::Reader;
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct EgressSettings {
    /// Destinations that may be reached although they are private, and by plain http.
    pub allow: AllowList,
    /// Whether public destinations may be reached by plain http.
    pub allow_http: bool,
    /// Time to connect: resolving the name, TCP and TLS.
    pub connect_timeout: Duration,
}

impl EgressSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let entries = reader.texts("egress.allow");
        let allow = AllowList::parse(entries.iter().map(String::as_str)).unwrap_or_else(|error| {
            reader.mistake("egress.allow", error);
            AllowList::default()
        });
        Self {
            allow,
            allow_http: reader.flag("egress.allow_http"),
            connect_timeout: reader.duration("egress.connect_timeout"),
        }
    }
}

#[cfg(any(test, feature = "testing"))]
pub mod receiver;
#[cfg(test)]
mod tests;
