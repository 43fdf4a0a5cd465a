//! Tests the whole task: trials with a paused clock (they need no socket), checks against real listeners.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

use super::{MAX_PROBES, run};
use crate::model::address::SocketAddress;
use crate::model::backend::{Backend, BackendId, Doubt};
use crate::model::health::Health;
use crate::model::settings::{Check, CheckKind, OnDown, OnUp};
use crate::snapshot::fixture::{cluster, endpoint, rechecked, snapshot};
use crate::snapshot::publish::SessionOrder;
use crate::snapshot::{Cluster, Endpoint, Snapshot};
use crate::telemetry::capture::LogCapture;
use crate::telemetry::outcome::Reason;

/// The running task, with its inputs and outputs.
struct Task {
    snapshots: watch::Sender<Arc<Snapshot>>,
    reports: Arc<Notify>,
    orders: Arc<Mutex<Vec<SessionOrder>>>,
    task: JoinHandle<()>,
}

impl Task {
    fn start(clusters: Vec<Arc<Cluster>>) -> Self {
        let first = Arc::new(snapshot(1, Vec::new(), clusters));
        let (snapshots, receiver) = watch::channel(first);
        let reports = Arc::new(Notify::new());
        let orders = Arc::new(Mutex::new(Vec::new()));
        let written = Arc::clone(&orders);
        let task = tokio::spawn(run(
            receiver,
            reports.clone(),
            MAX_PROBES,
            Arc::new(move |order| written.lock().unwrap().push(order)),
        ));
        Self {
            snapshots,
            reports,
            orders,
            task,
        }
    }

    fn publish(&self, clusters: Vec<Arc<Cluster>>) {
        let generation = self.snapshots.borrow().generation + 1;
        self.snapshots
            .send(Arc::new(snapshot(generation, Vec::new(), clusters)))
            .unwrap();
    }

    /// The orders so far: whose sessions end, when and why.
    fn orders(&self) -> Vec<(BackendId, Option<Duration>, Reason)> {
        let orders = self.orders.lock().unwrap();
        orders
            .iter()
            .map(|order| (order.backend, order.after, order.why))
            .collect()
    }

    fn refuse(&self, backend: &Backend) {
        if backend.report_refused() {
            self.reports.notify_one();
        }
    }

    async fn stop(self) {
        drop(self.snapshots);
        self.task.await.unwrap();
    }
}

/// Waits for a condition; the limit only ends a test that fails. With a paused clock nothing is waited for in real
/// time.
async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let ended = tokio::time::timeout(Duration::from_secs(60), waiting).await;
    assert!(ended.is_ok(), "never: {what}");
}

fn reason(backend: &Backend) -> String {
    backend.note().reason
}

fn check(kind: CheckKind, interval: Duration) -> Check {
    Check {
        kind,
        interval,
        timeout: Duration::from_secs(30),
        rise: 2,
        fall: 3,
        port: None,
    }
}

fn http_check(interval: Duration) -> Check {
    let http = CheckKind::Http {
        path: "/".to_owned(),
        host: None,
        status: vec![(200, 299)],
        expect: None,
    };
    check(http, interval)
}

const OFTEN: Duration = Duration::from_millis(10);
const HARDLY_EVER: Duration = Duration::from_secs(3600);

/// What a server answers, and how often it has done so.
struct Answers {
    code: AtomicU16,
    answers: AtomicUsize,
}

/// A server that answers with the status that `Answers` has at the time.
async fn server() -> (SocketAddr, Arc<Answers>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let status = Arc::new(Answers {
        code: AtomicU16::new(200),
        answers: AtomicUsize::new(0),
    });
    let answers = status.clone();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut head = [0; 1024];
            let _ = socket.read(&mut head).await;
            let status = answers.code.load(Ordering::SeqCst);
            let answer = format!("HTTP/1.1 {status} Oh\r\ncontent-length: 0\r\n\r\n");
            let _ = socket.write_all(answer.as_bytes()).await;
            answers.answers.fetch_add(1, Ordering::SeqCst);
        }
    });
    (address, status)
}

