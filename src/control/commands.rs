//! The way into the control plane: signals, and whatever else wants something changed, send a [`ControlCommand`] and
//! may wait for its reply. Control alone changes what it owns.

use tokio::sync::{mpsc, oneshot};
use tracing::warn;

/// Commands that may wait. Control takes all of them at once between two other tasks.
const QUEUE: usize = 64;

/// What control is asked to do.
#[derive(Debug)]
pub(super) enum ControlCommand {
    /// Read the configuration again and apply it, changed or not.
    Reload {
        /// Gets the outcome, which is in the log too.
        reply: oneshot::Sender<ReloadOutcome>,
    },
    /// Open the files of logs again by their names, after a rotation.
    ReopenLogs,
}

/// The result of a reload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ReloadOutcome {
    /// The configuration is in force.
    Applied {
        /// How many configurations were applied, this one included.
        generation: u64,
    },
    /// Nothing has changed.
    Rejected {
        /// At least one.
        reasons: Vec<String>,
    },
}

/// Sends commands; clones share the queue.
#[derive(Debug, Clone)]
pub(crate) struct ControlHandle(mpsc::Sender<ControlCommand>);

/// The other end of a [`ControlHandle`].
#[derive(Debug)]
pub(crate) struct Commands(mpsc::Receiver<ControlCommand>);

/// A handle and its other end, which [`super::ControlParts`] hands to control.
pub(crate) fn commands() -> (ControlHandle, Commands) {
    let (sender, receiver) = mpsc::channel(QUEUE);
    (ControlHandle(sender), Commands(receiver))
}

impl ControlHandle {
    /// Asks for a reload. All reloads that are asked for before one begins are that one. There is no outcome if control
    /// has ended.
    pub(crate) fn reload(&self) -> oneshot::Receiver<ReloadOutcome> {
        let (reply, outcome) = oneshot::channel();
        self.send(ControlCommand::Reload { reply });
        outcome
    }

    /// Asks for log files to be opened again.
    pub(crate) fn reopen_logs(&self) {
        self.send(ControlCommand::ReopenLogs);
    }

    /// Never waits: signals must be heard whatever control does.
    fn send(&self, command: ControlCommand) {
        if let Err(refused) = self.0.try_send(command) {
            warn!(%refused, "the control plane does not take a command");
        }
    }
}

impl Commands {
    /// Waits for the next command; none comes once all handles are gone. Cancel-safe.
    pub(super) async fn next(&mut self) -> ControlCommand {
        match self.0.recv().await {
            Some(command) => command,
            None => std::future::pending().await,
        }
    }

    /// A command that waits already.
    pub(super) fn try_next(&mut self) -> Option<ControlCommand> {
        self.0.try_recv().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn commands_wait_in_their_order_and_are_bounded() {
        let (handle, mut commands) = commands();
        handle.reopen_logs();
        let outcomes: Vec<_> = (0..QUEUE).map(|_| handle.reload()).collect();
        assert!(matches!(commands.next().await, ControlCommand::ReopenLogs));
        let mut reloads = 0;
        while let Some(ControlCommand::Reload { reply }) = commands.try_next() {
            reloads += 1;
            let _ = reply.send(ReloadOutcome::Applied { generation: 7 });
        }
        assert_eq!(reloads, QUEUE - 1, "the last one found the queue full");
        for (at, outcome) in outcomes.into_iter().enumerate() {
            let outcome = outcome.await.ok();
            let applied = (at < QUEUE - 1).then_some(ReloadOutcome::Applied { generation: 7 });
            assert_eq!(outcome, applied);
        }
    }
}
