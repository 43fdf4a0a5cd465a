//! The scenarios and their goals, as data. A cost is what its unit says, smaller is better, and every goal is about
//! costs in one run. The figures are those of the project's issue on performance.

/// What the cost of a scenario is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    MicrosPerRequest,
    MillisPerGigabyte,
    MicrosAtP99,
    KibPerConnection,
    MillisPerReload,
}

impl Unit {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::MicrosPerRequest => "µs/req",
            Self::MillisPerGigabyte => "ms/GB",
            Self::MicrosAtP99 => "p99 µs",
            Self::KibPerConnection => "KiB/conn",
            Self::MillisPerReload => "ms/reload",
        }
    }
}

/// How it is measured.
#[derive(Clone, Copy)]
pub(crate) enum Plan {
    Http {
        length: u64,
        connections: usize,
        in_flight: usize,
        backends: usize,
        reconnect: bool,
    },
    PingPong {
        bytes: usize,
        connections: usize,
    },
    /// From the client with `up`, else to it.
    Bulk {
        connections: usize,
        up: bool,
    },
    /// Open loop at half of the slowest peer's peak.
    HalfLoad,
    /// The slope of resident memory over connections at rest.
    Idle,
    /// lbproxy against itself: two workers, routes, backends.
    Workers,
    Routes,
    Backends,
    /// lbproxy alone: reloads of large files.
    Reload,
}

/// What is demanded of a subject.
pub(crate) struct Goal {
    pub subject: &'static str,
    /// The cheapest of these is what it is compared with.
    pub than: &'static [&'static str],
    pub bound: Bound,
}

#[derive(Clone, Copy)]
pub(crate) enum Bound {
    /// subject ÷ other
    AtMost(f64),
    /// other ÷ subject
    Ahead(f64),
    /// subject − other, in the unit of the scenario
    MoreBy(f64),
    /// subject
    Within(f64),
    /// Resident memory of the subject before the connections came, in MiB
    Base(f64),
    /// What a worker of the subject runs for a reload, in µs: no pause is longer
    Pause(f64),
}

pub(crate) struct Scenario {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    pub plan: Plan,
    pub goals: &'static [Goal],
}

const fn goal(than: &'static [&'static str], bound: Bound) -> Goal {
    Goal {
        subject: "lbproxy",
        than,
        bound,
    }
}

