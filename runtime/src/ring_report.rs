//! Reports that a ring fails: once, until it works again.

use std::io;
use std::time::Duration;

use tracing::warn;

/// The pause of a loop that its ring does not let sleep.
pub(crate) const RING_PAUSE: Duration = Duration::from_millis(1);

/// Whether the kernel takes operations of a ring, as last reported.
#[derive(Debug)]
pub(crate) struct RingReport {
    /// Whose ring it is, such as "a core".
    owner: &'static str,
    is_failing: bool,
}

impl RingReport {
    pub(crate) fn new(owner: &'static str) -> Self {
        Self { owner, is_failing: false }
    }

    /// Takes in the result of a call of the ring; writes to the log if that is news.
    pub(crate) fn take(&mut self, done: &io::Result<()>) {
        let was_failing = std::mem::replace(&mut self.is_failing, done.is_err());
        match done {
            Err(error) if !was_failing => warn!(%error, "the ring of {} fails", self.owner),
            Ok(()) if was_failing => warn!("the ring of {} works again", self.owner),
            Ok(()) | Err(_) => {}
        }
    }
}
