//! Makes JetStream's streams and buckets again after the server lost them, and knows whether they are there.
//!
//! It looks after every new connection, and now and then. Only when the stream of updates is gone the store was lost, and
//! everything is made again as at the start; a single bucket that somebody removed is not, so that the last table stays
//! in force.

use crate::store::wire::client::Client;
use ackline_shared::nats::NatsSettings;
use ackline_shared::nats::preparation::{Health, establish, is_lost};
use std::convert::Infallible;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Pause after a look that brought nothing, or found nothing.
const AGAIN: Duration = Duration::from_millis(500);
/// Longest one look may take.
const LOOK_WAIT: Duration = Duration::from_secs(30);

/// Looks for as long as it is polled.
pub async fn run(health: &Health, client: &Client, settings: &NatsSettings) -> Infallible {
    loop {
        client.connected().await;
        let pause = match timeout(LOOK_WAIT, is_lost(client)).await {
            Ok(looked) => {
                health.note(&looked);
                match looked {
                    Ok(false) => LOOK_EVERY,
                    Ok(true) => {
                        restore(client, settings).await;
                        AGAIN
                    }
                    // It is away, or has not begun; the next look is soon.
                    Err(_) => AGAIN,
                }
            }
            Err(_) => AGAIN,
        };
        sleep(pause).await;
    }
}

async fn restore(client: &Client, settings: &NatsSettings) {
    match timeout(LOOK_WAIT, establish(client, settings)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(%error, "the streams cannot be made again yet"),
        Err(_) => tracing::error!("the streams cannot be made again in time"),
    }
}
