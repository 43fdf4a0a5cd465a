//! The configuration as plain typed values: the loader makes them of a valid file, the compiler makes snapshots of
//! them. There is a field for every key that works; names, ranges and defaults are those of the declarations in
//! `sections`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::address::{BackendAddress, BindAddress};
use crate::model::page::ErrorPages;
use crate::model::peer_set::PeerSetSettings;
use crate::model::route_action::RouteAction;
pub(crate) use crate::model::settings::{AccessLog, LogFormat, LogLevel};
use crate::model::settings::{
    Check, ClusterSettings, ListenerLimits, ListenerTimeouts, Protocol, TrustedProxies,
};
use crate::route::rule::Rule;

/// A whole configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data-plane threads; absent: one for each core.
    pub workers: Option<usize>,
    /// How long sessions may continue at shutdown, and after their listener or backend has been removed.
    pub drain_timeout: Duration,
    /// How long listeners still accept after SIGTERM, while `/readyz` is 503.
    pub shutdown_delay: Duration,
    /// Whether a change of the file is a reload.
    pub watch: bool,
    /// Directory for what outlives the process; absent: it is chosen at the start.
    pub state_dir: Option<PathBuf>,
    /// Address of the admin server; absent: there is none.
    pub admin: Option<BindAddress>,
    /// Logs.
    pub log: LogConfig,
    /// The peer set; absent: the proxy is in none.
    pub gossip: Option<GossipConfig>,
    /// Listeners in the order of the file. A listener with several addresses is there once for each of them.
    pub listeners: Vec<ListenerConfig>,
    /// Routes in the order of the file.
    pub routes: Vec<RouteConfig>,
    /// Clusters in the order of the file.
    pub clusters: Vec<ClusterConfig>,
}

impl Config {
    /// Number of listeners; one with several addresses counts once.
    pub fn listener_count(&self) -> usize {
        let names = self.listeners.iter().map(|listener| &listener.name);
        names.collect::<std::collections::HashSet<_>>().len()
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Least level of the events of the proxy itself, which go to stderr.
    pub level: LogLevel,
    /// How events look.
    pub format: LogFormat,
    /// Where the access log goes.
    pub access: AccessLog,
    /// Whether it shows targets and referers with what follows `?`.
    pub access_query: bool,
}

/// `[gossip]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipConfig {
    /// The proxy's place in the peer set.
    pub peer_set: PeerSetSettings,
    /// Public keys of operators. If there are any, records need a token of one of them.
    pub token_keys: Vec<PathBuf>,
    /// Beginnings of the ids of tokens that are no longer accepted: 4 to 16 hexadecimal digits in lower case.
    pub revoked: Vec<String>,
    /// Networks where announced backends may live.
    pub allow_cidrs: Vec<IpNet>,
    /// Where the last good set is kept for a start without peers; absent: in the state directory.
    pub members_file: Option<PathBuf>,
}

/// What `lbproxy agent` runs on: a file of its own, or flags of the same names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// What proxies `discover`; 1 to 64 bytes.
    pub cluster: String,
    /// Where the proxies reach the service.
    pub backend: SocketAddr,
    /// Share of the traffic, 0 to 1000.
    pub weight: u16,
    /// Zone of the service, at most 32 bytes.
    pub zone: String,
    /// Name of this agent, 1 to 64 bytes; absent: the host's name.
    pub name: Option<String>,
    /// Version of the service, at most 32 bytes.
    pub build: String,
    /// How the service is checked; absent: it is ready as long as the agent runs.
    pub check: Option<LocalCheck>,
    /// The agent's place in the peer set.
    pub peer_set: PeerSetSettings,
    /// The operator's token; relative to the directory of the configuration.
    pub token_file: Option<PathBuf>,
    /// How long the service may continue after it has been announced as draining.
    pub drain_timeout: Duration,
    /// Time from the announced drain to the stop of the process that the agent runs.
    pub drain_delay: Duration,
    /// Run the process once, and end with its exit code; only with a process.
    pub once: bool,
    /// Least level of the events of the agent, which go to stderr.
    pub level: LogLevel,
}

/// How an agent checks its service: `http://host:port/path` or `tcp://host:port`, every `interval` for at most
/// `timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCheck {
    /// Where the service is asked. A name is resolved for each check.
    pub target: BackendAddress,
    /// What is asked. `rise` and `fall` say what [`agent::lifecycle`](crate::agent::lifecycle) does.
    pub check: Check,
}

/// `[[listener]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// Name, by default the first address.
    pub name: String,
    /// Address.
    pub address: BindAddress,
    /// What clients speak.
    pub protocol: Protocol,
    /// Cluster that takes what no route takes.
    pub cluster: Option<String>,
    /// Redirect or fixed response for what no route takes.
    pub answer: Option<RouteAction<String>>,
    /// Pages in place of the proxy's own errors.
    pub errors: ErrorPages,
    /// Peers whose X-Forwarded-* are believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether requests and responses get a `Via` field.
    pub via: bool,
    /// Whether all responses have `X-Request-Id`, and not only the proxy's own.
    pub expose_request_id: bool,
    /// How long a client may take.
    pub timeouts: ListenerTimeouts,
    /// How much a client may send.
    pub limits: ListenerLimits,
}

/// `[[route]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// Name in the access log: `name`, or else hosts and paths as written; empty if there are none.
    pub name: String,
    /// Whether the file names it, so that it has counters.
    pub named: bool,
    /// Names of http listeners; absent: all of them.
    pub listeners: Option<Vec<String>>,
    /// What it matches and what it does.
    pub rule: Rule<RouteAction<String>>,
    /// Limit for the whole request.
    pub timeout: Option<Duration>,
    /// Limit for the request body; absent: that of the listener.
    pub body_bytes: Option<u64>,
    /// Pages in place of the proxy's own errors, before those of the listener.
    pub errors: ErrorPages,
    /// Whether its requests are in the access log.
    pub log: bool,
}

/// `[cluster.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// The name in the header of its table.
    pub name: String,
    /// Backends in the order of the file.
    pub backends: Vec<BackendConfig>,
    /// Name under which agents of the peer set announce more backends: `discover = { gossip = "web" }`.
    pub discover: Option<String>,
    /// All other keys.
    pub settings: ClusterSettings,
}

/// A backend, as the file or the peer set names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// Where it is reached; a name stands for all its addresses.
    pub address: BackendAddress,
    /// Share of the traffic, 0 to 1000.
    pub weight: u32,
    /// Used only while no backend without this flag is healthy.
    pub backup: bool,
}
