#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| link_fuzz::world(input));
