//! The data directory of a process.
//!
//! ```text
//!   data/node            the cluster and node that it belongs to: text, with a checksum; written last, as a whole
//!   data/lock            locked by the process that serves from the directory
//!   data/core-0/log.*    the log of the acceptors of core 0, and so on
//!   data/core-0/outdated another node has found this log to be an older copy: no process serves from it any more
//!   data/replica-0/*     the snapshots of replica 0, and so on
//! ```
//!
//! `loggos format` makes it, once. A process compares it with the configuration before it serves
//! from it, and refuses one that belongs to another node or cluster: an acceptor that has forgotten
//! must not count (R4).

mod error;
mod identity;

use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loggos_protocol::{AcceptorSet, Digest, DirectoryId, ReplicaId, RoleId, SnapshotInfo};
use loggos_storage::{
    Disk, Folder, Identity, Options, Recovered, SavedSnapshot, SnapshotFolder, SnapshotOwner,
    SnapshotStore, StorageError,
};
use tracing::warn;

pub use self::error::DataError;
use self::identity::NodeIdentity;
use crate::backup::BackupError;
use crate::config::Config;
use crate::log::{LogPlan, condemned, sync_directory};
use crate::random::random_u64;
use crate::snapshots::ReplicaPlan;

/// The identity file.
const NODE_FILE: &str = "node";
const LOCK_FILE: &str = "lock";
/// What ext4 and others make in the root of a new file system.
const FILE_SYSTEMS_OWN: &str = "lost+found";
/// How long a start waits for writes that an earlier life of the process had under way, and how
/// often it looks.
const LATE_WRITES_MAX: Duration = Duration::from_secs(30);
const LATE_WRITES_PAUSE: Duration = Duration::from_millis(5);
/// The owner's name where one process is the whole cluster.
const ONE_PROCESS: &str = "(one process)";

/// The process that a data directory belongs to, by the configuration.
#[derive(Debug)]
struct Owner {
    name: String,
    /// The digest of the cluster's name.
    cluster: u64,
    cluster_name: String,
    quorums: u64,
    /// The acceptors of each core.
    acceptors: Vec<AcceptorSet>,
    replicas: Vec<ReplicaId>,
    path: Option<PathBuf>,
    options: Options,
}

/// A directory that was opened to be served from. No other process can open it until it is dropped.
#[derive(Debug)]
pub(crate) struct Data {
    _lock: File,
    /// The log of each core that has one.
    pub(crate) logs: Vec<Option<LogPlan>>,
    /// The directories of the replicas.
    pub(crate) replicas: Vec<ReplicaPlan>,
}

/// Makes the data directory of node `node` of `config`, or of the single process of a cluster
/// without nodes; returns its path.
///
/// In one that is there already it makes the directories of replicas that are missing, and nothing
/// else: each with a new identity, for it is another memory (R4, R16).
///
/// # Errors
///
/// If it exists and nothing is missing in it, or cannot be made; if no acceptor or replica needs
/// it.
///
/// source: R4, "`loggos format` creates a directory, once"
pub(crate) fn format(config: &Config, node: Option<usize>) -> Result<PathBuf, DataError> {
    let owner = Owner::of(config, node);
    let path = owner.make_directory()?;
    if has_entries(&path)? {
        return owner.format_missing(path);
    }
    owner.fill(path, &mut Vec::new(), |_, _| Ok(()))
}

/// Makes a data directory as [`format`] does, in which each replica has `saved` for its log to
/// start from.
///
/// # Errors
///
/// As [`format`], also if there is anything in the directory; if `saved` is damaged or cannot be
/// written there. What was made in the directory is removed then.
///
/// source: R4
pub(crate) fn restore(
    config: &Config,
    node: Option<usize>,
    saved: &mut SavedSnapshot,
) -> Result<PathBuf, BackupError> {
    let owner = Owner::of(config, node);
    let path = owner.make_directory()?;
    if has_entries(&path)? {
        return Err(DataError::NotEmpty(path).into());
    }
    let mut made = Vec::new();
    let filled = owner.fill(path, &mut made, |folder, owner| {
        let opened = SnapshotStore::open(SnapshotFolder::new(folder), owner);
        let (mut store, _) =
            opened.map_err(|error| DataError::Snapshots { path: folder.to_owned(), error })?;
        let stored = store.store_origin(saved);
        stored.map_err(|error| BackupError::on_storing(folder, error))
    });
    if filled.is_err() {
        // Of another process nothing is here: it would hold the lock. The error told is the first.
        made.iter().for_each(|folder| drop(std::fs::remove_dir_all(folder)));
    }
    filled
}

