//! Reloads are applied whole or not at all, and those that are asked for together are one.

use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::snapshot::Snapshot;

/// A file with a listener, an admin socket, an access log and one backend, and with `more`.
fn file(directory: &str, admin: &str, log: &str, backend: &str, more: &str) -> String {
    let log = match log {
        "off" => "\"off\"".to_owned(),
        name => format!("{{ file = \"{name}\" }}"),
    };
    format!(
        "watch = false\nadmin = {{ address = \"unix:{directory}/{admin}\" }}\nlog.access = {log}\n{more}\
         [[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
         [cluster.web]\nbackends = [\"{backend}\"]\n"
    )
}

/// The status of the admin server at this path; `None` if there is none.
async fn readyz(path: &Path) -> Option<String> {
    let mut stream = UnixStream::connect(path).await.ok()?;
    let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.ok()?;
    answer.lines().next().map(str::to_owned)
}

fn free_gossip_address(host: &str) -> SocketAddr {
    let socket = UdpSocket::bind((host, 0)).unwrap();
    socket.local_addr().unwrap()
}

fn gossip(address: SocketAddr) -> String {
    format!(
        "gossip = {{ address = \"{address}\", insecure_plaintext = true, allow_cidrs = [\"127.0.0.0/8\"] }}\n"
    )
}

fn backend_of(snapshot: &Snapshot) -> String {
    let endpoint = &snapshot.clusters[0].endpoints[0];
    endpoint.backend.label().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rejected_reload_changes_nothing() {
    let bench =
        Bench::start(|directory| file(directory, "a.sock", "a.log", "10.0.0.1:80", "")).await;
    let directory = bench.root.path().to_str().unwrap();
    let before = bench.publisher.current();
    let free = free_gossip_address("127.88.3.2");
    let taken_socket = UdpSocket::bind("127.88.3.3:0").unwrap();
    let taken = taken_socket.local_addr().unwrap();
    let stranger = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let second_listener = format!(
        "[[listener]]\naddress = \"{}\"\ncluster = \"web\"\n",
        stranger.local_addr().unwrap()
    );
    let new = |admin, log, more: &str| file(directory, admin, log, "localhost:81", more);
    let rejected = [
        (new("b.sock", "b.log", "nonsense = 1\n"), "nonsense"),
        (
            new("b.sock", "b.log", &gossip(free)) + &second_listener,
            "cannot listen on",
        ),
        (new("no/b.sock", "b.log", &gossip(free)), "admin"),
        (new("b.sock", "b.log", &gossip(taken)), "gossip"),
        (new("b.sock", "no/b.log", &gossip(free)), "access log"),
    ];
    for (at, (text, reason)) in rejected.iter().enumerate() {
        match bench.reload(text).await {
            ReloadOutcome::Rejected { reasons } => {
                let said = reasons.iter().any(|line| line.contains(reason));
                assert!(said, "{reason}: {reasons:?}");
            }
            applied @ ReloadOutcome::Applied { .. } => panic!("{text}: {applied:?}"),
        }
        let now = bench.publisher.current();
        assert!(Arc::ptr_eq(&before, &now), "{reason}");
        let status = readyz(&bench.file("a.sock")).await;
        assert_eq!(status.as_deref(), Some("HTTP/1.1 503 Service Unavailable"));
        assert_eq!(readyz(&bench.file("b.sock")).await, None, "{reason}");
        assert!(bench.file("a.log").exists() && !bench.file("b.log").exists());
        assert!(bench.member.report.borrow().is_none(), "{reason}");
        assert_eq!(bench.process.reloads_rejected.get(), at as u64 + 1);
        assert_eq!(bench.process.config_generation.get(), 1);
    }

    // What was prepared for them is free again.
    let outcome = bench.reload(&new("b.sock", "b.log", &gossip(free))).await;
    assert_eq!(outcome, ReloadOutcome::Applied { generation: 2 });
    let now = bench.publisher.current();
    assert_eq!(now.generation, before.generation + 1);
    assert!(backend_of(&now).starts_with("localhost"), "{now:?}");
    let same = now.listeners[0].sockets.id() == before.listeners[0].sockets.id();
    assert!(same, "the listener has not changed");
    assert!(readyz(&bench.file("b.sock")).await.is_some());
    assert!(bench.file("b.log").exists());
    assert!(bench.member.report.borrow().is_some());
    let admin = bench.file("a.sock");
    eventually("the old admin socket is closed", || !admin.exists()).await;
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reloads_that_are_asked_for_together_are_one() {
    let mut bench =
        Bench::prepare(|directory| file(directory, "a.sock", "off", "10.0.0.1:80", "")).await;
    let outcomes: Vec<_> = (0..5).map(|_| bench.handle.reload()).collect();
    bench.handle.reopen_logs();
    bench.run();
    for outcome in outcomes {
        let outcome = timeout(PATIENCE, outcome).await.unwrap();
        assert_eq!(outcome.unwrap(), ReloadOutcome::Applied { generation: 2 });
    }
    assert_eq!(bench.process.reloads_ok.get(), 1);
    bench.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_file_is_applied_without_a_command() {
    let text = |directory: &str, backend| {
        file(directory, "a.sock", "off", backend, "").replace("watch = false\n", "")
    };
    let bench = Bench::start(|directory| text(directory, "10.0.0.1:80")).await;
    let directory = bench.root.path().to_str().unwrap();
    std::fs::write(&bench.path, text(directory, "10.0.0.2:80")).unwrap();
    let publisher = &bench.publisher;
    eventually("it is applied", || {
        backend_of(&publisher.current()) == "10.0.0.2:80"
    })
    .await;
    bench.end().await;
}
