//! `redirect` and `respond`, which listeners and routes share.

use super::Otherwise::{Absent, Is, Required};
use super::{Meant, Section, form, integer, one_of};

/// What a listener or a route does with a request: at most one of these keys.
pub(crate) const ACTIONS: [&str; 3] = ["cluster", "redirect", "respond"];

pub(crate) static REDIRECT: Section = Section {
    name: "`redirect`",
    shape: "a table such as { to = \"https://{host}{uri}\", status = 308 }",
    meant: &[],
    intro: (
        "`redirect`",
        "The long form of `redirect`, of a listener or a route; a string is its `to`.\n\n\
         ```toml fragment\n[[route]]\nhost = \"example.org\"\n\
         redirect = { to = \"https://www.example.org{uri}\", status = 301 }\n```\n",
    ),
    keys: &[
        form(
            "to",
            "a URL such as \"https://{host}{uri}\"",
            Required,
            "The `Location`, in which `{host}`, `{uri}`, `{path}` and `{query}` stand for parts of the request.",
        ),
        one_of(
            "status",
            &[301, 302, 303, 307, 308],
            308,
            "Status of the response.",
        ),
    ],
};

pub(crate) static RESPOND: Section = Section {
    name: "`respond`",
    shape: "a table such as { status = 200, body = \"ok\" }",
    meant: &[Meant::Integer("status")],
    intro: (
        "`respond`",
        "A fixed response, of a listener or a route. Without `body` and `file` it is empty, except that an error status \
         gets its page from `errors`.\n\n\
         ```toml fragment\n[[route]]\npath = \"/robots.txt\"\n\
         respond = { body = \"User-agent: *\\nDisallow: /\\n\", headers = { \"Cache-Control\" = \"max-age=3600\" } }\n```\n",
    ),
    keys: &[
        integer("status", 200..=599, Is(200), "Status of the response."),
        form(
            "body",
            "text",
            Absent("see above"),
            "The body, at most 64 KiB.",
        ),
        form(
            "file",
            "the path of a file",
            Absent("see above"),
            "A file in place of `body`, relative to the configuration, at most 1 MiB. It is read with the configuration.",
        ),
        form(
            "content_type",
            "a type such as \"application/json\"",
            Absent("that of the file's extension, or plain text"),
            "The `Content-Type`.",
        ),
        form(
            "headers",
            "a table such as { \"Retry-After\" = \"30\" }",
            Absent("none"),
            "More fields. Those that frame the message and those that the proxy writes itself are refused.",
        ),
    ],
};
