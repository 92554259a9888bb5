//! Who an app is and whose an update is: an immutable table made from the declared configuration.
//!
//! The table is replaced as a whole when the configuration changes, so a request sees one table throughout.
//! Secrets are opened when an app first appears or changes, never while a request waits.
//!
//! An app may speak for a tenant when it is that tenant's or belongs to nobody: whoever holds an app's secret
//! can sign anything, so an app of one tenant must not bring updates of another.

use crate::budget::{Budget, Held};
use crate::store::StoreError;
use ackline_shared::ids::{AppId, TenantId};
use ackline_shared::model::{App, Entity};
use ackline_shared::registry::{Registry, Snapshot};
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use ackline_shared::subjects::{SPILL, UPDATES, config_key};
use ackline_shared::vault::{VaultError, VaultKey};
use arc_swap::{ArcSwapOption, Guard};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

/// Changes that arrive within this time become one new table.
const SETTLE: Duration = Duration::from_millis(20);

/// The table in force; absent until the configuration has been read once.
#[derive(Debug, Default)]
pub struct Routing(ArcSwapOption<RoutingTable>);

/// Apps by path, and owners by number and by account.
#[derive(Debug, Default)]
pub struct RoutingTable {
    /// The configuration's version it was made from.
    pub version: u64,
    apps: HashMap<String, Arc<AppRoute>>,
    phones: HashMap<String, Owner>,
    wabas: HashMap<String, Owner>,
    unreadable: Unreadable,
    /// Who holds more than its share of what updates are stored in.
    over_share: HashSet<TenantId>,
}

/// What is declared in entries that do not parse, so that it is known to be somebody's and not whose.
#[derive(Debug, Default)]
struct Unreadable {
    entries: Vec<String>,
    apps: HashSet<String>,
    phones: HashSet<String>,
    wabas: HashSet<String>,
    /// There is a number whose account cannot be read: an account that nobody claims may be that one.
    any_waba: bool,
}

/// A Meta app as the edge knows it.
#[derive(Debug)]
pub struct AppRoute {
    pub id: AppId,
    tenant: Option<TenantId>,
    secrets: Option<AppSecrets>,
    declared: Arc<App>,
    /// What its deliveries take in the log that is not acknowledged yet: updates and bytes.
    storing: [Budget; 2],
}

/// What one tenant's own app may have on its way to the log at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InFlight {
    pub updates: usize,
    pub bytes: usize,
}

#[derive(Debug)]
pub struct AppSecrets {
    /// Keys of the live app secrets.
    pub keys: Vec<SigningKey>,
    /// What Meta repeats in the GET handshake.
    pub verify_token: Secret<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    pub tenant: TenantId,
    /// Partitions its conversations spread over.
    pub shards: u8,
}

/// What the table says about an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Route<'t> {
    Owned(&'t Owner),
    /// No configured number or account claims it.
    Unclaimed,
    /// It has an owner for whom this app may not speak.
    Foreign,
    /// It has an owner, who cannot be told because the entry does not parse.
    Unreadable,
}

impl Routing {
    pub fn new() -> Arc<Self> {
        Arc::default()
    }

    pub fn table(&self) -> Option<Arc<RoutingTable>> {
        self.0.load_full()
    }

    /// The table in force, for a request: no thread writes where another one reads.
    pub fn in_force(&self) -> Guard<Option<Arc<RoutingTable>>> {
        self.0.load()
    }

    /// Puts a table in force.
    pub fn replace(&self, table: RoutingTable) {
        self.0.store(Some(Arc::new(table)));
    }

    /// Keeps the table in step with the configuration until nobody changes it any more.
    pub async fn follow(&self, mut registry: Registry, master: &VaultKey) {
        loop {
            if registry.is_loaded() {
                let previous = self.table();
                let table = RoutingTable::build(&registry.snapshot(), master, previous.as_deref());
                tracing::info!(
                    version = table.version,
                    apps = table.apps.len(),
                    numbers = table.phones.len(),
                    "routing table replaced"
                );
                self.replace(table);
            }
            if !registry.changed().await {
                return;
            }
            tokio::time::sleep(SETTLE).await;
        }
    }
}

impl RoutingTable {
    /// Makes a table; apps that did not change keep their opened secrets from `previous`.
    pub fn build(snapshot: &Snapshot, master: &VaultKey, previous: Option<&Self>) -> Self {
        let mut table = Self {
            version: snapshot.version,
            ..Self::default()
        };
        for (id, app) in &snapshot.apps {
            let known = previous.and_then(|previous| previous.apps.get(id.as_str()));
            let unchanged =
                known.filter(|known| known.secrets.is_some() && Arc::ptr_eq(&known.declared, app));
            let route = unchanged
                .cloned()
                .unwrap_or_else(|| Arc::new(AppRoute::open(app, snapshot, master)));
            table.apps.insert(id.as_str().to_owned(), route);
        }
        table.unreadable = Unreadable::of(snapshot);
        let over = snapshot
            .overdrafts
            .iter()
            .filter(|(_, overdraft)| overdraft.is_of(&[UPDATES, SPILL]));
        table.over_share = over.map(|(tenant, _)| tenant.clone()).collect();
        for (id, phone) in &snapshot.phone_numbers {
            let Some(tenant) = snapshot.tenants.get(&phone.tenant) else {
                // A number whose tenant is not declared (yet) stays unrouted: its shards are not known.
                if snapshot
                    .unreadable
                    .contains_key(&config_key::tenant(&phone.tenant))
                {
                    table.unreadable.add(id.as_str(), Some(&phone.waba_id));
                }
                continue;
            };
            let owner = Owner {
                tenant: tenant.id.clone(),
                shards: tenant.shards,
            };
            table
                .wabas
                .entry(phone.waba_id.clone())
                .or_insert_with(|| owner.clone());
            table.phones.insert(id.as_str().to_owned(), owner);
        }
        table
    }

