//! Reading a log: what is in it, and where it ends.
//!
//! ```text
//!   segment 4          segment 5          segment 6 (the last)               other files
//!   │head│ … │ … │…    │head│ … │ … │     │head│ … │ b-1 │ bad │ ? │ ? │     │ ? │ ? │ ? │
//!     ▲            └────┘ links              └──── the chain ─▶ cut? └─── does anything name b ───┘
//!     └ all before it truncated?                                          or a later one as synced?
//! ```
//!
//! A batch is *readable* if its sum is right, and *taken* if it lies where it says and follows the
//! one before it. What a readable one names as synced was, wherever it lies, and so was what a
//! header names. Three things can be wrong:
//!
//! - **A head follows nothing readable**, because what was before it is gone: recycled, or bad. A
//!   head is written only when all before it is synced, so this is no torn write. If all that the
//!   head says was voted before is truncated by now, it is not needed, and dropped; else it is
//!   damage.
//! - **The chain ends**, as every log does, at its last segment's first bad batch *b*. If any batch
//!   that can be read, wherever it is, names *b* or a later one as synced, *b* was there: damage.
//!   Else *b* was never finished, or never begun. Remains of an earlier use of the file, or of a
//!   tail that an earlier recovery has cut off, name only what was synced then, which is before
//!   *b*.
//! - **Something newer lies astray**: a batch with records that can be read, is not taken, and has
//!   the number *b* or a later one. No crash leaves such a thing behind, for of one write at a time
//!   what is whole is taken, and what was cut off is wiped. The disk has put it there, and what it
//!   was to hold is missing where it should be. Only the head of a segment that was being opened
//!   may lie so: without its header.
//!
//! source: R33

use std::collections::{BTreeSet, VecDeque};

use loggos_protocol::{AcceptorId, AcceptorState, Slot, Watermark};

use crate::batch::{Batch, HEAD_BYTES, padded};
use crate::fields::length;
use crate::header::{Found, Header};
use crate::reader::{Reader, SizedFile};
use crate::record::{self, LogEntry};
use crate::revotes::Revotes;
use crate::segment::{Indexed, Segment};
use crate::state::States;
use crate::wal::Tail;
use crate::{BLOCK_BYTES, Damage, Disk, FileId, Identity, StorageError};

/// The content of a log.
#[derive(Debug)]
pub struct Scan {
    /// The node and acceptors that it is of.
    pub identity: Identity,
    /// The length of its segments, in bytes.
    pub segment_bytes: u64,
    /// The last batch that can be read, of all that count: what a torn write or crash cut off is
    /// not among them.
    pub last: u64,
    /// The place where the log ends: the file, and the byte in it.
    pub end: (FileId, u64),
    /// What could not be read, and is not needed.
    pub dropped: Vec<Damage>,
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) tail: Tail,
    pub(crate) states: States,
    pub(crate) revotes: Revotes,
    /// Files that are not among the segments, or are short.
    pub(crate) others: Vec<SizedFile>,
}

/// The place of an entry in the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct EntryPlace {
    /// The number of its segment.
    pub segment: u64,
    /// In which file that is.
    pub file: FileId,
    /// The byte at which its batch begins.
    pub offset: u64,
    /// The number of its batch.
    pub batch: u64,
    /// The acceptor whose entry it is.
    pub acceptor: AcceptorId,
}

