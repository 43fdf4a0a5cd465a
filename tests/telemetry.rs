//! Counts that equal what clients and backends counted, valid exposition, the admin server, the access log.

use std::os::unix::fs::PermissionsExt;

use crate::support::alone;
use crate::support::backend::{Answer, Backend, Step};
use crate::support::client::{Client, get};
use crate::support::load::Load;
use crate::support::metrics::{Format, Metrics};
use crate::support::port::Port;
use crate::support::process::{ACCESS_LOG, Proxy, complete, web};
use crate::support::wait::{PATIENCE, wait_until};
use rustix::process::Signal;

#[test]
fn metrics_equal_the_load_generators_own_counts_to_the_last_request() {
    let _one = alone();
    let all = ["a", "b", "c"].map(Backend::start);
    for backend in &all {
        let id = backend.id().to_owned();
        backend.behave(move |r| {
            let status = match r.target.as_bytes().last() {
                Some(b'3') => 404,
                Some(b'7') => 503,
                _ => 200,
            };
            Answer::new(status, format!("{id} {}", r.target))
        });
    }
    let proxy = Proxy::start(
        &("workers = 2\n".to_owned() + &web(&[&all[0], &all[1], &all[2]], ACCESS_LOG)),
    );
    let report = Load::to(proxy.addr("web"))
        .connections(16)
        .total(20_000)
        .run();
    assert_eq!(
        report.by_status,
        [(200, 16_000), (404, 2_000), (503, 2_000)].into()
    );
    let listener = ("listener", "web");
    proxy.wait_counts(&[
        ("lbproxy_requests_total", &[listener], 20_000),
        ("lbproxy_connections_active", &[listener], 0),
        ("lbproxy_connections_total", &[listener], report.opened),
        (
            "lbproxy_request_duration_seconds_count",
            &[listener],
            20_000,
        ),
        (
            "lbproxy_bytes_total",
            &[listener, ("direction", "in")],
            report.bytes.0,
        ),
        (
            "lbproxy_bytes_total",
            &[listener, ("direction", "out")],
            report.bytes.1,
        ),
    ]);
    for (status, n) in &report.by_status {
        let code = status.to_string();
        proxy.wait_counts(&[
            ("lbproxy_requests_total", &[listener, ("code", &code)], *n),
            ("lbproxy_backend_requests_total", &[("code", &code)], *n),
        ]);
    }
    for backend in &all {
        let label = backend.addr.to_string();
        let labels = [("cluster", "web"), ("backend", &*label)];
        let n = report.of(backend.id());
        proxy.wait_counts(&[
            ("lbproxy_backend_requests_total", &labels, n),
            ("lbproxy_backend_response_seconds_count", &labels, n),
            (
                "lbproxy_backend_connections_total",
                &labels,
                backend.connections(),
            ),
            ("lbproxy_backend_in_flight", &labels, 0),
            ("lbproxy_backend_up", &labels, 1),
        ]);
        assert_eq!(proxy.backend("web", &label)["requests_total"], n);
        assert_eq!(proxy.backend("web", &label)["in_flight"], 0);
    }
    let status = &proxy.status()["listeners"][0];
    assert_eq!(status["requests_total"], 20_000);
    assert_eq!(status["connections_total"], report.opened);
    assert_eq!(status["connections_active"], 0);
    // The log is written off the workers and bounded: what is not in it has been counted as dropped.
    wait_until(
        PATIENCE,
        "every request is a line or a counted drop",
        || {
            let lines = proxy.access_log().len() as u64;
            lines + proxy.count("lbproxy_log_dropped_total", &[("log", "access")]) == 20_000
        },
    );
}

