//! How requests and answers pass: connections kept, order, framing both ways, interim answers, old versions.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::backend::{Action, Answer, Backend, Gate, Step, send};
use crate::support::client::{Client, get, raw};
use crate::support::message::Framing;
use crate::support::pattern;
use crate::support::process::{Proxy, web};
use crate::support::wait::{PATIENCE, wait_until};

/// One recording backend behind a proxy, and a connection to the proxy.
fn one() -> (Backend, Proxy, Client) {
    let backend = Backend::start("a");
    backend.record();
    let proxy = Proxy::start(&web(&[&backend], ""));
    let client = Client::connect(proxy.addr("web"));
    (backend, proxy, client)
}

#[test]
fn one_client_connection_carries_many_requests_over_one_backend_connection() {
    let (backend, proxy, _) = one();
    // One worker: pools belong to workers, and this is one connection, so it has one.
    let mut client = Client::connect(proxy.addr("web"));
    for i in 0..100 {
        assert_eq!(client.get(&format!("/{i}")).text(), format!("a /{i}"));
    }
    assert_eq!((backend.requests(), backend.connections()), (100, 1));
}

#[test]
fn a_client_that_asks_for_it_is_closed_after_its_answer() {
    let (backend, _proxy, mut client) = one();
    let answer = client.request("GET", "/", "connection: close\r\n", b"");
    assert!(answer.status == 200 && answer.closes());
    assert!(client.is_closed());
    let seen = backend.take_one();
    assert!(
        !seen.fields.lists("connection", "close"),
        "the pooled connection is ours"
    );
}

#[test]
fn pipelined_requests_are_answered_in_order_and_one_at_a_time() {
    let (backend, _proxy, mut client) = one();
    let gate = Gate::new();
    let inner = gate.clone();
    backend.behave(move |r| match r.target.as_str() {
        "/0" => Answer::new(200, "a /0").gate(&inner),
        target => Answer::new(200, format!("a {target}")),
    });
    let mut all = String::new();
    for i in 0..20 {
        all += &format!("GET /{i} HTTP/1.1\r\nhost: test\r\n\r\n");
    }
    client.send(all);
    wait_until(PATIENCE, "the first is there", || backend.requests() == 1);
    gate.open();
    for i in 0..20 {
        assert_eq!(client.response().text(), format!("a /{i}"));
    }
    let order: Vec<String> = backend
        .take_recorded()
        .into_iter()
        .map(|r| r.target)
        .collect();
    let expected: Vec<String> = (0..20).map(|i| format!("/{i}")).collect();
    assert_eq!(order, expected);
}

#[test]
fn pipelined_requests_with_bodies_keep_their_bounds() {
    let (backend, _proxy, mut client) = one();
    backend.behave(|_| Action::Echo);
    client.send(
        "POST /1 HTTP/1.1\r\nhost: test\r\ncontent-length: 5\r\n\r\nfirst\
         POST /2 HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n3\r\nsec\r\n3\r\nond\r\n0\r\n\r\n\
         POST /3 HTTP/1.1\r\nhost: test\r\ncontent-length: 0\r\n\r\n\
         GET /4 HTTP/1.1\r\nhost: test\r\n\r\n",
    );
    let texts: Vec<String> = (0..4)
        .map(|_| client.response().text().to_owned())
        .collect();
    assert_eq!(texts, ["first", "second", "", ""]);
}

#[test]
fn a_body_with_a_length_passes_both_ways() {
    let (backend, _proxy, mut client) = one();
    backend.behave(|_| Action::Echo);
    for size in [1, 100, 16 << 10, 1_000_003] {
        let body = pattern::bytes(size);
        let echo = client.request("POST", "/", "", &body);
        assert!(echo.body == body, "{size}");
        assert_eq!(echo.framing, Framing::Length(size as u64));
        let seen = backend.take_one();
        assert_eq!(
            seen.fields.framing(),
            Ok(Some(Framing::Length(size as u64)))
        );
        assert!(seen.body == body, "{size}");
    }
}

#[test]
fn a_chunked_body_passes_both_ways_without_extensions() {
    let (backend, _proxy, mut client) = one();
    backend.behave(|_| Action::Echo);
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send("5;name=value\r\nhello\r\n");
    client.send("00000A;x=\"y\"\r\n, world 10\r\n0\r\n\r\n");
    let echo = client.response();
    assert_eq!(
        (echo.text(), echo.framing),
        ("hello, world 10", Framing::Chunked)
    );
    let seen = backend.take_one();
    assert_eq!(seen.fields.framing(), Ok(Some(Framing::Chunked)));
    assert_eq!(seen.body, b"hello, world 10");
    assert_eq!(client.get("/next").status, 200, "the connection goes on");
}

