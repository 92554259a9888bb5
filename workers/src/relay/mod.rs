//! The relay pool: Meta's updates, byte for byte, to bots that exist already and stay unchanged.
//!
//! A bot gets what Meta would send it: the same bytes, the same headers and a signature it can verify. An update
//! that came alone keeps Meta's own signature; one that was split out of a batch, or whose bot has its own app
//! secret, is signed again. A bot sees an update once, unless its answer to the first attempt was lost.

mod request;

use crate::core::job::{Job, LaneSource, Verdict, Work};
use crate::egress::{Egress, EgressRequest, Outcome, Turnstile, fan_out};
use crate::platform::Platform;
use ackline_shared::envelope::Head;
use ackline_shared::model::Entity;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Pool};
use ackline_shared::vault::VaultKey;
use request::Target;
pub use request::unsignable;
use reqwest::header::HeaderValue;
use std::time::{Duration, SystemTime};

/// The work of the relay pool.
#[derive(Debug)]
pub struct RelayJob {
    platform: Platform,
    sender: Sender,
}

impl RelayJob {
    /// Makes the job; `attempt_timeout` is the pool's, and requests end within it.
    pub fn new(platform: Platform, egress: Egress, attempt_timeout: Duration) -> Self {
        Self { platform, sender: Sender::new(egress, attempt_timeout) }
    }
}

impl Job for RelayJob {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        vec![
            LaneSource {
                name: "msg",
                stream: subjects::UPDATES,
                filters: |partition| vec![subjects::update_filter(partition, Class::Message)],
                weight: 6,
            },
            LaneSource {
                name: "sts",
                stream: subjects::UPDATES,
                filters: |partition| vec![subjects::update_filter(partition, Class::Status)],
                weight: 3,
            },
            LaneSource {
                name: "acct",
                stream: subjects::UPDATES,
                filters: |partition| vec![subjects::update_filter(partition, Class::Account)],
                weight: 1,
            },
        ]
    }

    fn concerns(&self, head: &Head) -> bool {
        request::concerns(&self.platform.snapshot(), head)
    }

    async fn run(&self, work: &Work) -> Verdict {
        self.sender.deliver(&self.platform.snapshot(), self.platform.master(), work).await
    }
}

/// Posts an update to bots.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    turnstile: Turnstile,
}

impl Sender {
    fn new(egress: Egress, attempt_timeout: Duration) -> Self {
        Self { egress, turnstile: Turnstile::new(attempt_timeout) }
    }

    async fn deliver(&self, snapshot: &Snapshot, master: &VaultKey, work: &Work) -> Verdict {
        let attempts = request::targets(snapshot, master, &work.head, &work.payload)
            .into_iter()
            .map(|target| (target.relay.id.to_string(), self.post(target, work)));
        fan_out(&work.marks, "relay", attempts).await
    }

    async fn post(&self, target: Target, work: &Work) -> Outcome {
        let headers = target.signature.and_then(|signature| request::headers(&signature));
        let mut headers = match headers {
            Ok(headers) => headers,
            Err(outcome) => return outcome,
        };
        if work.head.replay.is_some() {
            headers.insert(request::REPLAY, HeaderValue::from_static("true"));
        }
        let relay = target.relay;
        let downstream = relay.config_key();
        if let Some(wait) = self.egress.held(&downstream) {
            return Outcome::held(wait);
        }
        let Some(_turn) = self.turnstile.enter(&downstream, relay.concurrency).await else {
            return Outcome::busy();
        };
        let payload = work.payload.clone();
        let post = EgressRequest::post(&relay.url, headers, payload, self.turnstile.request_timeout());
        match self.egress.request(post.under_breaker(downstream)).await {
            Ok(answer) => request::outcome(answer.status, answer.retry_after(SystemTime::now())),
            Err(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod fixture;
#[cfg(test)]
mod tests;
