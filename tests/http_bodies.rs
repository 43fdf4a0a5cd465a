//! Bodies that are larger than memory, slow ones, and those that are cut: a client can always tell.
//!
//! `LBPROXY_TEST_BODY_GIB` is the size of the large ones; the default is 2.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::support::backend::{Action, Answer, Backend, Gate, Step, send};
use crate::support::client::{Client, Response, get};
use crate::support::net::{TIME_WAIT, connections};
use crate::support::process::{ACCESS_LOG, Proxy, web, web_with};
use crate::support::tcp::send_pattern;
use crate::support::wait::{PATIENCE, holds_for, pause, wait_until};
use crate::support::{alone, number_from_env, pattern};

/// What the proxy may grow by while any number of bytes passes through one connection.
const GROWTH_KIB: u64 = 6 << 10;

fn large() -> u64 {
    number_from_env("LBPROXY_TEST_BODY_GIB", 2) << 30
}

/// Runs `transfer` and checks that the proxy's memory stays where it was all the while.
fn in_constant_memory<T: Send>(proxy: &Proxy, transfer: impl FnOnce() -> T + Send) -> T {
    let before = proxy.rss_kib();
    std::thread::scope(|scope| {
        let transfer = scope.spawn(transfer);
        let mut most = before;
        while !transfer.is_finished() {
            most = most.max(proxy.rss_kib());
            pause(Duration::from_millis(20));
        }
        println!("resident memory: {before} KiB before, {most} KiB at most");
        assert!(
            most < before + GROWTH_KIB,
            "{before} KiB grew to {most} KiB"
        );
        transfer.join().unwrap()
    })
}

#[test]
fn a_large_download_passes_in_constant_memory() {
    let _one = alone();
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    let length = large();
    let addr = proxy.addr("web");
    get(addr, "/warm");
    for (chunked, length) in [(false, length), (true, length / 4)] {
        backend.behave(move |_| Action::Download { length, chunked });
        let received = in_constant_memory(&proxy, || {
            let mut client = Client::connect(addr);
            client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
            let head = client.read_head("GET").unwrap();
            let mut received = 0;
            let check = |piece: &[u8]| {
                pattern::check(received, piece).unwrap();
                received += piece.len() as u64;
            };
            client.read_pieces(head, check).unwrap();
            received
        });
        assert_eq!(received, length);
    }
}

#[test]
fn a_large_upload_passes_in_constant_memory() {
    let _one = alone();
    let backend = Backend::start("a");
    backend.behave(|_| Action::Sink);
    let proxy = Proxy::start(&web(&[&backend], ""));
    let length = large();
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(
        client
            .request("PUT", "/warm", "", &pattern::bytes(10))
            .text(),
        "ok 10"
    );
    let answer = in_constant_memory(&proxy, || {
        client.send(format!(
            "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
        ));
        send_pattern(&client.stream, length).unwrap();
        client.response()
    });
    assert_eq!(answer.text(), format!("ok {length}"));
}

#[test]
fn a_large_body_passes_both_ways_at_once() {
    let _one = alone();
    let backend = Backend::start("a");
    backend.behave(|_| Action::EchoStream);
    let proxy = Proxy::start(&web(&[&backend], ""));
    let length = large() / 8;
    let mut client = Client::connect(proxy.addr("web"));
    let received = in_constant_memory(&proxy, || {
        client.send(format!(
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
        ));
        let writer = client.stream.try_clone().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || send_pattern(&writer, length).unwrap());
            let head = client.read_head("POST").unwrap();
            let mut received = 0;
            let check = |piece: &[u8]| {
                pattern::check(received, piece).unwrap();
                received += piece.len() as u64;
            };
            client.read_pieces(head, check).unwrap();
            received
        })
    });
    assert_eq!(received, length);
}

#[test]
fn a_client_that_does_not_read_holds_the_backend_back_and_fills_no_memory() {
    let _one = alone();
    let length = 256 << 20;
    let backend = Backend::start("a");
    backend.behave(move |_| Action::Download {
        length,
        chunked: false,
    });
    let proxy = Proxy::start(&web(&[&backend], ""));
    let before = proxy.rss_kib();
    let mut clients: Vec<Client> = (0..8).map(|_| Client::connect(proxy.addr("web"))).collect();
    for client in &mut clients {
        client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    }
    wait_until(PATIENCE, "all are under way", || backend.requests() == 8);
    holds_for(Duration::from_secs(1), "memory stays", || {
        proxy.rss_kib() < before + 8 * 1024
    });
    for client in &mut clients[..2] {
        let head = client.read_head("GET").unwrap();
        let mut received = 0;
        let check = |piece: &[u8]| {
            pattern::check(received, piece).unwrap();
            received += piece.len() as u64;
        };
        client.read_pieces(head, check).unwrap();
        assert_eq!(received, length, "it goes on when it is read");
    }
}

