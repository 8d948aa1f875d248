//! A snapshot in a file: in the directory of the replica that has written it, or saved elsewhere.

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use loggos_protocol::{PartsDigest, Payload, SnapshotInfo};

use super::file::{self, Found, Layout};
use super::{
    DAMAGED, PREFIX, SNAPSHOT_VERSION, SYNC_BYTES, SnapshotDisk, SnapshotFolder, SnapshotOwner,
    UNFINISHED,
};

/// How often a directory is looked at whose snapshots are removed meanwhile.
const LOOKS_MAX: u32 = 10;

/// A snapshot in a file, of which header, lengths and footer were read.
///
/// The file may be removed while it is read, as a replica removes old ones: it stays readable.
#[derive(Debug)]
pub struct SavedSnapshot {
    folder: SnapshotFolder,
    path: PathBuf,
    name: String,
    owner: SnapshotOwner,
    info: SnapshotInfo,
    layout: Layout,
}

/// The reason why a file is not a snapshot that can be used.
#[derive(Debug)]
pub enum SavedError {
    /// There is no snapshot in the directory.
    NoSnapshot(PathBuf),
    /// It is not what was written, or no snapshot at all.
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A later version of this program has written it.
    Newer {
        /// The file.
        path: PathBuf,
        /// The format's version.
        version: u32,
    },
    /// The file system failed.
    File {
        /// The file or directory.
        path: PathBuf,
        /// The error of the operating system.
        error: io::Error,
    },
}

