//! Reading files in large pieces, mostly one behind the other.

use crate::batch::padded;
use crate::{Buffer, Disk, FileId, StorageError};

/// How much is read at once, in bytes, where no batch is longer.
const CHUNK_BYTES: u64 = 1 << 20;

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

    /// `count` bytes from `offset` on of `file`, which has `file_bytes`, more than enough and whole blocks.
    pub(crate) fn bytes(
        &mut self,
        (file, file_bytes): (FileId, u64),
        offset: u32,
        count: u32,
    ) -> Result<&[u8], StorageError> {
        let end = u64::from(offset) + u64::from(count);
        let (at_file, at) = self.at;
        let is_there =
            at_file == file && offset >= at && end <= u64::from(at) + self.bytes.len() as u64;
        if !is_there {
            let left = file_bytes - u64::from(offset);
            let wanted = u64::from(padded(count)).max(CHUNK_BYTES).min(left);
            let wanted = usize::try_from(wanted).expect("a chunk, or a batch");
            self.bytes.clear(); // what a failed read leaves is not to be used
            self.bytes.resize(wanted, 0);
            let read = self.disk.read_at(file, u64::from(offset), &mut self.bytes);
            if let Err(error) = read {
                self.bytes.clear();
                return Err(StorageError::on(file)(error));
            }
            self.at = (file, offset);
        }
        let start = (offset - self.at.1) as usize;
        Ok(&self.bytes[start..start + count as usize])
    }
}
