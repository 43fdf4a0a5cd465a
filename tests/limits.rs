//! Bounds on what clients may hold: connections, time, descriptors, pooled connections.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::time::{Duration, Instant};

use crate::support::backend::{Action, Answer, Backend};
use crate::support::client::{Client, get};
use crate::support::load::Load;
use crate::support::process::{Proxy, Reload, web, web_with};
use crate::support::raise_descriptor_limit;
use crate::support::wait::{PATIENCE, holds_for, pause, wait_until};

#[test]
fn a_listener_at_its_limit_accepts_nothing_counts_it_and_goes_on_when_one_leaves() {
    let backend = Backend::start("a");
    let config = web_with("limits = { connections = 3 }", &[&backend], "");
    let proxy = Proxy::start(&("workers = 2\n".to_owned() + &config));
    let addr = proxy.addr("web");
    let mut held: Vec<Client> = (0..3).map(|_| Client::connect(addr)).collect();
    for client in &mut held {
        assert_eq!(client.get("/").status, 200);
    }
    let mut waiting = Client::connect(addr);
    waiting.send("GET /waited HTTP/1.1\r\nhost: a\r\n\r\n");
    let labels = [("listener", "web"), ("reason", "connection_limit")];
    wait_until(PATIENCE, "it is counted", || {
        proxy.count("lbproxy_rejected_total", &labels) >= 1
    });
    holds_for(Duration::from_millis(300), "the fourth waits", || {
        backend.requests() == 3
    });
    assert_eq!(proxy.count("lbproxy_connections_active", &[]), 3);
    held.pop();
    assert_eq!(waiting.response().text(), "a /waited");
    for client in &mut held {
        assert_eq!(
            client.get("/").status,
            200,
            "those that are in are not touched"
        );
    }
}

#[test]
fn that_a_listener_accepts_nothing_is_said_once_and_once_that_it_does_again() {
    let backend = Backend::start("a");
    let config = web_with("limits = { connections = 1 }", &[&backend], "");
    let proxy = Proxy::start(&("workers = 2\n".to_owned() + &config));
    let addr = proxy.addr("web");
    let labels = [("listener", "web"), ("reason", "connection_limit")];
    for round in 1..=20 {
        let mut client = Client::connect(addr);
        assert_eq!(client.get("/").status, 200);
        wait_until(PATIENCE, "it is at the limit", || {
            proxy.count("lbproxy_rejected_total", &labels) >= round
        });
    }
    let again = "INFO accepting again listener=web after=";
    wait_until(PATIENCE, "its end is said", || proxy.log().contains(again));
    let log = proxy.log();
    let begun = "WARN not accepting for now listener=web reason=connection_limit";
    assert_eq!(log.matches(begun).count(), 1, "{log}");
    assert_eq!(log.matches(again).count(), 1, "{log}");
}

#[test]
fn a_connection_that_says_nothing_is_closed_after_the_idle_timeout_without_an_answer() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web_with(
        "timeouts = { idle = \"300ms\" }",
        &[&backend],
        "",
    ));
    assert!(
        Client::connect(proxy.addr("web")).is_closed(),
        "before the first request"
    );
    let mut client = Client::connect(proxy.addr("web"));
    for _ in 0..3 {
        assert_eq!(client.get("/").status, 200);
    }
    assert!(client.is_closed(), "between requests");
    proxy.wait_count("lbproxy_requests_total", &[], 3);
}

#[test]
fn no_timeout_is_shorter_than_it_says() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web_with(
        "timeouts = { idle = \"120ms\", request_body = \"120ms\" }",
        &[&backend],
        "",
    ));
    // Many at once, so that some begin just before the table is looked at.
    let measured: Vec<Duration> = std::thread::scope(|scope| {
        let waiting: Vec<_> = (0..40)
            .map(|turn| {
                pause(Duration::from_millis(7));
                let addr = proxy.addr("web");
                scope.spawn(move || {
                    let mut client = Client::connect(addr);
                    let mut begin = Instant::now();
                    if turn % 2 == 0 {
                        client.get("/");
                    } else {
                        client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx");
                        pause(Duration::from_millis(20));
                        begin = Instant::now();
                        client.send("y");
                    }
                    let mut rest = Vec::new();
                    client.stream.read_to_end(&mut rest).unwrap();
                    begin.elapsed()
                })
            })
            .collect();
        waiting.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let shortest = measured.iter().min().unwrap();
    assert!(*shortest >= Duration::from_millis(120), "{measured:?}");
}

#[test]
fn the_time_for_a_head_is_for_all_of_it_and_not_for_each_byte() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web_with(
        "timeouts = { header = \"500ms\" }",
        &[&backend],
        "",
    ));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nhost: a\r\nx: ");
    let mut writer = client.stream.try_clone().unwrap();
    let dripping = std::thread::spawn(move || {
        let begin = Instant::now();
        while begin.elapsed() < PATIENCE && writer.write_all(b"y").is_ok() {
            pause(Duration::from_millis(50));
        }
    });
    assert_eq!(client.response().status, 408);
    client.stream.shutdown(Shutdown::Both).unwrap();
    dripping.join().unwrap();
}

