//! `lbproxy agent`: its flags, and what they make of the settings.
//!
//! A flag overrides the same key of the file; without a file the flags must say all that has no default. Keys and
//! tokens are never arguments, which everybody on the machine can read, but files.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use thiserror::Error;

use crate::agent::settings::{LocalCheck, Settings};
use crate::gossip::identity::is_possible;
use crate::gossip::record::{MAX_NAME, MAX_WEIGHT, MAX_WORD};
use crate::model::address::BackendAddress;
use crate::model::settings::LogLevel;
use crate::model::units::{parse_duration, show_duration};

/// Shortest time between two checks, and the shortest for one.
const LEAST_INTERVAL: Duration = Duration::from_millis(200);
const LEAST_TIMEOUT: Duration = Duration::from_millis(10);
/// Longest of all durations.
const MOST: Duration = Duration::from_secs(86_400);
/// Longest label of a peer set, bytes.
const MAX_LABEL: usize = 64;

/// The flags of `lbproxy agent`.
#[derive(Debug, Default, Args)]
pub struct AgentArguments {
    /// The same settings from a file; flags override it.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Cluster of the service: what proxies discover.
    #[arg(long, value_name = "NAME", value_parser = name)]
    cluster: Option<String>,
    /// Where the service is reached.
    #[arg(long, value_name = "IP:PORT", value_parser = reachable)]
    backend: Option<SocketAddr>,
    /// Share of the traffic, 0 to 1000; 1 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=i64::from(MAX_WEIGHT)))]
    weight: Option<u16>,
    /// Zone of the service.
    #[arg(long, value_name = "NAME", value_parser = text)]
    zone: Option<String>,
    /// Check of the service: http://127.0.0.1:8080/healthz or tcp://127.0.0.1:8080; without it, it is ready while it
    /// runs.
    #[arg(long, value_name = "URL")]
    check: Option<LocalCheck>,
    /// UDP and TCP address of the agent itself.
    #[arg(long, value_name = "IP:PORT")]
    address: Option<SocketAddr>,
    /// Where others reach that; by default the same.
    #[arg(long, value_name = "IP:PORT", value_parser = reachable)]
    advertise: Option<SocketAddr>,
    /// Members to ask first, ip:port or name:port; more with commas or by more flags.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',')]
    seeds: Vec<BackendAddress>,
    /// Label of the peer set; sets with others never mix.
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: Option<String>,
    /// File with the key of the peer set.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// File with an operator's token, if the peer set asks for one.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Name of the agent, for people.
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// Version of the service.
    #[arg(long, value_name = "VERSION", value_parser = text)]
    build: Option<String>,
    /// Between two checks; 1s by default.
    #[arg(long, value_name = "DURATION", value_parser = interval)]
    interval: Option<Duration>,
    /// For one check; 1s by default.
    #[arg(long, value_name = "DURATION", value_parser = timeout)]
    timeout: Option<Duration>,
    /// How long the service may take to end; 30s by default.
    #[arg(long, value_name = "DURATION", value_parser = drain)]
    drain_timeout: Option<Duration>,
    /// From the announced drain to the stop of the COMMAND; 1s by default.
    #[arg(long, value_name = "DURATION", value_parser = drain, requires = "command")]
    drain_delay: Option<Duration>,
    /// Go without a key although the address is not loopback.
    #[arg(long)]
    insecure_plaintext: bool,
    /// Run the COMMAND once and end with its exit code.
    #[arg(long, requires = "command")]
    once: bool,
    /// error, warn, info, debug or trace; info by default.
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    log_level: Option<LogLevel>,
    /// The service itself, to be supervised.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// Why flags, or flags and file together, are no settings.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ArgumentError {
    /// Nothing says it.
    #[error("{0} is required without --config")]
    Required(&'static str),
    /// A flag about a check that is not there.
    #[error("{0} without a check")]
    NoCheck(&'static str),
    /// The bound address is no place to be reached, and no other is given.
    #[error("{0} cannot be reached by others; say where they reach it with --advertise")]
    NotReachable(SocketAddr),
    /// In clear where others can listen.
    #[error(
        "no key on {0}, which is not loopback; give --key-file, or --insecure-plaintext if everybody may read and join"
    )]
    NoKey(SocketAddr),
}