#[test]
fn every_metric_of_the_language_is_there_with_its_type() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    a.script(|| vec![Step::Close]);
    b.script(|| vec![Step::Close]);
    let proxy = Proxy::start(&web(
        &[&a, &b],
        "[[route]]\npath = \"/none\"\nrespond = {}\n",
    ));
    let mut client = Client::connect(proxy.addr("web"));
    assert_eq!(client.get("/retried").status, 502);
    assert_eq!(client.get("/none").status, 200);
    proxy.wait_count("lbproxy_requests_total", &[], 2);
    let metrics = proxy.metrics();
    for (family, kind) in [
        ("lbproxy_connections_total", "counter"),
        ("lbproxy_connections_active", "gauge"),
        ("lbproxy_requests_total", "counter"),
        ("lbproxy_request_duration_seconds", "histogram"),
        ("lbproxy_bytes_total", "counter"),
        ("lbproxy_backend_requests_total", "counter"),
        ("lbproxy_backend_response_seconds", "histogram"),
        ("lbproxy_backend_connections_total", "counter"),
        ("lbproxy_backend_in_flight", "gauge"),
        ("lbproxy_backend_errors_total", "counter"),
        ("lbproxy_backend_up", "gauge"),
        ("lbproxy_rejected_total", "counter"),
        ("lbproxy_retries_total", "counter"),
        ("lbproxy_cluster_panic", "gauge"),
        ("lbproxy_log_dropped_total", "counter"),
        ("lbproxy_config_reloads_total", "counter"),
        ("lbproxy_config_generation", "gauge"),
        ("lbproxy_config_last_reload_success", "gauge"),
        ("lbproxy_build_info", "gauge"),
    ] {
        assert_eq!(metrics.kind(family), Some(kind), "{family}");
    }
    assert_eq!(metrics.count("lbproxy_build_info", &[]), 1);
    let prefixed = |family: &str| family.starts_with("lbproxy_") || family.starts_with("process_");
    assert!(metrics.families().all(prefixed));
    let allowed = [
        "listener",
        "cluster",
        "backend",
        "code",
        "reason",
        "result",
        "direction",
        "le",
        "log",
    ];
    for sample in metrics
        .samples()
        .iter()
        .filter(|s| s.name != "lbproxy_build_info")
    {
        let mut labels = sample.labels.keys();
        assert!(labels.all(|l| allowed.contains(&l.as_str())), "{sample:?}");
    }
}

#[test]
fn latency_buckets_go_from_half_a_millisecond_to_a_minute() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    get(proxy.addr("web"), "/");
    proxy.wait_count("lbproxy_request_duration_seconds_count", &[], 1);
    let metrics = proxy.metrics();
    let name = "lbproxy_request_duration_seconds_bucket";
    let buckets = metrics.samples().iter().filter(|s| s.name == name);
    let bounds: Vec<f64> = buckets
        .map(|s| s.labels["le"].replace("+Inf", "inf").parse().unwrap())
        .collect();
    assert_eq!(bounds[..5], [0.0005, 0.00075, 0.001, 0.0015, 0.002]);
    assert_eq!(bounds[bounds.len() - 2..], [60.0, f64::INFINITY]);
}

#[test]
fn openmetrics_is_given_to_who_asks_for_it() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    get(proxy.addr("web"), "/");
    // A request is counted when its answer has gone out, which the client may see first.
    proxy.wait_count("lbproxy_requests_total", &[], 1);
    let plain = proxy.admin("/metrics");
    let kind = plain.fields.get("content-type").unwrap();
    assert!(
        kind.starts_with("text/plain") && kind.contains("version=0.0.4"),
        "{kind}"
    );
    // As Prometheus asks.
    let accept = "accept: application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1\r\n";
    let open = proxy.admin_with("/metrics", accept);
    let kind = open.fields.get("content-type").unwrap();
    assert!(kind.starts_with("application/openmetrics-text"), "{kind}");
    let metrics = Metrics::parse(open.text(), Format::OpenMetrics);
    let metrics = metrics.unwrap_or_else(|e| panic!("{e}\n{}", open.text()));
    assert_eq!(
        metrics.count(
            "lbproxy_requests_total",
            &[("listener", "web"), ("code", "200")]
        ),
        1
    );
    let accept = "accept: text/plain\r\n";
    assert_eq!(
        proxy
            .admin_with("/metrics", accept)
            .fields
            .get("content-type"),
        plain.fields.get("content-type")
    );
}

#[test]
fn the_admin_server_is_read_only_and_private() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ""));
    assert_eq!(proxy.admin("/healthz").status, 200);
    assert_eq!(proxy.admin("/readyz").status, 200);
    let status = proxy.admin("/api/v1/status");
    assert!(
        status
            .fields
            .get("content-type")
            .unwrap()
            .starts_with("application/json")
    );
    for unknown in ["/", "/metricsx", "/metrics/x", "/api/v1/statusx", "/api"] {
        assert_eq!(proxy.admin(unknown).status, 404, "{unknown}");
    }
    let socket = proxy.dir().join("admin.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let mut client = Client::over(std::os::unix::net::UnixStream::connect(&socket).unwrap());
    assert_eq!(client.request("POST", "/metrics", "", b"x").status, 405);
}

#[test]
fn the_status_shows_listeners_clusters_and_backends() {
    let (a, b) = (Backend::start("a"), Backend::start("b"));
    let proxy = Proxy::start(&web(&[&a, &b], "policy = \"random\""));
    let status = proxy.status();
    assert!(status["generation"].as_u64().unwrap() >= 1, "{status:#}");
    let listener = &status["listeners"][0];
    assert_eq!(listener["name"], "web");
    assert_eq!(listener["address"], "127.0.0.1:0");
    assert_eq!(listener["protocol"], "http");
    let cluster = &status["clusters"][0];
    assert_eq!(
        (&cluster["name"], &cluster["policy"]),
        (&"web".into(), &"random".into())
    );
    assert_eq!(cluster["panic"], false);
    let backend = &cluster["backends"][1];
    assert_eq!(backend["address"], b.addr.to_string());
    assert_eq!(
        (&backend["weight"], &backend["backup"]),
        (&1.into(), &false.into())
    );
    assert_eq!(backend["state"], "up");
    assert!(!backend["reason"].as_str().unwrap().is_empty());
}

