//! Returns memory to the system.
//!
//! The system's allocator keeps what is freed in the middle of its heaps: after 12,000 incomplete heads the process
//! stayed at 25 MB, of which 17 MB were free; after reloads had added and removed 100,000 routes, at 352 MB, of which
//! 1.3 MB were used. A call takes a few milliseconds, or tens of them if very much is free, so it is made only when
//! much may have been freed: after a crowd of connections and after a reload. What is free at the end of a thread's own
//! heap stays; after those routes it was 20 MB.

#![expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]

/// Returns free memory to the system.
pub(crate) fn trim_heap() {
    // C libraries other than glibc either return memory themselves or have no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time from any thread (malloc_trim(3)); it takes a number and touches
    // only memory that the allocator itself owns and that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
#[cfg(target_env = "gnu")]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::FileExt;

    use super::*;

    /// Whether the page at `address` is in memory; `pages` is `/proc/self/pagemap`.
    fn is_resident(pages: &File, address: usize) -> bool {
        // SAFETY: sysconf only returns a number and touches no memory of the caller.
        let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) } as usize;
        let mut entry = [0; 8];
        let at = (address / page * entry.len()) as u64;
        pages.read_exact_at(&mut entry, at).unwrap();
        u64::from_ne_bytes(entry) >> 63 == 1
    }

    #[test]
    fn free_memory_between_used_memory_is_returned() {
        // Below the size at which the allocator maps each block separately and returns it at once.
        const SIZE: usize = 100 << 10;
        let pages = File::open("/proc/self/pagemap").unwrap();
        let all: Vec<Vec<u8>> = (0..200).map(|i| vec![i + 1; SIZE]).collect();
        let inside = |piece: &Vec<u8>| piece.as_ptr() as usize + SIZE / 2;
        let freed: Vec<usize> = all.iter().skip(1).step_by(2).map(inside).collect();
        let resident = || freed.iter().filter(|at| is_resident(&pages, **at)).count();
        let used: Vec<Vec<u8>> = all.into_iter().step_by(2).collect();
        let before = resident();
        trim_heap();
        let after = resident();
        // Other threads may use what was freed.
        assert!(before > 50 && after < 25, "{before} pages, then {after}");
        for (piece, value) in used.iter().zip((1..).step_by(2)) {
            assert!(piece.iter().all(|byte| *byte == value));
        }
    }
}
