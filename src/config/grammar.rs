//! Texts with a grammar of their own: units, names, hosts, paths, tokens, templates, expressions. Each function is
//! pure: it takes a text and returns the value, or what was expected instead.
//!
//! Grammars: host and path RFC 3986 3.2.2 and 3.3, token RFC 9110 5.6.2, field value RFC 9110 5.5.

use std::net::Ipv6Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use regex::bytes::{Regex, RegexBuilder};

use super::diagnostics::suggest::{Suggester, one_of};
use crate::model::units::{parse_duration, parse_size, show_duration, show_size};
use crate::route::host::{HOST_BYTES, canonical};
use crate::route::rule::{HostPattern, PathPattern};

/// What a duration looks like.
pub(super) const DURATION: &str = "a duration such as \"250ms\", \"10s\", \"5m\", \"1h\" or \"1d\"";
/// What a size looks like.
pub(super) const SIZE: &str = "a size such as \"512B\", \"64KiB\", \"10MiB\", \"1GiB\" or \"1TiB\"";
/// Longest name of a listener or a cluster: it is a label of every metric.
const MAX_NAME: usize = 128;
/// Longest name of a user of a database.
const MAX_USER: usize = 128;
/// Memory that one compiled expression may take.
const MAX_REGEX: usize = 1 << 20;
/// What a template may contain.
const PLACEHOLDERS: [&str; 4] = ["host", "uri", "path", "query"];

/// A duration in `range`.
pub(super) fn duration_in(
    text: &str,
    range: &RangeInclusive<Duration>,
) -> Result<Duration, String> {
    let value = parse_duration(text).map_err(|why| format!("{why}; expected {DURATION}"))?;
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (show_duration(*range.start()), show_duration(*range.end()));
    Err(format!(
        "expected a duration from \"{least}\" to \"{most}\""
    ))
}

/// A number of bytes in `range`.
pub(super) fn size_in(text: &str, range: &RangeInclusive<u64>) -> Result<u64, String> {
    let value = parse_size(text).map_err(|why| format!("{why}; expected {SIZE}"))?;
    if range.contains(&value) {
        return Ok(value);
    }
    let (least, most) = (show_size(*range.start()), show_size(*range.end()));
    Err(format!("expected a size from \"{least}\" to \"{most}\""))
}

/// The ratio that a share such as `"50%"` stands for. Its size is not checked.
pub(super) fn share(text: &str) -> Option<f64> {
    let percent: f64 = text.strip_suffix('%')?.parse().ok()?;
    Some(percent / 100.0)
}

/// The path of a file, which need not exist.
pub(super) fn file_path(text: &str) -> Result<PathBuf, String> {
    let legal = !text.is_empty() && !text.contains('\0');
    legal
        .then(|| PathBuf::from(text))
        .ok_or_else(|| "expected the path of a file".to_owned())
}

/// The name of a listener or a cluster.
pub(super) fn name(text: &str) -> Result<String, String> {
    let legal = !text.is_empty() && text.len() <= MAX_NAME && !text.chars().any(char::is_control);
    legal.then(|| text.to_owned()).ok_or_else(|| {
        format!("expected a name of 1 to {MAX_NAME} bytes without control characters")
    })
}

/// A token, such as a method or the name of a field or a cookie.
pub(super) fn token(text: &str) -> Result<&str, String> {
    let legal = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b));
    legal
        .then_some(text)
        .ok_or_else(|| "expected letters, digits or any of !#$%&'*+-.^_`|~".to_owned())
}

/// The name of a field, in lower case.
pub(super) fn field_name(text: &str) -> Result<String, String> {
    token(text).map(str::to_ascii_lowercase)
}

/// The value that a field or a parameter is compared with.
pub(super) fn field_value(text: &str) -> Result<String, String> {
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("expected a value without control characters".to_owned());
    }
    if text.trim_matches([' ', '\t']) != text {
        return Err(
            "expected a value without blanks around it, since a field value has none".to_owned(),
        );
    }
    Ok(text.to_owned())
}

