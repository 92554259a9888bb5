//! Reads from `X-Forwarded-For` whose request it is, when a balancer that speaks HTTP is in front.
//!
//! Anybody can send the header, so only what trusted balancers wrote counts: addresses are read from the right,
//! and the first that is no trusted balancer's is the client's.

use hyper::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};

const X_FORWARDED_FOR: &str = "x-forwarded-for";

/// Whether an address is one of these balancers'.
pub fn is_trusted(trusted: &[IpNet], address: IpAddr) -> bool {
    let address = address.to_canonical();
    trusted.iter().any(|block| block.contains(&address))
}

/// The client's address as told by a trusted balancer; the farthest known hop when it tells no client's.
pub fn client(headers: &HeaderMap, balancer: IpAddr, trusted: &[IpNet]) -> IpAddr {
    let mut nearest = balancer;
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev();
    for hop in lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b',')) {
        // What stands left of something unreadable was not written by whoever is trusted.
        let Some(address) = read(hop) else { break };
        nearest = address;
        if !is_trusted(trusted, address) {
            break;
        }
    }
    nearest
}

/// An address, with a port or in brackets where a balancer writes it so.
fn read(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let address = bare
        .parse()
        .or_else(|_| text.parse::<SocketAddr>().map(|address| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(lines: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, line.parse().unwrap());
        }
        let trusted = ["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()];
        client(&headers, "10.0.0.1".parse().unwrap(), &trusted).to_string()
    }

    #[test]
    fn the_client_is_the_right_most_address_that_is_no_balancers() {
        assert_eq!(told(&["203.0.113.9"]), "203.0.113.9");
        assert_eq!(
            told(&["198.51.100.1, 203.0.113.9, 10.0.0.2"]),
            "203.0.113.9",
            "the first is a claim"
        );
        assert_eq!(
            told(&["198.51.100.1", "203.0.113.9", "10.0.0.2,fd00::1"]),
            "203.0.113.9"
        );
        assert_eq!(told(&["::ffff:203.0.113.9"]), "203.0.113.9");
    }

    #[test]
    fn ports_and_brackets_are_no_part_of_the_address() {
        assert_eq!(told(&["203.0.113.9:4711"]), "203.0.113.9");
        assert_eq!(told(&["[2001:db8::1]:4711"]), "2001:db8::1");
        assert_eq!(told(&["[2001:db8::1]"]), "2001:db8::1");
    }

    #[test]
    fn without_a_readable_client_it_is_the_farthest_hop_that_is_known() {
        assert_eq!(told(&[]), "10.0.0.1");
        assert_eq!(told(&["10.0.0.2"]), "10.0.0.2");
        assert_eq!(told(&["203.0.113.9, unknown, 10.0.0.2"]), "10.0.0.2");
        assert_eq!(told(&["203.0.113.9,"]), "10.0.0.1");
    }
}
