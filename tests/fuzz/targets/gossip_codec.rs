//! See `fuzz::gossip_codec` in ../../support/fuzz_gossip.rs.

#![no_main]

mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::fuzz::gossip_codec(bytes));
