//! The built program as a process: started with a file, asked over its admin socket, reloaded, signalled, ended.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::client::{Client, Response};
use super::metrics::{Format, Metrics};
use super::wait::{PATIENCE, wait_for, wait_until};

/// The program under test.
pub const PROGRAM: &str = env!("CARGO_BIN_EXE_lbproxy");

/// What became of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// Applied.
    Ok,
    /// Refused.
    Rejected,
}

/// Name, labels and value of a number of `/metrics`.
pub type Count<'a> = (&'a str, &'a [(&'a str, &'a str)], u64);

/// A running proxy; killed when it goes out of scope.
pub struct Proxy {
    child: Mutex<Child>,
    dir: tempfile::TempDir,
    stderr: Arc<Mutex<Vec<String>>>,
    stdout: Arc<Mutex<Vec<String>>>,
    /// While nobody reads it.
    unread: Mutex<Option<ChildStderr>>,
}

impl Proxy {
    /// Starts it with this file and waits until it is ready.
    ///
    /// `[admin]` is added at the end, on a socket in the test's own directory, if the text has none; `${DIR}` stands
    /// for that directory.
    pub fn start(config: &str) -> Self {
        let proxy = Self::spawn(config);
        proxy.wait_ready();
        proxy
    }

    /// The same with a descriptor limit that it cannot raise.
    pub fn start_with_descriptors(config: &str, limit: u32) -> Self {
        let proxy = Self::spawn_with_descriptors(config, limit);
        proxy.wait_ready();
        proxy
    }

