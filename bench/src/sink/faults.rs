//! Faults of the customer's side: the next requests fail, are slow, or lose their connection.
//!
//! A request that fails is still verified and recorded by its handler; only the answer is replaced.

use super::{Sink, lock};
use crate::serve::hang_up;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

const FAULTS_MAX: usize = 1000;
const DELAY_MAX_MS: u64 = 120_000;

/// One fault; the first that matches a request and is not used up applies.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Fault {
    /// How many requests it applies to; 0 is read as 1.
    pub times: u32,
    /// Only requests whose path starts with this, such as `/webhooks/acme`; empty is any.
    pub path: String,
    /// Answers with this status instead.
    pub status: Option<u16>,
    /// Adds a Retry-After of so many seconds.
    pub retry_after_s: Option<u32>,
    /// Closes the connection without an answer.
    pub drop: bool,
    pub delay_ms: u64,
}

/// Why a fault is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadFault {
    #[error("give `status` (200 to 599), `drop` or `delay_ms` (up to {DELAY_MAX_MS})")]
    Effect,
    #[error("{FAULTS_MAX} faults are waiting; delete some")]
    TooMany,
}

/// The faults still to be applied.
#[derive(Debug, Default)]
pub struct Faults(Vec<Fault>);

impl Faults {
    /// Adds a fault behind the others.
    pub fn add(&mut self, mut fault: Fault) -> Result<(), BadFault> {
        let effect = fault.status.is_some() || fault.drop || fault.delay_ms > 0;
        let status = fault
            .status
            .is_none_or(|status| (200..=599).contains(&status));
        if !effect || !status || fault.delay_ms > DELAY_MAX_MS {
            return Err(BadFault::Effect);
        }
        if self.0.len() >= FAULTS_MAX {
            return Err(BadFault::TooMany);
        }
        fault.times = fault.times.max(1);
        self.0.push(fault);
        Ok(())
    }

    /// Uses up one application of the first matching fault.
    pub fn next(&mut self, path: &str) -> Option<Fault> {
        let index = self
            .0
            .iter()
            .position(|fault| path.starts_with(&fault.path))?;
        let fault = self.0.get_mut(index)?;
        let applied = fault.clone();
        fault.times -= 1;
        if fault.times == 0 {
            self.0.remove(index);
        }
        Some(applied)
    }

    pub fn list(&self) -> &[Fault] {
        &self.0
    }

    pub fn clear(&mut self) {
        self.0.clear();
    }
}

/// The fault that will replace a handler's answer, as the handler sees it.
#[derive(Debug, Clone, Default)]
pub struct Planned(Option<Fault>);

impl Planned {
    /// Whether the handler's own answer will be replaced.
    pub fn injected(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|fault| fault.drop || fault.status.is_some())
    }

    /// The status that will be seen, given the handler's own; none when the connection closes.
    pub fn status(&self, own: StatusCode) -> Option<u16> {
        match &self.0 {
            Some(fault) if fault.drop => None,
            Some(fault) => Some(fault.status.unwrap_or(own.as_u16())),
            None => Some(own.as_u16()),
        }
    }
}

/// Applies the next matching fault around a handler.
pub async fn inject(State(sink): State<Arc<Sink>>, mut request: Request, next: Next) -> Response {
    let fault = lock(&sink.faults).next(request.uri().path());
    request.extensions_mut().insert(Planned(fault.clone()));
    let delay = fault.as_ref().map_or(0, |fault| fault.delay_ms);
    tokio::time::sleep(Duration::from_millis(delay)).await;
    let response = next.run(request).await;
    let Some(fault) = fault else { return response };
    if fault.drop {
        return hang_up();
    }
    let status = fault
        .status
        .and_then(|status| StatusCode::from_u16(status).ok());
    let mut response = status.map_or(response, IntoResponse::into_response);
    if let Some(seconds) = fault.retry_after_s {
        response
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_applies_so_often_and_only_below_its_path() {
        let mut faults = Faults::default();
        let fault = Fault {
            times: 2,
            path: "/webhooks/a".into(),
            status: Some(503),
            ..Fault::default()
        };
        faults.add(fault).unwrap();
        assert_eq!(faults.next("/webhooks/b"), None);
        assert_eq!(faults.next("/webhooks/a").unwrap().status, Some(503));
        assert!(faults.next("/webhooks/a").is_some());
        assert_eq!(faults.next("/webhooks/a"), None);
    }

    #[test]
    fn a_fault_without_effect_is_refused() {
        let mut faults = Faults::default();
        assert_eq!(faults.add(Fault::default()), Err(BadFault::Effect));
        assert_eq!(
            faults.add(Fault {
                status: Some(99),
                ..Fault::default()
            }),
            Err(BadFault::Effect)
        );
    }
}
