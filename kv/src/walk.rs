//! The walk: writes all entries as they were when the store was frozen, while commands change them.
//!
//! ```text
//!  mark     one bit of each entry; between two walks it is the same in all entries
//!  begin    the meaning of the bit turns: no entry is marked, `left` counts them all
//!  write    goes over the buckets; writes each unmarked entry and marks it
//!  change   an unmarked entry is set aside as it is, before it is overwritten or removed; the new one is marked
//!  insert   marked: the entry is younger than the frozen state
//!  end      no entry is left: all are marked again
//! ```
//!
//! So each frozen entry is written once, as it was, and no other is: the bit stays with an entry
//! wherever its table moves it, when it closes a gap or grows. An entry that moves to a bucket
//! behind the walk is found in another round. A change costs one comparison, and a copy only for
//! the first change of an entry that the walk has not come to. What is set aside is at most the
//! frozen state once more.

use crate::entry::Entry;

/// The length of what stands before an entry's key and value: their lengths, slot, index.
pub(crate) const HEAD_BYTES: usize = 4 + 4 + 8 + 4;

/// The progress of writing a frozen store.
#[derive(Clone, Debug, Default)]
pub(crate) struct Walk {
    /// The mark of an entry that is written, or younger than the frozen state.
    mark: bool,
    /// Frozen entries that are neither written nor set aside.
    left: usize,
    /// Frozen entries in all, so that the reader can make room for them.
    total: usize,
    /// The bucket that is looked at next.
    next: usize,
    /// Entries that were changed before the walk came to them, in the form in which they are
    /// written.
    aside: Vec<u8>,
    /// The number of bytes of `aside` that are written.
    aside_read: usize,
}

impl Walk {
    /// The mark for an entry that is not to be written.
    #[inline]
    pub(crate) fn mark(&self) -> bool {
        self.mark
    }

    /// Begins to write a store of `entries` entries.
    pub(crate) fn begin(&mut self, entries: usize) {
        assert!(self.left == 0 && self.aside.is_empty(), "frozen again before all was written");
        self.mark = !self.mark;
        (self.left, self.total, self.next) = (entries, entries, 0);
    }

    /// Sets an entry aside that is about to change, if it has yet to be written as it is.
    #[inline]
    pub(crate) fn before_change(&mut self, entry: &Entry) {
        if entry.mark() != self.mark {
            self.set_aside(entry);
        }
    }

    #[cold]
    fn set_aside(&mut self, entry: &Entry) {
        self.left = self.left.checked_sub(1).expect("an unmarked entry is one of those left");
        put(entry, &mut self.aside);
    }

    /// Appends entries to `part` for as long as it stays within `bytes_max` bytes, but at least one
    /// if that is longer; returns whether there are more.
    pub(crate) fn write(
        &mut self,
        buckets: &mut [Entry],
        part: &mut Vec<u8>,
        bytes_max: usize,
    ) -> bool {
        part.extend((self.total as u64).to_le_bytes());
        let start = part.len();
        let is_full = |part: &Vec<u8>, bytes| part.len() > start && part.len() + bytes > bytes_max;
        while self.aside_read < self.aside.len() {
            let entry = &self.aside[self.aside_read..];
            let bytes = length(entry).expect("entries are set aside whole");
            if is_full(part, bytes) {
                return true;
            }
            part.extend(&entry[..bytes]);
            self.aside_read += bytes;
        }
        if self.aside_read == self.aside.len() {
            self.aside = Vec::new(); // returns the memory
            self.aside_read = 0;
        }
        // A bucket with nothing to write costs a cache line, too: their number is bounded as well.
        let buckets_max = bytes_max / HEAD_BYTES + 1;
        for _ in 0..buckets_max {
            if self.left == 0 {
                break;
            }
            if self.next >= buckets.len() {
                self.next = 0;
            }
            let entry = &mut buckets[self.next];
            if !entry.is_empty() && entry.mark() != self.mark {
                if is_full(part, HEAD_BYTES + entry.key().len() + entry.value().len()) {
                    return true;
                }
                put(entry, part);
                entry.set_mark(self.mark);
                self.left -= 1;
            }
            self.next += 1;
        }
        self.left > 0 || !self.aside.is_empty()
    }
}

fn put(entry: &Entry, to: &mut Vec<u8>) {
    let (key, value, version) = (entry.key(), entry.value(), entry.version());
    let short = |bytes: &[u8]| {
        u32::try_from(bytes.len()).expect("keys and values are shorter than a command")
    };
    to.extend(short(key).to_le_bytes());
    to.extend(short(value).to_le_bytes());
    to.extend(version.slot.0.to_le_bytes());
    to.extend(version.index.to_le_bytes());
    to.extend(key);
    to.extend(value);
}

/// The length of the first entry of `bytes`, if its head is there.
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let head = bytes.get(..HEAD_BYTES)?;
    (number(head, 0) as usize).checked_add(number(head, 4) as usize)?.checked_add(HEAD_BYTES)
}

/// The little-endian number at `at`; 0 if it is not there.
pub(crate) fn number(bytes: &[u8], at: usize) -> u32 {
    bytes[at..].first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes))
}
