//! The rules of a member of the peer set that its file and its flags share: what its texts and addresses may be, and
//! what they tell only together. `lbproxy agent` takes each flag through [`member_address`], [`LocalCheck`]'s
//! `from_str` and the like, and the whole through [`AgentConfig::validate`]; the reader of the file takes the same
//! way and knows the place of each value besides. `[gossip]` of a proxy obeys the same rules.
//!
//! Limits of texts are those of a record on the wire ([`crate::gossip::record`]). No file is opened here
//! (see [`super::secrets`]).

use std::fmt;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::addresses;
use super::diagnostics::findings::{clean, quoted};
use super::diagnostics::suggest::one_of;
use super::grammar::{self, duration_in};
use super::limits::{FROM_ZERO, LEVELS, MAX_KEYS, PERIOD};
use super::schema::{AgentConfig, LocalCheck};
use crate::gossip::identity::is_possible;
use crate::gossip::record::{MAX_NAME, MAX_WEIGHT, MAX_WORD};
use crate::model::address::{AddressError, BackendAddress, ListenAddress};
use crate::model::settings::{Check, CheckKind, LogLevel};
use crate::model::units::show_duration;

/// A value, or what was expected.
type Read<T> = Result<T, String>;

/// A rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key of the file whose value is wrong; the flag is called alike, with `-` for `_`.
    pub key: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// What was expected.
    pub expected: String,
    /// How to put it right, if there is a way to say it.
    pub help: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", clean(&self.message), self.expected)?;
        match &self.help {
            Some(help) => write!(f, "; {help}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Problem {}

impl AgentConfig {
    /// With the defaults of all that may be left out.
    pub fn new(cluster: String, backend: SocketAddr, address: SocketAddr) -> Self {
        Self {
            cluster,
            backend,
            weight: 1,
            zone: String::new(),
            name: None,
            build: String::new(),
            check: None,
            address,
            advertise: address,
            seeds: Vec::new(),
            label: String::new(),
            key_files: Vec::new(),
            token_file: None,
            insecure_plaintext: false,
            drain_timeout: Duration::from_secs(30),
            drain_delay: Duration::from_secs(1),
            once: false,
            level: LogLevel::default(),
        }
    }

    /// The keys of the file whose values are other than `before`.
    pub fn changed_since(&self, before: &Self) -> Vec<&'static str> {
        let Self {
            cluster,
            backend,
            weight,
            zone,
            name,
            build,
            check,
            address,
            advertise,
            seeds,
            label,
            key_files,
            token_file,
            insecure_plaintext,
            drain_timeout,
            drain_delay,
            once,
            level,
        } = self;
        let keys = [
            ("cluster", *cluster != before.cluster),
            ("backend", *backend != before.backend),
            ("weight", *weight != before.weight),
            ("zone", *zone != before.zone),
            ("name", *name != before.name),
            ("build", *build != before.build),
            ("check", *check != before.check),
            ("address", *address != before.address),
            ("advertise", *advertise != before.advertise),
            ("seeds", *seeds != before.seeds),
            ("label", *label != before.label),
            ("key_file", *key_files != before.key_files),
            ("token_file", *token_file != before.token_file),
            (
                "insecure_plaintext",
                *insecure_plaintext != before.insecure_plaintext,
            ),
            ("drain_timeout", *drain_timeout != before.drain_timeout),
            ("drain_delay", *drain_delay != before.drain_delay),
            ("once", *once != before.once),
            ("log", *level != before.level),
        ];
        let changed = keys.into_iter().filter(|(_, changed)| *changed);
        changed.map(|(key, _)| key).collect()
    }

    /// Whether an agent can run on it.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub fn validate(&self) -> Result<(), Problem> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// Every rule that is broken.
    pub(super) fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        let mut rule = |key: &'static str, value: String, broken: Option<String>| {
            problems.extend(broken.map(|expected| Problem {
                key,
                message: format!("`{key}` is {value}"),
                expected,
                help: None,
            }));
        };
        let mut text = |key, text: &str, read: fn(&str) -> Read<String>| {
            rule(key, quoted(text), read(text).err());
        };
        text("cluster", &self.cluster, name);
        text("zone", &self.zone, word);
        if let Some(own) = &self.name {
            text("name", own, name);
        }
        text("build", &self.build, word);
        text("label", &self.label, label);
        let heavy = self.weight > MAX_WEIGHT;
        let expected = format!("expected a whole number from 0 to {MAX_WEIGHT}");
        rule("weight", self.weight.to_string(), heavy.then_some(expected));
        let keys = self.key_files.len();
        let expected = format!("expected at most {MAX_KEYS}");
        rule(
            "key_file",
            format!("{keys} files"),
            (keys > MAX_KEYS).then_some(expected),
        );
        let mut duration = |key, value: Duration, range: &RangeInclusive<Duration>| {
            let [shown, least, most] = [&value, range.start(), range.end()]
                .map(|duration| quoted(&show_duration(*duration)));
            let expected = format!("expected a duration from {least} to {most}");
            rule(key, shown, (!range.contains(&value)).then_some(expected));
        };
        if let Some(local) = &self.check {
            duration("interval", local.check.interval, &PERIOD);
            duration("timeout", local.check.timeout, &PERIOD);
        }
        duration("drain_timeout", self.drain_timeout, &FROM_ZERO);
        duration("drain_delay", self.drain_delay, &FROM_ZERO);
        let mut address = |key, address: SocketAddr, read: fn(SocketAddr) -> Read<SocketAddr>| {
            rule(key, quoted(&address.to_string()), read(address).err());
        };
        address("backend", self.backend, reachable);
        address("address", self.address, with_port);
        if self.advertise != self.address {
            address("advertise", self.advertise, reachable);
        }
        let keys = Keys {
            name: "key_file",
            given: !self.key_files.is_empty(),
            insecure_plaintext: self.insecure_plaintext,
        };
        problems.extend(of_member(self.address, self.advertise, &keys));
        problems
    }
}