#[test]
fn a_backend_that_does_not_read_holds_the_client_back_and_fills_no_memory() {
    let _one = alone();
    let backend = Backend::start("a");
    let gate = Gate::new();
    let inner = gate.clone();
    backend.script(move || {
        vec![
            Step::Wait(inner.clone()),
            Step::ReadBody,
            send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ]
    });
    let length = 64 << 20;
    let proxy = Proxy::start(&web(&[&backend], ""));
    let before = proxy.rss_kib();
    let mut client = Client::connect(proxy.addr("web"));
    client.send(format!(
        "PUT / HTTP/1.1\r\nhost: a\r\ncontent-length: {length}\r\n\r\n"
    ));
    let writer = client.stream.try_clone().unwrap();
    let upload = std::thread::spawn(move || send_pattern(&writer, length));
    wait_until(PATIENCE, "it is under way", || backend.requests() == 1);
    holds_for(
        Duration::from_secs(1),
        "memory stays, and the upload waits",
        || proxy.rss_kib() < before + 4 * 1024 && !upload.is_finished(),
    );
    gate.open();
    assert_eq!(client.response().text(), "ok");
    upload.join().unwrap().unwrap();
}

/// Plays `script` on the backend and reads the answer of `GET /cut` with this version.
fn cut_answer(script: fn() -> Vec<Step>, version: &str) -> (std::io::Result<Vec<u8>>, Proxy) {
    let backend = Backend::start("a");
    backend.script(script);
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(format!("GET /cut HTTP/{version}\r\nhost: a\r\n\r\n"));
    let result = client.read_response("GET").map(|r| r.body);
    let line = proxy.wait_access("/cut");
    assert_eq!(line["reason"], "backend_cut", "{line}");
    assert_eq!(line["status"], 200, "{line}");
    proxy.wait_count("lbproxy_backend_errors_total", &[("reason", "reset")], 1);
    (result, proxy)
}

#[track_caller]
fn assert_cut(result: (std::io::Result<Vec<u8>>, Proxy)) {
    let error = result.0.expect_err("a cut body was taken for a whole one");
    let kind = error.kind();
    assert!(
        matches!(kind, ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset),
        "{error}"
    );
}

#[test]
fn a_body_with_a_length_that_is_cut_ends_short() {
    assert_cut(cut_answer(
        || {
            vec![
                send("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"),
                Step::Close,
            ]
        },
        "1.1",
    ));
}

#[test]
fn a_chunked_body_that_is_cut_has_no_last_chunk() {
    for _ in 0..2 {
        assert_cut(cut_answer(
            || {
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                vec![send(head), send("4\r\nhalf\r\n"), Step::Close]
            },
            "1.1",
        ));
    }
}

#[test]
fn a_chunked_body_that_is_cut_resets_an_http_1_0_client() {
    assert_cut(cut_answer(
        || {
            let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
            vec![send(head), send("4\r\nhalf\r\n"), Step::Close]
        },
        "1.0",
    ));
}

#[test]
fn a_body_to_the_end_that_is_reset_is_not_ended_as_if_it_were_whole() {
    for version in ["1.1", "1.0"] {
        assert_cut(cut_answer(
            || {
                let head = "HTTP/1.0 200 OK\r\n\r\nhalf";
                // The pause lets the bytes pass before the reset overtakes them.
                vec![
                    send(head),
                    Step::Sleep(Duration::from_millis(200)),
                    Step::Reset,
                ]
            },
            version,
        ));
    }
}

#[test]
fn a_body_with_a_bad_chunk_is_cut() {
    let backend = Backend::start("a");
    backend.script(|| {
        let head =
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\ngood\r\nzz\r\n0\r\n\r\n";
        vec![send(head), Step::Hang]
    });
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    // Nothing of the body may have passed before the fault was seen: then it is an answer of the proxy.
    match client.read_response("GET") {
        Ok(answer) => assert_eq!(answer.status, 502),
        Err(e) => assert_ne!(e.kind(), ErrorKind::TimedOut, "{e}"),
    }
    proxy.wait_count("lbproxy_backend_errors_total", &[("reason", "protocol")], 1);
}

