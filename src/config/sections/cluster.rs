//! `[cluster.NAME]`.

use super::Inheritance::Whole;
use super::Otherwise::{Absent, Is, Required};
use super::words::{NameAddresses, RetryCause};
use super::{Meant, Section, boolean, duration, form, integer, list, seconds, table, word, words};
use crate::config::limits::{MAX_SEED, PERIOD, RESOLVE_EVERY, TIMEOUT};
use crate::model::settings::{OnDown, OnUp, Policy};

pub(crate) static CLUSTER: Section = Section {
    name: "[cluster.NAME]",
    shape: "a table",
    meant: &[],
    intro: (
        "`[cluster.NAME]`",
        "A named set of backends under one policy. Everything can be changed while the proxy runs: no connection is \
         dropped, no count is lost and no rotation starts again.\n\n\
         ```toml fragment\n[cluster.web]\npolicy = \"least_connections\"\n\
         backends = [\"10.0.0.1:8080\", { address = \"10.0.0.2:8080\", weight = 3 }]\n\
         check = { http = \"/healthz\" }\n```\n",
    ),
    keys: &[
        word::<Policy>(
            "policy",
            "How a backend is chosen. `weighted` is another name of `round_robin`.",
        ),
        form(
            "hash_key",
            "\"client_ip\", \"path\", \"uri\" or a table such as { header = \"x-user\" }",
            Is("\"client_ip\""),
            "What `consistent_hash` hashes: a word, or the [table](#hash_key) below. A request without it is hashed by its \
             client address.",
        )
        .inherited(Whole),
        integer(
            "hash_seed",
            0..=MAX_SEED,
            Is(0),
            "Seed of the hash: the same on every proxy that must agree.",
        ),
        list(
            "backends",
            "an array of backends, such as [\"10.0.0.1:80\", { address = \"10.0.0.2:80\", weight = 3 }]",
            "an address such as \"10.0.0.1:80\" or \"web.internal:80\", or { address = …, weight = … }",
            Is("[]"),
            "Backends: addresses, or [tables](#backends).",
        ),
        form(
            "resolve",
            "a duration such as \"10s\", or a table such as { every = \"10s\", addresses = \"one\" }",
            Is("\"10s\""),
            "How names of backends are resolved: how often, or the [table](#resolve) below.",
        ),
        table(
            "discover",
            &DISCOVER,
            "More backends, beside those of `backends`.",
        )
        .inherited(Whole),
        table(
            "check",
            &CHECK,
            "The health check. Without one live traffic alone decides: a backend that refuses a connection gets one trial \
             after 1 s, then after twice as long each time, up to 30 s.",
        ),
        table("timeouts", &TIMEOUTS, "How long a backend may take."),
        table("retry", &RETRY, "When a request is tried on another backend."),
        table("limits", &LIMITS, "Connections that are kept."),
        form(
            "panic_threshold",
            "false, or a ratio from 0.0 to 1.0, or a share such as \"50%\"",
            Is("0.0"),
            "When a smaller share of the backends than this is healthy, all are used. At 0 that is when none is healthy; \
             with `false` it never happens: requests get 503, and connections are closed.",
        ),
        word::<OnDown>(
            "on_down",
            "What happens to the sessions (tcp, and upgraded ones) of a backend that goes down: they continue, are closed, \
             or are closed after `drain_timeout` unless it comes up again before.",
        ),
        word::<OnUp>(
            "on_up",
            "What happens when a backend without `backup` comes up while backups are used. `keep`: new traffic returns to \
             it, sessions on backups continue. `close_backups`: these are closed too. `stay`: the backups keep new traffic \
             until none of them is healthy.",
        ),
        form(
            "http_version",
            "\"1.1\", in quotes",
            Is("\"1.1\""),
            "Version of HTTP that backends speak. HTTP/2 is not supported yet.",
        )
        .for_requests(),
    ],
};

pub(crate) static BACKEND: Section = Section {
    name: "a backend",
    shape: "a table",
    meant: &[],
    intro: (
        "`backends`",
        "The long form of an entry of `backends`; a string is its `address`. An entry of `backends` is `ip:port`, \
         `[v6]:port`, `name:port` or `unix:/path`. Each address of a name is a backend of its own, with this weight.\n\n\
         ```toml fragment\n[cluster.web]\nbackends = [\n    \"10.0.0.1:8080\",\n    \
         { address = \"10.0.0.2:8080\", weight = 3 },\n    { address = \"10.0.0.3:8080\", backup = true },\n]\n```\n",
    ),
    keys: &[
        form(
            "address",
            "an address such as \"10.0.0.1:80\" or \"web.internal:80\"",
            Required,
            "Where it is reached.",
        ),
        integer(
            "weight",
            0..=1000,
            Is(1),
            "Its share of the traffic. A backend of weight 0 takes nothing new and finishes what it has.",
        ),
        boolean(
            "backup",
            false,
            "Used only while no backend without `backup` is healthy.",
        ),
    ],
};

