//! What happens to one request: `path → app → body → verify → split → route → store → 200`.
//!
//! A 200 to a POST means that every update in it is acknowledged by the log; anything else is a
//! [`Refusal`], after which Meta sends the delivery again. Nothing unsigned is ever split or stored.

use crate::budget::{Budget, Held};
use crate::http::admission::Admission;
use crate::http::bounds::Bounds;
use crate::http::caller::Caller;
use crate::http::refusal::Refusal;
use crate::metrics::Metrics;
use crate::routing::{AppRoute, AppSecrets, InFlight, Routing, RoutingTable};
use crate::split::split;
use crate::split::stamping::{Arrival, Memory, Stamp, Stamped};
use crate::store::acknowledged::Acknowledged;
use crate::store::publisher::DELIVERY_WINDOW;
use crate::store::{StoreError, Update, UpdateLog};
use ackline_shared::signature::{self, SignatureError};
use ackline_shared::subjects::{Class, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::Body;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response};
use std::future::{Future, poll_fn};
use std::iter::Peekable;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use subtle::ConstantTimeEq;
use tokio::time::{Instant, timeout};

const PATH: &str = "/webhooks/meta/";
const SIGNATURE_BYTES_MAX: usize = 128;
/// A body up to this size is copied out of the connection's buffer.
const COPIED_BYTES_MAX: usize = 4 << 10;
/// Longest challenge echoed; Meta's have some ten digits.
const CHALLENGE_BYTES_MAX: usize = 1024;

/// The edge: everything a request needs.
#[derive(Debug)]
pub struct Edge<L> {
    /// Which apps and numbers there are.
    pub routing: Arc<Routing>,
    pub log: Arc<L>,
    /// Whether a delivery is taken at all.
    pub admission: Admission,
    pub bounds: Bounds,
    pub partitions: u16,
    /// What one tenant's own app may have on its way to the log.
    pub tenant_in_flight: InFlight,
    /// Value of Retry-After on 503.
    pub retry_after: HeaderValue,
    /// Bytes of bodies held, over everything that shares it.
    pub body_bytes: Arc<Budget>,
    /// Updates that need not be stored again.
    pub acknowledged: Arc<Acknowledged>,
    pub metrics: Arc<Metrics>,
}

impl<L: UpdateLog> Edge<L> {
    /// Answers a request of somebody's.
    pub async fn answer<B>(&self, request: Request<B>, caller: &Caller) -> Response<Full<Bytes>>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Send,
    {
        let started = Instant::now();
        let (response, reason) = match self.dispatch(request, caller, started).await {
            Ok(response) => (response, None),
            Err(refusal) => (refusal.response(&self.retry_after), Some(refusal.reason())),
        };
        self.metrics.answered(response.status().as_u16(), reason);
        self.metrics
            .delivery_seconds
            .observe(started.elapsed().as_secs_f64());
        response
    }

    async fn dispatch<B>(
        &self,
        request: Request<B>,
        caller: &Caller,
        started: Instant,
    ) -> Result<Response<Full<Bytes>>, Refusal>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Send,
    {
        let (head, body) = request.into_parts();
        let app = head
            .uri
            .path()
            .strip_prefix(PATH)
            .ok_or(Refusal::NotFound)?;
        // Meta's dashboard takes an address with a slash at its end as another one than without.
        let app = app.strip_suffix('/').unwrap_or(app);
        let table = self.routing.in_force();
        let table = table
            .as_deref()
            .filter(|table| table.is_declared())
            .ok_or(Refusal::NotReady)?;
        let app = table.app(app).ok_or_else(|| match table.hides_app(app) {
            true => Refusal::Unreadable,
            false => Refusal::NotFound,
        })?;
        let secrets = app.secrets().ok_or(Refusal::SecretsLocked);
        match head.method {
            Method::GET => handshake(secrets?, head.uri.query().unwrap_or_default()),
            Method::POST => {
                let claimed = head.headers.get(header::SIGNATURE);
                let claimed = claimed
                    .ok_or(Refusal::Signature(SignatureError::Missing))?
                    .as_bytes();
                let claimed = Claimed::copy(claimed);
                let secrets = secrets?;
                // With its store the server lost every number: that is no reason to keep updates as nobody's.
                if !table.has_numbers() {
                    return Err(Refusal::NotReady);
                }
                if !self.admission.admits(started) {
                    return Err(Refusal::Shed);
                }
                // The head lies in the connection's buffer, which is used again once nobody holds any of it.
                drop(head);
                let (body, _held) = self.read_body(body, caller).await?;
                signature::verify(&secrets.keys, Some(claimed.bytes()), &body)
                    .map_err(Refusal::Signature)?;
                caller.mark_verified(app.is_shared());
                self.store(table, app, &body, claimed.bytes()).await?;
                Ok(Response::new(Full::new(Bytes::new())))
            }
            _ => Err(Refusal::Method),
        }
    }

