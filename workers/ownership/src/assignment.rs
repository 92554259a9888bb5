//! Which process should own which partition of a pool: a pure function of who takes part and who owns what.
//!
//! Invariants: every partition has an owner as soon as anybody takes part; shares differ by one at most; nobody
//! gives up a partition unless it has more than its share, so a change moves as few as it can. Whoever
//! computes it from the same view gets the same answer, whatever the order things were learned in.

use ackline_shared::subjects::{Partition, Pool};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

/// Names the wanted owner of each of a pool's `units` partitions, given who owns which `now`.
pub fn assign<'a>(
    pool: Pool,
    members: &BTreeSet<&'a str>,
    units: u16,
    now: &BTreeMap<Partition, &'a str>,
) -> BTreeMap<Partition, &'a str> {
    let mut shares = shares(pool, members, units, now);
    let mut wanted: BTreeMap<Partition, &'a str> = BTreeMap::new();
    for share in &mut shares {
        share.keep_best(pool);
        wanted.extend(
            share
                .kept
                .iter()
                .map(|partition| (*partition, share.member)),
        );
    }
    for partition in (0..units).map(Partition) {
        if wanted.contains_key(&partition) {
            continue;
        }
        let with_room = shares
            .iter_mut()
            .filter(|share| share.kept.len() < share.quota);
        if let Some(share) =
            with_room.max_by_key(|share| weight(pool, share.member, Some(partition)))
        {
            share.kept.push(partition);
            wanted.insert(partition, share.member);
        }
    }
    wanted
}

struct Share<'a> {
    member: &'a str,
    quota: usize,
    kept: Vec<Partition>,
}

impl Share<'_> {
    /// Chooses what to give up by a rule that stays the same while it is given up one by one.
    fn keep_best(&mut self, pool: Pool) {
        let member = self.member;
        self.kept
            .sort_by_key(|partition| Reverse(weight(pool, member, Some(*partition))));
        self.kept.truncate(self.quota);
    }
}

/// Everybody's share; what does not divide evenly goes to those who own most already.
fn shares<'a>(
    pool: Pool,
    members: &BTreeSet<&'a str>,
    units: u16,
    now: &BTreeMap<Partition, &'a str>,
) -> Vec<Share<'a>> {
    let units = usize::from(units);
    let (Some(even), Some(rest)) = (
        units.checked_div(members.len()),
        units.checked_rem(members.len()),
    ) else {
        return Vec::new();
    };
    let owned_by = |member: &str| -> Vec<Partition> {
        let owned = now
            .iter()
            .filter(|(partition, owner)| usize::from(partition.0) < units && **owner == member);
        owned.map(|(partition, _)| *partition).collect()
    };
    let mut shares: Vec<Share<'a>> = members
        .iter()
        .map(|member| Share {
            member,
            quota: even,
            kept: owned_by(member),
        })
        .collect();
    shares.sort_by_key(|share| (Reverse(share.kept.len()), weight(pool, share.member, None)));
    shares
        .iter_mut()
        .take(rest)
        .for_each(|share| share.quota += 1);
    shares
}

