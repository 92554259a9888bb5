//! The office's counter: look up, order, stop.

use super::letter::Letter;
use super::order::{self, Action, Order, Source, State, Target};
use super::scan::ScanError;
use super::settled::{Settled, Standing};
use crate::core::log::{Log, now_ms};
use ackline_shared::ids::TenantId;
use ackline_shared::nats::Buckets;
use ackline_shared::nats::layout::bucket_subject;
use ackline_shared::stored;
use ackline_shared::subjects::{BUCKET_REPLAYS, DEAD, UPDATES};
use async_nats::HeaderMap;
use async_nats::jetstream::kv::{Operation, Store, UpdateErrorKind};
use async_nats::jetstream::message::StreamMessage;
use async_nats::jetstream::stream::DirectGetErrorKind;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use std::collections::BTreeMap;

/// Messages of one pull when only headers come.
pub(super) const HEADERS_PULL: usize = 10_000;
/// Messages of one pull when payloads come too.
pub(super) const PAYLOADS_PULL: usize = 64;
/// Orders of one tenant, and of the operator, that may be open at once.
pub const ORDERS_OPEN_MAX: usize = 20;
/// Orders of one tenant, and of the operator, that are known; beyond it, the oldest that have ended are forgotten.
const ORDERS_KEPT_MAX: usize = 200;
const WRITES_MAX: u32 = 16;
const FINDS_AT_ONCE: usize = 32;
const ORDER_PREFIX: &str = "order.";

/// Why the office cannot do it now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OfficeError {
    /// A stream cannot be read.
    #[error(transparent)]
    Scan(#[from] ScanError),
    /// What is known of orders cannot be read or written.
    #[error("the replays in NATS cannot be read or written: {0}")]
    Books(String),
    /// Too many orders are open.
    #[error("{ORDERS_OPEN_MAX} replays are waiting or running; wait for one to end, or cancel one")]
    Busy,
}

impl OfficeError {
    /// The books are out of reach.
    pub(super) fn books(error: impl ToString) -> Self {
        Self::Books(error.to_string())
    }
}

/// The office; cheap to clone.
#[derive(Debug, Clone)]
pub struct Office {
    pub(super) log: Log,
    pub(super) store: Store,
    pub(super) locks: Store,
}

/// A letter looked up: what its headers tell, all of them, and what it holds.
#[derive(Debug, Clone)]
pub struct Found {
    /// What its headers tell.
    pub letter: Letter,
    /// All its headers.
    pub headers: HeaderMap,
    /// What it holds.
    pub payload: Bytes,
    /// What was done about it.
    pub standing: Standing,
}

/// What an order says that somebody wants to give.
#[derive(Debug, Clone)]
pub struct Wish {
    /// What is to be done.
    pub action: Action,
    /// Who wants it.
    pub by: String,
    /// The tenant who may see it.
    pub tenant: Option<TenantId>,
    /// What it is about.
    pub source: Source,
    /// Whom it is for.
    pub target: Option<Target>,
    /// Whether messages are sent again that their recipient may have.
    pub include_ambiguous: bool,
    /// Whether messages are sent that are older than their window.
    pub include_expired: bool,
    /// Replays a second.
    pub rate_per_second: u32,
    /// How many there are.
    pub expected: u64,
}

impl Office {
    /// Opens the office.
    pub fn new(log: Log, buckets: &Buckets) -> Self {
        Self {
            log,
            store: buckets.replays.clone(),
            locks: buckets.locks.clone(),
        }
    }

    /// Looks a letter up; `None` when there is none of this number, or none any more.
    pub async fn letter(&self, sequence: u64) -> Result<Option<Found>, OfficeError> {
        let Some(message) = self.message(sequence).await? else {
            return Ok(None);
        };
        let Some(letter) = Letter::read(sequence, &message.subject, &message.headers) else {
            return Ok(None);
        };
        let standing = Settled::new(self.store.clone()).standing(sequence).await?;
        Ok(Some(Found {
            letter,
            headers: message.headers,
            payload: message.payload,
            standing,
        }))
    }