/// What hears of each entry that can be read, in the order of the log.
pub type Visit<'a> = &'a mut dyn FnMut(EntryPlace, &LogEntry<'_>);

/// Reads the whole log and changes nothing. `wanted` is the identity that it should have; without
/// it, any will do.
///
/// Memory: one piece of the log at a time, and 24 bytes for each vote that is not recycled.
///
/// # Errors
///
/// Whatever forbids its acceptors to serve.
///
/// source: R4, R33
pub fn scan(
    disk: &mut impl Disk,
    wanted: Option<&Identity>,
    visit: Visit<'_>,
) -> Result<Scan, StorageError> {
    let files = disk.files().map_err(StorageError::directory)?;
    let files: Vec<SizedFile> =
        files.into_iter().map(|(id, bytes)| SizedFile { id, bytes }).collect();
    if files.is_empty() {
        return Err(StorageError::Empty);
    }
    if let Some(file) =
        (0..).map(FileId).zip(&files).find_map(|(id, there)| (id < there.id).then_some(id))
    {
        return Err(StorageError::Missing { file });
    }
    let mut reader = Reader::new(disk);
    let (headers, mut others) = headers(&mut reader, &files, wanted)?;
    let Some((first, _)) = headers.first() else {
        return Err(StorageError::Unformatted);
    };
    check_lengths(first.segment_bytes, &headers, &mut others)?;
    let acceptors = first.identity.acceptors.iter();
    let mut walk = Walk {
        directory: first.identity.directory.0,
        reader,
        visit,
        states: States::new(acceptors),
        revotes: Revotes::default(),
        segments: VecDeque::new(),
        tail: None,
        synced: headers.iter().map(|(header, _)| header.synced).max().unwrap_or(0),
        gaps: Vec::new(),
        astray: None,
    };
    for (header, file) in &headers {
        if !walk.segment(header, *file)? {
            others.push(*file);
        }
    }
    for file in &others {
        walk.search(*file, 0)?;
    }
    let (tail, dropped) = walk.judge()?;
    let Walk { states, revotes, segments, .. } = walk;
    let file = segments.back().expect("a tail is in a segment").file;
    Ok(Scan {
        identity: first.identity,
        segment_bytes: first.segment_bytes,
        last: tail.link.number,
        end: (file, u64::from(tail.offset)),
        dropped,
        segments,
        tail,
        states,
        revotes,
        others,
    })
}

impl Scan {
    /// The acceptors that share it, each with all that is known of it but its votes.
    pub fn acceptors(&self) -> impl Iterator<Item = (AcceptorId, &AcceptorState)> {
        self.states.iter()
    }

    /// The segments that were read, oldest first: the number of each, and the file that holds it.
    pub fn segments(&self) -> impl Iterator<Item = (u64, FileId)> {
        self.segments.iter().map(|segment| (segment.number, segment.file))
    }

    /// In how many slots `acceptor` has a vote that is not truncated.
    #[must_use]
    pub fn votes_count(&self, acceptor: AcceptorId) -> usize {
        let truncated = self.states.at(acceptor).map_or(Watermark(0), |state| state.truncated);
        let slots = truncated.first_open()..Slot(u64::MAX);
        let votes = self.segments.iter().flat_map(|it| it.votes(acceptor, slots.clone()));
        votes.map(|vote| vote.slot).collect::<BTreeSet<_>>().len()
    }

    /// How many segments hold something that is needed, or has not been used again yet.
    #[must_use]
    pub fn segments_count(&self) -> usize {
        self.segments.len()
    }
}

/// Headers, each with the file that it was found in.
type Headers = Vec<(Header, SizedFile)>;

/// Sorts the files: those with a header, by the number of their segment, and the rest.
fn headers(
    reader: &mut Reader<'_, impl Disk>,
    files: &[SizedFile],
    wanted: Option<&Identity>,
) -> Result<(Headers, Vec<SizedFile>), StorageError> {
    let (mut headers, mut others): (Headers, _) = (Vec::new(), Vec::new());
    for &file in files {
        let found = match file.bytes >= u64::from(BLOCK_BYTES) {
            true => Header::find(file.id, reader.bytes(file, 0, BLOCK_BYTES)?),
            false => Found::Nothing,
        };
        match found {
            Found::Nothing => others.push(file),
            Found::Newer(version) => return Err(StorageError::Newer { file: file.id, version }),
            Found::Header(header) => {
                let first = headers.first().map(|(first, _)| &first.identity);
                if let Some(wanted) = wanted.or(first).filter(|wanted| **wanted != header.identity)
                {
                    let (wanted, found) = (Box::new(*wanted), Box::new(header.identity));
                    return Err(StorageError::Foreign { file: file.id, wanted, found });
                }
                headers.push((header, file));
            }
        }
    }
    headers.sort_by_key(|(header, _)| header.segment);
    Ok((headers, others))
}

/// Files are made whole before they are used, and never shortened, so one with a header is as long
/// as that says. Without, it may be one that is not finished: it keeps its whole blocks.
fn check_lengths(
    wanted: u64,
    headers: &Headers,
    others: &mut [SizedFile],
) -> Result<(), StorageError> {
    let used = headers.iter().map(|(_, file)| *file);
    let is_wrong = used.filter(|file| file.bytes != wanted);
    let is_too_long = others.iter().copied().filter(|file| file.bytes > wanted);
    if let Some(SizedFile { id: file, bytes: found }) = is_wrong.chain(is_too_long).min() {
        return Err(StorageError::Length { file, wanted, found });
    }
    for file in others {
        file.bytes -= file.bytes % u64::from(BLOCK_BYTES);
    }
    Ok(())
}

/// A batch that can be read where none belongs.
struct Astray {
    batch: Batch,
    file: FileId,
    /// The byte at which it begins.
    offset: u64,
}

/// The way through the segments, oldest first.
struct Walk<'a, D> {
    reader: Reader<'a, D>,
    visit: Visit<'a>,
    directory: u64,
    states: States,
    revotes: Revotes,
    segments: VecDeque<Segment>,
    tail: Option<Tail>,
    /// The last batch that one that can be read names as synced.
    synced: u64,
    /// Heads that follow nothing: the place of each in `segments`, and what should be before it.
    gaps: Vec<(usize, Damage)>,
    /// The batch with records of the highest number that can be read and was not taken.
    astray: Option<Astray>,
}

