//! The compiled flows of a business number: compiled once per version of their declaration, shared after that.

use super::bot::Flow;
use super::compiled::Compiled;
use ackline_shared::ids::{PhoneNumberId, TenantId};
use ackline_shared::model;
use ackline_shared::registry::{HeldFlow, Snapshot};
use ackline_shared::subjects::config_key;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Compiled flows kept; beyond it, those go that were not used for longest.
const KEPT_MAX: usize = 20_000;
/// Bytes of the definitions they were compiled from; compiled, they take several times as much.
const KEPT_BYTES_MAX: usize = 32 << 20;

/// The live flows of one number with the bot each belongs to, in order of precedence.
#[derive(Debug, Default)]
pub struct LiveFlows {
    pub flows: Vec<Flow>,
    /// The bot of each flow, by the same index.
    pub bots: Vec<String>,
}

impl LiveFlows {
    /// Leaves only the flows of these bots.
    pub fn keep_bots(&mut self, is_meant: impl Fn(&str) -> bool) {
        let pairs = std::mem::take(&mut self.flows)
            .into_iter()
            .zip(std::mem::take(&mut self.bots));
        (self.flows, self.bots) = pairs.filter(|(_, bot)| is_meant(bot)).unzip();
    }

    /// The bot a flow belongs to.
    pub fn bot_of(&self, flow: &str) -> &str {
        let index = self.flows.iter().position(|candidate| candidate.id == flow);
        index
            .and_then(|index| self.bots.get(index))
            .map_or("", String::as_str)
    }
}

#[derive(Debug, Default)]
pub struct Library(Mutex<Cache>);

/// Flows as they were compiled, by their config key.
#[derive(Debug, Default)]
struct Cache {
    kept: HashMap<String, Kept>,
    bytes: usize,
    uses: u64,
}

/// A flow as it was compiled; `None` when it is not valid.
#[derive(Debug)]
struct Kept {
    declared: Arc<HeldFlow>,
    compiled: Option<Arc<Compiled>>,
    used: u64,
}

impl Cache {
    fn get(&mut self, key: &str, declared: &Arc<HeldFlow>) -> Option<Option<Arc<Compiled>>> {
        self.uses += 1;
        let kept = self
            .kept
            .get_mut(key)
            .filter(|kept| Arc::ptr_eq(&kept.declared, declared))?;
        kept.used = self.uses;
        Some(kept.compiled.clone())
    }

    fn keep(&mut self, key: String, declared: Arc<HeldFlow>, compiled: Option<Arc<Compiled>>) {
        self.forget(&key);
        self.bytes += declared.text().len();
        self.kept.insert(
            key,
            Kept {
                declared,
                compiled,
                used: self.uses,
            },
        );
        while self.kept.len() > KEPT_MAX || (self.bytes > KEPT_BYTES_MAX && self.kept.len() > 1) {
            let oldest = self
                .kept
                .iter()
                .min_by_key(|(_, kept)| kept.used)
                .map(|(key, _)| key.clone());
            oldest.into_iter().for_each(|key| self.forget(&key));
        }
    }

    fn forget(&mut self, key: &str) {
        if let Some(gone) = self.kept.remove(key) {
            self.bytes -= gone.declared.text().len();
        }
    }
}

impl Library {
    /// Whether any bot answers on the number.
    pub fn answers(snapshot: &Snapshot, tenant: &TenantId, phone: Option<&PhoneNumberId>) -> bool {
        bots(snapshot, tenant, phone).next().is_some()
    }

    /// Gives the flows that may answer on a number.
    pub fn live_flows(
        &self,
        snapshot: &Snapshot,
        tenant: &TenantId,
        phone: Option<&PhoneNumberId>,
    ) -> LiveFlows {
        let mut live_flows = LiveFlows::default();
        for bot in bots(snapshot, tenant, phone) {
            for id in &bot.flows {
                let declared = snapshot.flows.get(&config_key::owned("flow", tenant, id));
                let Some(compiled) = declared.and_then(|flow| self.compiled(flow)) else {
                    tracing::warn!(%tenant, bot = %bot.id, flow = %id, "a bot names a flow that is missing or not valid");
                    continue;
                };
                live_flows.flows.push(Flow {
                    id: id.to_string(),
                    compiled,
                });
                live_flows.bots.push(bot.id.to_string());
            }
        }
        live_flows
    }

    fn compiled(&self, flow: &Arc<HeldFlow>) -> Option<Arc<Compiled>> {
        let key = config_key::owned("flow", &flow.tenant, &flow.id);
        if let Some(compiled) = self.cache().get(&key, flow) {
            return compiled;
        }
        // Outside the lock: others go on with theirs while a large one is compiled.
        let definition = flow.definition().ok();
        let compiled = definition
            .and_then(|definition| Compiled::from_json(&definition).ok())
            .map(Arc::new);
        self.cache().keep(key, flow.clone(), compiled.clone());
        compiled
    }

    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn bots<'a>(
    snapshot: &'a Snapshot,
    tenant: &'a TenantId,
    phone: Option<&'a PhoneNumberId>,
) -> impl Iterator<Item = &'a Arc<model::Bot>> {
    Snapshot::owned(&snapshot.bots, "bot", tenant).filter(move |bot| {
        bot.enabled
            && (bot.phone_numbers.is_empty()
                || phone.is_some_and(|phone| bot.phone_numbers.contains(phone)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, Value, json};

    fn declared(id: &str, bytes: usize) -> Arc<HeldFlow> {
        let mut nodes = Map::new();
        nodes.insert("a".to_owned(), json!({"kind": "end"}));
        let variables: Map<String, Value> = [("pad".to_owned(), json!("x".repeat(bytes)))]
            .into_iter()
            .collect();
        let definition =
            json!({"format": 1, "name": "n", "start": "a", "nodes": nodes, "variables": variables});
        let entry = json!({"id": id, "tenant": "acme", "definition": definition}).to_string();
        Arc::new(HeldFlow::read(entry.as_bytes()).unwrap())
    }

    #[test]
    fn a_flow_is_compiled_once_for_each_version_and_the_least_used_go_when_there_are_too_many_bytes()
     {
        let library = Library::default();
        let (small, bytes) = (declared("small", 10), KEPT_BYTES_MAX / 4);
        let first = library.compiled(&small).map(|flow| Arc::as_ptr(&flow));
        assert_eq!(
            library.compiled(&small).map(|flow| Arc::as_ptr(&flow)),
            first,
            "it is kept"
        );
        for n in 0..8 {
            library.compiled(&declared(&format!("f{n}"), bytes));
            assert_eq!(
                library.compiled(&small).map(|flow| Arc::as_ptr(&flow)),
                first,
                "it is in use"
            );
        }
        let cache = library.cache();
        assert_eq!(cache.kept.len(), 4, "{:?}", cache.kept.keys());
        assert!(
            cache.kept.contains_key("flow.acme.small") && cache.kept.contains_key("flow.acme.f7")
        );
        assert_eq!(
            cache.bytes,
            cache
                .kept
                .values()
                .map(|kept| kept.declared.text().len())
                .sum::<usize>()
        );
    }

    #[test]
    fn a_flow_that_is_declared_anew_is_compiled_anew() {
        let library = Library::default();
        let first = library
            .compiled(&declared("f", 10))
            .map(|flow| flow.version().to_owned());
        let second = library
            .compiled(&declared("f", 20))
            .map(|flow| flow.version().to_owned());
        assert!(first.is_some() && first != second);
        assert_eq!(library.cache().kept.len(), 1);
    }
}
