//! Configurations in TOML.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loggos_fuzz::configuration::configuration(data));
