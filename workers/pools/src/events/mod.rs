//! The events pool: what happened, signed by Standard Webhooks, to the endpoints of customers.
//!
//! An event's id and body are made from the update or record alone, so every attempt carries the same bytes under
//! the same `webhook-id`, and a customer can tell a repeat. Only the timestamp and the signature are fresh.

mod event;
mod request;
mod source;

pub use event::{
    API_VERSION, Data, Event, EventError, Failure, FlowRun, Handover, Person, Progress, Received,
    of,
};
pub use source::EventSource;

use ackline_egress::{Egress, EgressRequest, Outcome};
use ackline_engine::state::{BreakerSpec, Target};
use ackline_engine::step::Step;
use ackline_runtime::job::{Job, Verdict, Work};
use ackline_runtime::log::to_bytes;
use ackline_runtime::platform::Platform;
use ackline_shared::envelope::Head;
use ackline_shared::ids::TenantId;
use ackline_shared::model::{Endpoint, Entity};
use ackline_shared::registry::Snapshot;
use ackline_shared::signature::SigningKey;
use ackline_shared::stored;
use ackline_shared::subjects::Pool;
use ackline_shared::vault::VaultKey;
use async_nats::jetstream::kv::{Operation, UpdateErrorKind};
use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::HeaderValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Requests to one endpoint at once.
const ENDPOINT_CONCURRENCY: usize = 8;
/// The endpoint says that it is gone for good.
const GONE: Step = Step::Begun(Cow::Borrowed("gone"));

/// The work of the events pool.
#[derive(Debug)]
pub struct EventsJob {
    platform: Platform,
    sender: Sender,
}

impl EventsJob {
    /// Makes the job; `timeout` is the longest time of a request to an endpoint that says none.
    pub fn new(platform: Platform, egress: Egress, timeout: Duration) -> Self {
        Self {
            platform,
            sender: Sender { egress, timeout },
        }
    }
}

impl Job for EventsJob {
    const POOL: Pool = Pool::Events;

    fn askers(snapshot: &Snapshot) -> Option<BTreeSet<TenantId>> {
        snapshot.owners(&snapshot.endpoints, "endpoint")
    }

    fn targets(&self, head: &Head) -> Vec<Arc<Target>> {
        let snapshot = self.platform.snapshot();
        let endpoints = Snapshot::owned(&snapshot.endpoints, "endpoint", &head.tenant);
        let meant = endpoints.filter(|endpoint| endpoint.enabled && head.is_for(&endpoint.id));
        meant
            .map(|endpoint| Arc::new(self.sender.target(endpoint)))
            .collect()
    }

    fn selects(&self, head: &Head, payload: &[u8], target: &Target) -> bool {
        request::selects(&self.platform.snapshot(), head, payload, &target.name)
    }

    async fn run(&self, work: &Work) -> Verdict {
        let verdict = self
            .sender
            .deliver(&self.platform.snapshot(), self.platform.master(), work)
            .await;
        if work.marks.has(&GONE) {
            self.switch_off(work).await;
        }
        verdict
    }
}

impl EventsJob {
    /// Switches an endpoint off that says it is gone; whoever declared it is told by the log, `ackline doctor` and the
    /// dead letter, and switches it on again by applying the configuration.
    async fn switch_off(&self, work: &Work) {
        let (tenant, name) = (&work.head.tenant, &work.target.name);
        match switch_endpoint_off(&self.platform, tenant, name).await {
            Ok(true) => {
                tracing::warn!(%tenant, endpoint = name, "an endpoint answered 410 and is switched off")
            }
            Ok(false) => {}
            Err(error) => {
                tracing::warn!(%tenant, endpoint = name, %error, "a gone endpoint could not be switched off")
            }
        }
    }
}

