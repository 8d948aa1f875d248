//! A seeded sequence for back-off, stagger and nonces.
//!
//! The protocol draws no randomness of its own: the driver hands each role a seed, and the role is
//! a pure function of it. This is SplitMix64 (Steele, Lea, Flood, OOPSLA 2014): one word of state,
//! every seed good.

use std::time::Duration;

/// A pseudo-random sequence.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Rng(u64);

impl Rng {
    /// Starts the sequence of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(bound > 0, "an empty range has no member");
        // The bias of a remainder is at most bound / 2^64: nothing for back-offs and tests.
        self.next_u64() % bound
    }

    /// A duration in `0..=most`.
    pub fn up_to(&mut self, most: Duration) -> Duration {
        let nanos = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.below(nanos + 1))
    }
}
