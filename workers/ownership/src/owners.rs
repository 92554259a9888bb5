//! Who owns what, as recorded, and what a process should do about it: pure.
//!
//! A record is changed only by compare-and-set, so a partition has one owner at a time. It may be claimed when
//! nobody has it, its owner gave it up, or its owner is dead.

use super::assignment::assign;
use super::lease::FencingToken;
use super::members::Members;
use ackline_shared::stored::Stored;
use ackline_shared::subjects::{Partition, Pool};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Who owns a partition of a pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The process, by a name no other and no later one has.
    pub instance: String,
    /// The fencing epoch of its claim.
    pub epoch: u64,
    /// Whether it has given the partition up.
    pub released: bool,
}

impl Stored for Owner {}

/// A record as it was read; no owner where one was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recorded {
    pub revision: u64,
    pub owner: Option<Owner>,
}

/// All records, as far as we were told.
#[derive(Debug, Default)]
pub struct Owners {
    bucket: i128,
    records: BTreeMap<(Pool, Partition), Recorded>,
}

impl Owners {
    /// Begins to read the bucket anew; `bucket` tells one life of it from another.
    pub fn restart(&mut self, bucket: i128) {
        *self = Self {
            bucket,
            records: BTreeMap::new(),
        };
    }

    /// Which life of the bucket the records are from.
    pub fn bucket(&self) -> i128 {
        self.bucket
    }

    /// Takes in a record, unless a later one is known.
    pub fn hear(&mut self, pool: Pool, partition: Partition, recorded: Recorded) {
        let known = self
            .records
            .get(&(pool, partition))
            .map_or(0, |known| known.revision);
        if recorded.revision > known {
            self.records.insert((pool, partition), recorded);
        }
    }

    fn get(&self, pool: Pool, partition: Partition) -> Option<&Recorded> {
        self.records.get(&(pool, partition))
    }

    fn of(&self, pool: Pool) -> impl Iterator<Item = (Partition, &Owner)> {
        let range = self
            .records
            .range((pool, Partition(0))..=(pool, Partition(u16::MAX)));
        range.filter_map(|((_, partition), recorded)| Some((*partition, recorded.owner.as_ref()?)))
    }
}

/// A partition that may be claimed, and the record that the claim replaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claimable {
    pub partition: Partition,
    /// The revision to replace, 0 where there is none.
    pub revision: u64,
    pub epoch: u64,
}

/// What a process should do about a pool.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub claim: Vec<Claimable>,
    pub leave: Vec<Partition>,
    /// Drop these: somebody else has them.
    pub lost: Vec<Partition>,
}

#[derive(Debug, Clone, Copy)]
pub struct Me<'a> {
    pub instance: &'a str,
    /// Whether it takes part in the pool, or is leaving it.
    pub takes_part: bool,
}

/// Plans for a process that holds these partitions under these fencing tokens, or none while it is opening one.
pub fn plan(
    Me {
        instance: me,
        takes_part,
    }: Me<'_>,
    pool: Pool,
    units: u16,
    members: &Members,
    owners: &Owners,
    held: &BTreeMap<Partition, Option<FencingToken>>,
) -> Plan {
    let is_lost = |(partition, token): (&Partition, &Option<FencingToken>)| {
        let token = token.as_ref()?;
        let later = owners
            .get(pool, *partition)
            .filter(|recorded| recorded.revision > token.revision);
        (token.bucket != owners.bucket || later.is_some()).then_some(*partition)
    };
    let lost: Vec<Partition> = held.iter().filter_map(is_lost).collect();
    let holds = |partition: &Partition| held.contains_key(partition) && !lost.contains(partition);
    let mut now: BTreeMap<Partition, &str> = owners
        .of(pool)
        .filter(|(_, owner)| !owner.released && owner.instance != me)
        .map(|(partition, owner)| (partition, owner.instance.as_str()))
        .collect();
    now.extend(
        held.keys()
            .filter(|partition| holds(partition))
            .map(|partition| (*partition, me)),
    );
    let mut runners = members.runners(pool);
    if !takes_part {
        runners.remove(me);
    }
    let wanted = assign(pool, &runners, units, &now);
    let mine = |partition: &Partition| wanted.get(partition).is_some_and(|owner| *owner == me);
    let leave = held
        .keys()
        .filter(|partition| holds(partition) && !mine(partition))
        .copied()
        .collect();
    let claimable = |partition: Partition| {
        let recorded = owners.get(pool, partition);
        let owner = recorded.and_then(|recorded| recorded.owner.as_ref());
        let is_free = |owner: &Owner| {
            owner.released || owner.instance == me || !members.is_alive(&owner.instance)
        };
        owner.is_none_or(is_free).then(|| Claimable {
            partition,
            revision: recorded.map_or(0, |recorded| recorded.revision),
            epoch: owner.map_or(0, |owner| owner.epoch),
        })
    };
    let wanted = (0..units)
        .map(Partition)
        .filter(|partition| mine(partition) && !holds(partition));
    Plan {
        claim: wanted.filter_map(claimable).collect(),
        leave,
        lost,
    }
}

