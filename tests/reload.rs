//! Reloads in place: what changes, what stays, what is refused, and how a change is noticed.

use std::io::ErrorKind;
use std::net::{Ipv6Addr, SocketAddr, TcpListener};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::support::backend::{Action, Answer, Backend, Gate};
use crate::support::client::{Client, get};
use crate::support::load::Load;
use crate::support::metrics::{Format, Metrics};
use crate::support::port::Port;
use crate::support::process::{ACCESS_LOG, Proxy, Reload, complete, web};
use crate::support::wait::{PATIENCE, holds_for, wait_until};
use crate::support::ws::Tunnel;
use rustix::process::Signal;

const FAST_DRAIN: &str = "drain_timeout = \"1s\"\n";

fn second(cluster: &str) -> String {
    format!("[[listener]]\nname = \"second\"\naddress = \"127.0.0.2:0\"\ncluster = \"{cluster}\"\n")
}

#[test]
fn listeners_are_added_kept_and_removed() {
    let backend = Backend::start("a");
    let one = FAST_DRAIN.to_owned() + &web(&[&backend], "");
    let proxy = Proxy::start(&one);
    let first = proxy.addr("web");
    let mut kept = Client::connect(first);
    kept.get("/");
    proxy.reload_ok(&(one.clone() + &second("web")));
    let added = proxy.addr("second");
    assert_eq!(get(added, "/").backend(), "a");
    assert_eq!(
        proxy.addr("web"),
        first,
        "a listener that stays keeps its socket"
    );
    let mut idle = Client::connect(added);
    idle.get("/");
    proxy.reload_ok(&one);
    wait_until(PATIENCE, "the removed one refuses", || {
        Client::try_connect(added).is_err()
    });
    assert!(idle.is_closed(), "its idle connection is closed");
    assert_eq!(
        kept.get("/").status,
        200,
        "the connection of the other one is not"
    );
    assert_eq!(proxy.status()["listeners"].as_array().unwrap().len(), 1);
}

#[test]
fn a_removed_listener_lets_busy_requests_finish_and_serves_what_is_queued() {
    let backend = Backend::start("a");
    let gate = Gate::new();
    let inner = gate.clone();
    backend.behave(move |_| Answer::new(200, "late").gate(&inner));
    let one = web(&[&backend], "");
    let proxy = Proxy::start(&(one.clone() + &second("web")));
    let addr = proxy.addr("second");
    let mut busy: Vec<Client> = (0..10).map(|_| Client::connect(addr)).collect();
    for client in &mut busy {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    proxy.reload_ok(&one);
    wait_until(PATIENCE, "the removed one refuses", || {
        Client::try_connect(addr).is_err()
    });
    gate.open();
    for client in &mut busy {
        let answer = client.response();
        assert!(answer.text() == "late" && answer.closes(), "{answer:?}");
        assert!(client.is_closed());
    }
}

#[test]
fn what_a_removed_backend_still_serves_ends_with_the_drain_timeout() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    for backend in [&a, &b] {
        backend.behave(|_| Action::Upgrade);
    }
    let proxy = Proxy::start(&(FAST_DRAIN.to_owned() + &web(&[&a], "")));
    let mut tunnel = Tunnel::open(proxy.addr("web"), "/");
    proxy.reload_ok(&("drain_timeout = \"3s\"\n".to_owned() + &web(&[&b], "")));
    assert_eq!(tunnel.backend, "a");
    tunnel.echo();
    assert_eq!(Tunnel::open(proxy.addr("web"), "/").backend, "b");
    assert!(
        tunnel.client.is_closed(),
        "it is closed within {PATIENCE:?}"
    );
    let label = a.addr.to_string();
    wait_until(PATIENCE, "the series of the departed backend go", || {
        let metrics = proxy.metrics();
        let mut samples = metrics.samples().iter();
        !samples.any(|s| s.labels.get("backend") == Some(&label))
    });
}

