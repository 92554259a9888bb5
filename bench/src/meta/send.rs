//! Accepts a message from the business: checks, injected faults, window, limits, then the status ladder.

use super::compose::StatusSpec;
use super::entry::{Author, Entry, SeenMessage};
use super::errors::GraphError;
use super::graph::{Answer, Done};
use super::mint::Direction;
use super::pacing::Exceeded;
use super::people::Person;
use super::rules::{self, Drop, Rule};
use super::simulator::{SentMessage, Simulator};
use super::validate::{self, Address, Outgoing};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep, sleep_until};

const WINDOW: Duration = Duration::from_secs(24 * 3600);

pub async fn messages(sim: &Arc<Simulator>, phone_number_id: &str, body: &[u8]) -> Done {
    let body: Value = match serde_json::from_slice(body) {
        Ok(body) => body,
        Err(_) => return Done::err(GraphError::new(100, "The request body is not valid JSON")),
    };
    if body.get("status").is_some() {
        return read_receipt(sim, &body);
    }
    let outgoing = match validate::outgoing(&body) {
        Ok(outgoing) => outgoing,
        Err(error) => return Done::err(error),
    };
    let (phone, user) = match &outgoing.address {
        Address::Phone(phone) => (Some(phone.as_str()), None),
        Address::User(user) => (None, Some(user.as_str())),
    };
    let person = sim.people().meet(phone, user, None);
    let conversation = Some(person.user_id.clone());
    let sent = send(sim, phone_number_id, outgoing, person).await;
    Done {
        conversation,
        ..sent
    }
}

async fn send(
    sim: &Arc<Simulator>,
    phone_number_id: &str,
    outgoing: Outgoing,
    person: Person,
) -> Done {
    let recipients = [
        person.user_id.as_str(),
        person.phone.as_deref().unwrap_or_default(),
    ];
    let rule = sim.rules().next(&rules::Send {
        phone_number_id,
        recipients,
    });
    let injected = rule.is_some();
    let rule = rule.unwrap_or_default();
    sleep(rule.delay()).await;
    if let Some(error) = rule.error() {
        return Done {
            injected,
            ..Done::err(error)
        };
    }
    if rule.drop == Some(Drop::Before) {
        return Done {
            injected,
            ..Done::ok(Answer::HangUp)
        };
    }
    match accept(sim, phone_number_id, &outgoing, person, &rule) {
        Ok((id, answer)) => {
            let answer = if rule.drop == Some(Drop::After) {
                Answer::HangUp
            } else {
                Answer::Json(answer)
            };
            Done {
                message_id: Some(id),
                injected,
                ..Done::ok(answer)
            }
        }
        Err(error) => Done {
            injected,
            ..Done::err(error)
        },
    }
}

fn accept(
    sim: &Arc<Simulator>,
    phone_number_id: &str,
    outgoing: &Outgoing,
    person: Person,
    rule: &Rule,
) -> Result<(String, Value), GraphError> {
    check(sim, phone_number_id, outgoing, &person)?;
    let ladder = sim.ladders.clone().try_acquire_owned();
    let permit = ladder.map_err(|_| GraphError::new(2, "Service temporarily unavailable"))?;
    sim.pacing().admit(phone_number_id, &person.user_id, sim.now()).map_err(|exceeded| match exceeded {
        Exceeded::Throughput => {
            GraphError::new(130_429, "Cloud API message throughput has been reached for this number.")
        }
        Exceeded::Pair => GraphError::new(
            131_056,
            "Too many messages sent from this phone number to the same phone number in a short period of time.",
        ),
    })?;
    let id = sim.mint().wamid(person.address(), Direction::Out);
    let answer = acceptance(outgoing, &person, &id);
    sim.journal().record(Entry::Message(SeenMessage {
        conversation: person.user_id.clone(),
        phone_number_id: phone_number_id.to_owned(),
        author: Author::Business,
        message_id: id.clone(),
        kind: outgoing.kind.clone(),
        text: outgoing.text.clone(),
        biz_opaque_callback_data: outgoing.opaque.clone(),
        content: Some(outgoing.content.clone()),
    }));
    let sent = SentMessage {
        person,
        phone_number_id: phone_number_id.to_owned(),
        sent_to_phone: matches!(outgoing.address, Address::Phone(_)),
        opaque: outgoing.opaque.clone(),
        template: outgoing.template.is_some(),
    };
    sim.remember_sent(&id, sent);
    let (sim, message_id, fail_code) = (sim.clone(), id.clone(), rule.fail_code);
    tokio::spawn(async move {
        let mut stop = sim.stop.clone();
        tokio::select! {
            () = climb(&sim, &message_id, fail_code) => {}
            _ = stop.wait_for(|stop| *stop) => {}
        }
        drop(permit);
    });
    Ok((id, answer))
}

fn check(
    sim: &Simulator,
    phone_number_id: &str,
    outgoing: &Outgoing,
    person: &Person,
) -> Result<(), GraphError> {
    if let Some(id) = &outgoing.media_id
        && matches!(
            outgoing.kind.as_str(),
            "image" | "video" | "audio" | "document" | "sticker"
        )
        && sim.media().get(id).is_none()
    {
        return Err(GraphError::new(131_009, "Media ID not found"));
    }
    let templates = sim.options.templates.as_ref();
    if let (Some(name), Some(known)) = (&outgoing.template, templates)
        && !known.contains(name)
    {
        return Err(GraphError::new(
            132_001,
            "template name does not exist in the translation",
        ));
    }
    if sim.options.enforce_window && outgoing.template.is_none() {
        let window = WINDOW.mul_f64(sim.options.pacing.scale);
        let heard = sim.people().last_heard(phone_number_id, &person.user_id);
        if heard.is_none_or(|heard| sim.now().saturating_sub(heard) > window) {
            let details =
                "More than 24 hours have passed since the customer last replied to this number.";
            return Err(GraphError::new(131_047, details));
        }
    }
    Ok(())
}

fn acceptance(outgoing: &Outgoing, person: &Person, id: &str) -> Value {
    let contact = match &outgoing.address {
        Address::Phone(phone) => {
            json!({"input": phone, "wa_id": person.phone, "user_id": person.user_id})
        }
        Address::User(user) => json!({"input": user, "user_id": user}),
    };
    let mut message = json!({ "id": id });
    if let (Some(fields), Some(_)) = (message.as_object_mut(), &outgoing.template) {
        fields.insert("message_status".to_owned(), json!("accepted"));
    }
    json!({"messaging_product": "whatsapp", "contacts": [contact], "messages": [message]})
}

async fn climb(sim: &Simulator, message_id: &str, fail_code: Option<u32>) {
    let accepted = Instant::now();
    let accepted_s = sim.unix_seconds();
    for rung in sim.ladder().rungs(fail_code.is_some()) {
        sleep_until(accepted + rung.at).await;
        let status = StatusSpec {
            message_id: message_id.to_owned(),
            status: rung.kind,
            to: None,
            user_id: None,
            timestamp: Some(accepted_s + rung.happened.as_secs()),
            biz_opaque_callback_data: None,
            code: fail_code,
        };
        if let Err(error) = sim.send_statuses(vec![status]).await {
            tracing::warn!(%error, message_id, "a status webhook was not posted");
            return;
        }
    }
}

fn read_receipt(sim: &Simulator, body: &Value) -> Done {
    match validate::read_receipt(body) {
        Ok(id) => {
            let conversation = sim.people().author_of(&id);
            Done {
                conversation,
                message_id: Some(id),
                ..Done::ok(Answer::Json(json!({"success": true})))
            }
        }
        Err(error) => Done::err(error),
    }
}
