//! The log while it runs: records in, one write and sync at a time out.
//!
//! ```text
//!   input             when                        does                         then
//!   append            not poisoned                gathers the record
//!                     poisoned                    counts it: never durable
//!   gather            a write is under way                                     None
//!                     the segment has room        seals what is gathered       write it, sync it
//!                     it has none, a file is free opens a segment              write it, sync it
//!                     no file is free             waits for one                None
//!                     one file is left, and this  is full, until there is      None
//!                     frees no other              room
//!   gather_mark       nothing gathered, the last  seals an empty batch         write it, sync it
//!                     batch holds records
//!   on_synced         not poisoned                durable ↑, segments recycled release what waited
//!   on_file_created                               one more file is free
//!   on_no_room                                    no more files, until
//!   try_again                                     another file may be wanted
//!   poison                                        takes nothing in any more    stop the acceptors
//! ```
//!
//! One write is under way at a time. What is appended meanwhile is the next one: the slower the
//! disk, the larger the writes.

use std::collections::{BTreeMap, VecDeque};

use loggos_protocol::{AcceptorId, AcceptorState, Ballot, LogRoom, Record, Slot, Watermark};

use crate::batch::{Batch, BatchLink, padded};
use crate::fields::length;
use crate::files::{Files, FilesFound};
use crate::gathering::Gathering;
use crate::header::Header;
use crate::revotes::Revotes;
use crate::segment::{Indexed, Segment, put_opening};
use crate::state::States;
use crate::{BLOCK_BYTES, Buffer, FileId, Identity, Options, Poison, VotePlace, record};

/// The log that the acceptors of a core share.
#[derive(Debug)]
pub struct Wal {
    identity: Identity,
    options: Options,
    /// In use, oldest first; the last is written to. Never empty.
    segments: VecDeque<Segment>,
    files: Files,
    tail: Tail,
    /// The number of the last batch that an earlier life has left.
    found: u64,
    /// The number of the last batch that is durable, with all before it.
    synced: u64,
    /// The number of the batch that is being written and synced.
    in_flight: Option<u64>,
    gathering: Gathering,
    /// What was gathered before that and is as large as a write may be, oldest first.
    full: VecDeque<Gathering>,
    /// Votes that were cast again, and are durable.
    revotes: Revotes,
    /// Those that are not durable yet, each with the records appended up to it; oldest first.
    revotes_appended: VecDeque<(u64, AcceptorId, Slot, Ballot)>,
    /// Buffers that are not in use.
    spare: Vec<(Buffer, Vec<Indexed>)>,
    /// After all that was appended.
    states: States,
    /// After all that was gathered.
    written: States,
    /// After all that is durable.
    durable_states: States,
    /// Records appended in this life.
    appended: u64,
    /// Records among these that are durable.
    durable: u64,
    poison: Option<Poison>,
}

/// Something to write and sync.
#[derive(Debug)]
#[must_use = "what is gathered is to be written, synced and given back"]
pub struct Write {
    /// To which file.
    pub file: FileId,
    /// At which byte, a multiple of a block.
    pub offset: u64,
    /// What: whole blocks, in memory that direct I/O takes.
    pub bytes: Buffer,
    /// Counts writes, across lives: what a peer that has seen a later one of this log knows (R33).
    pub number: u64,
    /// The number of records that are durable then, of those appended in this life.
    appended: u64,
    /// The votes among them.
    votes: Vec<Indexed>,
}

/// The place where the next batch goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tail {
    /// The batch that it follows.
    pub(crate) link: BatchLink,
    /// In the last segment.
    pub(crate) offset: u32,
    /// Whether what it follows holds nothing that would be missed: a mark, or a segment's head.
    pub(crate) is_mark: bool,
}

/// The state that a log goes on from.
#[derive(Debug)]
pub(crate) struct Resumed {
    pub(crate) segments: VecDeque<Segment>,
    pub(crate) files: FilesFound,
    pub(crate) tail: Tail,
    /// The number of the last batch that was found, before recovery added its own.
    pub(crate) found: u64,
    pub(crate) states: States,
    pub(crate) revotes: Revotes,
}