/// The digest of the name of `config`'s cluster, as directories have it.
pub(crate) fn cluster_digest(config: &Config) -> u64 {
    Digest::new("loggos cluster name").text(&config.name).finish()
}

/// The directories of the replicas of a node, or of the single process.
pub(crate) fn replica_directories(config: &Config, node: Option<usize>) -> Vec<PathBuf> {
    let owner = Owner::of(config, node);
    let Some(path) = &owner.path else { return Vec::new() };
    owner.replicas.iter().map(|replica| replica_path(path, *replica)).collect()
}

/// Opens the data directory to serve from it, recovers all its logs, and looks for snapshots.
/// Returns `None` if no acceptor or replica needs one.
///
/// # Errors
///
/// If no process, or not this one, may serve from it: see [`DataError`].
///
/// source: R3, R4
pub(crate) fn open(config: &Config, node: Option<usize>) -> Result<Option<Data>, DataError> {
    let owner = Owner::of(config, node);
    if !owner.needs_directory() {
        return Ok(None);
    }
    let path = owner.path()?;
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Err(DataError::Missing(path.clone())),
        Err(error) => return Err(failed(path)(error)),
    }
    if !has_entries(path)? {
        return Err(DataError::Empty(path.clone()));
    }
    let identity = owner.read_identity(path)?;
    let lock = lock(path)?;
    let mut logs: Vec<Option<LogPlan>> = owner.acceptors.iter().map(|_| None).collect();
    for (core, directory, acceptors) in identity.logs {
        let folder = log_path(path, core);
        logs[core] = Some(owner.recover(folder, directory, acceptors)?);
    }
    let replicas = identity.replicas.iter();
    let replicas = replicas.map(|(replica, directory)| {
        let owner = owner.snapshot_owner(*replica, *directory);
        open_replica(replica_path(path, *replica), owner)
    });
    let replicas = replicas.collect::<Result<_, _>>()?;
    Ok(Some(Data { _lock: lock, logs, replicas }))
}

impl Owner {
    fn of(config: &Config, node: Option<usize>) -> Self {
        let place = node.map(|node| &config.nodes[node]);
        let cores = place.map_or(config.cpus.len(), |node| node.cpus.len());
        let mut acceptors = vec![AcceptorSet::default(); cores];
        let mut replicas = Vec::new();
        for (role, core) in &config.placement {
            if place.is_some_and(|node| !node.roles.contains(role)) {
                continue;
            }
            match role {
                RoleId::Acceptor(id) => drop(acceptors[*core].insert(*id)),
                RoleId::Replica(id) => replicas.push(*id),
                RoleId::Gateway(_) | RoleId::Proposer(_) | RoleId::ProxyLeader(_) => {}
            }
        }
        Self {
            name: place.map_or(ONE_PROCESS, |node| &node.name).to_owned(),
            cluster: cluster_digest(config),
            cluster_name: config.name.clone(),
            quorums: config.cluster.digest(),
            acceptors,
            replicas,
            path: place.map_or(&config.data, |node| &node.data).clone(),
            options: config.log.options(),
        }
    }

    /// Makes the data directory if there is none.
    fn make_directory(&self) -> Result<PathBuf, DataError> {
        if !self.needs_directory() {
            return Err(DataError::NotNeeded { owner: self.name.clone() });
        }
        let path = self.path()?.clone();
        std::fs::create_dir_all(&path).map_err(failed(&path))?;
        Ok(path)
    }

