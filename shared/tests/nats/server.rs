//! The server that tests start.

use ackline_shared::testing::{NatsOptions, NatsServer};
use async_nats::jetstream;
use std::time::Duration;

async fn connect(server: &NatsServer) -> jetstream::Context {
    let client = async_nats::connect(server.url()).await.unwrap();
    jetstream::new(client)
}

#[tokio::test]
async fn a_killed_server_comes_back_on_its_port_with_what_it_stored() {
    let options = NatsOptions {
        sync_always: true,
        ..NatsOptions::default()
    };
    let mut server = NatsServer::start_with(options).unwrap();
    let url = server.url();
    let config = jetstream::stream::Config {
        name: "KEPT".into(),
        subjects: vec!["kept".into()],
        ..Default::default()
    };
    let context = connect(&server).await;
    context.create_stream(config).await.unwrap();
    context
        .publish("kept", "a".into())
        .await
        .unwrap()
        .await
        .unwrap();

    server.kill();
    assert!(async_nats::connect(&url).await.is_err());

    server.restart().unwrap();
    assert_eq!(server.url(), url);
    let stream = connect(&server).await.get_stream("KEPT").await.unwrap();
    assert_eq!(stream.cached_info().state.messages, 1);
}

#[tokio::test]
async fn a_frozen_server_answers_nothing_until_it_thaws() {
    let server = NatsServer::start().unwrap();
    let context = connect(&server).await;
    server.freeze().unwrap();
    let briefly = Duration::from_millis(200);
    assert!(
        tokio::time::timeout(briefly, context.query_account())
            .await
            .is_err()
    );
    server.thaw().unwrap();
    context.query_account().await.unwrap();
}
