//! The `[api]` section.

use ackline_shared::config::Reader;
use std::net::SocketAddr;
use std::time::Duration;

/// How the API is served and what a request may cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiSettings {
    /// Where the REST API is served.
    pub listen: SocketAddr,
    /// Where health and metrics are served.
    pub private_listen: SocketAddr,
    /// Address under which the outside reaches the API.
    pub public_url: String,
    /// Longest body of a request.
    pub body_bytes_max: usize,
    /// Longest time a request may take.
    pub request_timeout: Duration,
    /// Requests a key may make per second, over time.
    pub requests_per_second: u32,
    /// Requests a key may make at once.
    pub requests_burst: u32,
    /// How long flows rest in a conversation after an agent's answer; not at all when zero.
    pub rest_after_agent: Duration,
}

impl ApiSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let body_bytes_max = reader.bytes("api.body_bytes_max", 1 << 10..=64 << 20);
        let mut count = |key: &str| u32::try_from(reader.count(key, 1..=1_000_000)).unwrap_or(1);
        let (requests_per_second, requests_burst) = (
            count("api.requests_per_second"),
            count("api.requests_burst"),
        );
        Self {
            listen: reader.address("api.listen"),
            private_listen: reader.address("api.private_listen"),
            public_url: reader.url("api.public_url", &["http", "https"]),
            body_bytes_max: usize::try_from(body_bytes_max).unwrap_or(1 << 20),
            request_timeout: reader.duration("api.request_timeout"),
            requests_per_second,
            requests_burst,
            rest_after_agent: rest_after_agent(reader),
        }
    }
}

fn rest_after_agent(reader: &mut Reader) -> Duration {
    const KEY: &str = "flows.rest_after_agent";
    if reader.text(KEY) == "off" {
        Duration::ZERO
    } else {
        reader.duration(KEY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid() {
        let mut reader = Reader::load(None, []);
        let settings = ApiSettings::read(&mut reader);
        assert_eq!(settings.request_timeout, Duration::from_secs(15));
        assert_eq!(settings.rest_after_agent, Duration::from_secs(24 * 3600));
        reader.finish().unwrap();
    }

    #[test]
    fn a_rest_may_be_switched_off_and_not_be_nonsense() {
        let read = |text: &str| {
            let variable = ("ACKLINE_FLOWS_REST_AFTER_AGENT".to_owned(), text.to_owned());
            let mut reader = Reader::load(None, [variable]);
            let rest = ApiSettings::read(&mut reader).rest_after_agent;
            reader.finish().map(|_| rest).ok()
        };
        assert_eq!(read("off"), Some(Duration::ZERO));
        assert_eq!(read("30m"), Some(Duration::from_secs(1800)));
        assert_eq!(read("a while"), None);
    }
}
