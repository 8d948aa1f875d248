//! A client and its node: commands and what became of them, and the node's status.

use std::sync::Arc;

use loggos_protocol::{AcceptorSet, Failure, LoggedCommand, Payload, Position};

use super::cursor::Cursor;
use super::encode::{checked, frame};
use super::halts::HaltParts;
use super::headers::{Command, CommandResult, Status};
use super::layout::{Laid, Layout, put};
use super::{Kind, Message, WireError};
use crate::Outgoing;

/// The length from which a reply lies apart from what is before it: a buffer of many would have
/// room for up to twice as much, and be copied each time it grows.
const APART_BYTES_MIN: usize = 4 << 10;

/// Appends a client's command, which it calls `number`.
pub fn encode_command(number: u64, command: &[u8], out: &mut Outgoing) {
    let header = Command { number: number.into(), command: checked(command) };
    frame(Kind::Command, out, |out| put(&header, out), |out| out.put(command));
}

/// Appends what became of the command that its client calls `number`.
pub fn encode_result(number: u64, result: &Result<(Position, &[u8]), Failure>, out: &mut Outgoing) {
    let mut header = CommandResult { number: number.into(), ..Layout::ZERO };
    let reply = match result {
        Ok((position, reply)) => {
            (header.position, header.reply) = (position.lay_out(), checked(reply));
            *reply
        }
        Err(failure) => {
            header.failure = failure_number(failure);
            match failure {
                Failure::NoRoom(acceptors) => {
                    header.detail = acceptors.lay_out();
                    &[]
                }
                Failure::Halted(why) => {
                    let HaltParts { command, message, .. } = HaltParts::of(why);
                    let LoggedCommand { at, checksum } = command;
                    header.detail = u64::from(checksum).into();
                    (header.position, header.reply) = (at.lay_out(), checked(message.as_bytes()));
                    message.as_bytes()
                }
                Failure::Busy
                | Failure::TooLarge
                | Failure::OutcomeUnknown
                | Failure::DeadlineExceeded
                | Failure::ReplyTooLarge
                | Failure::Skipped => &[],
            }
        }
    };
    let put_reply = |out: &mut Outgoing| match reply.len() < APART_BYTES_MIN {
        true => out.put(reply),
        false => out.put_payload(&Payload::copy(reply)),
    };
    frame(Kind::Result, out, |out| put(&header, out), put_reply);
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

pub(super) fn take_command(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let header: &Command = from.header()?;
    let command = from.checked(&header.command)?;
    Ok(Message::Command { number: header.number.into(), command })
}

pub(super) fn take_result(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    let header: &CommandResult = from.header()?;
    let number = header.number.into();
    if header.failure != 0 {
        let failure = take_failure(header, from)?;
        let has_reply = matches!(failure, Failure::Halted(_));
        let has_detail = has_reply || matches!(failure, Failure::NoRoom(_));
        let detail = if has_detail { header.detail } else { Layout::ZERO };
        let (position, reply) =
            if has_reply { (header.position, header.reply) } else { (Layout::ZERO, Layout::ZERO) };
        if (CommandResult { detail, position, reply, ..*header }) != *header {
            return Err(WireError::Absent);
        }
        return Ok(Message::Result { number, result: Err(failure) });
    }
    if header.detail != 0 {
        return Err(WireError::Absent);
    }
    let reply = from.checked(&header.reply)?;
    Ok(Message::Result { number, result: Ok((Position::read(&header.position)?, reply)) })
}

#[allow(clippy::unnecessary_wraps, reason = "the same for all kinds")]
pub(super) fn take_status_request(_: &mut Cursor<'_>) -> Result<Message, WireError> {
    Ok(Message::StatusRequest)
}

pub(super) fn take_skip(from: &mut Cursor<'_>) -> Result<Message, WireError> {
    LoggedCommand::read(from.header()?).map(Message::Skip)
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
    }
}

fn take_failure(header: &CommandResult, from: &mut Cursor<'_>) -> Result<Failure, WireError> {
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
            let why = from.halt(number, LoggedCommand { at, checksum }, &header.reply)?;
            Ok(Failure::Halted(Arc::new(why)))
        }
        value => Err(WireError::Discriminant { of: "failure", value }),
    }
}
