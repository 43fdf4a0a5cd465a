//! Connections that one worker accepted and another one serves: the kernel spreads them by hash, once, so a worker that
//! is far busier than another passes on what it accepts.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::client::Admission;
use crate::transport::conn::Unwatched;

/// A connection on its way to another worker.
#[derive(Debug)]
pub(crate) struct Handoff {
    pub(crate) stream: Unwatched,
    pub(crate) peer: Option<SocketAddr>,
    /// The id of the listener's bound sockets.
    pub(crate) listener: u64,
    pub(crate) admission: Admission,
}

/// What the workers know of each other, by their numbers.
#[derive(Debug)]
pub(crate) struct Peers(Box<[Peer]>);

#[derive(Debug)]
struct Peer {
    open: AtomicUsize,
    inbox: mpsc::UnboundedSender<Handoff>,
}

impl Peers {
    /// As many workers as there are `inboxes`.
    pub(crate) fn new(inboxes: Vec<mpsc::UnboundedSender<Handoff>>) -> Self {
        let peer = |inbox| Peer {
            open: AtomicUsize::new(0),
            inbox,
        };
        Self(inboxes.into_iter().map(peer).collect())
    }

    /// Says how many connections a worker has open.
    pub(crate) fn report(&self, worker: usize, open: usize) {
        self.0[worker].open.store(open, Ordering::Relaxed);
    }

    /// The worker that should have a connection which `worker`, with `mine` open, has accepted, if it is another one: the
    /// least busy, when this one is far busier.
    pub(crate) fn less_busy_than(&self, worker: usize, mine: usize) -> Option<usize> {
        self.report(worker, mine);
        let open = |index: &usize| self.0[*index].open.load(Ordering::Relaxed);
        let least = (0..self.0.len()).min_by_key(open)?;
        (least != worker && mine > open(&least) + open(&least) / 4 + 4).then_some(least)
    }

    /// Gives a connection to `worker`; back if that one has ended.
    pub(crate) fn send(&self, worker: usize, handoff: Handoff) -> Result<(), Handoff> {
        let peer = &self.0[worker];
        // Counted at once, so that a burst does not all go to the same one.
        peer.open.fetch_add(1, Ordering::Relaxed);
        peer.inbox.send(handoff).map_err(|error| error.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_worker_that_is_far_busier_passes_on() {
        let peers = Peers::new((0..3).map(|_| mpsc::unbounded_channel().0).collect());
        for (mine, others, expected) in [
            (4, [0, 0], None),
            (5, [0, 0], Some(1)),
            (5, [1, 0], Some(2)),
            (100, [80, 90], None),
            (105, [80, 90], Some(1)),
        ] {
            peers.report(1, others[0]);
            peers.report(2, others[1]);
            assert_eq!(peers.less_busy_than(0, mine), expected, "{mine} {others:?}");
        }
    }
}
