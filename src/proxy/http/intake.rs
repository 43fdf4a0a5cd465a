//! A client's bytes on their way to becoming requests: what is kept of them, and when looking at them is worth the
//! while. Pure: the caller reads and says what a request is.
//!
//! Bytes that are whole requests are looked at where they were read and never kept. Half a head is kept, at most
//! `header_bytes` and what one read brings; it is looked at again as [`HeadEnd`] says.

use crate::http1::head::{HeadEnd, empty_lines};
use crate::proxy::flow::keep;

/// See the module.
#[derive(Debug, Default)]
pub struct Intake {
    /// Half a head, or requests behind the one at hand.
    pub kept: Vec<u8>,
    scan: HeadEnd,
}

impl Intake {
    /// Whether no request has begun: empty lines before one are no part of it (RFC 9112 2.2).
    pub fn is_at_rest(&self) -> bool {
        empty_lines(&self.kept) == self.kept.len()
    }

    /// The request at hand is over: what is kept is the beginning of the next one.
    pub fn begin(&mut self) {
        self.scan = HeadEnd::default();
    }

    /// Looks at what is kept, if it is time to. `take` makes a request of the beginning of some bytes and says how many
    /// it took; what it leaves is kept.
    pub fn look<T>(
        &mut self,
        header_bytes: usize,
        take: impl FnOnce(&mut [u8]) -> (Option<T>, usize),
    ) -> Option<T> {
        if self.kept.is_empty() || !self.scan.is_due(&self.kept, header_bytes) {
            return None;
        }
        let (taken, used) = take(&mut self.kept);
        if used == self.kept.len() {
            // A connection holds no memory that it does not need.
            self.kept = Vec::new();
        } else {
            self.kept.drain(..used);
        }
        taken
    }

    /// Takes bytes that were read: looks at them where they are if nothing is kept, and keeps what is left.
    pub fn add<T>(
        &mut self,
        bytes: &mut [u8],
        take: impl FnOnce(&mut [u8]) -> (Option<T>, usize),
    ) -> Option<T> {
        if !self.kept.is_empty() {
            keep(&mut self.kept, bytes);
            return None;
        }
        let (taken, used) = take(bytes);
        self.kept.extend_from_slice(&bytes[used..]);
        if taken.is_none() {
            self.scan = HeadEnd::after(&self.kept);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A request is what ends in an empty line; counts the looks.
    fn take(looks: &mut usize) -> impl FnOnce(&mut [u8]) -> (Option<usize>, usize) {
        *looks += 1;
        |bytes| match memchr::memmem::find(bytes, b"\r\n\r\n") {
            Some(at) => (Some(at), at + 4),
            None => (None, 0),
        }
    }

    #[test]
    fn what_is_whole_is_not_kept_and_half_a_head_is_looked_at_twice_more() {
        let mut intake = Intake::default();
        let mut looks = 0;
        assert_eq!(
            intake.add(&mut b"a\r\n\r\nb".to_vec(), take(&mut looks)),
            Some(1)
        );
        assert_eq!(intake.kept, b"b");
        intake.begin();
        let mut seen = Vec::new();
        looks = 0;
        for byte in b" c\r\nd: e\r\n\r\n" {
            assert_eq!(intake.add(&mut [*byte], |_| unreachable!()), None::<usize>);
            let mut looked = 0;
            seen.extend(intake.look(100, |bytes| {
                looked += 1;
                take(&mut looks)(bytes)
            }));
        }
        assert_eq!((seen.as_slice(), looks), ([9].as_slice(), 2));
        assert_eq!(intake.kept.capacity(), 0, "at rest it holds nothing");
    }

    #[test]
    fn empty_lines_are_rest() {
        let mut intake = Intake::default();
        for (bytes, rest) in [("", true), ("\r\n", true), ("\r", false), ("\nG", false)] {
            let _ = intake.add(&mut bytes.as_bytes().to_vec(), |_| (None::<()>, 0));
            assert_eq!(intake.is_at_rest(), rest, "{bytes:?}");
        }
    }
}
