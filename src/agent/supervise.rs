//! The process that an agent supervises: started, started again with a growing delay, signalled, reaped.
//!
//! Reaping uses our own SIGCHLD handling instead of tokio's, because of orphans: PID 1 of a container (or a subreaper)
//! inherits the children that the process leaves behind, and must take their statuses or they stay as zombies. There
//! every status is taken (`waitpid(-1)`); elsewhere only that of the process, so that nothing is taken from other code
//! in this program. A process is signalled only while its status has not been taken, so its id cannot belong to another
//! process.
//!
//! What a process leaves behind in its group is killed when it ends: a child that still holds its port would block the
//! next start, or whatever comes after the agent. (A child that leads a group of its own, as a daemon does, is left
//! alone.)
//!
//! The delay is 1 s, doubles up to 30 s with each end, and is 1 s again after a process that ran for 60 s. It does not
//! matter whether a process ends well or badly: a service is meant to stay.

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

/// Delay before the first restart.
const LEAST_DELAY: Duration = Duration::from_secs(1);
/// Longest delay before a restart.
const LONGEST_DELAY: Duration = Duration::from_secs(30);
/// A process that ran for this long counts as started.
const LONG_RUN: Duration = Duration::from_secs(60);

/// How a process ended.
#[derive(Debug)]
pub(crate) enum ProcessExit {
    /// It exited with this code.
    Code(u8),
    /// A signal ended it.
    Signal(u8),
    /// It could not be started.
    NotStarted(io::Error),
}

impl ProcessExit {
    /// The exit code as a shell reports it: 128 plus the signal, 127 for a program that does not exist, 126 for one
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

impl fmt::Display for ProcessExit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "{}", signal_name(i32::from(*signal))),
            Self::NotStarted(error) => write!(f, "cannot be started: {error}"),
        }
    }
}

/// What happened to the process.
#[derive(Debug)]
pub(crate) enum ProcessEvent {
    /// It runs.
    Started,
    /// It ended, or could not be started.
    Ended(ProcessExit),
}

/// The delays between an end and the next start.
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
        self.next = (delay * 2).min(LONGEST_DELAY);
        delay
    }
}

#[derive(Debug)]
enum ProcessState {
    Running {
        pid: Pid,
        since: Instant,
    },
    /// It is started at this time; `None`: never again.
    Waiting {
        until: Option<Instant>,
    },
}

/// Keeps one process running.
#[derive(Debug)]
pub(crate) struct Supervisor {
    command: Vec<OsString>,
    once: bool,
    process: ProcessState,
    backoff: Backoff,
    /// Orphans become children of this process.
    adopts: bool,
    child_signals: unix::Signal,
}

impl Supervisor {
    /// Runs `command` (a program and its arguments) once [`Self::next`] is called; with `once` only one time. Only on a
    /// thread that lives as long as the agent.
    ///
    /// # Errors
    /// SIGCHLD cannot be followed.
    pub(crate) fn new(command: Vec<OsString>, once: bool) -> io::Result<Self> {
        let subreaper = child_subreaper().is_ok_and(|set| set.is_some());
        Ok(Self {
            command,
            once,
            process: ProcessState::Waiting {
                until: Some(Instant::now()),
            },
            backoff: Backoff::default(),
            adopts: getpid().is_init() || subreaper,
            child_signals: unix::signal(SignalKind::child())?,
        })
    }

    /// Sets whether the process is not started again after its next end.
    pub(crate) fn set_once(&mut self, once: bool) {
        self.once = once;
    }

    /// Waits until the process starts or ends, and starts it when it is due. Cancel-safe.
    pub(crate) async fn next(&mut self) -> ProcessEvent {
        loop {
            match self.process {
                ProcessState::Running { pid, since } => match self.reap(Some(pid)) {
                    Some(exit) => return self.ended(exit, since.elapsed()),
                    None => drop(self.child_signals.recv().await),
                },
                ProcessState::Waiting { until } => {
                    self.reap(None);
                    tokio::select! {
                        _ = self.child_signals.recv() => {}
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
            // It may have ended without being reaped; then the signal has no effect.
            ProcessState::Running { pid, .. } => drop(kill_process(pid, signal)),
            ProcessState::Waiting { .. } => {
                debug!(signal = %signal_name(signal.as_raw()), "signal ignored: no process runs")
            }
        }
    }

    /// Kills the process and what it has started in its group.
    pub(crate) fn kill(&self) {
        if let ProcessState::Running { pid, .. } = self.process {
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }

    fn start(&mut self) -> ProcessEvent {
        match spawn(&self.command) {
            Ok(pid) => {
                info!(pid = pid.as_raw_nonzero().get(), "the process runs");
                self.process = ProcessState::Running {
                    pid,
                    since: Instant::now(),
                };
                ProcessEvent::Started
            }
            Err(error) => self.ended(ProcessExit::NotStarted(error), Duration::ZERO),
        }
    }

    fn ended(&mut self, exit: ProcessExit, ran: Duration) -> ProcessEvent {
        let program = self.command.first().map(|name| name.display());
        let program = program.map(tracing::field::display);
        let delay = (!self.once).then(|| self.backoff.after(ran));
        self.process = ProcessState::Waiting {
            until: delay.map(|delay| Instant::now() + delay),
        };
        match &exit {
            ProcessExit::NotStarted(_) => warn!(program, "the process {exit}"),
            _ => info!(program, ?ran, "the process ended: {exit}"),
        }
        ProcessEvent::Ended(exit)
    }

    /// If `mine` has ended, kills what is left of its group and takes its status. Also takes the statuses of adopted
    /// children.
    fn reap(&self, mine: Option<Pid>) -> Option<ProcessExit> {
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
            // It has ended since the check above. Whatever is left of the group keeps the group's id in use.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        found
    }

    /// Whether there is a status to take.
    fn has_ended(pid: Pid) -> bool {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        // An error means that it is no longer a child; taking its status will show that.
        !matches!(waitid(WaitId::Pid(pid), options), Ok(None))
    }

    fn taken(result: rustix::io::Result<Option<(Pid, WaitStatus)>>) -> Option<(Pid, ProcessExit)> {
        // ECHILD: there are no children.
        let (pid, status) = result.ok().flatten()?;
        Some((pid, ProcessExit::of(status)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_and_start_again_after_a_long_run() {
        let mut backoff = Backoff::default();
        let delays: Vec<u64> = [0, 1, 59, 0, 0, 0, 0, 60, 3, 61, 61]
            .map(|ran| backoff.after(Duration::from_secs(ran)).as_secs())
            .to_vec();
        assert_eq!(delays, [1, 2, 4, 8, 16, 30, 30, 1, 2, 1, 1]);
    }

    #[test]
    fn exit_codes_are_a_shells() {
        let not_started = |kind: io::ErrorKind| ProcessExit::NotStarted(kind.into());
        for (exit, code) in [
            (ProcessExit::Code(0), 0),
            (ProcessExit::Code(77), 77),
            (ProcessExit::Signal(9), 137),
            (ProcessExit::Signal(15), 143),
            (not_started(io::ErrorKind::NotFound), 127),
            (not_started(io::ErrorKind::PermissionDenied), 126),
        ] {
            assert_eq!(exit.code(), code, "{exit}");
        }
    }
}
