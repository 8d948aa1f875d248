//! Values of a configuration: numbers, bytes and times, each within bounds.

use std::ops::RangeInclusive;
use std::time::Duration;

use toml::de::DeValue;

/// The most bytes that a limit may be.
pub(super) const BYTES_MAX: u32 = 1 << 30;
/// The most bytes that a log may be.
const LONG_BYTES_MAX: u64 = 1 << 44;
/// The most that any other number may be: what is sized by it must fit a machine.
pub(super) const NUMBER_MAX: u32 = 1 << 20;
/// The longest name.
const NAME_BYTES_MAX: usize = 64;
/// The longest time.
const TIME_MAX: Duration = Duration::from_secs(24 * 60 * 60);

const BYTE_UNITS: [(&str, u64); 4] =
    [("B", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
/// In nanoseconds.
const TIME_UNITS: [(&str, u64); 6] = [
    ("ns", 1),
    ("us", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("min", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// Reads a whole number.
pub(super) fn number<T>(value: &DeValue<'_>, range: RangeInclusive<u32>) -> Result<T, String>
where
    T: TryFrom<u32>,
{
    let number = integer(value).filter(|number| range.contains(number));
    number.and_then(|number| T::try_from(number).ok()).ok_or_else(|| {
        let (least, most) = range.into_inner();
        format!("must be a whole number from {least} to {most}, not {}", shown(value))
    })
}

/// Reads a number of bytes: a number, or a string with a unit.
pub(super) fn bytes(value: &DeValue<'_>) -> Result<u32, String> {
    let bytes = match value.as_str() {
        Some(text) => quantity(text, &BYTE_UNITS).and_then(|bytes| u32::try_from(bytes).ok()),
        None => integer(value),
    };
    bytes.filter(|bytes| *bytes <= BYTES_MAX).ok_or_else(|| {
        format!(
            "must be bytes, from 0 to 1GiB: a whole number, or a string with B, KiB, MiB or GiB such \
             as \"64KiB\", not {}",
            shown(value)
        )
    })
}

/// Reads a number of bytes that may be many.
pub(super) fn long_bytes(value: &DeValue<'_>) -> Result<u64, String> {
    let bytes = match value.as_str() {
        Some(text) => quantity(text, &BYTE_UNITS).and_then(|bytes| u64::try_from(bytes).ok()),
        None => value.as_integer().and_then(|it| u64::from_str_radix(it.as_str(), it.radix()).ok()),
    };
    bytes.filter(|bytes| *bytes <= LONG_BYTES_MAX).ok_or_else(|| {
        format!(
            "must be bytes, from 0 to 16384GiB: a whole number, or a string with B, KiB, MiB or GiB such \
             as \"64GiB\", not {}",
            shown(value)
        )
    })
}

/// Reads a time: a string with a unit.
pub(super) fn time(value: &DeValue<'_>) -> Result<Duration, String> {
    let nanos = value.as_str().and_then(|text| quantity(text, &TIME_UNITS));
    let time = nanos.and_then(|nanos| u64::try_from(nanos).ok()).map(Duration::from_nanos);
    time.filter(|time| *time <= TIME_MAX).ok_or_else(|| {
        format!(
            "must be a time, from \"0s\" to \"24h\": a string with ns, us, ms, s, min or h such as \
             \"50ms\", not {}",
            shown(value)
        )
    })
}

/// Writes a time so that [`time`] reads it.
pub(super) fn shown_time(time: Duration) -> String {
    let nanos = time.as_nanos();
    let fits = |(_, unit): &&(&str, u64)| nanos.is_multiple_of(u128::from(*unit));
    // Up to seconds: "0s" is easier to read than "0h".
    match TIME_UNITS[..4].iter().rev().find(fits) {
        Some((name, unit)) => format!("\"{}{name}\"", nanos / u128::from(*unit)),
        None => format!("\"{nanos}ns\""),
    }
}

/// Writes a number of bytes so that [`bytes`] reads it.
pub(super) fn shown_bytes(bytes: u32) -> String {
    shown_long_bytes(bytes.into())
}

/// Writes a number of bytes so that [`long_bytes`] reads it.
pub(super) fn shown_long_bytes(bytes: u64) -> String {
    let fits = |(_, unit): &&(&str, u64)| bytes > 0 && bytes.is_multiple_of(*unit);
    match BYTE_UNITS[1..].iter().rev().find(fits) {
        Some((name, unit)) => format!("\"{}{name}\"", bytes / unit),
        None => bytes.to_string(),
    }
}

/// Checks what a cluster or a node is called.
pub(super) fn name(text: &str) -> Result<(), String> {
    let is_known = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_known) {
        return Ok(());
    }
    Err(format!(
        "must be 1 to {NAME_BYTES_MAX} letters, digits, '-', '_' and '.', not \"{}\"",
        text.escape_debug()
    ))
}

/// Returns a short form of a value, for a message.
pub(super) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("\"{}\"", text.escape_debug()),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(truth) => truth.to_string(),
        DeValue::Datetime(_) => "a date".to_owned(),
        DeValue::Array(_) => "an array".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

fn integer(value: &DeValue<'_>) -> Option<u32> {
    let integer = value.as_integer()?;
    u32::from_str_radix(integer.as_str(), integer.radix()).ok()
}

/// Reads `12.5ms` and the like, exactly: none if a fraction of the smallest unit is left over.
fn quantity(text: &str, units: &[(&str, u64)]) -> Option<u128> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let (_, per_unit) = units.iter().find(|(name, _)| *name == unit.trim_start())?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let scale = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    let scaled = whole.parse::<u128>().ok()?.checked_mul(scale)?;
    let scaled = scaled.checked_add(fraction.parse().ok()?)?.checked_mul((*per_unit).into())?;
    scaled.is_multiple_of(scale).then(|| scaled / scale)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed<T>(text: &str, read: impl Fn(&DeValue<'_>) -> Result<T, String>) -> Option<T> {
        read(DeValue::parse(text).unwrap().get_ref()).ok()
    }

    #[test]
    fn times_are_read_exactly() {
        for (text, nanos) in [
            ("0s", 0),
            ("200us", 200_000),
            ("50 ms", 50_000_000),
            ("1.5s", 1_500_000_000),
            ("0.000000001s", 1),
            ("2min", 120_000_000_000),
            ("24h", 86_400_000_000_000),
        ] {
            let time = parsed(&format!("{text:?}"), time).unwrap();
            assert_eq!(time, Duration::from_nanos(nanos), "{text}");
        }
        for text in ["50", "", "ms", "-5ms", "1.s", ".5s", "1.2.3s", "0.5ns", "1d", "25h", "1e3s"] {
            assert_eq!(parsed(&format!("{text:?}"), time), None, "{text}");
        }
        assert_eq!(parsed("50", time), None);
    }

    #[test]
    fn bytes_are_numbers_or_have_a_unit() {
        for (text, count) in
            [("4096", 4096), ("\"64KiB\"", 65_536), ("\"1.5MiB\"", 1_572_864), ("0x10", 16)]
        {
            assert_eq!(parsed(text, bytes), Some(count), "{text}");
        }
        for text in ["-1", "1.5", "\"64\"", "\"64KB\"", "\"1.0001KiB\"", "\"2GiB\"", "true"] {
            assert_eq!(parsed(text, bytes), None, "{text}");
        }
    }

    #[test]
    fn what_is_shown_is_read_back() {
        for nanos in [0, 1, 1_500, 200_000, 1_500_000_000, 86_400_000_000_000] {
            let time_shown = Duration::from_nanos(nanos);
            assert_eq!(parsed(&shown_time(time_shown), time), Some(time_shown));
        }
        for count in [0, 1, 1000, 1024, 65_536, BYTES_MAX] {
            assert_eq!(parsed(&shown_bytes(count), bytes), Some(count));
        }
    }

    #[test]
    fn names_have_at_most_64_plain_letters() {
        for text in ["a", "A.b-c_9", "-", &"x".repeat(64)] {
            assert_eq!(name(text), Ok(()));
        }
        for text in ["", "a b", "é", "a/b", "a\n", &"x".repeat(65)] {
            assert!(name(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_number_is_whole_and_in_range() {
        assert_eq!(parsed("1_000", |value| number::<u32>(value, 0..=1000)), Some(1000));
        for text in ["-1", "1001", "1.0", "\"5\"", "99999999999999999999999"] {
            assert_eq!(parsed(text, |value| number::<u32>(value, 0..=1000)), None, "{text}");
        }
    }
}
