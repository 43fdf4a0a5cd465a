//! Refuses announcements that have made a member panic, and notes the one that is being processed.
//!
//! A record that triggers a bug would come back with the next push-pull, on every proxy at once (Fly.io, 2024-09-01).
//! So the hash of the record in progress is noted in a place that survives a panic: it is shared with the driver, which
//! catches the panic and has the next member refuse that record. The last 64 are remembered. A new version of the same
//! record is another record, and may cost another restart.
//!
//! Decided 2026-11: there is no command that freezes a cluster at its last good set. What was published stands until
//! something better comes, the guard against mass removals keeps backends that are lost all at once, and health checks
//! decide. An operator who distrusts the set removes `discover` from the file.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use xxhash_rust::xxh3::xxh3_64;

use super::identity::unpack_address;

/// Announcements that are remembered and refused.
const CAPACITY: usize = 64;

/// The announcement that is being processed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InProgress {
    /// Hash of its bytes.
    pub hash: u64,
    /// The member in whose name it is; `None` if it is too short to tell.
    pub member: Option<SocketAddr>,
}

/// See the module. Clones share what is in progress, but not what is refused.
#[derive(Debug, Clone, Default)]
pub struct Quarantine {
    in_progress: Arc<Mutex<Option<InProgress>>>,
    refused: VecDeque<u64>,
}

impl Quarantine {
    /// Notes that processing an announcement begins; false if it must not. If the previous announcement never
    /// completed, the member has panicked, and nothing else is accepted.
    pub(super) fn begin(&self, bytes: &[u8]) -> bool {
        let hash = xxh3_64(bytes);
        let mut in_progress = self.in_progress();
        if in_progress.is_some() || self.refused.contains(&hash) {
            return false;
        }
        // After the format byte. Nothing else is read here, since parsing may be what fails.
        let member = bytes.get(1..).and_then(<[u8]>::first_chunk);
        let member = member.map(unpack_address);
        *in_progress = Some(InProgress { hash, member });
        true
    }

    /// Notes that processing has ended.
    pub(super) fn end(&self) {
        *self.in_progress() = None;
    }

    /// After a panic: refuses what was in progress from now on, and returns it.
    pub fn condemn(&mut self) -> Option<InProgress> {
        let condemned = self.in_progress().take()?;
        if self.refused.len() >= CAPACITY {
            self.refused.pop_front();
        }
        self.refused.push_back(condemned.hash);
        Some(condemned)
    }

    fn in_progress(&self) -> MutexGuard<'_, Option<InProgress>> {
        // Nothing panics while it is locked.
        self.in_progress
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// A text that makes a proxy panic when it processes an announcement with it.
#[cfg(test)]
pub(crate) const BUG: &str = "fails the tests' proxies";

/// Panics if an announcement contains [`BUG`].
#[cfg(test)]
pub(super) fn trigger_bug(bytes: &[u8]) {
    let mut parts = bytes.windows(BUG.len());
    assert!(!parts.any(|part| part == BUG.as_bytes()), "told to fail");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_in_progress_is_refused_and_the_oldest_is_forgotten() {
        let mut quarantine = Quarantine::default();
        assert_eq!(quarantine.condemn(), None);
        for i in 0..=CAPACITY as u8 {
            let node = quarantine.clone();
            assert!(node.begin(b"good"));
            node.end();
            assert!(node.begin(&[i]));
            assert!(!node.begin(b"good"), "it has failed");
            let condemned = quarantine.condemn().unwrap();
            assert_eq!((condemned.hash, condemned.member), (xxh3_64(&[i]), None));
            assert!(!quarantine.clone().begin(&[i]));
        }
        assert_eq!(quarantine.refused.len(), CAPACITY);
        assert!(quarantine.begin(&[0]), "the oldest");
        quarantine.end();
        assert!(!quarantine.begin(&[1]));
    }
}
