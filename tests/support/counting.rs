//! The system's allocator, which counts who asks for memory and what is held.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};

/// Calls of all threads.
static ALL: AtomicU64 = AtomicU64::new(0);

thread_local! {
    /// Calls of this thread that asked for memory.
    static ASKED: Cell<u64> = const { Cell::new(0) };
    /// Bytes that it holds.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most that it held.
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, which counts who asks.
pub(crate) struct Counting;

/// Counts one call; a thread that is going away has no counter any more.
fn count(more: usize) {
    ALL.fetch_add(1, Ordering::Relaxed);
    let _ = ASKED.try_with(|asked| asked.set(asked.get() + 1));
    hold(more as isize);
}

fn hold(more: isize) {
    let _ = HELD.try_with(|held| held.set(held.get() + more));
    let _ = PEAK.try_with(|peak| peak.set(peak.get().max(HELD.get())));
}

#[expect(
    unsafe_code,
    reason = "an allocator that counts can only be written as an unsafe implementation"
)]
// SAFETY: each method hands its arguments to the system's allocator as they are and returns what it returned. Counting
// itself does not allocate: the counter is initialised in place and needs no destructor.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller keeps the contract of `alloc`, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        hold(-(layout.size() as isize));
        // SAFETY: `memory` comes from the system's allocator, by one of the methods here, with this layout.
        unsafe { System.dealloc(memory, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        hold(-(layout.size() as isize));
        // SAFETY: as for `dealloc`, and the caller keeps what `realloc` asks of `size`.
        unsafe { System.realloc(memory, layout, size) }
    }
}

/// Calls of this thread that asked for memory.
pub(crate) fn asked() -> u64 {
    ASKED.get()
}

/// Such calls of all other threads.
pub(crate) fn asked_by_others() -> u64 {
    ALL.load(Ordering::Relaxed) - ASKED.get()
}

/// Bytes that this thread holds.
pub(crate) fn held() -> isize {
    HELD.get()
}

/// The most that it held since it was asked to look.
pub(crate) fn peak() -> isize {
    PEAK.get()
}

/// Looks from now on.
pub(crate) fn watch_peak() {
    PEAK.set(HELD.get());
}
