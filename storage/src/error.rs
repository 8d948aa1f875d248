//! Why a log is not to be used.

use std::fmt;
use std::io;

use crate::{FileId, Identity};

/// The reason why a log cannot be formatted, read or recovered: its acceptors must not serve (R4).
#[derive(Debug)]
pub enum StorageError {
    /// There is nothing where a log should be.
    Empty,
    /// There are files, and no segment can be read in any of them.
    Unformatted,
    /// There is something where a log was to be made.
    NotEmpty,
    /// A later version of this program has written it.
    Newer {
        /// The place where that was found.
        file: FileId,
        /// The format's version.
        version: u32,
    },
    /// It is another node's, or another cluster's, or of another configuration.
    Foreign {
        /// The place where that was found.
        file: FileId,
        /// The identity that it should have.
        wanted: Box<Identity>,
        /// The identity that it has.
        found: Box<Identity>,
    },
    /// Its segments are not as long as the configuration says.
    SegmentBytes {
        /// The length that the configuration wants, in bytes.
        wanted: u64,
        /// The length that they have, in bytes.
        found: u64,
    },
    /// A file is gone: they are counted from 0 on, and none is ever removed.
    Missing {
        /// The first that is not there.
        file: FileId,
    },
    /// A file is not as long as it was made.
    Length {
        /// The file.
        file: FileId,
        /// The length that it was made with, in bytes.
        wanted: u64,
        /// The length that it has, in bytes.
        found: u64,
    },
    /// Something is gone that was synced once.
    Damaged(Damage),
    /// The last batch is at a place where it does not belong: the disk misdirected a write.
    Misdirected {
        /// The place where it was found.
        file: FileId,
        /// The offset in that file, in bytes.
        offset: u64,
        /// The number of the batch.
        number: u64,
    },
    /// The disk failed.
    Disk {
        /// The file; `None` for the directory.
        file: Option<FileId>,
        /// The error of the operating system.
        error: io::Error,
    },
}

/// Something is gone that was synced once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Damage {
    /// The file in which a batch should be.
    pub file: FileId,
    /// The offset in that file, in bytes.
    pub offset: u64,
    /// The number of the first batch that is missing.
    pub number: u64,
    /// The last batch that something later names as synced.
    pub synced: u64,
}

/// The reason why a log takes nothing in any more (R34).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Poison {
    /// A write failed: what is on disk is not known.
    Write(io::ErrorKind),
    /// A sync failed: what is durable is not known, and a sync that succeeds later would not tell.
    Sync(io::ErrorKind),
    /// A vote could not be read back, or is not what was written (`InvalidData`).
    Read(io::ErrorKind),
}

impl StorageError {
    pub(crate) fn on(file: FileId) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Disk { file: Some(file), error }
    }

    pub(crate) fn directory(error: io::Error) -> Self {
        Self::Disk { file: None, error }
    }
}

/// What it means that a log has lost something.
const FORGOTTEN: &str = "This acceptor has forgotten promises or votes and must not serve again from this \
     directory; the cluster goes on without it. Keep the directory for diagnosis, check the disk, and do not put \
     an older copy in its place";

impl fmt::Display for StorageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str(
                "there is no log here: `loggos format` makes one, once. If there was one, it is lost, and \
                 this acceptor with it: the cluster goes on without it",
            ),
            Self::Unformatted => f.write_str(
                "the files of the log hold no segment: if `loggos format` was interrupted, remove them and \
                 format again; if this acceptor has ever served, it is lost",
            ),
            Self::NotEmpty => f.write_str("the directory holds a log already, which `loggos format` makes only once"),
            Self::Newer { file, version } => {
                write!(f, "{file} has format {version}, which a later version of loggos writes; ")?;
                write!(f, "this version reads up to {}", crate::FORMAT_VERSION)
            }
            Self::Foreign { file, wanted, found } => {
                write!(f, "{file} belongs to another log: expected {wanted}, found {found}")
            }
            Self::SegmentBytes { wanted, found } => {
                write!(f, "the log has segments of {found} bytes, the configuration wants {wanted}: ")?;
                f.write_str("set it to what the log has")
            }
            Self::Missing { file } => {
                write!(f, "{file} is missing, although later files exist. {FORGOTTEN}")
            }
            Self::Length { file, wanted, found } => {
                write!(f, "{file} has {found} bytes instead of {wanted}. {FORGOTTEN}")
            }
            Self::Damaged(damage) => damage.fmt(f),
            Self::Misdirected { file, offset, number } => {
                write!(f, "batch {number}, the last one written, is in {file} at byte {offset}, ")?;
                write!(f, "where it does not belong: the disk writes to wrong places. {FORGOTTEN}")
            }
            Self::Disk { file: Some(file), error } => write!(f, "{file}: {error}"),
            Self::Disk { file: None, error } => write!(f, "the log's directory: {error}"),
        }
    }
}

impl std::error::Error for StorageError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk { error, .. } => Some(error),
            Self::Empty
            | Self::Unformatted
            | Self::NotEmpty
            | Self::Newer { .. }
            | Self::Foreign { .. }
            | Self::SegmentBytes { .. }
            | Self::Missing { .. }
            | Self::Length { .. }
            | Self::Damaged(_)
            | Self::Misdirected { .. } => None,
        }
    }
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, offset, number, synced } = self;
        match offset {
            0 => write!(f, "the end of the segment before {file} is missing or damaged")?,
            _ => write!(f, "{file} is damaged at byte {offset}")?,
        }
        write!(f, ": batch {number} cannot be read, though all up to {synced} were synced. ")?;
        f.write_str(FORGOTTEN)
    }
}

impl fmt::Display for Poison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write(kind) => write!(f, "a write to the log failed: {kind}"),
            Self::Sync(kind) => write!(f, "a sync of the log failed: {kind}"),
            Self::Read(kind) => write!(f, "a vote could not be read back: {kind}"),
        }
    }
}

impl std::error::Error for Poison {}
