//! A check of state machines: whether replicas that run one stay equal, and can be brought up from
//! its snapshots.
//!
//! ```text
//!   first    one command at a time ──┐ one of them frozen, now and then: parts are written
//!   second   in runs                 ┘ between what they execute
//!   restored other state, cleared, then the parts, then what came since; goes on as the second
//!   again    all commands since the start, on a machine that was cleared
//! ```
//!
//! All of them are given the same random commands; answers and hashes must be the same at each. The
//! first and the second are also asked each command as a query, which must change neither.
//! What cannot be found so is left to the machine's author: a command that takes too long, and
//! what depends on another build, another machine or the time of day.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub use crate::Rng;
use crate::block::{BatchWriter, Items, Outcome, Outcomes, ResultWriter, Run, Runs};
use crate::executor::panic_message;
use crate::machine::RunReplies;
use crate::{At, Payload, SessionId, Slot, StateMachine, Time};

/// The commands of a run, at the most.
const RUN_COMMANDS_MAX: u64 = 40;
/// The parts of a snapshot of a history, at the most: a machine that never ends is told from one
/// that is slow.
const PARTS_MAX: usize = 1 << 20;

/// How a state machine is checked. The default takes a second or so for a machine that is fast.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Conformance {
    /// Everything random follows from it.
    pub seed: u64,
    /// Histories, each with new machines.
    pub histories: u32,
    /// Runs of commands in each.
    pub runs: u32,
}

/// What was checked.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Conforms {
    /// Commands of all histories.
    pub commands: u64,
    /// Snapshots that were restored; zero for a machine without any.
    pub snapshots: u64,
}

/// The first thing that is wrong with a state machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Violation {
    /// The seed of its history: with this one and a single history it comes again.
    pub seed: u64,
    /// The number of commands in that history before the run in which it was found.
    pub command: usize,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a state machine.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The same command after the same ones is answered differently.
    Answers {
        /// The machine that differs from the first.
        by: &'static str,
        /// The answer of the first.
        first: Vec<u8>,
        /// The other answer.
        other: Vec<u8>,
    },
    /// After the same commands the digests of the states differ.
    States {
        /// The machine that differs from the first.
        by: &'static str,
        /// The digest of the first.
        first: u64,
        /// The other digest.
        other: u64,
    },
    /// A run of commands was given fewer replies than it has commands, or more.
    Replies {
        /// Its commands.
        commands: usize,
        /// Its replies.
        replies: usize,
    },
    /// It panicked.
    Panicked {
        /// In which method.
        method: &'static str,
        /// The panic's message.
        message: String,
    },
    /// It has snapshots at one time, and none at another.
    SometimesFrozen,
    /// A part is empty, or there is no end of parts.
    Endless,
    /// It refuses a part that it has written.
    Refused {
        /// The number of the part.
        part: usize,
    },
}

/// A run of commands as it was given, and what became of it.
struct Done {
    at: At,
    commands: Vec<Vec<u8>>,
    answers: Vec<Vec<u8>>,
    /// The digest of the state behind it.
    hash: u64,
}

/// A state that was frozen: of which machine, after how many runs, and its parts so far.
struct Frozen {
    is_second: bool,
    after: usize,
    bytes_max: usize,
    parts: Vec<Vec<u8>>,
}

impl Default for Conformance {
    fn default() -> Self {
        Self { seed: 0, histories: 50, runs: 100 }
    }
}

impl Conformance {
    /// Checks the machines that `make` makes, each in its initial state, by commands that `command`
    /// draws.
    ///
    /// # Errors
    ///
    /// The first thing that is wrong, and the seed of the history in which it is.
    pub fn check<M: StateMachine>(
        &self,
        mut make: impl FnMut() -> M,
        mut command: impl FnMut(&mut Rng) -> Vec<u8>,
    ) -> Result<Conforms, Violation> {
        let mut conforms = Conforms::default();
        for seed in (self.seed..).take(self.histories as usize) {
            let mut history = History::new(seed, &mut make);
            let checked = history.run(self.runs, &mut make, &mut command);
            let so_far = history.commands_count();
            checked.map_err(|fault| Violation { seed, command: so_far, fault })?;
            conforms.commands += so_far as u64;
            conforms.snapshots += history.snapshots;
        }
        Ok(conforms)
    }
}

