//! What the store of snapshots asks of a disk, and a directory of the file system that does it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Named files of one directory, each written once, from its beginning to its end.
pub trait SnapshotDisk {
    /// The names of all files, in any order.
    ///
    /// # Errors
    ///
    /// As the disk says.
    fn names(&mut self) -> io::Result<Vec<String>>;

    /// The length of a file, in bytes.
    ///
    /// # Errors
    ///
    /// As the disk says.
    fn length(&mut self, name: &str) -> io::Result<u64>;

    /// Makes an empty file, in place of one of that name.
    ///
    /// # Errors
    ///
    /// As the disk says.
    fn create(&mut self, name: &str) -> io::Result<()>;

    /// Writes all of `bytes` behind what is in a file. Nothing is durable yet.
    ///
    /// # Errors
    ///
    /// As the disk says. What is in the file then is not known.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Makes durable what was written to a file.
    ///
    /// # Errors
    ///
    /// As the disk says. What is durable then is not known.
    fn sync(&mut self, name: &str) -> io::Result<()>;

    /// Gives a file another name, and with it the place of a file that had that name.
    ///
    /// # Errors
    ///
    /// As the disk says.
    fn rename(&mut self, from: &str, to: &str) -> io::Result<()>;

    /// Makes durable which names there are.
    ///
    /// # Errors
    ///
    /// As the disk says.
    fn sync_directory(&mut self) -> io::Result<()>;

    /// Fills `into` from `offset` on.
    ///
    /// # Errors
    ///
    /// As the disk says; `UnexpectedEof` beyond the file's end.
    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// As the disk says.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// A directory of the file system.
///
/// It goes through the page cache, unlike a log. What a failed sync has left in the cache is not
/// mistaken for what is on disk, because the file of a snapshot that could not be synced is never
/// used.
#[derive(Debug)]
pub struct SnapshotFolder {
    path: PathBuf,
    open: BTreeMap<String, File>,
}

impl SnapshotFolder {
    /// Returns the folder at `path`, which must exist and belong to this process alone.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: BTreeMap::new() }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        if !self.open.contains_key(name) {
            let file = File::open(self.path.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        Ok(self.open.get_mut(name).expect("it was just opened"))
    }
}

impl SnapshotDisk for SnapshotFolder {
    fn names(&mut self) -> io::Result<Vec<String>> {
        let names = self.path.read_dir()?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn length(&mut self, name: &str) -> io::Result<u64> {
        Ok(self.file(name)?.metadata()?.len())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(true);
        self.open.insert(name.to_owned(), file.open(self.path.join(name))?);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name)?.write_all(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.file(name)?.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        if let Some(file) = self.open.remove(from) {
            self.open.insert(to.to_owned(), file);
        }
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file(name)?.read_exact_at(into, offset)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        std::fs::remove_file(self.path.join(name))
    }
}
