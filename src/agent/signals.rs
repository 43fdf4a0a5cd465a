//! The signals that an agent handles, one after another.
//!
//! SIGTERM and SIGINT ask for a drain. At SIGHUP an agent that has a file reads it again, and does not pass the signal
//! on, since it ends a process that does not expect it. The other signals are passed on to the supervised process.
//! Without one they do nothing, so that a habit (SIGUSR1 to reopen a log file) does not silently end an agent.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// The signals that are handled. SIGQUIT and SIGWINCH tell some servers to end gracefully.
pub(super) const HANDLED: [(SignalKind, Signal); 7] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
    (SignalKind::window_change(), Signal::WINCH),
];

/// The signals that arrive.
#[derive(Debug)]
pub(crate) struct AgentSignals(mpsc::Receiver<Signal>);

impl AgentSignals {
    /// Receives the signals of this process from now on. Only within a runtime.
    ///
    /// # Errors
    /// A handler cannot be set.
    pub(crate) fn listen() -> io::Result<Self> {
        let (sender, signals) = mpsc::channel(HANDLED.len());
        for (kind, name) in HANDLED {
            let mut arrivals = signal(kind)?;
            let sender = sender.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() && sender.send(name).await.is_ok() {}
            });
        }
        Ok(Self(signals))
    }

    /// Receives signals from a channel.
    #[cfg(test)]
    pub(crate) fn from_channel(signals: mpsc::Receiver<Signal>) -> Self {
        Self(signals)
    }

    /// The next signal; pending for ever once there is no sender. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// Whether a signal asks the agent to end.
    pub(crate) fn is_end(signal: Signal) -> bool {
        signal == Signal::TERM || signal == Signal::INT
    }
}
