//! The server over real sockets, with requests written by hand.

use std::path::Path;
use std::time::Instant;

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};
use tokio::task::JoinHandle;

use super::*;
use crate::admin::Started;
use crate::admin::members::tests::report;
use crate::admin::socket::bind;
use crate::gossip::view::{PeerSet, Report};
use crate::model::address::{BindAddress, UnixAddress};
use crate::model::health::Health;
use crate::snapshot::fixture::{WORKERS, cluster, endpoint, listener, snapshot};
use crate::snapshot::publish::Publisher;
use crate::telemetry::metrics::{ListenerMetrics, ProcessMetrics};
use crate::telemetry::outcome::BackendError;
use crate::telemetry::readiness::Readiness;

/// Connections at a time, fewer than in service, since tests run where descriptors are few.
const CONNECTIONS: usize = 8;

struct Running {
    readiness: Arc<Readiness>,
    gossip: watch::Sender<Option<Arc<Report>>>,
    stop: watch::Sender<bool>,
    task: JoinHandle<()>,
    address: String,
}

impl Running {
    fn start(address: BindAddress) -> Self {
        Self::with_limit(CONNECTIONS, address)
    }

    fn with_limit(connections: usize, address: BindAddress) -> Self {
        let mut endpoints = vec![
            endpoint("app", "10.0.0.1:80"),
            endpoint("app", "app.internal:80"),
        ];
        endpoints[0].weight = 3;
        endpoints[0].backend.set_note("check passed: status 200");
        let sheet = endpoints[0].metrics.sheet(1);
        sheet.requests.increment(200);
        sheet.requests.increment(503);
        sheet.connections.increment();
        sheet.errors[BackendError::Timeout.index()].increment();
        endpoints[1].backend.set_health(Health::UNRESOLVED);
        let down = endpoint("app", "[::1]:81");
        down.backend.set_health(Health::CHECK_DOWN);
        endpoints.push(down);
        let web = listener("web", "127.0.0.1:8080");
        web.metrics.sheet(0).connections.increment();
        let mut first = snapshot(7, vec![web], vec![Arc::new(cluster("app", endpoints))]);
        first.departing.listeners = vec![Arc::new(ListenerMetrics::new("old".into(), 1))];
        let gone = endpoint("gone", "10.0.0.9:80");
        gone.backend.set_departed(true);
        first.departing.endpoints = vec![gone];

        let process = Arc::new(ProcessMetrics::default());
        process.config_generation.add(4);
        let readiness = Arc::new(Readiness::default());
        let (gossip, reported) = watch::channel(None);
        let state = AdminState {
            publisher: Arc::new(Publisher::new(Arc::new(first), WORKERS)),
            process,
            readiness: readiness.clone(),
            started: Started::now(),
            workers: WORKERS,
            connections,
            gossip: reported,
        };
        let socket = bind(&address).unwrap();
        let address = socket.address();
        let (stop, stopped) = watch::channel(false);
        let task = tokio::spawn(serve(socket, state, stopped));
        Self {
            readiness,
            gossip,
            stop,
            task,
            address,
        }
    }

    fn tcp() -> Self {
        Self::start(BindAddress::Tcp("127.0.0.1:0".parse().unwrap()))
    }

    /// Sends `request` and returns the whole response.
    async fn ask(&self, request: &str) -> String {
        let stream = TcpStream::connect(&self.address).await.unwrap();
        exchange(stream, request).await
    }

    async fn get(&self, path: &str) -> String {
        self.ask(&format!(
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        ))
        .await
    }
}

