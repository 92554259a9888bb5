//! Sends messages to people: the only code that talks to the Graph API's send call.
//!
//! A message has no idempotency key at Meta, so the rule is: before the request leaves, the mark `sending` is
//! durable; a definite answer takes it away. Whoever finds it set knows that a request may have gone out and
//! does not repeat it. What became of a message is written back as a record before the command is done.

mod files;

pub use ackline_whatsapp::graph::{ClientError, GraphSettings};

use ackline_egress::{Egress, FilePlaces};
use ackline_engine::state::{BreakerSpec, Target};
use ackline_engine::step::Step;
use ackline_message::media::MediaKind;
use ackline_message::{Recipient, Record, SendCommand};
use ackline_runtime::conversation::{Moves, OwnerError, Side};
use ackline_runtime::job::{Job, Marks, Verdict, Work};
use ackline_runtime::log::to_bytes;
use ackline_runtime::platform::Platform;
use ackline_shared::envelope::Head;
use ackline_shared::ids::{ConversationKey, PhoneNumberId};
use ackline_shared::secret::Secret;
use ackline_shared::spelling;
use ackline_shared::stored;
use ackline_shared::subjects::Pool;
use ackline_whatsapp::graph::{Graph, GraphAnswer, TOTAL_TIMEOUT};
use ackline_whatsapp::pacing::{PER_SECOND_DEFAULT, Pacing, TURN_WAIT_MAX, TooLong};
use ackline_whatsapp::verdict::{Failure, SENDING, SendOutcome, Setback, judge};
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use files::NotReady;
use serde_json::Value;
use std::sync::Arc;
use tokio::time::Instant;

/// Prefix of the mark that keeps Meta's id until its record is stored.
const SENT: &str = "sent:";
/// Prefix of the mark that keeps who Meta said it went to.
const KNOWN_AS: &str = "known_as:";
/// The breaker of the Graph API as a whole.
const GRAPH: &str = "graph";

#[derive(Debug)]
pub struct Replies {
    platform: Platform,
    graph: Graph,
    pacing: Pacing,
    moves: Moves,
    /// Fetches agents' files; without it they are not sent.
    egress: Option<Egress>,
    /// Files that may be held at once.
    files: FilePlaces,
}

impl Replies {
    /// Builds the job and its HTTP client.
    pub fn new(platform: Platform, settings: &GraphSettings) -> Result<Self, ClientError> {
        let (graph, pacing) = (Graph::new(settings)?, Pacing::new(PER_SECOND_DEFAULT));
        let moves = Moves::new(platform.buckets.sessions.clone());
        Ok(Self {
            platform,
            moves,
            graph,
            pacing,
            egress: None,
            files: FilePlaces::default(),
        })
    }

    /// The same with the files that agents send, which are fetched through this client.
    pub fn with_files(mut self, egress: Egress) -> Self {
        self.egress = Some(egress);
        self
    }
}

impl Job for Replies {
    const POOL: Pool = Pool::Replies;

    fn targets(&self, head: &Head) -> Vec<Arc<Target>> {
        let number = head.phone.as_ref().map_or("", PhoneNumberId::as_str);
        let breaker = |name: String| BreakerSpec {
            name: name.into(),
            limit: usize::MAX,
        };
        let downstream = format!("number.{number}");
        let has_file = head
            .kind
            .strip_prefix("send.")
            .is_some_and(|kind| MediaKind::read(kind).is_some());
        let timeout = match has_file {
            true => TOTAL_TIMEOUT + TURN_WAIT_MAX + files::FILE_TIMEOUT,
            false => TOTAL_TIMEOUT + TURN_WAIT_MAX,
        };
        let breakers = vec![breaker(GRAPH.to_owned()), breaker(downstream.clone())];
        vec![Arc::new(Target {
            name: String::new(),
            downstream,
            breakers,
            timeout: Some(timeout),
        })]
    }

    async fn give_up(&self, work: &Work, reason: &str) -> Verdict {
        match stored::decode::<SendCommand>(&work.payload) {
            Ok(command) => match Sent::before(&work.marks) {
                Some(sent) => {
                    tracing::warn!(tenant = %work.head.tenant, reason, "a message went out; whose number it was is not noted");
                    self.record_sent(work, command, sent).await
                }
                None => self.failed(work, command, Failure::given_up(reason)).await,
            },
            Err(_) => Verdict::dead(reason),
        }
    }

