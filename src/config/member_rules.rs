//! The rules of a member of the peer set, which its file and its flags share: what its texts and addresses may be, and
//! what they mean only together. `lbproxy agent` reads each flag through [`member_address`], the `from_str` of
//! [`LocalCheck`] and the like, and checks the whole with [`AgentConfig::validate`]. The reader of the file does the
//! same, and knows the place of each value besides. `[gossip]` of a proxy obeys the same rules.
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
use super::limits::{FROM_ZERO, MAX_KEYS, PERIOD};
use super::schema::{AgentConfig, LocalCheck};
use super::sections::agent::AGENT;
use super::sections::words;
use crate::gossip::identity::is_possible;
use crate::gossip::record::{MAX_NAME, MAX_WEIGHT, MAX_WORD};
use crate::model::address::{AddressError, BackendAddress, ListenAddress};
use crate::model::peer_set::PeerSetSettings;
use crate::model::settings::{Check, CheckKind, LogLevel};
use crate::model::units::show_duration;

/// A rule that is broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Key of the file whose value is wrong. The flag has the same name, with `-` for `_`.
    pub key: &'static str,
    /// What is wrong, in one line.
    pub message: String,
    /// What was expected.
    pub expected: String,
    /// How to put it right, if that can be said.
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
    /// The keys of the file whose values differ from those of `previous`.
    pub fn changed_since(&self, previous: &Self) -> Vec<&'static str> {
        let Self {
            cluster,
            backend,
            weight,
            zone,
            name,
            build,
            check,
            peer_set,
            token_file,
            drain_timeout,
            drain_delay,
            once,
            level,
        } = self;
        let keys = [
            ("cluster", *cluster != previous.cluster),
            ("backend", *backend != previous.backend),
            ("weight", *weight != previous.weight),
            ("zone", *zone != previous.zone),
            ("name", *name != previous.name),
            ("build", *build != previous.build),
            ("check", *check != previous.check),
        ];
        let more = [
            ("token_file", *token_file != previous.token_file),
            ("drain_timeout", *drain_timeout != previous.drain_timeout),
            ("drain_delay", *drain_delay != previous.drain_delay),
            ("once", *once != previous.once),
            ("log", *level != previous.level),
        ];
        let of_peer_set = changes_of_peer_set(peer_set, &previous.peer_set);
        let changed = keys.into_iter().chain(of_peer_set).chain(more);
        let changed = changed.filter(|(_, changed)| *changed);
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
        let peer_set = &self.peer_set;
        let mut text = |key, text: &str, read: fn(&str) -> Result<String, String>| {
            rule(key, quoted(text), read(text).err());
        };
        text("cluster", &self.cluster, name);
        text("zone", &self.zone, word);
        if let Some(own) = &self.name {
            text("name", own, name);
        }
        text("build", &self.build, word);
        text("label", &peer_set.label, label);
        let heavy = self.weight > MAX_WEIGHT;
        let expected = format!("expected a whole number from 0 to {MAX_WEIGHT}");
        rule("weight", self.weight.to_string(), heavy.then_some(expected));
        let keys = peer_set.key_files.len();
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
        let mut address =
            |key, address: SocketAddr, read: fn(SocketAddr) -> Result<SocketAddr, String>| {
                rule(key, quoted(&address.to_string()), read(address).err());
            };
        address("backend", self.backend, reachable);
        address("address", peer_set.address, with_port);
        if peer_set.advertise != peer_set.address {
            address("advertise", peer_set.advertise, reachable);
        }
        let given = !peer_set.key_files.is_empty();
        problems.extend(of_peer_set(peer_set, "key_file", given));
        problems
    }
}

/// Each key of a member's place in the peer set, and whether its value differs from that of `previous`.
fn changes_of_peer_set(
    settings: &PeerSetSettings,
    previous: &PeerSetSettings,
) -> [(&'static str, bool); 6] {
    let PeerSetSettings {
        address,
        advertise,
        seeds,
        label,
        key_files,
        insecure_plaintext,
    } = settings;
    [
        ("address", *address != previous.address),
        ("advertise", *advertise != previous.advertise),
        ("seeds", *seeds != previous.seeds),
        ("label", *label != previous.label),
        ("key_file", *key_files != previous.key_files),
        (
            "insecure_plaintext",
            *insecure_plaintext != previous.insecure_plaintext,
        ),
    ]
}

/// The rules of a member that concern several of its values. `keys` is the key of the file that names its keys, which
/// is `given` or not.
pub(super) fn of_peer_set(
    settings: &PeerSetSettings,
    keys: &'static str,
    given: bool,
) -> Vec<Problem> {
    let address = settings.address;
    let mut problems = Vec::new();
    let mut add = |message: &str, expected: String, help: String| {
        problems.push(Problem {
            key: "address",
            message: message.to_owned(),
            expected,
            help: Some(help),
        });
    };
    if reachable(address).is_err() && settings.advertise == address {
        add(
            "`address` is not an address at which others can reach this member",
            "expected `advertise` beside it".to_owned(),
            format!(
                "set `advertise` to an address of this machine, such as \"10.0.0.5:{}\"",
                address.port()
            ),
        );
    }
    if !address.ip().to_canonical().is_loopback() && !given && !settings.insecure_plaintext {
        add(
            &format!("`address` is not loopback, and there is no `{keys}`"),
            format!("expected `{keys}`, since anyone who reaches the address could speak for every member"),
            "make a key with: lbproxy key generate --out gossip.key; or, in a network that you trust, set \
             `insecure_plaintext`"
                .to_owned(),
        );
    }
    problems
}

/// The name of a member, or of what is discovered.
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

/// The label of a peer set; may be empty.
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

/// The id of a token or its beginning, in lower case.
///
/// # Errors
/// What was expected.
pub(crate) fn token_id(text: &str) -> Result<String, String> {
    let legal = (4..=16).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    legal.then(|| text.to_ascii_lowercase()).ok_or_else(|| {
        "expected 4 to 16 hexadecimal digits, as `lbproxy token show` prints them".to_owned()
    })
}

/// `interval` or `timeout` of the check of the service.
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

/// The level of the log.
///
/// # Errors
/// What was expected.
pub(crate) fn level(text: &str) -> Result<LogLevel, String> {
    words::value(text).ok_or_else(|| format!("expected {}", one_of(words::all::<LogLevel>(), '"')))
}

/// The path of a file, which need not exist.
///
/// # Errors
/// What was expected.
pub(crate) fn file(text: &str) -> Result<PathBuf, String> {
    grammar::file_path(text)
}

/// An address that a member binds: `ip:port`. It may be all addresses (`0.0.0.0`, `[::]`).
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

/// An address at which others reach a member or a service: that of one machine, with a port.
///
/// # Errors
/// What was expected.
pub(crate) fn reachable_address(text: &str) -> Result<SocketAddr, String> {
    member_address(text).and_then(reachable)
}

fn with_port(address: SocketAddr) -> Result<SocketAddr, String> {
    match address.port() {
        0 => Err("expected a port from 1 to 65535, at which others can reach it".to_owned()),
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

/// A member that is contacted first: `ip:port` or `name:port`.
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
            interval: AGENT.default_duration("interval"),
            timeout: AGENT.default_duration("timeout"),
            rise: 1,
            fall: 2,
            port: None,
        };
        Ok(Self { target, check })
    }
}
