//! Turns a configuration into a snapshot: names become indices, identities get their live state, policies their
//! pickers.
//!
//! [`compile`] is pure: it reads live state and changes none. What a generation changes outside of itself (new entries
//! of the registry, backends that come back, join or lose their address) is in the [`Compiled::effects`], which happen
//! when it is published. So a generation can be built only to look at it.
//!
//! A name stands for all of its addresses, each of which is a backend, or for one of them at a time
//! (`addresses = "one"`). A cluster whose settings and addresses did not change is shared with the previous generation,
//! hash ring included, and so are the routes of a listener if no route has changed: a new answer for one name costs no
//! work on the others.
//!
//! A backend that the peer set adds while the proxy runs takes traffic after its first check ([`Health::JOINING`]). In
//! the first generation such backends are the last ones known to have been good, so they are used at once.

use std::net::SocketAddr;
use std::sync::Arc;

use foldhash::HashMap;

use super::layers::{Layers, Origin};
use super::schema::{AccessLog, BackendConfig, ClusterConfig, Config, ListenerConfig, RouteConfig};
use crate::balance::{Balancer, WeightedBackend};
use crate::model::address::{BackendAddress, SocketAddress};
use crate::model::backend::Backend;
use crate::model::health::Health;
use crate::model::route_action::RouteAction;
use crate::model::settings::Protocol;
use crate::route::rule::Rule;
use crate::route::table::Table;
use crate::snapshot::registry::{BackendKey, NewEntries, Registry, RegistryDraft};
use crate::snapshot::{
    Cluster, ClusterIndex, Departing, Endpoint, HttpListener, Listener, ListenerKind,
    ListenerState, RouteTarget, Snapshot, TcpListener,
};
use crate::transport::listen::BoundSockets;

/// The addresses of each name that has been resolved.
pub(crate) type ResolvedNames = std::collections::HashMap<BackendAddress, Arc<[SocketAddr]>>;

/// What a generation is built from, besides the configuration.
#[derive(Debug)]
pub(crate) struct CompileInputs<'a> {
    /// Live state by identity.
    pub registry: &'a Registry,
    /// The bound sockets of each listener, in the order of the file.
    pub sockets: &'a [Arc<BoundSockets>],
    /// The addresses of each name; a name that is missing is not resolved.
    pub names: &'a ResolvedNames,
    /// The generation that this one follows; `None` for the first.
    pub previous: Option<Previous<'a>>,
}

/// The previous generation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Previous<'a> {
    /// The configuration files that it was built from.
    pub file: &'a Config,
    /// What was built from them.
    pub snapshot: &'a Snapshot,
}

/// A snapshot that is not published yet.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// The snapshot. What departs is not in it: that depends on what is published before it.
    pub snapshot: Snapshot,
    /// What happens when it is published.
    pub effects: Effects,
}

/// What the publication of a snapshot changes outside of it.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    new: NewEntries,
    backends: Vec<BackendEffect>,
}

/// What happens to a backend of a cluster that was built.
#[derive(Debug)]
struct BackendEffect {
    backend: Arc<Backend>,
    /// It waits for its first check.
    joins: bool,
    /// It has an address.
    is_resolved: bool,
}

impl Effects {
    /// Changes the registry and the live backends. To be called right before the publication, so that no worker sees a
    /// joining backend as healthy.
    pub(crate) fn apply(self, registry: &mut Registry) {
        registry.adopt(self.new);
        for effect in self.backends {
            effect.apply();
        }
    }
}

impl BackendEffect {
    fn apply(self) {
        let backend = &self.backend;
        backend.set_departed(false);
        if self.joins {
            backend.set_health(Health::CHECK_DOWN | Health::JOINING);
            backend.set_note("joined the peer set, not checked yet");
        }
        if self.is_resolved {
            backend.clear_health(Health::UNRESOLVED);
        } else {
            backend.set_health(Health::UNRESOLVED);
        }
    }
}

