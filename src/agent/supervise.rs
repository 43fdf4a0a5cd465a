//! The process that an agent supervises: started, started again with a growing delay, signalled, reaped.
//!
//! It is reaped by our own look at SIGCHLD and not by tokio's, for the sake of orphans: who is PID 1 of a container (or
//! a subreaper) inherits those that the process leaves behind, and must take their statuses or they stay as zombies.
//! There every status is taken (`waitpid(-1)`), elsewhere only that of the process, so that nothing is taken from
//! others in this program. A process is signalled only while its status is not taken, so its id cannot be another's.
//!
//! What a process leaves behind in its group ends with it: a child that still held its port would keep the next start,
//! or who comes after the agent, from it. (What leads a group of its own, as a daemon does, is let go.)
//!
//! The delay is 1 s, doubles up to 30 s with each end, and is 1 s again after a process that ran for 60 s. Whether a
//! process ends well or badly does not matter: a service is there to stay.

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::time::Duration;

use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, WaitOptions, WaitStatus, child_subreaper, getpid,
    kill_process, kill_process_group, wait, waitid, waitpid,
};
use tokio::signal::unix::{self, SignalKind};
use tokio::time::{Instant, sleep_until};
use tracing::{debug, info, warn};

use super::spawn::spawn;
use crate::model::signal::signal_name;

const LEAST_DELAY: Duration = Duration::from_secs(1);
const MOST_DELAY: Duration = Duration::from_secs(30);
/// A process that ran for so long did start.
const LONG_RUN: Duration = Duration::from_secs(60);

/// How a process ended.
#[derive(Debug)]
pub(crate) enum Exit {
    /// By itself.
    Code(u8),
    /// By a signal.
    Signal(u8),
    /// It did not even begin.
    NotStarted(io::Error),
}

impl Exit {
    /// The exit code as a shell would have it: 128 and the signal, 127 for a program that is not there, 126 for one
    /// that cannot be run.
    pub(crate) fn code(&self) -> u8 {
        match self {
            Self::Code(code) => *code,
            Self::Signal(signal) => 128_u8.saturating_add(*signal),
            Self::NotStarted(error) if error.kind() == io::ErrorKind::NotFound => 127,
            Self::NotStarted(_) => 126,
        }
    }

    fn of(status: WaitStatus) -> Self {
        match (status.exit_status(), status.terminating_signal()) {
            (Some(code), _) => Self::Code(u8::try_from(code).unwrap_or(u8::MAX)),
            (None, signal) => Self::Signal(signal.and_then(|s| u8::try_from(s).ok()).unwrap_or(0)),
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "{}", signal_name(i32::from(*signal))),
            Self::NotStarted(error) => write!(f, "cannot be started: {error}"),
        }
    }
}

/// What [`Supervisor::next`] tells.
#[derive(Debug)]
pub(crate) enum Change {
    /// The process runs.
    Started,
    /// It ended, or could not be started.
    Ended(Exit),
}

/// Delays between an end and the next start.
#[derive(Debug)]
struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: LEAST_DELAY }
    }
}

impl Backoff {
    /// The delay after a process that ran for `ran`.
    fn after(&mut self, ran: Duration) -> Duration {
        if ran >= LONG_RUN {
            self.next = LEAST_DELAY;
        }
        let delay = self.next;
        self.next = (delay * 2).min(MOST_DELAY);
        delay
    }
}

#[derive(Debug)]
enum Process {
    Runs {
        pid: Pid,
        since: Instant,
    },
    /// Starts then; `None`: never again.
    Waits {
        until: Option<Instant>,
    },
}

/// Keeps one process running.
#[derive(Debug)]
pub(crate) struct Supervisor {
    command: Vec<OsString>,
    once: bool,
    process: Process,
    backoff: Backoff,
    adopts: bool,
    deaths: unix::Signal,
}

impl Supervisor {
    /// Will run `command` (a program and its arguments; with `once` one time only) as soon as it is asked for what is
    /// [`Self::next`]. Only on a thread that lives as long as the agent.
    ///
    /// # Errors
    /// SIGCHLD cannot be followed.
    pub(crate) fn new(command: Vec<OsString>, once: bool) -> io::Result<Self> {
        let subreaper = child_subreaper().is_ok_and(|set| set.is_some());
        Ok(Self {
            command,
            once,
            process: Process::Waits {
                until: Some(Instant::now()),
            },
            backoff: Backoff::default(),
            adopts: getpid().is_init() || subreaper,
            deaths: unix::signal(SignalKind::child())?,
        })
    }

