//! Updates that nobody claimed when they came: whose they are by now, and their way there.
//!
//! They lie in UPDATES under a tenant of their own, and in DEAD where the janitor needed their room. Each is stored once
//! more under its tenant with the id it came with, and goes from where it lay only then. Doing that again stores it
//! again at most, under the same id, which the pools' memory meets as it meets a late redelivery of Meta's.

use super::letter::Letter;
use super::letters::{DeadLettersError, PAYLOADS_PULL};
use super::scan::{Scan, Stretch};
use super::settled::{Settled, Standing};
use ackline_runtime::log::Log;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{TenantId, UpdateId};
use ackline_shared::registry::Snapshot;
use ackline_shared::subjects::{self, Class, DEAD, Pool, Subject, UPDATES};
use ackline_shared::{meta, partition};
use async_nats::jetstream::Message;
use async_nats::jetstream::kv::Store;
use bytes::Bytes;
use serde::Serialize;
use std::collections::BTreeMap;

/// An update that nobody claimed.
#[derive(Debug, Clone)]
pub struct Unclaimed {
    pub stream: &'static str,
    pub sequence: u64,
    /// Its head, as it came.
    pub head: Head,
    pub payload: Bytes,
    /// The account it names, where it names no number.
    pub waba: Option<String>,
}

/// Why an update stays where it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stays {
    /// It names neither a number nor an account, or cannot be read.
    Unaddressed,
    /// Nobody declared its number or account.
    Undeclared,
    /// It came by an app that may not speak for the number's tenant.
    ForeignApp,
}

impl Stays {
    /// In words, with what to do.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unaddressed => "names no number or account, or cannot be read",
            Self::Undeclared => {
                "not declared: put it under [[phone_numbers]] and run `ackline apply`"
            }
            Self::ForeignApp => "came by an app of another tenant",
        }
    }
}

impl Unclaimed {
    /// Reads a message of UPDATES or of DEAD; `None` for anything else.
    pub fn read(stream: &'static str, sequence: u64, message: &Message) -> Option<Self> {
        let headers = message.headers.as_ref()?;
        let head = if stream == DEAD {
            let letter = Letter::read(sequence, &message.subject, headers)?;
            let origin = letter.origin.filter(|origin| origin.stream == UPDATES)?;
            Head {
                id: letter.id,
                ..Head::read(&origin.subject, headers).ok()?
            }
        } else {
            Head::read(&message.subject, headers).ok()?
        };
        if !head.tenant.is_unrouted() || !matches!(head.family, Family::Update(_)) {
            return None;
        }
        let waba = match head.phone {
            None => meta::read(&message.payload)
                .ok()
                .and_then(|update| update.waba_id),
            Some(_) => None,
        };
        Some(Self {
            stream,
            sequence,
            head,
            payload: message.payload.clone(),
            waba,
        })
    }

    /// Its head as its tenant's, by what is declared now.
    pub fn routed(&self, snapshot: &Snapshot, partitions: u16) -> Result<Head, Stays> {
        let owner = match (&self.head.phone, &self.waba) {
            (Some(phone), _) => snapshot.phone_numbers.get(phone).map(|phone| &phone.tenant),
            (None, Some(waba)) => snapshot.tenant_of_waba(waba),
            (None, None) => return Err(Stays::Unaddressed),
        };
        let tenant = owner
            .and_then(|owner| snapshot.tenants.get(owner))
            .ok_or(Stays::Undeclared)?;
        let app = self.head.app.as_ref().ok_or(Stays::ForeignApp)?;
        let speaks = |of: &Option<TenantId>| of.as_ref().is_none_or(|of| *of == tenant.id);
        if !snapshot
            .apps
            .get(app)
            .is_some_and(|app| speaks(&app.tenant))
        {
            return Err(Stays::ForeignApp);
        }
        // What came by a foreign app had an id of its own, so that it was not taken for the owner's copy.
        let id = self.head.id.as_str();
        let id = UpdateId::new(id.strip_suffix(&format!("@{app}")).unwrap_or(id));
        Ok(Head {
            id,
            partition: partition::of_conversation(
                &tenant.id,
                &self.head.conversation,
                tenant.shards,
                partitions,
            ),
            tenant: tenant.id.clone(),
            family: Family::Update(class_of(&self.head.kind)),
            ..self.head.clone()
        })
    }
}

/// The class that the edge would have given it: without an owner everything is of one class.
fn class_of(kind: &str) -> Class {
    match kind.split('.').next() {
        Some("message" | "echo" | "call") => Class::Message,
        Some("status") => Class::Status,
        _ => Class::Account,
    }
}

/// All of them, those that lie in DEAD first, in the order in which they came.
#[derive(Debug)]
pub struct Unrouted {
    log: Log,
    settled: Settled,
    left: Vec<&'static str>,
    scan: Option<(&'static str, Scan)>,
}

impl Unrouted {
    pub fn new(log: Log, replays: Store) -> Self {
        Self {
            log,
            settled: Settled::new(replays),
            left: vec![UPDATES, DEAD],
            scan: None,
        }
    }

