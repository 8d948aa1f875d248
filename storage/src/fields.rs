//! Numbers in the order of their fields, little-endian, nothing aligned.

use loggos_protocol::{
    Ballot, DirectoryId, Incarnation, ProposerId, ReplicaId, Slot, SnapshotId, Table, Watermark,
};

use crate::Buffer;

/// Bytes that their layout does not admit.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Malformed;

/// CRC32C.
pub(crate) fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

/// A length as it lies on disk.
pub(crate) fn length(bytes: usize) -> u32 {
    u32::try_from(bytes).expect("segments and parts of snapshots are below 4 GiB")
}

/// Appends fields.
pub(crate) trait Put {
    fn put(&mut self, bytes: &[u8]);

    fn put_u8(&mut self, number: u8) {
        self.put(&[number]);
    }

    fn put_u32(&mut self, number: u32) {
        self.put(&number.to_le_bytes());
    }

    fn put_u64(&mut self, number: u64) {
        self.put(&number.to_le_bytes());
    }

    fn put_ballot(&mut self, ballot: Ballot) {
        self.put_u64(ballot.round);
        self.put_u8(ballot.proposer.0);
        self.put_u64(ballot.incarnation.0);
    }

    /// A flag, and the slot or zero.
    fn put_maybe_slot(&mut self, slot: Option<Slot>) {
        self.put_u8(u8::from(slot.is_some()));
        self.put_u64(slot.map_or(0, |slot| slot.0));
    }

    /// A table, and the snapshot that its log starts from, if there is one.
    fn put_table(&mut self, table: &Table) {
        self.put_u64(table.cluster_digest());
        self.put_u32(length(table.acceptors().len()));
        for directory in table.acceptors() {
            self.put_u64(directory.0);
        }
        if let Some(SnapshotId { at, replica, incarnation }) = table.origin() {
            self.put_u64(at.0);
            self.put_u8(replica.0);
            self.put_u64(incarnation.0);
        }
    }
}

impl Put for Buffer {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

impl Put for Vec<u8> {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }
}

/// Takes fields off the front of bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (front, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(front)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.bytes(N)?.try_into().map_err(|_| Malformed)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Malformed> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, Malformed> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed),
        }
    }

    pub(crate) fn ballot(&mut self) -> Result<Ballot, Malformed> {
        let (round, proposer) = (self.u64()?, ProposerId(self.u8()?));
        Ok(Ballot { round, proposer, incarnation: Incarnation(self.u64()?) })
    }

    pub(crate) fn maybe_slot(&mut self) -> Result<Option<Slot>, Malformed> {
        let (is_there, slot) = (self.flag()?, Slot(self.u64()?));
        Ok(is_there.then_some(slot))
    }

    pub(crate) fn table(&mut self, has_origin: bool) -> Result<Table, Malformed> {
        let (cluster_digest, count) = (self.u64()?, self.u32()?);
        let directories = (0..count).map(|_| self.u64().map(DirectoryId));
        let table = Table::new(cluster_digest, directories.collect::<Result<_, _>>()?);
        if !has_origin {
            return Ok(table);
        }
        let (at, replica) = (Watermark(self.u64()?), ReplicaId(self.u8()?));
        let origin = SnapshotId { at, replica, incarnation: Incarnation(self.u64()?) };
        Ok(table.with_origin(Some(origin)))
    }

    /// That nothing is left.
    pub(crate) fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}
