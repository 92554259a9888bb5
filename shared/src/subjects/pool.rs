//! The worker pools, and what each reads.

use super::{
    Class, DEAD, Lane, OUTBOUND, Partition, UPDATES, outbound_filter, record_filter, record_kind,
    update_filter,
};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The worker pools that read a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Runs flows and agents.
    Flows,
    /// Sends through the Graph API.
    Replies,
    /// Passes updates to existing bots.
    Relay,
    /// Keeps the CRM in step.
    Crm,
    /// Delivers signed webhooks to customers.
    Events,
    /// Writes the SQL read model.
    Journal,
}

impl Pool {
    /// Every pool, in the order they are listed to people.
    pub const ALL: [Self; 6] = [
        Self::Flows,
        Self::Replies,
        Self::Relay,
        Self::Crm,
        Self::Events,
        Self::Journal,
    ];

    /// The pool whose dead letters updates are that nobody claims: it would write them down for people to look at.
    pub const OF_UNROUTED: Self = Self::Journal;

    /// The pool's name, also its subject token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Replies => "replies",
            Self::Relay => "relay",
            Self::Crm => "crm",
            Self::Events => "events",
            Self::Journal => "journal",
        }
    }

    /// What the pool reads; one consumer per lane and partition.
    pub fn lanes(self) -> Vec<LaneSource> {
        let lane = |name, stream, weight, filters| LaneSource {
            name,
            stream,
            filters,
            weight,
        };
        match self {
            Self::Flows => vec![lane("conversation", UPDATES, 1, |partition| {
                vec![
                    update_filter(partition, Class::Message),
                    record_filter(partition, record_kind::FLOW_RESULT),
                ]
            })],
            Self::Replies => vec![
                lane(Lane::Live.as_str(), OUTBOUND, 4, |partition| {
                    vec![outbound_filter(partition, Lane::Live)]
                }),
                lane(Lane::Bulk.as_str(), OUTBOUND, 1, |partition| {
                    vec![outbound_filter(partition, Lane::Bulk)]
                }),
            ],
            Self::Relay => vec![
                lane("msg", UPDATES, 6, |partition| {
                    vec![update_filter(partition, Class::Message)]
                }),
                lane("sts", UPDATES, 3, |partition| {
                    vec![update_filter(partition, Class::Status)]
                }),
                lane("acct", UPDATES, 1, |partition| {
                    vec![update_filter(partition, Class::Account)]
                }),
            ],
            // A status tells whose number it is, before that person writes: both are in one order.
            Self::Crm => vec![lane("conversation", UPDATES, 1, |partition| {
                vec![
                    update_filter(partition, Class::Message),
                    update_filter(partition, Class::Status),
                    record_filter(partition, record_kind::REPLY_SENT),
                    record_filter(partition, record_kind::REPLY_FAILED),
                ]
            })],
            Self::Events => vec![
                lane("msg", UPDATES, 2, |partition| {
                    vec![
                        update_filter(partition, Class::Message),
                        record_filter(partition, record_kind::FLOW_STARTED),
                        record_filter(partition, record_kind::FLOW_COMPLETED),
                        record_filter(partition, record_kind::REPLY_FAILED),
                    ]
                }),
                lane("sts", UPDATES, 1, |partition| {
                    vec![update_filter(partition, Class::Status)]
                }),
            ],
            // All of the stream: a filter that nearly everything passes would be looked through for each message.
            Self::Journal => vec![lane(WHOLE_LANE, UPDATES, 1, |_| Vec::new())],
        }
    }

    /// The streams that the pool's work fills, beside those that it empties.
    pub fn writes(self) -> &'static [&'static str] {
        match self {
            Self::Flows => &[OUTBOUND, DEAD],
            // It writes what everybody did, and gives up next to nothing.
            Self::Journal => &[],
            _ => &[DEAD],
        }
    }

    /// Whether it reads all of the log in order, in batches, instead of working on one update at a time.
    pub fn is_whole(self) -> bool {
        self == Self::Journal
    }

    /// Into how many parts its work is divided.
    pub fn partitions(self, configured: u16) -> u16 {
        if self.is_whole() { 1 } else { configured }
    }

    /// The names of the lanes whose weights may be set: none of a pool that works in batches.
    pub fn lane_names(self) -> Vec<&'static str> {
        let lanes = self.lanes().into_iter();
        lanes
            .filter(|_| !self.is_whole())
            .map(|lane| lane.name)
            .collect()
    }
}

/// A lane of a pool: the subjects it reads, and its share when several lanes have work.
#[derive(Debug, Clone, Copy)]
pub struct LaneSource {
    /// Part of the consumers' durable name.
    pub name: &'static str,
    /// The stream.
    pub stream: &'static str,
    /// The subjects of one partition.
    pub filters: fn(Partition) -> Vec<String>,
    /// Its weight against the pool's other lanes; every lane gets at least its share of turns.
    pub weight: u32,
}

/// The lane of a pool that reads everything in batches.
pub const WHOLE_LANE: &str = "all";

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|pool| pool.as_str() == text)
            .ok_or_else(|| format!("no pool is called `{text}`"))
    }
}
