//! The file that an agent has its settings from, followed as a proxy follows its own: it is read when it changes and at
//! SIGHUP, and what is wrong in it is logged once and changes nothing.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::{Notify, mpsc};
use tracing::{info, warn};

use super::settings::Settings;
use crate::config::schema::AgentConfig;
use crate::config::watch::{read_settled, watch};

/// Reads what the file holds: the settings and the warnings about them, or all that is wrong.
type Read = Box<dyn Fn(&[u8]) -> Result<(Settings, String), String>>;

/// See the module.
pub(crate) struct Source {
    path: PathBuf,
    read: Read,
    /// Told of a configuration that is applied.
    applied: Box<dyn Fn(&AgentConfig)>,
    /// What it held when it was read last.
    held: Vec<u8>,
    changed: Arc<Notify>,
    asked: AtomicBool,
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source").field("path", &self.path).finish()
    }
}

impl Source {
    /// The file at `path`, which held `held` when the agent began; `read` makes settings of what it holds, and
    /// `applied` sees to what lies outside of the agent.
    pub(crate) fn new(
        path: PathBuf,
        held: Vec<u8>,
        read: impl Fn(&[u8]) -> Result<(Settings, String), String> + 'static,
        applied: impl Fn(&AgentConfig) + 'static,
    ) -> Self {
        Self {
            path,
            read: Box::new(read),
            applied: Box::new(applied),
            held,
            changed: Arc::default(),
            asked: AtomicBool::new(false),
        }
    }

    /// Reads the file again, changed or not.
    pub(super) fn read_again(&self) {
        self.asked.store(true, Ordering::Relaxed);
        self.changed.notify_one();
    }

    /// `config` goes on from now on; `before` did.
    pub(super) fn applied(&self, config: &AgentConfig, before: &AgentConfig) {
        (self.applied)(config);
        match &config.changed_since(before)[..] {
            [] => info!("the configuration is as it was"),
            keys => info!(changed = keys.join(", "), "the configuration is applied"),
        }
    }

    /// Tells `settings` of all that the file holds from now on.
    pub(super) async fn follow(&self, settings: mpsc::Sender<Settings>) -> Infallible {
        let hint = Arc::clone(&self.changed);
        let watching = watch(self.path.clone(), hint);
        let telling = async {
            let mut held = Ok(self.held.clone());
            loop {
                self.changed.notified().await;
                let asked = self.asked.swap(false, Ordering::Relaxed);
                let now = read_settled(&self.path).await;
                let now = now.map_err(|error| format!("cannot be read: {error}"));
                if now == held && !asked {
                    continue;
                }
                held = now;
                let read = match &held {
                    Ok(text) => (self.read)(text),
                    Err(error) => Err(error.clone()),
                };
                match read {
                    Ok((next, warnings)) => {
                        if !warnings.is_empty() {
                            warn!("the configuration has warnings\n{warnings}");
                        }
                        // Its receiver lives as long as the agent.
                        let _ = settings.send(next).await;
                    }
                    Err(error) => warn!(
                        "the configuration is not applied, the one before stays\n{}",
                        error.trim_end()
                    ),
                }
            }
        };
        tokio::select! {
            () = watching => unreachable!("it watches for ever"),
            never = telling => never,
        }
    }
}
