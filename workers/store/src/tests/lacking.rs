//! A file that is new although the log was read before.

use super::*;
use ackline_runtime::batch::BatchJob;

#[tokio::test]
async fn a_new_file_says_what_it_lacks_when_the_log_was_read_before_until_it_is_begun_anew() {
    let (_directory, journal) = written(&Log::new().queued("m1")).await;
    journal.resumes().await;
    assert_eq!(
        journal.lacks_before().await.unwrap(),
        None,
        "it has all that was read"
    );

    let (directory, journal) = open().await;
    journal.resumes().await;
    let lacks = journal.lacks_before().await.unwrap();
    assert!(lacks.is_some());
    journal
        .write_batch(&Log::new().queued("m2").works)
        .await
        .unwrap();
    journal.close().await;
    let url = format!(
        "sqlite://{}/deep/down/journal.db",
        directory.path().display()
    );
    let again = Journal::open(&url).await.unwrap();
    assert_eq!(
        again.lacks_before().await.unwrap(),
        lacks,
        "also after a restart"
    );

    again.begin_anew("order").await.unwrap();
    assert_eq!(again.lacks_before().await.unwrap(), None);
    // A crash before the order was noted: the consumer is still the one of before, and the order is carried out again.
    again.resumes().await;
    assert!(again.lacks_before().await.unwrap().is_some());
    again.begin_anew("order").await.unwrap();
    again
        .write_batch(&Log::new().queued("m2").works)
        .await
        .unwrap();
    assert_eq!(again.lacks_before().await.unwrap(), None);
}

#[tokio::test]
async fn a_file_of_an_earlier_version_lacks_nothing() {
    let (directory, journal) = written(&Log::new().queued("m1")).await;
    let writer = journal.database().unwrap().writer.clone();
    for undone in [
        "DROP TABLE notes",
        "DELETE FROM _sqlx_migrations WHERE version = (SELECT max(version) FROM _sqlx_migrations)",
    ] {
        sqlx::query(undone).execute(&writer).await.unwrap();
    }
    drop(writer);
    journal.close().await;
    let url = format!(
        "sqlite://{}/deep/down/journal.db",
        directory.path().display()
    );
    let journal = Journal::open(&url).await.unwrap();
    journal.resumes().await;
    assert_eq!(journal.lacks_before().await.unwrap(), None);
}
