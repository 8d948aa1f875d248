//! The data directory of a process: whose it is, and that nobody else uses it.
//!
//! ```text
//!   data/node            whose it is: text, with a checksum; written last, as a whole
//!   data/lock            held by the process that serves
//!   data/core-0/log.*    the log of the acceptors of core 0, and so on
//!   data/core-0/outdated there if it is an older copy, as another node has found: then nobody serves from it
//! ```
//!
//! `format` makes it, once; whoever serves from it compares it with the configuration, and refuses what is not
//! its own: an acceptor that has forgotten must not count (R4).

use std::fmt::{self, Write as _};
use std::fs::{File, TryLockError};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use loggos_protocol::{AcceptorSet, Digest, DirectoryId, RoleId};
use loggos_storage::{Disk, Folder, Identity, Options, Recovered, StorageError};
use tracing::warn;

use crate::config::Config;
use crate::log::{LogPlan, condemned, sync_directory};
use crate::random::random_u64;

/// The version of the identity file, and of where everything is.
const DATA_VERSION: u32 = 1;
/// Whose directory it is.
const NODE_FILE: &str = "node";
const LOCK_FILE: &str = "lock";
/// How long a start waits for what an earlier life had on its way to the disk, and how often it looks.
const LATE_WRITES_MAX: Duration = Duration::from_secs(30);
const LATE_WRITES_PAUSE: Duration = Duration::from_millis(5);
/// What the owner is called where a cluster is one process.
const ONE_PROCESS: &str = "(one process)";

/// Why a data directory cannot be made, or must not be served from.
#[derive(Debug)]
pub enum DataError {
    /// The configuration names none, and there are acceptors that need one.
    Unnamed {
        /// Whose it would be.
        owner: String,
    },
    /// There is nothing that needs one.
    NoAcceptors {
        /// Whose it would be.
        owner: String,
    },
    /// It is not there.
    Missing(PathBuf),
    /// It is there, with nothing in it.
    Empty(PathBuf),
    /// It was to be made, and there is something already.
    NotEmpty(PathBuf),
    /// Another process serves from it.
    Locked(PathBuf),
    /// It does not say whose it is, or not in a way that can be read.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A later version of this program has made it.
    Newer {
        /// The file that says so.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// It is somebody else's, or of another configuration.
    Foreign {
        /// The directory.
        path: PathBuf,
        /// In what it differs.
        what: &'static str,
        /// What it should be.
        wanted: String,
        /// What it is.
        found: String,
    },
    /// It was found to be an older copy (R33).
    Outdated {
        /// The log's directory.
        path: PathBuf,
        /// What another node has said.
        why: String,
    },
    /// A log in it cannot be made or recovered.
    Log {
        /// The log's directory.
        path: PathBuf,
        /// Why.
        error: StorageError,
    },
    /// The file system failed.
    File {
        /// On what.
        path: PathBuf,
        /// How.
        error: io::Error,
    },
}

/// What serves from a data directory, as the configuration has it.
#[derive(Debug)]
struct Owner {
    name: String,
    /// The digest of the cluster's name.
    cluster: u64,
    cluster_name: String,
    quorums: u64,
    /// The acceptors of each core.
    acceptors: Vec<AcceptorSet>,
    path: Option<PathBuf>,
    options: Options,
}

/// What its identity file says.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Deed {
    cluster_name: String,
    quorums: u64,
    name: String,
    /// The cores that have a log.
    logs: Vec<(usize, DirectoryId, AcceptorSet)>,
}

/// A directory that was opened to be served from. Nobody else can until it is dropped.
#[derive(Debug)]
pub(crate) struct Data {
    _lock: File,
    /// The log of each core that has one.
    pub(crate) logs: Vec<Option<LogPlan>>,
}

