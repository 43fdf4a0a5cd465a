//! Every table of the file and the keys that it may hold: the one list from which unknown keys are told, near
//! ones are suggested, and the full sample is tested for completeness. A key that does not work is not here.

/// A kind of table.
#[derive(Debug)]
pub(super) struct Section {
    /// As messages call it.
    pub name: &'static str,
    /// Keys in the order in which people write them.
    pub keys: &'static [&'static str],
}

pub(super) const TOP: Section = Section {
    name: "the top level of the file",
    keys: &[
        "workers",
        "drain_timeout",
        "shutdown_delay",
        "watch",
        "include",
        "state_dir",
        "admin",
        "log",
        "gossip",
        "defaults",
        "listener",
        "route",
        "cluster",
    ],
};

pub(super) const DEFAULTS: Section = Section {
    name: "[defaults]",
    keys: &["listener", "cluster"],
};

/// Keys of a listener that are its own.
pub(super) const NOT_INHERITED: &[&str] = &["name", "address"];

/// What only requests are asked for, so that it has no effect on a tcp listener. `trusted_proxies` is not here: its
/// peers have no limit of `connections_per_client`.
pub(super) const HTTP_LISTENER: &[&str] = &[
    "redirect",
    "respond",
    "errors",
    "http_versions",
    "expose_request_id",
    "via",
];

/// Likewise, of a listener's `timeouts`.
pub(super) const HTTP_LISTENER_TIMEOUTS: &[&str] = &["header", "idle", "request_body", "write"];

/// Likewise, of a listener's `limits`.
pub(super) const HTTP_LISTENER_LIMITS: &[&str] = &[
    "header_bytes",
    "headers",
    "uri_bytes",
    "body_bytes",
    "trailer_bytes",
];

/// Likewise, of a cluster: tables with the keys in them, or the key itself.
pub(super) const HTTP_CLUSTER: &[(&str, &[&str])] = &[
    ("http_version", &[]),
    ("timeouts", &["response", "body", "idle"]),
    ("limits", &["idle_connections"]),
];

/// Likewise, of what `retry.on` may hold: once bytes have gone, nothing says that they may go again.
pub(super) const HTTP_RETRY_ON: &[&str] = &["reset", "timeout"];

pub(super) const ADMIN: Section = Section {
    name: "[admin]",
    keys: &["address"],
};

pub(super) const LOG: Section = Section {
    name: "[log]",
    keys: &["level", "format", "access"],
};

pub(super) const ACCESS: Section = Section {
    name: "`access`",
    keys: &["to", "file", "query"],
};

pub(super) const GOSSIP: Section = Section {
    name: "[gossip]",
    keys: &[
        "address",
        "advertise",
        "seeds",
        "label",
        "key_file",
        "key_files",
        "token_key",
        "revoked",
        "allow_cidrs",
        "insecure_plaintext",
        "members_file",
    ],
};

pub(super) const LISTENER: Section = Section {
    name: "[[listener]]",
    keys: &[
        "name",
        "address",
        "protocol",
        "cluster",
        "redirect",
        "respond",
        "errors",
        "trusted_proxies",
        "via",
        "expose_request_id",
        "timeouts",
        "limits",
        "http_versions",
    ],
};

pub(super) const LISTENER_TIMEOUTS: Section = Section {
    name: "a listener's `timeouts`",
    keys: &["header", "idle", "request_body", "write", "tunnel"],
};

pub(super) const LISTENER_LIMITS: Section = Section {
    name: "a listener's `limits`",
    keys: &[
        "connections",
        "connections_per_client",
        "header_bytes",
        "headers",
        "uri_bytes",
        "body_bytes",
        "trailer_bytes",
    ],
};

pub(super) const ROUTE: Section = Section {
    name: "[[route]]",
    keys: &[
        "name",
        "listeners",
        "host",
        "path",
        "path_regex",
        "method",
        "header",
        "query",
        "client",
        "cluster",
        "redirect",
        "respond",
        "timeout",
        "limits",
        "errors",
        "log",
    ],
};

pub(super) const ROUTE_LIMITS: Section = Section {
    name: "a route's `limits`",
    keys: &["body_bytes"],
};

