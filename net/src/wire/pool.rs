//! Batches that are used again, and the last table, so that decoding allocates nothing in a steady
//! state.

use std::collections::VecDeque;
use std::sync::Arc;

use loggos_protocol::{Batch, Payload, Table};

/// Hands out batches by count, and uses each again once it is held no more.
///
/// ```text
///   oldest ◀── [free] [held] [free] [held] ◀── newest      a clone of each batch handed out
///                │
///                └── taken, overwritten, handed out, newest again
/// ```
///
/// Roles let go of batches roughly in the order in which they got them, so only the oldest is
/// looked at. It grows to as many as are held at once, and no further than its capacity: the oldest
/// is given up then, and its last holder frees it.
#[derive(Debug)]
pub struct BatchPool {
    /// Oldest first.
    ring: VecDeque<Arc<Batch>>,
    capacity: usize,
    allocated: u64,
    /// The table that was decoded last: it comes with every heartbeat.
    pub(super) last_table: Option<Arc<Table>>,
}

impl BatchPool {
    /// Returns a pool that remembers up to `capacity` batches: as many as the roles that are fed
    /// from it hold at once, or it will allocate.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        assert!(capacity > 0, "a pool of nothing");
        Self { ring: VecDeque::with_capacity(capacity), capacity, allocated: 0, last_table: None }
    }

    /// Returns `batch` by count.
    pub fn batch(&mut self, batch: Batch) -> Arc<Batch> {
        let handed_out = match self.ring.front_mut().map(Arc::get_mut) {
            Some(Some(oldest)) => {
                *oldest = batch;
                self.ring.pop_front().expect("it was just there")
            }
            Some(None) | None => self.allocate(batch),
        };
        self.ring.push_back(Arc::clone(&handed_out));
        handed_out
    }

    /// Frees the payloads of batches that are held no more: for a driver that falls idle, so that
    /// they do not keep the memory that they were received in.
    pub fn release(&mut self) {
        for batch in self.ring.iter_mut().filter_map(Arc::get_mut) {
            batch.block = Payload::empty();
        }
    }

    /// Returns the number of batches allocated so far. It stands still in a steady state.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.allocated
    }

    /// Returns `batch` in memory of its own, and sees to it that there is room for a clone.
    #[cold]
    fn allocate(&mut self, batch: Batch) -> Arc<Batch> {
        self.allocated += 1;
        if self.ring.len() == self.capacity {
            self.ring.pop_front();
        }
        Arc::new(batch)
    }
}
