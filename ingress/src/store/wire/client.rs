//! The connection on which the edge asks NATS and listens to it: requests with a deadline, and subscriptions.
//!
//! It is another one than those updates are published on, and never delays them. Few wait on it at once, each for a
//! bounded number of messages: whoever does not keep up loses some, and must notice by their numbers. When the
//! connection goes away, everybody who waits hears it at once.

use super::connection::{self, Endpoint, Receive};
use super::dial::{ANSWERS, Dialer, Info};
pub use super::headers::Headers;
use super::output::{Output, Publication};
use super::protocol::Message;
use super::status::ConnectionStatus;
use ackline_shared::nats::api::{Ask, Question, Unanswered};
use ackline_shared::nats::{NatsError, NatsSettings};
use bytes::Bytes;
use std::collections::HashMap;
use std::fmt::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout_at};

/// Longest wait for an answer, and for a connection to ask on.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// Most requests and subscriptions at once.
pub const SUBSCRIPTIONS_MAX: usize = 64;
/// Most bytes that wait to be written.
const UNWRITTEN_BYTES_MAX: usize = 1 << 20;
/// The status by which the server says that nothing listens.
const NO_RESPONDERS: u16 = 503;

/// A connection to ask and to listen on.
#[derive(Debug)]
pub struct Client {
    state: Mutex<State>,
    /// The subject of all answers, up to their last token.
    inbox: String,
    status: watch::Sender<ConnectionStatus>,
}

/// What those who ask and the connection share.
#[derive(Debug, Default)]
pub struct State {
    output: Output,
    /// Who waits for messages, by the number that answers or the subscription have.
    subscriptions: HashMap<u64, mpsc::Sender<Received>>,
    last: u64,
    server_id: String,
    max_payload: usize,
    is_up: bool,
    /// The connection's task, while it has nothing to write.
    writer: Option<Waker>,
}

/// A message that somebody waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub subject: String,
    /// Where an answer would go; empty when none is wanted.
    pub reply: String,
    pub payload: Bytes,
    headers: Vec<u8>,
}

/// Hears the messages of one request or subscription, until it is dropped.
#[derive(Debug)]
pub struct Subscription<'c> {
    client: &'c Client,
    number: u64,
    subject: String,
    messages: mpsc::Receiver<Received>,
}

impl Client {
    /// A client, and its connection, which is kept for as long as that is polled.
    pub async fn new(
        settings: &NatsSettings,
        name: &'static str,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>), NatsError> {
        let dialer = Dialer::new(settings, name).await?;
        let client = Arc::new(Self {
            // Number 1 is the subscription that brings answers.
            state: Mutex::new(State {
                last: 1,
                ..State::default()
            }),
            inbox: format!("_INBOX.{:032x}.", rand::random::<u128>()),
            status: watch::channel(ConnectionStatus::New).0,
        });
        Ok((client.clone(), connection::run(client, dialer)))
    }

    /// Which server it is, or was, connected to.
    pub fn server_id(&self) -> String {
        self.lock().server_id.clone()
    }

    /// Waits for as long as NATS is away.
    pub async fn connected(&self) {
        let mut status = self.status.subscribe();
        // The sender is ours.
        let _up = status
            .wait_for(|status| *status == ConnectionStatus::Up)
            .await;
    }

    /// Sends a request and waits for its first answer.
    pub async fn request(&self, question: &Question) -> Result<Received, Unanswered> {
        let deadline = Instant::now() + REQUEST_TIMEOUT;
        timeout_at(deadline, self.connected())
            .await
            .map_err(|_| Unanswered::Away)?;
        let mut subscription = self.listen(1, |inbox, number| format!("{inbox}{number}"))?;
        self.publish(question, &subscription.subject)?;
        match timeout_at(deadline, subscription.next()).await {
            Ok(Some(message)) if message.headers().status() == Some(NO_RESPONDERS) => {
                Err(Unanswered::Nobody)
            }
            Ok(Some(message)) => Ok(message),
            Ok(None) => Err(Unanswered::Away),
            Err(_) => Err(Unanswered::Late),
        }
    }

