#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| gatepost_tests::fuzz::frames::check(input));
