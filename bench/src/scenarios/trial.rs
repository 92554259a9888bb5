//! What a peer has to show before it is measured: a wrong signature is refused and stores nothing, and what it
//! answers 200 is in its store.
//!
//! A peer that fails is an error of the scenario: its figures would compare something else.

use super::peer::Peer;
use super::rig::deal;
use crate::load::{Closed, Ledger, Mix, Tally};
use anyhow::{Context, Result, bail, ensure};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Enough that a peer which compiles while it runs is not measured cold.
const WEBHOOKS: usize = 1_000;
const CONNECTIONS: usize = 16;
const WITHIN: Duration = Duration::from_secs(60);

/// Puts a peer to the test and leaves its store empty.
pub async fn pass(peer: &Peer) -> Result<()> {
    let ledger = deal(Mix::texts(WEBHOOKS)).await?;
    let forged = forged(ledger.deck().request(0).context("the deck is empty")?)?;
    for _ in 0..2 * CONNECTIONS {
        let status = timeout(WITHIN, status_of(peer.address(), &forged))
            .await
            .context("no answer in time")??;
        ensure!(
            (400..500).contains(&status),
            "a wrong signature was answered {status}"
        );
    }
    expect(peer, 0, 0, "after wrong signatures only").await?;

    let (load, sent) = (
        Closed::new(peer.address(), CONNECTIONS, WITHIN),
        ledger.clone(),
    );
    let tally: Tally = super::blocking(move || load.run(&sent)).await?;
    let all = tally.accepted() == u64::try_from(WEBHOOKS)?;
    ensure!(
        all,
        "of {WEBHOOKS} signed webhooks not all were accepted: {}",
        tally.answers()
    );
    audit(peer, &tally, &ledger).await
}

/// Compares the store with the answers since it was last empty, and empties it.
pub async fn audit(peer: &Peer, tally: &Tally, sent: &Arc<Ledger>) -> Result<()> {
    expect(
        peer,
        tally.accepted(),
        u64::try_from(sent.deck().len())?,
        &tally.answers(),
    )
    .await?;
    match peer.store() {
        Some(store) => store.clear().await,
        None => Ok(()),
    }
}

/// Webhooks stored without a 200 are allowed, as ours are: the sender would repeat them.
async fn expect(peer: &Peer, accepted: u64, sent: u64, answers: &str) -> Result<()> {
    let Some(store) = peer.store() else {
        return Ok(());
    };
    let stored = store.count().await?;
    if !(accepted..=sent).contains(&stored) {
        bail!(
            "{stored} webhooks are in the store, {accepted} were accepted of {sent} sent ({answers})"
        );
    }
    Ok(())
}

/// The same request with one digit of its signature changed.
fn forged(request: &[u8]) -> Result<Vec<u8>> {
    const START: &[u8] = b"sha256=";
    let at = request
        .windows(START.len())
        .position(|part| part == START)
        .context("the request is unsigned")?;
    let mut forged = request.to_vec();
    let digit = forged
        .get_mut(at + START.len())
        .context("the signature is empty")?;
    *digit = if *digit == b'0' { b'1' } else { b'0' };
    Ok(forged)
}

async fn status_of(address: SocketAddr, request: &[u8]) -> Result<u16> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut answer = Vec::with_capacity(1024);
    while stream.read_buf(&mut answer).await? > 0 {
        if let crate::load::Answer::Complete { status, .. } = crate::load::parse(&answer) {
            return Ok(status);
        }
    }
    bail!("the connection was closed without an answer")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_request_differs_in_one_digit_of_the_signature() {
        let request = b"POST / HTTP/1.1\r\nx-hub-signature-256: sha256=0f\r\n\r\n";
        let forged = forged(request).unwrap();
        let differing: Vec<_> = (0..request.len())
            .filter(|&at| request[at] != forged[at])
            .collect();
        assert_eq!(differing.len(), 1);
        assert_eq!(&forged[differing[0]..differing[0] + 2], b"1f");
        assert!(super::forged(b"unsigned").is_err());
    }
}
