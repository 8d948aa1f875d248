//! Commands: what a client asks for, and how that lies in bytes.
//!
//! ```text
//!  every command    opcode u8 │ key length u16 │ key │ the rest, by opcode
//!
//!  Put              1         value
//!  Get              2
//!  GetVersioned     3
//!  Delete           4
//!  Increment        5         by i64
//!  CompareAndSet    6         expected length u32 │ expected │ value
//!                   7         value, where the key is expected to be absent
//! ```
//!
//! All integers are little-endian. A command has one encoding: bytes left over make it malformed,
//! as bytes missing do. A value has no length of its own, it is what the block has left of the
//! command.

use std::error::Error;
use std::fmt;

/// The longest key; the shortest has one byte.
pub const KEY_BYTES_MAX: usize = u16::MAX as usize;

const OPCODE_PUT: u8 = 1;
const OPCODE_GET: u8 = 2;
const OPCODE_GET_VERSIONED: u8 = 3;
const OPCODE_DELETE: u8 = 4;
const OPCODE_INCREMENT: u8 = 5;
const OPCODE_COMPARE_AND_SET: u8 = 6;
const OPCODE_SET_IF_ABSENT: u8 = 7;

/// One command. Keys have `1..=KEY_BYTES_MAX` bytes; values any number that fits in a block.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command<'a> {
    /// Gives `key` a value.
    Put {
        /// The key.
        key: &'a [u8],
        /// Replaces what the key had.
        value: &'a [u8],
    },
    /// Asks for the value of `key`.
    Get {
        /// The key.
        key: &'a [u8],
    },
    /// Asks for the value of `key` and where in the log it was written.
    GetVersioned {
        /// The key.
        key: &'a [u8],
    },
    /// Takes the value of `key` away.
    Delete {
        /// The key.
        key: &'a [u8],
    },
    /// Adds to a value that is a decimal integer in ASCII, as Redis does; an absent one counts as
    /// 0.
    Increment {
        /// The key.
        key: &'a [u8],
        /// The number to add; may be negative.
        by: i64,
    },
    /// Gives `key` a value if it has the expected one.
    CompareAndSet {
        /// The key.
        key: &'a [u8],
        /// The value that it must have, to the byte; `None` if it must have none.
        expected: Option<&'a [u8]>,
        /// The new value.
        value: &'a [u8],
    },
}

/// Bytes that are not what the module's chart says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct MalformedCommand;

/// The reason why a command cannot be encoded.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EncodeError {
    /// The key has this many bytes, none or more than [`KEY_BYTES_MAX`].
    Key(usize),
    /// The expected value has this many bytes, more than 32 bits can say.
    Expected(usize),
}

impl<'a> Command<'a> {
    /// The key that the command is about.
    #[must_use]
    pub fn key(&self) -> &'a [u8] {
        match *self {
            Self::Put { key, .. }
            | Self::Get { key }
            | Self::GetVersioned { key }
            | Self::Delete { key }
            | Self::Increment { key, .. }
            | Self::CompareAndSet { key, .. } => key,
        }
    }

    /// Appends the encoded command to `buffer`.
    ///
    /// # Errors
    ///
    /// If the key or the expected value has a length that the encoding has no room for; `buffer` is
    /// then as it was.
    pub fn encode(&self, buffer: &mut Vec<u8>) -> Result<(), EncodeError> {
        let header = |opcode| Header::new(opcode, self.key());
        match *self {
            Self::Put { value, .. } => header(OPCODE_PUT)?.append(buffer, &[value]),
            Self::Get { .. } => header(OPCODE_GET)?.append(buffer, &[]),
            Self::GetVersioned { .. } => header(OPCODE_GET_VERSIONED)?.append(buffer, &[]),
            Self::Delete { .. } => header(OPCODE_DELETE)?.append(buffer, &[]),
            Self::Increment { by, .. } => {
                header(OPCODE_INCREMENT)?.append(buffer, &[&by.to_le_bytes()]);
            }
            Self::CompareAndSet { expected: Some(expected), value, .. } => {
                let len = u32::try_from(expected.len())
                    .map_err(|_| EncodeError::Expected(expected.len()))?;
                let rest = [&len.to_le_bytes()[..], expected, value];
                header(OPCODE_COMPARE_AND_SET)?.append(buffer, &rest);
            }
            Self::CompareAndSet { expected: None, value, .. } => {
                header(OPCODE_SET_IF_ABSENT)?.append(buffer, &[value]);
            }
        }
        Ok(())
    }

    /// Reads a command, which refers into `bytes`.
    ///
    /// # Errors
    ///
    /// If `bytes` are no command.
    #[inline]
    pub fn decode(bytes: &'a [u8]) -> Result<Self, MalformedCommand> {
        Self::read(bytes).ok_or(MalformedCommand)
    }

    /// Reads just the key, which has the same place in every command.
    #[inline]
    pub(crate) fn peek_key(bytes: &'a [u8]) -> Option<&'a [u8]> {
        split_header(bytes).map(|(_, key, _)| key)
    }

    #[inline]
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let (opcode, key, rest) = split_header(bytes)?;
        match opcode {
            OPCODE_PUT => Some(Self::Put { key, value: rest }),
            OPCODE_GET => rest.is_empty().then_some(Self::Get { key }),
            OPCODE_GET_VERSIONED => rest.is_empty().then_some(Self::GetVersioned { key }),
            OPCODE_DELETE => rest.is_empty().then_some(Self::Delete { key }),
            OPCODE_INCREMENT => {
                let by = i64::from_le_bytes(rest.try_into().ok()?);
                Some(Self::Increment { key, by })
            }
            OPCODE_COMPARE_AND_SET => {
                let (len, rest) = rest.split_first_chunk::<4>()?;
                let (expected, value) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
                Some(Self::CompareAndSet { key, expected: Some(expected), value })
            }
            OPCODE_SET_IF_ABSENT => Some(Self::CompareAndSet { key, expected: None, value: rest }),
            _ => None,
        }
    }
}

