//! The test program of memory: its allocator counts the calls, of one thread and of all of them, so no other test may
//! run beside it.

#[path = "support/counting.rs"]
mod counting;

mod allocation;
mod warm_path;

use std::sync::{Mutex, MutexGuard, PoisonError};

#[global_allocator]
static ALLOCATOR: counting::Counting = counting::Counting;

/// Lets one test run at a time; held until the guard goes.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
