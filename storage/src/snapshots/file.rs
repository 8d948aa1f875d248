//! The file of a snapshot: header, parts, the lengths of the parts, footer.

use std::fmt;
use std::io::{self, ErrorKind};

use loggos_protocol::{
    Digest, DirectoryId, FormationId, Incarnation, ReplicaId, SnapshotId, SnapshotInfo, Watermark,
};

use super::{SnapshotDisk, length};
use crate::fields::{Fields, Malformed, Put, checksum};

/// The version of everything in a snapshot's file that this code writes.
pub const SNAPSHOT_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"LOGGOSSN";
const MAGIC_END: [u8; 8] = *b"LOGGOSSE";
const HEADER_BYTES: u64 = 68;
const HEAD_BYTES: u64 = 20;
const LENGTH_BYTES: u64 = 4;
const FOOTER_BYTES: u64 = 48;

/// The replica to which a directory of snapshots belongs.
///
/// source: R4
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SnapshotOwner {
    /// The digest of the cluster's name.
    pub cluster: u64,
    /// The identity of the replica's memory.
    pub directory: DirectoryId,
    /// The replica.
    pub replica: ReplicaId,
}

/// The places of the parts in a file.
#[derive(Debug)]
pub(super) struct Layout {
    tag: u64,
    /// The offset of each part's head, and of what is behind the last part.
    offsets: Vec<u64>,
}

/// The finding in a file that has a snapshot's name.
#[derive(Debug)]
pub(super) enum Found {
    Snapshot(SnapshotOwner, SnapshotInfo, Layout),
    Damaged(&'static str),
    Foreign(SnapshotOwner),
    Newer(u32),
}

impl Layout {
    /// Returns the layout of a file without parts.
    pub(super) fn new(owner: SnapshotOwner, id: SnapshotId) -> Self {
        let words = [owner.directory.0, id.at.0, id.incarnation.0, id.replica.0.into()];
        let tag = words.into_iter().fold(Digest::new("loggos snapshot file"), Digest::word);
        Self { tag: tag.finish(), offsets: vec![HEADER_BYTES] }
    }

    pub(super) fn parts_count(&self) -> u32 {
        length(self.offsets.len() - 1)
    }

    /// Adds a part, and appends its head and `part` to `bytes`.
    pub(super) fn put_part(&mut self, bytes: &mut Vec<u8>, part: &[u8]) {
        let start = bytes.len();
        bytes.put_u32(0);
        bytes.put_u32(length(part.len()));
        bytes.put_u32(self.parts_count());
        bytes.put_u64(self.tag);
        bytes.put(part);
        seal(bytes, start);
        self.add(length(part.len()));
    }

    /// Appends what is behind the last part.
    pub(super) fn put_footer(&self, bytes: &mut Vec<u8>, info: &SnapshotInfo) {
        for part in self.offsets.windows(2) {
            bytes.put_u32(u32::try_from(part[1] - part[0] - HEAD_BYTES).expect("it was a u32"));
        }
        let lengths = bytes.len();
        bytes.put_u32(0);
        bytes.put_u32(info.parts);
        bytes.put_u64(info.bytes);
        bytes.put_u64(info.digest);
        bytes.put_u64(info.state_hash);
        bytes.put_u64(self.tag);
        bytes.put(&MAGIC_END);
        let sum = footer_sum(&bytes[..lengths], &bytes[lengths..]);
        bytes[lengths..lengths + 4].copy_from_slice(&sum.to_le_bytes());
    }

    /// Reads a part of the file `name`, which has this layout.
    pub(super) fn read_part(
        &self,
        disk: &mut impl SnapshotDisk,
        name: &str,
        part: u32,
    ) -> io::Result<Vec<u8>> {
        let at = part as usize;
        let range = self.offsets.get(at).zip(self.offsets.get(at + 1));
        let (start, end) = range.ok_or(ErrorKind::NotFound)?;
        let mut bytes = vec![0; place(end - start)?];
        disk.read_at(name, *start, &mut bytes)?;
        let mut fields = Fields(&bytes);
        let is_it = (|| {
            let sum = fields.u32()?;
            let is_whole = sum == checksum(fields.0);
            let (length, number, tag) = (fields.u32()?, fields.u32()?, fields.u64()?);
            let is_ours = (number, tag) == (part, self.tag);
            Ok::<bool, Malformed>(is_whole && is_ours && length as usize == fields.0.len())
        })();
        match is_it {
            Ok(true) => Ok(bytes.split_off(place(HEAD_BYTES)?)),
            Ok(false) | Err(Malformed) => Err(ErrorKind::InvalidData.into()),
        }
    }

    fn add(&mut self, part_bytes: u32) {
        self.offsets.push(self.end() + HEAD_BYTES + u64::from(part_bytes));
    }