impl<D: Disk> Walk<'_, D> {
    /// Reads a segment; returns whether it is one: whether its head can be read, and no other file
    /// holds it.
    fn segment(&mut self, header: &Header, file: SizedFile) -> Result<bool, StorageError> {
        let number = header.segment;
        if self.segments.back().is_some_and(|before| before.number == number) {
            return Ok(false);
        }
        let head = self.batch(file, BLOCK_BYTES)?;
        let Some(head) = head.filter(|head| head.is_at(number, BLOCK_BYTES)) else {
            return Ok(false);
        };
        if !self.tail.is_some_and(|tail| head.follows(tail.link)) {
            self.gaps.push((self.segments.len(), self.gap(file.id, &head)));
        }
        let blank = States::new(self.states.iter().map(|(acceptor, _)| acceptor));
        self.segments.push_back(Segment::new(number, file.id, blank));
        self.entries(file, &head)?;
        let segment = self.segments.back_mut().expect("just pushed");
        segment.head.copy_from(&self.states);
        let (mut link, mut offset, mut is_mark) = (head.link, head.end(), true);
        while let Some(batch) = self.batch(file, offset)? {
            if !batch.is_at(number, offset) || !batch.follows(link) {
                break;
            }
            self.entries(file, &batch)?;
            (link, offset, is_mark) = (batch.link, batch.end(), batch.records_count == 0);
        }
        self.tail = Some(Tail { link, offset, is_mark });
        self.search(file, offset)?;
        Ok(true)
    }

    /// What is missing before `head`.
    fn gap(&self, file: FileId, head: &Batch) -> Damage {
        let synced = head.link.number - 1;
        match (self.tail, self.segments.back()) {
            (Some(tail), Some(before)) if tail.link.number < synced => {
                let (file, offset) = (before.file, u64::from(tail.offset));
                Damage { file, offset, number: tail.link.number + 1, synced }
            }
            _ => Damage { file, offset: 0, number: synced, synced },
        }
    }

    /// Takes in the entries of a batch that was read last.
    fn entries(&mut self, file: SizedFile, batch: &Batch) -> Result<(), StorageError> {
        let segment = self.segments.back_mut().expect("a batch is in a segment");
        let (file, bytes) = (file.id, self.reader.bytes(file, batch.offset, batch.bytes)?);
        let (offset, number) = (u64::from(batch.offset), batch.link.number);
        let malformed = || StorageError::Damaged(Damage { file, offset, number, synced: number });
        let mut at = HEAD_BYTES as usize;
        for _ in 0..batch.records_count {
            let decoded = record::take(&bytes[at..]).map_err(|_| malformed())?;
            let acceptor = decoded.acceptor;
            if !self.states.on_entry(acceptor, &decoded.entry) {
                return Err(malformed());
            }
            let place =
                EntryPlace { segment: segment.number, file, offset, batch: number, acceptor };
            (self.visit)(place, &decoded.entry);
            match decoded.entry {
                LogEntry::Vote { slot, .. } => {
                    let offset = batch.offset + length(at);
                    let (bytes, checksum) = (decoded.bytes, decoded.checksum);
                    segment.add(&[Indexed { slot, offset, bytes, checksum, acceptor }]);
                }
                LogEntry::Revote { slot, ballot } => self.revotes.add(acceptor, slot, ballot),
                LogEntry::Promise(_)
                | LogEntry::Truncated(_)
                | LogEntry::Table(_)
                | LogEntry::State(_) => {}
            }
            at += decoded.bytes as usize;
        }
        Ok(())
    }

    /// Looks at every block from `offset` on for what it names as synced, and for what is newer
    /// than all.
    fn search(&mut self, file: SizedFile, offset: u32) -> Result<(), StorageError> {
        let mut offset = offset;
        while u64::from(offset) < file.bytes {
            let batch = self.batch(file, offset)?;
            let highest = self.astray.as_ref().map(|astray| astray.batch.link.number);
            if let Some(batch) = batch.filter(|batch| batch.records_count > 0)
                && Some(batch.link.number) > highest
            {
                self.astray = Some(Astray { batch, file: file.id, offset: offset.into() });
            }
            offset += batch.map_or(BLOCK_BYTES, |batch| padded(batch.bytes));
        }
        Ok(())
    }

    /// The batch at `offset`, if one can be read there; what it names as synced counts.
    fn batch(&mut self, file: SizedFile, offset: u32) -> Result<Option<Batch>, StorageError> {
        let left = file.bytes.saturating_sub(u64::from(offset));
        if left < u64::from(BLOCK_BYTES) {
            return Ok(None);
        }
        let peeked = Batch::peek(self.reader.bytes(file, offset, BLOCK_BYTES)?);
        let may_be =
            |batch: &Batch| batch.directory == self.directory && u64::from(batch.bytes) <= left;
        let Some(batch) = peeked.filter(may_be) else { return Ok(None) };
        if !batch.is_whole(self.reader.bytes(file, offset, batch.bytes)?) {
            return Ok(None);
        }
        self.synced = self.synced.max(batch.synced);
        Ok(Some(batch))
    }

    /// Tells damage from what a crash leaves behind.
    fn judge(&self) -> Result<(Tail, Vec<Damage>), StorageError> {
        let mut dropped = Vec::new();
        for (place, damage) in &self.gaps {
            let head = &self.segments[*place].head;
            if !head.are_truncated_by(&self.states) {
                return Err(StorageError::Damaged(*damage));
            }
            if *place > 0 {
                dropped.push(*damage);
            }
        }
        let (Some(tail), Some(segment)) = (self.tail, self.segments.back()) else {
            return Err(StorageError::Unformatted);
        };
        let (number, synced) = (tail.link.number + 1, self.synced);
        if synced >= number {
            let (file, offset) = (segment.file, u64::from(tail.offset));
            return Err(StorageError::Damaged(Damage { file, offset, number, synced }));
        }
        let is_opening = |batch: &Batch| batch.is_at(segment.number + 1, BLOCK_BYTES);
        match self.astray {
            Some(Astray { batch, file, offset })
                if batch.link.number >= number && !is_opening(&batch) =>
            {
                Err(StorageError::Misdirected { file, offset, number: batch.link.number })
            }
            Some(_) | None => Ok((tail, dropped)),
        }
    }
}
