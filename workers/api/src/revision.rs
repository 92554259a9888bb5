//! Reading and writing one declared part with its revision: `ETag`, `If-Match` and `If-None-Match`.
//!
//! Every write is a compare-and-set in the `config` bucket, so two authors never overwrite each other unseen.

use super::App;
use super::problem::{Mistake, Problem};
use ackline_catalog::quota::Excess;
use ackline_shared::ids::TenantId;
use ackline_shared::model::Entity;
use ackline_shared::stored::{self, Newer};
use ackline_shared::subjects::BUCKET_CONFIG;
use async_nats::jetstream::kv::{Operation, UpdateErrorKind};
use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, TryStreamExt, stream};
use serde::Serialize;
use std::time::Instant;

const READS_AT_ONCE: usize = 16;

/// What a caller expects of what is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expectation {
    Any,
    Present,
    Absent,
    /// That it is this revision.
    Revision(u64),
}

impl Expectation {
    pub fn read(headers: &HeaderMap) -> Result<Self, Problem> {
        let text = |name| {
            headers
                .get(name)
                .map(|value: &header::HeaderValue| value.to_str().unwrap_or_default())
        };
        match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
            (None, None) => Ok(Self::Any),
            (Some("*"), None) => Ok(Self::Present),
            (None, Some("*")) => Ok(Self::Absent),
            (Some(tag), None) => {
                let revision = tag
                    .strip_prefix('"')
                    .and_then(|rest| rest.strip_suffix('"'));
                // A tag that is none of ours matches nothing.
                revision
                    .and_then(|text| text.parse().ok())
                    .map(Self::Revision)
                    .ok_or(Problem::PreconditionFailed)
            }
            _ => Err(Problem::Malformed(
                "send either If-Match or `If-None-Match: *`".to_owned(),
            )),
        }
    }

    /// Tells whether it holds for what is stored under a revision.
    pub fn holds(self, stored: Option<u64>) -> bool {
        match self {
            Self::Any => true,
            Self::Present => stored.is_some(),
            Self::Absent => stored.is_none(),
            Self::Revision(revision) => stored == Some(revision),
        }
    }
}

/// Something stored, with its revision.
#[derive(Debug)]
pub struct Revised<T> {
    pub value: T,
    pub revision: u64,
    pub is_new: bool,
}

impl<T> Revised<T> {
    /// Turns the value into what is shown.
    pub fn map<U>(self, show: impl FnOnce(T) -> U) -> Revised<U> {
        Revised {
            value: show(self.value),
            revision: self.revision,
            is_new: self.is_new,
        }
    }
}

impl<T: Serialize> IntoResponse for Revised<T> {
    fn into_response(self) -> Response {
        let status = if self.is_new {
            StatusCode::CREATED
        } else {
            StatusCode::OK
        };
        (
            status,
            [(header::ETAG, format!("\"{}\"", self.revision))],
            Json(self.value),
        )
            .into_response()
    }
}

/// Reads what is stored under a key.
pub async fn load<T: Entity>(app: &App, key: &str) -> Result<Option<Revised<T>>, Problem> {
    app.reach_log()?;
    let entry = app
        .platform
        .buckets
        .config
        .entry(key)
        .await
        .map_err(|error| away(key, &error))?;
    let Some(entry) = entry.filter(|entry| entry.operation == Operation::Put) else {
        return Ok(None);
    };
    match stored::decode(&entry.value) {
        Ok(value) => Ok(Some(Revised {
            value,
            revision: entry.revision,
            is_new: false,
        })),
        Err(error) => {
            tracing::error!(key, %error, "this configuration entry does not parse");
            Err(Problem::Internal)
        }
    }
}

/// Writes a tenant's entity if the expectation holds and the tenant has room for it.
pub async fn save<T: Entity>(
    app: &App,
    tenant: &TenantId,
    entity: T,
    expected: Expectation,
) -> Result<Revised<T>, Problem> {
    app.reach_log()?;
    let key = entity.config_key();
    let config = &app.platform.buckets.config;
    let entry = config
        .entry(key.clone())
        .await
        .map_err(|error| away(&key, &error))?;
    let stored = entry
        .as_ref()
        .filter(|entry| entry.operation == Operation::Put)
        .map(|entry| entry.revision);
    if !expected.holds(stored) {
        return Err(Problem::PreconditionFailed);
    }
    let before = entry
        .as_ref()
        .filter(|entry| entry.operation == Operation::Put);
    let written = match before {
        Some(before) => stored::encode_over(&entity, &before.value).map_err(newer)?,
        None => stored::encode(&entity),
    };
    // A removed key still has the revision of its removal.
    let last = entry.map_or(0, |entry| entry.revision);
    let size = u64::try_from(written.len()).unwrap_or(u64::MAX);
    let shown = app.platform.snapshot().sizes(tenant);
    app.ledger
        .take(&app.limits, tenant, shown, (&key, size), Instant::now())
        .map_err(beyond)?;
    let written = config.update(&key, written.into(), last).await;
    if written.is_err() {
        app.ledger.cancel(tenant, &key);
    }
    let revision = written.map_err(|error| match (error.kind(), expected) {
        (UpdateErrorKind::WrongLastRevision, Expectation::Any) => Problem::Conflict,
        (UpdateErrorKind::WrongLastRevision, _) => Problem::PreconditionFailed,
        _ => away(&key, &error),
    })?;
    Ok(Revised {
        value: entity,
        revision,
        is_new: stored.is_none(),
    })
}

