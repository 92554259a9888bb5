//! What must hold for every body, whatever its bytes: checked by property tests and the fuzz target.

use crate::fixture;
use crate::reference::{self, Expected};
use ackline_ingress::routing::RoutingTable;
use ackline_ingress::split::stamping::{Arrival, Stamp, Stamped};
use ackline_ingress::split::{HEAD_BYTES, Split, split};
use ackline_ingress::store::Update;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::ConversationKey;
use ackline_shared::signature::{self, SigningKey};
use bytes::Bytes;
use serde_json::value::RawValue;
use std::sync::LazyLock;

static TABLE: LazyLock<RoutingTable> = LazyLock::new(fixture::table);

/// Signs a body as Meta would, then verifies, splits, routes and envelopes it; tells what of it does not hold.
pub fn check(bytes: &[u8]) -> Result<usize, String> {
    let body = Bytes::copy_from_slice(bytes);
    let key = SigningKey::from_bytes(fixture::SECRET.as_bytes());
    let signature = key.sign(&body);
    let app = TABLE.app("main").ok_or("the fixture has no app")?;
    let secrets = app.secrets().ok_or("the fixture's app is locked")?;
    signature::verify(&secrets.keys, Some(signature.as_bytes()), &body)
        .map_err(|error| error.to_string())?;
    // The body as a header: whatever it is, it is not the signature.
    if signature::verify(&secrets.keys, Some(&body), &body).is_ok() {
        return Err("a body verified itself".to_owned());
    }
    let arrival = Arrival::now(signature.as_bytes(), 1, 1);
    let stamp = Stamp {
        table: &TABLE,
        app,
        partitions: 32,
        arrival: &arrival,
    };
    match split(&body) {
        Err(_) => check_update(&stamp.unreadable(&body).0, &key).map(|()| 1),
        Ok(split) => check_split(&split, stamp, &body, &key),
    }
}

/// Splits a body for every app and compares each update with the [reference](crate::reference).
pub fn compare(bytes: &[u8]) -> Result<usize, String> {
    let body = Bytes::copy_from_slice(bytes);
    let mut count = 0;
    for app in ["main", "globex-own"] {
        let route = TABLE.app(app).ok_or("the fixture lacks an app")?;
        let arrival = Arrival::now(b"sha256=", 1, 1);
        let stamp = Stamp {
            table: &TABLE,
            app: route,
            partitions: 32,
            arrival: &arrival,
        };
        let found: Vec<_> = match split(&body) {
            Ok(split) => Stamped::new(stamp, &split, &mut Vec::new())
                .map(|update| as_expected(&update))
                .collect(),
            Err(_) => vec![as_expected(&stamp.unreadable(&body).0)],
        };
        let found = found.into_iter().collect::<Result<Vec<_>, _>>()?;
        let expected = reference::updates(&body, app);
        if let Some((found, expected)) = found
            .iter()
            .zip(&expected)
            .find(|(found, expected)| found != expected)
        {
            return Err(format!("{app}: found {found:?}, expected {expected:?}"));
        }
        if found.len() != expected.len() {
            return Err(format!(
                "{app}: found {} updates, expected {}",
                found.len(),
                expected.len()
            ));
        }
        count = found.len();
    }
    Ok(count)
}

/// A stored update in the words of the reference.
pub fn as_expected(update: &Update) -> Result<Expected, String> {
    let Family::Update(class) = update.head.family else {
        return Err("an update is no update".to_owned());
    };
    Ok(Expected {
        payload: update.payload.to_vec(),
        untouched: update.head.signature.is_some(),
        id: update.head.id.as_str().to_owned(),
        tenant: update.head.tenant.to_string(),
        class: class.as_str(),
        kind: update.head.kind.clone(),
        field: update.head.field.clone(),
        conversation: update.head.conversation.as_str().to_owned(),
    })
}

fn check_split(
    split: &Split<'_>,
    stamp: Stamp<'_>,
    body: &Bytes,
    key: &SigningKey,
) -> Result<usize, String> {
    let mut unrouted = Vec::new();
    let updates: Vec<_> = Stamped::new(stamp, split, &mut unrouted).collect();
    if updates.is_empty() {
        return Err("a delivery has no updates".to_owned());
    }
    let stored: usize = updates
        .iter()
        .map(|update| update.payload.len() + HEAD_BYTES)
        .sum();
    if updates.len() > 1 && stored != split.stored_bytes() {
        return Err(format!(
            "{stored} bytes are stored and {} counted",
            split.stored_bytes()
        ));
    }
    for update in &updates {
        check_update(update, key)?;
        if updates.len() == 1 && update.payload != *body {
            return Err("a single update is not the delivery's own bytes".to_owned());
        }
        // Cutting again must find this update alone, and the same one.
        let again = self::split(&update.payload)
            .map_err(|error| format!("a payload does not split: {error}"))?;
        let (Some(only), 1) = (again.updates().next(), again.len()) else {
            return Err(format!("a payload holds {} updates", again.len()));
        };
        if updates.len() > 1
            && (only.kind != update.head.kind
                || ConversationKey::from(only.conversation) != update.head.conversation)
        {
            return Err(format!(
                "{} became {} when cut",
                update.head.kind, only.kind
            ));
        }
    }
    Ok(updates.len())
}

fn check_update(update: &Update, key: &SigningKey) -> Result<(), String> {
    let (subject, headers) = (update.head.subject(), update.head.to_headers());
    let read = Head::read(&subject, &headers).map_err(|error| error.to_string())?;
    if read != update.head {
        return Err("a head does not read back".to_owned());
    }
    if let Some(signature) = &update.head.signature {
        signature::verify(
            std::slice::from_ref(key),
            Some(signature.as_bytes()),
            &update.payload,
        )
        .map_err(|error| format!("a payload carries a signature that is not its own: {error}"))?;
    } else if serde_json::from_slice::<&RawValue>(&update.payload).is_err() {
        return Err("a cut payload is not JSON".to_owned());
    }
    Ok(())
}
