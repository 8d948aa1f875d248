//! Segments that are in use, and where the votes are in them.

use std::ops::Range;

use loggos_protocol::{AcceptorId, Ballot, Slot, Vote};

use crate::batch::{Batch, BatchLink, HEAD_BYTES, padded};
use crate::fields::length;
use crate::header::Header;
use crate::record::{self, LogEntry, RECORD_BYTES_MAX};
use crate::state::States;
use crate::{BLOCK_BYTES, Buffer, FileId};

/// A segment that is in use.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) number: u64,
    pub(crate) file: FileId,
    /// What its head says: all that is in older segments, but for votes.
    pub(crate) head: States,
    /// The votes in it that are synced, in the order of the log.
    votes: Vec<Indexed>,
    /// All of them are in these slots: most segments need not be looked through for a page of a
    /// few.
    slots: Range<Slot>,
    /// Likewise of each `CHUNK` votes. Votes come nearly in the order of slots, so a look-up goes
    /// through the ranges and one or two chunks, where a segment may hold hundreds of thousands of
    /// votes.
    chunks: Vec<Range<Slot>>,
}

/// The number of votes that share a range of slots.
const CHUNK: usize = 256;

/// The place of a vote in its segment, or in what is being gathered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Indexed {
    pub(crate) slot: Slot,
    pub(crate) offset: u32,
    pub(crate) bytes: u32,
    pub(crate) checksum: u32,
    pub(crate) acceptor: AcceptorId,
}

/// The place of a vote on disk: its value, and in which ballot it was cast again, if it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VotePlace {
    /// The acceptor whose vote it is.
    pub acceptor: AcceptorId,
    /// In which slot.
    pub slot: Slot,
    /// In which file.
    pub file: FileId,
    /// The byte at which its record begins.
    offset: u32,
    /// The length of its record.
    bytes: u32,
    /// The checksum that it had when it was appended.
    checksum: u32,
    /// The last ballot in which it was cast again. A later vote for another value is in a larger
    /// one.
    pub(crate) revoted: Option<Ballot>,
}

impl Segment {
    /// Returns a segment without votes.
    pub(crate) fn new(number: u64, file: FileId, head: States) -> Self {
        let (votes, slots, chunks) = (Vec::new(), Slot(0)..Slot(0), Vec::new());
        Self { number, file, head, votes, slots, chunks }
    }

    /// Takes in votes that are synced, behind the others.
    pub(crate) fn add(&mut self, votes: &[Indexed]) {
        for vote in votes {
            let end = vote.slot.watermark_after().first_open();
            let take_in = |slots: &mut Range<Slot>| {
                *slots = slots.start.min(vote.slot)..slots.end.max(end);
            };
            if self.votes.is_empty() {
                self.slots = vote.slot..end;
            }
            take_in(&mut self.slots);
            match self.chunks.last_mut().filter(|_| !self.votes.len().is_multiple_of(CHUNK)) {
                Some(chunk) => take_in(chunk),
                None => self.chunks.push(vote.slot..end),
            }
            self.votes.push(*vote);
        }
    }

    /// The votes of `acceptor` in `slots`, in the order of the log.
    pub(crate) fn votes(
        &self,
        acceptor: AcceptorId,
        slots: Range<Slot>,
    ) -> impl Iterator<Item = VotePlace> + '_ {
        let wanted = slots.clone();
        let meets = move |range: &Range<Slot>| range.start < slots.end && slots.start < range.end;
        let chunks = if meets(&self.slots) { &self.chunks[..] } else { &[] };
        let chunks = chunks.iter().zip(self.votes.chunks(CHUNK));
        chunks
            .filter(move |(range, _)| meets(range))
            .flat_map(|(_, votes)| votes)
            .filter(move |vote| vote.acceptor == acceptor && wanted.contains(&vote.slot))
            .map(|vote| self.place(vote))
    }

    /// The place of `vote` on disk.
    fn place(&self, vote: &Indexed) -> VotePlace {
        let Indexed { slot, offset, bytes, checksum, acceptor } = *vote;
        VotePlace { acceptor, slot, file: self.file, offset, bytes, checksum, revoted: None }
    }
}

impl VotePlace {
    /// The length of its record, in bytes.
    #[must_use]
    pub fn record_bytes(&self) -> usize {
        self.bytes as usize
    }

    /// The offset and the length, in bytes, of the blocks to read.
    #[must_use]
    pub fn blocks(&self) -> (u64, usize) {
        let start = self.offset / BLOCK_BYTES * BLOCK_BYTES;
        let end = (self.offset + self.bytes).next_multiple_of(BLOCK_BYTES);
        (u64::from(start), (end - start) as usize)
    }

    /// Whether both are of one record.
    pub(crate) fn is_of_same_record(&self, other: &Self) -> bool {
        (self.file, self.offset, self.checksum) == (other.file, other.offset, other.checksum)
    }

    /// Reads the vote from those blocks; `None` if they are not what was written there: then the
    /// log is to be [poisoned](crate::Poison::Read), if it still [names](crate::Wal::votes) this
    /// place. If not, the vote has been truncated since, and may have been written over.
    #[must_use]
    pub fn vote(&self, blocks: &[u8]) -> Option<Vote> {
        let record = blocks.get((self.offset % BLOCK_BYTES) as usize..)?;
        let decoded = record::take(record).ok()?;
        if (decoded.acceptor, decoded.checksum) != (self.acceptor, self.checksum) {
            return None;
        }
        match decoded.entry {
            LogEntry::Vote { slot, ballot, value } if slot == self.slot => {
                let ballot = self.revoted.map_or(ballot, |revoted| revoted.max(ballot));
                Some(Vote { ballot, value: value.decode()? })
            }
            LogEntry::Vote { .. }
            | LogEntry::Revote { .. }
            | LogEntry::Promise(_)
            | LogEntry::Truncated(_)
            | LogEntry::Table(_)
            | LogEntry::State(_) => None,
        }
    }
}

/// Makes `bytes` the beginning of a segment: its header, and `batch` as its head, with `states`.
pub(crate) fn put_opening(
    bytes: &mut Buffer,
    header: Header,
    mut batch: Batch,
    states: &States,
) -> BatchLink {
    let is_head = batch.is_at(header.segment, BLOCK_BYTES) && batch.synced == header.synced;
    assert!(is_head, "{batch:?} is not the head of segment {}", header.segment);
    bytes.clear();
    header.put(bytes);
    let start = bytes.len();
    bytes.resize(start + HEAD_BYTES as usize, 0);
    for (acceptor, state) in states.iter() {
        record::put_state(state, acceptor, bytes);
    }
    batch.records_count = length(states.len());
    batch.seal(bytes, start)
}

/// The most that the beginning of a segment takes, in bytes.
pub(crate) fn opening_bytes_max(acceptors_count: usize) -> u32 {
    BLOCK_BYTES + padded(HEAD_BYTES + length(acceptors_count) * RECORD_BYTES_MAX)
}
