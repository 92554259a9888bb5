//! The operator's list of destinations that tenants' URLs may reach although they are private.

use ipnet::IpNet;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// Entries such as `chatwoot.lan`, `10.0.8.0/24:443`, `127.0.0.1` or `[fd00::/8]:8080`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<AllowRule>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct AllowRule {
    destination: Destination,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Destination {
    /// Lower case, without a trailing dot.
    Host(String),
    Net(IpNet),
}

/// Why an entry of the list is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{entry}` is not a host name, an IP address or a CIDR block with an optional `:port`")]
pub struct AllowError {
    entry: String,
}

impl AllowList {
    /// Reads the entries; the first that cannot be read is the error.
    pub fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, AllowError> {
        let rule = |entry: &str| {
            parse_rule(entry).ok_or_else(|| AllowError {
                entry: entry.to_owned(),
            })
        };
        entries
            .into_iter()
            .map(rule)
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// The list with more entries; what cannot be read permits nothing.
    pub(super) fn with<'a>(&self, entries: impl IntoIterator<Item = &'a str>) -> Self {
        Self(
            self.0
                .iter()
                .cloned()
                .chain(entries.into_iter().filter_map(parse_rule))
                .collect(),
        )
    }

    /// Whether the list names this host; then any address it resolves to may be reached.
    pub(super) fn permits_host(&self, host: &str, port: Option<u16>) -> bool {
        let host = host.trim_end_matches('.');
        self.any(
            port,
            |destination| matches!(destination, Destination::Host(name) if name == host),
        )
    }

    /// Whether the list holds this address.
    pub(super) fn permits_address(&self, address: IpAddr, port: Option<u16>) -> bool {
        self.any(
            port,
            |destination| matches!(destination, Destination::Net(net) if net.contains(&address)),
        )
    }

    /// The ports that some entry is limited to.
    pub(super) fn ports(&self) -> BTreeSet<u16> {
        self.0.iter().filter_map(|rule| rule.port).collect()
    }

    /// Whether some entry names addresses: what a host name resolves to may be among them.
    pub(super) fn has_addresses(&self) -> bool {
        self.0
            .iter()
            .any(|rule| matches!(rule.destination, Destination::Net(_)))
    }

    fn any(&self, port: Option<u16>, matches: impl Fn(&Destination) -> bool) -> bool {
        self.0
            .iter()
            .any(|rule| (rule.port.is_none() || rule.port == port) && matches(&rule.destination))
    }
}

fn parse_rule(entry: &str) -> Option<AllowRule> {
    let entry = entry.trim();
    if let Some((inside, after)) = entry
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        let port = if after.is_empty() {
            None
        } else {
            Some(parse_port(after.strip_prefix(':')?)?)
        };
        return Some(AllowRule {
            destination: Destination::Net(parse_net(inside)?),
            port,
        });
    }
    if let Some(net) = parse_net(entry) {
        return Some(AllowRule {
            destination: Destination::Net(net),
            port: None,
        });
    }
    let (name, port) = match entry.rsplit_once(':') {
        Some((name, port)) => (name, Some(parse_port(port)?)),
        None => (entry, None),
    };
    let destination = match parse_net(name) {
        Some(net) => Destination::Net(net),
        None => Destination::Host(parse_host(name)?),
    };
    Some(AllowRule { destination, port })
}

fn parse_net(text: &str) -> Option<IpNet> {
    text.parse()
        .ok()
        .or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}

fn parse_port(text: &str) -> Option<u16> {
    text.parse().ok().filter(|port| *port != 0)
}

/// Reads a name as a URL would hold it, so that the two compare equal.
fn parse_host(text: &str) -> Option<String> {
    match url::Host::parse(text) {
        Ok(url::Host::Domain(name)) if !name.contains('*') => {
            Some(name.trim_end_matches('.').to_owned())
        }
        _ => None,
    }
    .filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(entries: &[&str]) -> AllowList {
        AllowList::parse(entries.iter().copied()).unwrap()
    }

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_entry_without_a_port_permits_every_port() {
        let list = list(&["10.0.8.0/24", "Chatwoot.LAN.", "::1"]);
        assert!(list.permits_address(address("10.0.8.9"), Some(3000)));
        assert!(list.permits_address(address("::1"), None));
        assert!(!list.permits_address(address("10.0.9.9"), Some(3000)));
        assert!(
            list.permits_host("chatwoot.lan", Some(1)) && list.permits_host("chatwoot.lan.", None)
        );
        assert!(
            !list.permits_host("evil-chatwoot.lan", None)
                && !list.permits_host("a.chatwoot.lan", None)
        );
    }

    #[test]
    fn an_entry_with_a_port_permits_only_that_one() {
        let list = list(&[
            "10.0.8.0/24:443",
            "bot.lan:3000",
            "[fd00::/8]:8080",
            "127.0.0.1:80",
        ]);
        assert!(list.permits_address(address("10.0.8.9"), Some(443)));
        assert!(!list.permits_address(address("10.0.8.9"), Some(8443)));
        assert!(!list.permits_address(address("10.0.8.9"), None));
        assert!(
            list.permits_host("bot.lan", Some(3000)) && !list.permits_host("bot.lan", Some(3001))
        );
        assert!(list.permits_address(address("fd12::1"), Some(8080)));
        assert_eq!(list.ports(), BTreeSet::from([80, 443, 3000, 8080]));
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_named() {
        for entry in [
            "",
            "*.lan",
            "10.0.0.0/33",
            "a b",
            "host:0",
            "host:99999",
            "http://x",
            "[::1",
            "[x]",
            ":80",
        ] {
            let error = AllowList::parse([entry]).unwrap_err();
            assert!(error.to_string().contains(&format!("`{entry}`")), "{error}");
        }
    }

    #[test]
    fn an_address_in_mapped_form_is_not_the_address() {
        assert!(!list(&["127.0.0.1"]).permits_address(address("::ffff:127.0.0.1"), None));
    }
}
