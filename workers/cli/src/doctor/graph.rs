//! Checks at Meta: each number's token is accepted, and its WhatsApp Business Account is subscribed.
//!
//! Meta's error messages can repeat a token, so only their codes are shown.

use super::finding::Finding;
use super::http::{Http, HttpAnswer, NoAnswer};
use ackline_shared::model::{Entity, PhoneNumber};
use ackline_shared::registry::Snapshot;
use ackline_shared::secret::Secret;
use ackline_shared::vault::VaultKey;
use futures_util::{StreamExt, stream};
use serde_json::Value;
use std::collections::BTreeSet;

const AT_ONCE: usize = 4;

/// Asks about every number and every account once.
pub async fn check(
    http: &Http,
    base: &str,
    snapshot: &Snapshot,
    master: &VaultKey,
) -> Vec<Finding> {
    if snapshot.phone_numbers.is_empty() {
        let finding = Finding::warn(
            "numbers",
            "no phone number is configured, so every update stays unrouted",
        );
        return vec![finding.hint("declare it under [[phone_numbers]] and run `ackline apply`")];
    }
    let mut accounts = BTreeSet::new();
    let asked = snapshot.phone_numbers.values().filter_map(|phone| {
        // Secrets that do not open have a check of their own.
        let token = snapshot
            .open(master, phone.scope(), &phone.access_token)
            .ok()?;
        let first = accounts.insert(phone.waba_id.as_str());
        Some(ask(http, base, phone, token, first))
    });
    let asked: Vec<_> = asked.collect();
    stream::iter(asked)
        .buffered(AT_ONCE)
        .collect::<Vec<_>>()
        .await
        .into_iter()
        .flatten()
        .collect()
}

async fn ask(
    http: &Http,
    base: &str,
    phone: &PhoneNumber,
    token: Secret<String>,
    with_account: bool,
) -> Vec<Finding> {
    let url = format!(
        "{base}/{}?fields=id,display_phone_number,verified_name",
        phone.id
    );
    let mut findings = vec![number(phone, base, &http.get(&url, Some(&token)).await)];
    if with_account {
        let url = format!("{base}/{}/subscribed_apps", phone.waba_id);
        findings.push(account(
            &phone.waba_id,
            base,
            &http.get(&url, Some(&token)).await,
        ));
    }
    findings
}

fn number(phone: &PhoneNumber, base: &str, answer: &Result<HttpAnswer, NoAnswer>) -> Finding {
    let check = format!("number {}", phone.id);
    let text = |answer: &HttpAnswer, field: &str| {
        answer
            .body
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or("unnamed")
            .to_owned()
    };
    match answer {
        Ok(answer) if answer.status == 200 && text(answer, "id") == phone.id.as_str() => {
            let (display, name) = (
                text(answer, "display_phone_number"),
                text(answer, "verified_name"),
            );
            Finding::ok(check, format_args!("token accepted for {display} ({name})"))
        }
        Ok(answer) if answer.status == 200 => Finding::fail(
            check,
            "Meta answered about something else; is meta.graph_url right?",
        ),
        Ok(answer) => refused(check, "the token", answer),
        Err(error) => unreachable(check, base, &error.to_string()),
    }
}

fn account(waba: &str, base: &str, answer: &Result<HttpAnswer, NoAnswer>) -> Finding {
    let check = format!("account {waba}");
    match answer {
        Ok(answer) if answer.status == 200 => {
            let apps = answer
                .body
                .get("data")
                .and_then(Value::as_array)
                .map_or(0, Vec::len);
            if apps > 0 {
                return Finding::ok(
                    check,
                    format_args!("{apps} app(s) subscribed to its webhooks"),
                );
            }
            Finding::fail(
                check,
                "no app is subscribed, so Meta sends nothing for its numbers",
            )
            .hint(format_args!(
                "curl -X POST -H \"Authorization: Bearer $TOKEN\" {base}/{waba}/subscribed_apps"
            ))
        }
        Ok(answer) => refused(check, "asking for its subscriptions", answer),
        Err(error) => unreachable(check, base, &error.to_string()),
    }
}

