//! The spool on a disk that fails, fills up, tears or is taken, in front of a log in memory.

use crate::memory_log::MemoryLog;
use ackline_ingress::metrics::Metrics;
use ackline_ingress::store::acknowledged::Acknowledged;
use ackline_ingress::store::spool::Spool;
use ackline_ingress::store::spool::directory::{Directory, SpoolError};
use ackline_ingress::store::spool::disk::{Appending, Disk, FileSystem};
use ackline_ingress::store::spool::log::{SpoolAccess, SpooledLog};
use ackline_ingress::store::spool::segment::{FRAME_BYTES, HEADER_BYTES};
use ackline_ingress::store::spool::settings::SpoolSettings;
use ackline_ingress::store::{StoreError, Update, UpdateLog};
use ackline_ingress_testkit::spool::check;
use ackline_shared::envelope::{Family, Head};
use ackline_shared::ids::{ConversationKey, TenantId, UpdateId};
use ackline_shared::subjects::{Class, Partition};
use bytes::Bytes;
use proptest::prelude::*;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};
use tempfile::TempDir;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

const SOON: Duration = Duration::from_secs(20);

/// The file system, as long as it is well.
#[derive(Debug, Clone, Default)]
struct Ailing {
    sync_fails: Arc<AtomicBool>,
    is_full: Arc<AtomicBool>,
}

struct AilingFile(File, Ailing, bool);

impl Disk for Ailing {
    type File = AilingFile;

    fn create(&self, path: &Path) -> io::Result<AilingFile> {
        Ok(AilingFile(FileSystem.create(path)?, self.clone(), false))
    }

    fn reuse(&self, spare: &Path, path: &Path) -> io::Result<AilingFile> {
        Ok(AilingFile(
            FileSystem.reuse(spare, path)?,
            self.clone(),
            false,
        ))
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        FileSystem.sync_directory(path)
    }
}

impl Appending for AilingFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        assert!(!self.2, "a file that failed is written again");
        if self.1.is_full.load(Ordering::SeqCst) {
            self.2 = true;
            // A full disk takes what still fits.
            self.0.write_all(&bytes[..bytes.len() / 2])?;
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        assert!(!self.2, "a file that failed is synced again");
        if self.1.sync_fails.load(Ordering::SeqCst) {
            self.2 = true;
            return Err(io::Error::other("EIO"));
        }
        self.0.sync_data()
    }
}

/// An edge's log over a spool, without the edge.
struct Stand {
    spool: Spool,
    log: SpooledLog<MemoryLog>,
    behind: Arc<MemoryLog>,
    ended: oneshot::Receiver<()>,
}

fn settings(directory: &Path) -> SpoolSettings {
    SpoolSettings {
        always: false,
        directory: directory.to_owned(),
        bytes_max: 1 << 20,
        segment_bytes: 4 << 10,
        memory_bytes_max: 8 << 10,
        keep: Duration::from_secs(60),
        lag_max: Duration::ZERO,
    }
}

impl Stand {
    fn open(settings: &SpoolSettings, disk: impl Disk) -> Result<Self, SpoolError> {
        let metrics = Metrics::new();
        let (spool, ended) = Spool::open(settings, disk, SOON, metrics.clone())?;
        let handle = spool.handle();
        tokio::spawn(handle.clone().serve());
        let behind = Arc::new(MemoryLog::new());
        let beside = SpoolAccess {
            handle,
            acknowledged: Arc::new(Acknowledged::new(1024)),
            metrics,
        };
        let log = SpooledLog::new(behind.clone(), Some(beside));
        Ok(Self {
            spool,
            log,
            behind,
            ended,
        })
    }

    /// Starts to publish what is spooled.
    fn drain(&self) {
        let drain = self.spool.drain(self.behind.clone(), watch::channel(0).1);
        tokio::spawn(drain.run());
    }

    async fn store(&self, numbers: impl IntoIterator<Item = u64>) -> Result<(), StoreError> {
        self.log
            .store(
                numbers
                    .into_iter()
                    .map(update)
                    .collect::<Vec<_>>()
                    .into_iter(),
            )
            .await
    }

