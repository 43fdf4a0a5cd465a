//! Backends that die, refuse, fail their check and return.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::support::backend::{Action, Answer, Backend, Step, send};
use crate::support::child::ChildBackend;
use crate::support::client::{Client, get};
use crate::support::load::Load;
use crate::support::process::{ACCESS_LOG, Proxy, web};
use crate::support::tcp::TcpBackend;
use crate::support::wait::{PATIENCE, holds_for, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};

/// What a busy machine may add to the time of some checks. It still tells three of them from ten.
const BUSY: Duration = Duration::from_secs(3);

#[test]
fn kill_9_of_one_of_three_under_2000_requests_a_second_fails_no_request() {
    let all: Vec<ChildBackend> = ["a", "b", "c"].map(ChildBackend::start).into();
    let (interval, fall, rise) = (Duration::from_millis(500), 3, 2);
    let backends = all
        .iter()
        .map(|b| format!("\"{}\"", b.addr))
        .collect::<Vec<_>>()
        .join(", ");
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n[cluster.web]\n\
         backends = [{backends}]\ncheck = {{ http = \"/healthz\", interval = \"500ms\", timeout = \"400ms\", rise = {rise}, fall = {fall} }}\n"
    ));
    let victim = all[1].addr;
    let running = Load::to(proxy.addr("web"))
        .connections(32)
        .rate(2_000)
        .start();
    wait_until(PATIENCE, "the load runs", || running.done() > 2_000);
    for _ in 0..2 {
        let begin = Instant::now();
        all[1].kill();
        proxy.wait_backend("web", victim, "down");
        let out = begin.elapsed();
        assert!(out <= interval * fall + BUSY, "out after {out:?}");
        proxy.wait_count("lbproxy_backend_up", &[("backend", &victim.to_string())], 0);
        let done = running.done();
        wait_until(PATIENCE, "the load goes on", || {
            running.done() > done + 2_000
        });

        all[1].up();
        let begin = Instant::now();
        proxy.wait_backend("web", victim, "up");
        let back = begin.elapsed();
        println!("out after {out:?}, back after {back:?}");
        assert!(back <= interval * rise + BUSY, "back after {back:?}");
        let label = victim.to_string();
        let served = || proxy.count("lbproxy_backend_requests_total", &[("backend", &label)]);
        let before = served();
        wait_until(PATIENCE, "it is used again", || served() > before + 500);
    }
    let report = running.stop();
    println!("{} requests, {} errors", report.ok, report.failed);
    report.assert_flawless();
}

#[test]
fn a_refusing_backend_without_a_check_is_out_at_once_and_back_by_a_trial() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let proxy = Proxy::start(&web(&[&a, &b], ""));
    let label = a.addr.to_string();
    let refused = || {
        let labels = [("backend", &*label), ("reason", "connect")];
        proxy.count("lbproxy_backend_errors_total", &labels)
    };
    a.down();
    let running = Load::to(proxy.addr("web")).connections(8).rate(500).start();
    proxy.wait_backend("web", a.addr, "down");
    wait_until(PATIENCE, "the status gives the reason", || {
        let backend = proxy.backend("web", a.addr);
        backend["reason"].as_str().unwrap().contains("refused")
    });
    // Trials come after 1 s and then 2 s and 4 s; the first is proof, the fourth would come after 15 s.
    let at_first = refused();
    wait_until(PATIENCE, "there is a trial", || refused() > at_first);
    let begin = Instant::now();
    holds_for(Duration::from_secs(4), "trials are few", || {
        refused() <= at_first + 3 + begin.elapsed().as_secs() / 4
    });
    a.up();
    proxy.wait_backend("web", a.addr, "up");
    let served = a.requests();
    wait_until(PATIENCE, "it is used again", || a.requests() > served + 100);
    running.stop().assert_flawless();
}

