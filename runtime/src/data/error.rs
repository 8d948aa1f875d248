//! The errors of data directories.

use std::fmt;
use std::io;
use std::path::PathBuf;

use loggos_storage::{SnapshotError, StorageError};

use super::identity::DATA_VERSION;

/// The reason why a data directory cannot be made, or must not be served from.
#[derive(Debug)]
pub enum DataError {
    /// The configuration names none, and there are acceptors or replicas that need one.
    Unnamed {
        /// The node that needs it.
        owner: String,
    },
    /// No acceptor or replica needs one.
    NotNeeded {
        /// The node.
        owner: String,
    },
    /// It does not exist.
    Missing(PathBuf),
    /// It exists, and has no entries.
    Empty(PathBuf),
    /// The directory of a replica in it does not exist.
    NoReplica(PathBuf),
    /// It was to be made, and has entries already.
    NotEmpty(PathBuf),
    /// Another process serves from it.
    Locked(PathBuf),
    /// Its identity file is missing or cannot be read.
    Damaged {
        /// The file.
        path: PathBuf,
        /// The damage.
        what: &'static str,
    },
    /// A later version of this program has made it.
    Newer {
        /// The identity file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It belongs to another cluster or node, or to another configuration of this one.
    Foreign {
        /// The directory.
        path: PathBuf,
        /// The property that differs.
        what: &'static str,
        /// Its value by the configuration.
        expected: String,
        /// Its value in the directory.
        found: String,
    },
    /// It was found to be an older copy (R33).
    Outdated {
        /// The log's directory.
        path: PathBuf,
        /// The text of the other node.
        why: String,
    },
    /// A log in it cannot be made or recovered.
    Log {
        /// The log's directory.
        path: PathBuf,
        /// The cause.
        error: StorageError,
    },
    /// The snapshots of a replica cannot be used.
    Snapshots {
        /// The replica's directory.
        path: PathBuf,
        /// The cause.
        error: SnapshotError,
    },
    /// The file system failed.
    File {
        /// The file or directory.
        path: PathBuf,
        /// The cause.
        error: io::Error,
    },
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed { owner } => write!(
                f,
                "the acceptors and replicas of {owner} need a data directory: name it as `data` in the \
                 table of the node, or write durability = \"memory\" in [cluster]"
            ),
            Self::NotNeeded { owner } => {
                write!(f, "{owner} has no acceptors and no replicas: it needs no data directory")
            }
            Self::Missing(path) => write!(
                f,
                "there is no data directory {}. For a new node, make it with `loggos format`. If there was \
                 one, its acceptors are lost, and the cluster goes on without them; its replicas are brought up by \
                 others",
                path.display()
            ),
            Self::Empty(path) => write!(
                f,
                "the data directory {} is empty. Is its disk mounted? For a new node, fill it with `loggos \
                 format`. If there was something in it, its acceptors are lost, and the cluster goes on \
                 without them; its replicas are brought up by others",
                path.display()
            ),
            Self::NoReplica(path) => write!(
                f,
                "there is no {}. If the snapshots in it are lost, `loggos format` makes it again, empty, and \
                 other replicas bring this one up: until then it counts as lost",
                path.display()
            ),
            Self::NotEmpty(path) => write!(
                f,
                "{} is not empty: a data directory is made once, and nothing is removed for it",
                path.display()
            ),
            Self::Locked(path) => {
                write!(f, "another process uses the data directory {}", path.display())
            }
            Self::Damaged { path, what } => write!(
                f,
                "{} {what}. If `loggos format` or `loggos snapshot restore` was interrupted, remove the \
                 directory and do the same again. If its acceptors have ever served, they are lost, and the cluster goes on without them",
                path.display()
            ),
            Self::Newer { path, version } => write!(
                f,
                "{} has version {version}, written by a later version of loggos; this one reads \
                 {DATA_VERSION}",
                path.display()
            ),
            Self::Foreign { path, what, expected, found } => write!(
                f,
                "data directory {} belongs to another cluster or node, or to another configuration: {what}: \
                 expected {expected}, found {found}",
                path.display()
            ),
            Self::Outdated { path, why } => write!(
                f,
                "{} is an older copy. Another node said: {why}. Its acceptors have forgotten promises or \
                 votes. Put the latest copy back, or go on without these acceptors",
                path.display()
            ),
            Self::Log { path, error } => write!(f, "{}: {error}", path.display()),
            Self::Snapshots { path, error } => write!(f, "{}: {error}", path.display()),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for DataError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Log { error, .. } => Some(error),
            Self::Snapshots { error, .. } => Some(error),
            Self::File { error, .. } => Some(error),
            Self::Unnamed { .. }
            | Self::NotNeeded { .. }
            | Self::Missing(_)
            | Self::Empty(_)
            | Self::NoReplica(_)
            | Self::NotEmpty(_)
            | Self::Locked(_)
            | Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Foreign { .. }
            | Self::Outdated { .. } => None,
        }
    }
}