/// Builds the snapshot of a valid configuration.
pub(crate) fn compile(layers: &Layers, inputs: &CompileInputs<'_>) -> Compiled {
    let config = &*layers.file;
    let previous = inputs.previous;
    let mut builder = Builder {
        layers,
        names: inputs.names,
        previous: previous.map(|previous| clusters_by_name(previous.snapshot)),
        indices: cluster_indices(config),
        routes: previous.map_or_else(HashMap::default, |previous| {
            reusable_routes(config, previous)
        }),
        registry: inputs.registry.draft(),
        effects: Vec::new(),
    };
    let clusters = config.clusters.iter();
    let clusters = clusters.map(|c| builder.build_or_share(c)).collect();
    let states = listener_states(config, inputs.sockets, previous.map(|p| p.snapshot));
    let listeners = config.listeners.iter().zip(inputs.sockets);
    let listeners = listeners.map(|(listener, sockets)| {
        let state = states.get(listener.name.as_str()).cloned();
        let sockets = Arc::clone(sockets);
        Arc::new(builder.build_listener(listener, sockets, state.unwrap_or_default()))
    });
    Compiled {
        snapshot: Snapshot {
            generation: previous.map_or(1, |previous| previous.snapshot.generation + 1),
            listeners: listeners.collect(),
            clusters,
            departing: Departing::default(),
            drain_timeout: config.drain_timeout,
            access_log: config.log.access != AccessLog::Off,
            access_query: config.log.access_query,
        },
        effects: Effects {
            new: builder.registry.into_new(),
            backends: builder.effects,
        },
    }
}

fn cluster_indices(config: &Config) -> HashMap<&str, ClusterIndex> {
    let clusters = config.clusters.iter().enumerate();
    clusters
        .map(|(position, cluster)| (cluster.name.as_str(), ClusterIndex::new(position)))
        .collect()
}

/// The routes of the previous listeners by name, if they would be built the same: they name clusters by index, and
/// their configuration is that of the whole file.
fn reusable_routes<'a>(
    config: &Config,
    previous: Previous<'a>,
) -> HashMap<&'a str, Arc<Table<RouteTarget>>> {
    let Previous { file, snapshot } = previous;
    let names = config.clusters.iter().map(|cluster| &cluster.name);
    let known = file.clusters.iter().map(|cluster| &cluster.name);
    let same_indices = known.clone().eq(names.take(known.len()));
    let same = std::ptr::eq(file, config) || (same_indices && file.routes == config.routes);
    let listeners = snapshot.listeners.iter().filter(|_| same);
    listeners
        .filter_map(|l| match &l.kind {
            ListenerKind::Http(http) => Some((&*l.name, Arc::clone(&http.routes))),
            ListenerKind::Tcp(_) => None,
        })
        .collect()
}

/// The live state of each listener by its name: one for all of its addresses, and the previous one if it had one of the
/// sockets.
fn listener_states<'c>(
    config: &'c Config,
    sockets: &[Arc<BoundSockets>],
    previous: Option<&Snapshot>,
) -> HashMap<&'c str, Arc<ListenerState>> {
    let known = previous
        .into_iter()
        .flat_map(|previous| &previous.listeners);
    let known: HashMap<u64, &Arc<Listener>> = known.map(|l| (l.sockets.id(), l)).collect();
    let mut states = HashMap::default();
    for (listener, sockets) in config.listeners.iter().zip(sockets) {
        if let Some(known) = known.get(&sockets.id()) {
            let state = || Arc::clone(&known.state);
            states.entry(listener.name.as_str()).or_insert_with(state);
        }
    }
    for listener in &config.listeners {
        states.entry(listener.name.as_str()).or_default();
    }
    states
}

/// The clusters of a snapshot by their names.
fn clusters_by_name(snapshot: &Snapshot) -> HashMap<&str, &Arc<Cluster>> {
    let clusters = snapshot.clusters.iter();
    clusters.map(|cluster| (&*cluster.name, cluster)).collect()
}

