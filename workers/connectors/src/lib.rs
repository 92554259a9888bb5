//! Keeps the CRM in step: what people write and what we answer appears in their conversation there.
//!
//! Both directions of a conversation share one lane, so they arrive in order. A message is posted once: before
//! it is posted a mark is durable, and whoever finds the mark asks the CRM for the message before posting
//! again. What agents write comes back through the API, which asks [`answer`]; this pool never sends to a
//! person.

pub mod answer;
pub mod attachment;
pub mod chatwoot;
mod clean;
pub mod entry;
mod failed;
mod files;
mod form;
pub mod hook;
pub mod known;
pub mod link;

use ackline_egress::{ConcurrencyLimit, Egress, FilePlaces};
use ackline_engine::state::{BreakerSpec, Target};
use ackline_engine::step::Step;
use ackline_message::{Recipient, Record, SendCommand};
use ackline_runtime::conversation::{Moves, Side};
use ackline_runtime::job::{Job, Trouble, Verdict, Work};
use ackline_runtime::platform::Platform;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId};
use ackline_shared::meta;
use ackline_shared::model::{CrmKind, CrmLink, Entity};
use ackline_shared::registry::Snapshot;
use ackline_shared::spelling;
use ackline_shared::stored;
use ackline_shared::subjects::{Class, Pool};
use ackline_whatsapp::graph::Graph;
use chatwoot::Chatwoot;
use entry::{CrmEntry, DeliveredEntry, Direction, FailedEntry, Person};
use failed::WrittenThere;
use known::{Fate, KnownMessage, KnownMessages};
use link::{LinkedPeople, LinkedPerson, LinkedPersonError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

/// Requests to one CRM account at once.
const ACCOUNT_CONCURRENCY: usize = 4;
/// Requests that one message may take.
const REQUESTS_OF_AN_ATTEMPT: u32 = 4;
/// The kind of a status that tells of a failure.
const FAILED_STATUS: &str = "status.failed";
const DELIVERED_STATUS: &str = "status.delivered";

/// A person's contact and conversation in a CRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Thread {
    pub contact: u64,
    pub conversation: u64,
}

/// A message that stands in a CRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posted {
    /// Its id there, where the CRM says it.
    pub message: Option<u64>,
}

/// What a CRM has to be able to do.
pub trait Crm {
    /// Finds the person's contact and conversation again, or creates them.
    fn open(
        &self,
        person: &Person,
        source_id: &str,
    ) -> impl Future<Output = Result<Thread, CrmError>> + Send;

    /// Adds a message to a conversation.
    fn post(
        &self,
        thread: Thread,
        entry: &CrmEntry,
    ) -> impl Future<Output = Result<Posted, CrmError>> + Send;

    /// Finds a message among the latest of a conversation.
    fn find(
        &self,
        thread: Thread,
        source_id: &str,
    ) -> impl Future<Output = Result<Option<Posted>, CrmError>> + Send;

    /// Shows at a message that it did not arrive, and why; false where the CRM cannot.
    fn fail(
        &self,
        conversation: u64,
        message: u64,
        words: &str,
    ) -> impl Future<Output = Result<bool, CrmError>> + Send;

    /// Gives a contact the person's name, once it is known.
    fn rename(
        &self,
        thread: Thread,
        name: &str,
    ) -> impl Future<Output = Result<(), CrmError>> + Send;
}

/// Why a call to a CRM did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrmError {
    /// Nothing happened there, and not because of the CRM; later it may.
    #[error("{reason}")]
    Again {
        /// In words, without personal data.
        reason: String,
    },
    /// It takes no more messages of this one conversation for a while.
    #[error("{reason}")]
    Flooded {
        /// In words, without personal data.
        reason: String,
        after: Duration,
    },
    /// Nothing happened there, for the CRM is in trouble.
    #[error("{}", .0.reason)]
    Down(Trouble),
    /// It is in trouble, and it may have happened there.
    #[error("{}", .0.reason)]
    Unsure(Trouble),
    /// The conversation no longer exists.
    #[error("the conversation no longer exists in the CRM")]
    Gone,
    /// The link's settings do not fit the CRM.
    #[error("{reason}")]
    Misconfigured {
        /// In words, with what to check.
        reason: String,
    },
    /// The CRM will never take this.
    #[error("{reason}")]
    Refused {
        /// In words, without personal data.
        reason: String,
    },
}

