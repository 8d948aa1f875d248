//! One bucket of the store: empty, or a key with its value and version.
//!
//! ```text
//!  ┌────────┬──────────┬───────────┬─ body ──────────────────────────────────────────┐
//!  │ tag u32│ index u32│ slot u64  │ inline │ lengths 2 × u8 │ key, value: 45 bytes    │
//!  │        │          │           │ boxed  │ key_len u32    │ key, value: Box<[u8]>   │
//!  └────────┴──────────┴───────────┴─────────────────────────────────────────────────┘
//! ```
//!
//! An entry is a cache line and starts where one starts, so a short key is found, compared and
//! overwritten with one line loaded.

use std::fmt;

use loggos_protocol::{At, Slot};

use crate::advice::prefetch;
use crate::hash::{HashedKey, are_equal, hash, mix};

/// Key and value of at most this many bytes together lie in the entry, longer ones behind it.
pub(crate) const INLINE_BYTES_MAX: usize = 45;

/// The place in the log of the write that gave a key its value.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Version {
    /// The slot of the write.
    pub slot: Slot,
    /// Its place among the slot's commands.
    pub index: u32,
}

/// Lines of a long key and value that are prefetched: from there on the processor sees by itself
/// what comes next.
const LINES_PREFETCHED: usize = 4;

/// A bucket.
#[derive(Clone, Debug)]
#[repr(align(64))]
pub(crate) struct Entry {
    /// The upper half of the key's hash: decides the bucket, and spares comparing most other keys.
    tag: u32,
    /// With `slot`, the version; apart, because together they would be padded by four bytes. The
    /// top bit is the walk's: see [`Entry::mark`].
    index: u32,
    slot: Slot,
    body: Body,
}

#[derive(Clone, Debug)]
enum Body {
    Empty,
    Inline {
        key_len: u8,
        value_len: u8,
        bytes: [u8; INLINE_BYTES_MAX],
    },
    /// One behind the other, so that both cost one miss of the processor's caches and one of its
    /// address translations.
    Boxed {
        key_len: u32,
        bytes: Box<[u8]>,
    },
}

/// The bit of `index` that is the walk's. No batch has so many commands that its index needs the
/// bit.
const MARK: u32 = 1 << 31;

impl Entry {
    pub(crate) const EMPTY: Self = Self { tag: 0, index: 0, slot: Slot(0), body: Body::Empty };

    /// Returns an entry that holds copies of `key` and `value`.
    pub(crate) fn new(key: HashedKey<'_>, value: &[u8], version: Version) -> Self {
        let Version { slot, index } = version;
        assert!(index < MARK, "a batch has fewer commands");
        Self { tag: tag(key.hash), index, slot, body: Body::new(key.bytes, value) }
    }

    /// The walk's mark: see `walk`.
    #[inline]
    pub(crate) fn mark(&self) -> bool {
        self.index & MARK != 0
    }

    /// Sets the mark.
    #[inline]
    pub(crate) fn set_mark(&mut self, mark: bool) {
        self.index = self.index & !MARK | if mark { MARK } else { 0 };
    }

