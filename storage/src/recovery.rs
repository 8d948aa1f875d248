//! Making a log, once, and coming back to it.

use std::collections::VecDeque;

use crate::batch::{Batch, BatchLink, HEAD_BYTES};
use crate::fields::length;
use crate::files::FilesFound;
use crate::header::Header;
use crate::reader::SizedFile;
use crate::segment::{Segment, put_opening};
use crate::state::States;
use crate::wal::{Resumed, Tail};
use crate::{
    BLOCK_BYTES, Buffer, Damage, Disk, FileId, Identity, Options, Scan, StorageError, Wal, scan,
};

/// A log that has come back.
#[derive(Debug)]
pub struct Recovered {
    /// The log, to go on with.
    pub wal: Wal,
    /// What could not be read, and was not needed: worth a line in the node's log.
    pub dropped: Vec<Damage>,
}

/// Makes the log of `identity` in an empty directory: one segment, and a file for the next.
///
/// No acceptor has promised anything before this has returned; if it is interrupted, [`recover`]
/// refuses what it has left.
///
/// # Errors
///
/// If there is a log, even a damaged one; as the disk says.
///
/// source: R4, "`loggos format` creates a directory, once"
pub fn format(
    disk: &mut impl Disk,
    identity: &Identity,
    options: &Options,
) -> Result<(), StorageError> {
    assert_eq!(options.problem(), None, "options are checked before they are used");
    if !disk.files().map_err(StorageError::directory)?.is_empty() {
        return Err(StorageError::NotEmpty);
    }
    for file in [FileId(0), FileId(1)] {
        disk.create(file, u64::from(options.segment_bytes)).map_err(StorageError::on(file))?;
    }
    let (file, mut bytes) = (FileId(0), Buffer::new());
    let (segment_bytes, identity) = (u64::from(options.segment_bytes), *identity);
    let batch = batch(&identity, BatchLink::default(), 1, BLOCK_BYTES);
    let header = Header { file, segment_bytes, segment: 1, synced: 0, identity };
    let states = States::new(identity.acceptors.iter());
    put_opening(&mut bytes, header, batch, &states);
    disk.write_at(file, 0, &bytes).map_err(StorageError::on(file))?;
    disk.sync(file).map_err(StorageError::on(file))
}

/// Comes back to the log of `identity`: its acceptors' promises, tables, truncations and votes.
///
/// What was read back may never have been synced: a process that is killed leaves its writes to the
/// operating system, and a machine that then stops loses them. So all of it is synced before this
/// returns, and no role can have been answered before. Only then the mark is written, which says
/// so: in the other order, a crash in between could leave a mark that vouches for what is gone.
///
/// What is cut off is wiped where it begins, by the mark or by zeros, before any role is answered,
/// and so is what a crash has left of a segment that was being opened. The chain alone would not
/// do: a later write to the same place, torn in its turn, may lack just what the earlier one lacked
/// not, and so complete the earlier one, in a life that has gone on without it.
///
/// Recovering again, however often this is interrupted, gives the same.
///
/// # Errors
///
/// Whatever forbids these acceptors to serve.
///
/// source: R4, R31, R33
pub fn recover(
    disk: &mut impl Disk,
    identity: &Identity,
    options: &Options,
) -> Result<Recovered, StorageError> {
    assert_eq!(options.problem(), None, "options are checked before they are used");
    let found = scan(disk, Some(identity), &mut |_, _| {})?;
    let segment_bytes = u64::from(options.segment_bytes);
    if found.segment_bytes != segment_bytes {
        let (wanted, found) = (segment_bytes, found.segment_bytes);
        return Err(StorageError::SegmentBytes { wanted, found });
    }
    disk.sync_directory().map_err(StorageError::directory)?;
    for segment in &found.segments {
        disk.sync(segment.file).map_err(StorageError::on(segment.file))?;
    }
    let Scan { segments, tail, states, revotes, others, dropped, .. } = found;
    let found = tail.link.number;
    let last = segments.back().expect("a log has a segment");
    let is_full = tail.offset == options.segment_bytes;
    let tail = match tail.is_mark {
        false => mark(disk, identity, last, tail)?,
        true if is_full => tail,
        true => {
            wipe(disk, last.file, u64::from(tail.offset), BLOCK_BYTES)?;
            tail
        }
    };
    let next = FileId(length(segments.len() + others.len()));
    let (mut free, mut unfinished) = (VecDeque::new(), VecDeque::new());
    for SizedFile { id: file, bytes } in others {
        // One that is too short is not made here: the disk may be full, and the log not in need of
        // it.
        if bytes == segment_bytes {
            wipe(disk, file, 0, 2 * BLOCK_BYTES)?;
            free.push_back(file);
        } else {
            unfinished.push_back(file);
        }
    }
    let files = FilesFound { free, unfinished, next };
    let resumed = Resumed { segments, files, tail, found, states, revotes };
    Ok(Recovered { wal: Wal::resume(*identity, *options, resumed), dropped })
}

/// Writes a mark behind `tail`, which is durable, in the last segment, and syncs it. There is room:
/// no batch takes a segment's last block.
fn mark(
    disk: &mut impl Disk,
    identity: &Identity,
    last: &Segment,
    tail: Tail,
) -> Result<Tail, StorageError> {
    let offset = u64::from(tail.offset);
    let mut bytes = Buffer::new();
    bytes.resize(HEAD_BYTES as usize, 0);
    let link = batch(identity, tail.link, last.number, tail.offset).seal(&mut bytes, 0);
    disk.write_at(last.file, offset, &bytes).map_err(StorageError::on(last.file))?;
    disk.sync(last.file).map_err(StorageError::on(last.file))?;
    Ok(Tail { link, offset: tail.offset + BLOCK_BYTES, is_mark: true })
}

/// Writes zeros where something was cut off, and syncs them.
fn wipe(disk: &mut impl Disk, file: FileId, at: u64, count: u32) -> Result<(), StorageError> {
    let mut zeros = Buffer::new();
    zeros.resize(count as usize, 0);
    disk.write_at(file, at, &zeros).map_err(StorageError::on(file))?;
    disk.sync(file).map_err(StorageError::on(file))
}

/// A batch to be sealed, behind `link`, which is durable.
fn batch(identity: &Identity, link: BatchLink, segment: u64, offset: u32) -> Batch {
    Batch {
        link: BatchLink { number: link.number + 1, checksum: 0 },
        bytes: 0,
        records_count: 0,
        directory: identity.directory.0,
        segment,
        offset,
        synced: link.number,
        previous: link.checksum,
    }
}
