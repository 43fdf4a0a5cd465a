//! The peer set with real processes: three proxies and thirty agents on loopback, under load.
//!
//! Every proxy and agent has an address of its own in 127.0.0.0/8. No request may fail, except those that a killed
//! backend was processing and that cannot be sent again. Times are printed, not asserted.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::agent::{Agent, replace, write_key};
use crate::support::backend::Backend;
use crate::support::child::ChildBackend;
use crate::support::client::get;
use crate::support::load::{Load, Running};
use crate::support::port::Port;
use crate::support::process::{Proxy, run};
use crate::support::wait::{PATIENCE, holds_for, wait_for, wait_until};
use crate::support::{number_from_env, raise_descriptor_limit};
use rustix::process::Signal;

/// Longer than any suspicion in a set of this size.
const DETECTION: Duration = Duration::from_secs(60);

/// The proxies of one set.
struct Proxies {
    dir: tempfile::TempDir,
    all: Vec<Proxy>,
    /// Where they gossip.
    peers: Vec<Port>,
}

impl Proxies {
    /// Starts `count` proxies that discover `web`, are seeds of each other, and have the key files a, b and c.
    fn start(count: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        write_key(&dir.path().join("a.key"));
        for copy in ["b.key", "c.key"] {
            std::fs::copy(dir.path().join("a.key"), dir.path().join(copy)).unwrap();
        }
        let peers: Vec<Port> = (1..=count)
            .map(|i| Port::reserve(&format!("127.0.1.{i}")))
            .collect();
        let mut proxies = Self {
            dir,
            all: Vec::new(),
            peers,
        };
        for i in 0..count {
            let config = proxies.config(i, &proxies.keys(), "");
            proxies.all.push(Proxy::start(&config));
        }
        proxies
    }

    fn keys(&self) -> [PathBuf; 3] {
        ["a.key", "b.key", "c.key"].map(|name| self.dir.path().join(name))
    }

    fn config(&self, i: usize, keys: &[PathBuf], more: &str) -> String {
        let seeds: Vec<String> = self
            .peers
            .iter()
            .map(|p| format!("\"{}\"", p.addr))
            .collect();
        let keys: Vec<String> = keys
            .iter()
            .map(|k| format!("\"{}\"", k.display()))
            .collect();
        format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
             [cluster.web]\ndiscover = {{ gossip = \"web\" }}\n\
             check = {{ http = \"/healthz\", interval = \"1s\", timeout = \"950ms\", fall = 5 }}\n\
             retry = {{ attempts = 8 }}\n\
             [gossip]\naddress = \"{}\"\nseeds = [{}]\nkey_files = [{}]\nallow_cidrs = [\"127.0.0.0/8\"]\n{more}",
            self.peers[i].addr,
            seeds.join(", "),
            keys.join(", "),
        )
    }

    /// Flags of an agent of this set.
    fn flags(&self) -> String {
        let seeds: Vec<String> = self.peers.iter().map(|p| p.addr.to_string()).collect();
        let keys: Vec<String> = self
            .keys()
            .iter()
            .map(|k| k.display().to_string())
            .collect();
        format!(
            "--seeds {} --key-file {} --drain-timeout 2s",
            seeds.join(","),
            keys.join(",")
        )
    }

    fn agent(&self, ip: &str, backend: SocketAddr) -> Member {
        let flags = format!(
            "{} --check http://{backend}/healthz --interval 500ms",
            self.flags()
        );
        Member::start(ip, backend, &flags)
    }

    /// Waits until every proxy uses exactly these backends; returns how long it took.
    #[track_caller]
    fn wait_used(&self, what: &str, expected: &BTreeSet<String>) -> Duration {
        let begin = Instant::now();
        for (i, proxy) in self.all.iter().enumerate() {
            wait_until(DETECTION, &format!("{what}: proxy {i}\n"), || {
                used(proxy) == *expected
            });
        }
        begin.elapsed()
    }
}

/// An agent at an address of its own.
struct Member {
    agent: Agent,
    backend: SocketAddr,
    _port: Port,
}

impl Member {
    /// Starts an agent at a free port of `ip`, for the service at `backend`, with further flags.
    fn start(ip: &str, backend: SocketAddr, flags: &str) -> Self {
        let port = Port::reserve(ip);
        let flags = format!(
            "--cluster web --address {} --backend {backend} {flags}",
            port.addr
        );
        Self {
            agent: Agent::start(&flags, &[]),
            backend,
            _port: port,
        }
    }
}

/// The backends that a proxy sends requests to.
fn used(proxy: &Proxy) -> BTreeSet<String> {
    let status = proxy.status();
    let backends = status["clusters"][0]["backends"].as_array().unwrap();
    let up = backends.iter().filter(|b| b["state"] == "up");
    up.map(|b| b["address"].as_str().unwrap().to_owned())
        .collect()
}

fn names<'a>(agents: impl IntoIterator<Item = &'a Member>) -> BTreeSet<String> {
    let agents = agents.into_iter();
    agents.map(|agent| agent.backend.to_string()).collect()
}

