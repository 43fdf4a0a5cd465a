//! Addresses as the configuration writes them.
//!
//! A listener is `ip:port`, `[v6]:port` or `:port`; a backend is `ip:port`, `[v6]:port` or `name:port`; both may be
//! `unix:/path`. The text of an address is its identity (in labels, and when a reload matches backends), so there is
//! one canonical form of it.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::sync::Arc;

use thiserror::Error;

/// Why a text is not an address.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum AddressError {
    /// There is no `:port` at the end.
    #[error("expected a port, as in \"{0}:8080\"")]
    MissingPort(String),
    /// The port is not a number from 0 to 65535 (from 1 for a backend).
    #[error("\"{0}\" is not a port")]
    BadPort(String),
    /// The part before the port is neither an address nor a host name.
    #[error("\"{0}\" is neither an IP address nor a host name")]
    BadHost(String),
    /// A bare IPv6 address, whose port could not be distinguished from its last group.
    #[error("an IPv6 address is written in brackets, as in \"[::1]:8080\"")]
    BareV6,
    /// A listener has a name, where it must have an IP address or nothing before the port.
    #[error("a listener is bound to an IP address, not to a name: \"{0}\"")]
    NameForListener(String),
    /// `:port` means all addresses, to which nothing can connect.
    #[error("a backend needs an address or a name before its port")]
    EmptyHost,
    /// The path of a Unix socket is relative; it must not depend on the working directory.
    #[error("expected an absolute path, as in \"unix:/run/app.sock\"")]
    RelativePath,
    /// There are several slashes before the path, as in a URL.
    #[error("expected one slash before the path: write \"unix:/{0}\"")]
    Slashes(String),
    /// The path is longer than the kernel supports, or contains a NUL byte.
    #[error("expected a path of at most {MAX_SOCKET_PATH} bytes")]
    LongPath,
}

/// Longest path of a Unix socket: `sun_path` holds 108 bytes with the terminating zero (unix(7)).
pub(crate) const MAX_SOCKET_PATH: usize = 107;

/// The absolute path of a Unix socket; written `unix:/path`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UnixAddress(Arc<Path>);

impl UnixAddress {
    /// Creates the address of the socket at `path`.
    ///
    /// # Errors
    /// The path is relative, begins with several slashes, or is longer than the kernel supports.
    pub fn new(path: impl AsRef<Path>) -> Result<Self, AddressError> {
        let path = path.as_ref();
        let bytes = path.as_os_str().as_encoded_bytes();
        if !path.is_absolute() || bytes == b"/" {
            return Err(AddressError::RelativePath);
        }
        if bytes.starts_with(b"//") {
            let rest = path.to_string_lossy().trim_start_matches('/').to_owned();
            return Err(AddressError::Slashes(rest));
        }
        if bytes.len() > MAX_SOCKET_PATH || bytes.contains(&0) {
            return Err(AddressError::LongPath);
        }
        Ok(Self(path.into()))
    }

    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix:{}", self.0.display())
    }
}

/// Parses the path after `unix:`; `None` if `text` does not begin with that.
fn unix(text: &str) -> Option<Result<UnixAddress, AddressError>> {
    text.strip_prefix("unix:").map(UnixAddress::new)
}

/// An address that a socket connects to or is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SocketAddress {
    /// A TCP address.
    Ip(SocketAddr),
    /// A Unix socket.
    Unix(UnixAddress),
}

impl SocketAddress {
    /// The TCP address; `None` for a Unix socket.
    pub fn ip(&self) -> Option<SocketAddr> {
        match self {
            Self::Ip(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }
}

impl From<SocketAddr> for SocketAddress {
    fn from(address: SocketAddr) -> Self {
        Self::Ip(address)
    }
}

impl fmt::Display for SocketAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Unix(address) => address.fmt(f),
        }
    }
}

/// An address that the proxy listens on.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BindAddress {
    /// A TCP address.
    Tcp(ListenAddress),
    /// A Unix socket.
    Unix(UnixAddress),
}

