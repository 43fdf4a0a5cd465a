//! Members that come and go: the names that must be resolved, and what was removed but still drains.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::info;

use crate::config::schema::Config;
use crate::model::address::BackendAddress;
use crate::model::backend::BackendId;
use crate::snapshot::registry::{BackendKey, Registry};
use crate::snapshot::{Departing, Endpoint, Snapshot};
use crate::telemetry::metrics::ListenerMetrics;

/// Every name of the configuration, with the shortest interval that a cluster asks for.
pub(super) fn names_of(config: &Config) -> HashMap<BackendAddress, Duration> {
    let mut names: HashMap<BackendAddress, Duration> = HashMap::new();
    for cluster in &config.clusters {
        for backend in &cluster.backends {
            if matches!(backend.address, BackendAddress::Name { .. }) {
                let interval = names
                    .entry(backend.address.clone())
                    .or_insert(cluster.settings.resolve.every);
                *interval = (*interval).min(cluster.settings.resolve.every);
            }
        }
    }
    names
}

/// When each name of which one address is used moved on to the next one.
#[derive(Debug, Default)]
pub(super) struct Moves(HashMap<(String, BackendAddress), Instant>);

impl Moves {
    /// Chooses the next address of each such name whose address is down, at most once in the time between two look-ups;
    /// whether there was one. O(backends).
    pub(super) fn choose(
        &mut self,
        config: &Config,
        names: &HashMap<BackendAddress, Arc<[SocketAddr]>>,
        registry: &mut Registry,
        now: Instant,
    ) -> bool {
        self.0
            .retain(|(_, name), _| names.get(name).is_some_and(|known| known.len() > 1));
        let mut moved = false;
        for cluster in config.clusters.iter().filter(|c| c.settings.resolve.one) {
            for backend in &cluster.backends {
                let name = &backend.address;
                let Some(addresses) = names.get(name).filter(|known| known.len() > 1) else {
                    continue;
                };
                let key = (cluster.name.clone(), name.clone());
                let last = self.0.get(&key);
                if last.is_some_and(|last| now < *last + cluster.settings.resolve.every) {
                    continue;
                }
                if let Some((from, to)) = next_of(&cluster.name, name, addresses, registry) {
                    info!(cluster = cluster.name, %name, %from, %to, "the address in use is down; the next one is used");
                    registry.use_address(&cluster.name, name, to);
                    self.0.insert(key, now);
                    moved = true;
                }
            }
        }
        moved
    }
}

/// The address in use, if it is down, and the one that follows it.
fn next_of(
    cluster: &str,
    name: &BackendAddress,
    addresses: &[SocketAddr],
    registry: &Registry,
) -> Option<(SocketAddr, SocketAddr)> {
    let at = registry.address_in_use(cluster, name, addresses)?;
    let key = BackendKey {
        written: name.clone(),
        resolved: Some(at.into()),
        single: true,
    };
    let health = registry.known_backend(cluster, &key)?.health();
    let after = addresses.iter().position(|address| *address == at)? + 1;
    let next = addresses[after % addresses.len()];
    health.is_down().then_some((at, next))
}

/// Lets go of the live state of what is neither in `current` nor draining.
pub(super) fn forget(registry: &mut Registry, current: &Snapshot) {
    let backends: HashSet<BackendId> = current
        .clusters
        .iter()
        .flat_map(|cluster| &cluster.endpoints)
        .chain(&current.departing.endpoints)
        .map(|endpoint| endpoint.backend.id())
        .collect();
    let clusters: HashSet<&str> = current.clusters.iter().map(|c| &*c.name).collect();
    let departing = current.departing.listeners.iter();
    let listeners: HashSet<&str> = current
        .listeners
        .iter()
        .map(|listener| &*listener.name)
        .chain(departing.map(|metrics| &*metrics.name))
        .collect();
    registry.retain(
        |id| backends.contains(&id),
        |name| clusters.contains(name),
        |name| listeners.contains(name),
    );
}

/// What was removed and is not drained yet.
#[derive(Debug, Default)]
pub(super) struct Drains {
    endpoints: Vec<(Endpoint, Instant)>,
    listeners: Vec<(Arc<ListenerMetrics>, Instant)>,
}