/// Ids of a proxy's keys, beginning with the one that seals.
fn key_ids(proxy: &Proxy) -> Vec<String> {
    let response = proxy.admin("/api/v1/members");
    let members: serde_json::Value = serde_json::from_slice(&response.body).unwrap();
    let ids = members["key_ids"].as_array().unwrap();
    ids.iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect()
}

#[track_caller]
fn check_progress(load: &Running, what: &str) {
    let done = load.done();
    wait_until(PATIENCE, &format!("the load goes on: {what}"), || {
        load.done() > done + 1_000
    });
}

#[test]
fn thirty_agents_join_drain_die_and_return_under_load_without_a_failed_request() {
    raise_descriptor_limit();
    let proxies = Proxies::start(3);
    // The last ten can be killed as if they had crashed.
    let steady: Vec<Backend> = (0..20).map(|i| Backend::start(&format!("s{i}"))).collect();
    let mortal: Vec<ChildBackend> = (0..10)
        .map(|i| ChildBackend::start(&format!("m{i}")))
        .collect();
    let addresses = steady
        .iter()
        .map(|b| b.addr)
        .chain(mortal.iter().map(|b| b.addr));
    let start =
        |(i, backend): (usize, SocketAddr)| proxies.agent(&format!("127.0.2.{}", i + 1), backend);
    let addresses: Vec<SocketAddr> = addresses.collect();
    let numbered = || addresses.iter().copied().enumerate();
    let mut agents: Vec<Member> = numbered().take(20).map(start).collect();
    let took = proxies.wait_used("twenty agents", &names(&agents));
    println!("20 agents in use on 3 proxies after {took:?}, their health checks included");

    let load = Load::to(proxies.all[0].addr("web"))
        .connections(32)
        .rate(2_000)
        .start();
    check_progress(&load, "twenty agents");
    agents.extend(numbered().skip(20).map(start));
    let took = proxies.wait_used("ten more", &names(&agents));
    println!("10 more in use after {took:?}");
    check_progress(&load, "thirty agents");

    for member in &agents[..10] {
        member.agent.signal(Signal::TERM);
    }
    let took = proxies.wait_used("ten drain", &names(&agents[10..]));
    println!("10 drains seen by all proxies after {took:?}");
    for member in &agents[..10] {
        let status = member.agent.wait_exit();
        assert!(status.success(), "{status}: {}", member.agent.log());
    }
    check_progress(&load, "ten have left");

    for (member, backend) in agents[20..].iter().zip(&mortal) {
        member.agent.kill();
        backend.kill();
    }
    let took = proxies.wait_used("ten are killed", &names(&agents[10..20]));
    println!("10 killed backends out of use on all proxies after {took:?}");
    check_progress(&load, "ten are dead");

    mortal.iter().for_each(ChildBackend::up);
    for member in &agents[10..20] {
        member.agent.kill();
    }
    agents.iter_mut().for_each(|member| member.agent.restart());
    let took = proxies.wait_used("all restart", &names(&agents));
    println!("30 restarted at the same addresses in use after {took:?}");
    check_progress(&load, "all are back");

    for round in 0..2 {
        rotate(&proxies, round);
        assert_eq!(
            used(&proxies.all[0]),
            names(&agents),
            "key {round} lost nobody"
        );
        check_progress(&load, "the key has changed");
    }

    let cut = Duration::from_secs(number_from_env("LBPROXY_TEST_CUT_SECONDS", 60));
    cut_off(&proxies, cut, &names(&agents));
    check_progress(&load, "the proxy is back in the set");
    let report = load.stop();
    println!("{} requests, {} failed", report.ok, report.failed);
    assert_eq!(report.failed, 0, "{report:#?}");
}

