//! What has to be written so that the store matches a document: an ordered list of changes, each with its
//! difference in words and the revision it expects.
//!
//! Secrets are compared opened, so a secret sealed anew is no change; only their names appear in words. What
//! the document owns and does not declare stays, unless pruning is asked for.

use super::difference;
use super::ownership::Owns;
use super::part::{self, Part};
use super::stored::{Stored, StoredEntry};
use ackline_shared::ids::TenantId;
use ackline_shared::model::INSTALLATION_SCOPE;
use ackline_shared::stored::Newer;
use ackline_shared::subjects::config_key;
use ackline_shared::vault::VaultKey;
use bytes::Bytes;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

const DATA_KEY: &str = "data key";

/// Why no plan can be made.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// A data key is sealed under another master key.
    #[error(
        "the master key does not open the stored data key of {scope}: use the master key that this installation was set up with (secrets.master_key_file)"
    )]
    MasterKey {
        /// Whose data key it is.
        scope: String,
    },
    /// An entry is not to be written over.
    #[error("{what}: {newer}")]
    Newer { what: String, newer: Newer },
}

/// What is done to a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Written for the first time.
    Add,
    Change,
    Remove,
}

#[derive(Debug, Clone)]
pub struct Change {
    pub action: Action,
    /// The word for what it is.
    pub noun: &'static str,
    /// Its name as people write it.
    pub name: String,
    pub details: Vec<String>,
    /// Its key in the bucket.
    pub key: String,
    /// The revision that must still be the last; `None` when the key must not exist.
    pub revision: Option<u64>,
    /// What is stored, where it is written anew.
    pub before: Option<Bytes>,
    pub content: Content,
}

#[derive(Debug, Clone)]
pub enum Content {
    /// A fresh data key for a scope.
    DataKey(String),
    Part(Box<Part>),
    /// Nothing: the key goes away.
    Nothing,
}

/// Something stored that the document owns and does not declare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The word for what it is.
    pub noun: &'static str,
    /// Its name as people write it.
    pub name: String,
}

/// Everything to do, in order.
#[derive(Debug, Default)]
pub struct Plan {
    /// The changes, what others refer to first; removals last and the other way round.
    pub changes: Vec<Change>,
    /// What stays although the document does not declare it.
    pub kept: Vec<Kept>,
    /// The data keys that exist, by scope.
    pub keyring: BTreeMap<String, VaultKey>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = match self.action {
            Action::Add => '+',
            Action::Change => '~',
            Action::Remove => '-',
        };
        write!(f, "{sign} {} {}", self.noun, self.name)?;
        match self.details.as_slice() {
            [] => Ok(()),
            [only] => write!(f, ": {only}"),
            several => several
                .iter()
                .try_for_each(|line| write!(f, "\n    {line}")),
        }
    }
}

impl Plan {
    /// How many changes do this.
    pub fn count(&self, action: Action) -> usize {
        self.changes
            .iter()
            .filter(|change| change.action == action)
            .count()
    }
}

/// Compares parts in order of writing with what is stored; prunes what the document owns.
pub fn plan(
    parts: Vec<Part>,
    stored: &Stored,
    master: &VaultKey,
    owns: &Owns,
    prune: bool,
) -> Result<Plan, PlanError> {
    let declared: BTreeSet<String> = parts.iter().map(Part::key).collect();
    let mut plan = Plan {
        keyring: keyring(&parts, stored, master)?,
        ..Plan::default()
    };
    let scopes: BTreeSet<&str> = parts
        .iter()
        .filter(|part| part.has_secrets())
        .map(Part::scope)
        .collect();
    for scope in scopes
        .into_iter()
        .filter(|scope| !plan.keyring.contains_key(*scope))
    {
        plan.changes.push(Change {
            action: Action::Add,
            noun: DATA_KEY,
            name: format!("of {scope}"),
            details: Vec::new(),
            key: config_key::data_key(scope),
            revision: None,
            before: None,
            content: Content::DataKey(scope.to_owned()),
        });
    }
    for part in parts {
        let change = compare(part, stored, master, &plan.keyring);
        plan.changes.extend(change.map(refuse_newer).transpose()?);
    }
    surplus(&mut plan, &declared, stored, owns, prune);
    Ok(plan)
}

fn keyring(
    parts: &[Part],
    stored: &Stored,
    master: &VaultKey,
) -> Result<BTreeMap<String, VaultKey>, PlanError> {
    let scopes: BTreeSet<&str> = parts
        .iter()
        .filter(|part| part.has_secrets())
        .map(Part::scope)
        .collect();
    let opened = scopes
        .into_iter()
        .filter_map(|scope| Some((scope, stored.data_key(master, scope)?)));
    opened
        .map(|(scope, key)| match key {
            Ok(key) => Ok((scope.to_owned(), key)),
            Err(_) => Err(PlanError::MasterKey {
                scope: scope.to_owned(),
            }),
        })
        .collect()
}

