//! The signals that an agent hears, one after another.
//!
//! SIGTERM and SIGINT are orders to drain. At SIGHUP an agent that has a file reads it again, and keeps the signal to
//! itself, since it ends a process that does not expect it. The others are for the process that is supervised; without one
//! they do nothing, so that a habit (SIGUSR1 for a log file) does not end an agent without a word.

use std::io;

use rustix::process::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Those that are heard. SIGQUIT and SIGWINCH are how some servers are told to end in order.
pub(super) const HEARD: [(SignalKind, Signal); 7] = [
    (SignalKind::terminate(), Signal::TERM),
    (SignalKind::interrupt(), Signal::INT),
    (SignalKind::hangup(), Signal::HUP),
    (SignalKind::quit(), Signal::QUIT),
    (SignalKind::user_defined1(), Signal::USR1),
    (SignalKind::user_defined2(), Signal::USR2),
    (SignalKind::window_change(), Signal::WINCH),
];

/// A source of signals.
#[derive(Debug)]
pub(crate) struct Signals(mpsc::Receiver<Signal>);

impl Signals {
    /// Those of this process, from now on. Within a runtime.
    ///
    /// # Errors
    /// A handler cannot be set.
    pub(crate) fn listen() -> io::Result<Self> {
        let (heard, signals) = mpsc::channel(HEARD.len());
        for (kind, name) in HEARD {
            let mut arrivals = signal(kind)?;
            let heard = heard.clone();
            tokio::spawn(async move {
                while arrivals.recv().await.is_some() && heard.send(name).await.is_ok() {}
            });
        }
        Ok(Self(signals))
    }

    /// Those that are sent to a channel.
    #[cfg(test)]
    pub(crate) fn from_channel(signals: mpsc::Receiver<Signal>) -> Self {
        Self(signals)
    }

    /// The next one; never comes back when there is no source any more. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Signal {
        match self.0.recv().await {
            Some(signal) => signal,
            None => std::future::pending().await,
        }
    }

    /// Whether it asks the agent to end.
    pub(crate) fn is_end(signal: Signal) -> bool {
        signal == Signal::TERM || signal == Signal::INT
    }
}
