//! The service as a whole: routes, document, and the bounds around every request.

use super::problem::Problem;
use super::{
    App, auth, bots, conversations, dead_letters, declared, flows, hooks, messages, owner, pools,
    rate, replays, revision, tuning, usage,
};
use ackline_shared::model::KINDS;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{HeaderName, HeaderValue, header};
use axum::middleware::{Next, from_fn, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::json;
use std::any::Any;
use std::collections::BTreeMap;
use tower_http::catch_panic::CatchPanicLayer;
use tracing::Instrument;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn};
use utoipa::openapi::schema::Type;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ContentBuilder, ObjectBuilder, Ref, RefOr, Required, ResponseBuilder};
use utoipa::{Modify, OpenApi};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The problem document's name among the schemas.
const PROBLEM_SCHEMA: &str = "ProblemBody";
const REQUEST_ID_CHARS_MAX: usize = 128;

/// The document of the API.
pub fn document() -> utoipa::openapi::OpenApi {
    described(v1(false).split_for_parts().1)
}

/// Says of every operation what goes for all of them: that what goes wrong outside its own answers is a problem document
/// too, and that what has an ETag is not sent again to who has it.
fn described(mut document: utoipa::openapi::OpenApi) -> utoipa::openapi::OpenApi {
    let body = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(PROBLEM_SCHEMA)))
        .build();
    let problem = ResponseBuilder::new()
        .description("What went wrong, as `application/problem+json`.")
        .content("application/problem+json", body)
        .build();
    for path in document.paths.paths.values_mut() {
        path.get.iter_mut().for_each(say_not_modified);
        let operations = [
            &mut path.get,
            &mut path.put,
            &mut path.post,
            &mut path.delete,
        ];
        for operation in operations.into_iter().flatten() {
            operation
                .responses
                .responses
                .insert("default".to_owned(), RefOr::T(problem.clone()));
        }
    }
    document
}

fn say_not_modified(read: &mut Operation) {
    let has_tag = match read.responses.responses.get("200") {
        Some(RefOr::T(found)) => found.headers.contains_key("ETag"),
        _ => false,
    };
    if !has_tag {
        return;
    }
    let same = ResponseBuilder::new()
        .description("It is what the given ETag names.")
        .build();
    let responses = &mut read.responses.responses;
    responses.insert("304".to_owned(), RefOr::T(same));
    let known = ParameterBuilder::new()
        .name("If-None-Match")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("ETags of what is known already."))
        .schema(Some(ObjectBuilder::new().schema_type(Type::String)))
        .build();
    read.parameters
        .get_or_insert_default()
        .push(RefOr::T(known));
}

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Ackline",
        description = "Send WhatsApp messages, read conversations, manage bots and flows. Every answer that is not a success is `application/problem+json`. Every answer says in `X-RateLimit-Limit`, `X-RateLimit-Remaining` and `X-RateLimit-Reset` (seconds until all are free again) how many requests your key may make; without a valid key, your address.",
        license(name = "Apache-2.0")
    ),
    modifiers(&BearerKey),
    security(("key" = []))
)]
struct Document;

struct BearerKey;

impl Modify for BearerKey {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("An API key."))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("key", SecurityScheme::Http(scheme));
    }
}

fn v1(is_guarded: bool) -> OpenApiRouter<App> {
    let routes = tuning::router()
        .routes(routes!(messages::send))
        .routes(routes!(messages::get))
        .routes(routes!(conversations::list))
        .routes(routes!(conversations::messages))
        .routes(routes!(owner::get))
        .routes(routes!(owner::set))
        .routes(routes!(bots::list))
        .routes(routes!(bots::get, bots::put))
        .routes(routes!(flows::list))
        .routes(routes!(flows::get, flows::put))
        .routes(routes!(usage::get))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::count))
        .routes(routes!(dead_letters::replay))
        .routes(routes!(dead_letters::discard))
        .routes(routes!(dead_letters::get))
        .routes(routes!(dead_letters::replay_one))
        .routes(routes!(replays::list, replays::create))
        .routes(routes!(replays::get))
        .routes(routes!(replays::cancel))
        .routes(routes!(pools::list))
        .routes(routes!(pools::get))
        .routes(routes!(pools::tenants));
    let routes = declared::routes(routes);
    let routes = match is_guarded {
        true => routes.route_layer(from_fn(auth::authenticate)),
        false => routes,
    };
    OpenApiRouter::with_openapi(Document::openapi()).nest("/v1", routes)
}

