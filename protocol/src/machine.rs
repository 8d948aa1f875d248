//! The state machine that a replica executes the log on.

use crate::block::{Items, ResultWriter};
use crate::{MalformedSnapshot, Position, Slot, Time};

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
/// What a command does and answers must follow from the commands before it, the command and [`At`]
/// alone: no clock, no randomness, no address, no order of a hash map. A machine that panics halts
/// its replica, which names the command; it will panic on every other replica, too. An operator may
/// have that command skipped: then it has no effect. What the machine had changed when it panicked
/// is forgotten, for the replica goes back to a snapshot (R38).
///
/// # Snapshots
///
/// A replica that misses more than its peers still hold of the log gets the state of one of them.
/// The peer calls [`freeze`](Self::freeze), which must not take longer than an ordinary command,
/// and then [`write_frozen`](Self::write_frozen) once for each part; between two calls it goes on
/// to apply commands. What is written must be the state at the time of `freeze`, whatever those
/// commands change: a small machine clones its state in `freeze`, a large one sets aside what a
/// command is about to change and is not yet written, as the built-in key-value machine does. The
/// other replica calls [`clear`](Self::clear), then [`restore`](Self::restore) once for each part,
/// in order. It must then be in the frozen state: the same answers, the same
/// [`state_hash`](Self::state_hash). Two replicas in the same state may write different parts.
///
/// The defaults are those of a machine without snapshots. Its cluster runs all the same, but a
/// replica that is started blank, or falls too far behind, is not brought up once the log that it
/// misses is gone, and its peers say so.
pub trait StateMachine {
    /// Executes `command` and writes its answer to `reply`; writing nothing answers with no bytes.
    fn apply(&mut self, at: At, command: &[u8], reply: &mut Reply<'_>);

    /// Executes all `commands` of a run, in order, one reply each; `at` is the first's.
    ///
    /// To be overridden where a machine gains from seeing many at once, by hashing and prefetching
    /// before it writes. The outcome must be as if each had been applied alone. If it panics, the
    /// command is blamed whose answer was begun last, or the first: begin an answer before anything
    /// that may panic for its command.
    fn apply_run(&mut self, at: At, commands: Items<'_>, replies: &mut RunReplies<'_>) {
        let mut at = at;
        for command in commands {
            self.apply(at, command, &mut replies.reply());
            at.index += 1;
        }
    }

    /// Answers `query` from the state as it is, and changes nothing: the query is not in the log,
    /// and no other replica sees it.
    ///
    /// `at` is where the next command would be executed: the answer reflects all commands before
    /// it. A machine that panics here answers nothing, and goes on.
    ///
    /// # Errors
    ///
    /// If this is no query that the machine answers: then whatever was written to `reply` is
    /// dropped. The default answers none, and its clients read by commands.
    ///
    /// source: \[CP §3.4\]
    fn query(&self, at: At, query: &[u8], reply: &mut Reply<'_>) -> Result<(), NotAQuery> {
        let _ = (at, query, reply);
        Err(NotAQuery)
    }

    /// A digest of the whole state, cheap enough to ask for at any time. Equal states have equal
    /// digests; it is how replicas are checked against each other.
    fn state_hash(&self) -> u64;

    /// Freezes the state as it is now, for [`write_frozen`](Self::write_frozen). Called only when
    /// the state frozen before, if any, is written to its end or cleared. Returns whether the
    /// machine has snapshots.
    fn freeze(&mut self) -> bool {
        false
    }

    /// Appends the next part of the frozen state to `part`, until that has about `bytes_max` bytes,
    /// but at least something new; returns whether there is more to write.
    fn write_frozen(&mut self, part: &mut Vec<u8>, bytes_max: usize) -> bool {
        let _ = (part, bytes_max);
        unreachable!("this machine freezes nothing")
    }

    /// Returns to the initial state, in which nothing is frozen.
    fn clear(&mut self) {}

    /// Restores the next part of a frozen state, as [`write_frozen`](Self::write_frozen) appended
    /// it, beginning with the first after a [`clear`](Self::clear). No command is applied before
    /// the last.
    ///
    /// # Errors
    ///
    /// If the part is not one that this machine writes. Its replica calls [`clear`](Self::clear)
    /// then.
    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        let _ = part;
        Err(MalformedSnapshot)
    }
}

/// What was asked of a state machine is no query that it answers.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct NotAQuery;

/// The place where the answer to one command or query is written.
#[derive(Debug)]
pub struct Reply<'a>(&'a mut ResultWriter);

/// The place where the answers to a run of commands are written.
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
    /// Answers into `writer`, inside a [`ResultWriter::start_done`]: what a replica does, and the
    /// test of a machine.
    #[must_use]
    pub fn new(writer: &'a mut ResultWriter) -> Self {
        Self(writer)
    }

    /// Starts the answer to the next command or query; it ends when the returned value is dropped.
    pub fn reply(&mut self) -> Reply<'_> {
        self.0.start_reply();
        Reply(self.0)
    }
}
