//! What must hold for every connection, whatever its bytes: they go through the real server and handler over
//! an in-memory pipe into a log in memory. Checked by tests and a fuzz target.
//!
//! Nobody guesses a signature, so `sha256=?` in the input becomes the signature of the body behind it. Time is
//! tokio's and paused: every wait of the server ends at once when nothing else can happen.

use crate::fixture;
use crate::invariants::as_expected;
use crate::reference;
use ackline_ingress::http::acceptor::{AcceptSettings, Acceptor};
use ackline_ingress::http::bounds::Bounds;
use ackline_ingress::http::caller::Caller;
use ackline_ingress::http::server::Server;
use ackline_ingress::metrics::Metrics;
use ackline_ingress::routing::Routing;
use ackline_ingress::store::{StoreError, Update, UpdateLog};
use ackline_shared::signature::SigningKey;
use hyper::Request;
use hyper::body::Incoming;
use ipnet::Ipv4Net;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::watch;

const SIGN_HERE: &[u8] = b"sha256=?";
const HEAD_END: &[u8] = b"\r\n\r\n";
const PIPE_BYTES: usize = 64 << 10;

static ROUTING: LazyLock<Arc<Routing>> = LazyLock::new(|| {
    let routing = Routing::new();
    routing.replace(fixture::table());
    routing
});

/// What became of a connection's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    pub acknowledged: usize,
    pub stored: usize,
    pub answers: usize,
}

/// Plays an input as a connection; tells what of it does not hold.
///
/// The first byte says how many bytes are written at a time, the second which calls of the log fail.
pub fn check(input: &[u8]) -> Result<Outcome, String> {
    let [step, failing, bytes @ ..] = input else {
        return Ok(Outcome {
            acknowledged: 0,
            stored: 0,
            answers: 0,
        });
    };
    let (bytes, signed) = sign(bytes);
    let step = if *step == 0 {
        bytes.len().max(1)
    } else {
        usize::from(*step) * 7
    };
    let log = Arc::new(Recorder {
        failing: *failing,
        calls: Mutex::default(),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    let answers = runtime.block_on(play(&bytes, step, log.clone()));
    let calls = log.calls();
    let stored: Vec<_> = calls.iter().filter(|call| call.succeeds).collect();
    for call in &stored {
        justify(&call.updates, &signed)?;
    }
    let (acknowledged, answers) = read_answers(&answers)?;
    if acknowledged > stored.len() {
        return Err(format!(
            "{acknowledged} POSTs were answered 200 and {} deliveries stored",
            stored.len()
        ));
    }
    Ok(Outcome {
        acknowledged,
        stored: stored.len(),
        answers,
    })
}

/// A delivery may be stored only whole, and only when a body with exactly these updates was signed.
fn justify(updates: &[Update], signed: &[Vec<u8>]) -> Result<(), String> {
    let app = updates
        .first()
        .and_then(|update| update.head.app.as_ref())
        .ok_or("an update has no app")?;
    let stored: Vec<_> = updates.iter().map(as_expected).collect::<Result<_, _>>()?;
    if signed
        .iter()
        .any(|body| reference::updates(body, app.as_str()) == stored)
    {
        return Ok(());
    }
    Err(format!(
        "{} updates were stored that no signed body has",
        stored.len()
    ))
}

/// Puts signatures in, and gives the bodies that have one.
fn sign(mut bytes: &[u8]) -> (Vec<u8>, Vec<Vec<u8>>) {
    let key = SigningKey::from_bytes(fixture::SECRET.as_bytes());
    let (mut out, mut signed) = (Vec::with_capacity(bytes.len()), Vec::new());
    while let Some(at) = find(bytes, SIGN_HERE) {
        let (before, rest) = bytes.split_at(at);
        out.extend_from_slice(before);
        bytes = rest.get(SIGN_HERE.len()..).unwrap_or_default();
        let head_end = find(bytes, HEAD_END).unwrap_or(bytes.len());
        let body = bytes.get(head_end + HEAD_END.len()..).unwrap_or_default();
        // The head began behind the last one that ended before the signature.
        let start = out
            .windows(HEAD_END.len())
            .rposition(|end| end == HEAD_END)
            .unwrap_or_default();
        let head = [
            out.get(start..).unwrap_or_default(),
            bytes.get(..head_end).unwrap_or_default(),
        ]
        .concat();
        let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
        let body = if head.contains("transfer-encoding") {
            whole_chunks(body)
        } else {
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            body.get(..length.unwrap_or(body.len()).min(body.len()))
                .unwrap_or_default()
                .to_vec()
        };
        out.extend_from_slice(key.sign(&body).as_bytes());
        signed.push(body);
    }
    out.extend_from_slice(bytes);
    (out, signed)
}

/// The content of chunks, as far as they are chunks.
fn whole_chunks(mut bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some(line) = find(bytes, b"\r\n") {
        let size = std::str::from_utf8(bytes.get(..line).unwrap_or_default()).unwrap_or_default();
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16)
            .unwrap_or(0);
        let chunk = bytes.get(line + 2..).unwrap_or_default();
        if size == 0 || size > chunk.len() {
            break;
        }
        content.extend_from_slice(chunk.get(..size).unwrap_or_default());
        bytes = chunk.get(size + 2..).unwrap_or_default();
    }
    content
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|part| part == wanted)
}

