//! The settings of listeners, routes and clusters as plain values.
//!
//! The configuration loader writes them, both planes read them. Ranges and defaults are declared with the keys
//! (`config::sections`): `Default` of a struct is what a table without any key reads as. Every default is safe in
//! production: no timeout, head or queue is unlimited.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

/// The protocol of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    #[default]
    Http,
    /// TCP, relayed byte by byte.
    Tcp,
}

impl Protocol {
    /// The name in the configuration, the log and the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// How long the proxy waits for a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// Most time from the first byte of a request head to its end.
    pub header: Duration,
    /// Most time between the requests of a connection, and before the first.
    pub idle: Duration,
    /// Most time without a byte of a request body.
    pub request_body: Duration,
    /// Most time during which a client reads nothing of what is sent to it.
    pub write: Duration,
    /// Most time without a byte in either direction of a tcp session or an upgraded connection.
    pub tunnel: Duration,
}

/// A limit given as a number or as a share of another limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CountOrShare {
    /// A number.
    Count(u32),
    /// A share in (0, 1].
    Share(f64),
}

impl CountOrShare {
    /// The number; a share is taken of `whole`, and is at least 1.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Share(share) => ((f64::from(whole) * share) as u32).max(1),
        }
    }
}

/// How much clients may open and send.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerLimits {
    /// Most connections at a time; absent: what the descriptor limit allows. At the limit the listener stops accepting.
    pub connections: Option<u32>,
    /// Most connections of one client address at a time (IPv6: of one /64 network), as a number or as a share of
    /// `connections`; absent: no limit. Trusted proxies are exempt.
    pub connections_per_client: Option<CountOrShare>,
    /// Most bytes of a request line and its fields, with line ends.
    pub header_bytes: usize,
    /// Most fields of a request head.
    pub headers: usize,
    /// Most bytes of a request target.
    pub uri_bytes: usize,
    /// Most bytes of a decoded request body.
    pub body_bytes: u64,
    /// Most bytes of the trailer section of a chunked body, with line ends.
    pub trailer_bytes: usize,
}

/// How a cluster chooses a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// Smooth weighted round robin (`round_robin`, also called `weighted`).
    #[default]
    RoundRobin,
    /// The backend with the fewest requests in flight per unit of weight.
    LeastConnections,
    /// A weighted hash ring over the hash key.
    ConsistentHash,
    /// A random backend, by weight.
    Random,
    /// The less loaded of two random backends.
    PowerOfTwo,
}

impl Policy {
    /// The name in the configuration and the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RoundRobin => "round_robin",
            Self::LeastConnections => "least_connections",
            Self::ConsistentHash => "consistent_hash",
            Self::Random => "random",
            Self::PowerOfTwo => "power_of_two",
        }
    }
}

/// What `consistent_hash` hashes. The client address is hashed if a request lacks it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum HashKey {
    /// The client address.
    #[default]
    ClientIp,
    /// The path, without the query.
    Path,
    /// The path and the query.
    Uri,
    /// The request field of this name, in lower case.
    Header(String),
    /// The cookie of this name.
    Cookie(String),
    /// The query parameter of this name.
    Query(String),
}

/// How long the proxy waits for a backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterTimeouts {
    /// Most time for the TCP handshake.
    pub connect: Duration,
    /// Most time from the end of the request to the response head.
    pub response: Duration,
    /// Most time without a byte of a response body, and during which a backend reads nothing of a request body.
    pub body: Duration,
    /// Most time that a pooled connection stays unused.
    pub idle: Duration,
}

/// When a request is retried on another backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Most attempts, including the first; 1 to 10.
    pub attempts: u32,
    /// Whether to retry after a connection could not be made.
    pub on_connect: bool,
    /// Whether to retry after a connection ended before the first byte of the response.
    pub on_reset: bool,
    /// Whether to retry after the `response` timeout.
    pub on_timeout: bool,
}

/// What happens to the sessions (tcp and upgraded) of a backend that goes down, by its check or a refused connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDown {
    /// They continue.
    #[default]
    Keep,
    /// They are closed.
    Close,
    /// They are closed after `drain_timeout`, unless the backend is up again before that.
    Drain,
}

