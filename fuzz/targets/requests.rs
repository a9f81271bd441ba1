#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sconce::http::fuzz::requests(data));
