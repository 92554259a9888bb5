//! Which message of a CRM is which of Meta's, and what became of those that agents wrote.
//!
//! Quotes need it both ways, a failure has to find the message it is about, and a message that an agent sends again
//! must not go out twice. It is a memory: what is forgotten costs a quote or a mark, and a note is written instead.

use super::link::LinkedPersonError;
use ackline_shared::clock::now_ms;
use ackline_shared::model::CrmLink;
use ackline_shared::stored::{self, Stored};
use ackline_shared::subjects::session_key;
use async_nats::jetstream::kv::Store;
use serde::{Deserialize, Serialize};

/// How often a message that failed is sent again.
pub const RETRIES_MAX: u32 = 5;

/// A message in a CRM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownMessage {
    /// The CRM's id of it.
    pub message: u64,
    /// The conversation it stands in.
    pub conversation: u64,
    /// Which file of the message, from 0.
    #[serde(default)]
    pub part: u32,
    /// Meta's id, once there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wamid: Option<String>,
    /// Our id of the command that sends it, where one of ours does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// The id that the CRM knows the person by, where this was written with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_id: Option<String>,
    /// What became of it.
    #[serde(default)]
    pub fate: Fate,
    /// How often it was sent again.
    #[serde(default)]
    pub retries: u32,
    /// When this was written, in unix milliseconds.
    #[serde(default)]
    pub written_ms: u64,
}

impl Stored for KnownMessage {}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It is on its way.
    #[default]
    Pending,
    /// Meta has it.
    Sent,
    /// It was given up, or Meta could not deliver it.
    Failed,
    /// Meta's answer was lost.
    Unsure,
    /// One that a later build knows.
    #[serde(other)]
    Other,
}

/// What is to be done with a message that an agent wrote, by what is known of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attempt {
    /// Sent under the id of this attempt; a repeat of it is stored once.
    Send(u32),
    /// Left alone: it went out, or may have, or was tried often enough.
    Leave,
}

impl Attempt {
    /// Chooses: a new message is sent; one that is told of again, only where it failed or never came through.
    pub fn choose(is_update: bool, known: Option<&KnownMessage>) -> Self {
        match known {
            None => Self::Send(0),
            Some(known) => match known.fate {
                Fate::Pending => Self::Send(known.retries),
                Fate::Failed if is_update && known.retries < RETRIES_MAX => {
                    Self::Send(known.retries + 1)
                }
                Fate::Failed | Fate::Sent | Fate::Unsure | Fate::Other => Self::Leave,
            },
        }
    }
}

/// The memory of all messages; cheap to clone.
#[derive(Debug, Clone)]
pub struct KnownMessages {
    store: Store,
}

impl KnownMessages {
    pub fn new(store: Store) -> Self {
        Self { store }
    }

    /// By the CRM's id.
    pub async fn of_message(
        &self,
        link: &CrmLink,
        message: u64,
        part: u32,
    ) -> Result<Option<KnownMessage>, LinkedPersonError> {
        self.get(&message_key(link, message, part)).await
    }

    /// By Meta's id, or by ours of the command.
    pub async fn of_id(
        &self,
        link: &CrmLink,
        id: &str,
    ) -> Result<Option<KnownMessage>, LinkedPersonError> {
        self.get(&id_key(link, id)).await
    }

    /// Remembers a message under the CRM's id, Meta's and ours.
    pub async fn save(
        &self,
        link: &CrmLink,
        known: &KnownMessage,
    ) -> Result<(), LinkedPersonError> {
        let known = KnownMessage {
            written_ms: now_ms(),
            ..known.clone()
        };
        let bytes = stored::encode(&known);
        let ids = [known.wamid.as_deref(), known.command.as_deref()];
        let keys = ids.into_iter().flatten().map(|id| id_key(link, id));
        for key in keys.chain([message_key(link, known.message, known.part)]) {
            let put = self.store.put(key, bytes.clone().into()).await;
            put.map_err(|error| LinkedPersonError::new("written", error.to_string()))?;
        }
        Ok(())
    }

    async fn get(&self, key: &str) -> Result<Option<KnownMessage>, LinkedPersonError> {
        let stored = self.store.get(key).await;
        let stored = stored.map_err(|error| LinkedPersonError::new("read", error.to_string()))?;
        Ok(stored.and_then(|bytes| stored::decode(&bytes).ok()))
    }
}

fn message_key(link: &CrmLink, message: u64, part: u32) -> String {
    let id = format!("#{message}.{part}");
    session_key::crm_message(&link.tenant, &link.id, &id)
}

fn id_key(link: &CrmLink, id: &str) -> String {
    session_key::crm_message(&link.tenant, &link.id, &format!("={id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_is_sent_again_and_what_went_out_never() {
        let known = |fate, retries| KnownMessage {
            message: 1,
            conversation: 2,
            part: 0,
            wamid: None,
            command: None,
            source_id: None,
            fate,
            retries,
            written_ms: 0,
        };
        let choose =
            |is_update, known: Option<KnownMessage>| Attempt::choose(is_update, known.as_ref());
        for is_update in [false, true] {
            assert_eq!(choose(is_update, None), Attempt::Send(0));
            let pending = known(Fate::Pending, 2);
            assert_eq!(choose(is_update, Some(pending)), Attempt::Send(2));
            for fate in [Fate::Sent, Fate::Unsure, Fate::Other] {
                assert_eq!(choose(is_update, Some(known(fate, 0))), Attempt::Leave);
            }
        }
        let failed = |retries| Some(known(Fate::Failed, retries));
        assert_eq!(choose(true, failed(1)), Attempt::Send(2));
        assert_eq!(choose(false, failed(1)), Attempt::Leave);
        assert_eq!(choose(true, failed(RETRIES_MAX)), Attempt::Leave);
    }

    #[test]
    fn a_fate_of_a_later_build_reads() {
        let text = r#"{"message":1,"conversation":2,"fate":"shredded","more":1}"#;
        let known: KnownMessage = serde_json::from_str(text).unwrap();
        assert_eq!(known.fate, Fate::Other);
    }
}