    /// Whether this is a bucket without a key.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        matches!(self.body, Body::Empty)
    }

    /// Whether this is the entry of `key`.
    #[inline]
    pub(crate) fn is_of(&self, key: HashedKey<'_>) -> bool {
        self.tag == tag(key.hash) && !self.is_empty() && are_equal(self.key(), key.bytes)
    }

    /// The upper half of the key's hash.
    #[inline]
    pub(crate) fn tag(&self) -> u32 {
        self.tag
    }

    /// The key; of an empty bucket, no bytes.
    #[inline]
    pub(crate) fn key(&self) -> &[u8] {
        match &self.body {
            Body::Empty => &[],
            Body::Inline { key_len, bytes, .. } => &bytes[..usize::from(*key_len)],
            Body::Boxed { key_len, bytes } => &bytes[..*key_len as usize],
        }
    }

    /// The value; of an empty bucket, no bytes.
    #[inline]
    pub(crate) fn value(&self) -> &[u8] {
        match &self.body {
            Body::Empty => &[],
            Body::Inline { key_len, value_len, bytes } => {
                let start = usize::from(*key_len);
                &bytes[start..start + usize::from(*value_len)]
            }
            Body::Boxed { key_len, bytes } => &bytes[*key_len as usize..],
        }
    }

    /// Returns the position in the log of the write.
    #[inline]
    pub(crate) fn version(&self) -> Version {
        Version { slot: self.slot, index: self.index & !MARK }
    }

    /// Starts to load the beginning of what is not in the entry itself.
    #[inline]
    pub(crate) fn prefetch_behind(&self) {
        if let Body::Boxed { bytes, .. } = &self.body {
            let lines = bytes.chunks(size_of::<Self>());
            lines.take(LINES_PREFETCHED).for_each(|line| prefetch(&line[0]));
        }
    }

    /// Gives the key another value, without the mark.
    ///
    /// Allocates only for a value that is not inline and not as long as the one before.
    #[inline]
    pub(crate) fn overwrite(&mut self, value: &[u8], version: Version) {
        self.slot = version.slot;
        self.index = version.index;
        self.body.overwrite(value);
    }

    /// Returns what the entry, whose key's hash is `key_hash`, adds to the digest of the whole
    /// store.
    #[inline]
    pub(crate) fn digest(&self, key_hash: u64) -> u64 {
        digest(key_hash, self.value(), self.version())
    }
}

/// Returns what an entry of this value and version adds to the digest of the whole store.
#[inline]
pub(crate) fn digest(key_hash: u64, value: &[u8], version: Version) -> u64 {
    hash(mix(key_hash ^ version.slot.0, version.index.into()), value)
}

impl Body {
    fn new(key: &[u8], value: &[u8]) -> Self {
        let Some((key_len, value_len)) = inline_lengths(key.len(), value.len()) else {
            let key_len = u32::try_from(key.len()).expect("a key has at most KEY_BYTES_MAX bytes");
            return Self::Boxed { key_len, bytes: [key, value].concat().into() };
        };
        let mut bytes = [0; INLINE_BYTES_MAX];
        bytes[..key.len()].copy_from_slice(key);
        bytes[key.len()..key.len() + value.len()].copy_from_slice(value);
        Self::Inline { key_len, value_len, bytes }
    }

    #[inline]
    fn overwrite(&mut self, new: &[u8]) {
        if let Self::Inline { key_len, value_len, bytes } = self {
            let start = usize::from(*key_len);
            if let Some((_, new_len)) = inline_lengths(start, new.len()) {
                *value_len = new_len;
                copy(&mut bytes[start..start + new.len()], new);
                return;
            }
        }
        self.overwrite_boxed(new);
    }

    /// Overwrites what was boxed or will be.
    #[inline(never)]
    fn overwrite_boxed(&mut self, new: &[u8]) {
        match self {
            Self::Empty => panic!("an entry without a key was given a value"),
            Self::Inline { key_len, bytes, .. } => {
                let key = *bytes;
                *self = Self::new(&key[..usize::from(*key_len)], new);
            }
            Self::Boxed { key_len, bytes } => {
                let (key, value) = bytes.split_at_mut(*key_len as usize);
                if value.len() == new.len() {
                    value.copy_from_slice(new);
                } else {
                    *self = Self::new(key, new);
                }
            }
        }
    }
}

/// Copies `from`, which is as long as `to`: two words that overlap where they can, which most
/// values are, because the library's copy is a call.
#[inline]
fn copy(to: &mut [u8], from: &[u8]) {
    if from.len() <= 16
        && let (Some(first), Some(last)) = (from.first_chunk::<8>(), from.last_chunk::<8>())
    {
        if let Some(to) = to.first_chunk_mut() {
            *to = *first;
        }
        if let Some(to) = to.last_chunk_mut() {
            *to = *last;
        }
    } else {
        to.copy_from_slice(from);
    }
}

