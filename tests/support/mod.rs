//! What the end-to-end tests are made of: the built program as a process, sample backends whose every byte can be
//! scripted, strict clients, a load generator and a parser of metrics. Nothing here knows the program's source.
//!
//! Tests are plain threads with blocking clients. Backends and load run on one runtime of their own ([`runtime`]),
//! so that a test that blocks never stops the world it looks at. Every wait is for a condition and bounded
//! ([`wait`]); the bound is generous, because a busy machine is slow and not wrong.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "each test program uses its own part"
)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops")]

pub mod agent;
pub mod backend;
pub mod child;
pub mod client;
pub mod corpus;
pub mod fuzz;
pub mod fuzz_gossip;
pub mod load;
pub mod memory;
pub mod message;
pub mod metrics;
pub mod net;
pub mod pattern;
pub mod port;
pub mod process;
pub mod relay;
mod serve;
pub mod strict;
pub mod tcp;
pub mod wait;
pub mod ws;

use std::fs::File;
use std::sync::LazyLock;

/// The runtime of backends and load.
pub fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("sample")
            .enable_all()
            .build()
            .unwrap()
    });
    &RUNTIME
}

/// Lets one test at a time use all processors, or judge by latency; held until the guard goes. A lock of a file, because cargo-nextest runs each test
/// in a process of its own.
pub fn alone() -> File {
    let lock = File::create(concat!(env!("CARGO_TARGET_TMPDIR"), "/alone.lock")).unwrap();
    lock.lock().unwrap();
    lock
}

/// Raises the descriptor limit of this process, and so of the programs that it starts, to the hard limit; returns it.
pub fn raise_descriptor_limit() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, raised).unwrap();
    maximum.unwrap_or(u64::MAX)
}

/// A number from the environment, or its default; for tests that can be made larger.
pub fn number_from_env(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}
