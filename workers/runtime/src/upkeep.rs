//! Makes the streams and buckets again after the server lost them, and knows whether they are there.
//!
//! It looks after every new connection, and now and then. Only when the stream of updates is gone the store was lost, and
//! everything is made again as at the start; a single bucket that somebody removed is not, so that what was read of it
//! stays in force. Whoever follows something in JetStream begins anew after a new connection: what it followed may be
//! another life of it, whose sequences begin at one.

use ackline_shared::nats::NatsSettings;
use ackline_shared::nats::preparation::{Health, establish, is_lost};
use ackline_shared::shutdown::{Shutdown, ended};
use async_nats::Client;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout};

/// How often the number of connections is compared.
const CONNECTION_CHECK: Duration = Duration::from_millis(200);
/// How often it looks while the connection stands.
const LOOK_EVERY: Duration = Duration::from_secs(15);
/// Longest one look may take.
const LOOK_WAIT: Duration = Duration::from_secs(30);

/// Whether the streams are gone; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Upkeep(Arc<Health>);

impl Upkeep {
    /// Whether they are gone, as far as is known.
    pub fn is_lost(&self) -> bool {
        self.0.is_lost()
    }

    /// How they are, in words.
    pub fn words(&self) -> &'static str {
        self.0.words()
    }

    pub async fn run(self, client: Client, settings: NatsSettings, mut shutdown: Shutdown) {
        let rounds = async {
            loop {
                let connects = connects(&client);
                if timeout(LOOK_WAIT, self.look(&client, &settings))
                    .await
                    .is_err()
                {
                    tracing::debug!("the streams could not be looked at in time");
                }
                let next = Instant::now()
                    + if self.is_lost() {
                        CONNECTION_CHECK
                    } else {
                        LOOK_EVERY
                    };
                while Instant::now() < next && self::connects(&client) == connects {
                    sleep(CONNECTION_CHECK).await;
                }
            }
        };
        tokio::select! {
            () = ended(&mut shutdown) => {}
            () = rounds => {}
        }
    }

    async fn look(&self, client: &Client, settings: &NatsSettings) {
        let looked = is_lost(client).await;
        self.0.note(&looked);
        if looked == Ok(true) {
            match establish(client, settings).await {
                Ok(()) => self.0.note(&Ok(false)),
                Err(error) => tracing::error!(%error, "the streams cannot be made again yet"),
            }
        }
    }
}

/// How often a connection was made.
pub fn connects(client: &Client) -> u64 {
    client.statistics().connects.load(Ordering::Relaxed)
}

/// Waits for the next connection after so many.
pub async fn reconnected(client: &Client, connects: u64) {
    while self::connects(client) == connects {
        sleep(CONNECTION_CHECK).await;
    }
}
