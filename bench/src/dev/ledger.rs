//! The account of a check: everything that was acknowledged has to be found once in every place it belongs to.

use std::collections::{BTreeMap, BTreeSet};

/// A place where acknowledged updates are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    Log,
    /// The conversations the API shows.
    Api,
    /// The customer's endpoint, by `message.received`.
    Endpoint,
    Crm,
    /// The existing bot behind the relay.
    Relay,
}

impl Place {
    fn as_str(self) -> &'static str {
        match self {
            Self::Log => "the log",
            Self::Api => "the API",
            Self::Endpoint => "the endpoint",
            Self::Crm => "the CRM",
            Self::Relay => "the relay",
        }
    }
}

/// What was acknowledged and what was found.
#[derive(Debug, Default)]
pub struct Ledger {
    expected: BTreeMap<String, BTreeSet<Place>>,
    found: BTreeMap<(Place, String), usize>,
    sends: BTreeMap<String, usize>,
}

/// How the account comes out.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Balance {
    pub acked: usize,
    /// Messages people got, each counted once.
    pub replied: usize,
    /// What is missing, and where.
    pub lost: Vec<String>,
    /// What is there more than once, and where.
    pub duplicated: Vec<String>,
}

impl Ledger {
    /// Enters an update that was answered with 200 and the places it belongs to.
    pub fn acknowledge(&mut self, id: &str, places: &[Place]) {
        self.expected
            .entry(id.to_owned())
            .or_default()
            .extend(places);
    }

    /// Enters an update as seen in a place.
    pub fn find(&mut self, place: Place, id: &str) {
        *self.found.entry((place, id.to_owned())).or_default() += 1;
    }

    /// Enters a message a person got, by the id we gave it.
    pub fn sent(&mut self, id: &str) {
        *self.sends.entry(id.to_owned()).or_default() += 1;
    }

    pub fn balance(&self) -> Balance {
        let mut balance = Balance {
            acked: self.expected.len(),
            replied: self.sends.len(),
            ..Balance::default()
        };
        for (id, places) in &self.expected {
            for place in places {
                match self.found.get(&(*place, id.clone())) {
                    None => balance
                        .lost
                        .push(format!("{id} is not in {}", place.as_str())),
                    Some(1) => {}
                    Some(times) => {
                        balance
                            .duplicated
                            .push(format!("{id} is {times} times in {}", place.as_str()));
                    }
                }
            }
        }
        let twice = self.sends.iter().filter(|(_, times)| **times > 1);
        balance
            .duplicated
            .extend(twice.map(|(id, times)| format!("{id} was sent {times} times")));
        balance
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_once_everywhere_balances() {
        let mut ledger = Ledger::default();
        ledger.acknowledge("a", &[Place::Log, Place::Api]);
        ledger.find(Place::Log, "a");
        ledger.find(Place::Api, "a");
        ledger.find(Place::Api, "of an earlier run");
        ledger.sent("reply");
        let even = Balance {
            acked: 1,
            replied: 1,
            ..Balance::default()
        };
        assert_eq!(ledger.balance(), even);
    }

    #[test]
    fn what_is_missing_or_repeated_is_named_with_its_place() {
        let mut ledger = Ledger::default();
        ledger.acknowledge("a", &[Place::Log, Place::Crm]);
        ledger.find(Place::Crm, "a");
        ledger.find(Place::Crm, "a");
        ledger.sent("reply");
        ledger.sent("reply");
        let balance = ledger.balance();
        assert_eq!(balance.lost, ["a is not in the log"]);
        assert_eq!(
            balance.duplicated,
            ["a is 2 times in the CRM", "reply was sent 2 times"]
        );
        assert_eq!(balance.replied, 1);
    }
}
