//! How many descriptors the process may use, and how many connections do.
//!
//! The soft limit is raised to the hard one at start. What the process holds itself (listening sockets, runtimes, logs) is
//! counted once all of it is open, and a part stays in reserve (files, admin, checks, names, the control plane), so that a
//! flood of connections can neither stop a reload nor hide the proxy from its operator. Where too few are left for that,
//! it does not start, nor is a reload applied whose listeners leave too few beside the reserve of the start. Counted when a connection is accepted or dialled, never for a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use thiserror::Error;

use super::ours;

/// Descriptors that connections may not take, where the limit is large enough to give them.
const RESERVE: usize = 1024;
/// And at the least, whatever the limit is: a reload, a round of checks and a few probes at a time.
const LEAST_RESERVE: usize = 32;
/// Connections without which a start makes no sense.
const LEAST_CONNECTIONS: usize = 16;
/// What a worker opens once it runs: its runtime.
const OF_A_WORKER: usize = 4;
/// What the process opens beside its workers after it has been counted: logs, the admin server, watches of files.
const STILL_TO_COME: usize = 16;

/// One in so many is for backends alone.
const FOR_BACKENDS: usize = 32;

/// The limit is too low.
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

/// The budget of connections, shared by all workers.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// What the process may open.
    total: usize,
    /// For connections and sockets that listen.
    room: AtomicUsize,
    /// For all else that comes and goes.
    reserve: AtomicUsize,
    used: AtomicUsize,
}

impl Descriptors {
    /// Raises the soft limit to the hard one and budgets what it gives.
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

    /// Takes off what the process itself holds: `open` now, that all its listeners are bound, and what `workers` will open.
    ///
    /// # Errors
    /// Too little is left.
    pub(crate) fn take_off_own(&self, open: usize, workers: usize) -> Result<(), TooFew> {
        let own = open + workers * OF_A_WORKER + STILL_TO_COME;
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
        // Sockets that listen come and go with reloads, so they are taken off anew each time.
        self.room
            .store(left - reserve + ours::count(), Ordering::Relaxed);
        Ok(())
    }

    /// Whether so many listening sockets, in place of those that there are now, leave enough for connections. What else
    /// the process holds, and the reserve, stay as they were at the start.
    ///
    /// # Errors
    /// Too little would be left.
    pub(crate) fn carry(&self, listening: usize) -> Result<(), TooFew> {
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

    /// Connections, clients' and backends' together, that there may be.
    pub(crate) fn limit(&self) -> usize {
        self.room
            .load(Ordering::Relaxed)
            .saturating_sub(ours::count())
    }

    /// Connections of health checks that there may be at a time: half of the reserve, so that they neither stop while
    /// clients hold all else nor take what files and the admin server need.
    pub(crate) fn for_checks(&self) -> usize {
        (self.reserve.load(Ordering::Relaxed) / 2).max(1)
    }

    /// Connections of the admin server that there may be at a time: a quarter of the reserve.
    pub(crate) fn for_admin(&self) -> usize {
        (self.reserve.load(Ordering::Relaxed) / 4).max(1)
    }

    /// Whether a client may still be accepted: some room is left for the backends of those that are here already, and
    /// `reserved` descriptors for others.
    pub(crate) fn has_room(&self, reserved: usize) -> bool {
        let limit = self.limit();
        let used = self.used.load(Ordering::Relaxed);
        used + 2 + limit / FOR_BACKENDS + reserved <= limit
    }

    /// Whether so many are in use that listeners must leave each other room.
    pub(crate) fn is_scarce(&self) -> bool {
        self.used.load(Ordering::Relaxed) > self.limit() / 2
    }

    /// Counts one connection to a backend until the returned value is dropped; `None` at the limit.
    pub(crate) fn take_for_backend(self: &Arc<Self>) -> Option<Descriptor> {
        (self.used.load(Ordering::Relaxed) < self.limit()).then(|| self.take())
    }

    /// Counts one connection until the returned value is dropped.
    pub(crate) fn take(self: &Arc<Self>) -> Descriptor {
        self.used.fetch_add(1, Ordering::Relaxed);
        Descriptor(Arc::clone(self))
    }
}

/// Descriptors that this process has open.
pub(crate) fn open() -> usize {
    // One of them is the listing itself. Without /proc, a guess.
    std::fs::read_dir("/proc/self/fd").map_or(64, |listed| listed.count().saturating_sub(1))
}

/// One counted connection.
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
        // Other tests listen meanwhile.
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
        let error = descriptors.take_off_own(20, 2).unwrap_err();
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
        assert!(Descriptors::with_limit(91).take_off_own(20, 2).is_err());
        let least = Descriptors::with_limit(92);
        least.take_off_own(20, 2).unwrap();
        assert!(least.limit() < 92 - 44);
        assert!(open() > 2, "standard streams at the least");
    }

    #[test]
    fn listeners_of_a_reload_leave_the_reserve_and_the_least_connections() {
        let descriptors = Descriptors::with_limit(512);
        assert_eq!(descriptors.reserve.load(Ordering::Relaxed), 128);
        descriptors.carry(368).unwrap();
        let error = descriptors.carry(369).unwrap_err();
        let expected = TooFew {
            limit: 512,
            needed: 513,
            own: 369,
            reserve: 128,
        };
        assert_eq!(error, expected);
    }
}
