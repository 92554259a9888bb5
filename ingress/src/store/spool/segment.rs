//! The bytes of one file of the spool: a header, then frames; and what of them counts after a crash.
//!
//! A frame carries its sequence, the sequence its group began with and a checksum over everything. A group is
//! written only after the group before it was synced, so a frame that is whole proves that whatever came
//! before its group had been synced. That tells a torn tail, of which nothing was acknowledged, from damage
//! to what was. Damage to the last synced group, with nothing after it, looks like a torn tail.
//!
//! A file may be written over when nobody needs it any more. Sequences only grow, so what is left of its earlier
//! use never follows what is there, and never proves anything about it.

use bytes::{Buf, BufMut, Bytes};
use crc::{CRC_32_ISCSI, Crc, Table};
use std::ops::Range;

/// Bytes of a segment's header.
pub const HEADER_BYTES: usize = 24;
/// Bytes of a frame before its record.
pub const FRAME_BYTES: usize = 32;

const MAGIC: &[u8; 8] = b"ACKSPOOL";
const VERSION: u32 = 1;
const CHECKSUM: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// What a frame says beside its record. An empty record is a mark: it only says how far the spool is drained.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// One more than the frame before it.
    pub sequence: u64,
    /// The sequence of the first frame that was synced together with it.
    pub group: u64,
    /// Everything before this sequence is stored in JetStream.
    pub drained: u64,
}

/// A frame found in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it says.
    pub header: FrameHeader,
    /// Where its record lies.
    pub record: Range<usize>,
}

/// The part of a segment that counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scan {
    /// Its frames, with sequences that follow one another.
    pub frames: Vec<Frame>,
    /// The sequence after the last of them.
    pub next: u64,
    /// Where they end; what lies behind was never acknowledged.
    pub end: usize,
}

/// Acknowledged bytes are damaged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the frame at byte {at} is damaged, and it had been synced")]
pub struct Damage {
    /// Where the first bad frame begins.
    pub at: usize,
}

/// Writes the header of a segment whose first frame has this sequence.
pub fn header(first: u64) -> [u8; HEADER_BYTES] {
    let mut out = [0; HEADER_BYTES];
    let mut rest = out.as_mut_slice();
    rest.put_slice(MAGIC);
    rest.put_u32_le(VERSION);
    rest.put_u64_le(first);
    let checksum = CHECKSUM.checksum(out.split_at(HEADER_BYTES - 4).0);
    out.split_at_mut(HEADER_BYTES - 4)
        .1
        .copy_from_slice(&checksum.to_le_bytes());
    out
}

/// Appends a frame.
pub fn write(out: &mut Vec<u8>, header: FrameHeader, record: &[u8]) {
    // A record is bounded far below 4 GiB by the longest body.
    let length = u32::try_from(record.len()).unwrap_or(u32::MAX);
    out.reserve(FRAME_BYTES + record.len());
    out.put_u32_le(length);
    out.put_u32_le(checksum(length, header, record));
    out.put_u64_le(header.sequence);
    out.put_u64_le(header.group);
    out.put_u64_le(header.drained);
    out.put_slice(record);
}

/// Reads the bytes before a record: its length, checksum and header.
pub fn read_frame_header(mut bytes: &[u8]) -> Option<(usize, u32, FrameHeader)> {
    let length = usize::try_from(bytes.try_get_u32_le().ok()?).ok()?;
    let checksum = bytes.try_get_u32_le().ok()?;
    let sequence = bytes.try_get_u64_le().ok()?;
    let group = bytes.try_get_u64_le().ok()?;
    let drained = bytes.try_get_u64_le().ok()?;
    Some((
        length,
        checksum,
        FrameHeader {
            sequence,
            group,
            drained,
        },
    ))
}

/// Whether the checksum is that of the header and the record.
pub fn is_whole(checksum_read: u32, header: FrameHeader, record: &[u8]) -> bool {
    u32::try_from(record.len())
        .is_ok_and(|length| checksum(length, header, record) == checksum_read)
}

fn checksum(length: u32, header: FrameHeader, record: &[u8]) -> u32 {
    let mut digest = CHECKSUM.digest();
    digest.update(&length.to_le_bytes());
    digest.update(&header.sequence.to_le_bytes());
    digest.update(&header.group.to_le_bytes());
    digest.update(&header.drained.to_le_bytes());
    digest.update(record);
    digest.finalize()
}

/// Reads a whole segment whose first frame should have this sequence.
pub fn scan(bytes: &[u8], first: u64) -> Result<Scan, Damage> {
    let mut scan = Scan {
        frames: Vec::new(),
        next: first,
        end: 0,
    };
    if bytes.get(..HEADER_BYTES) == Some(&header(first)) {
        scan.end = HEADER_BYTES;
        while let Some(frame) =
            frame_at(bytes, scan.end).filter(|frame| frame.header.sequence == scan.next)
        {
            (scan.end, scan.next) = (frame.record.end, scan.next.saturating_add(1));
            scan.frames.push(frame);
        }
    }
    if is_synced_before(bytes, &scan) {
        Err(Damage { at: scan.end })
    } else {
        Ok(scan)
    }
}

/// Whether a later frame proves that the one missing at the end of the scan had been synced.
fn is_synced_before(bytes: &[u8], scan: &Scan) -> bool {
    let places = scan.end.saturating_add(1)..bytes.len().saturating_sub(FRAME_BYTES - 1);
    // A sequence that could stand here at all, so that hardly any place is worth a checksum.
    let highest = scan
        .next
        .saturating_add(u64::try_from(bytes.len() / FRAME_BYTES).unwrap_or(u64::MAX));
    places.into_iter().any(|at| {
        let header = bytes
            .get(at..)
            .and_then(read_frame_header)
            .map(|(_, _, header)| header);
        header.is_some_and(|header| {
            header.group > scan.next
                && header.group <= header.sequence
                && header.sequence <= highest
                && frame_at(bytes, at).is_some()
        })
    })
}