    /// The app behind a path segment.
    pub fn app(&self, app: &str) -> Option<&Arc<AppRoute>> {
        self.apps.get(app)
    }

    /// Whose an update is: by business number, else by account.
    pub fn route(&self, app: &AppRoute, phone: Option<&str>, waba: Option<&str>) -> Route<'_> {
        let owner = match phone {
            Some(phone) => self.phones.get(phone),
            None => waba.and_then(|waba| self.wabas.get(waba)),
        };
        match owner {
            None if self.unreadable.claims(phone, waba) => Route::Unreadable,
            None => Route::Unclaimed,
            Some(owner)
                if app
                    .tenant
                    .as_ref()
                    .is_none_or(|tenant| *tenant == owner.tenant) =>
            {
                Route::Owned(owner)
            }
            Some(_) => Route::Foreign,
        }
    }

    /// Whether anything is declared that webhooks could be for. Nothing is before the first `ackline apply`, and when
    /// the server lost its store: what comes then is asked for again.
    pub fn is_declared(&self) -> bool {
        !self.apps.is_empty() || !self.unreadable.apps.is_empty()
    }

    /// Whether there is a number that messages could be for.
    pub fn has_numbers(&self) -> bool {
        !self.phones.is_empty() || self.hides_numbers()
    }

    /// Whether anybody holds more than its share.
    pub fn has_over_share(&self) -> bool {
        !self.over_share.is_empty()
    }

    /// Whether a tenant holds more than its share.
    pub fn is_over_share(&self, tenant: &str) -> bool {
        self.over_share.iter().any(|over| over.as_str() == tenant)
    }

    /// The keys of entries that do not parse.
    pub fn unreadable(&self) -> &[String] {
        &self.unreadable.entries
    }

    /// Whether an app is declared that cannot be told because its entry does not parse.
    pub fn hides_app(&self, app: &str) -> bool {
        self.unreadable.apps.contains(app)
    }

    /// Whether any number may be somebody's whose entry does not parse.
    pub fn hides_numbers(&self) -> bool {
        self.unreadable.any_waba || !self.unreadable.phones.is_empty()
    }

    /// How many apps and numbers it knows.
    pub fn sizes(&self) -> (usize, usize) {
        (self.apps.len(), self.phones.len())
    }
}

impl Unreadable {
    fn of(snapshot: &Snapshot) -> Self {
        let mut unreadable = Self {
            entries: snapshot.unreadable.keys().cloned().collect(),
            ..Self::default()
        };
        unreadable
            .apps
            .extend(snapshot.unreadable_of("app").map(|(id, _)| id.to_owned()));
        for (id, known) in snapshot.unreadable_of("phone") {
            unreadable.add(id, known.waba_id.as_deref());
        }
        unreadable
    }

    fn add(&mut self, phone: &str, waba: Option<&str>) {
        self.phones.insert(phone.to_owned());
        self.any_waba |= waba.is_none();
        self.wabas.extend(waba.map(str::to_owned));
    }

    fn claims(&self, phone: Option<&str>, waba: Option<&str>) -> bool {
        match (phone, waba) {
            (Some(phone), _) => self.phones.contains(phone),
            (None, Some(waba)) => self.any_waba || self.wabas.contains(waba),
            (None, None) => false,
        }
    }
}

impl AppRoute {
    fn open(app: &Arc<App>, snapshot: &Snapshot, master: &VaultKey) -> Self {
        let secrets = AppSecrets::open(app, snapshot, master)
            .inspect_err(|error| tracing::error!(app = %app.id, %error, "this app's secrets do not open; its webhooks get 503"))
            .ok();
        Self {
            id: app.id.clone(),
            tenant: app.tenant.clone(),
            secrets,
            declared: app.clone(),
            storing: Default::default(),
        }
    }

    /// Holds what a delivery takes on its way to the log. An app of one tenant may have only a part of it all on its way; a
    /// shared one, whose secret no tenant has, may have all.
    pub fn hold(
        &self,
        taken: InFlight,
        most: InFlight,
    ) -> Result<Option<[Held<'_>; 2]>, StoreError> {
        if self.is_shared() {
            return Ok(None);
        }
        let [updates, bytes] = &self.storing;
        let updates = updates
            .hold_within(taken.updates, most.updates)
            .ok_or(StoreError::TenantOverloaded)?;
        let bytes = bytes
            .hold_within(taken.bytes, most.bytes)
            .ok_or(StoreError::TenantOverloaded)?;
        Ok(Some([updates, bytes]))
    }

    /// Whether it belongs to no tenant, so that only Meta and the operator have its secret.
    pub fn is_shared(&self) -> bool {
        self.tenant.is_none()
    }

    /// The app's secrets; absent when they do not open under our master key.
    pub fn secrets(&self) -> Option<&AppSecrets> {
        self.secrets.as_ref()
    }
}

impl AppSecrets {
    fn open(app: &App, snapshot: &Snapshot, master: &VaultKey) -> Result<Self, VaultError> {
        let open = |field| snapshot.open(master, app.scope(), field);
        let secrets: Vec<_> = app.secrets.iter().map(open).collect::<Result<_, _>>()?;
        // An empty secret is one anybody knows; it must never verify anything.
        let live = secrets.iter().filter(|secret| !secret.expose().is_empty());
        Ok(Self {
            keys: live.map(SigningKey::new).collect(),
            verify_token: open(&app.verify_token)?,
        })
    }
}
