//! Whether a core sleeps: what it and those who have work for it tell each other.
//!
//! ```text
//!   a thread with work for it                    the core
//!   puts it where the core looks                 says that it sleeps
//!   ─────────── fence ───────────                ─────────── fence ───────────
//!   does it sleep? ── yes ──▶ wakes it           is there work? ── no ──▶ sleeps until it is woken
//! ```
//!
//! A core that is awake is told nothing: its loop looks into its mailboxes. Each side writes before
//! its fence and reads after it, so at least one of them sees what the other has written: no core
//! sleeps over work. `tests/loom.rs` tries the interleavings: all with one such thread, those of
//! few interruptions with two. The flag is only ever swapped, which costs nothing beside a sleep:
//! loom knows the order of swaps, but assumes that a store may come before or after another
//! thread's swap.

#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, Ordering, fence};

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, Ordering, fence};

/// Whether a core sleeps, and has to be woken.
#[derive(Debug, Default)]
pub struct Slumber {
    is_asleep: AtomicBool,
}

impl Slumber {
    /// Announces that this core sleeps from now on, and returns whether it may: not if `has_work`
    /// finds something, which looks after the announcement. To be followed by [`Slumber::end`] in
    /// either case.
    #[must_use]
    pub fn begin(&self, has_work: impl FnOnce() -> bool) -> bool {
        self.is_asleep.swap(true, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        !has_work()
    }

    /// Says that this core is awake: it looks for work before it sleeps again.
    pub fn end(&self) {
        self.is_asleep.swap(false, Ordering::Relaxed);
    }

    /// Returns whether the caller has to wake the core: it sleeps, or is about to, and no other
    /// caller was told so. To be called after the work was put where the core looks.
    #[must_use]
    #[inline]
    pub fn disturb(&self) -> bool {
        fence(Ordering::SeqCst);
        self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed)
    }
}
