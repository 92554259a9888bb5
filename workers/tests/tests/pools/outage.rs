//! Targets that are away: nothing is buried, nobody else waits, everything comes back in order.

use super::stage::{DEADLINE, Stage};
use ackline_engine::state::{BreakerSpec, Policy, Target};
use ackline_runtime::job::{Job, LaneSource, Trouble, Verdict, Work};
use ackline_runtime::settings::PoolSettings;
use ackline_shared::envelope::Head;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Partition, Pool};
use std::collections::{BTreeMap, HashSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::timeout;

/// Two targets for every update; which are away is said from outside.
#[derive(Clone, Default)]
struct Town {
    away: Arc<Mutex<HashSet<&'static str>>>,
    taken: Arc<Mutex<Vec<(String, String, String)>>>,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
    changed: Arc<Notify>,
}

const TARGETS: [&str; 2] = ["north", "south"];

impl Town {
    fn close(&self, target: &'static str) {
        self.away.lock().unwrap().insert(target);
    }

    fn open(&self, target: &'static str) {
        self.away.lock().unwrap().remove(target);
    }

    /// What a target took of a conversation, in order.
    fn taken(&self, target: &str, conversation: &str) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        let of = taken
            .iter()
            .filter(|(at, of, _)| at == target && of == conversation);
        of.map(|(_, _, id)| id.clone()).collect()
    }

    async fn takes(&self, target: &str, count: usize) {
        let taken = || {
            self.taken
                .lock()
                .unwrap()
                .iter()
                .filter(|(at, _, _)| at == target)
                .count()
        };
        let enough = async {
            while taken() < count {
                self.changed.notified().await;
            }
        };
        assert!(
            timeout(DEADLINE, enough).await.is_ok(),
            "{target} took only {}",
            taken()
        );
    }

    fn asked(&self, target: &str) -> usize {
        self.asked
            .lock()
            .unwrap()
            .get(target)
            .copied()
            .unwrap_or_default()
    }

    async fn is_asked(&self, target: &str, count: usize) {
        let enough = async {
            while self.asked(target) < count {
                self.changed.notified().await;
            }
        };
        assert!(
            timeout(DEADLINE, enough).await.is_ok(),
            "{target} was asked only {} times",
            self.asked(target)
        );
    }
}

impl Job for Town {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        let filters = |partition| vec![subjects::update_filter(partition, Class::Message)];
        vec![LaneSource {
            name: "msg",
            stream: subjects::UPDATES,
            filters,
            weight: 1,
        }]
    }

    fn targets(&self, head: &Head) -> Vec<Arc<Target>> {
        let target = |name: &str| {
            let downstream = format!("relay.{}.{name}", head.tenant);
            let breakers = vec![BreakerSpec {
                name: downstream.as_str().into(),
                limit: 4,
            }];
            Arc::new(Target {
                name: name.to_owned(),
                downstream,
                breakers,
                timeout: None,
            })
        };
        TARGETS.map(target).to_vec()
    }

    async fn run(&self, work: &Work) -> Verdict {
        let name = work.target.name.clone();
        *self.asked.lock().unwrap().entry(name.clone()).or_default() += 1;
        self.changed.notify_one();
        if self.away.lock().unwrap().contains(name.as_str()) {
            return Verdict::Trouble(Trouble::down("away"));
        }
        work.answered.set();
        let taken = (
            name,
            work.head.conversation.as_str().to_owned(),
            work.head.id.as_str().to_owned(),
        );
        self.taken.lock().unwrap().push(taken);
        self.changed.notify_one();
        Verdict::Done
    }
}

/// Everything a hundred times as fast.
fn brisk(settings: &mut PoolSettings) {
    settings.park_after = Duration::from_millis(100);
    settings.give_up_after = Duration::from_secs(600);
    settings.attempts_max = 1;
    settings.breaker = Policy {
        failures_max: 2,
        pause_initial: Duration::from_millis(10),
        pause_brisk: Duration::from_millis(30),
        pause_max: Duration::from_millis(200),
        ..Policy::default()
    };
}

async fn publish(stage: &Stage, ids: std::ops::Range<usize>) {
    for n in ids {
        stage
            .publish(&format!("US.{}", n % 5), &format!("m{n:02}"), "x")
            .await;
    }
}

