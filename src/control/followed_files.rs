//! The files that control follows: the texts of the configuration, what they name, and the keys of the peer set. One
//! watcher serves them all. Its events are hints; who follows a file compares what it holds.

use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;

use crate::config::watch::{Targets, watch_all};

/// The watcher and what it watches.
#[derive(Debug)]
pub(super) struct FollowedFiles {
    config: Targets,
    secrets: Vec<PathBuf>,
    targets: watch::Sender<Targets>,
    changed: Arc<Notify>,
    watcher: AbortHandle,
}

impl FollowedFiles {
    /// Follows the files of a configuration. Must run on a runtime.
    pub(super) fn start(config: Targets) -> Self {
        let targets = watch::Sender::new(config.clone());
        let changed = Arc::new(Notify::new());
        let watching = watch_all(targets.subscribe(), Arc::clone(&changed));
        Self {
            config,
            secrets: Vec::new(),
            targets,
            changed,
            watcher: tokio::spawn(watching).abort_handle(),
        }
    }

    /// Waits until one of the files may have changed. Cancel-safe.
    pub(super) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Follows the files of another configuration.
    pub(super) fn follow_config(&mut self, config: Targets) {
        self.config = config;
        self.update();
    }

    /// Follows other files with secrets.
    pub(super) fn follow_secrets(&mut self, secrets: Vec<PathBuf>) {
        self.secrets = secrets;
        self.update();
    }

    fn update(&self) {
        let mut targets = self.config.clone();
        // Few, and never left out for the many that a configuration may name.
        targets.files.splice(0..0, self.secrets.iter().cloned());
        self.targets.send_replace(targets);
    }
}

impl Drop for FollowedFiles {
    fn drop(&mut self) {
        self.watcher.abort();
    }
}
