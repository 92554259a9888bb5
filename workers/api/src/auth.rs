//! Who calls: a bearer key of the declared configuration, its tenant and its scopes.
//!
//! Keys are compared as SHA-256 digests in constant time, and a handler says by the type of its argument
//! which scope it needs, so none can be forgotten. The tenant of the key bounds everything a handler sees.

use super::App;
use super::problem::Problem;
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::model::{Reach, Scope};
use ackline_shared::registry::Snapshot;
use ackline_shared::vault::VaultKey;
use arc_swap::ArcSwap;
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use subtle::ConstantTimeEq;

/// Shortest key that is accepted.
const KEY_CHARS_MIN: usize = 24;

/// The key a request came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The tenant it acts for.
    pub tenant: TenantId,
    pub key: EntityId,
    scopes: Vec<Scope>,
    reach: Reach,
}

impl Caller {
    /// Whether what it operates is the whole installation.
    pub fn is_platform(&self) -> bool {
        self.reach == Reach::Platform
    }

    /// Whether it may operate a tenant: its own, one of its brand, or any.
    pub fn reaches(&self, snapshot: &Snapshot, tenant: &TenantId) -> bool {
        let brand = |tenant: &TenantId| {
            snapshot
                .tenants
                .get(tenant)
                .and_then(|tenant| tenant.brand.as_ref())
        };
        match self.reach {
            Reach::Platform => true,
            Reach::Tenant => *tenant == self.tenant,
            Reach::Brand => {
                *tenant == self.tenant
                    || brand(&self.tenant).is_some_and(|own| brand(tenant) == Some(own))
            }
        }
    }

    /// Whether it reaches as far as another key.
    pub fn has_reach(&self, reach: Reach) -> bool {
        self.reach >= reach
    }

    /// Refuses whoever operates less than the whole installation.
    pub fn of_platform(&self) -> Result<(), Problem> {
        if self.is_platform() {
            Ok(())
        } else {
            Err(Problem::PlatformOnly)
        }
    }
}

macro_rules! permission {
    ($(#[$doc:meta])* $name:ident, $scope:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone)]
        pub struct $name(pub Caller);

        impl<S: Send + Sync> FromRequestParts<S> for $name {
            type Rejection = Problem;

            async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
                let caller = parts.extensions.get::<Caller>().ok_or(Problem::Unauthorized)?;
                if caller.scopes.contains(&$scope) { Ok(Self(caller.clone())) } else { Err(Problem::Forbidden($scope)) }
            }
        }
    };
}

permission!(
    /// A caller that may read.
    CanRead,
    Scope::Read
);
permission!(
    /// A caller that may send.
    CanSend,
    Scope::Send
);
permission!(
    /// A caller that may change the configuration.
    CanManage,
    Scope::Manage
);

permission!(
    /// A caller that may see and turn the pools, as far as it reaches.
    CanOperate,
    Scope::Operate
);

/// The opened keys of one version of the configuration.
#[derive(Debug, Default)]
pub struct Keys {
    current: ArcSwap<Table>,
}

#[derive(Debug, Default)]
struct Table {
    version: Option<u64>,
    /// By the digest's first bytes, which narrow the search and decide nothing.
    callers: HashMap<[u8; 4], Vec<([u8; 32], Caller)>>,
}

impl Keys {
    /// Finds who a key belongs to.
    pub fn find(&self, snapshot: &Snapshot, master: &VaultKey, key: &str) -> Option<Caller> {
        let mut table = self.current.load_full();
        if table.version != Some(snapshot.version) {
            table = Arc::new(Table::open(snapshot, master));
            self.current.store(table.clone());
        }
        table.find(key)
    }
}

impl Table {
    fn open(snapshot: &Snapshot, master: &VaultKey) -> Self {
        let mut callers: HashMap<[u8; 4], Vec<_>> = HashMap::new();
        for key in snapshot
            .api_keys
            .values()
            .filter(|key| snapshot.tenants.contains_key(&key.tenant))
        {
            match snapshot.open(master, key.tenant.as_str(), &key.key) {
                Ok(text) if text.expose().chars().count() >= KEY_CHARS_MIN => {
                    let digest = digest(text.expose());
                    let caller = Caller {
                        tenant: key.tenant.clone(),
                        key: key.id.clone(),
                        scopes: key.scopes.clone(),
                        reach: key.reach,
                    };
                    callers
                        .entry(prefix(&digest))
                        .or_default()
                        .push((digest, caller));
                }
                Ok(_) => {
                    tracing::warn!(tenant = %key.tenant, key = %key.id, "this API key is shorter than {KEY_CHARS_MIN} characters and is left out")
                }
                Err(error) => {
                    tracing::warn!(tenant = %key.tenant, key = %key.id, %error, "this API key is left out")
                }
            }
        }
        Self {
            version: Some(snapshot.version),
            callers,
        }
    }

    fn find(&self, key: &str) -> Option<Caller> {
        let digest = digest(key);
        let near = self.callers.get(&prefix(&digest))?;
        near.iter()
            .find(|(known, _)| known.ct_eq(&digest).into())
            .map(|(_, caller)| caller.clone())
    }
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn prefix(digest: &[u8; 32]) -> [u8; 4] {
    digest.first_chunk().copied().unwrap_or_default()
}

/// Whose key a request carries, if it carries a valid one.
pub fn caller(app: &App, headers: &HeaderMap) -> Option<Caller> {
    let snapshot = app.platform.snapshot();
    bearer(headers).and_then(|key| app.keys.find(&snapshot, app.platform.master(), key))
}

/// Lets a request through that a valid key was found in.
pub async fn authenticate(request: Request, next: Next) -> Response {
    match request.extensions().get::<Caller>() {
        Some(_) => next.run(request).await,
        None => Problem::Unauthorized.into_response(),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, key) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}
