//! Updates, records and a tenant with endpoints, for the tests of this pool.

use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{AppId, ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::registry::Snapshot;
use ackline_shared::secret::Secret;
use ackline_shared::subjects::{Class, Partition};
use ackline_shared::vault::VaultKey;
use serde_json::{Value, json};

pub(crate) fn head(class: Class) -> Head {
    Head {
        id: UpdateId::new("wamid.A="),
        tenant: TenantId::new("acme").unwrap(),
        partition: Partition(0),
        family: Family::Update(class),
        kind: "message.image".into(),
        app: AppId::new("main").ok(),
        phone: PhoneNumberId::new("15550001").ok(),
        conversation: ConversationKey::user("US.1"),
        received_ms: 1_763_784_000_500,
        signature: None,
        traceparent: None,
        field: None,
        replay: None,
    }
}

pub(crate) fn record_head(kind: &str) -> Head {
    Head {
        family: Family::Record,
        kind: kind.to_owned(),
        ..head(Class::Message)
    }
}

pub(crate) fn message() -> Value {
    envelope(json!({
        "contacts": [{"profile": {"name": "Ana"}, "user_id": "US.1"}],
        "messages": [{
            "id": "wamid.A=", "from_user_id": "US.1", "timestamp": "1763784000", "type": "image",
            "image": {"id": "9001", "mime_type": "image/jpeg", "caption": "look"}, "context": {"id": "wamid.0"},
        }],
    }))
}

pub(crate) fn status(word: &str, extra: Value) -> Value {
    let mut status = json!({
        "id": "wamid.B=", "status": word, "timestamp": "1763784000", "recipient_id": "4915550009",
        "recipient_user_id": "US.1", "biz_opaque_callback_data": "msg_1",
    });
    status
        .as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    envelope(json!({"statuses": [status]}))
}

fn envelope(mut value: Value) -> Value {
    value["metadata"] = json!({"phone_number_id": "15550001"});
    json!({"object": "whatsapp_business_account", "entry": [{"id": "W", "changes": [{"value": value, "field": "messages"}]}]})
}

pub(crate) struct Fixture {
    pub snapshot: Snapshot,
    pub master: VaultKey,
    data: VaultKey,
}

impl Fixture {
    pub fn new() -> Self {
        let (master, data) = (VaultKey::generate(), VaultKey::generate());
        let mut snapshot = Snapshot::default();
        let data_key = json!(data.seal_under(&master, "acme")).to_string();
        snapshot
            .fold("datakey.acme", Some(data_key.as_bytes()))
            .unwrap();
        Self {
            snapshot,
            master,
            data,
        }
    }

    pub fn endpoint(&mut self, id: &str, url: &str, secrets: &[&Secret<String>], events: &[&str]) {
        let secrets: Vec<_> = secrets
            .iter()
            .map(|secret| json!(self.data.seal("acme", secret)))
            .collect();
        let endpoint =
            json!({"id": id, "tenant": "acme", "url": url, "secrets": secrets, "events": events});
        let key = format!("endpoint.acme.{id}");
        self.snapshot
            .fold(&key, Some(endpoint.to_string().as_bytes()))
            .unwrap();
    }
}