    /// Makes all that belongs into the data directory at `path`, which is empty, and notes the
    /// folders that it has `made`. `fill` is told the directory of each replica. The identity file
    /// comes last: without it no process serves from there.
    fn fill<E: From<DataError>>(
        &self,
        path: PathBuf,
        made: &mut Vec<PathBuf>,
        mut fill: impl FnMut(&Path, SnapshotOwner) -> Result<(), E>,
    ) -> Result<PathBuf, E> {
        let _lock = lock(&path)?;
        let mut logs = Vec::new();
        for (core, acceptors) in self.logs() {
            let directory = DirectoryId(random_u64());
            let folder = log_path(&path, core);
            std::fs::create_dir(&folder).map_err(failed(&folder))?;
            made.push(folder.clone());
            let identity = self.identity(directory, acceptors);
            let mut disk = Folder::lock(&folder).map_err(failed(&folder))?;
            loggos_storage::format(&mut disk, &identity, &self.options)
                .map_err(|error| DataError::Log { path: folder, error })?;
            logs.push((core, directory, acceptors));
        }
        let mut replicas = Vec::new();
        for replica in self.replicas.iter().copied() {
            let directory = format_replica(&path, replica)?;
            made.push(replica_path(&path, replica));
            fill(&replica_path(&path, replica), self.snapshot_owner(replica, directory))?;
            replicas.push((replica, directory));
        }
        let (cluster_name, quorums) = (self.cluster_name.clone(), self.quorums);
        let identity =
            NodeIdentity { cluster_name, quorums, name: self.name.clone(), logs, replicas };
        sync_directory(&path).map_err(failed(&path))?;
        write_whole(&path, NODE_FILE, &identity.write()).map_err(failed(&path.join(NODE_FILE)))?;
        if let Some(parent) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
            sync_directory(parent).map_err(failed(parent))?;
        }
        Ok(path)
    }

    fn snapshot_owner(&self, replica: ReplicaId, directory: DirectoryId) -> SnapshotOwner {
        SnapshotOwner { cluster: self.cluster, directory, replica }
    }

    /// Reads the identity file, and compares it with the configuration.
    fn read_identity(&self, path: &Path) -> Result<NodeIdentity, DataError> {
        let file = path.join(NODE_FILE);
        let text = match std::fs::read(&file) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let what = "is missing, in a directory that is not empty";
                return Err(DataError::Damaged { path: file, what });
            }
            Err(error) => return Err(failed(&file)(error)),
        };
        let identity = NodeIdentity::read(&text, &file)?;
        self.compare(&identity)?;
        Ok(identity)
    }

    /// Makes the directories of replicas that are missing in the data directory at `path`.
    fn format_missing(&self, path: PathBuf) -> Result<PathBuf, DataError> {
        let mut identity = match self.read_identity(&path) {
            Ok(identity) => identity,
            Err(DataError::Damaged { .. }) => return Err(DataError::NotEmpty(path)),
            Err(error) => return Err(error),
        };
        let _lock = lock(&path)?;
        let mut are_missing = false;
        for (replica, directory) in &mut identity.replicas {
            let folder = replica_path(&path, *replica);
            if !folder.try_exists().map_err(failed(&folder))? {
                are_missing = true;
                *directory = format_replica(&path, *replica)?;
            }
        }
        if !are_missing {
            return Err(DataError::NotEmpty(path));
        }
        sync_directory(&path).map_err(failed(&path))?;
        write_whole(&path, NODE_FILE, &identity.write()).map_err(failed(&path.join(NODE_FILE)))?;
        Ok(path)
    }

    fn path(&self) -> Result<&PathBuf, DataError> {
        self.path.as_ref().ok_or_else(|| DataError::Unnamed { owner: self.name.clone() })
    }

    fn needs_directory(&self) -> bool {
        self.logs().next().is_some() || !self.replicas.is_empty()
    }

    /// The cores that have a log, with the acceptors that share it.
    fn logs(&self) -> impl Iterator<Item = (usize, AcceptorSet)> + '_ {
        self.acceptors.iter().copied().enumerate().filter(|(_, acceptors)| !acceptors.is_empty())
    }

    fn identity(&self, directory: DirectoryId, acceptors: AcceptorSet) -> Identity {
        Identity { cluster: self.cluster, directory, quorums: self.quorums, acceptors }
    }

    /// Refuses a directory that belongs to another node, cluster or configuration.
    fn compare(&self, identity: &NodeIdentity) -> Result<(), DataError> {
        let hex = |number: u64| format!("{number:016x}");
        let placed = |logs: &mut dyn Iterator<Item = (usize, AcceptorSet)>| {
            let logs = logs.map(|(core, acceptors)| {
                let ids = acceptors.iter().map(|id| id.0.to_string()).collect::<Vec<_>>();
                format!("{} on core {core}", ids.join(" "))
            });
            logs.collect::<Vec<_>>().join(", ")
        };
        let ids = |replicas: &mut dyn Iterator<Item = ReplicaId>| {
            replicas.map(|id| id.0.to_string()).collect::<Vec<_>>().join(" ")
        };
        let mut found = identity.logs.iter().map(|(core, _, acceptors)| (*core, *acceptors));
        let mut found_replicas = identity.replicas.iter().map(|(replica, _)| *replica);
        let differences = [
            ("cluster", self.cluster_name.clone(), identity.cluster_name.clone()),
            ("node", self.name.clone(), identity.name.clone()),
            ("quorums, f, windows and numbers of roles", hex(self.quorums), hex(identity.quorums)),
            ("acceptors", placed(&mut self.logs()), placed(&mut found)),
            ("replicas", ids(&mut self.replicas.iter().copied()), ids(&mut found_replicas)),
        ];
        match differences.into_iter().find(|(_, expected, found)| expected != found) {
            None => Ok(()),
            Some((what, expected, found)) => {
                let path = self.path.clone().unwrap_or_default();
                Err(DataError::Foreign { path, what, expected, found })
            }
        }
    }

    fn recover(
        &self,
        folder: PathBuf,
        directory: DirectoryId,
        acceptors: AcceptorSet,
    ) -> Result<LogPlan, DataError> {
        let identity = self.identity(directory, acceptors);
        if let Some(why) = condemned(&folder).map_err(failed(&folder))? {
            return Err(DataError::Outdated { path: folder, why });
        }
        let (mut disk, recovered) = self
            .recover_log(&folder, &identity)
            .map_err(|error| DataError::Log { path: folder.clone(), error })?;
        for damage in &recovered.dropped {
            warn!(%damage, "{} has an unreadable part, which is not needed", folder.display());
        }
        let files = disk.files().map_err(failed(&folder))?;
        let files = files.into_iter().map(|(file, _)| Ok((file, disk.file(file)?)));
        let files = files.collect::<io::Result<Vec<_>>>().map_err(failed(&folder))?;
        let segment_bytes = self.options.segment_bytes;
        Ok(LogPlan { wal: recovered.wal, folder, disk, files, segment_bytes })
    }

    /// Recovers a log, once no write of an earlier process is under way.
    ///
    /// The directory is locked by this process, so no other one serves from it. But writes that a
    /// killed process had submitted may reach the disk after its end, and must not do so after
    /// recovery has read the log. The kernel holds the killed process's locks on the log's files
    /// until these writes have ended.
    fn recover_log(
        &self,
        folder: &Path,
        identity: &Identity,
    ) -> Result<(Folder, Recovered), StorageError> {
        let started = Instant::now();
        loop {
            let locked = Folder::lock(folder);
            let recovered = locked
                .map_err(|error| StorageError::Disk { file: None, error })
                .and_then(|mut disk| {
                    let recovered = loggos_storage::recover(&mut disk, identity, &self.options)?;
                    Ok((disk, recovered))
                });
            match recovered {
                Err(StorageError::Disk { error, .. })
                    if error.kind() == io::ErrorKind::WouldBlock
                        && started.elapsed() < LATE_WRITES_MAX =>
                {
                    std::thread::sleep(LATE_WRITES_PAUSE);
                }
                recovered => return recovered,
            }
        }
    }
}