    async fn run(&self, work: &Work) -> Verdict {
        let command: SendCommand = match stored::decode(&work.payload) {
            Ok(command) => command,
            Err(error) => return Verdict::dead(format!("this is not a send command: {error}")),
        };
        if let Some(sent) = Sent::before(&work.marks) {
            return self.sent(work, command, sent).await;
        }
        if work.marks.has(&SENDING) {
            let cut_off =
                Failure::lost("an earlier attempt was cut off while the request was on its way");
            return self.failed(work, command, cut_off).await;
        }
        let command = match self.with_file(work, command.clone()).await {
            Ok(command) => command,
            Err(NotReady::Failed(failure)) => return self.failed(work, command, failure).await,
            Err(NotReady::Again(setback)) => return setback.verdict(),
        };
        match self.attempt(work, &command).await {
            SendOutcome::Sent { wamid, to } => {
                let known_as = news(&command.to, to);
                let sent = Sent { wamid, known_as };
                sent.mark(&work.marks);
                work.marks.clear(&SENDING);
                self.sent(work, command, sent).await
            }
            SendOutcome::Failed(failure) => self.failed(work, command, failure).await,
            SendOutcome::Again(setback) => setback.verdict(),
            SendOutcome::Held { reason, after } => Verdict::Wait { reason, after },
        }
    }
}

impl Replies {
    /// Takes the number's turn and makes the request once.
    async fn attempt(&self, work: &Work, command: &SendCommand) -> SendOutcome {
        let (body, token) = match self.prepare(work, command) {
            Ok(prepared) => prepared,
            Err(failure) => return SendOutcome::Failed(failure),
        };
        let number = &command.phone_number_id;
        match self.pacing.turn(number, Instant::now()) {
            Ok(wait) => tokio::time::sleep(wait).await,
            Err(TooLong(after)) => {
                let reason = "the number has more to send than its pace allows".to_owned();
                return SendOutcome::Held { reason, after };
            }
        }
        work.marks.set(SENDING);
        if let Err(error) = work.persist().await {
            work.marks.clear(&SENDING);
            let reason = format!("nothing was sent: {error}");
            return SendOutcome::Again(Setback::own(reason));
        }
        let answer = self.graph.send(number, &token, &body).await;
        if answer.as_ref().is_ok_and(GraphAnswer::is_metas) {
            work.answered.set();
        } else {
            work.answered.lost();
        }
        let outcome = judge(&answer, work.attempt);
        match &outcome {
            SendOutcome::Again(setback) => {
                work.marks.clear(&SENDING);
                if let Some(pause) = setback.pause {
                    self.pacing.pause(number, Instant::now(), pause);
                }
            }
            SendOutcome::Failed(failure) if !failure.ambiguous => work.marks.clear(&SENDING),
            SendOutcome::Sent { .. } | SendOutcome::Failed(_) | SendOutcome::Held { .. } => {}
        }
        outcome
    }

    /// Everything the request needs, or why it cannot be made.
    fn prepare(
        &self,
        work: &Work,
        command: &SendCommand,
    ) -> Result<(Value, Secret<String>), Failure> {
        let body = ackline_message::graph_body(command).map_err(Failure::ours)?;
        Ok((body, self.token(work, command)?))
    }

    /// The token of the number that sends.
    fn token(&self, work: &Work, command: &SendCommand) -> Result<Secret<String>, Failure> {
        let number = &command.phone_number_id;
        let snapshot = self.platform.snapshot();
        let phone = snapshot
            .phone_numbers
            .get(number)
            .filter(|phone| phone.tenant == work.head.tenant);
        let phone = phone.ok_or_else(|| {
            Failure::ours(format!(
                "the tenant {} has no phone number {number}; declare it under phone_numbers, run `ackline apply`, then replay",
                work.head.tenant
            ))
        })?;
        let token = self
            .platform
            .open(phone.as_ref(), &phone.access_token)
            .map_err(Failure::ours)?;
        if token.expose().trim().is_empty() {
            return Err(Failure::ours(format!(
                "the phone number {number} has no access token; set its access_token, run `ackline apply`, then replay"
            )));
        }
        Ok(token)
    }

