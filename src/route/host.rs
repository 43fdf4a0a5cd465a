//! The one form of a host that rules are compared with, in the file and in requests.
//!
//! Names are in lower case without a trailing dot. IPv6 literals are as RFC 5952 writes them, since one address has many
//! spellings (`[::1]`, `[0:0::0001]`); an IPv4 address in one stays an IPv6 literal. Empty labels never come here: the
//! reader of requests refuses them, and so does the loader of the file.

use std::io::Write;
use std::net::Ipv6Addr;

/// As much of a host as is compared; no name is longer.
pub(crate) const HOST_BYTES: usize = 256;

/// The form of `host`, which has no port; it is put into `room`.
pub(crate) fn canonical<'r>(host: &[u8], room: &'r mut [u8; HOST_BYTES]) -> &'r [u8] {
    if let Some(address) = literal(host) {
        let mut rest = room.as_mut_slice();
        // The longest has 47 bytes.
        let _ = write!(rest, "[{address}]");
        let left = rest.len();
        return &room[..HOST_BYTES - left];
    }
    let name = host.strip_suffix(b".").unwrap_or(host);
    let length = name.len().min(HOST_BYTES);
    room[..length].copy_from_slice(&name[..length]);
    room[..length].make_ascii_lowercase();
    &room[..length]
}

fn literal(host: &[u8]) -> Option<Ipv6Addr> {
    let inner = host.strip_prefix(b"[")?.strip_suffix(b"]")?;
    std::str::from_utf8(inner).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_have_one_form() {
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
        let mut room = [0; HOST_BYTES];
        assert_eq!(canonical(long.as_bytes(), &mut room).len(), HOST_BYTES);
    }
}
