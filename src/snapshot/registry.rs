//! The live state that outlives generations, by identity: backends by cluster and [`BackendKey`], their counters by
//! cluster and label, clusters and listeners by name.
//!
//! Owned by the writer of snapshots. A new generation is built against a [`RegistryDraft`], which takes what is known
//! from the registry and collects what is new; only when the generation is published does the registry
//! [adopt](Registry::adopt) the new entries. So a generation that is never published leaves no trace.

use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::{HashMap, HashSet};

use crate::model::address::{BackendAddress, SocketAddress};
use crate::model::backend::{Backend, BackendId};
use crate::model::cluster::ClusterState;
use crate::telemetry::metrics::{BackendMetrics, ClusterMetrics, ListenerMetrics, RouteMetrics};

/// What identifies a backend within its cluster: what was written, and which of the addresses that it stands for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct BackendKey {
    /// The address or name as the file or the peer set gave it.
    pub written: BackendAddress,
    /// Where to connect to; `None` for a name that has not been resolved.
    pub resolved: Option<SocketAddress>,
    /// Whether only one address of the name is used at a time (`addresses = "one"`), so that the name alone is the
    /// label.
    pub single: bool,
}

impl BackendKey {
    /// The key of an address that needs no look-up.
    pub(crate) fn of_address(address: SocketAddr) -> Self {
        Self {
            written: BackendAddress::Ip(address),
            resolved: Some(address.into()),
            single: false,
        }
    }

    fn new_backend(&self, cluster: &str) -> Backend {
        let written = self.written.clone();
        match &self.resolved {
            Some(SocketAddress::Ip(address)) if !self.single => {
                Backend::at(cluster.into(), written, address.ip())
            }
            _ => Backend::new(cluster.into(), written),
        }
    }
}

#[derive(Debug, Default)]
struct Entries {
    backends: HashMap<(String, BackendKey), Arc<Backend>>,
    /// By cluster and label: backends that succeed each other under one label keep counting.
    counters: HashMap<(Arc<str>, Arc<str>), Arc<BackendMetrics>>,
    /// The address in use of each name of which only one is used at a time.
    in_use: HashMap<(String, BackendAddress), SocketAddr>,
    clusters: HashMap<String, (Arc<ClusterState>, Arc<ClusterMetrics>)>,
    listeners: HashMap<String, Arc<ListenerMetrics>>,
    routes: HashMap<String, Arc<RouteMetrics>>,
}

/// All live state by identity.
#[derive(Debug)]
pub(crate) struct Registry {
    workers: usize,
    entries: Entries,
}

/// New entries that a registry has not adopted yet.
#[derive(Debug, Default)]
pub(crate) struct NewEntries(Entries);

impl Registry {
    /// An empty registry for `workers` workers.
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            entries: Entries::default(),
        }
    }

    /// How many workers there are.
    pub(crate) fn workers(&self) -> usize {
        self.workers
    }

    /// A view in which entries can be added without changing the registry.
    pub(crate) fn draft(&self) -> RegistryDraft<'_> {
        RegistryDraft {
            known: self,
            new: Entries::default(),
        }
    }

    /// Takes over what a draft has added.
    pub(crate) fn adopt(&mut self, new: NewEntries) {
        let (all, new) = (&mut self.entries, new.0);
        all.backends.extend(new.backends);
        all.counters.extend(new.counters);
        all.in_use.extend(new.in_use);
        all.clusters.extend(new.clusters);
        all.listeners.extend(new.listeners);
        all.routes.extend(new.routes);
    }

    /// A backend, if it is known.
    pub(crate) fn known_backend(&self, cluster: &str, key: &BackendKey) -> Option<&Arc<Backend>> {
        let key = (cluster.to_owned(), key.clone());
        self.entries.backends.get(&key)
    }

    /// The address of `name` that is used if only one at a time is: the previous one as long as it is among
    /// `addresses`, otherwise the first.
    pub(crate) fn address_in_use(
        &self,
        cluster: &str,
        name: &BackendAddress,
        addresses: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let key = (cluster.to_owned(), name.clone());
        let previous = self.entries.in_use.get(&key).copied();
        previous
            .filter(|address| addresses.contains(address))
            .or(addresses.first().copied())
    }

    /// Uses another address of `name` from now on.
    pub(crate) fn use_address(
        &mut self,
        cluster: &str,
        name: &BackendAddress,
        address: SocketAddr,
    ) {
        let key = (cluster.to_owned(), name.clone());
        self.entries.in_use.insert(key, address);
    }

    /// Drops all entries but those that `keep_backend`, `keep_cluster` and `keep_listener` want to keep, and drops
    /// routes that no snapshot and no tunnel holds any longer.
    pub(crate) fn retain(
        &mut self,
        keep_backend: impl Fn(BackendId) -> bool,
        keep_cluster: impl Fn(&str) -> bool,
        keep_listener: impl Fn(&str) -> bool,
    ) {
        let all = &mut self.entries;
        all.backends.retain(|_, backend| keep_backend(backend.id()));
        let kept = all.backends.iter();
        let labels: HashSet<(&str, &str)> = kept
            .map(|(_, backend)| (&**backend.cluster(), &**backend.label()))
            .collect();
        all.counters
            .retain(|(cluster, label), _| labels.contains(&(&**cluster, &**label)));
        let names: HashSet<(&str, &BackendAddress)> = all
            .backends
            .keys()
            .filter(|(_, key)| key.single)
            .map(|(cluster, key)| (cluster.as_str(), &key.written))
            .collect();
        all.in_use
            .retain(|(cluster, name), _| names.contains(&(cluster.as_str(), name)));
        all.clusters.retain(|name, _| keep_cluster(name));
        all.listeners.retain(|name, _| keep_listener(name));
        all.routes
            .retain(|_, metrics| Arc::strong_count(metrics) > 1);
    }
}

