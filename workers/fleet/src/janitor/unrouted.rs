//! Updates that nobody claims, when the room they lie in is needed: they move to the dead letters before they go.
//!
//! Every pool passes them over and acknowledges them, so for the janitor they are finished; for whoever declares their
//! number later they are not. They may take half of DEAD: beyond that the oldest of them go, because whoever holds an
//! app's secret can send any number of them, and dead letters of tenants must find room.

use super::{Space, Trouble};
use ackline_runtime::dead;
use ackline_shared::ids::TenantId;
use ackline_shared::subjects::{self, DEAD, Pool, UPDATES};
use async_nats::jetstream::Context;
use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use futures_util::TryStreamExt;

const REASON: &str = "unrouted: nobody claims its number or account; declare it, and `ackline unrouted route` gives it to its tenant";
/// Fill of DEAD in percent from which the oldest of them go.
const DEAD_PERCENT_MAX: u64 = 50;

/// Moves those from `first` up to below `below`; tells below which sequence none is left that was not moved, and how
/// many were.
pub async fn quarantine(
    context: &Context,
    stream: &Stream,
    first: u64,
    below: u64,
) -> Result<(u64, u64), Trouble> {
    let filter = subjects::updates_of(&TenantId::unrouted());
    let (mut next, mut moved) = (first, 0);
    while next < below {
        let message = match stream
            .direct_get_next_for_subject(&filter, Some(next))
            .await
        {
            Ok(message) if message.sequence < below => message,
            Ok(_) => break,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => break,
            Err(error) => return Err(Trouble::new(error)),
        };
        if moved == 0 {
            make_way(context).await?;
        }
        let sequence = message.sequence;
        let headers = dead::headers_of(
            message.headers,
            Pool::OF_UNROUTED,
            (UPDATES, sequence, &message.subject),
            REASON,
        );
        let subject = subjects::dead(Pool::OF_UNROUTED, &TenantId::unrouted());
        let stored = context
            .publish_with_headers(subject, headers, message.payload)
            .await;
        let stored = match stored {
            Ok(receipt) => receipt.await,
            Err(error) => Err(error),
        };
        if let Err(error) = stored {
            tracing::warn!(%error, "updates that nobody claims cannot be moved to the dead letters; they stay for now");
            return Ok((sequence, moved));
        }
        (next, moved) = (sequence + 1, moved + 1);
    }
    Ok((below, moved))
}

/// Takes the older half of them out of DEAD while it is more than half full.
async fn make_way(context: &Context) -> Result<(), Trouble> {
    let stream = context.get_stream(DEAD).await.map_err(Trouble::new)?;
    if !Space::of(&stream).is_above(DEAD_PERCENT_MAX) {
        return Ok(());
    }
    let subject = subjects::dead(Pool::OF_UNROUTED, &TenantId::unrouted());
    let counts = stream
        .info_with_subjects(&subject)
        .await
        .map_err(Trouble::new)?;
    let counts: Vec<(String, usize)> = counts.try_collect().await.map_err(Trouble::new)?;
    let count = counts
        .iter()
        .map(|(_, count)| u64::try_from(*count).unwrap_or(u64::MAX))
        .sum::<u64>();
    if count > 1 {
        let purged = stream
            .purge()
            .filter(&subject)
            .keep(count / 2)
            .await
            .map_err(Trouble::new)?;
        tracing::error!(
            purged = purged.purged,
            "the dead letters are more than half full; the oldest updates that nobody ever claimed are gone"
        );
    }
    Ok(())
}
