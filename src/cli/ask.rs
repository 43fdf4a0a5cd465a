//! Sends one request to an admin server, limited by [`TIMEOUT`] and [`MAX_BODY`] whatever answers.

use std::fmt;
use std::io::{self, ErrorKind, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, anyhow, bail, ensure};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

use super::Failure;
use crate::config::addresses;
use crate::model::address::BindAddress;
use crate::model::address::{BackendAddress, ListenAddress};

/// Most time for connecting and for the response.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest body, twice that of the largest peer set.
pub(super) const MAX_BODY: usize = 16 << 20;
const MAX_HEAD: usize = 64 << 10;

/// The admin server that is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum AdminTarget {
    /// An address as in the configuration.
    Admin(BindAddress),
    /// A host name, resolved for each request.
    Named(BackendAddress),
}

impl FromStr for AdminTarget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match (addresses::admin(text), text.parse()) {
            (Ok(address), _) => Ok(Self::Admin(address)),
            (Err(_), Ok(name @ BackendAddress::Name { .. })) => Ok(Self::Named(name)),
            (Err(why), _) => Err(why),
        }
    }
}

impl fmt::Display for AdminTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Admin(address) => address.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}

/// Creates a runtime for [`get`].
pub(super) fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a runtime")
}

/// Writes a text to standard output. It is not an error if the reader stops after some lines.
pub(super) fn print(text: &[u8]) -> Result<(), Failure> {
    match io::stdout().write_all(text) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => Ok(written.context("cannot write to standard output")?),
    }
}

/// Requests `path`; returns status and body. Must run on a runtime with I/O and time.
pub(super) async fn get(target: &AdminTarget, path: &str) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let asked = timeout(TIMEOUT, async {
        let stream = connect(target).await?;
        let answer = exchange(stream, path).await;
        answer.with_context(|| format!("what listens on {target} does not answer like lbproxy"))
    });
    asked
        .await
        .unwrap_or_else(|_| bail!("{target} has not answered within {} s", TIMEOUT.as_secs()))
}

/// A connection to the admin server.
trait AdminStream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> AdminStream for S {}

async fn connect(target: &AdminTarget) -> anyhow::Result<Box<dyn AdminStream>> {
    let connected: io::Result<Box<dyn AdminStream>> = match target {
        AdminTarget::Admin(BindAddress::Unix(path)) => UnixStream::connect(path.path())
            .await
            .map(|s| Box::new(s) as _),
        AdminTarget::Admin(BindAddress::Tcp(address)) => {
            ensure!(
                address.port() != 0,
                "[admin] has port 0: only the proxy's log has the port that it uses"
            );
            let addresses = reachable_at(*address);
            let connected = TcpStream::connect(&addresses[..]).await;
            connected.map(|stream| Box::new(stream) as _)
        }
        AdminTarget::Named(name) => {
            let connected = TcpStream::connect(name.to_string()).await;
            connected.map(|stream| Box::new(stream) as _)
        }
    };
    connected.map_err(|error| match error.kind() {
        ErrorKind::ConnectionRefused | ErrorKind::NotFound => anyhow!(
            "nobody listens on {target}; is the proxy running, and with this [admin] address? (set it with --admin, -c or \
             LBPROXY_ADMIN)"
        ),
        _ => anyhow!("cannot connect to {target}: {error}"),
    })
}

/// The addresses at which this machine reaches a server that is bound to `address`.
fn reachable_at(address: ListenAddress) -> Vec<SocketAddr> {
    let at = |ip| SocketAddr::new(ip, address.port());
    let (v4, v6) = (
        at(Ipv4Addr::LOCALHOST.into()),
        at(Ipv6Addr::LOCALHOST.into()),
    );
    match address.ip() {
        // All addresses, of both families if the system has IPv6.
        None => vec![v4, v6],
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => vec![v6, v4],
        Some(IpAddr::V4(ip)) if ip.is_unspecified() => vec![v4],
        Some(ip) => vec![at(ip)],
    }
}

async fn exchange(
    stream: Box<dyn AdminStream>,
    path: &str,
) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    // This task moves the bytes. Its errors are reported to the request, and it ends with the request.
    tokio::spawn(connection);
    // The server accepts this name wherever it listens.
    let request = Request::get(path)
        .header(HOST, "localhost")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_BODY).collect();
    let body = body.await.map_err(|error| anyhow!(error))?;
    Ok((status, body.to_bytes().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_reached_at_loopback_or_their_address() {
        for (address, expected) in [
            (":9900", &["127.0.0.1:9900", "[::1]:9900"][..]),
            ("[::]:9900", &["[::1]:9900", "127.0.0.1:9900"]),
            ("0.0.0.0:9900", &["127.0.0.1:9900"]),
            ("10.0.0.5:9900", &["10.0.0.5:9900"]),
            ("[fd00::5]:9900", &["[fd00::5]:9900"]),
        ] {
            let expected: Vec<SocketAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(
                reachable_at(address.parse().unwrap()),
                expected,
                "{address}"
            );
        }
    }
}
