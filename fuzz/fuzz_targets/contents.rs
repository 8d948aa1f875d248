//! What payloads hold: blocks of batches and of results, commands and answers of the key-value
//! store.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loggos_fuzz::contents::contents(data));
