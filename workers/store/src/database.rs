//! One opening of the database file: its one writer, its readers, and which file they have open.

use super::store::JournalError;
use ackline_shared::secret::without_user;
use sqlx::ConnectOptions;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use std::fs::{OpenOptions, Permissions};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const READERS_MAX: u32 = 4;
/// Rows that the database reads ahead of whoever takes them; each may hold a message of some megabytes.
const ROWS_AHEAD: usize = 2;
/// What the writer holds of the file.
const WRITER_CACHE_KB: u32 = 16 * 1024;
/// Pages of the write-ahead log that are folded into the file together: a page that is written again and again gets there
/// once.
const CHECKPOINT_PAGES: u32 = 4096;
/// What stays of a write-ahead log that grew beyond it.
const WAL_KEPT_BYTES: u32 = 64 << 20;
/// Each statement of a batch in each of its sizes, and what else there is.
const STATEMENTS_KEPT: usize = 128;
/// The writer reads small rows only.
const WRITER_ROWS_AHEAD: usize = 256;
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(5);
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// The connections to a file.
#[derive(Debug)]
pub struct Database {
    pub writer: SqlitePool,
    pub readers: SqlitePool,
    file: Option<(u64, u64)>,
    /// Whether it is noted in the file that it is written into.
    is_begun: AtomicBool,
}

impl Database {
    /// Opens a file, making it, its directory and its schema when they are missing.
    pub async fn open(options: &SqliteConnectOptions) -> Result<Self, JournalError> {
        let path = options.get_filename().to_path_buf();
        make_directory(&path)?;
        let failed = |reason: String| JournalError::Open {
            path: path.display().to_string(),
            reason,
        };
        keep_private(&path).map_err(|error| failed(error.to_string()))?;
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(ACQUIRE_TIMEOUT)
        };
        let writer = pool(1)
            // It is a file, which needs no greeting.
            .test_before_acquire(false)
            .connect_with(writing(options.clone()))
            .await
            .map_err(|error| failed(error.to_string()))?;
        sqlx::migrate!()
            .run(&writer)
            .await
            .map_err(|error| failed(error.to_string()))?;
        let readers = pool(READERS_MAX)
            .connect_with(
                options
                    .clone()
                    .create_if_missing(false)
                    .read_only(true)
                    .row_buffer_size(ROWS_AHEAD),
            )
            .await
            .map_err(|error| failed(error.to_string()))?;
        Ok(Self {
            writer,
            readers,
            file: identity(&path),
            is_begun: AtomicBool::new(false),
        })
    }

    /// Whether a path still leads to the file it has open: somebody may have moved it, or put another in its place.
    pub fn is_at(&self, path: &Path) -> bool {
        self.file == identity(path)
    }

    pub fn is_begun(&self) -> bool {
        self.is_begun.load(Ordering::Relaxed)
    }

    /// Hears that it is noted in the file that it is written into.
    pub fn begun(&self) {
        self.is_begun.store(true, Ordering::Relaxed);
    }

    /// Closes the connections; the write-ahead log is folded into the file.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// What the one writer needs beside; what a batch touches again and again stays in its memory.
fn writing(options: SqliteConnectOptions) -> SqliteConnectOptions {
    options
        .pragma("cache_size", format!("-{WRITER_CACHE_KB}"))
        .pragma("temp_store", "MEMORY")
        .pragma("wal_autocheckpoint", CHECKPOINT_PAGES.to_string())
        .pragma("journal_size_limit", WAL_KEPT_BYTES.to_string())
        .statement_cache_capacity(STATEMENTS_KEPT)
        .row_buffer_size(WRITER_ROWS_AHEAD)
        .disable_statement_logging()
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    std::fs::metadata(path)
        .ok()
        .map(|file| (file.dev(), file.ino()))
}

/// Checks an address, and how its file is to be opened.
pub fn options(url: &str) -> Result<SqliteConnectOptions, JournalError> {
    let refuse = |reason: &str| JournalError::Url {
        url: without_user(url),
        reason: reason.to_owned(),
    };
    let Some(path) = url.strip_prefix("sqlite:") else {
        return Err(refuse("only SQLite is supported"));
    };
    if path.trim_start_matches('/').is_empty()
        || path.contains(":memory:")
        || path.contains("mode=memory")
    {
        return Err(refuse("it names no file"));
    }
    let options =
        SqliteConnectOptions::from_str(url).map_err(|error| refuse(&error.to_string()))?;
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
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))
}

fn make_directory(path: &Path) -> Result<(), JournalError> {
    match path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty())
    {
        Some(directory) => {
            std::fs::create_dir_all(directory).map_err(|source| JournalError::Directory {
                directory: directory.display().to_string(),
                source,
            })
        }
        None => Ok(()),
    }
}
