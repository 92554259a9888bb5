//! The declared configuration held in memory: what a source reads of the `config` bucket, folded into a snapshot.
//!
//! Readers take a cheap [`Snapshot`] and never wait. While NATS is away the last snapshot stays; a source whose
//! reading breaks begins anew. An entry that does not parse is reported and the rest goes on: what it said before
//! stays in force where that is known, and what it is about counts as declared and unreadable where it is not.

mod flow;
mod held;
mod snapshot;
#[cfg(feature = "client")]
mod source;
mod unreadable;

pub use flow::HeldFlow;
pub use held::Held;
pub use snapshot::Snapshot;
pub use unreadable::Unreadable;

use arc_swap::ArcSwap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A handle on the configuration; cheap to clone.
#[derive(Debug, Clone)]
pub struct Registry {
    current: Arc<ArcSwap<Snapshot>>,
    loaded: watch::Receiver<bool>,
    version: watch::Receiver<u64>,
    taken: watch::Receiver<u64>,
}

impl Registry {
    /// An empty registry, and the writer that a source fills it through.
    pub fn writable() -> (Self, RegistryWriter) {
        let current = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let (loaded_sender, loaded) = watch::channel(false);
        let (version_sender, version) = watch::channel(0);
        let (taken_sender, taken) = watch::channel(0);
        let writer = RegistryWriter {
            current: current.clone(),
            loaded: loaded_sender,
            version: version_sender,
            taken: taken_sender,
            building: Snapshot::default(),
            whole: false,
        };
        (
            Self {
                current,
                loaded,
                version,
                taken,
            },
            writer,
        )
    }

    /// A registry with fixed content, for a part of the program run without NATS.
    pub fn fixed(snapshot: Snapshot) -> Self {
        let (_, version) = watch::channel(snapshot.version);
        let (_, loaded) = watch::channel(true);
        let (_, taken) = watch::channel(0);
        Self {
            current: Arc::new(ArcSwap::from_pointee(snapshot)),
            loaded,
            version,
            taken,
        }
    }

    /// The configuration now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Whether a first whole table has been read.
    pub fn is_loaded(&self) -> bool {
        *self.loaded.borrow()
    }

    /// Waits until a first whole table has been read; false when nothing more of it came for this long.
    pub async fn loaded(&self, silence_max: Duration) -> bool {
        let (mut loaded, mut taken) = (self.loaded.clone(), self.taken.clone());
        loop {
            tokio::select! {
                is_loaded = loaded.wait_for(|loaded| *loaded) => return is_loaded.is_ok(),
                more = tokio::time::timeout(silence_max, taken.changed()) => match more {
                    Ok(Ok(())) => {}
                    Ok(Err(_)) | Err(_) => return self.is_loaded(),
                },
            }
        }
    }

    /// Waits until the configuration is no older than a revision; false when that takes too long.
    pub async fn reached(&self, revision: u64, wait_max: Duration) -> bool {
        let mut version = self.version.clone();
        let reached = version.wait_for(|_| self.current.load().revision >= revision);
        tokio::time::timeout(wait_max, reached)
            .await
            .is_ok_and(|reached| reached.is_ok())
    }

    /// Waits for the next change; false when there will be none.
    pub async fn changed(&mut self) -> bool {
        self.version.changed().await.is_ok()
    }
}

/// Takes what a source reads of the bucket, and gives it to a registry's readers.
#[derive(Debug)]
pub struct RegistryWriter {
    current: Arc<ArcSwap<Snapshot>>,
    loaded: watch::Sender<bool>,
    version: watch::Sender<u64>,
    taken: watch::Sender<u64>,
    building: Snapshot,
    whole: bool,
}

impl RegistryWriter {
    /// Begins a new table, read from the start; the one before stays in force until this one is whole.
    pub fn begin(&mut self) {
        // Another number, even when nothing follows: what was there before may be gone.
        self.building = Snapshot {
            version: self.current.load().version + 1,
            ..Snapshot::default()
        };
        self.whole = false;
    }

    /// Says the revision of the entry that is taken next, where the source knows it.
    pub fn reach(&mut self, revision: u64) {
        self.building.revision = revision;
    }

    /// Takes an entry; `None` as value means that the key was removed.
    pub fn take(&mut self, key: &str, value: Option<&[u8]>) {
        if let Err(error) = self.building.fold(key, value) {
            self.building.inherit(key, &self.current.load());
            tracing::error!(key, %error, "this configuration entry does not parse; what it said before stays in force where that is known, webhooks of an app or a number get 503 where it is not");
        }
        self.taken.send_modify(|taken| *taken += 1);
        if self.whole {
            self.publish();
        }
    }

