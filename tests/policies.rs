//! How requests are shared out: with the figures that the project promises.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use crate::support::alone;
use crate::support::backend::{Answer, Backend};
use crate::support::client::Client;
use crate::support::load::Load;
use crate::support::process::{Proxy, web};
use crate::support::wait::{PATIENCE, wait_until};

fn backends(n: usize) -> Vec<Backend> {
    (0..n).map(|i| Backend::start(&format!("b{i}"))).collect()
}

/// A file with these entries of `backends` and these keys of the cluster.
fn file(workers: u32, entries: &[String], keys: &str) -> String {
    format!(
        "workers = {workers}\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
         [cluster.web]\nbackends = [{}]\n{keys}\n",
        entries.join(", ")
    )
}

fn plain(backends: &[Backend]) -> Vec<String> {
    backends.iter().map(|b| format!("\"{}\"", b.addr)).collect()
}

fn weighted(backends: &[Backend], weights: &[u32]) -> Vec<String> {
    let pairs = backends.iter().zip(weights);
    let entry = |(b, w): (&Backend, &u32)| format!("{{ address = \"{}\", weight = {w} }}", b.addr);
    pairs.map(entry).collect()
}

#[test]
fn weights_5_1_1_are_exact_in_every_7_picks_of_one_worker_and_spread_out() {
    let all = backends(3);
    for policy in ["round_robin", "weighted"] {
        let keys = format!("policy = \"{policy}\"");
        let proxy = Proxy::start(&file(1, &weighted(&all, &[5, 1, 1]), &keys));
        let report = Load::to(proxy.addr("web")).total(7 * 300).run_in_order();
        report.assert_flawless();
        for seven in report.order.windows(7) {
            let of = |id: &str| seven.iter().filter(|x| *x == id).count();
            assert_eq!([of("b0"), of("b1"), of("b2")], [5, 1, 1], "{seven:?}");
            let together = seven.windows(2).any(|w| w[0] != "b0" && w[1] != "b0");
            assert!(!together, "two of the small ones in a row: {seven:?}");
        }
    }
}

#[test]
fn equal_weights_are_a_plain_rotation() {
    let all = backends(4);
    let proxy = Proxy::start(&file(1, &plain(&all), ""));
    let report = Load::to(proxy.addr("web")).total(400).run_in_order();
    let first = &report.order[..4];
    assert!(
        report.order.chunks(4).all(|four| four == first),
        "{:?}",
        &report.order[..20]
    );
    assert_eq!(report.by_backend.len(), 4);
}

#[test]
fn the_shares_of_two_workers_are_within_two_thousandths_over_70000_requests() {
    let _one = alone();
    let all = backends(3);
    let proxy = Proxy::start(&file(2, &weighted(&all, &[5, 1, 1]), ""));
    let report = Load::to(proxy.addr("web"))
        .connections(16)
        .total(70_000)
        .run();
    report.assert_flawless();
    for (id, expected) in [("b0", 50_000.0), ("b1", 10_000.0), ("b2", 10_000.0)] {
        let got = report.of(id) as f64;
        assert!((got - expected).abs() <= expected * 0.002, "{id}: {got}");
    }
}

#[test]
fn a_reload_starts_no_rotation_again() {
    let all = backends(3);
    let config = file(1, &weighted(&all, &[5, 1, 1]), "");
    let proxy = Proxy::start(&config);
    let addr = proxy.addr("web");
    let mut order = Vec::new();
    for i in 0..20 {
        order.extend(Load::to(addr).total(4).run_in_order().order);
        let route = format!("[[route]]\npath = \"/new/{i}\"\ncluster = \"web\"\n");
        proxy.reload_ok(&(config.clone() + &route));
    }
    for seven in order.windows(7) {
        let of = |id: &str| seven.iter().filter(|x| *x == id).count();
        assert_eq!([of("b0"), of("b1"), of("b2")], [5, 1, 1], "{seven:?}");
    }
}

#[test]
fn weight_0_takes_nothing_new_and_a_new_weight_takes_effect() {
    let all = backends(3);
    for policy in [
        "round_robin",
        "least_connections",
        "consistent_hash",
        "random",
        "power_of_two",
    ] {
        let keys = format!("policy = \"{policy}\"\nhash_key = \"path\"");
        let proxy = Proxy::start(&file(2, &weighted(&all, &[1, 0, 1]), &keys));
        let addr = proxy.addr("web");
        let report = Load::to(addr).total(600).run();
        report.assert_flawless();
        assert_eq!(report.of("b1"), 0, "{policy}");
        assert!(
            report.of("b0") > 0 && report.of("b2") > 0,
            "{policy}: {:?}",
            report.by_backend
        );
        proxy.reload_ok(&file(2, &weighted(&all, &[0, 3, 1]), &keys));
        let report = Load::to(addr).total(800).run();
        report.assert_flawless();
        assert_eq!(report.of("b0"), 0, "{policy}");
        assert!(
            report.of("b1") > report.of("b2"),
            "{policy}: {:?}",
            report.by_backend
        );
    }
}

