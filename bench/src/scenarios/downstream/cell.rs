//! The matrix: what fails, how, and for how long.

use crate::faulty::{Mode, Refusal};
use ackline_shared::subjects::Pool;
use std::time::Duration;

const SLOW: Duration = Duration::from_secs(9);
/// Longer than what a load balancer or a supervisor needs to notice, shorter than any outage.
const FLAP_DOWN: Duration = Duration::from_secs(3);
const FLAP_UP: Duration = Duration::from_secs(2);
/// Meta's own words for both.
const META_OVERLOADED: &str = r#"{"error":{"message":"Service temporarily unavailable","type":"OAuthException","code":2,"fbtrace_id":"bench"}}"#;
const META_THROTTLED: &str = r#"{"error":{"message":"(#130429) Rate limit hit","type":"OAuthException","code":130429,"fbtrace_id":"bench"}}"#;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Relay,
    Endpoint,
    Crm,
    /// The Graph API for one number.
    Graph,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Relay, Self::Endpoint, Self::Crm, Self::Graph];

    pub fn word(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Endpoint => "endpoint",
            Self::Crm => "crm",
            Self::Graph => "graph",
        }
    }

    /// The pool that brings updates there.
    pub fn pool(self) -> Pool {
        match self {
            Self::Relay => Pool::Relay,
            Self::Endpoint => Pool::Events,
            Self::Crm => Pool::Crm,
            Self::Graph => Pool::Replies,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    Refused,
    /// The work is done and the connection reset in place of an answer.
    Reset,
    Unavailable,
    Missing,
    /// It answers 429 and says when to come again.
    Throttled,
    /// It takes requests and never answers.
    Hang,
    /// It answers after 9 s.
    Slow,
    /// It answers 503 for 3 s, works for 2 s, and so on.
    Flapping,
}

impl Fault {
    const ALL: [Self; 8] = [
        Self::Refused,
        Self::Reset,
        Self::Unavailable,
        Self::Missing,
        Self::Throttled,
        Self::Hang,
        Self::Slow,
        Self::Flapping,
    ];

    pub fn word(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Reset => "reset",
            Self::Unavailable => "503",
            Self::Missing => "404",
            Self::Throttled => "429",
            Self::Hang => "hang",
            Self::Slow => "slow 9 s",
            Self::Flapping => "flapping",
        }
    }

    /// What the target does; `None` for a closed port.
    pub fn mode(self, kind: Kind, retry_after: Duration) -> Option<Mode> {
        let (overloaded, throttled) = match kind {
            Kind::Graph => (META_OVERLOADED, META_THROTTLED),
            Kind::Relay | Kind::Endpoint | Kind::Crm => ("{}", "{}"),
        };
        let unavailable = Refusal {
            body: overloaded,
            ..Refusal::plain(503)
        };
        Some(match self {
            Self::Refused => return None,
            Self::Reset => Mode::Resets,
            Self::Unavailable => Mode::Answers(unavailable),
            Self::Missing => Mode::Answers(Refusal::plain(404)),
            Self::Throttled => Mode::Answers(Refusal {
                status: 429,
                retry_after: Some(retry_after),
                body: throttled,
            }),
            Self::Hang => Mode::Hangs,
            Self::Slow => Mode::Slow(SLOW),
            Self::Flapping => Mode::Flaps {
                down: FLAP_DOWN,
                up: FLAP_UP,
                refusal: unavailable,
            },
        })
    }
}

/// For how long targets fail, all of them at once.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub name: &'static str,
    lasts: Duration,
    /// How many times faster it is played, with the pauses and waits in the settings.
    pub speed: u32,
    retry_after: Duration,
    /// The cells that also get a stream of messages.
    floods: &'static [(Kind, Fault)],
}

impl Outage {
    /// How long it lasts as it is played.
    pub fn lasts(&self) -> Duration {
        self.lasts / self.speed
    }

    /// What a 429 says, as it is played.
    pub fn retry_after(&self) -> Duration {
        (self.retry_after / self.speed).max(Duration::from_secs(1))
    }

    /// Whether it is longer than what a short recovery is promised for.
    pub fn is_long(&self) -> bool {
        self.lasts > Duration::from_secs(300)
    }

