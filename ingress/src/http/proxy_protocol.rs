//! The PROXY protocol, versions 1 and 2: who the client is, told by a balancer before the first byte of the client.
//!
//! Read strictly and to its last byte, never further. Whoever calls this has checked that the peer may speak
//! for others. Extensions (TLVs) are skipped.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest line of version 1, its end included, as the protocol has it.
const LINE_BYTES_MAX: usize = 107;
/// Longest addresses and extensions of version 2; balancers send under 300 bytes.
const BLOCK_BYTES_MAX: usize = 2048;
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";

/// Why a header is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The connection broke off inside it.
    #[error("the connection ended inside the PROXY header")]
    Broken(#[from] std::io::Error),
    /// It is not a PROXY header, or longer than allowed.
    #[error("not a PROXY header: {0}")]
    Malformed(&'static str),
}

/// Reads a header; `None` when the balancer speaks for itself or does not know the client.
pub async fn read<I: AsyncRead + Unpin>(io: &mut I) -> Result<Option<IpAddr>, ProxyError> {
    match io.read_u8().await? {
        b'P' => read_line(io).await,
        b'\r' => read_block(io).await,
        _ => Err(ProxyError::Malformed("it starts like something else")),
    }
}

async fn read_line<I: AsyncRead + Unpin>(io: &mut I) -> Result<Option<IpAddr>, ProxyError> {
    let mut line = Vec::with_capacity(LINE_BYTES_MAX);
    line.push(b'P');
    while !line.ends_with(b"\r\n") {
        if line.len() == LINE_BYTES_MAX {
            return Err(ProxyError::Malformed("the line is too long"));
        }
        line.push(io.read_u8().await?);
        // Ends the reading of what is not a header at all as early as possible.
        if !line
            .iter()
            .zip(b"PROXY ")
            .all(|(found, wanted)| found == wanted)
        {
            return Err(ProxyError::Malformed("it starts like something else"));
        }
    }
    let text = line
        .strip_suffix(b"\r\n")
        .and_then(|line| std::str::from_utf8(line).ok());
    parse_line(text.ok_or(ProxyError::Malformed("the line is not text"))?)
}

/// Reads `PROXY TCP4 source destination source-port destination-port`, without the end of the line.
fn parse_line(line: &str) -> Result<Option<IpAddr>, ProxyError> {
    let words: Vec<_> = line.split(' ').collect();
    let addresses = match words.as_slice() {
        // What follows UNKNOWN is to be ignored.
        ["PROXY", "UNKNOWN", ..] => return Ok(None),
        ["PROXY", "TCP4", source, destination, from, to] if is_port(from) && is_port(to) => {
            let both = source
                .parse::<Ipv4Addr>()
                .ok()
                .zip(destination.parse::<Ipv4Addr>().ok());
            both.map(|(source, _)| IpAddr::from(source))
        }
        ["PROXY", "TCP6", source, destination, from, to] if is_port(from) && is_port(to) => {
            let both = source
                .parse::<Ipv6Addr>()
                .ok()
                .zip(destination.parse::<Ipv6Addr>().ok());
            both.map(|(source, _)| IpAddr::from(source))
        }
        _ => None,
    };
    addresses
        .map(Some)
        .ok_or(ProxyError::Malformed("the line has other words"))
}

fn is_port(word: &str) -> bool {
    let is_plain =
        word.bytes().all(|byte| byte.is_ascii_digit()) && (word == "0" || !word.starts_with('0'));
    is_plain && word.parse::<u16>().is_ok()
}

async fn read_block<I: AsyncRead + Unpin>(io: &mut I) -> Result<Option<IpAddr>, ProxyError> {
    for wanted in SIGNATURE.iter().skip(1) {
        if io.read_u8().await? != *wanted {
            return Err(ProxyError::Malformed("it starts like something else"));
        }
    }
    let (command, family) = (io.read_u8().await?, io.read_u8().await?);
    let length = usize::from(io.read_u16().await?);
    if length > BLOCK_BYTES_MAX {
        return Err(ProxyError::Malformed(
            "the addresses and extensions are too long",
        ));
    }
    let mut block = vec![0; length];
    io.read_exact(&mut block).await?;
    parse_block(command, family, &block)
}

fn parse_block(command: u8, family: u8, block: &[u8]) -> Result<Option<IpAddr>, ProxyError> {
    let too_short = ProxyError::Malformed("the addresses are cut off");
    match (command, family) {
        // LOCAL: the balancer's own connection, such as a health check.
        (0x20, _) => Ok(None),
        (0x21, 0x11) => match (block.first_chunk::<4>(), block.len()) {
            (Some(source), 12..) => Ok(Some(Ipv4Addr::from(*source).into())),
            _ => Err(too_short),
        },
        (0x21, 0x21) => match (block.first_chunk::<16>(), block.len()) {
            (Some(source), 36..) => Ok(Some(Ipv6Addr::from(*source).into())),
            _ => Err(too_short),
        },
        // Unspecified, or a local socket in front of the balancer.
        (0x21, 0x00 | 0x31) => Ok(None),
        (0x21, _) => Err(ProxyError::Malformed("it is not for a stream")),
        _ => Err(ProxyError::Malformed("its version or command is unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reads a header from bytes that may go on; returns what is left as well.
    fn parse(mut bytes: &[u8]) -> (Result<Option<IpAddr>, ProxyError>, usize) {
        let result = futures_util::FutureExt::now_or_never(read(&mut bytes)).unwrap();
        (result, bytes.len())
    }

    fn block(command: u8, family: u8, addresses: &[u8]) -> Vec<u8> {
        let length = u16::try_from(addresses.len()).unwrap().to_be_bytes();
        [&SIGNATURE[..], &[command, family], &length, addresses].concat()
    }

    #[test]
    fn lines_that_are_not_exactly_right_are_refused() {
        for line in [
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 65536\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 01 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 +1 2\r\n",
            "PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n",
            "PROXY TCP4 ::1 ::1 1 2\r\n",
            "PROXY TCP6 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4  1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY TCP4 1.2.3.4 5.6.7.8 1 2 3\r\n",
            "PROXY TCP5 1.2.3.4 5.6.7.8 1 2\r\n",
            "PROXY\r\n",
            "POST / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\n",
        ] {
            assert!(
                matches!(parse(line.as_bytes()).0, Err(ProxyError::Malformed(_))),
                "{line}"
            );
        }
        let endless = format!("PROXY UNKNOWN {}", "x".repeat(LINE_BYTES_MAX));
        let (result, left) = parse(endless.as_bytes());
        assert!(matches!(result, Err(ProxyError::Malformed(_))));
        assert_eq!(left, endless.len() - LINE_BYTES_MAX);
        assert!(matches!(
            parse(b"PROXY TCP4 1.2").0,
            Err(ProxyError::Broken(_))
        ));
    }

    #[test]
    fn blocks_that_are_not_exactly_right_are_refused() {
        for bytes in [
            block(0x11, 0x11, &[0; 12]),
            block(0x22, 0x11, &[0; 12]),
            block(0x21, 0x12, &[0; 12]),
            block(0x21, 0x11, &[0; 11]),
            block(0x21, 0x21, &[0; 35]),
            block(0x20, 0x00, &[0; BLOCK_BYTES_MAX + 1]),
            b"\r\n\r\n\0\r\nQUIX\n".to_vec(),
        ] {
            assert!(
                matches!(parse(&bytes).0, Err(ProxyError::Malformed(_))),
                "{bytes:?}"
            );
        }
        let whole = block(0x21, 0x11, &[1; 12]);
        assert!(matches!(parse(&whole[..20]).0, Err(ProxyError::Broken(_))));
    }

    #[test]
    fn a_balancer_may_speak_for_itself() {
        for bytes in [
            b"PROXY UNKNOWN\r\n".to_vec(),
            b"PROXY UNKNOWN ::1 x\r\n".to_vec(),
            block(0x20, 0, &[]),
        ] {
            assert_eq!(parse(&bytes).0.unwrap(), None);
        }
        assert_eq!(parse(&block(0x21, 0x31, &[0; 216])).0.unwrap(), None);
    }

    proptest! {
        #[test]
        fn the_client_is_found_and_what_follows_is_left(
            source: IpAddr, ports: (u16, u16), extensions in prop::collection::vec(any::<u8>(), 0..300),
            rest in prop::collection::vec(any::<u8>(), 0..50),
        ) {
            let kind = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            let line = format!("PROXY {kind} {source} {source} {} {}\r\n", ports.0, ports.1);
            let (found, left) = parse(&[line.as_bytes(), &rest].concat());
            prop_assert_eq!(found.unwrap(), Some(source));
            prop_assert_eq!(left, rest.len());
            let (family, octets) = match source {
                IpAddr::V4(ip) => (0x11, ip.octets().to_vec()),
                IpAddr::V6(ip) => (0x21, ip.octets().to_vec()),
            };
            let addresses = [octets.as_slice(), &octets, &[0; 4], &extensions].concat();
            let (found, left) = parse(&[block(0x21, family, &addresses), rest.clone()].concat());
            prop_assert_eq!(found.unwrap(), Some(source));
            prop_assert_eq!(left, rest.len());
        }

        #[test]
        fn no_bytes_are_too_odd(bytes in prop::collection::vec(any::<u8>(), 0..400), marked: bool, line: bool) {
            let start: &[u8] = if line { b"PROXY TCP4 " } else { &SIGNATURE };
            let bytes = if marked { [start, &bytes].concat() } else { bytes };
            let _answered = parse(&bytes);
        }
    }
}