    fn end(&self) -> u64 {
        *self.offsets.last().expect("a layout has the offset of its end")
    }
}

/// Appends the header of a file.
pub(super) fn put_header(
    bytes: &mut Vec<u8>,
    owner: SnapshotOwner,
    id: SnapshotId,
    formation: FormationId,
) {
    bytes.put(&MAGIC);
    bytes.put_u32(SNAPSHOT_VERSION);
    bytes.put_u32(checksum(&bytes[..12]));
    bytes.put_u32(0);
    bytes.put_u32(owner.replica.0.into());
    bytes.put_u64(owner.cluster);
    bytes.put_u64(owner.directory.0);
    bytes.put_u64(formation.0);
    bytes.put_u64(id.at.0);
    bytes.put_u64(id.incarnation.0);
    bytes.put_u32(id.replica.0.into());
    let sum = checksum(&bytes[20..]);
    bytes[16..20].copy_from_slice(&sum.to_le_bytes());
}

/// Reads header, lengths and footer of the file `name`; a file of another owner than `expected` is
/// read no further.
///
/// # Errors
///
/// As the disk says.
pub(super) fn find(
    disk: &mut impl SnapshotDisk,
    name: &str,
    expected: Option<SnapshotOwner>,
) -> io::Result<Found> {
    let file_bytes = disk.length(name)?;
    if file_bytes < HEADER_BYTES + FOOTER_BYTES {
        return Ok(Found::Damaged("is too short"));
    }
    let mut header = vec![0; place(HEADER_BYTES)?];
    disk.read_at(name, 0, &mut header)?;
    let (owner, id, formation) = match take_header(&header) {
        Ok(Header::Whole(owner, ..)) if expected.is_some_and(|expected| expected != owner) => {
            return Ok(Found::Foreign(owner));
        }
        Ok(Header::Whole(owner, id, formation)) => (owner, id, formation),
        Ok(Header::Newer(version)) => return Ok(Found::Newer(version)),
        Err(Malformed) => return Ok(Found::Damaged("has no readable header")),
    };
    let mut footer = vec![0; place(FOOTER_BYTES)?];
    disk.read_at(name, file_bytes - FOOTER_BYTES, &mut footer)?;
    let parts = Fields(&footer[4..]).u32().unwrap_or(0);
    let lengths_bytes = u64::from(parts) * LENGTH_BYTES;
    let Some(lengths_at) = (file_bytes - FOOTER_BYTES - HEADER_BYTES).checked_sub(lengths_bytes)
    else {
        return Ok(Found::Damaged("has no readable end"));
    };
    let mut lengths = vec![0; place(lengths_bytes)?];
    disk.read_at(name, HEADER_BYTES + lengths_at, &mut lengths)?;
    let mut layout = Layout::new(owner, id);
    Ok(match take_footer(&lengths, &footer, &mut layout) {
        Ok(said) if layout.end() + lengths_bytes + FOOTER_BYTES == file_bytes => {
            let Footer { parts, bytes, digest, state_hash } = said;
            let info = SnapshotInfo { id, formation, parts, bytes, digest, state_hash };
            Found::Snapshot(owner, info, layout)
        }
        Ok(_) => Found::Damaged("is not as long as its parts"),
        Err(Malformed) => Found::Damaged("has no readable end"),
    })
}

/// What a header says.
enum Header {
    Whole(SnapshotOwner, SnapshotId, FormationId),
    Newer(u32),
}

/// What a footer says.
struct Footer {
    parts: u32,
    bytes: u64,
    digest: u64,
    state_hash: u64,
}

fn take_header(header: &[u8]) -> Result<Header, Malformed> {
    let mut fields = Fields(header);
    let (magic, version, sum) = (fields.array()?, fields.u32()?, fields.u32()?);
    if magic != MAGIC || sum != checksum(&header[..12]) {
        return Err(Malformed);
    }
    if version != SNAPSHOT_VERSION {
        return Ok(Header::Newer(version));
    }
    if fields.u32()? != checksum(&header[20..]) {
        return Err(Malformed);
    }
    let replica = take_replica(&mut fields)?;
    let (cluster, directory) = (fields.u64()?, DirectoryId(fields.u64()?));
    let owner = SnapshotOwner { cluster, directory, replica };
    let (formation, at) = (FormationId(fields.u64()?), Watermark(fields.u64()?));
    let incarnation = Incarnation(fields.u64()?);
    let id = SnapshotId { at, replica: take_replica(&mut fields)?, incarnation };
    Ok(Header::Whole(owner, id, formation))
}

fn take_replica(fields: &mut Fields<'_>) -> Result<ReplicaId, Malformed> {
    u8::try_from(fields.u32()?).map(ReplicaId).map_err(|_| Malformed)
}

fn take_footer(lengths: &[u8], footer: &[u8], layout: &mut Layout) -> Result<Footer, Malformed> {
    let mut fields = Fields(footer);
    let (sum, parts, bytes) = (fields.u32()?, fields.u32()?, fields.u64()?);
    let (digest, state_hash, tag) = (fields.u64()?, fields.u64()?, fields.u64()?);
    let is_whole = fields.array()? == MAGIC_END && sum == footer_sum(lengths, footer);
    if !is_whole || tag != layout.tag {
        return Err(Malformed);
    }
    let mut lengths = Fields(lengths);
    for _ in 0..parts {
        layout.add(lengths.u32()?);
    }
    Ok(Footer { parts, bytes, digest, state_hash })
}

/// The checksum of the lengths and of a footer, without the checksum that it begins with.
fn footer_sum(lengths: &[u8], footer: &[u8]) -> u32 {
    checksum(&[lengths, &footer[4..]].concat())
}

/// Writes the checksum of what is behind it into the first four bytes from `start` on.
fn seal(bytes: &mut [u8], start: usize) {
    let sum = checksum(&bytes[start + 4..]);
    bytes[start..start + 4].copy_from_slice(&sum.to_le_bytes());
}

pub(super) fn place(bytes: u64) -> io::Result<usize> {
    usize::try_from(bytes).map_err(|_| ErrorKind::InvalidData.into())
}

impl fmt::Display for SnapshotOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cluster, directory, replica } = self;
        write!(f, "replica {} of cluster {cluster:016x}, directory {:016x}", replica.0, directory.0)
    }
}
