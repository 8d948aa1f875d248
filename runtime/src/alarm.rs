//! The alarm that wakes a core that sleeps, from any thread.
//!
//! ```text
//!   other core                         this core
//!   push; is it asleep? ──── no ───▶   finds it with the next tick
//!            │
//!           yes ── eventfd ─────────▶  the read of it completes in the core's ring, and ends its sleep
//! ```
//!
//! A core that is awake is told nothing: its loop looks into its mailboxes. A core that is about to
//! sleep announces that and then looks once more; a thread that pushes something looks for the
//! announcement after that: see [`Slumber`].

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use loggos_net::Slumber;
use rustix::event::EventfdFlags;

/// Wakes a core, from any thread.
#[derive(Clone, Debug)]
pub(crate) struct Alarm(Arc<AlarmState>);

#[derive(Debug)]
struct AlarmState {
    slumber: Slumber,
    eventfd: OwnedFd,
}

impl Alarm {
    pub(crate) fn new() -> io::Result<Self> {
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC)?;
        Ok(Self(Arc::new(AlarmState { slumber: Slumber::default(), eventfd })))
    }

    /// Announces that the core is about to sleep; returns whether it may. It may not if `has_work`
    /// finds something, which is looked for after the announcement: what is pushed later rings the
    /// alarm.
    pub(crate) fn begin_sleep(&self, has_work: impl FnOnce() -> bool) -> bool {
        self.0.slumber.begin(has_work)
    }

    /// Announces that the core is awake. To be called after each [`Alarm::begin_sleep`], also if
    /// that returned `false`.
    pub(crate) fn end_sleep(&self) {
        self.0.slumber.end();
    }

    /// Returns another descriptor of the eventfd that is written to when the alarm rings: it must
    /// end the sleep.
    pub(crate) fn eventfd(&self) -> io::Result<OwnedFd> {
        self.0.eventfd.as_fd().try_clone_to_owned()
    }

    /// Wakes the core if it sleeps. To be called after what it shall find has been pushed.
    pub(crate) fn ring(&self) {
        if self.0.slumber.disturb() {
            let rung = rustix::io::write(&self.0.eventfd, &1_u64.to_ne_bytes());
            assert!(rung.is_ok(), "an eventfd that is read to zero took no one: {rung:?}");
        }
    }
}
