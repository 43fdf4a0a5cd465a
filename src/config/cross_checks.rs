//! Errors between the parts of a file: names that nobody has, names and addresses that two have.

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

/// Names that are shown as what was expected.
const MAX_NAMES: usize = 8;

/// Whether all names that are used exist.
#[derive(Debug, Clone, Copy)]
pub(super) struct AllKnown(pub bool);

/// Reports every contradiction between parts of `draft`.
pub(super) fn check(r: &mut Reader<'_>, draft: &Draft) -> AllKnown {
    listener_names(r, draft);
    addresses(r, draft);
    route_listeners(r, draft);
    discovery(r, draft);
    circles(r, draft);
    AllKnown(clusters(r, draft))
}

fn listener_names(r: &mut Reader<'_>, draft: &Draft) {
    let mut known: HashMap<&str, &TextSpan> = HashMap::new();
    for (listener, places) in draft.config.listeners.iter().zip(&draft.listeners) {
        if !places.named || places.sibling {
            continue;
        }
        let Some(first) = known.get(listener.name.as_str()) else {
            known.insert(&listener.name, &places.name);
            continue;
        };
        // Two listeners on one address have one name too, but that is not what is wrong with them.
        if places.name != places.address || listener.address.is_any_port() {
            let message = format!("two listeners are called {}", quoted(&listener.name));
            r.findings.add(
                Finding::error(places.name.clone(), message)
                    .label("expected another `name`; by default it is the address")
                    .related(first, "the first is"),
            );
        }
    }
}

