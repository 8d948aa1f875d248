//! Slots in a power-of-two ring, each place tagged with the slot it holds.
//!
//! ```text
//!   capacity 8      place = slot mod 8
//!   ┌────┬────┬────┬────┬────┬────┬────┬────┐
//!   │ 16 │ 17 │ 10 │ 11 │    │ 13 │ 14 │ 15 │    slot 12 is missing, 16 has displaced 8
//!   └────┴────┴────┴────┴────┴────┴────┴────┘
//! ```
//!
//! Lookup is a mask and a compare, nothing is hashed and nothing moves. The tag is what makes reuse
//! safe: a late message for slot 8 finds 16 in its place and is told that 8 is gone, where an
//! untagged ring would have counted a vote for the wrong slot (R10, R11).

use crate::{Slot, Watermark};

/// A ring of slots. At most one slot a place; the owner decides which slot displaces which.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Window<T> {
    places: Box<[Option<(Slot, T)>]>,
    mask: u64,
}

impl<T> Window<T> {
    /// Returns an empty ring of `capacity` places, a power of two.
    #[must_use]
    pub fn new(capacity: u32) -> Self {
        assert!(capacity.is_power_of_two(), "a window of {capacity} slots is no power of two");
        Self { places: (0..capacity).map(|_| None).collect(), mask: u64::from(capacity) - 1 }
    }

    /// The number of places.
    #[must_use]
    pub fn capacity(&self) -> u64 {
        self.mask + 1
    }

    /// The value of `slot`, if its place is still its own.
    #[must_use]
    pub fn at(&self, slot: Slot) -> Option<&T> {
        match &self.places[self.place(slot)] {
            Some((tag, value)) if *tag == slot => Some(value),
            Some(_) | None => None,
        }
    }

    /// The value of `slot`, to change.
    pub fn at_mut(&mut self, slot: Slot) -> Option<&mut T> {
        match &mut self.places[self.place(slot)] {
            Some((tag, value)) if *tag == slot => Some(value),
            Some(_) | None => None,
        }
    }

    /// The slot that holds `slot`'s place, and its value.
    #[must_use]
    pub fn occupant(&self, slot: Slot) -> Option<(Slot, &T)> {
        self.places[self.place(slot)].as_ref().map(|(tag, value)| (*tag, value))
    }

    /// Puts `value` in `slot`'s place, displacing whatever was there.
    pub fn insert(&mut self, slot: Slot, value: T) {
        self.places[self.place(slot)] = Some((slot, value));
    }

    /// Takes `slot` out, if its place is still its own.
    pub fn remove(&mut self, slot: Slot) -> Option<T> {
        self.places[self.place(slot)].take_if(|(tag, _)| *tag == slot).map(|(_, value)| value)
    }

    /// Takes out every slot in `[from, to)`.
    pub fn remove_range(&mut self, from: Watermark, to: Watermark) {
        assert!(from <= to, "slots from {from:?} to {to:?} are no range");
        if to.0 - from.0 < self.capacity() {
            for slot in from.0..to.0 {
                self.remove(Slot(slot));
            }
        } else {
            for place in &mut self.places {
                place.take_if(|(tag, _)| (from.0..to.0).contains(&tag.0));
            }
        }
    }

    /// Empties the ring.
    pub fn clear(&mut self) {
        self.places.fill_with(|| None);
    }

    /// All slots held, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Slot, &T)> {
        self.places.iter().flatten().map(|(slot, value)| (*slot, value))
    }

    fn place(&self, slot: Slot) -> usize {
        // The mask is below 2^32, so nothing is cut off where usize has 32 bits.
        #[expect(clippy::cast_possible_truncation, reason = "masked to below the capacity, a u32")]
        let place = (slot.0 & self.mask) as usize;
        place
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_displaced_slot_is_gone_and_says_so() {
        let mut window = Window::new(8);
        window.insert(Slot(8), 'a');
        assert_eq!(window.at(Slot(8)), Some(&'a'));
        assert_eq!(window.at(Slot(16)), None);
        window.insert(Slot(16), 'b');
        assert_eq!((window.at(Slot(8)), window.at(Slot(16))), (None, Some(&'b')));
        assert_eq!(window.occupant(Slot(8)), Some((Slot(16), &'b')));
        assert_eq!(window.remove(Slot(8)), None);
        assert_eq!(window.remove(Slot(16)), Some('b'));
    }

    #[test]
    fn removing_a_range_leaves_the_rest_whether_it_is_shorter_than_the_ring_or_longer() {
        for to in [5, 100] {
            let mut window = Window::new(8);
            (to - 3..to + 3).for_each(|slot| window.insert(Slot(slot), ()));
            window.remove_range(Watermark(0), Watermark(to));
            let mut left: Vec<_> = window.iter().map(|(slot, ())| slot.0).collect();
            left.sort_unstable();
            assert_eq!(left, [to, to + 1, to + 2]);
        }
    }
}
