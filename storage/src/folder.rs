//! A directory of the file system, by blocking calls.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::{Disk, FileId};

/// A directory of files, through the operating system's cache: for tools, which look at it, and for
/// formatting.
///
/// To recover a log in earnest, read it past the cache: see [`Disk::read_at`]. Who goes on with direct I/O
/// does so when this has synced what it has written.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    /// Held as long as this is; `None` where nothing is ever written.
    lock: Option<File>,
}

impl Folder {
    /// Opens a directory to look at it: one that is in use, too, or a copy.
    #[must_use]
    pub fn read_only(path: &Path) -> Self {
        Self { path: path.to_owned(), lock: None }
    }

    /// Opens a directory to write in, and keeps everybody else from doing so until this is dropped.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if another process has it open so; `NotFound` if it is not there; as the file system
    /// says.
    pub fn lock(path: &Path) -> io::Result<Self> {
        let lock = File::create(path.join("lock"))?;
        lock.try_lock()?;
        Ok(Self { path: path.to_owned(), lock: Some(lock) })
    }

    /// Where `file` is.
    #[must_use]
    pub fn path(&self, file: FileId) -> PathBuf {
        self.path.join(file.to_string())
    }

    fn writable(&self) -> io::Result<()> {
        match self.lock {
            Some(_) => Ok(()),
            None => Err(io::Error::new(ErrorKind::PermissionDenied, "opened to be read only")),
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
        File::open(self.path(file))?.read_exact_at(into, offset)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.writable()?;
        OpenOptions::new().write(true).open(self.path(file))?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.writable()?;
        OpenOptions::new().write(true).open(self.path(file))?.sync_data()
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        self.writable()?;
        File::open(&self.path)?.sync_all()
    }

    fn create(&mut self, file: FileId, bytes: u64) -> io::Result<()> {
        self.writable()?;
        let mut created = File::create(self.path(file))?;
        let zeros = vec![0; 1 << 20];
        let mut left = bytes;
        while left > 0 {
            let count = usize::try_from(left).map_or(zeros.len(), |left| left.min(zeros.len()));
            created.write_all(&zeros[..count])?;
            left -= count as u64;
        }
        created.sync_all()?;
        self.sync_directory()
    }
}