/// What a member has said of its keys.
pub(super) struct Keys {
    /// The key of the file that names them.
    pub name: &'static str,
    /// Whether it is there.
    pub given: bool,
    /// Whether it can do without.
    pub insecure_plaintext: bool,
}

/// What the address of a member tells only with the rest.
pub(super) fn of_member(address: SocketAddr, advertise: SocketAddr, keys: &Keys) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut add = |message: &str, expected: String, help: String| {
        problems.push(Problem {
            key: "address",
            message: message.to_owned(),
            expected,
            help: Some(help),
        });
    };
    if reachable(address).is_err() && advertise == address {
        add(
            "`address` is no address at which others reach this member",
            "expected `advertise` beside it".to_owned(),
            format!(
                "set `advertise` to an address of this machine, such as \"10.0.0.5:{}\"",
                address.port()
            ),
        );
    }
    if !address.ip().to_canonical().is_loopback() && !keys.given && !keys.insecure_plaintext {
        let name = keys.name;
        add(
            &format!("`address` is not loopback, and there is no `{name}`"),
            format!("expected `{name}`, since whoever reaches the address could speak for every member"),
            "make a key with: lbproxy key generate --out gossip.key; or, in a network without strangers, set \
             `insecure_plaintext`"
                .to_owned(),
        );
    }
    problems
}

/// What members are called, and what is discovered.
///
/// # Errors
/// What was expected.
pub(crate) fn name(text: &str) -> Result<String, String> {
    printable(text, 1..=MAX_NAME)
}

/// A zone or a version; may be empty.
///
/// # Errors
/// What was expected.
pub(crate) fn word(text: &str) -> Result<String, String> {
    printable(text, 0..=MAX_WORD)
}

/// Of a peer set; may be empty.
///
/// # Errors
/// What was expected.
pub(crate) fn label(text: &str) -> Result<String, String> {
    printable(text, 0..=MAX_NAME)
}

fn printable(text: &str, bytes: RangeInclusive<usize>) -> Result<String, String> {
    let legal = bytes.contains(&text.len()) && !text.chars().any(char::is_control);
    legal.then(|| text.to_owned()).ok_or_else(|| {
        let (least, most) = (bytes.start(), bytes.end());
        format!("expected {least} to {most} bytes of text without control characters")
    })
}

