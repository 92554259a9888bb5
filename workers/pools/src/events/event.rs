//! The events that customers get, and what they are made from. The fields here are the public contract: they
//! may grow within an `api_version` and never change their meaning.

use super::source::EventSource;
use ackline_message::{FlowFact, Recipient, Record, command};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::short_hash;
use ackline_shared::meta::{self, Body, Incoming, Message, Status};
use ackline_shared::stored;
use serde::Serialize;
use serde_json::Value;

/// The version of the shapes below.
pub const API_VERSION: &str = "2026-11-01";

/// Variables of a flow beyond this size are left out; customers' servers bound what they accept.
const VARIABLES_BYTES_MAX: usize = 32 * 1024;

/// One event; written as compact JSON it is the body of the request.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    /// `evt_…`: the same for every attempt and every endpoint, and sent as `webhook-id`.
    pub id: String,
    /// Its name, such as `message.received`.
    #[serde(rename = "type")]
    pub name: &'static str,
    /// When it happened, RFC 3339 in UTC.
    pub timestamp: String,
    /// The version of the shapes.
    pub api_version: &'static str,
    pub tenant: String,
    pub data: Data,
}

/// What happened, by the event's family.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Data {
    /// `message.received`, `message.standby` in a conversation that another responder has, and `message.echo`
    Received(Box<Received>),
    Progress(Box<Progress>),
    Flow(Box<FlowRun>),
    Handover(Box<Handover>),
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Received {
    /// The message's id, by which our API knows it, too.
    pub message_id: String,
    pub wamid: String,
    #[serde(flatten)]
    pub place: EventSource,
    /// Who wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<Person>,
    /// Whom it went to, if it was sent from the Business app.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to: Option<Person>,
    /// The group it was written in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group_id: Option<String>,
    #[serde(flatten)]
    pub content: Incoming,
    /// Meta's id of the message it answers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_id: Option<String>,
    /// When Meta got it, RFC 3339 in UTC.
    pub timestamp: String,
}

/// A person; at least one of the ids is there, people with usernames may have no phone.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Person {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phone: Option<String>,
    /// The name in the profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A message of ours moved on.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    /// The message's id in our API; Meta's when it was sent by another program.
    pub message_id: String,
    /// Meta's id of it; absent when Meta never accepted it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wamid: Option<String>,
    #[serde(flatten)]
    pub place: EventSource,
    pub recipient: Person,
    /// `sent`, `delivered`, `read` or `failed`.
    pub status: &'static str,
    /// When, RFC 3339 in UTC.
    pub timestamp: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Failure>,
    /// True when it counts as failed because Meta's answer was lost, so that it may have arrived all the same.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub ambiguous: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Failure {
    /// Meta's code, when Meta answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<i64>,
    pub message: String,
}

/// A conversation entered or left a flow.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FlowRun {
    pub flow: String,
    /// The bot that chose it.
    pub bot: String,
    pub run: String,
    #[serde(flatten)]
    pub place: EventSource,
    /// How it ended: `completed`, `failed` or `restarted`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The variables it ended with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variables: Option<Value>,
    /// True when the variables were too large to send along.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub variables_omitted: bool,
}

/// Meta passed a conversation to us, or took it from us.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Handover {
    #[serde(flatten)]
    pub place: EventSource,
    pub person: Person,
    /// The role at Meta that had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub previous_owner_role: Option<String>,
    /// The role at Meta that has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new_owner_role: Option<String>,
}

/// Why a message of the stream makes no event although it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("the update cannot be read: {0}")]
    Update(#[from] meta::ReadError),
    /// Not what the edge took it for.
    #[error("the edge took it for a {0}, and that is not in it")]
    Other(String),
    #[error("the record cannot be read: {0}")]
    Record(String),
}

/// Makes the events that an update or a record is to customers, in order; none of what they are not told of.
pub fn of(head: &Head, payload: &[u8]) -> Result<Vec<Event>, EventError> {
    let made = match head.family {
        Family::Update(_) => Vec::from_iter(of_update(head, meta::read(payload)?)?),
        Family::Record => {
            let record =
                stored::decode(payload).map_err(|error| EventError::Record(error.to_string()))?;
            of_record(head, record)
        }
        Family::Command(_) => Vec::new(),
    };
    let event = |Made {
                     of,
                     name,
                     timestamp,
                     data,
                 }| {
        let of = of.as_deref().unwrap_or_else(|| head.original_id().as_str());
        Event {
            id: format!(
                "evt_{}",
                short_hash(format!("{}/{of}/{name}", head.tenant).as_bytes())
            ),
            name,
            timestamp,
            api_version: API_VERSION,
            tenant: head.tenant.to_string(),
            data,
        }
    };
    Ok(made.into_iter().map(event).collect())
}

