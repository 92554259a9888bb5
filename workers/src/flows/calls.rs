//! Performing the calls a flow asks for: HTTP requests and completions, through the client that guards
//! private addresses. Whatever happens becomes an outcome; a call never fails the update that asked for it.

use super::agent::{completions_url, read_reply, request_body};
use super::effect::{AgentCall, Call, HeaderValue, HttpCall};
use super::update::Outcome;
use crate::egress::{Egress, EgressError, EgressRequest};
use crate::platform::Platform;
use ackline_shared::ids::TenantId;
use ackline_shared::secret::Secret;
use bytes::Bytes;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue as Value};
use std::time::Duration;

/// Bytes of an answer that a flow gets to see.
const RESPONSE_BYTES_MAX: usize = 256 * 1024;

/// Performs a call for a tenant.
pub async fn perform(platform: &Platform, egress: &Egress, tenant: &TenantId, call: &Call) -> Outcome {
    let performed = match call {
        Call::Http(call) => http(platform, egress, tenant, call).await,
        Call::Agent(call) => agent(platform, egress, tenant, call).await,
    };
    performed.unwrap_or_else(|outcome| outcome)
}

async fn http(
    platform: &Platform,
    egress: &Egress,
    tenant: &TenantId,
    call: &HttpCall,
) -> Result<Outcome, Outcome> {
    let mut headers = HeaderMap::new();
    for (name, value) in &call.headers {
        let name =
            HeaderName::try_from(name).map_err(|_| failed(format!("`{name}` is not a header name")))?;
        let value = match value {
            HeaderValue::Text(text) => Secret::new(text.clone()),
            HeaderValue::Secret { secret, prefix } => {
                Secret::new(format!("{prefix}{}", open_secret(platform, tenant, secret)?.expose()))
            }
        };
        headers.insert(name, header_value(&value)?);
    }
    let body = call.body.clone().unwrap_or_default();
    if !body.is_empty() && !headers.contains_key(CONTENT_TYPE) {
        headers.insert(CONTENT_TYPE, Value::from_static("application/json"));
    }
    let request = EgressRequest {
        method: call.method.as_str().parse().unwrap_or(reqwest::Method::GET),
        url: call.url.clone(),
        headers,
        body: Bytes::from(body),
        timeout: Duration::from_millis(call.timeout_ms),
        response_bytes_max: RESPONSE_BYTES_MAX,
    };
    let answer = egress.request(request).await.map_err(unanswered)?;
    let body = if answer.whole {
        serde_json::from_slice(&answer.body)
            .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(&answer.body).into_owned()))
    } else {
        serde_json::Value::Null
    };
    Ok(Outcome::Http { code: answer.status.as_u16(), body })
}

async fn agent(
    platform: &Platform,
    egress: &Egress,
    tenant: &TenantId,
    call: &AgentCall,
) -> Result<Outcome, Outcome> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, Value::from_static("application/json"));
    if let Some(name) = &call.endpoint.api_key {
        let key = open_secret(platform, tenant, name)?;
        headers.insert(AUTHORIZATION, header_value(&Secret::new(format!("Bearer {}", key.expose())))?);
    }
    let request = EgressRequest {
        method: reqwest::Method::POST,
        url: completions_url(&call.endpoint.base_url),
        headers,
        body: Bytes::from(request_body(call).to_string()),
        timeout: Duration::from_millis(call.timeout_ms),
        response_bytes_max: RESPONSE_BYTES_MAX,
    };
    let answer = egress.request(request).await.map_err(unanswered)?;
    if !answer.status.is_success() {
        return Err(failed(format!("the model answered {}", answer.status.as_u16())));
    }
    let response =
        serde_json::from_slice(&answer.body).map_err(|_| failed("the model's answer is not JSON".into()))?;
    let text = read_reply(&response).ok_or_else(|| failed("the model's answer has no text".into()))?;
    Ok(Outcome::Reply { text })
}

fn open_secret(platform: &Platform, tenant: &TenantId, name: &str) -> Result<Secret<String>, Outcome> {
    let opened = platform.tenant_secret(tenant, name);
    let opened = opened.ok_or_else(|| failed(format!("the tenant has no secret called `{name}`")))?;
    opened.map_err(|error| failed(error.to_string()))
}

fn header_value(text: &Secret<String>) -> Result<Value, Outcome> {
    let mut value = Value::from_str(text.expose())
        .map_err(|_| failed("a header holds characters HTTP does not allow".into()))?;
    value.set_sensitive(true);
    Ok(value)
}

fn unanswered(error: EgressError) -> Outcome {
    match error {
        EgressError::Timeout => Outcome::Timeout,
        other => failed(other.to_string()),
    }
}

fn failed(reason: String) -> Outcome {
    Outcome::Failed { reason }
}
