//! Performing the calls a flow asks for: HTTP requests and completions, through the client that guards
//! private addresses. Whatever happens becomes an outcome; a call never fails the update that asked for it.
//!
//! So that a failure is seen although no update fails, each call is counted, and one that fails stands in the log and
//! is told to whoever follows the tenant: by its kind and host, never with what was sent or answered.

use super::model::{self, Learned};
use ackline_egress::{Egress, EgressError, EgressRequest};
use ackline_flow::effect::{AgentCall, Call, HeaderValue, HttpCall};
use ackline_flow::update::CallOutcome;
use ackline_runtime::metrics::Metrics;
use ackline_runtime::platform::Platform;
use ackline_shared::envelope::Head;
use ackline_shared::ids::TenantId;
use ackline_shared::secret::Secret;
use ackline_shared::subjects::Pool;
use bytes::Bytes;
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue as Value};
use std::time::Duration;
use tokio::time::Instant;

/// Bytes of an answer that a flow gets to see.
const RESPONSE_BYTES_MAX: usize = 256 * 1024;

/// Who makes calls, and where they are counted.
#[derive(Debug)]
pub struct Caller {
    pub platform: Platform,
    pub egress: Egress,
    /// Where calls are counted, if anywhere.
    pub metrics: Option<Metrics>,
    /// How models want to be asked.
    pub learned: Learned,
}

impl Caller {
    /// Performs a call for an update.
    pub async fn perform(&self, head: &Head, call: &Call) -> CallOutcome {
        let started = Instant::now();
        let (what, url, performed) = match call {
            Call::Http(call) => ("http", &call.url, self.http(&head.tenant, call).await),
            Call::Agent(call) => (
                "model",
                &call.endpoint.base_url,
                self.agent(&head.tenant, call).await,
            ),
        };
        let took = started.elapsed();
        let (outcome, failure) = match performed {
            Ok(outcome) => {
                let failure = refusal(&outcome);
                (outcome, failure)
            }
            Err(Failure { kind, outcome }) => {
                let reason = reason(&outcome);
                (outcome, Some((kind, reason)))
            }
        };
        if let Some(metrics) = &self.metrics {
            metrics.called(what, failure.as_ref().map_or("done", |(kind, _)| *kind));
        }
        if let Some((kind, reason)) = failure {
            let host = Url::parse(url)
                .ok()
                .and_then(|url| url.host_str().map(str::to_owned));
            tracing::warn!(
                pool = %Pool::Flows, tenant = %head.tenant, update = head.id.in_log(), call = what, kind,
                host = host.as_deref().unwrap_or_default(), took_ms = took.as_millis(), reason,
                "a call of a flow failed"
            );
            if let Some(metrics) = &self.metrics {
                metrics
                    .following()
                    .report_call(Pool::Flows, head, what, &reason, took);
            }
        }
        outcome
    }

    async fn http(&self, tenant: &TenantId, call: &HttpCall) -> Result<CallOutcome, Failure> {
        let mut headers = HeaderMap::new();
        for (name, value) in &call.headers {
            let name = HeaderName::try_from(name)
                .map_err(|_| misconfigured(format!("`{name}` is not a header name")))?;
            let value = match value {
                HeaderValue::Text(text) => Secret::new(text.clone()),
                HeaderValue::Secret { secret, prefix } => Secret::new(format!(
                    "{prefix}{}",
                    self.open_secret(tenant, secret)?.expose()
                )),
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
        let answer = self.egress(tenant).request(request).await?;
        let body = if answer.whole {
            serde_json::from_slice(&answer.body).unwrap_or_else(|_| {
                serde_json::Value::String(String::from_utf8_lossy(&answer.body).into_owned())
            })
        } else {
            serde_json::Value::Null
        };
        Ok(CallOutcome::Http {
            code: answer.status.as_u16(),
            body,
        })
    }

    /// The client for what a tenant's flows call.
    fn egress(&self, tenant: &TenantId) -> Egress {
        self.egress.of_tenant(
            self.platform
                .snapshot()
                .tenants
                .get(tenant)
                .map(AsRef::as_ref),
        )
    }

    async fn agent(&self, tenant: &TenantId, call: &AgentCall) -> Result<CallOutcome, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, Value::from_static("application/json"));
        if let Some(name) = &call.endpoint.api_key {
            let key = self.open_secret(tenant, name)?;
            headers.insert(
                AUTHORIZATION,
                header_value(&Secret::new(format!("Bearer {}", key.expose())))?,
            );
        }
        let egress = self.egress(tenant);
        model::complete(&egress, headers, call, RESPONSE_BYTES_MAX, &self.learned).await
    }

    fn open_secret(&self, tenant: &TenantId, name: &str) -> Result<Secret<String>, Failure> {
        let opened = self.platform.tenant_secret(tenant, name);
        let opened = opened
            .ok_or_else(|| misconfigured(format!("the tenant has no secret called `{name}`")))?;
        opened.map_err(|error| misconfigured(error.to_string()))
    }
}

/// A call without an answer that a flow could use.
pub(super) struct Failure {
    /// What metrics count it by.
    kind: &'static str,
    outcome: CallOutcome,
}

impl Failure {
    pub(super) fn new(kind: &'static str, reason: impl Into<String>) -> Self {
        Self {
            kind,
            outcome: CallOutcome::Failed {
                reason: reason.into(),
            },
        }
    }
}

impl From<EgressError> for Failure {
    fn from(error: EgressError) -> Self {
        let kind = match error {
            EgressError::Timeout => {
                return Self {
                    kind: "timeout",
                    outcome: CallOutcome::Timeout,
                };
            }
            EgressError::Refused(_) => "not_allowed",
            EgressError::Connect { .. } => "unreachable",
            EgressError::Broken => "broken",
        };
        Self::new(kind, error.to_string())
    }
}

fn misconfigured(reason: impl Into<String>) -> Failure {
    Failure::new("misconfigured", reason)
}

/// The kind of an answer that refuses.
pub(super) fn kind_of(code: u16) -> &'static str {
    match code {
        429 => "throttled",
        500.. => "status_5xx",
        400..=499 => "status_4xx",
        _ => "status_other",
    }
}

/// A refusal is an answer to the flow, which decides what follows, and a failure to whoever watches.
fn refusal(outcome: &CallOutcome) -> Option<(&'static str, String)> {
    match outcome {
        CallOutcome::Http { code, .. } if *code >= 400 => {
            Some((kind_of(*code), format!("answered {code}")))
        }
        _ => None,
    }
}

fn reason(outcome: &CallOutcome) -> String {
    match outcome {
        CallOutcome::Failed { reason } => reason.clone(),
        CallOutcome::Timeout => "no answer in time".to_owned(),
        CallOutcome::Http { .. } | CallOutcome::Reply { .. } => String::new(),
    }
}

fn header_value(text: &Secret<String>) -> Result<Value, Failure> {
    let mut value = Value::from_str(text.expose())
        .map_err(|_| misconfigured("a header holds characters HTTP does not allow"))?;
    value.set_sensitive(true);
    Ok(value)
}
