//! How many connections of a listener each client address has, over all workers. Only a listener with
//! `connections_per_client` counts them, when a connection comes and when it goes.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, PoisonError};

use foldhash::fast::RandomState;

use super::ListenerState;

/// Open connections by client. Holds an entry for each client that has one.
#[derive(Debug, Default)]
pub struct ClientCounts(Mutex<HashMap<IpAddr, u32, RandomState>>);

/// One connection in its client's count, until this is dropped.
#[derive(Debug)]
pub struct ClientPlace {
    state: Arc<ListenerState>,
    client: IpAddr,
}

impl ClientPlace {
    /// Counts a connection of the client at `ip` unless it has `most` already.
    pub fn take(state: &Arc<ListenerState>, ip: IpAddr, most: u32) -> Option<Self> {
        let client = client_of(ip);
        let mut counts = state
            .clients
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if *count >= most {
            if *count == 0 {
                counts.remove(&client);
            }
            return None;
        }
        *count += 1;
        Some(Self {
            state: Arc::clone(state),
            client,
        })
    }
}

impl Drop for ClientPlace {
    fn drop(&mut self) {
        let mut counts = self
            .state
            .clients
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.client);
            }
        }
    }
}

/// What counts as one client: an IPv4 address, or an IPv6 network of 64 bits, which one host can use as a whole.
fn client_of(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_has_its_share_and_no_more() {
        let state = Arc::new(ListenerState::default());
        let take = |ip: &str| ClientPlace::take(&state, ip.parse().unwrap(), 2);
        let first = take("192.0.2.1");
        let second = take("::ffff:192.0.2.1");
        assert!(first.is_some() && second.is_some());
        assert!(take("192.0.2.1").is_none());
        assert!(take("192.0.2.2").is_some());
        drop(first);
        assert!(take("192.0.2.1").is_some());
        let _net = (take("2001:db8::1"), take("2001:db8::ffff:1"));
        assert!(take("2001:db8:0:0:1::").is_none(), "the same 64 bits");
        assert!(take("2001:db8:0:1::1").is_some());
        drop((second, _net));
        assert!(state.clients.0.lock().unwrap().is_empty());
    }
}
