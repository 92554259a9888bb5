//! Which relays an update goes to, what the request to them looks like, and what their answer means.

use ackline_egress::{EgressAnswer, Outcome};
use ackline_shared::envelope::Head;
use ackline_shared::meta::{self, ReadError};
use ackline_shared::model::{Entity, Relay, SecretField};
use ackline_shared::registry::Snapshot;
use ackline_shared::signature::SigningKey;
use ackline_shared::vault::VaultKey;
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT,
};
use std::cell::LazyCell;
use std::sync::Arc;

const SIGNATURE: HeaderName = HeaderName::from_static("x-hub-signature-256");

/// The edge's kind for a signed body it could not read; no bot could either.
const UNREADABLE: &str = "unreadable";

/// Tells a bot that it is shown what somebody put before it again.
pub(super) const REPLAY: HeaderName = HeaderName::from_static("ackline-replay");

/// Why edited contents stay where they are, and what to do about it.
const NOT_OURS_TO_SIGN: &str = "the contents were edited and cannot be signed with the secret of an app that is not the tenant's own; give the relay an app_secret of its own, or the number an app declared for the tenant";

/// What signs a relay's copy.
enum Signer<'a> {
    Secret {
        scope: &'a str,
        secret: &'a SecretField,
    },
    /// Meta did, and the bytes are still those.
    Meta(&'a str),
}

/// Whether an update may go to some relay, as far as its head tells.
pub(super) fn concerns(snapshot: &Snapshot, head: &Head) -> bool {
    let mut relays = Snapshot::owned(&snapshot.relays, "relay", &head.tenant);
    head.kind != UNREADABLE && !head.tenant.is_unrouted() && relays.any(|relay| relay.enabled)
}

/// Whether a relay wants an update, once its payload is looked at.
pub(super) fn selects(snapshot: &Snapshot, head: &Head, payload: &[u8], name: &str) -> bool {
    let mut relays = Snapshot::owned(&snapshot.relays, "relay", &head.tenant);
    match relays.find(|relay| relay.id.as_str() == name) {
        Some(relay) if relay.enabled => {
            let update = LazyCell::new(|| meta::read(payload));
            wants(snapshot, head, relay, &update) || unreadable(head, relay, &update).is_some()
        }
        // It was there when the update came: what becomes of it is not passed over in silence.
        _ => !name.is_empty(),
    }
}

/// Why it cannot be told whether a relay wants an update; that is for the dead letters to say, not passed over.
pub(super) fn undecided(head: &Head, relay: &Relay, payload: &[u8]) -> Option<String> {
    unreadable(head, relay, &LazyCell::new(|| meta::read(payload)))
}

fn unreadable(
    head: &Head,
    relay: &Relay,
    update: &LazyCell<Reading, impl FnOnce() -> Reading>,
) -> Option<String> {
    let is_asked =
        !relay.fields.is_empty() || (!relay.phone_numbers.is_empty() && head.phone.is_none());
    match is_asked.then(|| update.as_ref()) {
        Some(Err(error @ ReadError::Json(_))) => Some(error.to_string()),
        _ => None,
    }
}

type Reading = Result<meta::Update, ReadError>;

/// Why none of the relays that an update has still to reach may ever get it signed; `None` when one may, and when
/// there is none to reach.
pub fn unsignable(snapshot: &Snapshot, head: &Head, payload: &[u8]) -> Option<String> {
    let done = head.replay.as_ref().map_or(&[][..], |replay| &replay.done);
    let mut refusal = None;
    for relay in receivers(snapshot, head, payload) {
        if done.iter().any(|part| *part == relay.id.as_str()) {
            continue;
        }
        match signer(snapshot, head, &relay) {
            Err(Outcome::Final { reason }) => refusal = Some(reason),
            _ => return None,
        }
    }
    refusal
}

/// The relays that an update goes to.
fn receivers(snapshot: &Snapshot, head: &Head, payload: &[u8]) -> Vec<Arc<Relay>> {
    if !concerns(snapshot, head) {
        return Vec::new();
    }
    let update = LazyCell::new(|| meta::read(payload));
    Snapshot::owned(&snapshot.relays, "relay", &head.tenant)
        .filter(|relay| {
            relay.enabled && head.is_for(&relay.id) && wants(snapshot, head, relay, &update)
        })
        .cloned()
        .collect()
}

