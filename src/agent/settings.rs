//! What an agent runs with: its configuration, which a file can hold, and what only the command line says.

use std::ffi::OsString;

use super::lifecycle::LifecycleRules;
use crate::config::schema::AgentConfig;

/// Everything that an agent runs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentSettings {
    /// The service and its place in the peer set.
    pub config: AgentConfig,
    /// A program to supervise, with its arguments; empty for none.
    pub command: Vec<OsString>,
}

impl AgentSettings {
    /// Settings for a service that the agent does not run.
    pub fn new(config: AgentConfig) -> Self {
        Self {
            config,
            command: Vec::new(),
        }
    }

    /// What the lifecycle of the service depends on.
    pub(super) fn lifecycle_rules(&self) -> LifecycleRules {
        let check = self.config.check.as_ref();
        LifecycleRules {
            interval: check.map(|local| local.check.interval),
            supervised: !self.command.is_empty(),
            once: self.config.once,
            drain_delay: self.config.drain_delay,
            drain_timeout: self.config.drain_timeout,
        }
    }
}
