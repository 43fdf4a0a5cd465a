//! A thousand reloads under load: no failed request, no closed connection, no growth.

use std::time::{Duration, Instant};

use crate::support::backend::{Action, Backend};
use crate::support::client::get;
use crate::support::load::Load;
use crate::support::process::{Proxy, Reload};
use crate::support::wait::{PATIENCE, pause, wait_until};
use crate::support::ws::Tunnel;

const RELOADS: usize = 1_000;
const PACE: Duration = Duration::from_millis(50);
/// What resident memory may differ by without a leak: 2.5 KiB for each of 800 reloads, less than one configuration takes.
const NOISE_KIB: u64 = 2048;

/// The file of round `i`: another policy, other weights, another member or a broken one.
fn file(i: usize, all: &[Backend; 4], tunnel: &Backend) -> (String, Reload) {
    const POLICIES: [&str; 5] = [
        "round_robin",
        "least_connections",
        "random",
        "power_of_two",
        "consistent_hash",
    ];
    let policy = POLICIES[(i / 3) % POLICIES.len()];
    // The last backend comes and goes; the others change their weights.
    let members = if i.is_multiple_of(4) { 3 } else { 4 };
    let entries: Vec<String> = all[..members]
        .iter()
        .enumerate()
        .map(|(j, b)| {
            format!(
                "{{ address = \"{}\", weight = {} }}",
                b.addr,
                1 + (i + j) % 5
            )
        })
        .collect();
    let broken = if i % 10 == 9 { "unknown_key = 1\n" } else { "" };
    let text = format!(
        "# round {i}\ndrain_timeout = \"1s\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
         [[route]]\npath = \"/ws\"\ncluster = \"ws\"\n[[route]]\npath = \"/round/{i}\"\nrespond = {{ status = 204 }}\n\
         [cluster.web]\npolicy = \"{policy}\"\nbackends = [{}]\n{broken}\
         [cluster.ws]\nbackends = [\"{}\"]\n",
        entries.join(", "),
        tunnel.addr
    );
    (
        text,
        if broken.is_empty() {
            Reload::Ok
        } else {
            Reload::Rejected
        },
    )
}

#[test]
fn a_thousand_reloads_fail_no_request_close_no_connection_and_keep_no_memory() {
    let all = ["a", "b", "c", "d"].map(Backend::start);
    let ws = Backend::start("ws");
    ws.behave(|_| Action::Upgrade);
    let proxy = Proxy::start(&file(0, &all, &ws).0);
    let addr = proxy.addr("web");
    let mut tunnel = Tunnel::open(addr, "/ws");
    let running = Load::to(addr).connections(16).rate(800).start();
    let begin = Instant::now();
    let mut after_200 = 0;
    let mut counts = proxy.reloads();
    for i in 1..=RELOADS {
        let (text, expected) = file(i, &all, &ws);
        proxy.replace_config(&text);
        let result = proxy.wait_reload(counts);
        assert_eq!(result, expected, "round {i}\n{}", proxy.log());
        match result {
            Reload::Ok => counts.0 += 1,
            Reload::Rejected => counts.1 += 1,
        }
        tunnel.echo();
        if i == 200 {
            after_200 = proxy.rss_kib();
        }
        pause((PACE * i as u32).saturating_sub(begin.elapsed()));
    }
    let took = begin.elapsed();
    wait_until(PATIENCE, "memory is as it was after 200", || {
        proxy.rss_kib() <= after_200 + NOISE_KIB
    });
    let after_all = proxy.rss_kib();
    let report = running.stop();
    println!(
        "{RELOADS} reloads in {took:?}, {} requests; resident {after_200} KiB after 200, {after_all} KiB after all",
        report.ok
    );
    report.assert_flawless();
    tunnel.echo();
    let rejected = RELOADS as u64 / 10;
    assert_eq!(counts, (RELOADS as u64 - rejected, rejected));
    assert_eq!(proxy.reloads(), counts, "one change is one reload");
    let last = get(addr, &format!("/round/{RELOADS}"));
    assert_eq!(last.status, 204, "the last file is in force");
    let made = report.by_backend.len();
    assert_eq!(made, 4, "{:?}", report.by_backend);
}