/// A history under way.
struct History<M> {
    rng: Rng,
    first: M,
    second: M,
    /// The digest of the initial state.
    initial: u64,
    done: Vec<Done>,
    frozen: Option<Frozen>,
    has_snapshots: bool,
    snapshots: u64,
}

impl<M: StateMachine> History<M> {
    fn new(seed: u64, make: &mut impl FnMut() -> M) -> Self {
        let (first, second) = (make(), make());
        Self {
            rng: Rng::new(seed),
            initial: first.state_hash(),
            first,
            second,
            done: Vec::new(),
            frozen: None,
            has_snapshots: make().freeze(),
            snapshots: 0,
        }
    }

    fn commands_count(&self) -> usize {
        self.done.iter().map(|done| done.commands.len()).sum()
    }

    fn run(
        &mut self,
        runs: u32,
        make: &mut impl FnMut() -> M,
        command: &mut impl FnMut(&mut Rng) -> Vec<u8>,
    ) -> Result<(), Fault> {
        same_hash("a second machine, made anew", self.initial, self.second.state_hash())?;
        let mut time = Time(0);
        for slot in 0..u64::from(runs) {
            let count = 1 + self.rng.below(self.rng.clone().below(RUN_COMMANDS_MAX) + 1);
            let commands: Vec<_> = (0..count).map(|_| command(&mut self.rng)).collect();
            time.0 += self.rng.below(1 << 40);
            let index = u32::try_from(self.rng.below(9)).unwrap_or(0);
            self.execute(At { slot: Slot(slot), index, time }, commands)?;
            self.query()?;
            self.go_on_freezing(make)?;
        }
        while self.frozen.is_some() {
            self.write_part(make)?;
        }
        // All of it again. A machine without snapshots is never cleared.
        if !self.has_snapshots {
            return replay("a third machine, all commands again", &mut make(), &self.done);
        }
        guarded("clear", || self.second.clear())?;
        same_hash("a machine that was cleared", self.initial, self.second.state_hash())?;
        replay("a machine that was cleared, all commands again", &mut self.second, &self.done)
    }

    fn frozen_machine(&mut self, is_second: bool) -> &mut M {
        if is_second { &mut self.second } else { &mut self.first }
    }

    /// Gives a run to both machines, and compares what they make of it.
    fn execute(&mut self, at: At, commands: Vec<Vec<u8>>) -> Result<(), Fault> {
        let answers = one_by_one(&mut self.first, at, &commands)?;
        let hash = self.first.state_hash();
        self.done.push(Done { at, commands, answers, hash });
        same_hash("the same machine, asked again", hash, self.first.state_hash())?;
        let last = &self.done[self.done.len() - 1..];
        replay("a second machine, by apply_run", &mut self.second, last)
    }

    /// Asks both machines the commands of the last run as queries, and compares what they answer,
    /// if they do, and what becomes of them.
    fn query(&self) -> Result<(), Fault> {
        let Some(Done { at, commands, hash, .. }) = self.done.last() else { return Ok(()) };
        let at = At { slot: at.slot.next(), index: 0, time: at.time };
        for query in commands {
            let first = answer_to_query(&self.first, at, query)?;
            let other = answer_to_query(&self.second, at, query)?;
            if first != other {
                let (first, other) = (first.unwrap_or_default(), other.unwrap_or_default());
                return Err(Fault::Answers { by: "a second machine, by query", first, other });
            }
        }
        same_hash("the same machine, after queries", *hash, self.first.state_hash())?;
        same_hash("a second machine, after queries", *hash, self.second.state_hash())
    }