    /// Listens on a subject of its own; at most so many messages wait to be taken.
    pub fn subscribe(&self, waiting_max: usize) -> Result<Subscription<'_>, Unanswered> {
        // Its last token keeps it apart from the answers.
        let subscription =
            self.listen(waiting_max, |inbox, number| format!("{inbox}{number}.all"))?;
        self.say(&format!(
            "SUB {} {}\r\n",
            subscription.subject, subscription.number
        ))?;
        Ok(subscription)
    }

    /// Publishes nothing on a subject, as the server wants it of those who keep up.
    pub fn acknowledge(&self, subject: &str) -> Result<(), Unanswered> {
        self.say(&format!("PUB {subject} 0\r\n\r\n"))
    }

    fn listen(
        &self,
        waiting_max: usize,
        subject: impl FnOnce(&str, u64) -> String,
    ) -> Result<Subscription<'_>, Unanswered> {
        let (sender, messages) = mpsc::channel(waiting_max);
        let mut state = self.lock();
        if !state.is_up {
            return Err(Unanswered::Away);
        }
        if state.subscriptions.len() >= SUBSCRIPTIONS_MAX {
            return Err(Unanswered::Unsent(
                "too many requests wait for answers".to_owned(),
            ));
        }
        state.last += 1;
        let number = state.last;
        state.subscriptions.insert(number, sender);
        drop(state);
        Ok(Subscription {
            client: self,
            number,
            subject: subject(&self.inbox, number),
            messages,
        })
    }

    fn publish(&self, question: &Question, reply: &str) -> Result<(), Unanswered> {
        let mut headers = "NATS/1.0\r\n".to_owned();
        for (name, value) in &question.headers {
            let _infallible = write!(headers, "{name}: {value}\r\n");
        }
        headers.push_str("\r\n");
        let payload = Bytes::copy_from_slice(&question.payload);
        let publication = Publication {
            subject: question.subject.as_bytes(),
            reply: reply.as_bytes(),
            headers: headers.as_bytes(),
            more: b"",
            payload: &payload,
        };
        self.write(publication.size(), |output| output.publish(&publication))
    }

    /// The longest message the server takes, headers included; 0 while it was never connected.
    pub fn message_bytes_max(&self) -> usize {
        self.lock().max_payload
    }

    fn say(&self, line: &str) -> Result<(), Unanswered> {
        self.write(0, |output| output.write(line.as_bytes()))
    }

    fn write(
        &self,
        payload_bytes: usize,
        write: impl FnOnce(&mut Output),
    ) -> Result<(), Unanswered> {
        let mut state = self.lock();
        if !state.is_up {
            return Err(Unanswered::Away);
        }
        if payload_bytes > state.max_payload {
            return Err(Unanswered::Unsent(
                "it is larger than the server takes".to_owned(),
            ));
        }
        if state.output.left() >= UNWRITTEN_BYTES_MAX {
            return Err(Unanswered::Unsent("too much waits to be sent".to_owned()));
        }
        write(&mut state.output);
        if let Some(writer) = state.writer.take() {
            writer.wake();
        }
        Ok(())
    }
}

impl Ask for Client {
    async fn ask(&self, question: Question) -> Result<Bytes, Unanswered> {
        self.request(&question).await.map(|message| message.payload)
    }
}

impl Received {
    pub fn new(subject: &str, reply: &str, headers: &[u8], payload: &[u8]) -> Self {
        Self {
            subject: subject.to_owned(),
            reply: reply.to_owned(),
            payload: Bytes::copy_from_slice(payload),
            headers: headers.to_vec(),
        }
    }

    pub fn headers(&self) -> Headers<'_> {
        Headers(&self.headers)
    }
}

impl Subscription<'_> {
    /// The subject that it listens on.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// Waits for the next message; `None` when the connection went away.
    pub async fn next(&mut self) -> Option<Received> {
        self.messages.recv().await
    }
}

impl Drop for Subscription<'_> {
    fn drop(&mut self) {
        // What was received on the connection before is not there any more.
        if self
            .client
            .lock()
            .subscriptions
            .remove(&self.number)
            .is_some()
        {
            let _away = self.client.say(&format!("UNSUB {}\r\n", self.number));
        }
    }
}

impl Endpoint for Client {
    type State = State;

    fn inbox(&self) -> &[u8] {
        self.inbox.as_bytes()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_output(&self, output: &mut Output, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.lock();
        if state.output.is_empty() {
            state.writer = Some(context.waker().clone());
            return Poll::Pending;
        }
        std::mem::swap(&mut state.output, output);
        Poll::Ready(())
    }

    fn up(&self, info: &Info) {
        {
            let mut state = self.lock();
            state.is_up = true;
            state.server_id.clone_from(&info.server_id);
            state.output.clear();
        }
        tracing::info!("connected to NATS for the configuration");
        self.status.send_replace(ConnectionStatus::Up);
    }

    fn down(&self) {
        {
            let mut state = self.lock();
            (state.is_up, state.writer) = (false, None);
            state.output.clear();
            state.subscriptions.clear();
        }
        tracing::warn!("NATS is away; the configuration stays as it is until it is back");
        self.status
            .send_replace(ConnectionStatus::Down(Instant::now()));
    }
}

impl Receive for State {
    fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    fn receive(&mut self, inbox: &[u8], message: &Message<'_>, _: &mut Vec<Waker>) {
        let number = match message.subscription {
            answers if answers == ANSWERS.as_bytes() => message.subject.strip_prefix(inbox),
            subscription => Some(subscription),
        };
        let number = number.and_then(|number| std::str::from_utf8(number).ok()?.parse().ok());
        // Nobody waits any more, or does not keep up.
        let Some(Ok(place)) = number
            .and_then(|number: u64| self.subscriptions.get(&number))
            .map(mpsc::Sender::try_reserve)
        else {
            return;
        };
        let text = String::from_utf8_lossy;
        place.send(Received::new(
            &text(message.subject),
            &text(message.reply),
            message.headers,
            message.payload,
        ));
    }

    fn set_max_payload(&mut self, max_payload: usize) {
        self.max_payload = max_payload;
    }
}
