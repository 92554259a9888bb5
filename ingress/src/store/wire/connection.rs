//! Keeps the connection: opens a session, moves bytes both ways until it ends, and opens the next.

use super::dial::{Dialer, Info, Session};
use super::output::Output;
use super::protocol::{self, MESSAGE_BYTES_MAX, Message, Operation, ProtocolError};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, MutexGuard};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// What a server takes that does not say.
const MAX_PAYLOAD: usize = 1 << 20;
const PING_INTERVAL: Duration = Duration::from_secs(5);
/// Pings that may stay unanswered.
const PINGS_MAX: u32 = 2;
const RECEIVE_BYTES: usize = 16 << 10;
/// Longest the buffer of received bytes grows: a line, or a message with its line.
const RECEIVE_BYTES_MAX: usize = MESSAGE_BYTES_MAX + (64 << 10) + 4096;
/// Reads in one turn; others want theirs too.
const READS: usize = 8;
const SLICES: usize = 32;

/// What a connection is kept for: it says what is to be written, and takes what comes.
pub trait Endpoint: Send + Sync {
    /// What is looked at and changed while bytes are read.
    type State: Receive;

    /// The subject of answers, up to their last token.
    fn inbox(&self) -> &[u8];
    fn lock(&self) -> MutexGuard<'_, Self::State>;
    /// Takes what is to be written; otherwise remembers who writes.
    fn take_output(&self, output: &mut Output, context: &mut Context<'_>) -> Poll<()>;
    /// A session begins, with a server that says this of itself.
    fn up(&self, info: &Info);
    fn down(&self);
}

/// Takes what a server says within a session.
pub trait Receive {
    /// Where answers of the connection's own are written.
    fn output(&mut self) -> &mut Output;
    /// A message came; whoever is to be woken by it is added.
    fn receive(&mut self, inbox: &[u8], message: &Message<'_>, wakers: &mut Vec<Waker>);
    /// The server takes messages of this size from now on.
    fn set_max_payload(&mut self, max_payload: usize);
}

#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    #[error("the server closed the connection")]
    Closed,
    #[error("the server does not answer pings")]
    Silent,
}

/// Keeps an endpoint connected, for good.
pub async fn run<E: Endpoint>(endpoint: Arc<E>, mut dialer: Dialer) {
    loop {
        let session = dialer.dial(endpoint.inbox()).await;
        endpoint
            .lock()
            .set_max_payload(session.info.max_payload.unwrap_or(MAX_PAYLOAD));
        endpoint.up(&session.info);
        let mut session = SessionLoop::new(&*endpoint, &mut dialer, session);
        // The server may have said more than its welcome.
        let error = match session.read() {
            Ok(()) => std::future::poll_fn(|context| session.poll(context)).await,
            Err(error) => error,
        };
        tracing::debug!(%error, "a session with NATS ended");
        drop(session);
        endpoint.down();
    }
}

/// The input and output of one session.
struct SessionLoop<'e, E> {
    endpoint: &'e E,
    dialer: &'e mut Dialer,
    session: Session,
    /// Received bytes from `start` to `end` are not read yet.
    buffer: Vec<u8>,
    start: usize,
    end: usize,
    output: Output,
    ping: Interval,
    pings: u32,
    is_active: bool,
    wakers: Vec<Waker>,
}

impl<'e, E: Endpoint> SessionLoop<'e, E> {
    fn new(endpoint: &'e E, dialer: &'e mut Dialer, mut session: Session) -> Self {
        let mut ping = interval(PING_INTERVAL);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut buffer = std::mem::take(&mut session.received);
        let end = buffer.len();
        buffer.resize(end.max(RECEIVE_BYTES), 0);
        let (output, wakers) = (Output::default(), Vec::new());
        Self {
            endpoint,
            dialer,
            session,
            buffer,
            start: 0,
            end,
            output,
            ping,
            pings: 0,
            is_active: true,
            wakers,
        }
    }

