//! Gives memory back to the system.
//!
//! The system's allocator keeps what is freed in the middle of its heaps: after 12,000 half heads the process stayed at
//! 25 MB, of which 17 were free; after 100,000 routes had come and gone by reloads, at 352 MB, of which 1.3 were used. One call takes some
//! milliseconds, or tens where very much is free, so it is made only where much may have been freed: behind a crowd of connections and behind a reload. What is free at the
//! end of a thread's own heap stays; after those routes that were 20 MB.

#![expect(unsafe_code, reason = "malloc_trim has no safe wrapper")]

/// Returns free memory to the system.
pub(crate) fn give_back() {
    // Other libraries than glibc either return memory by themselves or have no such call.
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim may be called at any time from any thread (malloc_trim(3)); it takes a number and touches
    // only memory that the allocator itself owns and that is free.
    unsafe {
        libc::malloc_trim(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn giving_back_leaves_what_is_in_use_alone() {
        let kept: Vec<Vec<u8>> = (0..1000).map(|i| vec![i as u8; 1000]).collect();
        drop((0..1000).map(|_| vec![1u8; 1000]).collect::<Vec<_>>());
        give_back();
        assert!(
            kept.iter()
                .enumerate()
                .all(|(i, text)| text.iter().all(|b| *b == i as u8))
        );
    }
}
