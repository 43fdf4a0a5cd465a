//! What the readers make of a file before its parts are held against each other.

use super::schema::Config;
use super::span::TextSpan;

/// The configuration, and beside each of its lists the places in the text, in the same order.
#[derive(Debug)]
pub(super) struct Draft {
    /// With defaults where a value was wrong.
    pub config: Config,
    /// Place of `admin.address`.
    pub admin: Option<TextSpan>,
    /// Of `[gossip]`, even if it could not be read.
    pub gossip: Option<GossipPlaces>,
    /// Of each listener.
    pub listeners: Vec<ListenerPlaces>,
    /// Of each route.
    pub routes: Vec<RoutePlaces>,
    /// Of each cluster.
    pub clusters: Vec<ClusterPlaces>,
    /// Whether every listener, route and cluster was read without an error, so that what is not there is
    /// known not to be there.
    pub complete: Complete,
}

/// Which lists have no entry with an error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Complete {
    pub listeners: bool,
    pub routes: bool,
    pub clusters: bool,
}

/// Places of the parts of `[gossip]`.
#[derive(Debug)]
pub(super) struct GossipPlaces {
    /// Its header.
    pub header: TextSpan,
    /// Its `address`, if that could be read.
    pub address: Option<TextSpan>,
    /// Its `allow_cidrs`.
    pub allow_cidrs: Option<TextSpan>,
    /// Whether it was read without an error.
    pub whole: bool,
}

/// Places of a listener's parts.
#[derive(Debug, Clone)]
pub(super) struct ListenerPlaces {
    /// Its header.
    pub header: TextSpan,
    /// Its `name`, or else its `address`.
    pub name: TextSpan,
    /// Whether its name could be read.
    pub named: bool,
    /// Its `address`; of several, one of them.
    pub address: TextSpan,
    /// Whether it is the listener before at another address.
    pub sibling: bool,
    /// Its `cluster`.
    pub cluster: Option<TextSpan>,
}

/// Places of a route's parts.
#[derive(Debug)]
pub(super) struct RoutePlaces {
    /// Its header.
    pub header: TextSpan,
    /// Each of its `listeners`.
    pub listeners: Vec<TextSpan>,
    /// Its `cluster`.
    pub cluster: Option<TextSpan>,
    /// Whether it was read without an error.
    pub whole: bool,
}

/// Places of a cluster's parts.
#[derive(Debug)]
pub(super) struct ClusterPlaces {
    /// Its name.
    pub name: TextSpan,
    /// Its `backends`.
    pub backends: Option<TextSpan>,
    /// Its `discover`.
    pub discover: Option<TextSpan>,
    /// Its keys that are for requests.
    pub http_only: Vec<(String, TextSpan)>,
    /// Whether it was read without an error.
    pub whole: bool,
}
