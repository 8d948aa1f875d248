//! The first 16 bytes of every frame.
//!
//! ```text
//!   0          4          8      9      10         12             16
//!   │ checksum │  length  │ vers │ kind │ spare: 0 │ header bytes │ header … │ payloads …
//!              └──────────────── what the checksum covers ───────────────────┘
//! ```
//!
//! All numbers are little-endian; the length is that of the whole frame. The checksum comes first,
//! so that what it covers lies in one piece. **This layout is the same in every version**: a
//! process that speaks another one can be told so.

use super::{Kind, WireError};

/// The length of a frame's head.
pub const HEAD_BYTES: usize = 16;

/// The version of everything behind the head that this code speaks.
pub const WIRE_VERSION: u8 = 1;

/// A head whose numbers add up; its checksum is looked at when the header has arrived.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Head {
    pub(super) kind: Kind,
    pub(super) version: u8,
    /// Of the whole frame.
    pub(super) length: usize,
    /// The offset where the header ends and payloads begin.
    pub(super) header_end: usize,
    checksum: u32,
}

impl Head {
    /// Reads a head, of a frame that is to be no longer than `frame_bytes_max`.
    #[inline]
    pub(super) fn read(bytes: &[u8; HEAD_BYTES], frame_bytes_max: u32) -> Result<Self, WireError> {
        let [c0, c1, c2, c3, l0, l1, l2, l3, version, kind, s0, s1, h0, h1, h2, h3] = *bytes;
        let length = u32::from_le_bytes([l0, l1, l2, l3]);
        let header_bytes = u32::from_le_bytes([h0, h1, h2, h3]);
        if length > frame_bytes_max {
            return Err(WireError::TooLong { length, max: frame_bytes_max });
        }
        // Kinds of another version may mean anything; only those of the handshake are the same in
        // all.
        let kind = Kind::from_number(kind)
            .filter(|kind| version == WIRE_VERSION || matches!(kind, Kind::Hello | Kind::Refusal));
        let kind = match kind {
            Some(kind) => kind,
            None if version != WIRE_VERSION => return Err(WireError::Version { version }),
            None => return Err(WireError::Kind { kind: bytes[9] }),
        };
        let spare = u16::from_le_bytes([s0, s1]);
        if spare != 0 {
            return Err(WireError::Spare { spare });
        }
        let header_end = HEAD_BYTES as u64 + u64::from(header_bytes);
        if header_end > u64::from(length) {
            return Err(WireError::TooShort { length, header_bytes });
        }
        let [length, header_end] = [u64::from(length), header_end]
            .map(|bytes| usize::try_from(bytes).expect("a u32 fits"));
        let checksum = u32::from_le_bytes([c0, c1, c2, c3]);
        Ok(Self { kind, version, length, header_end, checksum })
    }

    /// Checks head and header of the frame that `bytes` begin with.
    #[inline]
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), WireError> {
        let is = checksum(&bytes[4..self.header_end]);
        if is == self.checksum {
            Ok(())
        } else {
            Err(WireError::HeaderChecksum { said: self.checksum, is })
        }
    }
}

/// Fills in the head of the frame that `bytes` begin with: payloads by reference are not among
/// them.
#[inline]
pub(super) fn fill(bytes: &mut [u8], kind: Kind, length: usize, header_bytes: usize) {
    let number = |bytes: usize| u32::try_from(bytes).expect("a frame is shorter than 4 GiB");
    bytes[4..8].copy_from_slice(&number(length).to_le_bytes());
    bytes[8..12].copy_from_slice(&[WIRE_VERSION, kind.number(), 0, 0]);
    bytes[12..16].copy_from_slice(&number(header_bytes).to_le_bytes());
    let checksum = checksum(&bytes[4..HEAD_BYTES + header_bytes]);
    bytes[0..4].copy_from_slice(&checksum.to_le_bytes());
}

/// CRC32C.
#[inline]
pub(super) fn checksum(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