impl From<LinkedPersonError> for CrmError {
    fn from(error: LinkedPersonError) -> Self {
        Self::Again {
            reason: error.to_string(),
        }
    }
}

#[derive(Debug)]
pub struct CrmSync {
    platform: Platform,
    egress: Egress,
    places: LinkedPeople,
    known: KnownMessages,
    /// Where files are fetched; without it they stay words.
    graph: Option<Graph>,
    /// Files that may be held at once.
    files: FilePlaces,
    /// Longest time of one request.
    timeout: Duration,
    /// One creation at a time per person: two at once would fork their conversation.
    openings: ConcurrencyLimit,
}

impl CrmSync {
    /// Builds the job; a request may take this long.
    pub fn new(platform: Platform, egress: Egress, timeout: Duration) -> Self {
        let places = LinkedPeople::new(platform.buckets.sessions.clone());
        let known = KnownMessages::new(platform.buckets.sessions.clone());
        Self {
            platform,
            egress,
            places,
            known,
            graph: None,
            files: FilePlaces::default(),
            timeout,
            openings: ConcurrencyLimit::new(timeout),
        }
    }

    /// The same with the files that people send.
    pub fn with_files(mut self, graph: Graph) -> Self {
        self.graph = Some(graph);
        self
    }
}

impl Job for CrmSync {
    const POOL: Pool = Pool::Crm;

    fn askers(snapshot: &Snapshot) -> Option<BTreeSet<TenantId>> {
        snapshot.owners(&snapshot.crm_links, "crm")
    }

    fn targets(&self, head: &Head) -> Vec<Arc<Target>> {
        // Of statuses a failure concerns an agent, and the first one that comes tells whose number it is.
        let is_telling = [FAILED_STATUS, DELIVERED_STATUS].contains(&head.kind.as_str());
        if head.family == Family::Update(Class::Status) && !is_telling {
            return Vec::new();
        }
        let snapshot = self.platform.snapshot();
        let links = links(&snapshot, &head.tenant, head.phone.as_ref());
        links
            .filter(|link| head.is_for(&link.id))
            .map(|link| Arc::new(self.target(link)))
            .collect()
    }

    async fn run(&self, work: &Work) -> Verdict {
        let news = match read(work) {
            Ok(Some(news)) => news,
            Ok(None) => return Verdict::Idle,
            Err(reason) => return Verdict::dead(reason),
        };
        let (snapshot, name) = (self.platform.snapshot(), &work.target.name);
        let mut links = Snapshot::owned(&snapshot.crm_links, "crm", &work.head.tenant);
        let Some(link) = links.find(|link| link.id.as_str() == name && link.enabled) else {
            return Verdict::dead(format!(
                "crm link {name}: it is not configured any more, or switched off"
            ));
        };
        let follows = link.phone_numbers.is_empty() || link.phone_numbers.contains(news.number());
        let entry = match &news {
            News::Delivered(_) if !follows => return Verdict::Idle,
            News::Delivered(delivered) => {
                return match self.delivered(link, delivered).await {
                    Ok(()) => Verdict::Idle,
                    Err(error) => verdict(name, Err(error)),
                };
            }
            News::Entry(entry) | News::Sent { entry, .. } => entry,
            News::Failed(failed) => &failed.note,
        };
        if let News::Sent { command, wamid, .. } = &news
            && let Some(written) = WrittenThere::in_link(link, command)
        {
            return match self.sent_there(link, &written, wamid).await {
                Ok(()) => Verdict::Idle,
                Err(error) => verdict(name, Err(error)),
            };
        }
        if !follows || !entry.audience.includes(&link.id) {
            return Verdict::Idle;
        }
        let delivered = self.deliver(work, link, &news).await;
        if !matches!(
            delivered,
            Err(CrmError::Down(_) | CrmError::Unsure(_) | CrmError::Again { .. })
        ) {
            work.answered.set();
        }
        verdict(name, delivered)
    }
}

impl CrmSync {
    fn target(&self, link: &CrmLink) -> Target {
        let downstream = link.config_key();
        Target {
            name: link.id.to_string(),
            breakers: vec![BreakerSpec {
                name: downstream.as_str().into(),
                limit: ACCOUNT_CONCURRENCY,
            }],
            downstream,
            // Finding a conversation takes several requests.
            timeout: Some(self.timeout.saturating_mul(REQUESTS_OF_AN_ATTEMPT)),
        }
    }

