//! What is legal but surely a mistake, where it takes the whole file to see it: clusters that nothing uses or that have
//! no backend to send to, listeners and routes that nothing reaches, a peer set that fills no cluster. A mistake that
//! one value shows alone is a warning of its reader. Parts with errors get no warning, since it might only follow from
//! the error.

use std::collections::HashSet;

use super::cross_checks::AllKnown;
use super::diagnostics::findings::{Finding, quoted};
use super::draft::Draft;
use super::reader::Reader;
use super::schema::Config;
use super::shadowed_routes;
use crate::model::address::{BackendAddress, BindAddress};
use crate::model::settings::Protocol;

/// Adds all warnings.
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
    for (cluster, spans) in draft.config.clusters.iter().zip(&draft.clusters) {
        if !used.contains(cluster.name.as_str()) {
            let message = format!("nothing uses cluster {}", quoted(&cluster.name));
            r.findings.add(
                Finding::warning(spans.name.clone(), message)
                    .label("expected a listener or a route with this `cluster`"),
            );
        }
    }
}

/// Keys that are for requests, in clusters to which only tcp listeners send.
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
    for (cluster, spans) in draft.config.clusters.iter().zip(&draft.clusters) {
        let name = cluster.name.as_str();
        if tcp.contains(name) && !http.contains(name) {
            for (key, span) in &spans.for_requests {
                r.warn_of_no_effect(key, span, "a cluster of tcp listeners");
            }
        }
    }
}

/// Backends that are a listener of the same file, so that what is sent to them comes back.
fn own_listeners(r: &mut Reader<'_>, draft: &Draft) {
    for (cluster, spans) in draft.config.clusters.iter().zip(&draft.clusters) {
        for backend in &cluster.backends {
            let mut listeners = draft.config.listeners.iter().zip(&draft.listeners);
            let own = listeners.find(|(listener, _)| leads_to(&backend.address, &listener.address));
            let Some((listener, own)) = own else { continue };
            let span = spans.backends.clone().unwrap_or(spans.name.clone());
            let label = match listener.protocol {
                Protocol::Http => {
                    "expected a service: a request that comes back is answered with 508"
                }
                Protocol::Tcp => {
                    "expected a service: a session that comes back is reset after a few rounds"
                }
            };
            let message = format!(
                "backend {} of cluster {} is listener {} of this file",
                quoted(&backend.address.to_string()),
                quoted(&cluster.name),
                quoted(&listener.name)
            );
            r.findings.add(
                Finding::warning(span, message)
                    .label(label)
                    .related(&own.address, "the listener is"),
            );
        }
    }
}

/// Whether a backend is certainly that listener. The other addresses of the machine are not known here.
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
    for (cluster, spans) in draft.config.clusters.iter().zip(&draft.clusters) {
        // What a cluster discovers is not known yet.
        if !spans.whole || cluster.discover.is_some() {
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
                "expected at least one backend that is not a backup",
            )
        } else {
            continue;
        };
        let span = spans.backends.clone().unwrap_or(spans.name.clone());
        let message = format!("cluster {} {what}", quoted(&cluster.name));
        r.findings.add(Finding::warning(span, message).label(label));
    }
}

/// A peer set that fills no cluster, or whose members may announce nothing.
fn idle_gossip(r: &mut Reader<'_>, draft: &Draft) {
    let (Some(gossip), Some(spans)) = (&draft.config.gossip, &draft.gossip) else {
        return;
    };
    let discovers = draft.clusters.iter().any(|spans| spans.discover.is_some());
    if !discovers && draft.complete.clusters {
        r.warning(
            spans.header.clone(),
            "no cluster discovers backends in [gossip]",
            "expected a cluster with discover = { gossip = \"…\" }",
        );
    }
    if discovers && spans.whole && gossip.allow_cidrs.is_empty() {
        let span = spans.allow_cidrs.as_ref().unwrap_or(&spans.header);
        r.findings.add(
            Finding::warning(span.clone(), "no announced backend will be accepted")
                .label("expected `allow_cidrs` with the networks where backends may live")
                .help(
                    "write allow_cidrs = [\"10.0.0.0/8\"]; loopback only when it is listed"
                        .to_owned(),
                ),
        );
    }
}

/// Listeners that refuse everything.
fn idle_listeners(r: &mut Reader<'_>, draft: &Draft) {
    let routes = &draft.config.routes;
    let all_reached = routes.iter().any(|route| route.listeners.is_none());
    let reached: HashSet<&str> = routes
        .iter()
        .flat_map(|route| route.listeners.iter().flatten())
        .map(String::as_str)
        .collect();
    for (listener, spans) in draft.config.listeners.iter().zip(&draft.listeners) {
        let (effect, label) = match listener.protocol {
            _ if spans.sibling => continue,
            _ if listener.cluster.is_some() || listener.answer.is_some() => continue,
            Protocol::Http if all_reached || reached.contains(listener.name.as_str()) => continue,
            Protocol::Http => (
                "answers every request with 404",
                "expected a `cluster`, or a route for it",
            ),
            Protocol::Tcp => ("closes every connection", "expected a `cluster`"),
        };
        let message = format!("listener {} {effect}", quoted(&listener.name));
        r.findings
            .add(Finding::warning(spans.header.clone(), message).label(label));
    }
}

/// Routes without any http listener. Only the first of them is reported.
fn unreachable_routes(r: &mut Reader<'_>, draft: &Draft) {
    let has_http = draft
        .config
        .listeners
        .iter()
        .any(|listener| listener.protocol == Protocol::Http);
    if let (false, Some(spans)) = (has_http, draft.routes.first()) {
        r.findings.add(
            Finding::warning(spans.header.clone(), "routes without an http listener")
                .label("expected a [[listener]] with protocol \"http\""),
        );
    }
}