const fn between(subject: &'static str, than: &'static [&'static str], bound: Bound) -> Goal {
    Goal {
        subject,
        than,
        bound,
    }
}

const fn of(subject: &'static str, bound: Bound) -> Goal {
    between(subject, &[], bound)
}

const fn http(
    length: u64,
    connections: usize,
    in_flight: usize,
    backends: usize,
    reconnect: bool,
) -> Plan {
    Plan::Http {
        length,
        connections,
        in_flight,
        backends,
        reconnect,
    }
}

const SMALL: &[Goal] = &[
    goal(&["floor"], Bound::AtMost(1.25)),
    goal(&["nginx"], Bound::Ahead(1.2)),
    goal(&["haproxy"], Bound::Ahead(1.3)),
    goal(&["pingora"], Bound::Ahead(3.0)),
];
const CHEAP_BYTES: &[Goal] = &[
    goal(&["haproxy"], Bound::AtMost(0.9)),
    goal(&["nginx"], Bound::AtMost(0.6)),
];
const BETTER_BY_A_TENTH: &[Goal] = &[goal(&["nginx", "haproxy"], Bound::Ahead(1.1))];

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario {
        name: "keepalive",
        title: "HTTP/1.1 keep-alive, 128 B, 64 connections",
        unit: Unit::MicrosPerRequest,
        plan: http(128, 64, 64, 2, false),
        goals: SMALL,
    },
    Scenario {
        name: "body-64k",
        title: "HTTP/1.1 keep-alive, 64 KiB, 64 connections",
        unit: Unit::MicrosPerRequest,
        plan: http(65_536, 64, 64, 2, false),
        goals: BETTER_BY_A_TENTH,
    },
    Scenario {
        name: "body-1m",
        title: "HTTP/1.1 keep-alive, 1 MiB, 64 connections",
        unit: Unit::MicrosPerRequest,
        plan: http(1_048_576, 64, 64, 2, false),
        goals: BETTER_BY_A_TENTH,
    },
    Scenario {
        name: "connect",
        title: "a new client connection for each request, 128 B, 64 at a time",
        unit: Unit::MicrosPerRequest,
        plan: http(128, 64, 64, 2, true),
        goals: BETTER_BY_A_TENTH,
    },
    Scenario {
        name: "quiet",
        title: "1,000 connections, 64 of them busy at a time; 50 backends, 128 B",
        unit: Unit::MicrosPerRequest,
        plan: http(128, 1000, 64, 50, false),
        goals: SMALL,
    },
    Scenario {
        name: "ping-pong",
        title: "TCP ping-pong, 64 B, 64 connections",
        unit: Unit::MicrosPerRequest,
        plan: Plan::PingPong {
            bytes: 64,
            connections: 64,
        },
        goals: &[
            goal(&["floor"], Bound::AtMost(1.1)),
            goal(&["nginx"], Bound::AtMost(1.0)),
        ],
    },
    Scenario {
        name: "bulk",
        title: "TCP bulk, 4 connections, backend to client",
        unit: Unit::MillisPerGigabyte,
        plan: Plan::Bulk {
            connections: 4,
            up: false,
        },
        goals: CHEAP_BYTES,
    },
    Scenario {
        name: "upload",
        title: "TCP bulk, 4 connections, client to backend",
        unit: Unit::MillisPerGigabyte,
        plan: Plan::Bulk {
            connections: 4,
            up: true,
        },
        goals: CHEAP_BYTES,
    },
    Scenario {
        name: "latency",
        title: "latency at half of the slowest peer's peak, 128 B, 64 connections, open loop",
        unit: Unit::MicrosAtP99,
        plan: Plan::HalfLoad,
        goals: &[goal(&["nginx", "haproxy", "pingora"], Bound::AtMost(1.1))],
    },
    Scenario {
        name: "idle",
        title: "memory of a client connection at rest, slope from 1,000 to 5,000",
        unit: Unit::KibPerConnection,
        plan: Plan::Idle,
        goals: &[goal(&[], Bound::Within(1.1)), goal(&[], Bound::Base(12.0))],
    },
    Scenario {
        name: "workers",
        title: "lbproxy with two workers on the one core, 128 B, 64 connections",
        unit: Unit::MicrosPerRequest,
        plan: Plan::Workers,
        goals: &[between("2 workers", &["1 worker"], Bound::AtMost(1.1))],
    },
    Scenario {
        name: "routes",
        title: "lbproxy with 10,000 routes, requests over 64 of them",
        unit: Unit::MicrosPerRequest,
        plan: Plan::Routes,
        goals: &[between("10000 routes", &["10 routes"], Bound::MoreBy(1.0))],
    },
    Scenario {
        name: "backends",
        title: "lbproxy with 10,000 backends, consistent hash, 64 keys",
        unit: Unit::MicrosPerRequest,
        plan: Plan::Backends,
        goals: &[between(
            "10000 backends",
            &["10 backends"],
            Bound::MoreBy(1.0),
        )],
    },
    Scenario {
        name: "reload",
        title: "lbproxy reloads a file of 10,000 routes or backends",
        unit: Unit::MillisPerReload,
        plan: Plan::Reload,
        goals: &[
            of("10000 routes", Bound::Within(100.0)),
            of("10000 routes", Bound::Pause(1000.0)),
            of("10000 backends", Bound::Within(100.0)),
            of("10000 backends", Bound::Pause(1000.0)),
            of("ring of 10000", Bound::Within(400.0)),
            of("ring of 10000", Bound::Pause(1000.0)),
        ],
    },
];
