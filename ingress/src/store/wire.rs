//! The edge's own connections to NATS: here the one that updates are published on, and in [`client`] the one that
//! asks and listens. The publishing path needs little of NATS and that fast.
//!
//! Whoever publishes writes into one buffer and waits for a slot of one table; the connection's task writes
//! the buffer in one system call a turn of the event loop, and reads answers straight into the table. No
//! channel and no allocation lies between. When the connection goes away, everybody who waits hears it at
//! once and what was not written is dropped: an update is published again by whoever still answers for it.
//!
//! It knows nothing of streams, keys or consumers.

pub mod client;
mod connection;
mod dial;
mod group;
mod headers;
mod login;
mod output;
mod protocol;
mod receipt;
mod servers;
pub mod slots;
pub mod status;

use crate::metrics::Metrics;
use ackline_shared::envelope::Head;
use ackline_shared::nats::{NatsError, NatsSettings};
use bytes::Bytes;
use connection::{Endpoint, Receive};
use dial::{Dialer, Info};
use group::{Group, HEADERS_BYTES_MAX, Line, Member};
use output::{Output, Publication};
use protocol::Message;
use slots::{Outcome, PublishMode, Slots, Token};
use status::ConnectionStatus;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::{Instant, sleep, timeout_at};

/// Most bytes that wait to be written; beyond it nothing more is taken.
const UNWRITTEN_BYTES_MAX: usize = 8 << 20;
/// What servers show of the connection.
const NAME: &str = "ackline-ingress";
/// Attempts are looked through so many times while one lasts.
const SWEEPS: u32 = 24;
const SWEEP_MIN: Duration = Duration::from_millis(5);

/// A connection to publish on.
#[derive(Debug)]
pub struct Wire {
    state: Mutex<State>,
    /// The subject of all answers, up to their last token.
    inbox: Vec<u8>,
    status: watch::Sender<ConnectionStatus>,
    /// How often NATS was found again.
    returns: watch::Sender<u64>,
    /// Tells that slots or room for bytes became free.
    room: Notify,
    /// Tells that something is on its way.
    busy: Notify,
    in_flight_max: usize,
    attempt_timeout: Duration,
    tasks: OnceLock<[AbortHandle; 2]>,
}

/// What publishers and the connection share.
#[derive(Debug)]
pub struct State {
    slots: Slots,
    output: Output,
    group: Option<Group>,
    /// Where subject and headers are written before their length is known.
    text: Vec<u8>,
    reply: Vec<u8>,
    max_payload: usize,
    is_up: bool,
    /// The connection's task, while it has nothing to write.
    writer: Option<Waker>,
    is_wanted: bool,
}

/// Why an update was not put on its way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unsent {
    /// Too many bytes wait to be written.
    Full,
    /// It is larger than the server takes.
    TooLarge(String),
}

impl Wire {
    /// Connects in the background, and for good; with `grouped`, first attempts may be committed in groups.
    pub async fn start(
        settings: &NatsSettings,
        in_flight_max: usize,
        attempt_timeout: Duration,
        grouped: Option<&Arc<Metrics>>,
    ) -> Result<Arc<Self>, NatsError> {
        let dialer = Dialer::new(settings, NAME).await?;
        let group =
            |metrics: &Arc<Metrics>| Group::new(rand::random(), attempt_timeout, metrics.clone());
        let state = State {
            slots: Slots::new(in_flight_max),
            output: Output::default(),
            group: grouped.map(group),
            text: Vec::new(),
            reply: Vec::new(),
            max_payload: 0,
            is_up: false,
            writer: None,
            is_wanted: false,
        };
        let wire = Arc::new(Self {
            state: Mutex::new(state),
            inbox: format!("_INBOX.{:032x}.", rand::random::<u128>()).into_bytes(),
            status: watch::channel(ConnectionStatus::New).0,
            returns: watch::channel(0).0,
            room: Notify::new(),
            busy: Notify::new(),
            in_flight_max,
            attempt_timeout,
            tasks: OnceLock::new(),
        });
        let tasks = [
            tokio::spawn(connection::run(wire.clone(), dialer)),
            tokio::spawn(sweep(wire.clone())),
        ];
        wire.tasks
            .get_or_init(|| tasks.map(|task| task.abort_handle()));
        Ok(wire)
    }

