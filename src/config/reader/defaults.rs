//! The defaults of settings: what a table reads as in which nothing is written. So each default stands in one place,
//! the declaration of its key.

use std::net::SocketAddr;

use super::{CheckedTable, Reader, agent, cluster, listener};
use crate::config::contents::Contents;
use crate::config::diagnostics::findings::{Findings, Texts};
use crate::config::diagnostics::suggest::Suggester;
use crate::config::environment::VariablesOnly;
use crate::config::schema::AgentConfig;
use crate::config::sections::{self, Section};
use crate::config::tree::Marks;
use crate::model::peer_set::PeerSetSettings;
use crate::model::settings::{ClusterSettings, ClusterTimeouts, ListenerLimits, ListenerTimeouts};

fn of_nothing<T>(
    section: &'static Section,
    read: impl FnOnce(&mut Reader<'_>, &CheckedTable<'_>) -> T,
) -> T {
    let mut reader = Reader {
        text: "",
        texts: &Texts::of([]),
        directories: &[],
        environment: &VariablesOnly,
        marks: Marks::default(),
        findings: Findings::default(),
        suggester: Suggester::default(),
        whole: false,
        secrets: Vec::new(),
        contents: Contents::default(),
    };
    read(&mut reader, &CheckedTable::empty(section, 0..0))
}

impl Default for ListenerTimeouts {
    fn default() -> Self {
        of_nothing(&sections::listener::TIMEOUTS, listener::timeouts)
    }
}

impl Default for ListenerLimits {
    fn default() -> Self {
        of_nothing(&sections::listener::LIMITS, listener::limits)
    }
}

impl Default for ClusterTimeouts {
    fn default() -> Self {
        of_nothing(&sections::cluster::TIMEOUTS, cluster::timeouts)
    }
}

impl Default for ClusterSettings {
    fn default() -> Self {
        of_nothing(&sections::cluster::CLUSTER, cluster::settings)
    }
}

impl AgentConfig {
    /// The defaults of everything that may be left out.
    pub fn new(cluster: String, backend: SocketAddr, address: SocketAddr) -> Self {
        Self {
            cluster,
            backend,
            peer_set: PeerSetSettings::new(address),
            ..of_nothing(&sections::agent::AGENT, agent::settings)
        }
    }
}
