//! The last good set of members on disk, for a start while no peer answers: when it is written, and where.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::state_dir::{members_paths, usual_state_dir};
use crate::config::schema::{Config, GossipConfig};
use crate::discovery::gossip::candidates::{Candidates, LastGood};
use crate::discovery::gossip::members_file::{self, Wanted};

/// What is on disk, and whether it is to be written again.
#[derive(Debug)]
pub(super) struct LastGoodFile {
    /// Where the configuration is.
    path: PathBuf,
    /// Where state lies if the configuration does not say, as it was at the start.
    usual: Option<PathBuf>,
    writer: watch::Sender<Wanted>,
    kept: LastGood,
    /// Whether tokens were asked for when it was written; not known at the start.
    kept_by_tokens: Option<bool>,
    /// Something has changed since.
    is_outdated: bool,
}

impl LastGoodFile {
    /// Reads the last good set of a configuration at `path`, if it discovers anything (blocking), and starts the task
    /// that writes further ones. Must run on a runtime.
    pub(super) fn open(path: &Path, config: &Config) -> Self {
        let usual = usual_state_dir();
        let discovers = config.clusters.iter().any(|c| c.discover.is_some());
        let gossip = config.gossip.as_ref().filter(|_| discovers);
        let read = |gossip: &GossipConfig| {
            let places = members_paths(path, config, gossip, usual.as_deref());
            places.iter().find_map(|place| members_file::read(place))
        };
        let kept = gossip.and_then(read).unwrap_or_default();
        let (writer, wanted) = watch::channel(None);
        tokio::spawn(members_file::keep(wanted));
        Self {
            path: path.to_owned(),
            usual,
            writer,
            kept,
            kept_by_tokens: None,
            is_outdated: false,
        }
    }

    /// The set that was read or written last.
    pub(super) fn kept(&self) -> &LastGood {
        &self.kept
    }

    /// Has the candidates written if they differ and are good; `changed` says whether they may differ.
    pub(super) fn update(
        &mut self,
        config: &Config,
        candidates: &mut Candidates,
        now: Duration,
        changed: bool,
    ) {
        let gossip = config.gossip.as_ref();
        let tokens = gossip.map(|gossip| !gossip.token_keys.is_empty());
        self.is_outdated |= changed || tokens != self.kept_by_tokens;
        let (Some(gossip), Some(asks), true) = (gossip, tokens, self.is_outdated) else {
            return;
        };
        let Some(next) = candidates.next_last_good(now, &self.kept) else {
            return;
        };
        // What is held back is written when it is good again, which need not be a change.
        self.is_outdated = candidates.is_troubled();
        if next != self.kept || tokens != self.kept_by_tokens {
            self.kept.clone_from(&next);
            self.kept_by_tokens = tokens;
            let mut paths = members_paths(&self.path, config, gossip, self.usual.as_deref());
            let wanted = (paths.swap_remove(0), next, asks);
            self.writer.send_replace(Some(wanted));
        }
    }

    /// What the task is to write.
    #[cfg(test)]
    pub(super) fn wanted(&self) -> Option<LastGood> {
        let wanted = self.writer.borrow();
        wanted.as_ref().map(|(_, set, _)| set.clone())
    }
}
