//! What the store of snapshots asks of a disk, and a directory of the file system that does it.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::{BLOCK_BYTES, Buffer};

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

/// The bytes that are written at once, but for a file's end.
const CHUNK_BYTES: usize = 1 << 20;

/// A directory of the file system.
///
/// What is written goes past the page cache (`O_DIRECT`), where the file system can do that: to
/// copy a state of gigabytes there takes as much of a core as to serve with it, and pushes out what
/// others have in the cache. What is read goes through the cache. A file is read only once it is
/// written and synced, so what a failed sync has left there is not mistaken for what is on disk.
#[derive(Debug)]
pub struct SnapshotFolder {
    path: PathBuf,
    /// Files to read.
    open: BTreeMap<String, File>,
    /// Files that are being written.
    writing: BTreeMap<String, Writer>,
}

/// A file that is being written, from its beginning to its end.
#[derive(Debug)]
struct Writer {
    path: PathBuf,
    file: File,
    is_direct: bool,
    /// Whole blocks, written.
    written: u64,
    /// What comes next.
    pending: Buffer,
    /// Whether some of `pending` is not in the file.
    is_dirty: bool,
}

impl Writer {
    /// Makes an empty file, past the page cache if that can be.
    fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let direct = options.clone().custom_flags(libc::O_DIRECT).open(path);
        let (file, is_direct) = match direct {
            Err(error) if error.kind() == ErrorKind::InvalidInput => (options.open(path)?, false),
            direct => (direct?, true),
        };
        let mut pending = Buffer::new();
        pending.reserve(CHUNK_BYTES);
        Ok(Self { path: path.to_owned(), file, is_direct, written: 0, pending, is_dirty: false })
    }

    fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let room = CHUNK_BYTES - self.pending.len();
            let (taken, rest) = bytes.split_at(room.min(bytes.len()));
            self.pending.extend_from_slice(taken);
            (self.is_dirty, bytes) = (true, rest);
            if self.pending.len() == CHUNK_BYTES {
                self.write_pending()?;
                self.written += CHUNK_BYTES as u64;
                self.pending.clear();
            }
        }
        Ok(())
    }

    fn write_pending(&mut self) -> io::Result<()> {
        match self.file.write_all_at(&self.pending, self.written) {
            // The file system takes direct I/O, but not in blocks of this size.
            Err(error) if self.is_direct && error.kind() == ErrorKind::InvalidInput => {
                self.file = OpenOptions::new().write(true).open(&self.path)?;
                self.is_direct = false;
                self.file.write_all_at(&self.pending, self.written)
            }
            done => done,
        }
    }

    /// Writes what is pending: the last block with zeros behind it, which the length leaves out.
    /// What is there already is left alone: it may be synced and counted on.
    fn flush(&mut self) -> io::Result<()> {
        if !self.is_dirty {
            return Ok(());
        }
        let block_bytes = BLOCK_BYTES as usize;
        let (bytes, whole) = (self.pending.len(), self.pending.len() / block_bytes * block_bytes);
        self.pending.resize(bytes.next_multiple_of(block_bytes), 0);
        let done = self.write_pending();
        self.pending.resize(bytes, 0);
        done.and_then(|()| self.file.set_len(self.written + bytes as u64))?;
        self.is_dirty = false; // not before: what has failed is not taken for written later
        self.written += whole as u64;
        self.pending.copy_within(whole.., 0);
        self.pending.resize(bytes - whole, 0);
        Ok(())
    }
}

impl SnapshotFolder {
    /// Returns the folder at `path`, which must exist and belong to this process alone.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), open: BTreeMap::new(), writing: BTreeMap::new() }
    }

    /// A file to read, with all that was appended to it.
    fn file(&mut self, name: &str) -> io::Result<&File> {
        self.writing.get_mut(name).map_or(Ok(()), Writer::flush)?;
        if !self.open.contains_key(name) {
            let file = File::open(self.path.join(name))?;
            self.open.insert(name.to_owned(), file);
        }
        Ok(self.open.get(name).expect("it was just opened"))
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
        Ok(self.file(name)?.metadata()?.len())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.open.remove(name);
        let writer = Writer::create(&self.path.join(name))?;
        self.writing.insert(name.to_owned(), writer);
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.writer(name)?.append(bytes)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let writer = self.writer(name)?;
        writer.flush()?;
        writer.file.sync_data()
    }

    fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        self.writing.get_mut(from).map_or(Ok(()), Writer::flush)?;
        std::fs::rename(self.path.join(from), self.path.join(to))?;
        // Nothing is appended to a file that has its name.
        self.writing.remove(from);
        self.open.remove(to);
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
        self.writing.remove(name);
        std::fs::remove_file(self.path.join(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// It is counted on when it is renamed, and a write that is not synced could be lost in part.
    #[test]
    fn r16_a_file_that_is_synced_is_not_written_again() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut writer = Writer::create(&folder.path().join("file")).expect("a file");
        writer.append(&[7; 5000]).and_then(|()| writer.flush()).expect("a disk");
        writer.file = File::open(&writer.path).expect("it is there"); // takes no writes
        writer.flush().expect("nothing is written");
        writer.append(&[7]).expect("it is pending");
        for _ in 0..2 {
            writer.flush().expect_err("now there is something to write, and it is not written");
        }
        writer.file = OpenOptions::new().write(true).open(&writer.path).expect("it is there");
        writer.flush().expect("a disk");
        assert_eq!(std::fs::read(&writer.path).expect("it is there"), [7; 5001]);
    }
}