/// Builds the clusters and listeners of one generation.
struct Builder<'a> {
    layers: &'a Layers,
    names: &'a ResolvedNames,
    /// The clusters of the previous generation; `None`: this is the first generation.
    previous: Option<HashMap<&'a str, &'a Arc<Cluster>>>,
    indices: HashMap<&'a str, ClusterIndex>,
    /// The routes of http listeners by name, those of the previous generation that can be shared and those built so
    /// far.
    routes: HashMap<&'a str, Arc<Table<RouteTarget>>>,
    registry: RegistryDraft<'a>,
    effects: Vec<BackendEffect>,
}

/// A backend of a cluster that is being built.
struct PlannedBackend<'a> {
    config: &'a BackendConfig,
    origin: Origin,
    key: BackendKey,
}

impl<'a> Builder<'a> {
    fn build_listener(
        &mut self,
        listener: &'a ListenerConfig,
        sockets: Arc<BoundSockets>,
        state: Arc<ListenerState>,
    ) -> Listener {
        let cluster = listener.cluster.as_deref();
        let cluster = cluster.map(|name| self.index_of(name));
        let kind = match listener.protocol {
            Protocol::Tcp => ListenerKind::Tcp(TcpListener { cluster }),
            Protocol::Http => {
                let answer = listener.answer.clone();
                let answer = answer.map(|action| action.map(|name| self.index_of(&name)));
                ListenerKind::Http(HttpListener {
                    via: listener.via,
                    expose_request_id: listener.expose_request_id,
                    routes: self.build_or_share_routes(listener),
                    fallback: cluster.map(RouteAction::Cluster).or(answer),
                    errors: listener.errors.clone(),
                })
            }
        };
        Listener {
            name: listener.name.as_str().into(),
            address: listener.address.clone(),
            kind,
            sockets,
            timeouts: listener.timeouts.clone(),
            limits: listener.limits.clone(),
            trusted_proxies: listener.trusted_proxies.clone(),
            state,
            metrics: self.registry.listener(&listener.name),
        }
    }

    /// The routes of an http listener, which all of its addresses share.
    fn build_or_share_routes(&mut self, listener: &'a ListenerConfig) -> Arc<Table<RouteTarget>> {
        if let Some(known) = self.routes.get(listener.name.as_str()) {
            return Arc::clone(known);
        }
        let applies = |route: &&RouteConfig| {
            let listeners = route.listeners.as_ref();
            listeners.is_none_or(|names| names.contains(&listener.name))
        };
        let routes = self.layers.file.routes.iter().filter(applies);
        let rules = routes.map(|route| self.build_rule(route)).collect();
        let built = Arc::new(Table::new(rules));
        self.routes.insert(&listener.name, Arc::clone(&built));
        built
    }

    fn build_rule(&mut self, route: &RouteConfig) -> Rule<RouteTarget> {
        let Rule {
            hosts,
            paths,
            methods,
            headers,
            query,
            clients,
            target,
        } = route.rule.clone();
        let target = RouteTarget {
            name: route.name.as_str().into(),
            metrics: route.named.then(|| self.registry.route(&route.name)),
            action: target.map(|name| self.index_of(&name)),
            timeout: route.timeout,
            body_bytes: route.body_bytes,
            errors: route.errors.clone(),
            log: route.log,
        };
        Rule {
            hosts,
            paths,
            methods,
            headers,
            query,
            clients,
            target,
        }
    }

    fn index_of(&self, name: &str) -> ClusterIndex {
        let index = self.indices.get(name).copied();
        index.expect("the loader has checked that every cluster that is named exists")
    }