/// What each of five conversations sees of so many updates.
fn expected(count: usize, conversation: usize) -> Vec<String> {
    (0..count)
        .filter(|n| n % 5 == conversation)
        .map(|n| format!("m{n:02}"))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_is_away_buries_nothing_holds_nobody_up_and_gets_everything_in_order() {
    let (stage, town) = (Stage::start(Snapshot::default()).await, Town::default());
    town.close("south");
    let (_stop, _running) = stage.run_with(town.clone(), "one", brisk);
    publish(&stage, 0..20).await;
    town.takes("north", 20).await;
    assert_eq!(
        town.taken.lock().unwrap().len(),
        20,
        "the one that is away took nothing"
    );
    // Out of the way, so that nothing of it is left in the window.
    stage
        .acknowledged(&subjects::consumer(Pool::Relay, Partition(1), "msg"), 20)
        .await;
    stage.holds(subjects::SPILL, 20..=20).await;
    let asked = town.asked("south");
    publish(&stage, 20..25).await;
    town.takes("north", 25).await;
    town.is_asked("south", asked + 3).await;
    town.open("south");
    town.takes("south", 25).await;
    for (target, conversation) in TARGETS
        .into_iter()
        .flat_map(|target| (0..5).map(move |n| (target, n)))
    {
        let taken = town.taken(target, &format!("u:US.{conversation}"));
        assert_eq!(taken, expected(25, conversation), "{target}");
    }
    stage.holds(subjects::SPILL, 0..=0).await;
    stage.holds(subjects::DEAD, 0..=0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_update_in_the_world_comes_soon_after_its_target_and_by_whoever_owns_it_then() {
    let (stage, town) = (Stage::start(Snapshot::default()).await, Town::default());
    town.close("north");
    town.close("south");
    let (stop, running) = stage.run_with(town.clone(), "one", brisk);
    stage.publish("US.1", "only", "x").await;
    stage.holds(subjects::SPILL, 2..=2).await;
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    let (_stop, _running) = stage.run_with(town.clone(), "two", brisk);
    let asked = town.asked("south");
    town.is_asked("south", asked + 3).await;
    town.open("south");
    town.takes("south", 1).await;
    town.open("north");
    town.takes("north", 1).await;
    stage.holds(subjects::SPILL, 0..=0).await;
    stage.holds(subjects::DEAD, 0..=0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_as_long_as_it_may_is_given_up_for_that_target_alone() {
    let (stage, town) = (Stage::start(Snapshot::default()).await, Town::default());
    town.close("south");
    let overdue = |settings: &mut PoolSettings| {
        brisk(settings);
        settings.give_up_after = Duration::from_millis(600);
    };
    let (_stop, _running) = stage.run_with(town.clone(), "one", overdue);
    for n in 0..3 {
        stage.publish("US.1", &format!("m{n}"), "x").await;
    }
    stage.holds(subjects::DEAD, 3..=3).await;
    let reasons = stage.dead_letters(3).await;
    assert!(
        reasons
            .iter()
            .all(|reason| reason.starts_with("gave up, for it waited longer")),
        "{reasons:?}"
    );
    assert_eq!(town.taken("north", "u:US.1"), ["m0", "m1", "m2"]);
    stage.holds(subjects::SPILL, 0..=0).await;
}

/// Marks durably that it asks, as a send does; a definite answer takes the mark away.
#[derive(Clone)]
struct Sender(Town);

impl Job for Sender {
    const POOL: Pool = Pool::Relay;

    fn lanes() -> Vec<LaneSource> {
        Town::lanes()
    }

    fn targets(&self, head: &Head) -> Vec<Arc<Target>> {
        self.0.targets(head)
    }

    async fn run(&self, work: &Work) -> Verdict {
        if work.marks.has(&"asking?".into()) {
            return Verdict::dead("cut off while it asked");
        }
        work.marks.set("asking?".into());
        work.persist().await.unwrap();
        let verdict = self.0.run(work).await;
        work.marks.clear(&"asking?".into());
        verdict
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_not_taken_for_cut_off_when_it_is_read_again() {
    let (stage, town) = (Stage::start(Snapshot::default()).await, Town::default());
    town.close("south");
    let (_stop, _running) = stage.run_with(Sender(town.clone()), "one", brisk);
    for n in 0..3 {
        stage.publish("US.1", &format!("m{n}"), "x").await;
    }
    stage.holds(subjects::SPILL, 3..=3).await;
    let asked = town.asked("south");
    town.is_asked("south", asked + 3).await;
    town.open("south");
    town.takes("south", 3).await;
    stage.holds(subjects::SPILL, 0..=0).await;
    stage.holds(subjects::DEAD, 0..=0).await;
}