#[test]
fn a_backup_serves_only_while_no_other_is_healthy() {
    let (a, b, spare) = (
        Backend::start("a"),
        Backend::start("b"),
        Backend::start("spare"),
    );
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n[cluster.web]\n\
         backends = [\"{}\", \"{}\", {{ address = \"{}\", backup = true }}]\n\
         check = {{ tcp = true, interval = \"100ms\", timeout = \"100ms\", rise = 1, fall = 1 }}\n",
        a.addr, b.addr, spare.addr
    ));
    let addr = proxy.addr("web");
    let share = || Load::to(addr).total(60).run();
    assert_eq!(share().of("spare"), 0);
    a.down();
    proxy.wait_backend("web", a.addr, "down");
    assert_eq!(share().of("b"), 60);
    b.down();
    proxy.wait_backend("web", b.addr, "down");
    let report = share();
    report.assert_flawless();
    assert_eq!(report.of("spare"), 60);
    assert_eq!(
        proxy.count("lbproxy_cluster_panic", &[("cluster", "web")]),
        0,
        "backups come before panic"
    );
    a.up();
    proxy.wait_backend("web", a.addr, "up");
    assert_eq!(share().of("a"), 60);
    assert_eq!(proxy.backend("web", spare.addr)["backup"], true);
}

/// A backend whose `/healthz` answers with a status that the test sets.
fn checked(id: &str) -> (Backend, Arc<AtomicU16>) {
    let backend = Backend::start(id);
    let health = Arc::new(AtomicU16::new(200));
    let (shared, id) = (Arc::clone(&health), id.to_owned());
    backend.behave(move |r| match r.target.as_str() {
        "/healthz" => Answer::new(shared.load(Relaxed), "").field("x-backend-health", "1"),
        target => Answer::new(200, format!("{id} {target}")),
    });
    (backend, health)
}

const CHECK: &str =
    "check = { http = \"/healthz\", interval = \"100ms\", timeout = \"90ms\", rise = 2, fall = 2 }";

#[test]
fn a_check_takes_a_backend_out_by_its_status_and_brings_it_back() {
    let ((a, health), (b, _)) = (checked("a"), checked("b"));
    let proxy = Proxy::start(&web(&[&a, &b], CHECK));
    let addr = proxy.addr("web");
    proxy.wait_backend("web", a.addr, "up");
    for status in [500, 302, 404] {
        health.store(status, Relaxed);
        proxy.wait_backend("web", a.addr, "down");
        wait_until(PATIENCE, "the status gives the reason", || {
            let backend = proxy.backend("web", a.addr);
            let reason = backend["reason"].as_str().unwrap();
            reason.contains(&status.to_string())
        });
        assert_eq!(Load::to(addr).total(50).run().of("b"), 50);
        health.store(204, Relaxed);
        proxy.wait_backend("web", a.addr, "up");
        assert_eq!(Load::to(addr).connections(1).total(50).run().failed, 0);
    }
    let transitions = || {
        proxy
            .log()
            .lines()
            .filter(|l| l.contains(&a.addr.to_string()))
            .count()
    };
    wait_until(PATIENCE, "each change is logged", || transitions() >= 6);
}

#[test]
fn a_check_asks_with_the_host_path_and_statuses_of_the_file() {
    let backend = Backend::start("a");
    backend.record().behave(|_| Answer::new(418, ""));
    let keys = "check = { http = \"/ready?deep=1\", host = \"inner.example\", status = [\"204\", \"4xx\"], interval = \"100ms\", timeout = \"90ms\" }";
    let proxy = Proxy::start(&web(&[&backend], keys));
    wait_until(PATIENCE, "it is checked often", || backend.requests() >= 5);
    assert_eq!(proxy.backend_state("web", backend.addr), "up");
    let seen = backend.take_recorded().remove(0);
    assert_eq!(
        (seen.method.as_str(), seen.target.as_str()),
        ("GET", "/ready?deep=1")
    );
    assert_eq!(seen.fields.get("host"), Some("inner.example"));
    assert!(!seen.fields.has("x-forwarded-for"));
    proxy.reload_ok(&web(
        &[&backend],
        "check = { http = \"/\", interval = \"100ms\", timeout = \"90ms\" }",
    ));
    proxy.wait_backend("web", backend.addr, "down");
    wait_until(PATIENCE, "a check without host names the address", || {
        let seen = backend.take_recorded();
        let address = backend.addr.to_string();
        seen.iter()
            .any(|r| r.target == "/" && r.fields.get("host") == Some(&address))
    });
}