/// The upper half of the key's hash.
#[inline]
pub(crate) fn tag(key_hash: u64) -> u32 {
    u32::try_from(key_hash >> 32).unwrap_or_default()
}

/// The lengths as an entry keeps them, where both fit into one.
#[inline]
fn inline_lengths(key: usize, value: usize) -> Option<(u8, u8)> {
    // Neither sum nor casts can overflow: no slice is longer than half the address space.
    if key + value > INLINE_BYTES_MAX {
        return None;
    }
    Some((u8::try_from(key).ok()?, u8::try_from(value).ok()?))
}

impl From<At> for Version {
    fn from(at: At) -> Self {
        Self { slot: at.slot, index: at.index }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.slot, self.index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSION: Version = Version { slot: Slot(3), index: 4 };

    fn is_inline(entry: &Entry) -> bool {
        matches!(entry.body, Body::Inline { .. })
    }

    #[test]
    fn an_entry_is_one_cache_line() {
        assert_eq!((size_of::<Entry>(), align_of::<Entry>()), (64, 64));
    }

    #[test]
    fn an_overwritten_entry_is_what_a_new_one_would_be() {
        let lens = [0, 1, 7, 8, 9, 15, 16, 17, 35, 36, 44, 45, 46, 300];
        for key_len in [1, 10, 44, 45, 46, 200] {
            let key = vec![1; key_len];
            let key = HashedKey::new(&key);
            for before in lens {
                for after in lens {
                    let value: Vec<u8> = (0..=255).cycle().take(after).collect();
                    let mut entry = Entry::new(key, &vec![3; before], Version::default());
                    entry.overwrite(&value, VERSION);
                    let new = Entry::new(key, &value, VERSION);
                    for entry in [&entry, &new] {
                        assert!(entry.is_of(key) && !entry.is_empty());
                        assert_eq!((entry.key(), entry.value()), (key.bytes, &value[..]));
                        assert_eq!(entry.version(), VERSION);
                        assert_eq!(is_inline(entry), key_len + after <= INLINE_BYTES_MAX);
                    }
                    assert_eq!(entry.digest(key.hash), new.digest(key.hash));
                }
            }
        }
    }

    #[test]
    fn a_long_value_of_unchanged_length_is_overwritten_in_place() {
        let key = HashedKey::new(b"key");
        let mut entry = Entry::new(key, &[1; 300], VERSION);
        let before = entry.value().as_ptr();
        entry.overwrite(&[2; 300], VERSION);
        assert_eq!((entry.value().as_ptr(), entry.value()), (before, &[2; 300][..]));
    }

    #[test]
    fn an_empty_bucket_is_of_no_key() {
        let key = HashedKey { bytes: b"", hash: 0 };
        assert!(Entry::EMPTY.is_empty() && !Entry::EMPTY.is_of(key));
        assert!(Entry::EMPTY.key().is_empty() && Entry::EMPTY.value().is_empty());
    }

    #[test]
    fn key_value_slot_and_index_each_change_the_digest() {
        let digest = |key: &[u8], value: &[u8], slot, index| {
            let key = HashedKey::new(key);
            Entry::new(key, value, Version { slot: Slot(slot), index }).digest(key.hash)
        };
        let digests = [
            digest(b"k", b"v", 1, 2),
            digest(b"kv", b"", 1, 2),
            digest(b"l", b"v", 1, 2),
            digest(b"k", b"w", 1, 2),
            digest(b"k", b"v", 2, 2),
            digest(b"k", b"v", 1, 1),
            digest(b"k", b"v", 2, 1),
        ];
        let distinct = std::collections::BTreeSet::from(digests);
        assert_eq!(distinct.len(), digests.len());
    }
}
