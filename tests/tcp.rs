//! TCP sessions: bytes, ends and resets pass as they are, in bulk, in number and in silence.
//!
//! `LBPROXY_TEST_TCP_GIB` is the size of the bulk each way; the default is 4.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::client::Client;
use crate::support::port::Port;
use crate::support::process::{ACCESS_LOG, Proxy, run_config};
use crate::support::tcp::{TcpBackend, exchange_pattern, receive_pattern, send_pattern};
use crate::support::wait::{PATIENCE, holds_for, pause, wait_until};
use crate::support::{alone, number_from_env, pattern, raise_descriptor_limit, runtime};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

fn tcp(backends: &[SocketAddr], listener_keys: &str, rest: &str) -> String {
    let backends: Vec<String> = backends.iter().map(|a| format!("\"{a}\"")).collect();
    let backends = backends.join(", ");
    format!(
        r#"[[listener]]
name = "db"
address = "127.0.0.1:0"
protocol = "tcp"
cluster = "db"
{listener_keys}

[cluster.db]
backends = [{backends}]
{rest}
"#
    )
}

#[track_caller]
fn connect(addr: SocketAddr) -> TcpStream {
    Client::connect(addr).stream
}

#[track_caller]
fn echo(stream: &mut TcpStream, message: &[u8]) {
    stream.write_all(message).unwrap();
    let mut back = vec![0; message.len()];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(back, message);
}

#[test]
fn sessions_pass_over_unix_sockets() {
    let backend = TcpBackend::echo();
    let dir = tempfile::tempdir().unwrap();
    let unix = |name: &str| format!("unix:{}", dir.path().join(name).display());
    let (a, b) = (unix("a.sock"), unix("b.sock"));
    let listener = |address: &str, cluster: &str| {
        format!(
            "[[listener]]\naddress = \"{address}\"\nprotocol = \"tcp\"\ncluster = \"{cluster}\"\n"
        )
    };
    let cluster =
        |name: &str, backend: &str| format!("[cluster.{name}]\nbackends = [\"{backend}\"]\n");
    let config = [
        listener(&a, "b"),
        listener(&b, "echo"),
        cluster("b", &b),
        cluster("echo", &backend.addr.to_string()),
    ];
    let proxy = Proxy::start(&config.concat());
    let mut stream = UnixStream::connect(dir.path().join("a.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let sent = pattern::bytes(1 << 20);
    let mut writer = stream.try_clone().unwrap();
    let written = sent.clone();
    let writing = std::thread::spawn(move || {
        writer.write_all(&written).unwrap();
        writer.shutdown(Shutdown::Write).unwrap();
    });
    let mut back = Vec::new();
    stream.read_to_end(&mut back).unwrap();
    writing.join().unwrap();
    assert!(back == sent, "{} of {} bytes", back.len(), sent.len());
    let status = proxy.status();
    assert_eq!(status["listeners"][0]["bound"][0], *a, "{status:#}");
    // A circle would take every descriptor.
    let circle = [
        listener(&a, "b"),
        listener(&b, "a"),
        cluster("a", &a),
        cluster("b", &b),
    ];
    let (code, stderr) = run_config(&circle.concat());
    assert_eq!(code, Some(1), "{stderr}");
    let said = format!("the sessions of listener \"{a}\" come back to it");
    assert!(stderr.contains(&said), "{stderr}");
}

#[test]
fn a_session_that_comes_back_by_another_name_of_a_unix_socket_is_reset() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    symlink(path("a.sock"), path("alias.sock")).unwrap();
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"a\"\naddress = \"unix:{}\"\nprotocol = \"tcp\"\ncluster = \"a\"\n\
         [cluster.a]\nbackends = [\"unix:{}\"]\n",
        path("a.sock").display(),
        path("alias.sock").display(),
    ));
    let mut stream = UnixStream::connect(path("a.sock")).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    proxy.wait_count("lbproxy_rejected_total", &[("reason", "loop")], 1);
}

