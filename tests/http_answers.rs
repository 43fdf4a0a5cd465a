//! What the proxy answers itself, with the reason in the metrics and in the access log.

use std::time::Duration;

use crate::support::backend::{Answer, Backend, Gate, Step, send};
use crate::support::client::{Client, Response, get, raw};
use crate::support::net::connections;
use crate::support::process::{ACCESS_LOG, Proxy, web, web_with};
use crate::support::wait::{PATIENCE, pause, wait_until};
use rustix::process::Signal;

/// Checks the shape of an own answer.
#[track_caller]
fn assert_own(answer: &Response, status: u16) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.backend().is_empty(), "{answer:?}");
    let kind = answer.fields.get("content-type").unwrap_or_default();
    assert!(kind.starts_with("text/plain"), "{answer:?}");
    let text = answer.text().trim();
    assert!((4..=200).contains(&text.len()), "{answer:?}");
}

#[track_caller]
fn assert_counted(proxy: &Proxy, status: u16, reason: &str, n: u64) {
    let labels = [("listener", "web"), ("reason", reason)];
    proxy.wait_count("lbproxy_rejected_total", &labels, n);
    let code = status.to_string();
    let labels = [("listener", "web"), ("code", &*code)];
    proxy.wait_count("lbproxy_requests_total", &labels, n);
}

/// Sends `request` to a new proxy with these listener keys and checks its own answer and its counts.
#[track_caller]
fn refuses(listener_keys: &str, request: &str, status: u16, reason: &str) {
    let backend = Backend::start("a");
    backend.record();
    let proxy = Proxy::start(&web_with(listener_keys, &[&backend], ACCESS_LOG));
    let mut client = Client::connect(proxy.addr("web"));
    let answer = client.send(request).response();
    assert_own(&answer, status);
    if answer.closes() {
        assert!(client.is_closed(), "{request:?}");
    } else {
        assert_eq!(client.get("/next").status, 200, "in step: {request:?}");
    }
    assert_counted(&proxy, status, reason, 1);
    let lines = || proxy.access_log();
    wait_until(PATIENCE, "it is logged", || !lines().is_empty());
    assert_eq!(lines()[0]["status"], status, "{request:?}");
    assert_eq!(lines()[0]["reason"], reason, "{request:?}");
    assert_eq!(
        raw(proxy.addr("web"), "GET /after HTTP/1.1\r\nhost: a\r\n\r\n").status,
        200
    );
}