/// Writes the bytes and reads until the server closes the connection.
async fn play(bytes: &[u8], step: usize, log: Arc<Recorder>) -> Vec<u8> {
    let bounds = Bounds {
        connections_max: 1,
        header_bytes_max: 16 << 10,
        header_timeout: Duration::from_secs(10),
        body_bytes_max: 16 << 10,
        body_timeout: Duration::from_secs(15),
        body_bytes_total_max: 64 << 10,
    };
    let metrics = Metrics::new();
    let edge = fixture::edge(log, ROUTING.clone(), bounds, metrics.clone());
    let handler = move |request: Request<Incoming>, caller: Arc<Caller>| {
        let edge = edge.clone();
        async move { edge.answer(request, &caller).await }
    };
    let acceptor = AcceptSettings {
        tls: None,
        proxies: None,
        forwarders: Some(vec![Ipv4Net::from(Ipv4Addr::LOCALHOST).into()]),
        connections_per_address_max: 1,
        body_bytes_per_address_max: 32 << 10,
        body_bytes_total_max: bounds.body_bytes_total_max,
        handshake_timeout: Duration::from_secs(10),
        handshakes_max: 1,
        http2_streams_max: 1,
    };
    let server = Server::accepting(Acceptor::new(acceptor, &metrics), handler, bounds, metrics);
    let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
    let (mut reads, mut writes) = tokio::io::split(ours);
    let stop = watch::channel(false);
    let write = async {
        for part in bytes.chunks(step) {
            // The server may have closed the connection; what it said is still read.
            if writes.write_all(part).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut answers = Vec::new();
    let serve = server.receive(theirs, IpAddr::V4(Ipv4Addr::LOCALHOST), stop.1);
    let ((), (), _end) = tokio::join!(serve, write, reads.read_to_end(&mut answers));
    answers
}

/// Counts the answers: 200s to POSTs, which have no content type, and all.
fn read_answers(mut bytes: &[u8]) -> Result<(usize, usize), String> {
    let (mut acknowledged, mut answers) = (0, 0);
    while !bytes.is_empty() {
        let head_end = find(bytes, HEAD_END).ok_or("an answer has no end")?;
        let (head, rest) = bytes.split_at(head_end + HEAD_END.len());
        let head = std::str::from_utf8(head)
            .map_err(|_| "an answer is not text")?
            .to_ascii_lowercase();
        let status = head
            .strip_prefix("http/1.1 ")
            .or_else(|| head.strip_prefix("http/1.0 "));
        let status = status.ok_or_else(|| format!("not an answer: {head}"))?;
        if status.starts_with("100 ") {
            bytes = rest;
            continue;
        }
        let length = head
            .lines()
            .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        answers += 1;
        acknowledged +=
            usize::from(status.starts_with("200 ") && !head.contains("\ncontent-type:"));
        bytes = rest
            .get(length.unwrap_or(0)..)
            .ok_or("an answer is shorter than it says")?;
    }
    Ok((acknowledged, answers))
}

/// A log that keeps every call, and refuses those whose bit is set.
#[derive(Debug)]
struct Recorder {
    failing: u8,
    calls: Mutex<Vec<Call>>,
}

#[derive(Debug, Clone)]
struct Call {
    updates: Vec<Update>,
    succeeds: bool,
}

impl Recorder {
    fn calls(&self) -> Vec<Call> {
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl UpdateLog for Recorder {
    async fn store<I>(&self, updates: I) -> Result<(), StoreError>
    where
        I: Iterator<Item = Update> + Send,
    {
        let updates = updates.collect();
        tokio::task::yield_now().await;
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let succeeds = self
            .failing
            .rotate_right(u32::try_from(calls.len() % 8).unwrap_or(0))
            & 1
            == 0;
        calls.push(Call { updates, succeeds });
        if succeeds {
            Ok(())
        } else {
            Err(StoreError::Away)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn post(body: &str, signature: &str) -> String {
        format!(
            "POST /webhooks/meta/main HTTP/1.1\r\nhost: a\r\nx-hub-signature-256: {signature}\r\n\
             content-length: {}\r\n\r\n{body}",
            body.len()
        )
    }

    fn played(step: u8, failing: u8, text: &str) -> Outcome {
        check(&[&[step, failing], text.as_bytes()].concat()).unwrap()
    }

    #[test]
    fn signed_deliveries_are_stored_and_others_are_not() {
        let forged = format!("sha256={}", "0".repeat(64));
        let input = [
            post("{}", "sha256=?"),
            post("[]", "sha256=?"),
            post("{}", &forged),
        ]
        .concat();
        for step in [0, 1, 9] {
            assert_eq!(
                played(step, 0, &input),
                Outcome {
                    acknowledged: 2,
                    stored: 2,
                    answers: 3
                }
            );
        }
        assert_eq!(
            played(0, 0b01, &input),
            Outcome {
                acknowledged: 1,
                stored: 1,
                answers: 3
            }
        );
    }

    #[test]
    fn chunks_are_signed_as_their_content() {
        let head = "POST /webhooks/meta/main HTTP/1.1\r\nx-hub-signature-256: sha256=?\r\n\
                    transfer-encoding: chunked\r\n\r\n";
        let input = format!("{head}1\r\n{{\r\n1;x\r\n}}\r\n0\r\n\r\n");
        assert_eq!(
            played(0, 0, &input),
            Outcome {
                acknowledged: 1,
                stored: 1,
                answers: 1
            }
        );
    }

    #[test]
    fn a_delivery_nobody_signed_has_no_excuse() {
        let log = Arc::new(Recorder {
            failing: 0,
            calls: Mutex::default(),
        });
        let bytes = sign(post("{}", "sha256=?").as_bytes()).0;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build();
        runtime
            .unwrap()
            .block_on(play(&bytes, bytes.len(), log.clone()));
        let stored = log.calls().remove(0).updates;
        assert!(justify(&stored, &[b"{}".to_vec()]).is_ok());
        assert!(justify(&stored, &[b"{ }".to_vec()]).is_err());
    }
}
