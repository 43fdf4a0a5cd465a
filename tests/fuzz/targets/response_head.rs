//! See `fuzz::response_head` in ../../support/fuzz.rs.

#![no_main]

mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::fuzz::response_head(bytes));