#[test]
fn a_change_that_does_not_touch_a_session_leaves_it_alone() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    a.behave(|_| Action::Upgrade);
    let base = web(&[&a], "");
    let proxy = Proxy::start(&(FAST_DRAIN.to_owned() + &base));
    let mut tunnel = Tunnel::open(proxy.addr("web"), "/");
    let other = format!(
        "[cluster.other]\nbackends = [\"{}\"]\n[[route]]\npath = \"/o\"\ncluster = \"other\"\n",
        b.addr
    );
    let weight_0 = base.replace(
        &format!("\"{}\"", a.addr),
        &format!("{{ address = \"{}\", weight = 0 }}, \"{}\"", a.addr, b.addr),
    );
    for change in [
        base.clone() + &other,
        base.clone() + "policy = \"least_connections\"\n",
        base.clone() + "timeouts = { response = \"5s\" }\n",
        base.clone() + &second("web"),
        weight_0,
        base.clone() + "[log]\nlevel = \"debug\"\n",
    ] {
        proxy.reload_ok(&(FAST_DRAIN.to_owned() + &change));
        tunnel.echo();
    }
    // Longer than the drain of what was removed.
    holds_for(Duration::from_millis(1500), "the tunnel lives", || {
        tunnel.try_echo().is_ok()
    });
}

#[test]
fn a_file_with_errors_changes_nothing_and_the_log_has_all_of_them() {
    let backend = Backend::start("a");
    let good = web(&[&backend], "");
    let proxy = Proxy::start(&good);
    let generation = proxy.count("lbproxy_config_generation", &[]);
    assert_eq!(proxy.count("lbproxy_config_last_reload_success", &[]), 1);
    let bad = good.replace("cluster = \"web\"", "cluster = \"wbe\"") + "polcy = \"random\"\n";
    assert_eq!(proxy.reload(&bad), Reload::Rejected);
    assert_eq!(proxy.count("lbproxy_config_last_reload_success", &[]), 0);
    assert_eq!(proxy.count("lbproxy_config_generation", &[]), generation);
    wait_until(PATIENCE, "the log has every error", || {
        let log = proxy.log();
        ["lb.toml:", "wbe", "polcy", "policy", "did you mean", "^"]
            .iter()
            .all(|t| log.contains(t))
    });
    assert_eq!(get(proxy.addr("web"), "/").backend(), "a");
    assert_eq!(proxy.reload("not toml at all ["), Reload::Rejected);
    assert_eq!(proxy.reload(&(good + "policy = \"random\"\n")), Reload::Ok);
    assert_eq!(proxy.count("lbproxy_config_last_reload_success", &[]), 1);
    assert_eq!(
        proxy.count("lbproxy_config_generation", &[]),
        generation + 1
    );
    assert_eq!(proxy.reloads(), (1, 2));
}

#[test]
fn a_reload_that_cannot_bind_changes_nothing_at_all() {
    let backend = Backend::start("a");
    let good = web(&[&backend], "");
    let proxy = Proxy::start(&good);
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let bad = format!(
        "{good}policy = \"random\"\n{}[[listener]]\nname = \"taken\"\naddress = \"{address}\"\ncluster = \"web\"\n",
        second("web")
    );
    assert_eq!(proxy.reload(&bad), Reload::Rejected);
    let status = proxy.status();
    assert_eq!(
        status["listeners"].as_array().unwrap().len(),
        1,
        "{status:#}"
    );
    assert_eq!(status["clusters"][0]["policy"], "round_robin");
    wait_until(PATIENCE, "the log names the address", || {
        proxy.log().contains(&address.to_string())
    });
    drop(taken);
    proxy.reload_ok(&(bad + "\n"));
    assert_eq!(get(address, "/").backend(), "a");
}

#[test]
fn a_file_written_in_place_and_one_renamed_by_an_editor_are_noticed() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    let path = proxy.config_path();
    let config = |i: u32| {
        let route = format!("[[route]]\npath = \"/{i}\"\nrespond = {{ body = \"{i}\" }}\n");
        complete(&(web(&[&backend], "") + &route), proxy.dir())
    };
    let expect = |i: u32| {
        wait_until(PATIENCE, "the change is applied", || {
            get(proxy.addr("web"), &format!("/{i}")).text() == i.to_string()
        });
    };
    std::fs::write(&path, config(1)).unwrap();
    expect(1);
    // vim: the old file becomes a backup, the new one is created under the name.
    std::fs::rename(&path, proxy.dir().join("lb.toml~")).unwrap();
    std::fs::write(&path, config(2)).unwrap();
    expect(2);
    // emacs, atomic writers: a new file is renamed over the old one.
    std::fs::write(proxy.dir().join("#lb.toml#"), config(3)).unwrap();
    std::fs::rename(proxy.dir().join("#lb.toml#"), &path).unwrap();
    expect(3);
    // Removed for a while: the old generation goes on.
    std::fs::remove_file(&path).unwrap();
    holds_for(Duration::from_millis(500), "it serves", || {
        get(proxy.addr("web"), "/3").text() == "3"
    });
    std::fs::write(&path, config(4)).unwrap();
    expect(4);
}

