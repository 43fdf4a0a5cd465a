//! Contradictions between the parts of a file: names that do not exist, names and addresses that are used twice.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::IpAddr;

use super::diagnostics::findings::{Finding, quoted};
use super::diagnostics::suggest::one_of;
use super::draft::Draft;
use super::reader::Reader;
use super::span::TextSpan;
use crate::model::address::{BackendAddress, BindAddress, UnixAddress};
use crate::model::settings::Protocol;

/// Known names that a message lists.
const MAX_NAMES: usize = 8;

/// Whether every cluster that is named exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct AllKnown(pub bool);

/// Reports every contradiction between the parts of `draft`.
pub(super) fn check(r: &mut Reader<'_>, draft: &Draft) -> AllKnown {
    listener_names(r, draft);
    addresses(r, draft);
    route_listeners(r, draft);
    discovery(r, draft);
    socket_circles(r, draft);
    AllKnown(clusters(r, draft))
}

fn listener_names(r: &mut Reader<'_>, draft: &Draft) {
    let mut known: HashMap<&str, &TextSpan> = HashMap::new();
    for (listener, spans) in draft.config.listeners.iter().zip(&draft.listeners) {
        if !spans.named || spans.sibling {
            continue;
        }
        let Some(first) = known.get(listener.name.as_str()) else {
            known.insert(&listener.name, &spans.name);
            continue;
        };
        // Two listeners at one address have one name too, but the name is not what is wrong with them.
        if spans.name != spans.address || listener.address.is_any_port() {
            let message = format!("two listeners are called {}", quoted(&listener.name));
            r.findings.add(
                Finding::error(spans.name.clone(), message)
                    .label("expected another `name`; by default it is the address")
                    .related(first, "the first is"),
            );
        }
    }
}