impl SavedSnapshot {
    /// Opens the file at `path`.
    ///
    /// # Errors
    ///
    /// If it is no snapshot, is damaged as far as header and footer tell, is of a later version, or
    /// cannot be read.
    pub fn open(path: &Path) -> Result<Self, SavedError> {
        let folder = SnapshotFolder::new(folder_of(path));
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| failed(path)(ErrorKind::InvalidFilename.into()))?.to_owned();
        Self::find(folder, path.to_owned(), name)
    }

    /// Opens the newest snapshot in the directory of a replica, which may be at work. One that is
    /// damaged, as far as its beginning and end tell, is passed over while there is an older one.
    ///
    /// # Errors
    ///
    /// If there is none; as [`open`](Self::open) for the newest, if all are of no use.
    pub fn newest(directory: &Path) -> Result<Self, SavedError> {
        let mut why = SavedError::NoSnapshot(directory.to_owned());
        for _ in 0..LOOKS_MAX {
            let names = SnapshotFolder::new(directory).names().map_err(failed(directory))?;
            let is_whole = |name: &String| {
                name.starts_with(PREFIX) && !name.ends_with(UNFINISHED) && !name.ends_with(DAMAGED)
            };
            let mut names: Vec<String> = names.into_iter().filter(is_whole).collect();
            // The slot comes first in a name, in as many digits each.
            names.sort_unstable_by(|one, other| other.cmp(one));
            let mut is_gone = false;
            for name in names {
                match Self::find(SnapshotFolder::new(directory), directory.join(&name), name) {
                    Ok(found) => return Ok(found),
                    // A newer one has taken its place meanwhile.
                    Err(SavedError::File { error, .. }) if error.kind() == ErrorKind::NotFound => {
                        is_gone = true;
                    }
                    Err(error) if matches!(why, SavedError::NoSnapshot(_)) => why = error,
                    Err(_) => {}
                }
            }
            if !is_gone {
                break;
            }
        }
        Err(why)
    }

    fn find(mut folder: SnapshotFolder, path: PathBuf, name: String) -> Result<Self, SavedError> {
        match file::find(&mut folder, &name, None).map_err(failed(&path))? {
            Found::Snapshot(owner, info, layout) => {
                Ok(Self { folder, path, name, owner, info, layout })
            }
            Found::Damaged(what) => Err(SavedError::Damaged { path, what: what.to_owned() }),
            Found::Foreign(owner) => unreachable!("any owner is expected, and {owner} is none"),
            Found::Newer(version) => Err(SavedError::Newer { path, version }),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The directory that it was written in.
    #[must_use]
    pub fn owner(&self) -> SnapshotOwner {
        self.owner
    }

    /// What it is a snapshot of.
    #[must_use]
    pub fn info(&self) -> SnapshotInfo {
        self.info
    }

    /// Reads all parts in order and hands each to `take`, with the number of bytes so far. When it
    /// has returned, they were those that were written.
    ///
    /// # Errors
    ///
    /// If one is not what was written, cannot be read, or `take` fails.
    pub fn read_all<E: From<SavedError>>(
        &mut self,
        mut take: impl FnMut(&Payload, u64) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut digest = PartsDigest::new(self.info.id);
        let mut bytes = 0;
        for part in 0..self.info.parts {
            let read = self.layout.read_part(&mut self.folder, &self.name, part);
            let read = read.map_err(|error| {
                match [ErrorKind::InvalidData, ErrorKind::UnexpectedEof].contains(&error.kind()) {
                    true => self.damaged(format!("part {part} is not what was written")),
                    false => failed(&self.path)(error),
                }
            })?;
            let read = Payload::from(Bytes::from(read));
            digest.add(&read);
            bytes += read.len() as u64;
            take(&read, bytes)?;
        }
        if digest.info(self.info.formation, self.info.state_hash) != self.info {
            return Err(self.damaged("its parts are not those of one snapshot".to_owned()).into());
        }
        Ok(())
    }

    /// Writes it to a file at `to`, where there must be none: whole and durable, or not there. It
    /// is written next to it first, under a name of its own. `progress` is told the bytes of the
    /// parts so far.
    ///
    /// # Errors
    ///
    /// If there is a file at `to`, it cannot be written, or this one cannot be read or is damaged.
    /// Nothing is left then.
    pub fn save(&mut self, to: &Path, mut progress: impl FnMut(u64)) -> Result<(), SavedError> {
        let mut draft = to.as_os_str().to_owned();
        draft.push(format!(".{}{UNFINISHED}", std::process::id()));
        let draft = PathBuf::from(draft);
        let file = File::create_new(&draft).map_err(failed(&draft))?;
        // A link, since a name that is taken stays with what has it.
        let linked = self
            .write(file, &draft, &mut progress)
            .and_then(|()| std::fs::hard_link(&draft, to).map_err(failed(to)));
        let removed = std::fs::remove_file(&draft).map_err(failed(&draft));
        linked?;
        let synced = File::open(folder_of(to)).and_then(|folder| folder.sync_all());
        let saved = removed.and_then(|()| synced.map_err(failed(to)));
        if saved.is_err() {
            let _left = std::fs::remove_file(to); // the error that is told is the first
        }
        saved
    }

    fn write(
        &mut self,
        mut file: File,
        path: &Path,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), SavedError> {
        let (owner, info) = (self.owner, self.info);
        let (mut buffer, mut layout) = (Vec::new(), Layout::new(owner, info.id));
        file::put_header(&mut buffer, owner, info.id, info.formation);
        let mut unsynced = 0;
        self.read_all(|part, bytes| {
            layout.put_part(&mut buffer, part.as_slice());
            file.write_all(&buffer).map_err(failed(path))?;
            unsynced += buffer.len();
            buffer.clear();
            if unsynced >= SYNC_BYTES {
                unsynced = 0;
                file.sync_data().map_err(failed(path))?;
            }
            progress(bytes);
            Ok::<(), SavedError>(())
        })?;
        layout.put_footer(&mut buffer, &info);
        file.write_all(&buffer).and_then(|()| file.sync_all()).map_err(failed(path))
    }

    fn damaged(&self, what: String) -> SavedError {
        SavedError::Damaged { path: self.path.clone(), what }
    }
}

fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or_else(|| Path::new("."))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> SavedError + use<> {
    let path = path.to_owned();
    move |error| SavedError::File { path, error }
}

impl fmt::Display for SavedError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSnapshot(path) => write!(f, "there is no snapshot in {} yet", path.display()),
            Self::Damaged { path, what } => {
                write!(f, "{} is damaged, or no snapshot: {what}", path.display())
            }
            Self::Newer { path, version } => write!(
                f,
                "{} has format {version}, which a later version of loggos writes; this version reads up to \
                 {SNAPSHOT_VERSION}",
                path.display()
            ),
            Self::File { path, error } => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for SavedError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::File { error, .. } => Some(error),
            Self::NoSnapshot(_) | Self::Damaged { .. } | Self::Newer { .. } => None,
        }
    }
}
