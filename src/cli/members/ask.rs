//! One question to an admin server: within [`TIMEOUT`] and [`MAX_BODY`], whoever answers.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
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
use tokio::time::timeout;

use crate::model::address::ListenAddress;
use crate::model::settings::AdminAddress;

/// For all of it.
pub(super) const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest body, twice that of the largest peer set.
pub(super) const MAX_BODY: usize = 16 << 20;
const MAX_HEAD: usize = 64 << 10;

/// Status and body of `path`. Must run on a runtime with I/O and time.
pub(super) async fn get(
    address: &AdminAddress,
    path: &str,
) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let name = shown(address);
    let asked = timeout(TIMEOUT, async {
        let stream = connect(address).await?;
        let answer = exchange(stream, path).await;
        answer.with_context(|| format!("what listens on {name} does not answer as lbproxy does"))
    });
    asked
        .await
        .unwrap_or_else(|_| bail!("{name} has not answered within {} s", TIMEOUT.as_secs()))
}

/// An address as the file has it.
pub(super) fn shown(address: &AdminAddress) -> String {
    match address {
        AdminAddress::Tcp(address) => address.to_string(),
        AdminAddress::Unix(path) => format!("unix:{}", path.display()),
    }
}

/// Either end of a connection.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}

impl<S: AsyncRead + AsyncWrite + Unpin + Send> Stream for S {}

async fn connect(address: &AdminAddress) -> anyhow::Result<Box<dyn Stream>> {
    let connected: io::Result<Box<dyn Stream>> = match address {
        AdminAddress::Unix(path) => UnixStream::connect(path).await.map(|s| Box::new(s) as _),
        AdminAddress::Tcp(address) => {
            ensure!(
                address.port() != 0,
                "[admin] has port 0: only the proxy's log tells which one it took"
            );
            let doors = doors(*address);
            let connected = TcpStream::connect(&doors[..]).await;
            connected.map(|stream| Box::new(stream) as _)
        }
    };
    connected.map_err(|error| {
        let name = shown(address);
        match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::NotFound => {
                anyhow!("nobody listens on {name}; does the proxy run, and on this file?")
            }
            _ => anyhow!("cannot connect to {name}: {error}"),
        }
    })
}

/// Where a server that is bound to `address` can be reached from this machine.
fn doors(address: ListenAddress) -> Vec<SocketAddr> {
    let at = |ip| SocketAddr::new(ip, address.port());
    let (v4, v6) = (
        at(Ipv4Addr::LOCALHOST.into()),
        at(Ipv6Addr::LOCALHOST.into()),
    );
    match address.ip() {
        // All addresses, and of the other family too where the system has it.
        None => vec![v4, v6],
        Some(IpAddr::V6(ip)) if ip.is_unspecified() => vec![v6, v4],
        Some(IpAddr::V4(ip)) if ip.is_unspecified() => vec![v4],
        Some(ip) => vec![at(ip)],
    }
}

async fn exchange(stream: Box<dyn Stream>, path: &str) -> anyhow::Result<(StatusCode, Vec<u8>)> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    // It moves the bytes. What goes wrong with it the exchange is told, and with the exchange it ends.
    tokio::spawn(connection);
    // A name that the server knows itself by, wherever it listens.
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
    fn where_a_server_is_reached() {
        for (address, expected) in [
            (":9900", &["127.0.0.1:9900", "[::1]:9900"][..]),
            ("[::]:9900", &["[::1]:9900", "127.0.0.1:9900"]),
            ("0.0.0.0:9900", &["127.0.0.1:9900"]),
            ("10.0.0.5:9900", &["10.0.0.5:9900"]),
            ("[fd00::5]:9900", &["[fd00::5]:9900"]),
        ] {
            let expected: Vec<SocketAddr> = expected.iter().map(|a| a.parse().unwrap()).collect();
            assert_eq!(doors(address.parse().unwrap()), expected, "{address}");
        }
    }
}
