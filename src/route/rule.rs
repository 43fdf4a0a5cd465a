//! The words of one rule: patterns of host, path, method, field, query and client, checked when they are made.

use ipnet::IpNet;
use regex::bytes::Regex;

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