/// `"api.example.com"` or `"*.example.com"`.
pub(super) fn host(text: &str) -> Result<HostPattern, String> {
    let lower = text.to_ascii_lowercase();
    if text == "*" {
        return Err("expected a host; leave `host` out to match all".to_owned());
    }
    if let Some(v6) = text.strip_prefix('[') {
        let inner = v6.strip_suffix(']').map(str::parse::<Ipv6Addr>);
        return match inner {
            Some(Ok(_)) => {
                let mut room = [0; HOST_BYTES];
                let form = canonical(text.as_bytes(), &mut room);
                Ok(HostPattern::Exact(
                    String::from_utf8_lossy(form).into_owned(),
                ))
            }
            _ => Err("expected an address such as \"[::1]\", without a port".to_owned()),
        };
    }
    if text.contains(':') {
        return Err("expected a host without a port, which does not matter".to_owned());
    }
    if text.ends_with('.') {
        return Err("expected a host without a dot at its end, which does not matter".to_owned());
    }
    if !text.is_ascii() {
        return Err("expected the ASCII form of the name, such as \"xn--…\"".to_owned());
    }
    let (name, under) = match lower.strip_prefix("*.") {
        Some(name) => (name, true),
        None => (lower.as_str(), false),
    };
    if name.contains('*') {
        return Err(
            "expected `*` only as the whole first label, as in \"*.example.com\"".to_owned(),
        );
    }
    if !is_host_name(name) {
        return Err("expected a host such as \"api.example.com\" or \"*.example.com\"".to_owned());
    }
    Ok(match under {
        true => HostPattern::Under(name.to_owned()),
        false => HostPattern::Exact(lower),
    })
}

fn is_host_name(name: &str) -> bool {
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
    };
    name.len() <= 253 && name.split('.').all(is_label)
}

/// `"/v1/users"`, `"/v1/*"` for `/v1` and everything below it, or any other prefix that ends in `*`.
pub(super) fn path(text: &str) -> Result<PathPattern, String> {
    if !text.starts_with('/') && text != "*" {
        return Err("expected a path that begins with \"/\", or \"*\" for all paths".to_owned());
    }
    if text.contains('?') {
        return Err(
            "expected a path without a query; parameters are matched by `query`".to_owned(),
        );
    }
    visible(text)?;
    Ok(match (text.strip_suffix("/*"), text.strip_suffix('*')) {
        (Some(path), _) if !path.is_empty() => PathPattern::Below(path.to_owned()),
        (_, Some(prefix)) => PathPattern::Prefix(prefix.to_owned()),
        _ => PathPattern::Exact(text.to_owned()),
    })
}

/// The target of a health check: a path, perhaps with a query.
pub(super) fn target(text: &str) -> Result<String, String> {
    if !text.starts_with('/') {
        return Err("expected a path that begins with \"/\"".to_owned());
    }
    visible(text)?;
    Ok(text.to_owned())
}

/// The `Host` field of a health check.
pub(super) fn check_host(text: &str) -> Result<String, String> {
    let legal = !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !b"/?#@,".contains(&b));
    legal
        .then(|| text.to_owned())
        .ok_or_else(|| "expected a host, perhaps with a port, such as \"web.internal\"".to_owned())
}

/// Paths are compared byte for byte as they are forwarded, and a forwarded path has visible ASCII characters only.
fn visible(text: &str) -> Result<(), String> {
    match text.chars().find(|c| !c.is_ascii_graphic() || *c == '#') {
        None => Ok(()),
        Some(c) => {
            let mut bytes = [0; 4];
            let bytes = c.encode_utf8(&mut bytes).bytes();
            let encoded: String = bytes.map(|byte| format!("%{byte:02X}")).collect();
            Err(format!(
                "a request has this character only as \"{encoded}\""
            ))
        }
    }
}