    /// Freezes the state now and then, and writes some of what is frozen.
    fn go_on_freezing(&mut self, make: &mut impl FnMut() -> M) -> Result<(), Fault> {
        if self.frozen.is_none() && self.rng.below(8) == 0 {
            let is_second = self.rng.below(2) == 0;
            let machine = self.frozen_machine(is_second);
            let before = machine.state_hash();
            let is_frozen = guarded("freeze", || machine.freeze())?;
            same_hash("the same machine, frozen", before, machine.state_hash())?;
            if self.has_snapshots != is_frozen {
                return Err(Fault::SometimesFrozen);
            }
            let sizes = [1, 20, 300, 4000, 60_000];
            let bytes_max = sizes[usize::try_from(self.rng.below(5)).unwrap_or(0)];
            let after = self.done.len();
            let frozen = Frozen { is_second, after, bytes_max, parts: Vec::new() };
            self.frozen = is_frozen.then_some(frozen);
        }
        for _ in 0..self.rng.below(4) {
            if self.frozen.is_some() {
                self.write_part(make)?;
            }
        }
        Ok(())
    }

    /// Writes the next part of what is frozen; restores it once it is whole.
    fn write_part(&mut self, make: &mut impl FnMut() -> M) -> Result<(), Fault> {
        let Some(mut frozen) = self.frozen.take() else { return Ok(()) };
        let mut part = vec![b'<']; // what is there already must stay
        let (machine, bytes_max) = (self.frozen_machine(frozen.is_second), frozen.bytes_max);
        let is_more = guarded("write_frozen", || machine.write_frozen(&mut part, bytes_max))?;
        let (has_kept, has_added) = (part.first() == Some(&b'<'), part.len() > 1);
        if !has_kept || is_more && !has_added || frozen.parts.len() >= PARTS_MAX {
            return Err(Fault::Endless);
        }
        part.remove(0);
        frozen.parts.push(part);
        if is_more {
            self.frozen = Some(frozen);
            return Ok(());
        }
        self.snapshots += 1;
        let mut restored = self.used(make)?;
        for (part, bytes) in frozen.parts.iter().enumerate() {
            let taken = guarded("restore", || restored.restore(bytes))?;
            taken.map_err(|_| Fault::Refused { part })?;
        }
        let expected = frozen.after.checked_sub(1).map_or(self.initial, |run| self.done[run].hash);
        same_hash("a machine that was restored", expected, restored.state_hash())?;
        let since = &self.done[frozen.after..];
        replay("a machine that was restored, what came since", &mut restored, since)?;
        self.try_damaged(&frozen, make)?;
        self.second = restored;
        Ok(())
    }

    /// A machine that has executed something, was frozen and half written, then cleared, and can be
    /// frozen again.
    fn used(&mut self, make: &mut impl FnMut() -> M) -> Result<M, Fault> {
        let mut machine = make();
        let some = usize::try_from(self.rng.below(self.done.len() as u64 + 1)).unwrap_or(0);
        replay("a third machine", &mut machine, &self.done[..some])?;
        if guarded("freeze", || machine.freeze())? {
            guarded("write_frozen", || machine.write_frozen(&mut Vec::new(), 1))?;
        }
        guarded("clear", || machine.clear())?;
        guarded("freeze", || machine.freeze())?;
        guarded("clear", || machine.clear())?;
        same_hash("a machine that was cleared", self.initial, machine.state_hash())?;
        Ok(machine)
    }

    /// What is damaged may be refused or not, for its reader has a checksum; it must not panic, and
    /// a machine that is cleared then is as new.
    fn try_damaged(&mut self, frozen: &Frozen, make: &mut impl FnMut() -> M) -> Result<(), Fault> {
        let mut machine = make();
        let damaged = self.rng.below(frozen.parts.len() as u64);
        for (part, bytes) in (0..).zip(&frozen.parts) {
            let mut bytes = bytes.clone();
            let at = usize::try_from(self.rng.below(bytes.len().max(1) as u64)).unwrap_or(0);
            match bytes.get_mut(at).filter(|_| part == damaged) {
                Some(byte) if self.rng.below(2) == 0 => *byte ^= 1 << self.rng.below(8),
                Some(_) => bytes.truncate(at),
                None => {}
            }
            if guarded("restore", || machine.restore(&bytes))?.is_err() {
                break;
            }
        }
        guarded("clear", || machine.clear())?;
        same_hash("a machine that was cleared", self.initial, machine.state_hash())
    }
}

