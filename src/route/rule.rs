//! The conditions of one rule: patterns of host, path, method, field, query and client.
//!
//! The configuration loader checks them and writes hosts and field names in lower case. The table's index matches
//! hosts, exact paths and prefixes; `Rule::holds` checks the other conditions.
//!
//! A query is matched as it was sent: parameters are separated by `&`, a name ends at the first `=`, a parameter
//! without `=` has the empty value, and nothing is decoded (`%41` is not `A`, `+` is not a space), so that the route is
//! chosen by the same bytes that the backend reads.

use ipnet::IpNet;
use regex::bytes::Regex;

use super::RequestView;
use super::normal::all_normal_forms;

/// A host of a rule, in its canonical form.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum HostPattern {
    /// Exactly this host.
    Exact(String),
    /// `*.example.com`: any host with at least one label more than `example.com` (stored without the `*.`).
    Under(String),
}

/// A path of a rule.
#[derive(Debug, Clone)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(String),
    /// Every path that begins with this, byte for byte; written with a final `*`.
    Prefix(String),
    /// This path, and every path that begins with this and a `/`; written with a final `/*`.
    Below(String),
    /// Every path that the regular expression matches; it is not anchored at either end.
    Regex(Regex),
}

/// Regular expressions are compared by their text, since all have the same options.
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
    /// Whether the pattern also matches every form to which a path that it matches may be normalized. If not, requests
    /// for such paths are ambiguous.
    pub fn is_normal(&self) -> bool {
        let holds_for_all = |path: &str, holds: &dyn Fn(&[u8]) -> bool| {
            !path.starts_with('/') || all_normal_forms(path.as_bytes(), holds)
        };
        match self {
            Self::Exact(text) | Self::Below(text) => {
                holds_for_all(text, &|form| form == text.as_bytes())
            }
            // Normalizing what follows a prefix must not change the prefix.
            Self::Prefix(text) => holds_for_all(&format!("{text}x"), &|form| {
                form.starts_with(text.as_bytes())
            }),
            Self::Regex(_) => true,
        }
    }
}

/// A condition on the values of a field or of a query parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ValuePattern {
    /// One of the values is this, byte for byte.
    Exact(String),
    /// There is a value (`true`), or there is none (`false`).
    Present(bool),
}

/// One rule. An empty list matches every request.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule<T> {
    /// Hosts, one of which must match.
    pub hosts: Vec<HostPattern>,
    /// Paths, one of which must match; a regular expression is the only one of its rule.
    pub paths: Vec<PathPattern>,
    /// Methods, one of which must match.
    pub methods: Vec<String>,
    /// Fields (names in lower case), all of which must match.
    pub headers: Vec<(String, ValuePattern)>,
    /// Query parameters, all of which must match.
    pub query: Vec<(String, ValuePattern)>,
    /// Networks, one of which must contain the client.
    pub clients: Vec<IpNet>,
    /// What to do with a request that matches.
    pub target: T,
}

impl ValuePattern {
    /// Whether the values match; `any` tells whether one of them passes a test.
    fn accepts(&self, any: impl FnOnce(&mut dyn FnMut(&[u8]) -> bool) -> bool) -> bool {
        match self {
            Self::Exact(wanted) => any(&mut |value| value == wanted.as_bytes()),
            Self::Present(wanted) => any(&mut |_| true) == *wanted,
        }
    }
}

impl<T> Rule<T> {
    /// Whether the index checks all conditions of the rule, so that [`Self::holds`] is always true.
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

    /// Whether the request meets the conditions that the index does not check: all but host, exact path and prefix.
    /// Cheap conditions come first.
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

/// Calls `each` with every value of the parameter `name` until it returns true. Returns whether it did.
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
