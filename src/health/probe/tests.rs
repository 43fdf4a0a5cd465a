//! Probes of servers with all kinds of responses.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::http::{MAX_BODY, USER_AGENT};
use super::*;

fn check(kind: CheckKind, timeout: Duration) -> Check {
    Check {
        kind,
        interval: Duration::from_secs(2),
        timeout,
        rise: 2,
        fall: 3,
        port: None,
    }
}

fn http(path: &str) -> CheckKind {
    CheckKind::Http {
        path: path.to_owned(),
        host: None,
        status: vec![(200, 299), (404, 404)],
        expect: None,
    }
}

const LONG: Duration = Duration::from_secs(60);

/// A server that reads one request head, answers with `answer` and leaves the connection open until the client
/// closes; it returns the head.
async fn server(answer: impl Into<Vec<u8>>) -> (SocketAddress, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = SocketAddress::Ip(listener.local_addr().unwrap());
    let answer = answer.into();
    let serving = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match socket.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        // The probe may end before everything is written.
        let _ = socket.write_all(&answer).await;
        let _ = socket.read_u8().await;
        String::from_utf8(head).unwrap()
    });
    (address, serving)
}

async fn shown(kind: CheckKind, timeout: Duration, addresses: &[SocketAddress]) -> String {
    match probe(&check(kind, timeout), addresses, "web:80").await {
        Ok(passed) => format!("passed: {passed}"),
        Err(failed) => format!("failed: {failed}"),
    }
}

/// An address that refuses connections: bound but not listening, so that nobody else gets it during the probe.
async fn refusing() -> (SocketAddress, tokio::net::TcpSocket) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    (socket.local_addr().unwrap().into(), socket)
}

#[tokio::test]
async fn the_request_is_plain_and_names_the_backend() {
    let (address, serving) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert_eq!(
        shown(http("/healthz?deep=1"), LONG, &[address]).await,
        "passed: status 200"
    );
    let head = serving.await.unwrap();
    assert!(
        head.starts_with("GET /healthz?deep=1 HTTP/1.1\r\n"),
        "{head}"
    );
    for field in [
        "host: web:80",
        "connection: close",
        &format!("user-agent: {USER_AGENT}"),
    ] {
        assert!(
            head.contains(&format!("\r\n{field}\r\n")),
            "{field} in {head}"
        );
    }
}

#[tokio::test]
async fn the_status_decides() {
    for (answer, expected) in [
        ("HTTP/1.1 204 No Content\r\n\r\n", "passed: status 204"),
        (
            "HTTP/1.0 404 Not Found\r\ncontent-length: 0\r\n\r\n",
            "passed: status 404",
        ),
        (
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            "passed: status 200",
        ),
        (
            "HTTP/1.1 302 Found\r\nlocation: /\r\ncontent-length: 0\r\n\r\n",
            "failed: status 302",
        ),
        (
            "HTTP/1.1 500 Oh\r\ncontent-length: 3\r\n\r\noh!",
            "failed: status 500",
        ),
        // A malformed body is not read after an unexpected status.
        (
            "HTTP/1.1 503 Oh\r\ntransfer-encoding: chunked\r\n\r\nzz",
            "failed: status 503",
        ),
    ] {
        let (address, _serving) = server(answer).await;
        assert_eq!(
            shown(http("/"), LONG, &[address]).await,
            expected,
            "{answer}"
        );
    }
}

#[tokio::test]
async fn a_body_is_read_up_to_a_limit() {
    let mut answer = b"HTTP/1.1 200 OK\r\ncontent-length: 100000000\r\n\r\n".to_vec();
    answer.resize(answer.len() + 2 * MAX_BODY, b'x');
    let (address, serving) = server(answer).await;
    assert_eq!(
        shown(http("/"), LONG, &[address]).await,
        "passed: status 200"
    );
    serving.await.unwrap();
}

