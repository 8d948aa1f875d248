//! Clients that read without a leader, at all levels.
//!
//! ```text
//!  a read …            must reflect
//!  linearizable        all that anyone had been told when it was asked
//!  sequential          what its client had been told, or had from another client
//!  eventual            anything
//!  each of them        the state after so many commands as it says, and after the slot that it says
//! ```
//!
//! The first three are checked when a reply comes, the last at the end, against what replicas have
//! executed. A linearizable read is an operation of the history, too.

use std::collections::BTreeMap;

use loggos_kv as kv;
use loggos_protocol::{
    Caller, ClientId, Failure, GatewayId, Position, ReadLevel, Rng, Time, Watermark,
};

use super::{Load, decode, key_of};
use crate::linearizability::{Answer, Command, OperationId, Value};
use crate::recorder::Recorder;

/// What the first of them is called at gateways.
pub(super) const FIRST: u32 = 1 << 17;
/// What the first of them is called in the history.
const PERSON: u32 = 1 << 20;
/// One of so many asks for a write instead, which is not answered.
const READS_A_WRITE: u64 = 40;

/// How much of the log a client has been told of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Reflected {
    /// The number of commands.
    commands: u64,
    /// The bound of their slots.
    executed: Watermark,
}

/// A client that reads.
#[derive(Debug)]
pub(super) struct Reader {
    gateway: GatewayId,
    done: u32,
    next_tag: u64,
    under_way: BTreeMap<u64, UnderWay>,
    /// What it was told itself.
    seen: Reflected,
}

#[derive(Debug)]
struct UnderWay {
    key: Vec<u8>,
    /// What its reply must reflect.
    least: Reflected,
    /// Of a linearizable one.
    operation: Option<OperationId>,
    is_query: bool,
}

/// What a reply said.
#[derive(Debug)]
pub(super) struct Seen {
    commands: u64,
    key: Vec<u8>,
    value: Value,
}

/// What is asked of a gateway.
pub(crate) type Asked = (Caller, ReadLevel, Vec<u8>);

impl Reflected {
    /// All up to a command, which was executed in its turn of all.
    pub(super) fn with(position: u64, at: Position) -> Self {
        Self { commands: position + 1, executed: at.slot.watermark_after() }
    }

    pub(super) fn raise(&mut self, to: Self) {
        self.commands = self.commands.max(to.commands);
        self.executed.raise(to.executed);
    }
}

impl Reader {
    pub(super) fn new(gateway: GatewayId) -> Self {
        let (under_way, seen) = (BTreeMap::new(), Reflected::default());
        Self { gateway, done: 0, next_tag: 0, under_way, seen }
    }

    pub(super) fn is_done(&self, reads: u32) -> bool {
        self.done >= reads && self.under_way.is_empty()
    }

    pub(super) fn gateway(&self) -> GatewayId {
        self.gateway
    }
}

impl Load {
    /// Draws what the readers at `gateway` ask for now.
    pub(crate) fn reads(&mut self, gateway: GatewayId, now: Time, rng: &mut Rng) -> Vec<Asked> {
        let (mut asked, plan) = (Vec::new(), &self.plan);
        for (index, reader) in (0..).zip(&mut self.readers) {
            if reader.gateway != gateway || rng.below(100) >= plan.eager_percent {
                continue;
            }
            let under_way = u32::try_from(reader.under_way.len()).unwrap_or(u32::MAX);
            let left = plan.reads_per_reader.saturating_sub(reader.done + under_way);
            for _ in 0..left.min(plan.reads_under_way.saturating_sub(under_way)) {
                let key = key_of(rng.below(plan.keys));
                let seen = if rng.below(2) == 0 { self.told } else { reader.seen };
                let (level, least) = match rng.below(4) {
                    0 => (ReadLevel::Eventual, Reflected::default()),
                    1 => (ReadLevel::Sequential { seen: seen.executed }, seen),
                    _ => (ReadLevel::Linearizable, self.told),
                };
                let is_query = rng.below(READS_A_WRITE) > 0;
                let mut query = Vec::new();
                let command = match is_query {
                    true => kv::Command::Get { key: &key },
                    false => kv::Command::Delete { key: &key },
                };
                command.encode(&mut query).expect("a short key");
                let is_in_history = level == ReadLevel::Linearizable && is_query;
                let operation = is_in_history
                    .then(|| self.history.invoke(PERSON + index, &key, Command::Get, now));
                let tag = reader.next_tag;
                reader.next_tag += 1;
                reader.under_way.insert(tag, UnderWay { key, least, operation, is_query });
                asked.push((Caller { client: ClientId(FIRST + index), tag }, level, query));
            }
        }
        asked
    }

