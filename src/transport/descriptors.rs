//! The budget of file descriptors: how many the process may use, and how many connections use.
//!
//! The soft limit is raised to the hard limit at startup. What the process itself has open (listening sockets,
//! runtimes, logs) is counted once everything is open, and a part stays in reserve (files, admin server, checks, name
//! resolution, control plane), so that a flood of connections can neither block a reload nor lock out the operator. If
//! too few descriptors are left, the proxy does not start, and a reload whose listeners would leave too few is
//! rejected. A connection is counted when it is accepted or opened, so requests cost nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use super::ours;

/// Descriptors that connections cannot use, if the limit is large enough.
const RESERVE: usize = 1024;
/// Smallest reserve, whatever the limit: enough for a reload, checks and a few probes at a time.
const LEAST_RESERVE: usize = 32;
/// Fewest connections that make it worth starting.
const LEAST_CONNECTIONS: usize = 16;
/// Descriptors that a worker opens when it runs, for its runtime.
const PER_WORKER: usize = 4;
/// Descriptors that the rest of the process opens after they are counted: logs, the admin server, file watches.
const STILL_TO_COME: usize = 16;

/// One in this many descriptors is for connections to backends only.
const FOR_BACKENDS: usize = 32;

/// The limit of open files is too low.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error(
    "the limit of open files is {limit}, and at least {needed} are needed: {own} for the proxy itself, {reserve} in \
     reserve, {LEAST_CONNECTIONS} for connections; raise it (ulimit -n, LimitNOFILE), or set fewer `workers`"
)]
pub(crate) struct TooFew {
    limit: usize,
    needed: usize,
    own: usize,
    reserve: usize,
}

/// The budget of descriptors, shared by all workers.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// All that the process may open.
    total: usize,
    /// For connections and listening sockets.
    room: AtomicUsize,
    /// For everything else that is opened and closed.
    reserve: AtomicUsize,
    /// Connections that are open.
    used: AtomicUsize,
}

impl Descriptors {
    /// Raises the soft limit to the hard limit, and makes the budget.
    pub(crate) fn raise() -> Self {
        let before = getrlimit(Resource::Nofile);
        let _ = setrlimit(
            Resource::Nofile,
            Rlimit {
                current: before.maximum,
                maximum: before.maximum,
            },
        );
        let now = getrlimit(Resource::Nofile).current.unwrap_or(1 << 20);
        let limit = usize::try_from(now).unwrap_or(1 << 20);
        Self::with_limit(limit)
    }

    fn with_limit(limit: usize) -> Self {
        let reserve = RESERVE.min(limit / 4);
        Self {
            total: limit,
            room: AtomicUsize::new(limit - reserve),
            reserve: AtomicUsize::new(reserve),
            used: AtomicUsize::new(0),
        }
    }

    /// Subtracts what the process itself uses: `open` at the moment, after all listeners are bound, and what `workers`
    /// will open.
    ///
    /// # Errors
    /// Too few descriptors are left.
    pub(crate) fn subtract_own(&self, open: usize, workers: usize) -> Result<(), TooFew> {
        let own = open + workers * PER_WORKER + STILL_TO_COME;
        let needed = own + LEAST_RESERVE + LEAST_CONNECTIONS;
        let limit = self.total;
        if limit < needed {
            return Err(TooFew {
                limit,
                needed,
                own,
                reserve: LEAST_RESERVE,
            });
        }
        let left = limit - own;
        let reserve = RESERVE.min(left / 4).max(LEAST_RESERVE);
        self.reserve.store(reserve, Ordering::Relaxed);
        // Reloads change the number of listening sockets, so it is added here and subtracted at each use.
        self.room
            .store(left - reserve + ours::count(), Ordering::Relaxed);
        Ok(())
    }

    /// Checks that `listening` sockets instead of the present ones would leave enough descriptors for connections. What
    /// else the process uses, and the reserve, are those of the start.
    ///
    /// # Errors
    /// Too few descriptors would be left.
    pub(crate) fn check_listeners(&self, listening: usize) -> Result<(), TooFew> {
        let room = self.room.load(Ordering::Relaxed);
        if listening + LEAST_CONNECTIONS <= room {
            return Ok(());
        }
        let (limit, reserve) = (self.total, self.reserve.load(Ordering::Relaxed));
        let own = limit - reserve - room + listening;
        Err(TooFew {
            limit,
            needed: own + reserve + LEAST_CONNECTIONS,
            own,
            reserve,
        })
    }

