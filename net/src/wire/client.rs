//! A client and its node: commands and what became of them, and the node's status.

use std::sync::Arc;

use loggos_protocol::{
    AcceptorSet, Failure, LoggedCommand, Payload, Position, ReadLevel, SessionId, Slot, Watermark,
};

use super::cursor::{Cursor, part};
use super::encode::{checked, frame, payload_bytes};
use super::halts::HaltParts;
use super::headers::{self, Command, Failed, Query, Reply, Session, Status};
use super::layout::{Laid, Layout, put};
use super::run::{Run, RunWriter};
use super::{Kind, Message, WireError};
use crate::Outgoing;

/// A client's commands on their way out: each frame holds as many as there are.
#[derive(Debug)]
pub struct CommandsWriter {
    run: RunWriter<Command>,
    /// The number of the next command, if it goes into the same frame.
    next: Option<u64>,
}

impl Default for CommandsWriter {
    fn default() -> Self {
        Self { run: RunWriter::new(Kind::Commands), next: None }
    }
}

impl CommandsWriter {
    /// Adds the command that its client's session calls `number`, where the client has no answer to
    /// `lowest_unanswered`; appends a frame to `out` if one is full.
    #[inline]
    pub fn put(&mut self, number: u64, lowest_unanswered: u64, command: &[u8], out: &mut Outgoing) {
        if self.next != Some(number) {
            self.run.end(out);
        }
        self.next = number.checked_add(1);
        let head =
            headers::Commands { first: number.into(), lowest_unanswered: lowest_unanswered.into() };
        let bytes = payload_bytes(command).into();
        self.run.put(head, &Command { bytes }, command, out);
    }

    /// Appends what is left.
    pub fn end(&mut self, out: &mut Outgoing) {
        self.run.end(out);
    }
}

/// A client's reads on their way out: each frame holds as many of one level as there are.
#[derive(Debug)]
pub struct ReadsWriter {
    run: RunWriter<Query>,
    /// The number of the next read, and its level, if it goes into the same frame.
    next: Option<(u64, ReadLevel)>,
}

impl Default for ReadsWriter {
    fn default() -> Self {
        Self { run: RunWriter::new(Kind::Reads), next: None }
    }
}

impl ReadsWriter {
    /// Adds the query that its client calls `number`; appends a frame to `out` if one is full.
    pub fn put(&mut self, number: u64, level: ReadLevel, query: &[u8], out: &mut Outgoing) {
        if self.next != Some((number, level)) {
            self.run.end(out);
        }
        self.next = number.checked_add(1).map(|next| (next, level));
        let (level, seen) = match level {
            ReadLevel::Linearizable => (1, Watermark(0)),
            ReadLevel::Sequential { seen } => (2, seen),
            ReadLevel::Eventual => (3, Watermark(0)),
        };
        let head = headers::Reads { first: number.into(), level, seen: seen.lay_out() };
        self.run.put(head, &Query { bytes: payload_bytes(query).into() }, query, out);
    }

    /// Appends what is left.
    pub fn end(&mut self, out: &mut Outgoing) {
        self.run.end(out);
    }
}

/// The replies to a client's commands and reads on their way out: each frame holds as many as there
/// are.
#[derive(Debug)]
pub struct RepliesWriter(RunWriter<Reply>);

impl Default for RepliesWriter {
    fn default() -> Self {
        Self(RunWriter::new(Kind::Replies))
    }
}

impl RepliesWriter {
    /// Adds the reply to the command or read that its client calls `number`, and where that was
    /// executed; appends a frame to `out` if one is full.
    #[inline]
    pub fn put(&mut self, number: u64, at: Position, reply: &[u8], out: &mut Outgoing) {
        let (position, bytes) = (at.lay_out(), payload_bytes(reply).into());
        self.0.put([], &Reply { number: number.into(), position, bytes }, reply, out);
    }

    /// Returns how many bytes [`RepliesWriter::end`] would append.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is left to append.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.len() == 0
    }

    /// Appends what is left.
    pub fn end(&mut self, out: &mut Outgoing) {
        self.0.end(out);
    }
}