#[test]
fn a_body_that_falls_silent_is_cut_after_its_timeout() {
    let backend = Backend::start("a");
    backend.script(|| {
        vec![
            send("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf"),
            Step::Hang,
        ]
    });
    let proxy = Proxy::start(&web(&[&backend], "timeouts = { body = \"200ms\" }"));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    let error = client.read_response("GET").unwrap_err();
    assert_ne!(error.kind(), ErrorKind::TimedOut, "{error}");
    proxy.wait_count("lbproxy_backend_errors_total", &[("reason", "timeout")], 1);
}

/// Two backends of which the first one asked ends the connection without an answer, whichever it is.
fn one_of_two_dies(end: fn() -> Step) -> (Backend, Backend, Proxy) {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let died = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    for backend in [&a, &b] {
        let died = std::sync::Arc::clone(&died);
        let id = backend.id().to_owned();
        backend.behave(move |r| {
            if died.swap(true, std::sync::atomic::Ordering::Relaxed) {
                Action::Answer(Answer::new(200, format!("{id} {}", r.target)))
            } else {
                Action::Script(vec![Step::ReadBody, end()])
            }
        });
    }
    let proxy = Proxy::start(&web(&[&a, &b], ACCESS_LOG));
    (a, b, proxy)
}

#[test]
fn a_get_whose_backend_dies_before_its_answer_goes_to_another() {
    for end in [(|| Step::Close) as fn() -> Step, || Step::Reset] {
        let (a, b, proxy) = one_of_two_dies(end);
        let mut client = Client::connect(proxy.addr("web"));
        assert_eq!(client.get("/again").status, 200);
        assert_eq!((a.requests(), b.requests()), (1, 1));
        proxy.wait_count("lbproxy_retries_total", &[("reason", "reset")], 1);
        assert_eq!(proxy.wait_access("/again")["attempts"], 2);
    }
}

#[test]
fn a_put_whose_whole_body_is_still_here_goes_to_another() {
    let (a, b, proxy) = one_of_two_dies(|| Step::Close);
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.request("PUT", "/", "", b"small").status, 200);
    assert_eq!((a.requests(), b.requests()), (1, 1));
}

#[test]
fn a_post_whose_backend_dies_is_502_and_is_not_sent_again() {
    let (a, b, proxy) = one_of_two_dies(|| Step::Close);
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.request("POST", "/", "", b"once").status, 502);
    assert_eq!(a.requests() + b.requests(), 1);
    proxy.wait_counts(&[
        ("lbproxy_requests_total", &[("code", "502")], 1),
        ("lbproxy_retries_total", &[], 0),
    ]);
}

#[test]
fn a_post_whose_backend_refuses_goes_to_another() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let proxy = Proxy::start(&web(&[&a, &b], ""));
    a.down();
    for _ in 0..10 {
        let answer = Client::connect(proxy.addr("web")).request("POST", "/", "", b"x");
        assert_eq!(answer.backend(), "b");
    }
    wait_until(PATIENCE, "a retry is counted", || {
        proxy.count("lbproxy_retries_total", &[("reason", "connect")]) >= 1
    });
}

#[test]
fn no_request_is_tried_more_often_than_its_cluster_allows() {
    let backends: Vec<Backend> = (0..5).map(|i| Backend::start(&i.to_string())).collect();
    for backend in &backends {
        backend.script(|| vec![Step::Close]);
    }
    let all: Vec<&Backend> = backends.iter().collect();
    for (keys, expected) in [
        ("", 2),
        ("retry = { attempts = 4 }", 4),
        ("retry = { attempts = 1 }", 1),
        ("retry = { attempts = 3, on = [\"connect\"] }", 1),
    ] {
        let before: u64 = backends.iter().map(Backend::requests).sum();
        let proxy = Proxy::start(&web(&all, keys));
        assert_eq!(get(proxy.addr("web"), "/").status, 502);
        let after: u64 = backends.iter().map(Backend::requests).sum();
        assert_eq!(after - before, expected, "{keys}");
    }
}

