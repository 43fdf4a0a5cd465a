//! What an agent is told to do: its configuration, which a file can hold, and what only a command line says.

use std::ffi::OsString;

use super::life::Rules;
use crate::config::schema::AgentConfig;

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Of the service and its place in the peer set.
    pub config: AgentConfig,
    /// A program to supervise and its arguments; empty: none.
    pub command: Vec<OsString>,
}

impl Settings {
    /// Of a service that the agent does not run.
    pub fn new(config: AgentConfig) -> Self {
        Self {
            config,
            command: Vec::new(),
        }
    }

    /// What decides about the life of the service.
    pub(super) fn rules(&self) -> Rules {
        let check = self.config.check.as_ref();
        Rules {
            interval: check.map(|local| local.check.interval),
            supervised: !self.command.is_empty(),
            once: self.config.once,
            drain_delay: self.config.drain_delay,
            drain_timeout: self.config.drain_timeout,
        }
    }
}