    /// Brings one message into one link, unless it is there.
    async fn deliver(&self, work: &Work, link: &CrmLink, news: &News) -> Result<(), CrmError> {
        let (_, posted) = marks(link);
        if work.marks.has(&posted) {
            return Ok(());
        }
        let misconfigured = |error: &dyn std::fmt::Display| CrmError::Misconfigured {
            reason: error.to_string(),
        };
        let token = self
            .platform
            .open(link, &link.access_token)
            .map_err(|error| misconfigured(&error))?;
        let owner = self.platform.snapshot().tenants.get(&link.tenant).cloned();
        let egress = self.egress.of_tenant(owner.as_deref());
        match link.kind {
            CrmKind::Chatwoot => {
                let crm = Chatwoot::new(&egress, link, &token, self.timeout)?;
                self.tell(&crm, work, link, news).await
            }
        }
    }

    async fn tell(
        &self,
        crm: &impl Crm,
        work: &Work,
        link: &CrmLink,
        news: &News,
    ) -> Result<(), CrmError> {
        match news {
            News::Failed(failed) => self.failed(crm, work, link, failed).await,
            News::Delivered(delivered) => self.delivered(link, delivered).await,
            News::Entry(entry) | News::Sent { entry, .. } => {
                self.bring(crm, work, link, entry).await
            }
        }
    }

    async fn bring(
        &self,
        crm: &impl Crm,
        work: &Work,
        link: &CrmLink,
        entry: &CrmEntry,
    ) -> Result<(), CrmError> {
        let (posting, posted) = marks(link);
        if !entry.opens && self.places.find(link, &entry.person).await?.is_none() {
            return Ok(());
        }
        let mut place = self.place(crm, link, entry).await?;
        let entry = self.quoting(link, entry).await?;
        let loaded = self.loaded(work, entry).await?;
        let entry = &loaded.entry;
        if work.marks.has(&posting) {
            match crm.find(place.thread, &entry.source_id).await {
                Ok(Some(found)) => {
                    self.remember(link, entry, &place, found).await?;
                    work.marks.set(posted.clone());
                    return Ok(());
                }
                Ok(None) | Err(CrmError::Gone) => {}
                Err(error) => return Err(error),
            }
        } else {
            work.marks.set(posting.clone());
            if let Err(error) = work.persist().await {
                work.marks.clear(&posting);
                return Err(CrmError::Again {
                    reason: error.to_string(),
                });
            }
        }
        let mut result = files::post(crm, place.thread, entry).await;
        if matches!(result, Err(CrmError::Gone)) {
            self.places.forget(link, &place).await?;
            if !entry.opens {
                work.marks.clear(&posting);
                return Ok(());
            }
            place = self.place(crm, link, entry).await?;
            result = files::post(crm, place.thread, entry).await;
        }
        match &result {
            Ok(_) => work.marks.set(posted.clone()),
            Err(CrmError::Unsure(_)) => {}
            Err(_) => work.marks.clear(&posting),
        }
        let stored = result?;
        if let Err(error) = self.remember(link, entry, &place, stored).await {
            // It stands in the CRM; a quote of it is worth less than a second copy.
            tracing::debug!(tenant = %link.tenant, link = %link.id, %error, "a message of the CRM is not remembered");
        }
        Ok(())
    }

    /// The entry with the CRM's own id of the message it quotes, where that is known.
    async fn quoting(&self, link: &CrmLink, entry: &CrmEntry) -> Result<CrmEntry, CrmError> {
        let quoted = match &entry.in_reply_to {
            Some(wamid) => self.known.of_id(link, wamid).await?,
            None => None,
        };
        Ok(CrmEntry {
            quotes: quoted.map(|quoted| quoted.message),
            ..entry.clone()
        })
    }

