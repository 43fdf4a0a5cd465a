//! What valid texts mean, and the defaults.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::{REST, config};
use crate::config::schema::{AccessLog, LogFormat, LogLevel};
use crate::model::page::Page;
use crate::model::route_action::RouteAction;
use crate::model::settings::TrustedProxies;
use crate::model::settings::{
    Check, CheckKind, ClusterSettings, ClusterTimeouts, CountOrShare, HashKey, ListenerLimits,
    ListenerTimeouts, OnDown, OnUp, Policy, Protocol, Resolve, Retry,
};
use crate::route::rule::{HostPattern, PathPattern, ValuePattern};

const S: Duration = Duration::from_secs(1);

// The defaults once more, in numbers: those of the declarations must not change by accident.

fn listener_timeouts() -> ListenerTimeouts {
    ListenerTimeouts {
        header: 10 * S,
        idle: 75 * S,
        request_body: 30 * S,
        write: 30 * S,
        tunnel: 3600 * S,
    }
}

fn listener_limits() -> ListenerLimits {
    ListenerLimits {
        connections: None,
        connections_per_client: None,
        header_bytes: 32 << 10,
        headers: 100,
        uri_bytes: 8 << 10,
        body_bytes: 1 << 40,
        trailer_bytes: 8 << 10,
    }
}

fn cluster_timeouts() -> ClusterTimeouts {
    ClusterTimeouts {
        connect: S,
        response: 30 * S,
        body: 300 * S,
        idle: 30 * S,
    }
}

fn default_retry() -> Retry {
    Retry {
        attempts: 2,
        on_connect: true,
        on_reset: true,
        on_timeout: false,
    }
}

#[test]
fn defaults_of_structs_are_what_an_empty_table_means() {
    assert_eq!(ListenerTimeouts::default(), listener_timeouts());
    assert_eq!(ListenerLimits::default(), listener_limits());
    assert_eq!(ClusterTimeouts::default(), cluster_timeouts());
    assert_eq!(
        ClusterSettings::default(),
        config(REST).clusters[0].settings
    );
}

#[test]
fn defaults() {
    let config = config(REST);
    assert_eq!(config.workers, None);
    assert_eq!(config.drain_timeout, 30 * S);
    assert_eq!(config.shutdown_delay, Duration::ZERO);
    assert!(config.watch && config.admin.is_none());
    assert_eq!(config.log.level, LogLevel::Info);
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.log.access, AccessLog::Off);
    let listener = &config.listeners[0];
    assert_eq!(listener.name, ":8080");
    assert_eq!(listener.protocol, Protocol::Http);
    assert_eq!(listener.timeouts, listener_timeouts());
    assert_eq!(listener.limits, listener_limits());
    assert_eq!(listener.trusted_proxies, TrustedProxies::default());
    let cluster = &config.clusters[0];
    let settings = &cluster.settings;
    assert_eq!(settings.policy, Policy::RoundRobin);
    assert_eq!(
        (&settings.hash_key, settings.hash_seed),
        (&HashKey::ClientIp, 0)
    );
    let resolve = Resolve {
        every: 10 * S,
        one: false,
    };
    assert_eq!(settings.resolve, resolve);
    assert_eq!(settings.check, None);
    assert_eq!(settings.timeouts, cluster_timeouts());
    assert_eq!(settings.retry, default_retry());
    assert_eq!(settings.idle_connections, 256);
    assert_eq!(settings.panic_threshold, Some(0.0));
    assert_eq!(
        (settings.on_down, settings.on_up),
        (OnDown::Keep, OnUp::Keep)
    );
    assert_eq!(
        (cluster.backends[0].weight, cluster.backends[0].backup),
        (1, false)
    );
}

