//! Streams of frames, in pieces.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| loggos_fuzz::wire::frames(data));
