//! The text as a whole: a golden one, and a strict reader of version 0.0.4.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use super::*;
use crate::admin::members::tests::report;
use crate::model::health::Health;
use crate::snapshot::fixture::{cluster, endpoint, listener, snapshot};
use crate::telemetry::exposition::{Format, encode};

fn text(format: Format, snapshot: Snapshot) -> String {
    let process = ProcessMetrics::default();
    process.config_generation.add(3);
    process.reloads_ok.add(2);
    process.reloads_rejected.add(1);
    process.access_log_dropped.add(5);
    let scrape = Scrape {
        snapshot: Arc::new(snapshot),
        process: Arc::new(process),
        started: UNIX_EPOCH + Duration::from_millis(1_500),
        gossip: Some(Arc::new(report())),
    };
    encode(format, move |families| scrape.write(families)).unwrap()
}

/// One listener and two backends, one of them down, with counts on both workers; a listener and a backend depart.
fn sample() -> Snapshot {
    let web = listener("web", "127.0.0.1:8080");
    for (worker, requests) in [(0, 3), (1, 4)] {
        let sheet = web.metrics.sheet(worker);
        sheet.connections.add(2);
        sheet.connections_ended.add(1);
        sheet.bytes_in.add(100);
        sheet.bytes_out.add(1_000);
        for _ in 0..requests {
            sheet.requests.increment(200);
            sheet.duration.observe(Duration::from_millis(2));
        }
    }
    web.metrics.sheet(1).requests.increment(404);
    web.metrics.sheet(1).rejected[Reason::NoRoute.index()].increment();

    let (good, bad) = (
        endpoint("app", "10.0.0.1:80"),
        endpoint("app", "10.0.0.2:80"),
    );
    bad.backend.set_health(Health::CHECK_DOWN);
    good.backend.start();
    for (worker, requests) in [(0, 3), (1, 4)] {
        let sheet = good.metrics.sheet(worker);
        sheet.connections.increment();
        sheet.errors[BackendError::Reset.index()].increment();
        for _ in 0..requests {
            sheet.requests.increment(200);
            sheet.response.observe(Duration::from_millis(1));
        }
    }
    let app = cluster("app", vec![good, bad]);
    app.metrics.sheet(0).retries[RetryReason::Connect.index()].add(2);

    let mut snapshot = snapshot(9, vec![web], vec![Arc::new(app)]);
    let old = ListenerMetrics::new("old".into(), 1);
    old.sheet(0).connections.add(8);
    // One that came back under its name while it drained is shown once.
    let same = ListenerMetrics::new("web".into(), 1);
    snapshot.departing.listeners = vec![Arc::new(old), Arc::new(same)];
    snapshot.departing.endpoints = vec![
        endpoint("gone", "10.0.0.9:80"),
        endpoint("app", "10.0.0.1:80"),
    ];
    snapshot
}