#[test]
fn the_full_sample_shows_the_defaults() {
    let full = config(include_str!("../../../config/full.toml"));
    let web = &full.listeners[0];
    assert_eq!(web.timeouts, listener_timeouts());
    let limits = ListenerLimits {
        connections: Some(10_000),
        connections_per_client: Some(CountOrShare::Share(0.5)),
        ..listener_limits()
    };
    assert_eq!(web.limits, limits);
    assert_eq!(
        web.trusted_proxies.networks,
        ["10.0.0.0/8".parse().unwrap()]
    );
    assert_eq!(full.workers, Some(2));
    assert_eq!(full.admin, Some("127.0.0.1:9900".parse().unwrap()));
    assert_eq!(
        full.log.access,
        AccessLog::File(PathBuf::from("access.log"))
    );
    let names: Vec<&str> = full
        .clusters
        .iter()
        .map(|cluster| cluster.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "web",
            "api",
            "shop",
            "thumbnails",
            "postgres",
            "mysql",
            "ssh",
            "redis",
            "smtp"
        ],
        "in the order of the file"
    );
    let cluster = &full.clusters[0];
    assert_eq!(cluster.settings.timeouts, cluster_timeouts());
    assert_eq!(cluster.settings.retry, default_retry());
    assert_eq!(
        (
            cluster.settings.resolve.every,
            cluster.settings.idle_connections
        ),
        (10 * S, 256)
    );
    let backends: Vec<(String, u32, bool)> = cluster
        .backends
        .iter()
        .map(|backend| (backend.address.to_string(), backend.weight, backend.backup))
        .collect();
    assert_eq!(
        backends,
        [
            ("10.0.0.1:8080".to_owned(), 1, false),
            ("10.0.0.2:8080".to_owned(), 3, false),
            ("10.0.0.3:8080".to_owned(), 1, true),
            ("web.internal:8080".to_owned(), 1, false),
        ]
    );
    assert_eq!(
        full.clusters[1].settings.hash_key,
        HashKey::Header("x-user".to_owned())
    );
}

#[test]
fn routes_of_the_full_sample() {
    let full = config(include_str!("../../../config/full.toml"));
    let [first, second, .., third, fourth] = &full.routes[..] else {
        panic!("at least four routes");
    };
    assert_eq!(first.name, "api");
    assert_eq!(first.listeners, Some(vec!["web".to_owned()]));
    assert_eq!(
        first.rule.hosts,
        [HostPattern::Exact("api.example.com".to_owned())]
    );
    assert!(matches!(&first.rule.paths[..], [PathPattern::Below(path)] if path == "/v1"));
    assert_eq!(first.rule.methods, ["GET", "HEAD"]);
    assert_eq!(
        first.rule.headers,
        [("x-canary".to_owned(), ValuePattern::Exact("1".to_owned()))]
    );
    assert_eq!(
        first.rule.query,
        [("v".to_owned(), ValuePattern::Present(true))]
    );
    assert_eq!(first.rule.clients.len(), 2);
    assert_eq!(first.rule.target, RouteAction::Cluster("api".to_owned()));
    assert_eq!(first.timeout, Some(30 * S));
    assert!(
        matches!(&second.rule.paths[..], [PathPattern::Regex(regex)] if regex.is_match(b"/v12/x"))
    );
    assert_eq!((&second.listeners, second.timeout), (&None, None));
    let redirect = RouteAction::Redirect {
        to: "https://www.example.org{uri}".to_owned(),
        status: 308,
    };
    assert_eq!(third.rule.target, redirect);
    let respond = RouteAction::Respond {
        status: 200,
        fields: "Cache-Control: no-store\r\n".into(),
        page: Some(Arc::new(Page {
            content_type: "text/plain; charset=utf-8".to_owned(),
            body: b"pong"[..].into(),
        })),
    };
    assert_eq!(
        (fourth.name.as_str(), &fourth.rule.target),
        ("/ping", &respond)
    );
}

#[test]
fn a_route_without_a_name_is_called_by_its_hosts_and_paths() {
    let names = |route: &str| {
        config(&format!("[[route]]\n{route}\nrespond = {{}}\n{REST}")).routes[0]
            .name
            .clone()
    };
    for (route, name) in [
        ("name = 'a b'\nhost = 'x'", "a b"),
        ("host = 'X.y'\npath = '/z/*'", "X.y/z/*"),
        ("host = ['a', '*.b']\npath = ['/x', '/y*']", "a,*.b/x,/y*"),
        ("path_regex = '^/x'", "^/x"),
        ("method = 'GET'", ""),
    ] {
        assert_eq!(names(route), name);
    }
}

#[test]
fn one_value_is_a_list_of_one() {
    let rules = |route: &str| {
        let config = config(&format!("[[route]]\n{route}\nrespond = {{}}\n{REST}"));
        let rule = &config.routes[0].rule;
        format!(
            "{:?} {:?} {:?} {:?} {:?}",
            rule.hosts, rule.paths, rule.methods, rule.clients, config.routes[0].listeners
        )
    };
    assert_eq!(
        rules("host = 'a'\npath = '/b'\nmethod = 'GET'\nclient = '10.0.0.1'\nlisteners = ':8080'"),
        rules(
            "host = ['a']\npath = ['/b']\nmethod = ['GET']\nclient = ['10.0.0.1']\nlisteners = [':8080']"
        ),
    );
}

