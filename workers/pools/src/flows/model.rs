//! Asking a language model, again where the endpoint is only busy: until an answer comes or the call's time is over.

use super::calls::{Failure, kind_of};
use ackline_egress::{Egress, EgressAnswer, EgressRequest};
use ackline_flow::agent::{
    completions_url, other_tokens_field, read_reply, request_body, tokens_field,
};
use ackline_flow::definition::{EndpointConfig, TokensField};
use ackline_flow::effect::AgentCall;
use ackline_flow::update::CallOutcome;
use bytes::Bytes;
use lru::LruCache;
use reqwest::header::HeaderMap;
use std::num::NonZeroUsize;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};
use tokio::time::{Instant, sleep};

/// Requests of one call.
const REQUESTS_MAX: u32 = 6;
/// The first wait where the endpoint names none; each further one is twice as long.
const WAIT_FIRST: Duration = Duration::from_millis(500);
/// What a 429 says where waiting does not help: the account has no credit.
const NO_CREDIT: &[u8] = b"insufficient_quota";

/// Endpoints and models of which it is remembered how they want to be asked.
const LEARNED_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(511);

/// Which models refused the field that their name suggests, so that each is asked wrongly once.
#[derive(Debug)]
pub struct Learned(Mutex<LruCache<(String, String), TokensField>>);

impl Default for Learned {
    fn default() -> Self {
        Self(Mutex::new(LruCache::new(LEARNED_MAX)))
    }
}

impl Learned {
    fn field(&self, endpoint: &EndpointConfig) -> TokensField {
        let known = self.lock().get(&name(endpoint)).copied();
        let known = known.filter(|_| endpoint.tokens_field.is_none());
        known.unwrap_or_else(|| tokens_field(endpoint))
    }

    fn learn(&self, endpoint: &EndpointConfig, field: TokensField) {
        self.lock().put(name(endpoint), field);
    }

    fn lock(&self) -> MutexGuard<'_, LruCache<(String, String), TokensField>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(endpoint: &EndpointConfig) -> (String, String) {
    (endpoint.base_url.clone(), endpoint.model.clone())
}

/// Asks until there is an answer, a refusal that waiting does not change, or no time left.
pub async fn complete(
    egress: &Egress,
    headers: HeaderMap,
    call: &AgentCall,
    bytes_max: usize,
    learned: &Learned,
) -> Result<CallOutcome, Failure> {
    let deadline = Instant::now() + Duration::from_millis(call.timeout_ms);
    let mut tokens = learned.field(&call.endpoint);
    let mut may_swap = true;
    let mut wait = WAIT_FIRST;
    for request in 1..=REQUESTS_MAX {
        let answer = egress
            .request(EgressRequest {
                method: reqwest::Method::POST,
                url: completions_url(&call.endpoint.base_url),
                headers: headers.clone(),
                body: Bytes::from(request_body(call, tokens).to_string()),
                timeout: deadline.saturating_duration_since(Instant::now()),
                response_bytes_max: bytes_max,
            })
            .await?;
        if answer.status.is_success() {
            if !may_swap {
                learned.learn(&call.endpoint, tokens);
            }
            return reply(&answer);
        }
        let code = answer.status.as_u16();
        let refusal = String::from_utf8_lossy(&answer.body);
        let other = other_tokens_field(code, tokens, &refusal).filter(|_| may_swap);
        if let Some(other) = other {
            (tokens, may_swap) = (other, false);
            continue;
        }
        let pause = asked_wait(&answer).unwrap_or(wait);
        let is_in_time = Instant::now() + pause < deadline;
        if request == REQUESTS_MAX || !passes(&answer) || !is_in_time {
            return Err(refused(code, request));
        }
        sleep(pause).await;
        wait = wait.saturating_mul(2);
    }
    Err(Failure::new(
        "status_4xx",
        "the model refused every request",
    ))
}

fn reply(answer: &EgressAnswer) -> Result<CallOutcome, Failure> {
    let response = serde_json::from_slice(&answer.body)
        .map_err(|_| Failure::new("unreadable", "the model's answer is not JSON"))?;
    let text = read_reply(&response)
        .ok_or_else(|| Failure::new("unreadable", "the model's answer has no text"))?;
    Ok(CallOutcome::Reply { text })
}

fn refused(code: u16, requests: u32) -> Failure {
    let times = match requests {
        1 => String::new(),
        requests => format!(", after {requests} requests"),
    };
    Failure::new(kind_of(code), format!("the model answered {code}{times}"))
}

/// Whether the same request may be answered later.
fn passes(answer: &EgressAnswer) -> bool {
    match answer.status.as_u16() {
        429 => !answer
            .body
            .windows(NO_CREDIT.len())
            .any(|part| part == NO_CREDIT),
        408 | 500 | 502..=504 | 520..=530 => true,
        _ => false,
    }
}

/// How long the endpoint asks to wait: by its own header in milliseconds, or by the standard one.
fn asked_wait(answer: &EgressAnswer) -> Option<Duration> {
    let exact = answer.headers.get("retry-after-ms");
    let exact = exact
        .and_then(|value| value.to_str().ok()?.trim().parse().ok())
        .map(Duration::from_millis);
    exact.or_else(|| answer.retry_after(SystemTime::now()))
}