fn compare(
    part: Part,
    stored: &Stored,
    master: &VaultKey,
    keyring: &BTreeMap<String, VaultKey>,
) -> Option<Change> {
    let key = part.key();
    let (noun, name) = part::describe(&key)?;
    let (action, stored_before, details) = match stored.0.get(&key) {
        None => (Action::Add, None, Vec::new()),
        Some(entry) => {
            let details = differences(&part, &key, entry, stored, master, keyring);
            if details.is_empty() {
                return None;
            }
            (Action::Change, Some(entry.clone()), details)
        }
    };
    let content = Content::Part(Box::new(part));
    let (revision, before) = stored_before
        .map(|entry| (entry.revision, entry.value))
        .unzip();
    Some(Change {
        action,
        noun,
        name,
        details,
        key,
        revision,
        before,
        content,
    })
}

/// Nothing is written when one of the entries is a newer version's.
fn refuse_newer(change: Change) -> Result<Change, PlanError> {
    if let (Content::Part(part), Some(before)) = (&change.content, &change.before) {
        let what = || format!("{} {}", change.noun, change.name);
        part.may_replace(before).map_err(|newer| PlanError::Newer {
            what: what(),
            newer,
        })?;
    }
    Ok(change)
}

fn differences(
    part: &Part,
    key: &str,
    entry: &StoredEntry,
    stored: &Stored,
    master: &VaultKey,
    keyring: &BTreeMap<String, VaultKey>,
) -> Vec<String> {
    let Some(Ok(before)) = Part::read(key, &entry.value) else {
        return vec!["the stored entry cannot be read and is written anew".to_owned()];
    };
    let mut lines = difference::lines(&before.open_side(), &part.open_side());
    if !before.has_secrets() && !part.has_secrets() {
        return lines;
    }
    // A plain secret needs no key to be read, so any will do where the scope has none yet.
    let now = part
        .open_secrets(keyring.get(part.scope()).unwrap_or(master))
        .unwrap_or_default();
    let then = match stored.data_key(master, before.scope()) {
        Some(Ok(data_key)) => before.open_secrets(&data_key).ok(),
        _ => None,
    };
    let Some(then) = then else {
        lines.push("the stored secrets do not open and are written anew".to_owned());
        return lines;
    };
    let names: BTreeSet<&String> = then.keys().chain(now.keys()).collect();
    lines.extend(
        names
            .into_iter()
            .filter_map(|name| match (then.get(name), now.get(name)) {
                (None, Some(_)) => Some(format!("{name} added")),
                (Some(_), None) => Some(format!("{name} removed")),
                (Some(old), Some(new)) if old != new => Some(format!("{name} changed")),
                _ => None,
            }),
    );
    lines
}

/// Removes or lists what is stored and not declared.
fn surplus(
    plan: &mut Plan,
    declared: &BTreeSet<String>,
    stored: &Stored,
    owns: &Owns,
    prune: bool,
) {
    let mut keys: Vec<String> = owns.surplus(declared, stored).into_iter().collect();
    keys.sort_by_key(|key| std::cmp::Reverse(part::rank(key)));
    for key in keys {
        if prune {
            plan.changes.extend(remove(stored, &key));
        } else if let Some((noun, name)) = part::describe(&key) {
            plan.kept.push(Kept { noun, name });
        }
    }
    if !prune {
        return;
    }
    // Without its data key, nothing that was ever sealed for a removed tenant can be read again.
    let (snapshot, _) = stored.snapshot();
    for key in stored.0.keys() {
        let Some(scope) = key.strip_prefix(&config_key::data_key("")) else {
            continue;
        };
        let tenant = TenantId::new(scope)
            .map(|tenant| config_key::tenant(&tenant))
            .unwrap_or_default();
        if scope != INSTALLATION_SCOPE
            && !declared.contains(&tenant)
            && owns.has(&tenant, &snapshot)
        {
            plan.changes.extend(remove(stored, key));
        }
    }
}

/// The removal of an entity; that of a tenant takes its data key with it.
pub fn removal(stored: &Stored, key: &str) -> Vec<Change> {
    let tenant = key.strip_prefix("tenant.");
    let data_key = tenant.and_then(|tenant| remove(stored, &config_key::data_key(tenant)));
    remove(stored, key).into_iter().chain(data_key).collect()
}

