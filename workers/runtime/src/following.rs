//! Tells what comes of each attempt to whoever follows a tenant at the moment, and costs nothing otherwise.
//!
//! A follower asks over core NATS and asks again every few seconds; a process forgets who stopped asking.
//! Followers and what is queued for them are bounded: when they are slow, they miss something, and no job waits.

use super::job::Verdict;
use super::log::to_bytes;
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::Head;
use ackline_shared::ids::{ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::shutdown::{Shutdown, ended};
use ackline_shared::subjects::{self, Pool};
use arc_swap::ArcSwap;
use async_nats::Client;
use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

/// How long one asking lasts.
pub const FOLLOWED_FOR: Duration = Duration::from_secs(10);
const TENANTS_MAX: usize = 32;
/// Words that wait to be sent.
const QUEUED_MAX: usize = 1024;
const RESUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

/// What came of one attempt.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptReport {
    pub pool: String,
    pub id: UpdateId,
    pub kind: String,
    pub conversation: ConversationKey,
    pub phone: Option<PhoneNumberId>,
    /// `done`, `retry`, `wait` or `dead`; of a call that failed on the way `model failed` or `http failed`.
    pub verdict: String,
    /// Why, where there is a reason.
    pub reason: Option<String>,
    pub attempt: u32,
    pub took_ms: u64,
    /// When it ended, in unix milliseconds.
    pub at_ms: u64,
}

/// Who is followed; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Following(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    until: ArcSwap<HashMap<TenantId, Instant>>,
    words: OnceLock<mpsc::Sender<(TenantId, AttemptReport)>>,
}

impl Following {
    /// Tells of an attempt, if anybody follows its tenant.
    pub fn report(&self, pool: Pool, head: &Head, attempt: u32, verdict: &Verdict, took: Duration) {
        if !self.follows(&head.tenant) {
            return;
        }
        if *verdict == Verdict::Idle {
            return;
        }
        let (name, reason) = (verdict.kind().as_str(), verdict.reason());
        self.send(
            head,
            attempt_report(pool, head, name.to_owned(), reason, attempt, took),
        );
    }

    /// Tells of a call that failed during an attempt which goes on, if anybody follows its tenant.
    pub fn report_call(&self, pool: Pool, head: &Head, call: &str, reason: &str, took: Duration) {
        if self.follows(&head.tenant) {
            self.send(
                head,
                attempt_report(pool, head, format!("{call} failed"), Some(reason), 1, took),
            );
        }
    }

    fn follows(&self, tenant: &TenantId) -> bool {
        let followed = self.0.until.load();
        !followed.is_empty()
            && followed
                .get(tenant)
                .is_some_and(|until| *until >= Instant::now())
    }

    fn send(&self, head: &Head, attempt_report: AttemptReport) {
        if let Some(words) = self.0.words.get() {
            let _too_slow_a_follower_misses_it =
                words.try_send((head.tenant.clone(), attempt_report));
        }
    }

    /// Listens for followers and sends what they are told, until the signal.
    pub async fn serve(self, client: Client, mut shutdown: Shutdown) {
        let (sender, mut words) = mpsc::channel(QUEUED_MAX);
        if self.0.words.set(sender).is_err() {
            return;
        }
        let telling = async {
            while let Some((tenant, attempt_report)) = words.recv().await {
                let sent = client
                    .publish(subjects::reports(&tenant), to_bytes(&attempt_report))
                    .await;
                if let Err(error) = sent {
                    tracing::debug!(%error, "followers were not told");
                }
            }
        };
        let asking = async {
            loop {
                if let Ok(mut asked) = client.subscribe(subjects::FOLLOW_FILTER).await {
                    while let Some(message) = asked.next().await {
                        subjects::followed(&message.subject)
                            .into_iter()
                            .for_each(|tenant| self.follow(tenant));
                    }
                }
                sleep(RESUBSCRIBE_PAUSE).await;
            }
        };
        tokio::select! {
            () = ended(&mut shutdown) => {}
            () = telling => {}
            () = asking => {}
        }
    }

    fn follow(&self, tenant: TenantId) {
        let now = Instant::now();
        let mut until = HashMap::clone(&self.0.until.load());
        until.retain(|_, until| *until > now);
        if until.len() < TENANTS_MAX || until.contains_key(&tenant) {
            until.insert(tenant, now + FOLLOWED_FOR);
        }
        self.0.until.store(Arc::new(until));
    }
}

fn attempt_report(
    pool: Pool,
    head: &Head,
    verdict: String,
    reason: Option<&str>,
    attempt: u32,
    took: Duration,
) -> AttemptReport {
    AttemptReport {
        pool: pool.as_str().to_owned(),
        id: head.id.clone(),
        kind: head.kind.clone(),
        conversation: head.conversation.clone(),
        phone: head.phone.clone(),
        verdict,
        reason: reason.map(str::to_owned),
        attempt,
        took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        at_ms: now_ms(),
    }
}