#[tokio::test]
async fn a_body_that_stalls_changes_nothing() {
    let (address, _serving) = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab").await;
    let short = Duration::from_secs(2);
    assert_eq!(
        shown(http("/"), short, &[address]).await,
        "passed: status 200"
    );
}

#[tokio::test]
async fn malformed_or_missing_responses_fail() {
    let (address, _serving) = server("SSH-2.0-OpenSSH_9.2\r\n").await;
    let failed = shown(http("/"), LONG, &[address]).await;
    assert!(failed.starts_with("failed: response refused: "), "{failed}");

    let mut endless = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    endless.resize(4 * crate::http1::response::LIMITS.bytes, b'x');
    let (address, _serving) = server(endless).await;
    let failed = shown(http("/"), LONG, &[address]).await;
    assert!(failed.starts_with("failed: response refused: "), "{failed}");

    let (address, _serving) = server("").await;
    let failed = shown(
        http("/"),
        Duration::from_millis(50),
        std::slice::from_ref(&address),
    )
    .await;
    assert_eq!(failed, "failed: timed out after 50ms");

    let failed = shown(http("/a b"), LONG, &[address]).await;
    assert!(
        failed.starts_with("failed: the check's path or host"),
        "{failed}"
    );
    assert_eq!(shown(http("/"), LONG, &[]).await, "failed: no address");
}

#[tokio::test]
async fn a_connection_is_enough_for_a_tcp_check() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = SocketAddress::Ip(listener.local_addr().unwrap());
    assert_eq!(
        shown(CheckKind::Tcp, LONG, std::slice::from_ref(&address)).await,
        "passed: connected"
    );
    let (refused, _bound) = refusing().await;
    assert_eq!(
        shown(CheckKind::Tcp, LONG, std::slice::from_ref(&refused)).await,
        "failed: connection refused"
    );
    // The first address that passes counts.
    assert_eq!(
        shown(CheckKind::Tcp, LONG, &[refused.clone(), address.clone()]).await,
        "passed: connected"
    );
    let mut other_port = check(CheckKind::Tcp, LONG);
    other_port.port = address.ip().map(|ip| ip.port());
    assert!(probe(&other_port, &[refused], "web:80").await.is_ok());
}

#[tokio::test]
async fn an_address_that_hangs_leaves_time_for_the_next() {
    let (silent, _serving) = server("").await;
    let (good, _serving) = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    let all = [silent, good];
    assert_eq!(
        shown(http("/"), Duration::from_secs(4), &all).await,
        "passed: status 200"
    );
}

/// The result of a probe of a server that sends `answer` and closes.
async fn evaluated(kind: CheckKind, answer: impl Into<Vec<u8>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = SocketAddress::Ip(listener.local_addr().unwrap());
    let answer = answer.into();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let _ = socket.write_all(&answer).await;
        let _ = socket.shutdown().await;
        // What the probe sends is read, so that the close is orderly.
        let _ = tokio::io::copy(&mut socket, &mut tokio::io::sink()).await;
    });
    shown(kind, LONG, &[address]).await
}

#[tokio::test]
async fn responses_that_traffic_refuses_fail_for_that_reason() {
    let large = format!(
        "HTTP/1.1 200 OK\r\nx: {}\r\ncontent-length: 0\r\n\r\n",
        "x".repeat(70 << 10)
    );
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\ncontent-length: 0\n\n",
            "failed: response refused: bare line end",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
            "failed: response refused: malformed or repeated Content-Length",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            "failed: response refused: ambiguous framing",
        ),
        (&large, "failed: response refused: header section too large"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
            "failed: response refused: malformed chunk",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
            "failed: the connection ended before the end of the body",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-le",
            "failed: the connection ended before a response",
        ),
        ("", "failed: the connection ended before a response"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
            "failed: unrequested status 101",
        ),
        ("HTTP/1.1 200 OK\r\n\r\nuntil the end", "passed: status 200"),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            "passed: status 200",
        ),
        // What is repaired in traffic is repaired here.
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ncontent-length: 2\r\na : b\r\n\r\n",
            "passed: status 200",
        ),
    ] {
        assert_eq!(evaluated(http("/"), answer).await, expected, "{answer:.60}");
    }
    let interim = "HTTP/1.1 102 Processing\r\n\r\n".repeat(300);
    let many = interim + "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(evaluated(http("/"), many).await, "passed: status 200");
}

