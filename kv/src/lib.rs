//! The built-in key-value machine: the state machine of a replica, unless the embedding program
//! brings another.
//!
//! ```text
//!  command           when                         does                  answers
//!  Put               always                       value ← the new one   Stored
//!  Get               present                                            Value
//!                    absent                                             Missing
//!  GetVersioned      present                                            Versioned
//!                    absent                                             Missing
//!  Delete            present                      forgets it            Deleted
//!                    absent                                             Missing
//!  Increment         absent, counts as 0          value ← the sum       Number
//!                    a decimal 64-bit integer     value ← the sum       Number
//!                    anything else                                      NotANumber
//!                    the sum has over 64 bits                           Overflow
//!  CompareAndSet     value (or absence) expected  value ← the new one   Swapped
//!                    otherwise                                          Mismatch
//!  bytes that are no command                                            Malformed
//! ```
//!
//! Every write leaves its place in the log with the value, so that a reader can tell which of
//! several writes won. The places are part of the state: two stores are equal if the same commands
//! stood at the same places.
//!
//! What the machine never does: read a clock, depend on the order of its table, keep a reference
//! into the block that a command came in, or allocate for a write of a short value to a short key
//! it has.

#![deny(unsafe_code)]

mod advice;
mod command;
mod entry;
mod hash;
#[cfg(test)]
mod model;
mod number;
mod reply;
mod restore;
mod store;
mod walk;

pub use command::{Command, EncodeError, KEY_BYTES_MAX, MalformedCommand};
pub use entry::Version;
pub use reply::{Answer, MalformedAnswer};

use std::fmt;

use loggos_protocol::{At, Items, MalformedSnapshot, NotAQuery, Reply, RunReplies, StateMachine};

use crate::entry::Entry;
use crate::hash::HashedKey;
use crate::number::Decimal;
use crate::store::{KeyPlace, Store};

/// The number of commands of a run that are hashed and prefetched before the first of them is
/// executed: enough to hide a miss behind the others, and few enough that the first bucket is still
/// cached when its turn comes.
const CHUNK_COMMANDS: usize = 32;

/// A key-value store.
#[derive(Clone, Default)]
pub struct Kv {
    store: Store,
}

impl Kv {
    /// Returns an empty store with room for `entries`, so that it need not grow before it has as
    /// many.
    ///
    /// Growing moves every entry at once; a replica that knows how many are coming should say so
    /// here.
    #[must_use]
    pub fn with_capacity(entries: usize) -> Self {
        Self { store: Store::with_capacity(entries) }
    }

    /// Returns the number of keys that have a value.
    #[must_use]
    pub fn len(&self) -> usize {
        self.store.len()
    }

    /// Whether no key has a value.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value of `key`, past the log: for tests and tools, not for clients.
    #[must_use]
    pub fn get(&self, key: &[u8]) -> Option<&[u8]> {
        let place = self.store.find(HashedKey::new(key));
        self.store.entry(place).map(Entry::value)
    }

    /// Executes `commands`, the first of them at `at`, and hands each answer to `answered`.
    fn execute_run(
        &mut self,
        at: At,
        mut commands: Items<'_>,
        mut answered: impl FnMut(Answer<'_>),
    ) {
        let mut version = Version::from(at);
        let mut chunk: [(&[u8], u64); CHUNK_COMMANDS] = [(&[], 0); CHUNK_COMMANDS];
        loop {
            let mut count = 0;
            for (ready, command) in chunk.iter_mut().zip(commands.by_ref()) {
                *ready = (command, self.prepare(command));
                count += 1;
            }
            for &(_, key_hash) in &chunk[..count] {
                self.store.prefetch_behind(key_hash);
            }
            for &(command, key_hash) in &chunk[..count] {
                answered(self.execute(version, command, key_hash));
                version.index += 1;
            }
            if count < CHUNK_COMMANDS {
                return;
            }
        }
    }

    /// Hashes the key of a command and starts to load its bucket; returns the hash. Bytes that are
    /// no command have any.
    #[inline]
    fn prepare(&self, command: &[u8]) -> u64 {
        let Some(key) = Command::peek_key(command) else {
            return 0;
        };
        let key = HashedKey::new(key);
        self.store.prefetch(key);
        key.hash
    }

    /// Executes a command whose key has this hash. Always inlined: its answer is matched right
    /// away, and built in memory it would have to be read back.
    #[inline(always)]
    fn execute(&mut self, version: Version, command: &[u8], key_hash: u64) -> Answer<'_> {
        let Ok(command) = Command::decode(command) else {
            return Answer::Malformed;
        };
        let key = HashedKey { bytes: command.key(), hash: key_hash };
        debug_assert_eq!(key.hash, HashedKey::new(key.bytes).hash, "the hash of another key");
        let store = &mut self.store;
        let place = store.find(key);
        match command {
            Command::Put { value, .. } => {
                store.set(place, key, value, version);
                Answer::Stored
            }
            Command::Get { .. } => value_of(store.entry(place)),
            Command::GetVersioned { .. } => versioned(store.entry(place)),
            Command::Delete { .. } => {
                if store.remove(place, key) {
                    Answer::Deleted
                } else {
                    Answer::Missing
                }
            }
            Command::Increment { by, .. } => increment(store, place, key, by, version),
            Command::CompareAndSet { expected, value, .. } => {
                if store.entry(place).map(Entry::value) != expected {
                    return Answer::Mismatch(store.entry(place).map(Entry::value));
                }
                store.set(place, key, value, version);
                Answer::Swapped
            }
        }
    }
}