/// Whether an update is of the fields and numbers that a relay gets; its payload is read only where that matters.
fn wants(
    snapshot: &Snapshot,
    head: &Head,
    relay: &Relay,
    update: &LazyCell<Reading, impl FnOnce() -> Reading>,
) -> bool {
    let field = || {
        update
            .as_ref()
            .ok()
            .and_then(|update| update.field.as_deref())
    };
    let waba = || {
        update
            .as_ref()
            .ok()
            .and_then(|update| update.waba_id.as_deref())
    };
    (relay.fields.is_empty()
        || field().is_some_and(|field| relay.fields.iter().any(|f| f == field)))
        && (relay.phone_numbers.is_empty() || concerns_a_number(snapshot, head, relay, waba))
}

/// An update of a number concerns that one; an update of an account concerns every number in it.
fn concerns_a_number<'a>(
    snapshot: &Snapshot,
    head: &Head,
    relay: &Relay,
    waba: impl Fn() -> Option<&'a str>,
) -> bool {
    match &head.phone {
        Some(phone) => relay.phone_numbers.contains(phone),
        None => waba().is_some_and(|waba| {
            let mut numbers = relay
                .phone_numbers
                .iter()
                .filter_map(|id| snapshot.phone_numbers.get(id));
            numbers.any(|number| number.waba_id == waba)
        }),
    }
}

/// Meta's own signature where the bytes are Meta's and the bot knows the app's secret; else one of ours.
pub(super) fn signature(
    snapshot: &Snapshot,
    master: &VaultKey,
    head: &Head,
    relay: &Relay,
    payload: &[u8],
) -> Result<String, Outcome> {
    match signer(snapshot, head, relay)? {
        Signer::Meta(original) => Ok(original.to_owned()),
        Signer::Secret { scope, secret } => {
            let secret = snapshot.open(master, scope, secret);
            let secret = secret.map_err(|error| Outcome::retry(error.to_string()))?;
            Ok(SigningKey::new(&secret).sign(payload))
        }
    }
}

/// What may sign an update for a relay. A signature of an app says that Meta sent the bytes, to every tenant whose
/// numbers the app serves: what somebody edited gets one only where the app is that tenant's alone.
fn signer<'a>(
    snapshot: &'a Snapshot,
    head: &'a Head,
    relay: &'a Relay,
) -> Result<Signer<'a>, Outcome> {
    if let Some(secret) = &relay.app_secret {
        return Ok(Signer::Secret {
            scope: relay.scope(),
            secret,
        });
    }
    let app = head.app.as_ref().and_then(|id| snapshot.apps.get(id));
    if head.is_verbatim() {
        if let Some(original) = &head.signature {
            return Ok(Signer::Meta(original));
        }
    } else if app.and_then(|app| app.tenant.as_ref()) != Some(&head.tenant) {
        return Err(Outcome::Final {
            reason: NOT_OURS_TO_SIGN.to_owned(),
        });
    }
    let not_configured =
        "the app that brought the update is not configured, so it cannot be signed";
    let app = app.ok_or_else(|| Outcome::retry(not_configured))?;
    let no_secret = "the app has no secret, so the update cannot be signed";
    let secret = app
        .secrets
        .first()
        .ok_or_else(|| Outcome::retry(no_secret))?;
    Ok(Signer::Secret {
        scope: app.scope(),
        secret,
    })
}

/// The headers Meta sends, and nothing of ours; some bots look at each of them.
///
/// Source: captured deliveries of the WhatsApp Business Platform.
pub(super) fn headers(signature: &str) -> Result<HeaderMap, Outcome> {
    let signature = HeaderValue::from_str(signature)
        .map_err(|_| Outcome::retry("the stored signature is not a header value"))?;
    Ok(HeaderMap::from_iter([
        (ACCEPT, HeaderValue::from_static("*/*")),
        (ACCEPT_ENCODING, HeaderValue::from_static("deflate, gzip")),
        (CONTENT_TYPE, HeaderValue::from_static("application/json")),
        (USER_AGENT, HeaderValue::from_static("facebookexternalua")),
        (SIGNATURE, signature),
    ]))
}

