//! What the spool asks of a disk, so that a test can let it fail.

use std::fs::{File, OpenOptions, remove_file, rename};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Makes files whose names survive power loss.
pub trait Disk: Send + 'static {
    type File: Appending;

    /// Makes an empty file; one of this name that nobody needs is removed first.
    fn create(&self, path: &Path) -> io::Result<Self::File>;

    /// Takes a file that nobody needs any more, under a new name, to be written over from its start: a sync
    /// then has no new blocks and no new size to write down, and waits for nobody else's either.
    fn reuse(&self, spare: &Path, path: &Path) -> io::Result<Self::File>;

    /// Makes the names in a directory durable.
    fn sync_directory(&self, path: &Path) -> io::Result<()>;
}

/// A file that is written once, from its start on.
pub trait Appending: Send {
    /// Writes bytes behind those written before, all or an error.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable. After an error nothing is known of it, and the file must be given up:
    /// the system forgets what it could not write, and says so once.
    fn sync(&mut self) -> io::Result<()>;
}

#[derive(Debug, Clone, Copy)]
pub struct FileSystem;

/// What is spooled is people's messages.
pub const OWNER_ONLY: u32 = 0o600;

impl Disk for FileSystem {
    type File = File;

    fn create(&self, path: &Path) -> io::Result<File> {
        match remove_file(path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY)
            .open(path)
    }

    fn reuse(&self, spare: &Path, path: &Path) -> io::Result<File> {
        rename(spare, path)?;
        OpenOptions::new().write(true).open(path)
    }

    fn sync_directory(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }
}

impl Appending for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
}
