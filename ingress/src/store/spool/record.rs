//! An update as bytes on disk: its head in a fixed order, then its payload.
//!
//! Writing and reading are exact inverses. The payload of what was read is a part of the record's own bytes.

use crate::store::Update;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{AppId, ConversationKey, PhoneNumberId, TenantId, UpdateId};
use ackline_shared::subjects::{Class, Lane, Partition};
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Of the layout below; a reader refuses what it does not know.
const VERSION: u8 = 1;
/// Of the layout with one more text, the field: only what has one is written so, so that an earlier version reads the rest.
const VERSION_WITH_FIELD: u8 = 2;
/// Stands for a text that is not there.
const ABSENT: u32 = u32::MAX;
/// Texts of the first layout.
const TEXTS: usize = 8;
/// Version, family, partition and time.
const FIXED_BYTES: usize = 1 + 1 + 2 + 8;

/// Bytes allocated at once for records.
const CHUNK_BYTES: usize = 64 << 10;

/// Writes an update behind others, whose memory it shares: allocations of more than a kilobyte cost, and every
/// update needs one.
pub fn encode(update: &Update, chunk: &mut BytesMut) -> Bytes {
    let Update { head, payload } = update;
    let texts = [
        Some(head.id.as_str()),
        Some(head.tenant.as_str()),
        Some(head.kind.as_str()),
        Some(head.conversation.as_str()),
        head.app.as_ref().map(AppId::as_str),
        head.phone.as_ref().map(PhoneNumberId::as_str),
        head.signature.as_deref(),
        head.traceparent.as_deref(),
        head.field.as_deref(),
    ];
    let (version, count) = match head.field {
        Some(_) => (VERSION_WITH_FIELD, TEXTS + 1),
        None => (VERSION, TEXTS),
    };
    let text_bytes: usize = texts
        .iter()
        .take(count)
        .map(|text| 4 + text.map_or(0, str::len))
        .sum();
    let length = FIXED_BYTES + text_bytes + payload.len();
    if chunk.capacity() < length {
        *chunk = BytesMut::with_capacity(length.max(CHUNK_BYTES));
    }
    chunk.put_u8(version);
    chunk.put_u8(tag(head.family));
    chunk.put_u16_le(head.partition.0);
    chunk.put_u64_le(head.received_ms);
    for text in texts.into_iter().take(count) {
        // No head is that long: a body has 64 MiB at most.
        chunk.put_u32_le(text.map_or(ABSENT, |text| u32::try_from(text.len()).unwrap_or(ABSENT)));
        chunk.put_slice(text.unwrap_or_default().as_bytes());
    }
    chunk.put_slice(payload);
    chunk.split().freeze()
}

/// Reads an update; nothing when the bytes are not one.
pub fn decode(record: &Bytes) -> Option<Update> {
    let mut rest = record.clone();
    let count = match rest.try_get_u8().ok()? {
        VERSION => TEXTS,
        VERSION_WITH_FIELD => TEXTS + 1,
        _ => return None,
    };
    let family = family(rest.try_get_u8().ok()?)?;
    let partition = Partition(rest.try_get_u16_le().ok()?);
    let received_ms = rest.try_get_u64_le().ok()?;
    let mut texts: [Option<String>; TEXTS + 1] = Default::default();
    for text in texts.iter_mut().take(count) {
        let length = rest.try_get_u32_le().ok()?;
        if length != ABSENT {
            let length = usize::try_from(length)
                .ok()
                .filter(|length| *length <= rest.len())?;
            *text = Some(std::str::from_utf8(&rest.split_to(length)).ok()?.to_owned());
        }
    }
    let [
        id,
        tenant,
        kind,
        conversation,
        app,
        phone,
        signature,
        traceparent,
        field,
    ] = texts;
    let head = Head {
        id: UpdateId::new(&id?),
        tenant: TenantId::new(tenant?).ok()?,
        partition,
        family,
        kind: kind?,
        app: app.map(AppId::new).transpose().ok()?,
        phone: phone.map(PhoneNumberId::new).transpose().ok()?,
        conversation: ConversationKey::parse(&conversation?)?,
        received_ms,
        signature,
        traceparent,
        field,
        replay: None,
    };
    Some(Update {
        head,
        payload: rest,
    })
}

const FAMILIES: [Family; 6] = [
    Family::Update(Class::Message),
    Family::Update(Class::Status),
    Family::Update(Class::Account),
    Family::Record,
    Family::Command(Lane::Live),
    Family::Command(Lane::Bulk),
];

fn tag(family: Family) -> u8 {
    let place = FAMILIES.iter().position(|known| *known == family);
    place
        .and_then(|place| u8::try_from(place).ok())
        .unwrap_or(u8::MAX)
}

fn family(tag: u8) -> Option<Family> {
    FAMILIES.get(usize::from(tag)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            id in "\\PC{0,300}", user in "\\PC{0,200}", kind in "[a-z_.]{1,40}", phone in "[0-9]{1,20}",
            family in 0..6_usize, partition in any::<u16>(), received_ms in any::<u64>(),
            signature in prop::option::of("sha256=[0-9a-f]{64}"), field in prop::option::of("[a-z_]{0,20}"), payload in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let head = Head {
                id: UpdateId::new(&id),
                tenant: TenantId::new("acme").unwrap(),
                partition: Partition(partition),
                family: FAMILIES[family],
                kind,
                app: None,
                phone: PhoneNumberId::new(phone).ok(),
                conversation: ConversationKey::user(&user),
                received_ms,
                signature,
                traceparent: Some(String::new()),
                field,
                replay: None,
            };
            let update = Update { head, payload: payload.into() };
            let mut chunk = BytesMut::new();
            let (first, second) = (encode(&update, &mut chunk), encode(&update, &mut chunk));
            prop_assert_eq!(decode(&first), Some(update.clone()));
            prop_assert_eq!(decode(&second), Some(update));
        }

        #[test]
        fn no_bytes_break_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _any = decode(&bytes.into());
        }
    }
}