#[test]
fn the_chunks_of_an_answer_come_when_they_are_sent_and_not_at_the_end() {
    let (backend, _proxy, mut client) = one();
    backend.behave(|_| Action::EchoStream);
    client.send("POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n4\r\nping\r\n");
    // The second half of the request is sent only after the first half has come back.
    let head = client.read_head("POST").unwrap();
    let mut rest = client.stream.try_clone().unwrap();
    let mut seen = Vec::new();
    client
        .read_pieces(head, |piece| {
            seen.extend_from_slice(piece);
            if seen == b"ping" {
                std::io::Write::write_all(&mut rest, b"4\r\npong\r\n0\r\n\r\n").unwrap();
            }
        })
        .unwrap();
    assert_eq!(seen, b"pingpong");
}

#[test]
fn trailers_pass_but_never_those_that_belong_in_a_head() {
    let (backend, _proxy, mut client) = one();
    backend.behave(|_| Action::Echo);
    client.send(
        "POST / HTTP/1.1\r\nhost: test\r\nte: trailers\r\nconnection: te\r\ntrailer: x-checksum\r\n\
         transfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx-checksum: 77\r\nx-forwarded-for: 6.6.6.6\r\n\
         connection: close\r\nx-lbproxy-a: 1\r\nauthorization: evil\r\nX_Real_IP: 6.6.6.6\r\n\r\n",
    );
    let echo = client.response();
    assert_eq!(echo.text(), "a");
    for (side, trailers) in [
        ("request", &backend.take_one().trailers),
        ("answer", &echo.trailers),
    ] {
        assert_eq!(
            trailers.get("x-checksum"),
            Some("77"),
            "{side}: {trailers:?}"
        );
        assert_eq!(trailers.0.len(), 1, "{side}: {trailers:?}");
    }
}

#[test]
fn a_trailer_that_frames_or_routes_is_refused_and_nothing_is_forwarded() {
    for trailer in [
        "host: evil",
        "Content-Length: 9",
        "transfer-encoding: chunked",
    ] {
        let (backend, _proxy, mut client) = one();
        client.send(format!(
            "POST / HTTP/1.1\r\nhost: test\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n{trailer}\r\n\r\n"
        ));
        assert_eq!(client.response().status, 400, "{trailer}");
        assert!(client.is_closed(), "{trailer}");
        assert_eq!(backend.requests(), 0, "{trailer}");
    }
}

#[test]
fn answers_without_a_body_leave_the_connection_usable() {
    let (backend, _proxy, mut client) = one();
    backend.behave(|r| match r.target.as_str() {
        "/204" => Answer::new(204, ""),
        "/304" => Answer::new(304, "")
            .field("etag", "\"x\"")
            .field("content-length", "1234"),
        "/empty" => Answer::new(200, ""),
        target => Answer::new(200, format!("a {target}")),
    });
    for _ in 0..3 {
        let head = client.request("HEAD", "/head", "", b"");
        assert_eq!(
            head.fields.get("content-length"),
            Some("7"),
            "as GET would have it"
        );
        assert_eq!(client.request("GET", "/204", "", b"").status, 204);
        let unchanged = client.request("GET", "/304", "", b"");
        assert_eq!(unchanged.status, 304);
        assert_eq!(unchanged.fields.get("content-length"), Some("1234"));
        let empty = client.get("/empty");
        assert_eq!((empty.status, empty.framing), (200, Framing::Length(0)));
        assert_eq!(client.get("/after").text(), "a /after");
    }
}

#[test]
fn an_answer_to_head_without_any_framing_ends_at_its_head() {
    let (backend, _proxy, mut client) = one();
    backend.script(|| {
        vec![send(
            "HTTP/1.1 200 OK\r\nx-backend: a\r\ntransfer-encoding: chunked\r\n\r\n",
        )]
    });
    for _ in 0..2 {
        assert_eq!(client.request("HEAD", "/", "", b"").status, 200);
    }
}