/// The removal of what is stored under a key.
fn remove(stored: &Stored, key: &str) -> Option<Change> {
    let data_key = || {
        Some((
            DATA_KEY,
            format!("of {}", key.strip_prefix(&config_key::data_key(""))?),
        ))
    };
    let (noun, name) = part::describe(key).or_else(data_key)?;
    let revision = Some(stored.0.get(key)?.revision);
    let (details, content) = (Vec::new(), Content::Nothing);
    let (key, before) = (key.to_owned(), None);
    Some(Change {
        action: Action::Remove,
        noun,
        name,
        details,
        key,
        revision,
        before,
        content,
    })
}

impl Serialize for Change {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let value = serde_json::json!({
            "action": self.action, "what": self.noun, "name": self.name, "details": self.details,
        });
        Value::serialize(&value, serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;
    use ackline_shared::model::Document;

    /// Compares, as a document of the whole installation.
    fn plan(
        parts: Vec<Part>,
        stored: &Stored,
        master: &VaultKey,
        prune: bool,
    ) -> Result<Plan, PlanError> {
        let tenants = ["acme", "globex"]
            .map(|id| TenantId::new(id).unwrap())
            .into();
        let owns = Owns {
            tenants,
            installation: true,
            ..Owns::default()
        };
        super::plan(parts, stored, master, &owns, prune)
    }

    /// The store as it is after a plan was carried out.
    fn carry_out(mut stored: Stored, plan: Plan, master: &VaultKey) -> Stored {
        let mut keyring = plan.keyring;
        for change in plan.changes {
            let value = match change.content {
                Content::DataKey(scope) => {
                    let key = VaultKey::generate();
                    let sealed = key.seal_under(master, &scope);
                    keyring.insert(scope, key);
                    serde_json::to_vec(&sealed).unwrap()
                }
                Content::Part(part) => {
                    let data_key = keyring
                        .get(part.scope())
                        .cloned()
                        .unwrap_or_else(VaultKey::generate);
                    part.seal(&data_key, change.before.as_deref()).unwrap()
                }
                Content::Nothing => {
                    stored.0.remove(&change.key);
                    continue;
                }
            };
            let revision = change.revision.unwrap_or_default() + 1;
            stored.0.insert(
                change.key,
                StoredEntry {
                    revision,
                    value: value.into(),
                },
            );
        }
        stored
    }

    fn said(plan: &Plan) -> Vec<String> {
        plan.changes.iter().map(ToString::to_string).collect()
    }

    fn changed(edit: impl FnOnce(&mut Document), prune: bool) -> (Plan, VaultKey) {
        let master = VaultKey::generate();
        let mut document = samples::document();
        let first = plan(Part::all_of(&document), &Stored::default(), &master, false).unwrap();
        let stored = carry_out(Stored::default(), first, &master);
        edit(&mut document);
        (
            plan(Part::all_of(&document), &stored, &master, prune).unwrap(),
            master,
        )
    }

    #[test]
    fn an_empty_store_gets_everything_in_order_with_numbers_last() {
        let plan = plan(
            Part::all_of(&samples::document()),
            &Stored::default(),
            &VaultKey::generate(),
            true,
        );
        assert_eq!(
            said(&plan.unwrap()),
            [
                "+ data key of _installation",
                "+ data key of acme",
                "+ brand ackline",
                "+ tenant acme",
                "+ tenant globex",
                "+ app main",
                "+ flow acme/welcome",
                "+ bot acme/shop",
                "+ relay acme/old",
                "+ endpoint acme/main",
                "+ crm link acme/desk",
                "+ api key acme/ci",
                "+ phone number 106540352242922",
            ]
        );
    }

    #[test]
    fn the_same_document_again_is_no_change_although_every_sealing_differs() {
        let (plan, _) = changed(|_| (), true);
        assert_eq!(said(&plan), Vec::<String>::new());
    }

    #[test]
    fn differences_are_told_and_secrets_only_by_name() {
        let (plan, _) = changed(
            |document| {
                let fresh = |text: &str| serde_json::from_value(Value::from(text)).unwrap();
                document.tenants[0].name = "Acme Inc".to_owned();
                document.apps[0].secrets[1] = fresh("s3cret-fresh");
                document.apps[0].verify_token = fresh("s3cret-fresh");
                document.endpoints[0]
                    .secrets
                    .push(fresh("whsec_s3cret-fresh"));
                document.relays[0].app_secret = None;
                document.relays[0].concurrency = 2;
                document.flows[0].definition["name"] = Value::from("Hello");
            },
            false,
        );
        assert_eq!(
            said(&plan),
            [
                "~ tenant acme: name: \"Acme\" → \"Acme Inc\"",
                "~ app main\n    secret 2 changed\n    verify_token changed",
                "~ flow acme/welcome: definition.name changed",
                "~ relay acme/old\n    concurrency: 8 → 2\n    app_secret removed",
                "~ endpoint acme/main: secret 2 added",
            ]
        );
        let json = serde_json::to_string(&plan.changes).unwrap();
        for text in [said(&plan).join("\n"), json, format!("{plan:?}")] {
            assert!(!text.contains("s3cret"), "{text}");
        }
    }

    #[test]
    fn what_is_not_declared_is_kept_or_pruned_in_reverse_order_with_its_data_key() {
        let only_globex = |document: &mut Document| {
            document.tenants.remove(0);
            document.phone_numbers.clear();
            document.bots.clear();
            document.flows.clear();
            document.relays.clear();
            document.endpoints.clear();
            document.crm_links.clear();
            document.api_keys.clear();
        };
        let (plan, _) = changed(only_globex, false);
        assert!(plan.changes.is_empty());
        assert_eq!(plan.kept.len(), 8);
        let (plan, _) = changed(only_globex, true);
        assert!(plan.kept.is_empty());
        assert_eq!(
            said(&plan),
            [
                "- phone number 106540352242922",
                "- api key acme/ci",
                "- crm link acme/desk",
                "- endpoint acme/main",
                "- relay acme/old",
                "- bot acme/shop",
                "- flow acme/welcome",
                "- tenant acme",
                "- data key of acme",
            ]
        );
    }

    #[test]
    fn another_master_key_is_refused_before_anything_is_compared() {
        let (master, document) = (VaultKey::generate(), samples::document());
        let first = plan(Part::all_of(&document), &Stored::default(), &master, false).unwrap();
        let stored = carry_out(Stored::default(), first, &master);
        let error = plan(
            Part::all_of(&document),
            &stored,
            &VaultKey::generate(),
            false,
        )
        .unwrap_err();
        assert!(
            error.to_string().contains("master key does not open"),
            "{error}"
        );
    }

    #[test]
    fn what_a_newer_version_wrote_is_compared_and_not_written_over() {
        let (master, mut document) = (VaultKey::generate(), samples::document());
        let first = plan(Part::all_of(&document), &Stored::default(), &master, false).unwrap();
        let mut stored = carry_out(Stored::default(), first, &master);
        let mut write = |value: &str| {
            stored.0.get_mut("tenant.globex").unwrap().value = value.to_owned().into()
        };
        write(r#"{"v":1,"id":"globex","name":"Globex","shards":4,"colour":"red"}"#);
        document.tenants[1].name = "Globex Inc".to_owned();
        let change = plan(Part::all_of(&document), &stored, &master, false).unwrap();
        let stored = carry_out(stored, change, &master);
        let kept: Value = serde_json::from_slice(&stored.0["tenant.globex"].value).unwrap();
        assert_eq!(
            (&kept["name"], &kept["colour"]),
            (&Value::from("Globex Inc"), &Value::from("red"))
        );
        let mut stored = stored;
        let newer = r#"{"v":2,"id":"globex","name":"Globex Inc","shards":4}"#;
        stored.0.get_mut("tenant.globex").unwrap().value = newer.into();
        assert!(
            plan(Part::all_of(&document), &stored, &master, false)
                .unwrap()
                .changes
                .is_empty()
        );
        document.tenants[1].name = "Globex".to_owned();
        let error = plan(Part::all_of(&document), &stored, &master, false)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("tenant globex") && error.contains("newer version"),
            "{error}"
        );
    }

    #[test]
    fn damaged_entries_are_written_anew() {
        let (master, document) = (VaultKey::generate(), samples::document());
        let first = plan(Part::all_of(&document), &Stored::default(), &master, false).unwrap();
        let mut stored = carry_out(Stored::default(), first, &master);
        let entry = stored.0.get_mut("tenant.globex").unwrap();
        entry.value = "{\"id\":1}".into();
        let foreign = Part::all_of(&document)
            .into_iter()
            .find(|part| part.key() == "app.main")
            .unwrap();
        stored.0.get_mut("app.main").unwrap().value =
            foreign.seal(&VaultKey::generate(), None).unwrap().into();
        let plan = plan(Part::all_of(&document), &stored, &master, false).unwrap();
        assert_eq!(
            said(&plan),
            [
                "~ tenant globex: the stored entry cannot be read and is written anew",
                "~ app main: the stored secrets do not open and are written anew",
            ]
        );
    }
}
