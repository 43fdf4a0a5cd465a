//! What is legal but surely a mistake, as far as it takes the whole file to see: clusters that nothing uses or that
//! have nobody to send to, listeners and routes that nothing reaches, a peer set that fills no cluster. What one value
//! tells alone is warned of by its reader. Nothing is said of parts with errors, so that no warning is a mere
//! consequence of one.

use std::collections::HashSet;

use super::cross_checks::AllKnown;
use super::diagnostics::findings::{Finding, quoted};
use super::draft::Draft;
use super::reader::Reader;
use super::schema::Config;
use super::shadowed_routes;
use crate::model::address::{BackendAddress, BindAddress};
use crate::model::settings::Protocol;

/// Adds a warning for each.
pub(super) fn check(r: &mut Reader<'_>, draft: &Draft, AllKnown(all_known): AllKnown) {
    if all_known && draft.complete.listeners && draft.complete.routes {
        unused_clusters(r, draft);
        tcp_clusters(r, draft);
    }
    empty_clusters(r, draft);
    own_listeners(r, draft);
    idle_gossip(r, draft);
    if draft.complete.listeners && draft.complete.routes {
        idle_listeners(r, draft);
        unreachable_routes(r, draft);
    }
    for (route, first) in shadowed_routes::shadowed(draft) {
        r.findings.add(
            Finding::warning(
                draft.routes[route].header.clone(),
                "a route that is never taken",
            )
            .label("an earlier route takes every request that this one matches")
            .related(&draft.routes[first].header, "the earlier route is"),
        );
    }
}

fn unused_clusters(r: &mut Reader<'_>, draft: &Draft) {
    let Config {
        listeners, routes, ..
    } = &draft.config;
    let of_routes = routes
        .iter()
        .filter_map(|route| route.rule.target.cluster());
    let of_listeners = listeners
        .iter()
        .filter_map(|listener| listener.cluster.as_deref());
    let used: HashSet<&str> = of_routes.map(String::as_str).chain(of_listeners).collect();
    for (cluster, places) in draft.config.clusters.iter().zip(&draft.clusters) {
        if !used.contains(cluster.name.as_str()) {
            let message = format!("nothing uses cluster {}", quoted(&cluster.name));
            r.findings.add(
                Finding::warning(places.name.clone(), message)
                    .label("expected a listener or a route with this `cluster`"),
            );
        }
    }
}

/// Keys for requests in clusters to which only tcp listeners send.
fn tcp_clusters(r: &mut Reader<'_>, draft: &Draft) {
    let Config {
        listeners, routes, ..
    } = &draft.config;
    let of = |protocol| {
        let those = listeners.iter().filter(move |l| l.protocol == protocol);
        those.filter_map(|listener| listener.cluster.as_deref())
    };
    let of_routes = routes
        .iter()
        .filter_map(|route| route.rule.target.cluster());
    let http: HashSet<&str> = of(Protocol::Http)
        .chain(of_routes.map(String::as_str))
        .collect();
    let tcp: HashSet<&str> = of(Protocol::Tcp).collect();
    for (cluster, places) in draft.config.clusters.iter().zip(&draft.clusters) {
        let name = cluster.name.as_str();
        if tcp.contains(name) && !http.contains(name) {
            for (key, place) in &places.http_only {
                r.warn_of_no_effect(key, place, "a cluster of tcp listeners");
            }
        }
    }
}

/// Backends that are a listener of the same file: what is sent there comes back.
fn own_listeners(r: &mut Reader<'_>, draft: &Draft) {
    for (cluster, places) in draft.config.clusters.iter().zip(&draft.clusters) {
        for backend in &cluster.backends {
            let mut listeners = draft.config.listeners.iter().zip(&draft.listeners);
            let own = listeners.find(|(listener, _)| leads_to(&backend.address, &listener.address));
            let Some((listener, own)) = own else { continue };
            let place = places.backends.clone().unwrap_or(places.name.clone());
            let label = match listener.protocol {
                Protocol::Http => {
                    "expected a service: a request that comes back is answered with 508"
                }
                Protocol::Tcp => {
                    "expected a service: a session that comes back is reset after some rounds"
                }
            };
            let message = format!(
                "backend {} of cluster {} is listener {} of this file",
                quoted(&backend.address.to_string()),
                quoted(&cluster.name),
                quoted(&listener.name)
            );
            r.findings.add(
                Finding::warning(place, message)
                    .label(label)
                    .related(&own.address, "the listener is"),
            );
        }
    }
}

