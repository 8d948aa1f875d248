//! Backups: snapshots saved from the directories of replicas at work, and clusters that start from
//! one.
//!
//! ```text
//!   data/replica-N/snapshot-… ──save──▶ a file ──restore──▶ a new data directory of each node
//! ```
//!
//! To save one asks nothing of the cluster: a snapshot that has its name is whole and durable, and
//! never changes. A cluster that is restored is a new one, with acceptors of its own: its log
//! starts at the snapshot's slot, with no session of the former (R4).

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use loggos_protocol::{SnapshotInfo, SnapshotTrial, StateMachine};
use loggos_storage::{SavedError, SavedSnapshot, StoreOriginError};

use crate::config::Config;
use crate::data::{self, DataError};

/// A snapshot in a file, to be saved elsewhere or to start a cluster from.
#[derive(Debug)]
pub struct Backup(SavedSnapshot);

/// The reason why a snapshot cannot be saved or restored.
#[derive(Debug)]
pub enum BackupError {
    /// No replica of the node has a directory.
    NoReplica {
        /// The node.
        node: String,
    },
    /// The cluster that is to start from it is not durable.
    InMemory {
        /// Its name.
        cluster: String,
    },
    /// The file is no snapshot that can be used.
    Saved(SavedError),
    /// The state machine refuses it: another one has written it.
    OtherMachine {
        /// The file.
        path: PathBuf,
    },
    /// The data directory cannot be made.
    Data(DataError),
    /// The snapshot cannot be written into the data directory.
    Disk {
        /// The directory of the replica.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
}

impl Backup {
    /// Opens the snapshot in the file at `path`.
    ///
    /// # Errors
    ///
    /// If it is no snapshot, or damaged as far as its beginning and end tell.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, BackupError> {
        Ok(Self(SavedSnapshot::open(path.as_ref())?))
    }

    /// Opens the newest durable snapshot of the replicas of the node of `config` at place `node`,
    /// or of the single process of a cluster without nodes. They may be at work.
    ///
    /// # Errors
    ///
    /// If the node has no replica with a directory, or none has taken a snapshot yet.
    pub fn newest(config: &Config, node: Option<usize>) -> Result<Self, BackupError> {
        let mut newest: Option<SavedSnapshot> = None;
        let mut none = BackupError::NoReplica {
            node: node.map_or_else(|| config.name.clone(), |node| config.nodes[node].name.clone()),
        };
        for directory in data::replica_directories(config, node) {
            match SavedSnapshot::newest(&directory) {
                Ok(saved) => {
                    let is_newer = newest.as_ref().is_none_or(|it| it.info().id < saved.info().id);
                    newest = if is_newer { Some(saved) } else { newest };
                }
                Err(error @ SavedError::NoSnapshot(_)) => none = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        newest.map(Self).ok_or(none)
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// What it is a snapshot of.
    #[must_use]
    pub fn info(&self) -> SnapshotInfo {
        self.0.info()
    }

    /// Whether it is of the cluster that `config` names.
    #[must_use]
    pub fn is_of(&self, config: &Config) -> bool {
        self.0.owner().cluster == data::cluster_digest(config)
    }

    /// Reads all of it, to see that it is whole. `progress` is told the bytes so far.
    ///
    /// # Errors
    ///
    /// If it is not.
    pub fn check(&mut self, mut progress: impl FnMut(u64)) -> Result<(), BackupError> {
        self.0.read_all(|_, bytes| {
            progress(bytes);
            Ok(())
        })
    }

    /// Saves it to a file at `to`, where there must be none: whole and durable, or not there.
    /// `progress` is told the bytes so far.
    ///
    /// # Errors
    ///
    /// If there is a file, it cannot be written, or the snapshot is damaged.
    pub fn save(&mut self, to: &Path, progress: impl FnMut(u64)) -> Result<(), BackupError> {
        Ok(self.0.save(to, progress)?)
    }

    /// Makes the data directory of the node of `config` at place `node`, or of the single process,
    /// for a new cluster whose log starts from this snapshot; returns where it is. All nodes must
    /// be restored from the same one.
    ///
    /// It is restored into `machine` first, to see that it can be. `progress` is told the bytes so
    /// far.
    ///
    /// # Errors
    ///
    /// If the cluster is not durable, by [`Config::is_durable`]; if the snapshot is damaged or of
    /// another state machine; as [`Node::format`], also if there is a data directory. What was made
    /// in it is removed then.
    ///
    /// [`Node::format`]: crate::Node::format
    ///
    /// source: R4
    pub fn restore<M: StateMachine>(
        &mut self,
        config: &Config,
        node: Option<usize>,
        machine: M,
        mut progress: impl FnMut(u64),
    ) -> Result<PathBuf, BackupError> {
        if !config.is_durable() {
            return Err(BackupError::InMemory { cluster: config.name.clone() });
        }
        let mut trial = SnapshotTrial::new(&config.cluster, machine, self.0.info());
        let mut is_refused = false; // what is damaged is said to be damaged, though refused, too
        self.0.read_all(|part, bytes| {
            progress(bytes);
            is_refused |= is_refused || trial.add(part).is_err();
            Ok::<(), BackupError>(())
        })?;
        if is_refused || trial.end().is_err() {
            return Err(BackupError::OtherMachine { path: self.path().to_owned() });
        }
        data::restore(config, node, &mut self.0)
    }
}

impl From<SavedError> for BackupError {
    fn from(error: SavedError) -> Self {
        Self::Saved(error)
    }
}

impl From<DataError> for BackupError {
    fn from(error: DataError) -> Self {
        Self::Data(error)
    }
}

impl BackupError {
    /// The error of storing a snapshot in the directory `path`.
    pub(crate) fn on_storing(path: &Path, error: StoreOriginError) -> Self {
        match error {
            StoreOriginError::Saved(error) => Self::Saved(error),
            StoreOriginError::Disk(error) => Self::Disk { path: path.to_owned(), error },
        }
    }
}

impl fmt::Display for BackupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoReplica { node } => write!(
                f,
                "{node} has no replica with a data directory: save a snapshot where there is one"
            ),
            Self::InMemory { cluster } => write!(
                f,
                "cluster {cluster} is in memory, and would start with nothing: it takes durability = \"sync\""
            ),
            Self::Saved(error) => write!(f, "{error}"),
            Self::OtherMachine { path } => {
                write!(f, "{} is whole, but another state machine has written it", path.display())
            }
            Self::Data(error) => write!(f, "{error}"),
            Self::Disk { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for BackupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Saved(error) => Some(error),
            Self::Data(error) => Some(error),
            Self::Disk { error, .. } => Some(error),
            Self::NoReplica { .. } | Self::InMemory { .. } | Self::OtherMachine { .. } => None,
        }
    }
}
