//! The attacks, and when each is made: one after the other, then all at once. Each is bounded in its rate.

use super::Phase;
use super::attacker::{Attacker, PATH};
use super::body;
use super::sockets::{hold, leave_unfinished};
use super::stage::{ABUSER, ABUSER_KEY};
use super::tally::Tally;
use ackline_shared::subjects::header;
use anyhow::{Context, Result};
use futures_util::future::{join, join_all};
use reqwest::Method;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

/// Of one flow and of one answer's text.
const FLOW_BYTES: usize = 900_000;
const FLOWS: usize = 40;
const COMMAND_BYTES: usize = 60_000;
const REFUSED_BYTES: usize = 30_000;
const LONG_BYTES: usize = 3_900_000;
const LONG_MESSAGES: usize = 20;
const LONG_PERSON: &str = "US.long";
const READERS: u32 = 16;
/// Unfinished bodies: at the edge as long as a body may be, at the API too.
const UNFINISHED_AT_EDGE: usize = 80;
const UNFINISHED_AT_API: usize = 40;
const EDGE_BODY_BYTES: usize = 4 << 20;
const API_BODY_BYTES: usize = 1 << 20;
const UNFINISHED_FOR: Duration = Duration::from_secs(14);
const AGAIN_AFTER: Duration = Duration::from_millis(500);
/// Idle sockets: strangers at the edge and the API, then those that signed once or showed a key, more than there may be.
const IDLE: usize = 1_500;
const IDLE_SIGNED: usize = 6_000;
const IDLE_WITH_KEY: usize = 1_100;
/// Updates in a body that would be stored whole, and in one that is just cut.
const MULTIPLIED: usize = 8_192;
const CUT: usize = 1_500;

/// One way to abuse an installation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Attack {
    /// Configuration that every process holds.
    Flows,
    /// Long messages that are read again and again.
    Histories,
    Unfinished,
    Idle,
    /// Commands that the Graph API refuses.
    Sends,
    /// Messages that its own bot and endpoint refuse.
    Refused,
    /// Bodies of a great many updates.
    Multiplied,
    /// Keys and signatures that are none.
    WrongKeys,
}

