//! The file that an agent has its settings from. It is read when it changes and at SIGHUP, as a proxy reads its own;
//! errors in it are logged once and change nothing.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use super::settings::AgentSettings;
use crate::config::schema::AgentConfig;
use crate::config::watch::{read_settled, watch};

/// Parses the contents of the file: returns the settings with warnings about them, or all errors.
type Parse = Box<dyn Fn(&[u8]) -> Result<(AgentSettings, String), String>>;

/// The file, and how it is parsed.
pub(crate) struct SettingsFile {
    path: PathBuf,
    parse: Parse,
    /// Called with a configuration that was applied.
    applied: Box<dyn Fn(&AgentConfig)>,
    /// The contents when the agent started.
    contents: Vec<u8>,
    changed: Arc<Notify>,
    /// Read the file even if it has not changed.
    asked: AtomicBool,
}

impl fmt::Debug for SettingsFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SettingsFile")
            .field("path", &self.path)
            .finish()
    }
}

impl SettingsFile {
    /// The file at `path`, which had these `contents` when the agent started. `parse` makes settings of its contents,
    /// and `applied` applies what lies outside of the agent.
    pub(crate) fn new(
        path: PathBuf,
        contents: Vec<u8>,
        parse: impl Fn(&[u8]) -> Result<(AgentSettings, String), String> + 'static,
        applied: impl Fn(&AgentConfig) + 'static,
    ) -> Self {
        Self {
            path,
            parse: Box::new(parse),
            applied: Box::new(applied),
            contents,
            changed: Arc::default(),
            asked: AtomicBool::new(false),
        }
    }

    /// Reads the file again, whether it has changed or not.
    pub(super) fn read_again(&self) {
        self.asked.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// Notes that `config` was applied in place of `before`.
    pub(super) fn applied(&self, config: &AgentConfig, before: &AgentConfig) {
        (self.applied)(config);
        match &config.changed_since(before)[..] {
            [] => info!("the configuration is unchanged"),
            keys => info!(changed = keys.join(", "), "applied the configuration"),
        }
    }

    /// Sends the settings that the file holds from now on.
    pub(super) async fn follow(&self, settings: mpsc::Sender<AgentSettings>) -> Infallible {
        let watching = watch(self.path.clone(), Arc::clone(&self.changed));
        tokio::select! {
            () = watching => unreachable!("it watches for ever"),
            never = self.send_changes(settings) => never,
        }
    }

    async fn send_changes(&self, settings: mpsc::Sender<AgentSettings>) -> Infallible {
        let mut last = Ok(self.contents.clone());
        loop {
            self.changed.notified().await;
            let asked = self.asked.swap(false, Ordering::Relaxed);
            let now = read_settled(&self.path).await;
            let now = now.map_err(|error| format!("cannot be read: {error}"));
            if now == last && !asked {
                continue;
            }
            last = now;
            let parsed = match &last {
                Ok(contents) => (self.parse)(contents),
                Err(error) => Err(error.clone()),
            };
            match parsed {
                Ok((next, warnings)) => {
                    if !warnings.is_empty() {
                        warn!("the configuration has warnings\n{warnings}");
                    }
                    // Its receiver lives as long as the agent.
                    let _ = settings.send(next).await;
                }
                Err(error) => warn!(
                    "the new configuration was rejected; keeping the previous one\n{}",
                    error.trim_end()
                ),
            }
        }
    }
}
