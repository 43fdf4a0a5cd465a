//! The configuration as plain typed values: what the loader makes of a valid file and the compiler makes
//! snapshots of. Exactly the keys that work; a key that is not here is an unknown key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

use crate::model::address::{BackendAddress, BindAddress};
use crate::model::page::ErrorPages;
use crate::model::route_action::RouteAction;
pub(crate) use crate::model::settings::{AccessLog, LogFormat, LogLevel};
use crate::model::settings::{
    Check, ClusterSettings, ListenerLimits, ListenerTimeouts, Protocol, TrustedProxies,
};
use crate::route::rule::Rule;

/// A whole file.
#[derive(Debug, Clone)]
pub struct Config {
    /// Data-plane threads; absent: one per core.
    pub workers: Option<usize>,
    /// How long live sessions may go on at shutdown, and after their listener or backend is removed.
    pub drain_timeout: Duration,
    /// After SIGTERM: how long listeners still accept while `/readyz` is 503.
    pub shutdown_delay: Duration,
    /// Reload when the file changes.
    pub watch: bool,
    /// Where the proxy keeps what outlives it; absent: see `state_dir`.
    pub state_dir: Option<PathBuf>,
    /// Admin server.
    pub admin: Option<BindAddress>,
    /// Logs.
    pub log: LogConfig,
    /// The peer set; absent: none.
    pub gossip: Option<GossipConfig>,
    /// Listeners in order.
    pub listeners: Vec<ListenerConfig>,
    /// Routes in order.
    pub routes: Vec<RouteConfig>,
    /// Clusters in order.
    pub clusters: Vec<ClusterConfig>,
}

impl Config {
    /// Listeners, however many addresses they have.
    pub fn listener_count(&self) -> usize {
        let names = self.listeners.iter().map(|listener| &listener.name);
        names.collect::<std::collections::HashSet<_>>().len()
    }
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// Events of the proxy itself, to stderr.
    pub level: LogLevel,
    /// How they look.
    pub format: LogFormat,
    /// One JSON object a finished request.
    pub access: AccessLog,
    /// Whether that shows what follows `?` in targets and referers.
    pub access_query: bool,
}

/// `[gossip]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GossipConfig {
    /// UDP and TCP address that is bound.
    pub address: SocketAddr,
    /// Where others reach it, and its name among them; by default the address.
    pub advertise: SocketAddr,
    /// Members that are asked first; may be empty (others may name this one).
    pub seeds: Vec<BackendAddress>,
    /// Sets with other labels never mix; by default empty.
    pub label: String,
    /// The first seals, all open; relative to the directory of the configuration.
    pub key_files: Vec<PathBuf>,
    /// Operators' public keys: records need a token of one of them then.
    pub token_keys: Vec<PathBuf>,
    /// What the ids of tokens that do not count any more begin with: 4 to 16 hexadecimal digits, in small letters.
    pub revoked: Vec<String>,
    /// Where announced backends may live.
    pub allow_cidrs: Vec<IpNet>,
    /// Unsealed packets are accepted, and without keys sent, on an address that is not loopback too.
    pub insecure_plaintext: bool,
    /// Where the last good set is kept for a start without peers; by default beside the configuration.
    pub members_file: Option<PathBuf>,
}

