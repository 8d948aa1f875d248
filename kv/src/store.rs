//! The store: an open-addressing hash table, and a digest of what is in it.
//!
//! ```text
//!  buckets   a power of two, of one cache line each
//!  home      the tag's lower bits: where a key is looked for first
//!  insert    into the first empty bucket from home on
//!  find      from home on, up to the key or an empty bucket
//!  remove    moves later entries of the chain back into the gap, so that no tombstone is left
//!  full      at three quarters: twice the buckets
//! ```
//!
//! Linear probing reads consecutive lines, which is what processors fetch ahead by themselves.
//! Beyond three quarters chains would grow long, and each step is a whole line. Where an entry lies
//! depends on the history of its table, so nothing that leaves this module may: there is no
//! iteration, and the digest is a sum.

use crate::advice::{on_huge_pages, prefetch};
use crate::entry::{Entry, Version, digest, tag};
use crate::hash::HashedKey;
use crate::walk::Walk;

const BUCKETS_MIN: usize = 8;

/// Keys with their values and versions.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    /// As many as a power of two, never fewer than before, a quarter of them empty.
    buckets: Box<[Entry]>,
    /// Buckets that are not empty.
    len: usize,
    /// The sum of the entries' digests, modulo 2^64.
    digest: u64,
    /// The walk over the entries of a frozen store.
    walk: Walk,
}

/// The place where a key is, or would be. Valid until the next change.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum KeyPlace {
    /// The bucket that has it.
    Found(usize),
    /// The empty bucket where the search for it ended.
    Vacant(usize),
}

impl Store {
    /// Returns an empty store that holds `entries` before it grows.
    pub(crate) fn with_capacity(entries: usize) -> Self {
        let mut buckets = BUCKETS_MIN;
        while entries_max(buckets) < entries {
            buckets *= 2;
        }
        Self { buckets: empty(buckets), len: 0, digest: 0, walk: Walk::default() }
    }

    /// Returns the number of entries.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// The digest of all entries, independent of the order in which they were put.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }

    /// Starts to load the line where the search for `key` will begin.
    #[inline]
    pub(crate) fn prefetch(&self, key: HashedKey<'_>) {
        prefetch(&self.buckets[self.home(tag(key.hash))]);
    }

    /// Starts to load what the entry of a key of this hash has outside of its line, provided it is
    /// at home, as most are. To be called when that line has come, some time after
    /// [`prefetch`](Self::prefetch).
    #[inline]
    pub(crate) fn prefetch_behind(&self, key_hash: u64) {
        self.buckets[self.home(tag(key_hash))].prefetch_behind();
    }

    /// Looks for `key`.
    #[inline]
    pub(crate) fn find(&self, key: HashedKey<'_>) -> KeyPlace {
        let mut at = self.home(tag(key.hash));
        // Ends, because a quarter of the buckets is empty.
        loop {
            let entry = &self.buckets[at];
            if entry.is_of(key) {
                return KeyPlace::Found(at);
            }
            if entry.is_empty() {
                return KeyPlace::Vacant(at);
            }
            at = self.after(at);
        }
    }

    /// The entry at `place`, if one was found there.
    #[inline]
    pub(crate) fn entry(&self, place: KeyPlace) -> Option<&Entry> {
        match place {
            KeyPlace::Found(at) => Some(&self.buckets[at]),
            KeyPlace::Vacant(_) => None,
        }
    }

    /// Gives `key`, which was looked for and is or would be at `place`, a value. Always inlined: a
    /// put is this and little else.
    #[inline(always)]
    pub(crate) fn set(
        &mut self,
        place: KeyPlace,
        key: HashedKey<'_>,
        value: &[u8],
        version: Version,
    ) {
        // From the arguments, not from the entry: reading back what was just written would wait for
        // it.
        self.digest = self.digest.wrapping_add(digest(key.hash, value, version));
        match place {
            KeyPlace::Found(at) => {
                let entry = &mut self.buckets[at];
                self.digest = self.digest.wrapping_sub(entry.digest(key.hash));
                self.walk.before_change(entry);
                entry.overwrite(value, version);
                entry.set_mark(self.walk.mark());
            }
            KeyPlace::Vacant(at) => self.insert(at, key, value, version),
        }
    }