/// Appends why the command or read that its client calls `number` has no reply.
pub fn encode_failed(number: u64, failure: &Failure, out: &mut Outgoing) {
    let failure_number = failure_number(failure);
    let mut header = Failed { number: number.into(), failure: failure_number, ..Layout::ZERO };
    let message = match failure {
        Failure::NoRoom(acceptors) => {
            header.detail = acceptors.lay_out();
            ""
        }
        Failure::Halted(why) => {
            let HaltParts { command, message, .. } = HaltParts::of(why);
            let LoggedCommand { at, checksum } = command;
            header.detail = u64::from(checksum).into();
            (header.position, header.message) = (at.lay_out(), checked(message.as_bytes()));
            message
        }
        Failure::Busy
        | Failure::TooLarge
        | Failure::OutcomeUnknown
        | Failure::DeadlineExceeded
        | Failure::ReplyTooLarge
        | Failure::NoSession
        | Failure::OutOfOrder
        | Failure::NotAQuery
        | Failure::Panicked
        | Failure::Skipped => "",
    };
    frame(Kind::Failed, out, |out| put(&header, out), |out| out.put(message.as_bytes()));
}

/// Appends the session that a client has, or has got; or, for none, its wish for one, by `key`.
pub fn encode_session(session: Option<SessionId>, key: u64, out: &mut Outgoing) {
    let header = Session { session: session.lay_out(), key: key.into() };
    frame(Kind::Session, out, |out| put(&header, out), |_| ());
}

/// Appends the question for a node's status.
pub fn encode_status_request(out: &mut Outgoing) {
    frame(Kind::StatusRequest, out, |_| (), |_| ());
}

/// Appends an operator's wish that a command be skipped, at which all replicas have halted.
pub fn encode_skip(command: LoggedCommand, out: &mut Outgoing) {
    frame(Kind::Skip, out, |out| put(&command.lay_out(), out), |_| ());
}

/// Appends a node's status.
pub fn encode_status(status: &[u8], out: &mut Outgoing) {
    let header = Status { status: checked(status) };
    frame(Kind::Status, out, |out| put(&header, out), |out| out.put(status));
}

/// A client's commands, in the order of their numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Commands {
    run: Run<Command>,
    /// The number of the next one.
    next: u64,
}

impl Commands {
    /// Returns the lowest number that the client had no answer to.
    #[must_use]
    #[inline]
    pub fn lowest_unanswered(&self) -> u64 {
        self.run.head.lowest_unanswered.into()
    }
}

impl Iterator for Commands {
    type Item = (u64, Payload);

    /// Returns the number that the client's session gives the next command, and the command.
    #[inline]
    fn next(&mut self) -> Option<(u64, Payload)> {
        let (_, payloads, range) = self.run.next()?;
        let number = self.next;
        self.next = number.wrapping_add(1); // a client's numbers may be any
        Some((number, part(payloads, range)))
    }
}

/// A client's reads of one level, in the order of their numbers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reads {
    run: Run<Query>,
    level: ReadLevel,
    /// The number of the next one.
    next: u64,
}

impl Reads {
    /// What each of them must reflect.
    #[must_use]
    pub fn level(&self) -> ReadLevel {
        self.level
    }
}

impl Iterator for Reads {
    type Item = (u64, Payload);

    /// Returns what the client calls the next read, and the query.
    fn next(&mut self) -> Option<(u64, Payload)> {
        let (_, payloads, range) = self.run.next()?;
        let number = self.next;
        self.next = number.wrapping_add(1); // a client's numbers may be any
        Some((number, part(payloads, range)))
    }
}

/// The replies to a client's commands and reads, in any order.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Replies(Run<Reply>);

impl Replies {
    /// Returns how many are left.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.count()
    }

    /// Returns the number that the client gave the next command or read, where it was executed, and
    /// its reply.
    #[allow(clippy::should_implement_trait, reason = "replies are read where they lie")]
    #[inline]
    pub fn next(&mut self) -> Option<(u64, Position, &[u8])> {
        let (entry, payloads, range) = self.0.next()?;
        let headers::Position { slot, index } = entry.position;
        let at = Position { slot: Slot(slot.into()), index: index.into() };
        Some((entry.number.into(), at, &payloads[range]))
    }
}