#[test]
fn a_slow_body_that_never_falls_silent_is_served() {
    let backend = Backend::start("a");
    backend.behave(|_| Action::Echo);
    let proxy = Proxy::start(&web_with(
        "timeouts = { request_body = \"2s\" }",
        &[&backend],
        "",
    ));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 25\r\n\r\n");
    for _ in 0..25 {
        client.send("x");
        pause(Duration::from_millis(100));
    }
    assert_eq!(client.response().text(), "x".repeat(25));
}

#[test]
fn a_thousand_half_heads_disturb_nobody() {
    raise_descriptor_limit();
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    let addr = proxy.addr("web");
    get(addr, "/warm");
    let before = proxy.rss_kib();
    let half: Vec<Client> = (0..1000)
        .map(|_| {
            let mut client = Client::connect(addr);
            client.send("GET / HTTP/1.1\r\nhost: a\r\nx: y");
            client
        })
        .collect();
    let report = Load::to(addr).total(2_000).run();
    report.assert_flawless();
    let grown = proxy.rss_kib().saturating_sub(before);
    println!("1,000 half heads hold {grown} KiB");
    assert!(grown < 12 << 10, "{grown} KiB");
    drop(half);
    proxy.wait_count("lbproxy_connections_active", &[], 0);
}

#[test]
fn the_pool_keeps_no_more_idle_connections_than_it_may_and_not_for_longer() {
    let backend = Backend::start("a");
    backend
        .behave(|r| Answer::new(200, format!("a {}", r.target)).delay(Duration::from_millis(50)));
    let keys = "limits = { idle_connections = 2 }\ntimeouts = { idle = \"2s\" }";
    let proxy = Proxy::start(&("workers = 1\n".to_owned() + &web(&[&backend], keys)));
    Load::to(proxy.addr("web"))
        .connections(16)
        .total(64)
        .run()
        .assert_flawless();
    wait_until(PATIENCE, "the pool is within its limit", || {
        backend.open_connections() <= 2
    });
    wait_until(PATIENCE, "the idle ones are closed", || {
        backend.open_connections() == 0
    });
}

#[test]
fn a_backends_own_keep_alive_time_is_honoured() {
    let backend = Backend::start("a");
    backend.behave(|_| Answer::new(200, "").field("keep-alive", "timeout=2"));
    let proxy = Proxy::start(&web(&[&backend], "timeouts = { idle = \"5m\" }"));
    assert_eq!(get(proxy.addr("web"), "/").status, 200);
    wait_until(PATIENCE, "the pooled connection is closed", || {
        backend.open_connections() == 0
    });
}

#[test]
fn out_of_descriptors_it_neither_spins_nor_loses_its_listener_nor_its_admin() {
    raise_descriptor_limit();
    let backend = Backend::start("a");
    let proxy = Proxy::start_with_descriptors(&web(&[&backend], ""), 1200);
    let addr = proxy.addr("web");
    let crowd: Vec<Client> = (0..1500).map(|_| Client::connect(addr)).collect();
    wait_until(PATIENCE, "it is at its bound", || {
        let active = proxy.count("lbproxy_connections_active", &[("listener", "web")]);
        let limits = ["connection_limit", "descriptor_limit"];
        let counted: u64 = limits
            .iter()
            .map(|r| proxy.count("lbproxy_rejected_total", &[("reason", r)]))
            .sum();
        active < 1500 && counted > 0
    });
    let before = proxy.cpu_time();
    pause(Duration::from_secs(1));
    let used = proxy.cpu_time() - before;
    assert!(
        used < Duration::from_millis(500),
        "{used:?} of a second while nothing happens"
    );
    assert_eq!(proxy.admin("/readyz").status, 200);
    assert!(!proxy.log().contains("panicked"), "{}", proxy.log());
    drop(crowd);
    wait_until(PATIENCE, "it serves again", || {
        Client::connect(addr)
            .try_request("GET", "/", "", b"")
            .is_ok_and(|r| r.status == 200)
    });
}