#[test]
fn a_check_may_ask_another_port_and_a_silent_answer_fails_it() {
    let (service, side) = (Backend::start("service"), Backend::start("side"));
    service.behave(|r| Answer::new(if r.target == "/healthz" { 500 } else { 200 }, ""));
    let keys = CHECK.replace("rise", &format!("port = {}, rise", side.addr.port()));
    let proxy = Proxy::start(&web(&[&service], &keys));
    wait_until(PATIENCE, "the other port is asked", || side.requests() >= 4);
    proxy.wait_backend("web", service.addr, "up");
    side.script(|| vec![Step::Hang]);
    proxy.wait_backend("web", service.addr, "down");
}

#[test]
fn a_reset_after_the_request_never_takes_a_backend_out() {
    let all = ["a", "b", "c"].map(Backend::start);
    for backend in &all {
        let id = backend.id().to_owned();
        backend.behave(move |r| -> Action {
            match r.target.as_str() {
                "/poison" => Action::Script(vec![Step::Reset]),
                target => Answer::new(200, format!("{id} {target}")).into(),
            }
        });
    }
    let proxy = Proxy::start(&web(&[&all[0], &all[1], &all[2]], ""));
    let addr = proxy.addr("web");
    let running = Load::to(addr).connections(4).rate(300).start();
    for _ in 0..50 {
        assert_eq!(get(addr, "/poison").status, 502);
    }
    for backend in &all {
        assert_eq!(proxy.backend_state("web", backend.addr), "up");
    }
    running.stop().assert_flawless();
}

#[test]
fn too_few_healthy_backends_are_a_panic_in_which_all_are_used() {
    let (all, health): (Vec<_>, Vec<_>) = ["a", "b", "c", "d"].map(checked).into_iter().unzip();
    let refs: Vec<&Backend> = all.iter().collect();
    let proxy = Proxy::start(&web(&refs, &format!("{CHECK}\npanic_threshold = 0.5")));
    let addr = proxy.addr("web");
    let panic =
        |expected| proxy.wait_count("lbproxy_cluster_panic", &[("cluster", "web")], expected);
    panic(0);
    for i in 0..2 {
        health[i].store(503, Relaxed);
        proxy.wait_backend("web", all[i].addr, "down");
    }
    let report = Load::to(addr).total(100).run();
    assert_eq!(
        (report.of("a"), report.of("b"), report.failed),
        (0, 0, 0),
        "half is enough"
    );
    panic(0);
    health[2].store(503, Relaxed);
    proxy.wait_backend("web", all[2].addr, "down");
    panic(1);
    assert_eq!(proxy.status()["clusters"][0]["panic"], true);
    wait_until(PATIENCE, "the log says so", || {
        proxy.log().contains("panic")
    });
    let report = Load::to(addr).total(400).run();
    report.assert_flawless();
    for backend in &all {
        assert!(report.of(backend.id()) > 50, "{:?}", report.by_backend);
    }
    // One that refuses connections is not chosen while another does not.
    all[0].down();
    Load::to(addr).total(200).run().assert_flawless();
    let errors = proxy.count("lbproxy_backend_errors_total", &[("reason", "connect")]);
    Load::to(addr).total(200).run().assert_flawless();
    let more = proxy.count("lbproxy_backend_errors_total", &[("reason", "connect")]) - errors;
    assert!(more <= 20, "{more} of 200 requests tried what refuses");
    health[1].store(200, Relaxed);
    health[2].store(200, Relaxed);
    panic(0);
}

#[test]
fn without_a_threshold_all_are_used_only_when_none_is_healthy() {
    let ((a, a_health), (b, b_health)) = (checked("a"), checked("b"));
    let proxy = Proxy::start(&web(&[&a, &b], CHECK));
    a_health.store(500, Relaxed);
    proxy.wait_backend("web", a.addr, "down");
    assert_eq!(proxy.count("lbproxy_cluster_panic", &[]), 0);
    b_health.store(500, Relaxed);
    proxy.wait_backend("web", b.addr, "down");
    proxy.wait_count("lbproxy_cluster_panic", &[("cluster", "web")], 1);
    Load::to(proxy.addr("web"))
        .total(50)
        .run()
        .assert_flawless();
}

