//! What is believed of who the client is: the client address and the request's id, as trusted proxies tell them.

use std::net::IpAddr;

use crate::http1::field::{FieldName, trim};
use crate::http1::head::Field;
use crate::model::settings::TrustedProxies;

/// Longest X-Request-Id that is believed.
const REQUEST_ID_BYTES: usize = 128;

/// Who sent a request, as far as trusted proxies tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ClientAddress {
    /// The client's address; if that is not known, the trusted proxy's that stands nearest to it; `None` if that has
    /// none, coming over a Unix socket.
    pub nearest: Option<IpAddr>,
    /// Whether a trusted proxy named the client and nobody understands it (`unknown`, junk, nothing).
    pub is_unknown: bool,
}

impl ClientAddress {
    /// The address, if it is the client's.
    pub(crate) fn known(self) -> Option<IpAddr> {
        self.nearest.filter(|_| !self.is_unknown)
    }
}

/// The client: the rightmost address of X-Forwarded-For that is not a trusted proxy's, starting from the socket's. What
/// cannot be read before such an address came leaves it unknown: it must not pass for the proxy that passed it on.
/// A peer over a Unix socket has no address, and is unknown if nobody is named.
pub(crate) fn client_address(
    peer: Option<IpAddr>,
    trusted: &TrustedProxies,
    buffer: &[u8],
    fields: &[Field],
) -> ClientAddress {
    let mut client = ClientAddress {
        nearest: peer,
        is_unknown: false,
    };
    if !trusted.trusts(client.nearest) {
        return client;
    }
    let chain = fields
        .iter()
        .rev()
        .filter(|field| field.name == FieldName::ForwardedFor)
        .flat_map(|field| field.value_in(buffer).rsplit(|b| *b == b','));
    for hop in chain {
        let Some(ip) = parse_hop(trim(hop)) else {
            client.is_unknown = true;
            break;
        };
        client.nearest = Some(ip);
        if !trusted.trusts(client.nearest) {
            break;
        }
    }
    client
}

/// An address of X-Forwarded-For, with or without port.
fn parse_hop(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?;
    let ip = text
        .parse::<IpAddr>()
        .ok()
        .or_else(|| {
            text.parse::<std::net::SocketAddr>()
                .ok()
                .map(|address| address.ip())
        })
        .or_else(|| text.strip_prefix('[')?.strip_suffix(']')?.parse().ok())?;
    Some(ip.to_canonical())
}

/// The X-Request-Id that a trusted proxy has given to the request.
pub(crate) fn given_id<'b>(buffer: &'b [u8], fields: &[Field]) -> Option<&'b [u8]> {
    fields
        .iter()
        .find(|field| field.name == FieldName::RequestId)
        .map(|field| field.value_in(buffer))
        .filter(|value| is_id(value))
}

fn is_id(value: &[u8]) -> bool {
    (1..=REQUEST_ID_BYTES).contains(&value.len()) && value.iter().all(|b| matches!(b, 0x21..=0x7e))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http1::head::HeadLimits;
    use crate::http1::request;

    const LIMITS: HeadLimits = HeadLimits {
        bytes: 4096,
        fields: 50,
        target: 1000,
    };

    #[test]
    fn the_client_is_the_rightmost_stranger() {
        let mut trusted = TrustedProxies::default();
        trusted.networks.push("10.0.0.0/8".parse().unwrap());
        for (peer, chain, client) in [
            ("9.9.9.9", "1.1.1.1", "9.9.9.9"),
            ("9.9.9.9", "junk", "9.9.9.9"),
            ("10.0.0.1", "1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "junk, 1.1.1.1", "1.1.1.1"),
            ("10.0.0.1", "6.6.6.6, 1.1.1.1, 10.0.0.2", "1.1.1.1"),
            ("10.0.0.1", "10.0.0.3", "10.0.0.3"),
            ("10.0.0.1", "[2001:db8::1]:80", "2001:db8::1"),
            ("10.0.0.1", "::ffff:1.2.3.4", "1.2.3.4"),
            ("10.0.0.1", "1.1.1.1, junk", "? 10.0.0.1"),
            ("10.0.0.1", "unknown", "? 10.0.0.1"),
            ("10.0.0.1", "unknown, 10.0.0.3", "? 10.0.0.3"),
            ("10.0.0.1", "", "? 10.0.0.1"),
            ("10.0.0.1", "1.1.1.1, ", "? 10.0.0.1"),
            ("10.0.0.1", "1.1.1", "? 10.0.0.1"),
            ("10.0.0.1", "01.1.1.1", "? 10.0.0.1"),
            ("10.0.0.1", "1.1.1.1 2.2.2.2", "? 10.0.0.1"),
            ("10.0.0.1", "_hidden", "? 10.0.0.1"),
            ("10.0.0.1", "unix:", "? 10.0.0.1"),
            ("10.0.0.1", "fe80::1%eth0", "? 10.0.0.1"),
            ("10.0.0.1", "\"1.1.1.1\"", "? 10.0.0.1"),
            ("10.0.0.1", "1.1.1.1\r\nX-Forwarded-For: junk", "? 10.0.0.1"),
            ("10.0.0.1", "junk\r\nX-Forwarded-For: 1.1.1.1", "1.1.1.1"),
            ("unix", "1.1.1.1", "nobody"),
            ("unix, trusted", "1.1.1.1", "1.1.1.1"),
            ("unix, trusted", "1.1.1.1, 10.0.0.2", "1.1.1.1"),
            ("unix, trusted", "10.0.0.2", "10.0.0.2"),
            ("unix, trusted", "unknown", "? nobody"),
        ] {
            let text = format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {chain}\r\n\r\n");
            let mut fields = Vec::new();
            request::parse(text.as_bytes(), &LIMITS, &mut fields)
                .unwrap()
                .unwrap();
            // A peer that is no address comes over a Unix socket.
            trusted.unix = peer == "unix, trusted";
            let found = client_address(peer.parse().ok(), &trusted, text.as_bytes(), &fields);
            let unknown = client.strip_prefix("? ");
            let expected = ClientAddress {
                nearest: unknown.unwrap_or(client).parse().ok(),
                is_unknown: unknown.is_some(),
            };
            assert_eq!(found, expected, "{peer} {chain}");
            let known = unknown.is_none() && expected.nearest.is_some();
            assert_eq!(found.known().is_some(), known);
        }
    }
}