/// What an attack is to do to everybody else.
impl Attack {
    /// All of them, in the order they come.
    pub const ALL: [Self; 8] = [
        Self::Flows,
        Self::Histories,
        Self::Unfinished,
        Self::Idle,
        Self::Sends,
        Self::Refused,
        Self::Multiplied,
        Self::WrongKeys,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Flows => "flows of 0.9 MB",
            Self::Histories => "messages of 3.9 MB",
            Self::Unfinished => "unfinished bodies",
            Self::Idle => "idle sockets",
            Self::Sends => "sends that are refused",
            Self::Refused => "own bot that refuses",
            Self::Multiplied => "bodies of many updates",
            Self::WrongKeys => "wrong keys",
        }
    }

    async fn run(self, attacker: &Attacker) {
        match self {
            Self::Flows => self.fill_configuration(attacker).await,
            Self::Histories => self.read_histories(attacker).await,
            Self::Unfinished => self.leave_unfinished(attacker).await,
            Self::Idle => self.hold_sockets(attacker).await,
            Self::Sends => self.send(attacker).await,
            Self::Refused => self.be_refused(attacker).await,
            Self::Multiplied => self.multiply(attacker).await,
            Self::WrongKeys => self.guess(attacker).await,
        }
    }

    async fn fill_configuration(self, attacker: &Attacker) {
        at_pace(4, 4, async || {
            let nth = attacker.next();
            let flow = body::flow(&format!("Flow {nth}"), FLOW_BYTES, nth.is_multiple_of(2));
            let path = format!("/v1/flows/big-{}", nth % FLOWS);
            attacker
                .ask(self, "PUT of a flow", (Method::PUT, &path), Some(flow))
                .await;
            if nth % 8 == 7 {
                let flows: Vec<_> = (0..6).map(|nth| format!("big-{nth}")).collect();
                let bot = json!({"name": "All", "flows": flows}).to_string();
                attacker
                    .ask(
                        self,
                        "PUT of a bot with them",
                        (Method::PUT, "/v1/bots/all"),
                        Some(bot),
                    )
                    .await;
            }
        })
        .await;
    }

    async fn read_histories(self, attacker: &Attacker) {
        let words = "x".repeat(LONG_BYTES);
        let write = async || {
            let id = format!("long.{}", attacker.next());
            let body = body::text(ABUSER, "W2", LONG_PERSON, &id, &words);
            attacker.deliver(self, "webhook of 3.9 MB", body).await;
        };
        for _ in 0..LONG_MESSAGES {
            write().await;
        }
        let id = loop {
            if let Some(id) = attacker.conversation(self, LONG_PERSON).await {
                break id;
            }
            sleep(AGAIN_AFTER).await;
        };
        let path = format!("/v1/conversations/{id}/messages?limit=200");
        let read = at_pace(40, READERS, async || {
            attacker
                .ask(self, "GET of its messages", (Method::GET, &path), None)
                .await;
        });
        join(read, at_pace(1, 1, write)).await;
    }

    async fn leave_unfinished(self, attacker: &Attacker) {
        let wrong = format!("sha256={}", "0".repeat(64));
        let edge = format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\n{}: {wrong}\r\ncontent-length: {EDGE_BODY_BYTES}\r\n\r\n",
            header::SIGNATURE
        );
        let api = format!(
            "POST /v1/messages HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {ABUSER_KEY}\r\ncontent-type: application/json\r\n\
             content-length: {API_BODY_BYTES}\r\n\r\n"
        );
        // The first request is one that the edge knows, after which it knows who signs.
        let greeting = self.greeting(attacker);
        let again = async |address, (greeting, head): (&str, &str), bytes, what| {
            loop {
                let said = (greeting.as_bytes(), head.as_bytes());
                let answer = leave_unfinished(address, said, bytes, UNFINISHED_FOR).await;
                attacker.tally.note(self, what, answer);
                sleep(AGAIN_AFTER).await;
            }
        };
        let edge_bodies = join_all((0..UNFINISHED_AT_EDGE).map(|nth| {
            if nth.is_multiple_of(2) {
                again(attacker.edge, ("", &edge), EDGE_BODY_BYTES, "at the edge")
            } else {
                again(
                    attacker.edge,
                    (&greeting, &edge),
                    EDGE_BODY_BYTES,
                    "at the edge, behind a signed one",
                )
            }
        }));
        let api_bodies = join_all(
            (0..UNFINISHED_AT_API)
                .map(|_| again(attacker.api, ("", &api), API_BODY_BYTES, "at the API")),
        );
        join(edge_bodies, api_bodies).await;
    }

    /// A signed request that was stored before.
    fn greeting(self, attacker: &Attacker) -> String {
        let body = body::text(ABUSER, "W2", "US.greeting", "greeting", "Hello");
        format!(
            "POST {PATH} HTTP/1.1\r\nhost: a\r\n{}: {}\r\ncontent-length: {}\r\n\r\n{body}",
            header::SIGNATURE,
            attacker.sign(body.as_bytes()),
            body.len()
        )
    }

    async fn hold_sockets(self, attacker: &Attacker) {
        let signed = self.greeting(attacker);
        let with_key = format!(
            "GET /v1/flows HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {ABUSER_KEY}\r\n\r\n"
        );
        let report = |what: &'static str| {
            move |answer: &'static str| attacker.tally.note(self, what, answer)
        };
        let (edge, api) = (attacker.edge, attacker.api);
        let strangers = join(
            hold(edge, b"", IDLE, report("stranger at the edge")),
            hold(api, b"", IDLE, report("stranger at the API")),
        );
        let known = join(
            hold(
                edge,
                signed.as_bytes(),
                IDLE_SIGNED,
                report("at the edge, signed once"),
            ),
            hold(
                api,
                with_key.as_bytes(),
                IDLE_WITH_KEY,
                report("at the API, showed its key"),
            ),
        );
        join(strangers, known).await;
    }

    async fn send(self, attacker: &Attacker) {
        let words = "x".repeat(COMMAND_BYTES);
        at_pace(60, 8, async || {
            let body = json!({
                "to": {"phone": "15550000009"},
                "content": {"type": "template", "name": format!("t{}", attacker.next()), "language": "en",
                    "components": [{"type": "body", "parameters": [{"type": "text", "text": words}]}]},
            });
            attacker.ask(self, "send", (Method::POST, "/v1/messages"), Some(body.to_string())).await;
        })
        .await;
    }

    async fn be_refused(self, attacker: &Attacker) {
        let words = "x".repeat(REFUSED_BYTES);
        at_pace(40, 8, async || {
            let nth = attacker.next();
            let person = format!("US.refused.{}", nth % 200);
            let body = body::text(ABUSER, "W2", &person, &format!("refused.{nth}"), &words);
            attacker.deliver(self, "webhook of 30 KB", body).await;
        })
        .await;
    }

    async fn multiply(self, attacker: &Attacker) {
        at_pace(2, 2, async || {
            let nth = attacker.next();
            let (count, what) = if nth.is_multiple_of(2) {
                (MULTIPLIED, "body of 8,192")
            } else {
                (CUT, "body of 1,500")
            };
            attacker
                .deliver(
                    self,
                    what,
                    body::many(ABUSER, "W2", &format!("m{nth:06}"), count),
                )
                .await;
        })
        .await;
    }

    async fn guess(self, attacker: &Attacker) {
        let keys = at_pace(100, 8, async || {
            let key = format!("not-a-key-{:020}", attacker.next());
            let path = (Method::GET, "/v1/conversations");
            attacker.ask_as(&key, self, "wrong key", path, None).await;
        });
        let signatures = at_pace(100, 8, async || {
            attacker.forge(self, "wrong signature").await
        });
        join(keys, signatures).await;
    }
}

