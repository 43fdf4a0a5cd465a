//! `[[listener]]`.

use super::Inheritance::{Never, Whole};
use super::Otherwise::{Absent, Is, Required};
use super::{
    Meant, Section, answers, boolean, bounded, count_or_share, duration, form, integer, list,
    seconds, size, table, word,
};
use crate::config::limits::{
    BODY_BYTES, HEADER_BYTES, KIB, MAX_ADDRESSES, MAX_CONNECTIONS, MIB, TIB, TIMEOUT,
};
use crate::model::settings::Protocol;

pub(crate) static LISTENER: Section = Section {
    name: "[[listener]]",
    shape: "a table",
    meant: &[],
    intro: (
        "`[[listener]]`",
        "A bound address. What no [route](#route) takes goes to its `cluster`, or is answered by its `redirect` or \
         `respond`; it has at most one of the three. Without one of them an http listener answers 404, and a tcp listener \
         closes the connection. Keys that are for requests have no effect on a tcp listener.\n\n\
         ```toml fragment\n[[listener]]\naddress = \":8080\"\ncluster = \"web\"\n\n[[listener]]\naddress = \":80\"\n\
         redirect = \"https://{host}{uri}\"\n```\n",
    ),
    keys: &[
        form(
            "name",
            "a name",
            Absent("the first `address`"),
            "Label in metrics and logs.",
        )
        .inherited(Never),
        bounded(
            MAX_ADDRESSES,
            list(
                "address",
                "an address such as \":8080\", \"127.0.0.1:8080\" or \"unix:/run/lb.sock\", or an array of them",
                "an address such as \":8080\", \"127.0.0.1:8080\" or \"unix:/run/lb.sock\"",
                Required,
                "Where it listens: `ip:port`, `[v6]:port`, `:port` for all addresses, or `unix:/path`. Port 0 takes a free \
                 port, which the log and the status show.",
            ),
        )
        .inherited(Never),
        word::<Protocol>(
            "protocol",
            "`http` is HTTP/1.1 and HTTP/1.0 with upgrades such as WebSocket; `tcp` forwards bytes.",
        ),
        form(
            "cluster",
            "the name of a cluster",
            Absent("see above"),
            "Takes what no route takes.",
        ),
        form(
            "redirect",
            "a URL such as \"https://{host}{uri}\", or { to = …, status = … }",
            Absent("see above"),
            "Answers what no route takes with a redirect; see [`redirect`](#redirect).",
        )
        .inherited(Whole)
        .for_requests(),
        table(
            "respond",
            &answers::RESPOND,
            "Answers what no route takes with a fixed response.",
        )
        .inherited(Whole)
        .for_requests(),
        form(
            "errors",
            "a table such as { 4xx = \"client.json\", 503 = \"sorry.html\" }",
            Absent("short texts"),
            "Files in place of the proxy's own errors, by status from 400 to 599 or by class; a status goes before its \
             class. The files are relative to the configuration and hold at most 1 MiB each.",
        )
        .for_requests(),
        list(
            "trusted_proxies",
            "an array of networks, such as [\"10.0.0.0/8\"], and \"unix:\" for peers over Unix sockets",
            "a network such as \"10.0.0.0/8\" or \"fd00::/8\", or an address",
            Is("[]"),
            "Peers whose `X-Forwarded-*` are believed. They are not counted by `limits.connections_per_client`, which is \
             their only effect on a tcp listener.",
        ),
        boolean(
            "via",
            false,
            "Add `Via: 1.1 lbproxy` to requests and responses, as RFC 9110 7.6.3 asks. Off by default, since nginx does not \
             compress for a request with `Via` (`gzip_proxied`).",
        )
        .for_requests(),
        boolean(
            "expose_request_id",
            false,
            "Add `X-Request-Id` to all responses. The proxy's own always have it.",
        )
        .for_requests(),
        table("timeouts", &TIMEOUTS, "How long a client may take."),
        table("limits", &LIMITS, "How much a client may send, and how many there may be."),
        list(
            "http_versions",
            "an array of versions, such as [\"1.1\"]",
            "\"1.1\", in quotes",
            Is("[\"1.1\"]"),
            "Versions of HTTP that clients may speak. HTTP/2 is not supported yet.",
        )
        .for_requests(),
    ],
};

pub(crate) static TIMEOUTS: Section = Section {
    name: "a listener's `timeouts`",
    shape: "a table such as { header = \"10s\", idle = \"75s\" }",
    meant: &[],
    intro: (
        "`listener.timeouts`",
        "How long a client may take. On a tcp listener only `tunnel` has an effect.\n\n\
         ```toml fragment\n[[listener]]\naddress = \":8080\"\ncluster = \"web\"\n\
         timeouts = { idle = \"60s\", tunnel = \"4h\" }\n```\n",
    ),
    keys: &[
        duration(
            "header",
            TIMEOUT,
            seconds(10),
            "From the first byte of a request head to its end.",
        )
        .for_requests(),
        duration(
            "idle",
            TIMEOUT,
            seconds(75),
            "Between requests on a connection, and before the first.",
        )
        .for_requests(),
        duration(
            "request_body",
            TIMEOUT,
            seconds(30),
            "Longest silence within a request body.",
        )
        .for_requests(),
        duration(
            "write",
            TIMEOUT,
            seconds(30),
            "Longest time in which a client takes nothing of what is sent to it.",
        )
        .for_requests(),
        duration(
            "tunnel",
            TIMEOUT,
            seconds(3600),
            "Longest silence of a tcp session or an upgraded connection.",
        ),
    ],
};

pub(crate) static LIMITS: Section = Section {
    name: "a listener's `limits`",
    shape: "a table such as { connections = 10000 }",
    meant: &[Meant::Integer("connections")],
    intro: (
        "`listener.limits`",
        "How much a client may send, and how many clients there may be. A listener with several addresses has one limit of \
         connections for all of them. Sizes of heads and trailers count their line ends.\n\n\
         ```toml fragment\n[[listener]]\naddress = \":8080\"\ncluster = \"web\"\n\
         limits = { connections = 2000, connections_per_client = \"10%\", body_bytes = \"100MiB\" }\n```\n",
    ),
    keys: &[
        integer(
            "connections",
            1..=MAX_CONNECTIONS,
            Absent("what the limit of file descriptors allows"),
            "Connections at a time. At the limit the listener stops accepting, and counts it.",
        ),
        count_or_share(
            "connections_per_client",
            1..=MAX_CONNECTIONS,
            "no limit",
            "Connections at a time of one client address (IPv6: one /64 network), as a number or as a share of \
             `connections`.",
        ),
        size(
            "header_bytes",
            HEADER_BYTES,
            Is(32 * KIB),
            "Request line and fields.",
        )
        .for_requests(),
        integer("headers", 1..=1000, Is(100), "Number of fields.").for_requests(),
        size(
            "uri_bytes",
            16..=*HEADER_BYTES.end(),
            Is(8 * KIB),
            "Request target; at most `header_bytes`, and so is its default.",
        )
        .for_requests(),
        size("body_bytes", BODY_BYTES, Is(TIB), "Request body, decoded.").for_requests(),
        size(
            "trailer_bytes",
            0..=MIB,
            Is(8 * KIB),
            "Trailers of a chunked body.",
        )
        .for_requests(),
    ],
};
