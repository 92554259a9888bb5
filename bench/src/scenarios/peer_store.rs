//! Looks into the store behind a peer, so that nobody's 200 is taken on trust.

use anyhow::{Context, Result, bail};
use async_nats::jetstream;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Where a peer keeps its webhooks.
#[derive(Debug, Clone, Copy)]
pub enum PeerStore {
    JetStream(SocketAddr, &'static str),
    /// What a command of Redis counts.
    Redis(SocketAddr, &'static str),
}

impl PeerStore {
    pub async fn count(self) -> Result<u64> {
        match self {
            Self::JetStream(address, stream) => {
                let mut stream = context(address).await?.get_stream(stream).await?;
                Ok(stream.info().await?.state.messages)
            }
            Self::Redis(address, command) => {
                let answer = ask(address, command).await?;
                let number = answer
                    .strip_prefix(':')
                    .and_then(|number| number.parse().ok());
                number.with_context(|| format!("redis answered `{answer}` to {command}"))
            }
        }
    }

    /// Empties it, so that a long bench does not fill memory or disk.
    pub async fn clear(self) -> Result<()> {
        match self {
            Self::JetStream(address, stream) => {
                context(address)
                    .await?
                    .get_stream(stream)
                    .await?
                    .purge()
                    .await?;
            }
            Self::Redis(address, _) => match ask(address, "FLUSHALL").await?.as_str() {
                "+OK" => {}
                other => bail!("redis answered `{other}` to FLUSHALL"),
            },
        }
        Ok(())
    }
}

async fn context(address: SocketAddr) -> Result<jetstream::Context> {
    let client = async_nats::connect(format!("nats://{address}"))
        .await
        .context("connecting to NATS")?;
    Ok(jetstream::new(client))
}

/// Sends one inline command and reads the line that answers it.
async fn ask(address: SocketAddr, command: &str) -> Result<String> {
    let asked = async {
        let mut stream = TcpStream::connect(address).await?;
        stream
            .write_all(format!("{command}\r\n").as_bytes())
            .await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line.trim_end().to_owned())
    };
    Ok(timeout(ANSWER_WITHIN, asked)
        .await
        .context("redis did not answer in time")??)
}