#[test]
fn a_symlink_swap_as_kubernetes_does_it_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let backend = Backend::start("a");
    let config = |i: u32| {
        let route = format!("[[route]]\npath = \"/{i}\"\nrespond = {{ body = \"{i}\" }}\n");
        complete(&(web(&[&backend], "") + &route), dir.path())
    };
    let place = |i: u32| {
        let data = dir.path().join(format!("..data_{i}"));
        std::fs::create_dir(&data).unwrap();
        std::fs::write(data.join("lb.toml"), config(i)).unwrap();
        symlink(format!("..data_{i}"), dir.path().join("..data_tmp")).unwrap();
        std::fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
    };
    place(0);
    symlink("..data/lb.toml", dir.path().join("lb.toml")).unwrap();
    let old = |i: u32| dir.path().join(format!("..data_{i}"));
    let olds: Vec<_> = (0..4).map(old).collect();
    let texts: Vec<String> = (0..4).map(config).collect();
    let root = dir.path().to_owned();
    let proxy = Proxy::spawn_in(dir);
    wait_until(PATIENCE, "it is ready", || {
        proxy.try_admin("/readyz").is_some_and(|r| r.status == 200)
    });
    for i in 1..4 {
        std::fs::create_dir(&olds[i]).unwrap();
        std::fs::write(olds[i].join("lb.toml"), &texts[i]).unwrap();
        symlink(format!("..data_{i}"), root.join("..data_tmp")).unwrap();
        std::fs::rename(root.join("..data_tmp"), root.join("..data")).unwrap();
        std::fs::remove_dir_all(&olds[i - 1]).unwrap();
        wait_until(PATIENCE, "the swap is applied", || {
            get(proxy.addr("web"), &format!("/{i}")).text() == i.to_string()
        });
    }
}

#[test]
fn sighup_reloads_where_the_file_is_not_watched() {
    let backend = Backend::start("a");
    let unwatched = |i: u32| {
        let route = format!("[[route]]\npath = \"/{i}\"\nrespond = {{ body = \"{i}\" }}\n");
        format!("watch = false\n{}{route}", web(&[&backend], ""))
    };
    let proxy = Proxy::start(&unwatched(0));
    for i in 1..4 {
        let before = proxy.reloads();
        proxy.replace_config(&unwatched(i));
        holds_for(Duration::from_millis(300), "nothing is reloaded", || {
            proxy.reloads() == before
        });
        proxy.signal(Signal::HUP);
        assert_eq!(proxy.wait_reload(before), Reload::Ok);
        assert_eq!(
            get(proxy.addr("web"), &format!("/{i}")).text(),
            i.to_string()
        );
    }
}