pub(super) const VALUE: Section = Section {
    name: "a pattern of `header` or `query`",
    keys: &["present"],
};

pub(super) const REDIRECT: Section = Section {
    name: "`redirect`",
    keys: &["to", "status"],
};

pub(super) const RESPOND: Section = Section {
    name: "`respond`",
    keys: &["status", "body", "file", "content_type", "headers"],
};

pub(super) const CLUSTER: Section = Section {
    name: "[cluster.NAME]",
    keys: &[
        "policy",
        "hash_key",
        "hash_seed",
        "backends",
        "resolve",
        "discover",
        "check",
        "timeouts",
        "retry",
        "limits",
        "panic_threshold",
        "on_down",
        "on_up",
        "http_version",
    ],
};

pub(super) const RESOLVE: Section = Section {
    name: "`resolve`",
    keys: &["every", "addresses"],
};

pub(super) const HASH_KEY: Section = Section {
    name: "`hash_key`",
    keys: &["header", "cookie", "query"],
};

pub(super) const BACKEND: Section = Section {
    name: "a backend",
    keys: &["address", "weight", "backup"],
};

pub(super) const DISCOVER: Section = Section {
    name: "`discover`",
    keys: &["gossip"],
};

pub(super) const CHECK: Section = Section {
    name: "`check`",
    keys: &[
        "http", "tcp", "send", "expect", "postgres", "mysql", "redis", "status", "host",
        "interval", "timeout", "rise", "fall", "port",
    ],
};

pub(super) const CLUSTER_TIMEOUTS: Section = Section {
    name: "a cluster's `timeouts`",
    keys: &["connect", "response", "body", "idle"],
};

pub(super) const RETRY: Section = Section {
    name: "`retry`",
    keys: &["attempts", "on"],
};

pub(super) const CLUSTER_LIMITS: Section = Section {
    name: "a cluster's `limits`",
    keys: &["idle_connections"],
};

/// An agent's file, which has no other table.
pub(super) const AGENT: Section = Section {
    name: "an agent's file",
    keys: &[
        "cluster",
        "backend",
        "weight",
        "zone",
        "name",
        "build",
        "check",
        "interval",
        "timeout",
        "address",
        "advertise",
        "seeds",
        "label",
        "key_file",
        "token_file",
        "insecure_plaintext",
        "drain_timeout",
        "drain_delay",
        "once",
        "level",
    ],
};

/// All of the proxy's file.
pub(super) const ALL: [&Section; 23] = [
    &TOP,
    &ADMIN,
    &LOG,
    &ACCESS,
    &GOSSIP,
    &DEFAULTS,
    &LISTENER,
    &LISTENER_TIMEOUTS,
    &LISTENER_LIMITS,
    &ROUTE,
    &ROUTE_LIMITS,
    &VALUE,
    &REDIRECT,
    &RESPOND,
    &CLUSTER,
    &RESOLVE,
    &HASH_KEY,
    &BACKEND,
    &DISCOVER,
    &CHECK,
    &CLUSTER_TIMEOUTS,
    &RETRY,
    &CLUSTER_LIMITS,
];

/// The one section that has `key`, if it is one and can stand in the file that `section` stands in.
pub(super) fn only_home(key: &str, section: &Section) -> Option<&'static Section> {
    if section.name == AGENT.name {
        return None;
    }
    let mut homes = ALL.iter().filter(|section| section.keys.contains(&key));
    let first = homes.next()?;
    homes.next().is_none().then_some(first)
}

/// What the readers have asked for and found, so that a test can tell a listed key that nobody reads and one that
/// the full sample lacks.
#[cfg(test)]
pub(super) mod seen {
    use std::cell::RefCell;
    use std::collections::BTreeSet;

    thread_local! {
        static SEEN: RefCell<BTreeSet<(&'static str, &'static str)>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// Notes a key of a section that was read.
    pub(crate) fn note(section: &'static str, key: &'static str) {
        SEEN.with_borrow_mut(|seen| seen.insert((section, key)));
    }

    /// What this thread has read so far.
    pub(crate) fn take() -> BTreeSet<(&'static str, &'static str)> {
        SEEN.take()
    }
}
