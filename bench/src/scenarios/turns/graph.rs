//! A Graph API that answers at once and notes which turn a message answers, and when.

use crate::load::people;
use anyhow::{Context, Result};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::sleep;

const BODY_BYTES_MAX: usize = 1 << 20;
const CONNECTIONS_MAX: usize = 4096;
/// Turns noted; a later one is answered all the same.
const TURNS_MAX: usize = 8_000_000;
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// What it says when it is asked for anything but a message of a turn.
const OTHERWISE: &str = r#"{"success":true,"id":"10600000000","display_phone_number":"15550783881","verified_name":"Bench"}"#;

/// Dropping it closes it.
#[derive(Debug)]
pub struct Graph {
    address: SocketAddr,
    answers: Arc<Answers>,
    next: AtomicU32,
    runs: AtomicU32,
    task: AbortHandle,
}

/// What was asked of it so far.
#[derive(Debug)]
pub struct Answers {
    turns: Mutex<Vec<Answer>>,
    gate: Arc<Semaphore>,
}

/// How a turn was answered.
#[derive(Debug, Clone, Copy, Default)]
pub struct Answer {
    /// When the first request for it came.
    pub at: Option<Instant>,
    /// How many came.
    pub times: u32,
}

impl Graph {
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("binding the Graph API")?;
        let address = listener.local_addr()?;
        let answers = Arc::new(Answers {
            turns: Mutex::default(),
            gate: Arc::new(Semaphore::new(0)),
        });
        let task = tokio::spawn(serve(listener, answers.clone())).abort_handle();
        Ok(Self {
            address,
            answers,
            next: AtomicU32::new(0),
            runs: AtomicU32::new(1),
            task,
        })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Gives the first of so many numbers of turns that nobody else has, and the number of this run.
    pub fn reserve(&self, turns: u32) -> (u32, u32) {
        (
            self.next.fetch_add(turns, Ordering::Relaxed),
            self.runs.fetch_add(1, Ordering::Relaxed),
        )
    }

    /// Gets a permit for each turn when it is answered.
    pub fn gate(&self) -> &Arc<Semaphore> {
        &self.answers.gate
    }

    /// How a turn was answered so far.
    pub fn answer(&self, turn: u32) -> Answer {
        let place = usize::try_from(turn).unwrap_or(usize::MAX);
        self.answers.lock().get(place).copied().unwrap_or_default()
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Answers {
    fn note(&self, turn: u32) {
        let now = Instant::now();
        let place = usize::try_from(turn).unwrap_or(usize::MAX);
        if place >= TURNS_MAX {
            return;
        }
        let mut turns = self.lock();
        if turns.len() <= place {
            turns.resize(place + 1, Answer::default());
        }
        if let Some(answer) = turns.get_mut(place) {
            answer.times += 1;
            if answer.at.is_none() {
                answer.at = Some(now);
                self.gate.add_permits(1);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Answer>> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn serve(listener: TcpListener, answers: Arc<Answers>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        match listener.accept().await {
            Ok((stream, _)) if connections.len() < CONNECTIONS_MAX => {
                let answers = answers.clone();
                connections.spawn(async move {
                    // Only makes it slower when it fails.
                    let _ = stream.set_nodelay(true);
                    let service = service_fn(move |request| answer(answers.clone(), request));
                    let served =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    if let Err(error) = served.await {
                        tracing::debug!(%error, "a connection ended early");
                    }
                });
            }
            Ok(_) => tracing::warn!("too many connections to the Graph API"),
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn answer(
    answers: Arc<Answers>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let is_message = request.uri().path().ends_with("/messages");
    let body = Limited::new(request.into_body(), BODY_BYTES_MAX)
        .collect()
        .await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let turn = people::turn_in(&body).filter(|_| is_message);
    let said = match turn {
        Some(turn) => {
            answers.note(turn);
            Bytes::from(format!(
                r#"{{"messaging_product":"whatsapp","contacts":[],"messages":[{{"id":"wamid.ANSWER{turn:08x}"}}]}}"#
            ))
        }
        None => Bytes::from_static(OTHERWISE.as_bytes()),
    };
    let mut response = Response::new(Full::from(said));
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/json"),
    );
    Ok(response)
}