#[test]
fn interim_answers_are_passed_on_before_the_final_one() {
    let (backend, proxy, mut client) = one();
    let gate = Gate::new();
    let inner = gate.clone();
    backend.script(move || {
        vec![
            send("HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n"),
            send("HTTP/1.1 102 Processing\r\n\r\n"),
            Step::Wait(inner.clone()),
            send("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ]
    });
    client.send("GET / HTTP/1.1\r\nhost: test\r\n\r\n");
    let hints = client.read_head("GET").unwrap().response;
    assert_eq!(hints.status, 103);
    assert_eq!(hints.fields.get("link"), Some("</a.css>; rel=preload"));
    assert_eq!(client.read_head("GET").unwrap().response.status, 102);
    gate.open();
    assert_eq!(client.response().text(), "ok");
    // HTTP/1.0 knows no interim answers.
    let mut old = Client::connect(proxy.addr("web"));
    old.send("GET / HTTP/1.0\r\nhost: test\r\n\r\n");
    assert_eq!(old.read_head("GET").unwrap().response.status, 200);
}

#[test]
fn a_client_that_expects_100_continue_gets_it_before_it_sends_its_body() {
    let (backend, _proxy, mut client) = one();
    backend.behave(|_| Action::Echo);
    for _ in 0..2 {
        client.send(
            "POST / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 4\r\n\r\n",
        );
        assert_eq!(client.read_head("POST").unwrap().response.status, 100);
        client.send("body");
        // If the backend says 100 too, it is not passed on a second time.
        let head = client.read_head("POST").unwrap();
        assert_eq!(head.response.status, 200);
        assert_eq!(client.read_body(head).unwrap().text(), "body");
    }
}

#[test]
fn a_backend_that_refuses_an_expectation_spares_the_client_its_body() {
    let (backend, _proxy, mut client) = one();
    backend.script(|| {
        vec![
            send("HTTP/1.1 401 No\r\ncontent-length: 2\r\n\r\nno"),
            Step::Close,
        ]
    });
    client.send(
        "PUT / HTTP/1.1\r\nhost: test\r\nexpect: 100-continue\r\ncontent-length: 9999999\r\n\r\n",
    );
    let answer = client.read_head("PUT").unwrap();
    assert_eq!(answer.response.status, 401);
    assert_eq!(client.read_body(answer).unwrap().text(), "no");
    assert!(
        client.is_closed(),
        "nobody knows whether the body still comes"
    );
}

#[test]
fn an_early_answer_to_an_unfinished_upload_arrives() {
    let (backend, _proxy, mut client) = one();
    backend.script(|| {
        vec![
            send("HTTP/1.1 413 Big\r\ncontent-length: 3\r\n\r\nbig"),
            Step::Close,
        ]
    });
    client.send("POST / HTTP/1.1\r\nhost: test\r\ncontent-length: 1000000\r\n\r\nbegin");
    let answer = client.response();
    assert_eq!((answer.status, answer.text()), (413, "big"));
    assert!(client.is_closed());
}

#[test]
fn an_http_1_0_client_is_served_and_closed() {
    let (backend, proxy, _) = one();
    let answer = raw(
        proxy.addr("web"),
        "GET /old HTTP/1.0\r\nhost: old.example\r\n\r\n",
    );
    assert_eq!((answer.status, answer.text()), (200, "a /old"));
    let seen = backend.take_one();
    assert_eq!(seen.fields.get("host"), Some("old.example"));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET /old HTTP/1.0\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert!(client.is_closed());
    let seen = backend.take_one();
    assert_eq!(
        seen.fields.get("host"),
        Some(&*backend.addr.to_string()),
        "the backend's address"
    );
}

#[test]
fn an_http_1_0_client_may_keep_its_connection_if_it_asks() {
    let (_backend, proxy, _) = one();
    let mut client = Client::connect(proxy.addr("web"));
    for _ in 0..3 {
        client.send("GET /old HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
        let answer = client.response();
        assert_eq!(answer.text(), "a /old");
        assert!(
            answer.fields.lists("connection", "keep-alive"),
            "{answer:?}"
        );
    }
}

#[test]
fn an_http_1_0_client_gets_no_chunks() {
    let (backend, proxy, _) = one();
    backend.behave(|_| Action::Download {
        length: 100_000,
        chunked: true,
    });
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.0\r\nhost: a\r\nconnection: keep-alive\r\n\r\n");
    let answer = client.response();
    assert_eq!(answer.framing, Framing::Close);
    assert_eq!(answer.body, pattern::bytes(100_000));
}

#[test]
fn an_http_1_0_backend_is_understood() {
    let (backend, _proxy, mut client) = one();
    backend.script(|| {
        vec![
            send("HTTP/1.0 200 OK\r\nx-backend: a\r\n\r\nto the end"),
            Step::Close,
        ]
    });
    for _ in 0..3 {
        let answer = client.get("/");
        assert_eq!(
            (answer.text(), answer.version.as_str()),
            ("to the end", "HTTP/1.1")
        );
        assert_eq!(
            answer.framing,
            Framing::Chunked,
            "the client's connection is kept"
        );
    }
    backend.script(|| {
        vec![
            send("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok"),
            Step::Close,
        ]
    });
    assert_eq!(client.get("/").text(), "ok");
}

#[test]
fn an_http_1_0_client_of_an_http_1_0_backend_gets_the_whole_body() {
    let (backend, proxy, _) = one();
    backend.script(|| vec![send("HTTP/1.0 200 OK\r\n\r\nto the end"), Step::Close]);
    let answer = raw(proxy.addr("web"), "GET / HTTP/1.0\r\n\r\n");
    assert_eq!(
        (answer.text(), answer.framing),
        ("to the end", Framing::Close)
    );
}

#[test]
fn an_absolute_target_reaches_the_backend_as_path_and_host() {
    let (backend, _proxy, mut client) = one();
    client.send("GET http://Other.example:81/a/b?c=d HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    let seen = backend.take_one();
    assert_eq!(seen.target, "/a/b?c=d");
    assert_eq!(seen.fields.get("host"), Some("Other.example:81"));
    client.send("GET http://other.example HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(backend.take_one().target, "/");
}

#[test]
fn targets_pass_byte_for_byte() {
    let (backend, _proxy, mut client) = one();
    for target in [
        "/",
        "/a//b/?",
        "/%7Eu/%e4%E4",
        "/a;v=1,2/b'(c)*!$&+=:@~-._",
        "/?a=b&a=c&%20=%00",
        "/x?http://y/z?",
    ] {
        assert_eq!(client.get(target).status, 200, "{target}");
        assert_eq!(backend.take_one().target, target);
    }
    client.send("OPTIONS * HTTP/1.1\r\nhost: test\r\n\r\n");
    assert_eq!(client.response().status, 200);
    assert_eq!(backend.take_one().target, "*");
}

#[test]
fn a_status_that_nobody_knows_and_an_empty_reason_pass() {
    let (backend, _proxy, mut client) = one();
    backend.script(|| vec![send("HTTP/1.1 299 \r\ncontent-length: 0\r\n\r\n")]);
    assert_eq!(client.get("/").status, 299);
}

#[test]
fn a_head_that_comes_byte_by_byte_is_served() {
    let (_backend, _proxy, mut client) = one();
    for byte in b"POST /slow HTTP/1.1\r\nhost: test\r\ncontent-length: 2\r\n\r\nok" {
        client.send([*byte]);
    }
    assert_eq!(client.response().text(), "a /slow");
}

#[test]
fn a_pooled_connection_that_the_backend_closed_is_noticed() {
    let (backend, proxy, mut client) = one();
    for _ in 0..5 {
        assert_eq!(client.get("/").status, 200);
        backend.down();
        backend.up();
        // Not repeatable, so it must not be lost on the dead connection.
        assert_eq!(client.request("POST", "/", "", b"x").status, 200);
    }
    assert_eq!(backend.requests(), 10);
    proxy.wait_counts(&[
        ("lbproxy_requests_total", &[], 10),
        ("lbproxy_backend_errors_total", &[("reason", "connect")], 0),
    ]);
}

/// RFC 9110 15.5.9: the backend gave up waiting before the request reached it.
#[test]
fn a_408_on_a_pooled_connection_is_no_response_to_a_request_that_can_be_sent_again() {
    let (backend, proxy, mut client) = one();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let give_up = || {
        Action::Script(vec![
            send("HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"),
            Step::Close,
        ])
    };
    // The second, the fourth and the fifth time.
    backend.behave(move |_| match count.fetch_add(1, Ordering::Relaxed) {
        1 | 3 | 4 => give_up(),
        _ => Answer::new(200, "ok").into(),
    });
    assert_eq!(client.get("/").status, 200);
    assert_eq!(client.get("/").status, 200);
    assert_eq!(asked.load(Ordering::Relaxed), 3, "it was sent again");
    // A request that may not be sent twice gets it, and so does one on a connection of its own.
    assert_eq!(client.request("POST", "/", "", b"x").status, 408);
    assert_eq!(client.get("/").status, 408);
    assert_eq!(client.get("/").status, 200);
    proxy.wait_counts(&[
        ("lbproxy_requests_total", &[], 5),
        ("lbproxy_retries_total", &[("reason", "stale")], 1),
        ("lbproxy_backend_errors_total", &[], 0),
    ]);
}

#[test]
fn bytes_that_nobody_asked_for_never_reach_a_client() {
    let (backend, proxy, mut client) = one();
    // The second answer comes with the first: it must not answer the next request.
    backend.script(|| {
        vec![send(
            "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nonethis is junk HTTP/1.1 200 OK\r\n\r\n",
        )]
    });
    assert_eq!(client.get("/").text(), "one");
    for _ in 0..5 {
        assert_eq!(client.get("/").text(), "one");
        assert_eq!(get(proxy.addr("web"), "/").text(), "one");
    }
    assert_eq!(
        backend.connections(),
        backend.requests(),
        "such a connection is never used again"
    );
}