/// Does something so often a second, by so many at once.
async fn at_pace(per_second: u32, at_once: u32, work: impl AsyncFn()) {
    let turns = (0..at_once).map(async |_| {
        let mut ticks = interval(Duration::from_secs(1) * at_once / per_second);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            work().await;
        }
    });
    join_all(turns).await;
}

#[derive(Debug)]
pub struct Attacks {
    attacker: Attacker,
    within: Duration,
}

impl Attacks {
    /// Gets ready; half of the time is for one after the other.
    pub fn new(edge: SocketAddr, api: SocketAddr, within: Duration) -> Result<Self> {
        Ok(Self {
            attacker: Attacker::new(edge, api)?,
            within,
        })
    }

    /// Attacks from one thread of its own; blocks the caller until it is over.
    pub fn play(self) -> Result<(Vec<Phase>, Tally)> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        let runtime = runtime.context("starting the abuser's runtime")?;
        let Self { attacker, within } = self;
        let phases = runtime.block_on(in_turn_and_at_once(&attacker, within));
        Ok((phases, attacker.tally))
    }
}

async fn in_turn_and_at_once(attacker: &Attacker, within: Duration) -> Vec<Phase> {
    let turn = within / 2 / u32::try_from(Attack::ALL.len()).unwrap_or(1);
    let start = Instant::now();
    let mut phases = Vec::new();
    for attack in Attack::ALL {
        let began = Instant::now();
        // An attack has no end of its own.
        let _ = timeout(turn, attack.run(attacker)).await;
        phases.push(Phase {
            name: attack.name(),
            began,
            ended: Instant::now(),
        });
    }
    let began = Instant::now();
    let all = join_all(Attack::ALL.map(|attack| attack.run(attacker)));
    let _ = timeout(within.saturating_sub(start.elapsed()), all).await;
    phases.push(Phase {
        name: "all at once",
        began,
        ended: Instant::now(),
    });
    phases
}