#[test]
fn all_backends_down_is_502_or_503_at_once_and_over_when_one_returns() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let proxy = Proxy::start(&web(&[&a, &b], ""));
    a.down();
    b.down();
    let mut client = Client::connect(proxy.addr("web"));
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let begin = Instant::now();
            assert!([502, 503].contains(&client.get("/").status));
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    // An answer that waited for connections would come after their timeout of 1 s; a busy machine may delay some.
    assert!(times[10] < Duration::from_secs(1), "{times:?}");
    assert_eq!(
        proxy.admin("/readyz").status,
        200,
        "the proxy itself is ready"
    );
    b.up();
    wait_until(PATIENCE, "b serves", || client.get("/").status == 200);
}

#[test]
fn a_lack_of_descriptors_of_ours_takes_no_backend_down() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let check = "check = { http = \"/\", interval = \"50ms\", timeout = \"10s\", fall = 1 }";
    let proxy = Proxy::start(&web(&[&a, &b], check));
    proxy.wait_backend("web", a.addr, "up");
    let limit = |current: u64| {
        let limit = Rlimit {
            current: Some(current),
            maximum: getrlimit(Resource::Nofile).maximum,
        };
        prlimit(Some(proxy.pid()), Resource::Nofile, limit).unwrap();
    };
    // What is open stays open, and nothing more can be opened.
    limit(3);
    wait_until(PATIENCE, "the log says so", || {
        proxy.log().contains("health checks cannot connect")
    });
    // B is looked at in vain, whatever it would say.
    let checked = b.requests();
    holds_for(Duration::from_secs(1), "no probe gets through", || {
        b.requests() <= checked + 1
    });
    limit(1024);
    wait_until(PATIENCE, "the checks are back", || {
        proxy.log().contains("health checks connect again")
    });
    let log = proxy.log();
    assert!(!log.contains("backend is down"), "{log}");
    assert_eq!(log.matches("health checks cannot connect").count(), 1);
    // It was the lack that kept it up: what is wrong with it is seen again.
    b.behave(|_| Answer::new(500, "no"));
    proxy.wait_backend("web", b.addr, "down");
}

#[test]
fn a_backend_whose_answers_traffic_refuses_fails_its_check_with_that_reason() {
    let large = format!("x: {}\r\n", "x".repeat(70 << 10));
    for (answer, reason) in [
        (
            "HTTP/1.1 200 OK\ncontent-length: 2\n\nok".to_owned(),
            "check failed: response refused: bare line end",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok".to_owned(),
            "check failed: response refused: malformed or repeated Content-Length",
        ),
        (
            format!("HTTP/1.1 200 OK\r\n{large}content-length: 2\r\n\r\nok"),
            "check failed: response refused: header section too large",
        ),
    ] {
        let backend = Backend::start("a");
        backend.script(move || vec![send(&answer)]);
        let proxy = Proxy::start(&web(&[&backend], "check = { http = \"/\" }"));
        proxy.wait_backend("web", backend.addr, "down");
        assert_eq!(proxy.backend("web", backend.addr)["reason"], reason);
        wait_until(PATIENCE, "the log says why", || {
            proxy.log().contains(reason)
        });
        // Traffic, which panic sends there, says the same.
        assert_eq!(get(proxy.addr("web"), "/").status, 502);
    }
}

/// A server that greets with `ok NAME`, or `no NAME` while it is not well, and sends back what comes.
fn greeter(name: &'static str) -> (TcpBackend, Arc<AtomicBool>) {
    let well = Arc::new(AtomicBool::new(true));
    let shared = Arc::clone(&well);
    let backend = TcpBackend::threads(move |mut stream| {
        let word = if shared.load(Relaxed) { "ok" } else { "no" };
        let mut buffer = [0; 64];
        let mut answer = format!("{word} {name}\n").into_bytes();
        while stream.write_all(&answer).is_ok() {
            match stream.read(&mut buffer) {
                Ok(0) | Err(_) => return,
                Ok(read) => answer = buffer[..read].to_vec(),
            }
        }
    });
    (backend, well)
}

/// A proxy with a primary and a backup that are [`greeter`]s.
fn standby(primary: &TcpBackend, backup: &TcpBackend, keys: &str) -> Proxy {
    Proxy::start(&format!(
        "drain_timeout = \"300ms\"\n[[listener]]\nname = \"db\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n\
         cluster = \"db\"\n[cluster.db]\nbackends = [\"{}\", {{ address = \"{}\", backup = true }}]\n\
         check = {{ expect = \"ok\", interval = \"50ms\", timeout = \"250ms\", rise = 1, fall = 1 }}\n{keys}\n{ACCESS_LOG}",
        primary.addr, backup.addr
    ))
}