/// Makes an empty directory for a replica; returns its identity.
fn format_replica(path: &Path, replica: ReplicaId) -> Result<DirectoryId, DataError> {
    let folder = replica_path(path, replica);
    std::fs::create_dir(&folder).map_err(failed(&folder))?;
    sync_directory(&folder).map_err(failed(&folder))?;
    Ok(DirectoryId(random_u64()))
}

/// Opens the directory of a replica; says what is damaged in it.
fn open_replica(folder: PathBuf, owner: SnapshotOwner) -> Result<ReplicaPlan, DataError> {
    if !folder.try_exists().map_err(failed(&folder))? {
        return Err(DataError::NoReplica(folder));
    }
    let entries = folder.read_dir().map_err(failed(&folder))?.count();
    let opened = SnapshotStore::open(SnapshotFolder::new(&folder), owner);
    let (store, damaged) =
        opened.map_err(|error| DataError::Snapshots { path: folder.clone(), error })?;
    for damage in damaged {
        warn!("{}: {damage}", folder.display());
    }
    let SnapshotOwner { directory, replica, .. } = owner;
    let origins = store.stored().filter(SnapshotInfo::is_origin).count();
    let is_used = entries > origins;
    Ok(ReplicaPlan { replica, directory, store, is_used })
}

/// Writes a file so that after a crash it is either complete or absent.
fn write_whole(folder: &Path, name: &str, text: &str) -> io::Result<()> {
    let draft = folder.join(format!("{name}.new"));
    let mut file = File::create(&draft)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&draft, folder.join(name))?;
    sync_directory(folder)
}

