//! Start, stop, the command line, and addresses that cannot be had.

use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::backend::{Action, Answer, Backend, Gate, Step};
use crate::support::client::{Client, get};
use crate::support::port::Port;
use crate::support::process::{PROGRAM, Proxy, complete, run, run_config, web};
use crate::support::wait::{PATIENCE, wait_until};
use crate::support::ws::Tunnel;
use rustix::process::Signal;

#[test]
fn sigterm_closes_listeners_and_idle_connections_lets_busy_ones_finish_and_exits_0() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        let backend = Backend::start("a");
        let gate = Gate::new();
        let inner = gate.clone();
        backend.behave(move |r| match r.target.as_str() {
            "/busy" => Answer::new(200, "late").gate(&inner),
            _ => Answer::new(200, "soon"),
        });
        let proxy = Proxy::start(&web(&[&backend], ""));
        let addr = proxy.addr("web");
        let (mut idle, mut busy) = (Client::connect(addr), Client::connect(addr));
        let mut fresh = Client::connect(addr);
        idle.get("/");
        busy.send("GET /busy HTTP/1.1\r\nhost: a\r\n\r\n");
        wait_until(PATIENCE, "it is at the backend", || backend.requests() == 2);
        proxy.signal(signal);
        wait_until(PATIENCE, "the listener is closed", || {
            Client::try_connect(addr).is_err()
        });
        assert!(idle.is_closed());
        assert!(fresh.is_closed());
        assert!(proxy.is_running(), "it waits for the busy one");
        gate.open();
        let answer = busy.response();
        assert!(answer.text() == "late" && answer.closes(), "{answer:?}");
        assert!(busy.is_closed());
        assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
    }
}

#[test]
fn what_is_still_open_after_the_drain_timeout_is_closed_and_the_exit_code_is_0() {
    let backend = Backend::start("a");
    backend.behave(|r| match r.target.as_str() {
        "/ws" => Action::Upgrade,
        _ => Action::Script(vec![Step::Hang]),
    });
    let proxy = Proxy::start(&("drain_timeout = \"1s\"\n".to_owned() + &web(&[&backend], "")));
    let mut tunnel = Tunnel::open(proxy.addr("web"), "/ws");
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET /hang HTTP/1.1\r\nhost: a\r\n\r\n");
    wait_until(PATIENCE, "it is at the backend", || backend.requests() == 2);
    let begin = Instant::now();
    proxy.signal(Signal::TERM);
    tunnel.echo();
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
    assert!(
        begin.elapsed() >= Duration::from_millis(900),
        "{:?}",
        begin.elapsed()
    );
    assert!(tunnel.client.is_closed());
}

#[test]
fn a_second_signal_exits_at_once() {
    let backend = Backend::start("a");
    backend.script(|| vec![Step::Hang]);
    let proxy = Proxy::start(&("drain_timeout = \"10m\"\n".to_owned() + &web(&[&backend], "")));
    let addr = proxy.addr("web");
    let mut client = Client::connect(addr);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    wait_until(PATIENCE, "it is at the backend", || backend.requests() == 1);
    proxy.signal(Signal::TERM);
    wait_until(PATIENCE, "the listener is closed", || {
        Client::try_connect(addr).is_err()
    });
    insist(&proxy);
}

/// Asks for the end again and again: what comes within a second is one wish, so it takes more than that.
fn insist(proxy: &Proxy) {
    let mut code = None;
    wait_until(PATIENCE, "it ends at once", || {
        proxy.signal(Signal::TERM);
        code = proxy.try_exit();
        code.is_some()
    });
    assert_eq!(code.unwrap().code(), Some(1), "{}", proxy.log());
}