    /// Reads the whole body within its bounds; what is held stands for its bytes.
    async fn read_body<B>(&self, body: B, caller: &Caller) -> Result<(Bytes, Held<'_>), Refusal>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Send,
    {
        let announced = body
            .size_hint()
            .exact()
            .and_then(|bytes| usize::try_from(bytes).ok());
        if announced.is_some_and(|bytes| bytes > self.bounds.body_bytes_max) {
            return Err(Refusal::BodyTooLarge);
        }
        let mut reading = pin!(self.collect(body, announced.unwrap_or(0), caller));
        // Most bodies came with their head; only one that has to be waited for needs a timer.
        if let Poll::Ready(read) =
            poll_fn(|context| Poll::Ready(reading.as_mut().poll(context))).await
        {
            return read;
        }
        timeout(self.bounds.body_timeout, reading)
            .await
            .map_err(|_| Refusal::BodyTooSlow)?
    }

    async fn collect<B>(
        &self,
        body: B,
        announced: usize,
        caller: &Caller,
    ) -> Result<(Bytes, Held<'_>), Refusal>
    where
        B: Body<Data = Bytes> + Send,
        B::Error: Send,
    {
        let mut body = pin!(body);
        let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
        let mut held = self.body_bytes.hold();
        let mut unfinished = caller.body_bytes().map(|budget| budget.map(Budget::hold));
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Refusal::BodyBroken)?.into_data() else {
                continue;
            };
            let length = first.len().max(rest.len()) + data.len();
            if length > self.bounds.body_bytes_max {
                return Err(Refusal::BodyTooLarge);
            }
            // Only bytes that arrived are counted: an announcement costs its sender nothing.
            if !held.grow(data.len()) {
                return Err(Refusal::Overloaded);
            }
            // A body that is whole waits for nobody, and what is announced is not held yet.
            if !body.is_end_stream()
                && !unfinished
                    .iter_mut()
                    .flatten()
                    .all(|held| held.grow(data.len()))
            {
                return Err(Refusal::AddressLimitReached);
            }
            if first.is_empty() && rest.is_empty() {
                first = data;
                continue;
            }
            if rest.is_empty() {
                rest.reserve(announced.clamp(length, length.saturating_mul(4)));
                rest.extend_from_slice(&first);
                first = Bytes::new();
            }
            rest.extend_from_slice(&data);
        }
        let body = match rest.is_empty() {
            // The connection's buffer is larger, and used again once nobody holds any of it.
            true if first.len() <= COPIED_BYTES_MAX => Bytes::copy_from_slice(&first),
            true => first,
            false => rest.freeze(),
        };
        Ok((body, held))
    }