async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, request: &str) -> String {
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

fn status_of(answer: &str) -> u16 {
    answer.split(' ').nth(1).unwrap().parse().unwrap()
}

fn body_of(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").unwrap().1
}

#[tokio::test]
async fn the_pages_and_no_other() {
    let running = Running::tcp();
    for (path, expected) in [
        ("/healthz", 200),
        ("/metrics", 200),
        ("/api/v1/status", 200),
        ("/metrics?x=1", 200),
        ("/", 404),
        ("/healthz/", 404),
        ("/Healthz", 404),
        ("/metrics/../healthz", 404),
        ("/api/v1/status/x", 404),
        ("/api/v1/members/x", 404),
    ] {
        assert_eq!(status_of(&running.get(path).await), expected, "{path}");
    }
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "TRACE"] {
        for path in ["/metrics", "/healthz", "/readyz", "/api/v1/status", PATH] {
            let request =
                format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            let answer = running.ask(&request).await;
            assert_eq!(status_of(&answer), 405, "{method} {path}");
            assert!(
                !answer.to_ascii_lowercase().contains("access-control"),
                "{answer}"
            );
        }
    }
    let head = running
        .ask("HEAD /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .await;
    assert_eq!(status_of(&head), 200);
    assert_eq!(body_of(&head), "");
    assert!(head.contains("content-length: "), "{head}");
}

#[tokio::test]
async fn readiness_goes_its_way() {
    let running = Running::tcp();
    let starting = running.get("/readyz").await;
    assert_eq!(
        (status_of(&starting), body_of(&starting)),
        (503, "starting\n")
    );
    running.readiness.advance(Stage::Ready);
    let ready = running.get("/readyz").await;
    assert_eq!((status_of(&ready), body_of(&ready)), (200, "ready\n"));
    running.readiness.advance(Stage::Draining);
    let draining = running.get("/readyz").await;
    assert_eq!(
        (status_of(&draining), body_of(&draining)),
        (503, "draining\n")
    );
    assert_eq!(body_of(&running.get("/healthz").await), "ok\n");
}

#[tokio::test]
async fn metrics_come_as_asked_for() {
    let running = Running::tcp();
    let plain = running.get("/metrics").await;
    assert!(
        plain.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"),
        "{plain}"
    );
    assert!(plain.contains("\nlbproxy_config_generation 4\n"));
    let request = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
        Accept: application/openmetrics-text; version=1.0.0\r\n\r\n";
    let open = running.ask(request).await;
    assert!(
        open.contains(
            "content-type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n"
        )
    );
    assert!(open.ends_with("# EOF\n"));
}

#[tokio::test]
async fn the_status_says_everything() {
    let running = Running::tcp();
    let answer = running.get("/api/v1/status").await;
    assert!(
        answer.contains("content-type: application/json\r\n"),
        "{answer}"
    );
    let status: Value = serde_json::from_str(body_of(&answer)).unwrap();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["pid"], std::process::id());
    assert_eq!(status["generation"], 4);
    assert_eq!(status["snapshot"], 7);
    assert_eq!(status["readiness"], "starting");
    assert_eq!(status["workers"], WORKERS);
    assert!(status["uptime_seconds"].is_u64());
    humantime::parse_rfc3339(status["started"].as_str().unwrap()).unwrap();
    let listeners = serde_json::json!([{
        "name": "web", "address": "127.0.0.1:8080", "addresses": ["127.0.0.1:8080"], "bound": ["127.0.0.1:8080"],
        "protocol": "http",
        "connections_active": 1, "connections_total": 1, "requests_total": 0,
    }]);
    assert_eq!(status["listeners"], listeners);
    let cluster = &status["clusters"][0];
    assert_eq!(cluster["name"], "app");
    assert_eq!(cluster["policy"], "round_robin");
    assert_eq!(cluster["panic"], false);
    assert_eq!(cluster["standby"], false);
    let mut first = cluster["backends"][0].clone();
    let since = first.as_object_mut().unwrap().remove("since").unwrap();
    humantime::parse_rfc3339(since.as_str().unwrap()).unwrap();
    let expected = serde_json::json!({
        "address": "10.0.0.1:80", "weight": 3, "backup": false, "state": "up",
        "reason": "check passed: status 200", "addresses": ["10.0.0.1:80"], "in_flight": 0,
        "requests_total": 2, "connections_total": 1, "errors_total": 1,
    });
    assert_eq!(first, expected);
    assert_eq!(cluster["backends"][1]["state"], "unresolved");
    assert_eq!(cluster["backends"][1]["addresses"], serde_json::json!([]));
    assert_eq!(cluster["backends"][2]["state"], "down");
    assert_eq!(status["departing"]["listeners"][0]["name"], "old");
    assert_eq!(status["departing"]["backends"][0]["cluster"], "gone");
    assert_eq!(status["departing"]["backends"][0]["state"], "draining");
}

#[tokio::test]
async fn the_peer_set_comes_and_goes() {
    let running = Running::tcp();
    let without = async || {
        let answer = running.get(PATH).await;
        assert_eq!((status_of(&answer), body_of(&answer)), (404, NO_GOSSIP));
        assert!(answer.contains("cache-control: no-store\r\n"), "{answer}");
        let status = running.get("/api/v1/status").await;
        let status: Value = serde_json::from_str(body_of(&status)).unwrap();
        assert_eq!(status.get("gossip"), None);
        let metrics = running.get("/metrics").await;
        assert!(!metrics.contains("\nlbproxy_gossip_"), "{metrics}");
    };
    without().await;
    running.gossip.send_replace(Some(Arc::new(report())));
    let answer = running.get(PATH).await;
    assert_eq!(status_of(&answer), 200);
    assert!(
        answer.contains("content-type: application/json\r\n"),
        "{answer}"
    );
    let set: Value = serde_json::from_str(body_of(&answer)).unwrap();
    assert_eq!(set["members"].as_array().unwrap().len(), 4);
    let status = running.get("/api/v1/status").await;
    let status: Value = serde_json::from_str(body_of(&status)).unwrap();
    assert_eq!(status["gossip"]["members"], set["members"]);
    assert_eq!(status["gossip"]["by_state"]["suspect"], 1);
    let metrics = running.get("/metrics").await;
    assert!(
        metrics.contains("\nlbproxy_gossip_records 3\n"),
        "{metrics}"
    );
    running.gossip.send_replace(None);
    without().await;
}

