//! L3 control: the one writer of snapshots.
//!
//! Everything that changes what workers see goes through [`Control`]: another file, another answer of a resolver, a
//! change of the peer set, the end of a drain. The configuration in force is a stack of layers ([`Layers`]); it is
//! compiled whole into the next snapshot and published, at most once in [`COALESCE`](snapshot_writer::COALESCE).
//! Commands come through one channel ([`ControlHandle`]), changes of files from one watcher.
//!
//! A reload is prepared before it is committed (`staged`): what can fail is done before anything changes, so a
//! configuration is applied whole or not at all.

mod changes;
mod commands;
mod config_files;
mod doubts;
mod drains;
mod followed_files;
mod gossip_membership;
mod gossip_overlay;
mod last_good;
mod listeners;
mod local_addresses;
mod names;
mod secret_files;
mod snapshot_writer;
mod staged;
mod start;
mod state_dir;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::watch;
use tracing::warn;

use crate::admin::AdminServer;
use crate::config::layers::Layers;
use crate::logging::access::AccessLogWriter;
use crate::logging::events::EventLog;
use crate::telemetry::metrics::ProcessMetrics;
use crate::transport::descriptors::Descriptors;
use crate::transport::listen::BoundSockets;

pub(crate) use changes::Changes;
pub(crate) use commands::{ControlHandle, commands};
pub(crate) use config_files::{ConfigFiles, Machine, ValidConfig, read_alone};
pub(crate) use listeners::socket_files;
pub(crate) use secret_files::{Absent, check_secrets};
pub(crate) use start::{ControlParts, FirstGeneration, GossipLinks};

use commands::{Commands, ControlCommand, ReloadOutcome};
use config_files::Reread;
use followed_files::FollowedFiles;
use gossip_membership::GossipMembership;
use gossip_overlay::GossipOverlay;
use names::BackendNames;
use snapshot_writer::{Cause, SnapshotWriter};
use staged::Rejection;

/// Time between two looks at what drains.
const DRAIN_POLL: Duration = Duration::from_millis(500);

/// The control plane's own task.
pub(crate) struct Control {
    commands: Commands,
    files: ConfigFiles,
    /// The configuration in force.
    layers: Layers,
    overlay: GossipOverlay,
    membership: GossipMembership,
    followed: FollowedFiles,
    names: BackendNames,
    snapshots: SnapshotWriter,
    descriptors: Arc<Descriptors>,
    process: Arc<ProcessMetrics>,
    outputs: Outputs,
    admin: AdminServer,
    on_applied: Option<OnApplied>,
}

/// The logs that a reload changes.
#[derive(Debug)]
pub(crate) struct Outputs {
    /// What the process logs of itself.
    pub events: EventLog,
    /// The access log.
    pub access: AccessLogWriter,
}

/// Called after each reload that was applied, with the generation and what changed.
pub(crate) type OnApplied = Box<dyn Fn(u64, &Changes) + Send>;

/// What makes control read the configuration again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trigger {
    /// A command: it is applied, changed or not.
    Command,
    /// A file may have changed.
    FileEvent,
}