fn refused(check: String, what: &str, answer: &HttpAnswer) -> Finding {
    let number = |field: &str| {
        answer
            .body
            .pointer(&format!("/error/{field}"))
            .and_then(Value::as_i64)
    };
    let code = number("code");
    let shown = code.map_or("no code".to_owned(), |code| format!("code {code}"));
    let finding = Finding::fail(
        check,
        format_args!("Meta refuses {what}: HTTP {}, {shown}", answer.status),
    );
    match (answer.status, code) {
        (_, Some(190)) | (401, _) => finding
            .hint("make a permanent token: Meta Business Suite, Settings, System users, Generate token")
            .hint("give it whatsapp_business_messaging and whatsapp_business_management, put it into the file as access_token and run `ackline apply`"),
        (_, Some(10 | 200..=299)) | (403, _) => finding.hint(
            "the token lacks whatsapp_business_messaging or whatsapp_business_management, or its system user has no access to this account",
        ),
        (_, Some(100)) | (404, _) => finding.hint(
            "the id is wrong, or the token's system user may not see it: compare with WhatsApp Manager, API setup",
        ),
        (_, Some(4 | 80007)) | (429, _) => finding.hint("Meta's rate limit is reached; run this again in an hour"),
        (500.., _) => finding.hint("Meta has trouble itself; see metastatus.com and run this again"),
        _ => finding.hint("look the code up in Meta's list of Cloud API error codes"),
    }
}

fn unreachable(check: String, base: &str, reason: &str) -> Finding {
    Finding::fail(check, format_args!("{base} cannot be reached: {reason}"))
        .hint("check meta.graph_url, and that this machine may reach it by https")
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use serde_json::json;

    fn phone() -> PhoneNumber {
        ackline_catalog::samples::document().phone_numbers.remove(0)
    }

    fn answer(status: u16, body: Value) -> Result<HttpAnswer, NoAnswer> {
        Ok(HttpAnswer { status, body })
    }

    #[test]
    fn each_answer_about_a_number_has_its_hint_and_none_repeats_metas_words() {
        let error = |code: i64| json!({"error": {"code": code, "message": "Malformed access token s3cret-token"}});
        let good = json!({"id": "106540352242922", "display_phone_number": "+1 555", "verified_name": "Acme"});
        for (answer, level, said) in [
            (answer(200, good), Level::Ok, "Acme"),
            (
                answer(200, json!({"id": "1"})),
                Level::Fail,
                "something else",
            ),
            (answer(401, error(190)), Level::Fail, "permanent token"),
            (answer(400, error(190)), Level::Fail, "permanent token"),
            (answer(400, error(100)), Level::Fail, "WhatsApp Manager"),
            (answer(403, error(200)), Level::Fail, "lacks"),
            (answer(400, error(80007)), Level::Fail, "rate limit"),
            (answer(503, Value::Null), Level::Fail, "metastatus"),
            (Err(NoAnswer::TooLong), Level::Fail, "cannot be reached"),
        ] {
            let finding = number(&phone(), "http://graph", &answer);
            let text = format!("{finding:?}");
            assert_eq!(finding.level, level, "{text}");
            assert!(
                text.contains(said) && !text.contains("s3cret"),
                "{said} in {text}"
            );
        }
    }

    #[test]
    fn an_account_without_subscriptions_fails_with_the_call_that_mends_it() {
        let finding = account(
            "102",
            "http://graph/v26.0",
            &answer(200, json!({"data": []})),
        );
        assert_eq!(finding.level, Level::Fail);
        assert!(finding.hints[0].ends_with("http://graph/v26.0/102/subscribed_apps"));
        let finding = account("102", "http://graph", &answer(200, json!({"data": [{}]})));
        assert_eq!(finding.level, Level::Ok);
    }
}
