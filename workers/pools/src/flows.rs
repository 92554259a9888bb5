//! The flows pool: stores what the pure engine decided, then does it.
//!
//! The session is written by compare-and-set before anything is done (`sessions.rs`), and holds the effects it was
//! decided to have. An update that comes again finds itself in the session and has the same effects again, each with the
//! same id, so the streams store them once. A call's result is published as a record and comes back as an
//! update of the same conversation.
//!
//! Whose turn it is stands beside the session. What is not for flows to answer is read, tells who has the conversation,
//! and is done.

pub mod calls;
mod input;
mod model;
mod place;
mod sessions;

use crate::flows::calls::Caller;
use ackline_egress::Egress;
use ackline_engine::state::Target;
use ackline_flow::bot;
use ackline_flow::effect::{Call, Effect};
use ackline_flow::library::{Library, LiveFlows};
use ackline_flow::session::Session;
use ackline_flow::update::Update;
use ackline_message::{Content, FlowFact, Origin, Recipient, Record, SendCommand};
use ackline_runtime::conversation::{Event, Owner, OwnerError, Owners, Side};
use ackline_runtime::job::{Job, Verdict, Work};
use ackline_runtime::metrics::Metrics;
use ackline_runtime::platform::Platform;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::Head;
use ackline_shared::ids::{ConversationKey, EntityId, PhoneNumberId, UpdateId, short_hash};
use ackline_shared::subjects::{Lane, Pool, session_key};
use input::{Heard, Input};
use model::Learned;
use sessions::{SessionStoreError, Sessions, StoredSession};
use std::sync::Arc;

#[derive(Debug)]
pub struct FlowsJob {
    platform: Platform,
    owners: Owners,
    sessions: Sessions,
    caller: Caller,
    library: Library,
}

/// An update, and the conversation whose turn it is.
struct Turn<'a> {
    work: &'a Work,
    phone: &'a PhoneNumberId,
    update: &'a Update,
    heard: Heard,
    /// Where its session is stored.
    key: &'a str,
    /// Whether that is under another key than the update's.
    is_elsewhere: bool,
}

impl FlowsJob {
    pub fn new(platform: Platform, egress: Egress) -> Self {
        let caller = Caller {
            platform: platform.clone(),
            egress,
            metrics: None,
            learned: Learned::default(),
        };
        let owners = Owners::new(platform.buckets.sessions.clone());
        let sessions = Sessions::new(&platform);
        Self {
            platform,
            owners,
            sessions,
            caller,
            library: Library::default(),
        }
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

    fn targets(&self, head: &Head) -> Vec<Arc<Target>> {
        let answers =
            || Library::answers(&self.platform.snapshot(), &head.tenant, head.phone.as_ref());
        // Who has a conversation is worth knowing whether a bot answers in it or not.
        let is_meant = input::concerns_owner(head)
            || input::may_rename(head)
            || (input::may_be_answered(head) && answers());
        if is_meant {
            vec![Arc::default()]
        } else {
            Vec::new()
        }
    }

    async fn run(&self, work: &Work) -> Verdict {
        let Some(phone) = work.head.phone.clone() else {
            return match input::concerns_owner(&work.head) || input::may_rename(&work.head) {
                // Of another responder's conversation, Meta may leave out with which number it is.
                true => Verdict::Idle,
                false => {
                    Verdict::dead("the message names no business number, so nobody can answer it")
                }
            };
        };
        match input::read(work) {
            Ok(Input::Update(update, heard)) => {
                match self.advance(work, &phone, &update, heard).await {
                    Ok(verdict) => verdict,
                    Err(reason) => Verdict::retry(reason),
                }
            }
            Ok(Input::OwnerEvent(person, event)) => {
                let key = work.head.conversation.clone();
                let side = Side::new(&work.head.tenant, &phone, key, person.phone.as_deref());
                self.report(&side, &event).await
            }
            Ok(Input::Renamed(renamed)) => match self.carry(&work.head, &phone, &renamed).await {
                Ok(()) => Verdict::Done,
                Err(reason) => Verdict::retry(reason),
            },
            Ok(Input::Nothing) => Verdict::Idle,
            Err(error) => Verdict::dead(error.to_string()),
        }
    }
}

impl FlowsJob {
    /// Notes who has a conversation; there is nothing to answer.
    async fn report(&self, side: &Side<'_>, event: &Event) -> Verdict {
        match self.owners.report(side, event, now_ms()).await {
            Ok(_) => Verdict::Done,
            Err(error @ OwnerError::Away { .. }) => Verdict::retry(error.to_string()),
            Err(error @ OwnerError::Newer) => {
                tracing::warn!(tenant = %side.tenant, %error, "who has a conversation is not noted");
                Verdict::Idle
            }
        }
    }