    /// Most connections, to clients and backends together.
    pub(crate) fn limit(&self) -> usize {
        self.room
            .load(Ordering::Relaxed)
            .saturating_sub(ours::count())
    }

    /// Most connections of health checks at a time: half of the reserve, so that they neither stop while clients use
    /// everything else nor take what files and the admin server need.
    pub(crate) fn for_checks(&self) -> usize {
        (self.reserve.load(Ordering::Relaxed) / 2).max(1)
    }

    /// Most connections of the admin server at a time: a quarter of the reserve.
    pub(crate) fn for_admin(&self) -> usize {
        (self.reserve.load(Ordering::Relaxed) / 4).max(1)
    }

    /// Whether another client may be accepted: some descriptors must be left for connections to backends, and
    /// `reserved` ones for other listeners.
    pub(crate) fn has_room(&self, reserved: usize) -> bool {
        let limit = self.limit();
        let used = self.used.load(Ordering::Relaxed);
        used + 2 + limit / FOR_BACKENDS + reserved <= limit
    }

    /// Whether so many descriptors are used that listeners must reserve some for each other.
    pub(crate) fn is_scarce(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit() / 2
    }

    /// Counts a connection to a backend until the returned value is dropped; `None` at the limit.
    pub(crate) fn take_for_backend(self: &Arc<Self>) -> Option<Descriptor> {
        (self.used.load(Ordering::Relaxed) < self.limit()).then(|| self.take())
    }

    /// Counts a connection until the returned value is dropped.
    pub(crate) fn take(self: &Arc<Self>) -> Descriptor {
        self.used.fetch_add(1, Ordering::Relaxed);
        Descriptor(Arc::clone(self))
    }
}

/// Number of descriptors that this process has open.
pub(crate) fn open() -> usize {
    // One of them is that of the listing. Without /proc this is a guess.
    std::fs::read_dir("/proc/self/fd").map_or(64, |listed| listed.count().saturating_sub(1))
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
pub(crate) struct Descriptor(Arc<Descriptors>);

impl Drop for Descriptor {
    fn drop(&mut self) {
        self.0.used.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_are_counted_until_they_are_dropped() {
        // Other tests listen at the same time.
        let descriptors = Arc::new(Descriptors::with_limit(100_000));
        let limit = descriptors.limit();
        assert!(limit > 98_000 && limit <= 100_000 - RESERVE, "{limit}");
        assert_eq!(Descriptors::with_limit(64).for_checks(), 8);
        assert_eq!(descriptors.for_checks(), 512);
        assert_eq!(Descriptors::with_limit(64).for_admin(), 4);
        assert_eq!(descriptors.for_admin(), 256);
        let most = limit - limit / FOR_BACKENDS;
        let taken: Vec<_> = (0..most + 1_000).map(|_| descriptors.take()).collect();
        assert!(!descriptors.has_room(0));
        drop(taken);
        assert!(descriptors.has_room(0));
        assert!(descriptors.take_for_backend().is_some());
    }

    #[test]
    fn what_the_process_holds_itself_is_taken_off_and_too_little_is_an_error() {
        let descriptors = Descriptors::with_limit(64);
        let error = descriptors.subtract_own(20, 2).unwrap_err();
        let (limit, needed, own, reserve) = (64, 92, 44, 32);
        let expected = TooFew {
            limit,
            needed,
            own,
            reserve,
        };
        assert_eq!(error, expected);
        let text = error.to_string();
        assert!(
            text.contains("is 64, and at least 92 are needed: 44 for"),
            "{text}"
        );
        assert!(Descriptors::with_limit(91).subtract_own(20, 2).is_err());
        let least = Descriptors::with_limit(92);
        least.subtract_own(20, 2).unwrap();
        assert!(least.limit() < 92 - 44);
        assert!(open() > 2, "at least the standard streams are open");
    }

    #[test]
    fn listeners_of_a_reload_must_leave_the_reserve_and_some_connections() {
        let descriptors = Descriptors::with_limit(512);
        assert_eq!(descriptors.reserve.load(Ordering::Relaxed), 128);
        descriptors.check_listeners(368).unwrap();
        let error = descriptors.check_listeners(369).unwrap_err();
        let expected = TooFew {
            limit: 512,
            needed: 513,
            own: 369,
            reserve: 128,
        };
        assert_eq!(error, expected);
    }
}
