//! Starts a process that does not outlive the agent. This is one of the few files with unsafe code: what runs between
//! fork and exec.
//!
//! The kernel sends the process SIGTERM when the thread that started it ends for any reason (`PR_SET_PDEATHSIG`), so a
//! thread that lives as long as the agent must start it. The process leads a group of its own: Ctrl-C in a terminal
//! reaches only the agent, which drains first, and a kill also reaches what the process has started. The price is that
//! it cannot read from a terminal (SIGTTIN would stop it). It inherits input, output and environment from the agent;
//! none of them holds a secret, since keys and tokens come from files, and files are closed on exec.

#![expect(unsafe_code, reason = "Command::pre_exec has no safe equal")]

use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Pid, Signal, getpid, getppid, set_parent_process_death_signal};

use super::signals::HANDLED;

/// Starts `command` (a program and its arguments). The caller reaps it.
pub(super) fn spawn(command: &[OsString]) -> io::Result<Pid> {
    let (program, arguments) = command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
    let agent = getpid();
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    // SAFETY: the closure runs in the child of a fork, where only async-signal-safe calls are sound: signal(2),
    // prctl(2) and getppid(2) are, it takes no lock and allocates nothing, its errors included (an error number, a
    // kind).
    unsafe {
        command.pre_exec(move || {
            // A signal that was ignored when the agent started, as in a background job, would never reach the process.
            for (_, signal) in HANDLED {
                libc::signal(signal.as_raw(), libc::SIG_DFL);
            }
            set_parent_process_death_signal(Some(Signal::TERM))?;
            // The agent may have died before the call above.
            if getppid() == Some(agent) {
                Ok(())
            } else {
                Err(io::ErrorKind::BrokenPipe.into())
            }
        });
    }
    Ok(Pid::from_child(&command.spawn()?))
}