struct Made {
    /// What it is told of; the update or record itself where that tells nothing else.
    of: Option<String>,
    name: &'static str,
    timestamp: String,
    data: Data,
}

fn of_update(head: &Head, update: meta::Update) -> Result<Option<Made>, EventError> {
    let (handover, is_standby) = (update.handover(), update.is_standby());
    let phone_number_id = update.phone_number_id;
    if let Some(reported) = handover {
        return Ok(Some(handed_over(head, phone_number_id, reported)));
    }
    Ok(match update.body {
        // A name of its own: whoever answers `message.received` must not answer this.
        Body::Message(message) if is_standby => Some(Made {
            name: "message.standby",
            ..received(head, phone_number_id, *message)
        }),
        // A message of another responder's, and not of ours.
        Body::Status(_) | Body::Echo(_) if is_standby => None,
        Body::Echo(echo) => Some(held(head, phone_number_id, *echo, true)),
        Body::Message(message) => Some(received(head, phone_number_id, *message)),
        Body::Status(status) => progress(head, phone_number_id, *status),
        Body::Other(_)
            if ["message.", "status."]
                .iter()
                .any(|family| head.kind.starts_with(family)) =>
        {
            return Err(EventError::Other(head.kind.clone()));
        }
        Body::Other(_) => None,
    })
}

fn received(head: &Head, phone_number_id: Option<String>, message: Message) -> Made {
    held(head, phone_number_id, message, false)
}

/// A message that a person wrote, or one that went to them from the Business app.
fn held(head: &Head, phone_number_id: Option<String>, message: Message, is_echo: bool) -> Made {
    let who = person(message.from, message.name);
    let timestamp = happened(head, message.timestamp);
    let is_named = !message.id.is_empty();
    let data = Received {
        message_id: if is_named {
            message.id.clone()
        } else {
            head.original_id().as_str().to_owned()
        },
        wamid: message.id,
        place: EventSource::of(head, phone_number_id),
        group_id: message.group_id,
        from: (!is_echo).then(|| who.clone()),
        to: is_echo.then_some(who),
        context_id: message.content.context_id().map(str::to_owned),
        content: message.content,
        timestamp: timestamp.clone(),
    };
    Made {
        of: None,
        name: if is_echo {
            "message.echo"
        } else {
            "message.received"
        },
        timestamp,
        data: Data::Received(Box::new(data)),
    }
}

fn handed_over(head: &Head, phone_number_id: Option<String>, reported: meta::Handover) -> Made {
    let data = Handover {
        place: EventSource::of(head, phone_number_id),
        person: person(reported.person, None),
        previous_owner_role: reported.previous_role,
        new_owner_role: reported.new_role,
    };
    Made {
        of: None,
        name: if reported.is_gained {
            "conversation.gained"
        } else {
            "conversation.lost"
        },
        timestamp: happened(head, reported.timestamp),
        data: Data::Handover(Box::new(data)),
    }
}

fn progress(head: &Head, phone_number_id: Option<String>, status: Status) -> Option<Made> {
    let (name, word) = match status.status.as_str() {
        "sent" => ("message.sent", "sent"),
        "delivered" => ("message.delivered", "delivered"),
        "read" => ("message.read", "read"),
        "failed" => ("message.failed", "failed"),
        _ => return None,
    };
    let timestamp = happened(head, status.timestamp);
    let errors = status.errors.into_iter();
    // Other programs send along what they like, such as the name of a campaign.
    let own_id = status
        .callback_data
        .filter(|id| command::is_id(id) || status.id.is_empty());
    let data = Progress {
        message_id: own_id.unwrap_or_else(|| status.id.clone()),
        wamid: Some(status.id),
        place: EventSource::of(head, phone_number_id),
        recipient: person(status.recipient, None),
        status: word,
        timestamp: timestamp.clone(),
        errors: errors
            .map(|error| Failure {
                code: Some(error.code),
                message: error.text,
            })
            .collect(),
        ambiguous: false,
    };
    Some(Made {
        of: None,
        name,
        timestamp,
        data: Data::Progress(Box::new(data)),
    })
}

