//! The snapshots of a replica on disk.
//!
//! ```text
//!   begin ──▶ append, append, … ──▶ finish:  sync the file ─▶ rename it ─▶ sync the directory
//!     │ snapshot-….new                                            │ snapshot-…      │
//!     └── abandon: the file is removed                            ╵                 └─▶ stored: it may be counted on
//! ```
//!
//! Snapshots are written by a thread beside the loop of the core, so these calls block. A snapshot
//! is one file, and the name says which. It is written under another name first: what a crash
//! leaves behind has that name, and is removed at the next start. A file that has its final name
//! was whole and synced when it got it. If it is not whole now, it is damaged, and
//! [`SnapshotStore::open`] says so and sets it aside.
//!
//! # Layout
//!
//! ```text
//!   ┌──────┬────┬───────┬────┬───────┬ ··· ┬───────┬────────┐
//!   │header│head│part 0 │head│part 1 │     │lengths│ footer │
//!   └──────┴────┴───────┴────┴───────┴ ··· ┴───────┴────────┘
//! ```
//!
//! ```text
//!   header   0   8  magic: LOGGOSSN
//!            8   4  version: 1
//!           12   4  CRC32C of 0..12; up to here the same in every version
//!           16   4  CRC32C of 20..68
//!           20   4  replica ┐
//!           24   8  cluster │ the owner of the directory
//!           32   8  directory
//!           40   8  formation; 0 if a log is to start from it
//!           48   8  slot: everything below is in it
//!           56   8  incarnation ┐ the life of a replica that wrote it,
//!           64   4  replica     ┘ which need not be the owner's
//!   head     0   4  CRC32C of the rest, the part's bytes included
//!            4   4  length of the part
//!            8   4  number of the part
//!           12   8  tag of the file
//!   lengths      4  for each part
//!   footer   0   4  CRC32C of the lengths and of 4..48
//!            4   4  number of parts
//!            8   8  bytes of all parts
//!           16   8  digest of all parts
//!           24   8  digest of the state machine's state
//!           32   8  tag of the file
//!           40   8  magic: LOGGOSSE
//! ```
//!
//! All numbers are little-endian. The tag is a digest of directory and snapshot: a part or footer
//! of another file, which a misdirected write or a stale block may have put there, does not pass
//! for one of this.
//!
//! # What is checked when
//!
//! `open` reads headers and footers, so a start takes no longer for a larger state, and syncs the
//! directory, because the last life may have been killed before it had done so. A part is
//! checked when it is read; the digest over all of them is the reader's business, which restores
//! them in order.
//!
//! # Skips
//!
//! That a command is skipped (R38) is an empty file, whose name says which command:
//! `skip-SLOT-INDEX-CHECKSUM`, in hexadecimal. It counts once the directory is synced.
//!
//! source: R16, R38

mod direct;
mod disk;
mod file;
mod saved;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, ErrorKind};

use bytes::Bytes;
use loggos_protocol::{
    FormationId, LoggedCommand, Payload, Position, Slot, SnapshotDone, SnapshotId, SnapshotInfo,
    SnapshotOrder,
};

pub use self::disk::{SnapshotDisk, SnapshotFolder};
use self::file::{Found, Layout};
pub use self::file::{SNAPSHOT_VERSION, SnapshotOwner};
pub use self::saved::{SavedError, SavedSnapshot};
use crate::fields::length;

/// What is written of a snapshot before it is synced, so that the last sync has little left to do
/// and a disk that is shared with a log is never busy with it for long.
const SYNC_BYTES: usize = 4 << 20;

/// The number of times that a part is read before the disk is taken to have lost it.
const READS_MAX: u32 = 3;

/// The snapshots in one directory.
#[derive(Debug)]
pub struct SnapshotStore<D> {
    disk: D,
    owner: SnapshotOwner,
    stored: BTreeMap<SnapshotId, Stored>,
    /// The commands that are noted as skipped (R38).
    skips: BTreeSet<LoggedCommand>,
    writing: BTreeMap<SnapshotId, Writing>,
    /// The bytes that are written next.
    buffer: Vec<u8>,
}

/// A snapshot that is whole.
#[derive(Debug)]
struct Stored {
    info: SnapshotInfo,
    layout: Layout,
}

