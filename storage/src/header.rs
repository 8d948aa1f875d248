//! The first block of every segment: the identity of the log.
//!
//! ```text
//!   0         8         12         16         20     24         32        40       48        56
//!   │ magic   │ version │ checksum │ checksum │ file │ segment  │ segment │ synced │ cluster │ …
//!   │ LOGGOSWL│    3    │ of 0..12 │ of 20..80│      │ bytes    │ number  │        │         │
//!   └──── the same in every version ──────────┘
//!
//!   56          64        72          80
//!   │ directory │ quorums │ acceptors │ zeros to the end of the block
//! ```
//!
//! `synced` is the number of the last batch of the segment before, which was synced when this one
//! was opened: the head behind it says the same, and may be damaged.

use std::fmt;

use loggos_protocol::{AcceptorId, AcceptorSet, DirectoryId};

use crate::fields::{Fields, Malformed, Put, checksum};
use crate::{BLOCK_BYTES, Buffer, FileId};

/// The version of everything in the log that this code writes. It reads all from the first on.
///
/// 2 has votes that are cast again (kind 6), 3 tables of logs that start from a snapshot (kind 7).
/// What this code adds to a segment of an earlier version, code of that version takes for damage,
/// and refuses.
pub const FORMAT_VERSION: u32 = 3;

const MAGIC: [u8; 8] = *b"LOGGOSWL";
const END: usize = 80;

/// The node and acceptors that a log is of: made once, by `format`, and refused by all others.
///
/// source: R3, R4
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The digest of the cluster's name.
    pub cluster: u64,
    /// The identity of this memory: a random number of its own.
    pub directory: DirectoryId,
    /// The digest of the quorum system and f.
    pub quorums: u64,
    /// The acceptors that share the log.
    pub acceptors: AcceptorSet,
}

/// The header of a segment: its first block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Header {
    pub(crate) file: FileId,
    pub(crate) segment_bytes: u64,
    /// Counts segments from 1 on; a file gets a new number each time it is used.
    pub(crate) segment: u64,
    /// The last batch before it: all were synced when it was opened.
    pub(crate) synced: u64,
    pub(crate) identity: Identity,
}

/// The finding where a header should be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    Header(Header),
    /// A header of a later version than ours.
    Newer(u32),
    /// Zeros, or what a crash or damage has left.
    Nothing,
}

impl Header {
    /// Appends it, one block long.
    pub(crate) fn put(&self, out: &mut Buffer) {
        let start = out.len();
        out.put(&MAGIC);
        out.put_u32(FORMAT_VERSION);
        out.put_u32(checksum(&out[start..start + 12]));
        out.put_u32(0);
        out.put_u32(self.file.0);
        out.put_u64(self.segment_bytes);
        out.put_u64(self.segment);
        out.put_u64(self.synced);
        out.put_u64(self.identity.cluster);
        out.put_u64(self.identity.directory.0);
        out.put_u64(self.identity.quorums);
        out.put_u64(self.identity.acceptors.iter().fold(0, |bits, a| bits | 1 << a.0));
        let checksum = checksum(&out[start + 20..start + END]);
        out[start + 16..start + 20].copy_from_slice(&checksum.to_le_bytes());
        out.resize(start + BLOCK_BYTES as usize, 0);
    }

    /// Reads the first block of `file`. A header of another file was written to the wrong place.
    pub(crate) fn find(file: FileId, block: &[u8]) -> Found {
        match Self::take(block) {
            Ok(Found::Header(header)) if header.file != file => Found::Nothing,
            Ok(found) => found,
            Err(Malformed) => Found::Nothing,
        }
    }

    fn take(block: &[u8]) -> Result<Found, Malformed> {
        let mut fields = Fields(block);
        let (magic, version, said) = (fields.array()?, fields.u32()?, fields.u32()?);
        if magic != MAGIC || checksum(&block[..12]) != said {
            return Err(Malformed);
        }
        if !(1..=FORMAT_VERSION).contains(&version) {
            return Ok(Found::Newer(version));
        }
        if fields.u32()? != checksum(block.get(20..END).ok_or(Malformed)?) {
            return Err(Malformed);
        }
        let (file, segment_bytes) = (FileId(fields.u32()?), fields.u64()?);
        let (segment, synced) = (fields.u64()?, fields.u64()?);
        let (cluster, directory) = (fields.u64()?, DirectoryId(fields.u64()?));
        let (quorums, bits) = (fields.u64()?, fields.u64()?);
        let acceptors = (0..64).filter(|bit| bits >> bit & 1 == 1).map(AcceptorId).collect();
        let identity = Identity { cluster, directory, quorums, acceptors };
        Ok(Found::Header(Self { file, segment_bytes, segment, synced, identity }))
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, directory, quorums, acceptors } = self;
        write!(f, "cluster {cluster:016x}, directory {:016x}, quorum system ", directory.0)?;
        write!(f, "{quorums:016x}, acceptors")?;
        acceptors.iter().try_for_each(|acceptor| write!(f, " {}", acceptor.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block() -> Buffer {
        let acceptors = [AcceptorId(0), AcceptorId(63)].into_iter().collect();
        let directory = DirectoryId(7);
        let identity = Identity { cluster: 1, directory, quorums: 2, acceptors };
        let (file, segment_bytes, segment, synced) = (FileId(3), 1 << 26, 9, 77);
        let header = Header { file, segment_bytes, segment, synced, identity };
        let mut block = Buffer::new();
        header.put(&mut block);
        assert_eq!(block.len(), BLOCK_BYTES as usize);
        assert_eq!(Header::find(FileId(3), &block), Found::Header(header));
        block
    }

    fn set_version(block: &mut Buffer, version: u32) {
        block[8..12].copy_from_slice(&version.to_le_bytes());
        let checksum = checksum(&block[..12]);
        block[12..16].copy_from_slice(&checksum.to_le_bytes());
    }

    #[test]
    fn r04_a_header_of_the_first_version_is_read() {
        let mut block = block();
        let of_this_version = Header::find(FileId(3), &block);
        set_version(&mut block, 1);
        assert_eq!(Header::find(FileId(3), &block), of_this_version);
    }

    #[test]
    fn r33_a_header_in_another_file_is_none() {
        assert_eq!(Header::find(FileId(2), &block()), Found::Nothing);
    }

    #[test]
    fn r33_a_header_with_any_bit_flipped_is_none() {
        let mut block = block();
        for bit in 0..END * 8 {
            block[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Header::find(FileId(3), &block), Found::Nothing, "bit {bit}");
            block[bit / 8] ^= 1 << (bit % 8);
        }
    }

    #[test]
    fn r04_a_newer_version_is_known_as_that_whatever_follows() {
        let mut block = block();
        set_version(&mut block, FORMAT_VERSION + 1);
        block[16..].fill(0xAB);
        assert_eq!(Header::find(FileId(3), &block), Found::Newer(FORMAT_VERSION + 1));
    }
}
