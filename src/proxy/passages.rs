//! TCP sessions that lead to this machine itself, so that one that comes back to a listener of this process ends
//! instead of going round until all descriptors are gone.
//!
//! Bytes carry no mark, but the client's address of a session that comes back is the local address of the connection
//! that it came over. Those are noted before they are made, and only where they may lead to a listener of this process.
//! To a Unix socket that is a name which the system gives the connection for this purpose (autobind, unix(7)).

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::transport::conn::EndName;

/// The connections of TCP sessions to this machine, of all workers.
#[derive(Debug, Default)]
pub(crate) struct Passages {
    /// How often a session has passed this process, by the local address of its newest connection.
    depths: Mutex<HashMap<EndName, usize>>,
    /// Entries, so that nobody waits for the lock while there are none.
    count: AtomicUsize,
}

/// One such connection, noted until this is dropped.
#[derive(Debug)]
pub(crate) struct Passage {
    all: Arc<Passages>,
    local: EndName,
}

impl Passages {
    /// How often the session of the client whose end `peer` tells has passed this process already.
    pub(crate) fn depth_of(&self, peer: impl FnOnce() -> Option<EndName>) -> usize {
        if self.count.load(Ordering::Relaxed) == 0 {
            return 0;
        }
        let Some(peer) = peer() else { return 0 };
        let depths = self.depths.lock().unwrap_or_else(PoisonError::into_inner);
        depths.get(&peer).copied().unwrap_or_default()
    }

    /// Notes the local address of a connection that is about to be made.
    pub(crate) fn note(self: &Arc<Self>, local: EndName, depth: usize) -> Passage {
        let mut depths = self.depths.lock().unwrap_or_else(PoisonError::into_inner);
        depths.insert(local.clone(), depth);
        self.count.store(depths.len(), Ordering::Relaxed);
        Passage {
            all: Arc::clone(self),
            local,
        }
    }
}

impl Drop for Passage {
    fn drop(&mut self) {
        let mut depths = self
            .all
            .depths
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        depths.remove(&self.local);
        self.all.count.store(depths.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_known_while_its_connection_is_open() {
        let passages = Arc::new(Passages::default());
        let ends = [
            EndName::Ip("127.0.0.1:1000".parse().unwrap()),
            EndName::Unix((*b"0000a").into()),
        ];
        for end in ends {
            let depth = || passages.depth_of(|| Some(end.clone()));
            assert_eq!(depth(), 0);
            let passage = passages.note(end.clone(), 3);
            assert_eq!(depth(), 3);
            let other = EndName::Ip("127.0.0.1:1001".parse().unwrap());
            assert_eq!(passages.depth_of(|| Some(other)), 0);
            assert_eq!(passages.depth_of(|| None), 0);
            drop(passage);
            assert_eq!(depth(), 0);
        }
    }
}
