//! What is put into lines, and what happens to them.

use super::store::StoreError;
use crate::core::intake::Arrival;
use ackline_shared::subjects::{Partition, SpillLine};
use async_nats::jetstream::message::StreamMessage;
use std::sync::Arc;
use tokio::sync::OwnedSemaphorePermit;

/// What is put into a line.
#[derive(Debug)]
pub enum Item {
    /// An update, which is let go of once it is stored.
    Moved(Box<Arrival>),
    /// A copy of one that has started and stays, by its place in its stream.
    Twin {
        /// The stream.
        stream: &'static str,
        /// Its sequence there.
        sequence: u64,
        /// The reading it is of.
        session: u64,
    },
}

impl Item {
    /// Bytes of its payload that are held.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Moved(arrival) => arrival.work.payload.len(),
            Self::Twin { .. } => 0,
        }
    }

    /// The reading it is of.
    pub(super) fn session(&self) -> u64 {
        match self {
            Self::Moved(arrival) => arrival.reading.session,
            Self::Twin { session, .. } => *session,
        }
    }
}

/// Something that happened to a line.
#[derive(Debug)]
pub enum Event {
    /// A line is due, or what is to be stored.
    Due,
    /// A partition's lines were looked up for one reading of it.
    Counted(Partition, u64, Vec<(SpillLine, u64)>),
    /// The lines of all partitions were counted again, or not.
    Recounted(Vec<(SpillLine, u64)>),
    /// A batch is stored, and what it was made of acknowledged.
    Written(Vec<(Arc<SpillLine>, Item)>),
    /// A line was read for one reading of its partition.
    Loaded(Arc<SpillLine>, u64, Result<Loaded, StoreError>),
    /// A line's front was taken out, or not.
    Removed(Arc<SpillLine>, u64, bool),
    /// A task of ours broke.
    Broken,
}

/// What a read brought.
#[derive(Debug)]
pub enum Loaded {
    /// These messages, each with its share of bytes.
    Messages(Vec<(StreamMessage, OwnedSemaphorePermit)>),
    /// Nothing, and the stream has this many of the line.
    Nothing(u64),
}

/// What follows from an event.
#[derive(Debug, Default)]
pub struct Turnout {
    /// To be scheduled, in order.
    pub ready: Vec<Box<Arrival>>,
    /// Whether everything should begin anew.
    pub broken: bool,
}