/// A session: what greets it, and its stream.
fn session(proxy: &Proxy) -> (String, TcpStream) {
    let mut stream = Client::connect(proxy.addr("db")).stream;
    let mut greeting = Vec::new();
    let mut byte = [0];
    while stream.read(&mut byte).is_ok_and(|read| read == 1) && byte != *b"\n" {
        greeting.push(byte[0]);
    }
    (String::from_utf8(greeting).unwrap(), stream)
}

fn is_alive(stream: &mut TcpStream) -> bool {
    stream.write_all(b"hello").is_ok() && stream.read_exact(&mut [0; 5]).is_ok()
}

/// Waits until a session is ended by the proxy; the log has that reason for one.
fn wait_closed(proxy: &Proxy, mut stream: TcpStream, reason: &str) {
    assert!(!matches!(stream.read(&mut [0]), Ok(1)), "nothing comes");
    wait_until(PATIENCE, "the log has the reason", || {
        proxy
            .access_log()
            .iter()
            .any(|line| line["reason"] == reason)
    });
}

#[test]
fn sessions_of_a_backend_that_goes_down_end_as_on_down_says() {
    for (keys, ends) in [
        ("", false),
        ("on_down = \"close\"", true),
        ("on_down = \"drain\"", true),
    ] {
        let ((a, well), (b, _)) = (greeter("a"), greeter("b"));
        let proxy = standby(&a, &b, keys);
        proxy.wait_backend("db", a.addr, "up");
        let (greeting, mut stream) = session(&proxy);
        assert_eq!(greeting, "ok a", "{keys}");
        well.store(false, Relaxed);
        proxy.wait_backend("db", a.addr, "down");
        assert_eq!(session(&proxy).0, "ok b", "{keys}");
        if ends {
            wait_closed(&proxy, stream, "backend_down");
        } else {
            holds_for(Duration::from_millis(500), "it goes on", || {
                is_alive(&mut stream)
            });
        }
    }
}

#[test]
fn a_session_that_drains_goes_on_if_its_backend_is_up_again_in_time() {
    let ((a, well), (b, _)) = (greeter("a"), greeter("b"));
    let proxy = standby(&a, &b, "on_down = \"drain\"");
    proxy.replace_config(&proxy_config_with_drain(&proxy, "1h"));
    wait_until(PATIENCE, "the longer drain is applied", || {
        proxy.reloads().0 == 1
    });
    proxy.wait_backend("db", a.addr, "up");
    let (_, mut stream) = session(&proxy);
    well.store(false, Relaxed);
    proxy.wait_backend("db", a.addr, "down");
    well.store(true, Relaxed);
    proxy.wait_backend("db", a.addr, "up");
    holds_for(Duration::from_millis(300), "it goes on", || {
        is_alive(&mut stream)
    });
}

fn proxy_config_with_drain(proxy: &Proxy, drain: &str) -> String {
    let config = std::fs::read_to_string(proxy.config_path()).unwrap();
    config.replace(
        "drain_timeout = \"300ms\"",
        &format!("drain_timeout = \"{drain}\""),
    )
}

#[test]
fn sessions_on_backups_end_when_the_primary_is_back() {
    let ((a, well), (b, _)) = (greeter("a"), greeter("b"));
    let proxy = standby(&a, &b, "on_up = \"close_backups\"");
    well.store(false, Relaxed);
    proxy.wait_backend("db", a.addr, "down");
    let (greeting, mut stream) = session(&proxy);
    assert_eq!(greeting, "ok b");
    holds_for(
        Duration::from_millis(300),
        "it stays while it is needed",
        || is_alive(&mut stream),
    );
    well.store(true, Relaxed);
    proxy.wait_backend("db", a.addr, "up");
    wait_closed(&proxy, stream, "primary_up");
    let (greeting, mut stream) = session(&proxy);
    assert_eq!(greeting, "ok a");
    holds_for(
        Duration::from_millis(300),
        "it stays on the primary",
        || is_alive(&mut stream),
    );
}

