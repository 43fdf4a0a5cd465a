//! The table as text, and responses of servers of lbproxy and of others.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::watch;

use super::*;
use crate::admin::members::tests::{report, with_tokens};
use crate::admin::server::serve;
use crate::admin::socket::bind;
use crate::admin::{AdminState, Started};
use crate::gossip::view::Report;
use crate::model::address::{BindAddress, UnixAddress};
use crate::snapshot::fixture::{WORKERS, snapshot};
use crate::snapshot::publish::Publisher;

fn table_of(value: Value) -> String {
    table(&serde_json::from_value(value).unwrap())
}

#[test]
fn services_and_members_are_shown_as_a_table() {
    let report = report();
    let mut set = MembersPage::of(&report, false);
    set.members[1].records[0].zone = Cow::from("");
    set.members[2].changed_seconds_ago = 0.4;
    let expected = "\
peer set prod as 10.0.0.5:7946 sees it: sealed by 0badcafe, joined
MEMBER          ROLE   STATE    EPOCH  SINCE  CLUSTER  BACKEND      WEIGHT  ZONE  SERVICE   VERSION  EXPIRES
10.0.0.5:7946   proxy  alive    70     1m1s   -        -            -       -     -         -        -
10.0.0.7:7946   agent  left     70     1m1s   web      10.0.0.7:80  3       -     left      4        -
10.0.0.8:7946   agent  suspect  70     0s     api      10.0.0.8:81  3       a     ready     4        -
10.0.0.8:7946   agent  suspect  70     0s     web      10.0.0.8:80  3       a     draining  4        -
[fd00::9]:7946  agent  down     70     1m1s   -        -            -       -     -         -        -
";
    assert_eq!(table(&set), expected);

    let report = with_tokens([1, 1_000_000_000, u64::MAX]);
    let text = table(&MembersPage::of(&report, false));
    for (member, end) in [
        (
            "10.0.0.7:7946 ",
            "left (expired)         4        1970-01-01T00:00:01Z",
        ),
        (
            "10.0.0.8:7946   agent  suspect  70     1m1s   web",
            "draining               4        2001-09-09T01:46:40Z",
        ),
        (
            "10.0.0.8:7946   agent  suspect  70     1m1s   api",
            "ready (not_permitted)  4        9999-12-31T23:59:59Z",
        ),
    ] {
        let line = text.lines().find(|line| line.starts_with(member));
        assert!(
            line.is_some_and(|line| line.ends_with(end)),
            "{end}\n{text}"
        );
    }
}

#[test]
fn the_first_line_is_about_the_set() {
    for (sealed, joined, conflict, expected) in [
        (true, true, false, "sealed by 0badcafe, joined"),
        (true, false, false, "sealed by 0badcafe, not joined yet"),
        (false, true, false, "NOT SEALED, joined"),
        (
            true,
            true,
            true,
            "sealed by 0badcafe, IN CONFLICT: another process uses this address",
        ),
    ] {
        let mut report = report();
        (report.joined, report.conflict) = (joined, conflict);
        if !sealed {
            report.key_ids.clear();
        }
        let text = table(&MembersPage::of(&report, false));
        let line = text.lines().next().unwrap();
        assert_eq!(
            line,
            format!("peer set prod as 10.0.0.5:7946 sees it: {expected}")
        );
    }
}

#[test]
fn text_from_the_network_is_escaped() {
    let odd = "\u{1b}[2J\r\n\u{9b}1m\u{7f}\u{202e}\u{200b}é'";
    let shown = r"\u{1b}[2J\r\n\u{9b}1m\u{7f}\u{202e}\u{200b}é'";
    let text = table_of(json!({
        "label": odd, "address": "127.0.0.1:1", "sealed": true, "key_ids": [odd], "joined": true, "conflict": false, "stale": true,
        "members": [{
            "address": "127.0.0.1:1", "role": odd, "state": odd, "epoch": 1, "changed_seconds_ago": 1e300,
            "records": [{
                "cluster": odd, "name": odd, "backend": "127.0.0.1:2", "weight": 1, "zone": odd, "state": odd,
                "build": odd, "epoch": 1, "version": 1, "seconds_ago": -1.0,
            }],
        }],
    }));
    assert_eq!(text.matches(shown).count(), 7, "{text}");
    assert_eq!(text.lines().count(), 3);
    let wild = |c: char| (c.is_control() && c != '\n') || ['\u{202e}', '\u{200b}'].contains(&c);
    assert!(!text.contains(wild), "{text:?}");

    let long = plain(&"x".repeat(1 << 20));
    assert_eq!(long, "x".repeat(MAX_CELL));
}

/// Starts the admin server of a proxy that has this report.
fn server(address: &BindAddress, report: Option<Report>) -> (String, watch::Sender<bool>) {
    let first = Arc::new(snapshot(1, Vec::new(), Vec::new()));
    let state = AdminState {
        publisher: Arc::new(Publisher::new(first, WORKERS)),
        process: Arc::default(),
        readiness: Arc::default(),
        started: Started::now(),
        workers: WORKERS,
        connections: 16,
        gossip: watch::channel(report.map(Arc::new)).1,
    };
    let socket = bind(address).unwrap();
    let address = socket.address();
    let (stop, stopped) = watch::channel(false);
    tokio::spawn(serve(socket, state, stopped));
    (address, stop)
}

fn unix(folder: &Path) -> BindAddress {
    BindAddress::Unix(UnixAddress::new(folder.join("admin.sock")).unwrap())
}

