//! Between how many jobs at once a limit is found, as operators write it: `8..64`, or `off`.
//!
//! A range that exists is in order and within the bounds of every concurrency.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The most jobs at once that any pool may be given in a process.
pub const CONCURRENCY_MAX: u32 = 4096;

const OFF: &str = "off";

/// Whether the jobs at once are found by trying.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Choice {
    /// They are what the concurrency says.
    Off,
    /// They are, within a range.
    Within(Range),
}

/// The least and the most jobs at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    min: u32,
    max: u32,
}

/// Why a text is no range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RangeError {
    #[error(
        "`{0}` is not understood: write the least and the most jobs at once, such as 8..64, or off"
    )]
    Form(String),
    /// A number is too small or too large.
    #[error("{0} is outside 1 to {max}", max = CONCURRENCY_MAX)]
    Outside(u64),
    /// The numbers are in the wrong order.
    #[error("the least, {0}, is more than the most, {1}")]
    Order(u32, u32),
}

impl Range {
    /// Checks and makes a range.
    pub fn new(min: u64, max: u64) -> Result<Self, RangeError> {
        let within = |number: u64| match u32::try_from(number) {
            Ok(count @ 1..=CONCURRENCY_MAX) => Ok(count),
            _ => Err(RangeError::Outside(number)),
        };
        let (min, max) = (within(min)?, within(max)?);
        if min > max {
            Err(RangeError::Order(min, max))
        } else {
            Ok(Self { min, max })
        }
    }

    pub fn min(self) -> u32 {
        self.min
    }

    pub fn max(self) -> u32 {
        self.max
    }

    /// The same, with nothing beyond a concurrency.
    pub fn capped(self, concurrency: u32) -> Self {
        let max = self.max.min(concurrency.max(1));
        Self {
            min: self.min.min(max),
            max,
        }
    }
}

impl Choice {
    /// The range, unless it is off.
    pub fn range(self) -> Option<Range> {
        match self {
            Self::Off => None,
            Self::Within(range) => Some(range),
        }
    }

    /// What is wrong with it for a pool of this concurrency.
    pub fn beyond(self, concurrency: u32) -> Option<String> {
        let range = self.range().filter(|range| range.max > concurrency)?;
        Some(format!(
            "{} is more than the pool's concurrency of {concurrency}; lower it, or set concurrency={0} with it",
            range.max
        ))
    }
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(OFF),
            Self::Within(Range { min, max }) => write!(f, "{min}..{max}"),
        }
    }
}

impl FromStr for Choice {
    type Err = RangeError;

    fn from_str(text: &str) -> Result<Self, RangeError> {
        if text == OFF {
            return Ok(Self::Off);
        }
        let form = || RangeError::Form(text.chars().take(40).collect());
        let (min, max) = text.split_once("..").ok_or_else(form)?;
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| form());
        Ok(Self::Within(Range::new(number(min)?, number(max)?)?))
    }
}

impl From<Choice> for String {
    fn from(choice: Choice) -> Self {
        choice.to_string()
    }
}

impl TryFrom<String> for Choice {
    type Error = RangeError;

    fn try_from(text: String) -> Result<Self, RangeError> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read() {
        for text in ["off", "8..64", "1..1", "4096..4096"] {
            assert_eq!(text.parse::<Choice>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_range_is_refused_with_what_is_wrong() {
        for (text, part) in [
            ("", "not understood"),
            ("8", "such as 8..64, or off"),
            ("8..", "not understood"),
            ("8..=64", "not understood"),
            ("-1..8", "not understood"),
            ("on", "not understood"),
            ("0..8", "0 is outside 1 to 4096"),
            ("8..4097", "4097 is outside"),
            ("1..99999999999", "outside"),
            ("64..8", "the least, 64, is more than the most, 8"),
        ] {
            let error = text.parse::<Choice>().unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn nothing_goes_beyond_the_concurrency() {
        let range = Range::new(8, 64).unwrap();
        assert_eq!(range.capped(100), range);
        assert_eq!((range.capped(16).min(), range.capped(16).max()), (8, 16));
        assert_eq!((range.capped(2).min(), range.capped(2).max()), (2, 2));
        assert!(
            Choice::Within(range)
                .beyond(63)
                .unwrap()
                .contains("concurrency=64")
        );
        assert_eq!(
            (Choice::Within(range).beyond(64), Choice::Off.beyond(1)),
            (None, None)
        );
    }
}