/// Puts routes and bounds together; what is added last meets a request first.
pub(super) fn router(app: App) -> Router {
    let (routes, document) = v1(true).split_for_parts();
    let document = Bytes::from(described(document).to_json().unwrap_or_default());
    let document = move || async move { ([(header::CONTENT_TYPE, "application/json")], document) };
    routes
        .route("/", get(index))
        .route("/openapi.json", get(document))
        .route(
            "/hooks/chatwoot/{tenant}/{link}/{token}",
            post(hooks::chatwoot),
        )
        .route(
            "/hooks/chatwoot/{tenant}/{link}/{token}/",
            post(hooks::chatwoot),
        )
        .fallback(|| async { Problem::NotFound("path") })
        .method_not_allowed_fallback(|| async { Problem::MethodNotAllowed })
        .layer(DefaultBodyLimit::max(app.settings.body_bytes_max))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(from_fn(revision::not_modified))
        .layer(from_fn_with_state(app.clone(), deadline))
        .layer(from_fn_with_state(app.clone(), rate::meter))
        .layer(from_fn(identify))
        .with_state(app)
}

async fn index() -> Response {
    let fixed = [
        ("document", "/openapi.json"),
        ("messages", "/v1/messages"),
        ("conversations", "/v1/conversations"),
        ("usage", "/v1/usage"),
        ("tuning", "/v1/tuning"),
        ("dead_letters", "/v1/dead-letters"),
        ("replays", "/v1/replays"),
        ("pools", "/v1/pools"),
    ];
    let fixed = fixed.map(|(name, path)| (name, path.to_owned()));
    let kinds = KINDS
        .iter()
        .map(|kind| (kind.section, format!("/v1{}", declared::path(kind))));
    let links: BTreeMap<&str, String> = fixed.into_iter().chain(kinds).collect();
    let version = env!("CARGO_PKG_VERSION");
    Json(json!({"name": "Ackline", "version": version, "links": links})).into_response()
}

fn panicked(cause: Box<dyn Any + Send + 'static>) -> Response {
    let text = cause
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| cause.downcast_ref::<String>().map(String::as_str));
    tracing::error!(cause = text.unwrap_or("unknown"), "a request panicked");
    Problem::Internal.into_response()
}

async fn deadline(State(app): State<App>, request: Request, next: Next) -> Response {
    match tokio::time::timeout(app.settings.request_timeout, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::TimedOut.into_response(),
    }
}

/// Gives every request an id, or takes the caller's, and says it in logs and on the answer.
async fn identify(request: Request, next: Next) -> Response {
    let given = request
        .headers()
        .get(REQUEST_ID)
        .filter(|value| is_usable(value))
        .cloned();
    let id = given.unwrap_or_else(|| {
        let text = ackline_shared::ids::hex(&rand::random::<[u8; 12]>());
        HeaderValue::try_from(text).unwrap_or_else(|_| HeaderValue::from_static("-"))
    });
    let span = tracing::info_span!("request", id = id.to_str().unwrap_or_default(), method = %request.method());
    let mut response = next.run(request).instrument(span).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

fn is_usable(value: &HeaderValue) -> bool {
    let bytes = value.as_bytes();
    (1..=REQUEST_ID_CHARS_MAX).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::StatusCode;
    use tower::ServiceExt;

    #[tokio::test]
    async fn a_handler_that_panics_is_a_problem_and_not_a_broken_connection() {
        async fn broken() -> Response {
            panic!("a bug")
        }
        let service = Router::<()>::new()
            .route("/", get(broken))
            .layer(CatchPanicLayer::custom(panicked));
        let response = service
            .oneshot(Request::get("/").body(Body::empty()).unwrap())
            .await
            .unwrap();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(
            response.headers()[header::CONTENT_TYPE],
            "application/problem+json"
        );
    }
}