/// Makes the data directory of node `node` of `config`, or of the one process that a cluster without nodes is;
/// returns where it is.
///
/// # Errors
///
/// If there is something there already, or it cannot be made.
///
/// source: R4, "`loggos format` creates a directory, once"
pub(crate) fn format(config: &Config, node: Option<usize>) -> Result<PathBuf, DataError> {
    let owner = Owner::of(config, node);
    if !owner.has_acceptors() {
        return Err(DataError::NoAcceptors { owner: owner.name });
    }
    let path = owner.path()?.clone();
    std::fs::create_dir_all(&path).map_err(failed(&path))?;
    if has_entries(&path)? {
        return Err(DataError::NotEmpty(path));
    }
    let _lock = lock(&path)?;
    let mut logs = Vec::new();
    for (core, acceptors) in owner.logs() {
        let directory = DirectoryId(random_u64());
        let folder = log_path(&path, core);
        std::fs::create_dir(&folder).map_err(failed(&folder))?;
        let identity = owner.identity(directory, acceptors);
        let mut disk = Folder::lock(&folder).map_err(failed(&folder))?;
        loggos_storage::format(&mut disk, &identity, &owner.options)
            .map_err(|error| DataError::Log { path: folder, error })?;
        logs.push((core, directory, acceptors));
    }
    let (cluster_name, quorums) = (owner.cluster_name, owner.quorums);
    let deed = Deed { cluster_name, quorums, name: owner.name, logs };
    sync_directory(&path).map_err(failed(&path))?;
    write_whole(&path, NODE_FILE, &deed.write()).map_err(failed(&path.join(NODE_FILE)))?;
    if let Some(parent) = path.canonicalize().ok().as_deref().and_then(Path::parent) {
        sync_directory(parent).map_err(failed(parent))?;
    }
    Ok(path)
}

/// Opens it to serve from: recovers all its logs. None if nothing here needs one.
///
/// # Errors
///
/// Whatever forbids to serve.
///
/// source: R3, R4
pub(crate) fn open(config: &Config, node: Option<usize>) -> Result<Option<Data>, DataError> {
    let owner = Owner::of(config, node);
    if !owner.has_acceptors() {
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
    let file = path.join(NODE_FILE);
    let text = match std::fs::read(&file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let what = "is missing, in a directory that is not empty";
            return Err(DataError::Damaged { path: file, what });
        }
        Err(error) => return Err(failed(&file)(error)),
    };
    let deed = Deed::read(&text, &file)?;
    owner.compare(&deed)?;
    let lock = lock(path)?;
    let mut logs: Vec<Option<LogPlan>> = owner.acceptors.iter().map(|_| None).collect();
    for (core, directory, acceptors) in deed.logs {
        let folder = log_path(path, core);
        logs[core] = Some(owner.recover(folder, directory, acceptors)?);
    }
    Ok(Some(Data { _lock: lock, logs }))
}

impl Owner {
    fn of(config: &Config, node: Option<usize>) -> Self {
        let place = node.map(|node| &config.nodes[node]);
        let cores = place.map_or(config.cpus.len(), |node| node.cpus.len());
        let mut acceptors = vec![AcceptorSet::default(); cores];
        for (role, core) in &config.placement {
            if let RoleId::Acceptor(id) = role
                && place.is_none_or(|node| node.roles.contains(role))
            {
                acceptors[*core].insert(*id);
            }
        }
        Self {
            name: place.map_or(ONE_PROCESS, |node| &node.name).to_owned(),
            cluster: Digest::new("loggos cluster name").text(&config.name).finish(),
            cluster_name: config.name.clone(),
            quorums: config.cluster.digest(),
            acceptors,
            path: place.map_or(&config.data, |node| &node.data).clone(),
            options: config.log.options(),
        }
    }

    fn path(&self) -> Result<&PathBuf, DataError> {
        self.path.as_ref().ok_or_else(|| DataError::Unnamed { owner: self.name.clone() })
    }

    fn has_acceptors(&self) -> bool {
        self.logs().next().is_some()
    }