/// How well a partition suits a member: FNV-1a with a final mix, the same in every build.
fn weight(pool: Pool, member: &str, partition: Option<Partition>) -> u64 {
    let number = partition.map_or([0xff; 2], |partition| partition.0.to_be_bytes());
    let bytes = pool
        .as_str()
        .bytes()
        .chain([b'/'])
        .chain(member.bytes())
        .chain([b'/'])
        .chain(number);
    let mut hash = bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    hash ^= hash >> 33;
    hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
    hash ^ (hash >> 33)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAMES: [&str; 8] = ["a-1", "b-2", "c-3", "d-4", "e-5", "f-6", "g-7", "h-8"];

    fn members() -> impl Strategy<Value = BTreeSet<&'static str>> {
        proptest::sample::subsequence(NAMES.to_vec(), 0..=8)
            .prop_map(|names| names.into_iter().collect())
    }

    fn ownership() -> impl Strategy<Value = BTreeMap<Partition, &'static str>> {
        proptest::collection::btree_map(
            (0..64_u16).prop_map(Partition),
            proptest::sample::select(&NAMES[..]),
            0..64,
        )
    }

    fn loads(members: &BTreeSet<&str>, wanted: &BTreeMap<Partition, &str>) -> Vec<usize> {
        members
            .iter()
            .map(|name| wanted.values().filter(|owner| *owner == name).count())
            .collect()
    }

    proptest! {
        #[test]
        fn everything_is_owned_and_shares_differ_by_one_at_most(
            members in members(), units in 0..64_u16, now in ownership(),
        ) {
            let wanted = assign(Pool::Relay, &members, units, &now);
            if members.is_empty() {
                prop_assert!(wanted.is_empty());
            } else {
                prop_assert_eq!(wanted.len(), usize::from(units));
                let loads = loads(&members, &wanted);
                prop_assert!(loads.iter().max().unwrap() - loads.iter().min().unwrap() <= 1, "{:?}", loads);
            }
        }

        #[test]
        fn only_what_exceeds_a_share_or_lost_its_owner_moves(
            members in members(), units in 1..64_u16, now in ownership(),
        ) {
            prop_assume!(!members.is_empty());
            let wanted = assign(Pool::Relay, &members, units, &now);
            let share = usize::from(units) / members.len();
            for member in &members {
                let owned = |map: &BTreeMap<Partition, &str>| -> BTreeSet<Partition> {
                    map.iter().filter(|(p, owner)| p.0 < units && *owner == member).map(|(p, _)| *p).collect()
                };
                let (had, has) = (owned(&now), owned(&wanted));
                let given_up = had.difference(&has).count();
                prop_assert!(given_up == 0 || has.len() >= share && has.is_subset(&had), "{member} gave {given_up}");
            }
        }

        #[test]
        fn one_move_after_another_reaches_the_same_end_and_stays_there(
            members in members(), units in 1..64_u16, now in ownership(), order in proptest::collection::vec(any::<u16>(), 64),
        ) {
            prop_assume!(!members.is_empty());
            let end = assign(Pool::Relay, &members, units, &now);
            let mut current: BTreeMap<_, _> = now.into_iter().filter(|(p, _)| p.0 < units).collect();
            for pick in order {
                let wanted = assign(Pool::Relay, &members, units, &current);
                let open: Vec<_> = wanted.iter().filter(|(p, owner)| current.get(p) != Some(*owner)).collect();
                let Some((partition, owner)) = open.get(usize::from(pick) % open.len().max(1)) else { break };
                // Given up first, taken over second, as it happens.
                match current.remove(partition) {
                    Some(previous) if members.contains(previous) => {}
                    _ => { current.insert(**partition, **owner); }
                }
            }
            for _ in 0..128 {
                let wanted = assign(Pool::Relay, &members, units, &current);
                if wanted == current { break; }
                current = wanted;
            }
            prop_assert_eq!(loads(&members, &current).iter().sum::<usize>(), usize::from(units));
            prop_assert_eq!(&assign(Pool::Relay, &members, units, &current), &current);
            prop_assert_eq!(end.len(), current.len());
        }
    }

    #[test]
    fn whoever_joins_takes_only_its_share() {
        let two = BTreeSet::from(["a-1", "b-2"]);
        let before = assign(Pool::Flows, &two, 32, &BTreeMap::new());
        let three = BTreeSet::from(["a-1", "b-2", "c-3"]);
        let after = assign(Pool::Flows, &three, 32, &before);
        let moved = before
            .iter()
            .filter(|(partition, owner)| after[partition] != **owner)
            .count();
        assert_eq!(moved, 10);
        assert_eq!(loads(&three, &after), [11, 11, 10]);
    }
}
