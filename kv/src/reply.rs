//! Answers: what a command comes back with, and how that lies in bytes.
//!
//! ```text
//!  Stored       nothing at all
//!  every other  status u8 │ the rest, by status
//!
//!  Value        1         value
//!  Versioned    2         slot u64 │ index u32 │ value
//!  Missing      3
//!  Deleted      4
//!  Number       5         i64
//!  Swapped      6
//!  Mismatch     7         the current value
//!               8         where there is none
//!  NotANumber   9
//!  Overflow     10
//!  Malformed    11
//! ```
//!
//! All integers are little-endian. The answer to a put has no bytes because it is the one that is
//! sent most: its length is all there is to it, and it has no other encoding.

use std::error::Error;
use std::fmt;

use loggos_protocol::Slot;

use crate::Version;

const STATUS_VALUE: u8 = 1;
const STATUS_VERSIONED: u8 = 2;
const STATUS_MISSING: u8 = 3;
const STATUS_DELETED: u8 = 4;
const STATUS_NUMBER: u8 = 5;
const STATUS_SWAPPED: u8 = 6;
const STATUS_MISMATCH: u8 = 7;
const STATUS_MISMATCH_ABSENT: u8 = 8;
const STATUS_NOT_A_NUMBER: u8 = 9;
const STATUS_OVERFLOW: u8 = 10;
const STATUS_MALFORMED: u8 = 11;

/// The answer to one command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Answer<'a> {
    /// The put is done.
    Stored,
    /// The value that was asked for.
    Value(&'a [u8]),
    /// The value that was asked for, and where it was written.
    Versioned {
        /// The value.
        value: &'a [u8],
        /// The place of the write that gave the key this value.
        version: Version,
    },
    /// The key to be read or deleted has no value.
    Missing,
    /// The key has no value any more.
    Deleted,
    /// The value after the increment.
    Number(i64),
    /// The expectation was met and the value is set.
    Swapped,
    /// The expectation was not met: this is what the key has. Nothing was changed.
    Mismatch(Option<&'a [u8]>),
    /// The value to be incremented is no decimal 64-bit integer. Nothing was changed.
    NotANumber,
    /// The sum does not fit in 64 bits. Nothing was changed.
    Overflow,
    /// The bytes were no command. Nothing was changed.
    Malformed,
}

/// Bytes that are not what the module's chart says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MalformedAnswer;

impl<'a> Answer<'a> {
    /// Appends the encoded answer to `buffer`.
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        self.write(|bytes| buffer.extend_from_slice(bytes));
    }

    /// Hands the encoded answer to `put`, part by part.
    #[inline]
    pub(crate) fn write(&self, mut put: impl FnMut(&[u8])) {
        match *self {
            Self::Stored => {}
            Self::Value(value) => {
                put(&[STATUS_VALUE]);
                put(value);
            }
            Self::Versioned { value, version } => {
                put(&[STATUS_VERSIONED]);
                put(&version.slot.0.to_le_bytes());
                put(&version.index.to_le_bytes());
                put(value);
            }
            Self::Missing => put(&[STATUS_MISSING]),
            Self::Deleted => put(&[STATUS_DELETED]),
            Self::Number(number) => {
                put(&[STATUS_NUMBER]);
                put(&number.to_le_bytes());
            }
            Self::Swapped => put(&[STATUS_SWAPPED]),
            Self::Mismatch(Some(value)) => {
                put(&[STATUS_MISMATCH]);
                put(value);
            }
            Self::Mismatch(None) => put(&[STATUS_MISMATCH_ABSENT]),
            Self::NotANumber => put(&[STATUS_NOT_A_NUMBER]),
            Self::Overflow => put(&[STATUS_OVERFLOW]),
            Self::Malformed => put(&[STATUS_MALFORMED]),
        }
    }

    /// Reads an answer, which refers into `bytes`.
    ///
    /// # Errors
    ///
    /// If `bytes` are no answer.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MalformedAnswer> {
        Self::read(bytes).ok_or(MalformedAnswer)
    }

    fn read(bytes: &'a [u8]) -> Option<Self> {
        let Some((status, rest)) = bytes.split_first() else {
            return Some(Self::Stored);
        };
        let alone = |answer| rest.is_empty().then_some(answer);
        match *status {
            STATUS_VALUE => Some(Self::Value(rest)),
            STATUS_VERSIONED => {
                let (slot, rest) = rest.split_first_chunk()?;
                let (index, value) = rest.split_first_chunk()?;
                let slot = Slot(u64::from_le_bytes(*slot));
                let version = Version { slot, index: u32::from_le_bytes(*index) };
                Some(Self::Versioned { value, version })
            }
            STATUS_MISSING => alone(Self::Missing),
            STATUS_DELETED => alone(Self::Deleted),
            STATUS_NUMBER => Some(Self::Number(i64::from_le_bytes(rest.try_into().ok()?))),
            STATUS_SWAPPED => alone(Self::Swapped),
            STATUS_MISMATCH => Some(Self::Mismatch(Some(rest))),
            STATUS_MISMATCH_ABSENT => alone(Self::Mismatch(None)),
            STATUS_NOT_A_NUMBER => alone(Self::NotANumber),
            STATUS_OVERFLOW => alone(Self::Overflow),
            STATUS_MALFORMED => alone(Self::Malformed),
            _ => None,
        }
    }
}

impl fmt::Display for MalformedAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes are no answer")
    }
}

impl Error for MalformedAnswer {}

#[cfg(test)]
mod tests {
    use loggos_protocol::Rng;

    use super::*;

    const VERSION: Version = Version { slot: Slot(u64::MAX - 1), index: 77 };

    const SAMPLES: [Answer<'_>; 14] = [
        Answer::Stored,
        Answer::Value(b""),
        Answer::Value(b"value"),
        Answer::Versioned { value: b"", version: VERSION },
        Answer::Versioned { value: b"value", version: VERSION },
        Answer::Missing,
        Answer::Deleted,
        Answer::Number(i64::MIN),
        Answer::Swapped,
        Answer::Mismatch(Some(b"value")),
        Answer::Mismatch(None),
        Answer::NotANumber,
        Answer::Overflow,
        Answer::Malformed,
    ];

    fn encoded(answer: Answer<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        answer.encode(&mut bytes);
        bytes
    }

    #[test]
    fn an_answer_reads_back_as_it_was_written() {
        for answer in SAMPLES {
            assert_eq!(Answer::decode(&encoded(answer)), Ok(answer));
        }
    }

    #[test]
    fn the_answer_to_a_put_has_no_bytes_and_no_other_does() {
        for answer in SAMPLES {
            assert_eq!(encoded(answer).is_empty(), answer == Answer::Stored, "{answer:?}");
        }
    }

    #[test]
    fn an_answer_has_one_encoding() {
        let mut rng = Rng::new(1);
        for _ in 0..20_000 {
            let len = rng.below(20);
            let mut bytes: Vec<u8> = (0..len).map(|_| rng.next_u64().to_le_bytes()[0]).collect();
            if let Some(status) = bytes.first_mut() {
                *status %= 14;
            }
            if let Ok(answer) = Answer::decode(&bytes) {
                assert_eq!(encoded(answer), bytes);
            }
        }
    }
}
