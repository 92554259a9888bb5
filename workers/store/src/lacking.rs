//! Whether the file lacks what the pool read before: it is new, and the log was acknowledged already.
//!
//! A file that is gone is made again at once, so that what comes is written. What went with it is only told of, and is
//! back after a rebuild.

use super::store::{Journal, JournalError};
use super::write::integer;
use ackline_shared::clock::now_ms;
use sqlx::{Row, SqliteConnection};

const BEGUN: &str = "begun";
const LACKING: &str = "lacking";

/// Notes that the file is written into from now on; tells whether that began only now, although the log was read before.
pub async fn begin(db: &mut SqliteConnection, was_read: bool) -> Result<bool, sqlx::Error> {
    let is_lacking = note(db, BEGUN).await? && was_read;
    if is_lacking {
        note(db, LACKING).await?;
    }
    Ok(is_lacking)
}

/// Notes something with the time; false when it was noted before.
async fn note(db: &mut SqliteConnection, name: &str) -> Result<bool, sqlx::Error> {
    let noted =
        sqlx::query("INSERT INTO notes (name, at_ms) VALUES (?1, ?2) ON CONFLICT DO NOTHING")
            .bind(name)
            .bind(integer(now_ms()))
            .execute(db)
            .await?;
    Ok(noted.rows_affected() > 0)
}

/// Forgets it: everything that the log holds will come.
pub async fn forget(db: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM notes WHERE name = ?1")
        .bind(LACKING)
        .execute(db)
        .await
        .map(drop)
}

/// Says it in the log.
pub fn report() {
    tracing::warn!(
        "the read model's file is new although the log was read before: it lacks what was written until now. `ackline journal rebuild` makes a new one from all that the log holds"
    );
}

impl Journal {
    /// Since when the file is known to lack everything that was written before, in unix milliseconds.
    pub async fn lacks_before(&self) -> Result<Option<u64>, JournalError> {
        let row = sqlx::query("SELECT at_ms FROM notes WHERE name = ?1")
            .bind(LACKING)
            .fetch_optional(&self.database()?.readers)
            .await?;
        let at_ms: Option<i64> = row.map(|row| row.try_get(0)).transpose()?;
        Ok(at_ms.map(|at_ms| u64::try_from(at_ms).unwrap_or_default()))
    }
}
