//! A tenant with an app and relays, for the tests of this pool.

use ackline_engine::state::Target;
use ackline_runtime::dedupe::ConversationRecord;
use ackline_runtime::job::{Answered, Marks, Work};
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{AppId, ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::registry::Snapshot;
use ackline_shared::secret::Secret;
use ackline_shared::subjects::{Class, Partition};
use ackline_shared::vault::VaultKey;
use bytes::Bytes;
use serde_json::{Value, json};
use std::sync::Arc;

pub(crate) const APP_SECRET: &str = "app secret";

/// A message as Meta escapes it; writing it again would change its bytes.
pub(crate) const PAYLOAD: &[u8] = br#"{"object":"whatsapp_business_account","entry":[{"id":"WABA","changes":[{"value":{"messaging_product":"whatsapp","metadata":{"phone_number_id":"15550001"},"contacts":[{"user_id":"US.1"}],"messages":[{"from_user_id":"US.1","id":"wamid.A=","timestamp":"1763784000","type":"text","text":{"body":"caf\u00e9 \ud83d\ude00 https:\/\/x"}}]},"field":"messages"}]}]}"#;

pub(crate) struct Fixture {
    pub snapshot: Snapshot,
    pub master: VaultKey,
    data: VaultKey,
}

impl Fixture {
    pub fn new() -> Self {
        let (master, data) = (VaultKey::generate(), VaultKey::generate());
        let mut fixture = Self {
            snapshot: Snapshot::default(),
            master,
            data,
        };
        let data_key = json!(fixture.data.seal_under(&fixture.master, "acme"));
        fixture.fold("datakey.acme", &data_key);
        let (secret, token) = (fixture.seal(APP_SECRET), fixture.seal("token"));
        let app =
            json!({"id": "main", "tenant": "acme", "secrets": [secret], "verify_token": token});
        fixture.fold("app.main", &app);
        let number = json!({"id": "15550001", "tenant": "acme", "app": "main", "waba_id": "WABA", "access_token": token});
        fixture.fold("phone.15550001", &number);
        fixture
    }

    pub fn seal(&self, text: &str) -> Value {
        json!(self.data.seal("acme", &Secret::new(text.to_owned())))
    }

    pub fn relay(&mut self, id: &str, url: &str, extra: Value) {
        let mut relay = json!({"id": id, "tenant": "acme", "url": url});
        relay
            .as_object_mut()
            .unwrap()
            .extend(extra.as_object().unwrap().clone());
        self.fold(&format!("relay.acme.{id}"), &relay);
    }

    fn fold(&mut self, key: &str, value: &Value) {
        self.snapshot
            .fold(key, Some(value.to_string().as_bytes()))
            .unwrap();
    }
}

pub(crate) fn head(class: Class) -> Head {
    Head {
        id: UpdateId::new("wamid.A="),
        tenant: TenantId::new("acme").unwrap(),
        partition: Partition(0),
        family: Family::Update(class),
        kind: "message.text".into(),
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

/// A message for the relay `bot`.
pub(crate) fn work() -> Work {
    work_for("bot")
}

/// A message for a relay.
pub(crate) fn work_for(relay: &str) -> Work {
    Work {
        head: Arc::new(head(Class::Message)),
        payload: Bytes::from_static(PAYLOAD),
        sequence: 1,
        attempt: 1,
        last_attempt: false,
        target: Arc::new(Target {
            name: relay.to_owned(),
            ..Target::default()
        }),
        answered: Answered::default(),
        overdue: false,
        marks: Marks::default(),
        record: ConversationRecord::default(),
    }
}