/// What an answer means. Only what speaks of the update is final; what speaks of the address passes.
pub(super) fn outcome(answer: &EgressAnswer) -> Outcome {
    match answer.status.as_u16() {
        200..=299 if answer.broke_off => Outcome::broke_off(answer),
        200..=299 => Outcome::Done,
        400 | 413 | 415 | 422 => Outcome::Final {
            reason: format!("answered {}", answer.status.as_u16()),
        },
        _ => Outcome::trouble(answer),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fixture::{APP_SECRET, Fixture, PAYLOAD, head};
    use super::*;
    use ackline_shared::envelope::Replay;
    use ackline_shared::ids::{AppId, EntityId, PhoneNumberId, TenantId, UpdateId};
    use ackline_shared::secret::Secret;
    use ackline_shared::subjects::{Class, Pool};
    use serde_json::json;

    fn ids(fixture: &Fixture, head: &Head, payload: &[u8]) -> Vec<String> {
        let found = receivers(&fixture.snapshot, head, payload);
        let found: Vec<_> = found.iter().map(|relay| relay.id.to_string()).collect();
        let selected = |id: &&String| selects(&fixture.snapshot, head, payload, id);
        assert!(
            found.iter().all(|id| selected(&id)),
            "whoever is looked at by name is found, too"
        );
        found
    }

    /// The signature that each relay gets an update with.
    fn signatures(fixture: &Fixture, head: &Head) -> Vec<Result<String, Outcome>> {
        let relays = receivers(&fixture.snapshot, head, PAYLOAD).into_iter();
        relays
            .map(|relay| signature(&fixture.snapshot, &fixture.master, head, &relay, PAYLOAD))
            .collect()
    }

    #[test]
    fn a_relay_gets_what_its_numbers_and_fields_select() {
        let mut fixture = Fixture::new();
        for (id, extra) in [
            ("all", json!({})),
            ("off", json!({"enabled": false})),
            ("number", json!({"phone_numbers": ["15550001"]})),
            ("other-number", json!({"phone_numbers": ["15550002"]})),
            ("messages", json!({"fields": ["messages"]})),
            ("templates", json!({"fields": ["template_status_update"]})),
            (
                "both",
                json!({"fields": ["messages", "x"], "phone_numbers": ["15550001"]}),
            ),
        ] {
            fixture.relay(id, "https://bot.example/", extra);
        }
        assert_eq!(
            ids(&fixture, &head(Class::Message), PAYLOAD),
            ["all", "both", "messages", "number"]
        );

        let account = Head {
            phone: None,
            kind: "account.template_status_update".into(),
            ..head(Class::Account)
        };
        let change = json!({"field": "template_status_update", "value": {"event": "APPROVED"}});
        let payload = json!({"entry": [{"id": "WABA", "changes": [change]}]}).to_string();
        assert_eq!(
            ids(&fixture, &account, payload.as_bytes()),
            ["all", "number", "templates"]
        );
    }

    #[test]
    fn what_is_on_standby_passes_unchanged_to_whoever_takes_it_or_everything() {
        let mut fixture = Fixture::new();
        fixture.relay("all", "https://bot.example/", json!({}));
        fixture.relay(
            "messages",
            "https://bot.example/",
            json!({"fields": ["messages"]}),
        );
        fixture.relay(
            "standby",
            "https://bot.example/",
            json!({"fields": ["standby", "messaging_handovers"]}),
        );
        for field in ["standby", "messaging_handovers"] {
            let head = Head {
                field: Some(field.to_owned()),
                ..head(Class::Message)
            };
            let payload =
                json!({"entry": [{"id": "WABA", "changes": [{"field": field, "value": {}}]}]});
            assert_eq!(
                ids(&fixture, &head, payload.to_string().as_bytes()),
                ["all", "standby"],
                "{field}"
            );
        }
    }

    #[test]
    fn nothing_goes_out_that_nobody_owns_or_could_read() {
        let mut fixture = Fixture::new();
        fixture.relay("all", "https://bot.example/", json!({}));
        let unrouted = Head {
            tenant: TenantId::unrouted(),
            ..head(Class::Account)
        };
        let unreadable = Head {
            kind: "unreadable".into(),
            ..head(Class::Account)
        };
        let foreign = Head {
            tenant: TenantId::new("acme-2").unwrap(),
            ..head(Class::Message)
        };
        for head in [unrouted, unreadable, foreign] {
            assert!(ids(&fixture, &head, PAYLOAD).is_empty(), "{head:?}");
        }
    }

    #[test]
    fn a_payload_without_a_field_goes_only_to_relays_that_take_all() {
        let mut fixture = Fixture::new();
        fixture.relay("all", "https://bot.example/", json!({}));
        fixture.relay(
            "messages",
            "https://bot.example/",
            json!({"fields": ["messages"]}),
        );
        let head = Head {
            phone: PhoneNumberId::new("15550001").ok(),
            ..head(Class::Message)
        };
        assert_eq!(
            ids(
                &fixture,
                &head,
                br#"{"object":"page","entry":[{"messaging":[{}]}]}"#
            ),
            ["all"]
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_what_a_relay_does_not_want() {
        let mut fixture = Fixture::new();
        fixture.relay("all", "https://bot.example/", json!({}));
        fixture.relay(
            "messages",
            "https://bot.example/",
            json!({"fields": ["messages"]}),
        );
        let head = Head {
            phone: PhoneNumberId::new("15550001").ok(),
            ..head(Class::Message)
        };
        // Of JSON, and of what no reader of ours keeps.
        let payload =
            br#"{"entry":[{"changes":[{"field":"messages","value":{"messages":[{"x":1e400}]}}]}]}"#;
        let relays: Vec<_> = fixture.snapshot.relays.values().collect();
        for relay in relays {
            let undecided = undecided(&head, relay, payload);
            assert!(selects(
                &fixture.snapshot,
                &head,
                payload,
                relay.id.as_str()
            ));
            assert_eq!(
                undecided.is_some(),
                relay.id.as_str() == "messages",
                "{undecided:?}"
            );
        }
    }

    #[test]
    fn the_original_signature_is_kept_unless_the_bot_has_its_own_secret() {
        let mut fixture = Fixture::new();
        fixture.relay("a", "https://bot.example/", json!({}));
        let own = fixture.seal("bot secret");
        fixture.relay("b", "https://bot.example/", json!({"app_secret": own}));
        let signatures = |head: &Head| -> Vec<_> {
            signatures(&fixture, head)
                .into_iter()
                .map(Result::unwrap)
                .collect()
        };
        let signed_with =
            |secret: &str| SigningKey::new(&Secret::new(secret.to_owned())).sign(PAYLOAD);
        let original = Head {
            signature: Some("sha256=original".into()),
            ..head(Class::Message)
        };
        assert_eq!(
            signatures(&original),
            ["sha256=original".to_owned(), signed_with("bot secret")]
        );
        let split = Head {
            signature: None,
            ..head(Class::Message)
        };
        assert_eq!(
            signatures(&split),
            [signed_with(APP_SECRET), signed_with("bot secret")]
        );
    }

    #[test]
    fn an_update_that_cannot_be_signed_says_why() {
        let mut fixture = Fixture::new();
        fixture.relay("a", "https://bot.example/", json!({}));
        let head = Head {
            signature: None,
            app: None,
            ..head(Class::Message)
        };
        let signatures = signatures(&fixture, &head);
        let Err(Outcome::Retry { reason }) = &signatures[0] else {
            panic!("{signatures:?}")
        };
        assert!(reason.contains("not configured"));
    }

    /// The replay of a letter whose contents somebody edited.
    fn edited_replay() -> Replay {
        Replay {
            pool: Pool::Relay,
            of: "DEAD:1".into(),
            id: UpdateId::new("wamid.A="),
            target: None,
            done: Vec::new(),
            verbatim: false,
        }
    }

    /// Who signs an edited update for a relay, in an installation whose app has this owner.
    fn edited(
        owner: Option<&str>,
        app: Option<&str>,
        relay: serde_json::Value,
    ) -> (Vec<Result<String, Outcome>>, Option<String>) {
        let mut fixture = Fixture::new();
        let relay = match relay {
            serde_json::Value::String(secret) => json!({"app_secret": fixture.seal(&secret)}),
            other => other,
        };
        fixture.relay("a", "https://bot.example/", relay);
        let mut declared = (*fixture.snapshot.apps[&AppId::new("main").unwrap()]).clone();
        declared.tenant = owner.map(|id| TenantId::new(id).unwrap());
        let declared = serde_json::to_vec(&declared).unwrap();
        fixture.snapshot.fold("app.main", Some(&declared)).unwrap();
        let replay = edited_replay();
        let head = Head {
            app: app.map(|id| AppId::new(id).unwrap()),
            // Not there in earnest; it would not be used if it were.
            signature: Some("sha256=original".into()),
            replay: Some(Box::new(replay)),
            ..head(Class::Message)
        };
        (
            signatures(&fixture, &head),
            unsignable(&fixture.snapshot, &head, PAYLOAD),
        )
    }

    #[test]
    fn edited_contents_are_signed_with_the_relays_secret_or_an_app_of_the_tenant_alone() {
        let signed_with =
            |secret: &str| SigningKey::new(&Secret::new(secret.to_owned())).sign(PAYLOAD);
        for (owner, app, relay, signature) in [
            (Some("acme"), Some("main"), json!({}), APP_SECRET),
            (None, Some("main"), json!("bot secret"), "bot secret"),
            (None, None, json!("bot secret"), "bot secret"),
        ] {
            let (signatures, refusal) = edited(owner, app, relay);
            assert_eq!(
                (&signatures[0], refusal),
                (&Ok(signed_with(signature)), None)
            );
        }
        for (owner, app) in [
            (None, Some("main")),
            (Some("globex"), Some("main")),
            (Some("acme"), Some("unknown")),
            (Some("acme"), None),
        ] {
            let (signatures, refusal) = edited(owner, app, json!({}));
            let reason = refusal.unwrap();
            assert!(
                reason.contains("give the relay an app_secret of its own"),
                "{reason}"
            );
            assert_eq!(
                signatures[0],
                Err(Outcome::Final { reason }),
                "{owner:?} {app:?}"
            );
        }
    }

    #[test]
    fn a_relay_that_may_get_edited_contents_lets_them_through_unless_it_has_them() {
        let mut fixture = Fixture::new();
        fixture.relay("shared", "https://bot.example/", json!({}));
        let own = fixture.seal("bot secret");
        fixture.relay("own", "https://bot.example/", json!({"app_secret": own}));
        let mut replay = edited_replay();
        let mut refused = |change: &dyn Fn(&mut Replay)| {
            change(&mut replay);
            let head = Head {
                app: None,
                replay: Some(Box::new(replay.clone())),
                ..head(Class::Message)
            };
            unsignable(&fixture.snapshot, &head, PAYLOAD).is_some()
        };
        assert!(!refused(&|_| {}));
        assert!(
            refused(&|replay| replay.done = vec!["own".into()]),
            "one is left, and it has no secret"
        );
        assert!(
            !refused(&|replay| replay.done = vec!["own".into(), "shared".into()]),
            "none is left"
        );
        assert!(refused(&|replay| {
            (replay.done, replay.target) = (Vec::new(), EntityId::new("shared").ok());
        }));
    }

    #[test]
    fn only_what_speaks_of_the_update_is_final() {
        for code in [200, 201, 202, 204, 299] {
            assert_eq!(outcome(&answer(code)), Outcome::Done, "{code}");
        }
        for code in [400, 413, 415, 422] {
            assert_eq!(
                outcome(&answer(code)),
                Outcome::Final {
                    reason: format!("answered {code}")
                }
            );
        }
        for code in [
            301, 307, 401, 403, 404, 405, 408, 409, 410, 425, 429, 451, 500, 502, 503, 504, 599,
        ] {
            let Outcome::Trouble(trouble) = outcome(&answer(code)) else {
                panic!("{code}")
            };
            assert_eq!(
                (trouble.reason, trouble.after),
                (format!("answered {code}"), None)
            );
        }
        let half = EgressAnswer {
            broke_off: true,
            ..answer(200)
        };
        assert!(matches!(outcome(&half), Outcome::Trouble(trouble) if trouble.is_broken()));
    }

    fn answer(code: u16) -> EgressAnswer {
        let status = reqwest::StatusCode::from_u16(code).unwrap();
        let (headers, body) = (HeaderMap::new(), bytes::Bytes::new());
        EgressAnswer {
            status,
            headers,
            body,
            whole: true,
            broke_off: false,
        }
    }
}