const ORDER: [&str; 22] = [
    "time",
    "listener",
    "client",
    "peer",
    "id",
    "protocol",
    "method",
    "host",
    "uri",
    "status",
    "reason",
    "route",
    "cluster",
    "backend",
    "attempts",
    "bytes_in",
    "bytes_out",
    "duration_ms",
    "connect_ms",
    "response_ms",
    "user_agent",
    "referer",
];

#[test]
fn the_access_log_has_its_fields_in_order_and_leaves_absent_ones_out() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    let mut client = Client::connect(proxy.addr("web"));
    let fields = "user-agent: Tester \"1\\0\"\u{1f600}\r\nreferer: http://a/\r\n";
    client.request("POST", "/full?x=\"y\"", fields, b"body");
    client.get("/plain");
    let line = proxy.wait_access("/full?x=\"y\"");
    assert_eq!(line["listener"], "web");
    assert_eq!(line["client"], "127.0.0.1");
    assert_eq!(line["peer"], client.local_addr().to_string());
    assert_eq!(line["protocol"], "HTTP/1.1");
    assert_eq!(
        (&line["method"], &line["host"]),
        (&"POST".into(), &"test".into())
    );
    assert_eq!(
        (&line["status"], &line["attempts"]),
        (&200.into(), &1.into())
    );
    assert_eq!(
        (&line["cluster"], &line["backend"]),
        (&"web".into(), &backend.addr.to_string().into())
    );
    assert_eq!(line["user_agent"], "Tester \"1\\0\"\u{1f600}");
    assert_eq!(line["referer"], "http://a/");
    for number in [
        "bytes_in",
        "bytes_out",
        "duration_ms",
        "connect_ms",
        "response_ms",
    ] {
        assert!(line[number].is_number(), "{number}: {line}");
    }
    let time = line["time"].as_str().unwrap();
    assert!(
        time.len() == 24 && time.ends_with('Z') && &time[19..20] == ".",
        "{time}"
    );
    let plain = proxy.wait_access("/plain");
    for absent in ["reason", "route", "user_agent", "referer"] {
        assert!(plain.get(absent).is_none(), "{absent}: {plain}");
    }
    let text = std::fs::read_to_string(proxy.dir().join("access.log")).unwrap();
    for line in text.lines() {
        let places: Vec<usize> = ORDER
            .iter()
            .filter_map(|name| line.find(&format!("\"{name}\":")))
            .collect();
        assert!(places.is_sorted(), "{line}");
        let known =
            serde_json::from_str::<serde_json::Map<String, serde_json::Value>>(line).unwrap();
        assert!(known.keys().all(|k| ORDER.contains(&k.as_str())), "{line}");
    }
}

#[test]
fn the_access_log_shows_no_queries_if_it_is_told_so() {
    let backend = Backend::start("a");
    let log = |query| format!("[log]\naccess = {{ file = \"access.log\", query = {query} }}\n");
    let proxy = Proxy::start(&web(&[&backend], &log(false)));
    let mut client = Client::connect(proxy.addr("web"));
    let fields = "referer: http://a/page?token=secret\r\n";
    client.request("GET", "/a?token=secret?b", fields, b"");
    assert_eq!(proxy.wait_access("/a")["referer"], "http://a/page");
    client.get("http://test/absolute?token=secret");
    proxy.wait_access("/absolute");
    let text = std::fs::read_to_string(proxy.dir().join("access.log")).unwrap();
    assert!(!text.contains("secret"), "{text}");
    proxy.reload_ok(&web(&[&backend], &log(true)));
    client.get("/b?shown");
    proxy.wait_access("/b?shown");
}

#[test]
fn the_access_log_is_reopened_on_sigusr1_and_loses_nothing() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(&[&backend], ACCESS_LOG));
    let mut client = Client::connect(proxy.addr("web"));
    let path = proxy.dir().join("access.log");
    for round in 0..3 {
        client.get(&format!("/before/{round}"));
        proxy.wait_access(&format!("/before/{round}"));
        std::fs::rename(&path, proxy.dir().join(format!("access.log.{round}"))).unwrap();
        client.get(&format!("/between/{round}"));
        proxy.signal(Signal::USR1);
        wait_until(PATIENCE, "the file is there again", || path.exists());
    }
    client.get("/after");
    proxy.wait_access("/after");
    let mut lines = std::fs::read_to_string(&path).unwrap().lines().count();
    for round in 0..3 {
        let old = proxy.dir().join(format!("access.log.{round}"));
        lines += std::fs::read_to_string(old).unwrap().lines().count();
    }
    assert_eq!(lines, 7);
    assert!(proxy.is_running());
}

