//! Where the session of an update is kept: under the key that orders it, or where the person's conversation went on or was.
//!
//! A person may be known by a user id from one message on, and by another number or user id from another one on. What was
//! kept of them is carried along, so that a question is answered by whoever was asked.

use super::FlowsJob;
use super::input::Renamed;
use super::sessions::StoredSession;
use ackline_flow::update::{Contact, Update};
use ackline_runtime::conversation::{HOPS_MAX, Moves, Side};
use ackline_shared::envelope::Head;
use ackline_shared::ids::{ConversationKey, PhoneNumberId};
use ackline_shared::recipient::Recipient;

/// A session, and where it stands.
#[derive(Debug)]
pub(super) struct Place {
    /// The key of its record.
    pub key: String,
    pub stored: StoredSession,
    /// Whether its partition may be another one than that of the update, whose owner's epoch says nothing here.
    pub is_elsewhere: bool,
}

impl FlowsJob {
    /// Reads the session of an update, wherever it is by now.
    pub(super) async fn find(
        &self,
        head: &Head,
        phone: &PhoneNumberId,
        (update, at_ms): (&Update, Option<u64>),
    ) -> Result<Place, String> {
        let side = Side::new(&head.tenant, phone, head.conversation.clone(), None);
        let place = self.follow(&side, at_ms).await?;
        let Update::Message(message) = update else {
            return Ok(place);
        };
        if place.stored.session.is_some()
            || place.is_elsewhere
            || self.sessions.is_alone(&place.key)
        {
            return Ok(place);
        }
        for from in earlier(&head.conversation, &message.contact) {
            if self.take_over(&side, &from, &message.contact).await? {
                return self.follow(&side, at_ms).await;
            }
        }
        // Where no flow answers there never is a session, and it is not looked for with each message.
        self.sessions.note_alone(&place.key);
        Ok(place)
    }

    /// Carries all that is kept under the ids a person had to the ones that they have. A number may be somebody else's
    /// next; a user id never is.
    pub(super) async fn carry(
        &self,
        head: &Head,
        phone: &PhoneNumberId,
        renamed: &Renamed,
    ) -> Result<(), String> {
        let side = Side::of_person(&head.tenant, phone, &renamed.now);
        for from in renamed.formerly.keys() {
            let until_ms = from.as_phone().map(|_| renamed.at_ms);
            self.take(&side, &from, until_ms).await?;
        }
        Ok(())
    }

    async fn follow(&self, side: &Side<'_>, at_ms: Option<u64>) -> Result<Place, String> {
        let mut key = side.key().clone();
        for _hop in 0..=HOPS_MAX {
            let record = side.record(&key);
            let stored = self.sessions.read(&record).await;
            let stored = stored.map_err(|error| error.to_string())?;
            match stored.moved.clone().filter(|moved| moved.leads(at_ms)) {
                Some(moved) => key = moved.to,
                None => {
                    return Ok(Place {
                        key: record,
                        stored,
                        is_elsewhere: key != *side.key(),
                    });
                }
            }
        }
        Err("the ids of a person lead in a circle".to_owned())
    }

    /// Carries a conversation along that was kept under another key, unless it is somebody else's.
    async fn take_over(
        &self,
        side: &Side<'_>,
        from: &ConversationKey,
        contact: &Contact,
    ) -> Result<bool, String> {
        let stored = self.sessions.read(&side.record(from)).await;
        let stored = stored.map_err(|error| error.to_string())?;
        let goes_elsewhere = stored.moved.is_some_and(|moved| moved.to != *side.key());
        let known = stored.session.as_ref();
        let user_id = known.and_then(|session| session.contact.get("user_id")?.as_str());
        let is_theirs = match (user_id, &contact.user_id) {
            (Some(known), Some(named)) => known == named,
            _ => true,
        };
        let is_something = stored.session.is_some() || stored.owner.is_some();
        if goes_elsewhere || !is_theirs || !is_something {
            return Ok(false);
        }
        self.take(side, from, None).await
    }

    async fn take(
        &self,
        side: &Side<'_>,
        from: &ConversationKey,
        until_ms: Option<u64>,
    ) -> Result<bool, String> {
        let moves = Moves::new(self.platform.buckets.sessions.clone());
        let carried = moves.carry(side, from, until_ms).await;
        for key in [from, side.key()] {
            self.sessions.forget(&side.record(key));
        }
        carried.map_err(|error| error.to_string())
    }
}

/// The keys under which a person may have been known who has nothing under this one.
fn earlier(key: &ConversationKey, contact: &Contact) -> Vec<ConversationKey> {
    let phone = contact.phone.clone().filter(|_| key.as_user().is_some());
    let by_phone = Recipient {
        user_id: None,
        phone,
    };
    key.earlier().into_iter().chain(by_phone.keys()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_new_under_a_user_id_may_be_known_by_number() {
        let contact = |phone: &str| Contact {
            phone: Some(phone.to_owned()),
            ..Contact::default()
        };
        let keys = |key: &ConversationKey, phone: &str| -> Vec<String> {
            let keys = earlier(key, &contact(phone));
            keys.iter().map(|key| key.as_str().to_owned()).collect()
        };
        let user = ConversationKey::user("BR.1");
        assert_eq!(keys(&user, "+4915100000001"), ["p:4915100000001"]);
        let spelled = ["p:552187654321", "p:5521987654321"];
        assert_eq!(keys(&user, "5521987654321"), spelled);
        let phone = ConversationKey::phone("5521987654321");
        assert_eq!(keys(&phone, "5521987654321"), spelled[1..]);
        let group = ConversationKey::group("G");
        assert!(keys(&group, "4915100000001").is_empty());
    }
}