    /// Remembers which message of the CRM is which of Meta's.
    async fn remember(
        &self,
        link: &CrmLink,
        entry: &CrmEntry,
        place: &LinkedPerson,
        posted: Posted,
    ) -> Result<(), CrmError> {
        let Some(message) = posted
            .message
            .filter(|_| entry.direction != Direction::Note)
        else {
            return Ok(());
        };
        let known = KnownMessage {
            message,
            conversation: place.thread.conversation,
            part: 0,
            wamid: Some(entry.source_id.clone()),
            command: entry.command.clone(),
            source_id: Some(place.source_id.clone()),
            fate: Fate::Sent,
            retries: 0,
            written_ms: 0,
        };
        Ok(self.known.save(link, &known).await?)
    }

    /// Notes by which ids Meta knows the person that a message went to, where those were other ones: what that person
    /// writes comes under them.
    async fn delivered(&self, link: &CrmLink, delivered: &DeliveredEntry) -> Result<(), CrmError> {
        let DeliveredEntry {
            number,
            person,
            ids,
        } = delivered;
        let mut place = self.places.find(link, person).await?;
        for id in ids.iter().filter(|_| place.is_none()) {
            let known = self.known.of_id(link, id).await?;
            if let Some(source_id) = known.and_then(|known| known.source_id) {
                place = self.places.of_source(link, &source_id).await?;
                if let Some(place) = &place {
                    self.carry(link, delivered, place).await?;
                }
                break;
            }
        }
        let next = place.and_then(|place| place.updated(person, number, now_ms()));
        match next {
            Some(next) => Ok(self.places.save(link, &next).await?),
            None => Ok(()),
        }
    }

    /// Lets what flows keep of the number that was written to be found under the one that it reached.
    async fn carry(
        &self,
        link: &CrmLink,
        delivered: &DeliveredEntry,
        place: &LinkedPerson,
    ) -> Result<(), CrmError> {
        let now = Recipient {
            user_id: delivered.person.user_id.clone(),
            phone: delivered.person.phone.clone(),
        };
        let (Some(before), Some(reached)) = (&place.phone, &now.phone) else {
            return Ok(());
        };
        if spelling::is_same(before, reached) {
            return Ok(());
        }
        let side = Side::of_person(&link.tenant, &delivered.number, &now);
        let moves = Moves::new(self.platform.buckets.sessions.clone());
        let carried = moves
            .carry(&side, &ConversationKey::phone(before), None)
            .await;
        carried.map(drop).map_err(|error| CrmError::Again {
            reason: error.to_string(),
        })
    }

    /// The person's place: remembered, or found again or created in the CRM and then remembered.
    async fn place(
        &self,
        crm: &impl Crm,
        link: &CrmLink,
        entry: &CrmEntry,
    ) -> Result<LinkedPerson, CrmError> {
        let person = &entry.person;
        if let Some(place) = self.places.find(link, person).await? {
            return self.refresh(crm, link, entry, place).await;
        }
        let opening = self
            .openings
            .enter(&format!("{}/{}", link.id, person.source_id()), 1)
            .await;
        let _opening = opening.ok_or_else(|| CrmError::Again {
            reason: "another message of this person is still opening their conversation".to_owned(),
        })?;
        if let Some(place) = self.places.find(link, person).await? {
            return self.refresh(crm, link, entry, place).await;
        }
        let source_id = person.source_id();
        let thread = crm.open(person, source_id).await?;
        let place = LinkedPerson::new(person, source_id, thread, &entry.number, now_ms());
        self.places.save(link, &place).await?;
        Ok(place)
    }

    /// Writes down what a message says more about the person, and names a contact that had no name.
    async fn refresh(
        &self,
        crm: &impl Crm,
        link: &CrmLink,
        entry: &CrmEntry,
        place: LinkedPerson,
    ) -> Result<LinkedPerson, CrmError> {
        let Some(next) = place.updated(&entry.person, &entry.number, now_ms()) else {
            return Ok(place);
        };
        if let (false, Some(name)) = (place.named, &entry.person.name)
            && let Err(error) = crm.rename(place.thread, name).await
        {
            // A name is worth a try and not a message's delay.
            tracing::debug!(tenant = %link.tenant, link = %link.id, %error, "a contact keeps its number as name");
        }
        self.places.save(link, &next).await?;
        Ok(next)
    }
}

/// The marks of a message that is being posted and of one that is posted.
fn marks(link: &CrmLink) -> (Step, Step) {
    (
        Step::begun(format!("posting:{}", link.id)),
        Step::done(format!("posted:{}", link.id)),
    )
}