    async fn advance(
        &self,
        work: &Work,
        phone: &PhoneNumberId,
        update: &Update,
        heard: Heard,
    ) -> Result<Verdict, String> {
        let (tenant, conversation) = (&work.head.tenant, &work.head.conversation);
        let key = session_key::of(Pool::Flows, tenant, phone.as_str(), conversation);
        let turn = Turn {
            work,
            phone,
            update,
            heard,
            key: &key,
            is_elsewhere: false,
        };
        if let Some(remembered) = self.sessions.remembered(&key)
            && let Some(verdict) = self.decide(&turn, remembered).await?
        {
            return Ok(verdict);
        }
        let place = self.find(&work.head, phone, (update, heard.at_ms)).await?;
        let turn = Turn {
            key: &place.key,
            is_elsewhere: place.is_elsewhere,
            ..turn
        };
        match self.decide(&turn, place.stored).await? {
            Some(verdict) => Ok(verdict),
            None => Err(SessionStoreError::Overtaken.to_string()),
        }
    }

    /// Decides what an update does to a session, writes that and does it; nothing where the session may be another one
    /// than this.
    async fn decide(
        &self,
        turn: &Turn<'_>,
        stored: StoredSession,
    ) -> Result<Option<Verdict>, String> {
        let Turn {
            work,
            phone,
            update,
            heard,
            key,
            is_elsewhere,
        } = *turn;
        let now_ms = now_ms();
        let is_read = stored.is_read;
        let if_read = |verdict| Ok(is_read.then_some(verdict));
        // Another partition's epoch stays what it is there.
        let fence = match &stored.session {
            Some(session) if is_elsewhere => session.fence(),
            _ => work.record.epoch(),
        };
        if stored
            .session
            .as_ref()
            .is_some_and(|session| fence != 0 && session.fence() > fence)
        {
            return Err("the conversation is another process's by now".to_owned());
        }
        let is_repeat = stored
            .session
            .as_ref()
            .is_some_and(|session| session.seen(&update.id()));
        let again = heard.at_ms.map(|at_ms| Event::Heard { at_ms });
        let changed = again.and_then(|event| Owner::after(stored.owner.as_ref(), &event, now_ms));
        let is_changed = changed.is_some();
        let owner = changed.or(stored.owner);
        let is_ours = |owner: &Owner| owner.lets_flows_answer(heard.received_ms, now_ms);
        if !is_repeat
            && (owner.as_ref().is_some_and(|owner| !is_ours(owner))
                || self
                    .was_taken(&work.head, phone, stored.session.as_ref(), update, now_ms)
                    .await?)
        {
            return if_read(Verdict::Idle);
        }
        let mut live_flows =
            self.library
                .live_flows(&self.platform.snapshot(), &work.head.tenant, Some(phone));
        live_flows.keep_bots(|bot| EntityId::new(bot).is_ok_and(|bot| work.head.is_for(&bot)));
        let id = update.id();
        let blocks = stored.session.as_ref().map_or(0, Session::older);
        let older = &self.platform.older;
        if !is_repeat
            && older
                .has(key, blocks, id.as_str())
                .await
                .map_err(|error| error.to_string())?
        {
            return Ok(Some(Verdict::Done));
        }
        let Some((session, effects)) =
            bot::advance(&live_flows.flows, stored.session, update, now_ms)
        else {
            if let (true, true, Some(at_ms)) = (is_read, is_changed, heard.at_ms) {
                let side = Side::new(
                    &work.head.tenant,
                    phone,
                    work.head.conversation.clone(),
                    None,
                );
                self.report(&side, &Event::Heard { at_ms }).await;
            }
            return if_read(Verdict::Idle);
        };
        let mut session = session
            .fenced(fence)
            .owned(owner, heard.at_ms.map(|_| now_ms))
            .said(heard.at_ms);
        if !is_repeat {
            if !work.record.is_current() {
                return Err("the partition may be another process's by now".to_owned());
            }
            if let Some(block) = session.due_block() {
                let written = older.append(key, blocks, block).await;
                written.map_err(|error| error.to_string())?;
                session.block_written();
            }
            match self.sessions.write(key, stored.revision, &session).await {
                Ok(()) => {}
                Err(SessionStoreError::Overtaken) if !is_read => return Ok(None),
                Err(error) => return Err(error.to_string()),
            }
        }
        self.perform(work, phone, &live_flows, &session, &effects)
            .await?;
        Ok(Some(Verdict::Done))
    }