    /// Says that everything that was there was taken; what is taken from now on counts at once.
    pub fn complete(&mut self) {
        if !std::mem::replace(&mut self.whole, true) {
            self.publish();
        }
    }

    /// Whether nothing was taken since it began.
    pub fn is_empty(&self) -> bool {
        self.building.version == 0 || self.building.version == self.current.load().version + 1
    }

    /// Whether everything that was there was taken.
    pub fn is_whole(&self) -> bool {
        self.whole
    }

    /// Whether nobody reads the registry any more.
    pub fn is_unread(&self) -> bool {
        self.loaded.is_closed()
    }

    /// Waits until nobody reads the registry any more.
    pub async fn unread(&self) {
        self.loaded.closed().await;
    }

    fn publish(&self) {
        self.current.store(Arc::new(self.building.clone()));
        self.version.send_replace(self.building.version);
        self.loaded.send_replace(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::TenantId;
    use crate::model::{INSTALLATION_SCOPE, SecretField};
    use crate::secret::Secret;
    use crate::subjects::config_key;
    use crate::vault::VaultKey;

    #[test]
    fn changes_fold_into_the_snapshot_and_out_of_it() {
        let mut snapshot = Snapshot::default();
        snapshot
            .fold("tenant.acme", Some(br#"{"id":"acme","name":"Acme"}"#))
            .unwrap();
        snapshot
            .fold(
                "bot.acme.b1",
                Some(br#"{"id":"b1","tenant":"acme","flows":["f"]}"#),
            )
            .unwrap();
        snapshot
            .fold(
                "bot.acme-2.b1",
                Some(br#"{"id":"b1","tenant":"acme-2","flows":["f"]}"#),
            )
            .unwrap();
        let acme = TenantId::new("acme").unwrap();
        assert_eq!(snapshot.tenants[&acme].shards, 4);
        assert_eq!(Snapshot::owned(&snapshot.bots, "bot", &acme).count(), 1);
        snapshot.fold("bot.acme.b1", None).unwrap();
        assert_eq!(Snapshot::owned(&snapshot.bots, "bot", &acme).count(), 0);
        assert_eq!(snapshot.version, 4);
    }

    #[test]
    fn an_entry_of_another_version_is_read_and_one_that_does_not_parse_is_known_to_be_there() {
        let mut snapshot = Snapshot::default();
        let newer = br#"{"v":2,"id":"acme","name":"A","colour":{"of":"tomorrow"}}"#;
        snapshot.fold("tenant.acme", Some(newer)).unwrap();
        assert_eq!(snapshot.tenants.len(), 1);
        assert!(
            snapshot
                .fold("tenant.b", Some(br#"{"id":"b","name":7}"#))
                .is_err()
        );
        assert!(snapshot.tenants.len() == 1 && snapshot.unreadable.contains_key("tenant.b"));
        snapshot
            .fold("tenant.b", Some(br#"{"id":"b","name":"B"}"#))
            .unwrap();
        assert!(snapshot.tenants.len() == 2 && snapshot.unreadable.is_empty());
        assert!(snapshot.fold("tenant.b", Some(b"{")).is_err());
        snapshot.fold("tenant.b", None).unwrap();
        assert!(snapshot.tenants.len() == 1 && snapshot.unreadable.is_empty());
    }

    #[test]
    fn what_an_entry_said_before_stays_in_force_however_often_the_table_is_read() {
        let (registry, mut writer) = Registry::writable();
        let acme = TenantId::new("acme").unwrap();
        writer.take("tenant.acme", Some(br#"{"id":"acme","name":"A"}"#));
        writer.complete();
        writer.take("tenant.acme", Some(b"{"));
        for _ in 0..2 {
            let snapshot = registry.snapshot();
            assert_eq!(snapshot.tenants[&acme].name, "A");
            assert_eq!(
                snapshot.unreadable.keys().collect::<Vec<_>>(),
                ["tenant.acme"]
            );
            writer.begin();
            writer.take("tenant.acme", Some(b"{"));
            writer.complete();
        }
        writer.begin();
        writer.complete();
        assert!(
            registry.snapshot().tenants.is_empty() && registry.snapshot().unreadable.is_empty()
        );
    }

    #[test]
    fn a_table_read_anew_takes_the_place_of_the_last_one_when_it_is_whole() {
        let (registry, mut writer) = Registry::writable();
        let tenant = |id: &str| format!(r#"{{"id":"{id}","name":"A"}}"#);
        let shown = || {
            registry
                .snapshot()
                .tenants
                .keys()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        writer.take("tenant.acme", Some(tenant("acme").as_bytes()));
        assert!(!registry.is_loaded() && shown().is_empty());
        writer.complete();
        writer.take("tenant.b", Some(tenant("b").as_bytes()));
        assert!(registry.is_loaded());
        assert_eq!(shown(), ["acme", "b"]);
        let version = registry.snapshot().version;
        writer.begin();
        writer.take("tenant.c", Some(tenant("c").as_bytes()));
        assert_eq!(shown(), ["acme", "b"]);
        writer.complete();
        assert_eq!(shown(), ["c"]);
        assert!(registry.snapshot().version > version);
        assert!(!writer.is_unread());
        drop(registry);
        assert!(writer.is_unread());
    }

    #[tokio::test(start_paused = true)]
    async fn a_table_may_take_long_to_read_as_long_as_it_goes_on() {
        let (registry, mut writer) = Registry::writable();
        let second = Duration::from_secs(1);
        let reading = async {
            for n in 0..100 {
                tokio::time::sleep(second).await;
                writer.take(&format!("tenant.t{n}"), Some(br#"{"id":"t","name":"T"}"#));
            }
            writer.complete();
        };
        let (loaded, ()) = tokio::join!(registry.loaded(second * 2), reading);
        assert!(loaded);
        let (registry, writer) = Registry::writable();
        assert!(!registry.loaded(second * 2).await, "nothing comes");
        drop(writer);
        assert!(!registry.loaded(second * 2).await, "nothing will come");
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_as_new_as_a_revision_once_its_entry_was_taken() {
        let (registry, mut writer) = Registry::writable();
        let second = Duration::from_secs(1);
        writer.reach(7);
        writer.take("tenant.acme", Some(br#"{"id":"acme","name":"A"}"#));
        assert!(!registry.reached(7, second).await, "it is not whole yet");
        writer.complete();
        assert!(registry.reached(7, second).await);
        assert!(!registry.reached(8, second).await);
        let later = async {
            tokio::time::sleep(second).await;
            writer.reach(8);
            writer.take("tenant.acme", None);
        };
        let (reached, ()) = tokio::join!(registry.reached(8, second * 2), later);
        assert!(reached);
    }

    #[test]
    fn a_secret_opens_through_its_scopes_data_key() {
        let (master, data) = (VaultKey::generate(), VaultKey::generate());
        let mut snapshot = Snapshot::default();
        let stored = serde_json::to_vec(&data.seal_under(&master, INSTALLATION_SCOPE)).unwrap();
        snapshot
            .fold(&config_key::data_key(INSTALLATION_SCOPE), Some(&stored))
            .unwrap();
        let field =
            SecretField::sealed(&data.seal(INSTALLATION_SCOPE, &Secret::new("s3cret".to_owned())));
        assert_eq!(
            snapshot
                .open(&master, INSTALLATION_SCOPE, &field)
                .unwrap()
                .expose(),
            "s3cret"
        );
        assert!(snapshot.open(&master, "acme", &field).is_err());
    }

    #[test]
    fn every_entry_of_a_tenant_counts_and_nobody_elses() {
        let mut snapshot = Snapshot::default();
        let flow = br#"{"id":"f","tenant":"acme","definition":{"format":1,"ui":{"a":1}}}"#;
        for (key, value) in [
            (
                "tenant.acme",
                &br#"{"id":"acme","name":"Acme","shards":4}"#[..],
            ),
            ("tenant.acme-2", br#"{"id":"acme-2","name":"Other"}"#),
            ("bot.acme.b", br#"{"id":"b","tenant":"acme","flows":["f"]}"#),
            (
                "bot.acme-2.b",
                br#"{"id":"b","tenant":"acme-2","flows":["f"]}"#,
            ),
            ("flow.acme.f", flow),
            (
                "phone.1",
                br#"{"id":"1","tenant":"acme","app":"a","waba_id":"W","access_token":"t"}"#,
            ),
            (
                "phone.2",
                br#"{"id":"2","tenant":"acme-2","app":"a","waba_id":"W","access_token":"t"}"#,
            ),
        ] {
            snapshot.fold(key, Some(value)).unwrap();
        }
        let sizes = snapshot.sizes(&TenantId::new("acme").unwrap());
        assert_eq!(
            sizes.keys().collect::<Vec<_>>(),
            ["bot.acme.b", "flow.acme.f", "phone.1", "tenant.acme"]
        );
        assert_eq!(
            sizes["flow.acme.f"],
            u64::try_from(flow.len()).unwrap(),
            "with its drawing"
        );
        assert_eq!(sizes["tenant.acme"], 38);
    }
}
