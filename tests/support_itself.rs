//! The tools of the other tests against each other, without the proxy: what fails here is not the proxy's fault.

use std::time::{Duration, Instant};

use crate::support::backend::{Action, Answer, Backend, Gate, Step, send};
use crate::support::child::ChildBackend;
use crate::support::client::{Client, get, raw};
use crate::support::load::Load;
use crate::support::message::Framing;
use crate::support::metrics::{Format, Metrics};
use crate::support::pattern;
use crate::support::tcp::{TcpBackend, exchange_pattern};
use crate::support::wait::{PATIENCE, wait_until};
use crate::support::ws::Tunnel;

#[test]
fn a_backend_answers_echoes_and_counts() {
    let backend = Backend::start("a");
    let mut client = Client::connect(backend.addr);
    let answer = client.get("/x");
    assert_eq!((answer.status, answer.text()), (200, "a /x"));
    assert_eq!(answer.backend(), "a");
    assert_eq!(client.request("HEAD", "/x", "", b"").body, b"");
    backend.record().behave(|_| Action::Echo);
    assert_eq!(client.request("POST", "/", "", b"hello").text(), "hello");
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("3\r\nabc\r\n");
    client.send("2\r\nde\r\n0\r\nx-checksum: 1\r\n\r\n");
    let echo = client.response();
    assert_eq!((echo.text(), echo.framing), ("abcde", Framing::Chunked));
    assert_eq!(echo.trailers.get("x-checksum"), Some("1"));
    let recorded = backend.take_recorded();
    assert_eq!(recorded.len(), 2);
    assert_eq!(recorded[1].body, b"abcde");
    assert_eq!((backend.requests(), backend.connections()), (4, 1));
}

#[test]
fn scripts_wait_close_and_reset() {
    let backend = Backend::start("a");
    let gate = Gate::new();
    let inner = gate.clone();
    backend.script(move || {
        vec![
            send("HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"),
            Step::Wait(inner.clone()),
            send("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab"),
            Step::Close,
        ]
    });
    let mut client = Client::connect(backend.addr);
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    assert_eq!(client.read_head("GET").unwrap().response.status, 103);
    gate.open();
    let cut = client.read_response("GET").unwrap_err();
    assert_eq!(cut.kind(), std::io::ErrorKind::UnexpectedEof);
    backend.script(|| vec![Step::Reset]);
    let mut client = Client::connect(backend.addr);
    let reset = client.send("GET / HTTP/1.1\r\n\r\n").read_response("GET");
    assert_eq!(
        reset.unwrap_err().kind(),
        std::io::ErrorKind::ConnectionReset
    );
}

#[test]
fn a_backend_that_is_down_refuses_and_comes_back_on_its_port() {
    for backend in [Backend::start("a"), Backend::start_on("::1", "a")] {
        let mut kept = Client::connect(backend.addr);
        kept.get("/");
        for _ in 0..3 {
            backend.down();
            assert!(kept.is_closed());
            let refused = Client::try_connect(backend.addr).err().unwrap();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            backend.up();
            kept = Client::connect(backend.addr);
            assert_eq!(kept.get("/").status, 200);
        }
        assert_eq!(backend.open_connections(), 1);
    }
}

#[test]
fn a_child_backend_dies_and_returns() {
    let child = ChildBackend::start("child");
    assert_eq!(get(child.addr, "/").backend(), "child");
    let mut kept = Client::connect(child.addr);
    kept.get("/");
    child.kill();
    assert!(kept.is_closed());
    assert!(Client::try_connect(child.addr).is_err());
    child.up();
    assert_eq!(get(child.addr, "/").backend(), "child");
}

#[test]
fn the_load_generator_counts_exactly_and_keeps_its_rate() {
    let backend = Backend::start("a");
    let report = Load::to(backend.addr).connections(4).total(5_000).run();
    report.assert_flawless();
    assert_eq!(
        (report.ok, report.opened, report.of("a")),
        (5_000, 4, 5_000)
    );
    assert_eq!(backend.requests(), 5_000);
    let begin = Instant::now();
    let load = Load::to(backend.addr).connections(16).rate(2_000);
    load.total(2_000).run().assert_flawless();
    let took = begin.elapsed();
    assert!(took > Duration::from_millis(900), "too fast: {took:?}");
}

#[test]
fn the_load_generator_notices_failures_closes_and_wrong_answers() {
    let backend = Backend::start("a");
    backend.behave(|r| match r.target.as_str() {
        "/load3" => Answer::new(503, "no"),
        "/load5" => Answer::new(200, "").field("connection", "close"),
        "/load7" => Answer::new(200, "another's"),
        target => Answer::new(200, format!("a {target}")),
    });
    let report = Load::to(backend.addr).total(10).run_in_order();
    assert_eq!((report.ok, report.failed, report.closed), (7, 3, 1));
    assert_eq!(report.by_status[&503], 1);
    let gate = Gate::new();
    let inner = gate.clone();
    backend.behave(move |r| Answer::new(200, format!("a {}", r.target)).gate(&inner));
    let before = backend.requests();
    let running = Load::to(backend.addr).connections(4).start();
    wait_until(PATIENCE, "all are waiting", || {
        backend.requests() == before + 4
    });
    backend.down();
    backend.up();
    gate.open();
    let done = running.done();
    wait_until(PATIENCE, "it goes on", || running.done() >= done + 100);
    let report = running.stop();
    let cut = report.errors.iter().filter(|e| e.contains("closed before"));
    assert_eq!(cut.count(), 4, "{report:#?}");
}