/// A snapshot that is being written.
#[derive(Debug)]
struct Writing {
    formation: FormationId,
    layout: Layout,
    bytes_unsynced: usize,
}

/// The reason why a directory of snapshots cannot be used.
#[derive(Debug)]
pub enum SnapshotError {
    /// A snapshot belongs to another node or cluster.
    Foreign {
        /// The name of the file.
        name: String,
        /// The owner of the directory.
        expected: SnapshotOwner,
        /// The owner that the file names.
        found: SnapshotOwner,
    },
    /// A later version of this program has written it.
    Newer {
        /// The name of the file.
        name: String,
        /// The format's version.
        version: u32,
    },
    /// The disk failed.
    Disk {
        /// The name of the file; empty for the directory.
        name: String,
        /// The error of the operating system.
        error: io::Error,
    },
}

/// The outcome of an order.
#[derive(Debug)]
pub struct CarriedOut {
    /// The answer to the replica, if it waits for one.
    pub done: Option<SnapshotDone>,
    /// The error, if it could not be carried out, for the operator's log.
    pub error: Option<io::Error>,
}

/// The reason why a saved snapshot could not be stored.
#[derive(Debug)]
pub enum StoreOriginError {
    /// It is of no use.
    Saved(SavedError),
    /// The disk of the store has failed.
    Disk(io::Error),
}

impl From<SavedError> for StoreOriginError {
    fn from(error: SavedError) -> Self {
        Self::Saved(error)
    }
}

impl From<io::Error> for StoreOriginError {
    fn from(error: io::Error) -> Self {
        Self::Disk(error)
    }
}

/// A snapshot that was whole once and is not any more. It is kept aside under another name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotDamage {
    /// The name that the file had.
    pub name: String,
    /// What is wrong with it.
    pub what: &'static str,
}

impl CarriedOut {
    /// The outcome of an order to write snapshot `id`: `answer`, if it was carried out.
    fn new(id: SnapshotId, done: io::Result<()>, answer: SnapshotDone) -> Self {
        match done {
            Ok(()) => Self { done: Some(answer), error: None },
            Err(error) => Self { done: Some(SnapshotDone::Failed(id)), error: Some(error) },
        }
    }
}

impl<D: SnapshotDisk> SnapshotStore<D> {
    /// Opens the directory of `owner`: removes what was never finished, and sets aside what is
    /// damaged.
    ///
    /// Also returns what it has set aside.
    ///
    /// # Errors
    ///
    /// If a snapshot belongs to another owner or is of a later version, or if the disk fails.
    /// Nothing is removed then.
    pub fn open(
        mut disk: D,
        owner: SnapshotOwner,
    ) -> Result<(Self, Vec<SnapshotDamage>), SnapshotError> {
        let (mut stored, mut damaged, mut unfinished) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut skips = BTreeSet::new();
        for name in disk.names().map_err(on(""))? {
            if name.ends_with(UNFINISHED) {
                unfinished.push(name);
                continue;
            }
            skips.extend(skip_named(&name));
            if !name.starts_with(PREFIX) || name.ends_with(DAMAGED) {
                continue;
            }
            match file::find(&mut disk, &name, Some(owner)).map_err(on(&name))? {
                Found::Snapshot(_, info, layout) if file_name(info.id) == name => {
                    stored.insert(info.id, Stored { info, layout });
                }
                Found::Snapshot(..) => {
                    damaged.push(SnapshotDamage { name, what: "holds another snapshot" });
                }
                Found::Foreign(found) => {
                    return Err(SnapshotError::Foreign { name, expected: owner, found });
                }
                Found::Damaged(what) => damaged.push(SnapshotDamage { name, what }),
                Found::Newer(version) => return Err(SnapshotError::Newer { name, version }),
            }
        }
        for name in unfinished {
            disk.remove(&name).map_err(on(&name))?;
        }
        let (writing, buffer) = (BTreeMap::new(), Vec::new());
        let mut store = Self { disk, owner, stored, skips, writing, buffer };
        for SnapshotDamage { name, .. } in &damaged {
            store.rename_aside(name).map_err(on(name))?;
        }
        // A process that was killed between renaming a file and syncing the directory has left a
        // name that is there and not durable.
        store.disk.sync_directory().map_err(on(""))?;
        Ok((store, damaged))
    }

