//! One probe of one backend: a connection that opens, or a `GET` with an expected status.
//!
//! Nothing of a probe outlives it: it has a connection of its own (so it tests what a new client would meet, not a
//! pooled socket), one deadline for all of it, a bounded response head and at most 64 KiB of body, which is read
//! only so that the backend sees its answer taken. The status alone decides; redirects are not followed. A name with
//! several addresses passes with the first that does; each gets its share of the time that is left, so that one
//! that swallows packets does not use up the time of the others.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::{SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::OnceLock;
use std::time::Duration;

use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Request, Response, header};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::model::settings::{Check, CheckKind};

/// Addresses of one name that one probe tries.
const MAX_ADDRESSES: usize = 8;
/// Largest response head.
const MAX_HEAD: usize = 64 << 10;
/// How much of a body is taken.
const MAX_BODY: usize = 64 << 10;
const USER_AGENT: &str = concat!("lbproxy-check/", env!("CARGO_PKG_VERSION"));

/// A probe that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Passed {
    /// The connection opened.
    Connected,
    /// The status was one of those expected.
    Status(u16),
}

impl fmt::Display for Passed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Status(status) => write!(f, "status {status}"),
        }
    }
}

/// Why a probe failed; its text follows `check failed: `.
#[derive(Debug, Error)]
pub enum Failed {
    /// There is nothing to connect to.
    #[error("no address")]
    NoAddress,
    /// Not done in `check.timeout`.
    #[error("timed out after {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// No connection.
    #[error("{}", .0.kind())]
    Connect(io::Error),
    /// Another status than those expected.
    #[error("status {0}")]
    Status(u16),
    /// The connection ended before an answer, or the answer is not HTTP.
    #[error("no HTTP answer: {0}")]
    Answer(hyper::Error),
    /// The path or the host of the check cannot stand in a request.
    #[error("the check's path or host is not valid: {0}")]
    Request(hyper::http::Error),
    /// The probe itself broke; the log has the panic.
    #[error("internal error")]
    Internal,
}

/// Probes a backend that has `addresses` and is called `label` where the check names no host. Takes at most
/// `check.timeout`; cancel-safe (the connection is closed).
pub async fn probe(check: &Check, addresses: &[SocketAddr], label: &str) -> Result<Passed, Failed> {
    let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let end = Instant::now() + check.timeout;
    let mut failure = Failed::NoAddress;
    for (i, &address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = end.saturating_duration_since(now);
        let share = left / u32::try_from(addresses.len() - i).unwrap_or(1);
        let address = with_port(address, check.port);
        let verdict = OnceLock::new();
        let ended = timeout_at(now + share, one(check, address, label, &verdict)).await;
        match (verdict.into_inner(), ended) {
            (Some(Ok(passed)), _) => return Ok(passed),
            (Some(Err(failed)), _) | (None, Ok(Err(failed))) => failure = failed,
            (None, Err(_) | Ok(Ok(()))) => failure = Failed::TimedOut(check.timeout),
        }
    }
    Err(failure)
}

fn with_port(address: SocketAddr, port: Option<u16>) -> SocketAddr {
    let Some(port) = port else { return address };
    match address {
        SocketAddr::V4(v4) => SocketAddrV4::new(*v4.ip(), port).into(),
        SocketAddr::V6(v6) => {
            SocketAddrV6::new(*v6.ip(), port, v6.flowinfo(), v6.scope_id()).into()
        }
    }
}

type Verdict = OnceLock<Result<Passed, Failed>>;

