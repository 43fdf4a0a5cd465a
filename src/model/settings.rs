//! The settings of listeners, routes and clusters as plain values, with the defaults of the file.
//!
//! Written by the configuration loader, read by both planes. Every default is safe in production: no
//! unlimited timeout, head or queue.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;

/// What a listener speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1 and HTTP/1.0.
    #[default]
    Http,
    /// Bytes.
    Tcp,
}

impl Protocol {
    /// The word of the file, the log and the status.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Tcp => "tcp",
        }
    }
}

/// How long a client may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTimeouts {
    /// First byte of a request head to its end.
    pub header: Duration,
    /// Between requests on a kept connection, and before the first.
    pub idle: Duration,
    /// Longest silence inside a request body.
    pub request_body: Duration,
    /// Longest time a client takes nothing of what is sent to it.
    pub write: Duration,
    /// Longest silence of a tcp session or an upgraded connection.
    pub tunnel: Duration,
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        Self {
            header: Duration::from_secs(10),
            idle: Duration::from_secs(75),
            request_body: Duration::from_secs(30),
            write: Duration::from_secs(30),
            tunnel: Duration::from_secs(3600),
        }
    }
}

/// How many there may be: a number, or a share of a limit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CountOrShare {
    /// So many.
    Count(u32),
    /// A ratio in (0, 1].
    Share(f64),
}

impl CountOrShare {
    /// The number, at least 1; a share is one of `whole`.
    pub fn of(self, whole: u32) -> u32 {
        match self {
            Self::Count(count) => count,
            Self::Share(share) => ((f64::from(whole) * share) as u32).max(1),
        }
    }
}

/// How much a client may send.
#[derive(Debug, Clone, PartialEq)]
pub struct ListenerLimits {
    /// Connections at a time; absent: what the descriptor limit carries. At it the listener stops accepting.
    pub connections: Option<u32>,
    /// Connections of one client address at a time (IPv6: of one network of 64 bits), as a number or as a share of
    /// `connections`; absent: no limit. Trusted proxies have none.
    pub connections_per_client: Option<CountOrShare>,
    /// Request line and fields, with line ends.
    pub header_bytes: usize,
    /// Number of fields of a request head.
    pub headers: usize,
    /// Request target.
    pub uri_bytes: usize,
    /// Request body, decoded.
    pub body_bytes: u64,
    /// Trailer section of a chunked body, with line ends.
    pub trailer_bytes: usize,
}

impl Default for ListenerLimits {
    fn default() -> Self {
        Self {
            connections: None,
            connections_per_client: None,
            header_bytes: 32 << 10,
            headers: 100,
            uri_bytes: 8 << 10,
            body_bytes: 1 << 40,
            trailer_bytes: 8 << 10,
        }
    }
}

/// How a cluster chooses a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Policy {
    /// Smooth weighted round robin (`round_robin`, also called `weighted`).
    #[default]
    RoundRobin,
    /// Fewest requests in flight per unit of weight.
    LeastConnections,
    /// Weighted hash ring over the hash key.
    ConsistentHash,
    /// Weighted random.
    Random,
    /// The less loaded of two random ones.
    PowerOfTwo,
}

impl Policy {
    /// The word of the file and the status.
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

/// What `consistent_hash` hashes. A request that lacks it is hashed by its client address.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub enum HashKey {
    /// The client address.
    #[default]
    ClientIp,
    /// The path, without the query.
    Path,
    /// The path and the query.
    Uri,
    /// A request field; the name is in lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
}

/// How long a backend may take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClusterTimeouts {
    /// TCP handshake.
    pub connect: Duration,
    /// Request sent to response head.
    pub response: Duration,
    /// Longest silence inside a response body, and the longest time a backend takes nothing of a request body.
    pub body: Duration,
    /// Life of an unused pooled connection.
    pub idle: Duration,
}

impl Default for ClusterTimeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(30),
            body: Duration::from_secs(300),
            idle: Duration::from_secs(30),
        }
    }
}

