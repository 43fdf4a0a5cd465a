//! One probe of one backend: a connection that opens, and what the check asks over it.
//!
//! Nothing of a probe outlives it: it has a connection of its own (so it tests what a new client would meet, not a
//! pooled socket), one deadline for all of it, and bounds on everything that it reads. It connects as traffic does
//! ([`dial`]), so a lack of descriptors or ports of ours is no verdict on the backend ([`Failed::Local`]); an HTTP answer
//! is read by the reader of traffic (`http`), so a backend whose answers traffic refuses fails its check with that
//! reason. A check that has several addresses (only an agent's has) passes with the first that does; each gets its share
//! of the time that is left, so that one that swallows packets does not use up the time of the others.
//!
//! What passes, for each kind, is said in the file of the kind.

mod exchange;
mod http;
mod mysql;
mod postgres;
mod redis;
#[cfg(test)]
mod tests;
mod wire;

use std::fmt;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use thiserror::Error;
use tokio::time::{Instant, timeout_at};

use crate::http1::Refusal;
use crate::model::address::SocketAddress;
use crate::model::settings::{Check, CheckKind};
use crate::transport::dial::{DialError, dial};
use wire::Wire;

/// Addresses of one name that one probe tries.
const MAX_ADDRESSES: usize = 8;
/// Characters of a server's own message that are kept.
const MAX_MESSAGE: usize = 200;

/// A probe that passed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Passed {
    /// The connection opened.
    Connected,
    /// The status was one of those expected.
    Status(u16),
    /// The answer was the one expected; what it says.
    Answer(&'static str),
}

impl fmt::Display for Passed {
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
pub(crate) enum Failed {
    /// There is nothing to connect to.
    #[error("no address")]
    NoAddress,
    /// Not done in `check.timeout`.
    #[error("timed out after {}", humantime::format_duration(*.0))]
    TimedOut(Duration),
    /// No connection, by the backend's fault.
    #[error("{}", .0.kind())]
    Connect(io::Error),
    /// We are out of descriptors, ports or memory: says nothing of the backend.
    #[error("the proxy cannot connect: {0}")]
    Local(io::Error),
    /// Another status than those expected.
    #[error("status {0}")]
    Status(u16),
    /// The answer is one that traffic refuses too.
    #[error("answer refused: {0}")]
    Refused(Refusal),
    /// The answer is not what the protocol allows.
    #[error("{0}")]
    Protocol(&'static str),
    /// The connection ended first.
    #[error("the connection ended before {0}")]
    Ended(&'static str),
    /// The connection broke.
    #[error("the connection broke: {}", .0.kind())]
    Broken(io::Error),
    /// The answer does not hold what `expect` asks for.
    #[error("the answer does not contain the expected text")]
    Unexpected,
    /// The server says itself why not.
    #[error("the server says: {0}")]
    Server(String),
    /// The path or the host of the check cannot stand in a request.
    #[error("the check's path or host is not valid")]
    Request,
    /// The probe itself broke; the log has the panic.
    #[error("internal error")]
    Internal,
}

impl Failed {
    /// Whether it says nothing of the backend.
    pub(crate) fn is_local(&self) -> bool {
        matches!(self, Self::Local(_))
    }
}

impl From<DialError> for Failed {
    fn from(error: DialError) -> Self {
        match error {
            DialError::Backend(error) => Self::Connect(error),
            DialError::Local(error) => Self::Local(error),
        }
    }
}

/// Probes a backend that has `addresses` and is called `host` where the check names no host. Takes at most
/// `check.timeout`; cancel-safe (the connection is closed).
///
/// # Errors
/// Why it did not pass.
pub(crate) async fn probe(
    check: &Check,
    addresses: &[SocketAddress],
    host: &str,
) -> Result<Passed, Failed> {
    let addresses = &addresses[..addresses.len().min(MAX_ADDRESSES)];
    let end = Instant::now() + check.timeout;
    let mut failure = Failed::NoAddress;
    for (i, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = end.saturating_duration_since(now);
        let share = left / u32::try_from(addresses.len() - i).unwrap_or(1);
        let address = with_port(address, check.port);
        let verdict = Verdict::new();
        let ended = timeout_at(now + share, one(&check.kind, &address, host, &verdict)).await;
        failure = match (ended, verdict.into_inner()) {
            (Ok(Err(failed)), _) => failed,
            (_, Some(passed)) => return Ok(passed),
            (_, None) => Failed::TimedOut(check.timeout),
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

/// Set as soon as a probe has passed, so that what goes on after that and hangs does not change it.
type Verdict = OnceLock<Passed>;

/// Probes one address. An error fails it even after the verdict.
async fn one(
    kind: &CheckKind,
    address: &SocketAddress,
    host: &str,
    verdict: &Verdict,
) -> Result<(), Failed> {
    let request = match kind {
        CheckKind::Http {
            path, host: named, ..
        } => http::request(path, named.as_deref().unwrap_or(host))?,
        _ => Vec::new(),
    };
    let mut wire = Wire::new(dial(address).await?);
    match kind {
        CheckKind::Tcp => {
            verdict.get_or_init(|| Passed::Connected);
            Ok(())
        }
        CheckKind::Http { status, expect, .. } => {
            http::ask(&mut wire, &request, status, expect.as_deref(), verdict).await
        }
        CheckKind::Exchange { send, expect } => {
            exchange::ask(&mut wire, send, expect, verdict).await
        }
        CheckKind::Postgres { user } => postgres::ask(&mut wire, user, verdict).await,
        CheckKind::Mysql { user } => mysql::ask(&mut wire, user, verdict).await,
        CheckKind::Redis => redis::ask(&mut wire, verdict).await,
    }
}

/// A server's own message, as it may stand in a log line.
fn message(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let shown = text.chars().filter(|c| !c.is_control());
    shown.take(MAX_MESSAGE).collect()
}