/// Replaces the key by a new one, in an order in which everybody can read everybody at any time.
fn rotate(proxies: &Proxies, round: u32) {
    let [a, b, c] = proxies.keys();
    let before = key_ids(&proxies.all[0]);
    write_key(&b);
    wait_everywhere(proxies, "the new key opens", |ids| ids[1] != before[0]);
    let new = key_ids(&proxies.all[0])[1].clone();
    // Agents read the same files, but do not report when.
    wait_agents(proxies);
    let key = std::fs::read(&b).unwrap();
    replace(&a, &key);
    wait_everywhere(proxies, "the new key seals", |ids| ids[0] == new);
    wait_agents(proxies);
    replace(&c, &key);
    wait_everywhere(proxies, "the old key is gone", |ids| {
        ids.iter().all(|id| *id == new)
    });
    println!("key {round} rotated");
}

#[track_caller]
fn wait_everywhere(proxies: &Proxies, what: &str, is_so: impl Fn(&[String]) -> bool) {
    for proxy in &proxies.all {
        wait_until(PATIENCE, what, || is_so(&key_ids(proxy)));
    }
}

/// Lets the slowest watch of a key file pass: agents cannot be asked which keys they hold.
fn wait_agents(proxies: &Proxies) {
    let proxy = &proxies.all[0];
    let unknown = || {
        let labels = [("reason", "unknown_key")];
        proxy.count("lbproxy_gossip_dropped_total", &labels)
    };
    let before = unknown();
    holds_for(
        Duration::from_secs(3),
        "nobody seals with an unknown key",
        || unknown() == before,
    );
}

/// The first proxy uses a key of its own for some time: it and the others do not hear each other.
fn cut_off(proxies: &Proxies, span: Duration, expected: &BTreeSet<String>) {
    let proxy = &proxies.all[0];
    let own = proxies.dir.path().join("own.key");
    write_key(&own);
    proxy.reload_ok(&complete(proxies, &[own]));
    holds_for(span, "every backend stays in use", || {
        used(proxy) == *expected
    });
    let down = wait_for(DETECTION, "it holds the others for dead", || {
        let count = proxy.count("lbproxy_gossip_members", &[("state", "down")]);
        (count > 0).then_some(count)
    });
    println!(
        "cut off for {span:?}: {down} members down, {} backends in use",
        expected.len()
    );
    proxy.reload_ok(&complete(proxies, &proxies.keys()));
    wait_until(DETECTION, "it finds the others again", || {
        proxy.count("lbproxy_gossip_members", &[("state", "alive")]) == 33
    });
    assert_eq!(used(proxy), *expected);
}

fn complete(proxies: &Proxies, keys: &[PathBuf]) -> String {
    proxies.config(0, keys, "")
}