/// When a request is tried on another backend.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first included; 1 to 10.
    pub attempts: u32,
    /// After a connection that could not be made.
    pub on_connect: bool,
    /// After a connection that ended before the first byte of the response.
    pub on_reset: bool,
    /// After the `response` timeout.
    pub on_timeout: bool,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            attempts: 2,
            on_connect: true,
            on_reset: true,
            on_timeout: false,
        }
    }
}

/// What becomes of the sessions (tcp and upgraded) of a backend that goes down, by its check or by a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnDown {
    /// They go on.
    #[default]
    Keep,
    /// They are closed.
    Close,
    /// They are closed after `drain_timeout`, unless it is up again before.
    Drain,
}

/// What happens when a backend without `backup` is up again while backups stand in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnUp {
    /// New traffic returns to it; sessions on backups go on.
    #[default]
    Keep,
    /// New traffic returns to it; sessions on backups are closed.
    CloseBackups,
    /// Nothing: new traffic stays with the backups until none of them is healthy.
    Stay,
}

/// How the names of a cluster are resolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolve {
    /// Between two look-ups of a name.
    pub every: Duration,
    /// One address of each name at a time, under the name alone; else each address is a backend.
    pub one: bool,
}

impl Default for Resolve {
    fn default() -> Self {
        Self {
            every: Duration::from_secs(10),
            one: false,
        }
    }
}

/// An active health check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Check {
    /// What is asked.
    pub kind: CheckKind,
    /// Between the starts of two probes of one backend.
    pub interval: Duration,
    /// For one whole probe.
    pub timeout: Duration,
    /// Passes in a row that bring a backend up.
    pub rise: u32,
    /// Failures in a row that take a backend down.
    pub fall: u32,
    /// Another port than the backend's.
    pub port: Option<u16>,
}

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CheckKind {
    /// A connection that opens.
    Tcp,
    /// `GET path` with an expected status.
    Http {
        /// Origin-form target.
        path: String,
        /// Host field; absent: the backend's address.
        host: Option<String>,
        /// Inclusive ranges of passing status codes.
        status: Vec<(u16, u16)>,
        /// A text that the body must contain.
        expect: Option<String>,
    },
    /// Bytes to send, and a text that the answer must contain.
    Exchange {
        /// May be empty: the server speaks first.
        send: String,
        /// Never empty.
        expect: String,
    },
    /// PostgreSQL answers a login of `user`.
    Postgres {
        /// Name of a role.
        user: String,
    },
    /// MySQL answers a login of `user`.
    Mysql {
        /// Name of an account.
        user: String,
    },
    /// Redis answers a PING.
    Redis,
}

/// Peers that are believed when they say for whom a request is made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Those with an address in one of these.
    pub networks: Vec<IpNet>,
    /// Those of a Unix socket, which have no address.
    pub unix: bool,
}

impl TrustedProxies {
    /// Whether `peer` is one; `None`: it comes over a Unix socket.
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

impl Default for ClusterSettings {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            hash_key: HashKey::default(),
            hash_seed: 0,
            resolve: Resolve::default(),
            check: None,
            timeouts: ClusterTimeouts::default(),
            retry: Retry::default(),
            idle_connections: 256,
            panic_threshold: Some(0.0),
            on_down: OnDown::default(),
            on_up: OnUp::default(),
        }
    }
}

/// Least level of events that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogLevel {
    /// Errors.
    Error,
    /// And warnings.
    Warn,
    /// And what an operator wants to know.
    #[default]
    Info,
    /// And what a client did.
    Debug,
    /// And every step.
    Trace,
}

/// How events look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogFormat {
    /// `TIME LEVEL message key=value …`.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the access log goes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum AccessLog {
    /// Nowhere.
    #[default]
    Off,
    /// Standard output.
    Stdout,
    /// A file, relative to the configuration file's directory.
    File(PathBuf),
}
