//! The Graph API's front: any version, bearer token, dispatch by object and edge, one journal entry a call.

use super::entry::{BODY_BYTES_MAX, Entry, GraphCall};
use super::errors::GraphError;
use super::media::{File, UPLOAD_BYTES_MAX};
use super::objects;
use super::send;
use super::simulator::Simulator;
use crate::serve::hang_up;
use axum::Json;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use std::sync::Arc;
use std::time::Instant;

const BODY_MAX: usize = UPLOAD_BYTES_MAX + 64 * 1024;

/// What is answered when all is well.
#[derive(Debug)]
pub enum Answer {
    Json(Value),
    /// The bytes of a file.
    File(File),
    HangUp,
}

/// A handled call: the answer, and what the journal says beside it.
#[derive(Debug)]
pub struct Done {
    pub answer: Result<Answer, GraphError>,
    /// The conversation it belongs to.
    pub conversation: Option<String>,
    /// The message it is about.
    pub message_id: Option<String>,
    /// Whether a rule decided the answer.
    pub injected: bool,
}

impl Done {
    pub fn ok(answer: Answer) -> Self {
        Self {
            answer: Ok(answer),
            conversation: None,
            message_id: None,
            injected: false,
        }
    }

    pub fn err(error: GraphError) -> Self {
        Self {
            answer: Err(error),
            conversation: None,
            message_id: None,
            injected: false,
        }
    }
}

impl From<Result<Answer, GraphError>> for Done {
    fn from(answer: Result<Answer, GraphError>) -> Self {
        Self {
            answer,
            conversation: None,
            message_id: None,
            injected: false,
        }
    }
}

/// Handles every path that is not the control API's.
pub async fn call(State(sim): State<Arc<Simulator>>, request: Request) -> Response {
    let begun = Instant::now();
    let (parts, body) = request.into_parts();
    let Ok(body) = to_bytes(body, BODY_MAX).await else {
        return (
            StatusCode::PAYLOAD_TOO_LARGE,
            "the body is too large or was cut off",
        )
            .into_response();
    };
    let done = match authorise(&sim, &parts) {
        Ok(()) => dispatch(&sim, &parts, &body).await,
        Err(error) => Done::err(error),
    };
    let trace_id = sim.mint().trace_id();
    let (status, code, answer) = match &done.answer {
        Ok(Answer::Json(json)) => (Some(200), None, Some(json.clone())),
        Ok(Answer::File(_)) => (Some(200), None, None),
        Ok(Answer::HangUp) => (None, None, None),
        Err(error) => (
            Some(error.status().as_u16()),
            Some(error.code),
            Some(error.body(&trace_id)),
        ),
    };
    sim.journal().record(Entry::Graph(GraphCall {
        method: parts.method.to_string(),
        path: parts.uri.path().to_owned(),
        conversation: done.conversation.clone(),
        message_id: done.message_id.clone(),
        body: (body.len() <= BODY_BYTES_MAX)
            .then(|| serde_json::from_slice(&body).ok())
            .flatten(),
        status,
        code,
        injected: done.injected,
        answer,
        duration_us: u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX),
    }));
    respond(done.answer, &trace_id)
}

fn authorise(sim: &Simulator, parts: &request::Parts) -> Result<(), GraphError> {
    let header = parts
        .headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let bearer = header
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::to_owned);
    let token = bearer.or_else(|| objects::query(parts, "access_token"));
    let token = token.ok_or_else(|| GraphError::new(104, "An access token is required."))?;
    if sim
        .options
        .tokens
        .iter()
        .any(|known| token.trim() == known.expose())
    {
        Ok(())
    } else {
        Err(GraphError::new(
            190,
            "The access token could not be decrypted or has expired.",
        ))
    }
}

async fn dispatch(sim: &Arc<Simulator>, parts: &request::Parts, body: &Bytes) -> Done {
    let segments: Vec<&str> = parts
        .uri
        .path()
        .split('/')
        .filter(|segment| !segment.is_empty())
        .collect();
    let (version, id, edge) = match segments.as_slice() {
        ["_media", id] => return objects::download(sim, id, parts).into(),
        [version, id] => (*version, *id, None),
        [version, id, edge] => (*version, *id, Some(*edge)),
        _ => return Done::err(unknown_path(parts)),
    };
    if !is_version(version) {
        return Done::err(unknown_path(parts));
    }
    let ours = sim
        .options
        .numbers
        .iter()
        .any(|number| number.phone_number_id == id);
    match (&parts.method, edge) {
        (&Method::POST, Some("messages" | "media")) if !ours => {
            Done::err(GraphError::no_such_object(id))
        }
        (&Method::POST, Some("messages")) => send::messages(sim, id, body).await,
        (&Method::POST, Some("media")) => objects::upload(sim, parts, body).await.into(),
        (_, Some("subscribed_apps")) => objects::subscribed_apps(sim, id, &parts.method).into(),
        (&Method::GET, Some("phone_numbers")) => objects::phone_numbers(sim, id).into(),
        (&Method::GET, None) => objects::get(sim, id, parts).into(),
        (&Method::DELETE, None) => objects::delete(sim, id).into(),
        _ => Done::err(unknown_path(parts)),
    }
}

fn is_version(segment: &str) -> bool {
    let numbers = segment
        .strip_prefix('v')
        .and_then(|rest| rest.split_once('.'));
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    numbers.is_some_and(|(major, minor)| digits(major) && digits(minor))
}

fn unknown_path(parts: &request::Parts) -> GraphError {
    let path: String = parts.uri.path().chars().take(200).collect();
    GraphError::new(2500, format!("Unknown path components: {path}"))
}

fn respond(answer: Result<Answer, GraphError>, trace_id: &str) -> Response {
    match answer {
        Ok(Answer::Json(json)) => Json(json).into_response(),
        Ok(Answer::File(file)) => {
            let mut response = Response::new(Body::from(file.bytes));
            if let Ok(mime_type) = HeaderValue::from_str(&file.mime_type) {
                response
                    .headers_mut()
                    .insert(header::CONTENT_TYPE, mime_type);
            }
            response
        }
        Ok(Answer::HangUp) => hang_up(),
        Err(error) => {
            let mut response = (error.status(), Json(error.body(trace_id))).into_response();
            for (name, value) in &error.headers {
                if let (Ok(name), Ok(value)) = (
                    name.parse::<header::HeaderName>(),
                    HeaderValue::from_str(value),
                ) {
                    response.headers_mut().insert(name, value);
                }
            }
            response
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_version_of_the_graph_api_is_spoken_and_nothing_else() {
        for good in ["v1.0", "v25.0", "v26.0"] {
            assert!(is_version(good));
        }
        for bad in ["26.0", "v26", "v.0", "vx.y", ""] {
            assert!(!is_version(bad), "{bad:?}");
        }
    }
}