const GOLDEN: &str = r#"# HELP lbproxy_connections_total Connections accepted.
# TYPE lbproxy_connections_total counter
lbproxy_connections_total{listener="web"} 4
lbproxy_connections_total{listener="old"} 8
# HELP lbproxy_connections_active Client connections open now.
# TYPE lbproxy_connections_active gauge
lbproxy_connections_active{listener="web"} 2
lbproxy_connections_active{listener="old"} 8
# HELP lbproxy_requests_total Requests answered, by status code.
# TYPE lbproxy_requests_total counter
lbproxy_requests_total{listener="web",code="200"} 7
lbproxy_requests_total{listener="web",code="404"} 1
# HELP lbproxy_request_duration_seconds Request head complete to answer sent.
# TYPE lbproxy_request_duration_seconds histogram
lbproxy_request_duration_seconds_sum{listener="web"} 0.014
lbproxy_request_duration_seconds_count{listener="web"} 7
lbproxy_request_duration_seconds_sum{listener="old"} 0.0
lbproxy_request_duration_seconds_count{listener="old"} 0
# HELP lbproxy_bytes_total Bytes from clients (in) and to clients (out).
# TYPE lbproxy_bytes_total counter
lbproxy_bytes_total{listener="web",direction="in"} 200
lbproxy_bytes_total{listener="web",direction="out"} 2000
lbproxy_bytes_total{listener="old",direction="in"} 0
lbproxy_bytes_total{listener="old",direction="out"} 0
# HELP lbproxy_rejected_total Requests and connections that the proxy refused, cut or answered with an error itself.
# TYPE lbproxy_rejected_total counter
lbproxy_rejected_total{listener="web",reason="no_route"} 1
# HELP lbproxy_route_requests_total Requests that a named route took, by status code.
# TYPE lbproxy_route_requests_total counter
# HELP lbproxy_backend_requests_total Answers of a backend, by status code.
# TYPE lbproxy_backend_requests_total counter
lbproxy_backend_requests_total{cluster="app",backend="10.0.0.1:80",code="200"} 7
# HELP lbproxy_backend_response_seconds Request sent to response head.
# TYPE lbproxy_backend_response_seconds histogram
lbproxy_backend_response_seconds_sum{cluster="app",backend="10.0.0.1:80"} 0.007
lbproxy_backend_response_seconds_count{cluster="app",backend="10.0.0.1:80"} 7
# HELP lbproxy_backend_connections_total Connections opened to a backend.
# TYPE lbproxy_backend_connections_total counter
lbproxy_backend_connections_total{cluster="app",backend="10.0.0.1:80"} 2
lbproxy_backend_connections_total{cluster="app",backend="10.0.0.2:80"} 0
lbproxy_backend_connections_total{cluster="gone",backend="10.0.0.9:80"} 0
# HELP lbproxy_backend_in_flight Requests and sessions that are with a backend now.
# TYPE lbproxy_backend_in_flight gauge
lbproxy_backend_in_flight{cluster="app",backend="10.0.0.1:80"} 1
lbproxy_backend_in_flight{cluster="app",backend="10.0.0.2:80"} 0
lbproxy_backend_in_flight{cluster="gone",backend="10.0.0.9:80"} 0
# HELP lbproxy_backend_errors_total Failures of a backend.
# TYPE lbproxy_backend_errors_total counter
lbproxy_backend_errors_total{cluster="app",backend="10.0.0.1:80",reason="reset"} 2
# HELP lbproxy_backend_up 1 if a backend is healthy, else 0.
# TYPE lbproxy_backend_up gauge
lbproxy_backend_up{cluster="app",backend="10.0.0.1:80"} 1
lbproxy_backend_up{cluster="app",backend="10.0.0.2:80"} 0
lbproxy_backend_up{cluster="gone",backend="10.0.0.9:80"} 1
# HELP lbproxy_retries_total Requests that were tried once more.
# TYPE lbproxy_retries_total counter
lbproxy_retries_total{cluster="app",reason="connect"} 2
# HELP lbproxy_cluster_panic 1 while all backends of a cluster are used because too few are healthy.
# TYPE lbproxy_cluster_panic gauge
lbproxy_cluster_panic{cluster="app"} 0
# HELP lbproxy_log_dropped_total Log lines that were lost.
# TYPE lbproxy_log_dropped_total counter
lbproxy_log_dropped_total{log="access"} 5
lbproxy_log_dropped_total{log="events"} 0
# HELP lbproxy_config_reloads_total Reloads of the configuration.
# TYPE lbproxy_config_reloads_total counter
lbproxy_config_reloads_total{result="ok"} 2
lbproxy_config_reloads_total{result="rejected"} 1
# HELP lbproxy_config_generation Configuration files applied, the first included.
# TYPE lbproxy_config_generation gauge
lbproxy_config_generation 3
# HELP lbproxy_config_last_reload_success 1 if the newest configuration is the one in use, else 0.
# TYPE lbproxy_config_last_reload_success gauge
lbproxy_config_last_reload_success 0
# HELP lbproxy_panics_total Panics that were caught.
# TYPE lbproxy_panics_total counter
lbproxy_panics_total 0
# HELP lbproxy_build_info Always 1; the version is a label.
# TYPE lbproxy_build_info gauge
lbproxy_build_info{version="VERSION"} 1
"#;

#[test]
fn golden() {
    let seen = text(Format::Text, sample());
    let kept: String = seen
        .split_inclusive('\n')
        .filter(|line| {
            !["_bucket{", "process_", "_gossip_"]
                .iter()
                .any(|part| line.contains(part))
        })
        .collect();
    let golden = GOLDEN.replace("VERSION", env!("CARGO_PKG_VERSION"));
    for (line, expected) in kept.lines().zip(golden.lines()) {
        assert_eq!(line, expected);
    }
    assert_eq!(kept.len(), golden.len());
    assert!(seen.contains("\nprocess_start_time_seconds 1.5\n"));
    assert!(seen.contains("\nprocess_resident_memory_bytes "));
}

#[test]
fn the_text_is_valid() {
    let families = parse(&text(Format::Text, sample()));
    let (kind, series) = &families["lbproxy_request_duration_seconds"];
    assert_eq!(kind, "histogram");
    assert_eq!(series.len(), 2 * 38);
    let (kind, series) = &families["process_cpu_seconds_total"];
    assert_eq!((kind.as_str(), series.len()), ("counter", 1));
}

#[test]
fn open_metrics_differs_in_names_and_end_alone() {
    let plain = text(Format::Text, sample());
    let open = text(Format::OpenMetrics, sample());
    let body = open.strip_suffix("# EOF\n").unwrap();
    let mut counters = HashSet::new();
    for line in plain.lines() {
        if let Some(name) = line
            .strip_prefix("# TYPE ")
            .and_then(|l| l.strip_suffix("_total counter"))
        {
            counters.insert(name.to_owned());
        }
    }
    let fixed = |text: &str| -> String {
        text.lines()
            // What the process uses changes from one moment to the next.
            .filter(|l| !l.starts_with("process_"))
            .map(|line| {
                let mut words = line.splitn(4, ' ').map(str::to_owned).collect::<Vec<_>>();
                if words[0] == "#" && counters.contains(&words[2]) {
                    words[2].push_str("_total");
                }
                words.join(" ") + "\n"
            })
            .collect()
    };
    assert_eq!(fixed(body), fixed(&plain));
}