    /// Whether the conversation was taken from us while a call was under way, under the phone number alone: a handover
    /// may name nothing else. A message needs no such look, for it comes under another field then.
    async fn was_taken(
        &self,
        head: &Head,
        phone: &PhoneNumberId,
        session: Option<&Session>,
        update: &Update,
        now_ms: u64,
    ) -> Result<bool, String> {
        let (Update::EffectDone { effect_id, .. }, Some(session)) = (update, session) else {
            return Ok(false);
        };
        let is_awaited =
            session.pending_effect() == Some(effect_id) && head.conversation.as_user().is_some();
        let person = session
            .contact
            .get("phone")
            .and_then(|value| value.as_str())
            .filter(|_| is_awaited);
        let Some(person) = person else {
            return Ok(false);
        };
        let side = Side::new(&head.tenant, phone, ConversationKey::phone(person), None);
        let owner = self
            .owners
            .get(&side)
            .await
            .map_err(|error| error.to_string())?;
        Ok(owner.is_some_and(|owner| !owner.is_over(now_ms) && owner.set_ms > session.heard_ms()))
    }

    /// Does what was decided: sends in order, tells what was done in one record, and calls last, for a call takes long.
    async fn perform(
        &self,
        work: &Work,
        phone: &PhoneNumberId,
        live_flows: &LiveFlows,
        session: &Session,
        effects: &[Effect],
    ) -> Result<(), String> {
        let (mut facts, mut calls) = (Vec::new(), Vec::new());
        for effect in effects {
            match effect {
                Effect::Send { key, content } => {
                    let command = self.send(work, phone, session, key, content).await?;
                    facts.push(FlowFact::Queued {
                        command: Box::new(command),
                    });
                }
                Effect::Call { effect_id, call } => {
                    let is_awaited = session.pending_effect() == Some(effect_id);
                    calls.extend(is_awaited.then_some((effect_id, call)));
                }
                Effect::Started { run, flow } => facts.push(FlowFact::Started {
                    id: UpdateId::new(&effect.key()).as_str().to_owned(),
                    bot: live_flows.bot_of(flow).to_owned(),
                    flow: flow.clone(),
                    run: run.clone(),
                }),
                Effect::Completed {
                    run,
                    flow,
                    outcome,
                    variables,
                    ..
                } => facts.push(FlowFact::Completed {
                    id: UpdateId::new(&effect.key()).as_str().to_owned(),
                    bot: live_flows.bot_of(flow).to_owned(),
                    flow: flow.clone(),
                    run: run.clone(),
                    outcome: outcome.clone(),
                    variables: variables.clone(),
                }),
            }
        }
        if !facts.is_empty() {
            let (id, record) = (work.head.id.effect("step"), Record::FlowStep { facts });
            let stored = self.platform.record(&work.head, &id, &record).await;
            stored.map_err(|error| error.to_string())?;
        }
        for (effect_id, call) in calls {
            self.call(work, effect_id, call).await?;
        }
        Ok(())
    }

    async fn send(
        &self,
        work: &Work,
        phone: &PhoneNumberId,
        session: &Session,
        key: &str,
        content: &Content,
    ) -> Result<SendCommand, String> {
        let head = &work.head;
        let command = SendCommand {
            id: format!(
                "msg_{}",
                short_hash(format!("{}/{phone}/{key}", head.tenant).as_bytes())
            ),
            tenant: head.tenant.clone(),
            phone_number_id: phone.clone(),
            to: recipient(session, head),
            content: content.clone(),
            reply_to: None,
            origin: Origin::Flow {
                flow: session.flow().to_owned(),
                update: head.id.as_str().to_owned(),
            },
            created_ms: now_ms(),
        };
        let stored = self.platform.log.command(Lane::Live, &command).await;
        stored
            .map(|_sent_before| command)
            .map_err(|error| error.to_string())
    }

    async fn call(&self, work: &Work, effect_id: &str, call: &Call) -> Result<(), String> {
        let outcome = self.caller.perform(&work.head, call).await;
        let outcome = serde_json::to_value(&outcome).map_err(|error| error.to_string())?;
        let id = UpdateId::new(&format!("{effect_id}:done"));
        let record = Record::FlowResult {
            effect: effect_id.to_owned(),
            outcome,
        };
        self.platform
            .record(&work.head, &id, &record)
            .await
            .map_err(|error| error.to_string())
    }
}

/// Who the answers go to: what the session knows of the person, else what the conversation's key says.
fn recipient(session: &Session, head: &Head) -> Recipient {
    let known = |name: &str| {
        session
            .contact
            .get(name)
            .and_then(|value| value.as_str())
            .map(str::to_owned)
    };
    Recipient {
        user_id: known("user_id").or_else(|| head.conversation.as_user().map(str::to_owned)),
        phone: known("phone").or_else(|| head.conversation.as_phone().map(str::to_owned)),
    }
}