#[test]
fn a_standby_that_stays_keeps_all_new_sessions_until_it_fails() {
    let ((a, a_well), (b, b_well)) = (greeter("a"), greeter("b"));
    let proxy = standby(&a, &b, "on_up = \"stay\"\npanic_threshold = false");
    proxy.wait_backend("db", a.addr, "up");
    assert_eq!(session(&proxy).0, "ok a");
    a_well.store(false, Relaxed);
    proxy.wait_backend("db", a.addr, "down");
    let (greeting, mut stream) = session(&proxy);
    assert_eq!(greeting, "ok b");
    wait_until(PATIENCE, "the log says who stands in", || {
        proxy.log().contains("backups take over")
    });
    a_well.store(true, Relaxed);
    proxy.wait_backend("db", a.addr, "up");
    holds_for(Duration::from_millis(300), "the standby keeps all", || {
        session(&proxy).0 == "ok b"
    });
    assert_eq!(proxy.status()["clusters"][0]["standby"], true);
    assert!(is_alive(&mut stream));
    // A reload forgets nothing.
    proxy.reload_ok(&proxy_config_with_drain(&proxy, "1s"));
    assert_eq!(session(&proxy).0, "ok b");
    b_well.store(false, Relaxed);
    proxy.wait_backend("db", b.addr, "down");
    assert_eq!(session(&proxy).0, "ok a", "the other takes over");
    b_well.store(true, Relaxed);
    proxy.wait_backend("db", b.addr, "up");
    assert_eq!(session(&proxy).0, "ok a", "and keeps all in its turn");
    assert_eq!(proxy.status()["clusters"][0]["standby"], false);
}

#[test]
fn a_standby_is_sent_home_by_two_reloads() {
    let ((a, a_well), (b, _)) = (greeter("a"), greeter("b"));
    let proxy = standby(&a, &b, "on_up = \"stay\"");
    let standby = || proxy.status()["clusters"][0]["standby"] == true;
    a_well.store(false, Relaxed);
    wait_until(PATIENCE, "the standby stands in", standby);
    let (greeting, stream) = session(&proxy);
    assert_eq!(greeting, "ok b");
    a_well.store(true, Relaxed);
    proxy.wait_backend("db", a.addr, "up");
    let stays = std::fs::read_to_string(proxy.config_path()).unwrap();
    proxy.reload_ok(&stays.replace("\"stay\"", "\"close_backups\""));
    wait_until(PATIENCE, "the standby is sent home", || !standby());
    wait_closed(&proxy, stream, "primary_up");
    proxy.reload_ok(&stays);
    assert_eq!(session(&proxy).0, "ok a");
    assert!(!standby());
}

#[test]
fn without_panic_nothing_is_sent_to_backends_that_are_down() {
    let ((a, a_well), (b, b_well)) = (greeter("a"), greeter("b"));
    let proxy = standby(&a, &b, "panic_threshold = false");
    a_well.store(false, Relaxed);
    b_well.store(false, Relaxed);
    proxy.wait_backend("db", a.addr, "down");
    proxy.wait_backend("db", b.addr, "down");
    assert!(Client::is_turned_away(proxy.addr("db")));
    let panic = proxy.count("lbproxy_cluster_panic", &[("cluster", "db")]);
    assert_eq!(panic, 0);
    let rejected = [("listener", "db"), ("reason", "no_backend")];
    assert!(proxy.count("lbproxy_rejected_total", &rejected) > 0);
    wait_until(PATIENCE, "the log says so", || {
        proxy.log().contains("no backend is healthy")
    });
    b_well.store(true, Relaxed);
    proxy.wait_backend("db", b.addr, "up");
    assert_eq!(session(&proxy).0, "ok b");

    let (web, health) = checked("web");
    let proxy = Proxy::start(&web_config(&web));
    assert_eq!(get(proxy.addr("web"), "/").status, 200);
    health.store(500, Relaxed);
    proxy.wait_backend("web", web.addr, "down");
    assert_eq!(get(proxy.addr("web"), "/").status, 503);
    health.store(200, Relaxed);
    proxy.wait_backend("web", web.addr, "up");
    assert_eq!(get(proxy.addr("web"), "/").status, 200);
}

fn web_config(backend: &Backend) -> String {
    web(&[backend], &format!("{CHECK}\npanic_threshold = false"))
}
