//! The settings that the command line shares with the programs it looks after.

use ackline_catalog::quota::Limits;
use ackline_fleet::surroundings;
use ackline_pools::replies::GraphSettings;
use ackline_runtime::settings::Concurrency;
use ackline_shared::config::{Reader, Report};
use ackline_shared::nats::NatsSettings;
use ackline_shared::vault::{self, VaultKey};
use std::net::SocketAddr;
use std::path::Path;

/// What the commands need of the settings.
#[derive(Debug, Clone)]
pub struct Settings {
    pub nats: NatsSettings,
    /// The key under which data keys are sealed.
    pub master: VaultKey,
    /// Base of the Graph API with its version, without a slash at its end.
    pub graph_url: String,
    /// The pools' jobs at once as configured.
    pub concurrency: Concurrency,
    /// The longest body that the edge takes.
    pub body_bytes_max: usize,
    /// Where the read model is.
    pub journal_url: String,
    /// Where the programs tell how they are, each with its name.
    pub private: [(&'static str, SocketAddr); 2],
    /// What one tenant may declare.
    pub limits: Limits,
}

impl Settings {
    /// Reads defaults, file and environment; every mistake at once.
    pub fn load(file: Option<&Path>, environment: &[(String, String)]) -> Result<Self, Report> {
        let mut reader = Reader::load(file, environment.iter().cloned());
        let nats = NatsSettings::read(&mut reader);
        let graph = GraphSettings::read(&mut reader);
        let concurrency = Concurrency::read(&mut reader);
        let body_bytes_max = surroundings::read_body_bytes_max(&mut reader);
        let journal_url = reader.text("journal.url");
        let private = [
            ("edge", "ingress.private_listen"),
            ("workers", "api.private_listen"),
        ]
        .map(|(name, key)| (name, reader.address(key)));
        let limits = Limits::read(&mut reader);
        let master = vault::master_key(&mut reader);
        if let Err(error) = &master {
            reader.mistake("secrets", error);
        }
        reader.finish()?;
        let master = master.map_err(|error| Report {
            mistakes: vec![error.to_string()],
        })?;
        let graph_url = format!("{}/{}", graph.url, graph.version);
        Ok(Self {
            nats,
            master,
            graph_url,
            concurrency,
            body_bytes_max,
            journal_url,
            private,
            limits,
        })
    }
}
