//! How SQLite carries out what is asked of it: by an index, and by every index that there is.

use super::super::{contact, held, load, query, save, store};
use super::*;
use sqlx::Row;
use std::collections::BTreeSet;

fn statements() -> Vec<String> {
    let read = [
        &load::MESSAGES,
        &load::HELD,
        &load::CONTACTS,
        &load::CONVERSATIONS,
    ];
    let many = read.into_iter().chain(save::ALL).map(|many| many.text(3));
    let one = [
        query::MESSAGE,
        query::MESSAGE_BY_WAMID,
        query::MESSAGES,
        query::CONVERSATIONS,
        query::CONVERSATIONS_OF_NUMBER,
        query::CONVERSATION,
        query::CONVERSATION_ID,
        query::CONVERSATION_ID_BY_ALIAS,
        held::REPORTED,
        load::SEEN,
    ];
    let one = one.into_iter().chain(contact::MERGE).chain(store::PRUNE);
    many.chain(one.map(str::to_owned)).collect()
}

#[tokio::test]
async fn every_statement_finds_its_rows_by_an_index_and_every_index_is_used() {
    let (_directory, journal) = open().await;
    let writer = journal.database().unwrap().writer.clone();
    let texts = |rows: Vec<sqlx::sqlite::SqliteRow>, column: &'static str| -> Vec<String> {
        rows.iter().map(|row| row.get(column)).collect()
    };
    let mut steps = Vec::new();
    for statement in statements() {
        let plan = sqlx::AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}"));
        let rows = sqlx::query(plan).fetch_all(&writer).await.unwrap();
        for step in texts(rows, "detail") {
            // The lists of keys and of changes, and SQLite's own lists of what to change.
            let lists = [
                "SCAN k",
                "SCAN n",
                "SCAN CONSTANT ROW",
                "SCAN 3 CONSTANT ROWS",
                "SCAN 3-ROW VALUES CLAUSE",
            ];
            let is_list = lists.contains(&step.as_str());
            assert!(!step.starts_with("SCAN") || is_list, "{step}: {statement}");
            assert!(
                !step.ends_with("(tenant=?)"),
                "all of a tenant's: {step}: {statement}"
            );
            assert!(!step.contains("TEMP B-TREE"), "{step}: {statement}");
            steps.push(step);
        }
    }
    let indexes = "SELECT name FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL";
    let indexes = texts(
        sqlx::query(indexes).fetch_all(&writer).await.unwrap(),
        "name",
    );
    let unused: BTreeSet<_> = indexes
        .into_iter()
        .filter(|name| {
            !steps
                .iter()
                .any(|step| step.contains(&format!("INDEX {name} ")))
        })
        .collect();
    assert_eq!(unused, BTreeSet::new());
}