#[test]
fn where_descriptors_are_too_few_it_does_not_start_and_with_just_enough_admin_answers() {
    let backend = Backend::start("a");
    let config = "workers = 2\n".to_owned() + &web(&[&backend], "");
    let proxy = Proxy::spawn_with_descriptors(&config, 64);
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(1));
    let mut needed = None;
    wait_until(PATIENCE, "the reason is said", || {
        let log = proxy.log();
        let said = log.split_once("the limit of open files is 64, and at least ");
        needed = said.and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
        needed.is_some()
    });
    let proxy = Proxy::start_with_descriptors(&config, needed.unwrap());
    let addr = proxy.addr("web");
    let crowd: Vec<Client> = (0..200).map(|_| Client::connect(addr)).collect();
    wait_until(PATIENCE, "it is at its bound", || {
        proxy.count("lbproxy_rejected_total", &[("reason", "descriptor_limit")]) > 0
    });
    for _ in 0..20 {
        assert_eq!(proxy.admin("/readyz").status, 200);
    }
    proxy.reload_ok(&(config.clone() + "# again\n"));
    assert!(
        !proxy.log().contains("Too many open files"),
        "{}",
        proxy.log()
    );
    drop(crowd);
    wait_until(PATIENCE, "it serves again", || {
        Client::connect(addr)
            .try_request("GET", "/", "", b"")
            .is_ok_and(|r| r.status == 200)
    });
}

#[test]
fn a_reload_whose_listeners_take_too_many_descriptors_is_refused_whole() {
    let config = |listeners: usize| {
        let each = |n| {
            format!(
                "[[listener]]\nname = \"l{n}\"\naddress = \"127.0.0.1:0\"\nrespond = {{ status = 204 }}\n"
            )
        };
        "workers = 2\n".to_owned() + &(0..listeners).map(each).collect::<String>()
    };
    let proxy = Proxy::start_with_descriptors(&config(3), 512);
    assert_eq!(proxy.reload(&config(240)), Reload::Rejected);
    wait_until(PATIENCE, "the reason is said", || {
        let log = proxy.log();
        log.contains("the limit of open files is 512, and at least ")
            && log.contains("reload rejected: too few file descriptors")
    });
    assert!(
        !proxy.log().contains("listener=l3 "),
        "nothing is bound: {}",
        proxy.log()
    );
    assert_eq!(Client::connect(proxy.addr("l0")).get("/").status, 204);
    proxy.reload_ok(&config(100));
    for listener in ["l0", "l99"] {
        assert_eq!(Client::connect(proxy.addr(listener)).get("/").status, 204);
    }
    proxy.reload_ok(&config(3));
}

/// A proxy whose listener of this protocol sends everything to `backend`.
fn leading_to(protocol: &str, backend: &str) -> String {
    format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\nprotocol = \"{protocol}\"\n\
         cluster = \"web\"\n[cluster.web]\nbackends = [\"{backend}\"]\nretry = {{ attempts = 1 }}\n"
    )
}

#[test]
fn a_request_that_comes_back_to_its_own_proxy_ends_with_508() {
    let pair = [(); 2].map(|()| Proxy::start(&leading_to("http", "127.0.0.1:1")));
    let [first, second] = [&pair[0], &pair[1]].map(|proxy| proxy.addr("web"));
    // One at itself, then two at each other.
    pair[0].reload_ok(&leading_to("http", &first.to_string()));
    assert_eq!(get(first, "/").status, 508);
    pair[0].wait_count("lbproxy_rejected_total", &[("reason", "loop")], 1);
    pair[0].wait_count("lbproxy_requests_total", &[], 2);
    pair[0].reload_ok(&leading_to("http", &second.to_string()));
    pair[1].reload_ok(&leading_to("http", &first.to_string()));
    assert_eq!(get(first, "/").status, 508);
    pair[0].wait_count("lbproxy_requests_total", &[], 4);
    pair[1].wait_count("lbproxy_requests_total", &[], 1);
}

