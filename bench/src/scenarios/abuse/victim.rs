//! The tenant that is to feel nothing: signed webhooks at an even rate, each on a connection of its own, and a look into
//! the REST API now and then.

use super::super::rig::{APP_SECRET, PATH};
use super::super::workers::feed;
use super::body;
use super::stage::{VICTIM, VICTIM_KEY};
use super::{LOOK_EVERY, PER_MINUTE};
use ackline_shared::secret::Secret;
use ackline_shared::signature::SigningKey;
use ackline_shared::subjects::header;
use anyhow::Result;
use bytes::Bytes;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until};

const PEOPLE: u32 = 25;
/// How long an answer may take; as Meta waits.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);
const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(8);

/// The victim and its client.
#[derive(Debug)]
pub struct Victim {
    http: reqwest::Client,
    webhook: String,
    api: String,
    key: SigningKey,
    next: AtomicU32,
}

/// A message that was sent.
#[derive(Debug)]
pub struct Sent {
    pub serial: u32,
    /// When it was sent first.
    pub at: Instant,
    /// What the edge answered to each attempt; nothing where no answer came.
    pub answers: Vec<Option<u16>>,
}

/// A look into the REST API.
#[derive(Debug)]
pub struct Asked {
    /// What was answered; nothing where no answer came.
    pub answer: Option<u16>,
    pub took: Duration,
}

/// A client of one address, that gives up after a time.
pub fn client(from: [u8; 4], within: Duration) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .no_proxy()
        .local_address(IpAddr::from(from))
        .timeout(within)
}

impl Victim {
    /// Gets ready to send to an edge.
    pub fn new(edge: SocketAddr, api: SocketAddr) -> Result<Self> {
        let http = client(Ipv4Addr::LOCALHOST.octets(), ANSWERED_WITHIN)
            .pool_max_idle_per_host(0)
            .build()?;
        Ok(Self {
            http,
            webhook: format!("http://{edge}{PATH}"),
            api: format!("http://{api}/v1/conversations?limit=20"),
            key: SigningKey::new(&Secret::new(APP_SECRET.to_owned())),
            next: AtomicU32::new(0),
        })
    }

    /// Sends as many messages, each at its time whatever became of the ones before, and again as Meta would until it is
    /// accepted or the deadline has come.
    pub async fn send(&self, count: u32, deadline: Instant) -> Vec<Sent> {
        let (start, first) = (
            Instant::now(),
            self.next.fetch_add(count, Ordering::Relaxed),
        );
        let mut under_way = JoinSet::new();
        for nth in 0..count {
            sleep_until(start + Duration::from_mins(1) * nth / PER_MINUTE).await;
            under_way.spawn(deliver(self.request(first + nth), first + nth, deadline));
        }
        under_way.join_all().await
    }

    fn request(&self, serial: u32) -> reqwest::RequestBuilder {
        let (id, person) = (feed::id(serial), format!("US.{:012}", serial % PEOPLE));
        let body = body::text(
            VICTIM,
            "W1",
            &person,
            &id,
            &format!("The parcel {id} left the depot."),
        );
        let signature = self.key.sign(body.as_bytes());
        self.http
            .post(&self.webhook)
            .header(header::SIGNATURE, signature)
            .body(Bytes::from(body))
    }

    /// Asks the REST API for conversations once a second until the time has come.
    pub async fn ask(&self, until: Instant) -> Vec<Asked> {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut asked = Vec::new();
        while Instant::now() < until {
            ticks.tick().await;
            let began = Instant::now();
            let answer = self
                .http
                .get(&self.api)
                .bearer_auth(VICTIM_KEY)
                .send()
                .await;
            let answer = answer.ok().map(|response| response.status().as_u16());
            asked.push(Asked {
                answer,
                took: began.elapsed(),
            });
        }
        asked
    }
}

async fn deliver(request: reqwest::RequestBuilder, serial: u32, deadline: Instant) -> Sent {
    let mut sent = Sent {
        serial,
        at: Instant::now(),
        answers: Vec::new(),
    };
    let mut wait = RETRY_FIRST;
    // A body of bytes can always be sent again.
    while let Some(attempt) = request.try_clone() {
        let answer = attempt
            .send()
            .await
            .ok()
            .map(|response| response.status().as_u16());
        sent.answers.push(answer);
        if answer == Some(200) || Instant::now() + wait > deadline {
            break;
        }
        sleep(wait).await;
        wait = (wait * 2).min(RETRY_MAX);
    }
    sent
}