    /// The settings it is played with.
    pub fn settings(&self) -> String {
        if self.speed == 1 {
            return String::new();
        }
        let pools = ["replies", "relay", "crm", "events"];
        let scaled = |seconds: u32| format!("\"{}ms\"", seconds * 1_000 / self.speed);
        let (minute, park) = (scaled(60), scaled(10));
        let pools = pools.map(|pool| format!("[pools.{pool}]\nbackoff_max = {minute}\n"));
        format!(
            "[pools]\nbreaker_pause_max = {minute}\npark_after = {park}\n\n{}",
            pools.join("\n")
        )
    }
}

/// The outages; the long one is played faster.
pub fn outages(speed: u32) -> [Outage; 3] {
    use Fault::{Hang, Refused, Reset, Throttled, Unavailable};
    use Kind::{Crm, Endpoint, Graph, Relay};
    [
        Outage {
            name: "15s",
            lasts: Duration::from_secs(15),
            speed: 1,
            retry_after: Duration::from_secs(5),
            floods: &[
                (Relay, Refused),
                (Relay, Unavailable),
                (Relay, Hang),
                (Endpoint, Refused),
                (Endpoint, Unavailable),
                (Endpoint, Reset),
                (Crm, Unavailable),
                (Crm, Throttled),
                (Graph, Unavailable),
            ],
        },
        Outage {
            name: "4m",
            lasts: Duration::from_secs(240),
            speed: 1,
            retry_after: Duration::from_secs(20),
            floods: &[(Relay, Unavailable), (Crm, Refused)],
        },
        Outage {
            name: "30m",
            lasts: Duration::from_secs(1_800),
            speed: speed.max(1),
            retry_after: Duration::from_secs(60),
            floods: &[(Endpoint, Unavailable)],
        },
    ]
}

/// One target that fails in one way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cell {
    pub kind: Kind,
    pub fault: Fault,
    /// Whether it also gets a stream of messages.
    pub is_flooded: bool,
}

impl Cell {
    pub fn name(self) -> String {
        format!("{} · {}", self.kind.word(), self.fault.word())
    }

    /// Whether its updates go to one target only, and the healthy one gets its own.
    pub fn is_apart(self) -> bool {
        self.kind == Kind::Graph && !self.is_alone()
    }

    /// Whether it needs an installation of its own: all numbers share the address of the Graph API.
    pub fn is_alone(self) -> bool {
        (self.kind, self.fault) == (Kind::Graph, Fault::Refused)
    }

    /// Whether requests whose answers are lost may be made again.
    pub fn is_at_least_once(self) -> bool {
        matches!(self.kind, Kind::Relay | Kind::Endpoint)
    }
}

/// Every cell of an outage; a quick run has few streams of messages.
pub fn cells(outage: &Outage, floods_max: usize) -> Vec<Cell> {
    let floods: Vec<_> = outage
        .floods
        .iter()
        .rev()
        .step_by(2)
        .chain(outage.floods)
        .take(floods_max)
        .collect();
    let pairs = Kind::ALL
        .into_iter()
        .flat_map(|kind| Fault::ALL.map(|fault| (kind, fault)));
    // A number that Meta does not know is a mistake of the configuration.
    let pairs = pairs.filter(|&pair| pair != (Kind::Graph, Fault::Missing));
    pairs
        .map(|(kind, fault)| Cell {
            kind,
            fault,
            is_flooded: floods.contains(&&(kind, fault)),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_at_least_ninety_cells_and_twelve_of_them_are_flooded() {
        let all: Vec<Cell> = outages(5)
            .iter()
            .flat_map(|outage| cells(outage, usize::MAX))
            .collect();
        assert_eq!(all.len(), 93);
        assert_eq!(all.iter().filter(|cell| cell.is_flooded).count(), 12);
        assert_eq!(
            cells(&outages(5)[0], 4)
                .iter()
                .filter(|cell| cell.is_flooded)
                .count(),
            4
        );
    }

    #[test]
    fn an_outage_that_is_played_faster_scales_its_settings() {
        let [short, _, long] = outages(5);
        assert_eq!(
            (short.settings(), short.lasts()),
            (String::new(), Duration::from_secs(15))
        );
        assert_eq!(long.lasts(), Duration::from_secs(360));
        let settings: toml::Table = long.settings().parse().unwrap();
        assert_eq!(settings["pools"]["park_after"].as_str(), Some("2000ms"));
        assert_eq!(
            settings["pools"]["relay"]["backoff_max"].as_str(),
            Some("12000ms")
        );
    }
}