    pub fn close(&self) {
        self.tasks
            .get()
            .into_iter()
            .flatten()
            .for_each(AbortHandle::abort);
    }

    /// Whether NATS is reachable now.
    pub fn status(&self) -> ConnectionStatus {
        *self.status.borrow()
    }

    /// Waits until NATS is reachable; tells whether it is.
    pub async fn connected(&self, deadline: Instant) -> bool {
        let mut status = self.status.subscribe();
        matches!(
            timeout_at(
                deadline,
                status.wait_for(|status| *status == ConnectionStatus::Up)
            )
            .await,
            Ok(Ok(_))
        )
    }

    /// Counts how often NATS was found again, the first time left out.
    pub fn returns(&self) -> watch::Receiver<u64> {
        self.returns.subscribe()
    }

    /// Most updates in flight at once.
    pub fn in_flight_max(&self) -> usize {
        self.in_flight_max
    }

    pub fn in_flight(&self) -> usize {
        self.lock().slots.used()
    }

    /// Takes a slot for each place, or none at all.
    pub fn claim<'t>(&self, places: impl ExactSizeIterator<Item = &'t mut Option<Token>>) -> bool {
        let mut state = self.lock();
        if state.slots.free() < places.len() {
            return false;
        }
        if state.slots.used() == 0 {
            self.busy.notify_one();
        }
        places.for_each(|place| *place = state.slots.claim());
        true
    }

    /// Frees slots, whatever is still on its way for them.
    pub fn release(&self, tokens: impl Iterator<Item = Token>) {
        let mut state = self.lock();
        for token in tokens {
            if state.slots.release(token) {
                state.left();
            }
        }
        state.wake_writer();
        state.give_room(&self.room);
    }

    /// Begins to write; what is written until its end leaves together.
    pub fn write(&self) -> Writing<'_> {
        Writing {
            wire: self,
            state: self.lock(),
        }
    }

    /// Waits until there is room for `slots` and for bytes; `false` at the deadline.
    pub async fn has_room(&self, slots: usize, deadline: Instant) -> bool {
        loop {
            let mut room = std::pin::pin!(self.room.notified());
            room.as_mut().enable();
            {
                let mut state = self.lock();
                if state.slots.free() >= slots && state.output.left() < UNWRITTEN_BYTES_MAX {
                    return true;
                }
                state.is_wanted = true;
            }
            if timeout_at(deadline, room).await.is_err() {
                return false;
            }
        }
    }

    /// Takes the outcome of an attempt, if there is one.
    pub fn outcome(&self, token: Token) -> Option<Outcome> {
        self.lock().slots.take(token)
    }

    /// Waits for the outcome of the attempt; `None` when it takes until `attempt_end`, or a little longer.
    pub async fn wait(&self, token: Token, attempt_end: Instant) -> Option<Outcome> {
        std::future::poll_fn(|context| self.lock().slots.poll(token, attempt_end, context)).await
    }

    fn sweep(&self, now: Instant) {
        let mut wakers = Vec::new();
        {
            let mut state = self.lock();
            let state = &mut *state;
            state.slots.sweep(now, &mut wakers);
            if let Some(group) = &mut state.group {
                group.sweep(now);
            }
            state.wake_writer();
        }
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl Endpoint for Wire {
    type State = State;

    fn inbox(&self) -> &[u8] {
        &self.inbox
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_output(&self, output: &mut Output, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        let state = &mut *state;
        if let Some(group) = &mut state.group {
            let line = Line {
                output: &mut state.output,
                slots: &mut state.slots,
                inbox: &self.inbox,
            };
            group.advance(line, Instant::now());
        }
        if state.output.is_empty() {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut state.output, output);
        state.give_room(&self.room);
        Poll::Ready(())
    }

    fn up(&self, _: &Info) {
        {
            let mut state = self.lock();
            state.is_up = true;
            state.output.clear();
        }
        tracing::info!("connected to NATS");
        if self.status.send_replace(ConnectionStatus::Up) != ConnectionStatus::New {
            self.returns.send_modify(|returns| *returns += 1);
        }
    }

    fn down(&self) {
        let mut wakers = Vec::new();
        {
            let mut state = self.lock();
            (state.is_up, state.writer) = (false, None);
            state.output.clear();
            if let Some(group) = &mut state.group {
                group.clear();
            }
            state.slots.lose_all(&mut wakers);
            state.give_room(&self.room);
        }
        tracing::warn!("NATS is away; deliveries get 503 until it is back");
        self.status
            .send_replace(ConnectionStatus::Down(Instant::now()));
        wakers.into_iter().for_each(Waker::wake);
    }
}

/// Puts updates on their way; its end tells the connection.
#[derive(Debug)]
pub struct Writing<'w> {
    wire: &'w Wire,
    state: MutexGuard<'w, State>,
}

impl Writing<'_> {
    /// Puts an update on its way: with the group, if it is `grouped` and there is one.
    pub fn publish(
        &mut self,
        token: Token,
        head: &Head,
        payload: &Bytes,
        grouped: bool,
    ) -> Result<(), Unsent> {
        let (state, inbox) = (&mut *self.state, &self.wire.inbox);
        if !state.is_up {
            // As if it had been on its way when the connection broke.
            state.slots.lose(token);
            return Ok(());
        }
        if state.output.left() >= UNWRITTEN_BYTES_MAX {
            return Err(Unsent::Full);
        }
        let mut text = std::mem::take(&mut state.text);
        text.clear();
        head.write_subject(&mut text);
        let headers_at = text.len();
        head.write_headers(&mut text);
        let group = state.group.as_mut().filter(|_| grouped);
        let added = if group.is_some() {
            HEADERS_BYTES_MAX
        } else {
            0
        };
        let size = text.len() - headers_at + payload.len() + added;
        if size > state.max_payload {
            state.text = text;
            return Err(Unsent::TooLarge(format!(
                "{size} bytes, and it takes {}",
                state.max_payload
            )));
        }
        if let Some(group) = group {
            state.slots.arm(token, PublishMode::Grouped);
            group.join(Member::new(token, text, headers_at, payload.clone()));
            return Ok(());
        }
        let was_single = state.slots.arm(token, PublishMode::Direct);
        let (subject, headers) = text.split_at_checked(headers_at).unwrap_or_default();
        state.reply.clear();
        state.reply.extend_from_slice(inbox);
        token.write(&mut state.reply);
        state.output.publish(&Publication {
            subject,
            reply: &state.reply,
            headers,
            more: b"",
            payload,
        });
        state.text = text;
        if was_single {
            state.left();
        }
        Ok(())
    }
}

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.state.wake_writer();
    }
}

