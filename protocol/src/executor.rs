//! The executor: a state machine with its sessions, fed one slot at a time.
//!
//! ```text
//!  run        when                                    does                     says
//!  Open       this life of the gateway has none       a session of this place  Opened
//!             has one                                                          Opened: the first
//!  Skip       the command was skipped                                          nothing
//!             it was executed                      halts
//!  Commands   no such session                                                  UnknownSession
//!             first > next                                                     OutOfOrder
//!             goes beyond the session's window                                 OutOfOrder
//!             executed in part or whole, answers kept executes the rest        Done
//!             executed, answers trimmed                                        Trimmed
//! ```
//!
//! source: R22, R23, R26, R38

mod snapshot;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use self::snapshot::Frozen;
use crate::block::{CommandRun, Items, NoReply, ReplyLimits, ResultWriter, Run, Runs};
use crate::machine::RunReplies;
use crate::session::Sessions;
use crate::{
    Ask, At, Batch, ClusterSettings, Halt, LoggedCommand, Payload, Position, SessionId, Slot,
    StateMachine, Time,
};

/// The longest message of a panic that callers are told, in bytes. What is longer is cut.
const HALT_MESSAGE_BYTES_MAX: usize = 1024;
/// The number of skipped commands that are remembered, until the log has said so of them: each is
/// an operator's own decision, and they are made one after the other.
const SKIPPED_MAX: usize = 64;

/// A state machine with its sessions.
#[derive(Debug)]
pub(crate) struct Executor<M> {
    pub(crate) machine: M,
    sessions: Sessions,
    session_window: u32,
    /// The bytes at which an answer to a gateway that asks ends.
    results_bytes_max: usize,
    /// The log's time. Never goes down.
    time: Time,
    /// The commands that are not to be executed: at which this replica has halted in a former life,
    /// and which the log skips further on.
    skips: BTreeSet<LoggedCommand>,
    /// The last commands that were not executed for that. Part of the state.
    skipped: VecDeque<LoggedCommand>,
    writer: ResultWriter,
    /// The last run of the block in the making: if that is kept, its replies are remembered as a
    /// part of it.
    fresh: Option<Fresh>,
    /// Commands applied.
    pub(crate) commands: u64,
    /// Runs answered from memory.
    pub(crate) repeated_runs: u64,
    /// Runs refused.
    pub(crate) refused_runs: u64,
}

/// A run that was executed just now, and whose replies are not remembered yet.
#[derive(Debug)]
struct Fresh {
    session: SessionId,
    at: Position,
    count: u32,
    /// Where in the block its replies are.
    replies: Range<usize>,
}

/// What the executor knows of a batch that a gateway asks about.
#[derive(Debug)]
pub(crate) enum Known {
    /// Executed, with these outcomes.
    Executed(Payload),
    /// Not executed so far.
    NotYet,
}

impl<M: StateMachine> Executor<M> {
    pub(crate) fn new(machine: M, cluster: &ClusterSettings) -> Self {
        let limits = ReplyLimits {
            reply_bytes_max: cluster.reply_bytes_max as usize,
            run_bytes_max: cluster.answers_bytes_max as usize,
        };
        Self {
            machine,
            sessions: Sessions::new(cluster.sessions_max, cluster.answers_bytes_max),
            session_window: cluster.session_window,
            results_bytes_max: cluster.results_bytes_max as usize,
            time: Time(0),
            skips: BTreeSet::new(),
            skipped: VecDeque::new(),
            writer: ResultWriter::new(limits),
            fresh: None,
            commands: 0,
            repeated_runs: 0,
            refused_runs: 0,
        }
    }

    /// Skips these commands when it comes to them.
    pub(crate) fn skip(&mut self, skips: impl IntoIterator<Item = LoggedCommand>) {
        self.skips.extend(skips);
    }

