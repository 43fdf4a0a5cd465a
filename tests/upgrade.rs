//! Upgraded connections: a tunnel only after the backend's 101, and no other protocol by the back door.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use crate::support::backend::{Action, Answer, Backend, Gate, Step, send};
use crate::support::client::Client;
use crate::support::process::{ACCESS_LOG, Proxy, web, web_with};
use crate::support::wait::{PATIENCE, wait_until};
use crate::support::ws::{Tunnel, handshake};

fn echo_backend() -> Backend {
    let backend = Backend::start("a");
    backend.record().behave(|_| Action::Upgrade);
    backend
}

#[test]
fn a_websocket_passes_as_a_tunnel() {
    let backend = echo_backend();
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    let mut tunnel = Tunnel::open(proxy.addr("web"), "/chat");
    let seen = backend.take_one();
    assert!(seen.fields.lists("connection", "upgrade"), "{}", seen.head);
    assert_eq!(seen.fields.get("upgrade"), Some("websocket"));
    assert_eq!(
        seen.fields.get("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    for _ in 0..100 {
        tunnel.echo();
    }
    proxy.wait_count("lbproxy_backend_in_flight", &[("cluster", "web")], 1);
    drop(tunnel);
    let line = proxy.wait_access("/chat");
    assert_eq!(line["status"], 101, "{line}");
    proxy.wait_count("lbproxy_backend_in_flight", &[("cluster", "web")], 0);
    wait_until(PATIENCE, "the backend's end is closed", || {
        backend.open_connections() == 0
    });
}

#[test]
fn bytes_sent_with_the_handshake_reach_the_backend_after_it() {
    let backend = echo_backend();
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(handshake("/") + "early");
    assert_eq!(client.read_head("GET").unwrap().response.status, 101);
    assert_eq!(client.read_exactly(5).unwrap(), b"early");
}

#[test]
fn bytes_sent_by_the_backend_with_its_101_reach_the_client() {
    let backend = Backend::start("a");
    backend.script(|| {
        let switch =
            "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nhello";
        vec![send(switch), Step::Close]
    });
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(handshake("/"));
    assert_eq!(client.read_head("GET").unwrap().response.status, 101);
    assert_eq!(client.read_to_end().unwrap(), b"hello");
}

#[test]
fn a_backend_that_declines_keeps_the_connection_in_http() {
    let backend = Backend::start("a");
    backend.record();
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    // The second request must be parsed by the proxy and not pass as bytes of a tunnel.
    client.send(
        handshake("/no") + "GET /next HTTP/1.1\r\nhost: a\r\nconnection: x-hop\r\nx-hop: 1\r\n\r\n",
    );
    assert_eq!(client.response().text(), "a /no");
    assert_eq!(client.response().text(), "a /next");
    let [declined, next] = backend.take_recorded().try_into().unwrap();
    assert!(!next.fields.has("x-hop"), "{}", next.head);
    // A backend's parser may be left in another state by the offer, so nobody else gets that connection.
    assert_ne!(declined.connection, next.connection);
    assert_eq!(client.get("/third").status, 200);
    assert_eq!(backend.take_one().connection, next.connection);
}

#[test]
fn a_200_to_an_upgrade_opens_no_tunnel() {
    let backend = Backend::start("a");
    backend.behave(|_| {
        Answer::new(200, "no")
            .field("upgrade", "websocket")
            .field("connection", "upgrade")
    });
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(handshake("/") + "\x01\x02not http\r\n\r\n");
    assert_eq!(client.response().text(), "no");
    assert_eq!(client.response().status, 400);
}

#[test]
fn an_offer_of_h2c_is_dropped_and_the_request_served() {
    let backend = Backend::start("a");
    backend.record();
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(
        "GET /h2 HTTP/1.1\r\nhost: a\r\nconnection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\n\
         http2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n\r\n",
    );
    assert_eq!(client.response().text(), "a /h2");
    let seen = backend.take_one();
    assert!(
        !seen.fields.has("upgrade") && !seen.fields.has("http2-settings"),
        "{}",
        seen.head
    );
    assert_eq!(client.get("/next").status, 200);
}

#[test]
fn an_upgrade_that_nobody_asked_for_is_a_fault_of_the_backend() {
    let backend = Backend::start("a");
    backend.script(|| {
        vec![
            send("HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n"),
            Step::Hang,
        ]
    });
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.request("POST", "/", "", b"x").status, 502);
    proxy.wait_count("lbproxy_backend_errors_total", &[("reason", "protocol")], 1);
    assert_eq!(proxy.wait_access("/")["cause"], "upgrade_not_offered");
}

#[test]
fn a_101_carries_the_id_where_responses_do() {
    let backend = Backend::start("a");
    backend.record().script(|| {
        vec![
            send("HTTP/1.1 103 Early Hints\r\nx-request-id: theirs\r\n\r\n"),
            send(
                "HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\
                 x-request-id: theirs\r\n\r\n",
            ),
            Step::Hang,
        ]
    });
    for (keys, is_ours) in [("expose_request_id = true", true), ("", false)] {
        let proxy = Proxy::start(&web_with(keys, &[&backend], ""));
        let mut client = Client::connect(proxy.addr("web"));
        client.send(handshake("/"));
        assert_eq!(client.read_head("GET").unwrap().response.status, 103);
        let answer = client.read_head("GET").unwrap().response;
        assert_eq!(answer.status, 101);
        let seen = backend.take_one();
        let ours = seen.fields.get("x-request-id").unwrap();
        let expected = if is_ours { ours } else { "theirs" };
        assert_eq!(answer.fields.get("x-request-id"), Some(expected));
    }
}