impl Drains {
    /// What a snapshot must still show.
    pub(super) fn departing(&self) -> Departing {
        Departing {
            listeners: self
                .listeners
                .iter()
                .map(|(metrics, _)| Arc::clone(metrics))
                .collect(),
            endpoints: self
                .endpoints
                .iter()
                .map(|(endpoint, _)| endpoint.clone())
                .collect(),
        }
    }

    /// Adds what `before` has and `next` has not; what has come back no longer drains.
    pub(super) fn follow(&mut self, before: &Snapshot, next: &Snapshot) {
        let now = Instant::now();
        let present: HashSet<BackendId> = next
            .clusters
            .iter()
            .flat_map(|c| &c.endpoints)
            .map(|endpoint| endpoint.backend.id())
            .collect();
        self.endpoints
            .retain(|(endpoint, _)| !present.contains(&endpoint.backend.id()));
        for endpoint in before
            .clusters
            .iter()
            .flat_map(|cluster| &cluster.endpoints)
        {
            let backend = &endpoint.backend;
            if !present.contains(&backend.id()) && !backend.has_departed() {
                backend.set_departed(true);
                self.endpoints.push((endpoint.clone(), now));
            }
        }
        let named: HashSet<&str> = next
            .listeners
            .iter()
            .map(|listener| &*listener.metrics.name)
            .collect();
        self.listeners
            .retain(|(metrics, _)| !named.contains(&*metrics.name));
        for listener in &before.listeners {
            let known = self
                .listeners
                .iter()
                .any(|(metrics, _)| Arc::ptr_eq(metrics, &listener.metrics));
            if !named.contains(&*listener.metrics.name) && !known {
                self.listeners.push((Arc::clone(&listener.metrics), now));
            }
        }
    }

    /// Ends the drains that have nothing left, or whose time is over; says whether there were any.
    pub(super) fn end_due(&mut self, drain_timeout: Duration) -> bool {
        let count = self.endpoints.len() + self.listeners.len();
        let is_over = |since: &Instant| since.elapsed() > drain_timeout + Duration::from_secs(1);
        self.endpoints
            .retain(|(endpoint, since)| endpoint.backend.in_flight() > 0 && !is_over(since));
        self.listeners
            .retain(|(metrics, since)| metrics.active() > 0 && !is_over(since));
        count != self.endpoints.len() + self.listeners.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::load;
    use crate::model::health::Health;

    #[test]
    fn a_name_moves_on_when_its_address_is_down_and_not_too_often() {
        let text = "[[listener]]\naddress = '127.0.0.1:1'\ncluster = 'c'\n[cluster.c]\nbackends = ['a:80', '10.0.0.9:80']\n\
                    resolve = { every = '10s', addresses = 'one' }\n";
        let config = load(text).config.unwrap();
        let name: BackendAddress = "a:80".parse().unwrap();
        let addresses = [1, 2].map(|n| SocketAddr::from(([10, 0, 0, n], 80)));
        let mut names = HashMap::from([(name.clone(), Arc::from(addresses))]);
        let mut registry = Registry::new(1);
        let backend = |registry: &mut Registry, address: SocketAddr| {
            let key = BackendKey {
                written: name.clone(),
                resolved: Some(address.into()),
                single: true,
            };
            let mut draft = registry.draft();
            let backend = draft.backend("c", &key).0;
            let new = draft.into_new();
            registry.adopt(new);
            backend
        };
        let now = Instant::now();
        let mut moves = Moves::default();
        let first = backend(&mut registry, addresses[0]);
        assert!(!moves.choose(&config, &names, &mut registry, now));
        first.set_health(Health::CHECK_DOWN);
        assert!(moves.choose(&config, &names, &mut registry, now));
        assert_eq!(
            registry.address_in_use("c", &name, &addresses),
            Some(addresses[1])
        );
        backend(&mut registry, addresses[1]).set_health(Health::REFUSED);
        let soon = now + Duration::from_secs(9);
        assert!(!moves.choose(&config, &names, &mut registry, soon));
        let later = now + Duration::from_secs(10);
        assert!(moves.choose(&config, &names, &mut registry, later));
        assert_eq!(
            registry.address_in_use("c", &name, &addresses),
            Some(addresses[0])
        );
        // The only address that there is has nowhere to move.
        names.insert(name.clone(), Arc::from([addresses[0]]));
        let later = now + Duration::from_secs(60);
        assert!(!moves.choose(&config, &names, &mut registry, later));
    }
}
