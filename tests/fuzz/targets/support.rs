//! The parts of the tests' support that the targets need.

#![allow(dead_code, unreachable_pub, reason = "each target uses its own part")]

#[path = "../../support/fuzz.rs"]
pub mod fuzz;
#[path = "../../support/fuzz_gossip.rs"]
pub mod fuzz_gossip;
#[path = "../../support/memory.rs"]
pub mod memory;
#[path = "../../support/strict.rs"]
pub mod strict;
