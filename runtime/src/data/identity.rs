//! The identity file of a data directory: the cluster and node that it belongs to.

use std::fmt::{self, Write as _};
use std::path::Path;

use loggos_protocol::{AcceptorId, AcceptorSet, DirectoryId, ReplicaId};

use super::DataError;

/// The version of the identity file, and of the directory's layout.
pub(super) const DATA_VERSION: u32 = 1;

/// The content of the identity file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct NodeIdentity {
    pub(super) cluster_name: String,
    /// The digest of the quorum system, f, windows and numbers of roles (R3).
    pub(super) quorums: u64,
    pub(super) name: String,
    /// The cores that have a log.
    pub(super) logs: Vec<(usize, DirectoryId, AcceptorSet)>,
    /// The replicas, each with the identity of its own directory.
    pub(super) replicas: Vec<(ReplicaId, DirectoryId)>,
}

impl NodeIdentity {
    pub(super) fn write(&self) -> String {
        let Self { cluster_name, quorums, name, logs, replicas } = self;
        let mut text = format!("loggos data {DATA_VERSION}\ncluster {cluster_name}\n");
        let mut line = |line: fmt::Arguments<'_>| {
            writeln!(text, "{line}").expect("writing to a string does not fail");
        };
        line(format_args!("quorums {quorums:016x}"));
        line(format_args!("node {name}"));
        for (core, directory, acceptors) in logs {
            let ids = acceptors.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(" ");
            line(format_args!("core {core} directory {:016x} acceptors {ids}", directory.0));
        }
        for (replica, directory) in replicas {
            line(format_args!("replica {} directory {:016x}", replica.0, directory.0));
        }
        let checksum = sum(text.as_bytes());
        text + &format!("checksum {checksum:08x}\n")
    }

    /// Reads the identity from `bytes`, the content of `file`.
    ///
    /// # Errors
    ///
    /// If it is damaged, or a later version has written it.
    pub(super) fn read(bytes: &[u8], file: &Path) -> Result<Self, DataError> {
        let damaged = |what| DataError::Damaged { path: file.to_owned(), what };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("is not text"))?;
        // The last line, in every version.
        let end = text.rfind("checksum ").ok_or_else(|| damaged("has no checksum"))?;
        let (said, last) = text.split_at(end);
        if last != format!("checksum {:08x}\n", sum(said.as_bytes())) {
            return Err(damaged("is damaged: its checksum differs"));
        }
        let mut lines = said.lines();
        let version = lines.next().and_then(|line| line.strip_prefix("loggos data ")?.parse().ok());
        match version {
            Some(DATA_VERSION) => {}
            Some(version) => return Err(DataError::Newer { path: file.to_owned(), version }),
            None => return Err(damaged("is not an identity file of loggos")),
        }
        let identity = Self::take(&mut lines);
        identity.ok_or_else(|| damaged("is incomplete, though its checksum is right"))
    }

    fn take(lines: &mut std::str::Lines<'_>) -> Option<Self> {
        let cluster_name = lines.next()?.strip_prefix("cluster ")?.to_owned();
        let quorums = u64::from_str_radix(lines.next()?.strip_prefix("quorums ")?, 16).ok()?;
        let name = lines.next()?.strip_prefix("node ")?.to_owned();
        let (mut logs, mut replicas) = (Vec::new(), Vec::new());
        for line in lines {
            match line.strip_prefix("core ") {
                Some(line) => logs.push(take_log(line)?),
                None => replicas.push(take_replica(line.strip_prefix("replica ")?)?),
            }
        }
        Some(Self { cluster_name, quorums, name, logs, replicas })
    }
}

fn take_log(line: &str) -> Option<(usize, DirectoryId, AcceptorSet)> {
    let (core, rest) = line.split_once(" directory ")?;
    let (directory, acceptors) = rest.split_once(" acceptors ")?;
    let acceptors = acceptors.split(' ').map(|id| id.parse().ok().map(AcceptorId));
    Some((core.parse().ok()?, take_directory(directory)?, acceptors.collect::<Option<_>>()?))
}

fn take_replica(line: &str) -> Option<(ReplicaId, DirectoryId)> {
    let (replica, directory) = line.split_once(" directory ")?;
    Some((ReplicaId(replica.parse().ok()?), take_directory(directory)?))
}

fn take_directory(text: &str) -> Option<DirectoryId> {
    u64::from_str_radix(text, 16).ok().map(DirectoryId)
}

/// The checksum of the identity file.
pub(super) fn sum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
