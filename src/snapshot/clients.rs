//! How many connections of a listener each client address has, over all workers. Only a listener with
//! `connections_per_client` counts them, when a connection comes and when it goes.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZero;
use std::sync::{Mutex, MutexGuard, PoisonError};

use foldhash::fast::RandomState;

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which one host can use as a whole. Small,
/// since every connection holds one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Client(NonZero<u64>);

impl From<IpAddr> for Client {
    fn from(ip: IpAddr) -> Self {
        let network = match ip.to_canonical() {
            // Among the multicast networks of IPv6, which no client comes from.
            IpAddr::V4(v4) => 0xffff_ffff << 32 | u64::from(v4.to_bits()),
            IpAddr::V6(v6) => (v6.to_bits() >> 64) as u64,
        };
        // Neither does one from the network whose bits are all set.
        Self(NonZero::new(!network).unwrap_or(NonZero::<u64>::MAX))
    }
}

/// Open connections by client. Holds an entry for each client that has one.
#[derive(Debug, Default)]
pub struct ClientCounts(Mutex<HashMap<Client, u32, RandomState>>);

impl ClientCounts {
    /// Counts a connection of the client unless it has `most` already; whether it is counted. Who takes a place gives it
    /// [back](Self::give_back).
    pub fn take(&self, client: Client, most: u32) -> bool {
        let mut counts = self.lock();
        let has = counts.get(&client).copied().unwrap_or_default();
        if has >= most {
            return false;
        }
        counts.insert(client, has + 1);
        true
    }

    /// One connection of the client has ended.
    pub fn give_back(&self, client: Client) {
        let mut counts = self.lock();
        if let Some(count) = counts.get_mut(&client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&client);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Client, u32, RandomState>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_and_no_more() {
        let counts = ClientCounts::default();
        let client = |ip: &str| Client::from(ip.parse::<IpAddr>().unwrap());
        let take = |ip: &str| counts.take(client(ip), 2);
        assert!(take("192.0.2.1") && take("::ffff:192.0.2.1"));
        assert!(!take("192.0.2.1"));
        assert!(take("192.0.2.2"));
        counts.give_back(client("192.0.2.1"));
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
                counts.give_back(client(ip));
            }
        }
        assert!(counts.lock().is_empty());
        assert!(!counts.take(client("192.0.2.1"), 0) && counts.lock().is_empty());
    }
}