#[test]
fn small_exchanges_pass_at_once_and_in_order() {
    let backend = TcpBackend::echo();
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ACCESS_LOG));
    let mut stream = connect(proxy.addr("db"));
    let mut times: Vec<Duration> = (0..1000)
        .map(|i| {
            let begin = Instant::now();
            echo(&mut stream, format!("message {i}\0").as_bytes());
            begin.elapsed()
        })
        .collect();
    times.sort_unstable();
    // Nagle's algorithm against delayed acknowledgements would cost 40 ms each; a busy machine delays some.
    let median = times[500];
    assert!(median < Duration::from_millis(40), "{median:?}");
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!(stream.read(&mut [0]).unwrap(), 0);
    wait_until(PATIENCE, "the session is logged", || {
        !proxy.access_log().is_empty()
    });
    let line = &proxy.access_log()[0];
    let sent: usize = (0..1000).map(|i| format!("message {i}\0").len()).sum();
    assert_eq!(
        (&line["bytes_in"], &line["bytes_out"]),
        (&sent.into(), &sent.into()),
        "{line}"
    );
    assert_eq!(line["protocol"], "tcp", "{line}");
    proxy.wait_count(
        "lbproxy_bytes_total",
        &[("listener", "db"), ("direction", "in")],
        sent as u64,
    );
}

#[test]
fn a_server_that_speaks_first_is_heard() {
    let backend = TcpBackend::threads(|mut s| {
        s.write_all(b"220 hello\r\n").unwrap();
        let _ = s.read(&mut [0]);
    });
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ""));
    let mut greeting = [0; 11];
    connect(proxy.addr("db")).read_exact(&mut greeting).unwrap();
    assert_eq!(&greeting, b"220 hello\r\n");
}

#[test]
fn a_client_that_shuts_down_its_side_still_gets_the_whole_answer() {
    let length = 20_000_000;
    let backend = TcpBackend::threads(move |mut s| {
        let mut question = Vec::new();
        s.read_to_end(&mut question).unwrap();
        assert_eq!(question, b"question");
        send_pattern(&s, length).unwrap();
    });
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ""));
    let mut stream = connect(proxy.addr("db"));
    stream.write_all(b"question").unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    receive_pattern(&stream, length).unwrap();
}

#[test]
fn a_backend_that_shuts_down_its_side_still_gets_everything() {
    let length = 20_000_000;
    let (done, result) = channel();
    let backend = TcpBackend::threads(move |mut s| {
        s.write_all(b"bye").unwrap();
        s.shutdown(Shutdown::Write).unwrap();
        done.send(receive_pattern(&s, length)).unwrap();
    });
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ""));
    let mut stream = connect(proxy.addr("db"));
    let mut farewell = Vec::new();
    stream.read_to_end(&mut farewell).unwrap();
    assert_eq!(farewell, b"bye");
    send_pattern(&stream, length).unwrap();
    drop(stream);
    result.recv_timeout(PATIENCE).unwrap().unwrap();
}

#[test]
fn a_reset_of_the_client_reaches_the_backend() {
    let (done, result) = channel();
    let backend = TcpBackend::threads(move |mut s| {
        s.write_all(b"x").unwrap();
        done.send(s.read(&mut [0]).map_err(|e| e.kind())).unwrap();
    });
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ""));
    let mut client = Client::connect(proxy.addr("db"));
    client.read_exactly(1).unwrap();
    client.reset();
    assert_eq!(
        result.recv_timeout(PATIENCE).unwrap(),
        Err(ErrorKind::ConnectionReset)
    );
}

#[test]
fn a_reset_of_the_backend_reaches_the_client() {
    let backend = TcpBackend::threads(|mut s| {
        s.read_exact(&mut [0]).unwrap();
        socket2::SockRef::from(&s)
            .set_linger(Some(Duration::ZERO))
            .unwrap();
    });
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ""));
    let mut stream = connect(proxy.addr("db"));
    stream.write_all(b"x").unwrap();
    let error = stream.read(&mut [0]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // One poisonous session says nothing about the backend.
    assert_eq!(proxy.backend_state("db", backend.addr), "up");
}

