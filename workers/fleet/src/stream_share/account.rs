//! How many bytes of a stream are whose: counted message by message, forgotten from the front.

use ackline_shared::ids::TenantId;
use std::collections::{HashMap, VecDeque};

/// Messages that are forgotten together.
const CHUNK: u64 = 512;

/// What is counted of one stream.
#[derive(Debug)]
pub struct Account {
    next: u64,
    chunks: VecDeque<Chunk>,
    held: HashMap<TenantId, u64>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Chunk {
    number: u64,
    held: HashMap<TenantId, u64>,
    bytes: u64,
}

impl Account {
    /// Starts with nothing, at a sequence.
    pub fn new(from: u64) -> Self {
        Self {
            next: from,
            chunks: VecDeque::new(),
            held: HashMap::new(),
            bytes: 0,
        }
    }

    /// The sequence to count next.
    pub fn next(&self) -> u64 {
        self.next
    }

    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    pub fn held(&self) -> &HashMap<TenantId, u64> {
        &self.held
    }

    /// Counts a message; sequences grow.
    pub fn add(&mut self, sequence: u64, tenant: Option<TenantId>, bytes: u64) {
        self.next = sequence + 1;
        self.bytes += bytes;
        let number = sequence / CHUNK;
        if self
            .chunks
            .back()
            .is_none_or(|chunk| chunk.number != number)
        {
            self.chunks.push_back(Chunk {
                number,
                ..Chunk::default()
            });
        }
        let Some(chunk) = self.chunks.back_mut() else {
            return;
        };
        chunk.bytes += bytes;
        if let Some(tenant) = tenant {
            *chunk.held.entry(tenant.clone()).or_default() += bytes;
            *self.held.entry(tenant).or_default() += bytes;
        }
    }

    /// Forgets what lies before a sequence, a chunk at a time.
    pub fn forget_below(&mut self, first: u64) {
        while self
            .chunks
            .front()
            .is_some_and(|chunk| (chunk.number + 1) * CHUNK <= first)
        {
            let Some(chunk) = self.chunks.pop_front() else {
                return;
            };
            self.bytes = self.bytes.saturating_sub(chunk.bytes);
            for (tenant, bytes) in chunk.held {
                if let Some(held) = self.held.get_mut(&tenant) {
                    *held = held.saturating_sub(bytes);
                    if *held == 0 {
                        self.held.remove(&tenant);
                    }
                }
            }
        }
        self.next = self.next.max(first);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenant(name: &str) -> TenantId {
        TenantId::new(name).unwrap()
    }

    #[test]
    fn bytes_are_counted_and_forgotten_by_tenant() {
        let mut account = Account::new(10);
        for sequence in 10..3000 {
            let name = if sequence % 3 == 0 { "acme" } else { "globex" };
            account.add(sequence, Some(tenant(name)), 2);
        }
        account.add(3000, None, 100);
        assert_eq!((account.next(), account.bytes()), (3001, 2 * 2990 + 100));
        assert_eq!(account.held()[&tenant("acme")], 2 * 996);
        account.forget_below(2048);
        assert_eq!(account.bytes(), 2 * (3000 - 2048) + 100);
        account.forget_below(9000);
        assert!(account.held().is_empty() && account.bytes() == 0 && account.next() == 9000);
    }
}
