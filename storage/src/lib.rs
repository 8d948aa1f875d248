//! What must not be forgotten: the write-ahead log that the acceptors of a core share, and the
//! snapshots of a replica ([`SnapshotStore`]). This page is about the log.
//!
//! An acceptor says nothing that it could forget. So whatever it promises or votes is first a
//! [`Record`](loggos_protocol::Record) in this log, and what it wants to say waits until a sync has
//! completed that covers the record (R31). The log runs as pure logic: records go in, one batch at
//! a time comes out to be written and synced, and the driver says when that is done. Only what runs
//! before it does, formatting and recovery, calls a [`Disk`] and waits.
//!
//! ```text
//!   acceptors ── append ──▶ ┌─────┐ ── gather ──▶ driver: write, sync     one at a time; what is appended
//!                           │ Wal │                 │                     meanwhile is the next batch
//!   held messages ◀─ durable└─────┘ ◀─ on_synced ───┘
//!
//!   start: recover(disk) ──▶ Wal          first: format(disk)             tools: scan(disk)
//! ```
//!
//! [`SharedLog`] is the left half of this: it appends what acceptors want written, and keeps what
//! they say until then.
//!
//! # Layout
//!
//! A log is a directory of files of one length, written with zeros before they are used. They are
//! never renamed, shortened or removed: which segment a file holds, its content says. So there is
//! no rename to be made durable, and of a file's length and name there is nothing left to lose once
//! it is in use.
//!
//! ```text
//!   log.00000  ┌──────┬────┬─────────┬───────┬──────┬──────┬─────────────┐
//!   segment 4  │header│head│ batch   │ batch │ mark │ batch│ zeros, or   │ ◀ the last block is left
//!              └──────┴────┴─────────┴───────┴──────┴──────┴ older things┘   for a mark
//!   log.00001  ┌──────┬────┬────────────────────────────────┬──────┐
//!   segment 5  │header│head│ batches …                      │ tail │         the one that is written to
//!              └──────┴────┴────────────────────────────────┴──────┘
//!   log.00002  free: never used, or a segment that is not needed any more
//!
//!   block      4096 bytes. Header, head and batches begin and end with blocks
//!   header     the identity of the log, which file, which segment      module `header`
//!   head       the segment's first batch: for each acceptor its promise, truncation, vote watermark
//!              and table, as of all before                             module `record`, kind 5
//!   batch      what one write made durable: records of one or more ticks
//!   mark       a batch without records
//! ```
//!
//! A file's first block, its header:
//!
//! ```text
//!   offset  size  what
//!        0     8  magic: LOGGOSWL
//!        8     4  version: 3; 1 and 2 are read, too
//!       12     4  CRC32C of 0..12; up to here the same in every version
//!       16     4  CRC32C of 20..80
//!       20     4  file: a header in another one was written there by mistake
//!       24     8  segment bytes: the length of every file
//!       32     8  segment: counts from 1 on, a new number each time that a file is used
//!       40     8  synced: the last batch before it, and all were synced when it was opened
//!       48     8  cluster: digest of its name
//!       56     8  directory: the identity of this memory (R4)
//!       64     8  quorums: digest of quorum system and f (R3)
//!       72     8  acceptors that share the log, one bit each
//!       80        zeros, to the end of the block
//! ```
//!
//! What a batch begins with:
//!
//! ```text
//!   offset  size  what
//!        0     4  CRC32C of the rest, padding left out
//!        4     4  magic: LGBT
//!        8     4  length, padding left out
//!       12     4  records
//!       16     8  directory
//!       24     8  segment  ┐ where it belongs: a batch elsewhere is none
//!       32     8  number   │ counts batches from 1 on, across segments
//!       40     8  synced   │ the last batch known to be synced when this one was written
//!       48     4  offset   ┘
//!       52     4  previous: the CRC32C of the batch before
//!       56        records, then zeros to the end of the block
//! ```
//!
//! And a record, the fields of which are in module `record`:
//!
//! ```text
//!   offset  size  what
//!        0     4  CRC32C of the rest, block left out
//!        4     4  length, block included
//!        8     4  block bytes: what the record ends with, for which it holds its gateway's CRC32C
//!       12     1  kind: 1 promise, 2 vote, 3 truncated, 4 table, 5 state, 6 revote
//!       13     1  acceptor
//!       14        fields
//! ```
//!
//! A vote that is cast again in a larger ballot, for the value that is in the log already, takes no
//! block once more: a revote is slot and ballot, and the value is that of the slot's last record of
//! kind 2.
//!
//! All numbers are little-endian, nothing is aligned but to blocks. There is no record for the vote
//! watermark of R18: votes and truncations raise it, and heads carry it on.
//!
//! # Why nothing is lost, and nothing is made up
//!
//! *What was told is on disk.* [`Wal::durable`] moves in [`Wal::on_synced`] only, which takes back
//! the one write that is under way. After a failed write or sync it never moves again (R34).
//!
//! *What is on disk is found, or missed.* Batches are numbered and chained, and recovery takes them
//! in order, from the oldest head on. It stops at the first that is not whole, not in its place, or
//! follows another. Each batch says up to where the log was synced when it was written, and so does
//! each header: the promises at the end of one segment and their copies in the next one's head may
//! be damaged together. Whatever says so of a missing batch makes it damage: recovery refuses, and
//! does not forget in silence. The last batch alone has nothing to speak for it; therefore an idle
//! log, and a recovered one, end with a mark, which holds nothing (R33). If the disk has written it
//! to a wrong place, it is found there, and missed. Padding is under no sum: nothing is ever read
//! from it, so there is nothing in it to be damaged.
//!
//! *What was never written is not found.* A batch names directory, segment and offset, all under
//! its sum. A stale one in a recycled file names an older segment; a misdirected one names another
//! place. What an earlier recovery has cut off has the right place, and might be made whole by the
//! remains of a later torn write: so recovery wipes the block where it begins before it lets any
//! acceptor answer. And what a killed process was writing may reach the disk after it:
//! [`Folder::file`] is how the next life waits for that.
//!
//! *What recovery tells stays.* It may have read what was never synced. It syncs all segments, and
//! the directory, then writes and syncs the mark, then returns (R31, R33). It changes nothing that
//! it has not cut off, so it can be interrupted anywhere and begun anew.
//!
//! *What is written over is not needed.* A segment is written over when all its votes are below
//! what is durably truncated; the rest of it is in the next segment's durable head (R32). Recovery
//! asks the same question of whatever is missing before a head, so a segment that is half written
//! over is one that it does without, and damage to one is no reason to refuse. Nor is a revote ever
//! left without its value: that is in the same or an older segment, which goes only if all its
//! votes are truncated, the revote's slot among them.
//!
//! *What the chain cannot see*: an older copy of the directory in its place, and a disk that says
//! it has synced what it has not, where nothing later was written; a last write that has gone bad
//! before its mark; the file that is written to emptied as a whole, with all that would speak for
//! what was in it. For all of them [`Wal::synced`] is a number that peers may remember; they are
//! outside the fault model.
//!
//! # Costs
//!
//! A record is copied once, to where the disk takes it from. A batch takes whole blocks: a lone
//! vote of 100 bytes costs 4 KiB of log, which under load is shared by all of a tick. Where the
//! votes are is kept in memory, 24 bytes for each that is not recycled, so that P1as and late P2as
//! are answered from disk when the acceptor has let go of the values. Votes that were cast again
//! add a range of slots for each ballot.
//!
//! source: R4, R18, R31, R32, R33, R34

#![forbid(unsafe_code)]

mod batch;
mod disk;
mod error;
mod fields;
mod files;
mod folder;
mod gathering;
mod header;
mod options;
mod reader;
mod record;
mod recovery;
mod revotes;
mod scan;
mod segment;
mod shared;
pub mod sim;
mod snapshots;
mod state;
mod wal;

pub use disk::{BLOCK_BYTES, Buffer, Disk, FileId};
pub use error::{Damage, Poison, StorageError};
pub use folder::Folder;
pub use header::{FORMAT_VERSION, Identity};
pub use options::Options;
pub use record::{EncodedValue, LogEntry};
pub use recovery::{Recovered, format, recover};
pub use scan::{EntryPlace, Scan, Visit, scan};
pub use segment::VotePlace;
pub use shared::{Bounds, ReadRequest, SharedLog};
pub use snapshots::{
    CarriedOut, SNAPSHOT_VERSION, SavedError, SavedSnapshot, SnapshotDamage, SnapshotDisk,
    SnapshotError, SnapshotFolder, SnapshotOwner, SnapshotStore, StoreOriginError,
};
pub use wal::{Wal, Write};