    /// Executes a slot; returns its outcomes, if they are wanted.
    ///
    /// # Errors
    ///
    /// If the machine panics, the block is no block, or it skips a command that was executed: the
    /// replica can go no further.
    pub(crate) fn execute(
        &mut self,
        slot: Slot,
        batch: &Batch,
        stamp: Time,
        are_wanted: bool,
    ) -> Result<Option<Payload>, Box<Halt>> {
        self.time = self.time.max(stamp);
        let mut index = 0;
        for run in Runs::new(batch.block.as_slice()) {
            self.remember_fresh();
            match run.map_err(|_| Box::new(Halt::Malformed { slot }))? {
                Run::Open { gateway, incarnation } => {
                    let name = SessionId { slot, index };
                    let session = self.sessions.open(gateway, incarnation, name);
                    self.writer.opened(session);
                    index += 1;
                }
                Run::Commands(run) => {
                    self.run(At { slot, index, time: self.time }, run)?;
                    index += run.count;
                }
                Run::Skip(command) => {
                    // One that is proposed twice is skipped once.
                    if command.at.slot < slot && !self.skipped.contains(&command) {
                        return Err(Box::new(Halt::Executed { command }));
                    }
                }
            }
        }
        if !are_wanted {
            self.remember_fresh();
            self.writer.clear();
            return Ok(None);
        }
        let outcomes = self.writer.take();
        if let Some(Fresh { session, at, count, replies }) = self.fresh.take() {
            // Almost every batch has one run: long replies share the memory of the block.
            self.sessions.executed(session, at, count, outcomes.slice(replies));
        }
        Ok(Some(outcomes))
    }

    /// Remembers the replies of a run whose block is not kept, or goes on.
    #[inline]
    fn remember_fresh(&mut self) {
        if let Some(Fresh { session, at, count, replies }) = self.fresh.take() {
            let replies = self.writer.copy(replies);
            self.sessions.executed(session, at, count, replies);
        }
    }

    /// Takes the log's time from a slot of no commands.
    pub(crate) fn pass(&mut self, stamp: Time) {
        self.time = self.time.max(stamp);
    }

    /// The outcome of a batch, as far as this replica has executed: of its first commands, where
    /// their replies take more room than `results_bytes_max`.
    ///
    /// source: R25
    pub(crate) fn known(&mut self, ask: &Ask, executed_any_after: bool) -> Known {
        let Some(id) = ask.session else {
            let opened = self.sessions.opened_by(ask.batch.gateway, ask.batch.incarnation);
            return match opened {
                Some(session) => {
                    self.writer.opened(session);
                    Known::Executed(self.writer.take())
                }
                None => Known::NotYet,
            };
        };
        let Some(session) = self.sessions.session(id) else {
            if !executed_any_after {
                return Known::NotYet; // its Open has not been executed here
            }
            self.writer.unknown_session(id);
            return Known::Executed(self.writer.take());
        };
        match session.run_answers(ask.first, ask.count) {
            Some(answers) => {
                self.writer.done(id, ask.first, answers.within(self.results_bytes_max));
                Known::Executed(self.writer.take())
            }
            None => Known::NotYet,
        }
    }

    /// Runs whose replies are not kept any more, though their owners may not have them.
    pub(crate) fn let_go(&self) -> u64 {
        self.sessions.let_go
    }

    pub(crate) fn validate(&self) {
        self.sessions.validate(self.session_window);
    }

    /// Executes what of a run is new.
    fn run(&mut self, at: At, run: CommandRun<'_>) -> Result<(), Box<Halt>> {
        let next = self.sessions.trim(run.session, run.lowest_unanswered, at.slot);
        let Some(next) = next else {
            self.refused_runs += 1;
            self.writer.unknown_session(run.session);
            return Ok(());
        };
        let window = u64::from(self.session_window);
        let (Some(end), Some(limit)) =
            (run.first.checked_add(run.count.into()), run.lowest_unanswered.checked_add(window))
        else {
            return Err(Box::new(Halt::Malformed { slot: at.slot }));
        };
        if run.first > next || end > limit {
            self.refused_runs += 1;
            self.writer.out_of_order(run.session, next);
            return Ok(());
        }
        if run.first == next {
            return self.apply(at, run, run.count);
        }
        self.repeated_runs += 1;
        self.rerun(at, run, next)
    }

