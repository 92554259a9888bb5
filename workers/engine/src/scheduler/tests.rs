//! The scheduler against examples and against a model that is too slow to be wrong.

use super::*;
use proptest::prelude::*;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

fn tenant(name: &str) -> TenantId {
    TenantId::new(name).unwrap()
}

fn rules(lane_weights: &[u32], tenant_cap: usize) -> Rules {
    Rules {
        permits: usize::MAX,
        lane_weights: lane_weights.to_vec(),
        tenant_cap,
        ..Rules::default()
    }
}

fn with_share(rules: &Rules, name: &str, share: Share) -> Rules {
    let mut tenants = HashMap::clone(&rules.tenants);
    tenants.insert(tenant(name), share);
    Rules {
        tenants: Arc::new(tenants),
        ..rules.clone()
    }
}

fn push(scheduler: &mut Scheduler<u32>, lane: usize, name: &str, conversation: u32, item: u32) {
    push_dear(scheduler, lane, name, conversation, 1, item);
}

fn push_dear(
    scheduler: &mut Scheduler<u32>,
    lane: usize,
    name: &str,
    conversation: u32,
    cost: u32,
    item: u32,
) {
    let place = scheduler.place(lane, &tenant(name), conversation);
    scheduler.push(place, cost, item);
}

/// Takes and finishes up to `count` pieces.
fn run(scheduler: &mut Scheduler<u32>, count: usize) -> Vec<u32> {
    let mut done = Vec::new();
    while done.len() < count
        && let Some((slot, item)) = scheduler.take()
    {
        scheduler.finish(slot);
        done.push(item);
    }
    done
}

#[test]
fn a_long_queue_delays_only_its_own_tenant() {
    let mut scheduler = Scheduler::new(rules(&[1], 100));
    for n in 0..1000 {
        push(&mut scheduler, 0, "noisy", n, n);
    }
    push(&mut scheduler, 0, "quiet", 0, 1000);
    assert!(run(&mut scheduler, 3).contains(&1000));
}

#[test]
fn whoever_comes_with_a_single_piece_goes_before_a_backlog_and_finds_a_permit_free() {
    let mut scheduler = Scheduler::new(Rules {
        permits: 8,
        ..rules(&[1], 100)
    });
    for n in 0..100 {
        push(&mut scheduler, 0, "noisy", n, 0);
        push(&mut scheduler, 0, "busy", n, 1);
    }
    let mut running: Vec<_> = std::iter::from_fn(|| scheduler.take()).collect();
    assert_eq!(running.len(), 6, "two permits are kept free");
    push(&mut scheduler, 0, "quiet", 0, 2);
    let (quiet, item) = scheduler.take().unwrap();
    assert_eq!(item, 2);
    push(&mut scheduler, 0, "another", 0, 3);
    assert_eq!(scheduler.take().unwrap().1, 3);
    // With nothing free it waits for the next permit, and for nobody else.
    push(&mut scheduler, 0, "third", 0, 4);
    assert!(scheduler.take().is_none());
    scheduler.finish(running.pop().unwrap().0);
    assert_eq!(scheduler.take().unwrap().1, 4);
    scheduler.finish(quiet);
    assert!(
        scheduler.take().is_none(),
        "the kept permits are for neither backlog"
    );
}

#[test]
fn with_nobody_new_for_a_while_backlogs_get_all_permits() {
    let running_after = |started: usize| {
        let mut scheduler = Scheduler::new(Rules {
            permits: 8,
            ..rules(&[1], 100)
        });
        for n in 0..1_000 {
            push(&mut scheduler, 0, "noisy", n, 0);
            push(&mut scheduler, 0, "busy", n, 1);
        }
        assert_eq!(run(&mut scheduler, started).len(), started);
        std::iter::from_fn(|| scheduler.take()).count()
    };
    // The first piece of each came as a single one.
    assert_eq!(running_after(8 * ROUNDS_KEPT - 8), 6);
    assert_eq!(running_after(2 + 8 * ROUNDS_KEPT), 8);
}

