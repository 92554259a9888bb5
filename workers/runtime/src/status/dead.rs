//! The dead letters of a pool that nobody has settled, as processes tell each other.

use crate::dead_class::DeadClass;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::time::Duration;

/// The open dead letters of one pool: neither replayed nor discarded.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct OpenDead {
    pub pool: String,
    pub open: u64,
    /// Those of them that were given up in the last hour.
    pub last_hour: u64,
    /// Age of the oldest, in milliseconds.
    pub oldest_ms: Option<u64>,
    /// How many by the class of their reason; a name that this version does not know is left out.
    #[serde(deserialize_with = "known_classes")]
    pub reasons: BTreeMap<DeadClass, u64>,
    /// Whether there may be more, older ones.
    pub more: bool,
}

impl OpenDead {
    pub fn oldest(&self) -> Option<Duration> {
        self.oldest_ms.map(Duration::from_millis)
    }

    /// The classes with their counts, the most frequent first.
    pub fn by_reason(&self) -> Vec<(DeadClass, u64)> {
        let mut reasons: Vec<_> = self
            .reasons
            .iter()
            .map(|(class, count)| (*class, *count))
            .collect();
        reasons.sort_by_key(|(class, count)| (std::cmp::Reverse(*count), *class));
        reasons
    }

    /// The same in words, such as `10 refused, 2 gave_up`.
    pub fn reasons_in_words(&self) -> String {
        let words = self
            .by_reason()
            .into_iter()
            .map(|(class, count)| format!("{count} {class}"));
        words.collect::<Vec<_>>().join(", ")
    }
}

fn known_classes<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<DeadClass, u64>, D::Error> {
    let reported = BTreeMap::<String, u64>::deserialize(deserializer)?;
    let known = |(name, count): (String, u64)| {
        let class = DeadClass::ALL
            .into_iter()
            .find(|class| class.as_str() == name)?;
        Some((class, count))
    };
    Ok(reported.into_iter().filter_map(known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_travel_by_name_and_those_of_tomorrow_are_left_out() {
        let reported =
            r#"{"pool":"relay","open":13,"reasons":{"gave_up":2,"refused":10,"of_tomorrow":1}}"#;
        let dead: OpenDead = serde_json::from_str(reported).unwrap();
        assert_eq!(
            (dead.open, dead.reasons_in_words().as_str()),
            (13, "10 refused, 2 gave_up")
        );
        assert_eq!(
            serde_json::from_str::<OpenDead>(&serde_json::to_string(&dead).unwrap()).unwrap(),
            dead
        );
    }
}