impl AgentArguments {
    /// The settings of these flags over those of `file`.
    ///
    /// # Errors
    /// What is missing or does not fit together.
    pub fn settings(self, file: Option<Settings>) -> Result<Settings, ArgumentError> {
        let mut all = match file {
            Some(mut file) => {
                // A default that followed the address still does.
                if file.advertise == file.address {
                    file.advertise = self.address.unwrap_or(file.address);
                }
                file
            }
            None => Settings::new(
                self.cluster
                    .clone()
                    .ok_or(ArgumentError::Required("--cluster"))?,
                self.backend.ok_or(ArgumentError::Required("--backend"))?,
                self.address.ok_or(ArgumentError::Required("--address"))?,
            ),
        };
        override_with(&mut all.cluster, self.cluster);
        override_with(&mut all.backend, self.backend);
        override_with(&mut all.weight, self.weight);
        override_with(&mut all.zone, self.zone);
        override_with(&mut all.build, self.build);
        override_with(&mut all.address, self.address);
        override_with(&mut all.advertise, self.advertise);
        override_with(&mut all.label, self.label);
        override_with(&mut all.interval, self.interval);
        override_with(&mut all.timeout, self.timeout);
        override_with(&mut all.drain_timeout, self.drain_timeout);
        override_with(&mut all.drain_delay, self.drain_delay);
        override_with(&mut all.level, self.log_level);
        all.check = self.check.or(all.check);
        all.key_file = self.key_file.or(all.key_file);
        all.token_file = self.token_file.or(all.token_file);
        all.name = self.name.or(all.name);
        if !self.seeds.is_empty() {
            all.seeds = self.seeds;
        }
        all.insecure_plaintext |= self.insecure_plaintext;
        all.once = self.once;
        all.command = self.command;
        let of_check = [
            (self.interval.is_some(), "--interval"),
            (self.timeout.is_some(), "--timeout"),
        ];
        for (given, flag) in of_check {
            if given && all.check.is_none() {
                return Err(ArgumentError::NoCheck(flag));
            }
        }
        if !is_possible(all.advertise) {
            return Err(ArgumentError::NotReachable(all.advertise));
        }
        let open = all.key_file.is_none() && !all.insecure_plaintext;
        if open && !all.address.ip().is_loopback() {
            return Err(ArgumentError::NoKey(all.address));
        }
        Ok(all)
    }
}

fn override_with<T>(setting: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *setting = value;
    }
}

fn reachable(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text
        .parse()
        .map_err(|_| "expected ip:port or [v6]:port".to_owned())?;
    if is_possible(address) {
        Ok(address)
    } else {
        Err("expected an address and a port that others can connect to".to_owned())
    }
}

fn name(text: &str) -> Result<String, String> {
    bounded(text, 1..=MAX_NAME)
}

fn text(text: &str) -> Result<String, String> {
    bounded(text, 0..=MAX_WORD)
}

fn label(text: &str) -> Result<String, String> {
    bounded(text, 0..=MAX_LABEL)
}

fn bounded(text: &str, bytes: std::ops::RangeInclusive<usize>) -> Result<String, String> {
    let legal = bytes.contains(&text.len()) && !text.chars().any(char::is_control);
    legal.then(|| text.to_owned()).ok_or_else(|| {
        format!(
            "expected {} to {} bytes without control characters",
            bytes.start(),
            bytes.end()
        )
    })
}

fn interval(text: &str) -> Result<Duration, String> {
    within(text, LEAST_INTERVAL)
}

fn timeout(text: &str) -> Result<Duration, String> {
    within(text, LEAST_TIMEOUT)
}

fn drain(text: &str) -> Result<Duration, String> {
    within(text, Duration::ZERO)
}

fn within(text: &str, least: Duration) -> Result<Duration, String> {
    let duration = parse_duration(text)
        .map_err(|error| format!("{error}; expected a duration such as \"500ms\" or \"10s\""))?;
    if (least..=MOST).contains(&duration) {
        Ok(duration)
    } else {
        Err(format!(
            "expected {} to {}",
            show_duration(least),
            show_duration(MOST)
        ))
    }
}

