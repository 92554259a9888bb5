//! Messages that spill queues refer to, when the room they lie in is needed: they move to the end of their stream first.
//!
//! For every pool's consumer they are finished, and for whoever waits in a spill queue they are not. One that waits for
//! days must not keep everything behind it, so it moves instead of stopping the janitor.

use super::{Space, Trouble};
use ackline_runtime::spill::{self, Reference, References};
use ackline_shared::subjects::{self, header};
use async_nats::HeaderMap;
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};

/// Of a stream's size, what may move at one look: it needs room before it gives some.
const MOVED_FRACTION: u64 = 16;

/// Moves those that lie below `below`; tells below which sequence none is left that was not moved, and how many were.
pub async fn keep(
    context: &Context,
    name: &'static str,
    space: &Space,
    below: u64,
) -> Result<(u64, u64), Trouble> {
    let mut references = References::default();
    references.follow(context).await.map_err(Trouble::new)?;
    let of = context
        .get_stream_no_info(name)
        .await
        .map_err(Trouble::new)?;
    let all = references.below(name, below);
    let mut places: Vec<(u64, &Reference)> = all
        .iter()
        .filter(|reference| reference.sequence >= space.first)
        .map(|reference| (reference.sequence, reference))
        .collect();
    // What moved already may have to move again.
    for (place, sequence) in kept(&of, name, space.first, below).await? {
        let known = all.binary_search_by_key(&sequence, |reference| reference.sequence);
        let reference = known.ok().and_then(|known| all.get(known));
        places.extend(reference.map(|reference| (place, reference)));
    }
    places.sort_unstable_by_key(|(place, _)| *place);
    let (mut bytes, mut moved) = (0, 0);
    for (place, reference) in places {
        bytes += u64::try_from(reference.length).unwrap_or(u64::MAX);
        if bytes > space.bytes_max / MOVED_FRACTION {
            return Ok((place, moved));
        }
        if let Err(error) = move_one(context, &of, place, reference).await {
            tracing::warn!(stream = name, %error, "what spill queues refer to cannot be moved; it stays for now");
            return Ok((place, moved));
        }
        moved += 1;
    }
    Ok((below, moved))
}

/// What moved before and lies between two sequences again: where it is, and where it was at first.
async fn kept(
    of: &Stream<()>,
    name: &str,
    first: u64,
    below: u64,
) -> Result<Vec<(u64, u64)>, Trouble> {
    let (filter, mut next, mut found) = (subjects::kept_filter(name), first, Vec::new());
    while next < below {
        let message = match of.direct_get_next_for_subject(&filter, Some(next)).await {
            Ok(message) if message.sequence < below => message,
            Ok(_) => break,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => break,
            Err(error) => return Err(Trouble::new(error)),
        };
        let sequence = subjects::kept_sequence(name, &message.subject);
        found.extend(sequence.map(|sequence| (message.sequence, sequence)));
        next = message.sequence + 1;
    }
    Ok(found)
}

async fn move_one(
    context: &Context,
    of: &Stream<()>,
    place: u64,
    reference: &Reference,
) -> Result<(), Trouble> {
    let message = match of.direct_get(place).await {
        Ok(message) => Some(message).filter(|message| reference.is_to(message)),
        Err(error) if error.kind() == DirectGetErrorKind::NotFound => {
            let found = spill::original(context, reference).await;
            found.map_err(Trouble::new)?
        }
        Err(error) => return Err(Trouble::new(error)),
    };
    let Some(message) = message else {
        return Ok(());
    };
    let Reference {
        stream,
        sequence,
        id,
        ..
    } = reference;
    let mut headers = HeaderMap::new();
    headers.insert(header::MSG_ID, format!("kept:{stream}:{sequence}:{place}"));
    if let Some(id) = id {
        headers.insert(header::SPILL_ID, id.as_str());
    }
    let receipt = context
        .publish_with_headers(subjects::kept(stream, *sequence), headers, message.payload)
        .await
        .map_err(Trouble::new)?;
    receipt.await.map(drop).map_err(Trouble::new)
}