    /// How many there are at most, for a bar.
    pub async fn count(&self) -> Result<u64, DeadLettersError> {
        let mut count = 0;
        for stream in [UPDATES, DEAD] {
            let subjects = self
                .log
                .context()
                .get_stream(stream)
                .await
                .map_err(DeadLettersError::books)?;
            let mut subjects = subjects
                .info_with_subjects(filter(stream))
                .await
                .map_err(DeadLettersError::books)?;
            while let Some(found) = futures_util::StreamExt::next(&mut subjects).await {
                let (_, messages) = found.map_err(DeadLettersError::books)?;
                count += u64::try_from(messages).unwrap_or(u64::MAX);
            }
        }
        Ok(count)
    }

    /// The next ones; none at the end. What comes while they are read is not among them.
    pub async fn next(&mut self) -> Result<Option<Vec<Unclaimed>>, DeadLettersError> {
        loop {
            let (stream, scan) = match &mut self.scan {
                Some((stream, scan)) => (*stream, scan),
                None => {
                    let Some(stream) = self.left.pop() else {
                        return Ok(None);
                    };
                    let scan = open(&self.log, stream).await?;
                    (stream, &mut self.scan.insert((stream, scan)).1)
                }
            };
            let messages = scan.next(PAYLOADS_PULL).await?;
            if messages.is_empty() {
                self.scan = None;
                continue;
            }
            let mut found = Vec::new();
            for (sequence, message) in messages {
                let is_open =
                    stream != DEAD || self.settled.standing(sequence).await? == Standing::Open;
                found.extend(Unclaimed::read(stream, sequence, &message).filter(|_| is_open));
            }
            return Ok(Some(found));
        }
    }

    /// Stores an update under its tenant, and takes it from where it lay. False when JetStream took it for the one that
    /// lies here: it remembers ids for a while.
    pub async fn route(
        &mut self,
        unclaimed: &Unclaimed,
        head: &Head,
    ) -> Result<bool, DeadLettersError> {
        let first = self
            .log
            .write_once(head, unclaimed.payload.clone())
            .await
            .map_err(DeadLettersError::books)?;
        let updates = self
            .log
            .context()
            .get_stream_no_info(UPDATES)
            .await
            .map_err(DeadLettersError::books)?;
        if let Some(first) = first {
            let first = updates.direct_get(first).await;
            let is_own = first.is_ok_and(|first| {
                Subject::parse(&first.subject)
                    .is_some_and(|subject| *subject.tenant() == head.tenant)
            });
            if !is_own {
                return Ok(false);
            }
        }
        if unclaimed.stream == DEAD {
            self.settled.claim(ROUTING, &[unclaimed.sequence]).await?;
        } else {
            updates
                .delete_message(unclaimed.sequence)
                .await
                .map_err(DeadLettersError::books)?;
        }
        Ok(true)
    }
}

/// In whose name those in DEAD are settled.
const ROUTING: &str = "rp_unrouted";

async fn open(log: &Log, stream: &'static str) -> Result<Scan, DeadLettersError> {
    let state = log
        .context()
        .get_stream(stream)
        .await
        .map_err(DeadLettersError::books)?;
    let until = state.cached_info().state.last_sequence;
    let stretch = Stretch {
        stream,
        filters: vec![filter(stream)],
        from: 0,
        from_ms: None,
        until,
        headers_only: false,
    };
    Ok(Scan::open(log.context(), stretch).await?)
}

fn filter(stream: &str) -> String {
    match stream {
        DEAD => subjects::dead(Pool::OF_UNROUTED, &TenantId::unrouted()),
        _ => subjects::updates_of(&TenantId::unrouted()),
    }
}

/// What there is of one number or account by one app.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Pile {
    pub count: u64,
    pub bytes: u64,
    /// When the first was received, in unix milliseconds.
    pub first_ms: u64,
    /// When the last was received, in unix milliseconds.
    pub last_ms: u64,
    /// Whose they are by what is declared now.
    pub tenant: Option<TenantId>,
    pub stays: Option<Stays>,
}

/// Which number or account, and by which app.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Address {
    pub phone: Option<String>,
    /// The account, where no number is named.
    pub waba: Option<String>,
    pub app: Option<String>,
}

/// Piles of them; numbers beyond a bound count together.
#[derive(Debug, Default)]
pub struct Piles(pub BTreeMap<Address, Pile>);

/// Numbers and accounts told apart.
const PILES_MAX: usize = 10_000;