    /// Each core with acceptors.
    fn logs(&self) -> impl Iterator<Item = (usize, AcceptorSet)> + '_ {
        self.acceptors.iter().copied().enumerate().filter(|(_, acceptors)| !acceptors.is_empty())
    }

    fn identity(&self, directory: DirectoryId, acceptors: AcceptorSet) -> Identity {
        Identity { cluster: self.cluster, directory, quorums: self.quorums, acceptors }
    }

    /// Refuses what is of somebody else.
    fn compare(&self, deed: &Deed) -> Result<(), DataError> {
        let hex = |number: u64| format!("{number:016x}");
        let placed = |logs: &mut dyn Iterator<Item = (usize, AcceptorSet)>| {
            let logs = logs.map(|(core, acceptors)| {
                let ids = acceptors.iter().map(|id| id.0.to_string()).collect::<Vec<_>>();
                format!("{} on core {core}", ids.join(" "))
            });
            logs.collect::<Vec<_>>().join(", ")
        };
        let mut found = deed.logs.iter().map(|(core, _, acceptors)| (*core, *acceptors));
        let differences = [
            ("cluster", self.cluster_name.clone(), deed.cluster_name.clone()),
            ("node", self.name.clone(), deed.name.clone()),
            ("quorums, f, windows and numbers of roles", hex(self.quorums), hex(deed.quorums)),
            ("acceptors", placed(&mut self.logs()), placed(&mut found)),
        ];
        match differences.into_iter().find(|(_, wanted, found)| wanted != found) {
            None => Ok(()),
            Some((what, wanted, found)) => {
                let path = self.path.clone().unwrap_or_default();
                Err(DataError::Foreign { path, what, wanted, found })
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
            warn!(%damage, "{} has something that cannot be read, and is not needed", folder.display());
        }
        let files = disk.files().map_err(failed(&folder))?;
        let files = files.into_iter().map(|(file, _)| Ok((file, disk.file(file)?)));
        let files = files.collect::<io::Result<Vec<_>>>().map_err(failed(&folder))?;
        let segment_bytes = self.options.segment_bytes;
        Ok(LogPlan { wal: recovered.wal, folder, disk, files, segment_bytes })
    }

    /// Recovers a log once nobody writes there any more.
    ///
    /// The directory of the node is ours, so no other process serves from it. But what a killed one had on its way
    /// to the disk may get there after it is gone, and must not after we have read. Until then its locks on the
    /// files stand.
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

impl Deed {
    fn write(&self) -> String {
        let Self { cluster_name, quorums, name, logs } = self;
        let mut text = format!("loggos data {DATA_VERSION}\ncluster {cluster_name}\n");
        let mut line = |line: fmt::Arguments<'_>| {
            writeln!(text, "{line}").expect("a string takes whatever is written to it");
        };
        line(format_args!("quorums {quorums:016x}"));
        line(format_args!("node {name}"));
        for (core, directory, acceptors) in logs {
            let ids = acceptors.iter().map(|id| id.0.to_string()).collect::<Vec<_>>().join(" ");
            line(format_args!("core {core} directory {:016x} acceptors {ids}", directory.0));
        }
        let checksum = sum(text.as_bytes());
        text + &format!("checksum {checksum:08x}\n")
    }

    /// Reads what `file` has, which is `bytes`.
    fn read(bytes: &[u8], file: &Path) -> Result<Self, DataError> {
        let damaged = |what| DataError::Damaged { path: file.to_owned(), what };
        let text = std::str::from_utf8(bytes).map_err(|_| damaged("is no text"))?;
        // Whatever the version, this is the last line.
        let end = text.rfind("checksum ").ok_or_else(|| damaged("has no checksum"))?;
        let (said, last) = text.split_at(end);
        if last != format!("checksum {:08x}\n", sum(said.as_bytes())) {
            return Err(damaged("is not what was written: its checksum differs"));
        }
        let mut lines = said.lines();
        let version = lines.next().and_then(|line| line.strip_prefix("loggos data ")?.parse().ok());
        match version {
            Some(DATA_VERSION) => {}
            Some(version) => return Err(DataError::Newer { path: file.to_owned(), version }),
            None => return Err(damaged("is of nothing that is known here")),
        }
        let deed = Self::take(&mut lines);
        deed.ok_or_else(|| damaged("lacks something, though its checksum is right"))
    }

    fn take(lines: &mut std::str::Lines<'_>) -> Option<Self> {
        let cluster_name = lines.next()?.strip_prefix("cluster ")?.to_owned();
        let quorums = u64::from_str_radix(lines.next()?.strip_prefix("quorums ")?, 16).ok()?;
        let name = lines.next()?.strip_prefix("node ")?.to_owned();
        let logs = lines.map(|line| {
            let (core, rest) = line.strip_prefix("core ")?.split_once(" directory ")?;
            let (directory, acceptors) = rest.split_once(" acceptors ")?;
            let directory = DirectoryId(u64::from_str_radix(directory, 16).ok()?);
            let acceptors = acceptors.split(' ').map(|id| id.parse().ok());
            let acceptors = acceptors.map(|id| id.map(loggos_protocol::AcceptorId));
            Some((core.parse().ok()?, directory, acceptors.collect::<Option<_>>()?))
        });
        Some(Self { cluster_name, quorums, name, logs: logs.collect::<Option<_>>()? })
    }
}

