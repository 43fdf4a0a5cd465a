//! The names by which a client may call the admin server.
//!
//! A web page that somebody opens beside the proxy can make the browser request its own host name after it has pointed
//! that name at 127.0.0.1 (DNS rebinding), and would then read the response as its own. So on loopback the Host must be
//! one that a page of the internet cannot have: an IP address, `localhost` and what is under it, or a name of one
//! label. A server that was bound to the network for others to reach is called by whatever name they know; no browser
//! can open a Unix socket.

use std::net::{IpAddr, Ipv6Addr};

use hyper::header::HOST;
use hyper::http::request::Parts;

/// Where a connection comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConnectionOrigin {
    /// This machine, over loopback.
    Loopback,
    /// The network, or a Unix socket.
    Other,
}

impl ConnectionOrigin {
    /// The origin of a connection that has this address on the server's side.
    pub(super) fn of_local_address(local: IpAddr) -> Self {
        if local.to_canonical().is_loopback() {
            Self::Loopback
        } else {
            Self::Other
        }
    }
}

/// Whether a request from `origin` is meant for this server. A request without any host is, since a browser sends one.
pub(super) fn is_allowed_host(origin: ConnectionOrigin, request: &Parts) -> bool {
    if origin == ConnectionOrigin::Other {
        return true;
    }
    let target = request.uri.authority().map(|a| a.as_str());
    let fields = request.headers.get_all(HOST).into_iter();
    let mut hosts = fields.map(|h| h.to_str().ok()).chain(target.map(Some));
    hosts.all(|host| host.is_some_and(is_local_name))
}

fn is_local_name(authority: &str) -> bool {
    if let Some(v6) = authority.strip_prefix('[') {
        let Some((ip, rest)) = v6.split_once(']') else {
            return false;
        };
        let port = rest.strip_prefix(':').unwrap_or(rest);
        return ip.parse::<Ipv6Addr>().is_ok() && is_port(port);
    }
    let (host, port) = authority.split_once(':').unwrap_or((authority, ""));
    let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
    let label = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    is_port(port)
        && (host.parse::<IpAddr>().is_ok()
            || (!host.is_empty() && host.bytes().all(label))
            || host.ends_with(".localhost"))
}

fn is_port(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use hyper::Request;

    use super::*;

    #[test]
    fn names_that_a_page_cannot_have() {
        for ours in [
            "127.0.0.1",
            "127.0.0.1:9900",
            "192.0.2.7:9900",
            "[::1]:9900",
            "[::1]",
            "localhost",
            "LocalHost.:9900",
            "a.localhost:1",
            "lbproxy:9900",
        ] {
            assert!(is_local_name(ours), "{ours}");
        }
        for foreign in [
            "evil.example",
            "evil.example:9900",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example.",
            "",
            ":9900",
            "[evil.example]",
            "[::1",
            "[::1]evil.example",
            "127.0.0.1@evil.example",
            "127.0.0.1:80.evil.example",
            "evillocalhost.example",
        ] {
            assert!(!is_local_name(foreign), "{foreign}");
        }
    }

    #[test]
    fn every_host_of_a_request_counts() {
        let parts = |uri: &str, hosts: &[&str]| {
            let request = hosts
                .iter()
                .fold(Request::get(uri), |r, host| r.header(HOST, *host));
            request.body(()).unwrap().into_parts().0
        };
        for (uri, hosts, expected) in [
            ("/", &[][..], true),
            ("/", &["localhost"], true),
            ("/", &["localhost", "evil.example"], false),
            ("http://evil.example/", &["localhost"], false),
            ("http://localhost/", &["localhost"], true),
        ] {
            let request = parts(uri, hosts);
            assert_eq!(
                is_allowed_host(ConnectionOrigin::Loopback, &request),
                expected,
                "{uri} {hosts:?}"
            );
            assert!(is_allowed_host(ConnectionOrigin::Other, &request));
        }
        assert_eq!(
            ConnectionOrigin::of_local_address("::ffff:127.0.0.1".parse().unwrap()),
            ConnectionOrigin::Loopback
        );
        assert_eq!(
            ConnectionOrigin::of_local_address("192.0.2.1".parse().unwrap()),
            ConnectionOrigin::Other
        );
    }
}