/// What `lbproxy agent` runs on: a file of its own, or flags of the same names. Its rules are in
/// [`agent`](super::member_rules).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentConfig {
    /// What proxies `discover`; 1 to 64 bytes.
    pub cluster: String,
    /// Where the proxies reach the service.
    pub backend: SocketAddr,
    /// 0 to 1000; by default 1.
    pub weight: u16,
    /// At most 32 bytes; by default empty.
    pub zone: String,
    /// Name of this agent, 1 to 64 bytes; absent: the host's.
    pub name: Option<String>,
    /// Version of the service, at most 32 bytes; by default empty.
    pub build: String,
    /// How the service is checked; absent: it is ready as long as the agent runs.
    pub check: Option<LocalCheck>,
    /// UDP and TCP address that is bound.
    pub address: SocketAddr,
    /// Where others reach it, and its name among them; by default the address.
    pub advertise: SocketAddr,
    /// Members that are asked first; may be empty (others may name this one).
    pub seeds: Vec<BackendAddress>,
    /// Sets with other labels never mix; by default empty.
    pub label: String,
    /// The key `key_file`, one or an array: the first seals, all open; relative to the directory of the configuration.
    pub key_files: Vec<PathBuf>,
    /// The operator's permission; likewise.
    pub token_file: Option<PathBuf>,
    /// Unsealed packets are accepted, and without a key sent, on an address that is not loopback too.
    pub insecure_plaintext: bool,
    /// How long the service may go on after it is announced as draining; by default 30 s.
    pub drain_timeout: Duration,
    /// From the announced drain to the stop of the process that the agent runs; by default 1 s.
    pub drain_delay: Duration,
    /// Run the process once, and end with its exit code; only with one.
    pub once: bool,
    /// Events of the agent, to stderr.
    pub level: LogLevel,
}

/// What an agent asks its service: `http://host:port/path` or `tcp://host:port`, every `interval` for `timeout`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCheck {
    /// Where it is asked; a name is looked up each time.
    pub target: BackendAddress,
    /// By default every second for a second. `rise` and `fall` say what [`agent::lifecycle`](crate::agent::lifecycle) does.
    pub check: Check,
}

/// `[[listener]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerConfig {
    /// Name; by default the address.
    pub name: String,
    /// Address.
    pub address: BindAddress,
    /// Protocol.
    pub protocol: Protocol,
    /// Cluster that takes what no route takes.
    pub cluster: Option<String>,
    /// What is answered instead to what no route takes: a redirect or a fixed answer.
    pub answer: Option<RouteAction<String>>,
    /// Pages in the place of the proxy's own errors.
    pub errors: ErrorPages,
    /// Networks whose X-Forwarded-* are believed.
    pub trusted_proxies: TrustedProxies,
    /// Whether requests and responses get a Via field.
    pub via: bool,
    /// Whether all responses carry X-Request-Id, and not the proxy's own alone.
    pub expose_request_id: bool,
    /// Timeouts.
    pub timeouts: ListenerTimeouts,
    /// Limits.
    pub limits: ListenerLimits,
}

/// `[[route]]`.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// Name in the access log: `name`, else hosts and paths as the file wrote them; empty without any.
    pub name: String,
    /// Whether that is its `name`, so that it has counters.
    pub named: bool,
    /// Names of http listeners; `None`: all of them.
    pub listeners: Option<Vec<String>>,
    /// What it matches, and what it does.
    pub rule: Rule<RouteAction<String>>,
    /// Limit of the whole request.
    pub timeout: Option<Duration>,
    /// Request body; absent: the listener's limit.
    pub body_bytes: Option<u64>,
    /// Pages in the place of the proxy's own errors, before the listener's.
    pub errors: ErrorPages,
    /// Whether its requests are written to the access log.
    pub log: bool,
}

/// `[cluster.NAME]`.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterConfig {
    /// Name.
    pub name: String,
    /// Backends in order.
    pub backends: Vec<BackendConfig>,
    /// Name under which agents of the peer set announce more backends: `discover = { gossip = "web" }`.
    pub discover: Option<String>,
    /// Everything else.
    pub settings: ClusterSettings,
}

/// A backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendConfig {
    /// Address.
    pub address: BackendAddress,
    /// 0 to 1000; by default 1.
    pub weight: u32,
    /// Used only while no other is healthy.
    pub backup: bool,
    /// Who named it.
    pub origin: Origin,
}

/// Who named a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// The file.
    #[default]
    File,
    /// The peer set.
    Gossip,
}
