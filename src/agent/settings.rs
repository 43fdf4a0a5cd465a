//! What an agent is told to do: its configuration, which a file can hold, and what only a command line says.

use std::ffi::OsString;
use std::time::Duration;

use super::life::Rules;
use crate::config::schema::AgentConfig;

/// By default from the announced drain to the stop of the process.
const DRAIN_DELAY: Duration = Duration::from_secs(1);

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Of the service and its place in the peer set.
    pub config: AgentConfig,
    /// From the announced drain to the stop of the process; by default 1 s.
    pub drain_delay: Duration,
    /// A program to supervise and its arguments; empty: none.
    pub command: Vec<OsString>,
    /// Run it once, and end with its exit code.
    pub once: bool,
}

impl Settings {
    /// Of a service that the agent does not run.
    pub fn new(config: AgentConfig) -> Self {
        Self {
            config,
            drain_delay: DRAIN_DELAY,
            command: Vec::new(),
            once: false,
        }
    }

    /// What decides about the life of the service.
    pub(super) fn rules(&self) -> Rules {
        let check = self.config.check.as_ref();
        Rules {
            interval: check.map(|local| local.check.interval),
            supervised: !self.command.is_empty(),
            once: self.once,
            drain_delay: self.drain_delay,
            drain_timeout: self.config.drain_timeout,
        }
    }
}