#[test]
fn two_signals_within_a_second_are_one_wish() {
    let backend = Backend::start("a");
    let gate = Gate::new();
    let inner = gate.clone();
    backend.behave(move |_| Answer::new(200, "late").gate(&inner));
    let proxy = Proxy::start(&web(&[&backend], ""));
    let addr = proxy.addr("web");
    let mut busy = Client::connect(addr);
    busy.send("GET /busy HTTP/1.1\r\nhost: a\r\n\r\n");
    wait_until(PATIENCE, "it is at the backend", || backend.requests() == 1);
    // As timeout(1) does it: the process, and then its group.
    proxy.signal(Signal::TERM);
    proxy.signal(Signal::INT);
    wait_until(PATIENCE, "the listener is closed", || {
        Client::try_connect(addr).is_err()
    });
    gate.open();
    assert_eq!(busy.response().text(), "late");
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn signals_that_mean_nothing_here_are_ignored_with_a_line() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    for (signal, name) in [
        (Signal::USR2, "SIGUSR2"),
        (Signal::ALARM, "SIGALRM"),
        (Signal::VTALARM, "SIGVTALRM"),
        (Signal::PROF, "SIGPROF"),
        (Signal::IO, "SIGIO"),
        (Signal::POWER, "SIGPWR"),
        (Signal::XFSZ, "SIGXFSZ"),
    ] {
        proxy.signal(signal);
        let line = format!(
            "WARN ignored: SIGTERM, SIGINT and SIGQUIT drain and end, SIGHUP reloads, SIGUSR1 reopens the access log \
             signal={name}"
        );
        wait_until(PATIENCE, name, || proxy.log().contains(&line));
    }
    assert_eq!(get(proxy.addr("web"), "/").status, 200);
}

#[test]
fn while_it_drains_the_next_process_starts_beside_it() {
    let backend = Backend::start("a");
    let gate = Gate::new();
    let inner = gate.clone();
    backend.behave(move |r| match r.target.as_str() {
        "/busy" => Answer::new(200, "late").gate(&inner),
        _ => Answer::new(200, "soon"),
    });
    let held = [Port::reserve("127.0.0.1"), Port::reserve("127.0.0.1")];
    let [listener, admin] = held.each_ref().map(|port| port.addr);
    let config = web(&[&backend], "").replace("127.0.0.1:0", &listener.to_string())
        + &format!("[admin]\naddress = \"{admin}\"\n");
    let is_ready = || Client::try_connect(admin).is_ok_and(|mut c| c.get("/readyz").status == 200);
    let first = Proxy::spawn(&config);
    wait_until(PATIENCE, "it is ready", is_ready);
    let mut busy = Client::connect(listener);
    busy.send("GET /busy HTTP/1.1\r\nhost: a\r\n\r\n");
    wait_until(PATIENCE, "it is at the backend", || backend.requests() == 1);
    first.signal(Signal::TERM);
    wait_until(PATIENCE, "both addresses are given up", || {
        Client::try_connect(listener).is_err() && Client::try_connect(admin).is_err()
    });
    let second = Proxy::spawn(&config);
    wait_until(PATIENCE, "the next one is ready", is_ready);
    assert!(first.is_running(), "it still drains");
    assert_eq!(get(listener, "/").text(), "soon");
    gate.open();
    assert_eq!(busy.response().text(), "late");
    assert_eq!(first.wait_exit(PATIENCE).code(), Some(0));
    assert!(second.is_running());
}

#[test]
fn during_the_shutdown_delay_readyz_is_503_and_requests_are_served() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&("shutdown_delay = \"10m\"\n".to_owned() + &web(&[&backend], "")));
    let addr = proxy.addr("web");
    proxy.signal(Signal::TERM);
    wait_until(PATIENCE, "readyz is 503", || {
        proxy.admin("/readyz").status == 503
    });
    assert_eq!(proxy.admin("/healthz").status, 200);
    for _ in 0..10 {
        assert_eq!(get(addr, "/").status, 200);
    }
    insist(&proxy);
}

#[test]
fn the_shutdown_delay_ends_by_itself() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&("shutdown_delay = \"500ms\"\n".to_owned() + &web(&[&backend], "")));
    let begin = Instant::now();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
    assert!(
        begin.elapsed() >= Duration::from_millis(450),
        "{:?}",
        begin.elapsed()
    );
}

/// A file whose one listener has this address.
fn listening(address: &str) -> String {
    format!("[[listener]]\naddress = \"{address}\"\n")
}

#[track_caller]
fn cannot_start(config: &str, names: &str) {
    let (code, stderr) = run_config(config);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains(names), "{names} is not named: {stderr}");
    assert!(!stderr.contains("panicked"), "{stderr}");
}

#[test]
fn a_port_in_use_is_an_error_with_its_address() {
    for ip in ["127.0.0.1:0", "[::1]:0"] {
        let taken = TcpListener::bind(ip).unwrap();
        let address = taken.local_addr().unwrap().to_string();
        cannot_start(&listening(&address), &address);
    }
}