#[cfg(test)]
mod tests {
    use super::super::members::Member;
    use super::*;
    use std::collections::BTreeSet;
    use std::time::{Duration, Instant};

    const ME: Me<'_> = Me {
        instance: "me",
        takes_part: true,
    };

    fn members(names: &[&str]) -> Members {
        let mut members = Members::new("me", Duration::from_secs(1));
        for name in names {
            let member = Member {
                pools: BTreeSet::from(["relay".to_owned()]),
                ttl_ms: 4000,
            };
            members.hear(name, Some(member), Instant::now());
        }
        members
    }

    fn owners(records: &[(u16, u64, &str, bool)]) -> Owners {
        let mut owners = Owners::default();
        for (number, revision, instance, released) in records {
            let owner = Owner {
                instance: (*instance).to_owned(),
                epoch: 7,
                released: *released,
            };
            let recorded = Recorded {
                revision: *revision,
                owner: Some(owner),
            };
            owners.hear(Pool::Relay, Partition(*number), recorded);
        }
        owners
    }

    fn held(held: &[(u16, u64)]) -> BTreeMap<Partition, Option<FencingToken>> {
        let token = |revision| {
            Some(FencingToken {
                revision,
                epoch: 1,
                bucket: 0,
            })
        };
        held.iter()
            .map(|(number, revision)| (Partition(*number), token(*revision)))
            .collect()
    }

    #[test]
    fn the_free_the_given_up_and_the_dead_ones_are_claimed() {
        let owners = owners(&[
            (1, 5, "me", true),
            (2, 6, "dead", false),
            (3, 7, "you", false),
        ]);
        let plan = plan(
            ME,
            Pool::Relay,
            8,
            &members(&["me", "you"]),
            &owners,
            &held(&[]),
        );
        let claimable = |partition| {
            plan.claim
                .iter()
                .find(|claimable| claimable.partition == Partition(partition))
        };
        assert!(claimable(3).is_none());
        assert_eq!(plan.claim.len(), 4, "half of eight");
        for claimable in &plan.claim {
            let expected = match claimable.partition.0 {
                1 => (5, 7),
                2 => (6, 7),
                _ => (0, 0),
            };
            assert_eq!((claimable.revision, claimable.epoch), expected);
        }
    }

    #[test]
    fn what_exceeds_the_share_is_given_up_only_by_its_owner() {
        let owners = owners(&[
            (0, 1, "me", false),
            (1, 2, "me", false),
            (2, 3, "you", false),
        ]);
        let alive = members(&["me", "you", "her"]);
        let mine = plan(
            ME,
            Pool::Relay,
            3,
            &alive,
            &owners,
            &held(&[(0, 1), (1, 2)]),
        );
        assert_eq!((mine.leave.len(), mine.claim.len()), (1, 0));
        assert_eq!(
            plan(
                Me {
                    instance: "her",
                    ..ME
                },
                Pool::Relay,
                3,
                &alive,
                &owners,
                &held(&[])
            ),
            Plan::default()
        );
    }

    #[test]
    fn a_later_record_or_another_bucket_means_lost() {
        let mut owners = owners(&[(0, 9, "you", false)]);
        let alive = members(&["me", "you"]);
        let first = plan(
            ME,
            Pool::Relay,
            2,
            &alive,
            &owners,
            &held(&[(0, 4), (1, 5)]),
        );
        assert_eq!((first.lost, first.leave), (vec![Partition(0)], vec![]));
        owners.restart(1);
        let second = plan(ME, Pool::Relay, 2, &alive, &owners, &held(&[(1, 5)]));
        assert_eq!(second.lost, [Partition(1)]);
        assert_eq!(second.claim.len(), 1);
    }

    #[test]
    fn who_leaves_gives_everything_up() {
        let owners = owners(&[(0, 1, "me", false), (1, 2, "me", false)]);
        let leaving = Me {
            takes_part: false,
            ..ME
        };
        let held = held(&[(0, 1), (1, 2)]);
        let plan = plan(leaving, Pool::Relay, 2, &members(&["me"]), &owners, &held);
        assert_eq!((plan.leave.len(), plan.claim.len()), (2, 0));
    }

    #[test]
    fn an_old_report_does_not_undo_a_newer_one() {
        let mut owners = owners(&[(0, 9, "you", false)]);
        owners.hear(
            Pool::Relay,
            Partition(0),
            Recorded {
                revision: 8,
                owner: None,
            },
        );
        assert_eq!(owners.get(Pool::Relay, Partition(0)).unwrap().revision, 9);
    }
}
