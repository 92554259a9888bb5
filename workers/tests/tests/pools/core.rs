//! The worker core: order, once, retries, dead letters, takeover.

use super::stage::{DEADLINE, Stage};
use ackline_runtime::job::{Job, LaneSource, Verdict, Work};
use ackline_shared::ids::TenantId;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Partition, Pool, header};
use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;
use tokio::time::timeout;

/// What the job saw, in order; the payload says how to behave.
#[derive(Clone, Default)]
pub(super) struct Seen {
    effects: Arc<Mutex<Vec<(String, String)>>>,
    attempts: Arc<Mutex<HashMap<String, u32>>>,
    /// Which attempt each run was, by the core's own count.
    numbers: Arc<Mutex<Vec<u32>>>,
    changed: Arc<Notify>,
}

impl Seen {
    pub(super) fn effects_of(&self, conversation: &str) -> Vec<String> {
        let effects = self.effects.lock().unwrap();
        effects
            .iter()
            .filter(|(key, _)| key == conversation)
            .map(|(_, id)| id.clone())
            .collect()
    }

    pub(super) async fn wait_for(&self, count: usize) {
        let enough = async {
            while self.effects.lock().unwrap().len() < count {
                self.changed.notified().await;
            }
        };
        assert!(
            timeout(DEADLINE, enough).await.is_ok(),
            "only {:?}",
            self.effects.lock().unwrap()
        );
    }
}

pub(super) struct Recorder(pub(super) Seen);

impl Job for Recorder {
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

