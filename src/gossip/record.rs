//! What an agent announces of its service, in at most [`MAX_RECORD`] bytes; the newest version wins.

use std::net::SocketAddr;

/// Longest encoded announcement, bytes: record, token and signature together.
pub const MAX_RECORD: usize = 512;
/// Longest name of an agent and of a cluster, bytes.
pub const MAX_NAME: usize = 64;
/// Longest zone and build version, bytes.
pub const MAX_WORD: usize = 32;
/// Largest weight.
pub const MAX_WEIGHT: u16 = 1000;

/// How a service is, by its own agent's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ServiceState {
    /// Not checked yet.
    Starting,
    /// Its local check passes.
    Ready,
    /// Its local check fails.
    Failing,
    /// Ends soon: nothing new.
    Draining,
    /// Has ended in order.
    Left,
}

impl ServiceState {
    /// All of them, in the order of their codes on the wire.
    pub const ALL: [Self; 5] = [
        Self::Starting,
        Self::Ready,
        Self::Failing,
        Self::Draining,
        Self::Left,
    ];

    /// Word of status, log and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Ready => "ready",
            Self::Failing => "failing",
            Self::Draining => "draining",
            Self::Left => "left",
        }
    }
}

/// A service, as its agent announces it. Texts are printable UTF-8 without control characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Of the agent, for people; at most [`MAX_NAME`] bytes.
    pub name: String,
    /// What proxies `discover`; 1 to [`MAX_NAME`] bytes.
    pub cluster: String,
    /// Where the service is reached.
    pub backend: SocketAddr,
    /// 0 to [`MAX_WEIGHT`].
    pub weight: u16,
    /// At most [`MAX_WORD`] bytes; empty: none.
    pub zone: String,
    /// How it is.
    pub state: ServiceState,
    /// Version of the service; at most [`MAX_WORD`] bytes; empty: unknown.
    pub build: String,
}
