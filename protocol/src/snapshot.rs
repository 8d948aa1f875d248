//! Snapshots: the state of a replica at one slot, as bytes, in parts.
//!
//! ```text
//!   part   0 ······ k        k+1 ······················· n-1
//!          log time,         the state machine, as
//!          sessions          it writes itself
//!
//!   info   id: slot, writer │ formation │ number of parts, bytes │ digest of all parts
//! ```
//!
//! Two replicas at the same slot are in the same state but may write it differently. So a snapshot
//! belongs to its writer, and parts of two snapshots are never put together: each part is asked for
//! by the [`SnapshotId`] of its snapshot. A reader takes the parts as the writer cut them, in
//! order, and uses none of them before it has all of them and their digest is the one in the
//! [`SnapshotInfo`].
//!
//! source: R16

use std::fmt;

use crate::digest::Digest;
use crate::{FormationId, Incarnation, LoggedCommand, Payload, ReplicaId, Watermark};

/// Names a snapshot. Unique for ever: one life of a replica writes at most one snapshot of a slot.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SnapshotId {
    /// Everything below is in it. The first field, so that ids are ordered by it.
    pub at: Watermark,
    /// The replica that wrote it.
    pub replica: ReplicaId,
    /// The life of that replica.
    pub incarnation: Incarnation,
}

/// What identifies a whole snapshot, without its parts.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct SnapshotInfo {
    /// The snapshot.
    pub id: SnapshotId,
    /// The formation whose log it is a state of (R4); [`FormationId::NONE`] if a log is to start
    /// from it.
    pub formation: FormationId,
    /// The number of parts, at least 1.
    pub parts: u32,
    /// The bytes of all parts.
    pub bytes: u64,
    /// A digest over the id and over length and CRC32C of each part, in order.
    pub digest: u64,
    /// The digest of the state machine's state.
    pub state_hash: u64,
}

/// An order of a durable replica to its driver, which writes and reads snapshots beside the loop.
///
/// Orders are carried out one after the other, and each is answered by a [`SnapshotDone`], but for
/// `Begin`, `Abandon`, `Remove` and `SetAside`, which have no answer when they succeed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SnapshotOrder {
    /// Begins to write a snapshot.
    Begin {
        /// The snapshot.
        id: SnapshotId,
        /// The formation that it is a state of.
        formation: FormationId,
    },
    /// Writes the next part of a snapshot. Answered by `Written`.
    Part {
        /// The snapshot.
        id: SnapshotId,
        /// The part.
        bytes: Payload,
    },
    /// Makes a snapshot durable, of which all parts were handed out. Answered by `Finished`.
    Finish(SnapshotInfo),
    /// Gives up a snapshot that was begun.
    Abandon(SnapshotId),
    /// Removes a stored snapshot.
    Remove(SnapshotId),
    /// Sets a stored snapshot aside: it is damaged, or the state machine refuses it.
    SetAside(SnapshotId),
    /// Notes durably that a command is skipped, for all lives to come. Answered by `Noted`.
    Skip(LoggedCommand),
    /// Reads a part of a stored snapshot. Answered by `Read`.
    Read {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The part.
        part: u32,
    },
}

/// An answer of the driver to a [`SnapshotOrder`], in the order of the orders.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum SnapshotDone {
    /// One more part is written.
    Written(SnapshotId),
    /// The snapshot is whole and durable, its name included.
    Finished(SnapshotId),
    /// The snapshot could not be written. Nothing is left of it, and what is still ordered for it
    /// is not answered.
    Failed(SnapshotId),
    /// It is noted that a command is skipped.
    Noted {
        /// The command.
        command: LoggedCommand,
        /// Whether that is durable: if not, the disk has failed.
        is_durable: bool,
    },
    /// A part was read.
    Read {
        /// The snapshot.
        snapshot: SnapshotId,
        /// The part.
        part: u32,
        /// `None` if it cannot be read, or is not what was written.
        bytes: Option<Payload>,
    },
}

/// The digest of a snapshot's parts up to some part.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PartsDigest {
    id: SnapshotId,
    digest: Digest,
    parts: u32,
    bytes: u64,
}

/// A part of a snapshot that the reader cannot restore: it is damaged, or another state machine
/// wrote it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct MalformedSnapshot;

impl SnapshotInfo {
    /// Whether it is of no cluster's log: one that a log is to start from, or has started.
    ///
    /// source: R4
    #[must_use]
    pub fn is_origin(&self) -> bool {
        self.formation == FormationId::NONE
    }

    /// Returns this snapshot as one that a log is to start from: the state is the same.
    ///
    /// source: R4
    #[must_use]
    pub fn as_origin(&self) -> Self {
        Self { formation: FormationId::NONE, ..*self }
    }
}

impl PartsDigest {
    /// Returns the digest of the snapshot `id` before its first part.
    #[must_use]
    pub fn new(id: SnapshotId) -> Self {
        let digest = Digest::new("loggos snapshot").word(id.at.0).word(id.replica.0.into());
        Self { id, digest: digest.word(id.incarnation.0), parts: 0, bytes: 0 }
    }

    /// Adds the next part.
    pub fn add(&mut self, part: &Payload) {
        self.digest = self.digest.word(part.len() as u64).word(part.checksum().into());
        self.parts += 1;
        self.bytes += part.len() as u64;
    }

    /// The number of parts added.
    pub(crate) fn parts(&self) -> u32 {
        self.parts
    }

    /// The bytes of the parts added.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the info of the snapshot that has exactly the parts added.
    #[must_use]
    pub fn info(&self, formation: FormationId, state_hash: u64) -> SnapshotInfo {
        let Self { id, digest, parts, bytes } = *self;
        SnapshotInfo { id, formation, parts, bytes, digest: digest.finish(), state_hash }
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:x}", self.at.0, self.replica.0, self.incarnation.0)
    }
}

impl fmt::Display for MalformedSnapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("this part of a snapshot cannot be restored")
    }
}

impl std::error::Error for MalformedSnapshot {}

/// Reads the fields of a part from its front. Numbers are little-endian.
#[derive(Debug)]
pub(crate) struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn u8(&mut self) -> Result<u8, MalformedSnapshot> {
        self.array().map(u8::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, MalformedSnapshot> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, MalformedSnapshot> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn bytes(&mut self, count: u32) -> Result<&'a [u8], MalformedSnapshot> {
        let (taken, rest) = self.0.split_at_checked(count as usize).ok_or(MalformedSnapshot)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], MalformedSnapshot> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(MalformedSnapshot)?;
        self.0 = rest;
        Ok(*taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(parts: &[&[u8]]) -> u64 {
        let (at, replica, incarnation) = (Watermark(7), ReplicaId(1), Incarnation(9));
        let mut digest = PartsDigest::new(SnapshotId { at, replica, incarnation });
        parts.iter().for_each(|part| digest.add(&Payload::copy(part)));
        digest.info(FormationId(1), 0).digest
    }

    #[test]
    fn r16_the_digest_tells_parts_that_are_exchanged_missing_doubled_or_cut_elsewhere() {
        let whole = digest_of(&[b"one", b"two"]);
        let others: [&[&[u8]]; 6] = [
            &[b"two", b"one"],
            &[b"one"],
            &[b"one", b"two", b"two"],
            &[b"onet", b"wo"],
            &[b"one", b"twO"],
            &[],
        ];
        for other in others {
            assert_ne!(digest_of(other), whole, "{other:?}");
        }
    }
}
