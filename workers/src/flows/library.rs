//! The compiled flows of a business number: compiled once per version of their declaration, shared after that.

use super::bot::Flow;
use super::compile::Compiled;
use ackline_shared::ids::{PhoneNumberId, TenantId};
use ackline_shared::model;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::config_key;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Compiled flows kept; when full, it starts anew.
const KEPT_MAX: usize = 20_000;

/// The live flows of one number with the bot each belongs to, in order of precedence.
#[derive(Debug, Default)]
pub struct Shelf {
    /// The flows.
    pub flows: Vec<Flow>,
    /// The bot of each flow, by the same index.
    pub bots: Vec<String>,
}

impl Shelf {
    /// Leaves only the flows of these bots.
    pub fn keep_bots(&mut self, is_meant: impl Fn(&str) -> bool) {
        let pairs = std::mem::take(&mut self.flows).into_iter().zip(std::mem::take(&mut self.bots));
        (self.flows, self.bots) = pairs.filter(|(_, bot)| is_meant(bot)).unzip();
    }

    /// The bot a flow belongs to.
    pub fn bot_of(&self, flow: &str) -> &str {
        let index = self.flows.iter().position(|candidate| candidate.id == flow);
        index.and_then(|index| self.bots.get(index)).map_or("", String::as_str)
    }
}

/// Compiled flows by their config key.
#[derive(Debug, Default)]
pub struct Library(Mutex<HashMap<String, Kept>>);

/// A flow as it was compiled; `None` when it is not valid.
#[derive(Debug)]
struct Kept {
    declared: Arc<model::Flow>,
    compiled: Option<Arc<Compiled>>,
}

impl Library {
    /// Whether any bot answers on the number.
    pub fn answers(snapshot: &Snapshot, tenant: &TenantId, phone: Option<&PhoneNumberId>) -> bool {
        bots(snapshot, tenant, phone).next().is_some()
    }

    /// Gives the flows that may answer on a number.
    pub fn shelf(&self, snapshot: &Snapshot, tenant: &TenantId, phone: Option<&PhoneNumberId>) -> Shelf {
        let mut shelf = Shelf::default();
        for bot in bots(snapshot, tenant, phone) {
            for id in &bot.flows {
                let declared = snapshot.flows.get(&config_key::owned("flow", tenant, id));
                let Some(compiled) = declared.and_then(|flow| self.compiled(flow)) else {
                    tracing::warn!(%tenant, bot = %bot.id, flow = %id, "a bot names a flow that is missing or not valid");
                    continue;
                };
                shelf.flows.push(Flow { id: id.to_string(), compiled });
                shelf.bots.push(bot.id.to_string());
            }
        }
        shelf
    }

    fn compiled(&self, flow: &Arc<model::Flow>) -> Option<Arc<Compiled>> {
        let key = config_key::owned("flow", &flow.tenant, &flow.id);
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(copy) = kept.get(&key).filter(|copy| Arc::ptr_eq(&copy.declared, flow)) {
            return copy.compiled.clone();
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        let compiled = Compiled::from_json(&flow.definition).ok().map(Arc::new);
        kept.insert(key, Kept { declared: flow.clone(), compiled: compiled.clone() });
        compiled
    }
}

fn bots<'a>(
    snapshot: &'a Snapshot,
    tenant: &'a TenantId,
    phone: Option<&'a PhoneNumberId>,
) -> impl Iterator<Item = &'a Arc<model::Bot>> {
    Snapshot::owned(&snapshot.bots, "bot", tenant).filter(move |bot| {
        bot.enabled
            && (bot.phone_numbers.is_empty() || phone.is_some_and(|phone| bot.phone_numbers.contains(phone)))
    })
}