fn lock(path: &Path) -> Result<File, DataError> {
    let file = path.join(LOCK_FILE);
    let lock = File::create(&file).map_err(failed(&file))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(DataError::Locked(path.to_owned())),
        Err(TryLockError::Error(error)) => Err(failed(&file)(error)),
    }
}

/// Whether there is anything in a directory but a lock, which may be that of a process that has
/// only looked, and what a file system has made in its root.
fn has_entries(path: &Path) -> Result<bool, DataError> {
    for entry in path.read_dir().map_err(failed(path))? {
        let name = entry.map_err(failed(path))?.file_name();
        if name != LOCK_FILE && name != FILE_SYSTEMS_OWN {
            return Ok(true);
        }
    }
    Ok(false)
}

fn replica_path(path: &Path, replica: ReplicaId) -> PathBuf {
    path.join(format!("replica-{}", replica.0))
}

fn log_path(path: &Path, core: usize) -> PathBuf {
    path.join(format!("core-{core}"))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |error| DataError::File { path, error }
}

#[cfg(test)]
mod tests {
    use loggos_protocol::{QuorumSystem, Settings};

    use loggos_storage::SnapshotError;

    use super::identity::sum;
    use super::*;

    /// A cluster in one process, with acceptors on two cores.
    fn config(folder: &Path) -> Config {
        let cluster = Settings::new(1, QuorumSystem::grid(2, 2, 1).unwrap()).check().unwrap();
        let mut config = Config::on_cpus(cluster, vec![0, 1]);
        config.data = Some(folder.join("data"));
        config.log.segment_bytes = 1 << 20;
        config
    }

    fn formatted() -> (tempfile::TempDir, Config) {
        let folder = tempfile::tempdir().unwrap();
        let config = config(folder.path());
        format(&config, None).unwrap();
        (folder, config)
    }

    /// Changes the identity file, and makes its checksum anew.
    fn forge(config: &Config, from: &str, to: &str) {
        let file = config.data.clone().unwrap().join(NODE_FILE);
        let text = std::fs::read_to_string(&file).unwrap();
        let (said, _) = text.split_at(text.rfind("checksum ").unwrap());
        assert!(said.contains(from), "{said}");
        let said = said.replace(from, to);
        std::fs::write(&file, format!("{said}checksum {:08x}\n", sum(said.as_bytes()))).unwrap();
    }

