//! The layers that make up the configuration in force: the file at the bottom, and above it what is added while the
//! proxy runs.
//!
//! Every entry has the [`Origin`] of the layer that it comes from. Where two layers name the same address in a cluster,
//! the lower layer wins. What the proxy builds, resolves, drains and forgets is always the result of all layers
//! ([`Layers::backends`]); a further layer is a field of [`Layers`] and a variant of [`Origin`].

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use super::schema::{BackendConfig, ClusterConfig, Config};
use crate::model::address::BackendAddress;

/// The layer that an entry comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The configuration files.
    File,
    /// The gossip peer set.
    Gossip,
}

/// Backends that a layer adds to clusters of the file, by the name of the cluster.
pub(crate) type AddedBackends = HashMap<String, Vec<BackendConfig>>;

/// All layers, the lowest first.
#[derive(Debug, Clone)]
pub(crate) struct Layers {
    /// The configuration files.
    pub file: Arc<Config>,
    /// Backends that members of the gossip peer set announce; all of them are addresses, none is a name.
    pub gossip: AddedBackends,
}

impl Layers {
    /// A configuration to which nothing is added.
    pub(crate) fn of_file(file: Arc<Config>) -> Self {
        Self {
            file,
            gossip: AddedBackends::new(),
        }
    }

    /// The backends of a cluster of the file with their origins: those of the file in its order, then those of the peer
    /// set whose addresses the file does not name.
    pub(crate) fn backends<'a>(
        &'a self,
        cluster: &'a ClusterConfig,
    ) -> impl Iterator<Item = (&'a BackendConfig, Origin)> {
        let added = self.gossip.get(&cluster.name);
        let named = added.map(|_| named_addresses(cluster));
        let found = added.into_iter().flatten().filter(move |backend| {
            ip_of(backend).is_none_or(|ip| named.as_ref().is_none_or(|named| !named.contains(&ip)))
        });
        let of_file = cluster.backends.iter();
        of_file
            .map(|backend| (backend, Origin::File))
            .chain(found.map(|backend| (backend, Origin::Gossip)))
    }
}

/// The addresses that a cluster of the file names, without its host names and Unix sockets.
pub(crate) fn named_addresses(cluster: &ClusterConfig) -> HashSet<SocketAddr> {
    cluster.backends.iter().filter_map(ip_of).collect()
}

fn ip_of(backend: &BackendConfig) -> Option<SocketAddr> {
    match backend.address {
        BackendAddress::Ip(address) => Some(address),
        BackendAddress::Name { .. } | BackendAddress::Unix(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::load;

    #[test]
    fn the_file_wins_and_every_entry_has_its_origin() {
        let text = "[[listener]]\naddress = ':1'\ncluster = 'web'\n\
                    [cluster.web]\nbackends = ['10.0.0.1:80', 'a:80']\n[cluster.api]\nbackends = ['10.0.0.2:80']\n";
        let file = load(text).config.unwrap();
        let mut layers = Layers::of_file(Arc::new(file));
        let added = ["10.0.0.2:80", "10.0.0.1:80"].map(|address| BackendConfig {
            address: address.parse().unwrap(),
            weight: 5,
            backup: false,
        });
        layers.gossip.insert("web".to_owned(), added.into());
        let shown = |cluster: usize| -> Vec<(String, u32, Origin)> {
            let backends = layers.backends(&layers.file.clusters[cluster]);
            backends
                .map(|(backend, origin)| (backend.address.to_string(), backend.weight, origin))
                .collect()
        };
        let expected = [
            ("10.0.0.1:80".to_owned(), 1, Origin::File),
            ("a:80".to_owned(), 1, Origin::File),
            ("10.0.0.2:80".to_owned(), 5, Origin::Gossip),
        ];
        assert_eq!(shown(0), expected);
        assert_eq!(shown(1), [("10.0.0.2:80".to_owned(), 1, Origin::File)]);
    }
}
