//! `[[route]]`.

use super::Otherwise::{Absent, Required};
use super::{Section, answers, boolean, duration, form, list, size, table};
use crate::config::limits::{BODY_BYTES, TIMEOUT};

pub(crate) static ROUTE: Section = Section {
    name: "[[route]]",
    shape: "a table",
    meant: &[],
    intro: (
        "`[[route]]`",
        "Which requests go where. The first match in the file wins, and what a route does not mention matches everything. \
         A route has exactly one of `cluster`, `redirect` and `respond`. `listeners`, `host`, `path`, `method` and `client` \
         take one value or an array, of which any may match; a route has at most 10,000 pairs of a host and a path.\n\n\
         ```toml fragment\n[[route]]\nhost = \"api.example.com\"\npath = \"/v1/*\"\ncluster = \"web\"\n\n[[route]]\n\
         path = \"/ping\"\nrespond = { body = \"pong\" }\n```\n",
    ),
    keys: &[
        form(
            "name",
            "a name such as \"api\"",
            Absent("hosts and paths as written, and no metrics"),
            "Name in the access log, and label of `lbproxy_route_requests_total`.",
        ),
        list(
            "listeners",
            "the name of a listener, or an array of them",
            "the name of a listener, or an array of them",
            Absent("all http listeners"),
            "Listeners whose requests it takes.",
        ),
        list(
            "host",
            "a host such as \"api.example.com\", or an array of them",
            "a host such as \"api.example.com\", or an array of them",
            Absent("any host"),
            "Exact, or `*.example.com` for all names below it. Case, port, a trailing dot and the spelling of an IPv6 \
             address do not matter.",
        ),
        list(
            "path",
            "a path such as \"/v1/*\", or an array of them",
            "a path such as \"/v1/*\", or an array of them",
            Absent("any path"),
            "`/x` is that path, `/x/*` is `/x` and everything below it, `/x*` is a prefix in bytes. Paths are compared byte \
             for byte, as they are forwarded.",
        ),
        form(
            "path_regex",
            "an expression such as \"^/v[0-9]+/\"",
            Absent("any path"),
            "Regular expression in place of `path`. It takes linear time and is anchored only where it says so.",
        ),
        list(
            "method",
            "a method such as \"GET\", or an array of them",
            "a method such as \"GET\", or an array of them",
            Absent("any method"),
            "Methods, which are case-sensitive.",
        ),
        form(
            "header",
            "a table such as { \"x-canary\" = \"1\" }",
            Absent("any fields"),
            "Fields that the request must have: a value that must be equal, or a [pattern](#header-and-query).",
        ),
        form(
            "query",
            "a table such as { \"x-canary\" = \"1\" }",
            Absent("any parameters"),
            "Parameters that the query must have, likewise.",
        ),
        list(
            "client",
            "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address",
            "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address",
            Absent("any client"),
            "Networks of the client address. Trusted proxies say who the client is.",
        ),
        form(
            "cluster",
            "the name of a cluster",
            Absent("see above"),
            "Send the request to this cluster.",
        ),
        form(
            "redirect",
            "a URL such as \"https://{host}{uri}\", or { to = …, status = … }",
            Absent("see above"),
            "Answer with a redirect; see [`redirect`](#redirect).",
        ),
        table(
            "respond",
            &answers::RESPOND,
            "Answer with a fixed response.",
        ),
        duration(
            "timeout",
            TIMEOUT,
            Absent("bounded only by the other timeouts"),
            "Limit for the whole request.",
        ),
        table(
            "limits",
            &LIMITS,
            "Limits in place of those of the listener.",
        ),
        form(
            "errors",
            "a table such as { 4xx = \"client.json\", 503 = \"sorry.html\" }",
            Absent("those of the listener"),
            "Files in place of the proxy's own errors, before those of the listener.",
        ),
        boolean("log", true, "Whether its requests are in the access log."),
    ],
};

pub(crate) static LIMITS: Section = Section {
    name: "a route's `limits`",
    shape: "a table",
    meant: &[],
    intro: (
        "`route.limits`",
        "Limits in place of those of the listener.",
    ),
    keys: &[size(
        "body_bytes",
        BODY_BYTES,
        Absent("that of the listener"),
        "Request body, decoded.",
    )],
};

pub(crate) static VALUE: Section = Section {
    name: "a pattern of `header` or `query`",
    shape: "a table",
    meant: &[],
    intro: (
        "`header` and `query`",
        "The long form of a value that a field or a parameter must have.\n\n\
         ```toml fragment\n[[route]]\nheader = { \"x-canary\" = { present = true } }\ncluster = \"web\"\n```\n",
    ),
    keys: &[form(
        "present",
        "true or false",
        Required,
        "Whether there must be such a field or parameter, or must not be.",
    )],
};
