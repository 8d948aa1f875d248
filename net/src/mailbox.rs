//! A mailbox from one core to another: parcels of messages, handed over and handed back.
//!
//! ```text
//!   sender                      full ▶                        receiver
//!   Vec being filled ──flush──▶ [parcel][parcel] ──drain──▶ items
//!           ▲                                                  │
//!           └──────────────── [empty][empty] ◀─────────────────┘
//!                                ◀ empty
//! ```
//!
//! What a core has for another goes over as one vector, each time that a piece of its work is done:
//! the two cores touch each other's cache lines once a parcel, not once a message. Emptied vectors
//! come back, so that a steady state allocates nothing.

use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use crossbeam::utils::CachePadded;

#[derive(Debug)]
struct Shared<T> {
    full: CachePadded<ArrayQueue<Vec<T>>>,
    empty: CachePadded<ArrayQueue<Vec<T>>>,
}

/// The end that fills parcels.
#[derive(Debug)]
pub struct MailboxSender<T> {
    shared: Arc<Shared<T>>,
    filling: Vec<T>,
    /// The most items that wait while no parcel can be handed over.
    items_max: usize,
    dropped: u64,
}

/// The end that empties them.
#[derive(Debug)]
pub struct MailboxReceiver<T> {
    shared: Arc<Shared<T>>,
}

/// Returns the two ends of a mailbox that holds up to `parcels_max` parcels; while it is full, up
/// to `items_max` items wait at the sender and the rest is dropped.
#[must_use]
pub fn mailbox<T>(parcels_max: usize, items_max: usize) -> (MailboxSender<T>, MailboxReceiver<T>) {
    assert!(parcels_max > 0 && items_max > 0, "a mailbox that holds nothing");
    let shared = Arc::new(Shared {
        full: CachePadded::new(ArrayQueue::new(parcels_max)),
        empty: CachePadded::new(ArrayQueue::new(parcels_max)),
    });
    let sender =
        MailboxSender { shared: Arc::clone(&shared), filling: Vec::new(), items_max, dropped: 0 };
    (sender, MailboxReceiver { shared })
}

impl<T> MailboxSender<T> {
    /// Adds an item to the parcel being filled. Where the receiver has stopped reading, items
    /// beyond the bound are dropped and counted: the roles that sent them will send them again.
    /// Urgent items have as much room again, reserved.
    ///
    /// source: R29
    pub fn push(&mut self, item: T, is_urgent: impl FnOnce(&T) -> bool) {
        let waiting = self.filling.len();
        if waiting < self.items_max || waiting < 2 * self.items_max && is_urgent(&item) {
            self.filling.push(item);
        } else {
            self.dropped += 1;
        }
    }

    /// Hands the parcel over, if there is anything in it; returns whether the receiver has
    /// something new.
    pub fn flush(&mut self) -> bool {
        if self.filling.is_empty() {
            return false;
        }
        let next = self.shared.empty.pop().unwrap_or_default();
        let parcel = std::mem::replace(&mut self.filling, next);
        if let Err(parcel) = self.shared.full.push(parcel) {
            self.filling = parcel; // full: it goes with the next
            return false;
        }
        true
    }

    /// Whether something waits to be handed over.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        !self.filling.is_empty()
    }

    /// Returns the number of items dropped so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.dropped
    }
}

impl<T> MailboxReceiver<T> {
    /// Hands every item of the parcels that have arrived to `take`, oldest first; returns how many.
    ///
    /// Looks at no more parcels than had arrived when it began, so that a busy sender cannot keep
    /// it here.
    pub fn drain(&mut self, mut take: impl FnMut(T)) -> usize {
        let mut items = 0;
        for _ in 0..self.shared.full.len() {
            let Some(mut parcel) = self.shared.full.pop() else { break };
            items += parcel.len();
            parcel.drain(..).for_each(&mut take);
            // A full return queue just means that this vector is freed.
            drop(self.shared.empty.push(parcel));
        }
        items
    }

    /// Whether nothing has arrived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.shared.full.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drained(receiver: &mut MailboxReceiver<u32>) -> Vec<u32> {
        let mut items = Vec::new();
        receiver.drain(|item| items.push(item));
        items
    }

    #[test]
    fn items_arrive_in_order_and_a_parcel_at_a_time() {
        let (mut sender, mut receiver) = mailbox(4, 100);
        assert!(!sender.flush(), "an empty parcel is not sent");
        (0..3).for_each(|item| sender.push(item, |_| false));
        assert!(receiver.is_empty());
        assert!(sender.flush());
        sender.push(3, |_| false);
        assert!(sender.flush());
        assert_eq!(drained(&mut receiver), [0, 1, 2, 3]);
        assert!(receiver.is_empty());
    }

    #[test]
    fn a_full_mailbox_keeps_its_order_and_drops_what_exceeds_the_bound() {
        let (mut sender, mut receiver) = mailbox(1, 2);
        sender.push(0, |_| false);
        assert!(sender.flush());
        (1..5).for_each(|item| sender.push(item, |_| false));
        assert!(!sender.flush());
        assert_eq!((sender.is_waiting(), sender.dropped()), (true, 2));
        assert_eq!(drained(&mut receiver), [0]);
        assert!(sender.flush());
        assert_eq!(drained(&mut receiver), [1, 2]);
    }

    #[test]
    fn what_is_urgent_has_room_where_nothing_else_has() {
        let (mut sender, mut receiver) = mailbox(1, 2);
        let is_urgent = |item: &u32| *item >= 10;
        sender.push(0, is_urgent);
        assert!(sender.flush());
        [1, 2, 3, 10, 4, 11, 12].into_iter().for_each(|item| sender.push(item, is_urgent));
        assert_eq!((drained(&mut receiver), sender.dropped()), (vec![0], 3));
        assert!(sender.flush());
        assert_eq!(drained(&mut receiver), [1, 2, 10, 11]);
    }

    #[test]
    fn a_million_items_cross_between_threads() {
        // Miri tries how threads may meet, and takes its time for each.
        const ITEMS: u32 = if cfg!(miri) { 2_000 } else { 1_000_000 };
        let (mut sender, mut receiver) = mailbox(8, 1000);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                let mut next = 0_u32;
                while next < ITEMS {
                    if sender.is_waiting() {
                        if !sender.flush() {
                            std::thread::yield_now();
                        }
                        continue;
                    }
                    for _ in 0..100 {
                        sender.push(next, |_| false);
                        next += 1;
                    }
                    sender.flush();
                }
                while sender.is_waiting() {
                    sender.flush();
                }
            });
            let mut expected = 0;
            while expected < ITEMS {
                let items = receiver.drain(|item| {
                    assert_eq!(item, expected, "items overtook each other");
                    expected += 1;
                });
                if items == 0 {
                    std::thread::yield_now();
                }
            }
        });
    }
}
