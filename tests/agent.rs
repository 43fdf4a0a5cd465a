//! `lbproxy agent` with the real program: what it refuses, the process that it supervises, and its place in a peer set.
//!
//! The agents of each test have loopback addresses of their own (127.77.x.y), so that tests do not interfere. What an
//! agent sees of the others is taken from its log.

use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::agent::Agent;
use crate::support::port::Port;
use crate::support::process::run;
use lbproxy::internals::gossip::{OperatorKey, mint};
use rustix::process::Signal;

const JOINED: &str = "INFO joined the peer set others=1";

/// Writes a new key to this file.
fn key(path: &Path) {
    fs::write(path, run(&["key", "generate"]).stdout).unwrap();
}

#[test]
fn the_units_read_the_files_themselves_so_that_keys_rotate() {
    for unit in [
        include_str!("../docker/lbproxy.service"),
        include_str!("../docker/lbproxy-agent.service"),
    ] {
        assert!(!unit.lines().any(|line| line.starts_with("LoadCredential")));
        // systemd does not start a unit whose group does not exist.
        assert!(
            !unit
                .lines()
                .any(|line| line.starts_with("SupplementaryGroups"))
        );
        assert!(unit.contains("keys.conf"));
    }
    let keys = include_str!("../docker/keys.conf");
    assert!(keys.ends_with("[Service]\nSupplementaryGroups=lbproxy-keys\n"));
    assert!(keys.contains("\n#   groupadd --system lbproxy-keys\n"));
    assert!(keys.contains("\n#   install -o root -g lbproxy-keys -m 0640 gossip.key"));
}

/// Exit code and stderr of an agent with these flags in addition to the required ones.
#[track_caller]
fn refused(flags: &str) -> (Option<i32>, String) {
    let least = "agent --cluster web --backend 127.0.0.1:80 --address 127.77.0.1:7946";
    let words: Vec<&str> = least.split(' ').chain(flags.split(' ')).collect();
    let output = run(&words);
    let stderr = String::from_utf8(output.stderr).unwrap();
    (output.status.code(), stderr)
}

#[test]
fn impossible_settings_are_refused() {
    for (flags, code, said) in [
        ("--weight 1001", 2, "1001 is not in 0..=1000"),
        ("--interval 1s", 2, "error: --interval without a check"),
        (
            "--config nowhere.toml",
            1,
            "error: nowhere.toml: cannot be read: ",
        ),
        (
            "--key-file nowhere.key",
            1,
            "error: cannot read nowhere.key: ",
        ),
        (
            "--token-file nowhere.token",
            1,
            "error: cannot read nowhere.token: ",
        ),
        (
            "--key-file config/smallest.toml",
            1,
            "error: config/smallest.toml: it has more than one line",
        ),
    ] {
        let (got, stderr) = refused(flags);
        assert_eq!(got, Some(code), "{flags}: {stderr}");
        assert!(stderr.contains(said), "{flags}: {stderr}");
    }
}

#[test]
fn what_a_token_does_not_permit_is_not_announced() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (operator, token) = (path("operator"), path("agent.token"));
    run(&["token", "operator", "--out", &operator]);
    let operator = format!("{operator}.key");
    let mut mint = vec!["token", "mint", "--key", &operator, "--cluster", "web"];
    mint.extend("--cidr 127.0.0.0/8 --max-weight 5 --ttl 1d".split(' '));
    fs::write(&token, run(&mint).stdout).unwrap();
    let (code, stderr) = refused(&format!("--weight 6 --token-file {token}"));
    let said =
        "error: the token does not permit this service: the weight is larger than the token allows";
    assert_eq!((code, stderr.trim_end()), (Some(1), said));
    // Nor an agent that is elsewhere than its backend.
    let elsewhere = format!("--advertise 10.9.8.7:7946 --token-file {token}");
    let (code, stderr) = refused(&elsewhere);
    let said = "error: the token does not permit the agent's own address 10.9.8.7, where others reach it: ";
    assert_eq!(
        (code, stderr.starts_with(said)),
        (Some(1), true),
        "{stderr}"
    );
}