fn of_record(head: &Head, record: Record) -> Vec<Made> {
    let timestamp = happened(head, None);
    let (name, data) = match record {
        Record::ReplyFailed {
            command,
            code,
            reason,
            ambiguous,
        } => {
            let data = Progress {
                message_id: command.id,
                wamid: None,
                place: EventSource::of(head, Some(command.phone_number_id.to_string())),
                recipient: person(command.to, None),
                status: "failed",
                timestamp: timestamp.clone(),
                errors: vec![Failure {
                    code,
                    message: reason,
                }],
                ambiguous,
            };
            ("message.failed", Data::Progress(Box::new(data)))
        }
        Record::FlowStep { facts } => {
            let facts = facts.into_iter();
            return facts.filter_map(|fact| of_fact(head, fact)).collect();
        }
        Record::FlowStarted { flow, bot, run } => {
            let run = entered(head, flow, bot, run);
            ("flow.started", Data::Flow(Box::new(run)))
        }
        Record::FlowCompleted {
            flow,
            bot,
            run,
            outcome,
            variables,
        } => {
            let run = left(entered(head, flow, bot, run), outcome, variables);
            ("flow.completed", Data::Flow(Box::new(run)))
        }
        Record::ReplyQueued { .. } | Record::ReplySent { .. } | Record::FlowResult { .. } => {
            return Vec::new();
        }
    };
    vec![Made {
        of: None,
        name,
        timestamp,
        data,
    }]
}

fn of_fact(head: &Head, fact: FlowFact) -> Option<Made> {
    let (id, name, run) = match fact {
        FlowFact::Queued { .. } => return None,
        FlowFact::Started { id, flow, bot, run } => {
            (id, "flow.started", entered(head, flow, bot, run))
        }
        FlowFact::Completed {
            id,
            flow,
            bot,
            run,
            outcome,
            variables,
        } => {
            let run = left(entered(head, flow, bot, run), outcome, variables);
            (id, "flow.completed", run)
        }
    };
    Some(Made {
        of: Some(id),
        name,
        timestamp: happened(head, None),
        data: Data::Flow(Box::new(run)),
    })
}

fn entered(head: &Head, flow: String, bot: String, run: String) -> FlowRun {
    FlowRun {
        flow,
        bot,
        run,
        place: EventSource::of(head, None),
        outcome: None,
        variables: None,
        variables_omitted: false,
    }
}

fn left(entered: FlowRun, outcome: String, variables: Value) -> FlowRun {
    let omitted = variables.to_string().len() > VARIABLES_BYTES_MAX;
    FlowRun {
        outcome: Some(outcome),
        variables: (!omitted).then_some(variables),
        variables_omitted: omitted,
        ..entered
    }
}

fn person(who: Recipient, name: Option<String>) -> Person {
    Person {
        user_id: who.user_id,
        phone: who.phone,
        name,
    }
}

