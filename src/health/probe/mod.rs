//! One probe of one backend: opens a connection and does over it what the check says.
//!
//! Nothing of a probe outlives it: it has a connection of its own (so it tests what a new client would see, not a
//! pooled connection), one deadline for everything, and limits on everything that it reads. It connects like live
//! traffic ([`SystemConnector`]), so a lack of local descriptors or ports says nothing about the backend
//! ([`ProbeFailure::Local`]). An HTTP response is parsed like one of live traffic (`http`), so a backend whose
//! responses traffic refuses fails its check for that reason. A check of several addresses (only an agent has them)
//! passes with the first that does; each gets a share of the remaining time, so that one that drops packets does not
//! use up the time of the others.
//!
//! The file of each kind says what passes.

mod connection;
mod exchange;
mod http;
mod mysql;
mod postgres;
mod redis;
#[cfg(test)]
mod tests;

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::http1::Refusal;
use crate::model::address::SocketAddress;
use crate::model::settings::{Check, CheckKind};
use crate::transport::connect::{Connector, DialError, SystemConnector};
use connection::ProbeConnection;

/// Most addresses of one name that a probe tries.
const MAX_ADDRESSES: usize = 8;
/// Most characters of a server's message that are reported.
const MAX_MESSAGE: usize = 200;

/// Why a probe passed; its text follows `check passed: `.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ProbeSuccess {
    /// The connection opened.
    Connected,
    /// The status was expected.
    Status(u16),
    /// The response was as expected; the text describes it.
    Answer(&'static str),
}

impl fmt::Display for ProbeSuccess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected => f.write_str("connected"),
            Self::Status(status) => write!(f, "status {status}"),
            Self::Answer(text) => f.write_str(text),
        }
    }
}

/// Why a probe failed; its text follows `check failed: `.
#[derive(Debug, Error)]
pub(crate) enum ProbeFailure {
    /// There is no address to connect to.
    #[error("no address")]
    NoAddress,
    /// It did not end within `check.timeout`.
    #[error("timed out after {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// The backend refused the connection or was unreachable.
    #[error("{}", .0.kind())]
    Connect(io::Error),
    /// The proxy has no descriptors, ports or memory; this says nothing about the backend.
    #[error("the proxy cannot connect: {0}")]
    Local(io::Error),
    /// The status was not expected.
    #[error("status {0}")]
    Status(u16),
    /// Live traffic would refuse the response too.
    #[error("response refused: {0}")]
    Refused(Refusal),
    /// The response is not one of the protocol.
    #[error("{0}")]
    Protocol(&'static str),
    /// The connection ended too early.
    #[error("the connection ended before {0}")]
    Ended(&'static str),
    /// Reading or writing failed.
    #[error("connection error: {}", .0.kind())]
    Broken(io::Error),
    /// The response does not contain the text of `expect`.
    #[error("the response does not contain the expected text")]
    Unexpected,
    /// The server reported an error.
    #[error("server error: {0}")]
    Server(String),
    /// The path or the host of the check cannot be sent in a request.
    #[error("the check's path or host is invalid")]
    Request,
    /// The probe panicked; the log has the message.
    #[error("internal error")]
    Internal,
}

impl ProbeFailure {
    /// Whether it says nothing about the backend.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

impl From<DialError> for ProbeFailure {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Backend(error) => Self::Connect(error),
            DialError::Local(error) => Self::Local(error),
        }
    }
}

/// Probes a backend that has `addresses`; `host` is the host to name if the check has none. Takes at most
/// `check.timeout`. Cancel-safe (the connection is closed).
///
/// # Errors
/// Why the probe did not pass.
pub(crate) async fn probe(
    check: &Check,
    addresses: &[SocketAddress],
    host: &str,
) -> Result<ProbeSuccess, ProbeFailure> {
    let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let end = Instant::now() + check.timeout;
    let mut failure = ProbeFailure::NoAddress;
    for (i, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = end.saturating_duration_since(now);
        let share = left / u32::try_from(addresses.len() - i).unwrap_or(1);
        let address = with_port(address, check.port);
        let success = SuccessCell::new();
        let ended = timeout_at(
            now + share,
            probe_address(&check.kind, &address, host, &success),
        )
        .await;
        failure = match (ended, success.into_inner()) {
            (Ok(Err(failed)), _) => failed,
            (_, Some(passed)) => return Ok(passed),
            (_, None) => ProbeFailure::TimedOut(check.timeout),
        };
    }
    Err(failure)
}

fn with_port(address: &SocketAddress, port: Option<u16>) -> SocketAddress {
    let mut address = address.clone();
    if let (SocketAddress::Ip(ip), Some(port)) = (&mut address, port) {
        ip.set_port(port);
    }
    address
}

/// Set as soon as a probe has passed, so that it still passes if what follows (reading the rest, a logout) stalls.
type SuccessCell = OnceLock<ProbeSuccess>;

/// Probes one address. An error fails the probe even if `success` is set.
async fn probe_address(
    kind: &CheckKind,
    address: &SocketAddress,
    host: &str,
    success: &SuccessCell,
) -> Result<(), ProbeFailure> {
    let request = match kind {
        CheckKind::Http {
            path, host: named, ..
        } => http::request(path, named.as_deref().unwrap_or(host))?,
        _ => Vec::new(),
    };
    let mut connection = ProbeConnection::new(SystemConnector.connect(address).await?);
    match kind {
        CheckKind::Tcp => {
            success.get_or_init(|| ProbeSuccess::Connected);
            Ok(())
        }
        CheckKind::Http { status, expect, .. } => {
            http::ask(
                &mut connection,
                &request,
                status,
                expect.as_deref(),
                success,
            )
            .await
        }
        CheckKind::Exchange { send, expect } => {
            exchange::ask(&mut connection, send, expect, success).await
        }
        CheckKind::Postgres { user } => postgres::ask(&mut connection, user, success).await,
        CheckKind::Mysql { user } => mysql::ask(&mut connection, user, success).await,
        CheckKind::Redis => redis::ask(&mut connection, success).await,
    }
}

/// Makes a server's message fit for a log line.
fn message(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(MAX_MESSAGE).collect()
}