pub(crate) static HASH_KEY: Section = Section {
    name: "`hash_key`",
    shape: "a table such as { header = \"x-user\" }",
    meant: &[],
    intro: (
        "`hash_key`",
        "A part of the request that `consistent_hash` hashes. The table has exactly one key.\n\n\
         ```toml fragment\n[cluster.web]\npolicy = \"consistent_hash\"\nhash_key = { cookie = \"sid\" }\n\
         backends = [\"10.0.0.1:8080\", \"10.0.0.2:8080\"]\n```\n",
    ),
    keys: &[
        form(
            "header",
            "the name of a field",
            Absent("not used"),
            "The value of this field.",
        ),
        form(
            "cookie",
            "the name of a cookie",
            Absent("not used"),
            "The value of this cookie.",
        ),
        form(
            "query",
            "the name of a parameter",
            Absent("not used"),
            "The value of this parameter of the query.",
        ),
    ],
};

pub(crate) static NAME_RESOLUTION: Section = Section {
    name: "`resolve`",
    shape: "a table such as { every = \"10s\", addresses = \"one\" }",
    meant: &[],
    intro: (
        "`resolve`",
        "The long form of `resolve`; a string is its `every`.\n\n\
         ```toml fragment\n[cluster.web]\nbackends = [\"web.internal:8080\"]\n\
         resolve = { every = \"5s\", addresses = \"one\" }\n```\n",
    ),
    keys: &[
        duration(
            "every",
            RESOLVE_EVERY,
            seconds(10),
            "Time between two look-ups of a name. A look-up that fails keeps the last answer.",
        ),
        word::<NameAddresses>(
            "addresses",
            "`all`: each address of a name is a backend. `one`: one address at a time, for names that a failover moves; \
             metrics and the hash ring know the name alone.",
        ),
    ],
};

pub(crate) static DISCOVER: Section = Section {
    name: "`discover`",
    shape: "a table such as { gossip = \"web\" }",
    meant: &[Meant::String("gossip")],
    intro: (
        "`discover`",
        "Where more backends of the cluster come from.\n\n\
         ```toml fragment\n[gossip]\naddress = \"127.0.0.1:7946\"\nallow_cidrs = [\"10.0.0.0/8\"]\n\n[cluster.web]\n\
         discover = { gossip = \"web\" }\ncheck = { http = \"/healthz\" }\n```\n",
    ),
    keys: &[form(
        "gossip",
        "the cluster that agents announce",
        Required,
        "What agents of the [peer set](#gossip) announce as this cluster. `check` decides which of them are used.",
    )],
};

/// Keys of a check that say what it asks; `expect` does so alone or together with `send`, and belongs to the body
/// beside `http`.
pub(crate) const CHECK_KINDS: [&str; 7] = [
    "http", "tcp", "send", "expect", "postgres", "mysql", "redis",
];
/// Keys of a check that only an http check has a use for.
pub(crate) const CHECK_DETAILS: [&str; 2] = ["status", "host"];