#[test]
fn other_keys_and_other_labels_never_mix() {
    let ours = Proxies::start(1);
    let service = Backend::start("ours");
    let agent = ours.agent("127.0.3.1", service.addr);
    ours.wait_used("ours", &names([&agent]));

    let strangers: Vec<Backend> = (0..2).map(|i| Backend::start(&format!("x{i}"))).collect();
    let seed = ours.peers[0].addr.to_string();
    let other_key = ours.dir.path().join("other.key");
    write_key(&other_key);
    let our_key = ours.dir.path().join("a.key");
    let flags = |key: &Path| format!("--seeds {seed} --key-file {}", key.display());
    let with_other_key = flags(&other_key);
    let with_other_label = flags(&our_key) + " --label other";
    let _strangers: Vec<Member> = [with_other_key, with_other_label]
        .iter()
        .zip(&strangers)
        .enumerate()
        .map(|(i, (flags, service))| {
            Member::start(&format!("127.0.3.{}", i + 2), service.addr, flags)
        })
        .collect();
    let proxy = &ours.all[0];
    wait_until(PATIENCE, "both have knocked", || {
        proxy.count("lbproxy_gossip_dropped_total", &[("reason", "unknown_key")]) > 3
    });
    holds_for(Duration::from_secs(2), "nobody is let in", || {
        used(proxy) == names([&agent])
            && proxy.count("lbproxy_gossip_members", &[("state", "alive")]) == 2
    });
}

#[test]
fn a_proxy_that_starts_without_peers_serves_the_last_good_set() {
    let mut proxies = Proxies::start(1);
    let service = Backend::start("a");
    let agent = proxies.agent("127.0.4.1", service.addr);
    proxies.wait_used("the agent", &names([&agent]));
    let proxy = proxies.all.pop().unwrap();
    let kept = proxy.dir().join("lb.members.json");
    wait_until(PATIENCE, "the set is on disk", || {
        std::fs::read_to_string(&kept).is_ok_and(|text| text.contains(&agent.backend.to_string()))
    });
    proxy.signal(Signal::TERM);
    assert!(proxy.wait_exit(PATIENCE).success());
    agent.agent.kill();
    let dir = tempfile::tempdir().unwrap();
    let config = std::fs::read_to_string(proxy.config_path()).unwrap();
    let config = config.replace(
        &proxy.dir().display().to_string(),
        &dir.path().display().to_string(),
    );
    // The directory of the keys remains.
    std::fs::write(dir.path().join("lb.toml"), config).unwrap();
    std::fs::copy(&kept, dir.path().join("lb.members.json")).unwrap();
    let again = Proxy::spawn_in(dir);
    again.wait_ready();
    let answer = get(again.addr("web"), "/");
    assert_eq!(answer.status, 200, "{}", again.log());
    wait_until(PATIENCE, "it says that the set is the last one", || {
        let metrics = again.metrics();
        metrics.has("lbproxy_gossip_stale", &[]) && metrics.count("lbproxy_gossip_stale", &[]) == 1
    });
}

#[test]
fn an_agent_announces_what_its_file_says_while_it_runs() {
    let proxies = Proxies::start(1);
    let proxy = &proxies.all[0];
    let (first, second) = (Backend::start("first"), Backend::start("second"));
    let places = ["127.0.2.1", "127.0.2.2"].map(Port::reserve);
    let file = proxies.dir.path().join("agent.toml");
    let put = |backend: &Backend, place: &Port, weight: u32| {
        let text = format!(
            "cluster = 'web'\nbackend = '{}'\naddress = '{}'\nweight = {weight}\nseeds = ['{}']\nkey_file = 'a.key'\n\
             drain_timeout = '0s'\n",
            backend.addr, place.addr, proxies.peers[0].addr
        );
        replace(&file, text.as_bytes());
    };
    let only = |backend: &Backend| BTreeSet::from([backend.addr.to_string()]);
    put(&first, &places[0], 1);
    let agent = Agent::start(&format!("--config {}", file.display()), &[]);
    proxies.wait_used("announced", &only(&first));
    put(&second, &places[0], 7);
    proxies.wait_used("another backend", &only(&second));
    let weighs = |weight: u32| {
        let status = proxy.status();
        let backends = status["clusters"][0]["backends"].as_array().unwrap();
        let mut those = backends
            .iter()
            .filter(|b| b["address"] == second.addr.to_string());
        those.any(|backend| backend["weight"] == weight)
    };
    wait_until(DETECTION, "its weight", || weighs(7));
    agent.wait_log("INFO applied the configuration changed=\"backend, weight\"");
    put(&second, &places[0], 1001);
    agent.wait_log("WARN the new configuration was rejected; keeping the previous one");
    agent.wait_log("agent.toml:4:10");
    // Another member takes the place of the one that left.
    put(&second, &places[1], 3);
    agent.wait_log("changed=\"weight, address, advertise\"");
    wait_until(DETECTION, "the new member's weight", || weighs(3));
    agent.signal(Signal::HUP);
    agent.wait_log("INFO the configuration is unchanged");
    agent.signal(Signal::TERM);
    assert_eq!(agent.wait_exit().code(), Some(0), "{}", agent.log());
    proxies.wait_used("left", &BTreeSet::new());
}

