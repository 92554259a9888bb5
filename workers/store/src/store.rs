//! The read model as a handle: open or away, writing a batch as one transaction, and beginning anew in another file.

use super::database::{self, Database};
use super::fold::{JournalEntry, fold};
use super::lacking;
use super::rebuild::Rebuilds;
use super::working::Working;
use super::write;
use ackline_runtime::job::Work;
use ackline_runtime::long_messages::in_place;
use ackline_shared::shutdown::{Shutdown, ended};
use arc_swap::ArcSwapOption;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{Acquire, Connection, Sqlite, SqliteConnection, Transaction};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How often it is made sure that the file is open and at its place, and the longest pause while it does not open.
const LOOK_PAUSE: Duration = Duration::from_secs(1);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(30);

pub(super) const PRUNE: [&str; 2] = [
    "DELETE FROM updates WHERE seen_ms < ?1",
    "DELETE FROM held_statuses WHERE received_ms < ?1",
];

/// Pieces of a batch that are read without a pause for others.
const FOLDED_AT_ONCE: usize = 32;

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
        let (entries, mut rejected) = fold_all(batch).await;
        let mut connection = database.writer.acquire().await?;
        let was_read = self.0.was_read.load(Ordering::Relaxed);
        let begins = (!database.is_begun()).then_some(was_read);
        let written = write_all(&mut connection, &entries, begins).await;
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
        rejected.append(&mut written?);
        database.begun();
        rejected.sort_unstable_by_key(|one| one.index);
        // An update with several entries is refused once.
        rejected.dedup_by_key(|one| one.index);
        Ok(rejected)
    }

    /// Forgets ids of updates and unclaimed statuses seen before a time; call it with the log's own age limit.
    pub async fn prune(&self, before_ms: u64) -> Result<u64, JournalError> {
        let (before, database) = (write::integer(before_ms), self.database()?);
        let mut forgotten = 0;
        for statement in PRUNE {
            let done = sqlx::query(statement)
                .bind(before)
                .execute(&database.writer)
                .await?;
            forgotten += done.rows_affected();
        }
        Ok(forgotten)
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

/// A piece of a batch and what it means.
#[derive(Debug)]
pub struct Entry<'b> {
    /// Its place in the batch.
    pub index: usize,
    pub work: &'b Work,
    pub means: JournalEntry,
}

impl<'b> Entry<'b> {
    pub fn tenant(&self) -> &'b str {
        self.work.head.tenant.as_str()
    }
}

/// Says what the pieces of a batch mean, and which mean nothing that can be written.
async fn fold_all(batch: &[Work]) -> (Vec<Entry<'_>>, Vec<Rejected>) {
    let (mut entries, mut rejected) = (Vec::with_capacity(batch.len()), Vec::new());
    for (index, work) in batch.iter().enumerate() {
        // Others run on this thread, too.
        if index % FOLDED_AT_ONCE == FOLDED_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
        match in_place(&work.payload, || fold(work)) {
            Ok(all) => {
                let some = all
                    .into_iter()
                    .filter(|means| *means != JournalEntry::Nothing);
                entries.extend(some.map(|means| Entry { index, work, means }));
            }
            Err(error) => rejected.push(Rejected {
                index,
                reason: error.to_string(),
            }),
        }
    }
    (entries, rejected)
}

/// Writes entries in one transaction; `begins` tells, for a file that may be new, whether the log was read before.
async fn write_all(
    connection: &mut SqliteConnection,
    entries: &[Entry<'_>],
    begins: Option<bool>,
) -> Result<Vec<Rejected>, sqlx::Error> {
    let (mut transaction, is_lacking) = begin(connection, begins).await?;
    match write_some(&mut transaction, entries).await {
        Ok(()) => transaction.commit().await?,
        Err(error) if is_about_the_data(&error) => {
            transaction.rollback().await?;
            return write_parts(connection, entries, begins).await;
        }
        Err(error) => return Err(error),
    }
    if is_lacking {
        lacking::report();
    }
    Ok(Vec::new())
}

/// Writes entries of which some are refused: those are found by halves, and left out.
async fn write_parts(
    connection: &mut SqliteConnection,
    entries: &[Entry<'_>],
    begins: Option<bool>,
) -> Result<Vec<Rejected>, sqlx::Error> {
    let (mut rejected, mut parts) = (Vec::new(), vec![entries]);
    let (mut transaction, is_lacking) = begin(connection, begins).await?;
    while let Some(part) = parts.pop() {
        let mut savepoint = transaction.begin().await?;
        match write_some(&mut savepoint, part).await {
            Ok(()) => savepoint.commit().await?,
            Err(error) if is_about_the_data(&error) => {
                savepoint.rollback().await?;
                match part {
                    [] => {}
                    [one] => rejected.push(Rejected {
                        index: one.index,
                        reason: format!("the database refuses it: {error}"),
                    }),
                    _ => {
                        let (first, second) = part.split_at(part.len() / 2);
                        parts.extend([second, first]);
                    }
                }
            }
            Err(error) => return Err(error),
        }
    }
    transaction.commit().await?;
    if is_lacking {
        lacking::report();
    }
    Ok(rejected)
}

/// Begins a transaction; also whether the file is found to lack what was read before.
async fn begin(
    connection: &mut SqliteConnection,
    begins: Option<bool>,
) -> Result<(Transaction<'_, Sqlite>, bool), sqlx::Error> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await?;
    let is_lacking = match begins {
        Some(was_read) => lacking::begin(&mut transaction, was_read).await?,
        None => false,
    };
    Ok((transaction, is_lacking))
}

/// Writes entries, all or none.
async fn write_some<'b>(
    connection: &'b mut SqliteConnection,
    entries: &'b [Entry<'b>],
) -> Result<(), sqlx::Error> {
    let mut rows = Working::new(connection);
    rows.read_ahead(entries).await?;
    for entry in entries {
        write::entry(&mut rows, entry.work, &entry.means).await?;
    }
    rows.save().await
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
