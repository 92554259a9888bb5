//! The read model as a handle: open or away, writing a batch as one transaction, and beginning anew in another file.

use super::database::{self, Database};
use super::fold::{JournalEntry, fold};
use super::lacking;
use super::rebuild::Rebuilds;
use super::write;
use ackline_runtime::job::Work;
use ackline_shared::shutdown::{Shutdown, ended};
use arc_swap::ArcSwapOption;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Acquire, SqliteConnection};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How often it is made sure that the file is open and at its place, and the longest pause while it does not open.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(30);

/// Why the read model cannot be used now; the log keeps everything meanwhile.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// Not an address we can open.
    #[error(
        "journal.url `{url}` cannot be used: {reason}; expected sqlite://PATH, such as \"sqlite://data/journal.db\""
    )]
    Url { url: String, reason: String },
    /// The directory of the file cannot be made.
    #[error("the directory {directory} of journal.url cannot be made: {source}")]
    Directory {
        directory: String,
        source: std::io::Error,
    },
    /// The file cannot be opened or brought up to date.
    #[error("the journal's database {path} cannot be opened: {reason}")]
    Open { path: String, reason: String },
    #[error("the journal's database is not open: {0}")]
    Away(String),
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

/// A handle on the read model; cheap to clone. Its file is opened when it can be, and again when it is another one.
#[derive(Debug, Clone)]
pub struct Journal(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    options: SqliteConnectOptions,
    database: ArcSwapOption<Database>,
    /// Why it is not open, or why writing to it failed last.
    fault: Mutex<Option<String>>,
    /// Held by whoever opens, closes or moves the file.
    moving: tokio::sync::Mutex<()>,
    rebuilds: OnceLock<Rebuilds>,
    /// Whether something of the log was acknowledged, so that it does not come again.
    was_read: AtomicBool,
}

impl Journal {
    /// A handle on a file that is not open yet; only an address that cannot be one is an error.
    pub fn at(url: &str) -> Result<Self, JournalError> {
        let options = database::options(url)?;
        let inner = Inner {
            options,
            database: ArcSwapOption::empty(),
            fault: Mutex::new(Some("it is not open yet".to_owned())),
            moving: tokio::sync::Mutex::default(),
            rebuilds: OnceLock::new(),
            was_read: AtomicBool::new(false),
        };
        Ok(Self(Arc::new(inner)))
    }

    /// Opens the database, making file, directory and schema when they are missing.
    pub async fn open(url: &str) -> Result<Self, JournalError> {
        let journal = Self::at(url)?;
        journal.connect().await?;
        Ok(journal)
    }

