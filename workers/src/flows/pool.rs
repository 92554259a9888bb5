//! The flows pool: stores what the pure engine decided, then does it.
//!
//! The session is written by compare-and-set before anything is done, and holds the effects it was decided to
//! have. An update that comes again finds itself in the session and has the same effects again, each with the
//! same id, so the streams store them once. A call's result is published as a record and comes back as an
//! update of the same conversation.

use super::bot;
use super::calls::Caller;
use super::effect::{Call, Effect};
use super::library::{Library, Shelf};
use super::session::{Session, SessionError};
use super::update::{Contact, Message, Outcome, Update};
use crate::core::job::{Job, LaneSource, Verdict, Work};
use crate::core::log::now_ms;
use crate::core::metrics::Metrics;
use crate::core::state::Target;
use crate::egress::Egress;
use crate::platform::Platform;
use ackline_shared::command::{Content, Origin, Recipient, SendCommand};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{EntityId, PhoneNumberId, UpdateId, short_hash};
use ackline_shared::meta::{self, Body};
use ackline_shared::record::Record;
use ackline_shared::stored;
use ackline_shared::subjects::{self, Class, Lane, Pool, session_key};
use std::sync::Arc;

/// Messages in which nobody says anything.
const UNSPOKEN: [&str; 3] = ["message.reaction", "message.system", "message.unsupported"];

/// Runs bots' flows.
#[derive(Debug)]
pub struct FlowsJob {
    platform: Platform,
    caller: Caller,
    library: Library,
}

/// A session as it was read, with the revision to write it back under.
struct Stored {
    key: String,
    revision: u64,
    session: Option<Session>,
}

impl FlowsJob {
    /// Makes the job.
    pub fn new(platform: Platform, egress: Egress) -> Self {
        let caller = Caller { platform: platform.clone(), egress, metrics: None };
        Self { platform, caller, library: Library::default() }
    }

    /// Counts the calls of flows, and tells whoever follows a tenant which failed.
    pub fn with_metrics(mut self, metrics: Metrics) -> Self {
        self.caller.metrics = Some(metrics);
        self
    }
}

impl Job for FlowsJob {
    const POOL: Pool = Pool::Flows;
    /// The session itself remembers what was processed.
    const REMEMBERS: bool = false;

    fn lanes() -> Vec<LaneSource> {
        let filters = |partition| {
            vec![
                subjects::update_filter(partition, Class::Message),
                subjects::record_filter(partition, Record::FLOW_RESULT),
            ]
        };
        vec![LaneSource { name: "conversation", stream: subjects::UPDATES, filters, weight: 1 }]
    }

    fn targets(&self, head: &Head) -> Vec<Arc<Target>> {
        let is_input = head.family == Family::Record
            || (head.kind.starts_with("message.") && !UNSPOKEN.contains(&head.kind.as_str()));
        let answers =
            is_input && Library::answers(&self.platform.snapshot(), &head.tenant, head.phone.as_ref());
        if answers { vec![Arc::default()] } else { Vec::new() }
    }

    async fn run(&self, work: &Work) -> Verdict {
        let Some(phone) = work.head.phone.clone() else {
            return Verdict::dead("the message names no business number, so nobody can answer it");
        };
        let update = match read_update(work) {
            Ok(Some(update)) => update,
            Ok(None) => return Verdict::Idle,
            Err(reason) => return Verdict::dead(reason),
        };
        match self.advance(work, &phone, &update).await {
            Ok(verdict) => verdict,
            Err(reason) => Verdict::retry(reason),
        }
    }
}

impl FlowsJob {
    async fn advance(&self, work: &Work, phone: &PhoneNumberId, update: &Update) -> Result<Verdict, String> {
        let stored = self.load(&work.head, phone).await?;
        let fence = work.keeper.epoch();
        if stored.session.as_ref().is_some_and(|session| fence != 0 && session.fence() > fence) {
            return Err("the conversation is another process's by now".to_owned());
        }
        let mut shelf = self.library.shelf(&self.platform.snapshot(), &work.head.tenant, Some(phone));
        shelf.keep_bots(|bot| EntityId::new(bot).is_ok_and(|bot| work.head.is_for(&bot)));
        let id = update.id();
        let is_repeat = stored.session.as_ref().is_some_and(|session| session.seen(&id));
        let blocks = stored.session.as_ref().map_or(0, Session::older);
        let older = &self.platform.older;
        if !is_repeat
            && older.has(&stored.key, blocks, id.as_str()).await.map_err(|error| error.to_string())?
        {
            return Ok(Verdict::Done);
        }
        let Some((session, effects)) = bot::advance(&shelf.flows, stored.session, update, now_ms()) else {
            return Ok(Verdict::Idle);
        };
        let mut session = session.fenced(fence);
        if !is_repeat {
            if !work.keeper.is_current() {
                return Err("the partition may be another process's by now".to_owned());
            }
            if let Some(block) = session.due_block() {
                let written = older.append(&stored.key, blocks, block).await;
                written.map_err(|error| error.to_string())?;
                session.block_written();
            }
            self.save(&stored.key, stored.revision, &session).await?;
        }
        for effect in &effects {
            self.perform(work, phone, &shelf, &session, effect).await?;
        }
        Ok(Verdict::Done)
    }