#[test]
fn an_expired_token_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let operator = OperatorKey::generate(&[7; 32]);
    let cidrs = ["127.0.0.0/8".parse().unwrap()];
    let token = mint(&operator, &[8; 32], "web", &cidrs, 5, 1_700_000_000).unwrap();
    let file = dir.path().join("agent.token");
    fs::write(&file, token.to_text()).unwrap();
    let agent = Agent::start(
        &format!(
            "--cluster web --backend 127.0.0.1:80 --address 127.77.5.1:7946 --token-file {}",
            file.display()
        ),
        &[],
    );
    agent.wait_log("WARN the token has expired; proxies that require one will refuse this service");
}

#[test]
fn a_token_that_expires_soon_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let operator = OperatorKey::generate(&[7; 32]);
    let cidrs = ["127.0.0.0/8".parse().unwrap()];
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let token = mint(&operator, &[8; 32], "web", &cidrs, 5, now.as_secs() + 5).unwrap();
    let file = dir.path().join("agent.token");
    fs::write(&file, token.to_text()).unwrap();
    let agent = Agent::start(
        &format!(
            "--cluster web --backend 127.0.0.1:80 --address 127.77.5.2:7946 --token-file {}",
            file.display()
        ),
        &[],
    );
    agent.wait_log("WARN the token expires soon; mint another one and put it into its file");
    assert!(!agent.log().contains("has expired"), "{}", agent.log());
}

#[test]
fn a_wrong_file_is_shown_with_its_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent.toml");
    fs::write(&path, "cluster = 'web'\nbackend = 'x'\naddres = 1\n").unwrap();
    let output = run(&["agent", "--config", path.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    for said in [
        "agent.toml:2:11",
        "agent.toml:3:1",
        "did you mean `address`?",
    ] {
        assert!(stderr.contains(said), "{said}: {stderr}");
    }
}

#[test]
fn the_exit_code_of_what_runs_once() {
    for (script, code) in [("exit 7", 7), ("kill -KILL $$", 137)] {
        let agent = Agent::start(
            "--cluster web --backend 127.0.0.1:80 --address 127.77.1.1:7946 --once",
            &["sh", "-c", script],
        );
        assert_eq!(agent.wait_exit().code(), Some(code), "{}", agent.log());
    }
}

#[test]
fn a_file_says_what_its_flags_do() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("agent.toml");
    let text = "cluster = 'web'\nbackend = '127.0.0.1:80'\naddress = '127.77.1.2:7946'\nonce = true\n\
                drain_delay = '0s'\n";
    fs::write(&file, text).unwrap();
    let flags = format!("--config {}", file.display());
    let agent = Agent::start(&flags, &["sh", "-c", "exit 7"]);
    assert_eq!(agent.wait_exit().code(), Some(7), "{}", agent.log());
    // And `once` without a command.
    let output = run(&["agent", "--config", file.to_str().unwrap()]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("there is no COMMAND to run"), "{stderr}");
}

#[test]
fn an_agent_without_seeds_logs_that_it_waits() {
    let agent = Agent::start(
        "--cluster web --backend 127.0.0.1:80 --address 127.77.7.1:7946",
        &[],
    );
    agent.wait_log("WARN no reachable seeds; waiting to be contacted");
}

#[test]
fn sigterm_drains_and_ends_what_is_supervised() {
    let port = Port::reserve("127.0.0.1");
    let flags = format!(
        "--cluster web --backend {} --check tcp://{} --interval 100ms --address 127.77.2.1:7946 --drain-delay 100ms",
        port.addr, port.addr
    );
    let number = port.addr.port().to_string();
    let server = [
        "python3",
        "-m",
        "http.server",
        "--bind",
        "127.0.0.1",
        &number,
    ];
    let agent = Agent::start(&flags, &server);
    agent.wait_log("INFO announced state=ready");
    TcpStream::connect(port.addr).unwrap();
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait_exit().code(), Some(0), "{}", agent.log());
    agent.wait_log("INFO left");
    let log = agent.log();
    let at = |what: &str| log.find(what).unwrap_or_else(|| panic!("no {what}: {log}"));
    let order = [
        "state=draining",
        "stopping the process",
        "the process ended",
        "INFO left",
    ];
    assert!(order.map(at).is_sorted(), "{log}");
    TcpStream::connect(port.addr).unwrap_err();
}