    async fn end(self) {
        self.spool.stop();
        timeout(SOON, self.ended).await.unwrap().unwrap_err();
    }
}

fn update(number: u64) -> Update {
    let head = Head {
        id: UpdateId::new(&format!("wamid.{number}")),
        tenant: TenantId::new("acme").unwrap(),
        partition: Partition(1),
        family: Family::Update(Class::Message),
        kind: "message.text".into(),
        app: None,
        phone: None,
        conversation: ConversationKey::phone(&(number % 7).to_string()),
        received_ms: number,
        signature: None,
        traceparent: None,
        field: None,
        replay: None,
    };
    Update {
        head,
        payload: Bytes::from(vec![b' '; 200]),
    }
}

fn numbers(log: &MemoryLog) -> Vec<u64> {
    log.stored()
        .iter()
        .map(|update| update.head.received_ms)
        .collect()
}

/// What a restart finds.
fn left(directory: &Path) -> Result<u64, SpoolError> {
    Directory::open(directory)?
        .recover()
        .map(|recovered| recovered.records)
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "spool"));
    paths.sort();
    paths
}

/// Files go a while after they are drained.
async fn until_removed(directory: &Path) {
    let looking = async {
        while !files(directory).is_empty() {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, looking).await.unwrap();
}

/// A directory in which three groups lie: updates 1, 2 to 3, and 4.
async fn three_groups() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let stand = Stand::open(&settings(directory.path()), FileSystem).unwrap();
    stand.behind.fail_with(StoreError::Away);
    for group in [vec![1], vec![2, 3], vec![4]] {
        stand.store(group).await.unwrap();
    }
    stand.end().await;
    directory
}

#[tokio::test]
async fn what_is_spooled_is_published_in_order_and_its_files_go() {
    let directory = tempfile::tempdir().unwrap();
    let stand = Stand::open(&settings(directory.path()), FileSystem).unwrap();
    stand.store([0]).await.unwrap();
    assert_eq!(
        (numbers(&stand.behind), files(directory.path()).len()),
        (vec![0], 0)
    );
    stand.behind.fail_with(StoreError::Away);
    for number in 1..200 {
        stand.store([number]).await.unwrap();
    }
    assert!(files(directory.path()).len() > 10);
    assert_eq!(
        (
            stand.spool.depth().records,
            stand.spool.depth().state.as_str()
        ),
        (199, "spooling")
    );
    stand.drain();
    stand.behind.recover();
    // What comes meanwhile goes behind.
    stand.store(200..210).await.unwrap();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    stand.store([210]).await.unwrap();
    let stored = numbers(&stand.behind);
    for person in 0..7 {
        let theirs: Vec<_> = stored
            .iter()
            .filter(|number| *number % 7 == person)
            .collect();
        assert!(theirs.is_sorted(), "{theirs:?}");
    }
    assert_eq!(stored.len(), 211);
    until_removed(directory.path()).await;
    stand.end().await;
}

/// How many files lie aside to be written over.
fn spares(directory: &Path) -> usize {
    let entries = fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|kind| kind == "spare"))
        .count()
}

#[tokio::test]
async fn drained_files_are_written_over_within_the_bound_and_only_what_is_new_in_them_counts() {
    let directory = tempfile::tempdir().unwrap();
    let stand = Stand::open(&settings(directory.path()), FileSystem).unwrap();
    stand.behind.fail_with(StoreError::Away);
    for number in 1..500 {
        stand.store([number]).await.unwrap();
    }
    stand.drain();
    stand.behind.recover();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    until_removed(directory.path()).await;
    // A quarter of a mebibyte is 64 files of 4 KiB; there were fewer.
    let aside = spares(directory.path());
    assert!((20..=64).contains(&aside), "{aside} files lie aside");
    stand.behind.fail_with(StoreError::Away);
    for number in 500..550 {
        stand.store([number]).await.unwrap();
    }
    let used = files(directory.path()).len();
    assert_eq!(spares(directory.path()), aside - used);
    stand.end().await;
    let again = Stand::open(&settings(directory.path()), FileSystem).unwrap();
    assert_eq!(
        (again.spool.depth().records, spares(directory.path())),
        (50, 0)
    );
    again.drain();
    timeout(SOON, again.spool.emptied()).await.unwrap();
    assert_eq!(again.behind.stored().len(), 50);
}