    /// Carries out an order of the replica.
    ///
    /// source: R16
    pub fn carry_out(&mut self, order: SnapshotOrder) -> CarriedOut {
        let silent = |done: io::Result<()>| CarriedOut { done: None, error: done.err() };
        match order {
            SnapshotOrder::Begin { id, formation } => match self.begin(id, formation) {
                Ok(()) => silent(Ok(())),
                Err(error) => {
                    CarriedOut { done: Some(SnapshotDone::Failed(id)), error: Some(error) }
                }
            },
            SnapshotOrder::Part { id, .. } | SnapshotOrder::Finish(SnapshotInfo { id, .. })
                if !self.writing.contains_key(&id) =>
            {
                silent(Ok(())) // it has failed, and that was said
            }
            SnapshotOrder::Part { id, bytes } => {
                let done = self.append(id, bytes.as_slice());
                CarriedOut::new(id, done, SnapshotDone::Written(id))
            }
            SnapshotOrder::Finish(info) => {
                let done = self.finish(info);
                CarriedOut::new(info.id, done, SnapshotDone::Finished(info.id))
            }
            SnapshotOrder::Abandon(id) => {
                self.abandon(id);
                silent(Ok(()))
            }
            SnapshotOrder::Remove(id) => silent(self.remove(id)),
            SnapshotOrder::SetAside(id) => silent(self.set_aside(id)),
            SnapshotOrder::Skip(command) => {
                let error = self.note_skip(command).err();
                let is_durable = error.is_none();
                CarriedOut { done: Some(SnapshotDone::Noted { command, is_durable }), error }
            }
            SnapshotOrder::Read { snapshot, part } => {
                let read = self.read_with_retries(snapshot, part);
                let (bytes, error) = match read.map(|bytes| Payload::from(Bytes::from(bytes))) {
                    Ok(bytes) => (Some(bytes), None),
                    Err(error) => (None, Some(error)),
                };
                CarriedOut { done: Some(SnapshotDone::Read { snapshot, part, bytes }), error }
            }
        }
    }

