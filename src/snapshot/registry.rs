//! The live state that outlives generations, by identity: backends by cluster and place, their counters by cluster and
//! label, clusters and listeners by name. Owned by the one writer of snapshots.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use crate::model::address::{BackendAddress, SocketAddress};
use crate::model::backend::{Backend, BackendId};
use crate::model::cluster::ClusterState;
use crate::telemetry::metrics::{BackendMetrics, ClusterMetrics, ListenerMetrics, RouteMetrics};

/// Where a backend is: what was written, and which of the addresses that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Place {
    /// As the file or the member set gave it.
    pub written: BackendAddress,
    /// Where to connect to; `None` for a name that has not been resolved.
    pub at: Option<SocketAddress>,
    /// The one address that is used of its name, so that the name alone is its label.
    pub one: bool,
}

impl Place {
    /// Of an address that needs no look-up.
    pub fn of(address: SocketAddr) -> Self {
        Self {
            written: BackendAddress::Ip(address),
            at: Some(address.into()),
            one: false,
        }
    }

    fn backend(&self, cluster: &str) -> Backend {
        let written = self.written.clone();
        match &self.at {
            Some(SocketAddress::Ip(at)) if !self.one => {
                Backend::at(cluster.into(), written, at.ip())
            }
            _ => Backend::new(cluster.into(), written),
        }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Registry {
    workers: usize,
    backends: HashMap<(String, Place), Arc<Backend>>,
    /// By cluster and label: backends that succeed each other under one label go on counting.
    counters: HashMap<(Arc<str>, Arc<str>), Arc<BackendMetrics>>,
    /// Which address of a name is in use where only one is.
    chosen: HashMap<(String, BackendAddress), SocketAddr>,
    clusters: HashMap<String, (Arc<ClusterState>, Arc<ClusterMetrics>)>,
    listeners: HashMap<String, Arc<ListenerMetrics>>,
    routes: HashMap<String, Arc<RouteMetrics>>,
}

impl Registry {
    /// Empty, for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self {
            workers,
            backends: HashMap::new(),
            counters: HashMap::new(),
            chosen: HashMap::new(),
            clusters: HashMap::new(),
            listeners: HashMap::new(),
            routes: HashMap::new(),
        }
    }

    /// How many workers there are.
    pub fn workers(&self) -> usize {
        self.workers
    }

    /// A backend, known or new.
    pub fn backend(&mut self, cluster: &str, place: &Place) -> (Arc<Backend>, Arc<BackendMetrics>) {
        let workers = self.workers;
        let entry = self.backends.entry((cluster.to_owned(), place.clone()));
        let backend = entry.or_insert_with(|| Arc::new(place.backend(cluster)));
        let key = (Arc::clone(backend.cluster()), Arc::clone(backend.label()));
        let counters = self
            .counters
            .entry(key.clone())
            .or_insert_with(|| Arc::new(BackendMetrics::new(key.0, key.1, workers)));
        (Arc::clone(backend), Arc::clone(counters))
    }

    /// A backend, if it is known.
    pub fn known_backend(&self, cluster: &str, place: &Place) -> Option<&Arc<Backend>> {
        let key = (cluster.to_owned(), place.clone());
        self.backends.get(&key)
    }

    /// The address of `name` that is used where one at a time is: the one before as long as it is among `addresses`,
    /// else the first.
    pub fn chosen(
        &mut self,
        cluster: &str,
        name: &BackendAddress,
        addresses: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let key = (cluster.to_owned(), name.clone());
        let before = self.chosen.get(&key).copied();
        let chosen = before
            .filter(|address| addresses.contains(address))
            .or(addresses.first().copied())?;
        self.chosen.insert(key, chosen);
        Some(chosen)
    }

    /// Uses another address of `name` from now on.
    pub fn choose(&mut self, cluster: &str, name: &BackendAddress, address: SocketAddr) {
        let key = (cluster.to_owned(), name.clone());
        self.chosen.insert(key, address);
    }

    /// A cluster, known or new.
    pub fn cluster(&mut self, name: &str) -> (Arc<ClusterState>, Arc<ClusterMetrics>) {
        let workers = self.workers;
        let entry = self.clusters.entry(name.to_owned()).or_insert_with(|| {
            (
                Arc::new(ClusterState::new(workers)),
                Arc::new(ClusterMetrics::new(name.into(), workers)),
            )
        });
        entry.clone()
    }

    /// A listener's counters, known or new.
    pub fn listener(&mut self, name: &str) -> Arc<ListenerMetrics> {
        let workers = self.workers;
        let entry = self.listeners.entry(name.to_owned());
        Arc::clone(entry.or_insert_with(|| Arc::new(ListenerMetrics::new(name.into(), workers))))
    }

    /// The counters of the routes of one name, known or new.
    pub fn route(&mut self, name: &str) -> Arc<RouteMetrics> {
        let workers = self.workers;
        let entry = self.routes.entry(name.to_owned());
        Arc::clone(entry.or_insert_with(|| Arc::new(RouteMetrics::new(name.into(), workers))))
    }