#[tokio::test]
async fn publishing_stands_back_while_the_edge_is_busy_and_not_for_ever() {
    let directory = tempfile::tempdir().unwrap();
    let patient = SpoolSettings {
        always: true,
        lag_max: Duration::from_secs(2),
        ..settings(directory.path())
    };
    let stand = Stand::open(&patient, FileSystem).unwrap();
    stand.drain();
    let busy = tokio::spawn(async {
        loop {
            std::hint::black_box((0..10_000).sum::<u64>());
            tokio::task::yield_now().await;
        }
    });
    let fresh = |number| {
        let now = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let head = Head {
            received_ms: now,
            ..update(number).head
        };
        std::iter::once(Update {
            head,
            ..update(number)
        })
    };
    // The first look at the thread, some time after the start, tells nothing yet.
    sleep(Duration::from_millis(100)).await;
    stand.log.store(fresh(0)).await.unwrap();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    sleep(Duration::from_millis(100)).await;
    let came = Instant::now();
    stand.log.store(fresh(1)).await.unwrap();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    assert!(
        came.elapsed() >= Duration::from_millis(1_900),
        "published after {:?}",
        came.elapsed()
    );
    busy.abort();
    sleep(Duration::from_millis(100)).await;
    let came = Instant::now();
    stand.log.store(fresh(2)).await.unwrap();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    assert!(
        came.elapsed() < Duration::from_millis(1_900),
        "published after {:?}",
        came.elapsed()
    );
}

#[tokio::test]
async fn a_crash_loses_nothing_and_the_next_process_goes_on() {
    let directory = three_groups().await;
    let stand = Stand::open(&settings(directory.path()), FileSystem).unwrap();
    assert_eq!(
        (
            stand.spool.depth().records,
            stand.spool.depth().state.as_str()
        ),
        (4, "spooling")
    );
    // Behind what the other left, although the log could be reached.
    stand.store([11]).await.unwrap();
    stand.drain();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    assert_eq!(numbers(&stand.behind), [1, 2, 3, 4, 11]);
}

#[tokio::test]
async fn a_torn_tail_is_cut_off_and_what_was_acknowledged_stays() {
    let directory = three_groups().await;
    let path = &files(directory.path())[0];
    let whole = fs::read(path).unwrap();
    for torn in [1, FRAME_BYTES + 3] {
        let mut bytes = whole.clone();
        bytes.truncate(whole.len() - torn);
        fs::write(path, &bytes).unwrap();
        assert_eq!(left(directory.path()).unwrap(), 3);
        assert!(fs::metadata(path).unwrap().len() < bytes.len() as u64);
        assert_eq!(left(directory.path()).unwrap(), 3);
    }
    let mut junk = whole.clone();
    junk.extend([7; 100]);
    fs::write(path, &junk).unwrap();
    assert_eq!(left(directory.path()).unwrap(), 4);
    // A file that was only begun.
    fs::write(
        directory.path().join("00000000000000000005.spool"),
        &whole[..HEADER_BYTES / 2],
    )
    .unwrap();
    assert_eq!(
        (
            left(directory.path()).unwrap(),
            files(directory.path()).len()
        ),
        (4, 1)
    );
}