#[test]
fn a_backlog_gets_its_turn_however_many_come_with_a_single_piece() {
    let mut scheduler = Scheduler::new(rules(&[1], 100));
    push(&mut scheduler, 0, "noisy", 0, 1);
    push(&mut scheduler, 0, "noisy", 1, 1);
    let mut came = 0;
    for n in 0..90 {
        push(&mut scheduler, 0, &format!("quiet-{n}"), 0, 0);
        push(&mut scheduler, 0, "noisy", 2 + n, 1);
        came += run(&mut scheduler, 1).iter().sum::<u32>();
    }
    assert!((9..=11).contains(&came), "{came} of 90");
}

#[test]
fn lanes_share_turns_by_weight_and_none_starves() {
    let mut scheduler = Scheduler::new(rules(&[4, 1], 1000));
    for n in 0..100 {
        push(&mut scheduler, 0, "a", n, 0);
        push(&mut scheduler, 1, "a", n, 1);
    }
    assert_eq!(run(&mut scheduler, 50).iter().sum::<u32>(), 10);
}

#[test]
fn work_waiting_for_a_retry_holds_its_conversation_and_nobody_else() {
    let mut scheduler = Scheduler::new(rules(&[1], 1));
    push(&mut scheduler, 0, "a", 0, 1);
    push(&mut scheduler, 0, "a", 0, 2);
    push(&mut scheduler, 0, "a", 7, 3);
    let (held, item) = scheduler.take().unwrap();
    assert_eq!(item, 1);
    assert!(scheduler.take().is_none(), "the cap is one");
    scheduler.hold(&held);
    assert_eq!(run(&mut scheduler, 9), [3], "the conversation is held");
    scheduler.resume(held, 1);
    assert_eq!(run(&mut scheduler, 9), [1, 2]);
}

#[test]
fn held_work_that_went_elsewhere_lets_its_conversation_go_on() {
    let mut scheduler = Scheduler::new(rules(&[1], 8));
    push(&mut scheduler, 0, "a", 0, 1);
    push(&mut scheduler, 0, "a", 0, 2);
    let (held, _) = scheduler.take().unwrap();
    scheduler.hold(&held);
    scheduler.let_go(held);
    assert_eq!(run(&mut scheduler, 9), [2]);
}

#[test]
fn what_costs_more_takes_more_of_its_tenants_turns() {
    let mut scheduler = Scheduler::new(rules(&[1], 8));
    for n in 0..100 {
        push_dear(&mut scheduler, 0, "dear", n, 3, 1);
        push_dear(&mut scheduler, 0, "cheap", n, 1, 0);
    }
    let dear = run(&mut scheduler, 80).iter().sum::<u32>();
    assert!((19..=21).contains(&dear), "{dear} of 80");
}

#[test]
fn a_pause_keeps_what_is_queued_and_its_order() {
    let rules = rules(&[1], 8);
    let mut scheduler = Scheduler::new(rules.clone());
    for n in 0..4 {
        push(&mut scheduler, 0, "a", 0, n);
        push(&mut scheduler, 0, "b", 0, 100 + n);
    }
    scheduler.set_rules(with_share(
        &rules,
        "a",
        Share {
            paused: true,
            ..Share::default()
        },
    ));
    assert_eq!(run(&mut scheduler, 99), [100, 101, 102, 103]);
    assert_eq!(scheduler.queued_of(&tenant("a")), 4);
    scheduler.set_rules(Rules {
        paused: true,
        ..rules.clone()
    });
    assert_eq!(run(&mut scheduler, 99), [0_u32; 0]);
    scheduler.set_rules(rules);
    assert_eq!(run(&mut scheduler, 99), [0, 1, 2, 3]);
}