impl Piles {
    pub fn add(&mut self, unclaimed: &Unclaimed, routed: &Result<Head, Stays>) {
        let head = &unclaimed.head;
        let mut address = Address {
            phone: head.phone.as_ref().map(ToString::to_string),
            waba: unclaimed.waba.clone(),
            app: head.app.as_ref().map(ToString::to_string),
        };
        if self.0.len() >= PILES_MAX && !self.0.contains_key(&address) {
            address = Address {
                phone: None,
                waba: None,
                app: None,
            };
        }
        let pile = self.0.entry(address).or_insert_with(|| Pile {
            first_ms: u64::MAX,
            ..Pile::default()
        });
        pile.count += 1;
        pile.bytes += u64::try_from(unclaimed.payload.len()).unwrap_or(0);
        pile.first_ms = pile.first_ms.min(head.received_ms);
        pile.last_ms = pile.last_ms.max(head.received_ms);
        pile.tenant = routed.as_ref().ok().map(|head| head.tenant.clone());
        pile.stays = routed.as_ref().err().copied();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ackline_shared::ids::{AppId, ConversationKey, PhoneNumberId};
    use ackline_shared::subjects::Partition;

    fn unclaimed(phone: Option<&str>, waba: Option<&str>, app: &str, id: &str) -> Unclaimed {
        let head = Head {
            id: UpdateId::new(id),
            tenant: TenantId::unrouted(),
            partition: Partition(0),
            family: Family::Update(Class::Account),
            kind: "status.read".into(),
            app: AppId::new(app).ok(),
            phone: phone.map(|phone| PhoneNumberId::new(phone).unwrap()),
            conversation: ConversationKey::user("US.1"),
            received_ms: 7,
            signature: Some("sha256=00".into()),
            traceparent: None,
            field: None,
            replay: None,
        };
        Unclaimed {
            stream: UPDATES,
            sequence: 1,
            head,
            payload: Bytes::new(),
            waba: waba.map(Into::into),
        }
    }

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot::default();
        for (key, value) in [
            ("tenant.acme", r#"{"id":"acme","name":"A"}"#),
            (
                "app.main",
                r#"{"id":"main","secrets":[],"verify_token":"x"}"#,
            ),
            (
                "app.own",
                r#"{"id":"own","tenant":"globex","secrets":[],"verify_token":"x"}"#,
            ),
            (
                "phone.100",
                r#"{"id":"100","tenant":"acme","app":"main","waba_id":"W1","access_token":"t"}"#,
            ),
            (
                "phone.200",
                r#"{"id":"200","tenant":"later","app":"main","waba_id":"W2","access_token":"t"}"#,
            ),
        ] {
            snapshot.fold(key, Some(value.as_bytes())).unwrap();
        }
        snapshot
    }

    #[test]
    fn an_update_is_its_tenants_as_the_edge_would_have_stored_it() {
        let routed = unclaimed(Some("100"), None, "main", "wamid.A")
            .routed(&snapshot(), 32)
            .unwrap();
        assert_eq!(
            (routed.tenant.as_str(), routed.id.as_str()),
            ("acme", "wamid.A")
        );
        assert_eq!(routed.family, Family::Update(Class::Status));
        assert_eq!(
            (routed.received_ms, routed.signature.as_deref()),
            (7, Some("sha256=00"))
        );
        let key = ConversationKey::user("US.1");
        assert_eq!(
            routed.partition,
            partition::of_conversation(&routed.tenant, &key, 4, 32)
        );
        let by_account = unclaimed(None, Some("W1"), "main", "x")
            .routed(&snapshot(), 32)
            .unwrap();
        assert_eq!(by_account.tenant.as_str(), "acme");
        let once_foreign =
            unclaimed(Some("100"), None, "main", "wamid.A@main").routed(&snapshot(), 32);
        assert_eq!(once_foreign.unwrap().id.as_str(), "wamid.A");
        let classes = [
            "message.text",
            "echo.text",
            "call.connect",
            "status.sent",
            "account.x",
            "unreadable",
        ];
        let (msg, sts, acct) = (Class::Message, Class::Status, Class::Account);
        assert_eq!(classes.map(class_of), [msg, msg, msg, sts, acct, acct]);
    }

    #[test]
    fn what_is_nobodys_or_came_by_a_foreign_app_stays() {
        let stays = |phone, waba, app| {
            unclaimed(phone, waba, app, "x")
                .routed(&snapshot(), 32)
                .unwrap_err()
        };
        assert_eq!(stays(Some("999"), None, "main"), Stays::Undeclared);
        assert_eq!(
            stays(Some("200"), None, "main"),
            Stays::Undeclared,
            "its tenant is not declared"
        );
        assert_eq!(stays(None, Some("W9"), "main"), Stays::Undeclared);
        assert_eq!(stays(None, None, "main"), Stays::Unaddressed);
        assert_eq!(stays(Some("100"), None, "own"), Stays::ForeignApp);
        assert_eq!(stays(Some("100"), None, "gone"), Stays::ForeignApp);
    }
}
