#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| eva_fuzz::selection(data));