    /// The same, and waits for nothing.
    pub fn spawn_with_descriptors(config: &str, limit: u32) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lb.toml"), complete(config, dir.path())).unwrap();
        let mut command = Command::new("sh");
        command.args([
            "-c",
            &format!("ulimit -n {limit}; exec \"$0\" \"$@\""),
            PROGRAM,
        ]);
        Self::launch(command, dir)
    }

    /// The same with a stderr that nobody reads until [`Self::read_stderr`].
    pub fn start_unread(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lb.toml"), complete(config, dir.path())).unwrap();
        let proxy = Self::launch_with(Command::new(PROGRAM), dir, false);
        proxy.wait_ready();
        proxy
    }

    /// Begins to read a stderr that nobody has read so far, for [`Self::log`].
    pub fn read_stderr(&self) {
        let unread = self.unread.lock().unwrap().take().unwrap();
        collect_lines_into(unread, &self.stderr);
    }

    /// Waits until `/readyz` is 200.
    pub fn wait_ready(&self) {
        wait_until(PATIENCE, "the proxy is ready", || {
            let ended = self.child.lock().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "it ended: {ended:?}\n{}", self.log());
            self.try_admin("/readyz").is_some_and(|r| r.status == 200)
        });
    }

    /// Starts it and waits for nothing.
    pub fn spawn(config: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("lb.toml"), complete(config, dir.path())).unwrap();
        Self::spawn_in(dir)
    }

    /// Starts it with the `lb.toml` that lies in `dir`.
    pub fn spawn_in(dir: tempfile::TempDir) -> Self {
        Self::launch(Command::new(PROGRAM), dir)
    }

    fn launch(command: Command, dir: tempfile::TempDir) -> Self {
        Self::launch_with(command, dir, true)
    }

    fn launch_with(mut command: Command, dir: tempfile::TempDir, read: bool) -> Self {
        // The clients and backends of several tests are open in this process at once.
        super::raise_descriptor_limit();
        let mut child = command
            .arg("--config")
            .arg(dir.path().join("lb.toml"))
            // What outlives a test's proxy stays with the test.
            .env("STATE_DIRECTORY", dir.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let proxy = Self {
            stdout: collect_lines(child.stdout.take().unwrap()),
            stderr: Arc::default(),
            unread: Mutex::new(child.stderr.take()),
            child: Mutex::new(child),
            dir,
        };
        if read {
            proxy.read_stderr();
        }
        proxy
    }

    /// The directory of the file and of the admin socket.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Path of the file.
    pub fn config_path(&self) -> PathBuf {
        self.dir().join("lb.toml")
    }

    /// The events that it has written to stderr.
    pub fn log(&self) -> String {
        self.stderr.lock().unwrap().join("\n")
    }

    /// The lines that it has written to stdout.
    pub fn stdout_lines(&self) -> Vec<String> {
        self.stdout.lock().unwrap().clone()
    }

    /// The process.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child.lock().unwrap())
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait_exit(&self, timeout: Duration) -> ExitStatus {
        wait_for(timeout, "the proxy ends", || {
            self.child.lock().unwrap().try_wait().unwrap()
        })
    }

    /// How it ended, if it has.
    pub fn try_exit(&self) -> Option<ExitStatus> {
        self.child.lock().unwrap().try_wait().unwrap()
    }

    /// Stops it until SIGCONT, and waits until all of its threads stand still.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
        let tasks = format!("/proc/{}/task", self.pid().as_raw_nonzero());
        wait_until(PATIENCE, "all threads stand still", || {
            std::fs::read_dir(&tasks).unwrap().all(|task| {
                let stat = std::fs::read_to_string(task.unwrap().path().join("stat")).unwrap();
                stat.rsplit_once(") ")
                    .is_some_and(|(_, rest)| rest.starts_with('T'))
            })
        });
    }

    /// Whether it still runs.
    pub fn is_running(&self) -> bool {
        self.child.lock().unwrap().try_wait().unwrap().is_none()
    }

    /// `GET path` of the admin server.
    pub fn admin(&self, path: &str) -> Response {
        self.admin_with(path, "")
    }

    /// The same with more fields (lines with CRLF).
    pub fn admin_with(&self, path: &str, fields: &str) -> Response {
        let mut client = self.admin_client().unwrap();
        client.request("GET", path, fields, b"")
    }

    /// The same where there may be no server.
    pub fn try_admin(&self, path: &str) -> Option<Response> {
        self.admin_client()?.try_request("GET", path, "", b"").ok()
    }

    fn admin_client(&self) -> Option<Client<UnixStream>> {
        let stream = UnixStream::connect(self.dir().join("admin.sock")).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        Some(Client::over(stream))
    }

    /// `/api/v1/status`.
    #[track_caller]
    pub fn status(&self) -> Value {
        let response = self.admin("/api/v1/status");
        assert_eq!(response.status, 200);
        serde_json::from_slice(&response.body).unwrap()
    }

    /// Where a listener is bound.
    #[track_caller]
    pub fn addr(&self, listener: &str) -> SocketAddr {
        let status = self.status();
        let entry = named(&status["listeners"], "name", listener);
        entry["bound"][0].as_str().unwrap().parse().unwrap()
    }

    /// A backend in the status.
    #[track_caller]
    pub fn backend(&self, cluster: &str, address: impl ToString) -> Value {
        let status = self.status();
        let cluster = named(&status["clusters"], "name", cluster);
        named(&cluster["backends"], "address", &address.to_string()).clone()
    }

    /// State of a backend in the status.
    #[track_caller]
    pub fn backend_state(&self, cluster: &str, address: impl ToString) -> String {
        let backend = self.backend(cluster, address);
        backend["state"].as_str().unwrap().to_owned()
    }

    /// Waits until a backend is in this state.
    #[track_caller]
    pub fn wait_backend(&self, cluster: &str, address: impl ToString, state: &str) {
        let address = address.to_string();
        wait_until(PATIENCE, &format!("{address} is {state}"), || {
            self.backend_state(cluster, &address) == state
        });
    }

    /// Waits until a backend is in this state, with the traffic of `poke` between the looks: without a check it is
    /// live traffic that finds out.
    #[track_caller]
    pub fn wait_backend_under(
        &self,
        cluster: &str,
        address: impl ToString,
        state: &str,
        mut poke: impl FnMut(),
    ) {
        let address = address.to_string();
        wait_until(PATIENCE, &format!("{address} is {state}"), || {
            poke();
            self.backend_state(cluster, &address) == state
        });
    }

    /// `/metrics`, checked.
    #[track_caller]
    pub fn metrics(&self) -> Metrics {
        let response = self.admin("/metrics");
        assert_eq!(response.status, 200);
        match Metrics::parse(response.text(), Format::Text) {
            Ok(metrics) => metrics,
            Err(e) => panic!("{e}\n{}", response.text()),
        }
    }

    /// One number of `/metrics`.
    #[track_caller]
    pub fn count(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        self.metrics().count(name, labels)
    }

    /// Waits until a number of `/metrics` is this one.
    #[track_caller]
    pub fn wait_count(&self, name: &str, labels: &[(&str, &str)], expected: u64) {
        let mut last = 0;
        let what = format!("{name} {labels:?} is {expected}");
        let reached = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_until(PATIENCE, &what, || {
                last = self.count(name, labels);
                last == expected
            });
        }));
        assert!(reached.is_ok(), "{what}, but it is {last}");
    }

    /// Waits until one scrape has all of these numbers: what the proxy counts of a request it may count after the answer.
    #[track_caller]
    pub fn wait_counts(&self, expected: &[Count<'_>]) -> Metrics {
        let mut last = Vec::new();
        let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for(PATIENCE, "the numbers are as expected", || {
                let metrics = self.metrics();
                last.clear();
                last.extend(expected.iter().filter_map(|(name, labels, number)| {
                    let count = metrics.count(name, labels);
                    (count != *number)
                        .then(|| format!("{name} {labels:?} is {count} and not {number}"))
                }));
                last.is_empty().then_some(metrics)
            })
        }));
        waited.unwrap_or_else(|_| panic!("{}", last.join("\n")))
    }

    /// Puts another file in place of the present one, by rename.
    pub fn replace_config(&self, config: &str) {
        let new = self.dir().join(".lb.toml.new");
        std::fs::write(&new, complete(config, self.dir())).unwrap();
        std::fs::rename(&new, self.config_path()).unwrap();
    }

    /// Reloads applied and refused so far.
    pub fn reloads(&self) -> (u64, u64) {
        let metrics = self.metrics();
        let of = |result| metrics.count("lbproxy_config_reloads_total", &[("result", result)]);
        (of("ok"), of("rejected"))
    }

    /// Puts another file in place and waits until the proxy has applied or refused it.
    #[track_caller]
    pub fn reload(&self, config: &str) -> Reload {
        let before = self.reloads();
        self.replace_config(config);
        self.wait_reload(before)
    }

    /// The same, where the file is right.
    #[track_caller]
    pub fn reload_ok(&self, config: &str) {
        assert_eq!(self.reload(config), Reload::Ok, "{}", self.log());
    }

    /// Waits until one more reload than `before` is counted.
    #[track_caller]
    pub fn wait_reload(&self, before: (u64, u64)) -> Reload {
        wait_for(PATIENCE, "the reload is counted", || {
            let now = self.reloads();
            match (now.0 - before.0, now.1 - before.1) {
                (0, 0) => None,
                (1, 0) => Some(Reload::Ok),
                (0, 1) => Some(Reload::Rejected),
                more => panic!("one change is one reload, but there were {more:?} (ok, rejected)"),
            }
        })
    }

    /// The whole lines of the access log.
    pub fn access_log(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir().join("access.log")).unwrap_or_default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        let lines = text[..whole].lines();
        lines
            .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
            .collect()
    }

    /// Waits for the line of the access log about this target.
    #[track_caller]
    pub fn wait_access(&self, uri: &str) -> Value {
        wait_for(PATIENCE, &format!("{uri} is in the access log"), || {
            self.access_log()
                .into_iter()
                .find(|line| line["uri"] == uri)
        })
    }

    /// Resident memory.
    pub fn rss_kib(&self) -> u64 {
        let pid = self.pid().as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Processor time used so far, in user space and in the kernel.
    pub fn cpu_time(&self) -> Duration {
        let pid = self.pid().as_raw_nonzero();
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        // The name in parentheses may hold spaces; utime and stime are fields 14 and 15 (proc_pid_stat(5)).
        let fields: Vec<&str> = stat[stat.rfind(')').unwrap()..]
            .split_whitespace()
            .collect();
        let ticks: u64 = [fields[12], fields[13]]
            .iter()
            .map(|t| t.parse::<u64>().unwrap())
            .sum();
        // USER_HZ, the unit of /proc, is 100 on every architecture that Rust's std knows on Linux.
        Duration::from_millis(ticks * 10)
    }

    /// Open descriptors.
    pub fn descriptors(&self) -> usize {
        let pid = self.pid().as_raw_nonzero();
        std::fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let mut child = self.child.lock().unwrap_or_else(|e| e.into_inner());
        let _ = child.kill();
        let _ = child.wait();
        if std::thread::panicking() {
            let log = self.stderr.lock().unwrap_or_else(|e| e.into_inner());
            let from = log.len().saturating_sub(60);
            eprintln!(
                "--- end of the proxy's log\n{}\n---",
                log[from..].join("\n")
            );
        }
    }
}

