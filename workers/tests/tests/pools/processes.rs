//! Real worker processes on one pool: killed, stopped and thawed, ended and joined by others, under load.

use super::stage::{DEADLINE, Stage};
use ackline_ownership::owners::Owner;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects;
use ackline_shared::testing::Process;
use ackline_workers_tests::program;
use async_nats::Subscriber;
use async_nats::jetstream::consumer::Info;
use axum::Router;
use axum::routing::post;
use futures_util::{StreamExt, TryStreamExt};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::time::timeout;

const PARTITIONS: u16 = 4;
const LANES: usize = 3;
const LEASE_TTL: &str = "2s";
/// Longest pause of a conversation around a change, as a deadline on a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// An existing bot that notes what it was told and when.
#[derive(Clone, Default)]
struct Bot(Arc<Mutex<Vec<(String, Instant)>>>);

impl Bot {
    async fn listen(&self) -> String {
        let bot = self.clone();
        let note = async move |body: String| bot.0.lock().unwrap().push((body, Instant::now()));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(
            async move { axum::serve(listener, Router::new().route("/", post(note))).await },
        );
        format!("http://{address}/")
    }

    fn reported(&self) -> Vec<(String, Instant)> {
        self.0.lock().unwrap().clone()
    }

    /// What each conversation was told, a repeated id counted once, where it came first.
    fn conversations(&self) -> BTreeMap<String, Vec<(usize, Instant)>> {
        let mut conversations: BTreeMap<String, Vec<(usize, Instant)>> = BTreeMap::new();
        for (body, at) in self.reported() {
            let (conversation, number) = body.split_once('.').unwrap();
            let reported = conversations.entry(conversation.to_owned()).or_default();
            let number = number.parse().unwrap();
            if !reported.iter().any(|(known, _)| *known == number) {
                reported.push((number, at));
            }
        }
        conversations
    }

    /// The longest time a conversation was told nothing, from `since` to `until`.
    fn longest_pause(&self, since: Instant, until: Instant) -> Duration {
        let conversations = self.conversations();
        let pauses = conversations
            .values()
            .flat_map(|reported| reported.windows(2))
            .filter_map(|pair| {
                let (before, after) = (pair[0].1, pair[1].1);
                (after > since && before < until).then(|| after - before)
            });
        pauses.max().unwrap_or_default()
    }
}

struct Scene {
    stage: Stage,
    bot: Bot,
}

impl Scene {
    async fn open() -> Self {
        let (stage, bot) = (Stage::start(Snapshot::default()).await, Bot::default());
        let relay = json!({"id": "bot", "tenant": "acme", "url": bot.listen().await});
        for (key, value) in [
            ("tenant.acme", json!({"id": "acme", "name": "Acme"})),
            ("relay.acme.bot", relay),
        ] {
            stage
                .platform
                .buckets
                .config
                .put(key, value.to_string().into())
                .await
                .unwrap();
        }
        Self { stage, bot }
    }

    fn start(&self, name: &str) -> Process {
        let mut command = program("ackline-workers");
        command.args(["--pools", "relay"]).envs([
            ("ACKLINE_NATS_URL", self.stage.url().as_str()),
            ("ACKLINE_NATS_DURABILITY", "stored"),
            ("ACKLINE_NATS_STREAM_BYTES_MAX", "64MiB"),
            ("ACKLINE_NATS_SESSION_BYTES_MAX", "64MiB"),
            ("ACKLINE_NATS_PARTITIONS", PARTITIONS.to_string().as_str()),
            ("ACKLINE_POOLS_LEASE_TTL", LEASE_TTL),
            ("ACKLINE_EGRESS_ALLOW", "127.0.0.1"),
            ("ACKLINE_API_PRIVATE_LISTEN", "127.0.0.1:0"),
            (
                "ACKLINE_SECRETS_MASTER_KEY",
                "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
            ),
        ]);
        let ready = |line: &str| line.contains("the workers run").then_some(());
        Process::start(name, command, DEADLINE, ready).unwrap().0
    }