#[test]
fn malformed_requests_are_refused_with_400_and_their_exact_reason() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    let cases = [
        ("malformed", "GET\r\n\r\n"),
        ("malformed", "G\x01T / HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("malformed", "GET / HTTX/1.1\r\nhost: a\r\n\r\n"),
        ("bare_line_end", "GET / HTTP/1.1\nhost: a\n\n"),
        ("bare_line_end", "GET / HTTP/1.1\r\nhost: a\r\nx: y\n\r\n"),
        (
            "bare_line_end",
            "GET / HTTP/1.1\r\nhost: a\r\nx: y\rz\r\n\r\n",
        ),
        ("field_syntax", "GET / HTTP/1.1\r\nhost : a\r\n\r\n"),
        (
            "field_syntax",
            "GET / HTTP/1.1\r\nhost: a\r\nx: y\r\n z\r\n\r\n",
        ),
        ("field_syntax", "GET / HTTP/1.1\r\nhost: a\r\n: y\r\n\r\n"),
        (
            "field_syntax",
            "GET / HTTP/1.1\r\nhost: a\r\nx y: z\r\n\r\n",
        ),
        ("field_syntax", "GET / HTTP/1.1\r\nhost: a\r\nx: \0\r\n\r\n"),
        ("bad_host", "GET / HTTP/1.1\r\n\r\n"),
        ("bad_host", "GET / HTTP/1.1\r\nhost: a\r\nhost: a\r\n\r\n"),
        ("bad_host", "GET / HTTP/1.1\r\nhost: a, b\r\n\r\n"),
        ("bad_host", "GET / HTTP/1.1\r\nhost: u@a\r\n\r\n"),
        ("bad_host", "GET / HTTP/1.1\r\nhost: a/b\r\n\r\n"),
        ("bad_target", "GET a HTTP/1.1\r\nhost: a\r\n\r\n"),
        ("bad_target", "GET /a#b HTTP/1.1\r\nhost: a\r\n\r\n"),
        (
            "bad_content_length",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: +1\r\n\r\na",
        ),
        (
            "bad_content_length",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: \r\n\r\n",
        ),
        (
            "bad_content_length",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1, 1\r\n\r\na",
        ),
        (
            "bad_content_length",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ncontent-length: 1\r\n\r\na",
        ),
        (
            "bad_content_length",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 99999999999999999999\r\n\r\na",
        ),
        (
            "ambiguous_framing",
            "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
        (
            "ambiguous_framing",
            "POST / HTTP/1.0\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ),
    ];
    let mut counts = std::collections::BTreeMap::<&str, u64>::new();
    for (reason, request) in cases {
        *counts.entry(reason).or_default() += 1;
        let mut client = Client::connect(proxy.addr("web"));
        let answer = client.send(request).read_response("GET");
        let answer = answer.unwrap_or_else(|e| panic!("{request:?}: {e}"));
        assert_eq!(answer.status, 400, "{request:?}");
        assert_own(&answer, 400);
        assert!(client.is_closed(), "{request:?}");
        let labels = [("listener", "web"), ("reason", reason)];
        proxy.wait_count("lbproxy_rejected_total", &labels, counts[reason]);
    }
    assert_eq!(backend.requests(), 0, "nothing of them was forwarded");
    let all: u64 = counts.values().sum();
    proxy.wait_count("lbproxy_requests_total", &[("code", "400")], all);
}

#[test]
fn a_bad_chunk_ends_the_exchange_and_both_connections() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    for (i, chunk) in [
        "zz\r\n",
        "1\r\nab\r\n",
        "0x1\r\na\r\n",
        "1\na\r\n",
        "-1\r\n",
        "11111111111111111\r\n",
    ]
    .iter()
    .enumerate()
    {
        let mut client = Client::connect(proxy.addr("web"));
        client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        client.send(format!(
            "4\r\ngood\r\n{chunk}0\r\n\r\nGET /smuggled HTTP/1.1\r\nhost: a\r\n\r\n"
        ));
        let answer = client.response();
        assert_own(&answer, 400);
        assert!(client.is_closed(), "{chunk:?}");
        let labels = [("reason", "bad_chunk")];
        proxy.wait_count("lbproxy_rejected_total", &labels, i as u64 + 1);
    }
    wait_until(PATIENCE, "the backend's half requests are gone", || {
        backend.open_connections() == 0
    });
}

#[test]
fn no_route_is_404_and_the_connection_goes_on() {
    let proxy = Proxy::start(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\npath = \"/ok\"\nrespond = { body = \"ok\" }\n",
    );
    let mut client = Client::connect(proxy.addr("web"));
    for n in 1..3 {
        assert_own(&client.get("/nowhere"), 404);
        assert_counted(&proxy, 404, "no_route", n);
        assert_eq!(client.get("/ok").text(), "ok");
    }
}

#[test]
fn connect_and_trace_are_refused_with_405() {
    refuses(
        "",
        "CONNECT a:443 HTTP/1.1\r\nhost: a:443\r\n\r\n",
        405,
        "method",
    );
    refuses("", "TRACE / HTTP/1.1\r\nhost: a\r\n\r\n", 405, "method");
}

#[test]
fn a_slow_head_is_refused_with_408() {
    let keys = "timeouts = { header = \"200ms\" }";
    refuses(keys, "GET / HTTP/1.1\r\nhost: a\r\n", 408, "slow_head");
}

#[test]
fn a_body_that_falls_silent_is_refused_with_408() {
    let keys = "timeouts = { request_body = \"200ms\" }";
    let request = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\nhalf";
    refuses(keys, request, 408, "slow_body");
}

#[test]
fn who_sends_a_part_of_a_body_does_not_wait_for_100() {
    let backend = Backend::start("a");
    backend.script(|| vec![Step::Hang]);
    let proxy = Proxy::start(&web_with(
        "timeouts = { request_body = \"200ms\" }",
        &[&backend],
        "timeouts = { response = \"1s\" }\n",
    ));
    let request =
        "POST / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 10\r\n\r\nhalf";
    assert_own(&raw(proxy.addr("web"), request), 408);
    assert_counted(&proxy, 408, "slow_body", 1);
    assert_eq!(proxy.count("lbproxy_backend_errors_total", &[]), 0);
}

#[test]
fn a_body_over_its_limit_is_refused_with_413() {
    let keys = "limits = { body_bytes = \"1KiB\" }";
    let announced = "POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1025\r\n\r\n";
    refuses(keys, announced, 413, "body_too_large");
    let chunks = format!("400\r\n{}\r\n1\r\na\r\n", "a".repeat(1024));
    let request =
        format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n{chunks}");
    refuses(keys, &request, 413, "body_too_large");
}

#[test]
fn a_target_over_its_limit_is_refused_with_414() {
    let request = format!("GET /{} HTTP/1.1\r\nhost: a\r\n\r\n", "a".repeat(8 << 10));
    refuses("", &request, 414, "uri_too_long");
}

#[test]
fn a_head_over_its_limits_is_refused_with_431() {
    let large = format!(
        "GET / HTTP/1.1\r\nhost: a\r\nx: {}\r\n\r\n",
        "a".repeat(32 << 10)
    );
    refuses("", &large, 431, "head_too_large");
    let endless = format!("GET / HTTP/1.1\r\nhost: a\r\nx: {}", "a".repeat(33 << 10));
    refuses("", &endless, 431, "head_too_large");
    let many = format!(
        "GET / HTTP/1.1\r\nhost: a\r\n{}\r\n",
        "x: y\r\n".repeat(100)
    );
    refuses("", &many, 431, "too_many_headers");
}

#[test]
fn what_is_just_within_the_limits_is_served() {
    let backend = Backend::start("a");
    let keys = "limits = { body_bytes = \"1KiB\" }";
    let proxy = Proxy::start(&web_with(keys, &[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    let target = format!("/{}", "a".repeat((8 << 10) - 1));
    assert_eq!(client.get(&target).status, 200);
    assert_eq!(
        client
            .request("GET", "/", &"x: y\r\n".repeat(99), b"")
            .status,
        200
    );
    let rest = (32 << 10) - "GET / HTTP/1.1\r\nhost: test\r\nx: \r\n\r\n".len();
    let field = format!("x: {}\r\n", "a".repeat(rest));
    assert_eq!(client.request("GET", "/", &field, b"").status, 200);
    assert_eq!(client.request("POST", "/", "", &[b'a'; 1024]).status, 200);
    client.send("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
    client.send(format!("400\r\n{}\r\n0\r\n\r\n", "a".repeat(1024)));
    assert_eq!(client.response().status, 200);
    assert_eq!(backend.requests(), 5);
}

#[test]
fn an_unknown_expectation_is_refused_with_417() {
    let request = "POST / HTTP/1.1\r\nhost: a\r\nexpect: tea\r\ncontent-length: 1\r\n\r\na";
    refuses("", request, 417, "expectation");
}

#[test]
fn another_transfer_coding_is_refused_with_501_and_one_that_does_not_end_in_chunked_with_400() {
    for (coding, status, reason) in [
        ("gzip, chunked", 501, "transfer_coding"),
        ("identity, chunked", 501, "transfer_coding"),
        ("gzip", 400, "bad_transfer_encoding"),
        ("identity", 400, "bad_transfer_encoding"),
        ("chunked, chunked", 400, "bad_transfer_encoding"),
        ("xchunked", 400, "bad_transfer_encoding"),
        ("chunked;a=b", 400, "bad_transfer_encoding"),
    ] {
        let request =
            format!("POST / HTTP/1.1\r\nhost: a\r\ntransfer-encoding: {coding}\r\n\r\n0\r\n\r\n");
        refuses("", &request, status, reason);
    }
}

#[test]
fn a_method_longer_than_any_is_refused_with_501() {
    let request = format!("{} / HTTP/1.1\r\nhost: a\r\n\r\n", "M".repeat(33));
    refuses("", &request, 501, "method_too_long");
}

#[test]
fn a_205_of_our_own_has_no_content() {
    let answer = "[[route]]\nrespond = { status = 205, body = \"x\" }\n";
    let proxy = Proxy::start(&(web(&[], "") + answer));
    let mut client = Client::connect(proxy.addr("web"));
    for _ in 0..2 {
        let answer = client.get("/");
        assert_eq!((answer.status, answer.text()), (205, ""));
        assert_eq!(answer.fields.get("content-length"), Some("0"));
    }
}

#[test]
fn other_versions_are_refused_with_505() {
    for version in ["HTTP/2.0", "HTTP/3.1", "HTTP/0.9"] {
        refuses(
            "",
            &format!("GET / {version}\r\nhost: a\r\n\r\n"),
            505,
            "version",
        );
    }
}

#[test]
fn a_backend_that_refuses_is_502_and_one_that_is_known_to_is_not_a_slow_answer() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    backend.down();
    let mut client = Client::connect(proxy.addr("web"));
    assert_own(&client.get("/"), 502);
    assert_counted(&proxy, 502, "backend_connect", 1);
    let errors = [("cluster", "web"), ("reason", "connect")];
    wait_until(PATIENCE, "the refusal is counted", || {
        proxy.count("lbproxy_backend_errors_total", &errors) >= 1
    });
}

#[test]
fn a_backend_that_closes_before_its_answer_is_502() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    for (n, step) in [(1, false), (2, true)] {
        backend.script(move || vec![Step::ReadBody, if step { Step::Reset } else { Step::Close }]);
        assert_own(&client.request("POST", "/", "", b"x"), 502);
        assert_counted(&proxy, 502, "backend_reset", n);
        assert_eq!(backend.requests(), n, "a POST goes once");
    }
    proxy.wait_count("lbproxy_backend_errors_total", &[("reason", "reset")], 2);
}

#[test]
fn an_answer_that_is_not_http_is_502() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    let wrong = [
        "SSH-2.0-OpenSSH_9\r\n",
        "HTTP/1.1 OK\r\n\r\n",
        "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
        "HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\naa",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nbad name: 1\r\ncontent-length: 0\r\n\r\n",
    ];
    for (i, text) in wrong.into_iter().enumerate() {
        backend.script(move || vec![send(text), Step::Close]);
        let answer = client.request("POST", "/", "", b"x");
        assert_eq!(answer.status, 502, "{text:?}");
        assert_own(&answer, 502);
        assert_counted(&proxy, 502, "backend_protocol", i as u64 + 1);
    }
    let errors = [("reason", "protocol")];
    proxy.wait_count("lbproxy_backend_errors_total", &errors, wrong.len() as u64);
}

#[test]
fn a_cluster_without_a_backend_to_choose_is_503() {
    let idle = Backend::start("a");
    let config = format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
         [cluster.web]\nbackends = [{{ address = \"{}\", weight = 0 }}]\n",
        idle.addr
    );
    let proxy = Proxy::start(&config);
    let mut client = Client::connect(proxy.addr("web"));
    assert_own(&client.get("/"), 503);
    assert_counted(&proxy, 503, "no_backend", 1);
    assert_eq!(idle.requests(), 0);
}

#[test]
fn a_backend_that_is_too_slow_is_504() {
    let backend = Backend::start("a");
    backend.script(|| vec![Step::Hang]);
    let proxy = Proxy::start(&web(&[&backend], "timeouts = { response = \"200ms\" }"));
    let mut client = Client::connect(proxy.addr("web"));
    assert_own(&client.get("/"), 504);
    assert_counted(&proxy, 504, "backend_timeout", 1);
    assert_eq!(
        backend.requests(),
        1,
        "a timeout is not repeated unless asked"
    );
    proxy.wait_count("lbproxy_backend_errors_total", &[("reason", "timeout")], 1);
}

#[test]
fn a_backend_that_drips_its_head_gains_no_time_by_it() {
    let backend = Backend::start("a");
    backend.script(|| {
        let drip = || [send("x"), Step::Sleep(Duration::from_millis(50))];
        let drips = std::iter::repeat_with(drip).take(1000).flatten();
        std::iter::once(send("HTTP/1.1 200 OK\r\nx: "))
            .chain(drips)
            .collect()
    });
    let keys = "timeouts = { response = \"500ms\" }";
    let proxy = Proxy::start(&web(&[&backend], keys));
    assert_own(&Client::connect(proxy.addr("web")).get("/"), 504);
    assert_counted(&proxy, 504, "backend_timeout", 1);
}

#[test]
fn an_interim_answer_gives_a_backend_its_time_again() {
    let backend = Backend::start("a");
    backend.script(|| {
        let interim = || {
            [
                send("HTTP/1.1 102 x\r\n\r\n"),
                Step::Sleep(Duration::from_millis(300)),
            ]
        };
        let interims = std::iter::repeat_with(interim).take(8).flatten();
        interims
            .chain([send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")])
            .collect()
    });
    let keys = "timeouts = { response = \"1s\" }";
    let proxy = Proxy::start(&web(&[&backend], keys));
    assert_eq!(Client::connect(proxy.addr("web")).get("/").status, 200);
    assert_eq!(proxy.count("lbproxy_backend_errors_total", &[]), 0);
}

#[test]
fn interim_answers_beyond_their_bound_gain_a_backend_no_time() {
    let backend = Backend::start("a");
    backend.script(|| {
        let many = "HTTP/1.1 102 x\r\n\r\n".repeat(300);
        let interim = || {
            [
                send("HTTP/1.1 102 x\r\n\r\n"),
                Step::Sleep(Duration::from_millis(200)),
            ]
        };
        let interims = std::iter::repeat_with(interim).take(12).flatten();
        let first = [send(&many)];
        first
            .into_iter()
            .chain(interims)
            .chain([send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")])
            .collect()
    });
    let keys = "timeouts = { response = \"500ms\" }";
    let proxy = Proxy::start(&web(&[&backend], keys));
    assert_own(&Client::connect(proxy.addr("web")).get("/"), 504);
    assert_counted(&proxy, 504, "backend_timeout", 1);
}

#[test]
fn options_that_no_other_proxy_may_forward_is_answered() {
    let backend = Backend::start("a");
    backend.record();
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    let answer = client.request("OPTIONS", "*", "max-forwards: 0\r\n", b"");
    assert_eq!((answer.status, answer.text()), (200, ""));
    assert!(answer.fields.lists("allow", "GET"), "{answer:?}");
    assert_eq!(answer.fields.get("content-length"), Some("0"));
    assert_eq!(backend.requests(), 0);
    client.request("OPTIONS", "/", "max-forwards: 7\r\n", b"");
    assert_eq!(backend.take_one().fields.get("max-forwards"), Some("6"));
}

#[test]
fn a_redirect_needs_the_host_that_it_names() {
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n\
         [[route]]\npath = \"/far/*\"\nredirect = {{ to = \"https://{{host}}{{uri}}\" }}\n\
         [[route]]\nredirect = {{ to = \"/near{{path}}\", status = 302 }}\n{ACCESS_LOG}"
    ));
    let addr = proxy.addr("web");
    let without = raw(addr, "GET /far/x HTTP/1.0\r\n\r\n");
    assert_own(&without, 400);
    assert!(!without.fields.has("location"), "{without:?}");
    assert_counted(&proxy, 400, "bad_host", 1);
    let with = raw(addr, "GET /far/x HTTP/1.0\r\nhost: a.example\r\n\r\n");
    let location = with.fields.get("location");
    assert_eq!(location, Some("https://a.example/far/x"));
    let relative = raw(addr, "GET /x HTTP/1.0\r\n\r\n");
    assert_eq!(relative.fields.get("location"), Some("/near/x"));
}

#[test]
fn own_answers_have_an_id_a_date_and_a_time_to_live_and_the_log_knows_the_id() {
    let proxy = Proxy::start(&format!(
        "[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ntrusted_proxies = [\"127.0.0.1\"]\n\
         timeouts = {{ idle = \"10s\", header = \"300ms\" }}\n\
         [[route]]\npath = \"/ok\"\nrespond = {{ body = \"ok\" }}\n\
         [[route]]\npath = \"/to\"\nredirect = {{ to = \"/there\" }}\n{ACCESS_LOG}"
    ));
    let addr = proxy.addr("web");
    let mut client = Client::connect(addr);
    for (path, status) in [("/ok", 200), ("/to", 308), ("/nowhere", 404)] {
        let answer = client.get(path);
        assert_eq!(answer.status, status);
        let id = answer.fields.get("x-request-id").unwrap().to_owned();
        assert_eq!(id.len(), 32, "{answer:?}");
        assert_eq!(answer.fields.get("keep-alive"), Some("timeout=9"));
        assert!(answer.fields.lists("connection", "keep-alive"));
        assert!(answer.fields.has("date"));
        assert_eq!(proxy.wait_access(path)["id"], id.as_str());
    }
    let given = client.request("GET", "/ok", "x-request-id: from-the-front\r\n", b"");
    assert_eq!(given.fields.get("x-request-id"), Some("from-the-front"));
    for request in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/2.0\r\nhost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a\r\n",
    ] {
        let answer = raw(addr, request);
        assert!(answer.closes() && !answer.fields.has("keep-alive"));
        let id = answer.fields.get("x-request-id").unwrap().to_owned();
        let is_logged = || {
            proxy
                .access_log()
                .iter()
                .any(|line| line["id"] == id.as_str())
        };
        wait_until(PATIENCE, "its id is in the log", is_logged);
    }
}

#[test]
fn a_client_that_waited_for_100_has_its_time_for_the_body_from_then_on() {
    let backend = Backend::start("a");
    backend.script(|| {
        vec![
            Step::Sleep(Duration::from_millis(1500)),
            send("HTTP/1.1 100 Continue\r\n\r\n"),
            Step::ReadBody,
            send("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n"),
        ]
    });
    let keys = "timeouts = { request_body = \"1s\" }";
    let proxy = Proxy::start(&web_with(keys, &[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("PUT / HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 1\r\n\r\n");
    assert_eq!(client.read_head("PUT").unwrap().response.status, 100);
    pause(Duration::from_millis(200));
    client.send("x");
    assert_eq!(client.response().status, 200);
}

#[test]
fn a_request_over_the_timeout_of_its_route_is_504() {
    let backend = Backend::start("a");
    backend.script(|| vec![Step::Hang]);
    let route = "[[route]]\npath = \"/slow\"\ncluster = \"web\"\ntimeout = \"200ms\"\n";
    let proxy = Proxy::start(&web(&[&backend], route));
    assert_own(&Client::connect(proxy.addr("web")).get("/slow"), 504);
    assert_counted(&proxy, 504, "request_timeout", 1);
}

#[test]
fn a_client_that_leaves_before_its_answer_is_499_in_the_log_and_no_fault_of_the_backend() {
    let backend = Backend::start("a");
    let gate = Gate::new();
    let inner = gate.clone();
    backend.behave(move |_| Answer::new(200, "late").gate(&inner));
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET /gone HTTP/1.1\r\nhost: a\r\n\r\n");
    wait_until(PATIENCE, "it is at the backend", || backend.requests() == 1);
    client.reset();
    let line = proxy.wait_access("/gone");
    assert_eq!(
        (&line["status"], &line["reason"]),
        (&499.into(), &"client_left".into()),
        "{line}"
    );
    assert_eq!(proxy.count("lbproxy_backend_errors_total", &[]), 0);
    proxy.wait_count("lbproxy_backend_in_flight", &[], 0);
    // A connection that was kept would take the late answer and stay open.
    gate.open();
    wait_until(PATIENCE, "the backend's connection is closed", || {
        backend.open_connections() == 0
    });
}

#[test]
fn an_own_answer_to_head_has_no_body() {
    let proxy = Proxy::start("[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\n");
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.request("HEAD", "/", "", b"").status, 404);
    assert_eq!(client.get("/").status, 404, "the connection is in step");
}

#[test]
fn while_the_proxy_itself_stands_still_nobody_else_is_too_slow() {
    let backend = Backend::start("a");
    let gate = Gate::new();
    let inner = gate.clone();
    backend.behave(move |_| Answer::new(200, "in time").gate(&inner));
    let keys = "timeouts = { response = \"2s\" }\nretry = { attempts = 1 }\n";
    let proxy = Proxy::start(&web(&[&backend], keys));
    let mut client = Client::connect(proxy.addr("web"));
    client.send("GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    wait_until(PATIENCE, "it is at the backend", || backend.requests() == 1);
    proxy.signal(Signal::STOP);
    gate.open();
    pause(Duration::from_secs(3));
    proxy.signal(Signal::CONT);
    assert_eq!(client.response().text(), "in time");
    proxy.wait_counts(&[
        ("lbproxy_requests_total", &[], 1),
        ("lbproxy_backend_errors_total", &[], 0),
    ]);
}

#[test]
fn a_refused_answer_names_its_backend_and_what_is_wrong_with_it() {
    for (answer, cause) in [
        ("HTTP/1.1 200 OK\ncontent-length: 2\n\nok", "bare_line_end"),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
            "bad_content_length",
        ),
        ("SSH-2.0-x\r\n", "malformed"),
    ] {
        let backend = Backend::start("a");
        backend.script(move || vec![Step::ReadBody, send(answer), Step::Hang]);
        let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
        for _ in 0..3 {
            assert_eq!(get(proxy.addr("web"), "/refused").status, 502);
        }
        let line = proxy.wait_access("/refused");
        assert_eq!(line["reason"], "backend_protocol");
        assert_eq!(line["cause"], cause);
        assert_eq!(line["backend"], backend.addr.to_string());
        let said = || {
            let log = proxy.log();
            let lines = log.lines().filter(|line| line.contains(cause));
            lines
                .filter(|line| line.contains(&backend.addr.to_string()))
                .count()
        };
        wait_until(PATIENCE, "the log names the backend", || said() > 0);
        assert_eq!(said(), 1, "once, and not for every request");
    }
}

#[test]
fn a_502_for_a_backend_that_refuses_names_it() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    backend.down();
    assert_eq!(get(proxy.addr("web"), "/refused").status, 502);
    let line = proxy.wait_access("/refused");
    assert_eq!(line["backend"], backend.addr.to_string());
}

#[test]
fn pipelined_own_answers_let_others_have_their_turn() {
    const ROWS: usize = 16;
    let config = "workers = 1\n".to_owned() + &web(&[], ACCESS_LOG);
    let route = "[[route]]\npath = \"/own/*\"\nrespond = { status = 204 }\n";
    let proxy = Proxy::start(&(config + route));
    let addr = proxy.addr("web");
    let mut clients: Vec<Client> = (0..=ROWS)
        .map(|_| {
            let mut client = Client::connect(addr);
            assert_eq!(client.get("/own/warm").status, 204);
            client
        })
        .collect();
    // The worker finds all rows, and behind them one request of another client, at once: whatever runs beside it, the
    // order in which it answers them is its own.
    proxy.pause();
    let row = "GET /own/row HTTP/1.1\r\nhost: a\r\n\r\n".repeat(400);
    let one = "GET /own/one HTTP/1.1\r\nhost: a\r\n\r\n";
    for (place, client) in clients.iter_mut().enumerate() {
        client.send(if place < ROWS { &row } else { one });
    }
    wait_until(PATIENCE, "all requests are there", || {
        let ours: Vec<_> = clients.iter().map(Client::local_addr).collect();
        let mut sent = connections();
        sent.retain(|one| one.remote == addr && ours.contains(&one.local));
        sent.len() == ours.len() && sent.iter().all(|one| one.unacknowledged == 0)
    });
    proxy.signal(Signal::CONT);
    assert_eq!(clients[ROWS].response().status, 204);
    proxy.wait_access("/own/one");
    let log = proxy.access_log();
    let before = log.iter().take_while(|line| line["uri"] != "/own/one");
    let turns = before.filter(|line| line["uri"] == "/own/row").count();
    println!("{turns} answers to {ROWS} rows before the one");
    // Four to each row at a time, and two rounds where one would do.
    assert!(turns <= 2 * 4 * ROWS, "{turns}");
}