    /// Forgets `key`, which was looked for and is or would be at `place`; returns whether it was
    /// there.
    pub(crate) fn remove(&mut self, place: KeyPlace, key: HashedKey<'_>) -> bool {
        let KeyPlace::Found(at) = place else {
            return false;
        };
        assert!(self.buckets[at].is_of(key), "the place of another key was to be emptied");
        self.digest = self.digest.wrapping_sub(self.buckets[at].digest(key.hash));
        self.walk.before_change(&self.buckets[at]);
        self.len -= 1;
        self.close_gap(at);
        true
    }

    /// Freezes the entries as they are, for [`write_frozen`](Self::write_frozen).
    pub(crate) fn freeze(&mut self) {
        self.walk.begin(self.len);
    }

    /// Appends frozen entries to `part`, until that has about `bytes_max` bytes; returns whether
    /// there are more.
    pub(crate) fn write_frozen(&mut self, part: &mut Vec<u8>, bytes_max: usize) -> bool {
        self.walk.write(&mut self.buckets, part, bytes_max)
    }

    /// Makes room for `entries` in an empty store.
    pub(crate) fn reserve(&mut self, entries: usize) {
        if self.len == 0 && entries_max(self.buckets.len()) < entries {
            *self = Self::with_capacity(entries);
        }
    }

    /// Fills an empty bucket. Never inlined, so that overwriting, which is more common, stays
    /// short.
    #[inline(never)]
    fn insert(&mut self, vacant: usize, key: HashedKey<'_>, value: &[u8], version: Version) {
        let mut entry = Entry::new(key, value, version);
        entry.set_mark(self.walk.mark());
        let mut at = vacant;
        if self.len == entries_max(self.buckets.len()) {
            self.grow();
            at = self.vacancy(entry.tag());
        }
        assert!(self.buckets[at].is_empty(), "a new key was to replace another");
        self.len += 1;
        self.buckets[at] = entry;
    }

    #[cold]
    fn grow(&mut self) {
        let twice = empty(self.buckets.len() * 2);
        for entry in std::mem::replace(&mut self.buckets, twice) {
            if !entry.is_empty() {
                let at = self.vacancy(entry.tag());
                self.buckets[at] = entry;
            }
        }
    }

    /// Empties a bucket, and moves back what others would no longer be found past it.
    fn close_gap(&mut self, at: usize) {
        let (mut gap, mut next) = (at, self.after(at));
        while !self.buckets[next].is_empty() {
            let home = self.home(self.buckets[next].tag());
            // An entry may not move to before its home.
            if self.distance(home, next) >= self.distance(gap, next) {
                self.buckets.swap(gap, next);
                gap = next;
            }
            next = self.after(next);
        }
        self.buckets[gap] = Entry::EMPTY;
    }

    /// The first empty bucket from the home of `tag` on.
    fn vacancy(&self, tag: u32) -> usize {
        let mut at = self.home(tag);
        while !self.buckets[at].is_empty() {
            at = self.after(at);
        }
        at
    }

    #[inline]
    fn home(&self, tag: u32) -> usize {
        tag as usize & (self.buckets.len() - 1)
    }

    #[inline]
    fn after(&self, at: usize) -> usize {
        (at + 1) & (self.buckets.len() - 1)
    }

    /// Steps from one bucket to another, around the end where need be.
    fn distance(&self, from: usize, to: usize) -> usize {
        to.wrapping_sub(from) & (self.buckets.len() - 1)
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::with_capacity(0)
    }
}

/// Returns the number of entries that `buckets` buckets hold.
fn entries_max(buckets: usize) -> usize {
    buckets / 4 * 3
}

fn empty(buckets: usize) -> Box<[Entry]> {
    assert!(buckets.is_power_of_two(), "{buckets} buckets");
    // A tag has 32 bits; more buckets than it tells apart would never be anyone's home.
    assert!(buckets as u64 <= 1 << 32, "{buckets} buckets are more than a tag can choose from");
    let mut empty = Vec::with_capacity(buckets);
    on_huge_pages(empty.spare_capacity_mut());
    empty.resize(buckets, Entry::EMPTY);
    empty.into()
}

#[cfg(test)]
mod tests {
    use loggos_protocol::{Rng, Slot};

    use super::*;

