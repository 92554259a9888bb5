//! Reads synced frames back from a file, one after another.
//!
//! What was synced stays as it is while the writer goes on behind it. What lies behind may be of an earlier
//! use of the file, so nothing read ahead of it is kept from one read to the next.

use super::segment::{self, FRAME_BYTES, HEADER_BYTES};
use bytes::Bytes;
use std::fs::File;
use std::io::{self, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

/// What is read ahead of a file at once.
const BUFFER_BYTES: usize = 256 << 10;

/// A file being read, if any.
#[derive(Debug, Default)]
pub struct Reader(Option<Open>);

#[derive(Debug)]
struct Open {
    path: PathBuf,
    file: BufReader<File>,
    next: u64,
}

impl Reader {
    /// Reads the records from `cursor` to `until`, but about `bytes_max` bytes at most, of the file that
    /// begins with `first`.
    pub fn read(
        &mut self,
        path: &Path,
        first: u64,
        (cursor, until): (u64, u64),
        bytes_max: usize,
    ) -> io::Result<Vec<(u64, Bytes)>> {
        let continues = |open: &Open| open.path == path && open.next <= cursor;
        let mut open = match self.0.take().filter(continues) {
            Some(mut open) => {
                let here = open.file.stream_position()?;
                open.file.seek(SeekFrom::Start(here))?;
                open
            }
            None => Open::new(path, first)?,
        };
        let (mut records, mut bytes) = (Vec::new(), 0);
        while open.next < until && bytes < bytes_max {
            let (sequence, record) = open.read()?;
            if sequence >= cursor {
                bytes += FRAME_BYTES + record.len();
                records.push((sequence, record));
            }
        }
        self.0 = Some(open);
        Ok(records)
    }

    /// Lets go of the file.
    pub fn close(&mut self) {
        self.0 = None;
    }
}

impl Open {
    fn new(path: &Path, first: u64) -> io::Result<Self> {
        let mut file = BufReader::with_capacity(BUFFER_BYTES, File::open(path)?);
        let mut header = [0; HEADER_BYTES];
        file.read_exact(&mut header)?;
        if header != segment::header(first) {
            return Err(damaged(first));
        }
        Ok(Self {
            path: path.to_owned(),
            file,
            next: first,
        })
    }

    fn read(&mut self) -> io::Result<(u64, Bytes)> {
        let mut header = [0; FRAME_BYTES];
        self.file.read_exact(&mut header)?;
        let (length, checksum, header) =
            segment::read_frame_header(&header).ok_or_else(|| damaged(self.next))?;
        if header.sequence != self.next {
            return Err(damaged(self.next));
        }
        let mut record = Vec::new();
        let read = (&mut self.file)
            .take(length as u64)
            .read_to_end(&mut record)?;
        if read != length || !segment::is_whole(checksum, header, &record) {
            return Err(damaged(self.next));
        }
        self.next += 1;
        Ok((header.sequence, record.into()))
    }
}

fn damaged(sequence: u64) -> io::Error {
    io::Error::new(
        ErrorKind::InvalidData,
        format!("record {sequence} is damaged"),
    )
}