#[test]
fn bulk_arrives_whole() {
    let backend = Backend::start("a");
    for chunked in [false, true] {
        let length = 10_000_019;
        backend.behave(move |_| Action::Download { length, chunked });
        let answer = get(backend.addr, "/");
        assert_eq!(answer.body.len() as u64, length);
        pattern::check(0, &answer.body).unwrap();
    }
    backend.behave(|_| Action::Sink);
    let mut body = pattern::bytes(3_000_000);
    let mut client = Client::connect(backend.addr);
    assert_eq!(client.request("PUT", "/", "", &body).text(), "ok 3000000");
    body[2_000_000] ^= 1;
    let wrong = client.request("PUT", "/", "", &body);
    assert_eq!(wrong.text(), "byte 2000000 differs");
    backend.behave(|_| Action::EchoStream);
    assert_eq!(client.request("PUT", "/", "", &body).body, body);

    let peer = TcpBackend::threads(|s| exchange_pattern(&s, 50_000_000).unwrap());
    let stream = std::net::TcpStream::connect(peer.addr).unwrap();
    exchange_pattern(&stream, 50_000_000).unwrap();
    assert!(pattern::check(5, &pattern::bytes(10)).is_err());
}

#[test]
fn an_upgraded_connection_echoes() {
    let backend = Backend::start("a");
    backend.behave(|_| Action::Upgrade);
    let mut tunnel = Tunnel::open(backend.addr, "/ws");
    tunnel.echo();
    tunnel.echo();
    backend.down();
    assert!(tunnel.try_echo().is_err());
}

#[test]
fn the_client_refuses_what_is_not_well_formed() {
    let backend = Backend::start("a");
    for wrong in [
        "HTTP/1.1 200 OK\ncontent-length: 0\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;a\r\nb\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\na b: c\r\n\r\n",
        "HTTP/1.1 204 No\r\ncontent-length: 0\r\n\r\n",
        "HTTP/2 200 OK\r\n\r\n",
    ] {
        backend.script(move || vec![send(wrong), Step::Close]);
        let mut client = Client::connect(backend.addr);
        let error = client.send("GET / HTTP/1.1\r\n\r\n").read_response("GET");
        let kind = error.expect_err(wrong).kind();
        assert_eq!(kind, std::io::ErrorKind::InvalidData, "{wrong:?}");
    }
    backend.script(|| vec![send("HTTP/1.0 200 OK\r\n\r\nto the end"), Step::Close]);
    assert_eq!(
        raw(backend.addr, "GET / HTTP/1.0\r\n\r\n").text(),
        "to the end"
    );
}

const GOOD: &str = "# HELP a_total Things.\n# TYPE a_total counter\na_total{x=\"1\\\"\"} 3\na_total 4\n\
    # HELP h Time.\n# TYPE h histogram\nh_bucket{le=\"0.5\"} 1\nh_bucket{le=\"+Inf\"} 2\nh_sum 3.5\nh_count 2\n";

#[test]
fn the_metrics_parser_reads_what_is_right() {
    let metrics = Metrics::parse(GOOD, Format::Text).unwrap();
    assert_eq!(metrics.count("a_total", &[]), 7);
    assert_eq!(metrics.count("a_total", &[("x", "1\"")]), 3);
    assert_eq!(metrics.kind("h"), Some("histogram"));
    let open = "# HELP a Things.\n# TYPE a counter\na_total 4\n# EOF\n";
    assert_eq!(
        Metrics::parse(open, Format::OpenMetrics)
            .unwrap()
            .count("a_total", &[]),
        4
    );
    assert!(Metrics::parse(open, Format::Text).is_err());
    assert!(Metrics::parse(GOOD, Format::OpenMetrics).is_err());
}

#[test]
fn the_metrics_parser_refuses_what_is_wrong() {
    for (from, to) in [
        ("# TYPE a_total counter\n", ""),
        ("# HELP a_total Things.\n", ""),
        ("counter", "number"),
        ("a_total 4", "a_total{x=\"1\\\"\"} 4"),
        ("a_total 4", "b 4"),
        ("a_total 4", "a_total four"),
        ("a_total 4", "a_total -4"),
        ("a_total 4", "a_total  4"),
        ("x=", "1x="),
        ("\\\"", "\\t"),
        ("h_count 2", "h_count 3"),
        ("h_sum 3.5\n", ""),
        ("le=\"0.5\"} 1", "le=\"0.5\"} 3"),
        ("h_bucket{le=\"+Inf\"} 2\n", ""),
        ("h_count 2\n", "h_count 2\na_total{x=\"2\"} 1\n"),
        ("h_count 2\n", "h_count 2"),
    ] {
        assert!(GOOD.contains(from), "{from}");
        let wrong = GOOD.replacen(from, to, 1);
        assert!(Metrics::parse(&wrong, Format::Text).is_err(), "{wrong}");
    }
}
