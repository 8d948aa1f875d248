//! The state machine that runs are checked with: a key-value machine that remembers what it
//! executed.

use std::collections::BTreeMap;

use loggos_kv::Kv;
use loggos_protocol::{
    At, MalformedSnapshot, NotAQuery, Position, Reply, Slot, StateMachine, Time,
};

use crate::trap::Trap;

/// A command's identity, unique in a run.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) struct CommandId {
    /// The gateway's life that it was given to, counted over all gateways.
    pub(crate) life: u32,
    /// Its place among the commands given to that life.
    pub(crate) number: u32,
}

impl CommandId {
    pub(crate) fn encode(self, command: &mut Vec<u8>) {
        command.extend_from_slice(&self.life.to_le_bytes());
        command.extend_from_slice(&self.number.to_le_bytes());
    }

    /// Reads the identity of a command, and returns what follows it.
    pub(crate) fn decode(command: &[u8]) -> (Self, &[u8]) {
        let (life, rest) = command.split_first_chunk().expect("a life");
        let (number, rest) = rest.split_first_chunk().expect("a number");
        (Self { life: u32::from_le_bytes(*life), number: u32::from_le_bytes(*number) }, rest)
    }
}

/// Executes commands and keeps their order.
///
/// A command answers with its position among all executed, before the key-value machine's own
/// answer: that total order is what every checker needs, and a wrong answer cannot be right by
/// accident. A query answers with the number of commands that it reflects, likewise.
#[derive(Clone, Debug, Default)]
pub(crate) struct Recorder {
    /// Everything executed, in order.
    pub(crate) executed: Vec<CommandId>,
    /// The last number executed of each life: they must go up.
    last_of: BTreeMap<u32, u32>,
    last_at: Option<(Position, Time)>,
    kv: Kv,
    digest: u64,
    frozen: Option<Frozen>,
    trap: Trap,
}

/// How much of a frozen recorder is written, before its key-value machine.
#[derive(Clone, Debug)]
struct Frozen {
    last_at: Option<(Position, Time)>,
    /// The number of commands that were executed, and how many of them are written.
    executed: usize,
    written: usize,
}

impl StateMachine for Recorder {
    fn apply(&mut self, at: At, command: &[u8], reply: &mut Reply<'_>) {
        let (id, command) = CommandId::decode(command);
        self.trap.spring(id);
        let last = self.last_of.insert(id.life, id.number);
        assert!(last < Some(id.number), "{id:?} was executed after {last:?} of its life");
        if let Some((last, time)) = self.last_at {
            assert!(last < at.position(), "{at:?} after {last:?}");
            assert!(time <= at.time, "log time went back from {time} to {}", at.time);
        }
        self.last_at = Some((at.position(), at.time));
        reply.put(&self.position().to_le_bytes());
        self.kv.apply(at, command, reply);
        self.note(id);
    }

    fn query(&self, at: At, query: &[u8], reply: &mut Reply<'_>) -> Result<(), NotAQuery> {
        if let Some((last, time)) = self.last_at {
            assert!(last < at.position(), "read at {at:?}, and executed {last:?}");
            assert!(time <= at.time, "log time went back from {time} to {}", at.time);
        }
        reply.put(&self.position().to_le_bytes());
        self.kv.query(at, query, reply)
    }

    fn state_hash(&self) -> u64 {
        self.digest ^ self.kv.state_hash()
    }

    fn freeze(&mut self) -> bool {
        assert!(self.frozen.is_none(), "frozen again before all was written");
        let executed = self.executed.len();
        self.frozen = Some(Frozen { last_at: self.last_at, executed, written: 0 });
        self.kv.freeze()
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, bytes_max: usize) -> bool {
        let frozen = self.frozen.as_mut().expect("frozen before it is written");
        if frozen.written < frozen.executed {
            let (at, time) = frozen.last_at.expect("it has executed something");
            part.push(b'R');
            part.extend(at.slot.0.to_le_bytes());
            part.extend(at.index.to_le_bytes());
            part.extend(time.0.to_le_bytes());
            let end = frozen.executed.min(frozen.written + (bytes_max / 8).max(1));
            for id in &self.executed[frozen.written..end] {
                id.encode(part);
            }
            frozen.written = end;
            return true;
        }
        part.push(b'K');
        let is_more = self.kv.write_frozen(part, bytes_max);
        if !is_more {
            self.frozen = None;
        }
        is_more
    }

    fn clear(&mut self) {
        *self = Self::with(self.trap.clone());
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        match part.split_first().ok_or(MalformedSnapshot)? {
            (b'K', rest) => self.kv.restore(rest),
            (b'R', rest) => {
                let (slot, rest) = rest.split_first_chunk().ok_or(MalformedSnapshot)?;
                let (index, rest) = rest.split_first_chunk().ok_or(MalformedSnapshot)?;
                let (time, mut rest) = rest.split_first_chunk().ok_or(MalformedSnapshot)?;
                let slot = Slot(u64::from_le_bytes(*slot));
                let at = Position { slot, index: u32::from_le_bytes(*index) };
                self.last_at = Some((at, Time(u64::from_le_bytes(*time))));
                while !rest.is_empty() {
                    let (id, after) = rest.split_at_checked(8).ok_or(MalformedSnapshot)?;
                    let (id, _) = CommandId::decode(id);
                    self.last_of.insert(id.life, id.number);
                    self.note(id);
                    rest = after;
                }
                Ok(())
            }
            _ => Err(MalformedSnapshot),
        }
    }
}

impl Recorder {
    /// Returns a machine in its initial state, with a trap.
    pub(crate) fn with(trap: Trap) -> Self {
        Self { trap, ..Self::default() }
    }

    fn note(&mut self, id: CommandId) {
        self.executed.push(id);
        let word = u64::from(id.life) << 32 | u64::from(id.number);
        self.digest = (self.digest.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    fn position(&self) -> u64 {
        self.executed.len() as u64
    }
}