fn newer(newer: Newer) -> Problem {
    Problem::invalid("", newer.to_string())
}

/// Removes what is stored under a tenant's key if the expectation holds.
pub async fn remove(
    app: &App,
    tenant: &TenantId,
    (noun, key): (&'static str, &str),
    expected: Expectation,
) -> Result<StatusCode, Problem> {
    app.reach_log()?;
    let config = &app.platform.buckets.config;
    let revision = async || {
        let entry = config.entry(key).await.map_err(|error| away(key, &error))?;
        let stored = entry.filter(|entry| entry.operation == Operation::Put);
        Ok::<_, Problem>(stored.map(|entry| entry.revision))
    };
    let stored = revision().await?;
    if !expected.holds(stored) {
        return Err(Problem::PreconditionFailed);
    }
    let Some(last) = stored else {
        return Err(Problem::NotFound(noun));
    };
    if let Err(error) = config.delete_expect_revision(key, Some(last)).await {
        // The client does not tell a wrong revision from other errors when it removes.
        return Err(match (revision().await? == Some(last), expected) {
            (true, _) => away(key, &error),
            (false, Expectation::Any) => Problem::Conflict,
            (false, _) => Problem::PreconditionFailed,
        });
    }
    app.ledger.give_back(tenant, key, Instant::now());
    Ok(StatusCode::NO_CONTENT)
}

/// Everything of a family that a tenant has stored, also what memory does not show yet.
pub async fn all_of<T: Entity>(
    app: &App,
    family: &str,
    tenant: &TenantId,
) -> Result<Vec<T>, Problem> {
    app.reach_log()?;
    let config = &app.platform.buckets.config;
    let prefix = format!("$KV.{BUCKET_CONFIG}.");
    let filter = format!("{prefix}{family}.{tenant}.>");
    let subjects = config
        .stream
        .info_with_subjects(&filter)
        .await
        .map_err(|error| away(&filter, &error))?;
    let subjects: Vec<(String, usize)> = subjects
        .try_collect()
        .await
        .map_err(|error| away(&filter, &error))?;
    let keys: Vec<String> = subjects
        .into_iter()
        .filter_map(|(subject, _)| subject.strip_prefix(&prefix).map(str::to_owned))
        .collect();
    let found = stream::iter(keys).map(|key| async move { config.entry(key).await });
    let found: Vec<_> = found
        .buffer_unordered(READS_AT_ONCE)
        .try_collect()
        .await
        .map_err(|error| away(&filter, &error))?;
    let stored = found
        .into_iter()
        .flatten()
        .filter(|entry| entry.operation == Operation::Put);
    Ok(stored
        .filter_map(|entry| stored::decode(&entry.value).ok())
        .collect())
}

/// Limits that a tenant's configuration would go beyond.
fn beyond(excesses: Vec<Excess>) -> Problem {
    let mistake = |excess: Excess| Mistake {
        at: String::new(),
        code: Some(excess.setting.to_owned()),
        detail: excess.to_string(),
    };
    Problem::Invalid(excesses.into_iter().map(mistake).collect())
}

fn away(key: &str, error: &dyn std::fmt::Display) -> Problem {
    tracing::warn!(key, %error, "the configuration cannot be reached");
    Problem::NatsAway
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn read(pairs: &[(HeaderName, &'static str)]) -> Result<Expectation, Problem> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.clone(), header::HeaderValue::from_static(value)));
        Expectation::read(&headers.collect())
    }

    #[test]
    fn preconditions_are_read_and_strange_tags_match_nothing() {
        assert_eq!(read(&[]), Ok(Expectation::Any));
        assert_eq!(
            read(&[(header::IF_MATCH, "\"7\"")]),
            Ok(Expectation::Revision(7))
        );
        assert_eq!(read(&[(header::IF_MATCH, "*")]), Ok(Expectation::Present));
        assert_eq!(
            read(&[(header::IF_NONE_MATCH, "*")]),
            Ok(Expectation::Absent)
        );
        assert_eq!(
            read(&[(header::IF_MATCH, "7")]),
            Err(Problem::PreconditionFailed)
        );
        assert!(matches!(
            read(&[(header::IF_NONE_MATCH, "\"7\"")]),
            Err(Problem::Malformed(_))
        ));
        assert!(!Expectation::Absent.holds(Some(1)) && !Expectation::Revision(1).holds(Some(2)));
    }
}
