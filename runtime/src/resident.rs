//! Residents: callers that live on the gateway's core and are called by its loop.
//!
//! ```text
//!   tick:   turn ──▶ commands ──▶ gateway ──▶ … ──▶ on_result, of each command that was answered
//!             ▲                                          │
//!             └───────────────── next tick ◀─────────────┘
//! ```
//!
//! A call by future costs a task, a waker and a cell that two threads may touch; a resident's costs a
//! function call. It is the way in for whoever serves many callers of its own from one core: a service
//! embedded beside the log, or a load generator.

use std::time::Duration;

use loggos_protocol::{Position, Time};

use crate::client::CallError;

/// A caller that lives on the core of the first gateway.
///
/// It shares that core with the roles there, so it must not block; if it panics, its core ends as if the
/// machine had failed.
pub trait Resident {
    /// Puts the commands it has on the desk, and says when it wants its next turn.
    ///
    /// Called first when it has moved in, from then on as it has asked. What is put there in one turn, and
    /// whatever else has arrived, is one batch as far as it fits.
    fn turn(&mut self, desk: &mut Desk<'_>) -> Next;

    /// Hears what became of the command that it called `tag`: where in the log it was executed and what
    /// the state machine answered.
    ///
    /// # Errors
    ///
    /// See [`CallError`]: it tells whether the command may have been executed.
    fn on_result(&mut self, tag: u64, result: Result<(Position, &[u8]), CallError>);
}

/// When a resident wants its next turn.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Next {
    /// When it has heard a result, or when there is room again on a desk that had too little.
    OnResult,
    /// Likewise, and at the latest after so long.
    After(Duration),
    /// Never: it moves out, and hears of no result any more.
    Leave,
}

/// Where a resident puts its commands.
#[derive(Debug)]
pub struct Desk<'a> {
    commands: &'a mut Commands,
    room: usize,
    is_short: bool,
}

/// The commands of one turn, their bytes side by side.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    bytes: Vec<u8>,
    /// The tag of each, and where it ends.
    entries: Vec<(u64, usize)>,
}

/// A resident in its place.
pub(crate) struct Tenant {
    /// Names it for ever: no other gets its results.
    pub(crate) id: u64,
    resident: Box<dyn Resident>,
    /// When it wants its next turn, whatever happens.
    pub(crate) due: Option<Time>,
    has_result: bool,
    was_short: bool,
    pub(crate) has_left: bool,
}

/// Makes a resident, on the core where it shall live.
pub(crate) struct MoveIn(pub(crate) Box<dyn FnOnce() -> Box<dyn Resident> + Send>);

impl Desk<'_> {
    /// Submits `command`, whose result will come under the name of `tag`; returns whether there was room.
    /// If not, nothing has happened, and there will be a turn once there is.
    ///
    /// Commands take effect in the order in which they are put here; their results may overtake each
    /// other.
    #[must_use = "without room the command was not submitted"]
    pub fn execute(&mut self, tag: u64, command: &[u8]) -> bool {
        if self.room == 0 {
            self.is_short = true;
            return false;
        }
        self.room -= 1;
        self.commands.bytes.extend_from_slice(command);
        self.commands.entries.push((tag, self.commands.bytes.len()));
        true
    }
}

impl Commands {
    /// All commands, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &[u8])> {
        let starts = std::iter::once(0).chain(self.entries.iter().map(|(_, end)| *end));
        starts.zip(&self.entries).map(|(start, (tag, end))| (*tag, &self.bytes[start..*end]))
    }

    /// Forgets them, keeping the room.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

impl Tenant {
    pub(crate) fn new(id: u64, resident: Box<dyn Resident>, now: Time) -> Self {
        Self { id, resident, due: Some(now), has_result: false, was_short: false, has_left: false }
    }

    /// Whether it is to have a turn, given that there is room for so many commands.
    pub(crate) fn is_due(&self, now: Time, room: usize) -> bool {
        self.has_result || self.was_short && room > 0 || self.due.is_some_and(|due| due <= now)
    }

    /// Lets it have its turn, and notes when it wants the next.
    pub(crate) fn turn(&mut self, commands: &mut Commands, room: usize, now: Time) {
        let mut desk = Desk { commands, room, is_short: false };
        let next = self.resident.turn(&mut desk);
        (self.has_result, self.was_short) = (false, desk.is_short);
        self.due = match next {
            Next::OnResult => None,
            Next::After(most) => Some(now + most),
            Next::Leave => None,
        };
        self.has_left = next == Next::Leave;
    }

    pub(crate) fn on_result(&mut self, tag: u64, result: Result<(Position, &[u8]), CallError>) {
        self.resident.on_result(tag, result);
        self.has_result = true;
    }
}

impl std::fmt::Debug for Tenant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "resident {}", self.id)
    }
}

impl std::fmt::Debug for MoveIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a resident")
    }
}