fn level(text: &str) -> Result<LogLevel, String> {
    Ok(match text {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "info" => LogLevel::Info,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => return Err("expected error, warn, info, debug or trace".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        agent: AgentArguments,
    }

    /// Parses a line of words.
    fn parse(line: &str) -> Result<AgentArguments, String> {
        let words = ["agent"].into_iter().chain(line.split_whitespace());
        Program::try_parse_from(words)
            .map(|program| program.agent)
            .map_err(|error| error.to_string())
    }

    fn settings(line: &str, file: Option<Settings>) -> Result<Settings, ArgumentError> {
        parse(line).unwrap().settings(file)
    }

    const LEAST: &str = "--cluster web --backend 10.0.0.7:8080 --address 127.0.0.7:7946";

    fn least() -> Settings {
        Settings::new(
            "web".to_owned(),
            "10.0.0.7:8080".parse().unwrap(),
            "127.0.0.7:7946".parse().unwrap(),
        )
    }

    #[test]
    fn the_fewest_flags() {
        assert_eq!(settings(LEAST, None), Ok(least()));
    }

    #[test]
    fn all_flags() {
        let line = format!(
            "{LEAST} --weight 3 --zone a --check http://127.0.0.1:8080/healthz --advertise 10.0.0.7:7946 \
             --seeds 10.0.0.5:7946,seeds.internal:7946 --seeds [::1]:7946 --label prod --key-file gossip.key \
             --token-file agent.token --name web-7 --build 1.2 --interval 2s --timeout 500ms --drain-timeout 10s \
             --drain-delay 0s --insecure-plaintext --once --log-level debug -- ./server --once -x"
        );
        let seconds = Duration::from_secs;
        let expected = Settings {
            weight: 3,
            zone: "a".to_owned(),
            check: Some("http://127.0.0.1:8080/healthz".parse().unwrap()),
            advertise: "10.0.0.7:7946".parse().unwrap(),
            seeds: ["10.0.0.5:7946", "seeds.internal:7946", "[::1]:7946"]
                .map(|seed| seed.parse().unwrap())
                .to_vec(),
            label: "prod".to_owned(),
            key_file: Some("gossip.key".into()),
            token_file: Some("agent.token".into()),
            name: Some("web-7".to_owned()),
            build: "1.2".to_owned(),
            interval: seconds(2),
            timeout: Duration::from_millis(500),
            drain_timeout: seconds(10),
            drain_delay: seconds(0),
            insecure_plaintext: true,
            once: true,
            level: LogLevel::Debug,
            command: ["./server", "--once", "-x"].map(OsString::from).to_vec(),
            ..least()
        };
        assert_eq!(settings(&line, None), Ok(expected.clone()));
        // Over a file that says everything, no flag says nothing new, but the process is the command line's alone.
        let alone = Settings {
            command: Vec::new(),
            once: false,
            ..expected.clone()
        };
        assert_eq!(settings("", Some(expected)), Ok(alone));
        // And over one that says other things, every flag wins.
        let other = Settings::new(
            "other".to_owned(),
            "10.9.9.9:1".parse().unwrap(),
            "127.0.0.9:9".parse().unwrap(),
        );
        assert_eq!(settings(&line, Some(other)), settings(&line, None));
    }

    #[test]
    fn an_advertised_default_follows_the_address() {
        let moved = settings("--address 127.0.0.8:1", Some(least())).unwrap();
        assert_eq!(moved.advertise, moved.address);
        let file = Settings {
            advertise: "10.0.0.9:1".parse().unwrap(),
            ..least()
        };
        let moved = settings("--address 127.0.0.8:1", Some(file.clone())).unwrap();
        assert_eq!(moved.advertise, file.advertise);
    }

    #[test]
    fn what_does_not_fit_together() {
        let address = |text: &str| text.parse().unwrap();
        for (line, error) in [
            ("", ArgumentError::Required("--cluster")),
            ("--cluster web", ArgumentError::Required("--backend")),
            (
                "--cluster web --backend 10.0.0.7:8080",
                ArgumentError::Required("--address"),
            ),
            (
                &format!("{LEAST} --interval 1s"),
                ArgumentError::NoCheck("--interval"),
            ),
            (
                &format!("{LEAST} --timeout 1s"),
                ArgumentError::NoCheck("--timeout"),
            ),
            (
                "--cluster web --backend 10.0.0.7:8080 --address 10.0.0.7:7946",
                ArgumentError::NoKey(address("10.0.0.7:7946")),
            ),
            (
                "--cluster web --backend 10.0.0.7:8080 --address 0.0.0.0:7946 --key-file k",
                ArgumentError::NotReachable(address("0.0.0.0:7946")),
            ),
        ] {
            assert_eq!(settings(line, None), Err(error), "{line}");
        }
        for flag in ["--key-file k", "--insecure-plaintext"] {
            let line =
                format!("--cluster web --backend 10.0.0.7:8080 --address 10.0.0.7:7946 {flag}");
            assert!(settings(&line, None).is_ok(), "{line}");
        }
    }

    #[test]
    fn what_is_refused() {
        let long = "x".repeat(65);
        for (line, said) in [
            ("--weight 1001", "1001 is not in 0..=1000"),
            ("--backend web:80", "expected ip:port"),
            ("--backend 0.0.0.0:80", "that others can connect to"),
            ("--advertise 10.0.0.1:0", "that others can connect to"),
            ("--check https://127.0.0.1/", "expected \"http://"),
            ("--seeds 10.0.0.1", "expected a port"),
            ("--interval 1", "it has no unit; expected a duration"),
            ("--interval 199ms", "expected 200ms to 1d"),
            ("--timeout 9ms", "expected 10ms to 1d"),
            ("--drain-timeout 25h", "expected 0s to 1d"),
            ("--drain-delay 1s", "COMMAND"),
            ("--once", "COMMAND"),
            ("--log-level loud", "expected error, warn"),
            (&format!("--cluster {long}"), "expected 1 to 64 bytes"),
            (&format!("--zone {}", &long[..33]), "expected 0 to 32 bytes"),
            // Secrets are files.
            ("--key abc", "unexpected argument '--key'"),
            ("--token abc", "unexpected argument '--token'"),
            ("./server", "unexpected argument"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(said), "{line}: {error}");
        }
    }
}
