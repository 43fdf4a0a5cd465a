//! `lbproxy agent`: its flags, the settings that they make with those of a file, and the run.
//!
//! A flag overrides the same key of the file, which is complete by itself. Without a file the flags must give
//! everything that has no default. The rules are those of the file ([`crate::config::member_rules`]). Paths in the file
//! are relative to its directory, those of flags to the working directory. Keys and tokens are files and never
//! arguments, which every user of the machine can read.

use std::ffi::OsString;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use thiserror::Error;
use tracing::warn;

use super::check::{in_colour, read};
use crate::agent::announcer::PeerAnnouncer;
use crate::agent::settings::AgentSettings;
use crate::agent::settings_file::SettingsFile;
use crate::config::diagnostics::render;
use crate::config::load::load_agent;
use crate::config::member_rules::{
    Problem, drain_time, file, label, level, member_address, name, period, reachable_address, seed,
    word,
};
use crate::config::schema::{AgentConfig, LocalCheck};
use crate::gossip::record::MAX_WEIGHT;
use crate::gossip::text::redacted;
use crate::logging::events::{EventLog, print_at_exit};
use crate::model::address::BackendAddress;
use crate::model::peer_set::PeerSetSettings;
use crate::model::settings::{LogFormat, LogLevel};

/// The flags of `lbproxy agent`.
#[derive(Debug, Clone, Args)]
#[command(arg_required_else_help = true)]
pub struct AgentArguments {
    /// The same settings from a file, which flags override.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Cluster of the service: what proxies discover.
    #[arg(long, value_name = "NAME", value_parser = name)]
    cluster: Option<String>,
    /// Where proxies reach the service.
    #[arg(long, value_name = "IP:PORT", value_parser = reachable_address)]
    backend: Option<SocketAddr>,
    /// Share of the traffic, 0 to 1000; 1 by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(0..=i64::from(MAX_WEIGHT)))]
    weight: Option<u16>,
    /// Zone of the service.
    #[arg(long, value_name = "NAME", value_parser = word)]
    zone: Option<String>,
    /// Check of the service: http://127.0.0.1:8080/healthz or tcp://127.0.0.1:8080. Without it the service is ready as
    /// long as the agent runs.
    #[arg(long, value_name = "URL")]
    check: Option<LocalCheck>,
    #[command(flatten)]
    peer_set: PeerSetArguments,
    /// File with an operator's token, if the peer set asks for one.
    #[arg(long, value_name = "FILE", value_parser = file)]
    token_file: Option<PathBuf>,
    /// Name of the agent, for people; the host's name by default.
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: Option<String>,
    /// Version of the service.
    #[arg(long, value_name = "VERSION", value_parser = word)]
    build: Option<String>,
    /// Time between two checks; 1s by default.
    #[arg(long, value_name = "DURATION", value_parser = period)]
    interval: Option<Duration>,
    /// Time for one check; 1s by default.
    #[arg(long, value_name = "DURATION", value_parser = period)]
    timeout: Option<Duration>,
    /// How long the service may take to end; 30s by default.
    #[arg(long, value_name = "DURATION", value_parser = drain_time)]
    drain_timeout: Option<Duration>,
    /// Time from the announced drain to the stop of the COMMAND; 1s by default.
    #[arg(long, value_name = "DURATION", value_parser = drain_time, requires = "command")]
    drain_delay: Option<Duration>,
    /// Run the COMMAND once and exit with its exit code.
    #[arg(long, requires = "command")]
    once: bool,
    /// Log level: error, warn, info, debug or trace; info by default.
    #[arg(long, value_name = "LEVEL", value_parser = level)]
    level: Option<LogLevel>,
    /// The service itself, which the agent then supervises.
    #[arg(last = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

/// The flags of the agent's place in the peer set.
#[derive(Debug, Clone, Args)]
struct PeerSetArguments {
    /// UDP and TCP address of the agent itself.
    #[arg(long, value_name = "IP:PORT", value_parser = member_address)]
    address: Option<SocketAddr>,
    /// Where others reach the agent; by default the address.
    #[arg(long, value_name = "IP:PORT", value_parser = reachable_address)]
    advertise: Option<SocketAddr>,
    /// Members that are contacted first, ip:port or name:port. Several with commas or with several flags.
    #[arg(long, value_name = "ADDRESS", value_delimiter = ',', value_parser = seed)]
    seeds: Vec<BackendAddress>,
    /// Label of the peer set. Sets with different labels never mix.
    #[arg(long, value_name = "LABEL", value_parser = label)]
    label: Option<String>,
    /// File with the key of the peer set. Several with commas or with several flags: the first seals, all of them open.
    #[arg(long, value_name = "FILE", value_delimiter = ',', value_parser = file)]
    key_file: Vec<PathBuf>,
    /// Do without a key on an address that is not loopback; with a key, also accept what is not sealed.
    #[arg(long)]
    insecure_plaintext: bool,
}

impl PeerSetArguments {
    /// Overrides `config` with the flags.
    fn apply(self, config: &mut PeerSetSettings) {
        // An advertised address that is the default follows the address.
        if config.advertise == config.address {
            config.advertise = self.address.unwrap_or(config.address);
        }
        override_with(&mut config.address, self.address);
        override_with(&mut config.advertise, self.advertise);
        override_with(&mut config.label, self.label);
        if !self.seeds.is_empty() {
            config.seeds = self.seeds;
        }
        if !self.key_file.is_empty() {
            config.key_files = self.key_file;
        }
        config.insecure_plaintext |= self.insecure_plaintext;
    }
}

/// Why flags, or flags and file together, are not valid settings.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum ArgumentError {
    /// Neither a flag nor a file gives it.
    #[error("{0} is required without --config")]
    Required(&'static str),
    /// A flag for a check that does not exist.
    #[error("{0} without a check")]
    NoCheck(&'static str),
    /// `once` without anything to run.
    #[error("the file says `once`, but there is no COMMAND to run: put it after --")]
    NoCommand,
    /// A rule that the settings break together.
    #[error("{}", Flags(.0))]
    Rule(Problem),
}

/// Shows a problem with flags in place of the keys of the file.
struct Flags<'a>(&'a Problem);

impl fmt::Display for Flags<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.0.to_string();
        for (i, part) in text.split('`').enumerate() {
            match i % 2 {
                0 => f.write_str(part)?,
                _ => write!(f, "--{}", part.replace('_', "-"))?,
            }
        }
        Ok(())
    }
}