/// When it happened by Meta's clock, else when we got it by ours.
fn happened(head: &Head, seconds: Option<u64>) -> String {
    let ms = i64::try_from(meta::happened_ms(seconds, head.received_ms)).ok();
    let time = ms.and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    time.unwrap_or(jiff::Timestamp::UNIX_EPOCH).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::tests::fixture::{head, message, record_head, status};
    use ackline_shared::ids::{self, ConversationKey};
    use ackline_shared::subjects::Class;
    use serde_json::json;

    fn written(head: &Head, payload: &Value) -> Option<Value> {
        let events = of(head, payload.to_string().as_bytes()).unwrap();
        assert!(events.len() < 2);
        let event = events.into_iter().next();
        event.map(|event| serde_json::to_value(event).unwrap())
    }

    fn conversation_id() -> String {
        ids::conversation_id("acme", "15550001", &ConversationKey::user("US.1"))
    }

    #[test]
    fn what_names_no_conversation_or_number_has_no_id_of_a_conversation() {
        let nobodys = Head {
            conversation: ConversationKey::none(),
            ..head(Class::Message)
        };
        let mut nowhere = message();
        nowhere["entry"][0]["changes"][0]["value"]["metadata"] = Value::Null;
        let numberless = Head {
            phone: None,
            ..head(Class::Message)
        };
        for event in [
            written(&nobodys, &message()),
            written(&numberless, &nowhere),
        ] {
            assert_eq!(event.unwrap()["data"].get("conversation_id"), None);
        }
    }

    #[test]
    fn a_message_is_an_event_with_everything_a_customer_answers_by() {
        let event = written(&head(Class::Message), &message()).unwrap();
        let id = event["id"].as_str().unwrap().to_owned();
        assert!(
            id.len() == 36 && id.starts_with("evt_") && !id.contains('.'),
            "{id}"
        );
        let expected = json!({
            "id": id,
            "type": "message.received",
            "timestamp": "2025-11-22T04:00:00Z",
            "api_version": "2026-11-01",
            "tenant": "acme",
            "data": {
                "message_id": "wamid.A=",
                "wamid": "wamid.A=",
                "conversation": "u:US.1",
                "conversation_id": conversation_id(),
                "phone_number_id": "15550001",
                "from": {"user_id": "US.1", "name": "Ana"},
                "type": "image",
                "text": "look",
                "context_id": "wamid.0",
                "context": {"id": "wamid.0"},
                "media": {"id": "9001", "mime_type": "image/jpeg"},
                "timestamp": "2025-11-22T04:00:00Z",
            },
        });
        assert_eq!(event, expected);
    }

    #[test]
    fn what_is_not_text_is_told_with_its_fields() {
        let told = |content: Value| {
            let mut payload = message();
            let place = &mut payload["entry"][0]["changes"][0]["value"]["messages"][0];
            *place = json!({"id": "wamid.A=", "from_user_id": "US.1", "timestamp": "1763784000"});
            let fields = place.as_object_mut().unwrap();
            fields.extend(content.as_object().unwrap().clone());
            written(&head(Class::Message), &payload).unwrap()["data"].clone()
        };
        let form = told(
            json!({"type": "interactive", "interactive": {"type": "nfm_reply",
            "nfm_reply": {"name": "flow", "body": "Sent", "response_json": "{\"rating\":\"excellent\"}"}}}),
        );
        assert_eq!(
            form["details"],
            json!({"type": "form", "name": "flow", "body": "Sent", "fields": {"rating": "excellent"}})
        );
        assert_eq!(form["type"], "interactive");
        let from_ad = told(
            json!({"type": "text", "text": {"body": "hi"}, "referral": {"source_id": "12", "ctwa_clid": "Ab"},
            "context": {"referred_product": {"catalog_id": "C", "product_retailer_id": "S"}}}),
        );
        assert_eq!(
            (
                &from_ad["referral"],
                &from_ad["context"],
                from_ad.get("details")
            ),
            (
                &json!({"source_id": "12", "ctwa_clid": "Ab"}),
                &json!({"referred_product": {"catalog_id": "C", "product_retailer_id": "S"}}),
                None
            )
        );
        let gone = told(json!({"type": "reaction", "reaction": {"message_id": "wamid.0"}}));
        assert_eq!(
            gone["details"],
            json!({"type": "reaction", "message_id": "wamid.0", "removed": true})
        );
        let revoked = told(json!({"type": "revoke", "revoke": {"original_message_id": "wamid.0"}}));
        assert_eq!(revoked["details"]["message_id"], "wamid.0");
        let in_group = told(json!({"type": "text", "text": {"body": "hi"}, "group_id": "G"}));
        assert_eq!(in_group["group_id"], "G");
    }

    #[test]
    fn what_was_answered_from_the_business_app_has_a_name_of_its_own() {
        let echo = json!({"from": "15550001", "to": "4915550009", "id": "wamid.E", "timestamp": "1763784000",
            "type": "text", "text": {"body": "from the phone"}});
        let mut payload = message();
        let change = &mut payload["entry"][0]["changes"][0];
        change["field"] = json!("smb_message_echoes");
        change["value"] =
            json!({"metadata": {"phone_number_id": "15550001"}, "message_echoes": [echo]});
        let of_echo = Head {
            kind: "echo.text".into(),
            field: Some("smb_message_echoes".into()),
            ..head(Class::Message)
        };
        let event = written(&of_echo, &payload).unwrap();
        assert_eq!(event["type"], "message.echo");
        let data = json!({"message_id": "wamid.E", "wamid": "wamid.E", "conversation": "u:US.1",
            "conversation_id": conversation_id(), "phone_number_id": "15550001", "to": {"phone": "4915550009"},
            "type": "text", "text": "from the phone", "timestamp": "2025-11-22T04:00:00Z"});
        assert_eq!(event["data"], data);
        payload["entry"][0]["changes"][0]["field"] = json!("standby");
        assert_eq!(written(&of_echo, &payload), None);
    }

    #[test]
    fn a_status_is_an_event_under_our_own_id_of_the_message() {
        for word in ["sent", "delivered", "read"] {
            let event = written(&head(Class::Status), &status(word, json!({}))).unwrap();
            assert_eq!(event["type"], json!(format!("message.{word}")));
            let expected = json!({
                "message_id": "msg_1",
                "wamid": "wamid.B=",
                "conversation": "u:US.1",
                "conversation_id": conversation_id(),
                "phone_number_id": "15550001",
                "recipient": {"user_id": "US.1", "phone": "4915550009"},
                "status": word,
                "timestamp": "2025-11-22T04:00:00Z",
            });
            assert_eq!(event["data"], expected);
        }
        let errors = json!({"errors": [{"code": 131_047, "title": "Re-engagement message"}]});
        let failed = written(&head(Class::Status), &status("failed", errors)).unwrap();
        assert_eq!(
            failed["data"]["errors"],
            json!([{"code": 131_047, "message": "Re-engagement message"}])
        );
        let foreign = json!({"biz_opaque_callback_data": null});
        let foreign = written(&head(Class::Status), &status("read", foreign)).unwrap();
        assert_eq!(foreign["data"]["message_id"], "wamid.B=");
        let campaign = json!({"biz_opaque_callback_data": "spring sale"});
        let campaign = written(&head(Class::Status), &status("read", campaign)).unwrap();
        assert_eq!(
            campaign["data"]["message_id"], "wamid.B=",
            "what others send along is no id of a message"
        );
    }

    #[test]
    fn what_another_responder_answers_has_a_name_of_its_own() {
        let under = |field: &str, mut payload: Value| {
            payload["entry"][0]["changes"][0]["field"] = json!(field);
            payload
        };
        let event = written(&head(Class::Message), &under("standby", message())).unwrap();
        assert_eq!(
            (&event["type"], &event["data"]["text"]),
            (&json!("message.standby"), &json!("look"))
        );
        assert_eq!(
            written(
                &head(Class::Status),
                &under("standby", status("read", json!({})))
            ),
            None
        );

        let roles = json!({"previous_owner_role": "A", "new_owner_role": "B"});
        for (control, name) in [
            ("control_passed", "conversation.gained"),
            ("control_taken", "conversation.lost"),
        ] {
            let mut payload = under("messaging_handovers", message());
            payload["entry"][0]["changes"][0]["value"] = json!({"sender": {"phone_number": "4915550009"},
                "recipient": {"phone_number_id": "15550001"}, "timestamp": "1763784000", control: roles});
            let event = written(&head(Class::Message), &payload).unwrap();
            let data = json!({"conversation": "u:US.1", "conversation_id": conversation_id(), "phone_number_id": "15550001",
                "person": {"phone": "4915550009"}, "previous_owner_role": "A", "new_owner_role": "B"});
            assert_eq!((&event["type"], &event["data"]), (&json!(name), &data));
            assert_eq!(event["timestamp"], "2025-11-22T04:00:00Z");
        }
    }

    #[test]
    fn what_customers_are_not_told_of_is_no_event() {
        assert_eq!(
            written(&head(Class::Status), &status("played", json!({}))),
            None
        );
        let call = json!({"entry": [{"changes": [{"field": "calls", "value": {"calls": [{}]}}]}]});
        let of_call = Head {
            kind: "call.unknown".into(),
            ..head(Class::Message)
        };
        assert_eq!(written(&of_call, &call), None);
        let taken_for_a_message = of(&head(Class::Message), call.to_string().as_bytes());
        assert_eq!(
            taken_for_a_message,
            Err(EventError::Other("message.image".into()))
        );
        let result = json!({"type": "flow_result", "effect": "e", "outcome": {}});
        assert_eq!(written(&record_head(Record::FLOW_RESULT), &result), None);
    }

    #[test]
    fn a_flow_is_told_of_when_it_starts_and_when_it_ends() {
        let run = json!({"flow": "welcome", "bot": "b", "run": "r1"});
        let mut record = run.clone();
        record["type"] = json!("flow_started");
        let started = written(&record_head(Record::FLOW_STARTED), &record).unwrap();
        assert_eq!(
            (&started["type"], &started["timestamp"]),
            (&json!("flow.started"), &json!("2025-11-22T04:00:00.5Z"))
        );
        let mut expected = run.clone();
        expected["conversation"] = json!("u:US.1");
        expected["conversation_id"] = json!(conversation_id());
        expected["phone_number_id"] = json!("15550001");
        assert_eq!(started["data"], expected);

        record["type"] = json!("flow_completed");
        record["outcome"] = json!("completed");
        record["variables"] = json!({"name": "Ana"});
        let completed = written(&record_head(Record::FLOW_COMPLETED), &record).unwrap();
        expected["outcome"] = json!("completed");
        expected["variables"] = json!({"name": "Ana"});
        assert_eq!(
            (&completed["type"], &completed["data"]),
            (&json!("flow.completed"), &expected)
        );
        assert_ne!(started["id"], completed["id"]);

        record["variables"] = json!({"name": "x".repeat(VARIABLES_BYTES_MAX)});
        let large = written(&record_head(Record::FLOW_COMPLETED), &record).unwrap();
        assert_eq!(large["data"]["variables_omitted"], json!(true));
        assert!(large.to_string().len() < 1000);
    }

    #[test]
    fn a_step_of_flows_is_told_as_if_each_thing_it_did_had_a_record_of_its_own() {
        let run = json!({"flow": "welcome", "bot": "b", "run": "r1"});
        let with = |more: Value| {
            let mut fields = run.clone();
            fields
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            fields
        };
        let ended = json!({"outcome": "completed", "variables": {"name": "Ana"}});
        let alone = |id: &str, record: Value| {
            let head = Head {
                id: ids::UpdateId::new(id),
                ..record_head(Record::FLOW_STARTED)
            };
            written(&head, &record).unwrap()
        };
        let mut completed = with(ended.clone());
        completed["type"] = json!("flow_completed");
        let expected = [
            alone("r1:started", with(json!({"type": "flow_started"}))),
            alone("r1:completed", completed),
        ];
        let mut completed = with(ended);
        completed["fact"] = json!("completed");
        completed["id"] = json!("r1:completed");
        let record = json!({"type": "flow_step", "facts": [
            with(json!({"fact": "started", "id": "r1:started"})),
            completed,
        ]});
        let events = of(
            &record_head(Record::FLOW_COMPLETED),
            record.to_string().as_bytes(),
        );
        assert_eq!(
            serde_json::to_value(events.unwrap()).unwrap(),
            json!(expected)
        );
    }

    #[test]
    fn a_reply_that_was_given_up_is_a_failed_message() {
        let command = json!({
            "id": "msg_1", "tenant": "acme", "phone_number_id": "15550001", "to": {"user_id": "US.1"},
            "content": {"type": "text", "body": "hi"}, "origin": {"by": "api", "key": "k"}, "created_ms": 1,
        });
        let record = json!({
            "type": "reply_failed", "command": command, "code": 131_026, "reason": "undeliverable", "ambiguous": true,
        });
        let event = written(&record_head(Record::REPLY_FAILED), &record).unwrap();
        assert_eq!(event["type"], "message.failed");
        let expected = json!({
            "message_id": "msg_1",
            "conversation": "u:US.1",
            "conversation_id": conversation_id(),
            "phone_number_id": "15550001",
            "recipient": {"user_id": "US.1"},
            "status": "failed",
            "timestamp": "2025-11-22T04:00:00.5Z",
            "errors": [{"code": 131_026, "message": "undeliverable"}],
            "ambiguous": true,
        });
        assert_eq!(event["data"], expected);
    }

    #[test]
    fn an_events_bytes_are_the_same_at_every_attempt() {
        let (head, payload) = (head(Class::Message), message().to_string());
        let bytes = || serde_json::to_vec(&of(&head, payload.as_bytes()).unwrap()).unwrap();
        assert_eq!(bytes(), bytes());
    }

    #[test]
    fn what_cannot_be_read_is_an_error_in_words() {
        let update = of(&head(Class::Message), b"not json").unwrap_err();
        assert!(update.to_string().contains("the update cannot be read"));
        let record = of(
            &record_head(Record::FLOW_STARTED),
            br#"{"type":"flow_started"}"#,
        )
        .unwrap_err();
        assert!(record.to_string().contains("the record cannot be read"));
    }

    #[test]
    fn an_absurd_timestamp_falls_back_to_our_own() {
        let mut payload = message();
        payload["entry"][0]["changes"][0]["value"]["messages"][0]["timestamp"] =
            json!("99999999999999999");
        let event = written(&head(Class::Message), &payload).unwrap();
        assert_eq!(event["timestamp"], "2025-11-22T04:00:00.5Z");
    }
}