/// A template for `Location`.
pub(super) fn template(text: &str) -> Result<String, String> {
    let known = || one_of(["{host}", "{uri}", "{path}", "{query}"], '"');
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err("expected a URL without blanks, such as \"https://{host}{uri}\"".to_owned());
    }
    let mut rest = text;
    while let Some(at) = rest.find(['{', '}']) {
        let inside = rest[at..]
            .strip_prefix('{')
            .and_then(|open| open.split_once('}'));
        let Some((inside, after)) = inside else {
            return Err(format!("a brace without its partner; expected {}", known()));
        };
        if !PLACEHOLDERS.contains(&inside) {
            let near = Suggester::default().nearest(inside, PLACEHOLDERS);
            let hint = near.map_or(String::new(), |near| {
                format!("; did you mean \"{{{near}}}\"?")
            });
            return Err(format!("expected {}{hint}", known()));
        }
        rest = after;
    }
    Ok(text.to_owned())
}

/// Why an expression cannot be used, and where the reason stands in it, as a byte range.
#[derive(Debug)]
pub(super) struct RegexProblem {
    pub message: String,
    pub span: Option<std::ops::Range<usize>>,
}

/// An expression over the bytes of a path. `.` and the classes mean bytes, so no Unicode tables are needed.
pub(super) fn path_regex(text: &str) -> Result<Regex, RegexProblem> {
    let parsed = regex_syntax::ParserBuilder::new()
        .unicode(false)
        .utf8(false)
        .build()
        .parse(text);
    if let Err(error) = parsed {
        return Err(regex_problem(&error));
    }
    RegexBuilder::new(text)
        .unicode(false)
        .size_limit(MAX_REGEX)
        .build()
        .map_err(|_| RegexProblem {
            message: format!(
                "the expression needs more than {} when it is compiled",
                show_size(MAX_REGEX as u64)
            ),
            span: None,
        })
}

fn regex_problem(error: &regex_syntax::Error) -> RegexProblem {
    let (message, span) = match error {
        regex_syntax::Error::Parse(error) => (error.kind().to_string(), Some(error.span())),
        regex_syntax::Error::Translate(error) => (error.kind().to_string(), Some(error.span())),
        _ => ("not an expression".to_owned(), None),
    };
    RegexProblem {
        message,
        span: span.map(|span| span.start.offset..span.end.offset),
    }
}

/// Text that an answer must contain.
pub(super) fn expected_text(text: &str) -> Result<String, String> {
    match text {
        "" => Err("expected at least one character".to_owned()),
        text => Ok(text.to_owned()),
    }
}

/// The name of a user of a database.
pub(super) fn user_name(text: &str) -> Result<String, String> {
    let legal = (1..=MAX_USER).contains(&text.len()) && !text.contains(char::is_control);
    legal.then(|| text.to_owned()).ok_or_else(|| {
        format!("expected the name of a user, at most {MAX_USER} bytes without control characters")
    })
}

/// The name of a parameter of a query.
pub(super) fn parameter_name(text: &str) -> Result<String, String> {
    let legal = !text.is_empty() && !text.chars().any(char::is_control);
    legal
        .then(|| text.to_owned())
        .ok_or_else(|| "expected the name of a parameter".to_owned())
}