/// Splits a command into its opcode, its key and the rest.
#[inline]
fn split_header(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let ([opcode, key_len @ ..], rest) = bytes.split_first_chunk::<3>()?;
    let (key, rest) = rest.split_at_checked(u16::from_le_bytes(*key_len).into())?;
    (!key.is_empty()).then_some((*opcode, key, rest))
}

/// The beginning of all commands.
struct Header<'a> {
    opcode: u8,
    key_len: u16,
    key: &'a [u8],
}

impl<'a> Header<'a> {
    fn new(opcode: u8, key: &'a [u8]) -> Result<Self, EncodeError> {
        match u16::try_from(key.len()) {
            Ok(key_len) if key_len > 0 => Ok(Self { opcode, key_len, key }),
            Ok(_) | Err(_) => Err(EncodeError::Key(key.len())),
        }
    }

    fn append(&self, buffer: &mut Vec<u8>, rest: &[&[u8]]) {
        buffer.push(self.opcode);
        buffer.extend_from_slice(&self.key_len.to_le_bytes());
        buffer.extend_from_slice(self.key);
        for part in rest {
            buffer.extend_from_slice(part);
        }
    }
}

impl fmt::Display for MalformedCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes are no command")
    }
}

impl fmt::Display for EncodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Key(len) => write!(f, "a key of {len} bytes, not 1 to {KEY_BYTES_MAX}"),
            Self::Expected(len) => write!(f, "an expected value of {len} bytes"),
        }
    }
}

impl Error for MalformedCommand {}
impl Error for EncodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples<'a>(key: &'a [u8], value: &'a [u8]) -> [Command<'a>; 8] {
        [
            Command::Put { key, value },
            Command::Get { key },
            Command::GetVersioned { key },
            Command::Delete { key },
            Command::Increment { key, by: i64::MIN },
            Command::CompareAndSet { key, expected: None, value },
            Command::CompareAndSet { key, expected: Some(b""), value },
            Command::CompareAndSet { key, expected: Some(b"before"), value },
        ]
    }

    fn encoded(command: Command<'_>) -> Vec<u8> {
        let mut bytes = Vec::new();
        command.encode(&mut bytes).unwrap();
        bytes
    }

    #[test]
    fn a_command_reads_back_as_it_was_written() {
        let long = vec![7; KEY_BYTES_MAX];
        for key in [&b"k"[..], &long] {
            for value in [&b""[..], b"value", &[3; 5000]] {
                for command in samples(key, value) {
                    assert_eq!(Command::decode(&encoded(command)), Ok(command));
                }
            }
        }
    }

    #[test]
    fn encoding_appends_to_the_buffer() {
        let mut buffer = b"before".to_vec();
        Command::Get { key: b"key" }.encode(&mut buffer).unwrap();
        assert_eq!(buffer, b"before\x02\x03\x00key");
    }

    #[test]
    fn a_key_of_no_or_too_many_bytes_is_refused_and_leaves_the_buffer_alone() {
        for len in [0, KEY_BYTES_MAX + 1] {
            let key = vec![0; len];
            for command in samples(&key, b"value") {
                let mut buffer = b"before".to_vec();
                assert_eq!(command.encode(&mut buffer), Err(EncodeError::Key(len)));
                assert_eq!(buffer, b"before");
            }
        }
        assert_eq!(Command::decode(&[OPCODE_GET, 0, 0]), Err(MalformedCommand));
    }

    #[test]
    fn a_command_cut_anywhere_is_malformed_or_has_a_shorter_value() {
        for command in samples(b"key", b"value") {
            let whole = encoded(command);
            for cut in 0..whole.len() {
                let Ok(shorter) = Command::decode(&whole[..cut]) else { continue };
                assert_eq!(encoded(shorter), &whole[..cut]);
                let has_value =
                    matches!(shorter, Command::Put { .. } | Command::CompareAndSet { .. });
                assert!(has_value, "{shorter:?}");
            }
        }
    }

    #[test]
    fn bytes_left_over_make_a_command_without_a_value_malformed() {
        for command in &samples(b"key", b"value")[1..5] {
            let mut bytes = encoded(*command);
            bytes.push(0);
            assert_eq!(Command::decode(&bytes), Err(MalformedCommand), "{command:?}");
        }
    }

    #[test]
    fn no_opcode_beyond_the_chart_is_a_command() {
        for opcode in (0..=0).chain(8..=u8::MAX) {
            assert_eq!(Command::decode(&[opcode, 1, 0, b'k']), Err(MalformedCommand));
        }
    }
}
