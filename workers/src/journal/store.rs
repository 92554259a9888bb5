//! The database file: opening it, its one writer and its readers, and writing a batch as one transaction.

use super::fold::{Entry, fold};
use super::write;
use crate::core::job::Work;
use ackline_shared::secret::without_user;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Acquire, SqliteConnection};
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;

const READERS_MAX: u32 = 4;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Why the read model cannot be used now; the log keeps everything meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Not an address we can open.
    #[error(
        "journal.url `{url}` cannot be used: {reason}; expected sqlite://PATH, such as \"sqlite://data/journal.db\""
    )]
    Url {
        /// As configured.
        url: String,
        /// Why not.
        reason: String,
    },
    /// The directory of the file cannot be made.
    #[error("the directory {directory} of journal.url cannot be made: {source}")]
    Directory {
        /// Which.
        directory: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file cannot be opened or brought up to date.
    #[error("the journal's database {path} cannot be opened: {reason}")]
    Open {
        /// The file.
        path: String,
        /// What the database said.
        reason: String,
    },
    /// Reading or writing failed.
    #[error("the journal's database failed: {0}")]
    Database(#[from] sqlx::Error),
}

/// A piece of a batch that can never be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the batch.
    pub index: usize,
    /// In words, without personal data.
    pub reason: String,
}

/// A handle on the read model; cheap to clone.
#[derive(Debug, Clone)]
pub struct Journal {
    writer: SqlitePool,
    pub(super) readers: SqlitePool,
}

impl Journal {
    /// Opens the database, making file, directory and schema when they are missing.
    pub async fn open(url: &str) -> Result<Self, JournalError> {
        let options = options(url)?;
        let path = options.get_filename().to_path_buf();
        make_directory(&path)?;
        let failed = |reason: String| JournalError::Open { path: path.display().to_string(), reason };
        keep_private(&path).map_err(|error| failed(error.to_string()))?;
        let pool = |connections| {
            SqlitePoolOptions::new().max_connections(connections).acquire_timeout(ACQUIRE_TIMEOUT)
        };
        let writer =
            pool(1).connect_with(options.clone()).await.map_err(|error| failed(error.to_string()))?;
        sqlx::migrate!().run(&writer).await.map_err(|error| failed(error.to_string()))?;
        let readers = pool(READERS_MAX)
            .connect_with(options.create_if_missing(false).read_only(true))
            .await
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self { writer, readers })
    }

    /// Writes a batch in one transaction; what can never be written is returned and does not stop the rest.
    ///
    /// After an error nothing of the batch is written and it may be tried again; writing it again changes nothing.
    pub async fn write_batch(&self, batch: &[Work]) -> Result<Vec<Rejected>, JournalError> {
        let mut connection = self.writer.acquire().await?;
        let written = write_all(&mut connection, batch).await;
        if written.is_err() {
            // SQLite may have ended the transaction by itself, as it does when the disk is full, and the connection would
            // go on as if it were still open. The next batch gets a new one.
            let _gone_either_way = connection.close().await;
        }
        Ok(written?)
    }

    /// Forgets ids of updates and unclaimed statuses seen before a time; call it with the log's own age limit.
    pub async fn prune(&self, before_ms: u64) -> Result<u64, JournalError> {
        let before = write::integer(before_ms);
        let updates =
            sqlx::query("DELETE FROM updates WHERE seen_ms < ?1").bind(before).execute(&self.writer).await?;
        let held = sqlx::query("DELETE FROM held_statuses WHERE received_ms < ?1")
            .bind(before)
            .execute(&self.writer)
            .await?;
        Ok(updates.rows_affected() + held.rows_affected())
    }

    /// Lets the file have no more pages than it has, or as many as it likes again.
    #[cfg(test)]
    pub async fn fill_up(&self, is_full: bool) {
        let pages = if is_full { 1 } else { 1 << 30 };
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(limit).execute(&self.writer).await.unwrap();
    }

    /// Closes the connections; the write-ahead log is folded into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// Writes a batch in one transaction.
async fn write_all(connection: &mut SqliteConnection, batch: &[Work]) -> Result<Vec<Rejected>, sqlx::Error> {
    let mut rejected = Vec::new();
    let mut transaction = sqlx::Connection::begin_with(connection, "BEGIN IMMEDIATE").await?;
    for (index, work) in batch.iter().enumerate() {
        match fold(work) {
            Ok(Entry::Nothing) => {}
            Ok(entry) => {
                if let Some(reason) = write_one(&mut transaction, work, &entry).await? {
                    rejected.push(Rejected { index, reason });
                }
            }
            Err(error) => rejected.push(Rejected { index, reason: error.to_string() }),
        }
    }
    transaction.commit().await?;
    Ok(rejected)
}

/// Writes one entry under a savepoint; a reason means that it alone was taken back.
async fn write_one(
    transaction: &mut SqliteConnection,
    work: &Work,
    entry: &Entry,
) -> Result<Option<String>, sqlx::Error> {
    let mut savepoint = transaction.begin().await?;
    match write::entry(&mut savepoint, work, entry).await {
        Ok(()) => savepoint.commit().await.map(|()| None),
        Err(error) if is_about_the_data(&error) => {
            savepoint.rollback().await?;
            Ok(Some(format!("the database refuses it: {error}")))
        }
        Err(error) => Err(error),
    }
}

/// Tells refusals of the data (constraint, mismatch, too big) from trouble of the database itself.
fn is_about_the_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(inner) => {
            // The low byte of SQLite's extended code is the primary code: TOOBIG, CONSTRAINT, MISMATCH.
            let code = inner.code().and_then(|code| code.parse::<u32>().ok());
            code.is_some_and(|code| matches!(code & 0xff, 18..=20))
        }
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

fn options(url: &str) -> Result<SqliteConnectOptions, JournalError> {
    let refuse = |reason: &str| JournalError::Url { url: without_user(url), reason: reason.to_owned() };
    let Some(path) = url.strip_prefix("sqlite:") else {
        return Err(refuse("only SQLite is supported"));
    };
    if path.trim_start_matches('/').is_empty() || path.contains(":memory:") || path.contains("mode=memory") {
        return Err(refuse("it names no file"));
    }
    let options = SqliteConnectOptions::from_str(url).map_err(|error| refuse(&error.to_string()))?;
    Ok(options
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        // The log can always be read again, so losing the last moments of the read model costs nothing.
        .synchronous(SqliteSynchronous::Normal)
        .foreign_keys(true)
        .busy_timeout(BUSY_TIMEOUT))
}

/// Makes the file readable for its owner alone; what SQLite puts beside it gets the same mode.
fn keep_private(path: &Path) -> std::io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn make_directory(path: &Path) -> Result<(), JournalError> {
    match path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        Some(directory) => std::fs::create_dir_all(directory)
            .map_err(|source| JournalError::Directory { directory: directory.display().to_string(), source }),
        None => Ok(()),
    }
}