    /// Hears every request for messages of the pool's consumers.
    async fn requests(&self) -> Subscriber {
        let client = self.stage.platform.log.context().client();
        let requests = client
            .subscribe("$JS.API.CONSUMER.MSG.NEXT.UPDATES.*")
            .await
            .unwrap();
        client.flush().await.unwrap();
        requests
    }

    /// Waits until a request for a single message, which stays open for long, waits at each of the consumers.
    async fn quiet(&self, requests: &mut Subscriber) {
        let mut quiet = BTreeMap::new();
        let expected = usize::from(PARTITIONS) * LANES;
        let reached = async {
            while quiet.values().filter(|is_quiet| **is_quiet).count() < expected {
                let request = requests.next().await.unwrap();
                let asked: Value = serde_json::from_slice(&request.payload).unwrap();
                quiet.insert(request.subject, asked["batch"] == 1);
            }
        };
        timeout(DEADLINE, reached).await.expect("long requests");
    }

    /// Waits until so many requests for messages are open at the pool's consumers.
    async fn open_requests(&self, expected: usize) {
        let stream = self
            .stage
            .platform
            .log
            .context()
            .get_stream(subjects::UPDATES)
            .await
            .unwrap();
        let reached = async {
            loop {
                let infos: Vec<Info> = stream.consumers().try_collect().await.unwrap();
                if infos.iter().map(|info| info.num_waiting).sum::<usize>() == expected {
                    return;
                }
            }
        };
        timeout(DEADLINE, reached).await.expect("open requests");
    }

    /// Publishes a message to one conversation of each partition.
    async fn publish_once(&self, number: usize) {
        for partition in 0..PARTITIONS {
            let conversation = format!("a{partition}");
            self.stage
                .publish_signed(
                    partition,
                    &conversation,
                    &format!("{conversation}.{number}"),
                )
                .await;
        }
    }

