//! A stretch of what happened, for a pool or a target that was not there then; pure.

use super::job::ReplayJob;
use ackline_shared::envelope::{Head, Replay};
use ackline_shared::ids::{PhoneNumberId, TenantId};
use ackline_shared::subjects::{self, Partition, Pool, UPDATES};
use async_nats::HeaderMap;
use serde::{Deserialize, Serialize};

/// What a class of the past may be called: the classes of updates, and our own records.
pub const CLASSES: [&str; 4] = ["msg", "sts", "acct", "records"];

/// A tenant's updates and records of some time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub tenant: TenantId,
    /// From then on, in unix milliseconds.
    pub from_ms: u64,
    /// Before then, in unix milliseconds.
    pub to_ms: u64,
    /// Only these of [`CLASSES`]; empty for all that the pool reads.
    pub classes: Vec<String>,
    /// Only those of this business number.
    pub phone: Option<PhoneNumberId>,
}

impl Past {
    /// The subjects of it that a pool reads; empty when the pool reads none of it.
    pub fn filters(&self, pool: Pool) -> Vec<String> {
        let is_wanted = |filter: &String| {
            let mut parts = filter.split('.');
            let class = match (parts.next(), parts.nth(1)) {
                (Some("in"), Some(class)) => class,
                _ => "records",
            };
            self.classes.is_empty() || self.classes.iter().any(|wanted| wanted == class)
        };
        let read = reads(pool);
        let filters = read
            .iter()
            .filter_map(|filter| subjects::of_tenant(filter, &self.tenant));
        filters.filter(is_wanted).collect()
    }

    /// The replay of a message for a pool; `None` for one outside of the stretch.
    pub fn replay(
        &self,
        sequence: u64,
        subject: &str,
        headers: &HeaderMap,
        pool: Pool,
        job: &ReplayJob,
    ) -> Option<Head> {
        let head = Head::read(subject, headers).ok()?;
        let is_meant = head.tenant == self.tenant
            && (self.from_ms..self.to_ms).contains(&head.received_ms)
            && (self.phone.is_none() || head.phone == self.phone);
        let replay = Replay {
            pool,
            of: format!("{UPDATES}:{sequence}"),
            id: head.id.clone(),
            target: job.target.as_ref().and_then(|target| target.id.clone()),
            done: Vec::new(),
            verbatim: true,
        };
        is_meant.then(|| Head {
            id: job.replay_id(&head.id),
            replay: Some(Box::new(replay)),
            ..head
        })
    }
}

/// The filters of what a pool reads of UPDATES, as of one partition.
fn reads(pool: Pool) -> Vec<String> {
    let lanes = pool.lanes().into_iter();
    lanes
        .filter(|lane| lane.stream == UPDATES && !pool.is_whole())
        .flat_map(|lane| (lane.filters)(Partition(0)))
        .collect()
}

/// Why nothing of the past can be put before a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadsNone {
    #[error("the {0} is built again whole, from everything the log holds: `ackline {0} rebuild`")]
    Whole(Pool),
    #[error("the pool {0} reads none of this")]
    OfThis(Pool),
}

impl ReadsNone {
    pub fn of(pool: Pool) -> Self {
        if pool.is_whole() {
            Self::Whole(pool)
        } else {
            Self::OfThis(pool)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::job;
    use crate::{ReplayTarget, Source};
    use ackline_shared::ids::EntityId;
    use ackline_shared::subjects::{Class, header};

    fn past(classes: &[&str]) -> Past {
        let classes = classes.iter().map(|&class| class.to_owned()).collect();
        let phone = PhoneNumberId::new("1").ok();
        Past {
            tenant: TenantId::new("acme").unwrap(),
            from_ms: 10,
            to_ms: 20,
            classes,
            phone,
        }
    }

    #[test]
    fn only_what_the_pool_reads_of_the_tenant_is_meant() {
        let filters = |classes: &[&str], pool: Pool| {
            let filters = past(classes).filters(pool);
            filters
                .iter()
                .map(|filter| filter.split_once(".*.").unwrap().1.to_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(
            filters(&[], Pool::Relay),
            ["msg.acme", "sts.acme", "acct.acme"]
        );
        assert_eq!(filters(&["sts"], Pool::Relay), ["sts.acme"]);
        assert_eq!(
            filters(&["records"], Pool::Crm),
            ["acme.reply_sent", "acme.reply_failed"]
        );
        assert!(
            past(&["sts"]).filters(Pool::Flows).is_empty()
                && past(&[]).filters(Pool::Replies).is_empty()
        );
    }

    #[test]
    fn a_replay_of_the_past_is_for_its_target_and_within_the_time() {
        let past = past(&[]);
        let mut job = job(Source::Past(past.clone()));
        job.target = Some(ReplayTarget {
            pool: Some(Pool::Relay),
            id: EntityId::new("new").ok(),
        });
        let subject = subjects::update(Partition(3), Class::Message, &past.tenant);
        let replay = |received: &str, phone: &str| {
            let mut headers = HeaderMap::new();
            let pairs = [
                (header::MSG_ID, "wamid.A="),
                (header::KIND, "message.text"),
                (header::CONVERSATION, "u:US.1"),
                (header::RECEIVED, received),
                (header::PHONE, phone),
            ];
            pairs
                .into_iter()
                .for_each(|(name, value)| headers.insert(name, value));
            past.replay(7, &subject, &headers, Pool::Relay, &job)
        };
        let head = replay("10", "1").unwrap();
        assert_eq!(
            (head.subject().as_str(), head.id.as_str()),
            ("rp.relay.3.msg.acme", "wamid.A=~rp_1")
        );
        assert!(
            head.is_for(&EntityId::new("new").unwrap())
                && !head.is_for(&EntityId::new("old").unwrap())
        );
        assert!(head.is_verbatim());
        assert_eq!(head.replay.unwrap().of, "UPDATES:7");
        assert!(
            replay("9", "1").is_none()
                && replay("20", "1").is_none()
                && replay("10", "2").is_none()
        );
    }
}
