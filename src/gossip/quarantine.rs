//! Announcements that have made a member fail, and the one that is in hand.
//!
//! A record that meets a bug would come back at the next exchange, on every proxy at once (Fly.io, 2024-09-01). So the
//! one in hand is noted where a panic does not take it away: the note is shared with whoever catches the panic, who
//! refuses it by its hash in the member that begins in place of the failed one. 64 are kept, the oldest goes; a new
//! version of the same record is another one, and may cost another new start.
//!
//! Decided 2026-11: there is no command that freezes a cluster at its last good set. What was published stands while
//! nothing better comes, the guard against mass removal holds who is lost at once, and checks decide; who distrusts
//! the set takes `discover` out of the file.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::identity::unpack_address;

/// Announcements that are refused.
const MOST: usize = 64;

/// An announcement that is handled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InHand {
    /// Of its bytes.
    pub hash: u64,
    /// In whose name it is; `None` if it is too short for one.
    pub member: Option<SocketAddr>,
}

/// See the module. Clones share what is in hand, and not what is refused.
#[derive(Debug, Clone, Default)]
pub struct Quarantine {
    in_hand: Arc<Mutex<Option<InHand>>>,
    refused: VecDeque<u64>,
}

impl Quarantine {
    /// Notes that an announcement is handled from now on; false if it is not to be. While one lies there that was not
    /// put down the member has failed, and takes up no other.
    pub(super) fn take_up(&self, bytes: &[u8]) -> bool {
        let hash = xxh3_64(bytes);
        let mut in_hand = self.in_hand();
        if in_hand.is_some() || self.refused.contains(&hash) {
            return false;
        }
        // Behind the format; the rest is not looked at here, since that is what may fail.
        let member = bytes.get(1..).and_then(<[u8]>::first_chunk);
        let member = member.map(unpack_address);
        *in_hand = Some(InHand { hash, member });
        true
    }

    /// Notes that it has been handled.
    pub(super) fn put_down(&self) {
        *self.in_hand() = None;
    }

    /// After a failure: refuses what was in hand from now on, and says what it was.
    pub fn convict(&mut self) -> Option<InHand> {
        let convicted = self.in_hand().take()?;
        if self.refused.len() >= MOST {
            self.refused.pop_front();
        }
        self.refused.push_back(convicted.hash);
        Some(convicted)
    }

    fn in_hand(&self) -> MutexGuard<'_, Option<InHand>> {
        // Nothing fails while it is held.
        self.in_hand.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Text in an announcement that fails a proxy which handles it.
#[cfg(test)]
pub(crate) const BUG: &str = "fails the tests' proxies";

/// Fails of an announcement with [`BUG`] in it.
#[cfg(test)]
pub(super) fn meet_bug(bytes: &[u8]) {
    let mut parts = bytes.windows(BUG.len());
    assert!(!parts.any(|part| part == BUG.as_bytes()), "told to fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_hand_is_refused_and_the_oldest_is_forgotten() {
        let mut seat = Quarantine::default();
        assert_eq!(seat.convict(), None);
        for i in 0..=MOST as u8 {
            let node = seat.clone();
            assert!(node.take_up(b"good"));
            node.put_down();
            assert!(node.take_up(&[i]));
            assert!(!node.take_up(b"good"), "it has failed");
            let convicted = seat.convict().unwrap();
            assert_eq!((convicted.hash, convicted.member), (xxh3_64(&[i]), None));
            assert!(!seat.clone().take_up(&[i]));
        }
        assert_eq!(seat.refused.len(), MOST);
        assert!(seat.take_up(&[0]), "the oldest");
        seat.put_down();
        assert!(!seat.take_up(&[1]));
    }
}
