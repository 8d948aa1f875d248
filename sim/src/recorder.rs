//! The state machine that runs are checked with: a key-value machine that remembers what it executed.

use std::collections::BTreeMap;

use loggos_kv::Kv;
use loggos_protocol::{At, Reply, StateMachine, Time};

/// A command's identity, unique in a run.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
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
/// A command answers with its position among all executed, before the key-value machine's own answer: that
/// total order is what every checker needs, and a wrong answer cannot be right by accident.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    /// Everything executed, in order.
    pub(crate) executed: Vec<CommandId>,
    /// The last number executed of each life: they must go up.
    last_of: BTreeMap<u32, u32>,
    last_at: Option<(At, Time)>,
    kv: Kv,
    digest: u64,
}

impl StateMachine for Recorder {
    fn apply(&mut self, at: At, command: &[u8], reply: &mut Reply<'_>) {
        let (id, command) = CommandId::decode(command);
        let last = self.last_of.insert(id.life, id.number);
        assert!(last < Some(id.number), "{id:?} was executed after {last:?} of its life");
        if let Some((last, time)) = self.last_at {
            assert!((last.slot, last.index) < (at.slot, at.index), "{at:?} after {last:?}");
            assert!(time <= at.time, "log time went back from {time} to {}", at.time);
        }
        self.last_at = Some((at, at.time));
        reply.put(&self.position().to_le_bytes());
        self.kv.apply(at, command, reply);
        self.executed.push(id);
        let word = u64::from(id.life) << 32 | u64::from(id.number);
        self.digest = (self.digest.rotate_left(5) ^ word).wrapping_mul(0x517C_C1B7_2722_0A95);
    }

    fn state_hash(&self) -> u64 {
        self.digest ^ self.kv.state_hash()
    }
}

impl Recorder {
    fn position(&self) -> u64 {
        self.executed.len() as u64
    }
}