fn checked(endpoints: Vec<Endpoint>, check: Check) -> Arc<Cluster> {
    Arc::new(rechecked(&cluster("web", endpoints), Some(check)))
}

#[tokio::test]
async fn a_checked_backend_falls_and_rises() {
    let (address, status) = server().await;
    let e = endpoint("web", &address.to_string());
    let b = e.backend.clone();
    let task = Task::start(vec![checked(vec![e], http_check(OFTEN))]);
    eventually("passes", || reason(&b) == "check passed: status 200").await;
    assert!(b.is_healthy());
    status.code.store(500, Ordering::SeqCst);
    eventually("falls", || b.health() == Health::CHECK_DOWN).await;
    eventually("has the reason", || {
        reason(&b) == "check failed: status 500"
    })
    .await;
    let since = b.note().since;
    status.code.store(503, Ordering::SeqCst);
    eventually("has the newest reason", || {
        reason(&b) == "check failed: status 503"
    })
    .await;
    assert_eq!(b.note().since, since, "it was down all the time");
    b.set_health(Health::REFUSED | Health::TRIAL);
    status.code.store(204, Ordering::SeqCst);
    eventually("rises", || b.is_healthy()).await;
    eventually("has the reason", || {
        reason(&b) == "check passed: status 204"
    })
    .await;
    task.stop().await;
}

#[tokio::test]
async fn one_failure_is_enough_at_first_and_a_refused_live_connection_always() {
    let (address, status) = server().await;
    status.code.store(500, Ordering::SeqCst);
    let (sick, refused) = (address.to_string(), server().await.0.to_string());
    let (sick, refused) = (endpoint("web", &sick), endpoint("web", &refused));
    let (s, r) = (sick.backend.clone(), refused.backend.clone());
    let task = Task::start(vec![checked(vec![sick, refused], http_check(HARDLY_EVER))]);
    eventually("down after one probe", || s.health() == Health::CHECK_DOWN).await;
    eventually("passes", || reason(&r) == "check passed: status 200").await;
    task.refuse(&r);
    eventually("down by traffic", || {
        r.health() == Health::CHECK_DOWN | Health::REFUSED
    })
    .await;
    eventually("has the reason", || {
        reason(&r) == "connection refused under live traffic"
    })
    .await;
    r.report_connected();
    assert_eq!(
        r.health(),
        Health::CHECK_DOWN,
        "only the check brings it up again"
    );
    task.stop().await;
}

#[tokio::test]
async fn a_changed_check_keeps_the_health_and_a_removed_one_resets_it() {
    let (address, status) = server().await;
    let e = endpoint("web", &address.to_string());
    let b = e.backend.clone();
    let first = checked(vec![e], http_check(OFTEN));
    let task = Task::start(vec![first.clone()]);
    eventually("passes", || reason(&b) == "check passed: status 200").await;

    status.code.store(500, Ordering::SeqCst);
    let mut patient = http_check(OFTEN);
    patient.fall = 1_000_000;
    task.publish(vec![Arc::new(rechecked(&first, Some(patient)))]);
    // Probes of the new check fail, but the backend stays healthy.
    let seen = status.answers.load(Ordering::SeqCst);
    eventually("is probed", || {
        status.answers.load(Ordering::SeqCst) >= seen + 3
    })
    .await;
    assert!(b.is_healthy());
    let probed = Arc::new(rechecked(&first, Some(check(CheckKind::Tcp, OFTEN))));
    task.publish(vec![probed]);
    eventually("another kind", || reason(&b) == "check passed: connected").await;
    assert!(b.is_healthy());

    task.publish(vec![Arc::new(rechecked(&first, Some(http_check(OFTEN))))]);
    eventually("falls", || b.health() == Health::CHECK_DOWN).await;
    task.publish(vec![Arc::new(rechecked(&first, None))]);
    eventually("unchecked", || b.is_healthy() && reason(&b) == "up").await;
    task.stop().await;
}