/// Runs the program with these arguments to its end.
#[track_caller]
pub fn run(arguments: &[&str]) -> Output {
    let mut child = Command::new(PROGRAM)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = collect_lines(child.stdout.take().unwrap());
    let stderr = collect_lines(child.stderr.take().unwrap());
    let deadline = std::time::Instant::now() + PATIENCE;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if std::time::Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{arguments:?} does not end");
        }
        super::wait::pause(Duration::from_millis(5));
    };
    // The collectors hold the other reference until they have read everything.
    for lines in [&stdout, &stderr] {
        wait_until(PATIENCE, "the output is read", || {
            Arc::strong_count(lines) == 1
        });
    }
    let text = |lines: Arc<Mutex<Vec<String>>>| lines.lock().unwrap().join("\n").into_bytes();
    Output {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    }
}

/// Runs the program with a file that it refuses or cannot serve; returns the exit code and stderr.
#[track_caller]
pub fn run_config(config: &str) -> (Option<i32>, String) {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lb.toml");
    std::fs::write(&path, complete(config, dir.path())).unwrap();
    let output = run(&["--config", path.to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.code(), stderr)
}

/// The file as it is written: with an admin socket, and with the directory in place of `${DIR}`.
pub fn complete(config: &str, dir: &Path) -> String {
    let mut text = config.to_owned();
    if !config.contains("[admin]") {
        text += "\n[admin]\naddress = \"unix:${DIR}/admin.sock\"\n";
    }
    text.replace("${DIR}", dir.to_str().unwrap())
}

/// Addresses as a TOML list.
pub fn list<'a>(backends: impl IntoIterator<Item = &'a super::backend::Backend>) -> String {
    let quoted: Vec<String> = backends
        .into_iter()
        .map(|b| format!("\"{}\"", b.addr))
        .collect();
    format!("[{}]", quoted.join(", "))
}