#[tokio::test]
async fn a_page_of_another_name_is_refused() {
    let running = Running::tcp();
    for (host, expected) in [
        ("127.0.0.1", 200),
        ("localhost:1234", 200),
        ("evil.example", 421),
        ("evil.example:9900", 421),
    ] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        assert_eq!(status_of(&running.ask(&request).await), expected, "{host}");
    }
    let without = running.ask("GET /healthz HTTP/1.0\r\n\r\n").await;
    assert_eq!(status_of(&without), 200);
    let absolute =
        "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    assert_eq!(status_of(&running.ask(absolute).await), 421);
}

#[tokio::test]
async fn a_large_head_is_refused() {
    let running = Running::tcp();
    let long = "x".repeat(2 * HEAD_BYTES);
    let request = format!("GET /{long} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut stream = TcpStream::connect(&running.address).await.unwrap();
    // It may be refused before all of it is sent.
    let _ = stream.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    assert!(
        !answer.starts_with(b"HTTP/1.1 2"),
        "{}",
        String::from_utf8_lossy(&answer)
    );
}

#[tokio::test]
async fn one_connection_asks_again_and_ends_with_the_server() {
    let running = Running::tcp();
    let mut stream = TcpStream::connect(&running.address).await.unwrap();
    for _ in 0..2 {
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(b"ok\n") {
            seen.push(stream.read_u8().await.unwrap());
        }
    }
    running.stop.send(true).unwrap();
    running.task.await.unwrap();
    assert_eq!(stream.read(&mut [0; 16]).await.unwrap(), 0, "closed");
}

#[tokio::test]
async fn the_most_silent_connection_gives_its_place_to_the_next_one() {
    let running = Running::tcp();
    let mut held = Vec::new();
    for _ in 0..3 * CONNECTIONS {
        let mut stream = TcpStream::connect(&running.address).await.unwrap();
        stream
            .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
            .await
            .unwrap();
        // Its answer shows that it has a place.
        stream.read_u8().await.unwrap();
        held.push(stream);
        assert_eq!(body_of(&running.get("/healthz").await), "ok\n");
    }
    let mut rest = Vec::new();
    held[0].read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"ok\n"), "it was closed after its answer");
}

#[tokio::test]
async fn who_is_being_answered_keeps_its_place_and_probes_have_theirs() {
    // Half of them are for probes.
    let running = Running::with_limit(2 * TEXTS, BindAddress::Tcp("127.0.0.1:0".parse().unwrap()));
    // Answers that nobody takes: the members' text is larger than what the sockets hold.
    let mut large = report();
    let member = large.set.members[0].clone();
    let mut set = PeerSet::clone(&large.set);
    set.members = vec![member; 40_000];
    large.set = Arc::new(set);
    running.gossip.send_replace(Some(Arc::new(large)));
    let mut held = Vec::new();
    for _ in 0..TEXTS {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_recv_buffer_size(4096).unwrap();
        let address = running.address.parse().unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request = format!("GET {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        // It is being answered.
        stream.read_u8().await.unwrap();
        held.push(stream);
    }
    let refused = running.get("/metrics").await;
    assert_eq!(status_of(&refused), 503);
    assert!(
        body_of(&refused).contains("only /healthz and /readyz"),
        "{refused}"
    );
    for _ in 0..3 {
        assert_eq!(body_of(&running.get("/healthz").await), "ok\n");
        assert_eq!(
            status_of(&running.get("/readyz").await),
            503,
            "it is starting"
        );
    }
}

#[tokio::test]
async fn who_asks_for_nothing_is_let_go_soon() {
    let running = Running::tcp();
    let began = Instant::now();
    let mut silent = TcpStream::connect(&running.address).await.unwrap();
    silent.write_all(b"GET /hea").await.unwrap();
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed");
    let took = began.elapsed();
    assert!(took >= FIRST_HEAD && took < HEAD_TIMEOUT, "{took:?}");
}

#[tokio::test]
async fn a_unix_socket_serves_and_goes() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("admin.sock");
    let running = Running::start(BindAddress::Unix(UnixAddress::new(&path).unwrap()));
    let stream = UnixStream::connect(&path).await.unwrap();
    // No browser comes this way, so any name will do.
    let request = "GET /healthz HTTP/1.1\r\nHost: any.example\r\nConnection: close\r\n\r\n";
    assert_eq!(body_of(&exchange(stream, request).await), "ok\n");
    drop(running.stop);
    running.task.await.unwrap();
    assert!(!Path::new(&path).exists());
}
