//! The connection on which the edge asks NATS and listens to it, against a real server.

use crate::against_nats::{SOON, settings};
use ackline_ingress::store::wire::client::{Client, SUBSCRIPTIONS_MAX, Subscription};
use ackline_shared::nats::api::{Question, Unanswered};
use ackline_shared::testing::NatsServer;
use ackline_shared::vault::VaultKey;
use futures_util::FutureExt;
use std::sync::Arc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

async fn start(server: &NatsServer) -> (Arc<Client>, JoinHandle<()>) {
    let settings = settings(server, &VaultKey::generate(), &[]).nats;
    let (client, connection) = Client::new(&settings, "test").await.unwrap();
    let connection = tokio::spawn(connection);
    timeout(SOON, client.connected()).await.unwrap();
    (client, connection)
}

/// As many subscriptions as there may be; there are as many only while nobody else waits.
fn all_subscriptions(client: &Client) -> Vec<Subscription<'_>> {
    let all = (0..SUBSCRIPTIONS_MAX).map(|_| client.subscribe(1).unwrap());
    all.collect()
}

fn assert_nobody_waits(client: &Client) {
    drop(all_subscriptions(client));
}

fn question(subject: &str) -> Question {
    Question {
        subject: subject.to_owned(),
        headers: vec![("A", "1".to_owned())],
        payload: b"{}".to_vec(),
    }
}

#[tokio::test]
async fn a_request_is_answered_or_nobody_is_there() {
    let server = NatsServer::start().unwrap();
    let (client, _connection) = start(&server).await;
    assert_eq!(
        client.request(&question("nobody")).await,
        Err(Unanswered::Nobody)
    );
    let mut subscription = client.subscribe(4).unwrap();
    let asked = question(subscription.subject());
    let answering = async {
        let message = timeout(SOON, subscription.next()).await.unwrap().unwrap();
        assert_eq!(
            (message.subject.as_str(), &message.payload[..]),
            (asked.subject.as_str(), &b"{}"[..])
        );
        assert_eq!(message.headers().get("A"), Some("1"));
        client.acknowledge(&message.reply).unwrap();
    };
    let (answer, ()) = tokio::join!(client.request(&asked), answering);
    assert!(answer.unwrap().payload.is_empty());
    drop(subscription);
    assert_eq!(
        client.request(&asked).await,
        Err(Unanswered::Nobody),
        "it listens no more"
    );
    assert_nobody_waits(&client);
    assert!(!client.server_id().is_empty());
}

#[tokio::test]
async fn whoever_waits_hears_that_the_connection_broke() {
    let mut server = NatsServer::start().unwrap();
    let (client, _connection) = start(&server).await;
    let mut subscription = client.subscribe(4).unwrap();
    server.freeze().unwrap();
    let asked = question("any");
    let (answer, message, ()) = tokio::join!(client.request(&asked), subscription.next(), async {
        server.kill()
    });
    assert_eq!((answer, message), (Err(Unanswered::Away), None));
    assert_eq!(client.subscribe(4).map(drop), Err(Unanswered::Away));
    server.restart().unwrap();
    assert_eq!(
        timeout(SOON, client.request(&asked)).await.unwrap(),
        Err(Unanswered::Nobody)
    );
    drop(subscription);
    assert_eq!(
        client.request(&asked).await,
        Err(Unanswered::Nobody),
        "an old subscription takes nothing with it"
    );
}

#[tokio::test]
async fn an_answer_that_does_not_come_is_not_waited_for() {
    let server = NatsServer::start().unwrap();
    let (client, _connection) = start(&server).await;
    server.freeze().unwrap();
    tokio::time::pause();
    assert_eq!(
        client.request(&question("any")).await,
        Err(Unanswered::Late)
    );
    assert_nobody_waits(&client);
    server.thaw().unwrap();
}

#[tokio::test]
async fn what_is_too_much_is_said_and_not_sent() {
    let server = NatsServer::start().unwrap();
    let (client, _connection) = start(&server).await;
    let large = Question {
        payload: vec![b'x'; 9 << 20],
        ..question("any")
    };
    assert!(matches!(
        client.request(&large).await,
        Err(Unanswered::Unsent(_))
    ));
    let subscriptions = all_subscriptions(&client);
    assert!(matches!(
        client.request(&question("any")).await,
        Err(Unanswered::Unsent(_))
    ));
    drop(subscriptions);
    assert_eq!(
        client.request(&question("any")).await,
        Err(Unanswered::Nobody)
    );
}

#[tokio::test]
async fn whoever_does_not_keep_up_loses_messages_and_nobody_else_does() {
    let server = NatsServer::start().unwrap();
    let (client, _connection) = start(&server).await;
    let (mut slow, mut quick) = (client.subscribe(2).unwrap(), client.subscribe(8).unwrap());
    for _ in 0..4 {
        client.acknowledge(slow.subject()).unwrap();
    }
    client.acknowledge(quick.subject()).unwrap();
    timeout(SOON, quick.next()).await.unwrap().unwrap();
    for _ in 0..2 {
        timeout(SOON, slow.next()).await.unwrap().unwrap();
    }
    client.acknowledge(slow.subject()).unwrap();
    timeout(SOON, slow.next()).await.unwrap().unwrap();
    assert!(slow.next().now_or_never().is_none());
}
