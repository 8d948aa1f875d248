//! The state of an executor as the parts of a snapshot, and back.
//!
//! ```text
//!   part      tag 1 │ records     the log's time, then sessions
//!             tag 2 │ bytes       as the state machine wrote them
//!   records   'T' time            the first record of the first part
//!             'K' skipped         slot, index and checksum of a command; with the first
//!             'S' session         of a gateway: name, opened by, next number, last use
//!             'C' session         of a client: name, key, time of last use, next number, last use
//!             'A', 'B' answers    of one run of the session before: first number, position, count, replies
//!             'R' answers         likewise, of a gateway; but where its replies are: a client's session,
//!                                 and the run's first number there
//! ```
//!
//! Without its sessions a restored replica would execute commands again that were executed before
//! (R22, R23), and without the log's time its state machine could see an earlier time than those of
//! its peers (R26).

use std::collections::VecDeque;

use super::Executor;
use crate::session::Sessions;
use crate::snapshot::Fields;
use crate::{LoggedCommand, MalformedSnapshot, Payload, Position, Slot, StateMachine, Time};

const SESSIONS: u8 = 1;
const MACHINE: u8 = 2;

/// A frozen state, and how much of it is written.
#[derive(Debug)]
pub(crate) struct Frozen {
    /// `None` once it is written.
    time: Option<Time>,
    skipped: VecDeque<LoggedCommand>,
    /// The sessions not written yet.
    sessions: Sessions,
    clients: Sessions,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    Sessions,
    Clients,
    Machine,
    Done,
}

impl<M: StateMachine> Executor<M> {
    /// Freezes the state as it is now, in a time that does not depend on the size of the state: the
    /// session table, which is bounded, is copied, its replies only referenced. Returns `None` if
    /// the state machine has no snapshots.
    pub(crate) fn freeze(&mut self) -> Option<Frozen> {
        let (sessions, clients) = (self.sessions.clone(), self.clients.clone());
        let is_frozen = self.machine.freeze();
        let (time, skipped) = (Some(self.time), self.skipped.clone());
        is_frozen.then_some(Frozen { time, skipped, sessions, clients, stage: Stage::Sessions })
    }

    /// Writes the next part of about `bytes_max` bytes; returns `None` after the last.
    pub(crate) fn write(&mut self, frozen: &mut Frozen, bytes_max: usize) -> Option<Payload> {
        let mut part = Vec::with_capacity(bytes_max);
        match frozen.stage {
            Stage::Sessions => {
                part.push(SESSIONS);
                if let Some(time) = frozen.time.take() {
                    part.push(b'T');
                    part.extend(time.0.to_le_bytes());
                }
                for LoggedCommand { at, checksum } in frozen.skipped.drain(..) {
                    part.push(b'K');
                    part.extend(at.slot.0.to_le_bytes());
                    part.extend(at.index.to_le_bytes());
                    part.extend(checksum.to_le_bytes());
                }
                if !frozen.sessions.write(&mut part, bytes_max) {
                    let has_clients = !frozen.clients.is_empty();
                    frozen.stage = if has_clients { Stage::Clients } else { Stage::Machine };
                }
            }
            Stage::Clients => {
                part.push(SESSIONS);
                if !frozen.clients.write(&mut part, bytes_max) {
                    frozen.stage = Stage::Machine;
                }
            }
            Stage::Machine => {
                part.push(MACHINE);
                if !self.machine.write_frozen(&mut part, bytes_max) {
                    frozen.stage = Stage::Done;
                }
            }
            Stage::Done => return None,
        }
        Some(Payload::from(bytes::Bytes::from(part)))
    }

    /// Returns to the initial state. What was frozen is given up.
    pub(crate) fn clear(&mut self) {
        self.machine.clear();
        self.sessions.clear();
        self.clients.clear();
        self.skipped.clear();
        self.writer.clear();
        self.fresh = None;
        self.time = Time(0);
    }

    /// Restores the next part of a snapshot, beginning with the first after a
    /// [`clear`](Self::clear).
    ///
    /// # Errors
    ///
    /// If it cannot be restored. What was restored before is of no use then.
    pub(crate) fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        let (tag, rest) = part.split_first().ok_or(MalformedSnapshot)?;
        match *tag {
            MACHINE => self.machine.restore(rest),
            SESSIONS => {
                let mut fields = Fields::new(rest);
                while !fields.is_empty() {
                    match fields.u8()? {
                        b'T' => self.time = Time(fields.u64()?),
                        b'K' => {
                            let at = Position { slot: Slot(fields.u64()?), index: fields.u32()? };
                            self.note_skipped(LoggedCommand { at, checksum: fields.u32()? });
                        }
                        record @ (b'C' | b'B') => self.clients.restore(record, &mut fields)?,
                        record => self.sessions.restore(record, &mut fields)?,
                    }
                }
                Ok(())
            }
            _ => Err(MalformedSnapshot),
        }
    }

    /// Restores the next part of a snapshot that a log starts from: all but the sessions, whose
    /// gateways are another cluster's.
    ///
    /// # Errors
    ///
    /// As [`restore`](Self::restore).
    ///
    /// source: R4
    pub(crate) fn restore_without_sessions(
        &mut self,
        part: &[u8],
    ) -> Result<(), MalformedSnapshot> {
        match part.split_first() {
            Some((&SESSIONS, [b'T', rest @ ..])) => {
                self.time = Time(Fields::new(rest).u64()?);
                Ok(())
            }
            Some((&SESSIONS, _)) => Ok(()),
            _ => self.restore(part),
        }
    }

    /// Checks a state of which all parts are restored.
    ///
    /// # Errors
    ///
    /// If a session lacks answers.
    pub(crate) fn check_restored(&self) -> Result<(), MalformedSnapshot> {
        let are_whole = self.sessions.are_whole() && self.clients.are_whole();
        if are_whole { Ok(()) } else { Err(MalformedSnapshot) }
    }
}
