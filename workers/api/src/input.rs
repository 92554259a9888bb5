//! Reading a request: body, query and path, each refused with a problem instead of axum's plain text.

use super::problem::Problem;
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde_json::Value;
use utoipa::ToSchema;

/// Characters of a value that are repeated to whoever sent it.
const SHOWN_CHARS_MAX: usize = 40;

#[derive(Debug)]
pub struct JsonBody<T>(pub T);

impl<T: DeserializeOwned + ToSchema> FromRequest<super::App> for JsonBody<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &super::App) -> Result<Self, Problem> {
        if !is_json(request.headers()) {
            return Err(Problem::MediaType);
        }
        let bytes = body(request, app).await?;
        let no_json = |error| Problem::Malformed(format!("the body is not JSON: {error}"));
        let value: Value = serde_json::from_slice(&bytes).map_err(no_json)?;
        let mistakes = app.shapes.mistakes(&T::name(), &value);
        if !mistakes.is_empty() {
            return Err(Problem::Invalid(mistakes));
        }
        // What the document cannot say, such as the letters of an id.
        let read = serde_json::from_slice(&bytes).map(Self);
        read.map_err(|error| Problem::invalid("", error.to_string()))
    }
}

/// Reads the whole body, up to the limit.
pub async fn body(request: Request, app: &super::App) -> Result<Bytes, Problem> {
    Bytes::from_request(request, app)
        .await
        .map_err(|rejection| {
            if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
                Problem::TooLarge(app.settings.body_bytes_max)
            } else {
                Problem::Malformed("the body did not arrive whole".to_owned())
            }
        })
}

fn is_json(headers: &HeaderMap) -> bool {
    let media = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let essence = media.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
        || essence.to_ascii_lowercase().ends_with("+json")
}

#[derive(Debug)]
pub struct QueryOf<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, Problem> {
        let query = Query::<T>::try_from_uri(&parts.uri);
        query.map(|Query(query)| Self(query)).map_err(|error| {
            let query = parts.uri.query().unwrap_or_default();
            Problem::Malformed(query_words(query, &error.body_text()))
        })
    }
}

/// The reader's error about a query in words: which parameter, what it says and what would be right.
fn query_words(query: &str, error: &str) -> String {
    let error = error
        .split_once("query string: ")
        .map_or(error, |(_, error)| error);
    let Some((name, reason)) = error.split_once(": ") else {
        return error.to_owned();
    };
    let given = url::form_urlencoded::parse(query.as_bytes());
    let given = given
        .filter(|(key, _)| key == name)
        .map(|(_, value)| value)
        .last()
        .unwrap_or_default();
    match wanted(reason) {
        Some(wanted) => format!("{name}: `{}` is not {wanted}", shown(&given)),
        None => error.to_owned(),
    }
}

/// The reader's error about a part of the path in words.
fn path_words(error: &str) -> String {
    let of_type = |at: usize| error.get(at..).and_then(|rest| rest.split('`').nth(1));
    let kind = error.rfind(" to a `").and_then(of_type);
    let value = error
        .split_once("value `")
        .or_else(|| error.split_once("parse `"))
        .and_then(|(_, rest)| rest.split('`').next());
    match (value, kind) {
        (Some(value), Some("u8" | "u16" | "u32" | "u64" | "usize")) => {
            format!("`{}` in the path is not a whole number", shown(value))
        }
        _ => error.to_owned(),
    }
}

/// What would be right, by what the standard library says of a text it cannot read.
fn wanted(reason: &str) -> Option<&'static str> {
    Some(match reason {
        "invalid digit found in string" | "cannot parse integer from empty string" => {
            "a whole number"
        }
        "number too large to fit in target type" => "a whole number of a possible size",
        "number too small to fit in target type" => "a whole number from 0",
        "invalid float literal" | "cannot parse float from empty string" => "a number",
        "provided string was not `true` or `false`" => "`true` or `false`",
        _ => return None,
    })
}

/// A value as it is repeated to whoever sent it: short, and nothing that does not print.
fn shown(value: &str) -> String {
    let printable = value.chars().filter(|c| !c.is_control());
    let cut: String = printable.take(SHOWN_CHARS_MAX + 1).collect();
    match cut.char_indices().nth(SHOWN_CHARS_MAX) {
        Some((end, _)) => format!("{}\u{2026}", cut.get(..end).unwrap_or_default()),
        None => cut,
    }
}

/// The variable parts of the path.
#[derive(Debug)]
pub struct PathOf<T>(pub T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for PathOf<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = Path::<T>::from_request_parts(parts, state).await;
        path.map(|Path(path)| Self(path))
            .map_err(|error| Problem::Malformed(path_words(&error.body_text())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parameter_that_is_no_number_is_told_in_words() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Wanted {
            limit: Option<u32>,
            newest: Option<bool>,
        }
        let words = |query: &str| {
            let uri = format!("/x?{query}").parse().unwrap();
            let error =
                Query::<Wanted>::try_from_uri(&uri).map(|Query(read)| (read.limit, read.newest));
            query_words(query, &error.unwrap_err().body_text())
        };
        for (query, wanted) in [
            ("limit=abc", "limit: `abc` is not a whole number"),
            ("limit=", "limit: `` is not a whole number"),
            ("limit=-1", "limit: `-1` is not a whole number"),
            ("limit=1.5", "limit: `1.5` is not a whole number"),
            (
                "limit=99999999999",
                "limit: `99999999999` is not a whole number of a possible size",
            ),
            ("newest=yes", "newest: `yes` is not `true` or `false`"),
            (
                "colour=red",
                "colour: unknown field `colour`, expected `limit` or `newest`",
            ),
        ] {
            assert_eq!(words(query), wanted, "{query}");
        }
        assert!(words(&format!("limit={}", "x".repeat(500))).len() < 100);
    }

    #[test]
    fn a_part_of_the_path_that_is_no_number_is_told_in_words() {
        for error in [
            "Invalid URL: Cannot parse `abc` to a `u64`",
            "Invalid URL: Cannot parse `sequence` with value `abc` to a `u64`",
        ] {
            assert_eq!(path_words(error), "`abc` in the path is not a whole number");
        }
        assert_eq!(path_words("Invalid URL: x"), "Invalid URL: x");
    }
}