    /// The snapshots that are whole and durable, oldest first.
    pub fn stored(&self) -> impl Iterator<Item = SnapshotInfo> + '_ {
        self.stored.values().map(|stored| stored.info)
    }

    /// The commands that are noted as skipped.
    pub fn skips(&self) -> impl Iterator<Item = LoggedCommand> + '_ {
        self.skips.iter().copied()
    }

    /// Notes durably that a command is skipped: the name of an empty file says which.
    ///
    /// # Errors
    ///
    /// As the disk says. Whether it is noted after the next start is not known then.
    ///
    /// source: R38
    pub fn note_skip(&mut self, command: LoggedCommand) -> io::Result<()> {
        // Made anew and renamed each time: a directory that was not changed is not synced again.
        let name = skip_name(command);
        let unfinished = name.clone() + UNFINISHED;
        self.disk.create(&unfinished)?;
        self.disk.sync(&unfinished)?;
        self.disk.rename(&unfinished, &name)?;
        self.disk.sync_directory()?;
        self.skips.insert(command);
        Ok(())
    }

    /// Begins to write a snapshot.
    ///
    /// # Errors
    ///
    /// As the disk says. Nothing is left of the snapshot then.
    pub fn begin(&mut self, id: SnapshotId, formation: FormationId) -> io::Result<()> {
        assert!(!self.stored.contains_key(&id), "snapshot {id} is stored already");
        let layout = Layout::new(self.owner, id);
        let writing = Writing { formation, layout, bytes_unsynced: 0 };
        self.writing.insert(id, writing);
        let name = unfinished_name(id);
        let made = self.disk.create(&name).and_then(|()| {
            self.buffer.clear();
            file::put_header(&mut self.buffer, self.owner, id, formation);
            self.disk.append(&name, &self.buffer)
        });
        self.or_abandon(id, made)
    }

    /// Writes the next part of a snapshot that was begun.
    ///
    /// # Errors
    ///
    /// As the disk says. Nothing is left of the snapshot then.
    pub fn append(&mut self, id: SnapshotId, part: &[u8]) -> io::Result<()> {
        let writing = self.writing.get_mut(&id).ok_or(ErrorKind::NotFound)?;
        self.buffer.clear();
        writing.layout.put_part(&mut self.buffer, part);
        writing.bytes_unsynced += self.buffer.len();
        let is_sync_due = writing.bytes_unsynced >= SYNC_BYTES;
        let name = unfinished_name(id);
        let mut done = self.disk.append(&name, &self.buffer);
        if is_sync_due {
            writing.bytes_unsynced = 0;
            done = done.and_then(|()| self.disk.sync(&name));
        }
        self.or_abandon(id, done)
    }

    /// Makes a snapshot durable of which all parts were written. Only when this has returned may it
    /// be counted on: its content, its name and the directory are synced, in this order.
    ///
    /// # Errors
    ///
    /// As the disk says. The snapshot does not count then, not even if a later sync succeeds: what
    /// the failed one has not written may be lost.
    ///
    /// # Panics
    ///
    /// If `info` is not that of the parts written.
    pub fn finish(&mut self, info: SnapshotInfo) -> io::Result<()> {
        let id = info.id;
        let writing = self.writing.get(&id).ok_or(ErrorKind::NotFound)?;
        assert_eq!(writing.layout.parts_count(), info.parts, "parts of {id}");
        assert_eq!(writing.formation, info.formation, "the formation of {id}");
        self.buffer.clear();
        writing.layout.put_footer(&mut self.buffer, &info);
        let (name, done) = (unfinished_name(id), self.write_footer(id));
        if let Err(error) = done {
            return self.or_abandon(id, Err(error));
        }
        let named = self.disk.rename(&name, &file_name(id));
        if let Err(error) = named.and_then(|()| self.disk.sync_directory()) {
            // Which of the names it has is not known.
            self.writing.remove(&id);
            let _either = [name, file_name(id)].map(|name| self.disk.remove(&name));
            return Err(error);
        }
        let writing = self.writing.remove(&id).expect("it was just written");
        self.stored.insert(id, Stored { info, layout: writing.layout });
        Ok(())
    }

    fn write_footer(&mut self, id: SnapshotId) -> io::Result<()> {
        let name = unfinished_name(id);
        self.disk.append(&name, &self.buffer)?;
        self.disk.sync(&name)
    }

    /// Stores a snapshot as one that a log is to start from.
    ///
    /// # Errors
    ///
    /// If it is damaged or cannot be read, or if this disk fails. Nothing is left of it here then.
    ///
    /// source: R4
    pub fn store_origin(&mut self, saved: &mut SavedSnapshot) -> Result<(), StoreOriginError> {
        let origin = saved.info().as_origin();
        self.begin(origin.id, origin.formation)?;
        let read = saved.read_all(|part, _| Ok(self.append(origin.id, part.as_slice())?));
        if read.is_err() {
            self.abandon(origin.id);
        }
        read.and_then(|()| Ok(self.finish(origin)?))
    }

    /// Gives up a snapshot that was begun; nothing happens if it was given up already.
    pub fn abandon(&mut self, id: SnapshotId) {
        if self.writing.remove(&id).is_some() {
            // What cannot be removed now is removed by the next start.
            let _later = self.disk.remove(&unfinished_name(id));
        }
    }

    /// Gives up every snapshot that was begun.
    pub fn abandon_all(&mut self) {
        let begun: Vec<SnapshotId> = self.writing.keys().copied().collect();
        begun.into_iter().for_each(|id| self.abandon(id));
    }

    /// Removes a snapshot that is not needed any more.
    ///
    /// # Errors
    ///
    /// As the disk says. It does not count any more, but may be there again after a start.
    pub fn remove(&mut self, id: SnapshotId) -> io::Result<()> {
        match self.stored.remove(&id) {
            Some(_) => self.disk.remove(&file_name(id)),
            None => Ok(()),
        }
    }

    /// Sets a snapshot aside that has turned out to be damaged. The file is kept, under another
    /// name, until the next one is.
    ///
    /// # Errors
    ///
    /// As the disk says.
    pub fn set_aside(&mut self, id: SnapshotId) -> io::Result<()> {
        match self.stored.remove(&id) {
            Some(_) => self.rename_aside(&file_name(id)),
            None => Ok(()),
        }
    }

    /// Reads a part of a snapshot that is stored.
    ///
    /// # Errors
    ///
    /// `InvalidData` if it is not what was written; `NotFound` if there is no such part; as the
    /// disk says.
    pub fn read(&mut self, id: SnapshotId, part: u32) -> io::Result<Vec<u8>> {
        let stored = self.stored.get(&id).ok_or(ErrorKind::NotFound)?;
        stored.layout.read_part(&mut self.disk, &file_name(id), part)
    }

    /// Reads a part; tries again if the disk fails. A snapshot that others count on must not be
    /// given up for one read that has failed: only for one that brings something else than was
    /// written.
    fn read_with_retries(&mut self, id: SnapshotId, part: u32) -> io::Result<Vec<u8>> {
        let mut read = self.read(id, part);
        for _ in 1..READS_MAX {
            let Err(error) = &read else { break };
            let is_certain =
                [ErrorKind::InvalidData, ErrorKind::NotFound, ErrorKind::UnexpectedEof];
            if is_certain.contains(&error.kind()) {
                break;
            }
            read = self.read(id, part);
        }
        read
    }

    /// The disk.
    pub fn disk(&mut self) -> &mut D {
        &mut self.disk
    }

    /// A copy of the disk as it is now.
    #[must_use]
    pub fn clone_disk(&self) -> D
    where
        D: Clone,
    {
        self.disk.clone()
    }

    /// Ends the use of the disk, as the end of the process does.
    #[must_use]
    pub fn into_disk(self) -> D {
        self.disk
    }

    fn or_abandon(&mut self, id: SnapshotId, done: io::Result<()>) -> io::Result<()> {
        if done.is_err() {
            self.abandon(id);
        }
        done
    }

    fn rename_aside(&mut self, name: &str) -> io::Result<()> {
        for earlier in self.disk.names()? {
            if earlier.ends_with(DAMAGED) {
                self.disk.remove(&earlier)?;
            }
        }
        self.disk.rename(name, &format!("{name}{DAMAGED}"))
    }
}

