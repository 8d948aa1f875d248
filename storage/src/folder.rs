//! A directory of the file system, by blocking calls.
//!
//! ```text
//!                 reads                        writes                          locks
//!   lock          past the cache (O_DIRECT)    past the cache                  the directory and each file
//!   read_only     through the cache            none                            nothing
//! ```
//!
//! Recovery must see what the disk has: after a failed sync Linux keeps pages that it could not
//! write, and calls them clean. A tool looks at what it may look at, a copy on any file system
//! included.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{BLOCK_BYTES, Buffer, Disk, FileId};

/// A directory of files.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// `None` where nothing is ever written.
    held: Option<Held>,
}

/// What is kept open, and locked, for as long as a folder that may be written to is.
#[derive(Debug)]
struct Held {
    /// Keeps others from formatting or recovering; nothing is ever in it.
    _lock: File,
    files: BTreeMap<FileId, File>,
}

impl Folder {
    /// Opens a directory to look at it: one that is in use, too, or a copy.
    #[must_use]
    pub fn read_only(path: &Path) -> Self {
        Self { path: path.to_owned(), held: None }
    }

    /// Opens a directory to write in, and keeps every other process from doing so until this is
    /// dropped, and every [`file`](Self::file) of it.
    ///
    /// That it is there, and durably so, is the caller's business.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if another process has it open so; `NotFound` if it is not there; `Unsupported`
    /// if its file system has no direct I/O; as the file system says.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let lock = open_direct(&path.join("lock"), true)?;
        Ok(Self { path: path.to_owned(), held: Some(Held { _lock: lock, files: BTreeMap::new() }) })
    }

    /// The place of `file`.
    #[must_use]
    pub fn path(&self, file: FileId) -> PathBuf {
        self.path.join(file.to_string())
    }

    /// The file itself, for a driver to write to in its own way: opened for direct I/O.
    ///
    /// A write that is on its way when its process is killed may outlive it in the kernel, and come
    /// to rest after the next life has read the log and gone on. So the lock is on the open file,
    /// which such a write holds on to: a write through another one, opened anew, is not waited for.
    ///
    /// # Errors
    ///
    /// As [`lock`](Self::lock), for this file.
    pub fn file(&mut self, file: FileId) -> io::Result<File> {
        self.open(file)?.try_clone()
    }

    fn open(&mut self, file: FileId) -> io::Result<&File> {
        self.open_or(file, false)
    }

    fn open_or(&mut self, file: FileId, make: bool) -> io::Result<&File> {
        let path = self.path(file);
        let held = self.held.as_mut().ok_or_else(not_writable)?;
        match held.files.entry(file) {
            Entry::Occupied(there) => Ok(there.into_mut()),
            Entry::Vacant(place) => Ok(place.insert(open_direct(&path, make)?)),
        }
    }
}

impl Disk for Folder {
    fn files(&mut self) -> io::Result<Vec<(FileId, u64)>> {
        let mut files = Vec::new();
        for entry in self.path.read_dir()? {
            let entry = entry?;
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("log.")?.parse().ok());
            let Some(file) = number.map(FileId) else { continue };
            if name == *file.to_string() {
                files.push((file, entry.metadata()?.len()));
            }
        }
        files.sort_unstable();
        Ok(files)
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
        if self.held.is_none() {
            return File::open(self.path(file))?.read_exact_at(into, offset);
        }
        check_alignment(offset, into);
        self.open(file)?.read_exact_at(into, offset).map_err(naming_direct)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let open = self.open(file)?;
        check_alignment(offset, bytes);
        open.write_all_at(bytes, offset).map_err(naming_direct)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.open(file)?.sync_data()
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.held.as_ref().ok_or_else(not_writable)?;
        File::open(&self.path)?.sync_all()
    }

    fn create(&mut self, file: FileId, bytes: u64) -> io::Result<()> {
        let made = self.open_or(file, true)?;
        if let Err(error) = fill(made, bytes) {
            // What was written of it is of no use, and another file may need the room.
            made.set_len(0)?;
            return Err(naming_direct(error));
        }
        self.sync_directory()
    }
}

/// Makes `file` one of `bytes` zeros, whatever it was.
fn fill(file: &File, bytes: u64) -> io::Result<()> {
    const PIECE_BYTES: usize = 1 << 20;
    file.set_len(0)?;
    let mut zeros = Buffer::new();
    zeros.resize(PIECE_BYTES, 0);
    for offset in (0..bytes).step_by(PIECE_BYTES) {
        let left = usize::try_from(bytes - offset).unwrap_or(PIECE_BYTES);
        file.write_all_at(&zeros[..left.min(PIECE_BYTES)], offset)?;
    }
    file.sync_all()
}

/// Opens a file past the cache, and locks it.
fn open_direct(path: &Path, make: bool) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(make).truncate(false).custom_flags(libc::O_DIRECT);
    let file = options.open(path).map_err(naming_direct)?;
    file.try_lock()?;
    Ok(file)
}

/// `InvalidInput` of a file that is open for direct I/O, or was to be, means that there is none.
fn naming_direct(error: io::Error) -> io::Error {
    if error.kind() != ErrorKind::InvalidInput {
        return error;
    }
    let said = format!(
        "the file system refuses direct I/O (O_DIRECT) in blocks of {BLOCK_BYTES} bytes, which the log \
         needs: put the data directory on another, such as ext4 or xfs ({error})"
    );
    io::Error::new(ErrorKind::Unsupported, said)
}

fn check_alignment(offset: u64, memory: &[u8]) {
    let block_bytes = BLOCK_BYTES as usize;
    let is_aligned = memory.as_ptr().addr().is_multiple_of(block_bytes)
        && memory.len().is_multiple_of(block_bytes)
        && offset.is_multiple_of(u64::from(BLOCK_BYTES));
    assert!(
        is_aligned,
        "direct I/O is of whole blocks, from and to memory that is aligned to them"
    );
}

fn not_writable() -> io::Error {
    io::Error::new(ErrorKind::PermissionDenied, "opened to be read only")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_system_without_direct_io_is_refused_by_name() {
        let error = open_direct(Path::new("/proc/self/comm"), false).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("O_DIRECT"), "{error}");
    }
}