#[test]
fn a_path_that_is_a_pipe_for_a_moment_stops_neither_reloads_nor_the_end() {
    let backend = Backend::start("a");
    let base = web(&[&backend], "");
    let gossip = "[gossip]\naddress = \"127.0.0.1:0\"\nadvertise = \"127.0.0.1:1\"\nkey_files = [\"pipe\"]\n";
    let proxy = Proxy::start(&base);
    let pipe = |name: &str| {
        let made = std::process::Command::new("mkfifo")
            .arg(proxy.dir().join(name))
            .status()
            .unwrap();
        assert!(made.success());
    };
    // Where the file is, where a key should be, and where the access log should be, nobody reads or writes.
    let before = proxy.reloads();
    pipe(".lb.toml.new");
    std::fs::rename(proxy.dir().join(".lb.toml.new"), proxy.config_path()).unwrap();
    proxy.signal(Signal::HUP);
    assert_eq!(proxy.wait_reload(before), Reload::Rejected);
    wait_until(PATIENCE, "the log says why", || {
        proxy.log().contains("it is a pipe, not a regular file")
    });
    pipe("pipe");
    for more in [gossip, "[log]\naccess = { file = \"pipe\" }\n"] {
        assert_eq!(proxy.reload(&(base.clone() + more)), Reload::Rejected);
    }
    proxy.reload_ok(&(base + "# whole again\n"));
    std::fs::rename(proxy.dir().join("pipe"), proxy.config_path()).unwrap();
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn a_file_that_is_touched_but_not_changed_is_no_reload() {
    let backend = Backend::start("a");
    let config = web(&[&backend], "");
    let proxy = Proxy::start(&config);
    for _ in 0..5 {
        proxy.replace_config(&config);
    }
    holds_for(Duration::from_secs(1), "no reload", || {
        proxy.reloads() == (0, 0)
    });
}

#[test]
fn the_admin_address_and_the_logs_change_live() {
    let backend = Backend::start("a");
    let base = web(&[&backend], "");
    let proxy = Proxy::start(&base);
    let addr = proxy.addr("web");
    get(addr, "/unlogged");
    proxy.reload_ok(&(base.clone() + ACCESS_LOG));
    get(addr, "/logged");
    proxy.wait_access("/logged");
    assert!(proxy.access_log().iter().all(|l| l["uri"] != "/unlogged"));
    let free = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    proxy.replace_config(&format!("{base}[admin]\naddress = \"{free}\"\n"));
    wait_until(PATIENCE, "the new admin address answers", || {
        Client::try_connect(free).is_ok_and(|mut c| c.get("/readyz").status == 200)
    });
    wait_until(PATIENCE, "the old one is gone", || {
        proxy.try_admin("/readyz").is_none()
    });
    assert_eq!(get(addr, "/").backend(), "a");
}

#[test]
fn a_change_of_workers_applies_the_rest_and_says_so() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&("workers = 1\n".to_owned() + &web(&[&backend], "")));
    let rest = "policy = \"random\"\n";
    proxy.reload_ok(&("workers = 2\n".to_owned() + &web(&[&backend], rest)));
    assert_eq!(proxy.status()["clusters"][0]["policy"], "random");
    wait_until(PATIENCE, "the log says so", || {
        proxy.log().contains("workers")
    });
}

#[test]
fn a_listener_that_comes_and_goes_under_load_fails_nothing_elsewhere() {
    let backend = Backend::start("a");
    let base = FAST_DRAIN.to_owned() + &web(&[&backend], "");
    let proxy = Proxy::start(&base);
    let running = Load::to(proxy.addr("web")).connections(8).rate(500).start();
    for _ in 0..10 {
        proxy.reload_ok(&(base.clone() + &second("web")));
        assert_eq!(get(proxy.addr("second"), "/").backend(), "a");
        proxy.reload_ok(&base);
    }
    running.stop().assert_flawless();
}

#[test]
fn clients_of_a_removed_listener_are_told_to_close_and_not_cut() {
    let backend = Backend::start("a");
    let config = web(&[&backend], "");
    let both = config.clone() + &second("web");
    let proxy = Proxy::start(&("drain_timeout = \"10m\"\n".to_owned() + &both));
    let addr = proxy.addr("second");
    let mut kept: Vec<Client> = (0..8).map(|_| Client::connect(addr)).collect();
    for client in &mut kept {
        assert!(!client.get("/").closes());
    }
    proxy.reload_ok(&("drain_timeout = \"10m\"\n".to_owned() + &config));
    wait_until(PATIENCE, "the removed one refuses", || {
        Client::try_connect(addr).is_err()
    });
    for client in &mut kept {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.closes()), (200, true));
        assert!(client.is_closed());
    }
}