#[tokio::test]
async fn a_new_check_replaces_trials() {
    let (address, status) = server().await;
    status.code.store(500, Ordering::SeqCst);
    let e = endpoint("web", &address.to_string());
    let b = e.backend.clone();
    let unchecked = Arc::new(cluster("web", vec![e]));
    let task = Task::start(vec![unchecked.clone()]);
    task.refuse(&b);
    eventually("a trial", || b.health() == Health::REFUSED | Health::TRIAL).await;
    let checked = rechecked(&unchecked, Some(http_check(OFTEN)));
    task.publish(vec![Arc::new(checked)]);
    eventually("checked", || {
        b.health() == Health::CHECK_DOWN | Health::REFUSED
    })
    .await;
    status.code.store(200, Ordering::SeqCst);
    eventually("rises", || b.is_healthy()).await;
    task.stop().await;
}

#[tokio::test]
async fn a_backend_that_leaves_and_returns_is_monitored_again() {
    let (address, status) = server().await;
    let e = endpoint("web", &address.to_string());
    let b = e.backend.clone();
    let with = checked(vec![e], http_check(OFTEN));
    let without = checked(Vec::new(), http_check(OFTEN));
    let task = Task::start(vec![with.clone()]);
    eventually("passes", || reason(&b) == "check passed: status 200").await;
    status.code.store(500, Ordering::SeqCst);
    eventually("falls", || b.health() == Health::CHECK_DOWN).await;
    for gone in [vec![without], Vec::new()] {
        task.publish(gone);
        status.code.store(200, Ordering::SeqCst);
        task.publish(vec![Arc::new(rechecked(&with, Some(http_check(OFTEN))))]);
        eventually("rises", || b.is_healthy()).await;
        status.code.store(500, Ordering::SeqCst);
        eventually("falls", || b.health() == Health::CHECK_DOWN).await;
    }
    task.stop().await;
}

/// An endpoint that the peer set has added, as the configuration compiler makes it.
fn joining(address: SocketAddr) -> Endpoint {
    let e = endpoint("web", &address.to_string());
    e.backend.set_health(Health::CHECK_DOWN | Health::JOINING);
    e.backend.set_note("joined the peer set, not checked yet");
    e
}

#[tokio::test]
async fn a_joining_backend_goes_up_or_down_by_its_first_result_and_that_is_logged_once() {
    let lines = LogCapture::begin();
    let (good, bad, refused) = (server().await, server().await, server().await);
    bad.1.code.store(500, Ordering::SeqCst);
    let endpoints = [&good, &bad, &refused].map(|server| joining(server.0));
    let [g, b, r] = endpoints.each_ref().map(|e| e.backend.clone());
    let mut patient = http_check(HARDLY_EVER);
    patient.rise = 1_000_000;
    let task = Task::start(vec![checked(Vec::new(), patient.clone())]);
    let cluster = checked(endpoints.into(), patient);
    task.publish(vec![cluster.clone()]);
    // The first probe comes soon although the interval is an hour.
    eventually("a first pass", || {
        [&good, &refused]
            .iter()
            .all(|server| server.1.answers.load(Ordering::SeqCst) >= 1)
    })
    .await;
    eventually("a first failure", || b.health() == Health::CHECK_DOWN).await;
    eventually("has the reason", || {
        reason(&b) == "check failed: status 500"
    })
    .await;
    assert_eq!(
        g.health(),
        Health::CHECK_DOWN | Health::JOINING,
        "`rise` is not reached"
    );
    assert_eq!(lines.count("backend is up"), 0);
    assert_eq!(lines.count("backend is down"), 1, "only the failure");
    task.refuse(&r);
    eventually("refused", || {
        r.health() == Health::CHECK_DOWN | Health::REFUSED
    })
    .await;
    let again = rechecked(&cluster, Some(http_check(OFTEN)));
    task.publish(vec![Arc::new(again)]);
    eventually("up", || g.is_healthy() && r.is_healthy()).await;
    eventually("logged", || lines.count("backend is up") == 2).await;
    assert_eq!(lines.count("backend is down"), 2);
    assert_eq!(
        lines.count("so all are used"),
        1,
        "only when all backends with a result are down"
    );
    task.stop().await;
}

