//! Overload from outside, over paused time: shed early and cheaply, and not for longer than it lasts.

use crate::client::{Harness, delivery, post};
use ackline_ingress_testkit::fixture::SHEDDING;
use futures_util::future::join_all;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, advance, timeout};

/// Has so many deliveries wait for the log for so long.
async fn slow(harness: &Harness, waiting: usize, lasting: Duration, from: usize) -> Vec<u16> {
    harness.log.answers.send_replace(false);
    let bodies: Vec<_> = (from..from + waiting)
        .map(|number| delivery("100", &[&format!("wamid.{number}")]))
        .collect();
    let posts = join_all(bodies.iter().map(|body| harness.send(post(body))));
    let (answers, ()) = tokio::join!(posts, async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        advance(lasting).await;
        harness.log.answers.send_replace(true);
    });
    answers
        .iter()
        .map(|answer| answer.status.as_u16())
        .collect()
}

#[tokio::test(start_paused = true)]
async fn a_standing_queue_sheds_unread_and_a_quick_log_lets_in_again() {
    let harness = Harness::new();
    let first = slow(&harness, 64, SHEDDING.target * 2, 0).await;
    assert!(first.iter().all(|status| *status == 200), "{first:?}");
    let second = slow(&harness, 200, SHEDDING.target * 2, 1000).await;
    let shed = second.iter().filter(|status| **status == 503).count();
    assert!(shed > 30 && shed < second.len(), "{second:?}");
    let metrics = harness.metrics.encode();
    assert!(
        metrics.contains(&format!("refusals_total{{reason=\"shed\"}} {shed}\n")),
        "{metrics}"
    );
    // Quick again: what was limited grows back, window by window.
    let deadline = Instant::now() + Duration::from_secs(10);
    let mut from = 2000;
    while slow(&harness, 200, Duration::from_millis(60), from)
        .await
        .contains(&503)
    {
        assert!(Instant::now() < deadline, "it sheds for good");
        from += 1000;
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_shed_is_answered_before_its_body_comes() {
    let harness = Harness::new();
    let first = slow(&harness, 64, SHEDDING.target * 2, 0).await;
    assert!(first.iter().all(|status| *status == 200), "{first:?}");
    harness.log.answers.send_replace(false);
    let bodies: Vec<_> = (1000..1128)
        .map(|number| delivery("100", &[&format!("wamid.{number}")]))
        .collect();
    let filling = join_all(bodies.iter().map(|body| harness.send(post(body))));
    let probing = async {
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        let mut pipe = harness.pipe();
        let head = "POST /webhooks/meta/main HTTP/1.1\r\nhost: edge\r\nx-hub-signature-256: sha256=00\r\ncontent-length: 60000\r\n\r\n";
        pipe.write_all(head.as_bytes()).await.unwrap();
        let mut answer = [0; 512];
        let read = timeout(Duration::from_secs(1), pipe.read(&mut answer))
            .await
            .unwrap()
            .unwrap();
        harness.log.answers.send_replace(true);
        String::from_utf8_lossy(&answer[..read]).to_ascii_lowercase()
    };
    let (_, answer) = tokio::join!(filling, probing);
    assert!(
        answer.starts_with("http/1.1 503") && answer.contains("retry-after: 2"),
        "{answer}"
    );
}