/// An inclusive range of status codes: `"2xx"`, `"200"` or `"200-299"`.
pub(super) fn statuses(text: &str) -> Result<(u16, u16), String> {
    let expected = || "expected \"2xx\", \"200\" or \"200-299\", from 200 to 599".to_owned();
    let code = |text: &str| -> Option<u16> {
        (text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit()))
            .then(|| text.parse().ok())
            .flatten()
    };
    let range = if let Some(class) = text.strip_suffix("xx") {
        code(&format!("{class}00")).map(|first| (first, first + 99))
    } else if let Some((first, last)) = text.split_once('-') {
        code(first).zip(code(last))
    } else {
        code(text).map(|code| (code, code))
    };
    range
        .filter(|(first, last)| 200 <= *first && first <= last && *last <= 599)
        .ok_or_else(expected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for (text, pattern) in [
            (
                "API.example.com",
                HostPattern::Exact("api.example.com".into()),
            ),
            ("*.Example.com", HostPattern::Under("example.com".into())),
            ("10.0.0.1", HostPattern::Exact("10.0.0.1".into())),
            ("[::1]", HostPattern::Exact("[::1]".into())),
            (
                "[2001:DB8:0::01]",
                HostPattern::Exact("[2001:db8::1]".into()),
            ),
            ("my_host", HostPattern::Exact("my_host".into())),
        ] {
            assert_eq!(host(text), Ok(pattern), "{text}");
        }
        for text in [
            "",
            "*",
            "*.",
            "a.*.b",
            "*a.b",
            "a.",
            "a:80",
            "[::1]:80",
            "[::1",
            "a..b",
            "a..",
            ".a",
            "*..a",
            "bücher.de",
            "a b",
            "a/b",
        ] {
            assert!(host(text).is_err(), "{text}");
        }
    }

    #[test]
    fn paths() {
        let shown = |text| format!("{:?}", path(text));
        assert_eq!(shown("/v1/*"), "Ok(Below(\"/v1\"))");
        assert_eq!(shown("/v1*"), "Ok(Prefix(\"/v1\"))");
        assert_eq!(shown("/*"), "Ok(Prefix(\"/\"))");
        assert_eq!(shown("//*"), "Ok(Below(\"/\"))");
        assert_eq!(shown("/v1"), "Ok(Exact(\"/v1\"))");
        assert_eq!(shown("*"), "Ok(Prefix(\"\"))");
        for text in ["", "v1", "v1/*", "/a?b", "/a b", "/é", "/a#b", "/\u{0}"] {
            assert!(path(text).is_err(), "{text}");
        }
        assert_eq!(
            path("/é").map(drop),
            Err("a request has this character only as \"%C3%A9\"".to_owned())
        );
    }

    #[test]
    fn status_ranges() {
        for (text, range) in [
            ("2xx", (200, 299)),
            ("204", (204, 204)),
            ("200-399", (200, 399)),
        ] {
            assert_eq!(statuses(text), Ok(range), "{text}");
        }
        for text in [
            "", "xx", "1xx", "6xx", "20", "2000", "+20", "299-200", "200-", "200-600", "2Xx",
        ] {
            assert!(statuses(text).is_err(), "{text}");
        }
    }

    #[test]
    fn templates() {
        assert!(template("https://{host}{uri}?a={path}&{query}").is_ok());
        for text in [
            "", "{", "}", "a{host", "{hosts}", "{}", "a b", "é", "}{host}",
        ] {
            assert!(template(text).is_err(), "{text}");
        }
        assert!(
            template("{hsot}")
                .unwrap_err()
                .ends_with("did you mean \"{host}\"?")
        );
    }

    #[test]
    fn expressions() {
        assert!(
            path_regex(r"^/v\d+/(?i:users)/[^/]+$")
                .unwrap()
                .is_match(b"/v1/USERS/x")
        );
        let problem = path_regex("^/v(1").unwrap_err();
        assert_eq!(
            (problem.message.as_str(), problem.span),
            ("unclosed group", Some(3..4))
        );
        let problem = path_regex("(a{1000}){1000}").unwrap_err();
        assert_eq!(problem.span, None);
        assert!(path_regex(&"(".repeat(10_000)).is_err());
    }

    #[test]
    fn names_tokens_and_values() {
        assert!(name("web").is_ok() && name("").is_err() && name("a\nb").is_err());
        assert!(name(&"a".repeat(MAX_NAME + 1)).is_err());
        assert_eq!(field_name("X-User"), Ok("x-user".to_owned()));
        assert!(field_name("x user").is_err() && token("").is_err() && token("é").is_err());
        assert!(
            field_value("").is_ok() && field_value(" a").is_err() && field_value("a\r\n").is_err()
        );
        assert!(
            target("/healthz?deep=1").is_ok()
                && target("healthz").is_err()
                && target("/ ").is_err()
        );
        assert!(
            check_host("web:80").is_ok() && check_host("a/b").is_err() && check_host("").is_err()
        );
    }
}