pub(crate) static CHECK: Section = Section {
    name: "`check`",
    shape: "a table such as { http = \"/healthz\" } or { tcp = true }",
    meant: &[Meant::String("http"), Meant::Boolean(true, "tcp = true")],
    intro: (
        "`check`",
        "An active health check, on a connection of its own. It asks in exactly one way: `http`, `tcp`, `expect` (with or \
         without `send`), `postgres`, `mysql` or `redis`.\n\n\
         ```toml fragment\n[cluster.web]\nbackends = [\"10.0.0.1:8080\"]\n\
         check = { http = \"/healthz\", interval = \"5s\", fall = 2 }\n```\n",
    ),
    keys: &[
        form(
            "http",
            "a path such as \"/healthz\"",
            Absent("another way to ask"),
            "`GET` of this path; redirects are not followed.",
        ),
        form(
            "tcp",
            "true or false, without quotes",
            Absent("another way to ask"),
            "`true`: a connection that opens passes.",
        ),
        form(
            "send",
            "the text to send",
            Absent("the server speaks first"),
            "Text that is sent before `expect` is read.",
        ),
        form(
            "expect",
            "a text of the answer",
            Absent("any body"),
            "Text within the first 64 KiB of the answer, or of the body of an `http` check.",
        ),
        form(
            "postgres",
            "the name of a user",
            Absent("another way to ask"),
            "A login of this user to PostgreSQL. No password is sent: the question for one passes too.",
        ),
        form(
            "mysql",
            "the name of a user",
            Absent("another way to ask"),
            "A login of this user to MySQL, without a password. A refusal of the user passes too.",
        ),
        form(
            "redis",
            "true or false, without quotes",
            Absent("another way to ask"),
            "`true`: the answer to a `PING` passes.",
        ),
        list(
            "status",
            "an array such as [\"2xx\", 404]",
            "\"2xx\", \"200\", \"200-299\" or 200",
            Is("[\"2xx\"]"),
            "Statuses that pass an `http` check.",
        ),
        form(
            "host",
            "a host such as \"web.internal\"",
            Absent("the backend's address or name"),
            "`Host` of an `http` check.",
        ),
        duration(
            "interval",
            PERIOD,
            seconds(2),
            "Time between the starts of two checks of a backend, give or take 5 %.",
        ),
        duration("timeout", PERIOD, seconds(1), "Time for a whole check."),
        integer(
            "rise",
            1..=100,
            Is(2),
            "Passes in a row that bring a backend up.",
        ),
        integer(
            "fall",
            1..=100,
            Is(3),
            "Failures in a row that take a backend down. One that has never passed is down after the first.",
        ),
        integer(
            "port",
            1..=65_535,
            Absent("the backend's port"),
            "Another port for the check.",
        ),
    ],
};

pub(crate) static TIMEOUTS: Section = Section {
    name: "a cluster's `timeouts`",
    shape: "a table such as { connect = \"1s\", response = \"30s\" }",
    meant: &[],
    intro: (
        "`cluster.timeouts`",
        "How long a backend may take. For the sessions of a tcp listener only `connect` has an effect.\n\n\
         ```toml fragment\n[cluster.web]\nbackends = [\"10.0.0.1:8080\"]\ntimeouts = { connect = \"2s\", response = \"60s\" }\n```\n",
    ),
    keys: &[
        duration("connect", TIMEOUT, seconds(1), "TCP handshake."),
        duration(
            "response",
            TIMEOUT,
            seconds(30),
            "From the end of the request to the head of the response.",
        )
        .for_requests(),
        duration(
            "body",
            TIMEOUT,
            seconds(300),
            "Longest silence within a response body, and longest time in which a backend takes nothing of a request body.",
        )
        .for_requests(),
        duration(
            "idle",
            TIMEOUT,
            seconds(30),
            "How long an unused connection is kept. A backend's own `Keep-Alive: timeout=N` is honoured, less 1 s.",
        )
        .for_requests(),
    ],
};

pub(crate) static RETRY: Section = Section {
    name: "`retry`",
    shape: "a table such as { attempts = 2 }, the first attempt included",
    meant: &[
        Meant::Integer("attempts"),
        Meant::Boolean(false, "attempts = 1"),
    ],
    intro: (
        "`retry`",
        "When a request is tried on another backend. After `reset` and `timeout` that is only done if no byte of the \
         response has come, the method is GET, HEAD, OPTIONS, PUT or DELETE, and the whole body is still at hand.\n\n\
         ```toml fragment\n[cluster.web]\nbackends = [\"10.0.0.1:8080\", \"10.0.0.2:8080\"]\n\
         retry = { attempts = 3, on = [\"connect\", \"reset\", \"timeout\"] }\n```\n",
    ),
    keys: &[
        integer(
            "attempts",
            1..=10,
            Is(2),
            "Attempts in all, the first included.",
        ),
        words::<RetryCause>(
            "on",
            &["connect", "reset"],
            "Failures after which an attempt is repeated: no connection, a connection that ended before the response, or \
             no response in time.",
        ),
    ],
};

pub(crate) static LIMITS: Section = Section {
    name: "a cluster's `limits`",
    shape: "a table such as { idle_connections = 256 }",
    meant: &[Meant::Integer("idle_connections")],
    intro: ("`cluster.limits`", "Connections to backends that are kept."),
    keys: &[integer(
        "idle_connections",
        0..=100_000,
        Is(256),
        "Unused connections that each worker keeps for each backend.",
    )
    .for_requests()],
};