fn expecting(text: &str) -> CheckKind {
    CheckKind::Http {
        path: "/".to_owned(),
        host: None,
        status: vec![(200, 299)],
        expect: Some(text.to_owned()),
    }
}

#[tokio::test]
async fn a_body_has_the_expected_text_or_fails() {
    let far = format!("HTTP/1.1 200 OK\r\n\r\n{}ok", "x".repeat(2 * MAX_BODY));
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nall is ok",
            "failed: the response does not contain the expected text",
        ),
        (
            "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nall is ok",
            "passed: status 200",
        ),
        (
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
            "passed: status 200",
        ),
        (
            "HTTP/1.1 200 OK\r\nx: ok\r\n\r\nno",
            "failed: the response does not contain the expected text",
        ),
        ("HTTP/1.1 500 Oh\r\n\r\nok", "failed: status 500"),
        (
            "HTTP/1.1 204 ok\r\n\r\n",
            "failed: the response does not contain the expected text",
        ),
        (
            &far,
            "failed: the response does not contain the expected text",
        ),
    ] {
        assert_eq!(
            evaluated(expecting("ok"), answer).await,
            expected,
            "{answer:.60}"
        );
    }
    let (address, _serving) = server("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\no").await;
    let short = Duration::from_millis(50);
    assert_eq!(
        shown(expecting("ok"), short, &[address]).await,
        "failed: timed out after 50ms"
    );
}

#[tokio::test]
async fn an_exchange_is_searched_for_the_expected_text() {
    let exchange = |send: &str, expect: &str| CheckKind::Exchange {
        send: send.to_owned(),
        expect: expect.to_owned(),
    };
    for (answer, expected) in [
        ("220 mail.example ESMTP\r\n", "passed: expected response"),
        (
            "421 too busy\r\n",
            "failed: the response does not contain the expected text",
        ),
        ("", "failed: the connection ended before a response"),
    ] {
        assert_eq!(
            evaluated(exchange("", "220 "), answer).await,
            expected,
            "{answer}"
        );
    }
    let (address, serving) = server("+role:master\r\n").await;
    let asked = exchange("INFO replication\r\n\r\n", "role:master");
    assert_eq!(
        shown(asked, LONG, &[address]).await,
        "passed: expected response"
    );
    assert_eq!(serving.await.unwrap(), "INFO replication\r\n\r\n");
    let endless = "x".repeat(1 << 20);
    assert_eq!(
        evaluated(exchange("", "220 "), endless).await,
        "failed: the response does not contain the expected text"
    );
}

#[tokio::test]
async fn servers_that_are_not_databases_fail_as_such() {
    let user = || "lb".to_owned();
    let kinds = [
        (CheckKind::Postgres { user: user() }, "PostgreSQL"),
        (CheckKind::Mysql { user: user() }, "MySQL"),
        (CheckKind::Redis, "Redis"),
    ];
    for (kind, name) in kinds {
        for junk in [
            "HTTP/1.1 400 Bad Request\r\n\r\n".to_owned(),
            "\u{7f}".repeat(1 << 20),
        ] {
            let shown = evaluated(kind.clone(), junk).await;
            assert_eq!(shown, format!("failed: not a {name} response"));
        }
        for cut in ["", "R\0", "\u{1}\0\0"] {
            let shown = evaluated(kind.clone(), cut).await;
            assert!(
                shown.starts_with("failed: the connection ended before"),
                "{name}: {shown}"
            );
        }
        let (silent, _serving) = server("").await;
        let short = Duration::from_millis(50);
        assert_eq!(
            shown(kind, short, &[silent]).await,
            "failed: timed out after 50ms",
            "{name}"
        );
    }
}
