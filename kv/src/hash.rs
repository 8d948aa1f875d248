//! Hashing that is the same on every replica, on every processor and in every build.
//!
//! The shape is that of wyhash (Wang Yi, public domain), without its unrolled loop for long inputs:
//! two words at a time are multiplied to 128 bits, and the halves folded into one word. It is quick
//! and mixes well. Its constants are public, so it is no defence against a client that makes up
//! colliding keys; every client of a log is one that may write to it.

const MIX: [u64; 4] =
    [0xA076_1D64_78BD_642F, 0xE703_7ED1_A0B4_28DB, 0x8EBC_6AF0_9C88_C6E3, 0x5899_65CC_7537_4CC3];

/// A key with its hash, so that it is computed once a command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HashedKey<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) hash: u64,
}

impl<'a> HashedKey<'a> {
    /// Hashes `bytes`.
    #[inline]
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, hash: hash(MIX[0], bytes) }
    }
}

/// Hashes `bytes`; another `seed` gives another function. A seed is to be a well-mixed word: 0,
/// say, would make a poor function of short inputs.
#[inline]
pub(crate) fn hash(seed: u64, bytes: &[u8]) -> u64 {
    let mut seed = seed;
    let (a, b) = if bytes.len() <= 16 {
        ends(bytes)
    } else {
        let mut rest = bytes;
        while rest.len() > 16
            && let Some((chunk, after)) = rest.split_first_chunk::<16>()
        {
            let (a, b) = ends(chunk);
            seed = fold(a ^ MIX[1], b ^ seed);
            rest = after;
        }
        bytes.last_chunk::<16>().map_or((0, 0), |last| ends(last))
    };
    let (low, high) = multiply(a ^ MIX[1], b ^ seed);
    fold(low ^ MIX[0] ^ bytes.len() as u64, high ^ MIX[1])
}

/// Whether two keys are equal. For short ones, four words compared in line; most keys are short,
/// and the library's comparison is a call.
#[inline]
pub(crate) fn are_equal(a: &[u8], b: &[u8]) -> bool {
    if a.len() == b.len() && a.len() <= 16 { ends(a) == ends(b) } else { a == b }
}

/// Mixes two words into one.
#[inline]
pub(crate) fn mix(a: u64, b: u64) -> u64 {
    fold(a ^ MIX[2], b ^ MIX[3])
}

/// The first and last word of at most 16 bytes, which overlap where there are fewer: together they
/// hold every byte.
#[inline]
fn ends(bytes: &[u8]) -> (u64, u64) {
    if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        (u64::from_le_bytes(*first), u64::from_le_bytes(*last))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk(), bytes.last_chunk()) {
        (u32::from_le_bytes(*first).into(), u32::from_le_bytes(*last).into())
    } else {
        match *bytes {
            [] => (0, 0),
            [a] => (a.into(), 0),
            [a, b] => (a.into(), b.into()),
            [a, b, c, ..] => (u64::from(a) << 8 | u64::from(b), c.into()),
        }
    }
}

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = multiply(a, b);
    low ^ high
}

#[inline]
#[expect(clippy::cast_possible_truncation, reason = "both halves are taken")]
fn multiply(a: u64, b: u64) -> (u64, u64) {
    let product = u128::from(a) * u128::from(b);
    (product as u64, (product >> 64) as u64)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use loggos_protocol::Rng;

    use super::*;

    #[test]
    fn the_hash_is_what_it_was_when_this_was_written() {
        let bytes: Vec<u8> = (0..=255).collect();
        let digest = (0..=256).fold(0, |digest, len| hash(digest, &bytes[..len]));
        assert_eq!(digest, 13_482_641_238_328_078_513, "replicas of two builds would not agree");
    }

    #[test]
    fn every_byte_and_the_length_change_the_hash() {
        for seed in [MIX[0], mix(0, 0), mix(MIX[0], 1)] {
            let mut hashes = BTreeSet::new();
            let mut count = 0;
            for len in 0..80 {
                let mut bytes = vec![0; len];
                hashes.insert(hash(seed, &bytes));
                count += 1;
                for at in 0..len {
                    for byte in [1, 128] {
                        bytes[at] = byte;
                        hashes.insert(hash(seed, &bytes));
                        count += 1;
                    }
                    bytes[at] = 0;
                }
            }
            assert_eq!(hashes.len(), count, "seed {seed:x}");
        }
    }

    #[test]
    fn keys_are_equal_if_all_bytes_and_the_length_are() {
        for len in 0..40 {
            let a: Vec<u8> = (0..len).collect();
            assert!(are_equal(&a, &a.clone()));
            assert!(!are_equal(&a, &[&a[..], &[0]].concat()));
            for at in 0..a.len() {
                let mut b = a.clone();
                b[at] ^= 1;
                assert!(!are_equal(&a, &b), "{len} bytes, byte {at}");
            }
        }
        assert!(!are_equal(&[0], &[0, 0]));
    }

    #[test]
    fn a_flipped_bit_flips_each_bit_of_the_hash_half_the_time() {
        let mut rng = Rng::new(3);
        let mut flips = [0; 64];
        let samples = 4_000;
        for _ in 0..samples {
            let key = u128::from(rng.next_u64());
            let flipped = key ^ 1 << rng.below(128);
            let [before, after] = [key, flipped].map(|key| hash(MIX[0], &key.to_le_bytes()));
            let difference = before ^ after;
            for (bit, count) in flips.iter_mut().enumerate() {
                *count += difference >> bit & 1;
            }
        }
        for (bit, count) in flips.iter().enumerate() {
            assert!((samples * 45 / 100..samples * 55 / 100).contains(count), "bit {bit}: {count}");
        }
    }

    #[test]
    fn consecutive_keys_spread_over_the_buckets() {
        let mut counts = [0u32; 256];
        for number in 0..25_600u64 {
            let key = format!("user:{number:010}");
            let bucket = HashedKey::new(key.as_bytes()).hash >> 32 & 255;
            counts[usize::try_from(bucket).unwrap()] += 1;
        }
        for (bucket, count) in counts.iter().enumerate() {
            assert!((50..150).contains(count), "bucket {bucket}: {count}");
        }
    }
}
