//! Single frames of every kind, whose checksums are right.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loggos_fuzz::wire::headers(data));
