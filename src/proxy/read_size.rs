//! How much is read at a time.
//!
//! A read goes into the worker's scratch buffer and from there straight to the other side. It begins at [`KEPT`] (a body
//! of 64 KiB then costs 25 µs, where reads that grow from 16 KiB cost 40), grows to the whole scratch buffer only while
//! writes go through whole, and falls to [`SMALL_READ`] when one does not. A read of more than [`KEPT`] bytes is made
//! only if the other side says that it has room for it now. A kernel that is short of memory takes less than it said:
//! both directions of a connection then keep at most [`LARGEST_READ`], and the worker makes small reads for a while
//! ([`ReadBudget`]).

use std::cell::Cell;

use crate::transport::stream::Stream;

/// Read of a head, and of a body whose sink has just not taken everything; bytes.
pub const SMALL_READ: usize = 16 << 10;
/// What one direction of a connection may keep of what the other side has not taken, if that takes what it said it
/// would; bytes.
pub(crate) const KEPT: usize = 64 << 10;
/// The largest read, and about what both directions of a connection together keep at most; bytes. Bulk costs 290 ms of
/// CPU a GB with 512 KiB, 261 with 640 KiB and no less with 1 MiB (medians on one machine).
pub const LARGEST_READ: usize = 640 << 10;
/// How long a worker reads no more than [`KEPT`] at a time after a sink took less than it said it would.
const CAUTION_MS: u64 = 1000;
/// Bytes that one connection moves in one direction before others have their turn.
pub(crate) const TURN: usize = 2 << 20;

/// How large the next read of one direction is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadSize(u32);

impl Default for ReadSize {
    fn default() -> Self {
        Self(KEPT as u32)
    }
}

impl ReadSize {
    /// Bytes to read for a sink that has `room` for so many now; at most `most`.
    pub(crate) fn next(self, room: impl FnOnce() -> usize, most: usize) -> usize {
        let size = (self.0 as usize).min(most);
        if size <= KEPT {
            size
        } else {
            room().clamp(KEPT, size)
        }
    }

    /// Learns from a read of `read` bytes (of `asked`) that was written whole, or was not.
    pub(crate) fn learn(&mut self, asked: usize, read: usize, whole: bool) {
        if !whole {
            self.0 = SMALL_READ as u32;
        } else if read == asked {
            self.0 = (self.0 * 2).min(LARGEST_READ as u32);
        }
    }
}

/// The largest read that one direction may make into `scratch` bytes while the rest of its connection keeps `kept`.
pub(crate) fn largest_read(scratch: usize, kept: usize) -> usize {
    scratch.saturating_sub(kept).max(SMALL_READ).min(scratch)
}

/// How large a worker's reads may be.
#[derive(Debug, Default)]
pub(crate) struct ReadBudget {
    careful_until: Cell<u64>,
}

impl ReadBudget {
    /// The largest read at `now`, in the worker's milliseconds.
    pub(crate) fn largest(&self, now: u64) -> usize {
        if now < self.careful_until.get() {
            KEPT
        } else {
            LARGEST_READ
        }
    }

    /// Learns what one direction of a connection keeps after a call that moved its bytes. More than a read of [`KEPT`]
    /// with a head before it, which nothing was promised for, means that the kernel is short of memory, for all
    /// connections alike.
    pub(crate) fn learn(&self, kept: usize, now: u64) {
        if kept > 2 * KEPT {
            self.careful_until.set(now + CAUTION_MS);
        }
    }
}

/// Sees whether a peer takes what the system holds for it: a socket becomes writable again only when a good part of its
/// queue has gone, which a slow reader may need minutes for.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Backlog(usize);

impl Backlog {
    /// Whether there is less than at the previous look.
    pub(crate) fn has_shrunk(&mut self, sink: &impl Stream) -> bool {
        let before = std::mem::replace(&mut self.0, sink.send_queue());
        self.0 < before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_grow_while_writes_go_through_and_shrink_when_they_do_not() {
        let room = || KEPT;
        let mut size = ReadSize::default();
        assert_eq!(size.next(room, LARGEST_READ), KEPT);
        size.learn(KEPT, 1, false);
        assert_eq!(size.next(room, LARGEST_READ), SMALL_READ);
        size.learn(SMALL_READ, SMALL_READ - 1, true);
        assert_eq!(
            size.next(room, LARGEST_READ),
            SMALL_READ,
            "a short read means that there is no more"
        );
        for _ in 0..10 {
            size.learn(1, 1, true);
        }
        assert_eq!(
            size.next(room, LARGEST_READ),
            KEPT,
            "never more than the sink has room for"
        );
        assert_eq!(size.next(room, 100), 100);
        size.learn(1, 1, false);
        assert_eq!(size.next(room, LARGEST_READ), SMALL_READ);
    }

    #[test]
    fn what_is_kept_makes_the_reads_of_the_connection_smaller() {
        assert_eq!(largest_read(LARGEST_READ, 0), LARGEST_READ);
        assert_eq!(largest_read(LARGEST_READ, 100), LARGEST_READ - 100);
        assert_eq!(
            largest_read(LARGEST_READ, LARGEST_READ),
            SMALL_READ,
            "a read of nothing would look like an end"
        );
        assert_eq!(largest_read(10, 0), 10);
    }

    #[test]
    fn a_broken_promise_makes_the_worker_careful_for_a_while() {
        let reads = ReadBudget::default();
        reads.learn(2 * KEPT, 5);
        assert_eq!(reads.largest(5), LARGEST_READ);
        reads.learn(2 * KEPT + 1, 5);
        assert_eq!(reads.largest(5 + CAUTION_MS - 1), KEPT);
        assert_eq!(reads.largest(5 + CAUTION_MS), LARGEST_READ);
    }
}