#[test]
fn names_cannot_break_out_of_their_labels() {
    let odd = listener("a\"} 1\nb\\{", "127.0.0.1:1");
    let families = parse(&text(Format::Text, snapshot(1, vec![odd], Vec::new())));
    let (_, series) = &families["lbproxy_connections_total"];
    let (labels, _) = series.iter().next().unwrap();
    assert_eq!(
        labels.1,
        [("listener".to_owned(), "a\"} 1\nb\\{".to_owned())]
    );
}

#[test]
fn ten_thousand_backends() {
    let endpoints: Vec<_> = (0..10_000)
        .map(|i| endpoint("app", &format!("10.0.{}.{}:80", i / 250, i % 250 + 1)))
        .collect();
    for e in &endpoints {
        e.metrics.sheet(0).requests.increment(200);
    }
    let many = snapshot(1, Vec::new(), vec![Arc::new(cluster("app", endpoints))]);
    let families = parse(&text(Format::Text, many));
    assert_eq!(families["lbproxy_backend_up"].1.len(), 10_000);
    assert_eq!(
        families["lbproxy_backend_response_seconds"].1.len(),
        380_000
    );
}

type LabelPairs = Vec<(String, String)>;
type SeriesKey = (String, LabelPairs);
type Parsed = BTreeMap<String, (String, HashMap<SeriesKey, f64>)>;

/// Reads version 0.0.4 and panics at whatever its description does not allow, and at what we promise beyond it:
/// HELP, then TYPE, then all series of a family, each family and each series once, cumulative buckets whose last is
/// the count.
fn parse(text: &str) -> Parsed {
    assert!(text.ends_with('\n'));
    let mut families = Parsed::new();
    let (mut helped, mut family) = (String::new(), String::new());
    for line in text.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, words) = help.split_once(' ').unwrap();
            assert!(!words.is_empty() && !families.contains_key(name), "{line}");
            helped = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').unwrap();
            assert_eq!(name, helped, "HELP comes first");
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            families.insert(name.to_owned(), (kind.to_owned(), HashMap::new()));
            family = name.to_owned();
        } else {
            assert!(!line.starts_with('#') && !line.is_empty(), "{line}");
            let (key, value) = parse_series(line);
            let (kind, series) = families.get_mut(&family).unwrap();
            let suffix = key
                .0
                .strip_prefix(family.as_str())
                .expect("a series of its family");
            match kind.as_str() {
                "histogram" => assert!(["_bucket", "_sum", "_count"].contains(&suffix), "{line}"),
                _ => assert_eq!(suffix, "", "{line}"),
            }
            assert!(series.insert(key, value).is_none(), "twice: {line}");
        }
    }
    for (name, (kind, series)) in &families {
        if kind == "histogram" {
            check_histograms(name, series);
        }
    }
    families
}

fn parse_series(line: &str) -> (SeriesKey, f64) {
    let name_end = line.find(['{', ' ']).unwrap();
    let (name, mut rest) = line.split_at(name_end);
    assert!(
        name.bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
    );
    let mut labels = Vec::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        loop {
            let (key, after) = rest.split_once("=\"").unwrap();
            assert!(key.bytes().all(|b| b.is_ascii_lowercase()), "{line}");
            let (value, after) = parse_value(after);
            labels.push((key.to_owned(), value));
            match after.strip_prefix(',') {
                Some(more) => rest = more,
                None => {
                    rest = after.strip_prefix('}').expect("the end of the labels");
                    break;
                }
            }
        }
    }
    let value = rest.strip_prefix(' ').unwrap();
    assert!(!value.contains(' '), "{line}");
    ((name.to_owned(), labels), value.parse().unwrap())
}

/// The text up to the closing quote, and what comes behind it.
fn parse_value(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.push(match chars.next().unwrap().1 {
                'n' => '\n',
                c @ ('\\' | '"') => c,
                other => panic!("\\{other} is no escape"),
            }),
            c => value.push(c),
        }
    }
    panic!("no closing quote in {text}");
}

fn check_histograms(name: &str, series: &HashMap<SeriesKey, f64>) {
    let mut buckets: HashMap<LabelPairs, Vec<(f64, f64)>> = HashMap::new();
    for ((series_name, labels), &value) in series {
        if !series_name.ends_with("_bucket") {
            continue;
        }
        let (le, others): (Vec<_>, Vec<_>) = labels.iter().cloned().partition(|l| l.0 == "le");
        assert_eq!(le.len(), 1);
        buckets
            .entry(others)
            .or_default()
            .push((le[0].1.parse().unwrap(), value));
    }
    for (labels, mut buckets) in buckets {
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(
            buckets
                .windows(2)
                .all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1)
        );
        let last = buckets.last().unwrap();
        assert_eq!(last.0, f64::INFINITY);
        assert_eq!(series[&(format!("{name}_count"), labels.clone())], last.1);
        assert!(series[&(format!("{name}_sum"), labels)] >= 0.0);
    }
}