#[tokio::test]
async fn a_joining_backend_does_not_wait_for_the_interval() {
    let (address, status) = server().await;
    let e = joining(address);
    let b = e.backend.clone();
    let task = Task::start(vec![checked(Vec::new(), http_check(HARDLY_EVER))]);
    let (other, often) = server().await;
    let often_probed = cluster("often", vec![endpoint("often", &other.to_string())]);
    task.publish(vec![
        checked(vec![e], http_check(HARDLY_EVER)),
        Arc::new(rechecked(&often_probed, Some(http_check(OFTEN)))),
    ]);
    eventually("up after `rise` probes", || b.is_healthy()).await;
    // A server counts an answer after sending it.
    eventually("probed", || status.answers.load(Ordering::SeqCst) >= 2).await;
    let before = often.answers.load(Ordering::SeqCst);
    eventually("many more probes of the other", || {
        often.answers.load(Ordering::SeqCst) >= before + 30
    })
    .await;
    assert_eq!(
        status.answers.load(Ordering::SeqCst),
        2,
        "afterwards the interval applies"
    );
    task.stop().await;
}

#[tokio::test]
async fn a_backend_that_left_and_returned_unnoticed_rises_again() {
    let (address, _status) = server().await;
    let e = endpoint("web", &address.to_string());
    let b = e.backend.clone();
    let first = checked(vec![e], http_check(OFTEN));
    let task = Task::start(vec![first.clone()]);
    eventually("passes", || reason(&b) == "check passed: status 200").await;
    b.set_health(Health::CHECK_DOWN | Health::JOINING);
    task.publish(vec![Arc::new(rechecked(&first, Some(http_check(OFTEN))))]);
    eventually("rises", || b.is_healthy()).await;
    task.stop().await;
}

#[tokio::test]
async fn a_doubt_causes_a_probe_at_once_and_one_failure_is_enough() {
    let (address, status) = server().await;
    let e = endpoint("web", &address.to_string());
    let b = e.backend.clone();
    let task = Task::start(vec![checked(vec![e], http_check(HARDLY_EVER))]);
    eventually("passes", || reason(&b) == "check passed: status 200").await;

    let doubt = || {
        assert!(b.raise_doubt());
        task.reports.notify_one();
    };
    doubt();
    eventually("answered", || b.doubt() == Doubt::Answered).await;
    assert!(b.is_healthy());
    b.end_doubt();
    status.code.store(500, Ordering::SeqCst);
    doubt();
    eventually("down", || b.health() == Health::CHECK_DOWN).await;
    eventually("has the reason", || {
        reason(&b) == "check failed: status 500"
    })
    .await;
    assert_eq!(b.doubt(), Doubt::Probing);
    task.stop().await;
}