    /// Takes in what a reader is told.
    ///
    /// # Panics
    ///
    /// If it reflects less than it must.
    pub(super) fn on_read(
        &mut self,
        (index, tag): (u32, u64),
        reply: Result<(Position, &[u8]), Failure>,
        now: Time,
    ) {
        let reader = &mut self.readers[index as usize];
        let asked = reader.under_way.remove(&tag);
        let UnderWay { key, least, operation, is_query } = asked.expect("it was answered twice");
        match reply {
            Ok((at, reply)) => {
                assert!(is_query, "a write was answered as a read");
                let (commands, answer) = reply.split_first_chunk().expect("a number");
                let (commands, executed) = (u64::from_le_bytes(*commands), Watermark(at.slot.0));
                assert!(
                    commands >= least.commands && executed >= least.executed,
                    "a read reflects {commands} commands, {executed}, and not {least:?}"
                );
                let reflected = Reflected { commands, executed };
                self.check_order(reflected);
                let answer = decode(answer);
                let value =
                    if let Answer::Value(value) = &answer { Some(value.clone()) } else { None };
                assert!(value.is_some() || answer == Answer::Missing, "a read: {answer:?}");
                if let Some(operation) = operation {
                    self.history.answer(operation, answer, now);
                }
                self.reads_seen.push(Seen { commands, key, value });
                self.told.raise(reflected);
                self.readers[index as usize].seen.raise(reflected);
            }
            Err(Failure::Busy) => {
                if let Some(operation) = operation {
                    self.history.refuse(operation, now);
                }
                return; // another will be drawn
            }
            Err(why @ (Failure::ReplyTooLarge | Failure::Halted(_) | Failure::NotAQuery)) => {
                assert!(is_query || why != Failure::ReplyTooLarge, "a write was read");
                assert!(!is_query || why != Failure::NotAQuery, "a read was refused");
                if let Some(operation) = operation {
                    self.history.give_up(operation, now);
                }
            }
            Err(why) => panic!("a read is told {why:?}"),
        }
        self.readers[index as usize].done += 1;
    }

    /// Checks that who has executed more slots has executed as many commands or more.
    fn check_order(&mut self, Reflected { commands, executed }: Reflected) {
        let known = *self.commands_at.entry(executed).or_insert(commands);
        assert_eq!(known, commands, "{executed} is of {known} commands and of {commands}");
        let before = self.commands_at.range(..executed).next_back();
        let after = self.commands_at.range(executed..).nth(1);
        let is_between = before.is_none_or(|(_, before)| *before <= commands)
            && after.is_none_or(|(_, after)| commands <= *after);
        assert!(is_between, "{commands} commands at {executed}: {before:?}, {after:?}");
    }

    /// The gateway has started over: what it was to read has no answer.
    pub(super) fn give_up_reads(&mut self, gateway: GatewayId, now: Time) {
        for reader in self.readers.iter_mut().filter(|reader| reader.gateway == gateway) {
            for under_way in std::mem::take(&mut reader.under_way).into_values() {
                if let Some(operation) = under_way.operation {
                    self.history.give_up(operation, now);
                }
                reader.done += 1;
            }
        }
    }

    /// Checks that each read has seen the state after as many commands as it said.
    ///
    /// # Panics
    ///
    /// If one has not.
    pub(crate) fn check_reads(&self, recorder: &Recorder) {
        let mut reads_seen: Vec<_> = self.reads_seen.iter().collect();
        reads_seen.sort_by_key(|seen| seen.commands);
        let mut values: BTreeMap<Vec<u8>, Value> = BTreeMap::new();
        let mut executed = recorder.executed.iter().zip(1..);
        let mut count = 0;
        for seen in reads_seen {
            while count < seen.commands {
                // Where only safety is checked, replicas may not have come as far again.
                let Some((id, number)) = executed.next() else { return };
                let (key, command) = &self.asked[id];
                let value = values.entry(key.clone()).or_default();
                *value = command.execute(value).1;
                count = number;
            }
            let value = values.get(&seen.key).cloned().flatten();
            assert_eq!(value, seen.value, "{:?} after {count} commands", seen.key);
        }
    }
}
