//! The commands beside a running proxy: how each finds it, what it prints and its exit code; and the proxies that need
//! no file.

use std::io::Read;
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::backend::Backend;
use crate::support::client::get;
use crate::support::port::Port;
use crate::support::process::{PROGRAM, Proxy, Reload, collect_lines, run, web};
use crate::support::wait::{PATIENCE, wait_for, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A run of the program to its end: exit code, stdout and stderr.
struct Ran {
    code: Option<i32>,
    out: String,
    err: String,
}

fn ran(arguments: &[&str], variable: Option<&str>) -> Ran {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).stdin(Stdio::null());
    match variable {
        Some(value) => command.env("LBPROXY_ADMIN", value),
        None => command.env_remove("LBPROXY_ADMIN"),
    };
    let output = command.output().unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

#[test]
fn every_command_finds_the_proxy_the_same_way() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    proxy.wait_backend("web", backend.addr, "up");
    let socket = format!("unix:{}/admin.sock", proxy.dir().display());
    let file = proxy.config_path();
    let file = file.to_str().unwrap();
    let nobody = "unix:/nowhere/admin.sock";
    for (command, code, said) in [
        ("status", 0, "process "),
        ("members", 3, "the proxy has no [gossip]"),
    ] {
        for (arguments, variable) in [
            (&["--admin", &socket][..], None),
            (&["--admin", &socket], Some(nobody)),
            (&["-c", file], None),
            (&["--config", file], Some(nobody)),
            (&[], Some(&*socket)),
        ] {
            let ran = ran(&[&[command], arguments].concat(), variable);
            let all = ran.out + &ran.err;
            assert_eq!(ran.code, Some(code), "{command} {arguments:?}: {all}");
            assert!(all.contains(said), "{command} {arguments:?}: {all}");
        }
        let failed = ran(&[command], Some(nobody));
        assert_eq!(failed.code, Some(1), "{}", failed.err);
        let said = "error: nobody listens on unix:/nowhere/admin.sock";
        assert!(failed.err.starts_with(said), "{}", failed.err);
        for (arguments, variable, said) in [
            (
                &["--admin", "9900"][..],
                None,
                "write \":9900\" for all addresses",
            ),
            (
                &["--admin", &socket, "-c", file],
                None,
                "cannot be used with",
            ),
            (&[], Some("9900"), "LBPROXY_ADMIN: expected an address"),
        ] {
            let ran = ran(&[&[command], arguments].concat(), variable);
            assert_eq!(ran.code, Some(2), "{command} {arguments:?}: {}", ran.err);
            assert!(
                ran.err.contains(said),
                "{command} {arguments:?}: {}",
                ran.err
            );
        }
    }
    // As ever.
    let ran = ran(&["members", file], Some(nobody));
    assert_eq!(ran.code, Some(3), "{}", ran.err);
}

#[test]
fn status_shows_backends_and_what_they_did() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let proxy = Proxy::start(&web(&[&a, &b], "check = { http = \"/healthz\" }"));
    for backend in [&a, &b] {
        wait_until(PATIENCE, "it is checked", || {
            proxy.backend("web", backend.addr)["reason"] == "check passed: status 200"
        });
    }
    for _ in 0..10 {
        get(proxy.addr("web"), "/");
    }
    proxy.wait_count("lbproxy_backend_response_seconds_count", &[], 10);
    let socket = format!("unix:{}/admin.sock", proxy.dir().display());
    let table = ran(&["status", "--admin", &socket], None);
    assert_eq!(table.code, Some(0), "{}", table.err);
    for backend in [&a, &b] {
        let address = backend.addr.to_string();
        let line = table
            .out
            .lines()
            .find(|line| line.contains(&address))
            .unwrap();
        let cells: Vec<&str> = line.split_whitespace().collect();
        assert_eq!((cells[0], cells[2], cells[6]), ("web", "up", "5"), "{line}");
        assert!(
            cells[8].ends_with("ms") && cells[9].ends_with("ms"),
            "{line}"
        );
        assert!(line.ends_with("check passed: status 200"), "{line}");
    }
    let json = ran(&["status", "web", "--json", "--admin", &socket], None);
    let cluster: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(
        (json.code, &cluster["name"]),
        (Some(0), &Value::from("web"))
    );
    let absent = ran(&["status", "wbe", "--admin", &socket], None);
    assert_eq!((absent.code, &*absent.out), (Some(3), ""));
    assert_eq!(
        absent.err,
        "error: the proxy has no cluster \"wbe\"; it has web\n"
    );
}

#[test]
fn status_looks_again_until_its_reader_leaves() {
    let proxy = Proxy::start(&web(&[&Backend::start("a")], ""));
    let socket = format!("unix:{}/admin.sock", proxy.dir().display());
    let mut watching = Started::start(&["status", "--watch=100ms", "--json", "--admin", &socket]);
    wait_until(PATIENCE, "three looks", || watching.lines().len() >= 3);
    for line in watching.lines() {
        serde_json::from_str::<Value>(&line).unwrap();
    }
    assert!(watching.is_running());
    let mut child = Command::new(PROGRAM)
        .args(["status", "--watch=100ms", "--admin", &socket])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut first = [0; 8];
    child.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let code = wait_for(PATIENCE, "it ends", || child.try_wait().unwrap()).code();
    assert_eq!((code, &first[..]), (Some(0), &b"lbproxy "[..]));
}

