//! Limits of what clients may make the edge hold: connections, heads, bodies and waits.

use ackline_shared::config::Reader;
use std::time::Duration;

/// Limits of what clients may make us hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    pub connections_max: usize,
    /// Longest head of a request.
    pub header_bytes_max: usize,
    /// Time for the whole head.
    pub header_timeout: Duration,
    pub body_bytes_max: usize,
    /// Time for the whole body.
    pub body_timeout: Duration,
    /// Bytes of bodies held at once over all connections.
    pub body_bytes_total_max: usize,
}

impl Bounds {
    /// One of `threads` equal shares; bytes of bodies are counted over all threads and stay whole.
    pub fn share_of(self, threads: usize) -> Self {
        Self {
            connections_max: self.connections_max.div_ceil(threads.max(1)),
            ..self
        }
    }

    /// Reads them from `[ingress]`; mistakes stay with the reader.
    pub fn read(reader: &mut Reader) -> Self {
        Self {
            connections_max: size(reader.count("ingress.connections_max", 1..=1_000_000)),
            // hyper reads heads into buffers of 8 KiB at least.
            header_bytes_max: size(reader.bytes("ingress.header_bytes_max", 8 << 10..=1 << 20)),
            header_timeout: reader.duration("ingress.header_timeout"),
            body_bytes_max: size(reader.bytes("ingress.body_bytes_max", 1 << 10..=64 << 20)),
            body_timeout: reader.duration("ingress.body_timeout"),
            body_bytes_total_max: size(
                reader.bytes("ingress.body_bytes_total_max", 1 << 10..=1 << 31),
            ),
        }
    }
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}