    /// Does what can be done now; ready when the session is over.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<SessionError> {
        match self.work(context) {
            Ok(()) => Poll::Pending,
            Err(error) => Poll::Ready(error),
        }
    }

    fn work(&mut self, context: &mut Context<'_>) -> Result<(), SessionError> {
        let mut reads = 0;
        while let Poll::Ready(count) = self.receive(context) {
            self.end += count?;
            self.is_active = true;
            self.read()?;
            reads += 1;
            if reads == READS {
                context.waker().wake_by_ref();
                break;
            }
        }
        while self.ping.poll_tick(context).is_ready() {
            self.check()?;
        }
        loop {
            if self.output.is_empty()
                && self
                    .endpoint
                    .take_output(&mut self.output, context)
                    .is_pending()
            {
                return Ok(());
            }
            match self.send(context) {
                Poll::Ready(count) => self.output.advance(count?),
                Poll::Pending => return Ok(()),
            }
        }
    }

    fn receive(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, SessionError>> {
        let mut buffer = ReadBuf::new(self.buffer.get_mut(self.end..).unwrap_or_default());
        ready!(Pin::new(&mut self.session.io).poll_read(context, &mut buffer))?;
        match buffer.filled().len() {
            0 => Poll::Ready(Err(SessionError::Closed)),
            count => Poll::Ready(Ok(count)),
        }
    }

    fn send(&mut self, context: &mut Context<'_>) -> Poll<Result<usize, SessionError>> {
        let mut slices = [IoSlice::new(&[]); SLICES];
        let used = self.output.slices(&mut slices);
        let slices = slices.get(..used).unwrap_or_default();
        match ready!(Pin::new(&mut self.session.io).poll_write_vectored(context, slices))? {
            0 => Poll::Ready(Err(SessionError::Closed)),
            count => {
                // Nothing waits in TLS for more to come; for a socket this costs nothing.
                let _flushing = Pin::new(&mut self.session.io).poll_flush(context)?;
                Poll::Ready(Ok(count))
            }
        }
    }

    /// Reads every operation that is whole.
    fn read(&mut self) -> Result<(), SessionError> {
        let mut info = None;
        {
            let mut state = self.endpoint.lock();
            loop {
                let received = self.buffer.get(self.start..self.end).unwrap_or_default();
                let Some((operation, taken)) = protocol::read(received)? else {
                    break;
                };
                match operation {
                    Operation::Message(message) => {
                        state.receive(self.endpoint.inbox(), &message, &mut self.wakers);
                    }
                    Operation::Ping => state.output().write(b"PONG\r\n"),
                    Operation::Pong => self.pings = 0,
                    Operation::Ok => {}
                    Operation::Error(words) => {
                        tracing::warn!(error = %String::from_utf8_lossy(words), "NATS reports an error");
                    }
                    Operation::Info(json) => info = serde_json::from_slice::<Info>(json).ok(),
                }
                self.start += taken;
            }
            if let Some(max_payload) = info.as_ref().and_then(|info: &Info| info.max_payload) {
                state.set_max_payload(max_payload);
            }
        }
        self.wakers.drain(..).for_each(Waker::wake);
        if let Some(info) = info {
            if info.ldm {
                tracing::info!("the NATS server is about to end");
            }
            self.dialer.learn(&info);
        }
        self.make_room();
        Ok(())
    }

    fn make_room(&mut self) {
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
        if self.end < self.buffer.len() {
            return;
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start.., 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else {
            // The protocol bounds what is not whole yet; a full buffer would read as the end.
            self.buffer
                .resize((self.buffer.len() * 2).min(RECEIVE_BYTES_MAX), 0);
        }
    }

    /// Asks a server that was silent for a while whether it is still there.
    fn check(&mut self) -> Result<(), SessionError> {
        if std::mem::take(&mut self.is_active) {
            self.pings = 0;
        } else if self.pings >= PINGS_MAX {
            return Err(SessionError::Silent);
        } else {
            self.pings += 1;
            self.endpoint.lock().output().write(b"PING\r\n");
        }
        Ok(())
    }
}