#[test]
fn the_access_log_may_go_to_stdout_and_events_never_do() {
    let backend = Backend::start("a");
    let proxy = Proxy::start(&web(
        &[&backend],
        "[log]\naccess = \"stdout\"\nlevel = \"trace\"\n",
    ));
    get(proxy.addr("web"), "/out");
    wait_until(PATIENCE, "it is there", || !proxy.stdout_lines().is_empty());
    for line in proxy.stdout_lines() {
        let line: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(line["uri"], "/out");
    }
}

#[test]
fn an_access_log_that_nobody_reads_stops_no_request() {
    let _one = alone();
    let backend = Backend::start("a");
    let fifo = "[log]\naccess = { file = \"pipe\" }\n";
    let dir = tempfile::tempdir().unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(dir.path().join("pipe"))
        .status()
        .unwrap();
    assert!(made.success());
    // Opened for both, so that opening it does not wait; nobody reads.
    let _hold = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(dir.path().join("pipe"))
        .unwrap();
    let text = complete(&web(&[&backend], fifo), dir.path());
    std::fs::write(dir.path().join("lb.toml"), text).unwrap();
    let proxy = Proxy::spawn_in(dir);
    proxy.wait_ready();
    // Lines of 8 KiB, so that the pipe and the queue are soon full.
    let target = format!("/{}", "x".repeat(8_000));
    let running = Load::to(proxy.addr("web")).path(&target).start();
    wait_until(PATIENCE, "drops are counted", || {
        proxy.count("lbproxy_log_dropped_total", &[("log", "access")]) > 0
    });
    let done = running.done();
    wait_until(PATIENCE, "the load goes on", || {
        running.done() > done + 1_000
    });
    running.stop().assert_flawless();
}

/// Each request to it has a line of the log at this level: the backend refuses.
fn refused() -> (Port, String) {
    let port = Port::reserve("127.0.0.1");
    let config = format!(
        "log.level = \"debug\"\n[[listener]]\nname = \"web\"\naddress = \"127.0.0.1:0\"\ncluster = \"web\"\n\
         [cluster.web]\nbackends = [\"{}\"]\n",
        port.addr
    );
    (port, config)
}

#[test]
fn an_event_log_that_nobody_reads_stops_no_request_and_says_what_it_lost() {
    let _one = alone();
    let (_port, config) = refused();
    let proxy = Proxy::start_unread(&config);
    let mut client = Client::connect(proxy.addr("web"));
    let dropped = || proxy.count("lbproxy_log_dropped_total", &[("log", "events")]);
    wait_until(PATIENCE, "losses are counted", || {
        for _ in 0..500 {
            assert!(matches!(client.get("/").status, 502 | 503));
        }
        dropped() > 0
    });
    let lost = dropped();
    proxy.read_stderr();
    let said = format!("lines of this log are lost: stderr was not read fast enough lines={lost}");
    wait_until(PATIENCE, "the loss is said", || proxy.log().contains(&said));
    client.get("/");
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
    wait_until(PATIENCE, "the last lines are there", || {
        proxy
            .log()
            .lines()
            .any(|line| line.ends_with("INFO stopped"))
    });
    assert_eq!(proxy.log().matches("of this log are lost").count(), 1);
}

#[test]
fn an_event_log_that_nobody_reads_does_not_hold_up_the_end() {
    let (_port, config) = refused();
    let proxy = Proxy::start_unread(&config);
    let mut client = Client::connect(proxy.addr("web"));
    // More than the pipe holds.
    for _ in 0..2_000 {
        client.get("/");
    }
    proxy.signal(Signal::TERM);
    assert_eq!(proxy.wait_exit(PATIENCE).code(), Some(0));
}

#[test]
fn events_are_objects_where_json_is_asked_for_and_that_changes_live() {
    let backend = Backend::start("a");
    let base = web(&[&backend], "");
    let proxy = Proxy::start(&(base.clone() + "[log]\nformat = \"json\"\n"));
    wait_until(PATIENCE, "it is logged", || {
        proxy.log().contains("\"ready\"")
    });
    for line in proxy.log().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        // A start as root is warned of.
        assert!(
            event["level"] == "info" || event["level"] == "warn",
            "{line}"
        );
        assert!(
            event["time"].is_string() && event["message"].is_string(),
            "{line}"
        );
    }
    proxy.reload_ok(&base);
    wait_until(PATIENCE, "it is text again", || {
        proxy.log().contains(" INFO the configuration is applied")
    });
    proxy.signal(Signal::TERM);
    proxy.wait_exit(PATIENCE);
    wait_until(PATIENCE, "durations are readable", || {
        proxy.log().contains("INFO stopping delay=0s")
    });
}
