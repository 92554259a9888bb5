//! Which servers there are and which to try next: those configured, and those that a cluster told of.

use ackline_shared::nats::user_of;
use ackline_shared::secret::Secret;
use std::fmt;
use url::Url;

const SERVERS_MAX: usize = 64;
const PORT: u16 = 4222;

/// A server's address, as configured or told.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    pub host: String,
    pub port: u16,
    /// Whether the URL asks for TLS.
    pub tls: bool,
    /// User and password of the URL; a token is a user without a password.
    pub user: Option<(String, Option<Secret<String>>)>,
}

/// The servers, with what became of connecting to them.
#[derive(Debug)]
pub struct Servers(Vec<(Server, u32)>);

/// A server's URL cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it must be nats://host:port or tls://host:port, several separated by commas")]
pub struct InvalidServer;

impl Server {
    /// Reads a URL; a host alone is enough.
    pub fn parse(text: &str) -> Result<Self, InvalidServer> {
        let url = if text.contains("://") {
            Url::parse(text)
        } else {
            Url::parse(&format!("nats://{text}"))
        };
        let url = url.map_err(|_| InvalidServer)?;
        let host = url
            .host_str()
            .filter(|host| !host.is_empty())
            .ok_or(InvalidServer)?;
        if !matches!(url.scheme(), "nats" | "tls") {
            return Err(InvalidServer);
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port().unwrap_or(PORT),
            tls: url.scheme() == "tls",
            user: user_of(&url),
        })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

impl Servers {
    pub fn parse<'a>(urls: impl Iterator<Item = &'a str>) -> Result<Self, InvalidServer> {
        let servers = urls.map(|url| Server::parse(url).map(|server| (server, 0)));
        servers.collect::<Result<_, _>>().map(Self)
    }

    /// The server to try next: one that failed least, any of several by `random`.
    pub fn next(&self, random: usize) -> Option<&Server> {
        let least = self.0.iter().map(|(_, failed)| *failed).min()?;
        let best: Vec<_> = self
            .0
            .iter()
            .filter(|(_, failed)| *failed == least)
            .collect();
        best.get(random % best.len().max(1))
            .map(|(server, _)| server)
    }

    /// Notes that connecting to a server worked or did not.
    pub fn tried(&mut self, server: &Server, connected: bool) {
        if let Some((_, failed)) = self.0.iter_mut().find(|(known, _)| known == server) {
            *failed = if connected {
                0
            } else {
                failed.saturating_add(1)
            };
        }
    }

    /// Adds the servers of the cluster that `by` told of, with its credentials.
    pub fn add(&mut self, by: &Server, addresses: &[String]) {
        for address in addresses {
            let Ok(server) = Server::parse(address) else {
                continue;
            };
            let known = self
                .0
                .iter()
                .any(|(known, _)| known.host == server.host && known.port == server.port);
            if !known && self.0.len() < SERVERS_MAX {
                self.0.push((
                    Server {
                        tls: by.tls,
                        user: by.user.clone(),
                        ..server
                    },
                    0,
                ));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_names_host_port_tls_and_user() {
        let server = Server::parse("tls://ann:p%40ss@nats.example:5222").unwrap();
        assert_eq!(
            (server.host.as_str(), server.port, server.tls),
            ("nats.example", 5222, true)
        );
        assert_eq!(
            server.user,
            Some(("ann".to_owned(), Some(Secret::new("p@ss".to_owned()))))
        );
        assert!(!format!("{server:?}").contains("p@ss"));
        let bare = Server::parse("[::1]").unwrap();
        assert_eq!(
            (bare.host.as_str(), bare.port, bare.tls, bare.user),
            ("::1", 4222, false, None)
        );
        for text in ["", "ws://a", "nats://", "http://a", "nats://a b"] {
            assert_eq!(Server::parse(text), Err(InvalidServer), "{text}");
        }
    }

    #[test]
    fn the_server_that_failed_least_is_next_and_the_cluster_adds_its_own() {
        let mut servers = Servers::parse(["a:1", "b:2"].into_iter()).unwrap();
        let [first, second] = [0, 1].map(|random| servers.next(random).unwrap().clone());
        assert_ne!(first, second);
        servers.tried(&first, false);
        assert!((0..9).all(|random| servers.next(random) == Some(&second)));
        servers.tried(&second, false);
        servers.add(
            &first,
            &["a:1".to_owned(), "c:3".to_owned(), "::".to_owned()],
        );
        assert_eq!(servers.next(5).map(|server| server.port), Some(3));
        servers.tried(&first, true);
        assert_eq!(
            [0, 1].map(|random| servers.next(random).unwrap().port),
            [1, 3]
        );
    }
}
