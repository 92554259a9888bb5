//! Which rows a batch will ask for: they are read together, a statement for each kind.

use super::fold::{JournalEntry, Person};
use super::rows::ROWS_MAX;
use super::store::Entry;
use super::working::Working;
use ackline_shared::ids::ConversationKey;
use std::collections::HashSet;
use std::hash::Hash;

impl<'b> Working<'b> {
    /// Reads what entries are about to ask for.
    pub async fn read_ahead(&mut self, entries: &'b [Entry<'b>]) -> Result<(), sqlx::Error> {
        for entry in entries {
            self.of(entry.tenant());
        }
        let keys = once(entries.iter().filter_map(|entry| match &entry.means {
            JournalEntry::Message(message) => Some((
                entry.tenant(),
                message.wamid.as_deref(),
                Some(message.id.as_str()),
            )),
            JournalEntry::Status(status) => {
                let wamid = Some(status.wamid.as_str());
                Some((entry.tenant(), wamid, status.message.as_deref()))
            }
            _ => None,
        }));
        self.read_messages(&keys).await?;
        if keys.len() > ROWS_MAX {
            self.look_for_held().await?;
        }
        self.read_held(&keys).await?;
        let people: Vec<_> = entries
            .iter()
            .filter_map(|entry| {
                let (tenant, number, person) = self.whom(entry)?;
                let keys = person.keys();
                Some(keys.into_iter().map(move |key| (tenant, number, key)))
            })
            .flatten()
            .collect();
        let keys = people
            .iter()
            .map(|(tenant, number, key): &(_, _, ConversationKey)| {
                (*tenant, *number, key.as_str())
            });
        self.read_contacts(&once(keys)).await
    }

    /// With whom it is, when a conversation may be looked for.
    fn whom(&self, entry: &'b Entry<'b>) -> Option<(&'b str, &'b str, &'b Person)> {
        let tenant = entry.tenant();
        let (number, person) = match &entry.means {
            JournalEntry::Message(message) => {
                let is_known = self.is_known(tenant, Some(&message.id), message.wamid.as_deref()?);
                return (!is_known).then_some((tenant, &message.phone_number_id, &message.person));
            }
            JournalEntry::Status(status) => (status.phone_number_id.as_deref()?, &status.person),
            JournalEntry::Contact(contact) => (contact.phone_number_id.as_str(), &contact.person),
            JournalEntry::Nothing => return None,
        };
        person.is_somebody().then_some((tenant, number, person))
    }

    fn is_known(&self, tenant: &str, id: Option<&str>, wamid: &str) -> bool {
        self.tenants.get(tenant).is_some_and(|of| {
            let by_id = id.and_then(|id| of.by_id.get(id));
            let by_wamid = of.by_wamid.get(wamid);
            by_id.or(by_wamid).is_some_and(Option::is_some)
        })
    }
}

/// Each key once, in the order of their first.
fn once<K: Copy + Eq + Hash>(keys: impl Iterator<Item = K>) -> Vec<K> {
    let mut seen = HashSet::new();
    keys.filter(|key| seen.insert(*key)).collect()
}