#[test]
fn two_meet_one_by_flags_and_one_by_a_file() {
    let dir = tempfile::tempdir().unwrap();
    key(&dir.path().join("gossip.key"));
    let file = dir.path().join("agent.toml");
    // The key is beside the file.
    let text = "cluster = 'web'\nbackend = '127.0.0.1:80'\naddress = '127.77.3.1:7946'\nkey_file = 'gossip.key'\n\
                seeds = ['127.77.3.1:7946', '127.77.3.2:7946']\nlevel = 'debug'\ndrain_timeout = '0s'";
    fs::write(&file, text).unwrap();
    let first = Agent::start(&format!("--config {} --level info", file.display()), &[]);
    let flags = format!(
        "--cluster web --backend 127.0.0.1:81 --address 127.77.3.2:7946 --seeds 127.77.3.1:7946 --key-file {} \
         --drain-timeout 0s",
        dir.path().join("gossip.key").display()
    );
    let second = Agent::start(&flags, &[]);
    // Its own address among its seeds does no harm.
    first.wait_log(JOINED);
    second.wait_log(JOINED);
    second.signal(Signal::TERM);
    assert_eq!(second.wait_exit().code(), Some(0), "{}", second.log());
    first.wait_log("WARN no other member of the peer set answers any more");
    assert!(!first.log().contains(" DEBUG "), "{}", first.log());
}

#[test]
fn a_key_that_everybody_can_read_is_logged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("gossip.key");
    key(&path);
    let mode = |mode| fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    mode(0o640);
    let flags = format!(
        "--cluster web --backend 127.0.0.1:80 --address 127.77.6.1:7946 --key-file {}",
        path.display()
    );
    let agent = Agent::start(&flags, &[]);
    agent.wait_log("INFO announced");
    assert!(!agent.log().contains("has mode"), "{}", agent.log());
    // It is replaced by one of mode 0664.
    let new = dir.path().join("new");
    key(&new);
    fs::set_permissions(&new, Permissions::from_mode(0o664)).unwrap();
    fs::rename(&new, &path).unwrap();
    agent.wait_log("INFO the key and token files have changed; using their new contents");
    let said = "gossip.key has mode 0664, so everybody on this machine can read it, and users other than its \
                owner can change it: chmod 600 ";
    agent.wait_log(said);
    let before = agent.log().matches(said).count();
    assert_eq!(before, 1, "{}", agent.log());
    drop(agent);
    Agent::start(&flags, &[]).wait_log(said);
}

#[test]
fn nobody_answers_to_another_key_until_it_is_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    let (a, b) = (file("a.key"), file("b.key"));
    key(&a);
    key(&b);
    let agent = |number: u8, other: u8, key: &Path| {
        let flags = format!(
            "--cluster web --backend 127.0.0.1:80 --address 127.77.4.{number}:7946 --seeds 127.77.4.{other}:7946 \
             --key-file {}",
            key.display()
        );
        Agent::start(&flags, &[])
    };
    let first = agent(1, 2, &a);
    let second = agent(2, 1, &b);
    second.wait_log("WARN no member answers yet");
    assert!(!second.log().contains(JOINED), "{}", second.log());
    // A file that is not a key changes nothing; the other's key is used without a restart.
    let broken = "WARN the key and token files have changed, but cannot be used";
    fs::write(&b, "junk").unwrap();
    second.wait_log(broken);
    fs::copy(&a, &b).unwrap();
    second.wait_log("INFO the key and token files have changed; using their new contents");
    second.wait_log(JOINED);
    first.wait_log(JOINED);
    assert_eq!(second.log().matches(broken).count(), 1, "{}", second.log());
}
