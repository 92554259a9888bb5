//! The simulator's state and the things a test can make it do; HTTP is a thin shell over this.

use super::compose::{BadBatch, Batch, ChangeSpec, Composed, EntrySpec, StatusSpec, compose};
use super::delivery::{Courier, Delivery, Refused};
use super::entry::{Entry, MESSAGE_IDS_MAX};
use super::incoming::IncomingMessage;
use super::ladder::Ladder;
use super::media::Media;
use super::mint::{Mint, digits_of};
use super::pacing::Pacing;
use super::people::{People, Person};
use super::routing::Taken;
use super::rules::Rules;
use super::signing::Signature;
use super::{Number, Options};
use crate::journal::{Journal, unix_micros};
use bytes::Bytes;
use lru::LruCache;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::{Semaphore, watch};

const SENT_KEPT: usize = 100_000;
const LADDERS_MAX: usize = 100_000;
const DUPLICATES_MAX: u32 = 100;
/// How long a media URL works.
pub const MEDIA_URL_SECONDS: u64 = 300;

pub struct Simulator {
    pub(super) options: Options,
    pub(super) courier: Arc<Courier>,
    pub(super) stop: watch::Receiver<bool>,
    pub(super) ladders: Arc<Semaphore>,
    client: reqwest::Client,
    journal: Arc<Journal<Entry>>,
    base_url: String,
    started: Instant,
    mint: Mint,
    people: Mutex<People>,
    pacing: Mutex<Pacing>,
    rules: Mutex<Rules>,
    media: Mutex<Media>,
    ladder: Mutex<Ladder>,
    sent: Mutex<LruCache<String, SentMessage>>,
    taken: Mutex<Taken>,
    subscribed: Mutex<BTreeSet<String>>,
}

/// What is remembered of a message the business sent.
#[derive(Debug, Clone)]
pub struct SentMessage {
    pub person: Person,
    /// The number it came from.
    pub phone_number_id: String,
    /// Whether the send named a phone number.
    pub sent_to_phone: bool,
    pub opaque: Option<String>,
    /// Whether it was a template.
    pub template: bool,
}

impl Default for SentMessage {
    fn default() -> Self {
        let person = Person {
            user_id: String::new(),
            phone: None,
            name: None,
            hides_phone: false,
        };
        Self {
            person,
            phone_number_id: String::new(),
            sent_to_phone: false,
            opaque: None,
            template: false,
        }
    }
}

/// How a body is posted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Posting {
    pub signature: Signature,
    /// How many copies are posted besides the first, at the same time.
    pub duplicate: u32,
    /// Whether failures are retried; by default only when the signature is good.
    pub retry: Option<bool>,
}

/// What became of a request to post something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Accepted {
    /// Numbers of the deliveries, one for each copy.
    pub deliveries: Vec<u64>,
    /// The messages its updates are about, in order.
    pub message_ids: Vec<String>,
    /// The conversation, when there is exactly one.
    pub conversation: Option<String>,
    /// How many updates each delivery carries.
    pub updates: usize,
}

#[derive(Debug, thiserror::Error)]
pub enum NotPosted {
    #[error(transparent)]
    Batch(#[from] BadBatch),
    /// The courier does not take it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// An unreasonable number of copies.
    #[error("`duplicate` may be at most {DUPLICATES_MAX}")]
    Duplicates,
}

/// The outcome of a GET handshake.
#[derive(Debug, Clone, Serialize)]
pub struct Handshake {
    /// Whether the receiver answered 200 and the challenge.
    pub ok: bool,
    pub status: Option<u16>,
    pub error: Option<String>,
}

/// What a simulator is assembled from.
pub(super) struct Parts {
    pub options: Options,
    pub courier: Arc<Courier>,
    pub client: reqwest::Client,
    pub journal: Arc<Journal<Entry>>,
    pub base_url: String,
    pub stop: watch::Receiver<bool>,
}

impl Simulator {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts {
            options,
            courier,
            client,
            journal,
            base_url,
            stop,
        } = parts;
        let wabas = options
            .numbers
            .iter()
            .map(|number| number.waba_id.clone())
            .collect();
        Self {
            pacing: Mutex::new(Pacing::new(options.pacing)),
            ladder: Mutex::new(options.ladder),
            subscribed: Mutex::new(wabas),
            ladders: Arc::new(Semaphore::new(LADDERS_MAX)),
            started: Instant::now(),
            mint: Mint::new(rand::random()),
            people: Mutex::default(),
            rules: Mutex::default(),
            media: Mutex::default(),
            taken: Mutex::default(),
            sent: Mutex::new(LruCache::new(
                NonZeroUsize::new(SENT_KEPT).unwrap_or(NonZeroUsize::MIN),
            )),
            options,
            courier,
            client,
            journal,
            base_url,
            stop,
        }
    }