const PREFIX: &str = "snapshot-";
const UNFINISHED: &str = ".new";
const DAMAGED: &str = ".damaged";

fn file_name(id: SnapshotId) -> String {
    format!("{PREFIX}{:016x}-{:016x}", id.at.0, id.incarnation.0)
}

const SKIP: &str = "skip-";

fn skip_name(command: LoggedCommand) -> String {
    let LoggedCommand { at: Position { slot, index }, checksum } = command;
    format!("{SKIP}{:016x}-{index:08x}-{checksum:08x}", slot.0)
}

/// The command that a file of this name says is skipped.
fn skip_named(name: &str) -> Option<LoggedCommand> {
    let mut parts = name.strip_prefix(SKIP)?.split('-');
    let slot = Slot(u64::from_str_radix(parts.next()?, 16).ok()?);
    let mut number = || u32::from_str_radix(parts.next()?, 16).ok();
    let command = LoggedCommand { at: Position { slot, index: number()? }, checksum: number()? };
    (skip_name(command) == name).then_some(command)
}

fn unfinished_name(id: SnapshotId) -> String {
    file_name(id) + UNFINISHED
}

fn on(name: &str) -> impl FnOnce(io::Error) -> SnapshotError + use<> {
    let name = name.to_owned();
    move |error| SnapshotError::Disk { name, error }
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign { name, expected, found } => write!(
                f,
                "{name} belongs to another directory: expected {expected}, found {found}. Remove it, or put it \
                 back to where it was"
            ),
            Self::Newer { name, version } => write!(
                f,
                "{name} has format {version}, which a later version of loggos writes; this version reads up to \
                 {SNAPSHOT_VERSION}"
            ),
            Self::Disk { name, error } if name.is_empty() => {
                write!(f, "the directory of snapshots: {error}")
            }
            Self::Disk { name, error } => write!(f, "{name}: {error}"),
        }
    }
}

impl std::error::Error for SnapshotError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Disk { error, .. } => Some(error),
            Self::Foreign { .. } | Self::Newer { .. } => None,
        }
    }
}

impl fmt::Display for SnapshotDamage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, what } = self;
        write!(f, "{name} is damaged: it {what}. It is kept as {name}{DAMAGED}")
    }
}