/// Probes one address. The verdict is set as soon as it is known, so that a body that goes on or hangs does not
/// change it.
async fn one(
    check: &Check,
    address: SocketAddr,
    label: &str,
    verdict: &Verdict,
) -> Result<(), Failed> {
    let asked = match &check.kind {
        CheckKind::Tcp => None,
        CheckKind::Http { path, host, status } => {
            let host = host.as_deref().unwrap_or(label);
            Some((request(path, host)?, status))
        }
    };
    let stream = TcpStream::connect(address).await.map_err(Failed::Connect)?;
    let Some((request, expected)) = asked else {
        verdict.get_or_init(|| Ok(Passed::Connected));
        return Ok(());
    };
    let judge = |status: u16| {
        let passed = expected
            .iter()
            .any(|&(from, to)| (from..=to).contains(&status));
        verdict.get_or_init(|| {
            if passed {
                Ok(Passed::Status(status))
            } else {
                Err(Failed::Status(status))
            }
        });
    };
    exchange(stream, request, judge)
        .await
        .map_err(Failed::Answer)
}

fn request(path: &str, host: &str) -> Result<Request<Empty<Bytes>>, Failed> {
    Request::get(path)
        .header(header::HOST, host)
        .header(header::USER_AGENT, USER_AGENT)
        .header(header::ACCEPT, "*/*")
        .header(header::CONNECTION, "close")
        .body(Empty::new())
        .map_err(Failed::Request)
}

/// Sends `request`, hands the status of the answer to `judge` and takes the body.
async fn exchange(
    stream: TcpStream,
    request: Request<Empty<Bytes>>,
    judge: impl FnOnce(u16),
) -> hyper::Result<()> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(MAX_HEAD)
        .handshake(TokioIo::new(stream))
        .await?;
    let mut connection = std::pin::pin!(connection);
    let response = beside(connection.as_mut(), sender.send_request(request)).await?;
    judge(response.status().as_u16());
    beside(connection, take_body(response)).await;
    Ok(())
}

/// Polls `connection`, which moves the bytes, until `deed` is done. What goes wrong with it, `deed` is told.
async fn beside<T>(connection: impl Future, deed: impl Future<Output = T>) -> T {
    let moving = async {
        connection.await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        done = deed => done,
        () = moving => unreachable!("it is pending for ever"),
    }
}

