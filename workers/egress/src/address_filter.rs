//! The filter in front of every connection: which host, at which addresses, may be connected to.
//!
//! A literal address is judged before the request, because the HTTP client connects to it without asking a
//! resolver; a name is judged whenever a connection is opened, by the resolver the client was built with. A
//! name is refused if any of its addresses is, so that an answer mixing public and private ones gains nothing.

use super::address::is_public;
use super::allow::AllowList;
use futures_util::future::BoxFuture;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

/// Addresses of one name that are tried at most.
const ADDRESSES_MAX: usize = 8;

/// Finds the addresses of a name.
pub trait Lookup: Send + Sync + 'static {
    /// Finds all addresses of `host`.
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>>;
}

/// Asks the system, as every other program on the machine does.
#[derive(Debug, Clone, Copy)]
pub struct SystemLookup;

impl Lookup for SystemLookup {
    fn lookup(&self, host: String) -> BoxFuture<'static, io::Result<Vec<IpAddr>>> {
        Box::pin(async move {
            let found = tokio::net::lookup_host((host, 0)).await?;
            Ok(found.map(|address| address.ip()).collect())
        })
    }
}

/// What a filter needs to know of a URL; requests of the same kind share a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct DestinationKind {
    /// The port, when an entry of the allow list is limited to it; a resolver is not told the port.
    pub port: Option<u16>,
    /// Whether the URL is https.
    pub secure: bool,
}

/// Why a destination is not connected to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Closed {
    /// Plain http is for listed destinations.
    #[error("plain http is not allowed to this destination")]
    Insecure,
    /// At least one address is not public.
    #[error("the destination has an address that is not public")]
    Private,
}

/// Judges destinations of one kind.
#[derive(Clone)]
pub(super) struct AddressFilter {
    pub kind: DestinationKind,
    pub allow: Arc<AllowList>,
    pub allow_http: bool,
    pub lookup: Arc<dyn Lookup>,
}

impl AddressFilter {
    pub fn judge_address(&self, address: IpAddr) -> Result<(), Closed> {
        if self.allow.permits_address(address, self.kind.port) {
            return Ok(());
        }
        if !self.kind.secure && !self.allow_http {
            return Err(Closed::Insecure);
        }
        if is_public(address) {
            Ok(())
        } else {
            Err(Closed::Private)
        }
    }

    /// Judges a name as far as that goes without its addresses.
    pub fn judge_name(&self, host: &str) -> Result<(), Closed> {
        let possible = self.kind.secure
            || self.allow_http
            || self.allow.has_addresses()
            || self.allow.permits_host(host, self.kind.port);
        if possible {
            Ok(())
        } else {
            Err(Closed::Insecure)
        }
    }

    /// Judges what a name resolved to.
    fn judge_answer(&self, host: &str, addresses: &[IpAddr]) -> Result<(), Closed> {
        if self.allow.permits_host(host, self.kind.port) {
            return Ok(());
        }
        addresses
            .iter()
            .try_for_each(|address| self.judge_address(*address))
    }
}

impl Resolve for AddressFilter {
    fn resolve(&self, name: Name) -> Resolving {
        let filter = self.clone();
        Box::pin(async move {
            let host = name.as_str().to_owned();
            let addresses = filter.lookup.lookup(host.clone()).await?;
            filter.judge_answer(&host, &addresses)?;
            let sockets: Vec<_> = addresses
                .into_iter()
                .take(ADDRESSES_MAX)
                .map(|address| SocketAddr::new(address, 0))
                .collect();
            Ok(Box::new(sockets.into_iter()) as Addrs)
        })
    }
}
