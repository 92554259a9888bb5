//! What the edge reads from the configuration, checked once at the start.

use crate::http::acceptor::AcceptSettings;
use crate::http::admission::Shedding;
use crate::http::bounds::Bounds;
use crate::routing::InFlight;
use crate::store::publisher::Publishing;
use crate::store::spool::settings::SpoolSettings;
use ackline_shared::config::Reader;
use ackline_shared::nats::NatsSettings;
use ackline_shared::telemetry::Telemetry;
use ackline_shared::vault::{self, VaultKey};
use hyper::header::HeaderValue;
use std::net::SocketAddr;
use std::num::NonZero;
use std::thread::available_parallelism;
use std::time::Duration;

/// A mebibyte holds 65,536 acknowledged updates.
const ACKNOWLEDGED_CEILING: u64 = 64 << 20;
/// Fewer deliveries than this in flight are no queue.
const SHED_FROM: usize = 16;
const THREADS_CEILING: u64 = 256;

/// Everything the edge is told from outside.
#[derive(Debug, Clone)]
pub struct IngressSettings {
    pub listen: SocketAddr,
    /// Where health and metrics are served.
    pub private_listen: SocketAddr,
    pub threads: usize,
    /// Limits of what a client may make us hold.
    pub bounds: Bounds,
    /// What a connection passes before its first request.
    pub acceptor: AcceptSettings,
    /// Limits of storing a delivery.
    pub publishing: Publishing,
    /// How long storing may take before deliveries are turned away.
    pub shed_delay: Duration,
    /// Acknowledged updates remembered, so that their repeats cost no publish.
    pub acknowledged_max: usize,
    /// Value of Retry-After on 503.
    pub retry_after: Duration,
    /// Time to finish what is in flight after SIGTERM.
    pub drain_timeout: Duration,
    /// The local log, if there is to be one.
    pub spool: Option<SpoolSettings>,
    /// The log behind the edge.
    pub nats: NatsSettings,
    /// Opens the apps' secrets; absent only while the configuration is being refused.
    pub master_key: Option<VaultKey>,
    pub telemetry: Telemetry,
}

impl IngressSettings {
    /// Reads `[ingress]`, `[spool]`, `[nats]`, `[secrets]` and `[telemetry]`; mistakes stay with the reader.
    pub fn read(reader: &mut Reader) -> Self {
        let master_key = vault::master_key(reader)
            .map_err(|error| reader.mistake("secrets.master_key_file", error))
            .ok();
        let nats = NatsSettings::read(reader);
        let settings = Self {
            listen: reader.address("ingress.listen"),
            private_listen: reader.address("ingress.private_listen"),
            threads: threads(reader.count("ingress.threads", 0..=THREADS_CEILING)),
            bounds: Bounds::read(reader),
            acceptor: AcceptSettings::read(reader),
            publishing: Publishing::read(reader),
            shed_delay: reader.duration("ingress.shed_delay"),
            acknowledged_max: size(
                reader.count("ingress.acknowledged_max", 0..=ACKNOWLEDGED_CEILING),
            ),
            retry_after: reader.duration("ingress.retry_after"),
            drain_timeout: reader.duration("ingress.drain_timeout"),
            spool: SpoolSettings::read(reader, &nats),
            nats,
            master_key,
            telemetry: Telemetry::read(reader),
        };
        if settings.bounds.body_bytes_total_max < settings.bounds.body_bytes_max {
            reader.mistake(
                "ingress.body_bytes_total_max",
                "is less than ingress.body_bytes_max",
            );
        }
        let per_address = settings.acceptor.body_bytes_per_address_max;
        if per_address > 0 && per_address < settings.bounds.body_bytes_max {
            reader.mistake(
                "ingress.body_bytes_per_address_max",
                "is less than ingress.body_bytes_max",
            );
        }
        if settings.publishing.attempt_timeout > settings.publishing.budget {
            reader.mistake(
                "ingress.publish_attempt_timeout",
                "is longer than ingress.publish_budget",
            );
        }
        settings
    }

    /// When one of `threads` equal shares turns deliveries away.
    pub fn shedding(&self, threads: usize) -> Shedding {
        let in_flight_max = self
            .publishing
            .share_of(threads)
            .in_flight_max
            .max(SHED_FROM);
        Shedding {
            target: self.shed_delay,
            in_flight_max,
        }
    }

    /// What one tenant's own app may have on its way to the log: half of it all, so that others get through.
    pub fn tenant_in_flight(&self) -> InFlight {
        InFlight {
            updates: self.publishing.in_flight_max / 2,
            bytes: self.bounds.body_bytes_total_max / 2,
        }
    }

    pub fn retry_after_header(&self) -> HeaderValue {
        HeaderValue::from(self.retry_after.as_secs().max(1))
    }
}

fn threads(configured: u64) -> usize {
    NonZero::new(size(configured))
        .or_else(|| available_parallelism().ok())
        .map_or(1, NonZero::get)
}

fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(variables: &[(&str, &str)]) -> Result<IngressSettings, Vec<String>> {
        let variables = variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let mut reader = Reader::load(None, variables);
        let settings = IngressSettings::read(&mut reader);
        reader
            .finish()
            .map(|()| settings)
            .map_err(|report| report.mistakes)
    }

    fn key() -> String {
        VaultKey::generate().to_base64().expose().clone()
    }

    #[test]
    fn the_defaults_need_only_a_master_key() {
        let settings = read(&[("ACKLINE_SECRETS_MASTER_KEY", &key())]).unwrap();
        assert_eq!(settings.bounds.body_bytes_max, 4 << 20);
        let mistakes = read(&[]).unwrap_err();
        assert_eq!(mistakes.len(), 1, "{mistakes:?}");
        assert!(mistakes[0].contains("master_key_file"), "{mistakes:?}");
    }

    #[test]
    fn a_spool_needs_a_place_and_keeps_no_longer_than_repeats_are_known() {
        let key = key();
        let read = |more: &[(&str, &str)]| {
            let fixed = [("ACKLINE_SECRETS_MASTER_KEY", key.as_str())];
            read(&[&fixed, more].concat()).map(|settings| settings.spool)
        };
        assert_eq!(read(&[("ACKLINE_SPOOL_DIRECTORY", "spool")]), Ok(None));
        let mistakes = read(&[("ACKLINE_SPOOL_ENABLED", "true")]).unwrap_err();
        assert!(mistakes[0].contains("spool.directory"), "{mistakes:?}");
        let logged = [
            ("ACKLINE_NATS_DURABILITY", "logged"),
            ("ACKLINE_SPOOL_DIRECTORY", "spool"),
        ];
        assert!(read(&logged).unwrap().unwrap().always);
        let mistakes = read(&[&logged[..], &[("ACKLINE_SPOOL_KEEP", "5m")]].concat()).unwrap_err();
        assert!(mistakes[0].contains("spool.keep"), "{mistakes:?}");
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let mistakes = read(&[
            ("ACKLINE_SECRETS_MASTER_KEY", &key()),
            ("ACKLINE_INGRESS_LISTEN", "nowhere"),
            ("ACKLINE_INGRESS_BODY_BYTES_TOTAL_MAX", "1MiB"),
            ("ACKLINE_INGRESS_PUBLISH_ATTEMPT_TIMEOUT", "1m"),
            ("ACKLINE_INGRESS_IN_FLIGHT_MAX", "100000"),
        ])
        .unwrap_err();
        assert_eq!(mistakes.len(), 4, "{mistakes:?}");
    }
}