#[tokio::test]
async fn damage_to_what_was_acknowledged_stops_the_start_and_names_the_file() {
    let directory = three_groups().await;
    let path = files(directory.path())[0].clone();
    let whole = fs::read(&path).unwrap();
    let mut damaged = whole.clone();
    damaged[HEADER_BYTES + FRAME_BYTES + 10] ^= 1;
    fs::write(&path, &damaged).unwrap();
    let error = left(directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("00000000000000000001.spool") && error.contains("byte 24"),
        "{error}"
    );
    fs::write(&path, &whole).unwrap();
    // The next file shows that this one was longer.
    let next = directory.path().join("00000000000000000009.spool");
    fs::write(&next, ackline_ingress::store::spool::segment::header(9)).unwrap();
    let error = left(directory.path()).unwrap_err().to_string();
    assert!(
        error.contains("ends at update 5") && error.contains("begins at 9"),
        "{error}"
    );
}

#[tokio::test]
async fn two_processes_cannot_have_one_directory() {
    let directory = tempfile::tempdir().unwrap();
    let first = Stand::open(&settings(directory.path()), FileSystem).unwrap();
    let error = Directory::open(directory.path()).unwrap_err();
    assert!(matches!(error, SpoolError::InUse(_)), "{error}");
    first.end().await;
    Directory::open(directory.path()).unwrap();
}

#[tokio::test]
async fn a_failed_sync_is_never_a_200_and_its_file_is_never_touched_again() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Ailing::default();
    let stand = Stand::open(&settings(directory.path()), disk.clone()).unwrap();
    stand.behind.fail_with(StoreError::Away);
    stand.store([1]).await.unwrap();
    disk.sync_fails.store(true, Ordering::SeqCst);
    assert_eq!(stand.store([2]).await, Err(StoreError::SpoolFailed));
    assert!(stand.spool.depth().fault.is_some());
    disk.sync_fails.store(false, Ordering::SeqCst);
    until_stored(&stand, 3).await;
    assert_eq!(
        (
            files(directory.path()).len(),
            stand.spool.depth().fault.as_deref()
        ),
        (2, None)
    );
    // What was refused may be there all the same: nobody was told so. What was acknowledged must be.
    stand.drain();
    stand.behind.recover();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    assert_eq!(numbers(&stand.behind), [1, 3]);
    until_removed(directory.path()).await;
    // Only the other file is laid aside to be written over.
    assert!(directory.path().join("00000000000000000002.spare").exists());
    assert_eq!(spares(directory.path()), 1);
}

#[tokio::test]
async fn a_full_disk_is_never_a_200_and_what_it_took_of_a_group_does_not_count() {
    let directory = tempfile::tempdir().unwrap();
    let disk = Ailing::default();
    let stand = Stand::open(&settings(directory.path()), disk.clone()).unwrap();
    stand.behind.fail_with(StoreError::Away);
    stand.store([1]).await.unwrap();
    disk.is_full.store(true, Ordering::SeqCst);
    assert_eq!(
        stand.store([2, 3, 4, 5]).await,
        Err(StoreError::SpoolFailed)
    );
    disk.is_full.store(false, Ordering::SeqCst);
    until_stored(&stand, 6).await;
    stand.end().await;
    let again = Stand::open(&settings(directory.path()), FileSystem).unwrap();
    again.drain();
    timeout(SOON, again.spool.emptied()).await.unwrap();
    assert_eq!(numbers(&again.behind), [1, 6]);
}

