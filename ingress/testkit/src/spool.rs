//! What must hold for every file of a spool, whatever its bytes: checked by the fuzz target.

use ackline_ingress::store::spool::segment::{self, FrameHeader, Scan};
use bytes::Bytes;

/// Scans bytes as a segment, then a segment built from them and damaged where they say; tells what does not hold.
pub fn check(bytes: &[u8]) -> Result<usize, String> {
    let (first, rest) = bytes
        .split_first_chunk::<8>()
        .map_or((1, bytes), |(first, rest)| {
            (u64::from_le_bytes(*first), rest)
        });
    let found = check_scan(rest, first)?;
    check_damaged(first % (1 << 60), rest)?;
    Ok(found)
}

/// What a scan yields is whole, in sequence, and a prefix.
fn check_scan(bytes: &[u8], first: u64) -> Result<usize, String> {
    let Ok(scan) = segment::scan(bytes, first) else {
        return Ok(0);
    };
    if scan.end > bytes.len() {
        return Err("a scan ends behind its bytes".to_owned());
    }
    let mut end = if scan.end == 0 {
        0
    } else {
        segment::HEADER_BYTES
    };
    for (frame, sequence) in scan.frames.iter().zip(first..) {
        let header = bytes.get(end..).and_then(segment::read_frame_header);
        let Some((length, checksum, header)) = header else {
            return Err("a frame has no header".to_owned());
        };
        let record = bytes
            .get(frame.record.clone())
            .ok_or("a record lies outside")?;
        if header != frame.header || header.sequence != sequence || length != record.len() {
            return Err(format!("frame {sequence} is not where it is said to be"));
        }
        if !segment::is_whole(checksum, header, record) {
            return Err(format!("frame {sequence} does not have its checksum"));
        }
        end = frame.record.end;
    }
    if end != scan.end {
        return Err("frames do not follow one another".to_owned());
    }
    // What is cut off must not change what is left.
    match bytes.get(..scan.end).map(|kept| segment::scan(kept, first)) {
        Some(Ok(again)) if again == scan => Ok(scan.frames.len()),
        _ => Err("a scan of what counts finds something else".to_owned()),
    }
}

/// Builds groups from the bytes, then cuts and flips: what was synced is found whole, or missed with an error.
fn check_damaged(first: u64, script: &[u8]) -> Result<(), String> {
    let (Some([groups, size, at, flip, cut]), payload) = script
        .split_first_chunk::<5>()
        .map_or((None, script), |(script, payload)| (Some(*script), payload))
    else {
        return Ok(());
    };
    let mut whole = segment::header(first).to_vec();
    let (mut sequence, mut synced) = (first, Vec::new());
    for records in payload
        .chunks(usize::from(size) + 1)
        .take(usize::from(groups % 8))
    {
        let group = sequence;
        synced.push((sequence, whole.len()));
        for record in records.chunks(16) {
            segment::write(
                &mut whole,
                FrameHeader {
                    sequence,
                    group,
                    drained: first,
                },
                record,
            );
            sequence += 1;
        }
    }
    let intact = segment::scan(&whole, first).map_err(|damage| damage.to_string())?;
    if intact.next != sequence {
        return Err("what was written does not read back".to_owned());
    }
    let mut damaged = whole.clone();
    let at = usize::from(at) * whole.len() / 256;
    if let Some(byte) = damaged.get_mut(at) {
        *byte ^= flip;
    }
    match segment::scan(&damaged, first) {
        Ok(scan) => check_prefix(&scan, &intact, &damaged, &whole)?,
        Err(_) if flip == 0 => return Err("nothing is damaged, and the scan says so".to_owned()),
        Err(_) => {}
    }
    // The last group was not synced when the machine stopped: any part of it may be missing.
    let last = synced.last().map_or(whole.len(), |(_, start)| *start);
    whole.truncate(last + usize::from(cut) * (whole.len() - last) / 256);
    let torn = segment::scan(&whole, first).map_err(|damage| format!("a torn tail: {damage}"))?;
    let expected = synced.last().map_or(first, |(sequence, _)| *sequence);
    if torn.next < expected {
        Err("a torn tail cost a synced group".to_owned())
    } else {
        Ok(())
    }
}

fn check_prefix(scan: &Scan, intact: &Scan, damaged: &[u8], whole: &[u8]) -> Result<(), String> {
    for (found, written) in scan.frames.iter().zip(&intact.frames) {
        if found != written
            || damaged.get(found.record.clone()) != whole.get(written.record.clone())
        {
            return Err("a damaged segment yields what was never written".to_owned());
        }
    }
    let _records: Vec<Bytes> = segment::records(&Bytes::copy_from_slice(damaged), scan);
    if scan.frames.len() > intact.frames.len() {
        Err("a damaged segment yields more".to_owned())
    } else {
        Ok(())
    }
}