#[test]
fn pairs_of_hosts_and_paths_are_bounded() {
    let list = |start: &str, count: usize| {
        let entries: Vec<String> = (0..count).map(|n| format!("'{start}{n}'")).collect();
        entries.join(",")
    };
    let errors = |hosts, paths| {
        let (hosts, paths) = (list("h", hosts), list("/p", paths));
        let text = format!("[[route]]\nhost = [{hosts}]\npath = [{paths}]\nrespond = {{}}\n{REST}");
        crate::config::load::load(&text).config.is_none()
    };
    assert!(!errors(100, 100));
    assert!(errors(100, 101));
}

#[test]
fn defaults_of_answers() {
    let config = config(&format!(
        "[[route]]\npath = '/'\nrespond = {{}}\n[[route]]\nmethod = ['GET']\nredirect = {{ to = '/' }}\n{REST}"
    ));
    let (empty, default) = (&config.routes[0].rule.target, &config.routes[1].rule.target);
    let status = |action: &RouteAction<String>| match action {
        RouteAction::Respond {
            status, page: None, ..
        } => *status,
        RouteAction::Redirect { status, .. } => *status,
        _ => 0,
    };
    assert_eq!((status(empty), status(default)), (200, 308));
}

#[test]
fn a_check_has_the_default_of_each_key_that_is_absent() {
    let check = |check: &str| {
        config(&format!("{REST}check = {check}")).clusters[0]
            .settings
            .check
            .clone()
    };
    let default = Check {
        kind: CheckKind::Http {
            path: "/healthz".to_owned(),
            host: None,
            status: vec![(200, 299)],
            expect: None,
        },
        interval: 2 * S,
        timeout: S,
        rise: 2,
        fall: 3,
        port: None,
    };
    assert_eq!(check("{ http = '/healthz' }"), Some(default.clone()));
    let one = Check {
        rise: 5,
        ..default.clone()
    };
    assert_eq!(check("{ http = '/healthz', rise = 5 }"), Some(one));
    let tcp = Check {
        kind: CheckKind::Tcp,
        port: Some(81),
        ..default.clone()
    };
    assert_eq!(check("{ tcp = true, port = 81 }"), Some(tcp));
    let statuses = Check {
        kind: CheckKind::Http {
            path: "/?a=1".to_owned(),
            host: Some("web:81".to_owned()),
            status: vec![(200, 299), (200, 200), (301, 308), (404, 404)],
            expect: None,
        },
        ..default
    };
    let text = "{ http = '/?a=1', host = 'web:81', status = ['2xx', '200', '301-308', 404] }";
    assert_eq!(check(text), Some(statuses));
    let kind = |text: &str| check(text).unwrap().kind;
    let body = kind("{ http = '/', expect = 'ok' }");
    assert!(matches!(body, CheckKind::Http { expect: Some(text), .. } if text == "ok"));
    let exchange = |send: &str, expect: &str| CheckKind::Exchange {
        send: send.to_owned(),
        expect: expect.to_owned(),
    };
    assert_eq!(
        kind("{ send = \"PING\\r\\n\", expect = 'PONG' }"),
        exchange("PING\r\n", "PONG")
    );
    assert_eq!(kind("{ expect = '220 ' }"), exchange("", "220 "));
    let user = || "lb".to_owned();
    assert_eq!(
        kind("{ postgres = 'lb' }"),
        CheckKind::Postgres { user: user() }
    );
    assert_eq!(kind("{ mysql = 'lb' }"), CheckKind::Mysql { user: user() });
    assert_eq!(kind("{ redis = true }"), CheckKind::Redis);
}

#[test]
fn policies_and_hash_keys() {
    let cluster = |lines: &str| config(&format!("{REST}{lines}")).clusters.remove(0);
    for (word, policy) in [
        ("round_robin", Policy::RoundRobin),
        ("weighted", Policy::RoundRobin),
        ("least_connections", Policy::LeastConnections),
        ("consistent_hash", Policy::ConsistentHash),
        ("random", Policy::Random),
        ("power_of_two", Policy::PowerOfTwo),
    ] {
        assert_eq!(
            cluster(&format!("policy = '{word}'")).settings.policy,
            policy
        );
    }
    for (text, key) in [
        ("'client_ip'", HashKey::ClientIp),
        ("'path'", HashKey::Path),
        ("'uri'", HashKey::Uri),
        (
            "{ header = 'X-User' }",
            HashKey::Header("x-user".to_owned()),
        ),
        ("{ cookie = 'Sid' }", HashKey::Cookie("Sid".to_owned())),
        ("{ query = 'id' }", HashKey::Query("id".to_owned())),
    ] {
        let lines = format!(
            "policy = 'consistent_hash'\nhash_key = {text}\nhash_seed = 9223372036854775807"
        );
        let cluster = cluster(&lines);
        assert_eq!(
            (cluster.settings.hash_key, cluster.settings.hash_seed),
            (key, i64::MAX as u64)
        );
    }
}