impl Wal {
    /// Goes on where recovery has found, and made durable, the log's end.
    pub(crate) fn resume(identity: Identity, options: Options, resumed: Resumed) -> Self {
        let Resumed { segments, files, tail, found, states, revotes } = resumed;
        let mut wal = Self {
            identity,
            segments,
            files: Files::new(files, &options),
            tail,
            found,
            synced: tail.link.number,
            in_flight: None,
            gathering: Gathering::new(Buffer::new(), Vec::new()),
            full: VecDeque::new(),
            revotes,
            revotes_appended: VecDeque::new(),
            spare: Vec::new(),
            written: states.clone(),
            durable_states: states.clone(),
            states,
            appended: 0,
            durable: 0,
            poison: None,
            options,
        };
        wal.recycle();
        wal.validate();
        wal
    }

    /// Takes a record in. What rests on it may be said when [`durable`](Self::durable) has reached
    /// what [`appended`](Self::appended) is now.
    ///
    /// The value is copied here, once, to where it is written from. A poisoned log counts it and
    /// ignores it: what waits for it waits for ever.
    ///
    /// source: R31, R34
    pub fn append(&mut self, record: &Record) {
        self.appended += 1;
        if self.poison.is_some() {
            return;
        }
        let bytes_max = record::bytes_max(record);
        let fits = bytes_max <= self.options.record_bytes_max(&self.identity);
        assert!(fits, "a record of up to {bytes_max} bytes does not fit in a segment");
        self.states.check(record);
        let batch_bytes = length(self.gathering.bytes.len());
        if self.gathering.records_count > 0
            && batch_bytes + bytes_max > self.options.write_bytes_max
        {
            self.close();
        }
        self.states.on_record(record);
        self.gathering.append(record);
        if let Record::Revote { acceptor, slot, ballot } = record {
            self.revotes_appended.push_back((self.appended, *acceptor, *slot, *ballot));
        }
    }

    /// Hands out what is to be written and synced next, if there is anything and nothing is under
    /// way.
    ///
    /// A segment is opened in a write of its own: its head is durable before anything else of it is
    /// written, and before a segment before it can be recycled.
    ///
    /// source: R31, R32, R33
    pub fn gather(&mut self) -> Option<Write> {
        if self.poison.is_some() || self.in_flight.is_some() {
            return None;
        }
        let next = self.full.front().unwrap_or(&self.gathering);
        if next.records_count == 0 {
            return None;
        }
        if !self.has_room_for(next) {
            return self.open_segment();
        }
        let next = match self.full.pop_front() {
            Some(full) => full,
            None => self.take_gathering(),
        };
        Some(self.seal(next))
    }

    /// Hands out a mark, if the last batch has none and there is nothing else to write: for a
    /// driver that falls idle.
    ///
    /// The last batch of a log is the one that recovery cannot tell from a torn one when it has
    /// gone bad. A mark behind it says that it was synced.
    ///
    /// source: R33, "an idle log appends one mark"
    pub fn gather_mark(&mut self) -> Option<Write> {
        let is_busy = self.in_flight.is_some() || self.appended > self.durable;
        if self.poison.is_some() || is_busy || self.tail.is_mark {
            return None;
        }
        let empty = self.take_gathering();
        Some(self.seal(empty))
    }

    /// Takes a write back that is durable: written in full, and synced since.
    ///
    /// A poisoned log does not believe it: a sync that failed once may succeed the next time
    /// because the pages that it could not write were dropped.
    ///
    /// source: R31, R34
    pub fn on_synced(&mut self, write: Write) {
        assert_eq!(self.in_flight, Some(write.number), "another write is under way");
        if self.poison.is_some() {
            return;
        }
        self.in_flight = None;
        self.synced = write.number;
        self.durable = write.appended;
        self.durable_states.copy_from(&self.written);
        let segment = self.segments.back_mut().expect("a log has a segment");
        segment.add(&write.votes);
        while let Some((_, acceptor, slot, ballot)) =
            self.revotes_appended.pop_front_if(|(appended, ..)| *appended <= self.durable)
        {
            self.revotes.add(acceptor, slot, ballot);
        }
        self.spare.push((write.bytes, write.votes));
        self.recycle();
    }