async fn take_body(response: Response<Incoming>) {
    let mut body = response.into_body();
    let mut taken = 0;
    while taken < MAX_BODY {
        match body.frame().await {
            Some(Ok(frame)) => taken += frame.data_ref().map_or(0, Bytes::len),
            Some(Err(_)) | None => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::task::JoinHandle;

    use super::*;

    fn check(kind: CheckKind, timeout: Duration) -> Check {
        Check {
            kind,
            interval: Duration::from_secs(2),
            timeout,
            rise: 2,
            fall: 3,
            port: None,
        }
    }

    fn http(path: &str) -> CheckKind {
        CheckKind::Http {
            path: path.to_owned(),
            host: None,
            status: vec![(200, 299), (404, 404)],
        }
    }

    const LONG: Duration = Duration::from_secs(60);

    /// A server that reads one request head, answers with `answer` and leaves the connection open until the client
    /// closes; it returns the head.
    async fn server(answer: impl Into<Vec<u8>>) -> (SocketAddr, JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = answer.into();
        let serving = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match socket.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => break,
                }
            }
            // The probe may have heard enough before all of it is written.
            let _ = socket.write_all(&answer).await;
            let _ = socket.read_u8().await;
            String::from_utf8(head).unwrap()
        });
        (address, serving)
    }

    async fn shown(kind: CheckKind, timeout: Duration, addresses: &[SocketAddr]) -> String {
        match probe(&check(kind, timeout), addresses, "web:80").await {
            Ok(passed) => format!("passed: {passed}"),
            Err(failed) => format!("failed: {failed}"),
        }
    }

    /// An address that refuses: bound a moment ago, and nobody else's as long as the probe takes.
    async fn refusing() -> (SocketAddr, tokio::net::TcpSocket) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    #[tokio::test]
    async fn the_request_is_plain_and_names_the_backend() {
        let (address, serving) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(
            shown(http("/healthz?deep=1"), LONG, &[address]).await,
            "passed: status 200"
        );
        let head = serving.await.unwrap();
        assert!(
            head.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"),
            "{head}"
        );
        for field in [
            "host: web:80",
            "connection: close",
            &format!("user-agent: {USER_AGENT}"),
        ] {
            assert!(
                head.contains(&format!("\r\n{field}\r\n")),
                "{field} in {head}"
            );
        }
    }

    #[tokio::test]
    async fn the_status_decides() {
        for (answer, expected) in [
            ("HTTP/1.1 204 No Content\r\n\r\n", "passed: status 204"),
            (
                "HTTP/1.0 404 Not Found\r\ncontent-length: 0\r\n\r\n",
                "passed: status 404",
            ),
            (
                "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
                "passed: status 200",
            ),
            (
                "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
                "failed: status 302",
            ),
            (
                "HTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\noh!",
                "failed: status 500",
            ),
            // The body is not HTTP: it is not asked.
            (
                "HTTP/1.1 503 Oh\r\ntransfer-encoding: chunked\r\n\r\nzz",
                "failed: status 503",
            ),
        ] {
            let (address, _serving) = server(answer).await;
            assert_eq!(
                shown(http("/"), LONG, &[address]).await,
                expected,
                "{answer}"
            );
        }
    }

    #[tokio::test]
    async fn a_body_is_taken_up_to_a_bound() {
        let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n".to_vec();
        answer.resize(answer.len() + 2 * MAX_BODY, b'x');
        let (address, serving) = server(answer).await;
        assert_eq!(
            shown(http("/"), LONG, &[address]).await,
            "passed: status 200"
        );
        serving.await.unwrap();
    }

    #[tokio::test]
    async fn a_body_that_hangs_changes_nothing() {
        let (address, _serving) = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab").await;
        let short = Duration::from_secs(2);
        assert_eq!(
            shown(http("/"), short, &[address]).await,
            "passed: status 200"
        );
    }

    #[tokio::test]
    async fn what_is_no_answer_fails() {
        let (address, _serving) = server("SSH-2.0-OpenSSH_9.2\r\n").await;
        let failed = shown(http("/"), LONG, &[address]).await;
        assert!(failed.starts_with("failed: no HTTP answer: "), "{failed}");

        let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
        endless.resize(4 * MAX_HEAD, b'x');
        let (address, _serving) = server(endless).await;
        let failed = shown(http("/"), LONG, &[address]).await;
        assert!(failed.starts_with("failed: no HTTP answer: "), "{failed}");

        let (address, _serving) = server("").await;
        let failed = shown(http("/"), Duration::from_millis(50), &[address]).await;
        assert_eq!(failed, "failed: timed out after 50ms");

        let failed = shown(http("/a b"), LONG, &[address]).await;
        assert!(
            failed.starts_with("failed: the check's path or host"),
            "{failed}"
        );
        assert_eq!(shown(http("/"), LONG, &[]).await, "failed: no address");
    }

    #[tokio::test]
    async fn a_connection_is_enough_for_a_tcp_check() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        assert_eq!(
            shown(CheckKind::Tcp, LONG, &[address]).await,
            "passed: connected"
        );
        let (refused, _held) = refusing().await;
        assert_eq!(
            shown(CheckKind::Tcp, LONG, &[refused]).await,
            "failed: connection refused"
        );
        // The first address that passes counts.
        assert_eq!(
            shown(CheckKind::Tcp, LONG, &[refused, address]).await,
            "passed: connected"
        );
        let mut other_port = check(CheckKind::Tcp, LONG);
        other_port.port = Some(address.port());
        assert!(probe(&other_port, &[refused], "web:80").await.is_ok());
    }

    #[tokio::test]
    async fn an_address_that_hangs_leaves_time_for_the_next() {
        let (silent, _serving) = server("").await;
        let (good, _serving) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
        let all = [silent, good];
        assert_eq!(
            shown(http("/"), Duration::from_secs(4), &all).await,
            "passed: status 200"
        );
    }
}
