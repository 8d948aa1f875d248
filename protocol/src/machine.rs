//! The state machine that a replica executes the log on.

use crate::block::{Items, ResultWriter};
use crate::{Position, Slot, Time};

/// Where in the log a command stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct At {
    /// Its slot.
    pub slot: Slot,
    /// Its place among the slot's commands.
    pub index: u32,
    /// The log's time: never goes down from slot to slot, and is the only clock a machine may read.
    ///
    /// source: R26
    pub time: Time,
}

impl At {
    /// Its place in the log.
    #[must_use]
    pub fn position(self) -> Position {
        Position { slot: self.slot, index: self.index }
    }
}

/// A deterministic service, replicated by executing the same commands in the same order everywhere.
///
/// What a command does and answers must follow from the commands before it, the command and
/// [`At`] alone: no clock, no randomness, no address, no order of a hash map. A machine that panics
/// halts its replica, which names the slot and the command; the same command will panic on every other
/// replica too.
pub trait StateMachine {
    /// Executes `command` and writes its answer to `reply`; writing nothing answers with no bytes.
    fn apply(&mut self, at: At, command: &[u8], reply: &mut Reply<'_>);

    /// Executes all `commands` of a run, in order, one reply each; `at` is the first's.
    ///
    /// To be overridden where a machine gains from seeing many at once, by hashing and prefetching
    /// before it writes. The outcome must be as if each had been applied alone.
    fn apply_run(&mut self, at: At, commands: Items<'_>, replies: &mut RunReplies<'_>) {
        let mut at = at;
        for command in commands {
            self.apply(at, command, &mut replies.reply());
            at.index += 1;
        }
    }

    /// A digest of the whole state, cheap enough to ask for at any time. Equal states have equal
    /// digests; it is how replicas are checked against each other.
    fn state_hash(&self) -> u64;
}

/// Where the answer to one command is written.
#[derive(Debug)]
pub struct Reply<'a>(&'a mut ResultWriter);

/// Where the answers to a run of commands are written.
#[derive(Debug)]
pub struct RunReplies<'a>(&'a mut ResultWriter);

impl Reply<'_> {
    /// Adds to the answer.
    pub fn put(&mut self, bytes: &[u8]) {
        self.0.put(bytes);
    }
}

impl Drop for Reply<'_> {
    fn drop(&mut self) {
        self.0.end_reply();
    }
}

impl<'a> RunReplies<'a> {
    /// Answers into `writer`, inside a [`ResultWriter::start_done`]: what a replica does, and the test of
    /// a machine.
    #[must_use]
    pub fn new(writer: &'a mut ResultWriter) -> Self {
        Self(writer)
    }

    /// Starts the answer to the next command; it ends when the returned value is dropped.
    pub fn reply(&mut self) -> Reply<'_> {
        self.0.start_reply();
        Reply(self.0)
    }
}