#[test]
fn a_port_in_use_by_another_lbproxy_is_an_error_too() {
    let backend = Backend::start("a");
    let first = Proxy::start(&("workers = 2\n".to_owned() + &web(&[&backend], "")));
    let address = first.addr("web").to_string();
    cannot_start(
        &("workers = 2\n".to_owned() + &listening(&address)),
        &address,
    );
    for _ in 0..20 {
        assert_eq!(
            get(first.addr("web"), "/").status,
            200,
            "the first one has all connections"
        );
    }
}

#[test]
fn an_address_that_is_not_ours_is_an_error_with_its_address() {
    // Documentation addresses (RFC 5737, RFC 3849).
    cannot_start(&listening("203.0.113.1:8080"), "203.0.113.1:8080");
    cannot_start(&listening("[2001:db8::1]:8080"), "[2001:db8::1]:8080");
}

#[test]
fn one_listener_that_cannot_bind_stops_the_start_of_all() {
    let config = listening("127.0.0.1:0") + &listening("203.0.113.1:8080");
    cannot_start(&config, "203.0.113.1:8080");
}

#[test]
fn an_admin_socket_that_cannot_be_made_is_an_error_with_its_path() {
    let config = listening("127.0.0.1:0") + "[admin]\naddress = \"unix:/nonexistent/admin.sock\"\n";
    cannot_start(&config, "/nonexistent/admin.sock");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let config = format!(
        "{}[admin]\naddress = \"{address}\"\n",
        listening("127.0.0.1:0")
    );
    cannot_start(&config, &address.to_string());
}

#[test]
fn a_port_without_permission_is_an_error_with_its_address() {
    let first_free = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first_free: u16 = first_free.unwrap().trim().parse().unwrap();
    if first_free <= 1 {
        println!("this system has no privileged ports, so there is no permission to lack");
        return;
    }
    // A directory that everybody may enter, with a copy of the program that everybody may run.
    let dir = tempfile::tempdir().unwrap();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(dir.path(), open).unwrap();
    let program = dir.path().join("lbproxy");
    std::fs::copy(PROGRAM, &program).unwrap();
    let config = dir.path().join("lb.toml");
    std::fs::write(&config, listening("127.0.0.1:1")).unwrap();
    let mut command = Command::new(program);
    command.arg("--config").arg(config);
    if rustix::process::geteuid().is_root() {
        command.uid(65534).gid(65534);
    }
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("127.0.0.1:1") && stderr.to_lowercase().contains("permission"),
        "{stderr}"
    );
}

