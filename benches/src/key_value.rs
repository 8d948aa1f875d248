//! The key-value machine on its own.

use loggos_kv::{Command, Kv};
use loggos_protocol::{At, Items, ResultWriter, RunReplies, SessionId, Slot, StateMachine, Time};

/// A key-value machine that executes batches, with keys that are all there and come in an order
/// that no cache likes.
#[derive(Debug)]
pub struct KeyValue {
    machine: Kv,
    keys: u64,
    /// The number of the key that was last drawn.
    drawn: u64,
    slot: u64,
}

impl KeyValue {
    /// The commands of a batch.
    pub const BATCH_COMMANDS: u32 = 512;

    /// Coprime to all numbers of keys that are used here: steps of it go through all of them.
    const STEP: u64 = 61_803;

    /// Returns a machine that has executed a command for each of `keys` keys, as `put` encodes it.
    #[must_use]
    pub fn new(keys: u64, put: impl Fn(&[u8], &mut Vec<u8>)) -> Self {
        let mut filled = Self { machine: Kv::default(), keys, drawn: 0, slot: 0 };
        for _ in 0..keys.div_ceil(Self::BATCH_COMMANDS.into()) {
            let commands = filled.encoded(1, &put);
            filled.run(&commands, &mut |work| work());
        }
        filled
    }

    /// Encodes a put.
    ///
    /// # Panics
    ///
    /// Panics if the key is too long.
    pub fn put(key: &[u8], value: &[u8], out: &mut Vec<u8>) {
        Command::Put { key, value }.encode(out).expect("a short key");
    }

    /// Encodes a get.
    ///
    /// # Panics
    ///
    /// Panics if the key is too long.
    pub fn get(key: &[u8], out: &mut Vec<u8>) {
        Command::Get { key }.encode(out).expect("a short key");
    }

    /// Returns a command for each key of a batch, as `command` encodes it, one after the other, as
    /// a batch has them.
    #[must_use]
    pub fn commands(&mut self, command: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
        self.encoded(Self::STEP, command)
    }

    /// Executes the commands of a batch, through `call`.
    ///
    /// # Panics
    ///
    /// Panics if not every command is answered.
    pub fn run(&mut self, commands: &[u8], call: &mut dyn FnMut(&mut dyn FnMut())) {
        self.slot += 1;
        let at = At { slot: Slot(self.slot), index: 0, time: Time(self.slot) };
        let mut results = ResultWriter::default();
        results.start_done(SessionId { slot: Slot(0), index: 0 }, 0, at.position());
        let mut replies = RunReplies::new(&mut results);
        call(&mut || self.machine.apply_run(at, Items::new(commands), &mut replies));
        results.end_done();
        assert_eq!(results.replies_count(), Self::BATCH_COMMANDS, "each is answered");
    }

    fn encoded(&mut self, step: u64, command: impl Fn(&[u8], &mut Vec<u8>)) -> Vec<u8> {
        let (mut encoded, mut one) = (Vec::new(), Vec::new());
        for _ in 0..Self::BATCH_COMMANDS {
            self.drawn = (self.drawn + step) % self.keys;
            let mut key = *b"k000000000000000";
            key[8..].copy_from_slice(format!("{:08}", self.drawn).as_bytes());
            one.clear();
            command(&key, &mut one);
            encoded.extend(u32::try_from(one.len()).expect("a short command").to_le_bytes());
            encoded.extend(&one);
        }
        encoded
    }
}