/// Whether a backend is surely that listener. What other addresses the machine has is not known here.
fn leads_to(backend: &BackendAddress, listener: &BindAddress) -> bool {
    let listener = match (backend, listener) {
        (BackendAddress::Unix(backend), BindAddress::Unix(listener)) => return backend == listener,
        (_, BindAddress::Unix(_)) => return false,
        (_, BindAddress::Tcp(listener)) => listener,
    };
    let any = listener.ip().is_none_or(|ip| ip.is_unspecified());
    match backend {
        BackendAddress::Ip(address) => {
            let same = listener.ip() == Some(address.ip()) || any && address.ip().is_loopback();
            same && address.port() == listener.port()
        }
        BackendAddress::Name { host, port } => {
            let loopback = listener.ip().is_some_and(|ip| ip.is_loopback());
            host.eq_ignore_ascii_case("localhost") && (any || loopback) && *port == listener.port()
        }
        BackendAddress::Unix(_) => false,
    }
}

fn empty_clusters(r: &mut Reader<'_>, draft: &Draft) {
    for (cluster, places) in draft.config.clusters.iter().zip(&draft.clusters) {
        // What a cluster discovers, nobody knows yet.
        if !places.whole || cluster.discover.is_some() {
            continue;
        }
        let backends = &cluster.backends;
        let (what, label) = if backends.is_empty() {
            ("has no backend", "every request to it is answered with 503")
        } else if backends.iter().all(|backend| backend.weight == 0) {
            (
                "has only backends of weight 0",
                "weight 0 takes nothing new",
            )
        } else if backends.iter().all(|backend| backend.backup) {
            (
                "has only backup backends",
                "expected at least one that is no backup",
            )
        } else {
            continue;
        };
        let place = places.backends.clone().unwrap_or(places.name.clone());
        let message = format!("cluster {} {what}", quoted(&cluster.name));
        r.findings
            .add(Finding::warning(place, message).label(label));
    }
}

/// A peer set that no cluster listens to, or whose members may announce nothing.
fn idle_gossip(r: &mut Reader<'_>, draft: &Draft) {
    let (Some(gossip), Some(places)) = (&draft.config.gossip, &draft.gossip) else {
        return;
    };
    let discovers = draft
        .clusters
        .iter()
        .any(|places| places.discover.is_some());
    if !discovers && draft.complete.clusters {
        r.warning(
            places.header.clone(),
            "no cluster discovers backends in [gossip]",
            "expected a cluster with discover = { gossip = \"…\" }",
        );
    }
    if discovers && places.whole && gossip.allow_cidrs.is_empty() {
        let place = places.allow_cidrs.as_ref().unwrap_or(&places.header);
        r.findings.add(
            Finding::warning(place.clone(), "no announced backend will be accepted")
                .label("expected `allow_cidrs` with the networks where backends may live")
                .help(
                    "write allow_cidrs = [\"10.0.0.0/8\"]; loopback only when it is listed"
                        .to_owned(),
                ),
        );
    }
}

/// A listener that can only refuse.
fn idle_listeners(r: &mut Reader<'_>, draft: &Draft) {
    let routes = &draft.config.routes;
    let all_reached = routes.iter().any(|route| route.listeners.is_none());
    let reached: HashSet<&str> = routes
        .iter()
        .flat_map(|route| route.listeners.iter().flatten())
        .map(String::as_str)
        .collect();
    for (listener, places) in draft.config.listeners.iter().zip(&draft.listeners) {
        let (fate, label) = match listener.protocol {
            _ if places.sibling => continue,
            _ if listener.cluster.is_some() || listener.answer.is_some() => continue,
            Protocol::Http if all_reached || reached.contains(listener.name.as_str()) => continue,
            Protocol::Http => (
                "answers every request with 404",
                "expected a `cluster`, or a route for it",
            ),
            Protocol::Tcp => ("closes every connection", "expected a `cluster`"),
        };
        let message = format!("listener {} {fate}", quoted(&listener.name));
        r.findings
            .add(Finding::warning(places.header.clone(), message).label(label));
    }
}

/// Routes without any http listener; the first is enough.
fn unreachable_routes(r: &mut Reader<'_>, draft: &Draft) {
    let has_http = draft
        .config
        .listeners
        .iter()
        .any(|listener| listener.protocol == Protocol::Http);
    if let (false, Some(places)) = (has_http, draft.routes.first()) {
        r.findings.add(
            Finding::warning(places.header.clone(), "routes without an http listener")
                .label("expected a [[listener]] with protocol \"http\""),
        );
    }
}