    fn foreign(config: &Config) -> &'static str {
        match open(config, None) {
            Err(DataError::Foreign { what, .. }) => what,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn r04_what_was_formatted_is_opened_by_one_at_a_time_and_again() {
        let (_folder, config) = formatted();
        for _ in 0..2 {
            let data = open(&config, None).unwrap().unwrap();
            assert!(data.logs.iter().all(Option::is_some), "both cores have acceptors");
            assert!(matches!(open(&config, None), Err(DataError::Locked(_))));
        }
        assert!(matches!(format(&config, None), Err(DataError::NotEmpty(_))));
    }

    #[test]
    fn the_root_of_an_empty_file_system_can_be_formatted() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(FILE_SYSTEMS_OWN)).unwrap();
        let config = Config { data: Some(folder.path().to_owned()), ..config(folder.path()) };
        format(&config, None).unwrap();
        assert!(open(&config, None).unwrap().is_some());
        let other = tempfile::tempdir().unwrap();
        std::fs::create_dir(other.path().join("others")).unwrap();
        let refused = format(&Config { data: Some(other.path().to_owned()), ..config }, None);
        assert!(matches!(refused, Err(DataError::NotEmpty(_))), "{refused:?}");
    }

    #[test]
    fn r16_a_replica_whose_directory_is_gone_is_refused_until_it_is_formatted_anew() {
        let (_folder, config) = formatted();
        let ids = || -> Vec<DirectoryId> {
            let data = open(&config, None).unwrap().unwrap();
            data.replicas.iter().map(|replica| replica.directory).collect()
        };
        let (before, data) = (ids(), config.data.clone().unwrap());
        std::fs::remove_dir_all(data.join("replica-1")).unwrap();
        let refused = open(&config, None);
        assert!(
            matches!(&refused, Err(DataError::NoReplica(path)) if path.ends_with("replica-1")),
            "{refused:?}"
        );
        format(&config, None).unwrap();
        let after = ids();
        assert!(before[0] == after[0] && before[1] != after[1] && before[2] == after[2]);
        assert!(matches!(format(&config, None), Err(DataError::NotEmpty(_))), "nothing is missing");
    }

    #[test]
    fn r04_snapshots_of_another_replica_are_refused() {
        let (_folder, config) = formatted();
        let data = config.data.clone().unwrap();
        let owner = {
            let opened = open(&config, None).unwrap().unwrap();
            let replica = &opened.replicas[0];
            let (directory, replica) = (replica.directory, replica.replica);
            SnapshotOwner { cluster: Owner::of(&config, None).cluster, directory, replica }
        };
        let folder = SnapshotFolder::new(&data.join("replica-0"));
        let (mut store, _) = SnapshotStore::open(folder, owner).unwrap();
        let (replica, incarnation) = (owner.replica, loggos_protocol::Incarnation(1));
        let id =
            loggos_protocol::SnapshotId { at: loggos_protocol::Watermark(7), replica, incarnation };
        let formation = loggos_protocol::FormationId(3);
        store.begin(id, formation).unwrap();
        let (parts, bytes, digest, state_hash) = (0, 0, 0, 0);
        store.finish(SnapshotInfo { id, formation, parts, bytes, digest, state_hash }).unwrap();
        assert!(open(&config, None).is_ok(), "its own");
        for entry in data.join("replica-0").read_dir().unwrap() {
            let entry = entry.unwrap();
            std::fs::rename(entry.path(), data.join("replica-1").join(entry.file_name())).unwrap();
        }
        let opened = open(&config, None);
        let is_foreign = |error: &SnapshotError| matches!(error, SnapshotError::Foreign { .. });
        assert!(
            matches!(&opened, Err(DataError::Snapshots { error, .. }) if is_foreign(error)),
            "{opened:?}"
        );
    }

    #[test]
    fn r04_each_core_has_a_directory_id_of_its_own() {
        let (_folder, config) = formatted();
        let data = open(&config, None).unwrap().unwrap();
        let ids: Vec<_> =
            data.logs.iter().flatten().map(|log| log.wal.identity().directory).collect();
        assert!(ids.len() == 2 && ids[0] != ids[1], "{ids:?}");
    }

    #[test]
    fn r03_a_directory_of_another_cluster_or_configuration_is_refused() {
        let (_folder, config) = formatted();
        let renamed = Config { name: "other".to_owned(), ..config.clone() };
        assert_eq!(foreign(&renamed), "cluster");
        let mut settings = Settings::new(1, QuorumSystem::grid(2, 2, 1).unwrap());
        settings.slot_window = 512;
        let other = Config { cluster: settings.check().unwrap(), ..config.clone() };
        assert_eq!(foreign(&other), "quorums, f, windows and numbers of roles");
        let mut moved = config.clone();
        moved.placement.values_mut().for_each(|core| *core = 1 - *core);
        assert_eq!(foreign(&moved), "acceptors");
        forge(&config, "node (one process)", "node a");
        assert_eq!(foreign(&config), "node");
    }

    #[test]
    fn r04_a_directory_of_a_later_version_is_refused() {
        let (_folder, config) = formatted();
        forge(&config, "loggos data 1", "loggos data 2");
        let opened = open(&config, None);
        assert!(matches!(opened, Err(DataError::Newer { version: 2, .. })), "{opened:?}");
    }

    #[test]
    fn r04_an_identity_that_is_damaged_anywhere_is_refused() {
        let (_folder, config) = formatted();
        let file = config.data.unwrap().join(NODE_FILE);
        let text = std::fs::read(&file).unwrap();
        for place in 0..text.len() {
            let mut damaged = text.clone();
            damaged[place] ^= 1;
            assert!(
                matches!(NodeIdentity::read(&damaged, &file), Err(DataError::Damaged { .. })),
                "{place}"
            );
            let cut = NodeIdentity::read(&text[..place], &file);
            assert!(matches!(cut, Err(DataError::Damaged { .. })), "cut at {place}");
        }
    }

    #[test]
    fn r04_a_log_of_another_directory_is_refused() {
        let (_folder, config) = formatted();
        let data = config.data.clone().unwrap();
        std::fs::rename(data.join("core-0"), data.join("other")).unwrap();
        std::fs::rename(data.join("core-1"), data.join("core-0")).unwrap();
        std::fs::rename(data.join("other"), data.join("core-1")).unwrap();
        let opened = open(&config, None);
        let is_foreign = |error: &StorageError| matches!(error, StorageError::Foreign { .. });
        assert!(
            matches!(&opened, Err(DataError::Log { error, .. }) if is_foreign(error)),
            "{opened:?}"
        );
    }
}
