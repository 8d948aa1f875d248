//! The load of what runs on threads: puts of 16-byte values to 100 000 keys, as `loggos bench` has
//! it.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};

use hashbrown::HashMap;

use crate::COMMAND_BYTES;

const KEYS: u32 = 100_000;
const KEY_BYTES: usize = 16;

/// A put: the key, the value, and three bytes more, so that it has as many as one of Loggos.
pub(crate) type Command = [u8; COMMAND_BYTES];

/// Commands to keys drawn at random.
pub(crate) struct Commands(u64);

impl Default for Commands {
    fn default() -> Self {
        // Never 0, with which it would only draw zeros.
        Self(RandomState::new().build_hasher().finish() | 1)
    }
}

impl Commands {
    pub(crate) fn next(&mut self) -> Command {
        // Xorshift: next to nothing beside what a command costs.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        let key = (self.0 >> 32) % u64::from(KEYS);
        let mut command = [b'v'; COMMAND_BYTES];
        command[..8].copy_from_slice(&key.to_be_bytes());
        command[8..KEY_BYTES].fill(b'k');
        command
    }
}

/// What a peer's replicas execute commands with: the fastest table that a program takes from the
/// shelf.
#[derive(Default)]
pub(crate) struct Machine(HashMap<[u8; KEY_BYTES], [u8; KEY_BYTES]>);

impl Machine {
    pub(crate) fn put(&mut self, command: &Command) {
        let (key, rest) = command.split_first_chunk().expect("a key");
        let value = rest.first_chunk().expect("a value");
        self.0.insert(*key, *value);
    }
}