    async fn sent(&self, work: &Work, command: SendCommand, sent: Sent) -> Verdict {
        if let Some(known_as) = &sent.known_as
            && let Err(error) = self.note_other_number(&command, known_as).await
        {
            return Verdict::retry(format!(
                "the message went out; whose number it was is not noted yet: {error}"
            ));
        }
        self.record_sent(work, command, sent).await
    }

    async fn record_sent(&self, work: &Work, command: SendCommand, sent: Sent) -> Verdict {
        let record = Record::ReplySent {
            command: Box::new(command),
            wamid: sent.wamid,
            attempts: work.attempt,
            known_as: sent.known_as,
        };
        let id = work.head.id.effect("sent");
        match self.platform.record(&work.head, &id, &record).await {
            Ok(()) => Verdict::Done,
            Err(error) => Verdict::retry(format!(
                "the message went out; that is not recorded yet: {error}"
            )),
        }
    }

    /// Lets what is kept of the number we wrote to be found under the one that Meta named instead. A user id alone costs no
    /// write: whoever answers under it brings the number along.
    async fn note_other_number(
        &self,
        command: &SendCommand,
        known_as: &Recipient,
    ) -> Result<(), OwnerError> {
        let (Some(_), Some(asked)) = (&known_as.phone, &command.to.phone) else {
            return Ok(());
        };
        let side = Side::of_person(&command.tenant, &command.phone_number_id, known_as);
        let from = ConversationKey::phone(asked);
        self.moves.carry(&side, &from, None).await.map(drop)
    }

    async fn failed(&self, work: &Work, command: SendCommand, failure: Failure) -> Verdict {
        let Failure {
            code,
            reason,
            ambiguous,
        } = failure;
        let record = Record::ReplyFailed {
            command: Box::new(command),
            code,
            reason: reason.clone(),
            ambiguous,
        };
        let id = work.head.id.effect("failed");
        match self.platform.record(&work.head, &id, &record).await {
            Err(error) if !work.last_attempt => Verdict::retry(format!(
                "it failed for good; that is not recorded yet: {error}"
            )),
            _ => Verdict::dead(reason),
        }
    }
}

/// What Meta's answer says of the receiver beyond the command: another number, or a user id that was not known.
fn news(asked: &Recipient, told: Recipient) -> Option<Recipient> {
    let is_known = |phone: &String| {
        let asked = asked.phone.as_deref();
        asked.is_some_and(|asked| spelling::is_same(asked, phone))
    };
    let phone = told.phone.filter(|phone| !is_known(phone));
    let user_id = told
        .user_id
        .filter(|user_id| asked.user_id.as_ref() != Some(user_id));
    (phone.is_some() || user_id.is_some()).then_some(Recipient { user_id, phone })
}

/// What Meta said of a message that went out. It is remembered with the update until it is recorded.
struct Sent {
    wamid: String,
    /// By which ids Meta knows the receiver beyond those of the command.
    known_as: Option<Recipient>,
}

impl Sent {
    /// What earlier attempts remember.
    fn before(marks: &Marks) -> Option<Self> {
        let marks = marks.all();
        let told = |prefix: &str| marks.iter().find_map(|mark| mark.strip_prefix(prefix));
        let known_as = told(KNOWN_AS).and_then(|told| {
            let json = STANDARD_NO_PAD.decode(told).ok()?;
            serde_json::from_slice(&json).ok()
        });
        let wamid = told(SENT)?.to_owned();
        Some(Self { wamid, known_as })
    }

    fn mark(&self, marks: &Marks) {
        if let Some(known_as) = &self.known_as {
            // A mark has meanings for some characters, which ids may hold.
            let told = STANDARD_NO_PAD.encode(to_bytes(known_as));
            marks.set(Step::done(format!("{KNOWN_AS}{told}")));
        }
        marks.set(Step::done(format!("{SENT}{}", self.wamid)));
    }
}