    /// Answers a run that was executed before, in part or whole, and executes the rest.
    ///
    /// A gateway sends the same runs again, so as a rule it is the whole of one that was executed
    /// as one; pieces of several are answered as of here.
    fn rerun(&mut self, at: At, run: CommandRun<'_>, next: u64) -> Result<(), Box<Halt>> {
        let end = run.first + u64::from(run.count);
        if let Some(session) = self.sessions.session(run.session) {
            if let Some(answers) = session.run_answers(run.first, run.count) {
                self.writer.done(run.session, run.first, answers);
                return Ok(());
            }
            let answered = run.first..end.min(next);
            if answered.clone().any(|number| session.answer(number).is_none()) {
                self.writer.trimmed(run.session);
                return Ok(());
            }
            self.writer.start_done(run.session, run.first, at.position());
            for number in answered {
                self.writer.reply(session.answer(number).unwrap_or(Ok(&[])));
            }
        }
        let Some(rest) = end.checked_sub(next).filter(|rest| *rest > 0) else {
            self.writer.end_done();
            return Ok(());
        };
        assert!(rest < u64::from(run.count), "a run that is all new was taken for a repeated one");
        self.apply(at, run, u32::try_from(rest).unwrap_or(run.count))
    }

    /// Applies the last `count` commands of a run; the others were answered already.
    fn apply(&mut self, at: At, run: CommandRun<'_>, count: u32) -> Result<(), Box<Halt>> {
        let skipped = run.count - count;
        let at = At { index: at.index + skipped, ..at };
        if skipped == 0 {
            self.writer.start_done(run.session, run.first, at.position());
        }
        let start = self.writer.len();
        let commands = run.commands.skipping(skipped.into());
        let is_skip_here = |skip: &LoggedCommand| skip.at.slot == at.slot;
        match self.skips.iter().any(is_skip_here) {
            false => self.apply_all(at, commands)?,
            true => self.apply_with_skips(at, commands)?,
        }
        let done = self.writer.replies_count() - skipped;
        if done != count {
            // The block holds fewer commands than its header says, or the machine skipped one.
            return Err(Box::new(Halt::Malformed { slot: at.slot }));
        }
        assert!(count <= run.count, "applied {count} of {} commands", run.count);
        self.commands += u64::from(count);
        let replies = start..self.writer.end_done().end;
        self.fresh = Some(Fresh { session: run.session, at: at.position(), count, replies });
        Ok(())
    }

    /// Applies `commands`, of which the first is `at`.
    fn apply_all(&mut self, at: At, commands: Items<'_>) -> Result<(), Box<Halt>> {
        if commands.as_slice().is_empty() {
            return Ok(()); // all that was left is skipped
        }
        let before = self.writer.replies_count();
        let (machine, writer) = (&mut self.machine, &mut self.writer);
        let applied = catch_unwind(AssertUnwindSafe(|| {
            machine.apply_run(at, commands, &mut RunReplies::new(writer));
        }));
        let Err(panic) = applied else { return Ok(()) };
        let done = (self.writer.replies_count() - before).saturating_sub(1);
        let bytes = commands.skipping(done.into()).next().unwrap_or_default();
        let at = Position { slot: at.slot, index: at.index + done };
        let command = LoggedCommand { at, checksum: checksum(bytes) };
        let mut message = panic_message(panic.as_ref());
        message.truncate(message.floor_char_boundary(HALT_MESSAGE_BYTES_MAX));
        Err(Box::new(Halt::Panicked { command, message }))
    }

    /// Applies `commands`, of which the first is `at`, but for those that are skipped: these have
    /// no effect, and their answer says so.
    ///
    /// source: R38
    fn apply_with_skips(&mut self, at: At, commands: Items<'_>) -> Result<(), Box<Halt>> {
        let (mut at, mut rest, mut before) = (at, commands, 0);
        for (bytes, index) in commands.zip(at.index..) {
            let skip = LoggedCommand { at: Position { index, ..at.position() }, checksum: 0 };
            let mut known = self.skips.range(skip..).take_while(|it| it.at == skip.at);
            let Some(skip) = known.find(|it| it.checksum == checksum(bytes)).copied() else {
                before += 1;
                continue;
            };
            self.apply_all(at, rest.first(before))?;
            self.writer.reply(Err(NoReply::Skipped));
            self.note_skipped(skip);
            (at.index, rest, before) = (index + 1, rest.skipping(before + 1), 0);
        }
        self.apply_all(at, rest)
    }

    fn note_skipped(&mut self, command: LoggedCommand) {
        if self.skipped.len() >= SKIPPED_MAX {
            self.skipped.pop_front();
        }
        self.skipped.push_back(command);
    }
}

fn checksum(command: &[u8]) -> u32 {
    Payload::copy(command).checksum()
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