    /// Posts one message from a person.
    pub fn receive(
        &self,
        message: IncomingMessage,
        posting: Posting,
    ) -> Result<Accepted, NotPosted> {
        let sender = &message.sender;
        let person = sender
            .user_id
            .as_deref()
            .or(sender.from.as_deref())
            .unwrap_or_default();
        let number = self
            .number(sender.phone_number_id.as_deref())
            .phone_number_id;
        let standby = self.taken().has(&number, &self.conversation(person));
        let change = ChangeSpec {
            phone_number_id: message.sender.phone_number_id.clone(),
            standby,
            messages: vec![message],
            ..ChangeSpec::default()
        };
        self.deliver(&Batch::of(change), posting)
    }

    /// Posts a batch as one webhook.
    pub fn deliver(&self, batch: &Batch, posting: Posting) -> Result<Accepted, NotPosted> {
        if self.courier.target().is_none() {
            return Err(Refused::NoTarget.into());
        }
        self.post(compose(self, batch)?, posting)
    }

    /// Posts any bytes, signed as asked.
    pub fn deliver_raw(&self, body: Bytes, posting: Posting) -> Result<Accepted, NotPosted> {
        self.post(
            Composed {
                body,
                ..Composed::default()
            },
            posting,
        )
    }

    /// Posts statuses in the order given, each in a webhook of its own after the one before was attempted.
    pub async fn send_statuses(&self, statuses: Vec<StatusSpec>) -> Result<Vec<u64>, NotPosted> {
        let mut numbers = Vec::new();
        for status in statuses {
            let phone_number_id = self
                .sent(&status.message_id)
                .map(|sent| sent.phone_number_id);
            let change = ChangeSpec {
                phone_number_id,
                statuses: vec![status],
                ..ChangeSpec::default()
            };
            let composed = compose(self, &Batch::of(change))?;
            let posted = self.courier.post(delivery(&composed, Posting::default()))?;
            numbers.push(posted.number);
            // An error means the courier is stopping; the journal tells what became of the attempt.
            let _ = posted.first_attempt.await;
        }
        Ok(numbers)
    }

    fn post(&self, composed: Composed, posting: Posting) -> Result<Accepted, NotPosted> {
        if posting.duplicate > DUPLICATES_MAX {
            return Err(NotPosted::Duplicates);
        }
        let delivery = delivery(&composed, posting);
        let mut deliveries = Vec::new();
        for _ in 0..=posting.duplicate {
            deliveries.push(self.courier.post(delivery.clone())?.number);
        }
        let Composed {
            updates,
            conversation,
            message_ids,
            seen,
            ..
        } = composed;
        for message in seen {
            self.journal.record(Entry::Message(message));
        }
        Ok(Accepted {
            deliveries,
            message_ids,
            conversation,
            updates,
        })
    }

    /// Verifies the webhook URL the way Meta does when it is registered.
    pub async fn handshake(&self) -> Handshake {
        let failed = |status, error: String| Handshake {
            ok: false,
            status,
            error: Some(error),
        };
        let Some(target) = self.courier.target() else {
            return failed(None, Refused::NoTarget.to_string());
        };
        let challenge = self.mint.challenge();
        let query = [
            ("hub.mode", "subscribe"),
            ("hub.challenge", challenge.as_str()),
            (
                "hub.verify_token",
                self.options.verify_token.expose().as_str(),
            ),
        ];
        let Ok(url) = reqwest::Url::parse_with_params(&target, query) else {
            return failed(None, "the webhook URL is not a URL".to_owned());
        };
        let agent = "facebookplatform/1.0 (+http://developers.facebook.com)";
        let asked = self
            .client
            .get(url)
            .header("user-agent", agent)
            .header("accept", "*/*")
            .send()
            .await;
        let response = match asked {
            Ok(response) => response,
            Err(error) => return failed(None, error.without_url().to_string()),
        };
        let status = response.status().as_u16();
        let body = response.bytes().await.unwrap_or_default();
        match (status, body == challenge) {
            (200, true) => Handshake {
                ok: true,
                status: Some(200),
                error: None,
            },
            (200, false) => failed(Some(200), "the answer is not the challenge".to_owned()),
            _ => failed(
                Some(status),
                "the receiver refused the verify token".to_owned(),
            ),
        }
    }