#[tokio::test]
async fn a_probe_that_hangs_does_not_answer_a_doubt() {
    // Accepts connections and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = silent.local_addr().unwrap();
    let e = endpoint("web", &address.to_string());
    let b = e.backend.clone();
    let task = Task::start(vec![checked(vec![e], http_check(HARDLY_EVER))]);
    let (_hangs, _) = silent.accept().await.unwrap();
    assert!(b.raise_doubt());
    task.reports.notify_one();
    let (mut second, _) = silent.accept().await.unwrap();
    second
        .write_all(b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n")
        .await
        .unwrap();
    eventually("down", || b.health() == Health::CHECK_DOWN).await;
    task.stop().await;
}

#[tokio::test]
async fn a_name_is_unresolved_until_it_has_an_address() {
    let (address, _status) = server().await;
    let e = endpoint("web", "app.internal:80");
    let b = e.backend.clone();
    let first = checked(vec![e.clone()], http_check(OFTEN));
    let task = Task::start(vec![first.clone()]);
    eventually("unresolved", || b.health() == Health::UNRESOLVED).await;
    assert_eq!(reason(&b), "name not resolved");
    eventually("is in panic mode", || first.in_panic()).await;
    let mut resolved = e;
    resolved.address = Some(address.into());
    let mut next = rechecked(&first, Some(http_check(OFTEN)));
    next.endpoints = vec![resolved];
    task.publish(vec![Arc::new(next)]);
    eventually("passes", || {
        b.is_healthy() && reason(&b) == "check passed: status 200"
    })
    .await;
    task.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_backend_without_a_check_gets_trials() {
    let e = endpoint("web", "10.0.0.1:80");
    let b = e.backend.clone();
    let c = Arc::new(cluster("web", vec![e, endpoint("web", "10.0.0.2:80")]));
    let task = Task::start(vec![c.clone()]);
    eventually("up", || reason(&b) == "up").await;

    let mut waits = Vec::new();
    for _ in 0..7 {
        task.refuse(&b);
        let from = tokio::time::Instant::now();
        eventually("a trial", || b.health().contains(Health::TRIAL)).await;
        waits.push(from.elapsed().as_secs());
        assert!(c.state.has_trials());
        assert!(b.claim_trial());
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    assert_eq!(reason(&b), "connection refused under live traffic");

    // The last trial is claimed but has no result; later another one is granted.
    let from = tokio::time::Instant::now();
    eventually("another trial", || b.health().contains(Health::TRIAL)).await;
    assert!(
        (30..=33).contains(&from.elapsed().as_secs()),
        "{:?}",
        from.elapsed()
    );
    // A pick that had searched before the grant clears the flag.
    c.state.set_trials(false);
    eventually("reminded", || c.state.has_trials()).await;

    assert!(b.claim_trial());
    assert!(b.report_connected());
    task.reports.notify_one();
    eventually("up again", || reason(&b) == "up").await;
    assert!(b.is_healthy());

    task.refuse(&b);
    let from = tokio::time::Instant::now();
    eventually("the first wait again", || {
        b.health().contains(Health::TRIAL)
    })
    .await;
    assert_eq!(from.elapsed().as_secs(), 1);
    task.stop().await;
}

#[tokio::test(start_paused = true)]
async fn transitions_and_panic_mode_are_logged_once() {
    let lines = LogCapture::begin();
    let endpoints: Vec<_> = (1..=3)
        .map(|i| endpoint("web", &format!("10.0.0.{i}:80")))
        .collect();
    let backends: Vec<_> = endpoints.iter().map(|e| e.backend.clone()).collect();
    let mut c = cluster("web", endpoints);
    c.settings.panic_threshold = Some(0.5);
    let c = Arc::new(c);
    let task = Task::start(vec![c.clone()]);

    for b in &backends[..2] {
        task.refuse(b);
        task.refuse(b);
    }
    eventually("panic", || c.state.in_panic()).await;
    // A new generation does not log it again.
    let mut next = rechecked(&c, None);
    next.settings.panic_threshold = Some(0.5);
    let next = Arc::new(next);
    task.publish(vec![next.clone()]);
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(lines.count("backend is down"), 2);
    assert_eq!(lines.count("so all are used"), 1);

    for b in &backends {
        b.report_connected();
    }
    task.reports.notify_one();
    eventually("no panic", || !next.in_panic() && !next.state.in_panic()).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(lines.count("backend is up"), 2);
    assert_eq!(lines.count("enough backends are healthy again"), 1);

    for b in &backends {
        task.refuse(b);
    }
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(lines.count("so all are used"), 2);
    task.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cluster_that_loses_its_last_backend_in_panic_mode_is_not_healthy_again() {
    let lines = LogCapture::begin();
    let e = endpoint("web", "10.0.0.1:80");
    let b = e.backend.clone();
    let c = Arc::new(cluster("web", vec![e]));
    let task = Task::start(vec![c.clone()]);
    task.refuse(&b);
    eventually("panic", || lines.count("so all are used") == 1).await;
    let mut next = rechecked(&c, None);
    next.endpoints = Vec::new();
    task.publish(vec![Arc::new(next)]);
    eventually("logged", || lines.count("no backend is left") == 1).await;
    assert_eq!(lines.count("healthy again"), 0);
    task.stop().await;
}

#[tokio::test]
async fn ten_thousand_backends_are_probed() {
    // Bound but not listening, so that every connection is refused at once.
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("0.0.0.0:0".parse().unwrap()).unwrap();
    let port = socket.local_addr().unwrap().port();
    let endpoints: Vec<_> = (0..10_000)
        .map(|i| endpoint("web", &format!("127.1.{}.{}:{port}", i / 250, i % 250 + 1)))
        .collect();
    let c = checked(endpoints, check(CheckKind::Tcp, Duration::from_secs(2)));
    let task = Task::start(vec![c.clone()]);
    eventually("all are down", || {
        c.endpoints
            .iter()
            .all(|e| e.backend.health() == Health::CHECK_DOWN)
    })
    .await;
    assert!(c.in_panic());
    assert_eq!(
        reason(&c.endpoints[9_999].backend),
        "check failed: connection refused"
    );
    task.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_ends_sessions_as_on_down_says() {
    let close = Some(Duration::ZERO);
    let drain = Some(Duration::from_secs(30));
    for (on_down, down, up) in [
        (OnDown::Keep, None, None),
        (OnDown::Close, Some(close), None),
        (OnDown::Drain, Some(drain), Some(None)),
    ] {
        let (e, other) = (
            endpoint("web", "127.0.0.1:9"),
            endpoint("web", "127.0.0.2:9"),
        );
        let b = e.backend.clone();
        let mut c = cluster("web", vec![e, other]);
        c.settings.on_down = on_down;
        let task = Task::start(vec![Arc::new(c)]);
        task.refuse(&b);
        eventually("is seen", || {
            reason(&b) == "connection refused under live traffic"
        })
        .await;
        let order = |after| (b.id(), after, Reason::BackendDown);
        let expected: Vec<_> = down.map(order).into_iter().collect();
        eventually("is ordered", || task.orders() == expected).await;
        assert!(b.report_connected());
        task.reports.notify_one();
        eventually("is up", || reason(&b) == "up").await;
        let expected: Vec<_> = down.into_iter().chain(up).map(order).collect();
        eventually("is ordered", || task.orders() == expected).await;
        task.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn backups_take_over_and_retain_traffic_or_are_closed() {
    for on_up in [OnUp::Keep, OnUp::CloseBackups, OnUp::Stay] {
        let (first, mut spare) = (
            endpoint("web", "127.0.0.1:9"),
            endpoint("web", "127.0.0.2:9"),
        );
        spare.backup = true;
        let (a, b) = (first.backend.clone(), spare.backend.clone());
        let mut c = cluster("web", vec![first, spare]);
        c.settings.on_up = on_up;
        let c = Arc::new(c);
        let task = Task::start(vec![c.clone()]);
        task.refuse(&a);
        b.start();
        let stays = on_up == OnUp::Stay;
        let seen = || reason(&a) == "connection refused under live traffic";
        eventually("takes over", || seen() && c.state.on_standby() == stays).await;
        assert_eq!(task.orders(), []);
        a.report_connected();
        task.reports.notify_one();
        eventually("is back", || reason(&a) == "up").await;
        if on_up == OnUp::CloseBackups {
            let order = (b.id(), Some(Duration::ZERO), Reason::PrimaryUp);
            eventually("closes", || task.orders().contains(&order)).await;
        } else {
            assert_eq!(task.orders(), []);
        }
        assert_eq!(c.state.on_standby(), stays);
        task.refuse(&b);
        eventually("gives traffic back", || !c.state.on_standby()).await;
        task.stop().await;
    }
}

/// A cluster of an unresolved primary `db.internal` and a backup, with `on_up = "stay"`.
fn unresolved_with_standby() -> Cluster {
    let (primary, mut spare) = (
        endpoint("web", "db.internal:5432"),
        endpoint("web", "127.0.0.2:9"),
    );
    spare.backup = true;
    let mut c = cluster("web", vec![primary, spare]);
    c.settings.on_up = OnUp::Stay;
    c
}

#[tokio::test(start_paused = true)]
async fn backups_do_not_retain_traffic_before_the_primary_is_resolved() {
    let first = Arc::new(unresolved_with_standby());
    let primary = first.endpoints[0].backend.clone();
    let task = Task::start(vec![first.clone()]);
    eventually("unresolved", || primary.health() == Health::UNRESOLVED).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!first.state.on_standby(), "the primary has never been down");
    let mut next = rechecked(&first, None);
    next.endpoints[0].address = Some(SocketAddress::Ip("127.0.0.1:9".parse().unwrap()));
    task.publish(vec![Arc::new(next)]);
    eventually("resolved", || primary.is_healthy()).await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(!first.state.on_standby());
    task.refuse(&primary);
    eventually("takes over", || first.state.on_standby()).await;
    task.stop().await;
}

#[tokio::test]
async fn backups_do_not_retain_traffic_before_a_primary_has_joined() {
    let listening = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut spare = endpoint("web", &listening.local_addr().unwrap().to_string());
    spare.backup = true;
    let b = spare.backend.clone();
    let mut alone = cluster("web", vec![spare]);
    alone.settings.on_up = OnUp::Stay;
    alone.settings.check = Some(check(CheckKind::Tcp, HARDLY_EVER));
    let alone = Arc::new(alone);
    let task = Task::start(vec![alone.clone()]);
    eventually("passes", || reason(&b).starts_with("check passed")).await;
    assert!(!alone.state.on_standby(), "there never was a primary");
    // The peer set adds a primary, whose first result is outstanding.
    let joins = endpoint("web", "db.internal:5432");
    let a = joins.backend.clone();
    a.set_health(Health::CHECK_DOWN | Health::JOINING);
    let mut next = rechecked(&alone, alone.settings.check.clone());
    next.endpoints.push(joins);
    let next = Arc::new(next);
    task.publish(vec![next.clone()]);
    eventually("is followed", || reason(&a) == "name not resolved").await;
    assert!(!alone.state.on_standby());
    // It gets its result, and leaves.
    let mut known = rechecked(&next, None);
    known.endpoints[1].address = Some(listening.local_addr().unwrap().into());
    let known = Arc::new(known);
    task.publish(vec![known.clone()]);
    eventually("is up", || a.is_healthy()).await;
    assert!(!alone.state.on_standby());
    let mut left = rechecked(&known, None);
    left.endpoints.truncate(1);
    task.publish(vec![Arc::new(left)]);
    eventually("takes over", || alone.state.on_standby()).await;
    task.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_connection_is_processed_before_the_backend_is_forgotten() {
    let lines = LogCapture::begin();
    for (on_down, after) in [
        (OnDown::Close, Duration::ZERO),
        (OnDown::Drain, Duration::from_secs(30)),
    ] {
        let (e, next) = (
            endpoint("web", "127.0.0.1:9"),
            endpoint("web", "127.0.0.2:9"),
        );
        let b = e.backend.clone();
        let mut c = cluster("web", vec![e]);
        c.settings.on_down = on_down;
        let task = Task::start(vec![Arc::new(c)]);
        eventually("up", || reason(&b) == "up").await;
        let mut moved = cluster("web", vec![next]);
        moved.settings.on_down = on_down;
        // Both before the health task runs again, as when control moves on to the next address of a name.
        b.report_refused();
        task.publish(vec![Arc::new(moved)]);
        let order = (b.id(), Some(after), Reason::BackendDown);
        eventually("is ordered", || task.orders() == [order]).await;
        task.stop().await;
    }
    assert_eq!(lines.count("backend is down"), 2);
}