    /// Stops for good, because a write or sync has failed; the first reason counts.
    ///
    /// source: R34
    pub fn poison(&mut self, reason: Poison) {
        self.poison.get_or_insert(reason);
    }

    /// The file to be [made](crate::Disk::create) next, off the loop, if one more is wanted; asked
    /// once for each. [`on_file_created`](Self::on_file_created) or
    /// [`on_no_room`](Self::on_no_room) is the answer.
    pub fn wants_file(&mut self) -> Option<FileId> {
        if self.poison.is_some() {
            return None;
        }
        self.files.wanted(self.segments.len())
    }

    /// Takes in that the file asked for is there, zeroed and durable.
    pub fn on_file_created(&mut self) {
        self.files.on_created();
    }

    /// Takes in that the file asked for could not be made: the log goes on in those it has. That is
    /// no reason to stop yet, since nothing of the log was touched.
    ///
    /// While none is free either, what is appended [waits](Self::is_full). The log has been
    /// [low](Self::is_low) since long before.
    pub fn on_no_room(&mut self) {
        self.files.on_no_room();
    }

    /// Asks once more for a file that could not be made: there may be room by now. For the driver's
    /// clock, each second or so; nothing happens if none was refused.
    pub fn try_again(&mut self) {
        self.files.try_again();
    }

    /// The room that is left. It is low with fewer segments than the reserve: acceptors then refuse
    /// what is proposed for the first time, and go on with promises, with votes for what may have
    /// been chosen, and with truncations, until there is room.
    ///
    /// source: R16, R34
    #[must_use]
    pub fn room(&self) -> LogRoom {
        match self.files.left(self.segments.len()) {
            left if left < self.options.segments_reserve => LogRoom::Low,
            left if left < self.options.segments_max / 2 => LogRoom::Scarce,
            _ => LogRoom::Ample,
        }
    }

