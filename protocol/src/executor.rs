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
//!  … of a client, as far as its gateway's session has it executed now:
//!             no such session, or not used for long                            NoSession, for each
//!             its first > next, or beyond the window                           OutOfOrder, for each
//!             executed before, answers kept        nothing                     the same, from where it was
//!             … answers trimmed                    nothing                     Forgotten
//!             else                                 executes it                 Done
//!  … of a new client                               a session of this place, or its name
//!                                                  the one with its key
//! ```
//!
//! Why a client's command is executed once, though two gateways have it: both sessions are part of
//! the replicated state, and a command is executed only where it is the next one of both. Whichever
//! gateway's run comes first in the log executes it, on every replica; in the other's the client's
//! session has gone on, and the run gets the answers that are kept. A client never gives a number
//! to another command, so what is answered from memory is what was asked (R23). A session that has
//! ended is never opened again under its name, nor is one opened by a command: what its client
//! sends is refused, and the client knows that it does not know (R22).
//!
//! The replies to a client's run are kept once, in the client's session: its gateway's refers to
//! them.
//!
//! source: R22, R23, R26, R38

mod snapshot;
#[cfg(test)]
mod tests;

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};

pub(crate) use self::snapshot::Frozen;
use crate::block::{
    CommandRun, Items, NoReply, ReplyLimits, ResultWriter, Run, RunAnswers, RunOwner, Runs,
};
use crate::machine::RunReplies;
use crate::session::{Opener, Replies, Session, Sessions};
use crate::{
    Ask, At, Batch, ClusterSettings, Halt, INLINE_BYTES_MAX, LoggedCommand, NotAQuery, Payload,
    Pool, Position, SessionId, Slot, StateMachine, Time, Watermark,
};

/// The longest message of a panic that callers are told, in bytes. What is longer is cut.
const HALT_MESSAGE_BYTES_MAX: usize = 1024;
/// The number of skipped commands that are remembered, until the log has said so of them: each is
/// an operator's own decision, and they are made one after the other.
const SKIPPED_MAX: usize = 64;

/// The most copies of replies whose memory is remembered to be used again, and how long each is: as
/// a rule a client says after a few runs that it has them.
const COPIES_MAX: usize = 1024;
const COPY_BYTES_MAX: usize = 16 << 10;

/// A state machine with its sessions.
#[derive(Debug)]
pub(crate) struct Executor<M> {
    pub(crate) machine: M,
    /// Those of gateways.
    sessions: Sessions,
    /// Those of clients that have their own.
    clients: Sessions,
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
    /// The memory of replies that are kept for clients.
    copies: Pool<Vec<u8>>,
    /// The last run of the block in the making: if that is kept, its replies are remembered as a
    /// part of it.
    fresh: Option<Fresh>,
    /// Of such a run of a client.
    fresh_of_client: FreshOfClient,
    /// Commands applied.
    pub(crate) commands: u64,
    /// Runs answered from memory.
    pub(crate) repeated_runs: u64,
    /// Runs refused.
    pub(crate) refused_runs: u64,
    /// Queries answered, and those among them at which the machine panicked.
    pub(crate) queries: u64,
    pub(crate) queries_panicked: u64,
}

/// A run that was executed just now, and whose replies are not remembered yet.
#[derive(Debug)]
struct Fresh {
    session: SessionId,
    /// Whether a client's session keeps its replies: [`Executor::fresh_of_client`].
    is_of_client: bool,
    at: Position,
    count: u32,
    /// Where in the block its replies are.
    replies: Range<usize>,
}