#[test]
fn a_proxy_that_does_not_answer_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for command in ["status", "members"] {
        let ran = ran(&[command, "--admin", &address], None);
        assert_eq!(ran.code, Some(1), "{}", ran.err);
        assert_eq!(
            ran.err,
            format!("error: {address} has not answered within 5 s\n")
        );
    }
}

#[test]
fn the_words_about_the_program() {
    let version = ran(&["version"], None);
    let expected = concat!("lbproxy ", env!("CARGO_PKG_VERSION"), "\n");
    assert_eq!((version.code, &*version.out), (Some(0), expected));
    for shell in ["bash", "zsh", "fish"] {
        let script = ran(&["completions", shell], None);
        assert_eq!(script.code, Some(0), "{}", script.err);
        assert!(script.out.contains("lbproxy") && script.out.contains("status"));
    }
    assert_eq!(ran(&["completions", "csh"], None).code, Some(2));
    let help = ran(&["--help"], None);
    let signals = "SIGTERM, SIGINT and SIGQUIT drain and exit";
    let words: Vec<&str> = help.out.split_whitespace().collect();
    assert!(words.join(" ").contains(signals), "{}", help.out);
    for command in [
        "run",
        "proxy",
        "demo",
        "check",
        "status",
        "members",
        "agent",
        "key",
        "token",
        "completions",
        "version",
    ] {
        let line = format!("\n  {command} ");
        assert!(help.out.contains(&line), "{command}\n{}", help.out);
        let own = ran(&[command, "--help"], None);
        assert_eq!(own.code, Some(0), "{command}: {}", own.err);
        assert!(
            own.out.lines().all(|line| line.chars().count() <= 120),
            "{}",
            own.out
        );
    }
    assert_eq!(ran(&["run"], None).code, Some(2));
}

/// A run of the program that goes on; killed when it goes out of scope.
struct Started {
    child: Child,
    out: Arc<Mutex<Vec<String>>>,
    err: Arc<Mutex<Vec<String>>>,
}

impl Started {
    fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(PROGRAM)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self {
            out: collect_lines(child.stdout.take().unwrap()),
            err: collect_lines(child.stderr.take().unwrap()),
            child,
        }
    }

    fn lines(&self) -> Vec<String> {
        self.out.lock().unwrap().clone()
    }

    fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Waits for a line that `find` makes something of.
    #[track_caller]
    fn wait<T>(&self, what: &str, find: impl Fn(&str) -> Option<T>) -> T {
        wait_for(PATIENCE, what, || {
            let lines = [self.lines(), self.err.lock().unwrap().clone()].concat();
            lines.iter().find_map(|line| find(line))
        })
    }

    fn stop(mut self) -> ExitStatus {
        kill_process(Pid::from_child(&self.child), Signal::TERM).unwrap();
        wait_for(PATIENCE, "it ends", || self.child.try_wait().unwrap())
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn check_takes_what_a_start_takes() {
    let root = tempfile::tempdir().unwrap();
    let path = |name: &str| root.path().join(name).display().to_string();
    let write = |name: &str, text: &str| std::fs::write(root.path().join(name), text).unwrap();
    let listener = "[[listener]]\nname = \"a\"\naddress = [\":1\", \":2\"]\ncluster = \"web\"\n";
    let cluster = "[cluster.web]\nbackends = [\"10.0.0.1:80\"]\n";
    std::fs::create_dir(root.path().join("d")).unwrap();
    write("a.toml", listener);
    write("b.toml", cluster);
    write("d/a.toml", listener);
    write("d/b.toml", cluster);
    write("whole.toml", &format!("{listener}{cluster}"));
    write("warns.toml", &format!("{listener}{cluster}hash_seed = 1\n"));
    let [a, b, d, whole, warns] = ["a.toml", "b.toml", "d", "whole.toml", "warns.toml"].map(path);
    let contents = "valid, 1 listener, 0 routes, 1 cluster, 1 backend";
    for (arguments, code, said) in [
        (&["check", &whole][..], 0, contents),
        (&["check", "-c", &whole], 0, contents),
        (&["check", "--strict", &whole], 0, contents),
        (&["check", &a, &b], 0, "2 files: valid, 1 listener"),
        (&["check", "-c", &a, "-c", &b], 0, "2 files: valid"),
        (&["check", &d], 0, "2 files: valid, 1 listener"),
        (&["check", &warns], 0, "1 warning"),
        (&["check", "--strict", &warns], 1, "which --strict refuses"),
        (&["check", &a], 1, "no cluster is called \"web\""),
        (&["check", "-", &a], 2, "cannot be combined with files"),
        (&["run", &path("none")], 1, "cannot be read"),
        (&[&path("none"), &path("d2")], 1, "d2: cannot be read"),
    ] {
        let ran = ran(arguments, None);
        assert_eq!(ran.code, Some(code), "{arguments:?} {}{}", ran.out, ran.err);
        let all = ran.out + &ran.err;
        assert!(
            all.contains(said),
            "{arguments:?}: {said:?} is not in {all}"
        );
    }
    let mut child = Command::new(PROGRAM)
        .args(["check", "-"])
        .env("OTHER", "10.0.0.1:80")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = format!("{listener}[cluster.web]\nbackends = [\"${{OTHER}}\"]\n");
    let mut stdin = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut stdin, text.as_bytes()).unwrap();
    drop(stdin);
    let output = child.wait_with_output().unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(
        out.starts_with("standard input: valid, 1 listener"),
        "{out}"
    );
}