/// Writes a file such that it is there as a whole, or not at all.
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

fn has_entries(path: &Path) -> Result<bool, DataError> {
    Ok(path.read_dir().map_err(failed(path))?.next().is_some())
}

fn log_path(path: &Path, core: usize) -> PathBuf {
    path.join(format!("core-{core}"))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> DataError + use<> {
    let path = path.to_owned();
    move |error| DataError::File { path, error }
}

fn sum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}

impl fmt::Display for DataError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unnamed { owner } => write!(
                f,
                "the acceptors of {owner} need a data directory: name it as `data` in the table of the \
                 node, or write durability = \"memory\" in [cluster]"
            ),
            Self::NoAcceptors { owner } => {
                write!(f, "{owner} has no acceptors: it needs no data directory")
            }
            Self::Missing(path) => write!(
                f,
                "there is no data directory {}: `loggos format` makes one, once. If there was one, it is \
                 lost, and its acceptors with it: the cluster goes on without them",
                path.display()
            ),
            Self::Empty(path) => write!(
                f,
                "the data directory {} is empty: `loggos format` makes one, once. If there was something in \
                 it, that is lost (or a disk is not mounted), and its acceptors with it: the cluster goes on \
                 without them",
                path.display()
            ),
            Self::NotEmpty(path) => write!(
                f,
                "{} is not empty: a data directory is formatted once only, and nothing is removed for it",
                path.display()
            ),
            Self::Locked(path) => {
                write!(f, "another process uses the data directory {}", path.display())
            }
            Self::Damaged { path, what } => write!(
                f,
                "{} {what}: if `loggos format` was interrupted, remove the directory and format again; if its \
                 acceptors have ever served, they are lost, and the cluster goes on without them",
                path.display()
            ),
            Self::Newer { path, version } => write!(
                f,
                "{} is of version {version}, which a later version of loggos writes; this one knows \
                 {DATA_VERSION}",
                path.display()
            ),
            Self::Foreign { path, what, wanted, found } => write!(
                f,
                "the data directory {} is of another: {what} should be {wanted}, and it has {found}",
                path.display()
            ),
            Self::Outdated { path, why } => write!(
                f,
                "{} is an older copy, of which another node has said: {why}. Its acceptors have forgotten \
                 promises or votes; put the latest one back, or go on without them",
                path.display()
            ),
            Self::Log { path, error } => write!(f, "{}: {error}", path.display()),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for DataError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Log { error, .. } => Some(error),
            Self::File { error, .. } => Some(error),
            Self::Unnamed { .. }
            | Self::NoAcceptors { .. }
            | Self::Missing(_)
            | Self::Empty(_)
            | Self::NotEmpty(_)
            | Self::Locked(_)
            | Self::Damaged { .. }
            | Self::Newer { .. }
            | Self::Foreign { .. }
            | Self::Outdated { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use loggos_protocol::{QuorumSystem, Settings};

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

    /// Changes the identity file, such that its checksum is right.
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
                matches!(Deed::read(&damaged, &file), Err(DataError::Damaged { .. })),
                "{place}"
            );
            let cut = Deed::read(&text[..place], &file);
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
