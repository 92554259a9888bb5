//! Pages: a bounded number of items and an opaque cursor to the next ones.

use super::problem::Problem;
use ackline_shared::page::{Bound, Gathered};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

const LIMIT_DEFAULT: u32 = 50;
/// Bytes on a page, about; it may therefore be shorter than asked for, and a single larger item is a page of its own.
const BYTES_MAX: usize = 1 << 20;
/// Most items on a page.
pub const LIMIT_MAX: u32 = 200;

/// One page.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<String>,
}

impl<T> Page<T> {
    /// Makes a page of what was read of it.
    pub fn new<R>(rows: Gathered<R>, cursor: impl Fn(&R) -> String, item: impl Fn(R) -> T) -> Self {
        let next_cursor = rows
            .items
            .last()
            .filter(|_| rows.more)
            .map(|last| encode(&cursor(last)));
        Self {
            items: rows.items.into_iter().map(item).collect(),
            next_cursor,
        }
    }
}

/// Checks a page size, and says how much fits.
pub fn bound(wanted: Option<u32>) -> Result<Bound, Problem> {
    limit(wanted).map(|items| Bound {
        items,
        bytes: BYTES_MAX,
    })
}

/// Checks a page size.
pub fn limit(wanted: Option<u32>) -> Result<u32, Problem> {
    match wanted.unwrap_or(LIMIT_DEFAULT) {
        limit @ 1..=LIMIT_MAX => Ok(limit),
        other => Err(Problem::Malformed(format!(
            "limit: {other} is outside 1 to {LIMIT_MAX}"
        ))),
    }
}

/// Makes a position opaque.
pub fn encode(position: &str) -> String {
    URL_SAFE_NO_PAD.encode(position)
}

/// Reads a position of two parts, the first a number.
pub fn decode(cursor: Option<&str>) -> Result<Option<(u64, String)>, Problem> {
    let Some(text) = decode_text(cursor)? else {
        return Ok(None);
    };
    let read = || {
        let (first, second) = text.split_once(':')?;
        Some((first.parse().ok()?, second.to_owned()))
    };
    read().map(Some).ok_or_else(strange)
}

/// Reads a position.
pub fn decode_text(cursor: Option<&str>) -> Result<Option<String>, Problem> {
    let read = |cursor| String::from_utf8(URL_SAFE_NO_PAD.decode(cursor).ok()?).ok();
    let text = cursor.map(|cursor| read(cursor).ok_or_else(strange));
    text.transpose()
}

fn strange() -> Problem {
    Problem::Malformed("cursor: use the next_cursor of a page as it is".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_nothing_follows_is_the_last() {
        let page = |more| {
            Page::new(
                Gathered {
                    items: vec![1, 2],
                    more,
                },
                ToString::to_string,
                |row| row,
            )
        };
        assert_eq!(page(false).next_cursor, None);
        assert_eq!(page(true).next_cursor, Some(encode("2")));
    }

    #[test]
    fn a_cursor_reads_back_and_anything_else_is_refused() {
        assert_eq!(
            decode(Some(&encode("17:c_1:x"))).unwrap(),
            Some((17, "c_1:x".to_owned()))
        );
        for bad in ["", "!", "17", &encode("x:y"), &encode("17")] {
            assert!(decode(Some(bad)).is_err(), "{bad}");
        }
    }
}