    impl Store {
        /// Checks the whole table; recomputes what is otherwise kept up.
        pub(crate) fn validate(&self) {
            let (mut len, mut digest) = (0, 0u64);
            for (at, entry) in self.buckets.iter().enumerate().filter(|(_, e)| !e.is_empty()) {
                let key = HashedKey::new(entry.key());
                assert_eq!(entry.tag(), tag(key.hash), "bucket {at}: the tag is not the key's");
                assert_eq!(self.find(key), KeyPlace::Found(at), "bucket {at}: not found");
                len += 1;
                digest = digest.wrapping_add(entry.digest(key.hash));
            }
            assert_eq!(self.len, len, "the count is off");
            assert!(len <= entries_max(self.buckets.len()), "overfull");
            assert_eq!(self.digest, digest, "the digest kept is not the digest of the entries");
        }
    }

    fn version(slot: u64) -> Version {
        Version { slot: Slot(slot), index: 0 }
    }

    /// Keys whose home is `home` in a table of `buckets`, so many that they collide.
    fn keys_at(home: usize, buckets: usize, count: usize) -> Vec<[u8; 8]> {
        let keys = (0u64..).map(u64::to_le_bytes);
        let at_home =
            |key: &[u8; 8]| tag(HashedKey::new(key).hash) as usize & (buckets - 1) == home;
        keys.filter(at_home).take(count).collect()
    }

    #[test]
    fn a_chain_around_the_end_stays_whole_when_any_entry_is_removed() {
        for removed in 0..6 {
            let mut store = Store::default();
            let last = BUCKETS_MIN - 1;
            let keys = [keys_at(last, BUCKETS_MIN, 3), keys_at(0, BUCKETS_MIN, 3)].concat();
            for (key, slot) in keys.iter().zip(0..) {
                let key = HashedKey::new(key);
                store.set(store.find(key), key, b"value", version(slot));
            }
            assert_eq!((store.buckets.len(), store.len()), (BUCKETS_MIN, 6));
            let gone = HashedKey::new(&keys[removed]);
            assert!(store.remove(store.find(gone), gone));
            assert!(!store.remove(store.find(gone), gone));
            assert_eq!(store.len(), 5);
            store.validate();
        }
    }

    #[test]
    fn a_store_with_room_for_so_many_does_not_grow_before() {
        for entries in [0, 6, 7, 48, 49, 1000] {
            let mut store = Store::with_capacity(entries);
            let buckets = store.buckets.len();
            for number in 0..entries as u64 {
                let key = number.to_le_bytes();
                let key = HashedKey::new(&key);
                store.set(store.find(key), key, b"", version(number));
            }
            assert_eq!((store.buckets.len(), store.len()), (buckets, entries));
            store.validate();
        }
    }

    #[test]
    fn overwriting_in_a_full_table_does_not_grow_it() {
        let mut store = Store::default();
        for slot in 0..60 {
            let key = HashedKey::new(&[b'a', b'b', b'c', b'd', b'e', b'f'][slot % 6..][..1]);
            store.set(store.find(key), key, b"value", version(slot as u64));
        }
        assert_eq!((store.buckets.len(), store.len()), (BUCKETS_MIN, 6));
    }

    #[test]
    fn the_digest_does_not_depend_on_how_the_table_came_to_be() {
        let mut rng = Rng::new(5);
        let mut keys: Vec<_> = (0u64..500).map(u64::to_le_bytes).collect();
        let digests = [0, 500, 5000].map(|capacity| {
            let mut store = Store::with_capacity(capacity);
            for at in (1..keys.len()).rev() {
                keys.swap(at, usize::try_from(rng.below(at as u64 + 1)).unwrap());
            }
            for key in &keys {
                let key = HashedKey::new(key);
                store.set(store.find(key), key, b"value", version(u64::from(key.bytes[0])));
            }
            store.validate();
            store.digest()
        });
        assert!(digests[0] == digests[1] && digests[1] == digests[2], "{digests:x?}");
    }

    #[test]
    fn an_emptied_store_has_the_digest_of_a_new_one() {
        let mut store = Store::default();
        for number in 0u64..100 {
            let key = number.to_le_bytes();
            let key = HashedKey::new(&key);
            store.set(store.find(key), key, &[1; 100], version(number));
        }
        for number in 0u64..100 {
            let key = number.to_le_bytes();
            let key = HashedKey::new(&key);
            assert!(store.remove(store.find(key), key));
        }
        assert_eq!((store.len(), store.digest()), (0, Store::default().digest()));
        store.validate();
    }
}