/// The disk is tried again a while after it failed.
async fn until_stored(stand: &Stand, number: u64) {
    let trying = async {
        while stand.store([number]).await == Err(StoreError::SpoolFailed) {
            sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(SOON, trying).await.unwrap();
}

#[tokio::test]
async fn a_full_spool_refuses_until_it_is_drained() {
    let directory = tempfile::tempdir().unwrap();
    let small = SpoolSettings {
        bytes_max: 16 << 10,
        ..settings(directory.path())
    };
    let stand = Stand::open(&small, FileSystem).unwrap();
    stand.behind.fail_with(StoreError::Away);
    let mut number = 0;
    while stand.store([number]).await != Err(StoreError::SpoolFull) {
        number += 1;
        assert!(number < 100, "16 KiB hold 100 updates of 200 bytes");
    }
    assert!(stand.spool.depth().held_bytes <= 16 << 10);
    assert_eq!(stand.store([number]).await, Err(StoreError::SpoolFull));
    stand.behind.recover();
    stand.drain();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    stand.store([number]).await.unwrap();
    assert_eq!(stand.behind.stored().len() as u64, number + 1);
}

#[tokio::test]
async fn an_update_too_large_for_nats_is_set_aside_and_holds_up_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let always = SpoolSettings {
        always: true,
        ..settings(directory.path())
    };
    let stand = Stand::open(&always, FileSystem).unwrap();
    stand.behind.refuse_longer_than(200);
    let large = Update {
        payload: Bytes::from(vec![b' '; 201]),
        ..update(2)
    };
    stand
        .log
        .store([update(1), large, update(3)].into_iter())
        .await
        .unwrap();
    stand.drain();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    assert_eq!(numbers(&stand.behind), [1, 3]);
    assert!(
        directory
            .path()
            .join("00000000000000000002.refused")
            .exists()
    );
}

#[tokio::test]
async fn what_is_kept_is_published_again_when_nats_is_found_again() {
    let directory = tempfile::tempdir().unwrap();
    let always = SpoolSettings {
        always: true,
        ..settings(directory.path())
    };
    let stand = Stand::open(&always, FileSystem).unwrap();
    let (found, connections) = watch::channel(0);
    tokio::spawn(stand.spool.drain(stand.behind.clone(), connections).run());
    for number in 1..40 {
        stand.store([number]).await.unwrap();
    }
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    assert_eq!(stand.behind.stored().len(), 39);
    found.send_replace(1);
    let again = async {
        while stand.behind.stored().len() < 78 {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, again).await.unwrap();
    stand.store([40]).await.unwrap();
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    assert_eq!(*numbers(&stand.behind).last().unwrap(), 40);
    // A repeat of what was acknowledged costs nothing.
    stand.store([40]).await.unwrap();
    assert_eq!(stand.spool.depth().records, 0);
}

#[tokio::test]
async fn what_is_published_again_is_not_let_go_before_it_is_read() {
    let directory = tempfile::tempdir().unwrap();
    // Longer than a slow disk takes for all of this.
    let keep = Duration::from_secs(2);
    let always = SpoolSettings {
        always: true,
        keep,
        ..settings(directory.path())
    };
    let stand = Stand::open(&always, FileSystem).unwrap();
    let (found, connections) = watch::channel(0);
    tokio::spawn(stand.spool.drain(stand.behind.clone(), connections).run());
    // Twice as many as are read ahead, a file for each hundred.
    for group in 0..20 {
        stand.store(group * 100..(group + 1) * 100).await.unwrap();
    }
    timeout(SOON, stand.spool.emptied()).await.unwrap();
    stand.behind.fail_with(StoreError::Away);
    found.send_replace(1);
    // Longer than the first files are kept.
    sleep(keep + keep / 2).await;
    let kept = files(directory.path()).len();
    stand.behind.recover();
    until_removed(directory.path()).await;
    // What is read may still be on its way.
    let again = async {
        while !numbers(&stand.behind).split_off(2_000).contains(&1_999) {
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(SOON, again)
        .await
        .expect("the last is published again");
    assert!((8..=12).contains(&kept), "{kept} files were kept");
    assert!(stand.behind.stored().len() > 2_000 + 1_024);
}

#[test]
fn the_corpus_of_the_fuzz_target_holds_every_invariant() {
    let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/corpus/spool");
    let mut found = Vec::new();
    for file in fs::read_dir(directory).unwrap() {
        let path = file.unwrap().path();
        let checked = check(&fs::read(&path).unwrap());
        found.push(checked.unwrap_or_else(|broken| panic!("{}: {broken}", path.display())));
    }
    assert!(
        found.len() >= 20,
        "the corpus has only {} files",
        found.len()
    );
    assert!(
        found.iter().any(|frames| *frames > 3),
        "no file of the corpus is a segment"
    );
}

proptest! {
    #[test]
    fn no_bytes_break_what_holds_for_files(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        prop_assert_eq!(check(&bytes).err(), None);
    }
}