    /// Whether its [`room`](Self::room) is low.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.room() == LogRoom::Low
    }

    /// Whether what was appended waits for room: no segment may be opened for it. What rests on it
    /// is not said, as where a sync takes long; it is written as soon as there is room, and lost if
    /// the process ends before.
    ///
    /// Room comes from the disk, or from a truncation: the last segment is kept for one that frees
    /// others.
    ///
    /// source: R34, "a passing shortage never becomes a stop"
    #[must_use]
    pub fn is_full(&self) -> bool {
        let next = self.full.front().unwrap_or(&self.gathering);
        let waits = self.in_flight.is_none() && next.records_count > 0;
        let may_open = self.may_open_segment() || self.files.can_grow(self.segments.len());
        waits && !self.has_room_for(next) && !may_open
    }

    /// The reason why it has stopped, if it has.
    #[must_use]
    pub fn poisoned(&self) -> Option<Poison> {
        self.poison
    }

    /// The number of bytes of records that wait to be written, those that are being written left
    /// out.
    #[must_use]
    pub fn gathered_bytes(&self) -> usize {
        let full = self.full.iter().map(|gathering| gathering.bytes.len());
        full.sum::<usize>() + self.gathering.bytes.len()
    }

    /// How many records were appended in this life.
    #[must_use]
    pub fn appended(&self) -> u64 {
        self.appended
    }

    /// The number of them that are durable: what was held when [`appended`](Self::appended) was not
    /// more may leave.
    ///
    /// source: R31
    #[must_use]
    pub fn durable(&self) -> u64 {
        self.durable
    }

    /// The number of the last write that is durable. Never goes down, from life to life, unless an
    /// operator puts an older directory in place.
    #[must_use]
    pub fn synced(&self) -> u64 {
        self.synced
    }

    /// The number of the last write of earlier lives that it came back with: at least as many as
    /// any of them has ever told to be durable, or it is an older copy. The mark that recovery adds
    /// does not count, for it would stand for one that is missing.
    ///
    /// source: R33
    #[must_use]
    pub fn found(&self) -> u64 {
        self.found
    }

    /// The node and acceptors that the log is of.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The most segments that there may be.
    #[must_use]
    pub fn segments_max(&self) -> u32 {
        self.options.segments_max
    }

    /// The number of segments that are in use.
    #[must_use]
    pub fn segments_count(&self) -> usize {
        self.segments.len()
    }

    /// What the log knows of `acceptor` besides its votes, if it is one of its own.
    #[must_use]
    pub fn state(&self, acceptor: AcceptorId) -> Option<&AcceptorState> {
        self.states.at(acceptor)
    }

    /// The durable part of that.
    pub(crate) fn durable_state(&self, acceptor: AcceptorId) -> Option<&AcceptorState> {
        self.durable_states.at(acceptor)
    }

    /// Where on disk the votes of `acceptor` in `[from, to)` are, in slot order: those that are
    /// durable and not truncated, of each slot the last.
    ///
    /// One look through the index of the segments that have some in these slots; for the start, and
    /// for pages that memory does not hold any more.
    ///
    /// source: R10, R16
    #[must_use]
    pub fn votes(&self, acceptor: AcceptorId, from: Slot, to: Watermark) -> Vec<VotePlace> {
        let truncated = self.states.at(acceptor).map_or(Watermark(0), |state| state.truncated);
        let wanted = from.max(truncated.first_open())..to.first_open();
        let mut places = BTreeMap::new();
        for segment in &self.segments {
            let votes = segment.votes(acceptor, wanted.clone());
            places.extend(votes.map(|place| (place.slot, place)));
        }
        for (slot, ballot) in self.revotes.within(acceptor, wanted) {
            let place = places.get_mut(&slot);
            let place =
                place.unwrap_or_else(|| panic!("{slot}: a vote again, and no value for it"));
            place.revoted = Some(ballot);
        }
        places.into_values().collect()
    }

    /// Asserts what must hold between any two calls.
    pub fn validate(&self) {
        assert!(self.synced <= self.tail.link.number, "synced beyond the tail");
        assert!(self.durable <= self.appended, "durable beyond what was appended");
        assert!(self.tail.offset <= self.options.segment_bytes, "the tail is beyond its segment");
        let numbers = self.segments.iter().map(|segment| segment.number);
        assert!(numbers.is_sorted_by(|a, b| a < b), "segments out of order");
        self.files.validate(self.segments.iter().map(|segment| segment.file));
        for (earlier, later) in
            [(&self.durable_states, &self.written), (&self.written, &self.states)]
        {
            assert!(earlier.are_covered_by(later), "the log knows less than it has written");
        }
    }

    /// Ends the batch in the making, for it is as large as a write may be.
    fn close(&mut self) {
        let mut full = self.take_gathering();
        let before = self.appended - 1; // the one that does not fit in is counted
        full.end = Some((before, self.states.clone()));
        self.full.push_back(full);
    }

    /// Takes what is gathered, and begins anew in a buffer that is not in use.
    fn take_gathering(&mut self) -> Gathering {
        let (buffer, votes) = self.spare.pop().unwrap_or_default();
        std::mem::replace(&mut self.gathering, Gathering::new(buffer, votes))
    }

    /// Ends a batch, and puts it where the log ends.
    fn seal(&mut self, gathering: Gathering) -> Write {
        let Gathering { mut bytes, records_count, mut votes, end } = gathering;
        let appended = match end {
            Some((appended, states)) => {
                self.written = states;
                appended
            }
            None => {
                self.written.copy_from(&self.states);
                self.appended
            }
        };
        let offset = self.tail.offset;
        votes.iter_mut().for_each(|vote| vote.offset += offset);
        let batch = self.batch(records_count, offset);
        let link = batch.seal(&mut bytes, 0);
        let end = offset + length(bytes.len());
        self.tail = Tail { link, offset: end, is_mark: records_count == 0 };
        self.in_flight = Some(link.number);
        let file = self.current().file;
        Write { file, offset: u64::from(offset), bytes, number: link.number, appended, votes }
    }

    /// Goes on in another file: the oldest of the free ones.
    ///
    /// All that was written is durable, for nothing is under way; so a head that can be read proves
    /// that whatever it follows was synced, and it names nothing that is not.
    ///
    /// source: R32
    fn open_segment(&mut self) -> Option<Write> {
        assert_eq!(self.synced, self.tail.link.number, "opened before all is synced");
        let file = if self.may_open_segment() { self.files.take()? } else { return None };
        let (mut bytes, mut votes) = self.spare.pop().unwrap_or_default();
        votes.clear(); // those of an earlier write are where that has put them
        let number = self.current().number + 1;
        let head = self.written.clone();
        self.segments.push_back(Segment::new(number, file, head));
        let batch = self.batch(0, BLOCK_BYTES);
        let (identity, synced) = (self.identity, self.synced);
        let segment_bytes = self.options.segment_bytes.into();
        let header = Header { file, segment_bytes, segment: number, synced, identity };
        let link = put_opening(&mut bytes, header, batch, &self.written);
        self.tail = Tail { link, offset: length(bytes.len()), is_mark: true };
        self.in_flight = Some(link.number);
        Some(Write { file, offset: 0, bytes, number: link.number, appended: self.durable, votes })
    }

    /// Whether the segment that is written to has room for this. One block is left for a mark,
    /// always.
    fn has_room_for(&self, next: &Gathering) -> bool {
        let needed = padded(length(next.bytes.len())) + BLOCK_BYTES;
        needed <= self.options.segment_bytes - self.tail.offset
    }

    /// Whether another segment may be opened. The last one may only if what is appended frees an
    /// older one: a log that had used it up for anything else could not be truncated any more, and
    /// would be full for good.
    fn may_open_segment(&self) -> bool {
        let next_head = self.segments.get(1).map_or(&self.written, |segment| &segment.head);
        self.files.free_count() > 1 || next_head.are_truncated_by(&self.states)
    }

    /// The next batch, to be written at `offset` of the last segment.
    fn batch(&self, records_count: u32, offset: u32) -> Batch {
        let BatchLink { number, checksum: previous } = self.tail.link;
        Batch {
            link: BatchLink { number: number + 1, checksum: 0 },
            bytes: 0,
            records_count,
            directory: self.identity.directory.0,
            segment: self.current().number,
            offset,
            synced: self.synced,
            previous,
        }
    }

    /// Frees the oldest segments whose every record is superseded.
    ///
    /// Promises, tables and truncations of a segment are in the head of the next one. Its votes are
    /// not: each of them must be below what a *durable* record, or head, says is truncated. Every
    /// such record is in a newer segment, or its bound is in the head of one. What could be lost
    /// otherwise:
    ///
    /// - *Truncated, but not durably*: after a crash the acceptor takes the slot for one it has not
    ///   voted in, and votes there again, for something else.
    /// - *Next head not durable*: the only copy of the promise is written over, and if the machine
    ///   stops before the sync the acceptor promises less than it did.
    /// - *A newer segment before an older one*: what the newer one truncated, the older would vote
    ///   again.
    ///
    /// The test is the one that recovery makes of a segment that it cannot read, so whatever may
    /// have been written over, whole or in part, recovery can do without.
    ///
    /// source: R32
    fn recycle(&mut self) {
        while self.segments.len() > 1
            && self.segments[1].head.are_truncated_by(&self.durable_states)
        {
            let oldest = self.segments.pop_front().expect("there are two");
            self.files.release(oldest.file);
            self.revotes.truncate(&self.durable_states);
        }
    }

    fn current(&self) -> &Segment {
        self.segments.back().expect("a log has a segment")
    }
}
