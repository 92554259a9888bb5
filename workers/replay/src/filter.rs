//! Which dead letters are meant; pure.

use super::letter::Letter;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{self, Pool};
use serde::{Deserialize, Serialize};

/// Everything given must hold; nothing given means all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Filter {
    pub tenant: Option<TenantId>,
    /// Given up by which pool.
    pub pool: Option<Pool>,
    /// What it was: a kind, or a family such as `message.*`.
    pub kind: Option<String>,
    /// Part of the reason, whatever its case.
    pub reason: Option<String>,
    /// Part of the payload, whatever its case.
    pub text: Option<String>,
    pub conversation: Option<String>,
    /// Given up then or later, in unix milliseconds.
    pub from_ms: Option<u64>,
    /// Given up before then, in unix milliseconds.
    pub to_ms: Option<u64>,
}

impl Filter {
    /// Whether it chooses among a tenant's letters.
    pub fn chooses(&self) -> bool {
        let Self {
            tenant: _,
            pool,
            kind,
            reason,
            text,
            conversation,
            from_ms,
            to_ms,
        } = self;
        let words = [kind, reason, text, conversation];
        pool.is_some()
            || words.iter().any(|word| word.is_some())
            || from_ms.is_some()
            || to_ms.is_some()
    }

    /// The subjects that can hold such letters.
    pub fn subject(&self) -> String {
        subjects::dead_filter(self.pool, self.tenant.as_ref())
    }

    /// Whether the payload has to be looked at.
    pub fn needs_payload(&self) -> bool {
        self.text.is_some()
    }

    /// Whether the letter's headers fit.
    pub fn fits(&self, letter: &Letter) -> bool {
        let at = letter.at_ms.unwrap_or(0);
        self.pool.is_none_or(|pool| pool == letter.pool)
            && self
                .tenant
                .as_ref()
                .is_none_or(|tenant| *tenant == letter.tenant)
            && self
                .kind
                .as_deref()
                .is_none_or(|kind| is_kind(kind, &letter.kind))
            && self
                .reason
                .as_deref()
                .is_none_or(|part| holds(&letter.reason, part))
            && self
                .conversation
                .as_deref()
                .is_none_or(|key| letter.conversation.as_deref() == Some(key))
            && self.from_ms.is_none_or(|from| at >= from)
            && self.to_ms.is_none_or(|to| at < to)
    }

    pub fn fits_payload(&self, payload: &[u8]) -> bool {
        self.text
            .as_deref()
            .is_none_or(|part| holds(&String::from_utf8_lossy(payload), part))
    }
}

fn is_kind(pattern: &str, kind: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(family) => kind.starts_with(family),
        None => kind == pattern,
    }
}

fn holds(text: &str, part: &str) -> bool {
    text.contains(part) || text.to_lowercase().contains(&part.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::subjects::header;
    use async_nats::HeaderMap;

    #[test]
    fn everything_given_must_hold() {
        let mut headers = HeaderMap::new();
        headers.insert(header::DEAD_REASON, "relay old: Answered 503");
        headers.insert(header::KIND, "message.text");
        headers.insert(header::DEAD_AT, "100");
        let letter = Letter::read(1, "dead.relay.acme", &headers).unwrap();
        let text = |text: &str| Some(text.to_owned());
        let fitting = Filter {
            tenant: TenantId::new("acme").ok(),
            pool: Some(Pool::Relay),
            kind: text("message.*"),
            reason: text("answered 503"),
            from_ms: Some(100),
            to_ms: Some(101),
            ..Filter::default()
        };
        assert!(fitting.fits(&letter) && Filter::default().fits(&letter));
        let not = [
            Filter {
                tenant: TenantId::new("globex").ok(),
                ..fitting.clone()
            },
            Filter {
                pool: Some(Pool::Crm),
                ..fitting.clone()
            },
            Filter {
                kind: text("message"),
                ..fitting.clone()
            },
            Filter {
                reason: text("504"),
                ..fitting.clone()
            },
            Filter {
                from_ms: Some(101),
                ..fitting.clone()
            },
            Filter {
                to_ms: Some(100),
                ..fitting.clone()
            },
            Filter {
                conversation: text("u:US.1"),
                ..fitting
            },
        ];
        assert!(not.iter().all(|filter| !filter.fits(&letter)));
        assert!(not.iter().all(Filter::chooses) && !Filter::default().chooses());
        assert!(
            !Filter {
                tenant: TenantId::new("acme").ok(),
                ..Filter::default()
            }
            .chooses()
        );
        assert!(
            Filter {
                text: text("HELLO"),
                ..Filter::default()
            }
            .fits_payload(b"{\"body\":\"hello\"}")
        );
    }
}