/// The enabled links of a tenant that follow a number; without a number, any.
fn links<'a>(
    snapshot: &'a Snapshot,
    tenant: &TenantId,
    number: Option<&PhoneNumberId>,
) -> impl Iterator<Item = &'a Arc<CrmLink>> {
    let follows = move |link: &&Arc<CrmLink>| {
        let all = link.phone_numbers.is_empty();
        link.enabled && number.is_none_or(|number| all || link.phone_numbers.contains(number))
    };
    Snapshot::owned(&snapshot.crm_links, "crm", tenant).filter(follows)
}

/// What a piece of work tells a CRM.
enum News {
    /// Somebody wrote.
    Entry(CrmEntry),
    /// Meta took a message of ours.
    Sent {
        entry: CrmEntry,
        command: Box<SendCommand>,
        wamid: String,
    },
    /// A message of ours arrived.
    Delivered(Box<DeliveredEntry>),
    /// A message of ours did not arrive.
    Failed(Box<FailedEntry>),
}

impl News {
    fn number(&self) -> &PhoneNumberId {
        match self {
            Self::Entry(entry) | Self::Sent { entry, .. } => &entry.number,
            Self::Delivered(delivered) => &delivered.number,
            Self::Failed(failed) => &failed.note.number,
        }
    }
}

/// What a piece of work tells; `None` when a CRM has nothing to show of it.
fn read(work: &Work) -> Result<Option<News>, String> {
    let failed = |failed: Option<FailedEntry>| failed.map(Box::new).map(News::Failed);
    if work.head.family == Family::Record {
        return match stored::decode(&work.payload) {
            Ok(Record::ReplySent {
                command,
                wamid,
                known_as,
                ..
            }) => {
                let entry = entry::of_reply(&command, &wamid, known_as.as_ref());
                Ok(entry.map(|entry| News::Sent {
                    entry,
                    command,
                    wamid,
                }))
            }
            Ok(Record::ReplyFailed {
                command,
                code,
                reason,
                ambiguous,
            }) => Ok(failed(entry::of_failure(
                &command, code, &reason, ambiguous,
            ))),
            Ok(_) => Ok(None),
            Err(error) => Err(format!("this is not a record: {error}")),
        };
    }
    let update = meta::read(&work.payload).map_err(|error| error.to_string())?;
    if work.head.family == Family::Update(Class::Status) {
        if let Some(delivered) = entry::of_delivery(&update) {
            return Ok(Some(News::Delivered(Box::new(delivered))));
        }
        return Ok(failed(entry::of_status(&update)));
    }
    Ok(entry::of_update(&update)?.map(News::Entry))
}

/// What follows for the message. What only a change of the configuration can mend waits for that.
fn verdict(link: &str, delivered: Result<(), CrmError>) -> Verdict {
    let Err(error) = delivered else {
        return Verdict::Done;
    };
    let reason = format!("crm link {link}: {error}");
    match error {
        CrmError::Again { .. } | CrmError::Gone => Verdict::Retry {
            reason,
            after: None,
        },
        CrmError::Flooded { after, .. } => Verdict::Wait { reason, after },
        CrmError::Down(trouble) | CrmError::Unsure(trouble) => {
            Verdict::Trouble(Trouble { reason, ..trouble })
        }
        CrmError::Misconfigured { .. } => Verdict::Trouble(Trouble::down(reason)),
        CrmError::Refused { .. } => Verdict::Dead { reason },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_speaks_of_the_message_is_final_and_everything_else_waits() {
        assert_eq!(verdict("a", Ok(())), Verdict::Done);
        let refused = CrmError::Refused {
            reason: "no".into(),
        };
        assert_eq!(verdict("a", Err(refused)), Verdict::dead("crm link a: no"));
        let flooded = CrmError::Flooded {
            reason: "too many".into(),
            after: Duration::from_secs(60),
        };
        let wait = Verdict::Wait {
            reason: "crm link a: too many".into(),
            after: Duration::from_secs(60),
        };
        assert_eq!(verdict("a", Err(flooded)), wait);
        for error in [
            CrmError::Down(Trouble::down("away")),
            CrmError::Unsure(Trouble::timed_out("silent")),
            CrmError::Misconfigured {
                reason: "401".into(),
            },
        ] {
            assert!(matches!(verdict("a", Err(error)), Verdict::Trouble(_)));
        }
    }
}