#[test]
fn bulk_passes_both_ways_at_once_in_constant_memory() {
    let _one = alone();
    let length = number_from_env("LBPROXY_TEST_TCP_GIB", 4) << 30;
    let (done, result) = channel();
    let backend = TcpBackend::threads(move |s| done.send(exchange_pattern(&s, length)).unwrap());
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ""));
    let stream = connect(proxy.addr("db"));
    let before = proxy.rss_kib();
    let begin = Instant::now();
    let client = std::thread::spawn(move || exchange_pattern(&stream, length));
    let mut most = before;
    while !client.is_finished() {
        most = most.max(proxy.rss_kib());
        pause(Duration::from_millis(20));
    }
    println!(
        "{length} bytes each way in {:?}; {before} KiB before, {most} KiB at most",
        begin.elapsed()
    );
    client.join().unwrap().unwrap();
    result.recv_timeout(PATIENCE).unwrap().unwrap();
    assert!(most < before + (6 << 10), "{before} KiB grew to {most} KiB");
    for direction in ["in", "out"] {
        proxy.wait_count("lbproxy_bytes_total", &[("direction", direction)], length);
    }
}

#[test]
fn a_peer_that_does_not_read_holds_the_other_back() {
    let _one = alone();
    let (go, gate) = channel::<()>();
    let gate = std::sync::Mutex::new(gate);
    let length = 64 << 20;
    let backend = TcpBackend::threads(move |s| {
        gate.lock().unwrap().recv().unwrap();
        receive_pattern(&s, length).unwrap();
    });
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ""));
    let before = proxy.rss_kib();
    let stream = connect(proxy.addr("db"));
    let sender = stream.try_clone().unwrap();
    let sending = std::thread::spawn(move || send_pattern(&sender, length));
    holds_for(
        Duration::from_secs(1),
        "memory stays, the sender waits",
        || proxy.rss_kib() < before + 4 * 1024 && !sending.is_finished(),
    );
    go.send(()).unwrap();
    sending.join().unwrap().unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    assert_eq!((&stream).read(&mut [0]).unwrap(), 0);
}

#[test]
fn five_thousand_sessions_are_open_at_once() {
    let _one = alone();
    // Two of ours for a session (client and backend), and some room.
    let limit = raise_descriptor_limit();
    let sessions = 5_000.min(limit.saturating_sub(3_000) / 2);
    if sessions < 5_000 {
        println!("the descriptor limit of {limit} carries only {sessions} sessions");
    }
    let backend = TcpBackend::echo();
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ""));
    let idle_descriptors = proxy.descriptors();
    let addr = proxy.addr("db");
    let opening = Arc::new(tokio::sync::Semaphore::new(256));
    let streams = runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for i in 0..sessions {
            let opening = Arc::clone(&opening);
            tasks.spawn(async move {
                let _permit = opening.acquire().await.unwrap();
                let mut stream = tokio::net::TcpStream::connect(addr).await.unwrap();
                exchange(&mut stream, i).await;
                stream
            });
        }
        tasks.join_all().await
    });
    proxy.wait_count(
        "lbproxy_connections_active",
        &[("listener", "db")],
        sessions,
    );
    assert_eq!(backend.open_sessions(), sessions);
    println!("{sessions} sessions, {} KiB resident", proxy.rss_kib());
    runtime().block_on(async {
        let mut tasks = tokio::task::JoinSet::new();
        for (i, mut stream) in streams.into_iter().enumerate() {
            tasks.spawn(async move { exchange(&mut stream, i as u64 + sessions).await });
        }
        tasks.join_all().await;
    });
    proxy.wait_count("lbproxy_connections_active", &[("listener", "db")], 0);
    wait_until(PATIENCE, "the backend's ends are closed", || {
        backend.open_sessions() == 0
    });
    wait_until(PATIENCE, "no descriptor is lost", || {
        // Pooled pipes may stay.
        proxy.descriptors() <= idle_descriptors + 64
    });
    assert_eq!(proxy.count("lbproxy_backend_errors_total", &[]), 0);
}

