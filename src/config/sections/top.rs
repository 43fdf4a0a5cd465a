//! The top level of the file, `[admin]`, `[log]` and `[defaults]`.

use super::Otherwise::{Absent, Is, Required};
use super::{
    Meant, Section, boolean, bounded, cluster, duration, form, gossip, integer, list, listener,
    route, seconds, table, tables, word,
};
use crate::config::limits::{FROM_ZERO, MAX_PATTERNS};
use crate::model::settings::{LogFormat, LogLevel};

pub(crate) static TOP: Section = Section {
    name: "the top level of the file",
    shape: "a table",
    meant: &[],
    intro: (
        "Top level",
        "Keys that stand before the first section. All of them can be changed while the proxy runs, except `workers`.",
    ),
    keys: &[
        integer(
            "workers",
            1..=1024,
            Absent("one for each core"),
            "Threads that carry traffic. A reload that changes it applies everything else and logs that a restart is needed.",
        ),
        duration(
            "drain_timeout",
            FROM_ZERO,
            seconds(30),
            "How long sessions may continue at shutdown, and after their listener or backend has been removed.",
        ),
        duration(
            "shutdown_delay",
            FROM_ZERO,
            seconds(0),
            "How long listeners still accept after SIGTERM, while `/readyz` is 503, so that whatever sends traffic here can \
             turn away.",
        ),
        boolean(
            "watch",
            true,
            "Reload when a file of the configuration changes. SIGHUP always reloads.",
        ),
        bounded(
            MAX_PATTERNS,
            list(
                "include",
                "a pattern such as \"sites/*.toml\", or an array of them",
                "a pattern such as \"sites/*.toml\"",
                Absent("no other files"),
                "More files of this configuration, relative to this file. Their routes come after those of this file, in \
                 byte order of the paths. An included file cannot include others.",
            ),
        ),
        form(
            "state_dir",
            "an absolute path such as \"/var/lib/lbproxy\"",
            Absent(
                "`$STATE_DIRECTORY`, else `/var/lib/lbproxy` if it can be written, else the directory of this file",
            ),
            "Directory for what outlives the process, such as the last known members of the peer set.",
        ),
        table(
            "admin",
            &ADMIN,
            "The admin server. Without this section there is none.",
        ),
        table("log", &LOG, "Logs."),
        table(
            "gossip",
            &gossip::GOSSIP,
            "The peer set. Without this section the proxy is in none.",
        ),
        table(
            "defaults",
            &DEFAULTS,
            "What listeners and clusters take if they do not say otherwise.",
        ),
        tables(
            "listener",
            &listener::LISTENER,
            "Addresses that are bound; at least one.",
        ),
        tables(
            "route",
            &route::ROUTE,
            "Which requests go where. The first match in the file wins.",
        ),
        tables(
            "cluster",
            &cluster::CLUSTER,
            "Named sets of backends, each under one policy.",
        ),
    ],
};

pub(crate) static ADMIN: Section = Section {
    name: "[admin]",
    shape: "a table such as { address = \"127.0.0.1:9900\" }",
    meant: &[Meant::String("address")],
    intro: (
        "`[admin]`",
        "A read-only HTTP server with `/metrics`, `/healthz`, `/readyz` and `/api/v1/status`.\n\n\
         ```toml fragment\n[admin]\naddress = \"127.0.0.1:9900\"\n```\n",
    ),
    keys: &[form(
        "address",
        "an address such as \"127.0.0.1:9900\" or \"unix:/run/lbproxy.sock\"",
        Required,
        "Where it listens. A Unix socket has mode 0600.",
    )],
};

pub(crate) static LOG: Section = Section {
    name: "[log]",
    shape: "a table such as { level = \"info\" }",
    meant: &[Meant::String("level")],
    intro: (
        "`[log]`",
        "Events of the proxy itself go to stderr. The access log has one JSON object a line for each finished request or \
         session.\n\n\
         ```toml fragment\n[log]\nlevel = \"info\"\naccess = { file = \"access.log\", query = false }\n```\n",
    ),
    keys: &[
        word::<LogLevel>("level", "Least level of events that are logged."),
        word::<LogFormat>("format", "How events look; `json` is one object a line."),
        form(
            "access",
            "\"off\", \"stdout\" or { file = \"access.log\" }",
            Is("\"off\""),
            "Where the access log goes: a word, or the table below.",
        ),
    ],
};

pub(crate) static ACCESS: Section = Section {
    name: "`access`",
    shape: "a table such as { file = \"access.log\" }",
    meant: &[],
    intro: (
        "`log.access`",
        "The long form of `access`. It has exactly one of `to` and `file`.",
    ),
    keys: &[
        form(
            "to",
            "\"off\" or \"stdout\"",
            Absent("see `file`"),
            "A destination that is not a file.",
        ),
        form(
            "file",
            "the path of a file",
            Absent("see `to`"),
            "A file, relative to the configuration. SIGUSR1 opens it again after a rotation.",
        ),
        boolean(
            "query",
            true,
            "Whether targets and referers are logged with what follows `?`.",
        ),
    ],
};

pub(crate) static DEFAULTS: Section = Section {
    name: "[defaults]",
    shape: "a table",
    meant: &[],
    intro: (
        "`[defaults]`",
        "Values for every listener and every cluster that does not say otherwise. The tables `timeouts`, `limits`, `retry` \
         and `check` are filled key by key, everything else is taken whole. A check that asks in another way takes only \
         times and counts. A tcp listener takes no keys that are for requests.\n\n\
         ```toml fragment\n[defaults.listener]\ntimeouts = { idle = \"60s\" }\n\n[defaults.cluster]\n\
         retry = { attempts = 3 }\n```\n",
    ),
    keys: &[
        table(
            "listener",
            &listener::LISTENER,
            "Any key of `[[listener]]` except `name` and `address`.",
        ),
        table("cluster", &cluster::CLUSTER, "Any key of `[cluster.NAME]`."),
    ],
};