    /// Forgets everything that `keep_backend`, `keep_cluster` and `keep_listener` do not want kept, and the routes that no
    /// snapshot and no tunnel holds any longer.
    pub fn forget(
        &mut self,
        keep_backend: impl Fn(BackendId) -> bool,
        keep_cluster: impl Fn(&str) -> bool,
        keep_listener: impl Fn(&str) -> bool,
    ) {
        self.backends
            .retain(|_, backend| keep_backend(backend.id()));
        let kept = self.backends.iter();
        let labels: HashSet<(&str, &str)> = kept
            .map(|(_, backend)| (&**backend.cluster(), &**backend.label()))
            .collect();
        self.counters
            .retain(|(cluster, label), _| labels.contains(&(&**cluster, &**label)));
        let names: HashSet<(&str, &BackendAddress)> = self
            .backends
            .keys()
            .filter(|(_, place)| place.one)
            .map(|(cluster, place)| (cluster.as_str(), &place.written))
            .collect();
        self.chosen
            .retain(|(cluster, name), _| names.contains(&(cluster.as_str(), name)));
        self.clusters.retain(|name, _| keep_cluster(name));
        self.listeners.retain(|name, _| keep_listener(name));
        self.routes
            .retain(|_, metrics| Arc::strong_count(metrics) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(address: &str) -> Place {
        Place::of(address.parse().unwrap())
    }

    #[test]
    fn identity_keeps_its_state_until_it_is_forgotten() {
        let mut registry = Registry::new(1);
        let place = place("127.0.0.1:1");
        assert!(registry.known_backend("a", &place).is_none());
        let first = registry.backend("a", &place).0.id();
        let known = registry.known_backend("a", &place).map(|b| b.id());
        assert_eq!(known, Some(first));
        assert_eq!(registry.backend("a", &place).0.id(), first);
        assert_ne!(
            registry.backend("b", &place).0.id(),
            first,
            "the cluster is part of the identity"
        );
        let (held, dropped) = (registry.route("held"), registry.route("dropped"));
        dropped.sheet(0).requests.increment(200);
        drop(dropped);
        registry.forget(|id| id != first, |_| true, |_| true);
        assert_ne!(registry.backend("a", &place).0.id(), first);
        assert!(Arc::ptr_eq(&registry.route("held"), &held));
        assert_eq!(registry.route("dropped").sheets().count(), 0);
    }

    #[test]
    fn each_address_of_a_name_has_its_state_and_label() {
        let mut registry = Registry::new(1);
        let mut of = |at: Option<&str>, one: bool| {
            let place = Place {
                written: "db.internal:5432".parse().unwrap(),
                at: at.map(|at| SocketAddress::Ip(at.parse().unwrap())),
                one,
            };
            let (backend, counters) = registry.backend("a", &place);
            assert_eq!(&**backend.host(), "db.internal:5432");
            assert_eq!(*backend.label(), counters.backend);
            (backend.label().to_string(), backend.id(), counters)
        };
        let first = of(Some("10.0.0.1:5432"), false);
        assert_eq!(first.0, "db.internal@10.0.0.1:5432");
        let v6 = of(Some("[fd00::1]:5432"), false);
        assert_eq!(v6.0, "db.internal@[fd00::1]:5432");
        assert_eq!(of(None, false).0, "db.internal:5432");
        let (one, other) = (
            of(Some("10.0.0.1:5432"), true),
            of(Some("10.0.0.2:5432"), true),
        );
        assert_eq!(
            (&*one.0, &*other.0),
            ("db.internal:5432", "db.internal:5432")
        );
        assert_ne!(one.1, other.1, "health and load are the address's");
        assert!(Arc::ptr_eq(&one.2, &other.2), "counters are the name's");
    }

    #[test]
    fn one_address_stays_as_long_as_it_is_an_answer() {
        let mut registry = Registry::new(1);
        let name: BackendAddress = "db.internal:5432".parse().unwrap();
        let [a, b, c] = [1, 2, 3].map(|n| SocketAddr::from(([10, 0, 0, n], 5432)));
        assert_eq!(registry.chosen("a", &name, &[]), None);
        assert_eq!(registry.chosen("a", &name, &[b, c]), Some(b));
        assert_eq!(registry.chosen("a", &name, &[a, b, c]), Some(b));
        assert_eq!(registry.chosen("a", &name, &[a, c]), Some(a));
        registry.choose("a", &name, c);
        assert_eq!(registry.chosen("a", &name, &[a, b, c]), Some(c));
        assert_eq!(registry.chosen("b", &name, &[a, b, c]), Some(a));
        registry.forget(|_| false, |_| true, |_| true);
        assert_eq!(registry.chosen("a", &name, &[a, b, c]), Some(a));
    }
}
