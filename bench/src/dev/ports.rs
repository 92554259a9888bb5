//! The ports of an installation: fixed for people, free ones for a check, and what to say when one is taken.

use anyhow::{Context, Result, bail};
use clap::Args;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;

/// The ports of `make run`; each can be changed.
#[derive(Debug, Clone, Args)]
pub struct PortFlags {
    /// Meta's webhooks.
    #[arg(long, env = "RUN_INGRESS_PORT", default_value_t = 8080)]
    ingress_port: u16,
    /// Health and metrics of the ingress.
    #[arg(long, env = "RUN_INGRESS_PRIVATE_PORT", default_value_t = 9080)]
    ingress_private_port: u16,
    /// The REST API.
    #[arg(long, env = "RUN_API_PORT", default_value_t = 8081)]
    api_port: u16,
    /// Health and metrics of the workers.
    #[arg(long, env = "RUN_API_PRIVATE_PORT", default_value_t = 9081)]
    api_private_port: u16,
    /// The Meta simulator.
    #[arg(long, env = "RUN_SIMULATOR_PORT", default_value_t = 8082)]
    simulator_port: u16,
    /// The customer sink.
    #[arg(long, env = "RUN_SINK_PORT", default_value_t = 8083)]
    sink_port: u16,
    /// nats-server.
    #[arg(long, env = "RUN_NATS_PORT", default_value_t = 4322)]
    nats_port: u16,
    /// Monitoring of nats-server.
    #[arg(long, env = "RUN_NATS_MONITOR_PORT", default_value_t = 8322)]
    nats_monitor_port: u16,
}

/// A port, who needs it, and the flag that changes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Port {
    /// The number.
    pub number: u16,
    /// Who listens there.
    pub user: &'static str,
    flag: &'static str,
}

/// The ports of one installation, all on 127.0.0.1.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// Meta's webhooks.
    pub ingress: Port,
    /// Health and metrics of the ingress.
    pub ingress_private: Port,
    /// The REST API.
    pub api: Port,
    /// Health and metrics of the workers.
    pub api_private: Port,
    /// The Meta simulator.
    pub simulator: Port,
    /// The customer sink.
    pub sink: Port,
    /// nats-server.
    pub nats: Port,
    /// Monitoring of nats-server.
    pub nats_monitor: Port,
}

impl PortFlags {
    /// The ports asked for.
    pub fn ports(&self) -> Ports {
        Ports::of([
            self.ingress_port,
            self.ingress_private_port,
            self.api_port,
            self.api_private_port,
            self.simulator_port,
            self.sink_port,
            self.nats_port,
            self.nats_monitor_port,
        ])
    }
}

impl Ports {
    fn of(numbers: [u16; 8]) -> Self {
        let [
            ingress,
            ingress_private,
            api,
            api_private,
            simulator,
            sink,
            nats,
            nats_monitor,
        ] = numbers;
        let port = |number, user, flag| Port { number, user, flag };
        Self {
            ingress: port(ingress, "ackline-ingress", "ingress"),
            ingress_private: port(
                ingress_private,
                "the health of ackline-ingress",
                "ingress-private",
            ),
            api: port(api, "the API", "api"),
            api_private: port(api_private, "the health of ackline-workers", "api-private"),
            simulator: port(simulator, "the Meta simulator", "simulator"),
            sink: port(sink, "the customer sink", "sink"),
            nats: port(nats, "nats-server", "nats"),
            nats_monitor: port(
                nats_monitor,
                "the monitoring of nats-server",
                "nats-monitor",
            ),
        }
    }

    /// Ports that nobody listens on now.
    pub async fn free() -> Result<Self> {
        // All are held until the last is known, so that no two are the same.
        let mut held = Vec::new();
        let mut numbers = [0; 8];
        for number in &mut numbers {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
                .await
                .context("finding a free port")?;
            *number = listener.local_addr()?.port();
            held.push(listener);
        }
        Ok(Self::of(numbers))
    }

    fn all(&self) -> [Port; 8] {
        [
            self.ingress,
            self.ingress_private,
            self.api,
            self.api_private,
            self.simulator,
            self.sink,
            self.nats,
            self.nats_monitor,
        ]
    }

    /// The environment variables that give them to `ackline-dev run`.
    pub fn variables(&self) -> [(String, String); 8] {
        self.all().map(|port| {
            let name = port.flag.to_uppercase().replace('-', "_");
            (format!("RUN_{name}_PORT"), port.number.to_string())
        })
    }

    /// Fails with what to do when a port is taken or asked for twice.
    pub async fn check(&self) -> Result<()> {
        let all = self.all();
        for (index, port) in all.iter().enumerate() {
            if let Some(other) = all
                .iter()
                .skip(index + 1)
                .find(|other| other.number == port.number)
            {
                bail!(
                    "{} and {} both want port {}: {}",
                    port.user,
                    other.user,
                    port.number,
                    other.remedy()
                );
            }
            if let Err(error) = TcpListener::bind(port.address()).await {
                bail!("{}", port.unavailable(&error));
            }
        }
        Ok(())
    }
}

impl Port {
    /// Where to listen.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, self.number))
    }

    /// The origin of an HTTP server there.
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    fn remedy(&self) -> String {
        let name = self.flag.replace('-', "_").to_uppercase();
        format!(
            "end what uses it, or choose another with RUN_{name}_PORT=… or --{}-port",
            self.flag
        )
    }

    fn unavailable(&self, error: &std::io::Error) -> String {
        let why = match error.kind() {
            ErrorKind::AddrInUse => "is taken".to_owned(),
            _ => format!("cannot be used ({error})"),
        };
        format!(
            "port {} {why}, and {} needs it: {}",
            self.number,
            self.user,
            self.remedy()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_who_needs_it_and_how_to_change_it() {
        let mut ports = Ports::free().await.unwrap();
        ports.check().await.unwrap();
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        ports.nats_monitor.number = taken.local_addr().unwrap().port();
        let said = ports.check().await.unwrap_err().to_string();
        for part in [
            &ports.nats_monitor.number.to_string(),
            "nats-server",
            "RUN_NATS_MONITOR_PORT",
        ] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[tokio::test]
    async fn one_port_for_two_is_refused() {
        let mut ports = Ports::free().await.unwrap();
        ports.sink.number = ports.simulator.number;
        let said = ports.check().await.unwrap_err().to_string();
        assert!(
            said.contains("both want") && said.contains("--sink-port"),
            "{said}"
        );
    }
}
