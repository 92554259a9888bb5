//! Connections that say nothing more, or never finish what they say; all from the abuser's address.

use anyhow::{Context, Result};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{interval, timeout};

/// Where the abuser comes from.
pub const FROM: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
const CONNECTED_WITHIN: Duration = Duration::from_secs(3);
const OPEN_EVERY: Duration = Duration::from_millis(100);
/// New connections at a time: 500 a second, so that no port is used up by those that were closed.
const OPEN_AT_ONCE: usize = 50;
const PIECE: usize = 64 << 10;

pub async fn connect(address: SocketAddr) -> Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((FROM, 0).into())?;
    let stream = timeout(CONNECTED_WITHIN, socket.connect(address))
        .await
        .context("not accepted")??;
    stream.set_nodelay(true)?;
    Ok(stream)
}

/// Keeps so many connections open that say `hello` and then nothing; tells of each that was opened and closed.
pub async fn hold(address: SocketAddr, hello: &[u8], count: usize, report: impl Fn(&'static str)) {
    let mut held: Vec<TcpStream> = Vec::with_capacity(count);
    let mut ticks = interval(OPEN_EVERY);
    let mut answer = vec![0; 4096];
    loop {
        ticks.tick().await;
        held.retain(|stream| {
            let is_open = loop {
                match stream.try_read(&mut answer) {
                    Ok(0) => break false,
                    Ok(_) => {}
                    Err(error) => break error.kind() == ErrorKind::WouldBlock,
                }
            };
            if !is_open {
                report("closed by it");
            }
            is_open
        });
        for _ in held.len()..count.min(held.len() + OPEN_AT_ONCE) {
            let opened = async {
                let mut stream = connect(address).await.ok()?;
                stream.write_all(hello).await.ok()?;
                Some(stream)
            };
            match opened.await {
                Some(stream) => {
                    report("opened");
                    held.push(stream);
                }
                None => {
                    report("not accepted");
                    break;
                }
            }
        }
    }
}

/// Says a greeting and awaits its answer, then a head and all of a body but its last byte, and waits; gives what came of it.
pub async fn leave_unfinished(
    address: SocketAddr,
    (greeting, head): (&[u8], &[u8]),
    bytes: usize,
    within: Duration,
) -> String {
    let piece = vec![b' '; PIECE];
    let said = async {
        let mut stream = connect(address).await.ok()?;
        let mut answer = vec![0; 512];
        if !greeting.is_empty() {
            stream.write_all(greeting).await.ok()?;
            // Short enough to come in one piece.
            let _whole = stream.read(&mut answer).await.ok()?;
        }
        let (mut read, mut write) = stream.split();
        let writing = async {
            write.write_all(head).await.ok()?;
            let mut left = bytes.saturating_sub(1);
            while left > 0 {
                let part = piece.get(..left.min(PIECE)).unwrap_or_default();
                write.write_all(part).await.ok()?;
                left -= part.len();
            }
            Some(())
        };
        let reading = async { read.read(&mut answer).await.unwrap_or(0) };
        let mut reading = std::pin::pin!(reading);
        let read = tokio::select! {
            read = &mut reading => read,
            // An answer may be there although no more is taken.
            _ = writing => reading.await,
        };
        answer.truncate(read);
        Some(answer)
    };
    match timeout(within, said).await {
        Err(_) => "held to the end".to_owned(),
        Ok(None) => "not accepted".to_owned(),
        Ok(Some(answer)) => {
            let status = std::str::from_utf8(&answer)
                .ok()
                .and_then(|text| text.split(' ').nth(1));
            status.map_or("closed by it".to_owned(), str::to_owned)
        }
    }
}