/// Switches an endpoint off in the declared configuration; false when it is off already, or was changed meanwhile.
async fn switch_endpoint_off(
    platform: &Platform,
    tenant: &TenantId,
    name: &str,
) -> Result<bool, async_nats::Error> {
    let snapshot = platform.snapshot();
    let mut endpoints = Snapshot::owned(&snapshot.endpoints, "endpoint", tenant);
    let Some(known) = endpoints.find(|endpoint| endpoint.id.as_str() == name && endpoint.enabled)
    else {
        return Ok(false);
    };
    let (config, key) = (&platform.buckets.config, known.config_key());
    let entry = config.entry(key.clone()).await?;
    let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else {
        return Ok(false);
    };
    let mut endpoint: Endpoint = stored::decode(&entry.value)?;
    if endpoint.url != known.url || !std::mem::replace(&mut endpoint.enabled, false) {
        return Ok(false);
    }
    let off = stored::encode_over(&endpoint, &entry.value)?;
    match config.update(&key, off.into(), entry.revision).await {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == UpdateErrorKind::WrongLastRevision => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Posts an event to an endpoint.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    /// Longest time of a request to an endpoint that says none.
    timeout: Duration,
}

impl Sender {
    fn target(&self, endpoint: &Endpoint) -> Target {
        let downstream = endpoint.config_key();
        Target {
            name: endpoint.id.to_string(),
            breakers: vec![BreakerSpec {
                name: downstream.as_str().into(),
                limit: ENDPOINT_CONCURRENCY,
            }],
            downstream,
            timeout: Some(endpoint.timeout().unwrap_or(self.timeout)),
        }
    }

    async fn deliver(&self, snapshot: &Snapshot, master: &VaultKey, work: &Work) -> Verdict {
        let name = &work.target.name;
        let mut endpoints = Snapshot::owned(&snapshot.endpoints, "endpoint", &work.head.tenant);
        let endpoint = endpoints.find(|endpoint| endpoint.id.as_str() == name && endpoint.enabled);
        let Some(endpoint) = endpoint else {
            return Verdict::dead(format!(
                "endpoint {name}: it is not configured any more, or switched off"
            ));
        };
        let mut events = match of(&work.head, &work.payload) {
            Ok(events) => events,
            Err(error) => return Verdict::dead(error.to_string()),
        };
        events.retain(|event| request::wants(endpoint, event));
        let keys = match request::keys(snapshot, master, endpoint) {
            Ok(keys) => keys,
            Err(error) => return Outcome::retry(error.to_string()).verdict("endpoint", name),
        };
        let egress = self
            .egress
            .of_tenant(snapshot.tenants.get(&endpoint.tenant).map(AsRef::as_ref));
        let mut verdict = Verdict::Idle;
        for event in &events {
            let delivered = Step::done(event.id.clone());
            if work.marks.has(&delivered) {
                verdict = Verdict::Done;
                continue;
            }
            let outcome = self.post((endpoint, &egress), &keys, work, event).await;
            verdict = outcome.verdict("endpoint", name);
            if verdict != Verdict::Done {
                break;
            }
            // One of several is not sent again because a later one failed.
            if events.len() > 1 {
                work.marks.set(delivered);
            }
        }
        verdict
    }

    async fn post(
        &self,
        (endpoint, egress): (&Endpoint, &Egress),
        keys: &[SigningKey],
        work: &Work,
        event: &Event,
    ) -> Outcome {
        let now = SystemTime::now();
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let body: Bytes = to_bytes(event);
        let mut headers = match request::headers(keys, &event.id, seconds, &body) {
            Ok(headers) => headers,
            Err(error) => return Outcome::retry(error.to_string()),
        };
        if work.head.replay.is_some() {
            headers.insert(request::REPLAY, HeaderValue::from_static("true"));
        }
        let timeout = endpoint.timeout().unwrap_or(self.timeout);
        match egress
            .request(EgressRequest::post(&endpoint.url, headers, body, timeout))
            .await
        {
            Ok(answer) => {
                let outcome = request::outcome(&answer);
                match &outcome {
                    Outcome::Final { .. } => work.answered.refused(&answer.body),
                    _ => work.answered.set(),
                }
                if answer.status == StatusCode::GONE {
                    work.marks.set(GONE);
                }
                outcome
            }
            Err(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests;