#[test]
fn retries_ratios_and_small_heads() {
    let cluster = |lines: &str| config(&format!("{REST}{lines}")).clusters.remove(0);
    let retry = cluster("retry = { on = ['timeout'], attempts = 3 }")
        .settings
        .retry;
    let expected = Retry {
        attempts: 3,
        on_connect: false,
        on_reset: false,
        on_timeout: true,
    };
    assert_eq!(retry, expected);
    assert_eq!(
        cluster("panic_threshold = 0.5").settings.panic_threshold,
        Some(0.5)
    );
    assert_eq!(
        cluster("panic_threshold = false").settings.panic_threshold,
        None
    );
    assert_eq!(cluster("on_down = 'drain'").settings.on_down, OnDown::Drain);
    assert_eq!(cluster("on_up = 'stay'").settings.on_up, OnUp::Stay);
    assert_eq!(
        cluster("panic_threshold = 1").settings.panic_threshold,
        Some(1.0)
    );
    let small = config(
        "[[listener]]\naddress = ':1'\ncluster = 'a'\nlimits.header_bytes = '4KiB'\n[cluster.a]\nbackends = ['a:1']",
    );
    let limits = &small.listeners[0].limits;
    assert_eq!(
        (limits.header_bytes, limits.uri_bytes),
        (4096, 4096),
        "a target fits into its head"
    );
}

#[test]
fn forms_of_a_share() {
    for (form, share) in [
        ("0.5", Some(0.5)),
        ("1", Some(1.0)),
        ("'50%'", Some(0.5)),
        ("'2.5%'", Some(0.025)),
        ("'0%'", Some(0.0)),
        ("'100%'", Some(1.0)),
        ("false", None),
    ] {
        let config = config(&format!("{REST}panic_threshold = {form}\n"));
        assert_eq!(config.clusters[0].settings.panic_threshold, share, "{form}");
    }
}

#[test]
fn forms_of_the_access_log() {
    let file = || AccessLog::File(PathBuf::from("a.log"));
    for (form, access, query) in [
        ("'off'", AccessLog::Off, true),
        ("'stdout'", AccessLog::Stdout, true),
        ("{ to = 'stdout' }", AccessLog::Stdout, true),
        ("{ to = 'off', query = true }", AccessLog::Off, true),
        ("{ to = 'stdout', query = false }", AccessLog::Stdout, false),
        ("{ file = 'a.log' }", file(), true),
        ("{ file = 'a.log', query = false }", file(), false),
    ] {
        let config = config(&format!("log.access = {form}\n{REST}"));
        assert_eq!(
            (config.log.access, config.log.access_query),
            (access, query),
            "{form}"
        );
    }
}

#[test]
fn addresses_and_forms_of_toml() {
    let config = config(
        "\u{feff}admin.address = 'unix:/run/lb.sock'\r\nlog.access = 'stdout'\r\nlog.format = 'json'\r\n\
         listener = [{ address = '[0::1]:0', cluster = 'b', trusted_proxies = ['10.0.0.1', 'fd00::/8'] }]\r\n\
         cluster = { b = { backends = ['A.B:80', '[::1]:80'] } }\r\n",
    );
    assert_eq!(config.admin, Some("unix:/run/lb.sock".parse().unwrap()));
    assert_eq!(config.log.access, AccessLog::Stdout);
    assert_eq!(config.log.format, LogFormat::Json);
    assert_eq!(config.listeners[0].name, "[::1]:0");
    let networks: Vec<String> = config.listeners[0]
        .trusted_proxies
        .networks
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(networks, ["10.0.0.1/32", "fd00::/8"]);
    let backends: Vec<String> = config.clusters[0]
        .backends
        .iter()
        .map(|b| b.address.to_string())
        .collect();
    assert_eq!(backends, ["a.b:80", "[::1]:80"]);
}
