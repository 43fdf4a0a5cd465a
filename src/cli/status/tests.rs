//! Tables of responses, responses that are not from a proxy, and drawing.

use serde_json::{Value, json};

use super::*;

fn backend(address: &str, state: &str, reason: &str) -> Value {
    json!({
        "address": address, "weight": 3, "backup": false, "state": state, "reason": reason,
        "since": "2026-11-30T10:00:00.000Z", "addresses": ["10.0.0.1:80"], "in_flight": 2,
        "requests_total": 1000, "connections_total": 20, "errors_total": 4,
    })
}

fn status() -> Value {
    let mut first = backend("10.0.0.1:80", "up", "check passed: status 200");
    first["response_p50_seconds"] = json!(0.0042);
    first["response_p99_seconds"] = json!(1.5);
    let mut second = backend("b:80", "down", "check failed: timeout");
    second["backup"] = json!(true);
    let mut gone = backend("10.0.0.9:80", "draining", "up");
    gone["cluster"] = json!("web");
    json!({
        "version": "0.1.0", "pid": 7, "started": "2026-11-30T09:00:00.000Z", "uptime_seconds": 3661,
        "generation": 4, "snapshot": 9, "readiness": "ready", "workers": 2,
        "listeners": [{
            "name": "front", "address": ":80", "bound": ["[::]:80", "127.0.0.1:81"], "protocol": "http",
            "connections_active": 1, "connections_total": 2, "requests_total": 3,
        }],
        "clusters": [
            { "name": "web", "policy": "random", "panic": true, "backends": [first, second] },
            { "name": "api", "policy": "random", "panic": false, "standby": true, "backends": [] },
        ],
        "departing": { "listeners": [{ "name": "old", "connections_active": 5 }], "backends": [gone] },
        "gossip": {},
    })
}

fn view(cluster: Option<&str>, json: bool) -> View {
    View {
        cluster: cluster.map(str::to_owned),
        json,
        rates: None,
    }
}

fn looked(view: &mut View, code: u16, body: &str) -> Result<String, Failure> {
    let target = "127.0.0.1:9900".parse().unwrap();
    let code = StatusCode::from_u16(code).unwrap();
    view.show(Ok((code, body.as_bytes().to_vec())), &target)
}

#[test]
fn listeners_and_backends_are_shown_as_tables() {
    let body = status().to_string();
    let expected = "\
lbproxy 0.1.0, process 7, ready for 1h1m1s, generation 4 of the file

LISTENER  ADDRESS                PROTOCOL  ACTIVE  CONNECTIONS  REQUESTS
front     [::]:80, 127.0.0.1:81  http      1       2            3
old       removed                -         5       -            -

cluster web: too few backends are healthy, so all are used

cluster api: backups have taken over and retain all traffic (on_up = \"stay\")

CLUSTER  BACKEND      STATE     SINCE  WEIGHT      ACTIVE  REQUESTS  ERRORS  P50    P99   WHY
web      10.0.0.1:80  up        1m1s   3           2       1000      4       4.2ms  1.5s  check passed: status 200
web      b:80         down      1m1s   3 (backup)  2       1000      4       -      -     check failed: timeout
web      10.0.0.9:80  draining  1m1s   3           2       1000      4       -      -     up
";
    assert_eq!(
        looked(&mut view(None, false), 200, &body).unwrap(),
        expected
    );
    let web = looked(&mut view(Some("web"), false), 200, &body).unwrap();
    assert!(
        !web.contains("LISTENER") && web.contains("10.0.0.9:80"),
        "{web}"
    );
    let api = looked(&mut view(Some("api"), false), 200, &body).unwrap();
    assert_eq!(api.lines().count(), 5, "{api}");
    assert!(!api.contains("web"), "{api}");
}

#[test]
fn a_missing_cluster_is_exit_code_3() {
    for json in [false, true] {
        let error = looked(&mut view(Some("wbe"), json), 200, &status().to_string()).unwrap_err();
        assert!(matches!(error, Failure::NotThere(_)), "{error:?}");
        assert_eq!(
            error.to_string(),
            "the proxy has no cluster \"wbe\"; it has web, api"
        );
    }
}

#[test]
fn json_is_the_response_or_one_cluster_of_it() {
    let body = status().to_string();
    let all = looked(&mut view(None, true), 200, &body).unwrap();
    assert_eq!(all, format!("{body}\n"));
    let one = looked(&mut view(Some("web"), true), 200, &body).unwrap();
    assert_eq!(one.lines().count(), 1);
    let one: Value = serde_json::from_str(&one).unwrap();
    assert_eq!(one, status()["clusters"][0]);
}

#[test]
fn rates_are_those_between_two_responses() {
    let mut view = view(None, false);
    view.rates = Some(Rates::default());
    let first = looked(&mut view, 200, &status().to_string()).unwrap();
    assert!(
        first.contains("REQUESTS  RATE  ERRORS") && first.contains("1000      -     4"),
        "{first}"
    );
    view.rates.as_mut().unwrap().at = Instant::now().checked_sub(Duration::from_secs(2));
    let mut later = status();
    later["clusters"][0]["backends"][0]["requests_total"] = json!(1500);
    // The proxy has restarted, so its count is lower.
    later["clusters"][0]["backends"][1]["requests_total"] = json!(1);
    let text = looked(&mut view, 200, &later.to_string()).unwrap();
    let rates: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("web "))
        .filter_map(|line| line.split_whitespace().find(|cell| cell.ends_with("/s")))
        .collect();
    // Less than 250, because the test itself takes time.
    assert!(
        rates[0].starts_with("24") || rates[0] == "250.0/s",
        "{text}"
    );
    assert_eq!(rates[1..], ["0.0/s", "0.0/s"], "{text}");
}

