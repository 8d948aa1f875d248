//! The state of a log, for `status`.

use std::time::Duration;

/// How long a write may take before the disk is reported to hang.
const HANG: Duration = Duration::from_secs(1);

/// The state of an acceptor's log. A durable acceptor says nothing before its log has written it.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum LogState {
    /// It is written to, or the acceptor has none.
    #[default]
    Fine,
    /// So little room is left that the acceptor votes only for what may be chosen already.
    Low,
    /// No room is left: the acceptor promises and votes for nothing until there is some.
    Full,
    /// The disk has not answered for a second: the acceptor promises and votes for nothing until it
    /// does.
    Hangs,
}

/// The state of a log, in numbers.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogStatus {
    /// Batches that were synced since it was formatted. Never goes down.
    pub synced: u64,
    /// Segments in use.
    pub segments: usize,
    /// The most that there may be.
    pub segments_max: u32,
    /// Records that are not durable yet.
    pub waiting: u64,
    /// Messages that wait for such records.
    pub held: usize,
    /// The age of the write under way; zero if there is none.
    pub writing_for: Duration,
    /// Whether little room is left.
    pub is_low: bool,
    /// Whether records wait for room.
    pub is_full: bool,
    /// The reason why it serves no more, for good, if it does not (R33, R34).
    pub stopped: Option<String>,
}

impl LogStatus {
    /// Returns the state that these numbers show.
    #[must_use]
    pub fn state(&self) -> LogState {
        if self.writing_for >= HANG {
            LogState::Hangs
        } else if self.is_full {
            LogState::Full
        } else if self.is_low {
            LogState::Low
        } else {
            LogState::Fine
        }
    }
}