#[test]
fn a_tcp_session_that_comes_back_to_its_own_proxy_ends() {
    let proxy = Proxy::start(&leading_to("tcp", "127.0.0.1:1"));
    let addr = proxy.addr("web");
    proxy.reload_ok(&leading_to("tcp", &addr.to_string()));
    assert!(Client::is_turned_away(addr));
    wait_until(PATIENCE, "it is counted", || {
        proxy.count("lbproxy_rejected_total", &[("reason", "loop")]) >= 1
    });
    proxy.wait_count("lbproxy_connections_active", &[], 0);
    let sessions = proxy.count("lbproxy_connections_total", &[]);
    println!("{sessions} sessions");
    assert!(sessions < 15, "{sessions}");
}

#[test]
fn idle_connections_of_one_client_make_room_for_others_when_descriptors_run_out() {
    let backend = Backend::start("a");
    let config = web(&[&backend], "");
    let proxy = Proxy::start_with_descriptors(&config, 400);
    let addr = proxy.addr("web");
    // More than there are descriptors; those that do not get in wait in the kernel's queue.
    let held: Vec<Client> = (0..600).map(|_| Client::connect(addr)).collect();
    wait_until(PATIENCE, "some have made room", || {
        proxy.count("lbproxy_rejected_total", &[("reason", "evicted")]) > 0
    });
    let mut client = Client::connect(addr);
    assert_eq!(client.get("/").status, 200);
    drop(held);
}

#[test]
fn half_heads_of_one_client_make_room_for_others_when_descriptors_run_out() {
    let backend = Backend::start("a");
    let proxy = Proxy::start_with_descriptors(&web(&[&backend], ""), 400);
    let addr = proxy.addr("web");
    let _held: Vec<Client> = (0..600)
        .map(|_| {
            let mut client = Client::connect(addr);
            client.send("G");
            client
        })
        .collect();
    wait_until(PATIENCE, "some have made room", || {
        proxy.count("lbproxy_rejected_total", &[("reason", "evicted")]) > 0
    });
    assert_eq!(Client::connect(addr).get("/").status, 200);
}

#[test]
fn a_listener_keeps_its_share_of_the_descriptors() {
    let backend = Backend::start("a");
    let second = "[[listener]]\nname = \"second\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n";
    let proxy = Proxy::start_with_descriptors(&(second.to_owned() + &web(&[&backend], "")), 400);
    // Half a body each: these are at work, so nothing can make room.
    let _held: Vec<Client> = (0..600)
        .map(|_| {
            let mut client = Client::connect(proxy.addr("web"));
            client.send("POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\nx");
            client
        })
        .collect();
    let labels = [("listener", "web"), ("reason", "descriptor_limit")];
    wait_until(PATIENCE, "the first listener is full", || {
        proxy.count("lbproxy_rejected_total", &labels) > 0
    });
    let mut others: Vec<Client> = (0..20)
        .map(|_| Client::connect(proxy.addr("second")))
        .collect();
    for client in &mut others {
        assert_eq!(client.get("/").status, 200);
    }
}

#[test]
fn a_client_has_no_more_connections_than_its_share() {
    let backend = Backend::start("a");
    for limits in [
        "limits = { connections_per_client = 3 }",
        "limits = { connections = 6, connections_per_client = \"50%\" }",
    ] {
        let proxy = Proxy::start(&web_with(limits, &[&backend], ""));
        let addr = proxy.addr("web");
        let mut held: Vec<Client> = (0..3).map(|_| Client::connect(addr)).collect();
        for client in &mut held {
            assert_eq!(client.get("/").status, 200);
        }
        assert!(Client::connect(addr).is_closed());
        let labels = [("listener", "web"), ("reason", "client_connection_limit")];
        proxy.wait_count("lbproxy_rejected_total", &labels, 1);
        held.pop();
        wait_until(PATIENCE, "its place is free", || {
            proxy.count("lbproxy_connections_active", &[]) == 2
        });
        assert_eq!(Client::connect(addr).get("/").status, 200);
        let trusted = limits.replace("limits", "trusted_proxies = [\"127.0.0.0/8\"]\nlimits");
        proxy.reload_ok(&web_with(&trusted, &[&backend], ""));
        let more: Vec<Client> = (0..3).map(|_| Client::connect(addr)).collect();
        wait_until(PATIENCE, "they are in", || {
            proxy.count("lbproxy_connections_active", &[]) >= 5
        });
        drop(more);
    }
}