/// Gives what was `done` to another machine, in runs, and compares.
fn replay<M: StateMachine>(by: &'static str, machine: &mut M, done: &[Done]) -> Result<(), Fault> {
    for Done { at, commands, answers, hash } in done {
        let others = in_a_run(machine, *at, commands)?;
        if others.len() != commands.len() {
            return Err(Fault::Replies { commands: commands.len(), replies: others.len() });
        }
        for (first, other) in answers.iter().zip(others) {
            if *first != other {
                return Err(Fault::Answers { by, first: first.clone(), other });
            }
        }
        same_hash(by, *hash, machine.state_hash())?;
    }
    Ok(())
}

fn one_by_one<M: StateMachine>(
    machine: &mut M,
    at: At,
    commands: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, Fault> {
    let mut answers = Vec::new();
    for (command, index) in commands.iter().zip(at.index..) {
        let at = At { index, ..at };
        answers.extend(answers_to(at, |replies| {
            guarded("apply", || machine.apply(at, command, &mut replies.reply()))
        })?);
    }
    Ok(answers)
}

fn in_a_run<M: StateMachine>(
    machine: &mut M,
    at: At,
    commands: &[Vec<u8>],
) -> Result<Vec<Vec<u8>>, Fault> {
    let mut writer = BatchWriter::default();
    for command in commands {
        writer.push(command);
    }
    let block = writer.close(SessionId::default(), 0, 0);
    let commands = match Runs::new(block.as_slice()).next() {
        Some(Ok(Run::Commands(run))) => run.commands,
        _ => Items::default(),
    };
    answers_to(at, |replies| guarded("apply_run", || machine.apply_run(at, commands, replies)))
}

/// The answer to a query, if it is one.
fn answer_to_query<M: StateMachine>(
    machine: &M,
    at: At,
    query: &[u8],
) -> Result<Option<Vec<u8>>, Fault> {
    let mut is_query = false;
    let answers = answers_to(at, |replies| {
        let answered = guarded("query", || machine.query(at, query, &mut replies.reply()))?;
        is_query = answered.is_ok();
        Ok(())
    })?;
    Ok(answers.into_iter().next().filter(|_| is_query))
}

/// The answers that `execute` writes.
fn answers_to(
    at: At,
    execute: impl FnOnce(&mut RunReplies<'_>) -> Result<(), Fault>,
) -> Result<Vec<Vec<u8>>, Fault> {
    let mut writer = ResultWriter::default();
    writer.start_done(SessionId::default(), 0, at.position());
    execute(&mut RunReplies::new(&mut writer))?;
    writer.end_done();
    let block: Payload = writer.take();
    let mut answers = Vec::new();
    for outcome in Outcomes::new(block.as_slice()) {
        if let Ok(Outcome::Done { replies, .. }) = outcome {
            answers.extend(replies.map(|reply| reply.unwrap_or_default().to_vec()));
        }
    }
    Ok(answers)
}

fn same_hash(by: &'static str, first: u64, other: u64) -> Result<(), Fault> {
    if first == other { Ok(()) } else { Err(Fault::States { by, first, other }) }
}

fn guarded<T>(method: &'static str, call: impl FnOnce() -> T) -> Result<T, Fault> {
    catch_unwind(AssertUnwindSafe(call))
        .map_err(|panic| Fault::Panicked { method, message: panic_message(panic.as_ref()) })
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, command, fault } = self;
        write!(f, "in the run after command {command} of the history of seed {seed}: {fault}")
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Answers { by, first, other } => {
                let (first, other) = (first.escape_ascii(), other.escape_ascii());
                write!(f, "{by}: it answers \"{other}\", and the first answered \"{first}\"")
            }
            Self::States { by, first, other } => write!(
                f,
                "{by}: the digest of its state is {other:016x}, and that of the first {first:016x}"
            ),
            Self::Replies { commands, replies } => {
                write!(f, "apply_run gave {replies} replies to {commands} commands")
            }
            Self::Panicked { method, message } => write!(f, "{method} panicked: {message}"),
            Self::SometimesFrozen => {
                f.write_str("freeze returned true at one time, and false at another")
            }
            Self::Endless => {
                f.write_str("write_frozen changed what was there, added nothing, or has no end")
            }
            Self::Refused { part } => {
                write!(f, "restore refused part {part}, which it has written")
            }
        }
    }
}

impl std::error::Error for Violation {}

#[cfg(test)]
mod tests;
