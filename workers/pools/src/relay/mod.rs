//! The relay pool: Meta's updates, byte for byte, to bots that exist already and stay unchanged.
//!
//! A bot gets what Meta would send it: the same bytes, the same headers and a signature it can verify. An update
//! that came alone keeps Meta's own signature; one that was split out of a batch, or whose bot has its own app
//! secret, is signed again. A bot sees an update once, unless its answer to the first attempt was lost.

mod request;

use ackline_egress::{Egress, EgressRequest, Outcome};
use ackline_engine::state::{BreakerSpec, Target};
use ackline_engine::step::Step;
use ackline_runtime::job::{Job, TroubleKind, Verdict, Work};
use ackline_runtime::platform::Platform;
use ackline_shared::envelope::Head;
use ackline_shared::ids::TenantId;
use ackline_shared::model::{Entity, Redelivery, Relay};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::Pool;
use ackline_shared::vault::VaultKey;
pub use request::unsignable;
use reqwest::header::HeaderValue;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

/// A request was made to a relay that gets everything at most once, and its answer is not known.
const POSTING: Step = Step::Begun(Cow::Borrowed("posting"));
/// Why such an update is given up.
const ANSWER_LOST: &str = "its answer was lost, and it may have the update; it is not sent again (redelivery = \"at_most_once\")";

/// The work of the relay pool.
#[derive(Debug)]
pub struct RelayJob {
    platform: Platform,
    sender: Sender,
}

impl RelayJob {
    /// Makes the job; `timeout` is the longest time of a request to a relay that says none.
    pub fn new(platform: Platform, egress: Egress, timeout: Duration) -> Self {
        Self {
            platform,
            sender: Sender { egress, timeout },
        }
    }
}

impl Job for RelayJob {
    const POOL: Pool = Pool::Relay;

    fn askers(snapshot: &Snapshot) -> Option<BTreeSet<TenantId>> {
        snapshot.owners(&snapshot.relays, "relay")
    }

    fn targets(&self, head: &Head) -> Vec<Arc<Target>> {
        let snapshot = self.platform.snapshot();
        if !request::concerns(&snapshot, head) {
            return Vec::new();
        }
        let relays = Snapshot::owned(&snapshot.relays, "relay", &head.tenant);
        let meant = relays.filter(|relay| relay.enabled && head.is_for(&relay.id));
        meant
            .map(|relay| Arc::new(self.sender.target(relay)))
            .collect()
    }

    fn selects(&self, head: &Head, payload: &[u8], target: &Target) -> bool {
        request::selects(&self.platform.snapshot(), head, payload, &target.name)
    }

    async fn run(&self, work: &Work) -> Verdict {
        self.sender
            .deliver(&self.platform.snapshot(), self.platform.master(), work)
            .await
    }
}

/// Posts an update to a bot.
#[derive(Debug)]
struct Sender {
    egress: Egress,
    /// Longest time of a request to a relay that says none.
    timeout: Duration,
}

impl Sender {
    fn target(&self, relay: &Relay) -> Target {
        let downstream = relay.config_key();
        Target {
            name: relay.id.to_string(),
            breakers: vec![BreakerSpec {
                name: downstream.as_str().into(),
                limit: usize::from(relay.concurrency.max(1)),
            }],
            downstream,
            timeout: Some(relay.timeout().unwrap_or(self.timeout)),
        }
    }

    async fn deliver(&self, snapshot: &Snapshot, master: &VaultKey, work: &Work) -> Verdict {
        let name = &work.target.name;
        let mut relays = Snapshot::owned(&snapshot.relays, "relay", &work.head.tenant);
        let relay = relays.find(|relay| relay.id.as_str() == name && relay.enabled);
        let Some(relay) = relay else {
            return Verdict::dead(format!(
                "relay {name}: it is not configured any more, or switched off"
            ));
        };
        if let Some(reason) = request::undecided(&work.head, relay, &work.payload) {
            return Verdict::dead(format!("relay {name}: {reason}"));
        }
        let outcome = match relay.redelivery {
            Redelivery::AtLeastOnce => self.post(snapshot, master, relay, work).await,
            Redelivery::AtMostOnce => self.post_at_most_once(snapshot, master, relay, work).await,
        };
        outcome.verdict("relay", name)
    }

    /// Makes it durable that a request is made, so that it is not made again when its answer was lost.
    async fn post_at_most_once(
        &self,
        snapshot: &Snapshot,
        master: &VaultKey,
        relay: &Relay,
        work: &Work,
    ) -> Outcome {
        if work.marks.has(&POSTING) {
            return Outcome::Final {
                reason: ANSWER_LOST.to_owned(),
            };
        }
        work.marks.set(POSTING);
        if let Err(error) = work.persist().await {
            work.marks.clear(&POSTING);
            return Outcome::retry(format!("nothing was sent: {error}"));
        }
        match self.post(snapshot, master, relay, work).await {
            Outcome::Trouble(trouble)
                if trouble.kind == TroubleKind::TimedOut || trouble.is_broken() =>
            {
                Outcome::Final {
                    reason: format!("{}; {ANSWER_LOST}", trouble.reason),
                }
            }
            outcome => {
                work.marks.clear(&POSTING);
                outcome
            }
        }
    }

    async fn post(
        &self,
        snapshot: &Snapshot,
        master: &VaultKey,
        relay: &Relay,
        work: &Work,
    ) -> Outcome {
        let signature = request::signature(snapshot, master, &work.head, relay, &work.payload);
        let mut headers = match signature.and_then(|signature| request::headers(&signature)) {
            Ok(headers) => headers,
            Err(outcome) => return outcome,
        };
        if work.head.replay.is_some() {
            headers.insert(request::REPLAY, HeaderValue::from_static("true"));
        }
        let timeout = relay.timeout().unwrap_or(self.timeout);
        let post = EgressRequest::post(&relay.url, headers, work.payload.clone(), timeout);
        let egress = self
            .egress
            .of_tenant(snapshot.tenants.get(&relay.tenant).map(AsRef::as_ref));
        match egress.request(post).await {
            Ok(answer) => {
                let outcome = request::outcome(&answer);
                match &outcome {
                    Outcome::Final { .. } => work.answered.refused(&answer.body),
                    _ => work.answered.set(),
                }
                outcome
            }
            Err(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests;