    pub fn journal(&self) -> &Journal<Entry> {
        &self.journal
    }

    /// The user id that a phone number or user id is filed under.
    pub fn conversation(&self, phone_or_user: &str) -> String {
        self.people().conversation(phone_or_user)
    }

    /// The address webhooks go to.
    pub fn webhook_url(&self) -> Option<String> {
        self.courier.target()
    }

    /// Sends webhooks elsewhere from now on.
    pub fn set_webhook_url(&self, url: Option<String>) {
        self.courier.set_target(url);
    }

    /// How many deliveries have not ended.
    pub fn pending(&self) -> usize {
        self.courier.pending()
    }

    pub fn ladder(&self) -> Ladder {
        *lock(&self.ladder)
    }

    /// Replaces the status ladder for messages accepted from now on.
    pub fn set_ladder(&self, ladder: Ladder) {
        *lock(&self.ladder) = ladder;
    }

    pub fn rules(&self) -> MutexGuard<'_, Rules> {
        lock(&self.rules)
    }

    /// A message sent through this simulator.
    pub fn sent(&self, message_id: &str) -> Option<SentMessage> {
        lock(&self.sent).get(message_id).cloned()
    }

    pub(super) fn remember_sent(&self, message_id: &str, sent: SentMessage) {
        lock(&self.sent).put(message_id.to_owned(), sent);
    }

    /// The configured number of this id; a made-up one for an id that is not configured.
    pub fn number(&self, phone_number_id: Option<&str>) -> Number {
        let numbers = &self.options.numbers;
        let known = match phone_number_id {
            Some(id) => numbers.iter().find(|number| number.phone_number_id == id),
            None => numbers.first(),
        };
        let waba_id = numbers
            .first()
            .map_or("0", |number| number.waba_id.as_str());
        known
            .cloned()
            .unwrap_or_else(|| Number::new(phone_number_id.unwrap_or("0"), waba_id))
    }

    pub(super) fn media_url(&self, id: &str) -> String {
        let expires = self.unix_seconds() + MEDIA_URL_SECONDS;
        format!("{}/_media/{id}?expires={expires}", self.base_url)
    }

    pub(super) fn mint(&self) -> &Mint {
        &self.mint
    }

    pub(super) fn people(&self) -> MutexGuard<'_, People> {
        lock(&self.people)
    }

    pub(super) fn pacing(&self) -> MutexGuard<'_, Pacing> {
        lock(&self.pacing)
    }

    pub(super) fn media(&self) -> MutexGuard<'_, Media> {
        lock(&self.media)
    }

    pub(super) fn taken(&self) -> MutexGuard<'_, Taken> {
        lock(&self.taken)
    }

    pub(super) fn subscribed(&self) -> MutexGuard<'_, BTreeSet<String>> {
        lock(&self.subscribed)
    }

    /// Time since the start, the clock of pacing and windows.
    pub(super) fn now(&self) -> Duration {
        self.started.elapsed()
    }

    pub(super) fn unix_seconds(&self) -> u64 {
        unix_micros() / 1_000_000
    }
}

impl Batch {
    /// A batch of one change.
    pub fn of(change: ChangeSpec) -> Self {
        Self {
            entries: vec![EntrySpec {
                changes: vec![change],
                ..EntrySpec::default()
            }],
        }
    }
}

impl Number {
    /// A number with a made-up display number and name.
    pub fn new(phone_number_id: &str, waba_id: &str) -> Self {
        let digits = digits_of(phone_number_id, 8);
        let local = digits.get(1..).unwrap_or_default();
        Self {
            phone_number_id: phone_number_id.to_owned(),
            waba_id: waba_id.to_owned(),
            display_phone_number: format!("1555{local}"),
            verified_name: "Simulated Business".to_owned(),
        }
    }
}

fn delivery(composed: &Composed, posting: Posting) -> Delivery {
    Delivery {
        body: composed.body.clone(),
        signature: posting.signature,
        updates: composed.updates,
        conversation: composed.conversation.clone(),
        message_ids: composed
            .message_ids
            .iter()
            .take(MESSAGE_IDS_MAX)
            .cloned()
            .collect(),
        retry: posting
            .retry
            .unwrap_or(posting.signature == Signature::Good),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl std::fmt::Debug for Simulator {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Simulator")
            .field("base_url", &self.base_url)
            .finish_non_exhaustive()
    }
}
