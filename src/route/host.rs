//! The canonical form of a host, in which rules and requests are compared.
//!
//! Names are in lower case without a trailing dot. IPv6 literals are written as in RFC 5952, since one address has many
//! spellings (`[::1]`, `[0:0::0001]`); one that embeds an IPv4 address stays an IPv6 literal. Empty labels do not
//! occur: the request parser and the configuration loader refuse them.

use std::io::Write;
use std::net::Ipv6Addr;

/// Bytes of a host that are compared; no name is longer.
pub(crate) const HOST_BYTES: usize = 256;

/// Writes the canonical form of `host`, which has no port, into `buffer`.
pub(crate) fn canonical<'b>(host: &[u8], buffer: &'b mut [u8; HOST_BYTES]) -> &'b [u8] {
    if let Some(address) = literal(host) {
        let mut rest = buffer.as_mut_slice();
        // The longest literal has 47 bytes.
        let _ = write!(rest, "[{address}]");
        let left = rest.len();
        return &buffer[..HOST_BYTES - left];
    }
    let name = host.strip_suffix(b".").unwrap_or(host);
    let length = name.len().min(HOST_BYTES);
    buffer[..length].copy_from_slice(&name[..length]);
    buffer[..length].make_ascii_lowercase();
    &buffer[..length]
}

fn literal(host: &[u8]) -> Option<Ipv6Addr> {
    let inner = host.strip_prefix(b"[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inner).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_canonical_form() {
        for (host, form) in [
            ("A.b.", "a.b"),
            ("x", "x"),
            ("", ""),
            ("10.0.0.1", "10.0.0.1"),
            ("[::1]", "[::1]"),
            ("[0:0:0:0:0:0:0:1]", "[::1]"),
            ("[0000::0001]", "[::1]"),
            ("[2001:DB8::00A:0:0]", "[2001:db8::a:0:0]"),
            ("[2001:db8:0:0:1:0:0:1]", "[2001:db8::1:0:0:1]"),
            ("[::ffff:0102:0304]", "[::ffff:1.2.3.4]"),
            ("[::FFFF:1.2.3.4]", "[::ffff:1.2.3.4]"),
        ] {
            let found = canonical(host.as_bytes(), &mut [0; HOST_BYTES]).to_vec();
            assert_eq!(String::from_utf8(found).unwrap(), form, "{host}");
        }
        let long = "a".repeat(300);
        let mut buffer = [0; HOST_BYTES];
        assert_eq!(canonical(long.as_bytes(), &mut buffer).len(), HOST_BYTES);
    }
}
