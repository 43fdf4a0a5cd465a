//! `lbproxy agent` as a process, and the pieces that tests of the peer set share.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::port::Port;
use super::process::{PROGRAM, collect_lines};
use super::wait::wait_for;

/// A running agent; killed when it goes out of scope.
pub struct Agent {
    /// Where it gossips.
    pub address: SocketAddr,
    /// The service that it speaks for.
    pub backend: SocketAddr,
    flags: Vec<String>,
    child: Mutex<Child>,
    stderr: Arc<Mutex<Vec<String>>>,
    _port: Port,
}

impl Agent {
    /// Starts an agent at a free port of `ip` for the service at `backend`, with more `flags`.
    pub fn start(ip: &str, backend: SocketAddr, flags: &[&str]) -> Self {
        let port = Port::reserve(ip);
        let mut all: Vec<String> = ["--address", &port.addr.to_string()]
            .into_iter()
            .chain(["--backend", &backend.to_string()])
            .chain(flags.iter().copied())
            .map(str::to_owned)
            .collect();
        if !flags.contains(&"--cluster") {
            all.extend(["--cluster", "web"].map(str::to_owned));
        }
        let (child, stderr) = launch(&all);
        Self {
            address: port.addr,
            backend,
            flags: all,
            child: Mutex::new(child),
            stderr,
            _port: port,
        }
    }

    /// Starts it again at the same address, after its end.
    pub fn restart(&mut self) {
        let (child, stderr) = launch(&self.flags);
        *self.child.lock().unwrap() = child;
        self.stderr = stderr;
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.lock().unwrap();
        kill_process(Pid::from_child(&child), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        wait_for(timeout, "the agent ends", || {
            self.child.lock().unwrap().try_wait().unwrap()
        })
    }

    /// What it has written to stderr.
    pub fn log(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Ok(mut child) = self.child.lock() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn launch(flags: &[String]) -> (Child, Arc<Mutex<Vec<String>>>) {
    let mut child = Command::new(PROGRAM)
        .arg("agent")
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stderr = collect_lines(child.stderr.take().unwrap());
    (child, stderr)
}

/// Writes a new key to `path`, as `lbproxy key generate` prints it.
pub fn write_key(path: &Path) {
    let made = Command::new(PROGRAM)
        .args(["key", "generate"])
        .output()
        .unwrap();
    assert!(made.status.success());
    replace(path, &made.stdout);
}

/// Puts another file in place of `path`, by rename.
pub fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(&new, path).unwrap();
}
