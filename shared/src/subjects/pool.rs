//! The worker pools.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;

/// The worker pools that read a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Pool {
    /// Runs flows and agents.
    Flows,
    /// Sends through the Graph API.
    Replies,
    /// Passes updates to existing bots.
    Relay,
    /// Keeps the CRM in step.
    Crm,
    /// Delivers signed webhooks to customers.
    Events,
    /// Writes the SQL read model.
    Journal,
}

impl Pool {
    /// Every pool, in the order they are listed to people.
    pub const ALL: [Self; 6] = [
        Self::Flows,
        Self::Replies,
        Self::Relay,
        Self::Crm,
        Self::Events,
        Self::Journal,
    ];

    /// The pool's name, also its subject token.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Flows => "flows",
            Self::Replies => "replies",
            Self::Relay => "relay",
            Self::Crm => "crm",
            Self::Events => "events",
            Self::Journal => "journal",
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Pool {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|pool| pool.as_str() == text)
            .ok_or_else(|| format!("no pool is called `{text}`"))
    }
}
