//! Memory that is handed out by count and used again, so that a steady state allocates nothing.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

/// Hands out values by count, and uses the memory of each again once it is held no more.
///
/// ```text
///   oldest ◀── [free] [held] [free] [held] ◀── newest      a clone of each value handed out
///                │
///                └── taken, overwritten, handed out, newest again
/// ```
///
/// Roles let go of values roughly in the order in which they got them, so only the oldest is looked
/// at. It grows to as many as are held at once, and no further than its capacity: the oldest is
/// given up then, and its last holder frees it.
#[derive(Clone, Debug)]
pub struct Pool<T> {
    /// Oldest first.
    ring: VecDeque<Arc<T>>,
    capacity: usize,
    allocated: u64,
}

impl<T> Pool<T> {
    /// Returns a pool that remembers up to `capacity` values: as many as those that are fed from it
    /// hold at once, or it will allocate.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a pool of nothing");
        Self { ring: VecDeque::new(), capacity, allocated: 0 }
    }

    /// Returns `value` by count.
    pub fn hand_out(&mut self, value: T) -> Arc<T> {
        let handed_out = match self.ring.front_mut().map(Arc::get_mut) {
            Some(Some(oldest)) => {
                *oldest = value;
                self.ring.pop_front().expect("it was just there")
            }
            Some(None) | None => self.allocate(value),
        };
        self.ring.push_back(Arc::clone(&handed_out));
        handed_out
    }

    /// Returns by count what `fill` makes of a value that is held no more, or of a new one.
    pub(crate) fn hand_out_filled(&mut self, fill: impl FnOnce(&mut T)) -> Arc<T>
    where
        T: Default,
    {
        let oldest = self.ring.pop_front_if(|oldest| Arc::get_mut(oldest).is_some());
        let mut filled = oldest.unwrap_or_else(|| self.allocate(T::default()));
        fill(Arc::get_mut(&mut filled).expect("it is held no more"));
        self.ring.push_back(Arc::clone(&filled));
        filled
    }

    /// Returns `value` by count, which holds so many bytes besides. What is held no more keeps them
    /// until it is used again, so what holds many is not used again: it is freed.
    pub(crate) fn hand_out_holding(&mut self, bytes: usize, value: T) -> Arc<T> {
        if bytes > CHUNK_BYTES {
            return Arc::new(value);
        }
        self.hand_out(value)
    }

    /// The values that are held no more.
    pub fn free_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.ring.iter_mut().filter_map(Arc::get_mut)
    }

    /// Returns the number of values allocated so far. It stands still in a steady state.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Returns `value` in memory of its own, and sees to it that there is room for a clone.
    #[cold]
    fn allocate(&mut self, value: T) -> Arc<T> {
        self.allocated += 1;
        if self.ring.len() == self.capacity {
            self.ring.pop_front();
        }
        Arc::new(value)
    }
}

/// What an arena allocates at once.
const CHUNK_BYTES: usize = 64 * 1024;
/// The most chunks that an arena remembers, to use them again.
const CHUNKS_MAX: usize = 1024;

/// Copies of bytes, side by side in chunks of memory. A chunk is used again once nothing in it is
/// held any more.
///
/// ```text
///   chunk   [ held │ held │ free ...           ]   copies are put at its end
///   used    [ held ][ held ][ free ]               oldest first: where the next chunk comes from
/// ```
///
/// A copy keeps its chunk alive, and nothing else. What is longer than a chunk has memory of its
/// own, which is freed with it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Arena {
    /// The free end of the chunk; `None` before there is one.
    rest: Option<BytesMut>,
    used: VecDeque<BytesMut>,
}