impl BindAddress {
    /// The TCP address; `None` for a Unix socket.
    pub fn tcp(&self) -> Option<ListenAddress> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// Whether the system chooses the port, a different one each time.
    pub fn is_any_port(&self) -> bool {
        self.tcp().is_some_and(|address| address.port() == 0)
    }
}

impl From<ListenAddress> for BindAddress {
    fn from(address: ListenAddress) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for BindAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        match unix(text) {
            Some(address) => address.map(Self::Unix),
            None => text.parse().map(Self::Tcp),
        }
    }
}

impl fmt::Display for BindAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(address) => address.fmt(f),
        }
    }
}

/// A TCP address to listen on: one IP address, or all of them (of both families if the system has IPv6).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ListenAddress {
    ip: Option<IpAddr>,
    port: u16,
}

impl ListenAddress {
    /// All addresses of the machine, on `port`.
    pub const fn any(port: u16) -> Self {
        Self { ip: None, port }
    }

    /// The address to bind; `None` means all of both families.
    pub const fn ip(&self) -> Option<IpAddr> {
        self.ip
    }

    /// The port; 0 asks the system for a free one.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// The socket address to bind first: `[::]` stands for all addresses.
    pub fn socket_addr(&self) -> SocketAddr {
        SocketAddr::new(
            self.ip.unwrap_or(IpAddr::V6(Ipv6Addr::UNSPECIFIED)),
            self.port,
        )
    }
}

impl From<SocketAddr> for ListenAddress {
    fn from(address: SocketAddr) -> Self {
        Self {
            ip: Some(address.ip()),
            port: address.port(),
        }
    }
}

impl FromStr for ListenAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let (host, port) = split_port(text)?;
        if host.is_empty() {
            return Ok(Self::any(port));
        }
        match parse_ip(host)? {
            Some(ip) => Ok(Self { ip: Some(ip), port }),
            None => Err(AddressError::NameForListener(host.to_owned())),
        }
    }
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Some(ip) => SocketAddr::new(ip, self.port).fmt(f),
            None => write!(f, ":{}", self.port),
        }
    }
}

/// The address of a backend: an IP address, a name that is resolved periodically, or a Unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum BackendAddress {
    /// `ip:port` or `[v6]:port`.
    Ip(SocketAddr),
    /// `name:port`; each address that the name resolves to is a backend of its own.
    Name {
        /// Host name, in lower case.
        host: String,
        /// Port, never 0.
        port: u16,
    },
    /// `unix:/path`.
    Unix(UnixAddress),
}

impl BackendAddress {
    /// The host that requests and checks name by default: the address, or `localhost` for a Unix socket, since a path
    /// is not a host.
    pub fn host(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            address => address.to_string(),
        }
    }

    /// The label of the backend at `ip` for a name: `name@ip:port`. Other addresses are their own label.
    pub fn label_at(&self, ip: IpAddr) -> String {
        match self {
            Self::Ip(_) | Self::Unix(_) => self.to_string(),
            Self::Name { host, port } => format!("{host}@{}", SocketAddr::new(ip, *port)),
        }
    }
}

impl FromStr for BackendAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if let Some(address) = unix(text) {
            return address.map(Self::Unix);
        }
        let (host, port) = split_port(text)?;
        if port == 0 {
            return Err(AddressError::BadPort("0".to_owned()));
        }
        if host.is_empty() {
            return Err(AddressError::EmptyHost);
        }
        if let Some(ip) = parse_ip(host)? {
            return Ok(Self::Ip(SocketAddr::new(ip, port)));
        }
        if !is_host_name(host) {
            return Err(AddressError::BadHost(host.to_owned()));
        }
        Ok(Self::Name {
            host: host.trim_end_matches('.').to_ascii_lowercase(),
            port,
        })
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(address) => address.fmt(f),
            Self::Name { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(address) => address.fmt(f),
        }
    }
}