    async fn run(&self, work: &Work) -> Verdict {
        self.0.numbers.lock().unwrap().push(work.attempt);
        let attempts = {
            let mut attempts = self.0.attempts.lock().unwrap();
            let count = attempts
                .entry(work.head.id.as_str().to_owned())
                .or_default();
            *count += 1;
            *count
        };
        let verdict = match &work.payload[..] {
            b"fail twice" if attempts <= 2 => return Verdict::retry("not yet"),
            b"fail once, slowly" if attempts <= 1 => {
                self.0.changed.notify_one();
                return Verdict::Retry {
                    reason: "later".to_owned(),
                    after: Some(Duration::from_millis(400)),
                };
            }
            b"held three times" if attempts <= 3 => {
                let reason = "left alone".to_owned();
                return Verdict::Wait {
                    reason,
                    after: Duration::from_millis(10),
                };
            }
            b"held" => {
                return Verdict::Wait {
                    reason: "left alone".to_owned(),
                    after: Duration::from_millis(20),
                };
            }
            b"two targets" => {
                work.marks.set("a".into());
                work.marks.set("b!answered 400".into());
                work.marks.set("c?".into());
                return Verdict::dead("b: answered 400");
            }
            b"always fail" => {
                self.0.changed.notify_one();
                return Verdict::retry("never works");
            }
            b"poison" => panic!("poison"),
            b"ends its process" => {
                self.0.changed.notify_one();
                return std::future::pending().await;
            }
            b"refuse" => return Verdict::dead("refused: 400"),
            _ => Verdict::Done,
        };
        let effect = (
            work.head.conversation.as_str().to_owned(),
            work.head.id.as_str().to_owned(),
        );
        self.0.effects.lock().unwrap().push(effect);
        self.0.changed.notify_one();
        verdict
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_keeps_its_order_through_retries_and_others_do_not_wait() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    stage.publish("US.slow", "s1", "fail twice").await;
    stage.publish("US.slow", "s2", "ok").await;
    for n in 0..5 {
        stage.publish("US.fast", &format!("f{n}"), "ok").await;
    }
    let (stop, running) = stage.run(Recorder(seen.clone()), "one");
    seen.wait_for(7).await;
    assert_eq!(seen.effects_of("u:US.slow"), ["s1", "s2"]);
    assert_eq!(seen.effects_of("u:US.fast"), ["f0", "f1", "f2", "f3", "f4"]);
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_longer_than_a_request_asks_for_come_in_their_order() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    for n in 0..4 {
        stage.publish("US.1", &format!("s{n}"), "ok").await;
        let long = vec![b'x'; 2 << 20];
        stage.publish("US.1", &format!("l{n}"), long).await;
    }
    let (stop, running) = stage.run(Recorder(seen.clone()), "one");
    seen.wait_for(8).await;
    let expected = ["s0", "l0", "s1", "l1", "s2", "l2", "s3", "l3"];
    assert_eq!(seen.effects_of("u:US.1"), expected);
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_done_stands_in_the_dead_letters_with_its_reason() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    stage.publish("US.1", "d1", "always fail").await;
    stage.publish("US.1", "d2", "refuse").await;
    stage.publish("US.1", "d3", "poison").await;
    stage.publish("US.1", "d4", "ok").await;
    let foreign = subjects::update(
        Partition(1),
        Class::Message,
        &TenantId::new("acme").unwrap(),
    );
    stage
        .platform
        .log
        .write_raw(foreign, async_nats::HeaderMap::new(), "no headers".into())
        .await
        .unwrap();
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "one");
    seen.wait_for(1).await;
    let mut reasons = stage.dead_letters(4).await;
    reasons.sort();
    assert_eq!(reasons[0], "gave up after 3 attempts: never works");
    assert_eq!(reasons[1], "refused: 400");
    assert!(reasons[2].starts_with("the header"), "{reasons:?}");
    assert!(reasons[3].starts_with("the job panicked"), "{reasons:?}");
    assert_eq!(seen.attempts.lock().unwrap()["d1"], 3);
    assert_eq!(seen.effects_of("u:US.1"), ["d4"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_that_comes_again_after_the_duplicate_window_takes_no_effect() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "one");
    stage.publish("US.1", "m1", "ok").await;
    seen.wait_for(1).await;
    stage.publish_again("US.1", "m1", "ok").await;
    stage.publish("US.1", "m2", "ok").await;
    seen.wait_for(2).await;
    assert_eq!(seen.effects_of("u:US.1"), ["m1", "m2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_takes_over_in_order_and_repeats_nothing() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    let (stop, running) = stage.run(Recorder(seen.clone()), "one");
    for n in 0..20 {
        stage.publish("US.1", &format!("a{n:02}"), "ok").await;
    }
    seen.wait_for(5).await;
    let (_stop_two, _second) = stage.run(Recorder(seen.clone()), "two");
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    for n in 0..20 {
        stage.publish("US.1", &format!("b{n:02}"), "ok").await;
    }
    seen.wait_for(40).await;
    let effects = seen.effects_of("u:US.1");
    let expected: Vec<String> = ["a", "b"]
        .iter()
        .flat_map(|l| (0..20).map(move |n| format!("{l}{n:02}")))
        .collect();
    assert_eq!(effects, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_goes_on_after_the_broker_was_killed() {
    let (mut stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "one");
    stage.publish("US.1", "k1", "ok").await;
    stage
        .acknowledged(&subjects::consumer(Pool::Relay, Partition(1), "msg"), 1)
        .await;
    stage.restart_server().await;
    stage.publish("US.1", "k2", "ok").await;
    seen.wait_for(2).await;
    assert_eq!(seen.effects_of("u:US.1"), ["k1", "k2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_successor_goes_on_counting_and_waits_the_rest_of_the_wait() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    let (stop, running) = stage.run(Recorder(seen.clone()), "one");
    let begun = Instant::now();
    stage.publish("US.1", "w1", "fail once, slowly").await;
    timeout(DEADLINE, seen.changed.notified()).await.unwrap();
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    let (_stop_two, _second) = stage.run(Recorder(seen.clone()), "two");
    seen.wait_for(1).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(400),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(
        *seen.numbers.lock().unwrap(),
        [1, 2],
        "the second attempt was made by the successor"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_are_bounded_across_takeovers() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    stage.publish("US.1", "x1", "always fail").await;
    let (stop, running) = stage.run(Recorder(seen.clone()), "one");
    timeout(DEADLINE, seen.changed.notified()).await.unwrap();
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "two");
    assert_eq!(
        stage.dead_letters(1).await,
        ["gave up after 3 attempts: never works"]
    );
    assert_eq!(seen.attempts.lock().unwrap()["x1"], 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_update_with_which_one_process_after_the_other_ends_is_given_up_and_the_rest_goes_on() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    stage.publish("US.1", "y1", "ends its process").await;
    stage.publish("US.1", "y2", "ok").await;
    for instance in ["one", "two", "three", "four"] {
        let (_stop, running) = stage.run(Recorder(seen.clone()), instance);
        timeout(DEADLINE, seen.changed.notified()).await.unwrap();
        running.abort();
        assert!(running.await.unwrap_err().is_cancelled());
    }
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "five");
    let reasons = stage.dead_letters(1).await;
    assert_eq!(
        reasons,
        ["3 processes took this update over and ended while they worked on it"]
    );
    seen.wait_for(1).await;
    assert_eq!(seen.effects_of("u:US.1"), ["y2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn work_that_waits_for_a_downstream_uses_up_no_attempt_and_is_given_up_by_age() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    stage.publish("US.1", "h1", "held three times").await;
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "one");
    seen.wait_for(1).await;
    assert_eq!(*seen.numbers.lock().unwrap(), [1, 1, 1, 1]);
    stage.publish("US.1", "h2", "held").await;
    stage.publish("US.1", "h3", "ok").await;
    let reasons = stage.dead_letters(1).await;
    assert!(
        reasons[0].starts_with("gave up, for it waited longer than"),
        "{reasons:?}"
    );
    seen.wait_for(2).await;
    assert_eq!(seen.effects_of("u:US.1"), ["h1", "h3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_keeps_which_parts_took_effect() {
    let (stage, seen) = (Stage::start(Snapshot::default()).await, Seen::default());
    stage.publish("US.1", "t1", "two targets").await;
    let (_stop, _running) = stage.run(Recorder(seen.clone()), "one");
    let letters = stage
        .messages(subjects::DEAD, &subjects::dead_filter(None, None), 1)
        .await;
    let headers = letters[0].headers.clone().unwrap();
    assert_eq!(
        headers.get(header::DEAD_DONE).unwrap().as_str(),
        "a,c?",
        "what is in doubt is kept, too"
    );
}
