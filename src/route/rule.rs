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
use super::normal::{Slashes, normal_form};

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
    /// Every path that begins so; written with a `*` at the end.
    Prefix(String),
    /// Every path that the expression matches; it is anchored at neither end.
    Regex(Regex),
}

impl PathPattern {
    /// Whether it also takes the normal form of what it takes. If not, requests for it are ambiguous.
    pub fn is_normal(&self) -> bool {
        // What stands behind a prefix must not be able to change it.
        let example = |prefix: &str| format!("{prefix}x").into_bytes();
        let survives = |path: &[u8], prefix: &str| {
            !path.starts_with(b"/")
                || [Slashes::Kept, Slashes::Merged]
                    .into_iter()
                    .all(|slashes| normal_form(path, slashes).starts_with(prefix.as_bytes()))
        };
        match self {
            Self::Exact(text) => survives(text.as_bytes(), text),
            Self::Prefix(text) => survives(&example(text), text),
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

/// One rule; an empty list and `None` match all.
#[derive(Debug, Clone)]
pub struct Rule<T> {
    /// Host.
    pub host: Option<HostPattern>,
    /// Path.
    pub path: Option<PathPattern>,
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
            && !matches!(self.path, Some(PathPattern::Regex(_)))
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
            && match &self.path {
                Some(PathPattern::Regex(regex)) => regex.is_match(request.path),
                _ => true,
            }
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
