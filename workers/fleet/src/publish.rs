//! Says once a second how this process is, and listens to the others.

use super::board::Board;
use ackline_runtime::log::to_bytes;
use ackline_runtime::status::Snapshot;
use ackline_shared::shutdown::{Shutdown, ended};
use ackline_shared::subjects;
use async_nats::connection::State;
use async_nats::{Client, Message};
use futures_util::StreamExt;
use std::time::Duration;
use tokio::time::{MissedTickBehavior, interval, sleep};

/// How often a process speaks.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// Largest snapshot that is said or heard.
const BYTES_MAX: usize = 256 << 10;
const RESUBSCRIBE_PAUSE: Duration = Duration::from_secs(1);

pub async fn speak(client: Client, board: Board, mut shutdown: Shutdown) {
    let subject = subjects::status(board.instance());
    let mut seconds = interval(INTERVAL);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            () = ended(&mut shutdown) => return,
            _ = seconds.tick() => {}
        }
        let snapshot = board.tick();
        let payload = to_bytes(&snapshot);
        board.hear(snapshot);
        // While NATS is away the client would queue what is worthless a second later.
        if client.connection_state() != State::Connected || payload.len() > BYTES_MAX {
            continue;
        }
        if let Err(error) = client.publish(subject.clone(), payload).await {
            tracing::debug!(%error, "the status was not published");
        }
    }
}

pub async fn listen(client: Client, board: Board, mut shutdown: Shutdown) {
    let listening = async {
        loop {
            match client.subscribe(subjects::STATUS_FILTER).await {
                Ok(mut words) => {
                    while let Some(message) = words.next().await {
                        read(&message)
                            .into_iter()
                            .for_each(|snapshot| board.hear(snapshot));
                    }
                }
                Err(error) => tracing::debug!(%error, "the status of others is not heard"),
            }
            sleep(RESUBSCRIBE_PAUSE).await;
        }
    };
    tokio::select! {
        () = ended(&mut shutdown) => {}
        () = listening => {}
    }
}

/// Reads a snapshot; `None` for what is none.
pub fn read(message: &Message) -> Option<Snapshot> {
    if message.payload.len() > BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&message.payload).ok()
}
