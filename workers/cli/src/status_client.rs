//! Looks at the processes from outside, by what each says about itself over NATS once a second.

use super::Outcome;
use ackline_fleet::fleet::{Fleet, PoolSum};
use ackline_fleet::publish;
use ackline_fleet::scaling::Targets;
use ackline_fleet::settings::StatusSettings;
use ackline_runtime::settings::{Concurrency, PoolSettings};
use ackline_runtime::status::PoolStatus;
use ackline_shared::config::{Reader, Report};
use ackline_shared::nats::{self, NatsSettings};
use ackline_shared::subjects;
use async_nats::{Client, SubscribeError, Subscriber};
use futures_util::StreamExt;
use std::path::Path;
use std::time::Duration;
use tokio::time::{Instant, timeout_at};

/// Within this time every process that lives has spoken.
const ROUND: Duration = Duration::from_millis(1_500);

/// What looking needs of the settings: no secret.
#[derive(Debug, Clone)]
pub struct StatusClientSettings {
    pub nats: NatsSettings,
    /// What the number of wanted workers is to achieve.
    pub targets: Targets,
    /// Jobs of one tenant at once in each process.
    pub tenant_jobs: u32,
    /// The pools' jobs at once as configured.
    pub concurrency: Concurrency,
}

impl StatusClientSettings {
    /// Reads defaults, file and environment; every mistake at once.
    pub fn load(file: Option<&Path>, environment: &[(String, String)]) -> Result<Self, Report> {
        let mut reader = Reader::load(file, environment.iter().cloned());
        let nats = NatsSettings::read(&mut reader);
        let targets = StatusSettings::read(&mut reader).targets;
        let tenant_jobs =
            u32::try_from(PoolSettings::shared(&mut reader).tenant_in_flight_max).unwrap_or(1);
        let concurrency = Concurrency::read(&mut reader);
        reader.finish()?;
        Ok(Self {
            nats,
            targets,
            tenant_jobs,
            concurrency,
        })
    }
}

#[derive(Debug)]
pub struct StatusClient {
    client: Client,
    words: Subscriber,
    fleet: Fleet,
}

impl StatusClient {
    /// Connects and begins to listen; what went wrong is for people.
    pub async fn connect(settings: &NatsSettings) -> Result<Self, Outcome> {
        Ok(Self::on(nats::connect(settings, "ackline").await?).await?)
    }

    /// Begins to listen on a connection.
    pub async fn on(client: Client) -> Result<Self, SubscribeError> {
        let words = client.subscribe(subjects::STATUS_FILTER).await?;
        Ok(Self {
            client,
            words,
            fleet: Fleet::default(),
        })
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    pub async fn hear(&mut self) {
        match self.words.next().await {
            Some(message) => {
                if let Some(snapshot) = publish::read(&message) {
                    self.fleet.hear(snapshot, Instant::now());
                }
            }
            None => std::future::pending().await,
        }
    }

    /// Listens until every process has spoken.
    pub async fn hear_all(&mut self) {
        let end = Instant::now() + ROUND;
        while timeout_at(end, self.hear()).await.is_ok() {}
    }

    /// What is wrong with what pools write to, by process and pool.
    pub fn faults(&self) -> Vec<(String, String, String)> {
        let of = |(instance, status): (&String, &PoolStatus)| {
            Some((instance.clone(), status.pool.clone(), status.fault.clone()?))
        };
        let all = self
            .fleet
            .instances()
            .flat_map(|one| one.pools.iter().map(|pool| (&one.instance, pool)));
        all.filter_map(of).collect()
    }

    /// Who speaks now, and every pool.
    pub fn look(&mut self) -> (usize, Vec<PoolSum>) {
        self.fleet.forget(Instant::now());
        (self.fleet.instances().count(), self.fleet.pools())
    }
}