#[test]
fn text_of_a_response_is_escaped() {
    let odd = "\u{1b}[2J\r\n\u{9b}1m\u{7f}\u{202e}\u{200b}";
    let text = status()
        .to_string()
        .replace("\"10.0.0.1:80\",\"addresses", "\"10.0.0.1:80\",\"x");
    let mut value: Value = serde_json::from_str(&text).unwrap();
    fn spoil(value: &mut Value, odd: &str) {
        match value {
            Value::String(text) => *text = odd.to_owned(),
            Value::Array(all) => all.iter_mut().for_each(|value| spoil(value, odd)),
            Value::Object(all) => all.values_mut().for_each(|value| spoil(value, odd)),
            _ => {}
        }
    }
    spoil(&mut value, odd);
    let mut all = looked(&mut view(None, false), 200, &value.to_string()).unwrap();
    all += &looked(&mut view(Some("x"), false), 200, &value.to_string())
        .unwrap_err()
        .to_string();
    let wild = |c: char| (c.is_control() && c != '\n') || ['\u{202e}', '\u{200b}'].contains(&c);
    assert!(!all.contains(wild), "{all:?}");
    assert!(all.contains(r"\u{1b}[2J\r\n"), "{all}");
}

#[test]
fn other_servers_are_distinguished_from_proxies() {
    for (code, body) in [
        (404, "no such page".to_owned()),
        (200, "<html>".to_owned()),
        (200, "{}".to_owned()),
        (500, status().to_string()),
        (
            200,
            status().to_string().replace("\"pid\":7", "\"pid\":\"7\""),
        ),
        (200, "[".repeat(1 << 20)),
    ] {
        let error = looked(&mut view(None, true), code, &body).unwrap_err();
        let said = error.to_string();
        assert!(
            said.starts_with(&format!("127.0.0.1:9900: status {code}")),
            "{said}"
        );
        assert!(matches!(error, Failure::Failed(_)));
    }
}

#[test]
fn extreme_numbers_are_shown() {
    let mut odd = status();
    odd["uptime_seconds"] = json!(u64::MAX);
    odd["clusters"][0]["backends"][0]["since"] = json!("9999-12-31T23:59:59Z");
    odd["clusters"][0]["backends"][0]["response_p50_seconds"] = json!(1e308);
    odd["clusters"][0]["backends"][0]["response_p99_seconds"] = json!(-1.0);
    let text = looked(&mut view(None, false), 200, &odd.to_string()).unwrap();
    assert!(text.contains("9999-12-31T23:59:59Z"), "{text}");
    for (seconds, expected) in [
        (None, "-"),
        (Some(f64::NAN), "-"),
        (Some(0.00031), "0.31ms"),
        (Some(0.0099), "9.9ms"),
        (Some(0.12), "120ms"),
        (Some(60.0), "60.0s"),
        (Some(f64::MAX), "9999.0s"),
    ] {
        assert_eq!(latency(seconds), expected);
    }
}

#[test]
fn long_tables_are_truncated() {
    let mut large = status();
    let one = backend("10.0.0.1:80", "up", "up");
    large["clusters"][1]["backends"] = json!(vec![one; MAX_ROWS + 5]);
    let text = looked(&mut view(Some("api"), false), 200, &large.to_string()).unwrap();
    assert!(text.ends_with("5 more are not shown; select a cluster, or use --json\n"));
    assert_eq!(text.lines().count(), MAX_ROWS + 6);
}

#[test]
fn intervals_have_a_range() {
    assert_eq!(interval("500ms"), Ok(Duration::from_millis(500)));
    for text in ["0s", "2", "2h", "x", "1ms"] {
        assert!(
            interval(text)
                .unwrap_err()
                .ends_with("from \"100ms\" to \"1h\""),
            "{text}"
        );
    }
}
