//! The `[status]` and `[scaling]` sections.

use crate::scaling::Targets;
use ackline_shared::config::Reader;
use std::net::SocketAddr;
use std::time::Duration;

/// What is shown and how often streams are looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatusSettings {
    /// Shortest time between two looks at the same consumer.
    pub lag_interval: Duration,
    pub tenants_max: usize,
    /// What the number of wanted workers is to achieve.
    pub targets: Targets,
    /// Where KEDA asks, if anywhere.
    pub keda_listen: Option<SocketAddr>,
}

impl StatusSettings {
    pub fn read(reader: &mut Reader) -> Self {
        let mut count = |key: &str, bounds| u32::try_from(reader.count(key, bounds)).unwrap_or(1);
        let tenants_max = count("status.tenants_max", 1..=50);
        let (min, max) = (
            count("scaling.workers_min", 0..=1000),
            count("scaling.workers_max", 1..=1000),
        );
        if min > max {
            reader.mistake(
                "scaling.workers_min",
                format_args!("{min} is above scaling.workers_max, {max}"),
            );
        }
        let keda_listen = reader
            .optional_text("scaling.keda_listen")
            .and_then(|text| {
                text.parse()
                    .map_err(|_| {
                        reader.mistake(
                            "scaling.keda_listen",
                            format_args!("`{text}` is not an address and port"),
                        )
                    })
                    .ok()
            });
        Self {
            keda_listen,
            lag_interval: reader.duration("status.lag_interval"),
            tenants_max: usize::try_from(tenants_max).unwrap_or(1),
            targets: Targets {
                drain: reader.duration("scaling.drain_time"),
                min,
                max,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_bounds_that_cross_are_a_mistake() {
        let mut reader = Reader::load(None, []);
        assert_eq!(StatusSettings::read(&mut reader).tenants_max, 10);
        reader.finish().unwrap();
        let crossed = [("ACKLINE_SCALING_WORKERS_MIN".to_owned(), "900".to_owned())];
        let mut reader = Reader::load(None, crossed);
        StatusSettings::read(&mut reader);
        assert_eq!(reader.finish().unwrap_err().mistakes.len(), 1);
    }
}