impl Arena {
    /// Returns a copy of `bytes`.
    pub(crate) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        if bytes.len() > CHUNK_BYTES {
            return Bytes::copy_from_slice(bytes);
        }
        let has_room = |rest: &BytesMut| rest.capacity() >= bytes.len();
        let mut rest = match self.rest.take() {
            Some(rest) if has_room(&rest) => rest,
            full => self.next_chunk(full),
        };
        rest.extend_from_slice(bytes);
        let copy = rest.split().freeze();
        self.rest = Some(rest);
        copy
    }

    /// Frees a chunk of which nothing is held, if the oldest is one.
    pub(crate) fn release_one(&mut self) {
        self.used.pop_front_if(|oldest| oldest.try_reclaim(CHUNK_BYTES));
    }

    /// Sets a chunk aside that is full, and returns another.
    fn next_chunk(&mut self, full: Option<BytesMut>) -> BytesMut {
        // One too many is freed by those that hold copies in it.
        self.used.extend(full.filter(|_| self.used.len() < CHUNKS_MAX));
        let next = self.used.pop_front_if(|oldest| oldest.try_reclaim(CHUNK_BYTES));
        next.unwrap_or_else(|| BytesMut::with_capacity(CHUNK_BYTES))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_used_again_once_it_is_held_no_more() {
        let mut pool = Pool::new(2);
        let first = pool.hand_out(1);
        let second = pool.hand_out(2);
        assert_eq!((*first, *second, pool.allocated()), (1, 2, 2));
        let place = Arc::as_ptr(&first);
        drop(first);
        assert_eq!(pool.free_mut().map(|value| *value).collect::<Vec<_>>(), [1]);
        let third = pool.hand_out(3);
        assert_eq!((Arc::as_ptr(&third), *third, *second), (place, 3, 2));
        assert_eq!(pool.allocated(), 2);
    }

    #[test]
    fn a_value_is_filled_again_in_the_memory_that_it_has() {
        let mut pool: Pool<Vec<u8>> = Pool::new(2);
        let mut fill = |bytes: &[u8]| {
            pool.hand_out_filled(|it| {
                it.clear();
                it.extend(bytes);
            })
        };
        let first = fill(b"long");
        let place = first.as_ptr();
        let second = fill(b"other");
        drop(first);
        let third = fill(b"a");
        assert_eq!((third.as_ptr(), &third[..], &second[..]), (place, &b"a"[..], &b"other"[..]));
        assert_eq!(pool.allocated(), 2);
    }

    #[test]
    fn values_that_are_held_for_too_long_are_given_up() {
        let mut pool = Pool::new(2);
        let held: Vec<_> = (0..5).map(|value| pool.hand_out(value)).collect();
        assert_eq!(pool.allocated(), 5);
        assert!(held.iter().map(|value| **value).eq(0..5), "each has its own");
        let holders: Vec<_> = held.iter().map(Arc::strong_count).collect();
        assert_eq!(holders, [1, 1, 1, 2, 2], "the pool remembers two");
    }

    #[test]
    fn copies_are_side_by_side_and_their_memory_is_used_again_once_none_is_held() {
        let mut arena = Arena::default();
        let bytes: Vec<u8> = (0..=255).cycle().take(CHUNK_BYTES / 2).collect();
        let [first, second] = [0, 1].map(|_| arena.copy(&bytes));
        assert_eq!(first.as_ptr().wrapping_add(bytes.len()), second.as_ptr());
        let third = arena.copy(&bytes);
        assert!([&first, &second, &third].iter().all(|copy| ***copy == bytes[..]));
        let place = first.as_ptr();
        drop(first);
        let (fourth, fifth) = (arena.copy(&bytes), arena.copy(&bytes));
        assert_ne!(fifth.as_ptr(), place, "the second is held");
        drop((second, fourth));
        let sixth = arena.copy(&bytes);
        assert_ne!(sixth.as_ptr(), place, "the fifth has a chunk with room");
        assert_eq!(arena.copy(&bytes).as_ptr(), place);
        assert!([&third, &fifth, &sixth].iter().all(|copy| ***copy == bytes[..]));
    }

    #[test]
    fn what_is_not_needed_is_freed() {
        let mut arena = Arena::default();
        let held: Vec<_> = (0..4).map(|_| arena.copy(&[1; CHUNK_BYTES])).collect();
        assert_eq!(arena.copy(&[2; CHUNK_BYTES + 1]), [2; CHUNK_BYTES + 1][..]);
        let before = arena.used.len();
        arena.release_one();
        assert_eq!(arena.used.len(), before, "they are held");
        drop(held);
        (0..before).for_each(|_| arena.release_one());
        assert_eq!(arena.used.len(), 0);
    }

    #[test]
    fn a_window_of_copies_takes_as_many_chunks_as_it_is_long() {
        let (mut arena, mut held) = (Arena::default(), VecDeque::new());
        for copies in 0..10_000 {
            held.push_back(arena.copy(&[1; 2500]));
            if held.len() > 192 {
                held.pop_front();
            }
            let most = 192 * 2500 / CHUNK_BYTES + 3;
            assert!(arena.used.len() < most, "{} chunks after {copies} copies", arena.used.len());
        }
    }
}