/// How many bytes there are of the frame that would come next; what an earlier use of the file left is none.
pub fn unfinished(bytes: &[u8], scan: &Scan) -> u64 {
    let rest = bytes.get(scan.end..).unwrap_or_default();
    let header = read_frame_header(rest).filter(|(_, _, header)| header.sequence == scan.next);
    let length = header.map_or(0, |(length, ..)| {
        rest.len().min(FRAME_BYTES.saturating_add(length))
    });
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn frame_at(bytes: &[u8], at: usize) -> Option<Frame> {
    let (length, checksum, header) = read_frame_header(bytes.get(at..)?)?;
    let start = at.checked_add(FRAME_BYTES)?;
    let record = start..start.checked_add(length)?;
    is_whole(checksum, header, bytes.get(record.clone())?).then_some(Frame { header, record })
}

/// The records of a scan that are not marks.
pub fn records(bytes: &Bytes, scan: &Scan) -> Vec<Bytes> {
    let places = scan.frames.iter().map(|frame| frame.record.clone());
    places
        .filter(|place| !place.is_empty())
        .map(|place| bytes.slice(place))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A segment of groups of records, and where each frame ends.
    fn segment(first: u64, groups: &[Vec<Vec<u8>>]) -> (Vec<u8>, Vec<usize>) {
        let (mut out, mut ends) = (header(first).to_vec(), Vec::new());
        let mut sequence = first;
        for records in groups {
            let group = sequence;
            for record in records {
                write(
                    &mut out,
                    FrameHeader {
                        sequence,
                        group,
                        drained: 0,
                    },
                    record,
                );
                ends.push(out.len());
                sequence += 1;
            }
        }
        (out, ends)
    }

    fn groups() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let record = prop::collection::vec(any::<u8>(), 0..40);
        prop::collection::vec(prop::collection::vec(record, 1..4), 0..6)
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(groups in groups(), first in 1..u64::MAX / 2) {
            let (bytes, ends) = segment(first, &groups);
            let scan = scan(&bytes, first).unwrap();
            prop_assert_eq!(scan.next, first + ends.len() as u64);
            prop_assert_eq!(scan.end, bytes.len());
            let read: Vec<_> = scan.frames.iter().map(|frame| &bytes[frame.record.clone()]).collect();
            prop_assert_eq!(read, groups.iter().flatten().map(Vec::as_slice).collect::<Vec<_>>());
        }

        #[test]
        fn a_torn_tail_leaves_the_frames_before_it(groups in groups(), cut in any::<prop::sample::Index>(), junk in 0..50_usize) {
            let (mut bytes, ends) = segment(7, &groups);
            let cut = cut.index(bytes.len() + 1);
            bytes.truncate(cut);
            bytes.extend(std::iter::repeat_n(0, junk));
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let scan = scan(&bytes, 7).unwrap();
            let read = scan.frames.iter().map(|frame| &bytes[frame.record.clone()]);
            // Zeroes may complete a record that ends in zeroes.
            prop_assert!(scan.frames.len() >= whole && read.eq(groups.iter().flatten().take(scan.frames.len())));
        }

        #[test]
        fn what_an_earlier_use_left_changes_nothing(
            before in groups(), groups in groups(), cut in any::<prop::sample::Index>(),
        ) {
            let (stale, before) = segment(7, &before);
            let first = 7 + before.len() as u64;
            let (bytes, ends) = segment(first, &groups);
            // The machine stopped within the last group.
            let synced = ends.len() - groups.last().map_or(0, Vec::len);
            let least = synced.checked_sub(1).map_or(HEADER_BYTES, |last| ends[last]);
            let cut = least + cut.index(bytes.len() - least + 1);
            let mut over = stale;
            let kept = over.len().max(cut);
            over.resize(kept, 0);
            over[..cut].copy_from_slice(&bytes[..cut]);
            let scan = scan(&over, first).unwrap();
            let read = scan.frames.iter().map(|frame| &over[frame.record.clone()]);
            prop_assert!(scan.frames.len() >= synced && read.eq(groups.iter().flatten().take(scan.frames.len())));
            let whole = ends.iter().filter(|end| **end <= cut).count();
            let is_label_there = ends.get(whole).is_some() && cut >= HEADER_BYTES + FRAME_BYTES
                && whole.checked_sub(1).map_or(HEADER_BYTES, |last| ends[last]) + FRAME_BYTES <= cut;
            prop_assert!(scan.frames.len() > whole || !is_label_there || unfinished(&over, &scan) > 0);
        }

        #[test]
        fn damage_is_an_error_unless_it_hits_the_last_group(
            groups in groups(), at in any::<prop::sample::Index>(), flip in 1..=255_u8,
        ) {
            let (mut bytes, ends) = segment(7, &groups);
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            let intact = ends.iter().filter(|end| **end <= at).count();
            let last_group = ends.len() - groups.last().map_or(0, Vec::len);
            let is_header = at < HEADER_BYTES;
            match scan(&bytes, 7) {
                Err(Damage { at: found }) => {
                    prop_assert!(found <= at && (intact < last_group));
                }
                Ok(scan) => {
                    prop_assert!(intact >= last_group || (is_header && groups.len() < 2));
                    prop_assert_eq!(scan.frames.len(), if is_header { 0 } else { intact });
                }
            }
        }

        #[test]
        fn no_bytes_break_the_scan(bytes in prop::collection::vec(any::<u8>(), 0..300), first in any::<u64>()) {
            let _any = scan(&bytes, first);
        }
    }
}
