//! The words of one rule: patterns of host, path, method, field, query and client.
//!
//! The configuration loader checks them and writes hosts and field names in lower case. Host, exact path and prefix
//! are answered by the index of the table; what is left of a rule, `Rule::holds` decides here.
//!
//! A query is taken as it was sent: its parameters stand between `&`, a name ends at the first `=`, one without `=`
//! has the empty value, and nothing is decoded (`%41` is not `A`, `+` is no space), so that the route that is taken
//! and the query that the backend reads are the same bytes.

use ipnet::IpNet;
use regex::bytes::Regex;

use super::RequestView;
use super::normal::all_readings;

/// Host of a rule, in lower case without a trailing dot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// That host.
    Exact(String),
    /// `*.example.com`: any host with at least one label more than `example.com` (kept without the `*.`).
    Under(String),
}

/// Path of a rule.
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// That path.
    Exact(String),
    /// Every path that begins so, byte for byte; written with a `*` at the end.
    Prefix(String),
    /// That path, and every one that goes on behind it with a `/`; written with `/*` at the end.
    Below(String),
    /// Every path that the expression matches; it is anchored at neither end.
    Regex(Regex),
}

/// Expressions are compared by their text: all are made with the same options.
impl PartialEq for PathPattern {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exact(a), Self::Exact(b))
            | (Self::Prefix(a), Self::Prefix(b))
            | (Self::Below(a), Self::Below(b)) => a == b,
            (Self::Regex(a), Self::Regex(b)) => a.as_str() == b.as_str(),
            _ => false,
        }
    }
}

impl PathPattern {
    /// Whether it also takes every reading of what it takes. If not, requests for it are ambiguous.
    pub fn is_normal(&self) -> bool {
        let survives = |path: &str, holds: &dyn Fn(&[u8]) -> bool| {
            !path.starts_with('/') || all_readings(path.as_bytes(), holds)
        };
        match self {
            Self::Exact(text) | Self::Below(text) => {
                survives(text, &|reading| reading == text.as_bytes())
            }
            // What stands behind a prefix must not be able to change it.
            Self::Prefix(text) => survives(&format!("{text}x"), &|reading| {
                reading.starts_with(text.as_bytes())
            }),
            Self::Regex(_) => true,
        }
    }
}

/// What a rule asks of a field or of a query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePattern {
    /// One of its values is this, byte for byte.
    Exact(String),
    /// There is one (`true`), or there is none (`false`).
    Present(bool),
}

/// One rule; an empty list matches all.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule<T> {
    /// Hosts, any of them.
    pub hosts: Vec<HostPattern>,
    /// Paths, any of them; an expression stands alone.
    pub paths: Vec<PathPattern>,
    /// Methods, any of them.
    pub methods: Vec<String>,
    /// Fields (names in lower case), all of them.
    pub headers: Vec<(String, ValuePattern)>,
    /// Query parameters, all of them.
    pub query: Vec<(String, ValuePattern)>,
    /// Client networks, any of them.
    pub clients: Vec<IpNet>,
    /// What is done with a request that matches.
    pub target: T,
}

impl ValuePattern {
    /// `any` says whether one of the values passes a test.
    fn accepts(&self, any: impl FnOnce(&mut dyn FnMut(&[u8]) -> bool) -> bool) -> bool {
        match self {
            Self::Exact(wanted) => any(&mut |value| value == wanted.as_bytes()),
            Self::Present(wanted) => any(&mut |_| true) == *wanted,
        }
    }
}

impl<T> Rule<T> {
    /// Whether host and path alone decide, so that [`Self::holds`] is always true.
    pub(super) fn is_plain(&self) -> bool {
        self.methods.is_empty()
            && self.headers.is_empty()
            && self.query.is_empty()
            && self.clients.is_empty()
            && self.regex().is_none()
    }

    fn regex(&self) -> Option<&Regex> {
        self.paths.iter().find_map(|path| match path {
            PathPattern::Regex(regex) => Some(regex),
            _ => None,
        })
    }

    /// Whether all that the index does not answer matches: everything but host, exact path and prefix. The cheap
    /// questions come first.
    pub(super) fn holds(&self, request: &RequestView<'_>) -> bool {
        let methods = &self.methods;
        (methods.is_empty() || methods.iter().any(|m| m.as_bytes() == request.method))
            && (self.clients.is_empty()
                || request
                    .client
                    .is_some_and(|ip| self.clients.iter().any(|n| n.contains(&ip))))
            && self
                .headers
                .iter()
                .all(|(name, pattern)| pattern.accepts(|each| request.fields.any_value(name, each)))
            && self.query.iter().all(|(name, pattern)| {
                pattern.accepts(|each| any_parameter(request.query, name.as_bytes(), each))
            })
            && self
                .regex()
                .is_none_or(|regex| regex.is_match(request.path))
    }
}

/// Calls `each` with every value of the parameter `name` until it returns true; says whether it did.
fn any_parameter(query: Option<&[u8]>, name: &[u8], each: &mut dyn FnMut(&[u8]) -> bool) -> bool {
    let Some(query) = query else {
        return false;
    };
    query
        .split(|&byte| byte == b'&')
        .any(|parameter| match parameter.strip_prefix(name) {
            Some([]) => each(b""),
            Some([b'=', value @ ..]) => each(value),
            _ => false,
        })
}