/// Who holds a port, by address: those that are bound to all addresses collide with each of their family.
#[derive(Default)]
struct Port<'d> {
    exact: HashMap<IpAddr, &'d TextSpan>,
    /// Bound to all addresses of the family (v4, v6).
    all: [Option<&'d TextSpan>; 2],
    /// Bound to any address of the family.
    any: [Option<&'d TextSpan>; 2],
}

impl<'d> Port<'d> {
    /// Takes the address; the place of one that holds it already, if there is one.
    fn claim(&mut self, ip: Option<IpAddr>, place: &'d TextSpan) -> Option<&'d TextSpan> {
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
            self.any[family].get_or_insert(place);
            if all {
                self.all[family].get_or_insert(place);
            }
        }
        if let Some(ip) = ip {
            self.exact.insert(ip, place);
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
        .map(|(listener, places)| (listener.address.clone(), &places.address, "a listener"))
        .collect();
    if let (Some(address), Some(place)) = (&draft.config.admin, &draft.admin) {
        claims.push((address.clone(), place, "the admin server"));
    }
    let gossip = draft.gossip.as_ref();
    let place = gossip.and_then(|places| places.address.as_ref());
    if let (Some(gossip), Some(place)) = (&draft.config.gossip, place) {
        claims.push((BindAddress::Tcp(gossip.address.into()), place, "[gossip]"));
    }
    claims.sort_by_key(|(_, place, _)| place.start);
    let mut ports: HashMap<u16, Port<'_>> = HashMap::new();
    let mut paths: HashMap<&UnixAddress, &TextSpan> = HashMap::new();
    for (address, place, _) in claims.iter().filter(|claim| !claim.0.is_any_port()) {
        let taken = match address {
            BindAddress::Tcp(tcp) => ports.entry(tcp.port()).or_default().claim(tcp.ip(), place),
            BindAddress::Unix(path) => match paths.entry(path) {
                Entry::Occupied(first) => Some(*first.get()),
                Entry::Vacant(free) => {
                    free.insert(place);
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
                .binary_search_by_key(&first.start, |(_, place, _)| place.start)
                .map_or("it", |at| claims[at].2);
            r.findings.add(
                Finding::error((*place).clone(), message)
                    .label(expected)
                    .related(first, format!("{holder} has it")),
            );
        }
    }
}

/// Sessions that Unix sockets lead round in a circle. The proxy resets each of them; that they come back is sure from
/// the file, as long as a path has one spelling.
fn circles(r: &mut Reader<'_>, draft: &Draft) {
    let listeners = &draft.config.listeners;
    let mut at: HashMap<&UnixAddress, usize> = HashMap::new();
    for (place, listener) in listeners.iter().enumerate() {
        if let (BindAddress::Unix(path), Protocol::Tcp) = (&listener.address, listener.protocol) {
            at.insert(path, place);
        }
    }
    let clusters = draft.config.clusters.iter().zip(&draft.clusters);
    let clusters: HashMap<&str, _> = clusters.map(|both| (both.0.name.as_str(), both)).collect();
    let cluster_of = |place: usize| clusters.get(listeners[place].cluster.as_deref()?);
    let next_of = |place: usize| {
        let backends = cluster_of(place).into_iter().flat_map(|(c, _)| &c.backends);
        backends.filter_map(|backend| match &backend.address {
            BackendAddress::Unix(path) => at.get(path).copied(),
            _ => None,
        })
    };
    for (start, listener) in listeners.iter().enumerate() {
        let mut reached: Vec<usize> = next_of(start).collect();
        let mut looked = 0;
        while let Some(&place) = reached.get(looked) {
            looked += 1;
            let new: Vec<_> = next_of(place)
                .filter(|next| !reached.contains(next))
                .collect();
            reached.extend(new);
        }
        let Some((cluster, places)) = cluster_of(start).filter(|_| reached.contains(&start)) else {
            continue;
        };
        let message = format!(
            "the sessions of listener {} come back to it",
            quoted(&listener.name)
        );
        let label = format!(
            "expected that cluster {} leads to services",
            quoted(&cluster.name)
        );
        r.findings.add(
            Finding::error(
                places.backends.clone().unwrap_or(places.name.clone()),
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
    for (cluster, places) in draft.config.clusters.iter().zip(&draft.clusters) {
        if let (Some(_), Some(place)) = (&cluster.discover, &places.discover) {
            let message = format!(
                "cluster {} discovers backends without a peer set",
                quoted(&cluster.name)
            );
            r.findings.add(
                Finding::error(place.clone(), message)
                    .label("expected a [gossip] section")
                    .help("write [gossip], with an `address`".to_owned()),
            );
        }
    }
}

fn route_listeners(r: &mut Reader<'_>, draft: &Draft) {
    if !draft.listeners.iter().all(|places| places.named) {
        return;
    }
    let listeners = &draft.config.listeners;
    let known: HashMap<&str, Protocol> = listeners
        .iter()
        .map(|listener| (listener.name.as_str(), listener.protocol))
        .collect();
    for (route, places) in draft.config.routes.iter().zip(&draft.routes) {
        let names = route.listeners.iter().flatten();
        for (name, place) in names.zip(&places.listeners) {
            match known.get(name.as_str()) {
                Some(Protocol::Http) => {}
                Some(Protocol::Tcp) => r.findings.add(
                    Finding::error(
                        place.clone(),
                        format!("listener {} speaks tcp", quoted(name)),
                    )
                    .label("expected a listener with protocol \"http\"; routes are for requests"),
                ),
                None => {
                    let names = listeners.iter().map(|listener| listener.name.as_str());
                    unknown_name(r, place, "listener", name, names);
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
        .filter_map(|(listener, places)| listener.cluster.as_deref().zip(places.cluster.as_ref()));
    let of_routes = draft.config.routes.iter().zip(&draft.routes);
    let of_routes = of_routes.filter_map(|(route, places)| {
        let name = route.rule.target.cluster()?.as_str();
        Some(name).zip(places.cluster.as_ref())
    });
    let mut all_known = true;
    for (name, place) in of_listeners.chain(of_routes) {
        if !known.contains(name) {
            all_known = false;
            unknown_name(r, place, "cluster", name, names());
        }
    }
    all_known
}

fn unknown_name<'d>(
    r: &mut Reader<'_>,
    place: &TextSpan,
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
            place.clone(),
            format!("no {what} is called {}", quoted(name)),
        )
        .label(label)
        .help(near.map(|near| format!("did you mean {}?", quoted(near)))),
    );
}