impl Receive for State {
    fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    /// Gives an answer to whoever waits for it.
    fn receive(&mut self, inbox: &[u8], message: &Message<'_>, wakers: &mut Vec<Waker>) {
        let Message {
            subject,
            headers,
            payload,
            ..
        } = *message;
        let Some(token) = subject.strip_prefix(inbox) else {
            return;
        };
        if let Some(token) = Token::parse(token) {
            if self
                .slots
                .resolve(token, receipt::read(headers, payload), wakers)
            {
                self.left();
            }
        } else if let (Some(number), Some(group)) = (group::parse_commit(token), &mut self.group) {
            group.answered(
                number,
                receipt::read(headers, payload),
                &mut self.slots,
                wakers,
            );
        }
    }

    fn set_max_payload(&mut self, max_payload: usize) {
        self.max_payload = max_payload;
    }
}

impl State {
    fn left(&mut self) {
        if let Some(group) = &mut self.group {
            group.left();
        }
    }

    fn wake_writer(&mut self) {
        if (!self.output.is_empty() || self.group.as_ref().is_some_and(Group::is_due))
            && let Some(writer) = self.writer.take()
        {
            writer.wake();
        }
    }

    fn give_room(&mut self, room: &Notify) {
        if std::mem::take(&mut self.is_wanted) {
            room.notify_waiters();
        }
    }
}

/// Ends attempts that take too long: one timer for all of them, and none while nothing is on its way.
async fn sweep(wire: Arc<Wire>) {
    loop {
        if wire.in_flight() == 0 {
            wire.busy.notified().await;
        }
        sleep((wire.attempt_timeout / SWEEPS).max(SWEEP_MIN)).await;
        wire.sweep(Instant::now());
    }
}

#[cfg(test)]
mod tests;