/// A registry and what a generation that is being built adds to it.
#[derive(Debug)]
pub(crate) struct RegistryDraft<'a> {
    known: &'a Registry,
    new: Entries,
}

impl RegistryDraft<'_> {
    /// The registry without the new entries.
    pub(crate) fn known(&self) -> &Registry {
        self.known
    }

    /// What was added, for the registry to adopt.
    pub(crate) fn into_new(self) -> NewEntries {
        NewEntries(self.new)
    }

    /// A backend, known or new.
    pub(crate) fn backend(
        &mut self,
        cluster: &str,
        key: &BackendKey,
    ) -> (Arc<Backend>, Arc<BackendMetrics>) {
        let workers = self.known.workers;
        let known = &self.known.entries;
        let whole_key = (cluster.to_owned(), key.clone());
        let backend = match known.backends.get(&whole_key) {
            Some(backend) => Arc::clone(backend),
            None => {
                let entry = self.new.backends.entry(whole_key);
                Arc::clone(entry.or_insert_with(|| Arc::new(key.new_backend(cluster))))
            }
        };
        let label = (Arc::clone(backend.cluster()), Arc::clone(backend.label()));
        let counters = match known.counters.get(&label) {
            Some(counters) => Arc::clone(counters),
            None => {
                let entry = self.new.counters.entry(label.clone());
                let new = || Arc::new(BackendMetrics::new(label.0, label.1, workers));
                Arc::clone(entry.or_insert_with(new))
            }
        };
        (backend, counters)
    }

    /// As [`Registry::address_in_use`]; remembers the choice.
    pub(crate) fn address_in_use(
        &mut self,
        cluster: &str,
        name: &BackendAddress,
        addresses: &[SocketAddr],
    ) -> Option<SocketAddr> {
        let chosen = self.known.address_in_use(cluster, name, addresses)?;
        let key = (cluster.to_owned(), name.clone());
        self.new.in_use.insert(key, chosen);
        Some(chosen)
    }

    /// The state and the counters of a cluster, known or new.
    pub(crate) fn cluster(&mut self, name: &str) -> (Arc<ClusterState>, Arc<ClusterMetrics>) {
        let workers = self.known.workers;
        let known = self.known.entries.clusters.get(name);
        let new = &mut self.new.clusters;
        known.cloned().unwrap_or_else(|| {
            let entry = new.entry(name.to_owned()).or_insert_with(|| {
                let metrics = ClusterMetrics::new(name.into(), workers);
                (Arc::new(ClusterState::new(workers)), Arc::new(metrics))
            });
            entry.clone()
        })
    }

    /// The counters of a listener, known or new.
    pub(crate) fn listener(&mut self, name: &str) -> Arc<ListenerMetrics> {
        let workers = self.known.workers;
        let known = self.known.entries.listeners.get(name);
        let new = &mut self.new.listeners;
        known.cloned().unwrap_or_else(|| {
            let entry = new.entry(name.to_owned());
            let metrics = || Arc::new(ListenerMetrics::new(name.into(), workers));
            Arc::clone(entry.or_insert_with(metrics))
        })
    }

    /// The counters of all routes with one name, known or new.
    pub(crate) fn route(&mut self, name: &str) -> Arc<RouteMetrics> {
        let workers = self.known.workers;
        let known = self.known.entries.routes.get(name);
        let new = &mut self.new.routes;
        known.cloned().unwrap_or_else(|| {
            let entry = new.entry(name.to_owned());
            let metrics = || Arc::new(RouteMetrics::new(name.into(), workers));
            Arc::clone(entry.or_insert_with(metrics))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str) -> BackendKey {
        BackendKey::of_address(address.parse().unwrap())
    }

    /// What `build` gives, with all that it adds adopted.
    fn built<T>(registry: &mut Registry, build: impl FnOnce(&mut RegistryDraft<'_>) -> T) -> T {
        let mut draft = registry.draft();
        let result = build(&mut draft);
        let new = draft.into_new();
        registry.adopt(new);
        result
    }

    fn backend_id(registry: &mut Registry, cluster: &str, key: &BackendKey) -> BackendId {
        built(registry, |draft| draft.backend(cluster, key).0.id())
    }

    #[test]
    fn a_draft_changes_nothing_until_it_is_adopted() {
        let registry = Registry::new(1);
        let key = key("127.0.0.1:1");
        let mut draft = registry.draft();
        let (backend, counters) = draft.backend("a", &key);
        let (again, same) = draft.backend("a", &key);
        assert!(Arc::ptr_eq(&backend, &again) && Arc::ptr_eq(&counters, &same));
        assert!(Arc::ptr_eq(&draft.route("r"), &draft.route("r")));
        assert!(registry.known_backend("a", &key).is_none());
    }

    #[test]
    fn identity_keeps_its_state_until_it_is_dropped() {
        let mut registry = Registry::new(1);
        let key = key("127.0.0.1:1");
        let first = backend_id(&mut registry, "a", &key);
        let known = registry.known_backend("a", &key).map(|b| b.id());
        assert_eq!(known, Some(first));
        assert_eq!(backend_id(&mut registry, "a", &key), first);
        assert_ne!(
            backend_id(&mut registry, "b", &key),
            first,
            "the cluster is part of the identity"
        );
        let (held, dropped) = built(&mut registry, |d| (d.route("held"), d.route("dropped")));
        dropped.sheet(0).requests.increment(200);
        drop(dropped);
        registry.retain(|id| id != first, |_| true, |_| true);
        assert_ne!(backend_id(&mut registry, "a", &key), first);
        let (same, new) = built(&mut registry, |d| (d.route("held"), d.route("dropped")));
        assert!(Arc::ptr_eq(&same, &held));
        assert_eq!(new.sheets().count(), 0);
    }

    #[test]
    fn each_address_of_a_name_has_its_state_and_label() {
        let mut registry = Registry::new(1);
        let mut of = |resolved: Option<&str>, single: bool| {
            let key = BackendKey {
                written: "db.internal:5432".parse().unwrap(),
                resolved: resolved.map(|address| SocketAddress::Ip(address.parse().unwrap())),
                single,
            };
            let (backend, counters) = built(&mut registry, |draft| draft.backend("a", &key));
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
        assert_ne!(one.1, other.1, "health and load belong to the address");
        assert!(Arc::ptr_eq(&one.2, &other.2), "counters belong to the name");
    }

    #[test]
    fn one_address_stays_as_long_as_it_is_an_answer() {
        let mut registry = Registry::new(1);
        let name: BackendAddress = "db.internal:5432".parse().unwrap();
        let [a, b, c] = [1, 2, 3].map(|n| SocketAddr::from(([10, 0, 0, n], 5432)));
        let used = |registry: &mut Registry, cluster: &str, addresses: &[SocketAddr]| {
            built(registry, |d| d.address_in_use(cluster, &name, addresses))
        };
        assert_eq!(used(&mut registry, "a", &[]), None);
        assert_eq!(used(&mut registry, "a", &[b, c]), Some(b));
        assert_eq!(used(&mut registry, "a", &[a, b, c]), Some(b));
        assert_eq!(used(&mut registry, "a", &[a, c]), Some(a));
        registry.use_address("a", &name, c);
        assert_eq!(used(&mut registry, "a", &[a, b, c]), Some(c));
        assert_eq!(used(&mut registry, "b", &[a, b, c]), Some(a));
        registry.retain(|_| false, |_| true, |_| true);
        assert_eq!(used(&mut registry, "a", &[a, b, c]), Some(a));
    }
}
