//! How many descriptors the process may use, and how many connections do.
//!
//! The soft limit is raised to the hard one at start. A part stays in reserve (files, admin, checks, the control
//! plane), so that a flood of connections can neither stop a reload nor hide the proxy from its operator. Counted
//! when a connection is accepted or dialled, never for a request.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that connections may not take, where the limit is large enough to give them.
const RESERVE: usize = 1024;

/// One in so many is for backends alone.
const FOR_BACKENDS: usize = 32;

/// The budget of connections, shared by all workers.
#[derive(Debug)]
pub struct Descriptors {
    limit: usize,
    reserve: usize,
    used: AtomicUsize,
}

impl Descriptors {
    /// Raises the soft limit to the hard one and budgets what it gives.
    pub fn raise() -> Self {
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
            limit: limit - reserve,
            reserve,
            used: AtomicUsize::new(0),
        }
    }

    /// Connections, clients' and backends' together, that there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Connections of health checks that there may be at a time: half of the reserve, so that they neither stop while
    /// clients hold all else nor take what files and the admin server need.
    pub fn for_checks(&self) -> usize {
        (self.reserve / 2).max(1)
    }

    /// Whether a client may still be accepted: some room is left for the backends of those that are here already.
    pub fn has_room(&self) -> bool {
        self.used.load(Ordering::Relaxed) + 2 + self.limit / FOR_BACKENDS <= self.limit
    }

    /// Counts one connection to a backend until the returned value is dropped; `None` at the limit.
    pub fn take_for_backend(self: &Arc<Self>) -> Option<Descriptor> {
        (self.used.load(Ordering::Relaxed) < self.limit).then(|| self.take())
    }

    /// Counts one connection until the returned value is dropped.
    pub fn take(self: &Arc<Self>) -> Descriptor {
        self.used.fetch_add(1, Ordering::Relaxed);
        Descriptor(Arc::clone(self))
    }
}

/// One counted connection.
#[derive(Debug)]
pub struct Descriptor(Arc<Descriptors>);

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
        let descriptors = Arc::new(Descriptors::with_limit(4));
        assert_eq!((descriptors.limit(), descriptors.for_checks()), (3, 1));
        assert_eq!(Descriptors::with_limit(64).for_checks(), 8);
        assert_eq!(Descriptors::with_limit(1 << 20).for_checks(), 512);
        let first = descriptors.take();
        assert!(descriptors.has_room());
        let _second = descriptors.take();
        assert!(!descriptors.has_room());
        drop(first);
        assert!(descriptors.has_room());
    }
}
