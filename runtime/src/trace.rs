//! A trace: what cores did, turn by turn, for some time.

use std::sync::mpsc;

use loggos_protocol::{RoleId, Time};

/// The most turns of a trace; it ends when it has them. A core that is busy has some million in a
/// second.
const TURNS_MAX: usize = 1 << 16;

/// What a core does at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Doing {
    /// All that one round of its loop had to do, turns of roles and callers included: what is
    /// beside them went to mailboxes, sockets and the log.
    Tick,
    /// A role takes what has arrived for it.
    Role(RoleId),
    /// Callers submit commands, or hear of results.
    Callers,
    /// It sleeps until there is something to do.
    Sleep,
}

/// A time that a core spent on one thing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Turn {
    /// The thing.
    pub doing: Doing,
    /// When it began, by the clock of all cores of the process.
    pub from: Time,
    /// When it ended.
    pub to: Time,
}

/// What a core did, in the order in which it ended.
#[derive(Clone, Debug)]
pub struct CoreTrace {
    /// Its number in its process.
    pub core: usize,
    /// Its turns. Ticks contain the turns that they consist of.
    pub turns: Vec<Turn>,
}

/// A trace that a core makes.
#[derive(Debug)]
pub(crate) struct Tracing {
    until: Time,
    turns: Vec<Turn>,
    to: mpsc::Sender<CoreTrace>,
}

impl Tracing {
    /// Returns a trace that goes on until then.
    pub(crate) fn new(until: Time, to: mpsc::Sender<CoreTrace>) -> Self {
        // All of it at once: a vector that grows in a tick would be seen in it.
        Self { until, turns: Vec::with_capacity(TURNS_MAX), to }
    }

    pub(crate) fn note(&mut self, turn: Turn) {
        if self.turns.len() < TURNS_MAX {
            self.turns.push(turn);
        }
    }

    pub(crate) fn is_over(&self, now: Time) -> bool {
        now >= self.until || self.turns.len() == TURNS_MAX
    }

    /// Tells the thread that wants it.
    pub(crate) fn end(self, core: usize) {
        drop(self.to.send(CoreTrace { core, turns: self.turns })); // it may wait no more
    }
}