    /// Whether the next end of the process is the last.
    pub(crate) fn set_once(&mut self, once: bool) {
        self.once = once;
    }

    /// Waits until the process starts or ends, and starts it when it is due. Cancel-safe.
    pub(crate) async fn next(&mut self) -> Change {
        loop {
            match self.process {
                Process::Runs { pid, since } => match self.reap(Some(pid)) {
                    Some(exit) => return self.ended(exit, since.elapsed()),
                    None => drop(self.deaths.recv().await),
                },
                Process::Waits { until } => {
                    self.reap(None);
                    tokio::select! {
                        _ = self.deaths.recv() => {}
                        () = sleep_until(until.unwrap_or_else(Instant::now)), if until.is_some() => {
                            return self.start();
                        }
                    }
                }
            }
        }
    }

    /// Sends `signal` to the process if it runs.
    pub(crate) fn send(&self, signal: Signal) {
        match self.process {
            // It may have ended and not be reaped; then nobody is there to mind.
            Process::Runs { pid, .. } => drop(kill_process(pid, signal)),
            Process::Waits { .. } => {
                debug!(signal = %signal_name(signal.as_raw()), "no process runs that could be signalled")
            }
        }
    }

    /// Kills the process and what it has started in its process group.
    pub(crate) fn kill(&self) {
        if let Process::Runs { pid, .. } = self.process {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    fn start(&mut self) -> Change {
        match spawn(&self.command) {
            Ok(pid) => {
                info!(pid = pid.as_raw_nonzero().get(), "the process runs");
                self.process = Process::Runs {
                    pid,
                    since: Instant::now(),
                };
                Change::Started
            }
            Err(error) => self.ended(Exit::NotStarted(error), Duration::ZERO),
        }
    }

    fn ended(&mut self, exit: Exit, ran: Duration) -> Change {
        let program = self.command.first().map(|name| name.display());
        let program = program.map(tracing::field::display);
        let delay = (!self.once).then(|| self.backoff.after(ran));
        self.process = Process::Waits {
            until: delay.map(|delay| Instant::now() + delay),
        };
        match &exit {
            Exit::NotStarted(_) => warn!(program, "the process {exit}"),
            _ => info!(program, ?ran, "the process ended: {exit}"),
        }
        Change::Ended(exit)
    }

    /// Takes the status of `mine` if it has ended, after what is left of its group was killed; and of everybody else
    /// if that falls to us.
    fn reap(&self, mine: Option<Pid>) -> Option<Exit> {
        let ended = mine.filter(|pid| Self::has_ended(*pid));
        if let Some(pid) = ended {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        if !self.adopts {
            return Self::taken(waitpid(Some(ended?), WaitOptions::NOHANG)).map(|(_, exit)| exit);
        }
        let mut found = None;
        while let Some((pid, exit)) = Self::taken(wait(WaitOptions::NOHANG)) {
            if Some(pid) == mine {
                found = Some(exit);
            }
        }
        if let (Some(pid), None, Some(_)) = (mine, ended, &found) {
            // It ended since the look above. Who is left of the group keeps its id from being given to another.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        found
    }

    /// Whether there is a status to take.
    fn has_ended(pid: Pid) -> bool {
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that it is no child any more, which the taking shall tell.
        !matches!(waitid(WaitId::Pid(pid), look), Ok(None))
    }

    fn taken(result: rustix::io::Result<Option<(Pid, WaitStatus)>>) -> Option<(Pid, Exit)> {
        // ECHILD: there is none.
        let (pid, status) = result.ok().flatten()?;
        Some((pid, Exit::of(status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_begin_anew_after_a_long_run() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = [0, 1, 59, 0, 0, 0, 0, 60, 3, 61, 61]
            .map(|ran| backoff.after(Duration::from_secs(ran)).as_secs())
            .to_vec();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30, 1, 2, 1, 1]);
    }

    #[test]
    fn exit_codes_are_a_shells() {
        let not_started = |kind: io::ErrorKind| Exit::NotStarted(kind.into());
        for (exit, code) in [
            (Exit::Code(0), 0),
            (Exit::Code(77), 77),
            (Exit::Signal(9), 137),
            (Exit::Signal(15), 143),
            (not_started(io::ErrorKind::NotFound), 127),
            (not_started(io::ErrorKind::PermissionDenied), 126),
        ] {
            assert_eq!(exit.code(), code, "{exit}");
        }
    }
}
