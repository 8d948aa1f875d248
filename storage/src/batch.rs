//! Batches: what one write makes durable.
//!
//! ```text
//!   0          4       8        12        16          24        32       40       48       52        56
//!   │ checksum │ magic │ length │ records │ directory │ segment │ number │ synced │ offset │ previous │ records … │ zeros │
//!              └───────────────────────── what the checksum covers ───────────────────────────────────┘   to the block's end
//! ```
//!
//! A batch begins a block and ends one. `length` is without the padding. `number` counts the log's
//! batches from 1 on, across segments; `synced` is the last that was known to be synced when this
//! one was written; `previous` is the checksum of the one before. A batch without records is a
//! mark.
//!
//! Segment and offset say where it belongs: written elsewhere, or left over from an earlier use of
//! the file, it is no batch. The chain says which batch it follows: of a batch that was cut off at
//! a recovery and one that was written in its place, only one has the checksum that the next one
//! names.

use crate::fields::{Fields, Malformed, checksum, length};
use crate::{BLOCK_BYTES, Buffer};

/// The bytes before the records.
pub(crate) const HEAD_BYTES: u32 = 56;

const MAGIC: [u8; 4] = *b"LGBT";

/// The head of a batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Batch {
    pub(crate) link: BatchLink,
    /// Without padding.
    pub(crate) bytes: u32,
    pub(crate) records_count: u32,
    pub(crate) directory: u64,
    pub(crate) segment: u64,
    pub(crate) offset: u32,
    pub(crate) synced: u64,
    pub(crate) previous: u32,
}

/// The batch that the next one must follow.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) struct BatchLink {
    /// The batch's number.
    pub(crate) number: u64,
    /// Its checksum.
    pub(crate) checksum: u32,
}

/// `bytes`, up to the end of the block.
pub(crate) fn padded(bytes: u32) -> u32 {
    bytes.next_multiple_of(BLOCK_BYTES)
}

impl Batch {
    /// Fills in the first [`HEAD_BYTES`] of `bytes`, of which the rest are records, and pads them;
    /// `self.bytes` and the checksum follow from them. Returns what the next batch is to follow.
    pub(crate) fn seal(&self, bytes: &mut Buffer, start: usize) -> BatchLink {
        let batch_bytes = length(bytes.len() - start);
        let mut at = start + 4;
        let mut fill = |field: &[u8]| {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        };
        fill(&MAGIC);
        fill(&batch_bytes.to_le_bytes());
        fill(&self.records_count.to_le_bytes());
        fill(&self.directory.to_le_bytes());
        fill(&self.segment.to_le_bytes());
        fill(&self.link.number.to_le_bytes());
        fill(&self.synced.to_le_bytes());
        fill(&self.offset.to_le_bytes());
        fill(&self.previous.to_le_bytes());
        assert_eq!(at, start + HEAD_BYTES as usize, "a batch's head is as long as its fields");
        let checksum = checksum(&bytes[start + 4..]);
        bytes[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
        bytes.resize(start + padded(batch_bytes) as usize, 0);
        BatchLink { number: self.link.number, checksum }
    }

    /// Reads what a batch that `block` begins with would say of itself; nothing is checked yet but
    /// that it could be one.
    pub(crate) fn peek(block: &[u8]) -> Option<Self> {
        Self::take(block).ok()
    }

    /// Whether `bytes`, as many as `self.bytes`, are what was summed.
    pub(crate) fn is_whole(&self, bytes: &[u8]) -> bool {
        checksum(&bytes[4..]) == self.link.checksum
    }

    /// Whether it is the one after `link`.
    pub(crate) fn follows(&self, link: BatchLink) -> bool {
        self.link.number == link.number + 1 && self.previous == link.checksum
    }

    /// Whether it was written there.
    pub(crate) fn is_at(&self, segment: u64, offset: u32) -> bool {
        (self.segment, self.offset) == (segment, offset)
    }

    /// The place where the next batch begins.
    pub(crate) fn end(&self) -> u32 {
        self.offset + padded(self.bytes)
    }

    fn take(block: &[u8]) -> Result<Self, Malformed> {
        let mut fields = Fields(block);
        let checksum = fields.u32()?;
        if fields.array()? != MAGIC {
            return Err(Malformed);
        }
        let (bytes, records_count) = (fields.u32()?, fields.u32()?);
        let (directory, segment) = (fields.u64()?, fields.u64()?);
        let (number, synced) = (fields.u64()?, fields.u64()?);
        let (offset, previous) = (fields.u32()?, fields.u32()?);
        if bytes < HEAD_BYTES || number == 0 {
            return Err(Malformed);
        }
        let link = BatchLink { number, checksum };
        Ok(Self { link, bytes, records_count, directory, segment, offset, synced, previous })
    }
}