fn split_port(text: &str) -> Result<(&str, u16), AddressError> {
    let (host, port) = text
        .rsplit_once(':')
        .ok_or_else(|| AddressError::MissingPort(text.to_owned()))?;
    if host.starts_with('[') && !host.ends_with(']') {
        return Err(AddressError::MissingPort(text.to_owned()));
    }
    if !host.starts_with('[') && host.contains(':') {
        return Err(AddressError::BareV6);
    }
    if port.is_empty() || !port.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::BadPort(port.to_owned()));
    }
    let port = port
        .parse()
        .map_err(|_| AddressError::BadPort(port.to_owned()))?;
    Ok((host, port))
}

/// Parses an IP address; `Ok(None)` if `host` does not look like one, so that it may be a name.
fn parse_ip(host: &str) -> Result<Option<IpAddr>, AddressError> {
    if let Some(inner) = host.strip_prefix('[') {
        let inner = inner.trim_end_matches(']');
        let v6: Ipv6Addr = inner
            .parse()
            .map_err(|_| AddressError::BadHost(host.to_owned()))?;
        return Ok(Some(IpAddr::V6(v6)));
    }
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(Some(ip));
    }
    // "10.0.0.256" is a mistyped address, not a name: a name's last label is never all digits (RFC 3696 2).
    let last_label = host.trim_end_matches('.').rsplit('.').next().unwrap_or("");
    if !last_label.is_empty() && last_label.bytes().all(|b| b.is_ascii_digit()) {
        return Err(AddressError::BadHost(host.to_owned()));
    }
    Ok(None)
}

/// Whether `host` consists of labels of 1 to 63 letters, digits, `-` and `_`, with at most 253 characters in total (RFC
/// 1123 2.1, plus the `_` that service names of container platforms use).
fn is_host_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    !host.is_empty()
        && host.len() <= 253
        && host.split('.').all(|label| {
            (1..=63).contains(&label.len())
                && !label.starts_with('-')
                && !label.ends_with('-')
                && label
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listen_addresses() {
        for (text, shown) in [
            (":8080", ":8080"),
            ("127.0.0.1:0", "127.0.0.1:0"),
            ("[::1]:80", "[::1]:80"),
            ("[0:0::1]:80", "[::1]:80"),
            ("0.0.0.0:1", "0.0.0.0:1"),
        ] {
            assert_eq!(
                text.parse::<ListenAddress>().unwrap().to_string(),
                shown,
                "{text}"
            );
        }
        for bad in [
            "",
            "8080",
            "localhost:80",
            "::1:80",
            "[::1]",
            "1.2.3.4:65536",
            "1.2.3.4:+1",
            "1.2.3.4:",
            "[::1:80",
        ] {
            assert!(bad.parse::<ListenAddress>().is_err(), "{bad}");
        }
    }

    #[test]
    fn backend_addresses() {
        for (text, shown) in [
            ("10.0.0.1:80", "10.0.0.1:80"),
            ("[::1]:80", "[::1]:80"),
            ("Web.Internal.:80", "web.internal:80"),
            ("web_1:8080", "web_1:8080"),
            ("unix:/run/app.sock", "unix:/run/app.sock"),
        ] {
            assert_eq!(
                text.parse::<BackendAddress>().unwrap().to_string(),
                shown,
                "{text}"
            );
        }
        for bad in [
            ":80",
            "10.0.0.1:0",
            "10.0.0.256:80",
            "a..b:80",
            "-a:80",
            "a b:80",
            "http://a:80",
            "10.0.0.1",
            "é:80",
            "unix:",
            "unix:/",
            "unix:app.sock",
            "unix:///run/app.sock",
            "unix:/a\0",
            &format!("unix:/{}", "a".repeat(MAX_SOCKET_PATH)),
        ] {
            assert!(bad.parse::<BackendAddress>().is_err(), "{bad}");
        }
    }
}
