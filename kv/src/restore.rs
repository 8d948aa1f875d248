//! A store is made again from the parts of a frozen one.

use loggos_protocol::{MalformedSnapshot, Slot};

use crate::entry::Version;
use crate::hash::HashedKey;
use crate::store::Store;
use crate::walk::{HEAD_BYTES, length, number};

/// The most entries that room is made for because a part says so: one that another state machine
/// has written may say anything. A store of more grows as it is filled.
const RESERVE_ENTRIES_MAX: usize = 1 << 20;

/// Puts the entries of a part into `store`, as [`Walk::write`](crate::walk::Walk::write) has
/// appended them.
///
/// # Errors
///
/// If they are not such entries, or are in the store already.
pub(crate) fn restore(store: &mut Store, part: &[u8]) -> Result<(), MalformedSnapshot> {
    let (total, mut rest) = part.split_first_chunk().ok_or(MalformedSnapshot)?;
    let total = usize::try_from(u64::from_le_bytes(*total)).unwrap_or(usize::MAX);
    store.reserve(total.min(RESERVE_ENTRIES_MAX));
    while !rest.is_empty() {
        let bytes = length(rest).filter(|bytes| *bytes <= rest.len()).ok_or(MalformedSnapshot)?;
        let (entry, after) = rest.split_at(bytes);
        rest = after;
        let (head, body) = entry.split_at(HEAD_BYTES);
        let (key, value) = body.split_at(number(head, 0) as usize);
        let slot = u64::from(number(head, 8)) | u64::from(number(head, 12)) << 32;
        let version = Version { slot: Slot(slot), index: number(head, 16) };
        let key = HashedKey::new(key);
        let place = store.find(key);
        if store.entry(place).is_some() || version.index >> 31 != 0 {
            return Err(MalformedSnapshot);
        }
        store.set(place, key, value, version);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use loggos_protocol::Rng;

    use super::*;

    fn write(store: &mut Store, rng: &mut Rng, slot: u64) {
        let key = rng.below(300).to_le_bytes();
        let key = HashedKey::new(&key[..usize::try_from(1 + rng.below(8)).unwrap()]);
        let value = vec![7; usize::try_from(rng.below(90)).unwrap()];
        let place = store.find(key);
        if rng.below(3) == 0 {
            store.remove(place, key);
        } else {
            store.set(place, key, &value, Version { slot: Slot(slot), index: 3 });
        }
    }

    /// Writes, removes and growth between any two parts, several snapshots one after the other.
    #[test]
    fn what_is_written_is_the_frozen_store_though_it_changes_meanwhile() {
        for seed in 0..200 {
            let mut rng = Rng::new(seed);
            let mut store = Store::default();
            let mut slot = 0;
            for _ in 0..4 {
                for _ in 0..rng.below(400) {
                    slot += 1;
                    write(&mut store, &mut rng, slot);
                }
                let (digest, len) = (store.digest(), store.len());
                store.freeze();
                let mut restored = Store::default();
                loop {
                    let mut part = Vec::new();
                    let is_more = store.write_frozen(&mut part, 200);
                    assert!(part.len() <= 200, "{} bytes", part.len());
                    restore(&mut restored, &part).unwrap();
                    if !is_more {
                        break;
                    }
                    for _ in 0..rng.below(30) {
                        slot += 1;
                        write(&mut store, &mut rng, slot);
                    }
                }
                assert_eq!((restored.digest(), restored.len()), (digest, len), "seed {seed}");
                restored.validate();
                store.validate();
            }
        }
    }

    #[test]
    fn bytes_that_are_no_entries_are_refused_and_do_not_panic() {
        let mut store = Store::default();
        let mut rng = Rng::new(1);
        (0..20).for_each(|slot| write(&mut store, &mut rng, slot));
        store.freeze();
        let mut part = Vec::new();
        assert!(!store.write_frozen(&mut part, 1 << 20));
        for cut in 0..part.len() {
            let cut_off = restore(&mut Store::default(), &part[..cut]);
            assert!(cut_off.is_err() || cut >= 8, "cut at {cut}");
            let mut damaged = part.clone();
            damaged[cut] ^= 0x40;
            let _any = restore(&mut Store::default(), &damaged);
        }
        assert_eq!(restore(&mut Store::default(), &part[..part.len() - 1]), Err(MalformedSnapshot));
    }
}