#[test]
fn a_listener_and_the_admin_server_move_between_overlapping_addresses_without_a_gap() {
    let backend = Backend::start("a");
    let held = [Port::reserve("127.0.0.1"), Port::reserve("127.0.0.1")];
    let [web_at, admin_at] = held.each_ref().map(|port| port.addr);
    let config = |ip: &str| {
        let listener = format!("\"{ip}:{}\"", web_at.port());
        let admin = format!("[admin]\naddress = \"{ip}:{}\"\n", admin_at.port());
        web(&[&backend], "").replace("\"127.0.0.1:0\"", &listener) + &admin
    };
    let applied = || -> Option<u64> {
        let mut client = Client::try_connect(admin_at).ok()?;
        let page = client.try_request("GET", "/metrics", "", b"").ok()?;
        let metrics = Metrics::parse(page.text(), Format::Text).unwrap();
        let labels = [("result", "rejected")];
        assert_eq!(metrics.count("lbproxy_config_reloads_total", &labels), 0);
        Some(metrics.count("lbproxy_config_generation", &[]))
    };
    // Free while the proxy binds them: a bound socket would be in the way of all addresses.
    drop(held);
    let proxy = Proxy::spawn(&config("127.0.0.1"));
    wait_until(PATIENCE, "it is ready", || {
        Client::try_connect(web_at).is_ok_and(|mut c| c.get("/").status == 200)
    });
    let (stop, asked) = (AtomicBool::new(false), AtomicU64::new(0));
    let resets = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for (address, path) in [(web_at, "/"), (admin_at, "/healthz")] {
            let (stop, asked, resets) = (&stop, &asked, &resets);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let answer = Client::try_connect(address).and_then(|mut client| {
                        client.try_request("GET", path, "connection: close\r\n", b"")
                    });
                    match answer {
                        Ok(answer) => assert_eq!(answer.status, 200),
                        // The kernel resets whoever comes between the last accept and the close.
                        Err(error) => {
                            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
                            resets.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                    asked.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let moved = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let ways = ["0.0.0.0", "", "127.0.0.1", "", "0.0.0.0", "127.0.0.1"];
            for (place, ip) in ways.into_iter().enumerate() {
                proxy.replace_config(&config(ip));
                wait_until(PATIENCE, ip, || applied() == Some(place as u64 + 2));
                let before = asked.load(Ordering::Relaxed);
                wait_until(PATIENCE, "some more are asked", || {
                    asked.load(Ordering::Relaxed) > before + 20
                });
            }
        }));
        stop.store(true, Ordering::Relaxed);
        moved.unwrap();
    });
    // At most one for each socket that was closed.
    assert!(resets.into_inner() <= 6 * 3);
    // Where IPv4 has no part, another program may be there, and that is a true reason.
    proxy.replace_config(&config("[::]"));
    let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, web_at.port()));
    wait_until(PATIENCE, "it is on IPv6 alone", || {
        Client::try_connect(v6).is_ok_and(|mut c| c.get("/").status == 200)
            && Client::try_connect(web_at).is_err()
    });
    let _stranger = TcpListener::bind(web_at).unwrap();
    proxy.replace_config(&config(""));
    wait_until(PATIENCE, "it is refused", || {
        proxy
            .log()
            .contains("the address is in use by another program")
    });
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
}

/// What `GET path` over the Unix socket at `socket` brings, if somebody is there.
fn ask_unix(socket: &Path, path: &str) -> Option<String> {
    let stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let answer = Client::over(stream)
        .try_request("GET", path, "", b"")
        .ok()?;
    Some(answer.text().to_owned())
}

fn on_unix(sockets: &[&Path], admin: Option<&Path>) -> String {
    let listener = |socket: &&Path| {
        let address = format!("unix:{}", socket.display());
        format!(
            "[[listener]]\naddress = \"{address}\"\nrespond = {{ status = 200, body = \"web\" }}\n"
        )
    };
    let listeners: String = sockets.iter().map(listener).collect();
    let admin = admin.map(|path| format!("[admin]\naddress = \"unix:{}\"\n", path.display()));
    listeners + &admin.unwrap_or_default()
}

