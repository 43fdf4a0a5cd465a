//! Tests that need a whole process: its signals, its exit code, its death, its orphans. The test program runs itself
//! with one test, [`agent_entry`], which finds a script in its environment and becomes an agent.

use std::fs;
use std::io::{BufRead, BufReader, Lines};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, getpid, kill_process, set_child_subreaper};

use super::{is_dead, settings, wait_until};
use crate::agent::{Announcer, run};
use crate::config::schema::AgentConfig;
use crate::gossip::record::ServiceState;

const SCRIPT: &str = "LBPROXY_TEST_AGENT";

/// Announces to standard output.
struct Speaker;

impl Announcer for Speaker {
    fn announce(&self, state: ServiceState) {
        println!("state {}", state.as_str());
    }

    async fn sent(&self) {}

    async fn change(&self, _: AgentConfig) -> Result<(), String> {
        Ok(())
    }

    async fn leave(self) {
        println!("state left");
    }
}

/// Becomes an agent that supervises the script in the environment; does nothing without one.
#[test]
fn agent_entry() {
    let Some(script) = std::env::var_os(SCRIPT) else {
        return;
    };
    // Adopts orphans, as PID 1 of a container does.
    set_child_subreaper(Some(getpid())).unwrap();
    let mut settings = settings();
    settings.config.drain_delay = Duration::ZERO;
    settings.command = vec!["sh".into(), "-c".into(), script];
    settings.config.once = true;
    let code = run(settings, None, Speaker).unwrap();
    // Before the test harness prints anything.
    std::process::exit(code.into());
}

struct Agent {
    process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Agent {
    fn start(script: &str) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "agent::tests::process::agent_entry",
                "--nocapture",
            ])
            .env(SCRIPT, script)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        Self { process, lines }
    }

    /// Waits for the next line that begins with `word`, and returns what follows it.
    fn hear(&mut self, word: &str) -> String {
        let line = self.lines.by_ref().map(Result::unwrap);
        let mut found = line.filter_map(|line| line.strip_prefix(word).map(str::to_owned));
        found
            .next()
            .unwrap_or_else(|| panic!("it does not say {word:?}"))
    }

    fn send(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.process), signal).unwrap();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn real_signals_and_a_real_exit_code() {
    let mut agent = Agent::start(
        "trap 'echo reload' HUP; trap 'echo stop; exit 7' TERM; echo up; while :; do sleep 0.02; done",
    );
    agent.hear("up");
    agent.send(Signal::HUP);
    agent.hear("reload");
    agent.send(Signal::TERM);
    assert_eq!(agent.hear("state "), "draining");
    agent.hear("stop");
    assert_eq!(agent.hear("state "), "left");
    assert_eq!(agent.process.wait().unwrap().code(), Some(7));
}

#[test]
fn a_process_does_not_outlive_its_agent() {
    let mut agent = Agent::start("echo pid $$; exec sleep 300");
    let pid = agent.hear("pid ");
    assert!(!is_dead(&pid));
    agent.send(Signal::KILL);
    wait_until(|| is_dead(&pid));
}

#[test]
fn adopted_children_of_an_ended_process_are_killed() {
    let mut agent = Agent::start("sleep 7777 >/dev/null & echo orphan $!; exit 5");
    let orphan = agent.hear("orphan ");
    assert_eq!(agent.process.wait().unwrap().code(), Some(5));
    wait_until(|| is_dead(&orphan));
}

#[test]
fn orphans_are_reaped() {
    // The inner shell leaves a process behind that waits until we close a pipe.
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = Command::new("mkfifo").arg(&pipe).status().unwrap();
    assert!(made.success());
    let mut agent = Agent::start(&format!(
        "sh -c 'cat {} & echo orphan $!'; exec sleep 300",
        pipe.display()
    ));
    let orphan = agent.hear("orphan ");
    let parent = || {
        let stat = fs::read_to_string(format!("/proc/{orphan}/stat")).unwrap();
        let behind = stat.rsplit_once(") ").unwrap().1.to_owned();
        behind.split(' ').nth(1).unwrap().to_owned()
    };
    let adopter = agent.process.id().to_string();
    wait_until(|| parent() == adopter);
    // The pipe was opened and closed, so it ends.
    drop(fs::File::options().write(true).open(&pipe).unwrap());
    wait_until(|| !Path::new(&format!("/proc/{orphan}")).exists());
}
