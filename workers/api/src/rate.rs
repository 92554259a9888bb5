//! How often somebody may ask: taken before a request goes on, said on every answer.
//!
//! A request with a valid key counts for the key, a webhook with a valid address for its link, and whatever else
//! comes, wrong keys among it, for the address that it comes from.

use super::App;
use super::auth;
use super::connections::{Connection, holder};
use super::limit::Grant;
use super::problem::Problem;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::net::SocketAddr;
use std::time::Instant;

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// Lets a request with a free place in its rate through, and says on every answer what is left.
pub async fn meter(State(app): State<App>, mut request: Request, next: Next) -> Response {
    let (grant, mut response) = match auth::caller(&app, request.headers()) {
        Some(caller) => {
            let grant = app
                .limiter
                .take(&format!("{}/{}", caller.tenant, caller.key), Instant::now());
            known(&request);
            request.extensions_mut().insert(caller);
            let response = match grant.wait {
                Some(wait) => Problem::RateLimited(wait).into_response(),
                None => next.run(request).await,
            };
            (grant, response)
        }
        None => unknown(&app, request, next).await,
    };
    let headers = response.headers_mut();
    headers.insert(LIMIT, HeaderValue::from(grant.limit));
    headers.insert(REMAINING, HeaderValue::from(grant.remaining));
    headers.insert(RESET, HeaderValue::from(grant.reset.as_secs()));
    response
}

/// Whoever holds this connection has shown who it is.
fn known(request: &Request) {
    if let Some(connection) = request.extensions().get::<Connection>() {
        connection.becomes_known();
    }
}

/// Without a key: what turns out to be a webhook of somebody known has told of its own grant.
async fn unknown(app: &App, request: Request, next: Next) -> (Grant, Response) {
    let address = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let name = address.map_or_else(
        || "from/-".to_owned(),
        |ConnectInfo(from)| format!("from/{}", holder(from.ip())),
    );
    let taken = app.limiter.take(&name, Instant::now());
    if let Some(wait) = taken.wait {
        return (taken, Problem::RateLimited(wait).into_response());
    }
    let connection = request.extensions().get::<Connection>().cloned();
    let mut response = next.run(request).await;
    let Some(own) = response.extensions_mut().remove::<Grant>() else {
        return (taken, response);
    };
    app.limiter.give_back(&name);
    if let Some(connection) = connection {
        connection.becomes_known();
    }
    (own, response)
}