#[test]
fn unix_sockets_move_between_names_and_owners_and_come_back_when_lost() {
    let dir = tempfile::tempdir().unwrap();
    symlink(dir.path(), dir.path().join("also")).unwrap();
    let [a, alias] = ["a.sock", "also/a.sock"].map(|name| dir.path().join(name));
    let is_web = |socket: &Path| ask_unix(socket, "/").as_deref() == Some("web");
    let first = dir.path().join("first.sock");
    let proxy = Proxy::start(&on_unix(&[&first], None));
    proxy.reload_ok(&on_unix(&[&a], None));
    wait_until(PATIENCE, "the file goes with the listener", || {
        !first.exists()
    });
    proxy.reload_ok(&on_unix(&[&alias], None));
    assert!(is_web(&a));
    let both = on_unix(&[&a, &alias], None);
    assert_eq!(proxy.reload(&both), Reload::Rejected);
    assert!(is_web(&a));

    std::fs::remove_file(&a).unwrap();
    proxy.reload_ok(&(FAST_DRAIN.to_owned() + &on_unix(&[&alias], None)));
    assert!(is_web(&a), "bound again");
    let stranger = dir.path().join("stranger");
    std::fs::write(&stranger, "precious").unwrap();
    std::fs::rename(&stranger, &a).unwrap();
    proxy.reload_ok(&on_unix(&[&alias], None));
    assert!(proxy.log().contains("the socket has lost its file"));
    std::fs::remove_file(&a).unwrap();
    proxy.reload_ok(&on_unix(&[&a], None));

    let home = proxy.dir().join("admin.sock");
    let is_admin = |socket: &Path| {
        ask_unix(socket, "/metrics").is_some_and(|page| page.contains("lbproxy_config_generation"))
    };
    proxy.replace_config(&on_unix(&[&home], Some(&a)));
    wait_until(PATIENCE, "they have changed places", || {
        is_web(&home) && is_admin(&a)
    });
    proxy.replace_config(&on_unix(&[&a], Some(&home)));
    wait_until(PATIENCE, "they are back", || is_web(&a) && is_admin(&home));
    assert_eq!(proxy.reloads().1, 1, "{}", proxy.log());
    let other = dir.path().join("b.sock");
    proxy.reload_ok(&on_unix(&[&other], Some(&home)));
    wait_until(PATIENCE, "the file goes with the listener", || !a.exists());
    let names = std::fs::read_dir(dir.path()).unwrap().count();
    assert_eq!(names, 2, "nothing is left behind");
}

#[test]
fn included_files_and_those_that_they_name_are_followed() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&format!(
        "include = [\"sites/*.toml\"]\n{}",
        web(&[&backend], "")
    ));
    let dir = proxy.dir().to_owned();
    let expect = |path: &str, text: &str| {
        wait_until(PATIENCE, "the change is applied", || {
            let answer = get(proxy.addr("web"), path);
            answer.text() == text || answer.backend() == text
        });
    };
    let place = |name: &str, text: &str| {
        std::fs::write(dir.join("part"), text).unwrap();
        std::fs::rename(dir.join("part"), dir.join(name)).unwrap();
    };
    let route = |n: u32| format!("[[route]]\npath = \"/a\"\nrespond = {{ body = \"{n}\" }}\n");
    expect("/a", "a");
    // One that appears, one that is changed, and the file that it names.
    std::fs::create_dir(dir.join("sites")).unwrap();
    place("sites/b.toml", &route(1));
    expect("/a", "1");
    place("sites/b.toml", &route(2));
    expect("/a", "2");
    place("sites/page.txt", "3");
    place(
        "sites/a.toml",
        "[[route]]\npath = \"/a\"\nrespond = { file = \"page.txt\" }\n",
    );
    expect("/a", "3");
    place("sites/page.txt", "4");
    expect("/a", "4");
    // One with an error changes nothing; one that is gone is gone.
    let before = proxy.reloads();
    place("sites/b.toml", "[[route]]\npth = 1\n");
    assert!(matches!(proxy.wait_reload(before), Reload::Rejected));
    wait_until(PATIENCE, "the log says where", || {
        proxy.log().contains("sites/b.toml:2:1")
    });
    std::fs::remove_file(dir.join("sites/b.toml")).unwrap();
    std::fs::remove_file(dir.join("sites/a.toml")).unwrap();
    expect("/a", "a");
}

