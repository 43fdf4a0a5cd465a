//! Configuration to snapshot: indices for names, live state for identities, pickers for policies.
//!
//! A name stands for its addresses: each is a backend of its own, or one of them at a time is (`addresses = "one"`).
//!
//! A cluster whose settings and addresses did not change is shared with the generation before, ring and all.
//!
//! A backend that the peer set adds while the proxy runs comes in through its check ([`Health::JOINING`]). In the first
//! generation such backends are the last ones known to have been good, so they are used at once.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use super::schema::{BackendConfig, ClusterConfig, Config, ListenerConfig, Origin, RouteConfig};
use crate::balance::{Balancer, WeightedBackend};
use crate::model::address::{BackendAddress, SocketAddress};
use crate::model::health::Health;
use crate::model::settings::Protocol;
use crate::route::rule::Rule;
use crate::route::table::Table;
use crate::snapshot::registry::{Place, Registry};
use crate::snapshot::{
    Cluster, ClusterIndex, Departing, Endpoint, Listener, ListenerState, RouteTarget, Snapshot,
};
use crate::transport::listen::BoundSockets;

/// What the addresses of the file stand for, besides the file.
pub struct World<'a> {
    /// Live state by identity.
    pub registry: &'a mut Registry,
    /// Bound sockets of each listener, in the order of the file.
    pub sockets: &'a [Arc<BoundSockets>],
    /// Addresses of each name; a name that is missing is not resolved.
    pub names: &'a HashMap<BackendAddress, Arc<[SocketAddr]>>,
    /// The configuration and the snapshot before, if there are.
    pub before: Option<(&'a Config, &'a Snapshot)>,
    /// What drains.
    pub departing: Departing,
}

/// Builds the snapshot of a valid configuration.
pub fn compile(config: &Config, world: World<'_>) -> Snapshot {
    let World {
        registry,
        sockets,
        names,
        before,
        departing,
    } = world;
    let previous = before.map(|(config, snapshot)| Previous::new(config, snapshot));
    let clusters: Vec<Arc<Cluster>> = config
        .clusters
        .iter()
        .map(|cluster| build_or_share(cluster, registry, names, previous.as_ref()))
        .collect();
    let indices: HashMap<&str, ClusterIndex> = config
        .clusters
        .iter()
        .enumerate()
        .map(|(position, cluster)| (cluster.name.as_str(), ClusterIndex::new(position)))
        .collect();
    let states = listener_states(config, sockets, before.map(|(_, snapshot)| snapshot));
    let listeners = config
        .listeners
        .iter()
        .zip(sockets)
        .map(|(listener, sockets)| {
            let state = states.get(listener.name.as_str()).cloned();
            let state = state.unwrap_or_default();
            Arc::new(build_listener(
                config, listener, sockets, &indices, registry, state,
            ))
        })
        .collect();
    Snapshot {
        generation: before.map_or(1, |(_, snapshot)| snapshot.generation + 1),
        listeners,
        clusters,
        departing,
        drain_timeout: config.drain_timeout,
        access_log: config.log.access != super::schema::AccessLog::Off,
        access_query: config.log.access_query,
    }
}

/// The live state of each listener by its name: of all its addresses one, and that of the generation before if one of its
/// sockets is there.
fn listener_states<'c>(
    config: &'c Config,
    sockets: &[Arc<BoundSockets>],
    before: Option<&Snapshot>,
) -> HashMap<&'c str, Arc<ListenerState>> {
    let mut states = HashMap::new();
    for (listener, sockets) in config.listeners.iter().zip(sockets) {
        let mut known = before.into_iter().flat_map(|before| &before.listeners);
        if let Some(known) = known.find(|known| known.sockets.id() == sockets.id()) {
            let state = || Arc::clone(&known.state);
            states.entry(listener.name.as_str()).or_insert_with(state);
        }
    }
    for listener in &config.listeners {
        states.entry(listener.name.as_str()).or_default();
    }
    states
}

fn build_listener(
    config: &Config,
    listener: &ListenerConfig,
    sockets: &Arc<BoundSockets>,
    indices: &HashMap<&str, ClusterIndex>,
    registry: &mut Registry,
    state: Arc<ListenerState>,
) -> Listener {
    let takes = |route: &&RouteConfig| {
        listener.protocol == Protocol::Http
            && route
                .listeners
                .as_ref()
                .is_none_or(|names| names.contains(&listener.name))
    };
    let rules = config
        .routes
        .iter()
        .filter(takes)
        .map(|route| build_rule(route, indices, registry))
        .collect();
    Listener {
        name: listener.name.as_str().into(),
        address: listener.address.clone(),
        protocol: listener.protocol,
        sockets: Arc::clone(sockets),
        timeouts: listener.timeouts.clone(),
        limits: listener.limits.clone(),
        trusted_proxies: listener.trusted_proxies.clone(),
        via: listener.via,
        expose_request_id: listener.expose_request_id,
        routes: Table::new(rules),
        cluster: listener
            .cluster
            .as_deref()
            .map(|name| index_of(name, indices)),
        answer: listener
            .answer
            .clone()
            .map(|action| action.map(|name| index_of(&name, indices))),
        errors: listener.errors.clone(),
        state,
        metrics: registry.listener(&listener.name),
    }
}

