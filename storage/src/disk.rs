//! What the log asks of a disk where nothing runs yet: to format, to recover, to look.
//!
//! While a node runs, its driver writes and syncs on its own, as
//! [`Wal::gather`](crate::Wal::gather) tells it; these calls block.

use std::fmt;
use std::io;

/// What is written and synced as a whole; offsets and lengths in the log are multiples of it.
pub const BLOCK_BYTES: u32 = 4096;

/// Memory that direct I/O takes as it is: aligned to a block.
///
/// `rkyv`'s vector is one that is kept in order by others, for its own archives; it costs this
/// crate no `unsafe`. The driver gets it by value and gives it back, so nothing is copied and, in a
/// steady state, nothing is allocated.
pub type Buffer = rkyv::util::AlignedVec<{ BLOCK_BYTES as usize }>;

/// A file of the log. It keeps its name and length for ever; which segment it holds, its content
/// says.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct FileId(pub u32);

/// Files of one directory.
///
/// Offsets and lengths are multiples of [`BLOCK_BYTES`], and the memory is aligned to it.
pub trait Disk {
    /// The files of the log that are there, each with its length in bytes, in the order of their
    /// ids.
    ///
    /// # Errors
    ///
    /// As the disk says.
    fn files(&mut self) -> io::Result<Vec<(FileId, u64)>>;

    /// Fills `into` from `offset` on.
    ///
    /// To recover, this reads what the disk has, and not what a cache has (`O_DIRECT`): after a
    /// failed sync Linux keeps pages that it could not write, calls them clean, and a later sync of
    /// them succeeds.
    ///
    /// # Errors
    ///
    /// As the disk says; `UnexpectedEof` beyond the file's end.
    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`. Nothing is durable yet.
    ///
    /// # Errors
    ///
    /// As the disk says. What is on disk then is not known.
    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was written to `file`.
    ///
    /// # Errors
    ///
    /// As the disk says. What is durable then is not known, and syncing again does not help (R34).
    fn sync(&mut self, file: FileId) -> io::Result<()>;

    /// Makes durable which files there are.
    ///
    /// # Errors
    ///
    /// As the disk says.
    fn sync_directory(&mut self) -> io::Result<()>;

    /// Makes `file` one of `bytes` zeros, written and not merely reserved, and durable with its
    /// name. A shorter one of that name, which an earlier call did not finish, is replaced.
    ///
    /// # Errors
    ///
    /// As the disk says.
    fn create(&mut self, file: FileId, bytes: u64) -> io::Result<()>;
}

impl fmt::Display for FileId {
    /// Its name in a directory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "log.{:05}", self.0)
    }
}
