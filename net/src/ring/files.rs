//! Files that are written to, and how far a write has come.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// Memory that direct I/O takes as it is: aligned to a block of 4 KiB.
pub type AlignedBytes = rkyv::util::AlignedVec<4096>;

/// The unit of direct I/O.
const BLOCK_BYTES: usize = 4096;
/// The most partial results of one write. A disk that needs more is broken.
const PARTS_MAX: u32 = 8;

/// Names a file of one ring.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RingFile(pub(super) u32);

/// A file that is written to.
pub(super) struct OpenFile {
    pub(super) file: OwnedFd,
    /// Whether a write is under way.
    pub(super) is_busy: bool,
}

/// A write to a file that has ended.
#[derive(Debug)]
pub struct Written {
    /// The file that it went to.
    pub file: RingFile,
    /// The memory that was lent to it.
    pub bytes: AlignedBytes,
    /// `Ok` if all of it is durable. After an error it is unknown which part of it is on the disk.
    pub outcome: Result<(), io::ErrorKind>,
}

/// A write, and how far it has come.
pub(super) struct FileWrite {
    pub(super) file: RingFile,
    offset: u64,
    bytes: AlignedBytes,
    /// So many of them are written.
    done: usize,
    /// The number of partial results so far.
    parts: u32,
}

impl OpenFile {
    pub(super) fn new(file: OwnedFd) -> Self {
        Self { file, is_busy: false }
    }
}

impl FileWrite {
    pub(super) fn new(file: RingFile, offset: u64, bytes: AlignedBytes) -> Self {
        assert!(!bytes.is_empty(), "a write of nothing");
        Self { file, offset, bytes, done: 0, parts: 0 }
    }

    /// Returns the bytes that are not written yet.
    pub(super) fn left(&self) -> &[u8] {
        &self.bytes[self.done..]
    }

    /// Returns their offset in the file.
    pub(super) fn offset_left(&self) -> u64 {
        self.offset + self.done as u64
    }

    /// Takes in what came of an attempt; returns the end of the write, if this is it, or else there
    /// is to be another.
    ///
    /// It has ended well only when its last byte was written by an operation that succeeded, which
    /// has synced what it wrote, and so has each before it.
    pub(super) fn advance(
        &mut self,
        result: Result<usize, Errno>,
    ) -> Option<Result<(), io::ErrorKind>> {
        match result {
            Ok(bytes) if bytes == self.left().len() => Some(Ok(())),
            Ok(bytes) => {
                assert!(bytes < self.left().len(), "more was written than there was");
                // A block of which a part was written is written again: what is left begins with a
                // block.
                self.done = (self.done + bytes) / BLOCK_BYTES * BLOCK_BYTES;
                self.parts += 1;
                (self.parts > PARTS_MAX).then_some(Err(io::ErrorKind::WriteZero))
            }
            Err(Errno::INTR | Errno::AGAIN) => None,
            Err(error) => Some(Err(error.kind())),
        }
    }

    pub(super) fn into_bytes(self) -> AlignedBytes {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(blocks: usize) -> FileWrite {
        let mut bytes = AlignedBytes::new();
        bytes.resize(blocks * BLOCK_BYTES, 7);
        FileWrite::new(RingFile(0), 3 * 4096, bytes)
    }

    #[test]
    fn r31_a_write_in_part_is_gone_on_with_and_is_no_sync_of_the_whole() {
        let mut write = write(4);
        assert_eq!(write.advance(Ok(2 * BLOCK_BYTES + 512)), None);
        assert_eq!((write.offset_left(), write.left().len()), (5 * 4096, 2 * BLOCK_BYTES));
        assert_eq!(write.advance(Ok(BLOCK_BYTES)), None);
        assert_eq!(write.advance(Err(Errno::INTR)), None);
        assert_eq!((write.offset_left(), write.left().len()), (6 * 4096, BLOCK_BYTES));
        assert_eq!(write.advance(Ok(BLOCK_BYTES)), Some(Ok(())));
    }

    #[test]
    fn r34_a_write_that_fails_after_a_part_has_failed() {
        let mut write = write(2);
        assert_eq!(write.advance(Ok(BLOCK_BYTES)), None);
        let ended = write.advance(Err(Errno::NOSPC));
        assert_eq!(ended, Some(Err(io::ErrorKind::StorageFull)));
    }

    #[test]
    fn r34_a_disk_that_writes_only_parts_is_given_up() {
        let mut write = write(1);
        let ended = (0..100).find_map(|_| write.advance(Ok(512)));
        assert_eq!(ended, Some(Err(io::ErrorKind::WriteZero)));
        assert_eq!(write.left().len(), BLOCK_BYTES, "nothing whole was written");
    }
}