#[inline(always)]
fn value_of(entry: Option<&Entry>) -> Answer<'_> {
    entry.map_or(Answer::Missing, |entry| Answer::Value(entry.value()))
}

#[inline(always)]
fn versioned(entry: Option<&Entry>) -> Answer<'_> {
    let answer = |entry| Answer::Versioned { value: Entry::value(entry), version: entry.version() };
    entry.map_or(Answer::Missing, answer)
}

/// Adds to the number that `key`, which was looked for and is or would be at `place`, has. Never
/// inlined: the space for the text would be set aside for every command.
#[inline(never)]
fn increment(
    store: &mut Store,
    place: KeyPlace,
    key: HashedKey<'_>,
    by: i64,
    version: Version,
) -> Answer<'static> {
    let current = match store.entry(place) {
        Some(entry) => Decimal::parse(entry.value()),
        None => Some(0),
    };
    let Some(current) = current else {
        return Answer::NotANumber;
    };
    let Some(sum) = current.checked_add(by) else {
        return Answer::Overflow;
    };
    store.set(place, key, Decimal::new(sum).as_slice(), version);
    Answer::Number(sum)
}

impl StateMachine for Kv {
    fn apply(&mut self, at: At, command: &[u8], reply: &mut Reply<'_>) {
        let key_hash = self.prepare(command);
        self.execute(at.into(), command, key_hash).write(|bytes| reply.put(bytes));
    }

    fn apply_run(&mut self, at: At, commands: Items<'_>, replies: &mut RunReplies<'_>) {
        self.execute_run(at, commands, |answer| {
            let mut reply = replies.reply();
            answer.write(|bytes| reply.put(bytes));
        });
    }

    /// Answers [`Command::Get`] and [`Command::GetVersioned`] as if they were executed. All others
    /// write, and go through the log.
    fn query(&self, _: At, query: &[u8], reply: &mut Reply<'_>) -> Result<(), NotAQuery> {
        let entry = |key| self.store.entry(self.store.find(HashedKey::new(key)));
        let answer = match Command::decode(query) {
            Ok(Command::Get { key }) => value_of(entry(key)),
            Ok(Command::GetVersioned { key }) => versioned(entry(key)),
            Ok(
                Command::Put { .. }
                | Command::Delete { .. }
                | Command::Increment { .. }
                | Command::CompareAndSet { .. },
            )
            | Err(MalformedCommand) => return Err(NotAQuery),
        };
        answer.write(|bytes| reply.put(bytes));
        Ok(())
    }

    /// A sum over all entries, of key, value and version; kept up with every write, so it costs
    /// nothing to ask for.
    fn state_hash(&self) -> u64 {
        self.store.digest()
    }

    fn freeze(&mut self) -> bool {
        self.store.freeze();
        true
    }

    fn write_frozen(&mut self, part: &mut Vec<u8>, bytes_max: usize) -> bool {
        self.store.write_frozen(part, bytes_max)
    }

    fn clear(&mut self) {
        self.store = Store::default();
    }

    fn restore(&mut self, part: &[u8]) -> Result<(), MalformedSnapshot> {
        restore::restore(&mut self.store, part)
    }
}

impl fmt::Debug for Kv {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Kv({} keys, state {:016x})", self.len(), self.store.digest())
    }
}