#[test]
fn either_side_ends_a_tunnel_and_the_other_sees_it() {
    let backend = echo_backend();
    let proxy = Proxy::start(&web(&[&backend], ""));
    let mut tunnel = Tunnel::open(proxy.addr("web"), "/");
    tunnel.echo();
    tunnel.client.finish();
    assert_eq!(
        tunnel.client.read_to_end().unwrap(),
        b"",
        "the backend's end follows ours"
    );
    let mut tunnel = Tunnel::open(proxy.addr("web"), "/");
    tunnel.echo();
    backend.down();
    assert!(tunnel.client.is_closed());
}

#[test]
fn a_silent_tunnel_is_closed_after_its_timeout_and_a_busy_one_is_not() {
    let backend = echo_backend();
    let proxy = Proxy::start(&web_with("timeouts = { tunnel = \"1s\" }", &[&backend], ""));
    let mut silent = Tunnel::open(proxy.addr("web"), "/");
    let mut busy = Tunnel::open(proxy.addr("web"), "/");
    silent.echo();
    silent
        .client
        .stream
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut closed = false;
    wait_until(PATIENCE, "the silent one is closed", || {
        busy.echo();
        closed = closed || silent.client.is_closed();
        closed
    });
    busy.echo();
    proxy.wait_count("lbproxy_rejected_total", &[("reason", "idle_tunnel")], 1);
}

/// Reads exactly what a client has sent of a body, then answers 101, as `docker exec` is answered.
fn switching_backend() -> Backend {
    let backend = Backend::start("a");
    backend.record().script(|| {
        vec![
            Step::ReadBody,
            send("HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\nprompt"),
            Step::Hang,
        ]
    });
    backend
}

#[test]
fn an_offer_with_a_body_is_taken_after_the_body() {
    for (framing, body) in [
        ("content-length: 2", "{}"),
        ("transfer-encoding: chunked", "2\r\n{}\r\n0\r\n\r\n"),
    ] {
        let backend = switching_backend();
        let proxy = Proxy::start(&web(&[&backend], ""));
        let mut client = Client::connect(proxy.addr("web"));
        client.send(format!(
            "POST /exec/1/start HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: tcp\r\n{framing}\r\n\r\n"
        ));
        wait_until(PATIENCE, "the head is there", || backend.requests() == 1);
        client.send(body);
        let answer = client.read_head("POST").unwrap().response;
        assert_eq!(answer.status, 101, "{framing}");
        assert_eq!(answer.fields.get("upgrade"), Some("tcp"));
        assert_eq!(client.read_exactly(6).unwrap(), b"prompt");
    }
}

#[test]
fn a_101_before_the_whole_body_is_a_fault_of_the_backend() {
    let backend = Backend::start("a");
    backend.script(|| {
        vec![
            send("HTTP/1.1 101 UPGRADED\r\nconnection: Upgrade\r\nupgrade: tcp\r\n\r\nsecret"),
            Step::Hang,
        ]
    });
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    let mut client = Client::connect(proxy.addr("web"));
    client.send(
        "POST / HTTP/1.1\r\nhost: a\r\nconnection: Upgrade\r\nupgrade: tcp\r\ncontent-length: 9\r\n\r\nhalf",
    );
    let answer = client.response();
    assert!(answer.status == 502 && answer.closes(), "{answer:?}");
    assert!(!answer.text().contains("secret"));
    proxy.wait_count("lbproxy_backend_errors_total", &[("reason", "protocol")], 1);
    assert_eq!(proxy.wait_access("/")["cause"], "upgrade_too_early");
}

#[test]
fn an_upgraded_connection_ends_with_its_backend_and_a_request_does_not() {
    let backend = Backend::start("a");
    let well = Arc::new(AtomicBool::new(true));
    let shared = Arc::clone(&well);
    let gate = Gate::new();
    let slow = gate.clone();
    backend.behave(move |r| -> Action {
        match r.target.as_str() {
            "/healthz" => Answer::new(if shared.load(Relaxed) { 200 } else { 500 }, "").into(),
            "/slow" => Answer::new(200, "done").gate(&slow).into(),
            _ => Action::Upgrade,
        }
    });
    let check =
        "check = { http = \"/healthz\", interval = \"50ms\", timeout = \"50ms\", fall = 1 }";
    let keys = format!("{check}\non_down = \"close\"\n{ACCESS_LOG}");
    let proxy = Proxy::start(&web(&[&backend], &keys));
    proxy.wait_backend("web", backend.addr, "up");
    let mut tunnel = Tunnel::open(proxy.addr("web"), "/chat");
    tunnel.echo();
    let mut request = Client::connect(proxy.addr("web"));
    request.send("GET /slow HTTP/1.1\r\nhost: a\r\n\r\n");
    proxy.wait_count("lbproxy_backend_in_flight", &[("cluster", "web")], 2);
    well.store(false, Relaxed);
    proxy.wait_backend("web", backend.addr, "down");
    assert!(tunnel.client.read_exactly(1).is_err(), "it is closed");
    assert_eq!(proxy.wait_access("/chat")["reason"], "backend_down");
    gate.open();
    assert_eq!(request.response().text(), "done");
}