/// A file with one http listener `web` and one cluster `web` with these backends and these more keys.
pub fn web(backends: &[&super::backend::Backend], cluster_keys: &str) -> String {
    web_with("", backends, cluster_keys)
}

/// The same with more keys of the listener.
pub fn web_with(
    listener_keys: &str,
    backends: &[&super::backend::Backend],
    cluster_keys: &str,
) -> String {
    let backends = list(backends.iter().copied());
    format!(
        r#"[[listener]]
name = "web"
address = "127.0.0.1:0"
cluster = "web"
{listener_keys}

[cluster.web]
backends = {backends}
{cluster_keys}
"#
    )
}

/// `[log]` with an access log in the test's own directory, for [`Proxy::access_log`].
pub const ACCESS_LOG: &str = "\n[log]\naccess = { file = \"access.log\" }\n";

#[track_caller]
fn named<'a>(entries: &'a Value, key: &str, wanted: &str) -> &'a Value {
    let all = entries.as_array().unwrap();
    let found = all.iter().find(|e| e[key] == wanted);
    found.unwrap_or_else(|| panic!("no {key} {wanted} in {entries:#}"))
}

/// The lines of a stream as they come; given back by the one that collects when all are read.
pub fn collect_lines(stream: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::default();
    collect_lines_into(stream, &lines);
    lines
}

fn collect_lines_into(stream: impl Read + Send + 'static, lines: &Arc<Mutex<Vec<String>>>) {
    let kept = Arc::clone(lines);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).split(b'\n') {
            let Ok(line) = line else { break };
            let text = String::from_utf8_lossy(&line).into_owned();
            kept.lock().unwrap().push(text);
        }
    });
}
