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
        query
            .map(|Query(query)| Self(query))
            .map_err(|error| Problem::Malformed(error.body_text()))
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
            .map_err(|error| Problem::Malformed(error.body_text()))
    }
}
