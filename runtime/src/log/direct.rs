//! A directory of files past the operating system's cache.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use loggos_storage::{BLOCK_BYTES, Buffer, Disk, FileId, Folder};
use rustix::fs::OFlags;
use rustix::io::Errno;

/// How much of a new file is written at once.
const CHUNK_BYTES: u64 = 1 << 20;

/// A directory of files past the operating system's cache (`O_DIRECT`): what is read is what the disk has.
#[derive(Debug)]
pub(crate) struct DirectFolder {
    path: PathBuf,
    /// Those that were used, which stay open.
    files: BTreeMap<FileId, File>,
}

impl DirectFolder {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, files: BTreeMap::new() }
    }

    /// Gives a file away that somebody else writes to from now on.
    pub(crate) fn open(&self, file: FileId) -> io::Result<File> {
        open(&self.path.join(file.to_string()), OpenOptions::new().read(true).write(true))
    }

    fn file(&mut self, file: FileId) -> io::Result<&File> {
        let opened = match self.files.contains_key(&file) {
            true => None,
            false => Some(self.open(file)?),
        };
        match (self.files.entry(file), opened) {
            (Entry::Vacant(place), Some(opened)) => Ok(place.insert(opened)),
            (Entry::Occupied(place), _) => Ok(place.into_mut()),
            (Entry::Vacant(_), None) => unreachable!("what is not open was opened"),
        }
    }
}

impl Disk for DirectFolder {
    fn files(&mut self) -> io::Result<Vec<(FileId, u64)>> {
        Folder::read_only(&self.path).files()
    }

    fn read_at(&mut self, file: FileId, offset: u64, into: &mut [u8]) -> io::Result<()> {
        self.file(file)?.read_exact_at(into, offset)
    }

    fn write_at(&mut self, file: FileId, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file(file)?.write_all_at(bytes, offset)
    }

    fn sync(&mut self, file: FileId) -> io::Result<()> {
        self.file(file)?.sync_data()
    }

    fn sync_directory(&mut self) -> io::Result<()> {
        sync_directory(&self.path)
    }

    fn create(&mut self, file: FileId, bytes: u64) -> io::Result<()> {
        assert!(bytes.is_multiple_of(BLOCK_BYTES.into()), "{bytes} bytes are no whole blocks");
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true);
        let created = open(&self.path.join(file.to_string()), &mut options)?;
        let mut zeros = Buffer::new();
        zeros.resize(usize::try_from(bytes.min(CHUNK_BYTES)).map_err(io::Error::other)?, 0);
        let mut at = 0;
        while at < bytes {
            let count =
                usize::try_from(bytes - at).map_or(zeros.len(), |left| left.min(zeros.len()));
            created.write_all_at(&zeros[..count], at)?;
            at += count as u64;
        }
        created.sync_all()?;
        self.files.insert(file, created);
        self.sync_directory()
    }
}

/// Makes durable which files a directory has.
pub(crate) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn open(path: &Path, options: &mut OpenOptions) -> io::Result<File> {
    // Rust opens everything to be closed in whatever the process starts.
    let flags = i32::try_from(OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    options.custom_flags(flags).open(path).map_err(|error| match Errno::from_io_error(&error) {
        Some(Errno::INVAL) => {
            let text = format!(
                "the file system ({}) refuses direct I/O (O_DIRECT), without which nobody knows what is on \
                 the disk: put the data on another, such as ext4 or xfs",
                file_system(path).unwrap_or_else(|| "unknown".to_owned())
            );
            io::Error::new(ErrorKind::Unsupported, text)
        }
        _ => error,
    })
}

/// The kind of file system that `path` is on.
fn file_system(path: &Path) -> Option<String> {
    let path = path.parent()?.canonicalize().ok()?;
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mounts = mounts.lines().filter_map(|line| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = Path::new(mount.split(' ').nth(4)?);
        path.starts_with(point).then_some((point.as_os_str().len(), kind.split(' ').next()?))
    });
    // Of two at one place the later one covers the other.
    mounts.max_by_key(|(length, _)| *length).map(|(_, kind)| kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_file_is_zeros_and_what_is_written_is_read_back() {
        let folder = tempfile::tempdir().unwrap();
        let mut disk = DirectFolder::new(folder.path().to_owned());
        let bytes = CHUNK_BYTES + 2 * u64::from(BLOCK_BYTES);
        let zeros = vec![0; usize::try_from(bytes).unwrap()];
        disk.create(FileId(3), bytes).unwrap();
        assert_eq!(disk.files().unwrap(), [(FileId(3), bytes)]);
        assert_eq!(std::fs::read(folder.path().join("log.00003")).unwrap(), zeros);
        let mut block = Buffer::new();
        block.resize(4096, 7);
        disk.write_at(FileId(3), CHUNK_BYTES, &block).unwrap();
        disk.sync(FileId(3)).unwrap();
        let mut read = Buffer::new();
        read.resize(4096, 0);
        disk.read_at(FileId(3), CHUNK_BYTES, &mut read).unwrap();
        assert_eq!(read[..], block[..]);
    }

    #[test]
    fn a_file_system_is_known_by_its_kind() {
        assert_eq!(file_system(Path::new("/proc/self")).as_deref(), Some("proc"));
    }
}
