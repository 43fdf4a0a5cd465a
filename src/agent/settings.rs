//! What an agent is told to do, as plain values; filled from flags and from a file.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use hyper::Uri;
use thiserror::Error;

use super::life::Rules;
use crate::model::address::{AddressError, BackendAddress};
use crate::model::settings::{Check, CheckKind, LogLevel};

/// By default between two checks, for one check, and the two parts of a drain.
pub const INTERVAL: Duration = Duration::from_secs(1);
/// See [`INTERVAL`].
pub const TIMEOUT: Duration = Duration::from_secs(1);
/// See [`INTERVAL`].
pub const DRAIN_DELAY: Duration = Duration::from_secs(1);
/// See [`INTERVAL`].
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);

/// What the agent asks its own service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalCheck {
    /// Where; a name is looked up for each check.
    pub target: BackendAddress,
    /// `http` or `tcp`.
    pub kind: CheckKind,
}

/// Why a text is no check.
#[derive(Debug, Error)]
pub enum LocalCheckError {
    /// Neither of the two forms.
    #[error("expected \"http://127.0.0.1:8080/healthz\" or \"tcp://127.0.0.1:8080\"")]
    Form,
    /// Its address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// Its path.
    #[error("its path is not valid: {0}")]
    Path(#[from] hyper::http::uri::InvalidUri),
}

impl FromStr for LocalCheck {
    type Err = LocalCheckError;

    fn from_str(text: &str) -> Result<Self, LocalCheckError> {
        if let Some(address) = text.strip_prefix("tcp://") {
            return Ok(Self {
                target: address.parse()?,
                kind: CheckKind::Tcp,
            });
        }
        let rest = text.strip_prefix("http://").ok_or(LocalCheckError::Form)?;
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let uri: Uri = if path.is_empty() { "/" } else { path }.parse()?;
        if !uri.path().starts_with('/') || text.contains('#') {
            return Err(LocalCheckError::Form);
        }
        let target = match authority.parse() {
            Err(AddressError::MissingPort(host)) => format!("{host}:80").parse()?,
            parsed => parsed?,
        };
        Ok(Self {
            target,
            kind: CheckKind::Http {
                path: uri.to_string(),
                host: Some(authority.to_owned()),
                status: vec![(200, 299)],
            },
        })
    }
}

/// All of it. `PartialEq` for tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// What proxies `discover`.
    pub cluster: String,
    /// Where the service is reached.
    pub backend: SocketAddr,
    /// 0 to 1000.
    pub weight: u16,
    /// Empty: none.
    pub zone: String,
    /// Of the agent, for people.
    pub name: Option<String>,
    /// Version of the service; empty: unknown.
    pub build: String,
    /// Absent: the service is ready as soon as it runs.
    pub check: Option<LocalCheck>,
    /// Between two checks.
    pub interval: Duration,
    /// For one check.
    pub timeout: Duration,
    /// UDP and TCP address that is bound.
    pub address: SocketAddr,
    /// Where others reach it.
    pub advertise: SocketAddr,
    /// Members that are asked first.
    pub seeds: Vec<BackendAddress>,
    /// Of the peer set.
    pub label: String,
    /// Where the key is.
    pub key_file: Option<PathBuf>,
    /// Where the token is.
    pub token_file: Option<PathBuf>,
    /// Without a key on an address that is not loopback.
    pub insecure_plaintext: bool,
    /// From the announced drain to the stop of the process.
    pub drain_delay: Duration,
    /// How long the service may take to end.
    pub drain_timeout: Duration,
    /// Least level of events.
    pub level: LogLevel,
    /// A program to supervise and its arguments; empty: none.
    pub command: Vec<OsString>,
    /// Run it once, and end with its exit code.
    pub once: bool,
}

impl Settings {
    /// A service with all defaults.
    pub fn new(cluster: String, backend: SocketAddr, address: SocketAddr) -> Self {
        Self {
            cluster,
            backend,
            weight: 1,
            zone: String::new(),
            name: None,
            build: String::new(),
            check: None,
            interval: INTERVAL,
            timeout: TIMEOUT,
            address,
            advertise: address,
            seeds: Vec::new(),
            label: String::new(),
            key_file: None,
            token_file: None,
            insecure_plaintext: false,
            drain_delay: DRAIN_DELAY,
            drain_timeout: DRAIN_TIMEOUT,
            level: LogLevel::default(),
            command: Vec::new(),
            once: false,
        }
    }

    /// The check as a probe takes it.
    pub(super) fn probe(&self) -> Option<(BackendAddress, Check)> {
        let LocalCheck { target, kind } = self.check.clone()?;
        let check = Check {
            kind,
            interval: self.interval,
            timeout: self.timeout,
            rise: 1,
            fall: 2,
            port: None,
        };
        Some((target, check))
    }

    /// What decides about the life of the service.
    pub(super) fn rules(&self) -> Rules {
        Rules {
            interval: self.check.is_some().then_some(self.interval),
            supervised: !self.command.is_empty(),
            once: self.once,
            drain_delay: self.drain_delay,
            drain_timeout: self.drain_timeout,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks() {
        for (text, target, path, host) in [
            (
                "http://127.0.0.1:8080/healthz",
                "127.0.0.1:8080",
                "/healthz",
                "127.0.0.1:8080",
            ),
            (
                "http://[::1]:8080/a?b=c",
                "[::1]:8080",
                "/a?b=c",
                "[::1]:8080",
            ),
            ("http://Localhost", "localhost:80", "/", "Localhost"),
            ("http://[::1]/", "[::1]:80", "/", "[::1]"),
        ] {
            let check: LocalCheck = text.parse().unwrap();
            assert_eq!(check.target.to_string(), target, "{text}");
            let CheckKind::Http {
                path: asked,
                host: field,
                status,
            } = check.kind
            else {
                panic!("{text} became a tcp check");
            };
            assert_eq!((&*asked, field.as_deref()), (path, Some(host)), "{text}");
            assert_eq!(status, [(200, 299)]);
        }
        let tcp: LocalCheck = "tcp://localhost:5432".parse().unwrap();
        assert_eq!(
            (tcp.target.to_string(), tcp.kind),
            ("localhost:5432".to_owned(), CheckKind::Tcp)
        );
    }

    #[test]
    fn no_checks() {
        for text in [
            "",
            "127.0.0.1:80",
            "https://127.0.0.1/",
            "http://",
            "http://:80/",
            "http://user@host/",
            "http://::1/",
            "http://127.0.0.1:99999/",
            "http://127.0.0.1/a b",
            "http://127.0.0.1/a#b",
            "http://127.0.0.1?x",
            "tcp://127.0.0.1",
            "tcp://127.0.0.1:80/x",
        ] {
            assert!(text.parse::<LocalCheck>().is_err(), "{text}");
        }
    }
}