    pub(super) async fn message(
        &self,
        sequence: u64,
    ) -> Result<Option<StreamMessage>, OfficeError> {
        if sequence == 0 {
            // Streams count from 1, and refuse to be asked for it.
            return Ok(None);
        }
        let stream = self
            .log
            .context()
            .get_stream_no_info(DEAD)
            .await
            .map_err(OfficeError::books)?;
        match stream.direct_get(sequence).await {
            Ok(message) => Ok(Some(message)),
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => Ok(None),
            Err(error) => Err(OfficeError::books(error)),
        }
    }

    /// Gives an order; it is carried out by whoever takes it up.
    pub async fn order(&self, wish: Wish) -> Result<Order, OfficeError> {
        let known = self.orders_of(wish.tenant.as_ref()).await?;
        if known.iter().filter(|order| !order.state.is_final()).count() >= ORDERS_OPEN_MAX {
            return Err(OfficeError::Busy);
        }
        self.forget_beyond(&known, ORDERS_KEPT_MAX).await?;
        let id = Order::new_id(wish.action, wish.tenant.as_ref(), rand::random());
        let mut order = self.draft(wish, id);
        let name = if matches!(order.source, Source::Past(_)) {
            UPDATES
        } else {
            DEAD
        };
        let mut source = self
            .log
            .context()
            .get_stream(name)
            .await
            .map_err(OfficeError::books)?;
        order.until = source
            .info()
            .await
            .map_err(OfficeError::books)?
            .state
            .last_sequence;
        self.store
            .create(key(&order.id), stored::encode(&order).into())
            .await
            .map_err(OfficeError::books)?;
        tracing::info!(
            order = order.id, by = order.by, action = ?order.action, expected = order.expected,
            "an order over dead letters or the past was given"
        );
        Ok(order)
    }

    /// The order as it would be given.
    pub fn draft(&self, wish: Wish, id: String) -> Order {
        Order {
            id,
            action: wish.action,
            by: wish.by,
            tenant: wish.tenant,
            created_ms: now_ms(),
            source: wish.source,
            target: wish.target,
            include_ambiguous: wish.include_ambiguous,
            include_expired: wish.include_expired,
            rate_per_second: wish.rate_per_second,
            expected: wish.expected,
            state: State::Waiting,
            is_stopped: false,
            next: 0,
            until: 0,
            done: 0,
            skipped: 0,
            failed: 0,
            notes: BTreeMap::new(),
            started_ms: None,
            finished_ms: None,
            problem: None,
        }
    }

    /// All orders that are still known, the newest first.
    pub async fn orders(&self) -> Result<Vec<Order>, OfficeError> {
        self.read_all(self.ids(&every_order()).await?).await
    }

    /// The orders of a tenant, or of the operator alone; what they cost does not depend on those of others.
    pub async fn orders_of(&self, tenant: Option<&TenantId>) -> Result<Vec<Order>, OfficeError> {
        let mut ids = self
            .ids(&format!("{ORDER_PREFIX}{}.*", order::owner(tenant)))
            .await?;
        // An older version did not put the owner into the key; these go with their age.
        ids.extend(self.ids(&format!("{ORDER_PREFIX}*")).await?);
        let mut orders = self.read_all(ids).await?;
        orders.retain(|order| order.tenant.as_ref() == tenant);
        Ok(orders)
    }

    /// Forgets the oldest orders that have ended, so that there is room for one more.
    async fn forget_beyond(&self, known: &[Order], most: usize) -> Result<(), OfficeError> {
        let surplus = (known.len() + 1).saturating_sub(most);
        let ended = known
            .iter()
            .rev()
            .filter(|order| order.state.is_final())
            .take(surplus);
        for order in ended {
            // Wholly: what marks a removed key would stay as long as the order.
            let subject = bucket_subject(BUCKET_REPLAYS, &key(&order.id));
            self.store
                .stream
                .purge()
                .filter(subject)
                .await
                .map_err(OfficeError::books)?;
        }
        Ok(())
    }

