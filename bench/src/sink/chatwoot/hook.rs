//! Chatwoot's report of a message: signed with the inbox's secret, sent once, never retried.

use super::Options;
use crate::journal::unix_micros;
use ackline_shared::ids::{hex, short_hash};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::Value;
use sha2::Sha256;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub struct Reporter(reqwest::Client);

impl Reporter {
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self(
            reqwest::Client::builder()
                .timeout(TIMEOUT)
                .no_proxy()
                .build()?,
        ))
    }

    /// Posts a report and gives the status answered; nothing is posted without an address.
    pub async fn post(&self, options: &Options, report: &Value) -> Option<u16> {
        let url = options.webhook_url.as_ref()?;
        let body = report.to_string();
        let micros = unix_micros();
        let delivery = short_hash(format!("{micros} {body}").as_bytes());
        let mut request = self
            .0
            .post(url.expose())
            .header("content-type", "application/json")
            .header("accept", "application/json")
            .header("x-chatwoot-delivery", delivery);
        if let Some(secret) = &options.webhook_secret {
            let timestamp = (micros / 1_000_000).to_string();
            let signature = sign(secret.expose(), &timestamp, &body);
            request = request
                .header("x-chatwoot-timestamp", timestamp)
                .header("x-chatwoot-signature", format!("sha256={signature}"));
        }
        let answered = request.body(body).send().await;
        answered.ok().map(|response| response.status().as_u16())
    }
}

/// The hex HMAC of `{timestamp}.{body}` under the secret's own text.
fn sign(secret: &str, timestamp: &str, body: &str) -> String {
    // HMAC takes a key of any length, so the error cannot occur.
    let Ok(mac) = Hmac::<Sha256>::new_from_slice(secret.as_bytes()) else {
        return String::new();
    };
    let mac = mac
        .chain_update(timestamp)
        .chain_update(b".")
        .chain_update(body);
    hex(&mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_signed_as_chatwoot_signs_it() {
        let signature = sign(
            "test_secret",
            "1700000000",
            r#"{"event":"message_created","id":1}"#,
        );
        assert_eq!(
            signature,
            "5edd5afedd7ea62edb707dec5e16760dcce8076f63e459105a3af09dbaa4aa3b"
        );
    }
}
