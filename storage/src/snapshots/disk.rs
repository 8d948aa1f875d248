//! What the store of snapshots asks of a disk, and a directory of the file system that does it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::direct::{Reader, Writer};

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
/// Files are written and read past the page cache (`O_DIRECT`), where the file system can do that:
/// to copy a state of gigabytes there and back takes as much of a core as to serve with it, and
/// pushes out what others have in the cache. So what is read is also what the disk holds, not what
/// a failed sync has left in the cache.
#[derive(Debug)]
pub struct SnapshotFolder {
    path: PathBuf,
    /// Files to read.
    reading: BTreeMap<String, Reader>,
    /// Files that are being written.
    writing: BTreeMap<String, Writer>,
}

impl SnapshotFolder {
    /// Returns the folder at `path`, which must exist and belong to this process alone.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), reading: BTreeMap::new(), writing: BTreeMap::new() }
    }

    /// A file to read, with all that was appended to it.
    fn reader(&mut self, name: &str) -> io::Result<&mut Reader> {
        if let Some(writer) = self.writing.get_mut(name) {
            writer.flush()?;
            self.reading.remove(name); // what it has read ahead may be more now
        }
        if !self.reading.contains_key(name) {
            let reader = Reader::open(&self.path.join(name))?;
            self.reading.insert(name.to_owned(), reader);
        }
        Ok(self.reading.get_mut(name).expect("it was just opened"))
    }

    fn writer(&mut self, name: &str) -> io::Result<&mut Writer> {
        self.writing.get_mut(name).ok_or_else(|| ErrorKind::NotFound.into())
    }
}

impl SnapshotDisk for SnapshotFolder {
    fn names(&mut self) -> io::Result<Vec<String>> {
        let names = self.path.read_dir()?.map(|entry| Ok(entry?.file_name().into_string().ok()));
        Ok(names.collect::<io::Result<Vec<_>>>()?.into_iter().flatten().collect())
    }

    fn length(&mut self, name: &str) -> io::Result<u64> {
        self.reader(name)?.length()
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.reading.remove(name);
        let writer = Writer::create(&self.path.join(name))?;
        self.writing.insert(name.to_owned(), writer);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.writer(name)?.append(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.writer(name)?.sync()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.writing.get_mut(from).map_or(Ok(()), Writer::flush)?;
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        // Nothing is appended to a file that has its name.
        self.writing.remove(from);
        self.reading.remove(to);
        self.reading.remove(from);
        Ok(())
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }

    fn read_at(&mut self, name: &str, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.reader(name)?.read_at(offset, into)
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.reading.remove(name);
        self.writing.remove(name);
        std::fs::remove_file(self.path.join(name))
    }
}
