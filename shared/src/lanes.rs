//! What each worker pool reads.

use crate::record::Record;
use crate::subjects::{
    Class, JOURNAL_SUBJECTS, Lane, OUTBOUND, Partition, Pool, UPDATES, outbound_filter,
    record_filter, update_filter,
};

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

impl Pool {
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
                    record_filter(partition, Record::FLOW_RESULT),
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
            Self::Crm => vec![lane("conversation", UPDATES, 1, |partition| {
                vec![
                    update_filter(partition, Class::Message),
                    record_filter(partition, Record::REPLY_SENT),
                    record_filter(partition, Record::REPLY_FAILED),
                ]
            })],
            Self::Events => vec![
                lane("msg", UPDATES, 2, |partition| {
                    vec![
                        update_filter(partition, Class::Message),
                        record_filter(partition, Record::FLOW_STARTED),
                        record_filter(partition, Record::FLOW_COMPLETED),
                        record_filter(partition, Record::REPLY_FAILED),
                    ]
                }),
                lane("sts", UPDATES, 1, |partition| {
                    vec![update_filter(partition, Class::Status)]
                }),
            ],
            Self::Journal => vec![lane(WHOLE_LANE, UPDATES, 1, |_| {
                JOURNAL_SUBJECTS.map(str::to_owned).to_vec()
            })],
        }
    }

    /// Into how many parts its work is divided; the journal reads all of it in order.
    pub fn partitions(self, configured: u16) -> u16 {
        match self {
            Self::Journal => 1,
            _ => configured,
        }
    }

    /// The names of the lanes whose weights may be set: none of the journal, which works in batches.
    pub fn lane_names(self) -> Vec<&'static str> {
        match self {
            Self::Journal => Vec::new(),
            _ => self.lanes().iter().map(|lane| lane.name).collect(),
        }
    }
}

/// The lane of a pool that reads everything in batches.
pub const WHOLE_LANE: &str = "all";