#[test]
fn what_is_not_kept_leaves_and_the_rest_keeps_its_order() {
    let mut scheduler = Scheduler::new(rules(&[1, 1], 8));
    for n in 0..30 {
        push(
            &mut scheduler,
            (n % 2) as usize,
            ["a", "b", "c"][(n % 3) as usize],
            n % 5,
            n,
        );
    }
    let (slot, running) = scheduler.take().unwrap();
    scheduler.retain(|item| item % 5 == 0);
    scheduler.finish(slot);
    let mut rest = run(&mut scheduler, 99);
    rest.sort_unstable();
    let expected: Vec<u32> = (0..30).filter(|n| n % 5 == 0 && *n != running).collect();
    assert_eq!((rest, scheduler.queued()), (expected, 0));
}

#[test]
fn nothing_of_many_conversations_stays_behind() {
    let mut scheduler = Scheduler::new(rules(&[1], 8));
    for n in 0..200_000 {
        push(&mut scheduler, 0, if n % 2 == 0 { "a" } else { "b" }, n, n);
        if n % 10_000 == 9_999 {
            assert_eq!(run(&mut scheduler, usize::MAX).len(), 10_000);
        }
    }
    assert_eq!(scheduler.arena.places(), 0);
}

/// What the scheduler promises, kept in the plainest way: every queue as a list.
#[derive(Default)]
struct Model {
    queues: BTreeMap<(usize, String, u32), Vec<u32>>,
    busy: Vec<(usize, String, u32)>,
    running: HashMap<String, usize>,
}

impl Model {
    fn running(&self) -> usize {
        self.running.values().sum()
    }

    /// Whether a queue's head could start now.
    fn is_eligible(&self, queue: &(usize, String, u32), rules: &Rules) -> bool {
        let share = rules.share(&tenant(&queue.1));
        let running = self.running.get(&queue.1).copied().unwrap_or(0);
        !rules.paused
            && self.running() < rules.permits
            && !share.paused
            && running < share.cap.unwrap_or(rules.tenant_cap)
            && !self.busy.contains(queue)
            && self
                .queues
                .get(queue)
                .is_some_and(|items| !items.is_empty())
    }

    /// Finds whose head an item is and starts it.
    fn start(&mut self, item: u32) -> Option<(usize, String, u32)> {
        let queue = self
            .queues
            .iter()
            .find(|(_, items)| items.first() == Some(&item))?
            .0
            .clone();
        self.queues.get_mut(&queue)?.remove(0);
        self.busy.push(queue.clone());
        *self.running.entry(queue.1.clone()).or_default() += 1;
        Some(queue)
    }

    fn stop(&mut self, queue: &(usize, String, u32)) {
        *self.running.entry(queue.1.clone()).or_default() -= 1;
    }

