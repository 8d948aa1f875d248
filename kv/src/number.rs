//! Integers as the decimal text that a value holds.

use std::io::Write;

/// Bytes of the longest, `i64::MIN`.
const DECIMAL_BYTES_MAX: usize = 20;

/// An integer's text, without a heap.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Decimal {
    bytes: [u8; DECIMAL_BYTES_MAX],
    len: usize,
}

impl Decimal {
    /// Writes `number` down.
    pub(crate) fn new(number: i64) -> Self {
        let mut bytes = [0; DECIMAL_BYTES_MAX];
        let mut rest = &mut bytes[..];
        let written = write!(rest, "{number}");
        assert!(written.is_ok(), "{number} has more than {DECIMAL_BYTES_MAX} digits");
        let len = DECIMAL_BYTES_MAX - rest.len();
        Self { bytes, len }
    }

    /// Reads a number in the one form that [`Decimal::new`] gives it: `+1`, `-0`, `007` and ` 1`
    /// are none, as in Redis.
    pub(crate) fn parse(text: &[u8]) -> Option<i64> {
        if text.len() > DECIMAL_BYTES_MAX {
            return None;
        }
        let number = str::from_utf8(text).ok()?.parse().ok()?;
        (Self::new(number).as_slice() == text).then_some(number)
    }

    /// The text.
    pub(crate) fn as_slice(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_reads_back_as_it_was_written() {
        for number in [0, 1, -1, 9, 10, -10, 1234567890, i64::MAX, i64::MIN] {
            let decimal = Decimal::new(number);
            assert_eq!(decimal.as_slice(), number.to_string().as_bytes());
            assert_eq!(Decimal::parse(decimal.as_slice()), Some(number));
        }
    }

    #[test]
    fn text_of_any_other_form_is_no_number() {
        for text in ["", "-", "+1", "-0", "007", " 1", "1 ", "1.0", "0x1", "one", "1_000"] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text:?}");
        }
        for text in ["9223372036854775808", "-9223372036854775809", "100000000000000000000"] {
            assert_eq!(Decimal::parse(text.as_bytes()), None, "{text:?}");
        }
        assert_eq!(Decimal::parse(b"1\xFF"), None);
    }
}