/// Runs an agent until it is asked to end. The exit code is 2 if the flags are wrong, 1 if it cannot start, and else
/// that of [`crate::agent::run`].
pub fn run(arguments: AgentArguments) -> ExitCode {
    let content = match arguments.config.as_deref().map(bytes_of).transpose() {
        Ok(content) => content,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::FAILURE;
        }
    };
    let (file, warnings) = match arguments.with(content.as_deref()) {
        Ok(read) => read,
        Err(errors) => {
            eprintln!("{}", errors.trim_end());
            return ExitCode::FAILURE;
        }
    };
    let settings = match arguments.clone().settings(file) {
        Ok(settings) => settings,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::from(2);
        }
    };
    match serve(settings, arguments, content, &warnings) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            print_at_exit(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn serve(
    settings: AgentSettings,
    arguments: AgentArguments,
    content: Option<Vec<u8>>,
    warnings: &str,
) -> anyhow::Result<u8> {
    let events = EventLog::start(settings.config.level, LogFormat::Text, Arc::default())?;
    let events = Rc::new(events);
    if !warnings.is_empty() {
        warn!("the configuration has warnings\n{warnings}");
    }
    let source = match (arguments.config.clone(), content) {
        (Some(path), Some(content)) => {
            let read = move |text: &[u8]| {
                let (file, warnings) = arguments.with(Some(text))?;
                let settings = arguments.clone().settings(file);
                settings
                    .map(|settings| (settings, warnings))
                    .map_err(|error| error.to_string())
            };
            let log = Rc::clone(&events);
            let applied = move |config: &AgentConfig| log.set_level(config.level);
            Some(SettingsFile::new(path, content, read, applied))
        }
        _ => None,
    };
    let code = PeerAnnouncer::start(&settings.config)
        .map_err(anyhow::Error::from)
        .and_then(|announcer| Ok(crate::agent::run(settings, source, announcer)?));
    events.flush();
    code
}

/// The content of the file.
fn bytes_of(path: &Path) -> Result<Vec<u8>, String> {
    let name = redacted(&path.display().to_string()).into_owned();
    read(path).map_err(|error| format!("error: {name}: cannot be read: {error}"))
}

impl AgentArguments {
    /// The configuration that the file of `--config` gives if its content is `bytes`, and its warnings as they are
    /// shown; or everything that is wrong with it.
    fn with(&self, bytes: Option<&[u8]>) -> Result<(Option<AgentConfig>, String), String> {
        let (Some(path), Some(bytes)) = (&self.config, bytes) else {
            return Ok((None, String::new()));
        };
        let name = redacted(&path.display().to_string()).into_owned();
        let loaded = load_agent(bytes);
        let text = String::from_utf8_lossy(bytes);
        let shown = match &loaded.diagnostics[..] {
            [] => String::new(),
            diagnostics => render(&name, &text, diagnostics, in_colour()),
        };
        let Some(mut config) = loaded.config else {
            return Err(shown);
        };
        let directory = path.parent().unwrap_or(Path::new(""));
        let key_files = config.peer_set.key_files.iter_mut();
        for file in key_files.chain(&mut config.token_file) {
            *file = directory.join(&*file);
        }
        Ok((Some(config), shown))
    }

    /// The settings of `file`, overridden by these flags.
    ///
    /// # Errors
    /// What is missing or does not fit together.
    pub fn settings(self, file: Option<AgentConfig>) -> Result<AgentSettings, ArgumentError> {
        let mut all = match file {
            Some(file) => file,
            None => AgentConfig::new(
                self.cluster
                    .clone()
                    .ok_or(ArgumentError::Required("--cluster"))?,
                self.backend.ok_or(ArgumentError::Required("--backend"))?,
                self.peer_set
                    .address
                    .ok_or(ArgumentError::Required("--address"))?,
            ),
        };
        override_with(&mut all.cluster, self.cluster);
        override_with(&mut all.backend, self.backend);
        override_with(&mut all.weight, self.weight);
        override_with(&mut all.zone, self.zone);
        override_with(&mut all.build, self.build);
        override_with(&mut all.drain_timeout, self.drain_timeout);
        override_with(&mut all.drain_delay, self.drain_delay);
        override_with(&mut all.level, self.level);
        self.peer_set.apply(&mut all.peer_set);
        all.once |= self.once;
        all.token_file = self.token_file.or(all.token_file);
        all.name = self.name.or(all.name);
        all.check = match (self.check, all.check) {
            (Some(mut flag), Some(file)) => {
                flag.check.interval = file.check.interval;
                flag.check.timeout = file.check.timeout;
                Some(flag)
            }
            (flag, file) => flag.or(file),
        };
        match &mut all.check {
            Some(LocalCheck { check, .. }) => {
                override_with(&mut check.interval, self.interval);
                override_with(&mut check.timeout, self.timeout);
            }
            None if self.interval.is_some() => return Err(ArgumentError::NoCheck("--interval")),
            None if self.timeout.is_some() => return Err(ArgumentError::NoCheck("--timeout")),
            None => {}
        }
        all.validate().map_err(ArgumentError::Rule)?;
        let mut settings = AgentSettings::new(all);
        settings.command = self.command;
        // clap asks the same of the flags.
        if settings.config.once && settings.command.is_empty() {
            return Err(ArgumentError::NoCommand);
        }
        Ok(settings)
    }
}

fn override_with<T>(setting: &mut T, flag: Option<T>) {
    if let Some(value) = flag {
        *setting = value;
    }
}

#[cfg(test)]
mod tests;
