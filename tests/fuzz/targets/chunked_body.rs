//! See `fuzz::chunked_body` in ../../support/fuzz.rs.

#![no_main]

mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::fuzz::chunked_body(bytes));