/// The uses of a port by address. One that is bound to all addresses collides with every other of its family.
#[derive(Default)]
struct Port<'d> {
    exact: HashMap<IpAddr, &'d TextSpan>,
    /// Bound to all addresses of the family (v4, v6).
    all: [Option<&'d TextSpan>; 2],
    /// Bound to any address of the family.
    any: [Option<&'d TextSpan>; 2],
}

impl<'d> Port<'d> {
    /// Claims the address. Returns the place of an address that collides with it, if there is one.
    fn claim(&mut self, ip: Option<IpAddr>, span: &'d TextSpan) -> Option<&'d TextSpan> {
        let ip = ip.map(|ip| ip.to_canonical());
        let (families, all): (&[usize], bool) = match ip {
            None => (&[0, 1], true),
            Some(IpAddr::V4(ip)) => (&[0], ip.is_unspecified()),
            Some(IpAddr::V6(ip)) => (&[1], ip.is_unspecified()),
        };
        let taken = families.iter().find_map(|family| match all {
            true => self.any[*family],
            false => self.all[*family],
        });
        let taken = taken.or_else(|| ip.and_then(|ip| self.exact.get(&ip).copied()));
        if taken.is_some() {
            return taken;
        }
        for &family in families {
            self.any[family].get_or_insert(span);
            if all {
                self.all[family].get_or_insert(span);
            }
        }
        if let Some(ip) = ip {
            self.exact.insert(ip, span);
        }
        None
    }
}

fn addresses(r: &mut Reader<'_>, draft: &Draft) {
    let mut claims: Vec<(BindAddress, &TextSpan, &str)> = draft
        .config
        .listeners
        .iter()
        .zip(&draft.listeners)
        .map(|(listener, spans)| (listener.address.clone(), &spans.address, "a listener"))
        .collect();
    if let (Some(address), Some(span)) = (&draft.config.admin, &draft.admin) {
        claims.push((address.clone(), span, "the admin server"));
    }
    let gossip = draft.gossip.as_ref();
    let span = gossip.and_then(|spans| spans.address.as_ref());
    if let (Some(gossip), Some(span)) = (&draft.config.gossip, span) {
        claims.push((
            BindAddress::Tcp(gossip.peer_set.address.into()),
            span,
            "[gossip]",
        ));
    }
    claims.sort_by_key(|(_, span, _)| span.start);
    let mut ports: HashMap<u16, Port<'_>> = HashMap::new();
    let mut paths: HashMap<&UnixAddress, &TextSpan> = HashMap::new();
    for (address, span, _) in claims.iter().filter(|claim| !claim.0.is_any_port()) {
        let taken = match address {
            BindAddress::Tcp(tcp) => ports.entry(tcp.port()).or_default().claim(tcp.ip(), span),
            BindAddress::Unix(path) => match paths.entry(path) {
                Entry::Occupied(first) => Some(*first.get()),
                Entry::Vacant(free) => {
                    free.insert(span);
                    None
                }
            },
        };
        if let Some(first) = taken {
            let message = format!("\"{address}\" is already in use");
            let expected = match address {
                BindAddress::Tcp(_) => "expected an address and port of its own",
                BindAddress::Unix(_) => "expected a path of its own",
            };
            let holder = claims
                .binary_search_by_key(&first.start, |(_, span, _)| span.start)
                .map_or("it", |at| claims[at].2);
            r.findings.add(
                Finding::error((*span).clone(), message)
                    .label(expected)
                    .related(first, format!("{holder} has it")),
            );
        }
    }
}

/// Reports sessions that Unix sockets lead back to their own listener. The proxy would reset each of them. The file
/// alone shows it, as long as a path has one spelling.
fn socket_circles(r: &mut Reader<'_>, draft: &Draft) {
    let listeners = &draft.config.listeners;
    let mut at: HashMap<&UnixAddress, usize> = HashMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        if let (BindAddress::Unix(path), Protocol::Tcp) = (&listener.address, listener.protocol) {
            at.insert(path, index);
        }
    }
    let clusters = draft.config.clusters.iter().zip(&draft.clusters);
    let clusters: HashMap<&str, _> = clusters.map(|both| (both.0.name.as_str(), both)).collect();
    let cluster_of = |index: usize| clusters.get(listeners[index].cluster.as_deref()?);
    let next_of = |index: usize| {
        let backends = cluster_of(index).into_iter().flat_map(|(c, _)| &c.backends);
        backends.filter_map(|backend| match &backend.address {
            BackendAddress::Unix(path) => at.get(path).copied(),
            _ => None,
        })
    };
    for (start, listener) in listeners.iter().enumerate() {
        let mut reached: Vec<usize> = next_of(start).collect();
        let mut looked = 0;
        while let Some(&index) = reached.get(looked) {
            looked += 1;
            let new: Vec<_> = next_of(index)
                .filter(|next| !reached.contains(next))
                .collect();
            reached.extend(new);
        }
        let Some((cluster, spans)) = cluster_of(start).filter(|_| reached.contains(&start)) else {
            continue;
        };
        let message = format!(
            "the sessions of listener {} come back to it",
            quoted(&listener.name)
        );
        let label = format!(
            "expected services as backends of cluster {}",
            quoted(&cluster.name)
        );
        r.findings.add(
            Finding::error(
                spans.backends.clone().unwrap_or(spans.name.clone()),
                message,
            )
            .label(label)
            .related(&draft.listeners[start].address, "the listener is"),
        );
    }
}

fn discovery(r: &mut Reader<'_>, draft: &Draft) {
    if draft.gossip.is_some() {
        return;
    }
    for (cluster, spans) in draft.config.clusters.iter().zip(&draft.clusters) {
        if let (Some(_), Some(span)) = (&cluster.discover, &spans.discover) {
            let message = format!(
                "cluster {} discovers backends without a peer set",
                quoted(&cluster.name)
            );
            r.findings.add(
                Finding::error(span.clone(), message)
                    .label("expected a [gossip] section")
                    .help("write [gossip], with an `address`".to_owned()),
            );
        }
    }
}

fn route_listeners(r: &mut Reader<'_>, draft: &Draft) {
    if !draft.listeners.iter().all(|spans| spans.named) {
        return;
    }
    let listeners = &draft.config.listeners;
    let known: HashMap<&str, Protocol> = listeners
        .iter()
        .map(|listener| (listener.name.as_str(), listener.protocol))
        .collect();
    for (route, spans) in draft.config.routes.iter().zip(&draft.routes) {
        let names = route.listeners.iter().flatten();
        for (name, span) in names.zip(&spans.listeners) {
            match known.get(name.as_str()) {
                Some(Protocol::Http) => {}
                Some(Protocol::Tcp) => r.findings.add(
                    Finding::error(
                        span.clone(),
                        format!("listener {} has protocol tcp", quoted(name)),
                    )
                    .label("expected a listener with protocol \"http\"; routes are for requests"),
                ),
                None => {
                    let names = listeners.iter().map(|listener| listener.name.as_str());
                    unknown_name(r, span, "listener", name, names);
                }
            }
        }
    }
}

/// Whether every cluster that is named exists.
fn clusters(r: &mut Reader<'_>, draft: &Draft) -> bool {
    let names = || {
        draft
            .config
            .clusters
            .iter()
            .map(|cluster| cluster.name.as_str())
    };
    if draft.clusters.is_empty() && !draft.complete.clusters {
        return false;
    }
    let known: std::collections::HashSet<&str> = names().collect();
    let of_listeners = draft.config.listeners.iter().zip(&draft.listeners);
    let of_listeners = of_listeners
        .filter_map(|(listener, spans)| listener.cluster.as_deref().zip(spans.cluster.as_ref()));
    let of_routes = draft.config.routes.iter().zip(&draft.routes);
    let of_routes = of_routes.filter_map(|(route, spans)| {
        let name = route.rule.target.cluster()?.as_str();
        Some(name).zip(spans.cluster.as_ref())
    });
    let mut all_known = true;
    for (name, span) in of_listeners.chain(of_routes) {
        if !known.contains(name) {
            all_known = false;
            unknown_name(r, span, "cluster", name, names());
        }
    }
    all_known
}

fn unknown_name<'d>(
    r: &mut Reader<'_>,
    span: &TextSpan,
    what: &str,
    name: &str,
    known: impl Iterator<Item = &'d str> + Clone,
) {
    let near = r.suggester.nearest(name, known.clone());
    let shown: Vec<&str> = known.clone().take(MAX_NAMES + 1).collect();
    let label = match shown.len() {
        0 => format!("the file has no {what}"),
        1..=MAX_NAMES => format!("expected {}", one_of(shown.iter().copied(), '"')),
        _ => format!("expected the name of one of the file's {what}s"),
    };
    r.findings.add(
        Finding::error(
            span.clone(),
            format!("no {what} is called {}", quoted(name)),
        )
        .label(label)
        .help(near.map(|near| format!("did you mean {}?", quoted(near)))),
    );
}
