//! Residents: callers that live on the gateway's core and are called by its loop.
//!
//! ```text
//!   tick:   turn ──▶ commands ──▶ gateway ──▶ … ──▶ on_result, of each command that was answered
//!             ▲                                          │
//!             └───────────────── next tick ◀─────────────┘
//! ```
//!
//! A call by future costs a task, a waker and a cell that two threads may touch; a resident's costs
//! a function call. Residents are for services that serve many callers of their own from one core,
//! embedded beside the log, and for load generators.

use std::time::Duration;

use loggos_protocol::{OrderId, Position, Time};

use crate::client::{CallError, Consistency, Port};

/// The callers of a resident, at the most: each has an order of its own.
const CALLERS_MAX: u32 = 1 << 20;

/// A caller that lives on the core of the first gateway.
///
/// It shares that core with the roles there, so it must not block; if it panics, its core ends as
/// if the machine had failed.
pub trait Resident {
    /// Puts its commands on the desk, and returns when it wants its next turn.
    ///
    /// It is called when the resident has moved in, and from then on as the resident has asked. The
    /// commands of one turn, and others that have arrived meanwhile, are one batch as far as they
    /// fit.
    fn turn(&mut self, desk: &mut Desk<'_>) -> Next;

    /// Hears the result of the command with that `tag`: its position in the log, and the state
    /// machine's reply.
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
    /// Likewise, and at the latest after this time.
    After(Duration),
    /// Never: it moves out, and hears no more results.
    Leave,
}

/// The place where a resident puts the commands of its turn.
#[derive(Debug)]
pub struct Desk<'a> {
    commands: &'a mut Commands,
    room: usize,
    is_short: bool,
    caller: u32,
}

/// The commands and queries of one turn, with their bytes one after the other.
#[derive(Debug, Default)]
pub(crate) struct Commands {
    bytes: Vec<u8>,
    entries: Vec<Entry>,
}

/// A command, or a query, which has its consistency.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Entry {
    pub(crate) tag: u64,
    /// The resident's own number of the caller on whose behalf it is.
    pub(crate) caller: u32,
    pub(crate) consistency: Option<Consistency>,
    /// Where its bytes end.
    end: usize,
}

/// A resident, and when it wants its turn.
pub(crate) struct Tenant {
    /// Never used again: no other resident gets its results.
    pub(crate) id: u64,
    /// The orders of its callers, by their numbers.
    pub(crate) orders: Vec<OrderId>,
    resident: Box<dyn Resident>,
    /// When it wants its next turn at the latest.
    pub(crate) due: Option<Time>,
    has_result: bool,
    was_short: bool,
    pub(crate) has_left: bool,
}

/// Makes a resident, on the core where it will live.
pub(crate) struct MoveIn(pub(crate) Box<dyn FnOnce() -> Box<dyn Resident> + Send>);

impl Desk<'_> {
    /// Submits from here on, in this turn, on behalf of the caller of that number: a resident
    /// numbers its callers as it likes, from 0 on, without gaps. At first it is 0.
    ///
    /// What one caller executes and asks takes effect in its order: a query is held back behind
    /// commands that have no answer yet, and commands behind queries. Callers do not wait for each
    /// other.
    ///
    /// # Panics
    ///
    /// If the number is no number of a caller: 2^20 or more.
    pub fn caller(&mut self, caller: u32) -> &mut Self {
        assert!(caller < CALLERS_MAX, "caller {caller}: they are numbered from 0 on, without gaps");
        self.caller = caller;
        self
    }

    /// Submits `command`; its result will come with `tag`. Returns whether there was room. If not,
    /// nothing has happened, and the resident has another turn once there is room.
    ///
    /// Commands take effect in the order in which they are put here, as those of
    /// [`Client::execute`](crate::Client::execute) do; their results may arrive in another order.
    #[must_use = "without room the command was not submitted"]
    pub fn execute(&mut self, tag: u64, command: &[u8]) -> bool {
        self.put(tag, None, command)
    }

    /// Asks the state machine `query`; its answer will come with `tag`: see
    /// [`Client::query`](crate::Client::query). Returns whether there was room, like
    /// [`execute`](Self::execute).
    #[must_use = "without room nothing is asked"]
    pub fn query(&mut self, tag: u64, consistency: Consistency, query: &[u8]) -> bool {
        self.put(tag, Some(consistency), query)
    }

    #[inline]
    fn put(&mut self, tag: u64, consistency: Option<Consistency>, bytes: &[u8]) -> bool {
        if self.room == 0 {
            self.is_short = true;
            return false;
        }
        self.room -= 1;
        self.commands.bytes.extend_from_slice(bytes);
        let (caller, end) = (self.caller, self.commands.bytes.len());
        self.commands.entries.push(Entry { tag, caller, consistency, end });
        true
    }
}

impl Commands {
    /// Returns all commands and queries, oldest first, with their bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Entry, &[u8])> {
        let starts = std::iter::once(0).chain(self.entries.iter().map(|entry| entry.end));
        starts.zip(&self.entries).map(|(start, entry)| (*entry, &self.bytes[start..entry.end]))
    }

    /// Removes all commands, and keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.entries.clear();
    }
}

impl Tenant {
    pub(crate) fn new(id: u64, resident: Box<dyn Resident>, now: Time) -> Self {
        Self {
            id,
            orders: Vec::new(),
            resident,
            due: Some(now),
            has_result: false,
            was_short: false,
            has_left: false,
        }
    }

    /// Whether it is to have a turn, if there is room for `room` commands.
    pub(crate) fn is_due(&self, now: Time, room: usize) -> bool {
        self.has_result || self.was_short && room > 0 || self.due.is_some_and(|due| due <= now)
    }

    /// The order of one of its callers.
    #[inline]
    pub(crate) fn order(&mut self, caller: u32, port: &Port) -> OrderId {
        let place = caller as usize;
        if place >= self.orders.len() {
            self.orders.resize_with(place + 1, || port.take_order());
        }
        self.orders[place]
    }

    /// Gives it its turn, and notes when it wants the next.
    pub(crate) fn turn(&mut self, commands: &mut Commands, room: usize, now: Time) {
        let mut desk = Desk { commands, room, is_short: false, caller: 0 };
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
