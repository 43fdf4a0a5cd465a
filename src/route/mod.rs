//! L1 pure: finds the rule for a request. No I/O, no HTTP parser: a request is given as borrowed slices.
//!
//! The first matching rule in the configuration wins; a condition that a rule omits matches everything. [`rule`]
//! defines the conditions of one rule, [`table`] the list of rules, indexed by host and path so that ten thousand rules
//! cost hardly more than ten. Paths and queries are compared byte for byte, as they are forwarded; a path that a
//! backend may normalize to one that matches another rule is detected, so that it can be refused.
//!
//! The control plane builds a table for each listener of a generation; workers read it.

pub(crate) mod host;
mod index;
mod normal;
mod prefixes;
pub(crate) mod rule;
pub(crate) mod table;

use std::net::IpAddr;

/// The parts of a request that rules can match.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
    /// Method, case-sensitive (RFC 9110 9.1).
    pub method: &'a [u8],
    /// Host in its [canonical form](host::canonical), without port; empty if the request has none.
    pub host: &'a [u8],
    /// Path as it is forwarded, without the query; `*` for OPTIONS of the whole server.
    pub path: &'a [u8],
    /// Query without its `?`, if there is a `?`.
    pub query: Option<&'a [u8]>,
    /// The client address, with v4-mapped addresses unmapped. `None` if a trusted proxy sent one that cannot be parsed:
    /// such a client is in no network.
    pub client: Option<IpAddr>,
    /// The fields of the request.
    pub fields: &'a dyn Fields,
}

/// The fields of a request head, by name.
pub trait Fields {
    /// Calls `each` with every value of the field `name` (lower case) in order, until it returns true. Returns whether
    /// it did.
    fn any_value(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

#[cfg(test)]
impl Fields for &[(&str, &str)] {
    fn any_value(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.iter()
            .any(|(n, value)| n.eq_ignore_ascii_case(name) && each(value.as_bytes()))
    }
}
