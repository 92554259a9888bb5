//! A target seen by a client.

use super::*;
use crate::serve::install_tls_provider;

async fn start(parts: &[&str]) -> Target {
    let parts = parts.iter().map(|&part| part.to_owned()).collect();
    Target::start(Behind::Nobody("{}"), parts, |body| {
        std::str::from_utf8(body).ok()?.parse().ok()
    })
    .await
    .unwrap()
}

async fn post(target: &Target, path: &str, within: Duration) -> reqwest::Result<reqwest::Response> {
    install_tls_provider();
    let http = reqwest::Client::builder()
        .no_proxy()
        .timeout(within)
        .build()?;
    http.post(format!("http://{}/{path}", target.address()))
        .body("7")
        .send()
        .await
}

const LONG: Duration = Duration::from_secs(20);

#[tokio::test]
async fn a_target_that_refuses_comes_back_on_its_port() {
    let target = start(&[]).await;
    assert_eq!(post(&target, "bot", LONG).await.unwrap().status(), 200);
    for _ in 0..3 {
        target.refuse().await.unwrap();
        assert!(post(&target, "bot", LONG).await.unwrap_err().is_connect());
        target.listen().await.unwrap();
        assert_eq!(post(&target, "bot", LONG).await.unwrap().status(), 200);
    }
    let notes = target.notes();
    assert_eq!(notes.len(), 4);
    assert!(
        notes
            .iter()
            .all(|note| note.serial == Some(7) && note.is_accepted() && note.is_done)
    );
}

#[tokio::test]
async fn an_answer_that_is_reset_is_lost_and_its_work_is_done() {
    let target = start(&[]).await;
    target.set(None, Mode::Resets);
    let error = post(&target, "bot", LONG).await.unwrap_err();
    assert!(!error.is_connect() && !error.is_timeout(), "{error:?}");
    let notes = target.notes();
    assert_eq!((notes[0].ending, notes[0].is_done), (Ending::Lost, true));
}

#[tokio::test]
async fn only_the_part_that_was_named_hangs() {
    let target = start(&["a", "b"]).await;
    target.set(Some(1), Mode::Hangs);
    assert!(
        post(&target, "v1/b/messages", Duration::from_millis(200))
            .await
            .unwrap_err()
            .is_timeout()
    );
    assert_eq!(
        post(&target, "v1/a/messages", LONG).await.unwrap().status(),
        200
    );
    assert_eq!(post(&target, "other", LONG).await.unwrap().status(), 200);
    // A request that hangs ends with the target's connections, when not before.
    target.refuse().await.unwrap();
    let endings: Vec<_> = target
        .notes()
        .iter()
        .map(|note| (note.part, note.ending))
        .collect();
    let answered = Ending::Answered(200);
    assert_eq!(
        endings,
        [
            (Some(1), Ending::Lost),
            (Some(0), answered),
            (None, answered)
        ]
    );
}

#[tokio::test]
async fn a_target_flaps_and_says_when_to_come_again() {
    let target = start(&[]).await;
    let refusal = Refusal {
        status: 429,
        retry_after: Some(Duration::from_secs(5)),
        body: "{}",
    };
    let hour = Duration::from_secs(3_600);
    target.set(
        None,
        Mode::Flaps {
            down: hour,
            up: hour,
            refusal,
        },
    );
    let answer = post(&target, "bot", LONG).await.unwrap();
    assert_eq!(
        (
            answer.status().as_u16(),
            answer.headers()["retry-after"].to_str().unwrap()
        ),
        (429, "5")
    );
    target.set(
        None,
        Mode::Flaps {
            down: Duration::ZERO,
            up: hour,
            refusal,
        },
    );
    assert_eq!(post(&target, "bot", LONG).await.unwrap().status(), 200);
}
