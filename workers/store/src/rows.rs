//! One statement for many rows: the row's parameters are repeated, in a few sizes, so that each size is prepared once and
//! kept. A statement costs a way to the database's thread and back; a row in it does not.

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection};
use std::sync::{Arc, OnceLock};

/// A statement that waits for its parameters.
pub type Query = sqlx::query::Query<'static, Sqlite, SqliteArguments>;

/// Rows in one statement; what is missing to the next size is filled up with rows of nothing.
const SIZES: [usize; 8] = [1, 2, 4, 8, 16, 32, 64, ROWS_MAX];
pub const ROWS_MAX: usize = 128;

/// A statement around a list of rows, in which a row of nothing does nothing.
pub struct Many {
    before: &'static str,
    /// Parameters of a row.
    parameters: usize,
    after: &'static str,
    texts: OnceLock<[Arc<str>; SIZES.len()]>,
}

impl Many {
    pub const fn new(before: &'static str, parameters: usize, after: &'static str) -> Self {
        Self {
            before,
            parameters,
            after,
            texts: OnceLock::new(),
        }
    }

    /// The text for so many rows.
    pub fn text(&self, rows: usize) -> String {
        let row = format!("({})", vec!["?"; self.parameters].join(","));
        [self.before, &vec![row; rows].join(","), self.after].concat()
    }

    /// Writes rows; `bind` binds one row's parameters.
    pub async fn execute<T>(
        &self,
        db: &mut SqliteConnection,
        rows: &[T],
        bind: impl Fn(Query, &T) -> Query,
    ) -> Result<(), sqlx::Error> {
        for rows in rows.chunks(ROWS_MAX) {
            self.bound(rows, &bind).execute(&mut *db).await?;
        }
        Ok(())
    }

    /// Reads what belongs to keys.
    pub async fn fetch<T>(
        &self,
        db: &mut SqliteConnection,
        keys: &[T],
        bind: impl Fn(Query, &T) -> Query,
    ) -> Result<Vec<SqliteRow>, sqlx::Error> {
        let mut found = Vec::new();
        for keys in keys.chunks(ROWS_MAX) {
            found.append(&mut self.bound(keys, &bind).fetch_all(&mut *db).await?);
        }
        Ok(found)
    }

    fn bound<T>(&self, rows: &[T], bind: &impl Fn(Query, &T) -> Query) -> Query {
        let texts = self
            .texts
            .get_or_init(|| SIZES.map(|rows| self.text(rows).into()));
        let size = rows.len().next_power_of_two();
        let sizes = SIZES.into_iter().zip(texts);
        let text = sizes
            .filter(|(of, _)| *of == size)
            .map(|(_, text)| text.clone())
            .next();
        let text = text.unwrap_or_else(|| self.text(size).into());
        let query = rows
            .iter()
            .fold(sqlx::query(AssertSqlSafe(text)), |query, row| {
                bind(query, row)
            });
        let missing = size.saturating_sub(rows.len()) * self.parameters;
        (0..missing).fold(query, |query, _| query.bind(None::<i64>))
    }
}
