//! Opaque bytes that are carried by reference.
//!
//! What is small lies inside whatever holds it, a batch or an answer, and needs no memory of its
//! own; what is not is reference-counted and never copied.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;

use bytes::Bytes;

/// The longest payload that lies inside its holder. One put of 16-byte key and value, alone in
/// its batch, is 77 bytes.
pub const INLINE_BYTES_MAX: usize = 94;

/// Bytes that are cheap to clone; equal when their contents are.
#[derive(Clone)]
pub struct Payload(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, bytes: [u8; INLINE_BYTES_MAX] },
    Shared(Bytes),
}

impl Payload {
    /// Returns a payload of no bytes.
    #[must_use]
    pub fn empty() -> Self {
        Self(Repr::Inline { len: 0, bytes: [0; INLINE_BYTES_MAX] })
    }

    /// Copies `bytes` in if they are short enough, else returns `None`.
    #[must_use]
    pub fn inline(bytes: &[u8]) -> Option<Self> {
        if bytes.len() > INLINE_BYTES_MAX {
            return None;
        }
        let mut inline = [0; INLINE_BYTES_MAX];
        inline[..bytes.len()].copy_from_slice(bytes);
        Some(Self(Repr::Inline { len: u8::try_from(bytes.len()).ok()?, bytes: inline }))
    }

    /// Returns a payload that holds a copy of `bytes`.
    #[must_use]
    pub fn copy(bytes: &[u8]) -> Self {
        Self::inline(bytes).unwrap_or_else(|| Self(Repr::Shared(Bytes::copy_from_slice(bytes))))
    }

    /// A part of it, referenced or, if short, copied.
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Self {
        match &self.0 {
            Repr::Inline { .. } => {
                Self::inline(&self.as_slice()[range]).unwrap_or_else(Self::empty)
            }
            Repr::Shared(bytes) => Self::from(bytes.slice(range)),
        }
    }

    /// The bytes.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, bytes } => &bytes[..usize::from(*len)],
            Repr::Shared(bytes) => bytes,
        }
    }

    /// The bytes by reference, unless they are short enough to lie inside.
    #[must_use]
    pub fn shared(&self) -> Option<&Bytes> {
        match &self.0 {
            Repr::Inline { .. } => None,
            Repr::Shared(bytes) => Some(bytes),
        }
    }

    /// The CRC32C of the bytes.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        crc_fast::crc32_iscsi(self.as_slice())
    }

    /// The number of bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

impl From<Bytes> for Payload {
    /// References `bytes`, or copies them in if they are short.
    fn from(bytes: Bytes) -> Self {
        Self::inline(&bytes).unwrap_or(Self(Repr::Shared(bytes)))
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Payload {}

impl Hash for Payload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_slice().hash(state);
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_long_payloads_are_shared() {
        for len in [0, 1, INLINE_BYTES_MAX, INLINE_BYTES_MAX + 1, 4096] {
            let bytes = Bytes::from(vec![7; len]);
            let payload = Payload::from(bytes.clone());
            let shares = payload.as_slice().as_ptr() == bytes.as_ptr();
            assert_eq!(shares, len > INLINE_BYTES_MAX, "{len} bytes");
            assert_eq!(payload.shared().is_some(), shares, "{len} bytes");
            assert_eq!(payload.as_slice(), &bytes[..]);
            assert_eq!(payload.clone(), payload);
            assert_ne!(payload, Payload::copy(&[8; 4096][..len.max(1)]));
        }
    }

    #[test]
    fn a_part_of_a_payload_is_that_part_of_its_bytes() {
        for len in [INLINE_BYTES_MAX, 4096] {
            let bytes: Vec<u8> = (0..=250).cycle().take(len).collect();
            let payload = Payload::from(Bytes::from(bytes.clone()));
            for range in [0..0, 3..40, 1..len] {
                assert_eq!(payload.slice(range.clone()).as_slice(), &bytes[range]);
            }
        }
    }

    #[test]
    fn a_payload_is_no_larger_than_its_inline_bytes_and_a_tag() {
        assert_eq!(size_of::<Payload>(), 96);
    }
}