fn tcp(address: &str) -> BindAddress {
    BindAddress::Tcp(address.parse().unwrap())
}

fn target(address: &BindAddress) -> AdminTarget {
    AdminTarget::Admin(address.clone())
}

/// What is printed after a request to `address`, or the error.
async fn asked(address: &BindAddress, json: bool) -> Result<String, String> {
    answer(&target(address), json)
        .await
        .map(|text| String::from_utf8(text).unwrap())
        .map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn a_proxy_is_reached_over_tcp_and_a_unix_socket() {
    let folder = TempDir::new().unwrap();
    let unix = unix(folder.path());
    let (_, _unix) = server(&unix, Some(report()));
    let (address, _tcp) = server(&tcp("127.0.0.1:0"), Some(report()));
    for address in [unix, tcp(&address)] {
        let text = asked(&address, false).await.unwrap();
        assert_eq!(text, table(&MembersPage::of(&report(), false)));
        let text = asked(&address, true).await.unwrap();
        assert!(text.ends_with("}\n"), "{text}");
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            value,
            serde_json::to_value(MembersPage::of(&report(), false)).unwrap()
        );
    }
    let (address, _alone) = server(&tcp("127.0.0.1:0"), None);
    assert_eq!(
        asked(&tcp(&address), true).await.unwrap_err(),
        format!("{address}: the proxy has no [gossip], so it is in no peer set")
    );
}

/// A server that reads a head, writes `answer` `times` times and leaves the connection open.
async fn stranger(answer: Vec<u8>, times: usize) -> BindAddress {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        for _ in 0..times {
            // The client may close before everything is written.
            if socket.write_all(&answer).await.is_err() {
                return;
            }
        }
        let _ = socket.read_u8().await;
    });
    BindAddress::Tcp(address.into())
}

#[tokio::test]
async fn a_member_that_is_starting_is_waited_for() {
    let mut starting = report();
    (starting.set, starting.joined) = (Arc::default(), false);
    let ask = tcp("127.0.0.1:0");
    let (address, _server) = server(&ask, Some(starting));
    let answer_to = ask::get(&target(&tcp(&address)), PATH).await.unwrap();
    let (text, waits) = printed(answer_to.clone(), false).unwrap();
    let said = "peer set prod as 10.0.0.5:7946 sees it: sealed by 0badcafe, starting\n";
    assert!(waits && text.starts_with(said.as_bytes()));

    // A server whose first response is the empty set, and whose second is the whole set.
    let whole = serde_json::to_vec(&MembersPage::of(&report(), false)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = tcp(&listener.local_addr().unwrap().to_string());
    let twice = async {
        for body in [answer_to.1, whole] {
            let (mut socket, _) = listener.accept().await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            let answer = [head.as_bytes(), &body].concat();
            socket.write_all(&answer).await.unwrap();
            // Until the client has read it.
            let _ = socket.read_to_end(&mut Vec::new()).await;
        }
    };
    let (text, ()) = tokio::join!(asked(&address, false), twice);
    assert_eq!(text.unwrap(), table(&MembersPage::of(&report(), false)));
}

#[tokio::test]
async fn other_servers_are_distinguished_from_proxies() {
    let http = |status: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {status}\r\ncontent-length: {length}\r\n\r\n{body}").into_bytes()
    };
    for (answer, expected) in [
        (
            b"220 mail ESMTP\r\n\r\n".to_vec(),
            "does not answer like lbproxy: ",
        ),
        (
            http("404 Not Found", "no such page"),
            "status 404 Not Found without a list of members",
        ),
        (
            http("200 OK", "<html>"),
            "status 200 OK without a list of members",
        ),
        (http("200 OK", "{}"), "not lbproxy, or a different version"),
        (
            http("500 Internal Server Error", ""),
            "status 500 Internal Server Error without a list",
        ),
    ] {
        let address = stranger(answer, 1).await;
        let error = asked(&address, true).await.unwrap_err();
        assert!(error.contains(expected), "{error:?} lacks {expected:?}");
    }
}

#[tokio::test]
async fn an_endless_response_is_cut_off() {
    let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    answer.resize(ask::MAX_BODY / 8, b' ');
    let address = stranger(answer, 16).await;
    let error = asked(&address, false).await.unwrap_err();
    assert!(error.ends_with("length limit exceeded"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_answer_is_given_up() {
    let before = Instant::now();
    let address = stranger(Vec::new(), 0).await;
    let error = asked(&address, false).await.unwrap_err();
    assert_eq!(
        error,
        format!("{} has not answered within 5 s", target(&address))
    );
    assert!(before.elapsed() < Duration::from_secs(6));
}

#[tokio::test]
async fn a_missing_server_is_explained() {
    let free = tokio::net::TcpSocket::new_v4().unwrap();
    free.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let folder = TempDir::new().unwrap();
    for address in [
        BindAddress::Tcp(free.local_addr().unwrap().into()),
        unix(folder.path()),
    ] {
        assert_eq!(
            asked(&address, false).await.unwrap_err(),
            format!(
                "nobody listens on {}; is the proxy running, and with this [admin] address? (set it with --admin, -c or \
                 LBPROXY_ADMIN)",
                target(&address)
            )
        );
    }
    let error = asked(&tcp("127.0.0.1:0"), false).await.unwrap_err();
    assert!(error.starts_with("[admin] has port 0"), "{error}");
}