    /// Opens the file if it is not open, or not at its place any more, until the signal.
    pub async fn look_after(self, mut shutdown: Shutdown) {
        let mut pause = LOOK_PAUSE;
        loop {
            let is_open = self
                .0
                .database
                .load()
                .as_ref()
                .is_some_and(|open| open.is_at(self.path()));
            if is_open {
                pause = LOOK_PAUSE;
            } else {
                match self.connect().await {
                    Ok(()) => tracing::info!("the read model is open"),
                    Err(error) => {
                        tracing::error!(%error, "the read model is away; everything else goes on, and it catches up later. If its file is damaged, `ackline journal rebuild` makes a new one from the log");
                        pause = (pause * 2).min(LOOK_PAUSE_MAX);
                    }
                }
            }
            tokio::select! {
                () = ended(&mut shutdown) => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn connect(&self) -> Result<(), JournalError> {
        let _nobody_moves_it = self.0.moving.lock().await;
        self.shut().await;
        let opened = Database::open(&self.0.options).await;
        self.note(opened.as_ref().err().map(ToString::to_string));
        self.0.database.store(Some(Arc::new(opened?)));
        if self.0.was_read.load(Ordering::Relaxed) {
            self.was_read().await;
        }
        Ok(())
    }

    /// Hears that something of the log was acknowledged before, and will not come again.
    pub(super) async fn was_read(&self) {
        self.0.was_read.store(true, Ordering::Relaxed);
        let Some(open) = self.0.database.load_full() else {
            return;
        };
        if let Err(error) = look_for_lack(&open).await {
            tracing::warn!(%error, "whether the read model's file lacks something is not known yet");
        }
    }

    async fn shut(&self) {
        if let Some(open) = self.0.database.swap(None) {
            open.close().await;
        }
    }

    fn note(&self, fault: Option<String>) {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// What is wrong with it now.
    pub fn fault(&self) -> Option<String> {
        self.0
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    pub fn path(&self) -> &Path {
        self.0.options.get_filename()
    }

    /// Takes orders to rebuild it from there.
    pub fn rebuilt_by(&self, rebuilds: Rebuilds) {
        let _shown_before = self.0.rebuilds.set(rebuilds);
    }

    /// Where orders to rebuild it come from.
    pub(super) fn rebuilds(&self) -> Option<&Rebuilds> {
        self.0.rebuilds.get()
    }

    /// Moves the file away and begins a new one; doing it again under the same name changes nothing. Gives where the old
    /// one is.
    pub(super) async fn begin_anew(&self, name: &str) -> Result<PathBuf, JournalError> {
        let moving = self.0.moving.lock().await;
        self.shut().await;
        let beside = |tail: &str| {
            let mut path = self.path().as_os_str().to_owned();
            path.push(tail);
            PathBuf::from(path)
        };
        let old_file = beside(&format!(".before-{name}"));
        if !old_file.exists() {
            for tail in ["-wal", "-shm", ""] {
                let mut to = old_file.as_os_str().to_owned();
                to.push(tail);
                match std::fs::rename(beside(tail), to) {
                    Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                        let path = self.path().display().to_string();
                        return Err(JournalError::Open {
                            path,
                            reason: format!("it cannot be moved: {error}"),
                        });
                    }
                    _ => {}
                }
            }
        }
        drop(moving);
        self.0.was_read.store(false, Ordering::Relaxed);
        self.connect().await?;
        lacking::forget(&mut *self.database()?.writer.acquire().await?).await?;
        Ok(old_file)
    }

    pub(super) fn database(&self) -> Result<Arc<Database>, JournalError> {
        self.0
            .database
            .load_full()
            .ok_or_else(|| JournalError::Away(self.fault().unwrap_or_default()))
    }

    /// Writes a batch in one transaction; what can never be written is returned and does not stop the rest.
    ///
    /// After an error nothing of the batch is written and it may be tried again; writing it again changes nothing.
    pub async fn write_batch(&self, batch: &[Work]) -> Result<Vec<Rejected>, JournalError> {
        let database = self.database()?;
        let mut connection = database.writer.acquire().await?;
        let was_read = self.0.was_read.load(Ordering::Relaxed);
        let written = write_all(&mut connection, batch, was_read).await;
        // It is acknowledged next.
        self.0
            .was_read
            .store(was_read || written.is_ok(), Ordering::Relaxed);
        self.note(written.as_ref().err().map(ToString::to_string));
        if written.is_err() {
            // SQLite may have ended the transaction by itself, as it does when the disk is full, and the connection would
            // go on as if it were still open. The next batch gets a new one.
            let _gone_either_way = connection.close().await;
        }
        if written.as_ref().is_err_and(is_damage) {
            // Whether it opens again decides whether it can still be used.
            drop(self.0.database.swap(None));
        }
        Ok(written?)
    }

    /// Forgets ids of updates and unclaimed statuses seen before a time; call it with the log's own age limit.
    pub async fn prune(&self, before_ms: u64) -> Result<u64, JournalError> {
        let (before, database) = (write::integer(before_ms), self.database()?);
        let updates = sqlx::query("DELETE FROM updates WHERE seen_ms < ?1")
            .bind(before)
            .execute(&database.writer)
            .await?;
        let held = sqlx::query("DELETE FROM held_statuses WHERE received_ms < ?1")
            .bind(before)
            .execute(&database.writer)
            .await?;
        Ok(updates.rows_affected() + held.rows_affected())
    }

    /// Lets the file have no more pages than it has, or as many as it likes again.
    #[cfg(test)]
    pub async fn fill_up(&self, is_full: bool) {
        let pages = if is_full { 1 } else { 1 << 30 };
        let limit = sqlx::AssertSqlSafe(format!("PRAGMA max_page_count = {pages}"));
        sqlx::query(limit)
            .execute(&self.database().unwrap().writer)
            .await
            .unwrap();
    }

    /// Closes the connections; the write-ahead log is folded into the file.
    pub async fn close(&self) {
        self.shut().await;
    }
}

/// Sees whether a file is new although the log was read before.
async fn look_for_lack(database: &Database) -> Result<(), JournalError> {
    let mut connection = database.writer.acquire().await?;
    if lacking::begin(&mut connection, true).await? {
        lacking::report();
    }
    Ok(())
}

/// Writes a batch in one transaction.
async fn write_all(
    connection: &mut SqliteConnection,
    batch: &[Work],
    was_read: bool,
) -> Result<Vec<Rejected>, sqlx::Error> {
    let mut rejected = Vec::new();
    let mut transaction = sqlx::Connection::begin_with(connection, "BEGIN IMMEDIATE").await?;
    let is_lacking = lacking::begin(&mut transaction, was_read).await?;
    for (index, work) in batch.iter().enumerate() {
        match fold(work) {
            Ok(JournalEntry::Nothing) => {}
            Ok(entry) => {
                if let Some(reason) = write_one(&mut transaction, work, &entry).await? {
                    rejected.push(Rejected { index, reason });
                }
            }
            Err(error) => rejected.push(Rejected {
                index,
                reason: error.to_string(),
            }),
        }
    }
    transaction.commit().await?;
    if is_lacking {
        lacking::report();
    }
    Ok(rejected)
}

/// Writes one entry under a savepoint; a reason means that it alone was taken back.
async fn write_one(
    transaction: &mut SqliteConnection,
    work: &Work,
    entry: &JournalEntry,
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

/// Tells a file that is damaged, or no database at all: CORRUPT, NOTADB.
fn is_damage(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(inner)
        if inner.code().and_then(|code| code.parse::<u32>().ok()).is_some_and(|code| matches!(code & 0xff, 11 | 26)))
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