async fn exchange(stream: &mut tokio::net::TcpStream, number: u64) {
    let message = number.to_be_bytes();
    let mut back = [0; 8];
    let both = async {
        stream.write_all(&message).await.unwrap();
        stream.read_exact(&mut back).await.unwrap();
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap();
    assert_eq!(back, message);
}

#[test]
fn a_silent_session_is_closed_after_its_timeout_and_one_sided_traffic_is_no_silence() {
    let backend = TcpBackend::threads(|mut s| while s.read(&mut [0; 64]).is_ok_and(|n| n > 0) {});
    let proxy = Proxy::start(&tcp(&[backend.addr], "timeouts = { tunnel = \"1s\" }", ""));
    let mut silent = Client::connect(proxy.addr("db"));
    silent
        .stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut busy = connect(proxy.addr("db"));
    wait_until(PATIENCE, "the silent one is closed", || {
        busy.write_all(b"x").unwrap();
        silent.is_closed()
    });
    proxy.wait_count("lbproxy_rejected_total", &[("reason", "idle_tunnel")], 1);
    proxy.wait_count("lbproxy_connections_active", &[], 1);
}

#[test]
fn a_session_goes_to_the_next_backend_when_one_refuses() {
    let dead = Port::reserve("127.0.0.1");
    let alive = TcpBackend::echo();
    let proxy = Proxy::start(&tcp(&[dead.addr, alive.addr], "", ""));
    for _ in 0..10 {
        echo(&mut connect(proxy.addr("db")), b"hello");
    }
    assert_eq!(alive.sessions(), 10);
    proxy.wait_backend("db", dead.addr, "down");
}

#[test]
fn a_session_without_any_backend_is_closed() {
    let dead = Port::reserve("127.0.0.1");
    let proxy = Proxy::start(&tcp(&[dead.addr], "", ACCESS_LOG));
    for _ in 0..3 {
        assert!(Client::is_turned_away(proxy.addr("db")));
    }
    wait_until(PATIENCE, "each is logged", || proxy.access_log().len() == 3);
    proxy.wait_count("lbproxy_connections_active", &[], 0);
    proxy.wait_count("lbproxy_rejected_total", &[("listener", "db")], 3);
}

#[test]
fn a_listener_without_a_cluster_closes_what_comes() {
    let config = "[[listener]]\nname = \"db\"\naddress = \"127.0.0.1:0\"\nprotocol = \"tcp\"\n";
    let proxy = Proxy::start(config);
    assert!(Client::is_turned_away(proxy.addr("db")));
    proxy.wait_count("lbproxy_rejected_total", &[("reason", "no_route")], 1);
}

#[test]
fn sessions_pass_from_ipv6_to_ipv4_and_back() {
    let (four, six) = (TcpBackend::echo(), TcpBackend::echo_on("::1"));
    for (listen, backend) in [("[::1]:0", &four), ("127.0.0.1:0", &six), ("[::1]:0", &six)] {
        let config = tcp(&[backend.addr], "", "").replace("127.0.0.1:0", listen);
        let proxy = Proxy::start(&config);
        let addr = proxy.addr("db");
        assert_eq!(addr.is_ipv6(), listen.starts_with('['));
        echo(&mut connect(addr), b"hello");
    }
}

#[test]
fn a_byte_that_comes_with_the_end_is_not_lost() {
    let backend = TcpBackend::echo();
    let proxy = Proxy::start(&tcp(&[backend.addr], "", ""));
    let addr = proxy.addr("db");
    for size in [1, 17, 16 << 10, (16 << 10) + 1, 300_000] {
        let mut stream = connect(addr);
        let message = pattern::bytes(size);
        let mut writer = stream.try_clone().unwrap();
        let sent = message.clone();
        let sending = std::thread::spawn(move || {
            writer.write_all(&sent).unwrap();
            writer.shutdown(Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        stream.read_to_end(&mut back).unwrap();
        sending.join().unwrap();
        assert!(back == message, "{size}: {} came back", back.len());
    }
}