pub(super) fn take_commands(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let run: Run<Command> = Run::take(from)?;
    let next = run.head.first.into();
    Ok(Message::Commands(Commands { run, next }))
}

pub(super) fn take_reads(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let run: Run<Query> = Run::take(from)?;
    let headers::Reads { first, level, seen } = run.head;
    let seen = Watermark::read(&seen)?;
    let level = match level {
        2 => ReadLevel::Sequential { seen },
        value if seen > Watermark(0) => {
            return Err(WireError::Discriminant { of: "level of a read with a bound", value });
        }
        1 => ReadLevel::Linearizable,
        3 => ReadLevel::Eventual,
        value => return Err(WireError::Discriminant { of: "level of a read", value }),
    };
    Ok(Message::Reads(Reads { run, level, next: first.into() }))
}

pub(super) fn take_replies(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    Run::take(from).map(|run| Message::Replies(Replies(run)))
}

pub(super) fn take_failed(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let header: &Failed = from.header()?;
    let failure = take_failure(header, from)?;
    let has_message = matches!(failure, Failure::Halted(_));
    let has_detail = has_message || matches!(failure, Failure::NoRoom(_));
    let detail = if has_detail { header.detail } else { Layout::ZERO };
    let (position, message) = match has_message {
        true => (header.position, header.message),
        false => (Layout::ZERO, Layout::ZERO),
    };
    if (Failed { detail, position, message, ..*header }) != *header {
        return Err(WireError::Absent);
    }
    Ok(Message::Failed { number: header.number.into(), failure })
}

#[allow(clippy::unnecessary_wraps, reason = "the same for all kinds")]
pub(super) fn take_status_request(_: &mut Cursor<'_>) -> Result<Message, WireError> {
    Ok(Message::StatusRequest)
}

pub(super) fn take_skip(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    LoggedCommand::read(from.header()?).map(Message::Skip)
}

pub(super) fn take_session(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let header: &Session = from.header()?;
    Ok(Message::Session { session: Laid::read(&header.session)?, key: header.key.into() })
}

pub(super) fn take_status(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let header: &Status = from.header()?;
    from.checked(&header.status).map(Message::Status)
}

/// The number of a command that was skipped. That of one at which replicas have halted is by as
/// much larger as the number of their reason says.
const SKIPPED: u8 = 7;

fn failure_number(failure: &Failure) -> u8 {
    match failure {
        Failure::Busy => 1,
        Failure::TooLarge => 2,
        Failure::OutcomeUnknown => 3,
        Failure::DeadlineExceeded => 4,
        Failure::ReplyTooLarge => 5,
        Failure::NoRoom(_) => 6,
        Failure::Skipped => SKIPPED,
        Failure::Halted(why) => SKIPPED + HaltParts::of(why).number,
        Failure::NoSession => 12,
        Failure::OutOfOrder => 13,
        Failure::NotAQuery => 14,
        Failure::Panicked => 15,
    }
}

fn take_failure(header: &Failed, from: &mut Cursor<'_>) -> Result<Failure, WireError> {
    match header.failure {
        1 => Ok(Failure::Busy),
        2 => Ok(Failure::TooLarge),
        3 => Ok(Failure::OutcomeUnknown),
        4 => Ok(Failure::DeadlineExceeded),
        5 => Ok(Failure::ReplyTooLarge),
        6 => Ok(Failure::NoRoom(AcceptorSet::read(&header.detail)?)),
        7 => Ok(Failure::Skipped),
        8..=11 => {
            let checksum =
                u32::try_from(u64::from(header.detail)).map_err(|_| WireError::Absent)?;
            let number = header.failure - SKIPPED;
            let at = Position::read(&header.position)?;
            let why = from.halt(number, LoggedCommand { at, checksum }, &header.message)?;
            Ok(Failure::Halted(Arc::new(why)))
        }
        12 => Ok(Failure::NoSession),
        13 => Ok(Failure::OutOfOrder),
        14 => Ok(Failure::NotAQuery),
        15 => Ok(Failure::Panicked),
        value => Err(WireError::Discriminant { of: "failure", value }),
    }
}
