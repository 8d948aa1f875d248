//! A log that votes are appended to.

use std::sync::Arc;

use loggos_protocol::{
    AcceptorId, Ballot, Batch, BatchId, Content, DirectoryId, GatewayId, Incarnation, Payload,
    ProposerId, Record, ReplicaId, Slot, Time, Value, Vote, Watermark,
};
use loggos_storage::{Disk, Identity, Options, Wal, Write, format, recover};

const ACCEPTOR: AcceptorId = AcceptorId(0);
/// The log's segments.
pub const OPTIONS: Options = Options {
    segment_bytes: 16 << 20,
    segments_max: 16,
    segments_reserve: 2,
    write_bytes_max: 1 << 20,
};
/// A log that votes are appended to, slot after slot; what is old is truncated.
#[derive(Debug)]
pub struct Log<D> {
    /// Where its files are.
    pub disk: D,
    /// The log itself.
    pub wal: Wal,
    /// The slot of the next vote.
    pub next: u64,
    record: Record,
    /// How many slots are kept.
    kept: u64,
}

impl<D: Disk> Log<D> {
    /// Returns a new log of votes for blocks of `block_bytes`, of which the last `kept` are kept;
    /// all if that is 0.
    ///
    /// # Panics
    ///
    /// If the disk fails.
    #[must_use]
    pub fn new(mut disk: D, block_bytes: usize, kept: u64) -> Self {
        format(&mut disk, &identity(), &OPTIONS).expect("an empty directory");
        let wal = recover(&mut disk, &identity(), &OPTIONS).expect("just formatted").wal;
        Self { disk, wal, next: 0, record: vote(block_bytes), kept }
    }

    /// Appends so many votes.
    pub fn append(&mut self, votes: u64) {
        for _ in 0..votes {
            if let Record::Vote { slot, .. } = &mut self.record {
                *slot = Slot(self.next);
            }
            self.wal.append(&self.record);
            self.next += 1;
            if self.kept > 0 && self.next.is_multiple_of(self.kept) {
                let truncated = Watermark(self.next - self.kept);
                self.wal.append(&Record::Truncated { acceptor: ACCEPTOR, truncated });
            }
        }
    }

    /// Hands each write that is gathered to `write`, until nothing is left.
    ///
    /// # Panics
    ///
    /// If the disk has no room for a file.
    pub fn flush(&mut self, write: impl Fn(&mut D, &Write)) {
        loop {
            if let Some(file) = self.wal.wants_file() {
                let created = self.disk.create(file, OPTIONS.segment_bytes.into());
                created.expect("room for a few segments");
                self.wal.on_file_created();
            }
            let Some(next) = self.wal.gather() else { break };
            write(&mut self.disk, &next);
            self.wal.on_synced(next);
        }
        assert_eq!(self.wal.poisoned(), None, "the log has stopped");
    }
}

/// The log's identity.
#[must_use]
pub fn identity() -> Identity {
    let acceptors = [ACCEPTOR].into_iter().collect();
    Identity { cluster: 1, directory: DirectoryId(2), quorums: 3, acceptors }
}

fn vote(block_bytes: usize) -> Record {
    let block = Payload::copy(&vec![7; block_bytes]);
    let id = BatchId { gateway: GatewayId(0), incarnation: Incarnation(1), number: 1 };
    let (attempt, checksum) = (1, block.checksum());
    let batch = Batch { id, attempt, answerer: ReplicaId(0), commands_count: 1, block, checksum };
    let value = Value { stamp: Time(1), content: Content::Batch(Arc::new(batch)) };
    let ballot = Ballot { round: 1, proposer: ProposerId(0), incarnation: Incarnation(1) };
    Record::Vote { acceptor: ACCEPTOR, slot: Slot(0), vote: Vote { ballot, value } }
}
