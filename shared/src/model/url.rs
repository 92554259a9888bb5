//! Addresses of tenants' systems, and how long a request to one may take.

use super::entity::Faults;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// The longest time of a request to a tenant's URL: a second to five minutes, written with its unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RequestTimeout(pub Duration);

impl TryFrom<String> for RequestTimeout {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const BOUNDS: std::ops::RangeInclusive<Duration> =
            Duration::from_secs(1)..=Duration::from_secs(300);
        let parsed = humantime::parse_duration(&text)
            .ok()
            .filter(|timeout| BOUNDS.contains(timeout));
        parsed
            .map(Self)
            .ok_or("expected a duration from \"1s\" to \"5m\"")
    }
}

impl From<RequestTimeout> for String {
    fn from(timeout: RequestTimeout) -> Self {
        humantime::format_duration(timeout.0).to_string()
    }
}

/// Says what is wrong with the address of an entity.
pub(super) fn check_url(text: &str, faults: &mut Faults) {
    let what = match url::Url::parse(text) {
        Ok(url) if !matches!(url.scheme(), "http" | "https") || !url.has_host() => {
            "expected an address that starts with https:// or http://".to_owned()
        }
        Ok(url) if !url.username().is_empty() || url.password().is_some() => {
            "addresses must not hold user names or passwords; remove them".to_owned()
        }
        Ok(_) => return,
        Err(error) => format!("is not an address: {error}"),
    };
    faults.add("/url", what);
}