#[test]
fn random_follows_the_weights() {
    let all = backends(3);
    let proxy = Proxy::start(&file(2, &weighted(&all, &[2, 1, 1]), "policy = \"random\""));
    let report = Load::to(proxy.addr("web")).total(8_000).run();
    report.assert_flawless();
    // 4,000 and 2,000 with standard deviations of 45 and 39: six of them.
    assert!(
        report.of("b0").abs_diff(4_000) < 270,
        "{:?}",
        report.by_backend
    );
    assert!(
        report.of("b1").abs_diff(2_000) < 234,
        "{:?}",
        report.by_backend
    );
}

/// Requests that the slow one of four backends gets under `policy` with 8 in flight for each, and of all.
fn slow_share(policy: &str) -> (u64, u64) {
    let all = backends(4);
    for (i, backend) in all.iter().enumerate() {
        let delay = Duration::from_millis(if i == 0 { 500 } else { 50 });
        let id = backend.id().to_owned();
        backend.behave(move |r| Answer::new(200, format!("{id} {}", r.target)).delay(delay));
    }
    let proxy = Proxy::start(&file(2, &plain(&all), &format!("policy = \"{policy}\"")));
    let load = Load::to(proxy.addr("web")).connections(32).total(4_000);
    let report = load.run();
    report.assert_flawless();
    println!("{policy}: {:?}", report.by_backend);
    (report.of("b0"), report.ok)
}

#[test]
fn least_connections_gives_a_ten_times_slower_backend_at_most_15_percent_of_an_equal_share() {
    let _one = alone();
    let (slow, all) = slow_share("least_connections");
    assert!(slow as f64 <= 0.15 * all as f64 / 4.0, "{slow} of {all}");
}

#[test]
fn power_of_two_spares_a_slow_backend() {
    let _one = alone();
    let (slow, all) = slow_share("power_of_two");
    assert!(slow as f64 <= 0.40 * all as f64 / 4.0, "{slow} of {all}");
}

const BY_USER: &str = "policy = \"consistent_hash\"\nhash_key = { header = \"x-user\" }";

/// Which backend each of 1,000 users has.
fn owners(addr: SocketAddr) -> BTreeMap<String, String> {
    let mut client = Client::connect(addr);
    let users = (0..1_000).map(|i| format!("user-{i}"));
    users
        .map(|user| {
            let answer = client.request("GET", "/", &format!("x-user: {user}\r\n"), b"");
            assert_eq!(answer.status, 200);
            let owner = answer.backend().to_owned();
            (user, owner)
        })
        .collect()
}

#[test]
fn consistent_hash_moves_only_the_keys_of_what_goes_and_agrees_everywhere() {
    let all = backends(10);
    let config = file(2, &plain(&all), BY_USER);
    let proxy = Proxy::start(&config);
    let before = owners(proxy.addr("web"));
    assert_eq!(before, owners(proxy.addr("web")), "the same again");

    let second = Proxy::start(&config);
    assert_eq!(
        before,
        owners(second.addr("web")),
        "on a second proxy, and after a restart"
    );
    let mut reversed = plain(&all);
    reversed.reverse();
    second.reload_ok(&file(2, &reversed, BY_USER));
    assert_eq!(
        before,
        owners(second.addr("web")),
        "in another order of the file"
    );

    proxy.reload_ok(&file(2, &plain(&all[1..]), BY_USER));
    let after = owners(proxy.addr("web"));
    for (user, owner) in &before {
        if owner == "b0" {
            assert_ne!(after[user], "b0");
        } else {
            assert_eq!(
                &after[user], owner,
                "{user} moved though its backend stayed"
            );
        }
    }
    let heirs: std::collections::BTreeSet<&String> = after
        .iter()
        .filter(|(user, _)| before[*user] == "b0")
        .map(|(_, o)| o)
        .collect();
    assert!(
        heirs.len() > 2,
        "what goes is spread over the others: {heirs:?}"
    );
    proxy.reload_ok(&config);
    assert_eq!(
        before,
        owners(proxy.addr("web")),
        "what returns has its keys again"
    );

    proxy.reload_ok(&file(2, &plain(&all), &format!("{BY_USER}\nhash_seed = 7")));
    assert_ne!(
        before,
        owners(proxy.addr("web")),
        "another seed, another ring"
    );
}

#[test]
fn consistent_hash_moves_only_the_keys_of_what_refuses() {
    let all = backends(10);
    let proxy = Proxy::start(&file(2, &plain(&all), BY_USER));
    let addr = proxy.addr("web");
    let before = owners(addr);
    all[3].down();
    let during = owners(addr);
    for (user, owner) in &before {
        assert_eq!(owner == "b3", &during[user] != owner, "{user}");
    }
    all[3].up();
    proxy.wait_backend_under("web", all[3].addr, "up", || drop(owners(addr)));
    assert_eq!(before, owners(addr));
}

