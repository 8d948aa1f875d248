//! Whether a core sleeps: what it and those who have work for it tell each other.
//!
//! ```text
//!   who has work for it                          the core
//!   puts it where the core looks                 says that it sleeps
//!   ─────────── fence ───────────                ─────────── fence ───────────
//!   does it sleep? ── yes ──▶ wakes it           is there work? ── no ──▶ sleeps until it is woken
//! ```
//!
//! A core that is awake is told nothing: its loop looks into its mailboxes. Each side writes before its fence
//! and reads after it, so at least one of them sees what the other has written: no core sleeps over work.
//! `tests/loom.rs` tries the interleavings: all with one who has work, those of few interruptions with two.
//! The flag is only ever swapped, which costs nothing beside a sleep: loom knows the order of swaps, but takes a
//! store for one that may come before or after somebody's swap.

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
    /// Says that this core sleeps from now on, and returns whether it may: not if `has_work` says so, which is
    /// asked once everybody could know. Followed by [`Slumber::end`] in either case.
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

    /// Returns whether the core has to be woken by whoever calls this: it sleeps, or is about to, and nobody else
    /// was told so. To be called after what it shall find was put where it looks.
    #[must_use]
    #[inline]
    pub fn disturb(&self) -> bool {
        fence(Ordering::SeqCst);
        self.is_asleep.load(Ordering::Relaxed) && self.is_asleep.swap(false, Ordering::Relaxed)
    }
}
