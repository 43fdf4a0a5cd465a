//! See `fuzz::request_head` in ../../support/fuzz.rs.

#![no_main]

mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::fuzz::request_head(bytes));