fn build_rule(
    route: &RouteConfig,
    indices: &HashMap<&str, ClusterIndex>,
    registry: &mut Registry,
) -> Rule<RouteTarget> {
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
        metrics: route.named.then(|| registry.route(&route.name)),
        action: target.map(|name| index_of(&name, indices)),
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

fn index_of(name: &str, indices: &HashMap<&str, ClusterIndex>) -> ClusterIndex {
    let index = indices.get(name).copied();
    index.expect("the loader has checked that every cluster that is named exists")
}

fn build_or_share(
    config: &ClusterConfig,
    registry: &mut Registry,
    names: &HashMap<BackendAddress, Arc<[SocketAddr]>>,
    previous: Option<&Previous<'_>>,
) -> Arc<Cluster> {
    let places = places(config, registry, names);
    if let Some(cluster) = previous.and_then(|previous| previous.unchanged(config, &places)) {
        return Arc::clone(cluster);
    }
    let (state, metrics) = registry.cluster(&config.name);
    let mut endpoints = Vec::with_capacity(places.len());
    let mut members = Vec::with_capacity(places.len());
    for (backend_config, place) in places {
        let joins = previous.is_some() && joins(config, backend_config, &place, registry);
        let (backend, metrics) = registry.backend(&config.name, &place);
        let address = place.at;
        backend.set_departed(false);
        if joins {
            backend.set_health(Health::CHECK_DOWN | Health::JOINING);
            backend.set_note("joined the peer set, not checked yet");
        }
        if address.is_none() {
            backend.set_health(Health::UNRESOLVED);
        } else {
            backend.clear_health(Health::UNRESOLVED);
        }
        let (weight, backup) = (backend_config.weight, backend_config.backup);
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

/// Whether a backend comes in through its check: the peer set added it just now, or has brought it back.
fn joins(
    cluster: &ClusterConfig,
    backend: &BackendConfig,
    place: &Place,
    registry: &Registry,
) -> bool {
    cluster.settings.check.is_some()
        && backend.origin == Origin::Gossip
        && registry
            .known_backend(&cluster.name, place)
            .is_none_or(|known| known.has_departed())
}

/// The clusters of the previous generation by name, as they were configured and as they were built.
struct Previous<'a>(HashMap<&'a str, (&'a ClusterConfig, &'a Arc<Cluster>)>);

impl<'a> Previous<'a> {
    /// `snapshot` was built of `config`, so their clusters are in the same order.
    fn new(config: &'a Config, snapshot: &'a Snapshot) -> Self {
        let clusters = config.clusters.iter().zip(&snapshot.clusters);
        Self(
            clusters
                .map(|(config, cluster)| (config.name.as_str(), (config, cluster)))
                .collect(),
        )
    }

    /// The previous cluster, if neither its configuration nor its addresses have changed.
    fn unchanged(
        &self,
        config: &ClusterConfig,
        places: &[(&BackendConfig, Place)],
    ) -> Option<&'a Arc<Cluster>> {
        let (known, cluster) = *self.0.get(config.name.as_str())?;
        let is_at = |(endpoint, (_, place)): (&Endpoint, &(_, Place))| {
            *endpoint.backend.address() == place.written && endpoint.address == place.at
        };
        let same = known == config
            && cluster.endpoints.len() == places.len()
            && cluster.endpoints.iter().zip(places).all(is_at);
        same.then_some(cluster)
    }
}

/// Where the backends of a cluster are, in the order of the file: each address of a name is one, in the order of the
/// addresses, and a name without any is one that is not resolved.
fn places<'c>(
    config: &'c ClusterConfig,
    registry: &mut Registry,
    names: &HashMap<BackendAddress, Arc<[SocketAddr]>>,
) -> Vec<(&'c BackendConfig, Place)> {
    let mut places = Vec::with_capacity(config.backends.len());
    for backend in &config.backends {
        let name = &backend.address;
        let (found, one): (Vec<SocketAddress>, bool) = match name {
            BackendAddress::Ip(address) => (vec![(*address).into()], false),
            BackendAddress::Unix(address) => (vec![SocketAddress::Unix(address.clone())], false),
            BackendAddress::Name { .. } => {
                let addresses = names.get(name).map_or(&[][..], |found| found);
                if config.settings.resolve.one {
                    let chosen = registry.chosen(&config.name, name, addresses);
                    (chosen.into_iter().map(SocketAddress::Ip).collect(), true)
                } else {
                    let addresses = addresses.iter().copied();
                    (addresses.map(SocketAddress::Ip).collect(), false)
                }
            }
        };
        let place = |at| Place {
            written: name.clone(),
            at,
            one,
        };
        if found.is_empty() {
            places.push((backend, place(None)));
        }
        places.extend(found.into_iter().map(|at| (backend, place(Some(at)))));
    }
    places
}