/// Where a client's session keeps the replies of a run.
#[derive(Clone, Copy, Debug, Default)]
struct FreshOfClient {
    client: SessionId,
    /// The number of the run's first command there.
    first: u64,
    /// Whether that session has executed it just now, too, and keeps nothing of it yet.
    is_new: bool,
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
            block_bytes_max: cluster.answers_bytes_max as usize,
        };
        Self {
            machine,
            sessions: Sessions::new(cluster.sessions_max, cluster.answers_bytes_max, None),
            clients: Sessions::new(
                cluster.client_sessions_max,
                cluster.answers_bytes_max,
                Some(cluster.client_session_unused_max),
            ),
            session_window: cluster.session_window,
            results_bytes_max: cluster.results_bytes_max as usize,
            time: Time(0),
            skips: BTreeSet::new(),
            skipped: VecDeque::new(),
            writer: ResultWriter::new(limits),
            copies: Pool::new(COPIES_MAX),
            fresh: None,
            fresh_of_client: FreshOfClient::default(),
            commands: 0,
            repeated_runs: 0,
            refused_runs: 0,
            queries: 0,
            queries_panicked: 0,
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
                    let at = At { slot, index, time: self.time };
                    let session = self.sessions.open(Opener::Gateway(gateway, incarnation), at);
                    self.writer.opened(session);
                    index += 1;
                }
                Run::Commands(run) => {
                    self.run(At { slot, index, time: self.time }, &run)?;
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
        if let Some(fresh) = self.fresh.take() {
            // Almost every batch has one run: long replies share the memory of the block.
            let replies = outcomes.slice(fresh.replies.clone());
            self.remember(&fresh, replies);
        }
        Ok(Some(outcomes))
    }

    #[inline(always)]
    fn remember(&mut self, fresh: &Fresh, replies: Payload) {
        if fresh.is_of_client {
            return self.remember_of_client(fresh, &replies);
        }
        let replies = Replies::Payload(replies);
        self.sessions.executed(fresh.session, fresh.at, fresh.count, replies);
    }

    /// The client's session keeps a copy: a reference would keep the whole block alive, for as long
    /// as the client likes.
    #[inline(never)]
    fn remember_of_client(&mut self, fresh: &Fresh, replies: &Payload) {
        let FreshOfClient { client, first, is_new } = self.fresh_of_client;
        if is_new {
            let bytes = replies.as_slice();
            let is_pooled = (INLINE_BYTES_MAX + 1..COPY_BYTES_MAX).contains(&bytes.len());
            let replies = match is_pooled {
                true => Replies::Copy(self.copies.hand_out_filled(|copy| {
                    copy.clear();
                    copy.extend_from_slice(bytes);
                })),
                false => Replies::Payload(Payload::copy(bytes)),
            };
            self.clients.executed(client, fresh.at, fresh.count, replies);
        }
        let replies = Replies::OfClient { client, first };
        self.sessions.executed(fresh.session, fresh.at, fresh.count, replies);
    }

    /// Remembers the replies of a run whose block is not kept, or goes on.
    #[inline]
    fn remember_fresh(&mut self) {
        if self.fresh.is_some() {
            self.remember_a_copy();
        }
    }

    fn remember_a_copy(&mut self) {
        if let Some(fresh) = self.fresh.take() {
            let replies = self.writer.copy(fresh.replies.clone());
            self.remember(&fresh, replies);
        }
    }

    /// Answers queries from the state as it is, with all below `executed` executed: the first of
    /// them, up to a reply that ends at `results_bytes_max` bytes or beyond.
    ///
    /// A machine that panics at one cannot have changed, so it goes on.
    ///
    /// source: R29, \[CP §3.4\]
    pub(crate) fn query(&mut self, executed: Watermark, queries: Items<'_>) -> Payload {
        let at = At { slot: executed.first_open(), index: 0, time: self.time };
        self.writer.start_queries();
        for query in queries {
            if self.writer.len() >= self.results_bytes_max {
                break;
            }
            let (machine, writer) = (&self.machine, &mut self.writer);
            let answered = catch_unwind(AssertUnwindSafe(|| {
                machine.query(at, query, &mut RunReplies::new(writer).reply())
            }));
            self.queries += 1;
            match answered {
                Ok(Ok(())) => {}
                Ok(Err(NotAQuery)) => self.writer.withdraw_reply(NoReply::NotAQuery),
                Err(_) => {
                    self.queries_panicked += 1;
                    self.writer.withdraw_reply(NoReply::Panicked);
                }
            }
        }
        self.writer.take()
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
            let opener = Opener::Gateway(ask.batch.gateway, ask.batch.incarnation);
            let opened = self.sessions.opened_by(opener);
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
        let asked = ask.first..ask.first.saturating_add(ask.count.into());
        let is_executed = asked.end <= session.next();
        let bytes_max = self.results_bytes_max;
        let kept = Kept { id, session, clients: &self.clients };
        if is_executed && put_answers(&mut self.writer, kept, asked, bytes_max) {
            return Known::Executed(self.writer.take());
        }
        Known::NotYet
    }

    /// Runs whose replies are not kept any more, though their owners may not have them.
    pub(crate) fn let_go(&self) -> u64 {
        self.sessions.let_go + self.clients.let_go
    }

    pub(crate) fn validate(&self) {
        self.sessions.validate(self.session_window);
        self.clients.validate(self.session_window);
    }

    /// Executes what of a run is new.
    fn run(&mut self, at: At, run: &CommandRun<'_>) -> Result<(), Box<Halt>> {
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
            return match run.owner {
                RunOwner::Gateway => self.apply(at, run, run.count),
                RunOwner::Client { .. } | RunOwner::NewClient { .. } => {
                    self.run_of_client(at, run, 0)
                }
            };
        }
        self.repeated_runs += 1;
        self.rerun(at, run, next)
    }

    /// Answers a run that was executed before, in part or whole, and executes the rest.
    ///
    /// A gateway sends the same runs again, so as a rule it is the whole of one that was executed
    /// as one; a client's may have been executed in pieces.
    fn rerun(&mut self, at: At, run: &CommandRun<'_>, next: u64) -> Result<(), Box<Halt>> {
        let end = run.first + u64::from(run.count);
        let answered = run.first..end.min(next);
        let (id, clients) = (run.session, &self.clients);
        let kept = self.sessions.session(id).map(|session| Kept { id, session, clients });
        if let Some(kept) = kept
            && !put_answers(&mut self.writer, kept, answered, usize::MAX)
        {
            self.writer.trimmed(run.session);
            return Ok(());
        }
        let Some(rest) = end.checked_sub(next).filter(|rest| *rest > 0) else { return Ok(()) };
        assert!(rest < u64::from(run.count), "a run that is all new was taken for a repeated one");
        let rest = u32::try_from(rest).unwrap_or(run.count);
        match run.owner {
            RunOwner::Gateway => self.apply(at, run, rest),
            RunOwner::Client { .. } | RunOwner::NewClient { .. } => {
                self.run_of_client(at, run, run.count - rest)
            }
        }
    }

    /// Executes what is new to its gateway's session of a run of a client, all but the first
    /// `skipped` commands: as far as it is new to the client's session, too. Each piece is an
    /// outcome of its own, since those that were executed before were so at other places.
    ///
    /// source: R22, R23
    fn run_of_client(
        &mut self,
        at: At,
        run: &CommandRun<'_>,
        skipped: u32,
    ) -> Result<(), Box<Halt>> {
        let (client, first, lowest) = match run.owner {
            RunOwner::Client { session, first, lowest_unanswered } => {
                (session, first, lowest_unanswered)
            }
            RunOwner::NewClient { key } => {
                let session = self.clients.open(Opener::Client(key), at);
                self.answer(at, run, 0..run.count, Ok(&session.to_bytes()));
                return Ok(());
            }
            RunOwner::Gateway => unreachable!("a run without a client"),
        };
        let Some(next) = self.clients.trim_in_time(client, lowest, at) else {
            self.answer(at, run, skipped..run.count, Err(NoReply::NoSession));
            return Ok(());
        };
        // These numbers are a client's, which may say anything: none of them may halt a replica.
        let limit = lowest.saturating_add(self.session_window.into());
        let end = first.checked_add(run.count.into());
        let Some(end) = end.filter(|_| first + u64::from(skipped) <= next) else {
            self.answer(at, run, skipped..run.count, Err(NoReply::OutOfOrder));
            return Ok(());
        };
        let mut number = first + u64::from(skipped);
        while number < end {
            self.remember_fresh();
            let done = u32::try_from(number - first).unwrap_or(u32::MAX);
            if number == next && end > limit {
                self.answer(at, run, done..run.count, Err(NoReply::OutOfOrder));
                return Ok(());
            }
            if number == next {
                self.fresh_of_client = FreshOfClient { client, first: number, is_new: true };
                return self.apply(at, run, run.count - done);
            }
            let most = u32::try_from(end.min(next) - number).unwrap_or(u32::MAX);
            self.repeated_runs += 1;
            let session = self.clients.session(client);
            let known = session.and_then(|it| it.own_answers_from(number, most));
            let count = match known {
                Some(RunAnswers { replies, count, .. })
                    if !self.writer.has_room(replies.as_slice().len()) =>
                {
                    self.answer(at, run, done..done + count, Err(NoReply::TooLarge));
                    count
                }
                Some(answers) => {
                    let session = run.session;
                    let first = run.first + u64::from(done);
                    let replies = self.writer.done(session, first, answers);
                    let RunAnswers { at, count, .. } = answers;
                    self.fresh_of_client = FreshOfClient { client, first: number, is_new: false };
                    self.fresh = Some(Fresh { session, is_of_client: true, at, count, replies });
                    count
                }
                None => {
                    self.answer(at, run, done..done + 1, Err(NoReply::Forgotten));
                    1
                }
            };
            number += u64::from(count);
        }
        Ok(())
    }

    /// Gives these commands of a run the same answer, and executes nothing.
    fn answer(
        &mut self,
        at: At,
        run: &CommandRun<'_>,
        which: Range<u32>,
        reply: Result<&[u8], NoReply>,
    ) {
        self.remember_fresh();
        let at = Position { index: at.index + which.start, ..at.position() };
        self.writer.start_done(run.session, run.first + u64::from(which.start), at);
        let (session, count) = (run.session, which.end - which.start);
        which.for_each(|_| self.writer.reply(reply));
        let replies = self.writer.end_done();
        self.fresh = Some(Fresh { session, is_of_client: false, at, count, replies });
    }

    /// Applies the last `count` commands of a run, which are new to the session of its client, too,
    /// if they are one's; the others were answered already.
    fn apply(&mut self, at: At, run: &CommandRun<'_>, count: u32) -> Result<(), Box<Halt>> {
        let skipped = run.count - count;
        let at = At { index: at.index + skipped, ..at };
        self.writer.start_done(run.session, run.first + u64::from(skipped), at.position());
        let commands = run.commands.skipping(skipped.into());
        let is_skip_here = |skip: &LoggedCommand| skip.at.slot == at.slot;
        match self.skips.iter().any(is_skip_here) {
            false => self.apply_all(at, commands)?,
            true => self.apply_with_skips(at, commands)?,
        }
        let done = self.writer.replies_count();
        if done != count {
            // The block holds fewer commands than its header says, or the machine skipped one.
            return Err(Box::new(Halt::Malformed { slot: at.slot }));
        }
        assert!(count <= run.count, "applied {count} of {} commands", run.count);
        self.commands += u64::from(count);
        let replies = self.writer.end_done();
        let at = at.position();
        let is_of_client = matches!(run.owner, RunOwner::Client { .. });
        self.fresh = Some(Fresh { session: run.session, is_of_client, at, count, replies });
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

/// A gateway's session, and those of clients, which keep some of its answers.
struct Kept<'a> {
    id: SessionId,
    session: &'a Session,
    clients: &'a Sessions,
}

/// Writes the answers to these commands of a session, which were executed, run by run as they were:
/// up to one that ends at `bytes_max` bytes or beyond. Returns whether they are kept: where the
/// first is, all are.
fn put_answers(
    writer: &mut ResultWriter,
    kept: Kept<'_>,
    numbers: Range<u64>,
    bytes_max: usize,
) -> bool {
    let Kept { id, session, clients } = kept;
    let mut number = numbers.start;
    while number < numbers.end && (number == numbers.start || writer.len() < bytes_max) {
        let most = u32::try_from(numbers.end - number).unwrap_or(u32::MAX);
        let Some(answers) = session.answers_from(number, most, clients) else {
            assert_eq!(number, numbers.start, "{id}: answers have a hole");
            return false;
        };
        let answers = answers.within(bytes_max.saturating_sub(writer.len()));
        writer.done(id, number, answers);
        number += u64::from(answers.count);
    }
    true
}

fn checksum(command: &[u8]) -> u32 {
    Payload::copy(command).checksum()
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}
