//! Reading files in large pieces, mostly one behind the other.

use crate::batch::padded;
use crate::{Buffer, Disk, FileId, StorageError};

/// The bytes that are read at once, where no batch is longer.
const CHUNK_BYTES: u64 = 1 << 20;

/// A file, and how long it is.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct SizedFile {
    pub(crate) id: FileId,
    pub(crate) bytes: u64,
}

/// Reads pieces of files.
pub(crate) struct Reader<'a, D> {
    disk: &'a mut D,
    bytes: Buffer,
    /// The file and the offset that `bytes` are from.
    at: (FileId, u32),
}

impl<'a, D: Disk> Reader<'a, D> {
    pub(crate) fn new(disk: &'a mut D) -> Self {
        Self { disk, bytes: Buffer::new(), at: (FileId(0), 0) }
    }

    /// `count` bytes of `file` from `offset` on. The file holds them, and is whole blocks.
    pub(crate) fn bytes(
        &mut self,
        file: SizedFile,
        offset: u32,
        count: u32,
    ) -> Result<&[u8], StorageError> {
        let end = u64::from(offset) + u64::from(count);
        let (at_file, at) = self.at;
        let is_there =
            at_file == file.id && offset >= at && end <= u64::from(at) + self.bytes.len() as u64;
        if !is_there {
            let left = file.bytes - u64::from(offset);
            let wanted = u64::from(padded(count)).max(CHUNK_BYTES).min(left);
            let wanted = usize::try_from(wanted).expect("a chunk, or a batch");
            self.bytes.clear(); // what a failed read leaves is not to be used
            self.bytes.resize(wanted, 0);
            let read = self.disk.read_at(file.id, u64::from(offset), &mut self.bytes);
            if let Err(error) = read {
                self.bytes.clear();
                return Err(StorageError::on(file.id)(error));
            }
            self.at = (file.id, offset);
        }
        let start = (offset - self.at.1) as usize;
        Ok(&self.bytes[start..start + count as usize])
    }
}
