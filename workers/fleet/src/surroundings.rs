//! What the workers need of the machine and of NATS: descriptors for the API's connections and the pools' own, room for the
//! read model, messages as long as updates are, and the right time.

use ackline_runtime::log::Log;
use ackline_shared::config::Reader;
use ackline_shared::surroundings::{INTERVAL, Room, Surroundings};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::sleep;

/// Connections of clients, of pools to targets, and to NATS; files of the read model.
const DESCRIPTORS: u64 = 4096;
/// Below this a disk is nearly full.
const ROOM_BYTES: u64 = 1 << 30;

/// The longest body that the edge takes, which is the longest update.
pub fn read_body_bytes_max(reader: &mut Reader) -> usize {
    usize::try_from(reader.bytes("ingress.body_bytes_max", 1 << 10..=64 << 20))
        .unwrap_or(usize::MAX)
}

pub fn surroundings(body_bytes_max: usize, journal_url: Option<&str>) -> Arc<Surroundings> {
    let rooms = journal_url.and_then(journal_room).into_iter().collect();
    Arc::new(Surroundings::new(
        body_bytes_max,
        rooms,
        (DESCRIPTORS, "pools.*.concurrency"),
    ))
}

/// Where the read model needs room, when it is a file.
pub fn journal_room(url: &str) -> Option<Room> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path).split('?').next()?;
    let directory = Path::new(path).parent().map(PathBuf::from)?;
    (!path.contains(":memory:")).then_some(Room {
        setting: "journal.url",
        directory,
        needed: ROOM_BYTES,
    })
}

/// Looks now and then until the signal.
pub async fn follow(
    surroundings: Arc<Surroundings>,
    log: Log,
    mut shutdown: watch::Receiver<bool>,
) {
    let looking = async {
        loop {
            let client = log.context().client();
            surroundings
                .look(&client, client.server_info().max_payload)
                .await;
            sleep(INTERVAL).await;
        }
    };
    tokio::select! {
        _ = shutdown.wait_for(|is_over| *is_over) => {}
        () = looking => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_read_model_is_found_where_it_is_a_file() {
        let found = |url: &str| journal_room(url).map(|room| room.directory);
        assert_eq!(
            found("sqlite:///var/lib/ackline/journal.db?mode=rwc"),
            Some("/var/lib/ackline".into())
        );
        assert_eq!(found("sqlite://.run/journal.db"), Some(".run".into()));
        assert_eq!(
            (found("sqlite::memory:"), found("postgres://a/b")),
            (None, None)
        );
    }
}