    async fn perform(
        &self,
        work: &Work,
        phone: &PhoneNumberId,
        shelf: &Shelf,
        session: &Session,
        effect: &Effect,
    ) -> Result<(), String> {
        match effect {
            Effect::Send { key, content } => self.send(work, phone, session, key, content).await,
            Effect::Call { effect_id, call } if session.pending_effect() == Some(effect_id) => {
                self.call(work, effect_id, call).await
            }
            Effect::Call { .. } => Ok(()),
            Effect::Started { run, flow } => {
                let bot = shelf.bot_of(flow).to_owned();
                self.record(work, effect, Record::FlowStarted { flow: flow.clone(), bot, run: run.clone() })
                    .await
            }
            Effect::Completed { run, flow, outcome, variables, .. } => {
                let record = Record::FlowCompleted {
                    flow: flow.clone(),
                    bot: shelf.bot_of(flow).to_owned(),
                    run: run.clone(),
                    outcome: outcome.clone(),
                    variables: variables.clone(),
                };
                self.record(work, effect, record).await
            }
        }
    }

    async fn send(
        &self,
        work: &Work,
        phone: &PhoneNumberId,
        session: &Session,
        key: &str,
        content: &Content,
    ) -> Result<(), String> {
        let head = &work.head;
        let command = SendCommand {
            id: format!("msg_{}", short_hash(format!("{}/{phone}/{key}", head.tenant).as_bytes())),
            tenant: head.tenant.clone(),
            phone_number_id: phone.clone(),
            to: recipient(session, head),
            content: content.clone(),
            reply_to: None,
            origin: Origin::Flow { flow: session.flow().to_owned(), update: head.id.as_str().to_owned() },
            created_ms: now_ms(),
        };
        let id = UpdateId::new(&format!("{}:queued", command.id));
        let _sent_before =
            self.platform.log.command(Lane::Live, &command).await.map_err(|error| error.to_string())?;
        let record = Record::ReplyQueued { command: Box::new(command) };
        self.platform.record(head, &id, &record).await.map_err(|error| error.to_string())
    }

    async fn call(&self, work: &Work, effect_id: &str, call: &Call) -> Result<(), String> {
        let outcome = self.caller.perform(&work.head, call).await;
        let outcome = serde_json::to_value(&outcome).map_err(|error| error.to_string())?;
        let id = UpdateId::new(&format!("{effect_id}:done"));
        let record = Record::FlowResult { effect: effect_id.to_owned(), outcome };
        self.platform.record(&work.head, &id, &record).await.map_err(|error| error.to_string())
    }

    async fn record(&self, work: &Work, effect: &Effect, record: Record) -> Result<(), String> {
        let id = UpdateId::new(&effect.key());
        self.platform.record(&work.head, &id, &record).await.map_err(|error| error.to_string())
    }

    async fn load(&self, head: &Head, phone: &PhoneNumberId) -> Result<Stored, String> {
        let key = session_key::of(Pool::Flows, &head.tenant, phone.as_str(), &head.conversation);
        let entry = self.platform.buckets.sessions.entry(&key).await.map_err(|error| error.to_string())?;
        let Some(entry) = entry else { return Ok(Stored { key, revision: 0, session: None }) };
        let session = match Session::from_json(&entry.value) {
            Ok(session) => Some(session),
            // What a newer version wrote is not written over.
            Err(error @ SessionError::Schema(_)) => return Err(error.to_string()),
            Err(error) => {
                tracing::warn!(tenant = %head.tenant, %error, "a conversation starts anew");
                None
            }
        };
        Ok(Stored { key, revision: entry.revision, session })
    }

    async fn save(&self, key: &str, revision: u64, session: &Session) -> Result<(), String> {
        let bytes = session.to_json().into();
        let saved = self.platform.buckets.sessions.update(key, bytes, revision).await;
        saved.map(|_| ()).map_err(|error| format!("the session was not written: {error}"))
    }
}

/// What the engine is told about a piece of work; `None` when it concerns no flow.
fn read_update(work: &Work) -> Result<Option<Update>, String> {
    if work.head.family == Family::Record {
        let record = stored::decode(&work.payload).map_err(|error| format!("not a record: {error}"))?;
        let Record::FlowResult { effect, outcome } = record else { return Ok(None) };
        let outcome: Outcome =
            serde_json::from_value(outcome).map_err(|error| format!("not the outcome of a call: {error}"))?;
        return Ok(Some(Update::EffectDone { effect_id: effect, outcome }));
    }
    let update = meta::read(&work.payload).map_err(|error| error.to_string())?;
    let Body::Message(message) = update.body else {
        return Err(format!("the edge took it for a {}, and there is no message in it", work.head.kind));
    };
    let pressed = message.payload_id.is_some();
    let text = message.text.unwrap_or_default();
    Ok(Some(Update::Message(Message {
        id: identity(&work.head),
        kind: message.kind,
        title: pressed.then(|| text.clone()),
        text: if pressed { String::new() } else { text },
        payload_id: message.payload_id,
        contact: Contact { name: message.name, phone: message.from.phone, user_id: message.from.user_id },
    })))
}

/// What the session knows the update by: a replayed dead letter is the update it was, so that only the effects
/// it still lacks take place; a replay of the past is a new one.
fn identity(head: &Head) -> UpdateId {
    let is_letter = head.replay.as_ref().is_some_and(|replay| replay.of.starts_with(subjects::DEAD));
    if is_letter { head.original_id().clone() } else { head.id.clone() }
}

/// Who the answers go to: what the session knows of the person, else what the conversation's key says.
fn recipient(session: &Session, head: &Head) -> Recipient {
    let known = |name: &str| session.contact.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    Recipient {
        user_id: known("user_id").or_else(|| head.conversation.as_user().map(str::to_owned)),
        phone: known("phone").or_else(|| head.conversation.as_phone().map(str::to_owned)),
    }
}
