//! The events pool: what happened, signed by Standard Webhooks, to the endpoints of customers.
//!
//! An event's id and body are made from the update or record alone, so every attempt carries the same bytes under
//! the same `webhook-id`, and a customer can tell a repeat. Only the timestamp and the signature are fresh.

mod event;
mod request;

pub use event::{API_VERSION, Data, Event, EventError, Failure, FlowRun, Media, Person, Progress, Received};

use crate::core::job::{Job, LaneSource, Verdict, Work};
use crate::core::log::to_bytes;
use crate::egress::{Egress, EgressRequest, Outcome, Turnstile, fan_out};
use crate::platform::Platform;
use ackline_shared::envelope::Head;
use ackline_shared::model::Entity;
use ackline_shared::record::Record;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Pool};
use ackline_shared::vault::VaultKey;
use bytes::Bytes;
use request::Target;
use reqwest::header::HeaderValue;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Requests to one endpoint at once.
const ENDPOINT_CONCURRENCY: u16 = 8;

/// The work of the events pool.
#[derive(Debug)]
pub struct EventsJob {
    platform: Platform,
    sender: Sender,
}

impl EventsJob {
    /// Makes the job; `attempt_timeout` is the pool's, and requests end within it.
    pub fn new(platform: Platform, egress: Egress, attempt_timeout: Duration) -> Self {
        Self { platform, sender: Sender::new(egress, attempt_timeout) }
    }
}

impl Job for EventsJob {
    const POOL: Pool = Pool::Events;

    fn lanes() -> Vec<LaneSource> {
        vec![
            LaneSource {
                name: "msg",
                stream: subjects::UPDATES,
                filters: |partition| {
                    vec![
                        subjects::update_filter(partition, Class::Message),
                        subjects::record_filter(partition, Record::FLOW_STARTED),
                        subjects::record_filter(partition, Record::FLOW_COMPLETED),
                        subjects::record_filter(partition, Record::REPLY_FAILED),
                    ]
                },
                weight: 2,
            },
            LaneSource {
                name: "sts",
                stream: subjects::UPDATES,
                filters: |partition| vec![subjects::update_filter(partition, Class::Status)],
                weight: 1,
            },
        ]
    }

    fn concerns(&self, head: &Head) -> bool {
        request::has_endpoint(&self.platform.snapshot(), &head.tenant)
    }

    async fn run(&self, work: &Work) -> Verdict {
        self.sender.deliver(&self.platform.snapshot(), self.platform.master(), work).await
    }
}

/// Posts an event to endpoints.
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
        let tenant = &work.head.tenant;
        if !request::has_endpoint(snapshot, tenant) {
            return Verdict::Idle;
        }
        let event = match event::of(&work.head, &work.payload) {
            Ok(Some(event)) => event,
            Ok(None) => return Verdict::Idle,
            Err(error) => return Verdict::dead(error.to_string()),
        };
        let body = to_bytes(&event);
        let attempts = request::targets(snapshot, master, tenant, event.name)
            .into_iter()
            .filter(|target| work.head.is_for(&target.endpoint.id))
            .map(|target| {
                (target.endpoint.id.to_string(), self.post(target, &work.head, &event.id, body.clone()))
            });
        fan_out(&work.marks, "endpoint", attempts).await
    }

    async fn post(&self, target: Target, cause: &Head, id: &str, body: Bytes) -> Outcome {
        let endpoint = target.endpoint;
        let downstream = endpoint.config_key();
        if let Some(wait) = self.egress.held(&downstream) {
            return Outcome::held(wait);
        }
        let Some(_turn) = self.turnstile.enter(&downstream, ENDPOINT_CONCURRENCY).await else {
            return Outcome::busy();
        };
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut headers = match target.keys.and_then(|keys| request::headers(&keys, id, seconds, &body)) {
            Ok(headers) => headers,
            Err(reason) => return Outcome::retry(reason),
        };
        if cause.replay.is_some() {
            headers.insert(request::REPLAY, HeaderValue::from_static("true"));
        }
        let post = EgressRequest::post(&endpoint.url, headers, body, self.turnstile.request_timeout());
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
