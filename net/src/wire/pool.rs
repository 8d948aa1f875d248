//! Memory that decoding uses again: batches, results, and the last table.

use std::sync::Arc;

use loggos_protocol::{Batch, Payload, Pool, Results, Table};

/// What received messages hold by count, so that decoding allocates nothing in a steady state.
#[derive(Debug)]
pub struct BatchPool {
    pub(super) batches: Pool<Batch>,
    pub(super) results: Pool<Results>,
    /// The table that was decoded last: it comes with every heartbeat.
    pub(super) last_table: Option<Arc<Table>>,
}

impl BatchPool {
    /// Returns a pool that remembers up to `capacity` batches and as many results: as many as the
    /// roles that are fed from it hold at once, or it will allocate.
    #[must_use]
    pub fn new(capacity: usize) -> Self {
        Self { batches: Pool::new(capacity), results: Pool::new(capacity), last_table: None }
    }

    /// Frees the payloads that are held no more: for a driver that falls idle, so that they do not
    /// keep the memory that they were received in.
    pub fn release(&mut self) {
        self.batches.free_mut().for_each(|batch| batch.block = Payload::empty());
        self.results.free_mut().for_each(|results| results.outcomes = Payload::empty());
    }

    /// Returns the number of batches and results allocated so far. It stands still in a steady
    /// state.
    #[must_use]
    pub fn allocated(&self) -> u64 {
        self.batches.allocated() + self.results.allocated()
    }
}
