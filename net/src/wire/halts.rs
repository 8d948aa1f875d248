//! Why a replica has halted, as it lies in a header: its number, a position, and a message.

use loggos_protocol::{
    Halt, Halted, Incarnation, LoggedCommand, Position, ReplicaId, Slot, Watermark,
};

use super::WireError;
use super::bodies::Body;
use super::cursor::Cursor;
use super::encode::checked;
use super::headers::{self, Checked};
use super::layout::{Laid, put};
use crate::Outgoing;

/// The parts of a [`Halt`] in a header; `message` is a payload.
pub(super) struct HaltParts<'a> {
    pub(super) number: u8,
    pub(super) command: LoggedCommand,
    pub(super) message: &'a str,
}

impl<'a> HaltParts<'a> {
    pub(super) fn of(halt: &'a Halt) -> Self {
        let in_slot = |slot| LoggedCommand { at: Position { slot, index: 0 }, checksum: 0 };
        let (number, command, message) = match halt {
            Halt::Panicked { command, message } => (1, *command, message.as_str()),
            Halt::Malformed { slot } => (2, in_slot(*slot), ""),
            Halt::SnapshotRefused { at } => (3, in_slot(Slot(at.0)), ""),
            Halt::Executed { command } => (4, *command, ""),
        };
        Self { number, command, message }
    }
}

impl Cursor<'_> {
    /// Takes the message of a halt, and puts its parts together.
    pub(super) fn halt(
        &mut self,
        number: u8,
        command: LoggedCommand,
        message: &Checked,
    ) -> Result<Halt, WireError> {
        let slot = command.at.slot;
        let message = self.checked(message)?;
        let message = std::str::from_utf8(message.as_slice()).map_err(|_| WireError::Text)?;
        let halt = match number {
            1 => Halt::Panicked { command, message: message.to_owned() },
            2 => Halt::Malformed { slot },
            3 => Halt::SnapshotRefused { at: Watermark(slot.0) },
            4 => Halt::Executed { command },
            value => return Err(WireError::Discriminant { of: "halt", value }),
        };
        let parts = HaltParts::of(&halt);
        let is_whole = (parts.command, parts.message) == (command, message);
        if is_whole { Ok(halt) } else { Err(WireError::Absent) }
    }
}

impl Body for Box<Halted> {
    fn put(&self, out: &mut Outgoing) {
        let HaltParts { number, command, message } = HaltParts::of(&self.why);
        let header = headers::Halted {
            replica: self.replica.lay_out(),
            incarnation: self.incarnation.lay_out(),
            why: number,
            command: command.lay_out(),
            message: checked(message.as_bytes()),
        };
        put(&header, out);
    }

    fn put_payloads(&self, out: &mut Outgoing) {
        out.put(HaltParts::of(&self.why).message.as_bytes());
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Halted = from.header()?;
        let command = LoggedCommand::read(&header.command)?;
        let why = from.halt(header.why, command, &header.message)?;
        let (replica, incarnation) =
            (ReplicaId::read(&header.replica)?, Incarnation::read(&header.incarnation)?);
        Ok(Self::new(Halted { replica, incarnation, why }))
    }
}