/// What happens when a primary is up again while backups replace it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUp {
    /// New traffic returns to it; sessions on backups continue.
    #[default]
    Keep,
    /// New traffic returns to it; sessions on backups are closed.
    CloseBackups,
    /// New traffic stays with the backups until none of them is healthy.
    Stay,
}

/// How the names of a cluster are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolve {
    /// Time between two lookups of a name.
    pub every: Duration,
    /// Whether each name is one backend, with one address at a time; otherwise each address is a backend.
    pub one: bool,
}

/// An active health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What a probe does.
    pub kind: CheckKind,
    /// Time between the starts of two probes of one backend.
    pub interval: Duration,
    /// Most time for a probe.
    pub timeout: Duration,
    /// Consecutive passes that bring a backend up.
    pub rise: u32,
    /// Consecutive failures that take a backend down.
    pub fall: u32,
    /// The port to probe, if it is not the backend's.
    pub port: Option<u16>,
}

/// What a probe does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// Opens a connection.
    Tcp,
    /// Sends `GET path` and expects a status.
    Http {
        /// Origin-form target.
        path: String,
        /// Host field; absent: the backend's address.
        host: Option<String>,
        /// Inclusive ranges of passing status codes.
        status: Vec<(u16, u16)>,
        /// Text that the body must contain.
        expect: Option<String>,
    },
    /// Sends bytes and expects a text in the answer.
    Exchange {
        /// What to send; empty if the server speaks first.
        send: String,
        /// Text that the answer must contain; never empty.
        expect: String,
    },
    /// Begins a PostgreSQL login of `user` and expects an answer.
    Postgres {
        /// Name of a role.
        user: String,
    },
    /// Begins a MySQL login of `user` and expects an answer.
    Mysql {
        /// Name of an account.
        user: String,
    },
    /// Sends a Redis PING and expects an answer.
    Redis,
}

/// Peers that are trusted to name the client of a request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Peers with an address in one of these networks are trusted.
    pub networks: Vec<IpNet>,
    /// Whether peers on a Unix socket, which have no address, are trusted.
    pub unix: bool,
}

impl TrustedProxies {
    /// Whether `peer` is trusted; `None` is a peer on a Unix socket.
    pub fn trusts(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            Some(ip) => self.networks.iter().any(|net| net.contains(&ip)),
            None => self.unix,
        }
    }
}

/// The settings of a cluster, without its name and its backends. The configuration reads them, a snapshot holds them.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// Policy.
    pub policy: Policy,
    /// What `consistent_hash` hashes.
    pub hash_key: HashKey,
    /// Seed of the hash.
    pub hash_seed: u64,
    /// How often names are resolved again, and how many of their addresses are used.
    pub resolve: Resolve,
    /// Active check.
    pub check: Option<Check>,
    /// Timeouts.
    pub timeouts: ClusterTimeouts,
    /// When a request is tried again.
    pub retry: Retry,
    /// `limits.idle_connections`: unused connections that each worker keeps for each backend.
    pub idle_connections: usize,
    /// All backends are used if the share of healthy ones is below this; `None` (`false`): never.
    pub panic_threshold: Option<f64>,
    /// What becomes of the sessions of a backend that goes down.
    pub on_down: OnDown,
    /// What happens when a primary is up again.
    pub on_up: OnUp,
}

/// The lowest level of events that are logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Only errors.
    Error,
    /// Also warnings.
    Warn,
    /// Also what an operator wants to know.
    #[default]
    Info,
    /// Also what a client did.
    Debug,
    /// Also every step.
    Trace,
}

/// The format of logged events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `TIME LEVEL message key=value …`.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

/// Where the access log is written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// To standard output.
    Stdout,
    /// To a file, relative to the directory of the configuration.
    File(PathBuf),
}

impl AccessLog {
    /// The same log, with a relative file in `directory`.
    pub(crate) fn resolved_in(&self, directory: &Path) -> Self {
        match self {
            Self::Off => Self::Off,
            Self::Stdout => Self::Stdout,
            Self::File(file) => Self::File(directory.join(file)),
        }
    }
}
