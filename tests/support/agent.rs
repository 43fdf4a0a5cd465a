//! The built program as an agent: started with flags, signalled, ended; told by its log.

use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use rustix::process::{Pid, Signal, kill_process};

use super::process::{PROGRAM, collect_lines, run};
use super::wait::{PATIENCE, wait_for, wait_until};

/// A running agent; killed when it goes out of scope, and what it supervises with it.
pub struct Agent {
    flags: String,
    command: Vec<String>,
    child: Mutex<Child>,
    stderr: Arc<Mutex<Vec<String>>>,
}

impl Agent {
    /// Starts it with these flags, split at blanks, and the command that it supervises, if any.
    pub fn start(flags: &str, command: &[&str]) -> Self {
        let command: Vec<String> = command.iter().map(|&word| word.to_owned()).collect();
        let (child, stderr) = launch(flags, &command);
        Self {
            flags: flags.to_owned(),
            command,
            child: Mutex::new(child),
            stderr,
        }
    }

    /// Starts it again after its end, with the same flags.
    pub fn restart(&mut self) {
        let (child, stderr) = launch(&self.flags, &self.command);
        *self.child.lock().unwrap() = child;
        self.stderr = stderr;
    }

    /// `kill -9`, and waits for the end.
    pub fn kill(&self) {
        let mut child = self.child.lock().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// The events that it has written to stderr, and what the process it supervises has.
    pub fn log(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }

    /// Waits until its log has this.
    #[track_caller]
    pub fn wait_log(&self, said: &str) {
        wait_until(PATIENCE, &format!("the agent says {said:?}"), || {
            self.log().contains(said)
        });
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child.lock().unwrap()), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_exit(&self) -> ExitStatus {
        wait_for(PATIENCE, "the agent ends", || {
            self.child.lock().unwrap().try_wait().unwrap()
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(|e| e.into_inner());
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            let log = self.stderr.lock().unwrap_or_else(|e| e.into_inner());
            eprintln!("--- the agent's log\n{}\n---", log.join("\n"));
        }
    }
}

fn launch(flags: &str, command: &[String]) -> (Child, Arc<Mutex<Vec<String>>>) {
    let mut agent = Command::new(PROGRAM);
    agent.arg("agent").args(flags.split_whitespace());
    if !command.is_empty() {
        agent.arg("--").args(command);
    }
    let mut child = agent
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
    replace(path, &run(&["key", "generate"]).stdout);
}

/// Puts another file in place of `path`, by rename.
pub fn replace(path: &Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(&new, path).unwrap();
}