#[test]
fn a_listener_with_several_addresses_is_one() {
    let backend = Backend::start("a");
    let several = web(&[&backend], "").replacen(
        "address = \"127.0.0.1:0\"",
        "address = [\"127.0.0.1:0\", \"127.0.0.2:0\"]",
        1,
    );
    let proxy = Proxy::start(&several);
    let bound = |proxy: &Proxy| -> Vec<SocketAddr> {
        let listeners = proxy.status()["listeners"].clone();
        assert_eq!(listeners.as_array().unwrap().len(), 1, "{listeners}");
        let written = listeners[0]["addresses"].as_array().unwrap();
        let bound = listeners[0]["bound"].as_array().unwrap();
        assert_eq!(written.len(), bound.len(), "{listeners}");
        bound
            .iter()
            .map(|a| a.as_str().unwrap().parse().unwrap())
            .collect()
    };
    let addresses = bound(&proxy);
    assert_eq!(addresses.len(), 2);
    for address in &addresses {
        assert_eq!(get(*address, "/").backend(), "a");
    }
    proxy.wait_count("lbproxy_requests_total", &[("listener", "web")], 2);
    let mut kept = Client::connect(addresses[0]);
    kept.get("/");
    proxy.reload_ok(&web(&[&backend], ""));
    assert_eq!(bound(&proxy), addresses[..1]);
    wait_until(PATIENCE, "the other address refuses", || {
        Client::try_connect(addresses[1]).is_err()
    });
    assert_eq!(kept.get("/").status, 200);
}

#[test]
fn pages_stand_in_for_errors_of_the_proxy_alone() {
    let backend = Backend::start("a");
    backend.behave(|_| Answer::new(404, "own"));
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("client.json"), "{}").unwrap();
    std::fs::write(dir.path().join("sorry.html"), "sorry").unwrap();
    let text = format!(
        "{}{ACCESS_LOG}[[listener]]\nname = \"bare\"\naddress = \"127.0.0.1:0\"\nerrors = {{ 4xx = \"client.json\" }}\n\
         [[listener]]\nname = \"moved\"\naddress = \"127.0.0.1:0\"\nredirect = \"https://{{host}}{{uri}}\"\n\
         [[route]]\nlisteners = [\"bare\"]\npath = \"/down\"\ncluster = \"none\"\nlog = false\n\
         errors = {{ 503 = \"sorry.html\" }}\n\
         [[route]]\nlisteners = [\"bare\"]\npath = \"/small\"\ncluster = \"web\"\nlimits = {{ body_bytes = \"4B\" }}\n\
         [cluster.none]\nbackends = []\n",
        web(&[&backend], "")
    );
    std::fs::write(dir.path().join("lb.toml"), complete(&text, dir.path())).unwrap();
    let proxy = Proxy::spawn_in(dir);
    proxy.wait_ready();
    let bare = proxy.addr("bare");
    let answer = get(bare, "/");
    assert_eq!((answer.status, answer.text()), (404, "{}"));
    assert_eq!(answer.fields.get("content-type"), Some("application/json"));
    let answer = get(bare, "/down");
    assert_eq!((answer.status, answer.text()), (503, "sorry"));
    let mut client = Client::connect(bare);
    client.send("POST /small HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n12345");
    let answer = client.response();
    assert_eq!((answer.status, answer.text()), (413, "{}"));
    let mut client = Client::connect(bare);
    client.send("POST /small HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\n1234");
    let answer = client.response();
    assert_eq!((answer.status, answer.text()), (404, "own"));
    let answer = get(proxy.addr("moved"), "/x?y");
    assert_eq!(answer.status, 308);
    assert!(
        answer
            .fields
            .get("location")
            .is_some_and(|to| to.ends_with("/x?y"))
    );
    assert_eq!(proxy.wait_access("/")["reason"], "no_route");
    assert!(proxy.access_log().iter().all(|line| line["uri"] != "/down"));
}

#[cfg(target_env = "gnu")]
#[test]
fn the_memory_of_a_large_configuration_comes_back_after_it() {
    let backend = Backend::start("a");
    let small = web(&[&backend], "");
    let proxy = Proxy::start(&small);
    let before = proxy.rss_kib();
    let routes = "[[route]]\npath = \"/x\"\nrespond = { status = 204 }\n".repeat(30_000);
    proxy.reload_ok(&(small.clone() + &routes));
    let grown = proxy.rss_kib().saturating_sub(before);
    assert!(grown > 16 * 1024, "{grown} KiB");
    proxy.reload_ok(&small);
    wait_until(PATIENCE, "most of it is back", || {
        proxy.rss_kib().saturating_sub(before) < grown / 2
    });
}