impl Control {
    /// Follows everything that changes until `stop` says so. Then the admin server gives up its address, so that the
    /// next process can have it, and the peer set is left. Returns the access log, which must be closed last.
    pub(crate) async fn run(mut self, mut stop: watch::Receiver<bool>) -> AccessLogWriter {
        let mut drains = tokio::time::interval(DRAIN_POLL);
        drains.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                command = self.commands.next() => self.obey(command).await,
                () = self.followed.changed() => self.look_at_files().await,
                () = self.names.changed() => self.take_names().await,
                () = self.overlay.changed() => self.take_peers().await,
                _ = drains.tick() => self.look_at_drains().await,
                _ = stop.changed() => break,
            }
        }
        tokio::join!(self.admin.stop(), self.membership.leave());
        self.outputs.access
    }

    /// Obeys a command and all that wait with it: reloads that were asked for together are one.
    async fn obey(&mut self, first: ControlCommand) {
        let mut replies = Vec::new();
        let mut next = Some(first);
        while let Some(command) = next {
            match command {
                ControlCommand::Reload { reply } => replies.push(reply),
                ControlCommand::ReopenLogs => self.outputs.access.reopen(),
            }
            next = self.commands.try_next();
        }
        if replies.is_empty() {
            return;
        }
        let Some(outcome) = self.reload(Trigger::Command).await else {
            return;
        };
        for reply in replies {
            // Whoever asked may not care.
            let _ = reply.send(outcome.clone());
        }
    }

    /// A followed file may have changed.
    async fn look_at_files(&mut self) {
        if self.layers.file.watch {
            self.reload(Trigger::FileEvent).await;
        }
        tokio::task::block_in_place(|| self.membership.reread_secrets());
    }

    /// Reads the configuration and applies it; `None` if it need not be applied.
    async fn reload(&mut self, trigger: Trigger) -> Option<ReloadOutcome> {
        let reread = self.files.reread(trigger == Trigger::Command).await;
        let parsed = match reread {
            Reread::Unchanged => return None,
            // Between two steps of an editor there is no file; the next event or look finds it again.
            Reread::Unreadable(error) if trigger == Trigger::FileEvent => {
                tracing::debug!(%error, "the configuration cannot be read for now");
                return None;
            }
            Reread::Unreadable(error) => Err(Rejection::Unreadable(error)),
            Reread::NamedFilesUnreadable(error) => Err(Rejection::NamedFilesUnreadable(error)),
            Reread::Parsed(parsed) => {
                self.followed.follow_config(self.files.targets());
                parsed.map_err(Rejection::Invalid)
            }
        };
        let applied = match parsed {
            Ok(ValidConfig { config, warnings }) => {
                if !warnings.is_empty() {
                    warn!("the configuration has warnings\n{warnings}");
                }
                self.apply(config).await
            }
            Err(rejection) => Err(rejection),
        };
        Some(self.record_reload(applied))
    }

    /// Counts a reload. The counts change after everything else, so that whoever sees them sees its effect too.
    fn record_reload(&mut self, applied: Result<u64, Rejection>) -> ReloadOutcome {
        self.snapshots.note_reload();
        let process = &self.process;
        let success = &process.last_reload_success;
        success.store(applied.is_ok(), Ordering::Relaxed);
        match applied {
            Ok(generation) => {
                process.config_generation.add(1);
                process.reloads_ok.add(1);
                ReloadOutcome::Applied { generation }
            }
            Err(rejection) => {
                rejection.log(self.files.main());
                process.reloads_rejected.add(1);
                let reasons = rejection.to_string();
                ReloadOutcome::Rejected {
                    reasons: reasons.lines().map(str::to_owned).collect(),
                }
            }
        }
    }

    /// Publishes another answer for a name, and those that have come while it waited for its turn.
    async fn take_names(&mut self) {
        self.snapshots.wait_for_turn().await;
        self.names.take_waiting();
        self.republish();
    }

    /// Looks at the peer set, and publishes what it changes.
    async fn take_peers(&mut self) {
        self.snapshots.wait_for_turn().await;
        let file = Arc::clone(&self.layers.file);
        let sockets = self.snapshots.sockets();
        let registry = self.snapshots.registry();
        if self.overlay.update(&file, &sockets, registry) {
            self.layers = self.overlay.layers(&file);
            self.publish(&sockets, Cause::Update);
        }
    }

    async fn look_at_drains(&mut self) {
        self.snapshots.drop_retired();
        tokio::task::block_in_place(|| self.snapshots.trim_heap());
        let file = Arc::clone(&self.layers.file);
        let registry = self.snapshots.registry_mut();
        let now = std::time::Instant::now();
        let moved = self.names.fail_over(&file, registry, now);
        if self.snapshots.end_drains(file.drain_timeout) || moved {
            self.snapshots.wait_for_turn().await;
            self.republish();
            self.snapshots.forget_unused();
        }
    }

    /// Publishes the same configuration, since what it is built from has changed.
    fn republish(&mut self) {
        self.publish(&self.snapshots.sockets(), Cause::Update);
    }

    fn publish(&mut self, sockets: &[Arc<BoundSockets>], cause: Cause) {
        let names = self.names.resolved();
        let snapshots = &mut self.snapshots;
        tokio::task::block_in_place(|| snapshots.publish(&self.layers, names, sockets, cause));
    }
}

#[cfg(test)]
mod tests;