#[test]
fn a_stale_admin_socket_is_replaced_and_a_live_one_is_not() {
    let backend = Backend::start("a");
    let dir = tempfile::tempdir().unwrap();
    drop(std::os::unix::net::UnixListener::bind(dir.path().join("admin.sock")).unwrap());
    let text = complete(&web(&[&backend], ""), dir.path());
    std::fs::write(dir.path().join("lb.toml"), &text).unwrap();
    let proxy = Proxy::spawn_in(dir);
    proxy.wait_ready();
    let output = run(&["--config", proxy.config_path().to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        proxy.admin("/readyz").status,
        200,
        "the first one still has its socket"
    );
}

#[test]
fn a_file_with_errors_or_without_existence_does_not_start() {
    let (code, stderr) = run_config("[[listener]]\nadress = \"127.0.0.1:0\"\n");
    assert_eq!(code, Some(1), "{stderr}");
    assert!(
        stderr.contains("lb.toml:2:1") && stderr.contains("did you mean"),
        "{stderr}"
    );
    let output = run(&["--config", "/nonexistent/lb.toml"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("/nonexistent/lb.toml"));
}

#[test]
fn check_tells_by_its_exit_code_and_binds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lb.toml");
    let check = |text: &str, arguments: &[&str]| {
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let mut all = vec!["check", path];
        all.extend_from_slice(arguments);
        let output = run(&all);
        let text = [output.stdout.clone(), output.stderr].concat();
        (
            output.status.code(),
            String::from_utf8(text).unwrap(),
            output.stdout,
        )
    };
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let (code, text, _) = check(&listening(&taken.local_addr().unwrap().to_string()), &[]);
    assert_eq!(code, Some(0), "{text}");
    let (code, text, _) = check("[[listener]]\naddress = 5\nwat = 1\n", &[]);
    assert_eq!(code, Some(1), "{text}");
    assert!(
        text.contains("lb.toml:2:") && text.contains("lb.toml:3:1"),
        "{text}"
    );
    let (code, _, stdout) = check("[[listener]]\naddress = 5\n", &["--json"]);
    assert_eq!(code, Some(1));
    serde_json::from_slice::<serde_json::Value>(&stdout).unwrap();
}

#[test]
fn the_command_line_says_its_version_and_refuses_what_it_does_not_know() {
    let output = run(&["--version"]);
    assert_eq!(output.status.code(), Some(0));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(
        text.starts_with(concat!("lbproxy ", env!("CARGO_PKG_VERSION"))),
        "{text}"
    );
    for wrong in [&["--no-such"][..], &["no-such"], &[]] {
        let output = run(wrong);
        assert_ne!(output.status.code(), Some(0), "{wrong:?}");
        assert!(!output.stderr.is_empty(), "{wrong:?}");
    }
}

#[test]
fn ipv6_works_on_both_sides() {
    let backend = Backend::start_on("::1", "six");
    let config = web(&[&backend], "").replace("127.0.0.1:0", "[::1]:0");
    let proxy = Proxy::start(&config);
    assert!(proxy.addr("web").is_ipv6());
    assert_eq!(get(proxy.addr("web"), "/").backend(), "six");
    assert!(
        proxy.backend("web", backend.addr)["address"]
            .as_str()
            .unwrap()
            .starts_with("[::1]:")
    );
}

#[test]
fn each_address_of_a_name_is_a_backend_or_one_of_them_is() {
    // `localhost` is ::1 and 127.0.0.1 on many machines; the backend listens on one of them only.
    let backend = Backend::start("a");
    let port = backend.addr.port();
    let address = format!("localhost:{port}");
    for (keys, label) in [
        ("", format!("localhost@127.0.0.1:{port}")),
        ("resolve = { addresses = \"one\" }", address.clone()),
    ] {
        let config = web(&[&backend], keys).replace(&backend.addr.to_string(), &address);
        let proxy = Proxy::start(&config);
        proxy.wait_backend("web", &label, "up");
        for _ in 0..10 {
            assert_eq!(get(proxy.addr("web"), "/").backend(), "a");
        }
        let used = proxy.backend("web", &label);
        assert_eq!(
            used["addresses"],
            serde_json::json!([backend.addr]),
            "{label}"
        );
        assert!(used["requests_total"].as_u64() >= Some(5), "{used}");
    }
}

#[test]
fn a_name_that_does_not_resolve_is_visible_and_stops_nothing() {
    let backend = Backend::start("a");
    // RFC 6761: such a name never resolves.
    let unknown = "no-such-host.invalid:80";
    let config =
        web(&[&backend], "").replace("backends = [", &format!("backends = [\"{unknown}\", "));
    let proxy = Proxy::start(&config);
    let addr = proxy.addr("web");
    for _ in 0..20 {
        assert_eq!(get(addr, "/").backend(), "a");
    }
    proxy.wait_backend("web", unknown, "unresolved");
    assert_eq!(
        proxy.count("lbproxy_backend_up", &[("backend", unknown)]),
        0
    );
    assert_eq!(proxy.backend_state("web", backend.addr), "up");
}

#[test]
fn the_start_logs_where_it_listens_and_what_the_descriptors_carry() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    let addr = proxy.addr("web").to_string();
    wait_until(PATIENCE, "the log has both", || {
        let log = proxy.log();
        log.contains(&addr) && log.contains("descriptor")
    });
}

#[test]
fn from_sigterm_on_every_answer_says_close_and_nobody_is_cut() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&("shutdown_delay = \"10m\"\n".to_owned() + &web(&[&backend], "")));
    let addr = proxy.addr("web");
    let mut kept: Vec<Client> = (0..8).map(|_| Client::connect(addr)).collect();
    for client in &mut kept {
        assert!(!client.get("/").closes());
    }
    proxy.signal(Signal::TERM);
    wait_until(PATIENCE, "readyz is 503", || {
        proxy.admin("/readyz").status == 503
    });
    for client in &mut kept {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.closes()), (200, true));
        assert!(client.is_closed());
    }
    let own = Client::connect(addr).request("TRACE", "/", "", b"");
    assert_eq!((own.status, own.closes()), (405, true));
    proxy.signal(Signal::KILL);
    proxy.wait_exit(PATIENCE);
}