    /// Stores every update of a verified body.
    async fn store(
        &self,
        table: &RoutingTable,
        app: &AppRoute,
        body: &Bytes,
        signature: &[u8],
    ) -> Result<(), Refusal> {
        let arrival = Arrival::of(signature);
        let stamp = Stamp {
            table,
            app,
            partitions: self.partitions,
            arrival: &arrival,
        };
        let memory = Memory {
            acknowledged: &self.acknowledged,
            repeated: &self.metrics.repeated,
        };
        let mut unrouted = Vec::new();
        match split(body) {
            Ok(split) => {
                let taken = InFlight {
                    updates: split.len().min(DELIVERY_WINDOW),
                    bytes: split.stored_bytes(),
                };
                let _held = app
                    .hold(taken, self.tenant_in_flight)
                    .map_err(Refusal::Store)?;
                if table.hides_numbers() && stamp.is_any_unreadable(&split) {
                    return Err(Refusal::Unreadable);
                }
                if table.has_over_share() && stamp.is_all_over_share(&split) {
                    return Err(Refusal::OverShare);
                }
                let updates = Stamped::new(stamp, &split, &mut unrouted).unless_known(memory);
                self.store_some(updates.peekable())
                    .await
                    .map_err(Refusal::Store)?;
                for (class, count) in split.counts().into_iter().filter(|(_, count)| *count > 0) {
                    self.metrics.stored(class, count);
                }
            }
            Err(reason) => {
                tracing::warn!(app = %app.id, bytes = body.len(), %reason, "a signed body is unreadable and stored whole");
                let _held = app
                    .hold(
                        InFlight {
                            updates: 1,
                            bytes: body.len(),
                        },
                        self.tenant_in_flight,
                    )
                    .map_err(Refusal::Store)?;
                let (update, why) = stamp.unreadable(body);
                if table.is_over_share(update.head.tenant.as_str()) {
                    return Err(Refusal::OverShare);
                }
                unrouted.extend(why.map(|_| "unreadable"));
                let known = memory.knows(update.head.tenant.as_str(), update.head.id.as_str());
                let update = Some(update).filter(|_| !known).into_iter().peekable();
                self.store_some(update).await.map_err(Refusal::Store)?;
                self.metrics.stored(Class::Account, 1);
            }
        }
        unrouted
            .into_iter()
            .for_each(|reason| self.metrics.unrouted(reason));
        Ok(())
    }

    /// Stores updates, if there are any: what is known already waits for nothing.
    async fn store_some<I>(&self, mut updates: Peekable<I>) -> Result<(), StoreError>
    where
        I: Iterator<Item = Update> + Send,
    {
        if updates.peek().is_none() {
            return Ok(());
        }
        let storing = self.admission.begin(Instant::now());
        self.log.store(updates).await?;
        storing.stored(Instant::now());
        Ok(())
    }
}

/// A signature as claimed, out of the head it came in.
struct Claimed {
    bytes: [u8; SIGNATURE_BYTES_MAX],
    length: usize,
}

impl Claimed {
    /// A signature is short; what is longer is none, and says so when it is verified.
    fn copy(claimed: &[u8]) -> Self {
        let mut bytes = [0; SIGNATURE_BYTES_MAX];
        bytes
            .iter_mut()
            .zip(claimed)
            .for_each(|(byte, claimed)| *byte = *claimed);
        Self {
            bytes,
            length: claimed.len().min(SIGNATURE_BYTES_MAX),
        }
    }

    fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.length).unwrap_or_default()
    }
}

/// Answers Meta's check of the callback URL.
fn handshake(secrets: &AppSecrets, query: &str) -> Result<Response<Full<Bytes>>, Refusal> {
    let (mut subscribes, mut token, mut challenge) = (false, None, None);
    for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
        match &*name {
            "hub.mode" => subscribes = value == "subscribe",
            "hub.verify_token" => token = Some(value),
            "hub.challenge" => challenge = Some(value),
            _ => {}
        }
    }
    let expected = secrets.verify_token.expose();
    let matches =
        token.is_some_and(|token| bool::from(token.as_bytes().ct_eq(expected.as_bytes())));
    let challenge = challenge.filter(|challenge| challenge.len() <= CHALLENGE_BYTES_MAX);
    match challenge {
        Some(challenge) if subscribes && matches && !expected.is_empty() => {
            let mut response = Response::new(Full::new(Bytes::from(challenge.into_owned())));
            response
                .headers_mut()
                .insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
            response.headers_mut().insert(
                "x-content-type-options",
                HeaderValue::from_static("nosniff"),
            );
            Ok(response)
        }
        _ => Err(Refusal::Handshake),
    }
}
