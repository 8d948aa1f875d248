//! Polls of a ring and sleeps in it. That it fails is reported once, until it works again.

use std::io;
use std::time::Duration;

use loggos_net::{Ring, RingEvent};
use tracing::warn;

/// The pause of a loop that its ring does not let sleep.
const PAUSE: Duration = Duration::from_millis(1);

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

    /// Polls `ring`: see [`Ring::poll`].
    pub(crate) fn poll(&mut self, ring: &mut Ring, events: &mut Vec<RingEvent>) {
        let polled = ring.poll(events);
        self.take(&polled);
    }

    /// Sleeps in `ring`, for `duration_max` at the most: see [`Ring::sleep`].
    pub(crate) fn sleep(&mut self, ring: &mut Ring, duration_max: Duration) {
        let slept = ring.sleep(duration_max);
        self.take(&slept);
        if slept.is_err() {
            std::thread::sleep(PAUSE.min(duration_max));
        }
    }

    /// Takes in the result of a call of the ring; writes to the log if that is news.
    fn take(&mut self, done: &io::Result<()>) {
        let was_failing = std::mem::replace(&mut self.is_failing, done.is_err());
        match done {
            Err(error) if !was_failing => warn!(%error, "the ring of {} fails", self.owner),
            Ok(()) if was_failing => warn!("the ring of {} works again", self.owner),
            Ok(()) | Err(_) => {}
        }
    }
}
