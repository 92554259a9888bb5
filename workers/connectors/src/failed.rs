//! What became of messages: the CRM shows a failure at the message it is about, or else in a note to the agents.

use super::entry::FailedEntry;
use super::known::{Fate, KnownMessage};
use super::{Crm, CrmError, CrmSync};
use ackline_message::{Origin, SendCommand};
use ackline_runtime::job::Work;
use ackline_shared::model::CrmLink;

/// A message that an agent wrote in a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WrittenThere {
    message: u64,
    command: String,
}

impl WrittenThere {
    /// The message that a command sends, if an agent wrote it in this link.
    pub fn in_link(link: &CrmLink, command: &SendCommand) -> Option<Self> {
        let Origin::Agent { link: of, message } = &command.origin else {
            return None;
        };
        let message = message.parse().ok().filter(|_| of == link.id.as_str())?;
        Some(Self {
            message,
            command: command.id.clone(),
        })
    }
}

impl CrmSync {
    /// Remembers under which id Meta has a message that an agent wrote.
    pub(super) async fn sent_there(
        &self,
        link: &CrmLink,
        written: &WrittenThere,
        wamid: &str,
    ) -> Result<(), CrmError> {
        let known = match self.known.of_id(link, &written.command).await? {
            Some(known) => known,
            None => KnownMessage {
                message: written.message,
                conversation: 0,
                part: 0,
                wamid: None,
                command: Some(written.command.clone()),
                source_id: None,
                fate: Fate::Pending,
                retries: 0,
                written_ms: 0,
            },
        };
        let is_over = known.wamid.as_deref() == Some(wamid) && known.fate != Fate::Pending;
        if is_over {
            return Ok(());
        }
        let sent = KnownMessage {
            wamid: Some(wamid.to_owned()),
            fate: Fate::Sent,
            ..known
        };
        Ok(self.known.save(link, &sent).await?)
    }

    /// Shows that a message did not arrive. One that may have arrived is not marked as failed, for then it could be sent
    /// again.
    pub(super) async fn failed(
        &self,
        crm: &impl Crm,
        work: &Work,
        link: &CrmLink,
        failed: &FailedEntry,
    ) -> Result<(), CrmError> {
        let Some(known) = self.which(link, failed).await? else {
            // Nothing of ours: another program sends with the number, and nobody here saw the message.
            if failed.command.is_none() {
                return Ok(());
            }
            return self.bring(crm, work, link, &failed.note).await;
        };
        let now = self
            .known
            .of_message(link, known.message, known.part)
            .await?;
        if now.is_some_and(|now| now.retries > known.retries) {
            // An agent has sent it again since.
            return Ok(());
        }
        let fate = match failed.is_unsure {
            true => Fate::Unsure,
            false => Fate::Failed,
        };
        let wamid = failed.wamid.clone().or_else(|| known.wamid.clone());
        let known = KnownMessage {
            fate,
            wamid,
            ..known
        };
        self.known.save(link, &known).await?;
        let is_shown = known.conversation > 0
            && !failed.is_unsure
            && crm
                .fail(known.conversation, known.message, &failed.words)
                .await?;
        match is_shown {
            true => Ok(()),
            false => self.bring(crm, work, link, &failed.note).await,
        }
    }

    /// The message of the CRM that a failure is about.
    async fn which(
        &self,
        link: &CrmLink,
        failed: &FailedEntry,
    ) -> Result<Option<KnownMessage>, CrmError> {
        for id in [&failed.command, &failed.wamid].into_iter().flatten() {
            if let Some(known) = self.known.of_id(link, id).await? {
                return Ok(Some(known));
            }
        }
        Ok(None)
    }
}