    /// Waits until each conversation was told its first `count` messages.
    async fn reported(&self, count: usize, log: impl Fn() -> String) {
        let whole = async {
            while self
                .bot
                .conversations()
                .values()
                .map(Vec::len)
                .sum::<usize>()
                < count * usize::from(PARTITIONS)
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let is_whole = timeout(DEADLINE, whole).await.is_ok();
        assert!(is_whole, "{:?}\n{}", self.bot.conversations(), log());
        for (conversation, reported) in self.bot.conversations() {
            let numbers: Vec<usize> = reported.iter().map(|(number, _)| *number).collect();
            assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{conversation}");
        }
    }

    /// Who owns how many partitions.
    async fn owners(&self) -> BTreeMap<String, usize> {
        let mut owners = BTreeMap::new();
        for partition in 0..PARTITIONS {
            let record = self
                .stage
                .platform
                .buckets
                .owners
                .get(format!("relay.{partition}"))
                .await;
            let Ok(Some(record)) = record else { continue };
            let owner: Owner = serde_json::from_slice(&record).unwrap();
            if !owner.released {
                *owners.entry(owner.instance).or_default() += 1;
            }
        }
        owners
    }

    /// Waits until the partitions are shared like this, whoever has which share; names the owners.
    async fn shared(&self, expected: &[usize]) -> BTreeSet<String> {
        let reached = async {
            loop {
                let owners = self.owners().await;
                let mut shares: Vec<usize> = owners.values().copied().collect();
                shares.sort_unstable();
                if shares == expected {
                    return owners.into_keys().collect();
                }
            }
        };
        timeout(DEADLINE, reached).await.expect("the share in time")
    }
}

/// Publishes to two conversations of each partition until told to stop; gives how many each got.
async fn publish(stage: &Stage, stop: watch::Receiver<bool>) -> usize {
    let mut number = 0;
    while !*stop.borrow() {
        for partition in 0..PARTITIONS {
            for name in ["a", "b"] {
                let conversation = format!("{name}{partition}");
                stage
                    .publish_signed(
                        partition,
                        &conversation,
                        &format!("{conversation}.{number}"),
                    )
                    .await;
            }
        }
        number += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    number
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_or_told_out_of_order_whatever_happens_to_the_processes() {
    let scene = Scene::open().await;
    let mut first = scene.start("first");
    let mut second = scene.start("second");
    scene.shared(&[2, 2]).await;
    let (stop, stopped) = watch::channel(false);
    let story = async {
        let begun = Instant::now();
        // Stopped for longer than its life, a process finds its partitions taken when it goes on.
        first.signal("STOP").unwrap();
        let rest = scene.shared(&[4]).await;
        first.signal("CONT").unwrap();
        let both = scene.shared(&[2, 2]).await;
        assert!(both.is_superset(&rest));
        second.kill();
        assert!(scene.shared(&[4]).await.is_disjoint(&rest));
        let third = scene.start("third");
        scene.shared(&[2, 2]).await;
        first.signal("TERM").unwrap();
        scene.shared(&[4]).await;
        let ended = async {
            while first.is_running() {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, ended).await.expect("an orderly end");
        stop.send_replace(true);
        (begun, third)
    };
    let (count, (begun, third)) = tokio::join!(publish(&scene.stage, stopped), story);
    let whole = async {
        while scene
            .bot
            .conversations()
            .values()
            .map(Vec::len)
            .sum::<usize>()
            < count * 8
        {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let is_whole = timeout(DEADLINE, whole).await.is_ok();
    if !is_whole {
        let reported: Vec<_> = scene
            .bot
            .conversations()
            .into_iter()
            .map(|(name, reported)| (name, reported.len()))
            .collect();
        let owners = scene.owners().await;
        panic!(
            "of {count} each: {reported:?}; owners {owners:?}\nfirst:\n{}third:\n{}",
            first.log(),
            third.log()
        );
    }
    for (conversation, reported) in scene.bot.conversations() {
        let numbers: Vec<usize> = reported.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{conversation}");
    }
    assert!(is_whole);
    // What was under way when a process was killed or stopped is told again: idempotent by its id.
    let repeats = scene.bot.reported().len() - count * 8;
    assert!(repeats <= 16, "{repeats}");
    let pause = scene.bot.longest_pause(begun, Instant::now());
    assert!(pause < PAUSE_MAX, "{pause:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stopped_process_swallows_by_the_requests_it_left_open_is_missed_and_read_anew() {
    let scene = Scene::open().await;
    let mut requests = scene.requests().await;
    let first = scene.start("first");
    let second = scene.start("second");
    scene.shared(&[2, 2]).await;
    scene.quiet(&mut requests).await;
    first.signal("STOP").unwrap();
    scene.shared(&[4]).await;
    // Its requests are older than its successor's and get what comes first. Nothing follows that would show the gap.
    let (consumers, left_open) = (usize::from(PARTITIONS) * LANES, 2 * LANES);
    scene.open_requests(consumers + left_open).await;
    scene.publish_once(0).await;
    let stored = Instant::now();
    scene.reported(1, || second.log()).await;
    assert!(stored.elapsed() < PAUSE_MAX, "{:?}", stored.elapsed());
    assert!(
        second.log().contains("went elsewhere"),
        "nothing was swallowed:\n{}",
        second.log()
    );
    scene.publish_once(1).await;
    scene.reported(2, || second.log()).await;
    // What it swallowed is no longer its own when it goes on.
    first.signal("CONT").unwrap();
    scene.shared(&[2, 2]).await;
    scene.publish_once(2).await;
    scene
        .reported(3, || format!("{}{}", first.log(), second.log()))
        .await;
    assert_eq!(
        scene.bot.reported().len(),
        3 * usize::from(PARTITIONS),
        "{:?}",
        scene.bot.reported()
    );
}
