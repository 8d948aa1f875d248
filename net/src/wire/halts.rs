//! Why a replica has halted, as it lies in a header: its number, a position, and a message.

use loggos_protocol::{Halt, Position, ReplicaId, Slot, Watermark};

use super::bodies::Body;
use super::cursor::Cursor;
use super::encode::checked;
use super::headers::{self, Checked};
use super::layout::{Laid, put};
use super::{Halted, WireError};
use crate::Outgoing;

/// The parts of a [`Halt`] in a header; `message` is a payload.
pub(super) struct HaltParts<'a> {
    pub(super) number: u8,
    pub(super) at: Position,
    pub(super) message: &'a str,
}

impl<'a> HaltParts<'a> {
    pub(super) fn of(halt: &'a Halt) -> Self {
        let (number, slot, index, message) = match halt {
            Halt::Panicked { slot, index, message } => (1, *slot, *index, message.as_str()),
            Halt::Malformed { slot } => (2, *slot, 0, ""),
            Halt::SnapshotRefused { at } => (3, Slot(at.0), 0, ""),
        };
        Self { number, at: Position { slot, index }, message }
    }
}

impl Cursor<'_> {
    /// Takes the message of a halt, and puts its parts together.
    pub(super) fn halt(
        &mut self,
        number: u8,
        at: &headers::Position,
        message: &Checked,
    ) -> Result<Halt, WireError> {
        let Position { slot, index } = Position::read(at)?;
        let message = self.checked(message)?;
        let message = std::str::from_utf8(message.as_slice()).map_err(|_| WireError::Text)?;
        let halt = match number {
            1 => Halt::Panicked { slot, index, message: message.to_owned() },
            2 => Halt::Malformed { slot },
            3 => Halt::SnapshotRefused { at: Watermark(slot.0) },
            value => return Err(WireError::Discriminant { of: "halt", value }),
        };
        let parts = HaltParts::of(&halt);
        let is_whole = (parts.at.index, parts.message) == (index, message);
        if is_whole { Ok(halt) } else { Err(WireError::Absent) }
    }
}

impl Body for Box<Halted> {
    fn put(&self, out: &mut Outgoing) {
        let HaltParts { number, at, message } = HaltParts::of(&self.why);
        let header = headers::Halted {
            replica: self.replica.lay_out(),
            why: number,
            at: at.lay_out(),
            message: checked(message.as_bytes()),
        };
        put(&header, out);
    }

    fn put_payloads(&self, out: &mut Outgoing) {
        out.put(HaltParts::of(&self.why).message.as_bytes());
    }

    fn take(from: &mut Cursor<'_>) -> Result<Self, WireError> {
        let header: &headers::Halted = from.header()?;
        let why = from.halt(header.why, &header.at, &header.message)?;
        Ok(Self::new(Halted { replica: ReplicaId::read(&header.replica)?, why }))
    }
}
