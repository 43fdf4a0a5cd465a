//! What the readers make of a configuration before its parts are compared with each other.

use super::schema::Config;
use super::span::TextSpan;

/// The configuration, and for each of its lists the places in the text, in the same order.
#[derive(Debug)]
pub(super) struct Draft {
    /// With defaults in place of wrong values.
    pub config: Config,
    /// Where `admin.address` is.
    pub admin: Option<TextSpan>,
    /// Where the parts of `[gossip]` are, even if it could not be read.
    pub gossip: Option<GossipSpans>,
    /// Where the parts of each listener are.
    pub listeners: Vec<ListenerSpans>,
    /// Where the parts of each route are.
    pub routes: Vec<RouteSpans>,
    /// Where the parts of each cluster are.
    pub clusters: Vec<ClusterSpans>,
    /// Which lists were read without an error, so that what they lack is known to be missing.
    pub complete: Complete,
}

/// Which lists have no entry with an error.
#[derive(Debug, Clone, Copy)]
pub(super) struct Complete {
    pub listeners: bool,
    pub routes: bool,
    pub clusters: bool,
}

/// Where the parts of `[gossip]` are.
#[derive(Debug)]
pub(super) struct GossipSpans {
    /// The whole section.
    pub header: TextSpan,
    /// `address`, if it could be read.
    pub address: Option<TextSpan>,
    /// `allow_cidrs`.
    pub allow_cidrs: Option<TextSpan>,
    /// Whether the section was read without an error.
    pub whole: bool,
}

/// Where the parts of a listener are.
#[derive(Debug, Clone)]
pub(super) struct ListenerSpans {
    /// The whole table.
    pub header: TextSpan,
    /// `name`, or else `address`.
    pub name: TextSpan,
    /// Whether the name could be read.
    pub named: bool,
    /// `address`, or the entry of it.
    pub address: TextSpan,
    /// Whether this is the previous listener at another address.
    pub sibling: bool,
    /// `cluster`.
    pub cluster: Option<TextSpan>,
}

/// Where the parts of a route are.
#[derive(Debug)]
pub(super) struct RouteSpans {
    /// The whole table.
    pub header: TextSpan,
    /// Each entry of `listeners`.
    pub listeners: Vec<TextSpan>,
    /// `cluster`.
    pub cluster: Option<TextSpan>,
    /// Whether the route was read without an error.
    pub whole: bool,
}

/// Where the parts of a cluster are.
#[derive(Debug)]
pub(super) struct ClusterSpans {
    /// The name.
    pub name: TextSpan,
    /// `backends`.
    pub backends: Option<TextSpan>,
    /// `discover`.
    pub discover: Option<TextSpan>,
    /// Keys that have an effect on requests only.
    pub for_requests: Vec<(String, TextSpan)>,
    /// Whether the cluster was read without an error.
    pub whole: bool,
}