#[test]
fn the_largest_share_of_100_hashed_backends_is_at_most_1_25_times_the_mean() {
    let _one = alone();
    let host = Backend::start_on_all();
    let port = host.addr.port();
    let entries: Vec<String> = (0..100)
        .map(|i| format!("\"127.0.{}.{}:{port}\"", i / 10, 1 + i % 10))
        .collect();
    let proxy = Proxy::start(&file(2, &entries, BY_USER));
    let total = 100_000;
    let load = Load::to(proxy.addr("web")).connections(32).total(total);
    let report = load.fields(|i| format!("x-user: user-{i}\r\n")).run();
    report.assert_flawless();
    assert_eq!(report.by_backend.len(), 100);
    let largest = *report.by_backend.values().max().unwrap();
    let mean = total / 100;
    println!("largest share: {largest}, mean {mean}");
    assert!(
        largest as f64 <= 1.25 * mean as f64,
        "{largest} against a mean of {mean}"
    );
}

#[test]
fn every_hash_key_keeps_equal_keys_together_and_spreads_others() {
    let all = backends(8);
    let config = |key: &str| {
        file(
            2,
            &plain(&all),
            &format!("policy = \"consistent_hash\"\nhash_key = {key}"),
        )
    };
    let proxy = Proxy::start(&config("\"client_ip\""));
    type Make = fn(u32, u32) -> (String, String);
    let cases: [(&str, Make); 5] = [
        ("\"path\"", |k, x| (format!("/{k}?x={x}"), String::new())),
        ("\"uri\"", |k, x| {
            (format!("/?k={k}"), format!("x: {x}\r\n"))
        }),
        ("{ header = \"x-user\" }", |k, x| {
            (format!("/{x}"), format!("X-User: {k}\r\n"))
        }),
        ("{ cookie = \"sid\" }", |k, x| {
            (format!("/{x}"), format!("cookie: a={x}; sid={k}\r\n"))
        }),
        ("{ query = \"id\" }", |k, x| {
            (format!("/{x}?x={x}&id={k}"), String::new())
        }),
    ];
    for (key, make) in cases {
        proxy.reload_ok(&config(key));
        let mut client = Client::connect(proxy.addr("web"));
        let mut seen = std::collections::BTreeSet::new();
        for k in 0..40 {
            let mut of_key = (0..4).map(|x| {
                let (target, fields) = make(k, x);
                client
                    .request("GET", &target, &fields, b"")
                    .backend()
                    .to_owned()
            });
            let first = of_key.next().unwrap();
            assert!(of_key.all(|b| b == first), "{key}: {k} is split");
            seen.insert(first);
        }
        assert!(seen.len() >= 5, "{key}: {seen:?}");
    }
    proxy.reload_ok(&config("\"client_ip\""));
    let report = Load::to(proxy.addr("web")).total(100).run();
    assert_eq!(report.by_backend.len(), 1, "one client, one backend");
}

#[test]
fn a_policy_is_swapped_live_without_a_failure_or_a_closed_connection() {
    let all = backends(4);
    let keys = |policy: &str| format!("policy = \"{policy}\"");
    let proxy = Proxy::start(&file(2, &plain(&all), &keys("round_robin")));
    let running = Load::to(proxy.addr("web")).connections(8).start();
    for policy in [
        "least_connections",
        "random",
        "consistent_hash",
        "power_of_two",
        "weighted",
    ] {
        proxy.reload_ok(&file(2, &plain(&all), &keys(policy)));
        let shown = match policy {
            "weighted" => "round_robin",
            other => other,
        };
        let cluster = proxy.status()["clusters"][0].clone();
        assert_eq!(cluster["policy"], shown);
        let done = running.done();
        wait_until(PATIENCE, "it goes on", || running.done() > done + 200);
    }
    running.stop().assert_flawless();
}

#[test]
fn one_backend_takes_everything_under_every_policy() {
    let only = Backend::start("b0");
    for policy in [
        "round_robin",
        "least_connections",
        "consistent_hash",
        "random",
        "power_of_two",
    ] {
        let proxy = Proxy::start(&web(&[&only], &format!("policy = \"{policy}\"")));
        let report = Load::to(proxy.addr("web")).total(100).run();
        report.assert_flawless();
        assert_eq!(report.of("b0"), 100, "{policy}");
    }
}

#[test]
fn no_backend_at_all_is_503_under_every_policy() {
    for policy in [
        "round_robin",
        "least_connections",
        "consistent_hash",
        "random",
        "power_of_two",
    ] {
        let proxy = Proxy::start(&web(&[], &format!("policy = \"{policy}\"")));
        assert_eq!(
            Client::connect(proxy.addr("web")).get("/").status,
            503,
            "{policy}"
        );
    }
}