    fn build_or_share(&mut self, config: &'a ClusterConfig) -> Arc<Cluster> {
        let planned = self.planned_backends(config);
        if let Some(cluster) = self.unchanged(config, &planned) {
            return cluster;
        }
        let (state, metrics) = self.registry.cluster(&config.name);
        let mut endpoints = Vec::with_capacity(planned.len());
        let mut members = Vec::with_capacity(planned.len());
        for planned in planned {
            let joins = self.joins(config, &planned);
            let (backend, metrics) = self.registry.backend(&config.name, &planned.key);
            let address = planned.key.resolved;
            self.effects.push(BackendEffect {
                backend: Arc::clone(&backend),
                joins,
                is_resolved: address.is_some(),
            });
            let (weight, backup) = (planned.config.weight, planned.config.backup);
            members.push(WeightedBackend {
                backend: Arc::clone(&backend),
                weight,
                backup,
            });
            endpoints.push(Endpoint {
                backend,
                metrics,
                weight,
                backup,
                address,
            });
        }
        let settings = &config.settings;
        Arc::new(Cluster {
            name: config.name.as_str().into(),
            settings: settings.clone(),
            endpoints,
            balancer: Balancer::new(settings.policy, settings.hash_seed, members)
                .strict(settings.panic_threshold.is_none()),
            state,
            metrics,
        })
    }

    /// Whether a backend waits for its first check: the peer set has just added it or brought it back.
    fn joins(&self, cluster: &ClusterConfig, planned: &PlannedBackend<'_>) -> bool {
        let known = self.registry.known();
        self.previous.is_some()
            && cluster.settings.check.is_some()
            && planned.origin == Origin::Gossip
            && known
                .known_backend(&cluster.name, &planned.key)
                .is_none_or(|known| known.has_departed())
    }

    /// The previous cluster, if it has the same settings and the same backends.
    fn unchanged(
        &self,
        config: &ClusterConfig,
        planned: &[PlannedBackend<'_>],
    ) -> Option<Arc<Cluster>> {
        let cluster = *self.previous.as_ref()?.get(config.name.as_str())?;
        let is_same = |(endpoint, planned): (&Endpoint, &PlannedBackend<'_>)| {
            *endpoint.backend.address() == planned.key.written
                && endpoint.address == planned.key.resolved
                && endpoint.weight == planned.config.weight
                && endpoint.backup == planned.config.backup
        };
        let same = cluster.settings == config.settings
            && cluster.endpoints.len() == planned.len()
            && cluster.endpoints.iter().zip(planned).all(is_same);
        same.then(|| Arc::clone(cluster))
    }

    /// The backends of a cluster in their order: each address of a name is one, in the order of the addresses, and a
    /// name without any is one that is not resolved.
    fn planned_backends(&mut self, config: &'a ClusterConfig) -> Vec<PlannedBackend<'a>> {
        let mut planned = Vec::with_capacity(config.backends.len());
        for (backend, origin) in self.layers.backends(config) {
            let is_name = matches!(backend.address, BackendAddress::Name { .. });
            let plan = |resolved| PlannedBackend {
                config: backend,
                origin,
                key: BackendKey {
                    written: backend.address.clone(),
                    resolved,
                    single: is_name && config.settings.resolve.one,
                },
            };
            match self.addresses_of(config, &backend.address) {
                addresses if addresses.is_empty() => planned.push(plan(None)),
                addresses => planned.extend(addresses.into_iter().map(|a| plan(Some(a)))),
            }
        }
        planned
    }

    /// The addresses that a backend of `cluster` stands for; none for a name that is not resolved.
    fn addresses_of(
        &mut self,
        cluster: &ClusterConfig,
        backend: &BackendAddress,
    ) -> Vec<SocketAddress> {
        let known = match backend {
            BackendAddress::Ip(address) => return vec![(*address).into()],
            BackendAddress::Unix(address) => return vec![SocketAddress::Unix(address.clone())],
            BackendAddress::Name { .. } => self.names.get(backend).map_or(&[][..], |known| known),
        };
        if !cluster.settings.resolve.one {
            return known.iter().copied().map(SocketAddress::Ip).collect();
        }
        let used = self.registry.address_in_use(&cluster.name, backend, known);
        used.into_iter().map(SocketAddress::Ip).collect()
    }
}

#[cfg(test)]
mod tests;
