//! L1 pure: which rule takes a request. No I/O, no HTTP parser: a request comes in as borrowed slices.
//!
//! The first rule in the file that matches wins; what a rule leaves out matches all. [`rule`] holds the words of
//! one rule and what each of them means, [`table`] the whole list, indexed by host and path so that ten thousand
//! rules cost hardly more than ten. Paths and queries are compared byte for byte, as they are forwarded; a path of which a
//! backend's reading would take another rule is told apart, so that it can be refused.
//!
//! The control plane builds a table for each listener of a generation; workers read it.

pub(crate) mod host;
mod index;
mod normal;
mod prefixes;
pub(crate) mod rule;
pub(crate) mod table;

use std::net::IpAddr;

/// A request as the rules see it.
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
    /// The client address, v4-mapped addresses unmapped. `None` if a trusted proxy said who it is and could not be
    /// understood: then it is in no network.
    pub client: Option<IpAddr>,
    /// The request fields.
    pub fields: &'a dyn Fields,
}

/// The fields of a request head, by name.
pub trait Fields {
    /// Calls `each` with every value of the field `name` (lower case) in order, until it returns true; says
    /// whether it did.
    fn any_value(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> bool;
}

#[cfg(test)]
impl Fields for &[(&str, &str)] {
    fn any_value(&self, name: &str, each: &mut dyn FnMut(&[u8]) -> bool) -> bool {
        self.iter()
            .any(|(n, value)| n.eq_ignore_ascii_case(name) && each(value.as_bytes()))
    }
}