#[test]
fn a_slow_backend_is_left_for_another_only_if_the_cluster_says_so() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    a.script(|| vec![Step::Hang]);
    let keys = "timeouts = { response = \"300ms\" }\nretry = { attempts = 2, on = [\"timeout\"] }";
    let proxy = Proxy::start(&web(&[&a, &b], keys));
    let mut client = Client::connect(proxy.addr("web"));
    for _ in 0..4 {
        assert_eq!(client.get("/").backend(), "b");
    }
    assert!(a.requests() > 0);
    proxy.wait_count(
        "lbproxy_retries_total",
        &[("reason", "timeout")],
        a.requests(),
    );
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_answer_frees_the_backend() {
    let backend = Backend::start("a");
    backend.behave(|_| Action::Download {
        length: 1 << 40,
        chunked: false,
    });
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    let mut stream = TcpStream::connect(proxy.addr("web")).unwrap();
    stream
        .write_all(b"GET /left HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    stream.read_exact(&mut [0; 100_000]).unwrap();
    drop(stream);
    wait_until(PATIENCE, "the backend's connection is closed", || {
        backend.open_connections() == 0
    });
    proxy.wait_count("lbproxy_backend_in_flight", &[], 0);
    let line = proxy.wait_access("/left");
    assert_eq!(line["reason"], "client_left", "{line}");
    assert_eq!(proxy.count("lbproxy_backend_errors_total", &[]), 0);
}

#[test]
fn a_client_that_leaves_is_noticed_though_nothing_more_is_read_from_it() {
    let gate = Gate::new();
    let more = "GET /never HTTP/1.1\r\nhost: a\r\n\r\n".repeat(1000);
    let body = "content-length: 100000000\r\n\r\n";
    // Requests beyond what is read ahead, in order and by a reset; and a body beyond what its backend takes, whose end
    // in order waits with the client until there is room for it.
    for (method, rest, resets) in [
        ("GET", more.as_str(), false),
        ("GET", more.as_str(), true),
        ("PUT", body, true),
    ] {
        let backend = Backend::start("a");
        let inner = gate.clone();
        backend.script(move || vec![Step::Wait(inner.clone())]);
        let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
        let mut client = Client::connect(proxy.addr("web"));
        if method == "PUT" {
            client.send("PUT /left HTTP/1.1\r\nhost: a\r\n").send(rest);
            let writer = client.stream.try_clone().unwrap();
            writer
                .set_write_timeout(Some(Duration::from_millis(300)))
                .unwrap();
            send_pattern(&writer, 100_000_000).unwrap_err();
        } else {
            client
                .send("GET /left HTTP/1.1\r\nhost: a\r\n\r\n")
                .send(rest);
        }
        wait_until(PATIENCE, "it is at the backend", || backend.requests() == 1);
        if resets {
            client.reset();
        } else {
            client.finish();
        }
        let line = proxy.wait_access("/left");
        assert_eq!(line["reason"], "client_left", "{line}");
        proxy.wait_count("lbproxy_connections_active", &[], 0);
        assert_eq!(backend.requests(), 1, "nothing of what came behind is sent");
    }
    gate.open();
}

#[test]
fn a_backend_sees_a_body_that_is_cut_end_in_a_reset() {
    // A client that leaves, one that falls silent, and one whose next chunk is none.
    let framed = "content-length: 100\r\n\r\nhello";
    let chunked = "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n";
    for (part, bad, leaves) in [
        (framed, "", true),
        (framed, "", false),
        (chunked, "", false),
        (chunked, "no chunk\r\n", false),
    ] {
        let backend = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = Proxy::start(&format!(
            "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
             timeouts = {{ request_body = \"300ms\" }}\n[cluster.web]\nbackends = [\"{}\"]\n",
            backend.local_addr().unwrap()
        ));
        let mut client = Client::connect(proxy.addr("web"));
        client.send(format!("POST / HTTP/1.1\r\nhost: a\r\n{part}"));
        let (mut upstream, _) = backend.accept().unwrap();
        let mut seen = Vec::new();
        while !seen.windows(5).any(|window| window == b"hello") {
            let mut piece = [0; 1024];
            let read = upstream.read(&mut piece).unwrap();
            assert!(read > 0, "{part:?}");
            seen.extend_from_slice(&piece[..read]);
        }
        client.send(bad);
        if leaves {
            drop(client);
        }
        let end = upstream.read_to_end(&mut seen);
        assert_eq!(
            end.unwrap_err().kind(),
            ErrorKind::ConnectionReset,
            "{part:?}"
        );
    }
}

#[test]
fn a_client_that_takes_nothing_is_let_go_after_the_write_timeout() {
    let backend = Backend::start("a");
    backend.behave(|_| Action::Download {
        length: 1 << 40,
        chunked: false,
    });
    let proxy = Proxy::start(&web_with(
        "timeouts = { write = \"500ms\" }",
        &[&backend],
        "",
    ));
    let mut stream = TcpStream::connect(proxy.addr("web")).unwrap();
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    proxy.wait_count("lbproxy_rejected_total", &[("reason", "slow_reader")], 1);
    wait_until(PATIENCE, "the backend's connection is closed", || {
        backend.open_connections() == 0
    });
}

/// A connection whose client's kernel takes little at a time.
fn narrow(addr: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(64 << 10).unwrap();
    socket.connect(&addr.into()).unwrap();
    let stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

#[test]
fn a_client_that_takes_little_but_steadily_is_not_a_slow_reader() {
    let backend = Backend::start("a");
    backend.behave(|_| Action::Download {
        length: 1 << 40,
        chunked: false,
    });
    let proxy = Proxy::start(&web_with("timeouts = { write = \"5s\" }", &[&backend], ""));
    let mut stream = narrow(proxy.addr("web"));
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n")
        .unwrap();
    // Fast at first, so that the kernel gives the proxy a large queue: a good part of it must go before the proxy hears
    // that there is room again.
    let mut buffer = vec![0; 16 << 10];
    for _ in 0..2000 {
        stream.read_exact(&mut buffer).unwrap();
    }
    for _ in 0..100 {
        pause(Duration::from_millis(120));
        assert!(stream.read(&mut buffer[..8 << 10]).unwrap() > 0);
    }
    assert_eq!(proxy.count("lbproxy_rejected_total", &[]), 0);
}

#[test]
fn a_client_that_does_not_read_our_own_answers_is_told_of_as_such() {
    let body = "x".repeat(60_000);
    let proxy = Proxy::start(&web_with(
        "timeouts = { write = \"500ms\" }",
        &[],
        &format!("{ACCESS_LOG}[[route]]\npath = \"/own\"\nrespond = {{ body = \"{body}\" }}\n"),
    ));
    let ask = "GET /own HTTP/1.1\r\nhost: a\r\n\r\n".repeat(400);
    let mut silent = narrow(proxy.addr("web"));
    silent.write_all(ask.as_bytes()).unwrap();
    proxy.wait_count("lbproxy_rejected_total", &[("reason", "slow_reader")], 1);
    let mut steady = narrow(proxy.addr("web"));
    steady.write_all(ask.as_bytes()).unwrap();
    let mut left = 400;
    let mut answers = Client::over(steady);
    while left > 0 {
        assert_eq!(answers.response().text().len(), 60_000);
        left -= 1;
    }
    wait_until(PATIENCE, "all its answers are counted", || {
        proxy.count("lbproxy_requests_total", &[("code", "200")]) >= 400
    });
    assert_eq!(proxy.count("lbproxy_rejected_total", &[]), 1);
}

/// More than the sockets on the way hold, so that a client which is not read comes to a stop.
const UPLOAD: u64 = 24 << 20;

/// Sends a whole upload and only then reads the response, as http.client, urllib and Node do.
#[track_caller]
fn upload_then_read(addr: SocketAddr) -> Response {
    let mut client = Client::connect(addr);
    client.send(format!(
        "PUT /upload HTTP/1.1\r\nhost: a\r\ncontent-length: {UPLOAD}\r\n\r\n"
    ));
    send_pattern(&client.stream, UPLOAD).expect("the upload is not cut");
    let answer = client.response();
    assert!(answer.closes());
    assert!(client.is_closed());
    answer
}

#[test]
fn a_backend_that_answers_early_and_reads_on_gets_the_whole_upload() {
    let _one = alone();
    let backend = Backend::start("a");
    let whole = Gate::new();
    let inner = whole.clone();
    backend.script(move || {
        vec![
            send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno"),
            Step::ReadBody,
            Step::Open(inner.clone()),
        ]
    });
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    assert_eq!(upload_then_read(proxy.addr("web")).status, 401);
    wait_until(PATIENCE, "the backend has all of it", || whole.is_open());
    let line = proxy.wait_access("/upload");
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&401.into(), &serde_json::Value::Null)
    );
}

#[test]
fn a_client_that_sends_everything_first_sees_the_early_answer_of_a_backend_that_does_not_read() {
    let _one = alone();
    let head = "HTTP/1.1 413 Content Too Large\r\ncontent-length: 2\r\n\r\nno";
    let ends: [fn() -> Step; 3] = [|| Step::Hang, || Step::Close, || Step::Reset];
    for end in ends {
        let backend = Backend::start("a");
        // The pause lets the bytes pass before a reset overtakes them.
        backend.script(move || vec![send(head), Step::Sleep(Duration::from_millis(100)), end()]);
        let proxy = Proxy::start(&web(&[&backend], ""));
        assert_eq!(upload_then_read(proxy.addr("web")).status, 413);
    }
}

#[test]
fn a_client_that_sends_everything_first_sees_the_answers_of_the_proxy_itself() {
    let _one = alone();
    let backend = Backend::start("a");
    backend.behave(|_| Action::Sink);
    let listener = "[[listener]]\nname = \"NAME\"\naddress = \"127.0.0.1:0\"\nKEYS\n";
    let with = |name: &str, keys: &str| listener.replace("NAME", name).replace("KEYS", keys);
    let config = web(&[&backend], "")
        + &with("none", "")
        + &with(
            "small",
            "cluster = \"web\"\nlimits = { body_bytes = \"1MiB\" }",
        )
        + &with("dead", "cluster = \"dead\"")
        + "[cluster.dead]\nbackends = [\"127.0.0.1:1\"]\n";
    let proxy = Proxy::start(&config);
    for (name, status) in [("none", 404), ("small", 413), ("dead", 502)] {
        assert_eq!(upload_then_read(proxy.addr(name)).status, status, "{name}");
    }
}

#[test]
fn a_connection_that_may_hold_what_nobody_asked_for_is_not_used_again() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    let mut new_connections = |method: &str, fields: &str, body: &[u8]| {
        let before = backend.connections();
        client.send(format!("{method} / HTTP/1.1\r\nhost: a\r\n{fields}\r\n"));
        client.send(body);
        assert_eq!(client.read_response(method).unwrap().status, 200);
        client.get("/");
        backend.connections() - before
    };
    let (none, length) = ("", "content-length: 1\r\n");
    let chunked = "transfer-encoding: chunked\r\n";
    new_connections("GET", none, b"");
    for (method, fields, body, new) in [
        ("GET", none, &b""[..], 0),
        ("POST", length, b"x", 0),
        ("PUT", length, b"x", 0),
        ("POST", chunked, b"0\r\n\r\n", 0),
        ("DELETE", none, b"", 0),
        ("HEAD", none, b"", 1),
        ("GET", length, b"x", 1),
        ("DELETE", length, b"x", 1),
        ("OPTIONS", length, b"x", 1),
        // No payload, but bytes of framing that may be left unread.
        ("GET", chunked, b"0\r\n\r\n", 1),
        ("HEAD", chunked, b"0\r\n\r\n", 1),
    ] {
        let found = new_connections(method, fields, body);
        assert_eq!(found, new, "{method} {fields:?} {body:?}");
    }
}

#[test]
fn a_connection_that_is_not_used_again_holds_no_port() {
    let backend = Backend::start("a");
    backend.behave(|r| match r.target.as_str() {
        "/close" => Answer::new(200, "x").field("connection", "close"),
        "/none" => Answer::new(204, ""),
        _ => Answer::new(200, "x"),
    });
    let proxy = Proxy::start(&web(&[&backend], "limits = { idle_connections = 0 }"));
    let mut client = Client::connect(proxy.addr("web"));
    for (method, target) in [
        ("HEAD", "/"),
        ("GET", "/none"),
        ("GET", "/"),
        ("GET", "/close"),
    ] {
        for _ in 0..10 {
            assert!(client.request(method, target, "", b"").status < 300);
        }
    }
    wait_until(PATIENCE, "all are closed", || {
        backend.open_connections() == 0
    });
    let left: Vec<_> = connections()
        .into_iter()
        .filter(|one| one.remote == backend.addr && one.state == TIME_WAIT)
        .collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
fn an_answer_in_place_of_a_100_ends_the_exchange_though_the_client_stays() {
    let backend = Backend::start("a");
    backend.script(|| {
        vec![
            send("HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno"),
            Step::Hang,
        ]
    });
    let proxy = Proxy::start(&web_with(
        "timeouts = { request_body = \"200ms\" }",
        &[&backend],
        ACCESS_LOG,
    ));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(
        "POST /held HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 5\r\n\r\n",
    );
    let answer = client.response();
    assert!(answer.status == 401 && answer.closes(), "{answer:?}");
    assert!(
        client.is_closed(),
        "our side has ended, and the client's has not"
    );
    let line = proxy.wait_access("/held");
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&401.into(), &serde_json::Value::Null)
    );
    proxy.wait_count("lbproxy_connections_active", &[("listener", "web")], 0);
}
