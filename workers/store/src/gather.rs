//! Rows read one by one until a page is full: what does not fit is not fetched.

use super::store::JournalError;
use ackline_shared::page::{Bound, Gathered, Weigh};
use futures_util::{Stream, TryStreamExt};
use sqlx::sqlite::SqliteRow;
use std::pin::pin;

/// Reads rows until the page is full.
pub async fn gather<T: Weigh>(
    bound: Bound,
    rows: impl Stream<Item = Result<SqliteRow, sqlx::Error>>,
    read: impl Fn(&SqliteRow) -> Result<T, sqlx::Error>,
) -> Result<Gathered<T>, JournalError> {
    let (mut page, mut rows) = (bound.fill(), pin!(rows));
    while let Some(row) = rows.try_next().await? {
        if !page.add(read(&row)?) {
            break;
        }
    }
    Ok(page.end())
}
