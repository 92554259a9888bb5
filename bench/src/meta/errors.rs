//! The Graph API's errors: codes, HTTP statuses and bodies.
//!
//! Meta documents codes, not HTTP statuses; the statuses here are what is commonly observed, and a client
//! must go by the code.

use axum::http::StatusCode;
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, Clone, PartialEq)]
pub struct GraphError {
    pub http: u16,
    pub code: u32,
    /// Meta's sub-code, for the few that have one.
    pub subcode: Option<u32>,
    /// What is wrong with this request.
    pub details: String,
    pub headers: BTreeMap<String, String>,
}

impl GraphError {
    /// An error by its code, with the usual HTTP status.
    pub fn new(code: u32, details: impl Into<String>) -> Self {
        let (http, _) = known(code);
        Self {
            http,
            code,
            subcode: None,
            details: details.into(),
            headers: BTreeMap::new(),
        }
    }

    /// An object that does not exist or may not be seen.
    pub fn no_such_object(id: &str) -> Self {
        let id: String = id.chars().take(64).collect();
        let details = format!(
            "Object with ID '{id}' does not exist, cannot be loaded due to missing permissions, or does not \
             support this operation"
        );
        Self {
            subcode: Some(33),
            ..Self::new(100, details)
        }
    }

    /// The HTTP status, 500 when an injected one is not a status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.http).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The body as the Graph API writes it.
    pub fn body(&self, trace_id: &str) -> Value {
        let (_, title) = known(self.code);
        let mut error = json!({
            "message": format!("(#{}) {title}", self.code),
            "type": "OAuthException",
            "code": self.code,
            "error_data": {"messaging_product": "whatsapp", "details": self.details},
            "fbtrace_id": trace_id,
        });
        if let (Some(fields), Some(subcode)) = (error.as_object_mut(), self.subcode) {
            fields.insert("error_subcode".to_owned(), json!(subcode));
        }
        json!({ "error": error })
    }
}

/// An element of a failed status's `errors[]`.
pub fn status_error(code: u32) -> Value {
    let (_, title) = known(code);
    json!({
        "code": code, "title": title, "message": title, "error_data": {"details": title},
        "href": "/documentation/business-messaging/whatsapp/support/error-codes/",
    })
}

/// The usual HTTP status and title of a code; unknown codes are answered as 400.
pub fn known(code: u32) -> (u16, &'static str) {
    match code {
        0 => (401, "AuthException"),
        1 => (400, "API Unknown"),
        2 => (503, "API Service"),
        3 => (500, "API Method"),
        4 => (400, "Application request limit reached"),
        10 => (403, "Application does not have permission for this action"),
        33 => (400, "Parameter value is not valid"),
        100 => (400, "Invalid parameter"),
        104 => (401, "An access token is required to request this resource"),
        190 => (401, "Invalid OAuth access token"),
        200..=299 => (403, "API Permission"),
        368 => (403, "Temporarily blocked for policies violations"),
        2500 => (400, "Unknown path components"),
        80007 => (400, "Rate limit issues"),
        130_429 => (400, "Rate limit hit"),
        130_472 => (400, "User's number is part of an experiment"),
        130_497 => (
            403,
            "Business account is restricted from messaging users in this country",
        ),
        131_000 => (500, "Something went wrong"),
        131_005 => (403, "Access denied"),
        131_008 => (400, "Required parameter is missing"),
        131_009 => (400, "Parameter value is not valid"),
        131_016 => (500, "Service unavailable"),
        131_021 => (400, "Recipient cannot be sender"),
        131_026 => (400, "Message undeliverable"),
        131_031 => (403, "Account has been locked"),
        131_042 => (400, "Business eligibility payment issue"),
        131_045 => (500, "Incorrect certificate"),
        131_047 => (400, "Re-engagement message"),
        131_048 => (400, "Spam rate limit hit"),
        131_049 => (400, "Meta chose not to deliver"),
        131_051 => (400, "Unsupported message type"),
        131_052 => (400, "Media download error"),
        131_053 => (400, "Media upload error"),
        131_056 => (
            400,
            "(Business Account, Consumer Account) pair rate limit hit",
        ),
        131_057 => (500, "Account in maintenance mode"),
        132_000 => (400, "Template param count mismatch"),
        132_001 => (404, "Template does not exist"),
        132_015 => (400, "Template is paused"),
        132_016 => (400, "Template is disabled"),
        133_004 => (500, "Server temporarily unavailable"),
        133_010 => (400, "Phone number not registered"),
        135_000 => (400, "Generic user error"),
        _ => (400, "Error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_body_has_the_members_clients_read() {
        let error = GraphError::new(131_056, "wait");
        assert_eq!(error.status(), 400);
        assert_eq!(
            error.body("A1").to_string(),
            r##"{"error":{"message":"(#131056) (Business Account, Consumer Account) pair rate limit hit","type":"OAuthException","code":131056,"error_data":{"messaging_product":"whatsapp","details":"wait"},"fbtrace_id":"A1"}}"##
        );
        assert_eq!(
            GraphError::no_such_object("9").body("A1")["error"]["error_subcode"],
            33
        );
    }
}
