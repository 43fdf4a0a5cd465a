//! Members of a cluster, for the benches of policies. Weights run from 1 to 3, so that no policy takes its short way for
//! equal weights.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use lbproxy::internals::balance::WeightedBackend;
use lbproxy::internals::model::address::BackendAddress;
use lbproxy::internals::model::backend::Backend;
use lbproxy::internals::model::settings::Policy;

/// Every policy.
pub(crate) const POLICIES: [Policy; 5] = [
    Policy::RoundRobin,
    Policy::LeastConnections,
    Policy::ConsistentHash,
    Policy::Random,
    Policy::PowerOfTwo,
];

/// `count` of them.
pub(crate) fn members(count: u32) -> Vec<WeightedBackend> {
    (0..count)
        .map(|n| {
            let ip = Ipv4Addr::from_bits(0x0a00_0000 + n);
            let address = BackendAddress::Ip(SocketAddr::from((ip, 80)));
            WeightedBackend {
                backend: Arc::new(Backend::new("web".into(), address)),
                weight: 1 + n % 3,
                backup: false,
            }
        })
        .collect()
}