    fn free(&mut self, queue: &(usize, String, u32)) {
        self.busy.retain(|busy| busy != queue);
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push {
        lane: usize,
        tenant: u8,
        conversation: u32,
        cost: u32,
    },
    Take,
    Finish(usize),
    Hold(usize),
    Resume(usize),
    LetGo(usize),
    Permits(usize),
    Cap(usize),
    Pause(bool),
    Share {
        tenant: u8,
        weight: u32,
        cap: Option<usize>,
        paused: bool,
    },
    LaneWeights(u32, u32),
    DropMultiplesOf(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let share = (
        0..4_u8,
        1..40_u32,
        proptest::option::of(1..4_usize),
        any::<bool>(),
    );
    prop_oneof![
        12 => (0..2_usize, 0..4_u8, 0..3_u32, 1..4_u32)
            .prop_map(|(lane, tenant, conversation, cost)| Step::Push { lane, tenant, conversation, cost }),
        12 => Just(Step::Take),
        6 => (0..8_usize).prop_map(Step::Finish),
        2 => (0..8_usize).prop_map(Step::Hold),
        2 => (0..8_usize).prop_map(Step::Resume),
        1 => (0..8_usize).prop_map(Step::LetGo),
        1 => (1..6_usize).prop_map(Step::Permits),
        1 => (1..4_usize).prop_map(Step::Cap),
        1 => any::<bool>().prop_map(Step::Pause),
        1 => share.prop_map(|(tenant, weight, cap, paused)| Step::Share { tenant, weight, cap, paused }),
        1 => (1..5_u32, 1..5_u32).prop_map(|(one, two)| Step::LaneWeights(one, two)),
        1 => (2..5_u32).prop_map(Step::DropMultiplesOf),
    ]
}

proptest! {
    /// Any history keeps order, exclusivity, caps and permits, starts something whenever something may start, and
    /// gives out everything exactly once.
    #[test]
    fn any_history_agrees_with_the_model(steps in proptest::collection::vec(step(), 1..300)) {
        let unbounded = rules(&[1, 1], 100);
        let mut rules = Rules { permits: 4, ..rules(&[3, 1], 2) };
        let (mut scheduler, mut model) = (Scheduler::new(rules.clone()), Model::default());
        let mut running: Vec<(Slot, u32, (usize, String, u32))> = Vec::new();
        let mut held: Vec<(Slot, u32, (usize, String, u32))> = Vec::new();
        let mut next = 1_u32;
        for step in steps {
            let was = rules.clone();
            match step {
                Step::Push { lane, tenant: n, conversation, cost } => {
                    push_dear(&mut scheduler, lane, &format!("t{n}"), conversation, cost, next);
                    model.queues.entry((lane, format!("t{n}"), conversation)).or_default().push(next);
                    next += 1;
                }
                Step::Take => {
                    let could = model.queues.keys().any(|queue| model.is_eligible(queue, &rules));
                    let taken = scheduler.take();
                    prop_assert!(taken.is_none() || could, "it starts nothing that may not start");
                    let free = rules.permits.saturating_sub(model.running());
                    prop_assert!(taken.is_some() || !could || free <= kept_free(rules.permits), "it starts what may start");
                    if let Some((slot, item)) = taken {
                        let queue = model.queues.iter().find(|(_, items)| items.first() == Some(&item));
                        let queue = queue.map(|(queue, _)| queue.clone());
                        prop_assert!(queue.is_some_and(|queue| model.is_eligible(&queue, &rules)), "{} may not start", item);
                        let queue = model.start(item).unwrap();
                        running.push((slot, item, queue));
                    }
                }
                Step::Finish(n) if !running.is_empty() => {
                    let (slot, _, queue) = running.swap_remove(n % running.len());
                    scheduler.finish(slot);
                    model.stop(&queue);
                    model.free(&queue);
                }
                Step::Hold(n) if !running.is_empty() => {
                    let entry = running.swap_remove(n % running.len());
                    scheduler.hold(&entry.0);
                    model.stop(&entry.2);
                    held.push(entry);
                }
                Step::Resume(n) if !held.is_empty() => {
                    let (slot, item, queue) = held.swap_remove(n % held.len());
                    scheduler.resume(slot, item);
                    model.free(&queue);
                    model.queues.entry(queue).or_default().insert(0, item);
                }
                Step::LetGo(n) if !held.is_empty() => {
                    let (slot, _, queue) = held.swap_remove(n % held.len());
                    scheduler.let_go(slot);
                    model.free(&queue);
                }
                Step::DropMultiplesOf(n) => {
                    scheduler.retain(|item| item % n != 0);
                    model.queues.values_mut().for_each(|items| items.retain(|item| item % n != 0));
                }
                Step::Permits(permits) => rules.permits = permits,
                Step::Cap(cap) => rules.tenant_cap = cap,
                Step::Pause(paused) => rules.paused = paused,
                Step::LaneWeights(one, two) => rules.lane_weights = vec![one, two],
                Step::Share { tenant, weight, cap, paused } => {
                    rules = with_share(&rules, &format!("t{tenant}"), Share { weight, cap, paused });
                }
                _ => {}
            }
            if was != rules {
                scheduler.set_rules(rules.clone());
            }
            prop_assert_eq!(scheduler.running(), model.running());
            prop_assert_eq!(scheduler.queued(), model.queues.values().map(Vec::len).sum::<usize>());
        }
        scheduler.set_rules(unbounded);
        held.into_iter().for_each(|(slot, item, queue)| {
            scheduler.resume(slot, item);
            model.queues.entry(queue).or_default().insert(0, item);
        });
        running.into_iter().for_each(|(slot, ..)| scheduler.finish(slot));
        model.busy.clear();
        while let Some((slot, item)) = scheduler.take() {
            let queue = model.start(item);
            prop_assert!(queue.is_some(), "{} came out of order", item);
            model.free(&queue.unwrap());
            scheduler.finish(slot);
        }
        prop_assert!(model.queues.values().all(Vec::is_empty), "something never came out");
        prop_assert_eq!(scheduler.arena.places(), 0, "something stays behind");
    }

    /// Tenants with work all the time are served in proportion to their weights, whatever their caps leave idle.
    #[test]
    fn turns_are_shared_by_weight(weights in proptest::collection::vec(1..60_u32, 2..6)) {
        let mut rules = rules(&[1], 1000);
        for (n, weight) in weights.iter().enumerate() {
            rules = with_share(&rules, &format!("t{n}"), Share { weight: *weight, ..Share::default() });
        }
        let mut scheduler = Scheduler::new(rules);
        let mut counts = vec![0_u32; weights.len()];
        for n in 0..weights.len() {
            (0..2).for_each(|conversation| push(&mut scheduler, 0, &format!("t{n}"), conversation, n as u32));
        }
        let total: u32 = weights.iter().sum();
        let turns = total * 20;
        for turn in 0..turns {
            let (slot, item) = scheduler.take().unwrap();
            push(&mut scheduler, 0, &format!("t{item}"), 2 + turn, item);
            scheduler.finish(slot);
            counts[item as usize] += 1;
        }
        for (weight, count) in weights.iter().zip(&counts) {
            let due = weight * 20;
            // A tenant is ahead or behind by its own turn and one round at most.
            prop_assert!(count.abs_diff(due) <= weight / WEIGHT_DEFAULT + 2, "{:?} for {:?}", counts, weights);
        }
    }

    /// However the others behave, a lane and a tenant with work are served within a bounded number of turns.
    #[test]
    fn nobody_with_work_waits_longer_than_a_round(
        arrivals in proptest::collection::vec((0..2_usize, 0..5_u8), 1..400), lanes in (1..9_u32, 1..9_u32),
    ) {
        let mut scheduler = Scheduler::new(rules(&[lanes.0, lanes.1], 1000));
        let mut waited: HashMap<(usize, u8), u32> = HashMap::new();
        let mut queued: HashMap<(usize, u8), u32> = HashMap::new();
        let mut names = Vec::new();
        for (n, (lane, tenant)) in arrivals.into_iter().enumerate() {
            for _ in 0..2 {
                push(&mut scheduler, lane, &format!("t{tenant}"), n as u32, names.len() as u32);
                names.push((lane, tenant));
                *queued.entry((lane, tenant)).or_default() += 1;
            }
            let (slot, item) = scheduler.take().unwrap();
            scheduler.finish(slot);
            let served = names[item as usize];
            *queued.get_mut(&served).unwrap() -= 1;
            for (place, _) in queued.iter().filter(|(_, count)| **count > 0) {
                *waited.entry(*place).or_default() += 1;
            }
            waited.insert(served, 0);
            // Five tenants in a lane take turns, with some that go first before each; the other lane takes at most
            // its weight, twice over, in between.
            let (one, two) = lanes;
            let bound = |lane: usize| {
                let mine = if lane == 0 { one } else { two };
                5 * (1 + FIRST_IN_A_ROW) * (one + two).div_ceil(mine) + 2 * (one + two)
            };
            for ((lane, tenant), turns) in &waited {
                prop_assert!(*turns <= bound(*lane), "lane {} tenant {} waited {}", lane, tenant, turns);
            }
        }
    }
}
