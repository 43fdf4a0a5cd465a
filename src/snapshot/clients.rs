//! How many connections each client address has at a listener, over all workers. Only a listener with
//! `connections_per_client` counts them, when a connection begins and when it ends.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, all of which one host can use. Small, since
/// every connection has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct ClientKey(NonZero<u64>);

impl From<IpAddr> for ClientKey {
    fn from(ip: IpAddr) -> Self {
        let network = match ip.to_canonical() {
            // One of the multicast networks of IPv6, from which no client comes.
            IpAddr::V4(v4) => 0xffff_ffff << 32 | u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        // Nor does one come from the network whose bits are all set.
        Self(NonZero::new(!network).unwrap_or(NonZero::<u64>::MAX))
    }
}

/// Open connections by client; no entry for a client without one.
#[derive(Debug, Default)]
pub struct ClientCounts(Mutex<HashMap<ClientKey, u32, RandomState>>);

impl ClientCounts {
    /// Counts a connection of the client unless it has `most` already. Whether it is counted: then it must be
    /// [removed](Self::remove) when it ends.
    pub fn try_add(&self, client: ClientKey, most: u32) -> bool {
        let mut counts = self.lock();
        let has = counts.get(&client).copied().unwrap_or_default();
        if has >= most {
            return false;
        }
        counts.insert(client, has + 1);
        true
    }

    /// One connection of the client has ended.
    pub fn remove(&self, client: ClientKey) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&client);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ClientKey, u32, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_as_many_as_allowed_and_no_more() {
        let counts = ClientCounts::default();
        let client = |ip: &str| ClientKey::from(ip.parse::<IpAddr>().unwrap());
        let take = |ip: &str| counts.try_add(client(ip), 2);
        assert!(take("192.0.2.1") && take("::ffff:192.0.2.1"));
        assert!(!take("192.0.2.1"));
        assert!(take("192.0.2.2"));
        counts.remove(client("192.0.2.1"));
        assert!(take("192.0.2.1"));
        assert!(take("2001:db8::1") && take("2001:db8::ffff:1"));
        assert!(!take("2001:db8:0:0:1::"), "the same 64 bits");
        assert!(take("2001:db8:0:1::1") && take("::1") && take("255.255.255.255"));
        for (ip, times) in [
            ("192.0.2.1", 2),
            ("192.0.2.2", 1),
            ("2001:db8::1", 2),
            ("2001:db8:0:1::1", 1),
            ("::1", 1),
            ("255.255.255.255", 1),
        ] {
            for _ in 0..times {
                counts.remove(client(ip));
            }
        }
        assert!(counts.lock().is_empty());
        assert!(!counts.try_add(client("192.0.2.1"), 0) && counts.lock().is_empty());
    }
}