    async fn ids(&self, keys: &str) -> Result<Vec<String>, OfficeError> {
        let subject = bucket_subject(BUCKET_REPLAYS, keys);
        let mut subjects = self
            .store
            .stream
            .info_with_subjects(subject)
            .await
            .map_err(OfficeError::books)?;
        let mut ids = Vec::new();
        while let Some(subject) = subjects.next().await {
            let (subject, _) = subject.map_err(OfficeError::books)?;
            ids.extend(subject.rsplit('.').next().map(str::to_owned));
        }
        Ok(ids)
    }

    /// Reads orders, the newest first.
    async fn read_all(&self, ids: Vec<String>) -> Result<Vec<Order>, OfficeError> {
        // Not one read over the bucket: an order that is written meanwhile moves to its end, behind the reader.
        let found = stream::iter(ids).map(|id| async move { self.find(&id).await });
        let found: Vec<_> = found.buffer_unordered(FINDS_AT_ONCE).try_collect().await?;
        let mut orders: Vec<Order> = found
            .into_iter()
            .flatten()
            .map(|(_, order)| order)
            .collect();
        orders.sort_by(|one, two| (two.created_ms, &two.id).cmp(&(one.created_ms, &one.id)));
        Ok(orders)
    }

    /// Looks an order up, with the revision to write it back under.
    pub async fn find(&self, id: &str) -> Result<Option<(u64, Order)>, OfficeError> {
        if !ackline_shared::ids::is_token(id) {
            return Ok(None);
        }
        let entry = self
            .store
            .entry(key(id))
            .await
            .map_err(OfficeError::books)?;
        let entry = entry.filter(|entry| entry.operation == Operation::Put);
        Ok(entry.and_then(|entry| Some((entry.revision, read(&entry.value)?))))
    }

    /// Asks for an order to stop; what it has done stays done.
    pub async fn stop(&self, id: &str) -> Result<Option<Order>, OfficeError> {
        for _ in 0..WRITES_MAX {
            let Some((revision, mut order)) = self.find(id).await? else {
                return Ok(None);
            };
            if order.state.is_final() || order.is_stopped {
                return Ok(Some(order));
            }
            order.is_stopped = true;
            if order.state == State::Waiting {
                order.finish(State::Cancelled, now_ms());
            }
            if self.write(revision, &order).await?.is_some() {
                tracing::info!(order = order.id, "an order is to stop");
                return Ok(Some(order));
            }
        }
        Err(OfficeError::books("somebody else keeps writing it"))
    }

    /// Writes an order back, with what this version does not know of it; `None` when it was changed meanwhile.
    pub(super) async fn write(
        &self,
        revision: u64,
        order: &Order,
    ) -> Result<Option<u64>, OfficeError> {
        let key = key(&order.id);
        let entry = self.store.entry(&key).await.map_err(OfficeError::books)?;
        let Some(before) = entry.filter(|entry| entry.revision == revision) else {
            return Ok(None);
        };
        let written = stored::encode_over(order, &before.value).map_err(OfficeError::books)?;
        match self.store.update(key, written.into(), revision).await {
            Ok(revision) => Ok(Some(revision)),
            Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(None),
            Err(error) => Err(OfficeError::books(error)),
        }
    }
}

/// Every order's key.
pub(super) fn every_order() -> String {
    format!("{ORDER_PREFIX}>")
}

/// Reads an order; none where it is a newer version's, which may say less than all of what is meant to this one.
pub(super) fn read(bytes: &[u8]) -> Option<Order> {
    stored::check::<Order>(bytes).ok()?;
    stored::decode(bytes).ok()
}

fn key(id: &str) -> String {
    match Order::owner_of(id) {
        Some(owner) => format!("{ORDER_PREFIX}{owner}.{id}"),
        None => format!("{ORDER_PREFIX}{id}"),
    }
}
