//! Open connections of a listener, over all workers: all of them, and those of each client address.
//!
//! Clients are counted only where they are limited (`connections_per_client`), when a connection comes and when it goes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

/// The open connections of one listener.
#[derive(Debug, Default)]
pub struct Connections {
    open: AtomicU32,
    /// Whether the limit is reached, so that reaching it is counted once.
    is_full: AtomicBool,
    /// Clients that have a connection which was counted.
    clients: Mutex<HashMap<ClientKey, u32, RandomState>>,
}

impl Connections {
    /// A place for one more connection, unless there are `most` already.
    pub(crate) fn try_acquire(self: &Arc<Self>, most: u32) -> Option<ConnectionPermit> {
        let before = self.open.fetch_add(1, Ordering::Relaxed);
        let permit = ConnectionPermit {
            of: Arc::clone(self),
            client: None,
        };
        if before >= most {
            return None;
        }
        self.is_full.store(false, Ordering::Relaxed);
        Some(permit)
    }

    /// A place for a connection that the kernel has let in already.
    pub(crate) fn acquire(self: &Arc<Self>) -> ConnectionPermit {
        self.open.fetch_add(1, Ordering::Relaxed);
        ConnectionPermit {
            of: Arc::clone(self),
            client: None,
        }
    }

    /// Notes that a connection has to wait; whether it is the first one since a connection was let in.
    pub(crate) fn begin_refusing(&self) -> bool {
        !self.is_full.swap(true, Ordering::Relaxed)
    }

    /// Connections open now.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::Relaxed)
    }

    fn clients(&self) -> MutexGuard<'_, HashMap<ClientKey, u32, RandomState>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The place of one open connection.
#[derive(Debug)]
pub(crate) struct ConnectionPermit {
    of: Arc<Connections>,
    client: Option<ClientKey>,
}

impl ConnectionPermit {
    /// Counts the connection as one of `client` as well, unless that has `most` already; whether it is counted.
    pub(crate) fn try_count_client(&mut self, client: IpAddr, most: u32) -> bool {
        let client = ClientKey::from(client);
        let mut clients = self.of.clients();
        let open = clients.get(&client).copied().unwrap_or_default();
        if open >= most {
            return false;
        }
        clients.insert(client, open + 1);
        drop(clients);
        self.client = Some(client);
        true
    }
}

impl Drop for ConnectionPermit {
    fn drop(&mut self) {
        self.of.open.fetch_sub(1, Ordering::Relaxed);
        let Some(client) = self.client else { return };
        let mut clients = self.of.clients();
        if let Some(open) = clients.get_mut(&client) {
            *open -= 1;
            if *open == 0 {
                clients.remove(&client);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, all of which one host can use. Small, since
/// every connection holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ClientKey(NonZero<u64>);

impl From<IpAddr> for ClientKey {
    fn from(ip: IpAddr) -> Self {
        let network = match ip.to_canonical() {
            // Inside the multicast networks of IPv6, which no client comes from.
            IpAddr::V4(v4) => 0xffff_ffff << 32 | u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        // No client comes from the network whose bits are all set either.
        Self(NonZero::new(!network).unwrap_or(NonZero::<u64>::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_place_is_taken_once() {
        let all = Arc::new(Connections::default());
        let first = all.try_acquire(2).unwrap();
        let _second = all.try_acquire(2).unwrap();
        assert!(all.try_acquire(2).is_none());
        assert!(all.begin_refusing());
        assert!(!all.begin_refusing(), "counted once");
        let beyond = all.acquire();
        assert_eq!(all.open(), 3);
        drop((first, beyond));
        assert!(all.try_acquire(2).is_some());
        assert!(all.begin_refusing(), "it let somebody in meanwhile");
    }

    #[test]
    fn a_client_has_its_share_and_no_more() {
        let all = Arc::new(Connections::default());
        let take = |ip: &str| {
            let mut permit = all.acquire();
            let ip = ip.parse().unwrap();
            permit.try_count_client(ip, 2).then_some(permit)
        };
        let first = take("192.0.2.1").unwrap();
        let second = take("::ffff:192.0.2.1").unwrap();
        assert!(take("192.0.2.1").is_none());
        let other = take("192.0.2.2").unwrap();
        drop(first);
        let third = take("192.0.2.1").unwrap();
        let v6 = [take("2001:db8::1"), take("2001:db8::ffff:1")].map(Option::unwrap);
        assert!(take("2001:db8:0:0:1::").is_none(), "the same 64 bits");
        let more = ["2001:db8:0:1::1", "::1", "255.255.255.255"].map(|ip| take(ip).unwrap());
        assert_eq!(all.open(), 8);
        drop((second, other, third, v6, more));
        assert!(all.clients().is_empty());
        assert_eq!(all.open(), 0);
        assert!(
            !all.acquire()
                .try_count_client("192.0.2.1".parse().unwrap(), 0)
        );
        assert!(all.clients().is_empty());
    }
}