#[test]
fn with_a_token_key_only_agents_with_a_token_are_used() {
    let proxies = Proxies::start(1);
    let dir = proxies.dir.path();
    let operator = dir.join("operator");
    let made = run(&["token", "operator", "--out", operator.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let mint = |name: &str, flags: &[&str]| {
        let key = dir.join("operator.key");
        let mut words = vec!["token", "mint", "--key", key.to_str().unwrap()];
        words.extend(flags);
        let minted = run(&words);
        assert!(minted.status.success(), "{minted:?}");
        let path = dir.join(name);
        std::fs::write(&path, minted.stdout).unwrap();
        format!("--token-file {}", path.display())
    };
    let here = ["--cidr", "127.0.0.0/8", "--ttl", "1d", "--max-weight", "5"];
    let with = |more: [&'static str; 2]| [&here[..], &more[..]].concat();
    let right = mint("right", &with(["--cluster", "web"]));
    let elsewhere = mint(
        "elsewhere",
        &[
            "--cidr",
            "10.0.0.0/8",
            "--ttl",
            "1d",
            "--max-weight",
            "5",
            "--cluster",
            "web",
        ],
    );
    let services: Vec<Backend> = (0..4).map(|i| Backend::start(&format!("t{i}"))).collect();
    let key = format!("token_key = \"{}\"\n", dir.join("operator.pub").display());
    let config = proxies.config(0, &proxies.keys(), &key);
    proxies.all[0].reload_ok(&config);
    let member = |i: usize, flags: &str| {
        let flags = format!("{} {flags}", proxies.flags());
        Member::start(&format!("127.0.7.{}", i + 1), services[i].addr, &flags)
    };
    let permitted = member(0, &right);
    let without = member(1, "");
    for (agent, said) in [
        (
            member(2, &elsewhere),
            "the address is in none of the token's networks",
        ),
        (
            member(3, &format!("{right} --weight 6")),
            "the weight is larger than the token allows",
        ),
    ] {
        assert_eq!(agent.agent.wait_exit().code(), Some(1));
        agent.agent.wait_log(said);
    }
    proxies.wait_used("the one that is permitted", &names([&permitted]));
    let proxy = &proxies.all[0];
    let dropped = |reason| proxy.count("lbproxy_gossip_dropped_total", &[("reason", reason)]);
    wait_until(PATIENCE, "who has none is refused", || dropped("token") > 0);
    holds_for(Duration::from_secs(1), "it is not used", || {
        used(proxy) == names([&permitted])
    });
    // Known records are judged again by another operator's key; without one everybody may announce.
    let other = dir.join("other");
    let made = run(&["token", "operator", "--out", other.to_str().unwrap()]);
    assert!(made.status.success(), "{made:?}");
    let key = key.replace("operator.pub", "other.pub");
    proxies.all[0].reload_ok(&proxies.config(0, &proxies.keys(), &key));
    proxies.wait_used("nobody", &BTreeSet::new());
    proxies.all[0].reload_ok(&proxies.config(0, &proxies.keys(), ""));
    proxies.wait_used("both", &names([&permitted, &without]));
}
