//! Dead letters: they pile up, are counted, replayed, edited and discarded; the past is shown to a new target.

use super::stage::{DEADLINE, Stage};
use crate::letter::{head, letter};
use ackline_egress::{AllowList, Egress, EgressSettings};
use ackline_pools::relay::RelayJob;
use ackline_replay::letters::ReplayRequest;
use ackline_replay::list::Wanted;
use ackline_replay::{
    Action, DeadLetters, Filter, Past, ReplayJob, ReplayTarget, Source, State, runner, terms,
};
use ackline_shared::clock::now_ms;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, EntityId, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::nats;
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, Lane, Partition, Pool, header};
use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode, Uri};
use futures_util::TryStreamExt;
use serde_json::json;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

/// Bots behind one address, by path; each answers as told and keeps what it took.
#[derive(Clone, Default)]
struct Bots {
    answers: Arc<Mutex<HashMap<String, u16>>>,
    taken: Arc<Mutex<Vec<Taken>>>,
    changed: Arc<Notify>,
}

/// What a bot took: its name, the body, whether it was marked as a replay.
type Taken = (String, String, bool);

impl Bots {
    async fn start(&self) -> SocketAddr {
        rustls::crypto::ring::default_provider()
            .install_default()
            .ok();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let bots = self.clone();
        let answer = move |uri: Uri, headers: HeaderMap, body: Bytes| async move {
            bots.take(&uri, &headers, &body)
        };
        let app = axum::Router::new().fallback(answer);
        tokio::spawn(async move { axum::serve(listener, app).await });
        address
    }

    fn take(&self, uri: &Uri, headers: &HeaderMap, body: &Bytes) -> StatusCode {
        let bot = uri.path().trim_start_matches('/').to_owned();
        let code = self
            .answers
            .lock()
            .unwrap()
            .get(&bot)
            .copied()
            .unwrap_or(200);
        if code == 200 {
            let text = String::from_utf8(body.to_vec()).unwrap();
            self.taken
                .lock()
                .unwrap()
                .push((bot, text, headers.get("ackline-replay").is_some()));
            self.changed.notify_one();
        }
        StatusCode::from_u16(code).unwrap()
    }

    fn answer(&self, bot: &str, code: u16) {
        self.answers.lock().unwrap().insert(bot.to_owned(), code);
    }

    fn taken_by(&self, bot: &str) -> Vec<(String, bool)> {
        let taken = self.taken.lock().unwrap();
        taken
            .iter()
            .filter(|one| one.0 == bot)
            .map(|one| (one.1.clone(), one.2))
            .collect()
    }

    async fn wait_for(&self, bot: &str, count: usize) {
        let enough = async {
            while self.taken_by(bot).len() < count {
                self.changed.notified().await;
            }
        };
        assert!(
            timeout(DEADLINE, enough).await.is_ok(),
            "only {:?}",
            self.taken_by(bot)
        );
    }
}

/// An installation of acme with these relays, and the relay pool's work.
struct Installation {
    stage: Stage,
    bots: Bots,
    dead_letters: DeadLetters,
}

