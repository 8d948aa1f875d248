//! Randomness from the operating system: incarnations, directory ids and seeds.

/// 64 random bits.
///
/// # Panics
///
/// If the operating system has none: without them no incarnation is safe (R2).
pub(crate) fn random_u64() -> u64 {
    getrandom::u64().unwrap_or_else(|error| panic!("the system gives no random bits: {error}"))
}