/// The id of a token, or what ids begin with; in small letters.
///
/// # Errors
/// What was expected.
pub(crate) fn token_id(text: &str) -> Result<String, String> {
    let legal = (4..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    legal.then(|| text.to_ascii_lowercase()).ok_or_else(|| {
        "expected 4 to 16 hexadecimal digits, as `lbproxy token show` prints them".to_owned()
    })
}

/// Between two checks of the service, and for one.
///
/// # Errors
/// What was expected.
pub(crate) fn period(text: &str) -> Result<Duration, String> {
    duration_in(text, &PERIOD)
}

/// A part of a drain; may be zero.
///
/// # Errors
/// What was expected.
pub(crate) fn drain_time(text: &str) -> Result<Duration, String> {
    duration_in(text, &FROM_ZERO)
}

/// Of the log.
///
/// # Errors
/// What was expected.
pub(crate) fn level(text: &str) -> Result<LogLevel, String> {
    let found = LEVELS.iter().find(|(word, _)| *word == text);
    let words = || LEVELS.iter().map(|(word, _)| *word);
    found
        .map(|(_, level)| *level)
        .ok_or_else(|| format!("expected {}", one_of(words(), '"')))
}

/// The path of a file, which need not exist.
///
/// # Errors
/// What was expected.
pub(crate) fn file(text: &str) -> Result<PathBuf, String> {
    grammar::file_path(text)
}

/// An address that a member binds: `ip:port`, perhaps all addresses (`0.0.0.0`, `[::]`).
///
/// # Errors
/// What was expected.
pub(crate) fn member_address(text: &str) -> Result<SocketAddr, String> {
    if text.contains("://") {
        return Err("expected an address without a scheme, such as \"10.0.0.5:7946\"".to_owned());
    }
    let address: ListenAddress = text.parse().map_err(|error| match error {
        AddressError::MissingPort(port) if port.parse::<u16>().is_ok() => {
            format!("expected an address before the port, as in \"10.0.0.5:{port}\"")
        }
        AddressError::NameForListener(name) => {
            format!("expected an IP address, not a name: \"{name}\"")
        }
        error => error.to_string(),
    })?;
    let Some(ip) = address.ip() else {
        return Err("expected an address before the port, such as \"10.0.0.5:7946\"".to_owned());
    };
    with_port(SocketAddr::new(ip.to_canonical(), address.port()))
}

/// An address at which others reach a member or a service: one of one machine, with a port.
///
/// # Errors
/// What was expected.
pub(crate) fn reachable_address(text: &str) -> Result<SocketAddr, String> {
    member_address(text).and_then(reachable)
}

fn with_port(address: SocketAddr) -> Result<SocketAddr, String> {
    match address.port() {
        0 => Err("expected a port from 1 to 65535, which others are told".to_owned()),
        _ => Ok(address),
    }
}

fn reachable(address: SocketAddr) -> Result<SocketAddr, String> {
    with_port(address)?;
    is_possible(address).then_some(address).ok_or_else(|| {
        "expected the address of one machine, neither unspecified nor multicast nor broadcast"
            .to_owned()
    })
}

/// Where a member may be met first: `ip:port` or `name:port`.
///
/// # Errors
/// What was expected.
pub(crate) fn seed(text: &str) -> Result<BackendAddress, String> {
    let seed = addresses::backend(text)?;
    match seed {
        BackendAddress::Ip(address) => {
            let address = SocketAddr::new(address.ip().to_canonical(), address.port());
            reachable(address).map(BackendAddress::Ip)
        }
        BackendAddress::Name { .. } => Ok(seed),
        BackendAddress::Unix(_) => Err("expected an address that others can reach".to_owned()),
    }
}

impl FromStr for LocalCheck {
    type Err = String;

    /// `http://host[:port][/path]` or `tcp://host:port`, with the default interval and timeout.
    fn from_str(text: &str) -> Result<Self, String> {
        let expected = "expected \"http://127.0.0.1:8080/healthz\" or \"tcp://127.0.0.1:8080\"";
        let target = |authority: &str| -> Result<BackendAddress, String> {
            authority
                .parse()
                .map_err(|error: AddressError| format!("{error}; {expected}"))
        };
        let (target, kind) = if let Some(authority) = text.strip_prefix("tcp://") {
            (target(authority)?, CheckKind::Tcp)
        } else if let Some(rest) = text.strip_prefix("http://") {
            let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
            // The colons of an IPv6 address are inside its brackets.
            let has_port = authority.rfind(':') > authority.rfind(']');
            let full = match has_port {
                true => authority.to_owned(),
                false => format!("{authority}:80"),
            };
            let kind = CheckKind::Http {
                path: grammar::target(if path.is_empty() { "/" } else { path })?,
                host: Some(authority.to_owned()),
                status: vec![(200, 299)],
                expect: None,
            };
            (target(&full)?, kind)
        } else {
            return Err(expected.to_owned());
        };
        let check = Check {
            kind,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            rise: 1,
            fall: 2,
            port: None,
        };
        Ok(Self { target, check })
    }
}