#[test]
fn a_proxy_without_a_file() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let port = Port::reserve("127.0.0.1");
    let from = port.addr;
    let to = [a.addr.to_string(), b.addr.to_string()];
    let proxy = Started::start(&[
        "proxy",
        "--from",
        &from.to_string(),
        "--to",
        &to[0],
        "--to",
        &to[1],
        "--check",
        "/healthz",
    ]);
    proxy.wait("it is ready", |line| line.contains(" ready ").then_some(()));
    let mut seen: Vec<String> = (0..4)
        .map(|_| get(from, "/").backend().to_owned())
        .collect();
    seen.sort();
    seen.dedup();
    assert_eq!(seen, ["a", "b"]);
    // What it printed is a file that check takes and the proxy runs on.
    let text = proxy.lines().join("\n");
    assert!(proxy.stop().success());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lb.toml");
    std::fs::write(&file, &text).unwrap();
    let checked = run(&["check", file.to_str().unwrap()]);
    assert!(
        checked.status.success() && checked.stderr.is_empty(),
        "{text}"
    );
    let again = Started::start(&["run", file.to_str().unwrap()]);
    again.wait("it is ready", |line| line.contains(" ready ").then_some(()));
    get(from, "/").backend();
    assert!(again.stop().success());
    for (arguments, said) in [
        (&["--to", "a:1"][..], "--from"),
        (
            &["--from", ":1", "--to", "a:1", "--to", "a:1"],
            "given twice",
        ),
        (&["--from", ":1", "--to", "http://a:1"], "write \"a:1\""),
    ] {
        let ran = ran(&[&["proxy"], arguments].concat(), None);
        assert_eq!((ran.code, &*ran.out), (Some(2), ""), "{}", ran.err);
        assert!(ran.err.contains(said), "{}", ran.err);
    }
}

#[test]
fn the_demo_says_what_became_of_its_file() {
    let demo = Started::start(&["demo"]);
    let after = |what: &'static str| {
        move |line: &str| {
            line.trim_start()
                .strip_prefix(what)
                .map(|rest| rest.trim().to_owned())
        }
    };
    let file = demo.wait("the file is named", after("config "));
    let proxy: SocketAddr = demo
        .wait("the proxy is named", after("proxy  http://"))
        .parse()
        .unwrap();
    let folder = std::path::Path::new(&file).parent().unwrap();
    let meta = std::fs::symlink_metadata(folder).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777;
    assert_eq!((meta.is_dir(), mode), (true, 0o700), "{folder:?}");
    assert!(!file.contains(&demo.child.id().to_string()), "{file}");
    get(proxy, "/");

    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace("round_robin", "random")).unwrap();
    demo.wait("it is applied", |line| {
        (line == "configuration applied (generation 2): cluster fruit: policy random").then_some(())
    });
    std::fs::write(&file, text.replace("round_robin", "rondom")).unwrap();
    demo.wait("it is refused", |line| {
        line.contains("reload rejected").then_some(())
    });
    demo.wait("with the reason", |line| {
        line.contains("did you mean").then_some(())
    });
    let folder = folder.to_owned();
    assert!(demo.stop().success());
    assert!(!folder.exists());
}

#[test]
fn the_log_says_at_each_reload_what_changed() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let first = web(&[&a], "");
    let proxy = Proxy::start(&first);
    let second = web(&[&b], "policy = \"random\"");
    assert_eq!(proxy.reload(&second), Reload::Ok);
    let (a, b) = (a.addr, b.addr);
    let changed = format!(
        "generation=2 changed=\"cluster web: policy random; cluster web: backend {b} added; \
         cluster web: backend {a} removed\""
    );
    wait_until(PATIENCE, "the change is in the log", || {
        proxy.log().contains(&changed)
    });
    // Read again, with nothing new in it.
    let before = proxy.reloads();
    proxy.signal(Signal::HUP);
    assert_eq!(proxy.wait_reload(before), Reload::Ok);
    wait_until(PATIENCE, "and so is this", || {
        proxy.log().contains("generation=3 changed=nothing")
    });
}
