//! Shuffle sharding: a tenant owns `k` of the partitions and a conversation picks one of those `k`.
//!
//! A noisy tenant therefore touches only `k` owners, and one conversation always meets the same one. The
//! hash is part of the wire format: changing it would reorder every conversation in flight.

use crate::ids::{ConversationKey, TenantId};
use crate::subjects::Partition;

/// The most shards that a tenant may have.
pub const SHARDS_MAX: u8 = 8;

/// FNV-1a, 64 bit, finished by a multiply-xor mix so that low bits are usable.
fn stable_hash(parts: &[&[u8]]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    for byte in parts.iter().copied().flatten() {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

/// Picks the partition of a conversation: the `slot`-th of the tenant's own `shards` partitions.
pub fn of_conversation(
    tenant: &TenantId,
    key: &ConversationKey,
    shards: u8,
    partitions: u16,
) -> Partition {
    let partitions = partitions.max(1);
    let shards = u16::from(shards.max(1)).min(partitions);
    let slot = stable_hash(&[key.as_str().as_bytes()]) % u64::from(shards);
    Partition(tenant_shard(tenant, slot, partitions))
}

/// Picks the partition of a send command: all of one business number's sends share one, so its pacing has one owner.
pub fn of_phone(phone: &str, partitions: u16) -> Partition {
    let index = stable_hash(&[phone.as_bytes()]) % u64::from(partitions.max(1));
    Partition(u16::try_from(index).unwrap_or(0))
}

/// The partitions that may have conversations of a tenant, however many shards it has now or had before.
pub fn possible(tenant: &TenantId, partitions: u16) -> impl Iterator<Item = Partition> {
    let partitions = partitions.max(1);
    let shards = u16::from(SHARDS_MAX).min(partitions);
    (0..u64::from(shards)).map(move |slot| Partition(tenant_shard(tenant, slot, partitions)))
}

/// The `slot`-th partition of a tenant: a stride walk, so its slots are distinct until all partitions are used.
fn tenant_shard(tenant: &TenantId, slot: u64, partitions: u16) -> u16 {
    let count = u64::from(partitions);
    let hash = stable_hash(&[tenant.as_str().as_bytes()]);
    let start = hash % count;
    let stride = coprime_stride((hash >> 32) % count, count);
    u16::try_from((start + slot * stride) % count).unwrap_or(0)
}

fn coprime_stride(wanted: u64, count: u64) -> u64 {
    (wanted.max(1)..wanted.max(1) + count)
        .find(|stride| gcd(*stride, count) == 1)
        .unwrap_or(1)
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_conversation_always_meets_the_same_partition() {
        let (tenant, key) = (
            TenantId::new("acme").unwrap(),
            ConversationKey::user("US.1"),
        );
        // Written down: a change of these numbers is a change of the wire format.
        assert_eq!(
            of_conversation(&tenant, &key, 4, 32),
            of_conversation(&tenant, &key, 4, 32)
        );
        assert_eq!(
            of_phone("106540352242922", 32),
            of_phone("106540352242922", 32)
        );
    }

    #[test]
    fn every_conversation_of_a_tenant_is_in_one_of_its_possible_partitions() {
        for name in ["a", "acme", "globex"] {
            let tenant = TenantId::new(name).unwrap();
            let possible: HashSet<_> = possible(&tenant, 32).collect();
            assert_eq!(possible.len(), 8);
            for (shards, key) in [(1, "US.1"), (4, "US.2"), (8, "US.3"), (8, "US.4")] {
                let key = ConversationKey::user(key);
                assert!(possible.contains(&of_conversation(&tenant, &key, shards, 32)));
            }
        }
    }

    #[test]
    fn a_tenant_stays_within_its_shards_and_uses_all_of_them() {
        for name in ["a", "acme", "globex", "initech-7"] {
            let tenant = TenantId::new(name).unwrap();
            for shards in [2_u8, 4, 8] {
                let seen: HashSet<_> = (0..4000)
                    .map(|i| {
                        of_conversation(
                            &tenant,
                            &ConversationKey::user(&format!("US.{i}")),
                            shards,
                            32,
                        )
                    })
                    .collect();
                assert_eq!(seen.len(), usize::from(shards), "{name} with {shards}");
            }
        }
    }

    #[test]
    fn tenants_spread_over_all_partitions() {
        let mut load = vec![0_u32; 32];
        for i in 0..2000 {
            let tenant = TenantId::new(format!("t{i}")).unwrap();
            let p = of_conversation(&tenant, &ConversationKey::user("US.1"), 4, 32);
            load[usize::from(p.0)] += 1;
        }
        assert!(load.iter().all(|n| (20..160).contains(n)), "{load:?}");
    }

    #[test]
    fn more_shards_than_partitions_is_harmless() {
        let tenant = TenantId::new("acme").unwrap();
        assert_eq!(
            of_conversation(&tenant, &ConversationKey::none(), 8, 1),
            Partition(0)
        );
    }
}