impl Installation {
    async fn start(relays: &[&str]) -> Self {
        let bots = Bots::default();
        let address = bots.start().await;
        let mut snapshot = Snapshot::default();
        snapshot
            .fold("tenant.acme", Some(br#"{"id":"acme","name":"Acme"}"#))
            .unwrap();
        for relay in relays {
            let entity =
                json!({"id": relay, "tenant": "acme", "url": format!("http://{address}/{relay}")});
            snapshot
                .fold(
                    &format!("relay.acme.{relay}"),
                    Some(entity.to_string().as_bytes()),
                )
                .unwrap();
        }
        let stage = Stage::start(snapshot).await;
        let dead_letters = DeadLetters::new(stage.platform.log.clone(), &stage.platform.buckets);
        Self {
            stage,
            bots,
            dead_letters,
        }
    }

    fn job(&self) -> RelayJob {
        let settings = EgressSettings {
            allow: AllowList::parse(["127.0.0.1"]).unwrap(),
            allow_http: false,
            connect_timeout: Duration::from_secs(5),
        };
        let egress = Egress::new(&settings).unwrap();
        RelayJob::new(self.stage.platform.clone(), egress, Duration::from_secs(5))
    }

    /// Stores a message to a conversation.
    async fn publish(&self, conversation: &str, id: &str) {
        let head = Head {
            id: UpdateId::new(id),
            tenant: TenantId::new("acme").unwrap(),
            partition: Partition(1),
            family: Family::Update(Class::Message),
            kind: "message.text".into(),
            app: None,
            phone: PhoneNumberId::new("100").ok(),
            conversation: ConversationKey::user(conversation),
            received_ms: now_ms(),
            signature: Some("sha256=00".into()),
            traceparent: None,
            field: None,
            replay: None,
        };
        let payload = json!({"id": id}).to_string();
        self.stage
            .platform
            .log
            .write(&head, payload.into())
            .await
            .unwrap();
    }

    async fn open_letters(&self, wanted: Wanted) -> Vec<u64> {
        let listing = self
            .dead_letters
            .list(&Filter::default(), wanted, None, 200)
            .await
            .unwrap();
        listing
            .letters
            .iter()
            .map(|found| found.letter.sequence)
            .collect()
    }

    async fn carry_out(&self, request: ReplayRequest) -> ReplayJob {
        let job = self.dead_letters.start(request).await.unwrap();
        self.dead_letters.carry_out(&job.id).await.unwrap();
        self.dead_letters.find(&job.id).await.unwrap().unwrap().1
    }
}

fn request(action: Action, source: Source) -> ReplayRequest {
    let request = terms::letters(
        action,
        source,
        "test".to_owned(),
        TenantId::new("acme").ok(),
    );
    ReplayRequest {
        rate_per_second: 1000,
        ..request
    }
}

fn all_letters() -> ReplayRequest {
    request(Action::Replay, Source::Letters(Filter::default()))
}

fn bodies(taken: &[(String, bool)]) -> Vec<&str> {
    taken.iter().map(|(body, _)| body.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_that_was_away_gets_exactly_what_it_missed_once_and_in_order() {
    let installation = Installation::start(&["good", "old"]).await;
    let (dead_letters, bots) = (&installation.dead_letters, &installation.bots);
    let (_stop, _running) = installation.stage.run(installation.job(), "one");
    bots.answer("old", 400);
    for n in 0..6 {
        installation.publish("US.1", &format!("m{n}")).await;
    }
    installation.stage.dead_letters(6).await;
    bots.wait_for("good", 6).await;
    bots.answer("old", 200);

    let reason = Filter {
        reason: Some("OLD: answered 400".into()),
        ..Filter::default()
    };
    let count = dead_letters.count(&reason, DEADLINE).await.unwrap();
    assert_eq!(
        (count.total, count.pools["relay"], count.reasons.len()),
        (6, 6, 1)
    );
    let other = Filter {
        tenant: TenantId::new("globex").ok(),
        ..Filter::default()
    };
    assert_eq!(dead_letters.count(&other, DEADLINE).await.unwrap().total, 0);

    let job = installation.carry_out(all_letters()).await;
    assert_eq!(
        (job.state, job.done, job.skipped, job.failed),
        (State::Done, 6, 0, 0)
    );
    bots.wait_for("old", 6).await;
    let again = installation.carry_out(all_letters()).await;
    assert_eq!(
        (again.state, again.done),
        (State::Done, 0),
        "they are settled"
    );

    installation.publish("US.1", "m6").await;
    bots.wait_for("old", 7).await;
    bots.wait_for("good", 7).await;
    let expected: Vec<String> = (0..7)
        .map(|n| json!({"id": format!("m{n}")}).to_string())
        .collect();
    assert_eq!(bodies(&bots.taken_by("old")), expected);
    assert_eq!(
        bodies(&bots.taken_by("good")),
        expected,
        "what was done before is not done again"
    );
    let marked: Vec<bool> = bots
        .taken_by("old")
        .iter()
        .map(|(_, marked)| *marked)
        .collect();
    assert_eq!(marked, [true, true, true, true, true, true, false]);

    assert_eq!(
        installation.open_letters(Wanted::Open).await,
        Vec::<u64>::new()
    );
    assert_eq!(
        installation.open_letters(Wanted::Replayed).await,
        [6, 5, 4, 3, 2, 1]
    );
    let kept = dead_letters.letter(3).await.unwrap().unwrap();
    assert_eq!(kept.standing.job(), Some(job.id.as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replay_that_dies_again_names_its_original_and_can_be_edited_and_discarded() {
    let installation = Installation::start(&["old"]).await;
    let (dead_letters, bots) = (&installation.dead_letters, &installation.bots);
    let (_stop, _running) = installation.stage.run(installation.job(), "one");
    bots.answer("old", 400);
    installation.publish("US.1", "m0").await;
    installation.publish("US.1", "m1").await;
    installation.stage.dead_letters(2).await;
    let one = |sequence, payload| request(Action::Replay, Source::Letter { sequence, payload });
    assert_eq!(installation.carry_out(one(1, None)).await.done, 1);
    installation.stage.dead_letters(3).await;
    let again = dead_letters.letter(3).await.unwrap().unwrap();
    assert_eq!(again.letter.replay_of.as_deref(), Some("DEAD:1"));
    assert_eq!(again.letter.id.as_str(), "m0");
    assert_eq!(
        again.headers.get(header::REPLAY_VERBATIM).unwrap().as_str(),
        "true"
    );

    bots.answer("old", 200);
    assert_eq!(
        installation
            .carry_out(one(3, Some("{\"edited\":true}".into())))
            .await
            .done,
        1
    );
    // Its app is not known here, so what has lost Meta's signature cannot be signed and says so, at once.
    let reasons = installation.stage.dead_letters(4).await;
    assert!(reasons[3].contains("cannot be signed"), "{reasons:?}");
    let edited = dead_letters.letter(4).await.unwrap().unwrap();
    assert_eq!(
        (&edited.payload[..], edited.headers.get(header::SIGNATURE)),
        (&b"{\"edited\":true}"[..], None)
    );
    assert_eq!(edited.letter.replay_of.as_deref(), Some("DEAD:3"));
    assert_eq!(
        (
            edited.letter.attempts,
            edited.headers.get(header::REPLAY_VERBATIM)
        ),
        (Some(1), None)
    );
    assert_eq!(installation.carry_out(one(4, None)).await.done, 1);
    let reasons = installation.stage.dead_letters(5).await;
    assert_eq!(
        reasons[4], reasons[3],
        "replayed as it is, it is still what somebody wrote"
    );

    assert_eq!(installation.open_letters(Wanted::Open).await, [5, 2]);
    let discard = request(
        Action::Discard,
        Source::Letters(Filter {
            text: Some("m1".into()),
            ..Filter::default()
        }),
    );
    let job = installation.carry_out(discard).await;
    assert_eq!((job.state, job.done), (State::Done, 1));
    assert_eq!(installation.open_letters(Wanted::Open).await, [5]);
    assert_eq!(installation.open_letters(Wanted::Discarded).await, [2]);
    assert!(bots.taken_by("old").is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_target_gets_the_past_and_nobody_else_does() {
    let installation = Installation::start(&["old", "new"]).await;
    let (dead_letters, bots) = (&installation.dead_letters, &installation.bots);
    let (_stop, _running) = installation.stage.run(installation.job(), "one");
    bots.answer("new", 400);
    let began = now_ms();
    for n in 0..5 {
        installation.publish("US.1", &format!("m{n}")).await;
    }
    bots.wait_for("old", 5).await;
    installation.stage.dead_letters(5).await;
    bots.answer("new", 200);
    let past = Past {
        tenant: TenantId::new("acme").unwrap(),
        from_ms: began,
        to_ms: now_ms() + 1,
        classes: vec!["msg".into()],
        phone: PhoneNumberId::new("100").ok(),
    };
    assert_eq!(
        dead_letters
            .count_past(&past, Pool::Relay, DEADLINE)
            .await
            .unwrap()
            .total,
        5
    );
    let elsewhere = Past {
        phone: PhoneNumberId::new("200").ok(),
        ..past.clone()
    };
    assert_eq!(
        dead_letters
            .count_past(&elsewhere, Pool::Relay, DEADLINE)
            .await
            .unwrap()
            .total,
        0
    );

    let target = Some(ReplayTarget {
        pool: Some(Pool::Relay),
        id: EntityId::new("new").ok(),
    });
    let job = installation
        .carry_out(ReplayRequest {
            target,
            ..request(Action::Replay, Source::Past(past))
        })
        .await;
    assert_eq!((job.state, job.done), (State::Done, 5));
    bots.wait_for("new", 5).await;
    let expected: Vec<String> = (0..5)
        .map(|n| json!({"id": format!("m{n}")}).to_string())
        .collect();
    assert_eq!(bodies(&bots.taken_by("new")), expected);
    assert_eq!(bots.taken_by("old").len(), 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn jobs_over_the_same_letters_share_them_and_an_interrupted_one_goes_on() {
    let installation = Installation::start(&["old"]).await;
    let (dead_letters, bots) = (&installation.dead_letters, &installation.bots);
    let (_stop, _running) = installation.stage.run(installation.job(), "one");
    bots.answer("old", 400);
    for n in 0..60 {
        installation
            .publish(&format!("US.{}", n % 3), &format!("m{n:02}"))
            .await;
    }
    installation.stage.dead_letters(60).await;
    bots.answer("old", 200);
    let slow = ReplayRequest {
        rate_per_second: 20,
        ..all_letters()
    };
    let first = dead_letters.start(slow).await.unwrap();
    let stopped = timeout(
        Duration::from_millis(700),
        dead_letters.carry_out(&first.id),
    )
    .await;
    assert!(stopped.is_err(), "it was interrupted");
    let second = dead_letters.start(all_letters()).await.unwrap();
    let (stop, shutdown) = watch::channel(false);
    let runner = |name: &str| {
        runner::run(
            dead_letters.clone(),
            name.to_owned(),
            Duration::from_secs(2),
            shutdown.clone(),
        )
    };
    let runners = [tokio::spawn(runner("one")), tokio::spawn(runner("two"))];
    bots.wait_for("old", 60).await;
    let ended = async {
        loop {
            let jobs = dead_letters.jobs().await.unwrap();
            if jobs.iter().all(|job| job.state == State::Done) {
                return jobs;
            }
            tokio::task::yield_now().await;
        }
    };
    let jobs = timeout(DEADLINE, ended).await.unwrap();
    assert_eq!(jobs.iter().map(|job| job.done).sum::<u64>(), 60, "{jobs:?}");
    assert!(jobs.iter().find(|job| job.id == first.id).unwrap().done > 0);
    assert!(jobs.iter().any(|job| job.id == second.id));
    let mut taken = bots.taken_by("old");
    taken.sort();
    taken.dedup();
    assert_eq!((taken.len(), bots.taken_by("old").len()), (60, 60));
    stop.send_replace(true);
    for runner in runners {
        timeout(DEADLINE, runner).await.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_send_of_yesterday_is_left_out_and_counted_unless_it_is_named() {
    let installation = Installation::start(&[]).await;
    let dead_letters = &installation.dead_letters;
    let yesterday = now_ms() - 25 * 60 * 60 * 1000;
    for (n, (kind, received_ms)) in [
        ("send.text", yesterday),
        ("send.template", yesterday),
        ("send.text", now_ms()),
    ]
    .into_iter()
    .enumerate()
    {
        let head = Head {
            family: Family::Command(Lane::Live),
            kind: kind.into(),
            phone: PhoneNumberId::new("100").ok(),
            received_ms,
            ..head(&format!("s{n}"))
        };
        let place = format!("{}:{n}", subjects::OUTBOUND);
        let (subject, headers) = letter(Pool::Replies, &head, &place, "Meta refused it");
        installation
            .stage
            .platform
            .log
            .write_raw(subject, headers, "{}".into())
            .await
            .unwrap();
    }
    let count = dead_letters
        .count(&Filter::default(), DEADLINE)
        .await
        .unwrap();
    assert_eq!((count.total, count.expired, count.ambiguous), (3, 1, 0));
    assert!(
        count.oldest_received_at < count.newest_received_at,
        "{count:?}"
    );
    let job = installation.carry_out(all_letters()).await;
    assert_eq!((job.state, job.done, job.skipped), (State::Done, 2, 1));
    let (note, skipped) = job.notes.first_key_value().unwrap();
    assert!(
        note.contains("older than 24 h") && *skipped == 1,
        "{:?}",
        job.notes
    );
    assert_eq!(
        installation.open_letters(Wanted::Open).await,
        [1],
        "it is as it was"
    );
    let job = installation
        .carry_out(ReplayRequest {
            include_expired: true,
            ..all_letters()
        })
        .await;
    assert_eq!((job.done, job.skipped, job.notes.len()), (1, 0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_job_leaves_the_rest_open() {
    let installation = Installation::start(&["old"]).await;
    let (dead_letters, bots) = (&installation.dead_letters, &installation.bots);
    let (stop, running) = installation.stage.run(installation.job(), "one");
    bots.answer("old", 400);
    for n in 0..30 {
        installation.publish("US.1", &format!("m{n:02}")).await;
    }
    installation.stage.dead_letters(30).await;
    stop.send_replace(true);
    timeout(DEADLINE, running).await.unwrap().unwrap();
    let job = dead_letters
        .start(ReplayRequest {
            rate_per_second: 10,
            ..all_letters()
        })
        .await
        .unwrap();
    let carried = {
        let (dead_letters, id) = (dead_letters.clone(), job.id.clone());
        tokio::spawn(async move { dead_letters.carry_out(&id).await })
    };
    let begun = async {
        while dead_letters.find(&job.id).await.unwrap().unwrap().1.done == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, begun).await.unwrap();
    dead_letters.stop(&job.id).await.unwrap();
    timeout(DEADLINE, carried).await.unwrap().unwrap().unwrap();
    let job = dead_letters.find(&job.id).await.unwrap().unwrap().1;
    assert_eq!(job.state, State::Cancelled);
    let open = installation.open_letters(Wanted::Open).await;
    assert_eq!(u64::try_from(open.len()).unwrap() + job.done, 30);
    assert!(job.done > 0 && !open.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_newer_version_knows_of_an_order_stays_while_it_is_carried_out() {
    let installation = Installation::start(&["old"]).await;
    let dead_letters = &installation.dead_letters;
    let job = dead_letters.start(all_letters()).await.unwrap();
    let bucket = &installation.stage.platform.buckets.replays;
    let keys: Vec<String> = bucket.keys().await.unwrap().try_collect().await.unwrap();
    let key = keys.iter().find(|key| key.ends_with(&job.id)).unwrap();
    let stored = async || -> serde_json::Value {
        let stored = bucket.get(key).await.unwrap().unwrap();
        serde_json::from_slice(&stored).unwrap()
    };
    let mut newer = stored().await;
    newer["window"] = json!("1h");
    newer["source"]["app"] = json!("main");
    bucket.put(key, newer.to_string().into()).await.unwrap();
    dead_letters.carry_out(&job.id).await.unwrap();
    let after = stored().await;
    assert_eq!(after["state"], "done");
    assert_eq!(
        (&after["window"], &after["source"]["app"]),
        (&json!("1h"), &json!("main"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_older_installation_gets_what_it_lacks() {
    let stage = Stage::start(Snapshot::default()).await;
    let context = stage.platform.log.context().clone();
    let mut config = context
        .get_stream(subjects::UPDATES)
        .await
        .unwrap()
        .cached_info()
        .config
        .clone();
    config
        .subjects
        .retain(|subject| subject != subjects::REPLAY_SUBJECTS);
    context.update_stream(config).await.unwrap();
    nats::prepare(&context, &stage.settings()).await.unwrap();
    let held = context
        .get_stream(subjects::UPDATES)
        .await
        .unwrap()
        .cached_info()
        .config
        .subjects
        .clone();
    let [updates, records] = subjects::UPDATES_SUBJECTS;
    assert_eq!(held, [updates, records, subjects::REPLAY_SUBJECTS]);
}
