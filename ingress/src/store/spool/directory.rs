//! The spool's directory: one process holds it, and what an earlier one left in it is found again.
//!
//! What was never acknowledged, at the torn end of the last file, is cut off. Damage to what was stops the
//! start: only the operator can decide to go on without it.

use super::record;
use super::segment::{self, Damage, Scan};
use bytes::Bytes;
use std::collections::VecDeque;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

const LOCK: &str = "lock";
const EXTENSION: &str = "spool";
/// Of files to be written over, which hold nothing that counts.
const SPARE_EXTENSION: &str = "spare";

/// Why the spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The directory or a file of it cannot be read or written.
    #[error("spool.directory: {path}: {source}", path = path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error(
        "spool.directory: {} is in use by another process; give each edge a directory of its own", .0.display()
    )]
    InUse(PathBuf),
    /// Acknowledged updates cannot be read.
    #[error(
        "the spool is damaged: {path}: {damage}. Acknowledged updates are lost from there on in this file: restore it, or move it away to go on without what is in it",
        path = path.display()
    )]
    Damaged { path: PathBuf, damage: Damage },
    /// Acknowledged updates are not there.
    #[error(
        "the spool is damaged: {path} ends at update {ends}, and the next file begins at {begins}. Restore what is missing, or move {path} away to go on without it",
        path = path.display()
    )]
    Gap {
        /// The file that is too short.
        path: PathBuf,
        /// The first sequence that is missing.
        ends: u64,
        /// The first that is there again.
        begins: u64,
    },
    /// A whole record that this version cannot read.
    #[error("{path}: record {sequence} is whole and unknown; was it written by a newer version?", path = path.display())]
    Unknown { path: PathBuf, sequence: u64 },
    /// No thread for the writer.
    #[error("the spool cannot start its thread: {0}")]
    Thread(io::Error),
}

/// A file with synced frames.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Sequence of its first frame.
    pub first: u64,
    /// Sequence after its last one.
    pub next: u64,
    pub path: PathBuf,
    pub bytes: u64,
}

/// What an earlier run left.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    pub segments: VecDeque<Segment>,
    /// The sequence that comes next.
    pub next: u64,
    /// Everything before is known to be stored in JetStream.
    pub drained: u64,
    pub records: u64,
    pub bytes: u64,
    /// Bytes of an update that was not finished, and so not acknowledged.
    pub cut_bytes: u64,
}

/// The directory, held by this process until it is dropped.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    _lock: File,
}

impl Directory {
    /// Makes and locks the directory.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        let failed = |source| SpoolError::Io {
            path: path.to_owned(),
            source,
        };
        fs::create_dir_all(path).map_err(failed)?;
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path.join(LOCK));
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self {
                path: path.to_owned(),
                _lock: lock,
            }),
            Err(TryLockError::WouldBlock) => Err(SpoolError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file whose first frame has this sequence.
    pub fn file(&self, first: u64) -> PathBuf {
        self.path.join(format!("{first:020}.{EXTENSION}"))
    }

    /// What a file is called while it waits to be written over.
    pub fn spare(&self, first: u64) -> PathBuf {
        self.path.join(format!("{first:020}.{SPARE_EXTENSION}"))
    }

    /// Finds what an earlier run left, and cuts off what it did not finish.
    pub fn recover(&self) -> Result<Recovered, SpoolError> {
        for (_, spare) in self.list(SPARE_EXTENSION)? {
            fs::remove_file(&spare).map_err(|source| SpoolError::Io {
                path: spare.clone(),
                source,
            })?;
        }
        let files = self.list(EXTENSION)?;
        let mut recovered = Recovered {
            next: 1,
            drained: 1,
            ..Recovered::default()
        };
        let mut left: Vec<(u64, u64)> = Vec::new();
        for (place, (first, path)) in files.iter().enumerate() {
            let failed = |source| SpoolError::Io {
                path: path.clone(),
                source,
            };
            let bytes = Bytes::from(fs::read(path).map_err(failed)?);
            let scan = segment::scan(&bytes, *first).map_err(|damage| SpoolError::Damaged {
                path: path.clone(),
                damage,
            })?;
            let successor = files.get(place + 1).map(|(first, _)| *first);
            if let Some(begins) = successor.filter(|begins| *begins > scan.next) {
                return Err(SpoolError::Gap {
                    path: path.clone(),
                    ends: scan.next,
                    begins,
                });
            }
            // What the next file holds again was not acknowledged from this one.
            let next = successor.unwrap_or(scan.next);
            check_records(&bytes, &scan, next, path, &mut left)?;
            let labels = scan
                .frames
                .iter()
                .take_while(|frame| frame.header.sequence < next);
            recovered.drained = labels
                .map(|frame| frame.header.drained)
                .fold(recovered.drained, u64::max);
            if successor.is_none() {
                recovered.cut_bytes = cut(path, &bytes, &scan).map_err(failed)?;
            }
            recovered.next = next;
            if next > *first {
                let bytes = u64::try_from(scan.end).unwrap_or(u64::MAX);
                recovered.segments.push_back(Segment {
                    first: *first,
                    next,
                    path: path.clone(),
                    bytes,
                });
            } else {
                fs::remove_file(path).map_err(failed)?;
            }
        }
        recovered.drained = recovered
            .segments
            .front()
            .map_or(recovered.next, |front| front.first.max(recovered.drained));
        left.retain(|(sequence, _)| *sequence >= recovered.drained);
        recovered.records = left.len().try_into().unwrap_or(u64::MAX);
        recovered.bytes = left.iter().map(|(_, bytes)| bytes).sum();
        Ok(recovered)
    }

    /// The files of a kind, oldest first.
    fn list(&self, kind: &str) -> Result<Vec<(u64, PathBuf)>, SpoolError> {
        let failed = |source| SpoolError::Io {
            path: self.path.clone(),
            source,
        };
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let first = stem.and_then(|stem| stem.parse::<u64>().ok());
            let is_one = path.extension().is_some_and(|extension| extension == kind);
            files.extend(first.filter(|_| is_one).map(|first| (first, path)));
        }
        files.sort();
        Ok(files)
    }
}

/// Makes sure that every record below `next` can be read, and notes its size.
fn check_records(
    bytes: &Bytes,
    scan: &Scan,
    next: u64,
    path: &Path,
    left: &mut Vec<(u64, u64)>,
) -> Result<(), SpoolError> {
    for frame in scan
        .frames
        .iter()
        .take_while(|frame| frame.header.sequence < next)
    {
        let sequence = frame.header.sequence;
        if frame.record.is_empty() {
            continue;
        }
        if record::decode(&bytes.slice(frame.record.clone())).is_none() {
            return Err(SpoolError::Unknown {
                path: path.to_owned(),
                sequence,
            });
        }
        left.push((sequence, frame.record.len().try_into().unwrap_or(u64::MAX)));
    }
    Ok(())
}

fn cut(path: &Path, bytes: &Bytes, scan: &Scan) -> io::Result<u64> {
    if bytes.len() > scan.end {
        let file = OpenOptions::new().write(true).open(path)?;
        file.set_len(u64::try_from(scan.end).unwrap_or(u64::MAX))?;
        file.sync_all()?;
    }
    Ok(segment::unfinished(bytes, scan))
}
