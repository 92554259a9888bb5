//! One declared entity with its revision, as HTTP says it: `ETag`, `If-Match` and `If-None-Match`.

use super::App;
use super::problem::{Mistake, Problem};
use ackline_catalog::quota::Excess;
pub use ackline_catalog::write::Expectation;
use ackline_catalog::write::WriteError;
use ackline_shared::ids::{EntityId, TenantId};
use ackline_shared::model::{Entity, Fault};
use ackline_shared::subjects::config_key;
use axum::Json;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

/// What a caller expects of what is stored.
pub fn expected(headers: &HeaderMap) -> Result<Expectation, Problem> {
    let text = |name| {
        headers
            .get(name)
            .map(|value: &HeaderValue| value.to_str().unwrap_or_default())
    };
    match (text(header::IF_MATCH), text(header::IF_NONE_MATCH)) {
        (None, None) => Ok(Expectation::Any),
        (Some("*"), None) => Ok(Expectation::Present),
        (None, Some("*")) => Ok(Expectation::Absent),
        (Some(tag), None) => {
            let revision = tag
                .strip_prefix('"')
                .and_then(|rest| rest.strip_suffix('"'));
            // A tag that is none of ours matches nothing.
            revision
                .and_then(|text| text.parse().ok())
                .map(Expectation::Revision)
                .ok_or(Problem::PreconditionFailed)
        }
        _ => Err(Problem::Malformed(
            "send either If-Match or `If-None-Match: *`".to_owned(),
        )),
    }
}

/// Answers 304 to who asks for what they have: a GET whose `If-None-Match` names the ETag of the answer.
pub async fn not_modified(request: Request, next: Next) -> Response {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let known: Vec<_> = request
        .headers()
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .cloned()
        .collect();
    let mut response = next.run(request).await;
    if !is_read || response.status() != StatusCode::OK {
        return response;
    }
    let names = |tag: &HeaderValue| known.iter().any(|list| holds(list, tag));
    if response.headers().get(header::ETAG).is_some_and(names) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        *response.body_mut() = Body::empty();
        response.headers_mut().remove(header::CONTENT_TYPE);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    response
}

/// Whether a list of tags has this one; a weak one is as good, as for every read.
fn holds(list: &HeaderValue, tag: &HeaderValue) -> bool {
    let (Ok(list), Ok(tag)) = (list.to_str(), tag.to_str()) else {
        return false;
    };
    let mut tags = list.split(',').map(str::trim);
    tags.any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// Refuses what is put under another id than its own.
pub fn check_id(id: &EntityId, given: Option<&str>) -> Result<(), Problem> {
    match given {
        Some(given) if given != id.as_str() => Err(Problem::invalid(
            "/id",
            format!("is another than that of the path, `{id}`; leave it out or make it the same"),
        )),
        _ => Ok(()),
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

/// Reads an entity of a tenant.
pub async fn load<T: Entity>(
    app: &App,
    tenant: &TenantId,
    id: &EntityId,
) -> Result<Revised<T>, Problem> {
    app.reach_log()?;
    let key = config_key::owned(T::FAMILY, tenant, id);
    let (value, revision) = app.catalog.load(&key).await.map_err(problem(T::NOUN))?;
    Ok(Revised {
        value,
        revision,
        is_new: false,
    })
}

/// Writes an entity if the expectation holds; says also what its author should look at.
pub async fn save<T: Entity>(
    app: &App,
    entity: T,
    expected: Expectation,
) -> Result<(Revised<T>, Vec<Mistake>), Problem> {
    app.reach_log()?;
    let saved = app.catalog.save(&entity, expected).await;
    let written = saved.map_err(problem(T::NOUN))?;
    let warnings = written.warnings.into_iter().map(Mistake::from);
    let revised = Revised {
        value: entity,
        revision: written.revision,
        is_new: written.is_new,
    };
    Ok((revised, warnings.collect()))
}

/// What an error of the catalog is to a caller who asked for such a thing.
pub fn problem(noun: &'static str) -> impl Fn(WriteError) -> Problem {
    move |error| match error {
        WriteError::Absent => Problem::NotFound(noun),
        WriteError::Unreadable => Problem::Internal,
        WriteError::Refused(faults) => {
            Problem::Invalid(faults.into_iter().map(Mistake::from).collect())
        }
        WriteError::Beyond(excesses) => {
            Problem::Invalid(excesses.into_iter().map(Mistake::from).collect())
        }
        WriteError::Newer(newer) => Problem::invalid("", newer.to_string()),
        WriteError::InUse(who) => Problem::InUse(who),
        WriteError::Unexpected => Problem::PreconditionFailed,
        WriteError::Conflict => Problem::Conflict,
        WriteError::Away => Problem::NatsAway,
    }
}

impl From<Fault> for Mistake {
    fn from(fault: Fault) -> Self {
        Self {
            at: fault.at,
            code: fault.code.map(str::to_owned),
            detail: fault.detail,
        }
    }
}

impl From<Excess> for Mistake {
    fn from(excess: Excess) -> Self {
        Self {
            at: String::new(),
            code: Some(excess.setting.to_owned()),
            detail: excess.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderName;

    fn read(pairs: &[(HeaderName, &'static str)]) -> Result<Expectation, Problem> {
        let headers = pairs
            .iter()
            .map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        expected(&headers.collect())
    }

    #[test]
    fn a_known_tag_is_found_in_every_form() {
        let has = |list: &'static str| {
            holds(
                &HeaderValue::from_static(list),
                &HeaderValue::from_static("\"7\""),
            )
        };
        for list in ["\"7\"", "W/\"7\"", "*", "\"6\", \"7\""] {
            assert!(has(list), "{list}");
        }
        for list in ["\"77\"", "7", "", "\"6\""] {
            assert!(!has(list), "{list}");
        }
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
