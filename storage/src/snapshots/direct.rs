//! Files that are written once and read in order, past the page cache where that can be.
//!
//! Direct I/O is of whole blocks, from and to memory that is aligned to them. So both ways go
//! through a buffer of a chunk: what is appended is written when a chunk is full, and what is read
//! in order is read a chunk ahead. A file system that refuses direct I/O is used through its cache.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::file::place;
use crate::{BLOCK_BYTES, Buffer};

/// The bytes that are written or read at once, but for a file's end.
const CHUNK_BYTES: usize = 1 << 20;

/// A file that is being written, from its beginning to its end.
#[derive(Debug)]
pub(super) struct Writer {
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
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(true);
        let (file, is_direct) = open(&options, path)?;
        let mut pending = Buffer::new();
        pending.reserve(CHUNK_BYTES);
        Ok(Self { path: path.to_owned(), file, is_direct, written: 0, pending, is_dirty: false })
    }

    /// Writes `bytes` behind what is there, in chunks: some of it may be pending.
    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
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
            Err(error) if self.is_direct && is_refused(&error) => {
                self.file = OpenOptions::new().write(true).open(&self.path)?;
                self.is_direct = false;
                self.file.write_all_at(&self.pending, self.written)
            }
            done => done,
        }
    }

    /// Writes what is pending: the last block with zeros behind it, which the length leaves out.
    /// What is there already is left alone: it may be synced and counted on.
    pub(super) fn flush(&mut self) -> io::Result<()> {
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

    /// Makes durable what was appended.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        self.flush()?;
        self.file.sync_data()
    }
}

/// A file to read.
#[derive(Debug)]
pub(super) struct Reader {
    path: PathBuf,
    file: File,
    is_direct: bool,
    /// The blocks that were read last.
    chunk: Buffer,
    /// Where they begin in the file.
    chunk_start: u64,
    /// The end of what was read last. What continues there is read ahead, and taken from the chunk.
    /// All else is read from disk: two who read in turns do not read ahead in vain, and what was
    /// read damaged is read anew.
    next: u64,
}

impl Reader {
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let (file, is_direct) = open(OpenOptions::new().read(true), path)?;
        let (chunk, path) = (Buffer::new(), path.to_owned());
        Ok(Self { path, file, is_direct, chunk, chunk_start: 0, next: 0 })
    }

    pub(super) fn length(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    /// Fills `into` from `offset` on.
    pub(super) fn read_at(&mut self, offset: u64, into: &mut [u8]) -> io::Result<()> {
        let continues = offset == self.next;
        if !continues || self.in_chunk(offset, into.len()).is_none() {
            let ahead = if continues { CHUNK_BYTES } else { 0 };
            self.read_chunk(offset, into.len().max(ahead))?;
        }
        let bytes = self.in_chunk(offset, into.len()).ok_or(ErrorKind::UnexpectedEof)?;
        into.copy_from_slice(bytes);
        self.next = offset + into.len() as u64;
        Ok(())
    }

    fn in_chunk(&self, offset: u64, bytes: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset.checked_sub(self.chunk_start)?).ok()?;
        self.chunk.get(start..)?.get(..bytes)
    }

    /// Reads `bytes` from `offset` on, or up to the file's end if that comes before.
    fn read_chunk(&mut self, offset: u64, bytes: usize) -> io::Result<()> {
        let block_bytes = u64::from(BLOCK_BYTES);
        let end = (offset + bytes as u64).next_multiple_of(block_bytes);
        self.chunk_start = offset - offset % block_bytes;
        self.chunk.resize(place(end - self.chunk_start)?, 0);
        let read = self.fill_chunk();
        self.chunk.resize(*read.as_ref().unwrap_or(&0), 0);
        read.map(|_| ())
    }

    /// Fills the chunk, and returns how much of it there is.
    fn fill_chunk(&mut self) -> io::Result<usize> {
        let mut done = 0;
        while done < self.chunk.len() {
            match self.file.read_at(&mut self.chunk[done..], self.chunk_start + done as u64) {
                Ok(0) => break,
                Ok(read) => {
                    done += read;
                    if self.is_direct && !done.is_multiple_of(BLOCK_BYTES as usize) {
                        break; // the file's end, from where nothing can be read directly
                    }
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // The file system takes direct I/O, but not in blocks of this size.
                Err(error) if self.is_direct && is_refused(&error) => {
                    self.file = File::open(&self.path)?;
                    self.is_direct = false;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

/// Opens a file past the page cache, if the file system can do that; also says whether it can.
fn open(options: &OpenOptions, path: &Path) -> io::Result<(File, bool)> {
    match options.clone().custom_flags(libc::O_DIRECT).open(path) {
        Err(error) if is_refused(&error) => Ok((options.open(path)?, false)),
        direct => Ok((direct?, true)),
    }
}

/// Whether an error of a file that is open for direct I/O, or was to be, says that there is none.
fn is_refused(error: &io::Error) -> bool {
    error.kind() == ErrorKind::InvalidInput
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

    /// Reads of any lengths, in order and not, of a file that ends within a block.
    #[test]
    fn what_is_read_is_what_is_there() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let content: Vec<u8> = (0..=250).cycle().take(2 * CHUNK_BYTES + 5000).collect();
        std::fs::write(&path, &content).expect("a disk");
        let mut reader = Reader::open(&path).expect("it is there");
        let mut read = |offset: usize, bytes: usize| {
            let mut into = vec![0; bytes];
            let is_read = reader.read_at(offset as u64, &mut into);
            is_read.map(|()| assert!(into == content[offset..][..bytes], "{bytes} from {offset}"))
        };
        for part_bytes in [60_000, 4096, 1, CHUNK_BYTES + 1] {
            let mut offset = 0;
            while offset + part_bytes <= content.len() && offset < 200 * part_bytes {
                read(offset, part_bytes).expect("it is there");
                offset += part_bytes;
            }
        }
        read(content.len() - 48, 48).expect("it is there");
        read(CHUNK_BYTES - 1, 2).expect("it is there");
        for offset in [content.len() - 48, content.len()] {
            let error = read(offset, 49).expect_err("it is beyond the end");
            assert_eq!(error.kind(), ErrorKind::UnexpectedEof);
        }
        read(content.len() - 48, 48).expect("it is there yet");
    }

    /// What the disk has returned damaged once it may return whole the next time.
    #[test]
    fn what_is_read_again_is_read_from_disk() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, [1; 8192]).expect("a disk");
        let mut reader = Reader::open(&path).expect("it is there");
        let mut into = [0; 100];
        reader.read_at(0, &mut into).expect("it is there");
        reader.read_at(100, &mut into).expect("it is there");
        std::fs::write(&path, [2; 8192]).expect("a disk");
        reader.read_at(100, &mut into).expect("it is there");
        assert_eq!(into, [2; 100]);
    }
}
